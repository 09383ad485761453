//! Topics and queues.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{constants, json_bodies};

constants! {
    /// How many tags a message of a topic may have.
    TopicFilterType {
        /// One.
        SingleTag = "SINGLE_TAG" @ 0,
        /// Several.
        MultiTag = "MULTI_TAG" @ 1,
    }
}

/// Permission bits of topics and brokers (RocketMQ: `PermName`).
pub mod perm {
    /// Readable by lower broker ids first.
    pub const PRIORITY: i32 = 8;
    /// Readable.
    pub const READ: i32 = 4;
    /// Writable.
    pub const WRITE: i32 = 2;
    /// New topics may take over its settings.
    pub const INHERIT: i32 = 1;

    /// Whether the permission lets clients read.
    pub fn is_readable(perm: i32) -> bool {
        perm & READ != 0
    }

    /// Whether the permission lets clients write.
    pub fn is_writable(perm: i32) -> bool {
        perm & WRITE != 0
    }

    /// Whether new topics may take over the settings.
    pub fn is_inherited(perm: i32) -> bool {
        perm & INHERIT != 0
    }
}

/// Topic system flag bit: the topic belongs to one deployment unit.
pub const TOPIC_SYS_FLAG_UNIT: i32 = 1;
/// Topic system flag bit: the topic is subscribed from one deployment unit.
pub const TOPIC_SYS_FLAG_UNIT_SUB: i32 = 2;

/// A topic's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfig {
    /// Further settings, such as `message.type`.
    pub attributes: BTreeMap<String, String>,
    /// Whether messages keep their order across broker changes.
    pub order: bool,
    /// Bits of [`perm`]; 6 is read and write.
    pub perm: i32,
    /// Queues consumers see.
    pub read_queue_nums: i32,
    /// How many tags messages have.
    pub topic_filter_type: TopicFilterType,
    /// The topic's name.
    pub topic_name: String,
    /// Bits `TOPIC_SYS_FLAG_…`.
    pub topic_sys_flag: i32,
    /// Queues producers see.
    pub write_queue_nums: i32,
}

impl Default for TopicConfig {
    fn default() -> Self {
        TopicConfig {
            attributes: BTreeMap::new(),
            order: false,
            perm: perm::READ | perm::WRITE,
            read_queue_nums: 16,
            topic_filter_type: TopicFilterType::SingleTag,
            topic_name: String::new(),
            topic_sys_flag: 0,
            write_queue_nums: 16,
        }
    }
}

impl TopicConfig {
    /// A topic with as many queues to read as to write.
    pub fn new(topic_name: impl Into<String>, queue_nums: i32, perm: i32) -> Self {
        TopicConfig {
            topic_name: topic_name.into(),
            read_queue_nums: queue_nums,
            write_queue_nums: queue_nums,
            perm,
            ..TopicConfig::default()
        }
    }
}

/// Several topics to create or change (18).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CreateTopicListRequestBody {
    /// The topics.
    pub topic_config_list: Vec<TopicConfig>,
}

/// State of a table that others hold copies of; copies are equal when all three are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataVersion {
    /// Counts the changes.
    pub counter: i64,
    /// Term of the leader: a nameserver refuses lower ones.
    pub state_version: i64,
    /// When the last change was made, in ms.
    pub timestamp: i64,
}

impl DataVersion {
    /// Notes a change made at a time in ms, under a term.
    pub fn advance(&mut self, state_version: i64, now_ms: i64) {
        self.state_version = state_version;
        self.timestamp = now_ms;
        self.counter = self.counter.wrapping_add(1);
    }
}

/// All topics of a broker (21, and part of 103).
///
/// RocketMQ: `TopicConfigSerializeWrapper`, and `TopicConfigAndMappingSerializeWrapper` with the
/// members for static topics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfigSerializeWrapper {
    /// State of the table.
    pub data_version: DataVersion,
    /// State of the static topics.
    pub mapping_data_version: Option<DataVersion>,
    /// Topics by name.
    pub topic_config_table: BTreeMap<String, TopicConfig>,
    /// Static topics in detail.
    pub topic_queue_mapping_detail_map: Option<BTreeMap<String, TopicQueueMappingDetail>>,
    /// Static topics in short.
    pub topic_queue_mapping_info_map: Option<BTreeMap<String, TopicQueueMappingInfo>>,
}

/// A static topic in short.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicQueueMappingInfo {
    /// Broker name.
    pub bname: Option<String>,
    /// Logical to physical queue ids.
    pub curr_id_map: BTreeMap<i32, i32>,
    /// Whether the mapping is stale.
    pub dirty: bool,
    /// Version of the mapping.
    pub epoch: i64,
    /// Scope of the topic.
    pub scope: Option<String>,
    /// The topic.
    pub topic: Option<String>,
    /// Logical queues.
    pub total_queues: i32,
}

/// A static topic in detail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicQueueMappingDetail {
    /// Broker name.
    pub bname: Option<String>,
    /// Logical to physical queue ids.
    pub curr_id_map: BTreeMap<i32, i32>,
    /// Whether the mapping is stale.
    pub dirty: bool,
    /// Version of the mapping.
    pub epoch: i64,
    /// Logical queues this broker hosts.
    pub hosted_queues: BTreeMap<i32, Vec<LogicQueueMappingItem>>,
    /// Scope of the topic.
    pub scope: Option<String>,
    /// The topic.
    pub topic: Option<String>,
    /// Logical queues.
    pub total_queues: i32,
}

/// A stretch of a logical queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogicQueueMappingItem {
    /// Broker name.
    pub bname: Option<String>,
    /// Physical offset in the queue where it ends, -1 while open.
    pub end_offset: i64,
    /// Generation.
    #[serde(rename = "gen")]
    pub generation: i32,
    /// Logical offset of its start.
    pub logic_offset: i64,
    /// Physical queue.
    pub queue_id: i32,
    /// Physical offset in the queue of its start.
    pub start_offset: i64,
    /// When it ended, -1 while open.
    pub time_of_end: i64,
    /// When it started, -1 where unknown.
    pub time_of_start: i64,
}

impl Default for LogicQueueMappingItem {
    fn default() -> Self {
        LogicQueueMappingItem {
            bname: None,
            end_offset: -1,
            generation: 0,
            logic_offset: 0,
            queue_id: 0,
            start_offset: 0,
            time_of_end: -1,
            time_of_start: -1,
        }
    }
}

/// One topic (351).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfigAndQueueMapping {
    /// Its settings.
    #[serde(flatten)]
    pub topic_config: TopicConfig,
    /// Its mapping when it is static.
    pub mapping_detail: Option<TopicQueueMappingDetail>,
}

/// A queue of a broker group. As a map key it goes out as an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MessageQueue {
    /// The broker group.
    pub broker_name: String,
    /// Queue within the topic.
    pub queue_id: i32,
    /// The topic.
    pub topic: String,
}

impl MessageQueue {
    /// A queue.
    pub fn new(topic: impl Into<String>, broker_name: impl Into<String>, queue_id: i32) -> Self {
        MessageQueue {
            broker_name: broker_name.into(),
            queue_id,
            topic: topic.into(),
        }
    }
}

/// Topic names (206, 224, 304, 305, 343).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicList {
    /// A broker to ask for its system topics (304).
    pub broker_addr: Option<String>,
    /// The names.
    pub topic_list: BTreeSet<String>,
}

/// Group names (300).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupList {
    /// The names.
    pub group_list: BTreeSet<String>,
}

/// Text by name (28, 103, 219).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KvTable {
    /// The values.
    pub table: BTreeMap<String, String>,
}

json_bodies!(
    TopicConfig,
    CreateTopicListRequestBody,
    DataVersion,
    TopicConfigSerializeWrapper,
    TopicQueueMappingInfo,
    TopicQueueMappingDetail,
    TopicConfigAndQueueMapping,
    MessageQueue,
    TopicList,
    GroupList,
    KvTable,
);
