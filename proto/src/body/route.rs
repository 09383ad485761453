//! Routes and clusters, as nameservers tell them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{TopicQueueMappingInfo, json_bodies};

/// Broker id of the leader of a group.
pub const MASTER_ID: i64 = 0;

/// Where a topic lives (105).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicRouteData {
    /// The broker groups.
    pub broker_datas: Vec<BrokerData>,
    /// Always empty; old C++ clients want it to be there.
    pub filter_server_table: BTreeMap<String, Vec<String>>,
    /// Queues of an ordered topic, `brokerName:queues;…`.
    pub order_topic_conf: Option<String>,
    /// The topic's queues in each group.
    pub queue_datas: Vec<QueueData>,
    /// Static topics by broker name.
    pub topic_queue_mapping_by_broker: Option<BTreeMap<String, TopicQueueMappingInfo>>,
}

/// Queues of a topic in one broker group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueData {
    /// The group.
    pub broker_name: String,
    /// Bits of [`super::perm`].
    pub perm: i32,
    /// Queues consumers see.
    pub read_queue_nums: i32,
    /// Topic system flags.
    pub topic_sys_flag: i32,
    /// Queues producers see.
    pub write_queue_nums: i32,
}

/// A broker group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerData {
    /// Addresses by broker id; 0 is the leader's.
    pub broker_addrs: BTreeMap<i64, String>,
    /// Name of the group.
    pub broker_name: String,
    /// Cluster of the group.
    pub cluster: String,
    /// Whether the lowest id may stand in for a missing leader.
    pub enable_acting_master: bool,
    /// Zone of the group.
    pub zone_name: Option<String>,
}

/// All clusters and broker groups (106).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterInfo {
    /// Groups by name.
    pub broker_addr_table: BTreeMap<String, BrokerData>,
    /// Names of the groups of each cluster.
    pub cluster_addr_table: BTreeMap<String, BTreeSet<String>>,
}

/// Members of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerMemberGroup {
    /// Addresses by broker id.
    pub broker_addrs: BTreeMap<i64, String>,
    /// Name of the group.
    pub broker_name: String,
    /// Cluster of the group.
    pub cluster: String,
}

/// Members of one group (901).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GetBrokerMemberGroupResponseBody {
    /// The members.
    pub broker_member_group: BrokerMemberGroup,
}

json_bodies!(
    TopicRouteData,
    QueueData,
    BrokerData,
    ClusterInfo,
    BrokerMemberGroup,
    GetBrokerMemberGroupResponseBody,
);
