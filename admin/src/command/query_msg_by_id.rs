//! `queryMsgById`: the messages with these ids, be they offset message ids or unique keys.

use std::collections::BTreeSet;

use raftmq_client::{Admin, KeyQuery, MessageExt};
use raftmq_proto::message::id;

use super::message_text::{self, Charset};
use super::{Call, Command, Running, tracks};
use crate::options::{Need, Opt};

/// How far back a unique key is looked for, as in the original.
const UNIQUE_KEY_DAYS: i64 = 3;

pub(crate) const COMMAND: Command = Command {
    name: "queryMsgById",
    class: "QueryMsgByIdSubCommand",
    description: "Query Message by Id.",
    own_options: &[
        Opt::value("t", "topic", Need::Required, "topic name"),
        Opt::value("i", "msgId", Need::Required, "Message Id"),
        Opt::value(
            "f",
            "bodyFormat",
            Need::Optional,
            "print message body by the specified format",
        ),
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
    let topic = given.value("t").unwrap_or_default();
    let charset = given.value("f").map(Charset::named).transpose()?;
    let ids = given.value("i").unwrap_or_default().split(',');
    let mut messages = Vec::new();
    for id in ids.map(str::trim).filter(|id| !id.is_empty()) {
        messages.push(find(call.admin, topic, id, given.value("c")).await?);
    }
    if call.json(|| message_text::list_as_json(&messages))? {
        return Ok(());
    }
    for message in &messages {
        show(&mut call, message, charset).await?;
    }
    Ok(())
}

/// An id of 32 digits may be of either kind: it is an offset message id if there is a broker at the
/// address in it.
async fn find(
    admin: &Admin,
    topic: &str,
    id: &str,
    cluster: Option<&str>,
) -> anyhow::Result<MessageExt> {
    if let Ok((address, offset)) = id::parse_offset_message_id(id) {
        let address = address.to_string();
        let groups = admin.cluster_info().await?.broker_addr_table.into_values();
        let known: BTreeSet<String> = groups
            .flat_map(|group| group.broker_addrs.into_values())
            .collect();
        if known.contains(&address) {
            return Ok(admin.message_at(&address, topic, offset).await?);
        }
    }
    let since = raftmq_client::local_time::now_ms() - UNIQUE_KEY_DAYS * 24 * 3_600_000;
    let query = KeyQuery {
        topic: topic.to_owned(),
        key: id.to_owned(),
        is_unique: true,
        max: 32,
        begin_ms: since,
        end_ms: i64::MAX,
        cluster: cluster.map(ToOwned::to_owned),
    };
    let found = admin.messages_by_key(&query).await?;
    let first = found.into_iter().next();
    first.ok_or_else(|| anyhow::anyhow!("Message not found!"))
}

/// Prints a message and who has consumed it.
pub(super) async fn show(
    call: &mut Call<'_>,
    message: &MessageExt,
    charset: Option<Charset>,
) -> anyhow::Result<()> {
    let body = message_text::save_body(message, 0)?;
    let text = message_text::with_id(message, &body.to_string_lossy(), charset);
    write!(call.out, "{text}\n\n")?;
    let tracks = tracks::of(call.admin, message).await?;
    if tracks.is_empty() {
        writeln!(call.out, "WARN: No Consumer")?;
    }
    for track in tracks {
        writeln!(call.out, "{track}")?;
    }
    Ok(())
}
