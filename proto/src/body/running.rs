//! What consumers tell about themselves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{MessageQueue, SubscriptionData, constants, json_bodies};

constants! {
    /// How consuming a message ended.
    CmResult {
        /// Done.
        Success = "CR_SUCCESS" @ 0,
        /// To be retried.
        Later = "CR_LATER" @ 1,
        /// Rolled back.
        Rollback = "CR_ROLLBACK" @ 2,
        /// Committed.
        Commit = "CR_COMMIT" @ 3,
        /// The listener threw.
        ThrowException = "CR_THROW_EXCEPTION" @ 4,
        /// The listener returned nothing.
        ReturnNull = "CR_RETURN_NULL" @ 5,
    }
}

/// State of a consumer (307).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerRunningInfo {
    /// Stack traces, where asked for.
    pub jstack: Option<String>,
    /// Queues it pops from.
    pub mq_pop_table: BTreeMap<MessageQueue, PopProcessQueueInfo>,
    /// Queues it pulls from.
    pub mq_table: BTreeMap<MessageQueue, ProcessQueueInfo>,
    /// Its settings.
    pub properties: BTreeMap<String, String>,
    /// Its speed by topic.
    pub status_table: BTreeMap<String, ConsumeStatus>,
    /// What it wants.
    pub subscription_set: Vec<SubscriptionData>,
    /// Whatever the application adds.
    pub user_consumer_info: BTreeMap<String, String>,
}

/// State of a queue at its consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProcessQueueInfo {
    /// Messages held.
    pub cached_msg_count: i32,
    /// Highest offset held.
    pub cached_msg_max_offset: i64,
    /// Lowest offset held.
    pub cached_msg_min_offset: i64,
    /// MiB held.
    #[serde(rename = "cachedMsgSizeInMiB")]
    pub cached_msg_size_in_mib: i32,
    /// Saved offset.
    pub commit_offset: i64,
    /// Whether it was given up.
    pub droped: bool,
    /// When it was last consumed from, in ms.
    pub last_consume_timestamp: i64,
    /// When it was last locked, in ms.
    pub last_lock_timestamp: i64,
    /// When it was last pulled from, in ms.
    pub last_pull_timestamp: i64,
    /// Whether it is locked for ordered consumption.
    pub locked: bool,
    /// Messages of a transaction held.
    pub transaction_msg_count: i32,
    /// Highest offset of those.
    pub transaction_msg_max_offset: i64,
    /// Lowest offset of those.
    pub transaction_msg_min_offset: i64,
    /// How often releasing it failed.
    pub try_unlock_times: i64,
}

/// State of a popped queue at its consumer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PopProcessQueueInfo {
    /// Whether it was given up.
    pub droped: bool,
    /// When it was last popped from, in ms.
    pub last_pop_timestamp: i64,
    /// Messages not acknowledged.
    pub wait_ack_count: i32,
}

/// Speed of consumption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsumeStatus {
    /// Messages failed in the last hour.
    #[serde(rename = "consumeFailedMsgs")]
    pub consume_failed_msgs: i64,
    /// Messages failed per second.
    #[serde(rename = "consumeFailedTPS")]
    pub consume_failed_tps: f64,
    /// Messages consumed per second.
    #[serde(rename = "consumeOKTPS")]
    pub consume_ok_tps: f64,
    /// ms to consume one.
    #[serde(rename = "consumeRT")]
    pub consume_rt: f64,
    /// ms to pull.
    #[serde(rename = "pullRT")]
    pub pull_rt: f64,
    /// Messages pulled per second.
    #[serde(rename = "pullTPS")]
    pub pull_tps: f64,
}

/// How a message was consumed at once (309).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeMessageDirectlyResult {
    /// Whether an ordered consumer commits by itself.
    pub auto_commit: bool,
    /// How it ended.
    pub consume_result: CmResult,
    /// Whether the consumer is an ordered one.
    pub order: bool,
    /// What went wrong.
    pub remark: Option<String>,
    /// ms it took.
    pub spent_time_mills: i64,
}

impl Default for ConsumeMessageDirectlyResult {
    fn default() -> Self {
        ConsumeMessageDirectlyResult {
            auto_commit: true,
            consume_result: CmResult::Success,
            order: false,
            remark: None,
            spent_time_mills: 0,
        }
    }
}

/// An offset that was out of its queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OffsetMovedEvent {
    /// The group.
    pub consumer_group: String,
    /// The queue.
    pub message_queue: MessageQueue,
    /// The offset it got.
    pub offset_new: i64,
    /// The offset it asked for.
    pub offset_request: i64,
}

json_bodies!(
    ConsumerRunningInfo,
    ConsumeMessageDirectlyResult,
    OffsetMovedEvent
);
