//! Which brokers live where, and which topics they have: the nameserver's whole knowledge.
//!
//! Pure: the time and the number of the connection that a request came over are arguments; nothing here opens a socket
//! or reads a clock. RocketMQ: `RouteInfoManager`.
//!
//! Every entry of the live table stands for one broker address. The address is listed in its group, under the broker id
//! it registered last, until another address takes that id over or the entry goes. The other way round, every address
//! listed in a group has a live entry, and a group without addresses does not exist.
//!
//! Three rules keep the past from overwriting the present:
//! - *Term fencing.* The data version's `stateVersion` is the term of a Raft group's leader. A group remembers the highest
//!   term under which broker id 0 was registered, for as long as it has members; a registration of id 0 under a lower
//!   one is ignored. Brokers that always send 0 are not affected.
//! - *Order of connections.* Connection numbers grow. What comes over an older connection than the broker's latest
//!   registration or heartbeat was sent before it.
//! - *Registration versions.* Our brokers number their registrations (field `registrationVersion` of 103 and 104), and
//!   that number decides where both sides of a comparison have it. Only a leader's higher term is newer whatever the
//!   numbers are: members may share the address that they advertise while they lead.

mod query;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

pub use query::RouteQuery;

use std::collections::{BTreeMap, BTreeSet};

use raftmq_proto::body::{
    BrokerData, DataVersion, MASTER_ID, QueueData, TopicConfig, TopicConfigSerializeWrapper,
    TopicQueueMappingInfo, perm,
};

/// How long a broker stays listed after its last sign of life, unless it asks for another time.
pub const HEARTBEAT_TIMEOUT_MS: u64 = 120_000;

/// How much the table holds at most. A cluster far beyond what one nameserver can serve stays below.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Broker addresses.
    pub brokers_max: usize,
    /// Topics.
    pub topics_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            brokers_max: 10_000,
            topics_max: 1_000_000,
        }
    }
}

/// A broker address within its cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BrokerKey {
    /// Cluster name.
    pub cluster: String,
    /// `host:port` as advertised to clients.
    pub address: String,
}

/// What a broker registers with (103).
#[derive(Debug, Clone, Default)]
pub struct Registration {
    /// Cluster name.
    pub cluster: String,
    /// Name of the broker group.
    pub broker_name: String,
    /// Address advertised to clients.
    pub address: String,
    /// 0 for the leader.
    pub broker_id: i64,
    /// Address for the original's replication; only handed on.
    pub ha_server_addr: String,
    /// Zone, for clients that prefer near brokers.
    pub zone: Option<String>,
    /// How long the broker stays listed without a sign of life, in ms.
    pub heartbeat_timeout_ms: Option<u64>,
    /// Whether the lowest id may stand in for a missing leader. Absent from brokers before 5.0.
    pub enable_acting_master: Option<bool>,
    /// The broker's topics and the version of that table.
    pub topics: TopicConfigSerializeWrapper,
    /// Number of this registration; each one of the same address has a higher one.
    pub version: Option<i64>,
}

/// What became of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    /// It is in the table. For brokers other than the leader: where the leader is.
    Accepted {
        /// The leader's replication address.
        ha_server_addr: Option<String>,
        /// The leader's address.
        master_addr: Option<String>,
    },
    /// It is older than what the table holds; the sender is answered as if it were accepted.
    Ignored(Stale),
    /// It cannot be accepted.
    Refused(Refused),
}

/// Why a request was taken for older than what the table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// The group's id was registered under a higher term.
    #[error("term {term} is lower than {held}, under which this broker id is registered")]
    LowerTerm {
        /// Term of the request.
        term: i64,
        /// Term in the table.
        held: i64,
    },
    /// The same address has been registered under a higher number.
    #[error("registration version {version} is lower than {held}, which is registered")]
    OlderVersion {
        /// Version of the request.
        version: i64,
        /// Version in the table.
        held: i64,
    },
    /// The same address has been heard over a newer connection.
    #[error("the broker has been heard over a newer connection")]
    OlderConnection,
    /// The address is registered under another id by now.
    #[error("the broker is registered under id {held}")]
    OtherId {
        /// Id in the table.
        held: i64,
    },
}

/// Why a registration was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A single topic was registered by a broker that is not in the table yet.
    #[error("register broker failed")]
    SingleTopicOfUnknownBroker,
    /// The table is full.
    #[error("register broker failed: {what} would exceed {limit}")]
    Full {
        /// What is counted.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
}

/// What a broker unregisters with (104).
#[derive(Debug, Clone, Default)]
pub struct Unregistration {
    /// Cluster name.
    pub cluster: String,
    /// Name of the broker group.
    pub broker_name: String,
    /// Address advertised to clients.
    pub address: String,
    /// The id the broker believes to have.
    pub broker_id: i64,
    /// The highest registration version that is to go.
    pub version: Option<i64>,
    /// The highest term that is to go.
    pub state_version: Option<i64>,
}

/// What became of an unregistration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unregistered {
    /// The broker is gone.
    Removed,
    /// There was no such broker.
    Unknown,
    /// A newer registration stays.
    Ignored(Stale),
}

/// A broker that gave no sign of life for too long, and was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// The broker.
    pub broker: BrokerKey,
    /// The connection it was last heard over; to be closed.
    pub connection: u64,
    /// The time it was given.
    pub timeout_ms: u64,
}

/// All routes. One owner changes it, under a lock.
#[derive(Debug, Default)]
pub struct RouteTable {
    limits: Limits,
    /// topic → broker name → queues (RocketMQ: `topicQueueTable`).
    topics: BTreeMap<String, BTreeMap<String, QueueData>>,
    /// broker name → group (`brokerAddrTable`).
    groups: BTreeMap<String, Group>,
    /// cluster → broker names (`clusterAddrTable`).
    clusters: BTreeMap<String, BTreeSet<String>>,
    /// `brokerLiveTable`.
    live: BTreeMap<BrokerKey, Live>,
    /// topic → broker name → static topic (`topicQueueMappingInfoTable`).
    mappings: BTreeMap<String, BTreeMap<String, TopicQueueMappingInfo>>,
}

#[derive(Debug, Default)]
struct Group {
    data: BrokerData,
    /// Highest term under which id 0 was registered since the group has members.
    fence: Option<i64>,
}

#[derive(Debug)]
struct Live {
    broker_name: String,
    broker_id: i64,
    heard_ms: u64,
    timeout_ms: u64,
    data_version: DataVersion,
    /// The newest connection the broker was heard over.
    connection: u64,
    ha_server_addr: String,
    version: Option<i64>,
}

impl RouteTable {
    /// An empty table.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Registers a broker with all its topics, or with one topic more. `forget_missing` drops topics that the broker had
    /// and that are not in the registration (`deleteTopicWithBrokerRegistration`).
    pub fn register(
        &mut self,
        registration: Registration,
        forget_missing: bool,
        connection: u64,
        now_ms: u64,
    ) -> Registered {
        let key = BrokerKey {
            cluster: registration.cluster.clone(),
            address: registration.address.clone(),
        };
        if let Some(stale) = self.stale_registration(&key, &registration, connection) {
            return Registered::Ignored(stale);
        }
        if let Err(refused) = self.within_limits(&key, &registration) {
            return Registered::Refused(refused);
        }
        self.drop_former_identities(&key, &registration.broker_name);
        let Registration {
            broker_name: name,
            broker_id: id,
            topics,
            ..
        } = &registration;
        let version = topics.data_version;

        let group = self.groups.entry(name.clone()).or_insert_with(|| {
            let (cluster, broker_name) = (key.cluster.clone(), name.clone());
            Group {
                data: BrokerData {
                    cluster,
                    broker_name,
                    ..BrokerData::default()
                },
                fence: None,
            }
        });
        group.data.enable_acting_master = registration.enable_acting_master.unwrap_or(false);
        group.data.zone_name.clone_from(&registration.zone);
        // An address has one id: a follower that became leader leaves its old place.
        group
            .data
            .broker_addrs
            .retain(|held, address| *address != key.address || held == id);

        if let Some(stale) = self.lower_term(&key, name, *id, version) {
            // The address left its former id above; without one it has no place in the table.
            self.live.remove(&key);
            self.settle(BTreeSet::from([name.clone()]));
            return Registered::Ignored(stale);
        }
        self.clusters
            .entry(key.cluster.clone())
            .or_default()
            .insert(name.clone());
        let group = self.groups.entry(name.clone()).or_default();
        let first = !group.data.broker_addrs.contains_key(id);
        if first && topics.topic_config_table.len() == 1 {
            self.live.remove(&key);
            self.settle(BTreeSet::from([name.clone()]));
            return Registered::Refused(Refused::SingleTopicOfUnknownBroker);
        }
        group.data.broker_addrs.insert(*id, key.address.clone());
        if *id == MASTER_ID {
            group.fence = group.fence.max(Some(version.state_version));
        }
        let lowest = group.data.broker_addrs.keys().next() == Some(id);
        let stands_in = *id != MASTER_ID && registration.enable_acting_master.is_some() && lowest;
        if *id == MASTER_ID || stands_in {
            let read_only = stands_in && group.data.enable_acting_master;
            let changed = first
                || self
                    .live
                    .get(&key)
                    .is_none_or(|live| live.data_version != version);
            self.merge_topics(name, topics, changed, read_only, forget_missing);
        }

        let entry = Live {
            broker_name: name.clone(),
            broker_id: *id,
            heard_ms: now_ms,
            timeout_ms: registration
                .heartbeat_timeout_ms
                .unwrap_or(HEARTBEAT_TIMEOUT_MS),
            data_version: version,
            connection,
            ha_server_addr: registration.ha_server_addr.clone(),
            version: registration.version,
        };
        self.live.insert(key.clone(), entry);
        self.accepted(&key, name, *id)
    }

    /// Whether the address is known to have sent something newer than this registration.
    fn stale_registration(
        &self,
        key: &BrokerKey,
        new: &Registration,
        connection: u64,
    ) -> Option<Stale> {
        let live = self
            .live
            .get(key)
            .filter(|live| live.broker_name == new.broker_name)?;
        let (term, leads) = (
            new.topics.data_version.state_version,
            new.broker_id == MASTER_ID,
        );
        let held = live.data_version.state_version;
        // Members of a group that lead one after the other share an address when it follows the leader. Their
        // numbers come from clocks of their own, so that the term decides.
        if leads && term > held {
            return None;
        }
        if let (Some(version), Some(held)) = (new.version, live.version) {
            if version < held {
                return Some(Stale::OlderVersion { version, held });
            }
        } else if connection < live.connection {
            return Some(Stale::OlderConnection);
        }
        // From when it led: the part it has by now, follower or not, stays.
        (leads && term < held).then_some(Stale::LowerTerm { term, held })
    }

    /// The term that keeps this broker id from the address, if there is one.
    fn lower_term(
        &self,
        key: &BrokerKey,
        name: &str,
        id: i64,
        version: DataVersion,
    ) -> Option<Stale> {
        let group = self.groups.get(name)?;
        let term = version.state_version;
        let holder = group
            .data
            .broker_addrs
            .get(&id)
            .filter(|holder| **holder != key.address);
        let holder = holder.and_then(|address| {
            self.live.get(&BrokerKey {
                cluster: key.cluster.clone(),
                address: address.clone(),
            })
        });
        let fence = group.fence.filter(|_| id == MASTER_ID);
        let held = fence.max(holder.map(|live| live.data_version.state_version))?;
        (term < held).then_some(Stale::LowerTerm { term, held })
    }

    fn within_limits(&self, key: &BrokerKey, new: &Registration) -> Result<(), Refused> {
        let Limits {
            brokers_max,
            topics_max,
        } = self.limits;
        if self.live.len() >= brokers_max && !self.live.contains_key(key) {
            return Err(Refused::Full {
                what: "the number of brokers",
                limit: brokers_max,
            });
        }
        let table = &new.topics.topic_config_table;
        let more = table
            .keys()
            .filter(|topic| !self.topics.contains_key(*topic))
            .count();
        if more > 0 && self.topics.len() + more > topics_max {
            return Err(Refused::Full {
                what: "the number of topics",
                limit: topics_max,
            });
        }
        Ok(())
    }

    /// An address belongs to one group, and a group's address to one cluster: what it was before, it is no longer.
    fn drop_former_identities(&mut self, key: &BrokerKey, name: &str) {
        let renamed = self
            .live
            .get(key)
            .is_some_and(|live| live.broker_name != name);
        let mut former: Vec<BrokerKey> = renamed.then(|| key.clone()).into_iter().collect();
        let moved = self.live.iter().filter(|(other, live)| {
            other.address == key.address && other.cluster != key.cluster && live.broker_name == name
        });
        former.extend(moved.map(|(other, _)| other.clone()));
        for former in former {
            self.remove(&[former]);
        }
    }

    fn merge_topics(
        &mut self,
        name: &str,
        wrapper: &TopicConfigSerializeWrapper,
        changed: bool,
        read_only: bool,
        forget_missing: bool,
    ) {
        let table = &wrapper.topic_config_table;
        let mappings = wrapper.topic_queue_mapping_info_map.iter().flatten();
        if forget_missing && mappings.clone().next().is_none() {
            self.topics.retain(|topic, queues| {
                if !table.contains_key(topic) {
                    queues.remove(name);
                }
                !queues.is_empty()
            });
        }
        for (key, config) in table {
            let topic = if config.topic_name.is_empty() {
                key
            } else {
                &config.topic_name
            };
            let known = self
                .topics
                .get(topic)
                .is_some_and(|queues| queues.contains_key(name));
            if changed || !known {
                let queues = queue_data(name, config, read_only);
                self.topics
                    .entry(topic.clone())
                    .or_default()
                    .insert(name.to_owned(), queues);
            }
        }
        if changed {
            for (topic, info) in mappings {
                let name = info.bname.clone().unwrap_or_else(|| name.to_owned());
                self.mappings
                    .entry(topic.clone())
                    .or_default()
                    .insert(name, info.clone());
            }
        }
    }

    fn accepted(&self, key: &BrokerKey, name: &str, id: i64) -> Registered {
        let group = self.groups.get(name).filter(|_| id != MASTER_ID);
        let master = group.and_then(|group| group.data.broker_addrs.get(&MASTER_ID));
        let live = master.and_then(|address| {
            let key = BrokerKey {
                cluster: key.cluster.clone(),
                address: address.clone(),
            };
            self.live
                .get(&key)
                .map(|live| (address.clone(), live.ha_server_addr.clone()))
        });
        let (master_addr, ha_server_addr) = live.unzip();
        Registered::Accepted {
            ha_server_addr,
            master_addr,
        }
    }

    /// A sign of life (322, 904); false if the broker is not in the table.
    pub fn heartbeat(&mut self, broker: &BrokerKey, connection: u64, now_ms: u64) -> bool {
        let Some(live) = self.live.get_mut(broker) else {
            return false;
        };
        live.heard_ms = live.heard_ms.max(now_ms);
        // A broker that reconnected may send heartbeats only; the end of its old connection must not remove it.
        live.connection = live.connection.max(connection);
        true
    }

    /// Version of the broker's topics as registered last.
    pub fn data_version(&self, broker: &BrokerKey) -> Option<DataVersion> {
        self.live.get(broker).map(|live| live.data_version)
    }

    /// Removes a broker at its own wish, unless it has registered anew since.
    pub fn unregister(&mut self, wish: &Unregistration, connection: u64) -> Unregistered {
        let key = BrokerKey {
            cluster: wish.cluster.clone(),
            address: wish.address.clone(),
        };
        let Some(live) = self
            .live
            .get(&key)
            .filter(|live| live.broker_name == wish.broker_name)
        else {
            return Unregistered::Unknown;
        };
        if let Some(stale) = stale_unregistration(live, wish, connection) {
            return Unregistered::Ignored(stale);
        }
        self.remove(&[key]);
        Unregistered::Removed
    }

    /// Removes the brokers that were last heard over this connection.
    pub fn connection_closed(&mut self, connection: u64) -> Vec<BrokerKey> {
        let gone = self
            .live
            .iter()
            .filter(|(_, live)| live.connection == connection);
        let gone: Vec<BrokerKey> = gone.map(|(key, _)| key.clone()).collect();
        self.remove(&gone);
        gone
    }

    /// Removes the brokers that gave no sign of life within their time.
    pub fn expire(&mut self, now_ms: u64) -> Vec<Expired> {
        let silent = self
            .live
            .iter()
            .filter(|(_, live)| live.heard_ms.saturating_add(live.timeout_ms) < now_ms);
        let expired: Vec<Expired> = silent
            .map(|(key, live)| Expired {
                broker: key.clone(),
                connection: live.connection,
                timeout_ms: live.timeout_ms,
            })
            .collect();
        let keys: Vec<BrokerKey> = expired
            .iter()
            .map(|expired| expired.broker.clone())
            .collect();
        self.remove(&keys);
        expired
    }

    /// Adds queues of known groups to a topic (217). An unknown group ends it: what came before stays.
    ///
    /// # Errors
    /// When the table is full.
    pub fn register_topic(&mut self, topic: &str, queues: Vec<QueueData>) -> Result<(), Refused> {
        let limit = self.limits.topics_max;
        if !self.topics.contains_key(topic) && self.topics.len() >= limit {
            return Err(Refused::Full {
                what: "the number of topics",
                limit,
            });
        }
        let existed = self.topics.contains_key(topic);
        let known: Vec<QueueData> = queues
            .iter()
            .take_while(|data| self.groups.contains_key(&data.broker_name))
            .cloned()
            .collect();
        // A new topic is registered with all its queues or not at all.
        if known.is_empty() || (!existed && known.len() < queues.len()) {
            return Ok(());
        }
        let entry = self.topics.entry(topic.to_owned()).or_default();
        entry.extend(
            known
                .into_iter()
                .map(|data| (data.broker_name.clone(), data)),
        );
        Ok(())
    }

    /// Forgets a topic (216), in one cluster or everywhere.
    pub fn delete_topic(&mut self, topic: &str, cluster: Option<&str>) {
        let Some(cluster) = cluster else {
            self.topics.remove(topic);
            return;
        };
        let (Some(names), Some(queues)) = (self.clusters.get(cluster), self.topics.get_mut(topic))
        else {
            return;
        };
        queues.retain(|name, _| !names.contains(name));
        if queues.is_empty() {
            self.topics.remove(topic);
        }
    }

    /// Takes the write permission from all queues of a group (205); returns how many topics it has. A later registration
    /// with another data version brings it back.
    pub fn wipe_write_perm(&mut self, broker_name: &str) -> usize {
        self.change_perm(broker_name, |held| held & !perm::WRITE)
    }

    /// Gives all queues of a group read and write permission (327); returns how many topics it has.
    pub fn add_write_perm(&mut self, broker_name: &str) -> usize {
        self.change_perm(broker_name, |_| perm::READ | perm::WRITE)
    }

    fn change_perm(&mut self, broker_name: &str, change: impl Fn(i32) -> i32) -> usize {
        let queues = self
            .topics
            .values_mut()
            .filter_map(|queues| queues.get_mut(broker_name));
        queues.map(|data| data.perm = change(data.perm)).count()
    }

    /// Removes live entries and all that hangs on them.
    fn remove(&mut self, brokers: &[BrokerKey]) {
        let mut touched = BTreeSet::new();
        for key in brokers {
            let Some(live) = self.live.remove(key) else {
                continue;
            };
            if let Some(group) = self.groups.get_mut(&live.broker_name) {
                group
                    .data
                    .broker_addrs
                    .retain(|_, address| *address != key.address);
            }
            touched.insert(live.broker_name);
        }
        self.settle(touched);
    }

    /// Draws the conclusions after groups lost addresses: an empty group goes with its queues, and one that may be stood
    /// in for and lost its leader becomes read-only.
    fn settle(&mut self, names: BTreeSet<String>) {
        let (mut gone, mut read_only) = (BTreeSet::new(), BTreeSet::new());
        for name in names {
            let Some(group) = self.groups.get(&name) else {
                continue;
            };
            if group.data.broker_addrs.is_empty() {
                gone.insert(name);
            } else if group.data.enable_acting_master
                && !group.data.broker_addrs.contains_key(&MASTER_ID)
            {
                read_only.insert(name);
            }
        }
        if !gone.is_empty() {
            self.groups.retain(|name, _| !gone.contains(name));
            self.clusters.retain(|_, names| {
                names.retain(|name| !gone.contains(name));
                !names.is_empty()
            });
            self.mappings.retain(|_, by_name| {
                by_name.retain(|name, _| !gone.contains(name));
                !by_name.is_empty()
            });
        }
        if gone.is_empty() && read_only.is_empty() {
            return;
        }
        self.topics.retain(|_, queues| {
            queues.retain(|name, data| {
                if read_only.contains(name) {
                    data.perm &= !perm::WRITE;
                }
                !gone.contains(name)
            });
            !queues.is_empty()
        });
    }
}

fn queue_data(name: &str, config: &TopicConfig, read_only: bool) -> QueueData {
    QueueData {
        broker_name: name.to_owned(),
        read_queue_nums: config.read_queue_nums,
        write_queue_nums: config.write_queue_nums,
        perm: if read_only {
            config.perm & !perm::WRITE
        } else {
            config.perm
        },
        topic_sys_flag: config.topic_sys_flag,
    }
}

fn stale_unregistration(live: &Live, wish: &Unregistration, connection: u64) -> Option<Stale> {
    let held = live.data_version.state_version;
    if let Some(term) = wish.state_version.filter(|term| *term < held) {
        return Some(Stale::LowerTerm { term, held });
    }
    if let (Some(version), Some(held)) = (wish.version, live.version) {
        return (version < held).then_some(Stale::OlderVersion { version, held });
    }
    if connection < live.connection {
        return Some(Stale::OlderConnection);
    }
    // Over the same connection requests come in the order they were sent in: the broker means what it says.
    let other_id = wish.broker_id != live.broker_id && connection != live.connection;
    other_id.then_some(Stale::OtherId {
        held: live.broker_id,
    })
}
