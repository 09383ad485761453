//! Heartbeats and subscriptions.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{MessageQueue, constants, json_bodies};
use crate::filter::{FilterError, TagFilter};
use crate::message::tags_code;

constants! {
    /// Who moves messages to the consumer.
    ConsumeType {
        /// The client pulls and hands on (push consumer).
        ConsumePassively = "CONSUME_PASSIVELY" @ 1,
        /// The application pulls.
        ConsumeActively = "CONSUME_ACTIVELY" @ 0,
        /// The client pops.
        ConsumePop = "CONSUME_POP" @ 2,
    }

    /// Whether members of a group share the messages.
    MessageModel {
        /// Each message goes to one member.
        Clustering = "CLUSTERING" @ 1,
        /// Each message goes to every member.
        Broadcasting = "BROADCASTING" @ 0,
    }

    /// Where a group without saved offset begins.
    ConsumeFromWhere {
        /// At the end of the queue.
        ConsumeFromLastOffset = "CONSUME_FROM_LAST_OFFSET" @ 0,
        /// Old name of the same.
        ConsumeFromLastOffsetAndFromMinWhenBootFirst =
            "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST" @ 1,
        /// Old name of the beginning.
        ConsumeFromMinOffset = "CONSUME_FROM_MIN_OFFSET" @ 2,
        /// Old name of the end.
        ConsumeFromMaxOffset = "CONSUME_FROM_MAX_OFFSET" @ 3,
        /// At the beginning of the queue.
        ConsumeFromFirstOffset = "CONSUME_FROM_FIRST_OFFSET" @ 4,
        /// At a time.
        ConsumeFromTimestamp = "CONSUME_FROM_TIMESTAMP" @ 5,
    }
}

/// What a client tells a broker about itself (34).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeartbeatData {
    /// The client.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// Its consumers.
    pub consumer_data_set: Vec<ConsumerData>,
    /// Hash of the content; 0 from clients that send whole heartbeats only.
    pub heartbeat_fingerprint: i32,
    /// Its producers.
    pub producer_data_set: Vec<ProducerData>,
    /// Whether subscriptions are left out, being the same as last time.
    pub without_sub: bool,
}

/// A producer of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerData {
    /// Its group.
    pub group_name: String,
}

/// A consumer of a client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerData {
    /// Where it begins without saved offset.
    pub consume_from_where: ConsumeFromWhere,
    /// Push, pull or pop.
    pub consume_type: ConsumeType,
    /// Its group.
    pub group_name: String,
    /// Whether the group shares the messages.
    pub message_model: MessageModel,
    /// What it wants.
    pub subscription_data_set: Vec<SubscriptionData>,
    /// Whether it belongs to one deployment unit.
    pub unit_mode: bool,
}

/// Expression type of tag expressions.
pub const EXPRESSION_TAG: &str = "TAG";
/// Expression type of SQL expressions over properties.
pub const EXPRESSION_SQL92: &str = "SQL92";

/// What a consumer wants of one topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionData {
    /// Filtering by a class, which no broker supports any more.
    pub class_filter_mode: bool,
    /// Java hash codes of the tags.
    pub code_set: BTreeSet<i32>,
    /// [`EXPRESSION_TAG`] or [`EXPRESSION_SQL92`]; old clients leave it out.
    pub expression_type: String,
    /// The expression as given.
    pub sub_string: String,
    /// When the subscription was made, in ms: the later one counts.
    pub sub_version: i64,
    /// The tags.
    pub tags_set: BTreeSet<String>,
    /// The topic.
    pub topic: String,
}

impl Default for SubscriptionData {
    fn default() -> Self {
        SubscriptionData {
            class_filter_mode: false,
            code_set: BTreeSet::new(),
            expression_type: EXPRESSION_TAG.to_owned(),
            sub_string: String::new(),
            sub_version: 0,
            tags_set: BTreeSet::new(),
            topic: String::new(),
        }
    }
}

impl SubscriptionData {
    /// The subscription to a tag expression (RocketMQ: `FilterAPI`), made at a time in ms.
    ///
    /// # Errors
    /// When the expression has separators but no tag.
    pub fn of_tags(topic: &str, expression: &str, version: i64) -> Result<Self, FilterError> {
        let (sub_string, tags_set) = match TagFilter::parse(expression)? {
            TagFilter::All => ("*", BTreeSet::new()),
            TagFilter::Tags { tags, .. } => (expression, tags),
        };
        let code = |tag: &String| i32::try_from(tags_code(tag)).unwrap_or_default();
        Ok(SubscriptionData {
            code_set: tags_set.iter().map(code).collect(),
            sub_string: sub_string.to_owned(),
            sub_version: version,
            tags_set,
            topic: topic.to_owned(),
            ..SubscriptionData::default()
        })
    }

    /// Whether the expression is one of tags.
    pub fn is_tag_type(&self) -> bool {
        self.expression_type.is_empty() || self.expression_type == EXPRESSION_TAG
    }
}

/// Client ids of a group (38).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerListBody {
    /// The client ids.
    pub consumer_id_list: Vec<String>,
}

/// A subscription to be checked (46).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CheckClientRequestBody {
    /// The client.
    pub client_id: String,
    /// Its group.
    pub group: String,
    /// Its namespace.
    pub namespace: Option<String>,
    /// What it wants.
    pub subscription_data: Option<SubscriptionData>,
}

/// Queues to be locked (41) or released (42).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LockBatchRequestBody {
    /// The client that wants them.
    pub client_id: String,
    /// Its group.
    pub consumer_group: String,
    /// The queues.
    pub mq_set: BTreeSet<MessageQueue>,
    /// Whether other brokers are left out.
    pub only_this_broker: bool,
}

/// The same members as for locking.
pub type UnlockBatchRequestBody = LockBatchRequestBody;

/// Queues that are locked now (41).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockBatchResponseBody {
    /// The queues.
    #[serde(rename = "lockOKMQSet")]
    pub lock_ok_mq_set: BTreeSet<MessageQueue>,
}

json_bodies!(
    HeartbeatData,
    ConsumerData,
    SubscriptionData,
    ConsumerListBody,
    CheckClientRequestBody,
    LockBatchRequestBody,
    LockBatchResponseBody,
);
