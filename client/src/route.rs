//! A topic's route and what follows from it: which queues to send to, which to read, and at which
//! addresses. Pure.

use raftmq_proto::body::{MessageQueue, TopicRouteData, perm};
use raftmq_proto::message::tags_code;

/// Most queues of one group taken from a route; RocketMQ's tools refuse far smaller numbers, and a
/// corrupt route must not make the client allocate gigabytes.
const QUEUES_MAX: i32 = 65_536;

/// The members of one broker group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerGroup {
    /// Name of the cluster the group belongs to.
    pub cluster: String,
    /// Name of the group (RocketMQ: broker name).
    pub broker_name: String,
    /// Broker id and address, ascending; id 0 is the leader and may be missing.
    pub members: Vec<(i64, String)>,
}

impl BrokerGroup {
    /// Address of the leader, if the group has one.
    #[must_use]
    pub fn leader(&self) -> Option<&str> {
        self.members
            .iter()
            .find(|(id, _)| *id == 0)
            .map(|(_, address)| address.as_str())
    }
}

/// A topic's route as this client uses it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The groups that hold the topic, by name.
    pub groups: Vec<BrokerGroup>,
    /// Queues that may be written, in the order of group name and queue id. A group whose leader is
    /// not known right now is included: that is a failover, and any member can take the send.
    pub publish_queues: Vec<MessageQueue>,
    /// Queues that may be read, in the same order.
    pub subscribe_queues: Vec<MessageQueue>,
}

impl Route {
    /// Reads the nameserver's answer for `topic`.
    #[must_use]
    pub fn new(topic: &str, data: &TopicRouteData) -> Route {
        let mut groups: Vec<BrokerGroup> = data
            .broker_datas
            .iter()
            .map(|broker| {
                let mut members: Vec<(i64, String)> = broker
                    .broker_addrs
                    .iter()
                    .map(|(id, address)| (*id, address.clone()))
                    .collect();
                members.sort();
                BrokerGroup {
                    cluster: broker.cluster.clone(),
                    broker_name: broker.broker_name.clone(),
                    members,
                }
            })
            .filter(|group| !group.members.is_empty())
            .collect();
        groups.sort_by(|left, right| left.broker_name.cmp(&right.broker_name));

        let mut queue_datas: Vec<_> = data.queue_datas.iter().collect();
        queue_datas.sort_by(|left, right| left.broker_name.cmp(&right.broker_name));
        let known = |name: &str| groups.iter().any(|group| group.broker_name == name);
        let queues = |name: &str, count: i32| {
            let (topic, broker_name) = (topic.to_owned(), name.to_owned());
            (0..count.clamp(0, QUEUES_MAX)).map(move |queue_id| MessageQueue {
                topic: topic.clone(),
                broker_name: broker_name.clone(),
                queue_id,
            })
        };

        let mut publish_queues = Vec::new();
        let mut subscribe_queues = Vec::new();
        let order_conf = data
            .order_topic_conf
            .as_deref()
            .filter(|conf| !conf.is_empty());
        if let Some(conf) = order_conf {
            // An ordered topic names its queues itself: they must not move with the registrations.
            for part in conf.split(';') {
                if let Some((name, count)) = part.split_once(':') {
                    publish_queues.extend(queues(name, count.trim().parse().unwrap_or(0)));
                }
            }
        }
        for queue_data in queue_datas {
            let name = queue_data.broker_name.as_str();
            if order_conf.is_none() && perm::is_writable(queue_data.perm) && known(name) {
                publish_queues.extend(queues(name, queue_data.write_queue_nums));
            }
            if perm::is_readable(queue_data.perm) {
                subscribe_queues.extend(queues(name, queue_data.read_queue_nums));
            }
        }
        Route {
            groups,
            publish_queues,
            subscribe_queues,
        }
    }

    /// The route to use for a topic that does not exist yet, made from the route of the default topic
    /// (`TBW102`): at most `queues_max` queues a group, as the broker will create it.
    #[must_use]
    pub fn of_new_topic(topic: &str, default_route: &TopicRouteData, queues_max: i32) -> Route {
        let mut data = default_route.clone();
        data.order_topic_conf = None;
        for queue_data in &mut data.queue_datas {
            let count = queue_data.read_queue_nums.min(queues_max);
            queue_data.read_queue_nums = count;
            queue_data.write_queue_nums = count;
        }
        Route::new(topic, &data)
    }

    /// The group called `broker_name`.
    #[must_use]
    pub fn group(&self, broker_name: &str) -> Option<&BrokerGroup> {
        self.groups
            .iter()
            .find(|group| group.broker_name == broker_name)
    }

    /// Addresses of the leaders of all groups, or of any member where no leader is known.
    #[must_use]
    pub fn serving_addresses(&self) -> Vec<&str> {
        self.groups
            .iter()
            .filter_map(|group| {
                group
                    .leader()
                    .or_else(|| group.members.first().map(|(_, addr)| addr.as_str()))
            })
            .collect()
    }
}

/// The queue for `key`: RocketMQ's `SelectMessageQueueByHash` over Java's `String.hashCode`, so that a
/// key goes to the same queue whichever client sends it.
#[must_use]
pub fn queue_of_key<'a>(queues: &'a [MessageQueue], key: &str) -> Option<&'a MessageQueue> {
    let count = i32::try_from(queues.len())
        .ok()
        .filter(|count| *count > 0)?;
    let hash = java_hash(key);
    queues.get((hash % count).unsigned_abs() as usize)
}

/// Java's `String.hashCode`, which tags codes are, sign-extended.
fn java_hash(text: &str) -> i32 {
    tags_code(text) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(json: &str) -> TopicRouteData {
        raftmq_proto::body::from_json(json.as_bytes()).unwrap()
    }

    fn two_groups() -> TopicRouteData {
        data(
            r#"{"brokerDatas":[
                {"brokerAddrs":{"0":"h:3"},"brokerName":"b","cluster":"C"},
                {"brokerAddrs":{"2":"h:2","0":"h:1"},"brokerName":"a","cluster":"C"}],
              "filterServerTable":{},
              "queueDatas":[
                {"brokerName":"b","perm":4,"readQueueNums":1,"writeQueueNums":1,"topicSysFlag":0},
                {"brokerName":"a","perm":6,"readQueueNums":3,"writeQueueNums":2,"topicSysFlag":0}]}"#,
        )
    }

    fn names(queues: &[MessageQueue]) -> Vec<String> {
        queues
            .iter()
            .map(|queue| format!("{}{}", queue.broker_name, queue.queue_id))
            .collect()
    }

    #[test]
    fn permissions_and_counts_make_the_queues() {
        let route = Route::new("T", &two_groups());
        assert_eq!(names(&route.publish_queues), ["a0", "a1"]);
        assert_eq!(names(&route.subscribe_queues), ["a0", "a1", "a2", "b0"]);
        assert!(
            route
                .subscribe_queues
                .iter()
                .all(|queue| queue.topic == "T")
        );
        assert!(route.subscribe_queues.is_sorted());
        assert_eq!(route.group("a").unwrap().leader(), Some("h:1"));
        assert_eq!(route.serving_addresses(), ["h:1", "h:3"]);
    }

    #[test]
    fn a_group_in_failover_keeps_its_queues() {
        let mut data = two_groups();
        for broker in &mut data.broker_datas {
            broker.broker_addrs.retain(|id, _| *id != 0);
        }
        let route = Route::new("T", &data);
        assert_eq!(names(&route.publish_queues), ["a0", "a1"]);
        assert_eq!(route.group("a").unwrap().leader(), None);
        assert!(
            route.group("b").is_none(),
            "a group without any member cannot be reached"
        );
        assert_eq!(route.serving_addresses(), ["h:2"]);
    }

    #[test]
    fn an_ordered_topic_names_its_queues_itself() {
        let mut data = two_groups();
        data.order_topic_conf = Some("b:2;a:1;bad;c:x".to_owned());
        let route = Route::new("T", &data);
        assert_eq!(names(&route.publish_queues), ["b0", "b1", "a0"]);
    }

    #[test]
    fn a_new_topic_takes_few_queues_of_the_default_topic() {
        let route = Route::of_new_topic("N", &two_groups(), 2);
        assert_eq!(names(&route.publish_queues), ["a0", "a1"]);
        assert_eq!(names(&route.subscribe_queues), ["a0", "a1", "b0"]);
        assert_eq!(route.publish_queues[0].topic, "N");
    }

    #[test]
    fn hostile_counts_are_bounded() {
        let mut data = two_groups();
        data.queue_datas[1].write_queue_nums = i32::MAX;
        data.queue_datas[1].read_queue_nums = -5;
        let route = Route::new("T", &data);
        assert_eq!(route.publish_queues.len(), 65_536);
        assert_eq!(names(&route.subscribe_queues), ["b0"]);
    }

    #[test]
    fn keys_hash_as_in_java() {
        assert_eq!(java_hash(""), 0);
        assert_eq!(java_hash("hello"), 99_162_322);
        let route = Route::new("T", &two_groups());
        let queues = &route.subscribe_queues;
        assert_eq!(
            queue_of_key(queues, "hello").unwrap(),
            &queues[99_162_322 % 4]
        );
        assert!(queue_of_key(&[], "hello").is_none());
        // "polygenelubricants" hashes to i32::MIN, whose absolute value does not fit an i32.
        assert_eq!(java_hash("polygenelubricants"), i32::MIN);
        assert!(queue_of_key(queues, "polygenelubricants").is_some());
    }
}
