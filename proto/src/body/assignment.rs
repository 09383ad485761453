//! Broker-side rebalancing and POP acknowledgements.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{MessageModel, MessageQueue, constants, json_bodies};

constants! {
    /// How a group takes messages.
    MessageRequestMode {
        /// By pulling.
        Pull = "PULL" @ 0,
        /// By popping.
        Pop = "POP" @ 1,
    }
}

/// Asks which queues a client gets (400).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueryAssignmentRequestBody {
    /// The client.
    pub client_id: String,
    /// Its group.
    pub consumer_group: String,
    /// Whether the group shares the messages.
    pub message_model: MessageModel,
    /// `AVG` or `AVG_BY_CIRCLE`.
    pub strategy_name: Option<String>,
    /// The topic.
    pub topic: String,
}

/// Queues a client gets (400).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueryAssignmentResponseBody {
    /// The queues.
    pub message_queue_assignments: Vec<MessageQueueAssignment>,
}

/// A queue a client gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MessageQueueAssignment {
    /// Further data.
    pub attachments: Option<BTreeMap<String, String>>,
    /// The queue.
    pub message_queue: MessageQueue,
    /// How to take its messages.
    pub mode: MessageRequestMode,
}

/// Sets how a group takes messages (401).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SetMessageRequestModeRequestBody {
    /// The group.
    pub consumer_group: String,
    /// How.
    pub mode: MessageRequestMode,
    /// Members that share a queue; 0 is all.
    pub pop_share_queue_num: i32,
    /// The topic.
    pub topic: String,
}

/// Several acknowledgements (200151).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BatchAckMessageRequestBody {
    /// The acknowledgements.
    pub acks: Vec<BatchAck>,
    /// The broker group.
    pub broker_name: Option<String>,
}

/// Messages of one pop that are acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BatchAck {
    /// Base64 of a little-endian bit set: bit i acknowledges offset `startOffset` + i.
    #[serde(rename = "b", alias = "bitSet")]
    pub bit_set: String,
    /// The group.
    #[serde(rename = "c", alias = "consumerGroup")]
    pub consumer_group: String,
    /// ms the messages are invisible.
    #[serde(rename = "it", alias = "invisibleTime")]
    pub invisible_time: i64,
    /// When they were popped, in ms.
    #[serde(rename = "pt", alias = "popTime")]
    pub pop_time: i64,
    /// Queue within the topic.
    #[serde(rename = "q", alias = "queueId")]
    pub queue_id: i32,
    /// `0`, `1` or `2`: no, old or new retry topic.
    #[serde(rename = "r", alias = "retry")]
    pub retry: String,
    /// Queue of the revive topic.
    #[serde(rename = "rq", alias = "reviveQueueId")]
    pub revive_queue_id: i32,
    /// Offset of bit 0.
    #[serde(rename = "so", alias = "startOffset")]
    pub start_offset: i64,
    /// The topic.
    #[serde(rename = "t", alias = "topic")]
    pub topic: String,
}

json_bodies!(
    QueryAssignmentRequestBody,
    QueryAssignmentResponseBody,
    SetMessageRequestModeRequestBody,
    BatchAckMessageRequestBody,
);
