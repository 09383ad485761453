//! Who is connected: producers and consumers by group (RocketMQ: `ProducerManager`, `ConsumerManager`).
//!
//! Pure: a connection is any `C` with a number, the clock is an argument, and who has to be told of a change is
//! returned. Entries leave with their connection, by unregistering, or when heartbeats stop.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use raftmq_proto::body::{
    ConsumeFromWhere, ConsumeType, ConsumerData, HeartbeatData, MessageModel, SubscriptionData,
};
use raftmq_proto::frame::LanguageCode;

/// Groups of either kind one connection may be in: a client process rarely has more than a dozen.
const GROUPS_PER_CONNECTION_MAX: usize = 4096;
/// Groups of either kind on this member, whoever names them.
const GROUPS_MAX: usize = 500_000;
/// Topics of one group.
const SUBSCRIPTIONS_MAX: usize = 65_536;

/// A client on a connection.
#[derive(Debug, Clone)]
pub(crate) struct Client<C> {
    pub(crate) connection: C,
    pub(crate) connection_id: u64,
    pub(crate) client_id: String,
    pub(crate) language: LanguageCode,
    pub(crate) version: i32,
    pub(crate) seen: Instant,
}

/// A group of consumers.
#[derive(Debug)]
pub(crate) struct ConsumerGroup<C> {
    pub(crate) consume_type: ConsumeType,
    pub(crate) message_model: MessageModel,
    pub(crate) consume_from_where: ConsumeFromWhere,
    members: BTreeMap<u64, Client<C>>,
    subscriptions: HashMap<String, SubscriptionData>,
}

/// A group whose members changed, and whom to tell.
#[derive(Debug)]
pub(crate) struct Change<C> {
    pub(crate) group: String,
    pub(crate) members: Vec<C>,
}

/// All clients of this member.
#[derive(Debug)]
pub(crate) struct Registry<C> {
    consumers: HashMap<String, ConsumerGroup<C>>,
    producers: HashMap<String, BTreeMap<u64, Client<C>>>,
}

impl<C> Default for Registry<C> {
    fn default() -> Self {
        Registry {
            consumers: HashMap::new(),
            producers: HashMap::new(),
        }
    }
}

impl<C: Clone> Registry<C> {
    /// Takes a heartbeat in; only the consumers that `accept` picks are registered.
    pub(crate) fn heartbeat(
        &mut self,
        client: &Client<C>,
        data: &HeartbeatData,
        accept: impl Fn(&ConsumerData) -> bool,
    ) -> Vec<Change<C>> {
        let mut changes = Vec::new();
        for consumer in data
            .consumer_data_set
            .iter()
            .filter(|data| accept(data))
            .take(GROUPS_PER_CONNECTION_MAX)
        {
            if self.consumers.len() >= GROUPS_MAX
                && !self.consumers.contains_key(&consumer.group_name)
            {
                continue;
            }
            let group = self
                .consumers
                .entry(consumer.group_name.clone())
                .or_insert_with(|| ConsumerGroup {
                    consume_type: consumer.consume_type,
                    message_model: consumer.message_model,
                    consume_from_where: consumer.consume_from_where,
                    members: BTreeMap::new(),
                    subscriptions: HashMap::new(),
                });
            if group.update(client, consumer, data.without_sub) {
                changes.push(group.change(&consumer.group_name));
            }
        }
        for producer in data
            .producer_data_set
            .iter()
            .take(GROUPS_PER_CONNECTION_MAX)
        {
            if self.producers.len() >= GROUPS_MAX
                && !self.producers.contains_key(&producer.group_name)
            {
                continue;
            }
            let members = self
                .producers
                .entry(producer.group_name.clone())
                .or_default();
            members.insert(client.connection_id, client.clone());
        }
        changes
    }

    /// A client leaves a group of either kind.
    pub(crate) fn unregister(
        &mut self,
        connection_id: u64,
        producer_group: Option<&str>,
        consumer_group: Option<&str>,
    ) -> Vec<Change<C>> {
        if let Some(group) = producer_group {
            self.remove_producers(|name, client| {
                name == group && client.connection_id == connection_id
            });
        }
        let Some(group) = consumer_group else {
            return Vec::new();
        };
        self.remove_consumers(|name, client| name == group && client.connection_id == connection_id)
    }

    /// A connection is gone.
    pub(crate) fn closed(&mut self, connection_id: u64) -> Vec<Change<C>> {
        self.remove_producers(|_, client| client.connection_id == connection_id);
        self.remove_consumers(|_, client| client.connection_id == connection_id)
    }

    /// Drops clients not heard of for `expiry`; gives back their connections, to be closed.
    pub(crate) fn expire(&mut self, now: Instant, expiry: Duration) -> (Vec<Change<C>>, Vec<C>) {
        let stale = |client: &Client<C>| now.saturating_duration_since(client.seen) >= expiry;
        let all = self
            .consumers
            .values()
            .map(|group| &group.members)
            .chain(self.producers.values());
        let stale_clients = all
            .flat_map(BTreeMap::values)
            .filter(|client| stale(client));
        let closing: BTreeMap<u64, C> = stale_clients
            .map(|client| (client.connection_id, client.connection.clone()))
            .collect();
        self.remove_producers(|_, client| stale(client));
        let changes = self.remove_consumers(|_, client| stale(client));
        (changes, closing.into_values().collect())
    }

    /// Client ids of a consumer group.
    pub(crate) fn consumer_ids(&self, group: &str) -> Vec<String> {
        let members = self.consumers.get(group).map(|group| &group.members);
        let ids: BTreeSet<&str> = members
            .into_iter()
            .flat_map(BTreeMap::values)
            .map(|client| client.client_id.as_str())
            .collect();
        ids.into_iter().map(str::to_owned).collect()
    }

    /// A consumer group with at least one member.
    pub(crate) fn consumer_group(&self, group: &str) -> Option<&ConsumerGroup<C>> {
        self.consumers.get(group)
    }

    /// Members of a producer group.
    pub(crate) fn producers(&self, group: &str) -> Vec<Client<C>> {
        self.producers
            .get(group)
            .map(|members| members.values().cloned().collect())
            .unwrap_or_default()
    }

    /// Names of the consumer groups that have members.
    pub(crate) fn consumer_groups(&self) -> Vec<String> {
        self.consumers.keys().cloned().collect()
    }

    /// Groups with a member that subscribes the topic.
    pub(crate) fn groups_of_topic(&self, topic: &str) -> BTreeSet<String> {
        let subscribes =
            |(_, group): &(&String, &ConsumerGroup<C>)| group.subscriptions.contains_key(topic);
        self.consumers
            .iter()
            .filter(subscribes)
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn remove_producers(&mut self, gone: impl Fn(&str, &Client<C>) -> bool) {
        self.producers.retain(|name, members| {
            members.retain(|_, client| !gone(name, client));
            !members.is_empty()
        });
    }

    fn remove_consumers(&mut self, gone: impl Fn(&str, &Client<C>) -> bool) -> Vec<Change<C>> {
        let mut changes = Vec::new();
        self.consumers.retain(|name, group| {
            let before = group.members.len();
            group.members.retain(|_, client| !gone(name, client));
            if group.members.len() < before && !group.members.is_empty() {
                changes.push(group.change(name));
            }
            !group.members.is_empty()
        });
        changes
    }
}

impl<C: Clone> ConsumerGroup<C> {
    /// Notes a heartbeat; `true` when the other members have to rebalance.
    fn update(
        &mut self,
        client: &Client<C>,
        data: &ConsumerData,
        without_subscriptions: bool,
    ) -> bool {
        self.consume_type = data.consume_type;
        self.message_model = data.message_model;
        self.consume_from_where = data.consume_from_where;
        let former = self.members.insert(client.connection_id, client.clone());
        let joined = former.is_none_or(|former| former.client_id != client.client_id);
        let subscribed = !without_subscriptions && self.subscribe(&data.subscription_data_set);
        (joined || subscribed) && data.message_model != MessageModel::Broadcasting
    }

    /// The newest version of each subscription counts; topics missing in a heartbeat are dropped. All members of a
    /// group are meant to subscribe the same.
    fn subscribe(&mut self, wanted: &[SubscriptionData]) -> bool {
        let mut changed = false;
        for subscription in wanted.iter().take(SUBSCRIPTIONS_MAX) {
            match self.subscriptions.get_mut(&subscription.topic) {
                Some(known) if known.sub_version < subscription.sub_version => {
                    *known = subscription.clone()
                }
                Some(_) => {}
                None => {
                    changed = true;
                    self.subscriptions
                        .insert(subscription.topic.clone(), subscription.clone());
                }
            }
        }
        let topics: BTreeSet<&str> = wanted
            .iter()
            .map(|subscription| subscription.topic.as_str())
            .collect();
        let before = self.subscriptions.len();
        self.subscriptions
            .retain(|topic, _| topics.contains(topic.as_str()));
        changed || self.subscriptions.len() < before
    }

    fn change(&self, group: &str) -> Change<C> {
        Change {
            group: group.to_owned(),
            members: self
                .members
                .values()
                .map(|client| client.connection.clone())
                .collect(),
        }
    }

    /// What the group wants of a topic.
    pub(crate) fn subscription(&self, topic: &str) -> Option<&SubscriptionData> {
        self.subscriptions.get(topic)
    }

    /// What the group wants, by topic.
    pub(crate) fn subscriptions(&self) -> &HashMap<String, SubscriptionData> {
        &self.subscriptions
    }

    /// The members.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Client<C>> {
        self.members.values()
    }

    /// Whether a connection is a member.
    pub(crate) fn has(&self, connection_id: u64) -> bool {
        self.members.contains_key(&connection_id)
    }
}

#[cfg(test)]
mod tests {
    use raftmq_proto::body::ProducerData;

    use super::*;

    fn client(id: u64, seen: Instant) -> Client<u64> {
        Client {
            connection: id,
            connection_id: id,
            client_id: format!("c{id}"),
            language: LanguageCode::JAVA,
            version: 479,
            seen,
        }
    }

    fn consumer(group: &str, topics: &[(&str, i64)]) -> ConsumerData {
        let of = |(topic, version): &(&str, i64)| {
            SubscriptionData::of_tags(topic, "*", *version).unwrap()
        };
        ConsumerData {
            group_name: group.to_owned(),
            subscription_data_set: topics.iter().map(of).collect(),
            ..ConsumerData::default()
        }
    }

    fn heartbeat(consumers: Vec<ConsumerData>) -> HeartbeatData {
        let producer_data_set = vec![ProducerData {
            group_name: "p".to_owned(),
        }];
        HeartbeatData {
            consumer_data_set: consumers,
            producer_data_set,
            ..HeartbeatData::default()
        }
    }

    fn told(changes: Vec<Change<u64>>) -> Vec<(String, Vec<u64>)> {
        changes
            .into_iter()
            .map(|change| (change.group, change.members))
            .collect()
    }

    #[test]
    fn members_are_told_when_someone_joins_leaves_or_subscribes() {
        let now = Instant::now();
        let mut registry = Registry::default();
        let mut beat = |id, topics: &[(&str, i64)]| {
            told(registry.heartbeat(
                &client(id, now),
                &heartbeat(vec![consumer("g", topics)]),
                |_| true,
            ))
        };
        assert_eq!(beat(1, &[("T", 1)]), [("g".to_owned(), vec![1])]);
        assert_eq!(beat(1, &[("T", 1)]), []);
        assert_eq!(beat(2, &[("T", 1)]), [("g".to_owned(), vec![1, 2])]);
        assert_eq!(
            beat(2, &[("T", 1), ("U", 1)]),
            [("g".to_owned(), vec![1, 2])]
        );
        assert_eq!(beat(2, &[("T", 1)]), [("g".to_owned(), vec![1, 2])]);
        assert_eq!(registry.consumer_ids("g"), ["c1", "c2"]);
        assert_eq!(registry.producers("p").len(), 2);
        assert_eq!(told(registry.closed(1)), [("g".to_owned(), vec![2])]);
        assert_eq!(told(registry.unregister(2, Some("p"), Some("g"))), []);
        assert!(registry.consumer_group("g").is_none() && registry.producers("p").is_empty());
    }

    #[test]
    fn the_newest_subscription_counts_and_broadcast_groups_are_left_in_peace() {
        let now = Instant::now();
        let mut registry = Registry::default();
        let mut newer = consumer("g", &[("T", 5)]);
        newer.subscription_data_set[0].sub_string = "a".to_owned();
        registry.heartbeat(&client(1, now), &heartbeat(vec![newer]), |_| true);
        registry.heartbeat(
            &client(2, now),
            &heartbeat(vec![consumer("g", &[("T", 3)])]),
            |_| true,
        );
        let group = registry.consumer_group("g").unwrap();
        assert_eq!(group.subscription("T").unwrap().sub_string, "a");
        assert!(group.has(1) && !group.has(3));
        assert_eq!(
            registry
                .groups_of_topic("T")
                .into_iter()
                .collect::<Vec<_>>(),
            ["g"]
        );

        let mut broadcast = consumer("b", &[("T", 1)]);
        broadcast.message_model = MessageModel::Broadcasting;
        assert_eq!(
            told(registry.heartbeat(&client(1, now), &heartbeat(vec![broadcast]), |_| true)),
            []
        );
        let without = HeartbeatData {
            without_sub: true,
            ..heartbeat(vec![consumer("g", &[])])
        };
        registry.heartbeat(&client(1, now), &without, |_| true);
        assert!(
            registry
                .consumer_group("g")
                .unwrap()
                .subscription("T")
                .is_some()
        );
        let refused = registry.heartbeat(
            &client(1, now),
            &heartbeat(vec![consumer("x", &[])]),
            |_| false,
        );
        assert!(refused.is_empty() && registry.consumer_group("x").is_none());
    }

    #[test]
    fn silence_ends_membership() {
        let now = Instant::now();
        let expiry = Duration::from_secs(120);
        let mut registry = Registry::default();
        registry.heartbeat(
            &client(1, now),
            &heartbeat(vec![consumer("g", &[])]),
            |_| true,
        );
        registry.heartbeat(
            &client(2, now + expiry / 2),
            &heartbeat(vec![consumer("g", &[])]),
            |_| true,
        );
        let (changes, closing) = registry.expire(now + expiry, expiry);
        assert_eq!(told(changes), [("g".to_owned(), vec![2])]);
        assert_eq!(closing, [1]);
        assert_eq!(registry.consumer_ids("g"), ["c2"]);
        assert_eq!(registry.producers("p").len(), 1);
    }
}
