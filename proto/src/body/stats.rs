//! Offsets, lag and statistics.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{MessageQueue, SubscriptionData, json_bodies};

/// Bounds of a topic's queues (202).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicStatsTable {
    /// Bounds by queue.
    pub offset_table: BTreeMap<MessageQueue, TopicOffset>,
    /// Messages stored per second.
    pub topic_put_tps: f64,
}

/// Bounds of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicOffset {
    /// When the last message was stored, in ms; 0 without messages.
    pub last_update_timestamp: i64,
    /// Offset after the last message.
    pub max_offset: i64,
    /// Offset of the first message.
    pub min_offset: i64,
}

/// How far a group is (208).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeStats {
    /// Messages consumed per second.
    pub consume_tps: f64,
    /// Offsets by queue.
    pub offset_table: BTreeMap<MessageQueue, OffsetWrapper>,
}

/// How far a group is in one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OffsetWrapper {
    /// Offset after the last message.
    pub broker_offset: i64,
    /// Offset the group consumes next.
    pub consumer_offset: i64,
    /// When the message before that was stored, in ms.
    pub last_timestamp: i64,
    /// Offset the group pulls next.
    pub pull_offset: i64,
}

/// How far all groups are (317).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeStatsList {
    /// The broker.
    pub broker_addr: Option<String>,
    /// One map per group: its name to its statistics per topic.
    pub consume_stats_list: Vec<BTreeMap<String, Vec<ConsumeStats>>>,
    /// Messages not consumed.
    pub total_diff: i64,
    /// Messages pulled but not consumed.
    pub total_inflight_diff: i64,
}

/// A statistic over three spans of time (315).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerStatsData {
    /// The last day.
    pub stats_day: BrokerStatsItem,
    /// The last hour.
    pub stats_hour: BrokerStatsItem,
    /// The last minute.
    pub stats_minute: BrokerStatsItem,
}

/// A statistic over one span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerStatsItem {
    /// Average value of one event.
    pub avgpt: f64,
    /// Sum of the values.
    pub sum: i64,
    /// Events per second.
    pub tps: f64,
}

/// From when to when messages wait (303).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueryConsumeTimeSpanBody {
    /// One span per queue.
    pub consume_time_span_set: Vec<QueueTimeSpan>,
}

/// From when to when messages of a queue wait, in ms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueTimeSpan {
    /// Store time of the last consumed message.
    pub consume_time_stamp: i64,
    /// How long the next message has waited.
    pub delay_time: i64,
    /// Store time of the last message.
    pub max_time_stamp: i64,
    /// The queue.
    pub message_queue: MessageQueue,
    /// Store time of the first message.
    pub min_time_stamp: i64,
}

/// Units of a consume queue (321).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueryConsumeQueueResponseBody {
    /// The consumer's filter in words.
    pub filter_data: Option<String>,
    /// Offset after the last unit.
    pub max_queue_index: i64,
    /// Offset of the first unit.
    pub min_queue_index: i64,
    /// The units.
    pub queue_data: Vec<ConsumeQueueData>,
    /// What the consumer wants.
    pub subscription_data: Option<SubscriptionData>,
}

/// A unit of a consume queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeQueueData {
    /// Bit map of an extended filter.
    pub bit_map: Option<String>,
    /// Whether the message passes the consumer's filter.
    pub eval: bool,
    /// Further data as JSON.
    pub extend_data_json: Option<String>,
    /// A remark about the message.
    pub msg: Option<String>,
    /// Byte position of the record in the commit log.
    pub physic_offset: i64,
    /// Bytes of the record.
    pub physic_size: i32,
    /// Code of its tag.
    pub tags_code: i64,
}

/// State of replication (907).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HaRuntimeInfo {
    /// State of a follower.
    pub ha_client_runtime_info: Option<HaClientRuntimeInfo>,
    /// State of each follower, on the leader.
    pub ha_connection_info: Vec<HaConnectionRuntimeInfo>,
    /// Followers that keep up.
    pub in_sync_slave_nums: i32,
    /// Whether the broker is the leader.
    pub master: bool,
    /// End of the leader's commit log.
    pub master_commit_log_max_offset: i64,
}

/// A follower as its leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HaConnectionRuntimeInfo {
    /// The follower.
    pub addr: String,
    /// Bytes it lacks.
    pub diff: i64,
    /// Whether it keeps up.
    pub in_sync: bool,
    /// What it has acknowledged.
    pub slave_ack_offset: i64,
    /// Where its transfer stands.
    pub transfer_from_where: i64,
    /// Bytes per second sent to it.
    pub transferred_byte_in_second: i64,
}

/// A follower as it sees itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HaClientRuntimeInfo {
    /// When it last received, in ms.
    pub last_read_timestamp: i64,
    /// When it last sent, in ms.
    pub last_write_timestamp: i64,
    /// The leader.
    pub master_addr: Option<String>,
    /// What the leader has flushed.
    pub master_flush_offset: i64,
    /// End of its commit log.
    pub max_offset: i64,
    /// Bytes per second received.
    pub transferred_byte_in_second: i64,
}

json_bodies!(
    TopicStatsTable,
    ConsumeStats,
    ConsumeStatsList,
    BrokerStatsData,
    QueryConsumeTimeSpanBody,
    QueryConsumeQueueResponseBody,
    HaRuntimeInfo,
);
