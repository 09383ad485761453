//! What became of a send.

use std::fmt;

use raftmq_proto::body::MessageQueue;
use raftmq_proto::code::response;
use raftmq_proto::header::{Header, SendMessageResponseHeader};

use crate::call::Answer;
use crate::error::{Error, Result};

/// Whether the broker did all it was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendStatus {
    /// Stored as demanded.
    SendOk,
    /// Stored, but not known to be on disk in time.
    FlushDiskTimeout,
    /// Stored, but no other member was there in time.
    FlushSlaveTimeout,
    /// Stored, but there is no other member.
    SlaveNotAvailable,
}

impl fmt::Display for SendStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendStatus::SendOk => "SEND_OK",
            SendStatus::FlushDiskTimeout => "FLUSH_DISK_TIMEOUT",
            SendStatus::FlushSlaveTimeout => "FLUSH_SLAVE_TIMEOUT",
            SendStatus::SlaveNotAvailable => "SLAVE_NOT_AVAILABLE",
        })
    }
}

/// What became of a send that was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendResult {
    /// Whether the broker did all it was asked to.
    pub status: SendStatus,
    /// The message's unique key; of a batch the keys of all messages, joined by commas.
    pub msg_id: String,
    /// Where the broker stored it: offset message id, of a batch all of them, joined by commas.
    pub offset_msg_id: String,
    /// The queue it is in.
    pub message_queue: MessageQueue,
    /// Position in the queue, of a batch that of its first message.
    pub queue_offset: i64,
    /// Handle by which a timer message can be recalled.
    pub recall_handle: Option<String>,
    /// Attempts it took. After more than one the message may be stored more than once, under the same
    /// unique key.
    pub attempts: u32,
}

/// The form in which RocketMQ's Java client prints the result of a send.
impl fmt::Display for SendResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SendResult [sendStatus={}, msgId={}, offsetMsgId={}, messageQueue=MessageQueue \
             [topic={}, brokerName={}, queueId={}], queueOffset={}, recallHandle={}]",
            self.status,
            self.msg_id,
            self.offset_msg_id,
            self.message_queue.topic,
            self.message_queue.broker_name,
            self.message_queue.queue_id,
            self.queue_offset,
            self.recall_handle.as_deref().unwrap_or("null"),
        )
    }
}

impl SendResult {
    /// Reads the answer to a send of the message with this unique key.
    pub(crate) fn read(msg_id: &str, queue: &MessageQueue, answer: Answer) -> Result<SendResult> {
        let header =
            SendMessageResponseHeader::decode(&answer.reply.ext_fields).map_err(|error| {
                Error::Unreadable {
                    address: answer.address.clone(),
                    reason: error.to_string(),
                }
            })?;
        let status = match answer.reply.code {
            response::FLUSH_DISK_TIMEOUT => SendStatus::FlushDiskTimeout,
            response::FLUSH_SLAVE_TIMEOUT => SendStatus::FlushSlaveTimeout,
            response::SLAVE_NOT_AVAILABLE => SendStatus::SlaveNotAvailable,
            _ => SendStatus::SendOk,
        };
        Ok(SendResult {
            status,
            msg_id: msg_id.to_owned(),
            offset_msg_id: header.msg_id,
            message_queue: MessageQueue {
                queue_id: header.queue_id,
                ..queue.clone()
            },
            queue_offset: header.queue_offset,
            recall_handle: header.recall_handle,
            attempts: answer.attempts,
        })
    }
}
