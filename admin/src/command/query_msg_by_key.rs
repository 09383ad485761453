//! `queryMsgByKey`: the messages that have a key.

use raftmq_client::{KeyQuery, MessageExt};

use super::{Call, Command, Running, message_text};
use crate::options::{Need, Opt};

pub(crate) const COMMAND: Command = Command {
    name: "queryMsgByKey",
    class: "QueryMsgByKeySubCommand",
    description: "Query Message by Key.",
    own_options: &[
        Opt::value("t", "topic", Need::Required, "Topic name"),
        Opt::value("k", "msgKey", Need::Required, "Message Key"),
        Opt::value(
            "b",
            "beginTimestamp",
            Need::Optional,
            "Begin timestamp(ms). default:0, eg:1676730526212",
        ),
        Opt::value(
            "e",
            "endTimestamp",
            Need::Optional,
            "End timestamp(ms). default:Long.MAX_VALUE, eg:1676730526212",
        ),
        Opt::value(
            "m",
            "maxNum",
            Need::Optional,
            "The maximum number of messages returned by the query, default:64",
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
    let query = KeyQuery {
        topic: given.value("t").unwrap_or_default().to_owned(),
        key: given.value("k").unwrap_or_default().to_owned(),
        is_unique: false,
        max: given.number("m", 64)?,
        begin_ms: given.number("b", 0)?,
        end_ms: given.number("e", i64::MAX)?,
        cluster: given.value("c").map(ToOwned::to_owned),
    };
    let messages = call.admin.messages_by_key(&query).await?;
    if !call.json(|| message_text::list_as_json(&messages))? {
        write!(call.out, "{}", table(&messages))?;
    }
    Ok(())
}

fn table(messages: &[MessageExt]) -> String {
    let mut text = format!("{:<50} {:>4} {:>40}\n", "#Message ID", "#QID", "#Offset");
    for message in messages {
        text.push_str(&format!(
            "{:<50} {:>4} {:>40}\n",
            message.msg_id, message.queue_id, message.queue_offset
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_the_original_s() {
        let text = table(&[message_text::tests::message("ABC")]);
        let expected = format!(
            "#Message ID{:39} #QID {:>40}\nABC{:47}    3 {:>40}\n",
            "", "#Offset", "", 7
        );
        assert_eq!(text, expected);
    }
}
