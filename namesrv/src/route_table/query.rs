//! What clients and tools ask the route table.

use std::collections::BTreeSet;

use raftmq_proto::body::{
    BrokerData, BrokerMemberGroup, ClusterInfo, MASTER_ID, QueueData, TOPIC_SYS_FLAG_UNIT,
    TOPIC_SYS_FLAG_UNIT_SUB, TopicList, TopicRouteData, perm,
};

use super::RouteTable;

/// Topics by which members of a group find each other are never answered with a stand-in for the leader.
const MEMBER_SYNC_PREFIX: &str = "rmq_sys_SYNC_BROKER_MEMBER_";

/// How a route is to be answered.
#[derive(Debug, Clone, Copy, Default)]
pub struct RouteQuery<'a> {
    /// The topic.
    pub topic: &'a str,
    /// Present the lowest id of a group without leader as its leader, where the group allows it (`supportActingMaster`).
    pub acting_master: bool,
    /// Only groups of this zone, and those without a leader.
    pub zone: Option<&'a str>,
}

impl RouteTable {
    /// The route of a topic (105), if a broker has it.
    pub fn route(&self, query: RouteQuery<'_>) -> Option<TopicRouteData> {
        let queues = self.topics.get(query.topic)?;
        let groups = queues.keys().filter_map(|name| self.groups.get(name));
        let mut route = TopicRouteData {
            broker_datas: groups.map(|group| group.data.clone()).collect(),
            queue_datas: queues.values().cloned().collect(),
            topic_queue_mapping_by_broker: self.mappings.get(query.topic).cloned(),
            ..TopicRouteData::default()
        };
        if route.broker_datas.is_empty() {
            return None;
        }
        if query.acting_master && !query.topic.starts_with(MEMBER_SYNC_PREFIX) {
            for group in &mut route.broker_datas {
                stand_in(group, &route.queue_datas);
            }
        }
        if let Some(zone) = query.zone {
            keep_zone(&mut route, zone);
        }
        Some(route)
    }

    /// All clusters and groups (106).
    pub fn cluster_info(&self) -> ClusterInfo {
        let groups = self
            .groups
            .iter()
            .map(|(name, group)| (name.clone(), group.data.clone()));
        ClusterInfo {
            broker_addr_table: groups.collect(),
            cluster_addr_table: self.clusters.clone(),
        }
    }

    /// Members of a group (901); none if it is unknown.
    pub fn member_group(&self, cluster: &str, broker_name: &str) -> BrokerMemberGroup {
        let members = self
            .groups
            .get(broker_name)
            .map(|group| group.data.broker_addrs.clone());
        BrokerMemberGroup {
            broker_addrs: members.unwrap_or_default(),
            broker_name: broker_name.to_owned(),
            cluster: cluster.to_owned(),
        }
    }

    /// All topics (206).
    pub fn topic_list(&self) -> TopicList {
        self.topics_where(|_| true)
    }

    /// Topics of a cluster (224); none if it is unknown.
    pub fn topics_by_cluster(&self, cluster: &str) -> TopicList {
        let names = self.clusters.get(cluster);
        self.topics_where(|queues| {
            names.is_some_and(|names| queues.iter().any(|data| names.contains(&data.broker_name)))
        })
    }

    /// Topics that belong to one deployment unit (311).
    pub fn unit_topics(&self) -> TopicList {
        self.topics_where(|queues| first_flag(queues) & TOPIC_SYS_FLAG_UNIT != 0)
    }

    /// Topics subscribed from a deployment unit (312).
    pub fn unit_sub_topics(&self) -> TopicList {
        self.topics_where(|queues| first_flag(queues) & TOPIC_SYS_FLAG_UNIT_SUB != 0)
    }

    /// Topics subscribed from a deployment unit that belong to none themselves (313).
    pub fn unit_sub_topics_without_unit(&self) -> TopicList {
        let both = TOPIC_SYS_FLAG_UNIT | TOPIC_SYS_FLAG_UNIT_SUB;
        self.topics_where(|queues| first_flag(queues) & both == TOPIC_SYS_FLAG_UNIT_SUB)
    }

    /// Names of clusters and groups, which are topics too, and a broker to ask for further system topics (304).
    pub fn system_topics(&self) -> TopicList {
        let names = self
            .clusters
            .iter()
            .flat_map(|(cluster, names)| names.iter().chain([cluster]));
        let broker = self
            .groups
            .values()
            .find_map(|group| group.data.broker_addrs.values().next());
        TopicList {
            topic_list: names.cloned().collect(),
            broker_addr: broker.cloned(),
        }
    }

    fn topics_where(&self, holds: impl Fn(&[&QueueData]) -> bool) -> TopicList {
        let topics: BTreeSet<String> = self
            .topics
            .iter()
            .filter(|(_, queues)| holds(&queues.values().collect::<Vec<_>>()))
            .map(|(topic, _)| topic.clone())
            .collect();
        TopicList {
            topic_list: topics,
            broker_addr: None,
        }
    }
}

fn first_flag(queues: &[&QueueData]) -> i32 {
    queues.first().map_or(0, |data| data.topic_sys_flag)
}

/// Presents the lowest id as the leader of a group that has none, if its queues cannot be written to.
fn stand_in(group: &mut BrokerData, queues: &[QueueData]) {
    if !group.enable_acting_master || group.broker_addrs.contains_key(&MASTER_ID) {
        return;
    }
    let of_group = queues
        .iter()
        .find(|data| data.broker_name == group.broker_name);
    if of_group.is_some_and(|data| !perm::is_writable(data.perm))
        && let Some((_, address)) = group.broker_addrs.pop_first()
    {
        group.broker_addrs.insert(MASTER_ID, address);
    }
}

/// A group without leader is kept whatever its zone: its followers still serve consumers.
fn keep_zone(route: &mut TopicRouteData, zone: &str) {
    let (kept, dropped): (Vec<_>, Vec<_>) = route.broker_datas.drain(..).partition(|group| {
        let same = group
            .zone_name
            .as_deref()
            .is_some_and(|name| name.eq_ignore_ascii_case(zone));
        same || !group.broker_addrs.contains_key(&MASTER_ID)
    });
    route.broker_datas = kept;
    route.queue_datas.retain(|data| {
        dropped
            .iter()
            .all(|group| group.broker_name != data.broker_name)
    });
}
