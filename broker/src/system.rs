//! Topics and groups that exist without anybody asking: names, and making the missing ones once this member leads.

use std::collections::BTreeSet;

use raftmq_proto::body::{SubscriptionGroupConfig, TopicConfig, perm};
use raftmq_proto::message::name;

use crate::admin::Names;
use crate::config::TopicConfigs;
use crate::creator::Change;

const READ_WRITE: i32 = perm::READ | perm::WRITE;
const ALL: i32 = READ_WRITE | perm::INHERIT;

/// Groups of RocketMQ's own tools and gateways.
const GROUPS: &[&str] = &[
    "TOOLS_CONSUMER",
    "FILTERSRV_CONSUMER",
    "SELF_TEST_C_GROUP",
    "CID_ONS-HTTP-PROXY",
    "CID_ONSAPI_PULL",
    "CID_ONSAPI_PERMISSION",
    "CID_ONSAPI_OWNER",
    "CID_RMQ_SYS_TRANS",
];

/// System topics that carry the names of this broker or its cluster.
fn own_topics(names: &Names) -> [String; 5] {
    [
        names.cluster.clone(),
        names.broker.clone(),
        name::reply_topic(&names.cluster),
        name::revive_topic(&names.cluster),
        name::sync_broker_member_topic(&names.broker),
    ]
}

/// Whether a topic belongs to the broker.
pub(crate) fn is_system_topic(names: &Names, topic: &str) -> bool {
    name::is_system_topic(topic) || own_topics(names).iter().any(|own| own == topic)
}

/// Names of all system topics.
pub(crate) fn topic_names(names: &Names) -> BTreeSet<String> {
    let fixed = [
        name::AUTO_CREATE_TOPIC,
        name::SCHEDULE_TOPIC,
        name::BENCHMARK_TOPIC,
        name::TRANS_HALF_TOPIC,
        name::TRACE_TOPIC,
        name::TRANS_OP_HALF_TOPIC,
        name::TRANS_CHECK_MAX_TIME_TOPIC,
        name::SELF_TEST_TOPIC,
        name::OFFSET_MOVED_EVENT_TOPIC,
        name::CHECKPOINT_TOPIC,
        name::TIMER_TOPIC,
    ];
    fixed
        .into_iter()
        .map(str::to_owned)
        .chain(own_topics(names))
        .collect()
}

/// What has to exist; the creator leaves out what does.
pub(crate) fn wanted(names: &Names, configs: &TopicConfigs) -> Vec<Change> {
    let queues = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    let usable = |enabled: bool| if enabled { ALL } else { perm::INHERIT };
    let [cluster, broker, reply, revive, sync] = own_topics(names);
    let mut topics = vec![
        TopicConfig::new(name::SELF_TEST_TOPIC, 1, READ_WRITE),
        TopicConfig::new(name::BENCHMARK_TOPIC, 1024, READ_WRITE),
        TopicConfig::new(cluster, 16, usable(configs.cluster_topic)),
        TopicConfig::new(broker, 1, usable(configs.broker_topic)),
        TopicConfig::new(name::OFFSET_MOVED_EVENT_TOPIC, 1, READ_WRITE),
        TopicConfig::new(name::SCHEDULE_TOPIC, 18, READ_WRITE),
        TopicConfig::new(reply, 1, READ_WRITE),
        TopicConfig::new(revive, queues(configs.revive_queues), READ_WRITE),
        TopicConfig::new(sync, 1, perm::INHERIT),
        TopicConfig::new(name::TRANS_HALF_TOPIC, 1, READ_WRITE),
        TopicConfig::new(name::TRANS_OP_HALF_TOPIC, 1, READ_WRITE),
    ];
    if configs.auto_create {
        topics.push(TopicConfig::new(
            name::AUTO_CREATE_TOPIC,
            queues(configs.default_queues),
            ALL,
        ));
    }
    if let Some(trace) = &configs.trace_topic {
        topics.push(TopicConfig::new(trace, 1, READ_WRITE));
    }
    if configs.timer_topic {
        topics.push(TopicConfig::new(name::TIMER_TOPIC, 1, READ_WRITE));
    }
    let groups = GROUPS.iter().filter(|_| configs.system_groups);
    let groups = groups.map(|group| Change::MissingGroup(SubscriptionGroupConfig::new(*group)));
    topics
        .into_iter()
        .map(Change::MissingTopic)
        .chain(groups)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_decide_what_exists() {
        let names = Names {
            cluster: "C".to_owned(),
            broker: "B".to_owned(),
        };
        let mut configs = TopicConfigs {
            auto_create: true,
            default_queues: 8,
            cluster_topic: true,
            broker_topic: false,
            trace_topic: None,
            revive_queues: 8,
            timer_topic: true,
            auto_create_group: true,
            system_groups: true,
            protect_system_topics: true,
            mixed_message_type: false,
        };
        let made = |configs: &TopicConfigs| -> Vec<(String, i32, i32)> {
            let topic = |change| match change {
                Change::MissingTopic(topic) => {
                    Some((topic.topic_name, topic.write_queue_nums, topic.perm))
                }
                _ => None,
            };
            wanted(&names, configs)
                .into_iter()
                .filter_map(topic)
                .collect()
        };
        let all = made(&configs);
        for wanted in [
            ("TBW102", 8, 7),
            ("C", 16, 7),
            ("B", 1, 1),
            ("SCHEDULE_TOPIC_XXXX", 18, 6),
        ] {
            assert!(
                all.contains(&(wanted.0.to_owned(), wanted.1, wanted.2)),
                "{wanted:?}"
            );
        }
        configs.auto_create = false;
        configs.trace_topic = Some("TRACE".to_owned());
        let all = made(&configs);
        assert!(
            all.iter().all(|(name, ..)| name != "TBW102")
                && all.iter().any(|(name, ..)| name == "TRACE")
        );
        configs.system_groups = false;
        assert!(
            wanted(&names, &configs)
                .iter()
                .all(|change| matches!(change, Change::MissingTopic(_)))
        );
        for system in ["C", "B", "C_REPLY_TOPIC", "rmq_sys_anything", "TBW102"] {
            assert!(is_system_topic(&names, system), "{system}");
        }
        assert!(!is_system_topic(&names, "T"));
    }
}
