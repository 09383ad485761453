//! `queryMsgByOffset`: the message at an offset of a queue.

use raftmq_client::{MessageQueue, PullStatus};

use super::message_text::{self, Charset};
use super::{Call, Command, Running, query_msg_by_id};
use crate::options::{Need, Opt};

pub(crate) const COMMAND: Command = Command {
    name: "queryMsgByOffset",
    class: "QueryMsgByOffsetSubCommand",
    description: "Query Message by offset.",
    own_options: &[
        Opt::value("t", "topic", Need::Required, "topic name"),
        Opt::value("b", "brokerName", Need::Required, "Broker Name"),
        Opt::value("i", "queueId", Need::Required, "Queue Id"),
        Opt::value("o", "offset", Need::Required, "Queue Offset"),
        Opt::value(
            "f",
            "bodyFormat",
            Need::Optional,
            "print message body by the specified format",
        ),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

async fn run(mut call: Call<'_>) -> anyhow::Result<()> {
    let given = call.given;
    let charset = given.value("f").map(Charset::named).transpose()?;
    let queue = MessageQueue::new(
        given.value("t").unwrap_or_default(),
        given.value("b").unwrap_or_default(),
        given.number("i", 0)?,
    );
    let mut pulled = call
        .admin
        .message_in_queue(&queue, given.number("o", 0)?)
        .await?;
    // As the original's client does with each message that it pulls.
    let bounds = [
        ("MIN_OFFSET", pulled.min_offset),
        ("MAX_OFFSET", pulled.max_offset),
    ];
    for message in &mut pulled.messages {
        let bounds = bounds.map(|(name, offset)| (name.to_owned(), offset.to_string()));
        message.properties.extend(bounds);
    }
    // The original prints nothing either when there is none.
    let message = match pulled.status {
        PullStatus::Found => pulled.messages.first(),
        PullStatus::NoNewMessage | PullStatus::NoMatchedMessage | PullStatus::OffsetIllegal => None,
    };
    if call.json(|| message.map(message_text::as_json).into())? {
        return Ok(());
    }
    match message {
        Some(message) => query_msg_by_id::show(&mut call, message, charset).await,
        None => Ok(()),
    }
}
