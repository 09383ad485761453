//! The route table under random orders of everything that can happen, against a model that is simple enough to be read
//! at a glance: who holds which id, and what each address said last.

use std::collections::BTreeMap;

use proptest::prelude::*;
use raftmq_proto::body::{DataVersion, TopicConfig, TopicConfigSerializeWrapper};

use super::*;

const ADDRESSES: u64 = 3;
const TIMEOUT_MS: u64 = 1_000;

#[derive(Debug, Clone)]
enum Step {
    Register {
        address: u64,
        id: i64,
        term: i64,
        connection: u64,
        version: Option<i64>,
    },
    Unregister {
        address: u64,
        id: i64,
        connection: u64,
        version: Option<i64>,
    },
    Heartbeat {
        address: u64,
        connection: u64,
    },
    Close {
        connection: u64,
    },
    Wait {
        ms: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Each address speaks over three connections of its own; numbers are interleaved, so that any may be the newest.
    let connection = |address: u64, at: u64| at * ADDRESSES + address + 1;
    let version = prop_oneof![Just(None), (0..6i64).prop_map(Some)];
    let register = (0..ADDRESSES, 0..3i64, 0..5i64, 0..3u64, version.clone()).prop_map(
        move |(address, id, term, at, version)| Step::Register {
            address,
            id,
            term,
            connection: connection(address, at),
            version,
        },
    );
    let unregister =
        (0..ADDRESSES, 0..3i64, 0..3u64, version).prop_map(move |(address, id, at, version)| {
            Step::Unregister {
                address,
                id,
                connection: connection(address, at),
                version,
            }
        });
    let heartbeat = (0..ADDRESSES, 0..3u64).prop_map(move |(address, at)| Step::Heartbeat {
        address,
        connection: connection(address, at),
    });
    let close = (1..=3 * ADDRESSES).prop_map(|connection| Step::Close { connection });
    let wait = (1..TIMEOUT_MS).prop_map(|ms| Step::Wait { ms });
    let step = prop_oneof![6 => register, 2 => unregister, 1 => heartbeat, 2 => close, 1 => wait];
    proptest::collection::vec(step, 1..60)
}

/// What an address said last.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Said {
    id: i64,
    term: i64,
    connection: u64,
    version: Option<i64>,
    heard_ms: u64,
}

#[derive(Debug, Default)]
struct Model {
    said: BTreeMap<u64, Said>,
    holders: BTreeMap<i64, u64>,
    /// Highest term of a leader since the group has members.
    fence: Option<i64>,
}

impl Model {
    /// Whether the address said something newer than a message with these marks.
    fn newer(said: Said, connection: u64, version: Option<i64>) -> bool {
        match (said.version, version) {
            (Some(held), Some(new)) => held > new,
            _ => said.connection > connection,
        }
    }

    fn register(&mut self, address: u64, new: Said) {
        if let Some(&said) = self.said.get(&address)
            && !(new.id == 0 && new.term > said.term)
            && (Self::newer(said, new.connection, new.version)
                || (new.id == 0 && new.term < said.term))
        {
            return;
        }
        self.holders
            .retain(|id, holder| *holder != address || *id == new.id);
        let holder = self
            .holders
            .get(&new.id)
            .filter(|holder| **holder != address);
        let held = holder.map(|holder| self.said[holder].term);
        let fence = if new.id == 0 { self.fence } else { None };
        if held.max(fence).is_some_and(|held| new.term < held) {
            self.forget(address);
            return;
        }
        self.holders.insert(new.id, address);
        self.said.insert(address, new);
        if new.id == 0 {
            self.fence = Some(new.term);
        }
    }

    fn forget(&mut self, address: u64) {
        self.said.remove(&address);
        self.holders.retain(|_, holder| *holder != address);
        if self.holders.is_empty() {
            self.fence = None;
        }
    }
}

fn registration(address: u64, said: Said) -> Registration {
    let mut topics = TopicConfigSerializeWrapper {
        data_version: DataVersion {
            state_version: said.term,
            timestamp: 0,
            counter: 0,
        },
        ..TopicConfigSerializeWrapper::default()
    };
    for name in ["t1", "t2"] {
        topics
            .topic_config_table
            .insert(name.to_owned(), TopicConfig::new(name, 4, 6));
    }
    Registration {
        cluster: "c".to_owned(),
        broker_name: "b".to_owned(),
        address: address.to_string(),
        broker_id: said.id,
        heartbeat_timeout_ms: Some(TIMEOUT_MS),
        topics,
        version: said.version,
        ..Registration::default()
    }
}

fn key(address: u64) -> BrokerKey {
    BrokerKey {
        cluster: "c".to_owned(),
        address: address.to_string(),
    }
}

fn check(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (mut table, mut model, mut now_ms) = (RouteTable::default(), Model::default(), 0);
    for step in steps {
        match step.clone() {
            Step::Register {
                address,
                id,
                term,
                connection,
                version,
            } => {
                let said = Said {
                    id,
                    term,
                    connection,
                    version,
                    heard_ms: now_ms,
                };
                let outcome =
                    table.register(registration(address, said), false, connection, now_ms);
                model.register(address, said);
                let accepted = matches!(outcome, Registered::Accepted { .. });
                prop_assert_eq!(
                    accepted,
                    model.said.get(&address) == Some(&said),
                    "{:?}",
                    outcome
                );
            }
            Step::Unregister {
                address,
                id,
                connection,
                version,
            } => {
                let wish = Unregistration {
                    cluster: "c".to_owned(),
                    broker_name: "b".to_owned(),
                    address: address.to_string(),
                    broker_id: id,
                    version,
                    state_version: None,
                };
                let outcome = table.unregister(&wish, connection);
                let Some(&said) = model.said.get(&address) else {
                    prop_assert_eq!(outcome, Unregistered::Unknown);
                    continue;
                };
                let numbered = said.version.is_some() && version.is_some();
                let other_id = !numbered && said.id != id && said.connection != connection;
                if Model::newer(said, connection, version) || other_id {
                    prop_assert!(
                        matches!(outcome, Unregistered::Ignored(_)),
                        "{outcome:?} wiped {said:?}"
                    );
                } else {
                    prop_assert_eq!(outcome, Unregistered::Removed);
                    model.forget(address);
                }
            }
            Step::Heartbeat {
                address,
                connection,
            } => {
                let known = table.heartbeat(&key(address), connection, now_ms);
                prop_assert_eq!(known, model.said.contains_key(&address));
                if let Some(said) = model.said.get_mut(&address) {
                    said.heard_ms = now_ms;
                    said.connection = said.connection.max(connection);
                }
            }
            Step::Close { connection } => {
                let gone = table.connection_closed(connection);
                let expected: Vec<u64> = model
                    .said
                    .iter()
                    .filter(|(_, said)| said.connection == connection)
                    .map(|(a, _)| *a)
                    .collect();
                prop_assert_eq!(
                    gone,
                    expected
                        .iter()
                        .map(|address| key(*address))
                        .collect::<Vec<_>>()
                );
                expected
                    .into_iter()
                    .for_each(|address| model.forget(address));
            }
            Step::Wait { ms } => {
                now_ms += ms;
                let expired: Vec<_> = table
                    .expire(now_ms)
                    .into_iter()
                    .map(|expired| expired.broker)
                    .collect();
                let silent: Vec<u64> = model
                    .said
                    .iter()
                    .filter(|(_, said)| said.heard_ms + TIMEOUT_MS < now_ms)
                    .map(|(address, _)| *address)
                    .collect();
                prop_assert_eq!(
                    expired,
                    silent
                        .iter()
                        .map(|address| key(*address))
                        .collect::<Vec<_>>()
                );
                silent.into_iter().for_each(|address| model.forget(address));
            }
        }
        agree(&table, &model, &step)?;
    }
    Ok(())
}

fn agree(table: &RouteTable, model: &Model, step: &Step) -> Result<(), TestCaseError> {
    let members = table.member_group("c", "b").broker_addrs;
    let expected: BTreeMap<i64, String> = model
        .holders
        .iter()
        .map(|(id, address)| (*id, address.to_string()))
        .collect();
    prop_assert_eq!(&members, &expected, "after {:?}", step);

    // Every listed address is live under that id, and the leader's term is the highest the group has had.
    for (id, address) in &members {
        let live = table
            .live
            .iter()
            .find(|(key, _)| key.address == *address)
            .map(|(_, live)| live);
        let live =
            live.ok_or_else(|| TestCaseError::fail(format!("{address} is listed and not live")))?;
        prop_assert_eq!(live.broker_id, *id);
        if *id == 0 {
            prop_assert_eq!(Some(live.data_version.state_version), model.fence);
        }
    }
    prop_assert_eq!(
        table
            .live
            .keys()
            .map(|key| key.address.clone())
            .collect::<Vec<_>>(),
        model.said.keys().map(u64::to_string).collect::<Vec<_>>()
    );
    // No members, no group, no cluster, no topics.
    let info = table.cluster_info();
    prop_assert_eq!(info.broker_addr_table.is_empty(), members.is_empty());
    prop_assert_eq!(info.cluster_addr_table.is_empty(), members.is_empty());
    if members.is_empty() {
        prop_assert!(table.topic_list().topic_list.is_empty());
    }
    if members.contains_key(&0) {
        let route = table.route(RouteQuery {
            topic: "t1",
            ..RouteQuery::default()
        });
        prop_assert_eq!(route.map(|route| route.queue_datas.len()), Some(1));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_order_of_events_keeps_the_newest_knowledge(steps in steps()) {
        check(steps)?;
    }
}
