//! `queryMsgByUniqueKey`: the message that a producer gave this id.

use raftmq_client::{KeyQuery, MessageExt};

use super::{Call, Command, Running, message_text, tracks};
use crate::options::{Need, Opt};

/// Most messages of one unique key that are looked at, as in the original.
const MAX: i32 = 32;

pub(crate) const COMMAND: Command = Command {
    name: "queryMsgByUniqueKey",
    class: "QueryMsgByUniqueKeySubCommand",
    description: "Query Message by Unique key.",
    own_options: &[
        Opt::value("i", "msgId", Need::Required, "Message Id"),
        Opt::value("t", "topic", Need::Required, "The topic of msg"),
        Opt::flag("a", "showAll", "Print all message, the limit is 32"),
        Opt::value(
            "c",
            "cluster",
            Need::Optional,
            "Cluster name or lmq parent topic, lmq is used to find the route.",
        ),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

async fn run(mut call: Call<'_>) -> anyhow::Result<()> {
    let given = call.given;
    let query = KeyQuery {
        topic: given.value("t").unwrap_or_default().to_owned(),
        key: given.value("i").unwrap_or_default().to_owned(),
        is_unique: true,
        max: MAX,
        begin_ms: 0,
        end_ms: i64::MAX,
        cluster: given.value("c").map(ToOwned::to_owned),
    };
    let mut messages = call.admin.messages_by_key(&query).await?;
    messages.sort_by_key(|message| message.store_timestamp);
    if !given.has("a") {
        messages.truncate(1);
    }
    if call.json(|| message_text::list_as_json(&messages))? {
        return Ok(());
    }
    for (nth, message) in messages.iter().enumerate() {
        show(&mut call, message, nth).await?;
    }
    Ok(())
}

async fn show(call: &mut Call<'_>, message: &MessageExt, nth: usize) -> anyhow::Result<()> {
    let body = message_text::save_body(message, nth)?;
    let fields = message_text::fields(message, &body.to_string_lossy());
    write!(call.out, "{fields}\n\n")?;
    let tracks = tracks::of(call.admin, message).await?;
    if tracks.is_empty() {
        writeln!(call.out, "WARN: No Consumer")?;
    }
    for track in tracks {
        writeln!(call.out, "{track}")?;
    }
    Ok(())
}
