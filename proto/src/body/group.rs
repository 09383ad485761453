//! Subscription groups and consumer offsets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{DataVersion, MessageQueue, SubscriptionData, constants, json_bodies};

constants! {
    /// How the delay between retries grows.
    GroupRetryPolicyType {
        /// By a list of delays.
        Customized = "CUSTOMIZED" @ 1,
        /// By a factor.
        Exponential = "EXPONENTIAL" @ 0,
    }
}

/// Settings of a subscription group (200).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionGroupConfig {
    /// Further settings.
    pub attributes: BTreeMap<String, String>,
    /// Broker id to consume from.
    pub broker_id: i64,
    /// Whether members may consume as broadcast.
    pub consume_broadcast_enable: bool,
    /// Whether the group may consume.
    pub consume_enable: bool,
    /// Whether the group may begin at the lowest offset.
    pub consume_from_min_enable: bool,
    /// Whether POP keeps the order.
    pub consume_message_orderly: bool,
    /// Minutes until an unfinished message is given back.
    pub consume_timeout_minute: i32,
    /// The group's name.
    pub group_name: String,
    /// Delays between retries.
    pub group_retry_policy: GroupRetryPolicy,
    /// Group system flags.
    pub group_sys_flag: i32,
    /// Whether members are told when others come or go.
    pub notify_consumer_ids_changed_enable: bool,
    /// How often a message is retried before it is dead.
    pub retry_max_times: i32,
    /// Queues of the retry topic.
    pub retry_queue_nums: i32,
    /// Fixed subscriptions.
    pub subscription_data_set: Option<Vec<SimpleSubscriptionData>>,
    /// Broker id to consume from when the leader is behind.
    pub which_broker_when_consume_slowly: i64,
}

impl Default for SubscriptionGroupConfig {
    fn default() -> Self {
        SubscriptionGroupConfig {
            attributes: BTreeMap::new(),
            broker_id: super::MASTER_ID,
            consume_broadcast_enable: true,
            consume_enable: true,
            consume_from_min_enable: true,
            consume_message_orderly: false,
            consume_timeout_minute: 15,
            group_name: String::new(),
            group_retry_policy: GroupRetryPolicy::default(),
            group_sys_flag: 0,
            notify_consumer_ids_changed_enable: true,
            retry_max_times: 16,
            retry_queue_nums: 1,
            subscription_data_set: None,
            which_broker_when_consume_slowly: 1,
        }
    }
}

impl SubscriptionGroupConfig {
    /// A group with default settings.
    pub fn new(group_name: impl Into<String>) -> Self {
        SubscriptionGroupConfig {
            group_name: group_name.into(),
            ..Self::default()
        }
    }
}

/// Delays between retries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupRetryPolicy {
    /// The list.
    pub customized_retry_policy: Option<CustomizedRetryPolicy>,
    /// The factor.
    pub exponential_retry_policy: Option<ExponentialRetryPolicy>,
    /// Which of both counts.
    #[serde(rename = "type")]
    pub type_: GroupRetryPolicyType,
}

/// Delays that grow by a factor, in ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExponentialRetryPolicy {
    /// First delay.
    pub initial: i64,
    /// Longest delay.
    pub max: i64,
    /// Factor.
    pub multiplier: i64,
}

impl Default for ExponentialRetryPolicy {
    fn default() -> Self {
        ExponentialRetryPolicy {
            initial: 5_000,
            max: 7_200_000,
            multiplier: 2,
        }
    }
}

/// Delays by a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CustomizedRetryPolicy {
    /// Delays in ms; the last goes on for ever.
    pub next: Vec<i64>,
}

/// A fixed subscription of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SimpleSubscriptionData {
    /// The expression.
    pub expression: Option<String>,
    /// Its type.
    pub expression_type: Option<String>,
    /// The topic.
    pub topic: String,
    /// When it was made, in ms.
    pub version: i64,
}

/// Several groups to create or change (225).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionGroupList {
    /// The groups.
    pub group_config_list: Vec<SubscriptionGroupConfig>,
}

/// All subscription groups of a broker (201).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionGroupWrapper {
    /// State of the table.
    pub data_version: DataVersion,
    /// Topics that groups must not read.
    pub forbidden_table: BTreeMap<String, BTreeMap<String, i32>>,
    /// Groups by name.
    pub subscription_group_table: BTreeMap<String, SubscriptionGroupConfig>,
}

/// All consumer offsets of a broker (43).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerOffsetSerializeWrapper {
    /// State of the table.
    pub data_version: DataVersion,
    /// Offsets by `topic@group` and queue.
    pub offset_table: BTreeMap<String, BTreeMap<i32, i64>>,
}

/// Progress of the delay levels (45).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DelayOffsetSerializeWrapper {
    /// State of the table.
    pub data_version: DataVersion,
    /// Offsets by level.
    pub offset_table: BTreeMap<i32, i64>,
}

/// Whether a group may read a topic (353).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupForbidden {
    /// The group.
    pub group: String,
    /// Whether it may.
    pub readable: Option<bool>,
    /// The topic.
    pub topic: String,
}

/// A subscription of a group (345).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QuerySubscriptionResponseBody {
    /// The group.
    pub group: Option<String>,
    /// What it wants.
    pub subscription_data: Option<SubscriptionData>,
    /// The topic.
    pub topic: Option<String>,
}

/// Lowest offsets by queue (308).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueryCorrectionOffsetBody {
    /// The offsets.
    pub correction_offsets: BTreeMap<i32, i64>,
}

/// Offsets that were set (222) or are to be (220).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResetOffsetBody {
    /// Offsets by queue.
    pub offset_table: BTreeMap<MessageQueue, i64>,
}

/// The same for clients in C++ (220).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResetOffsetBodyForC {
    /// The offsets.
    pub offset_table: Vec<MessageQueueForC>,
}

/// A queue and an offset in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MessageQueueForC {
    /// The broker group.
    pub broker_name: String,
    /// The offset.
    pub offset: i64,
    /// Queue within the topic.
    pub queue_id: i32,
    /// The topic.
    pub topic: String,
}

/// What clients have consumed (221, 223).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GetConsumerStatusBody {
    /// Offsets by client and queue.
    pub consumer_table: BTreeMap<String, BTreeMap<MessageQueue, i64>>,
    /// Offsets of the client that answers.
    pub message_queue_table: BTreeMap<MessageQueue, i64>,
}

json_bodies!(
    SubscriptionGroupConfig,
    SubscriptionGroupList,
    SubscriptionGroupWrapper,
    ConsumerOffsetSerializeWrapper,
    DelayOffsetSerializeWrapper,
    GroupForbidden,
    QuerySubscriptionResponseBody,
    QueryCorrectionOffsetBody,
    ResetOffsetBody,
    ResetOffsetBodyForC,
    GetConsumerStatusBody,
);
