use raftmq_proto::body::TopicList;

use super::*;

/// Registration of `address` in group `b` of cluster `c`, with two topics.
fn broker(address: &str, id: i64, term: i64) -> Registration {
    let mut topics = TopicConfigSerializeWrapper {
        data_version: DataVersion {
            state_version: term,
            timestamp: 1,
            counter: 1,
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
        address: address.to_owned(),
        broker_id: id,
        ha_server_addr: format!("{address}-ha"),
        enable_acting_master: Some(false),
        topics,
        ..Registration::default()
    }
}

fn named(name: &str, registration: Registration) -> Registration {
    Registration {
        broker_name: name.to_owned(),
        ..registration
    }
}

fn key(address: &str) -> BrokerKey {
    BrokerKey {
        cluster: "c".to_owned(),
        address: address.to_owned(),
    }
}

fn wish(address: &str, id: i64) -> Unregistration {
    Unregistration {
        cluster: "c".to_owned(),
        broker_name: "b".to_owned(),
        address: address.to_owned(),
        broker_id: id,
        ..Unregistration::default()
    }
}

fn register(table: &mut RouteTable, registration: Registration, connection: u64) -> Registered {
    table.register(registration, false, connection, 0)
}

fn accept(table: &mut RouteTable, registration: Registration, connection: u64) {
    let outcome = register(table, registration, connection);
    assert!(
        matches!(outcome, Registered::Accepted { .. }),
        "{outcome:?}"
    );
}

/// `id=address` of group `b`, in order.
fn members(table: &RouteTable) -> String {
    let members = table.member_group("c", "b").broker_addrs;
    members
        .iter()
        .map(|(id, address)| format!("{id}={address}"))
        .collect::<Vec<_>>()
        .join(" ")
}

fn route(table: &RouteTable, topic: &str) -> Option<raftmq_proto::body::TopicRouteData> {
    table.route(RouteQuery {
        topic,
        ..RouteQuery::default()
    })
}

fn perms(table: &RouteTable, topic: &str) -> Vec<(String, i32)> {
    let route = route(table, topic)
        .map(|route| route.queue_datas)
        .unwrap_or_default();
    route
        .into_iter()
        .map(|data| (data.broker_name, data.perm))
        .collect()
}

#[test]
fn a_leader_brings_its_topics_and_a_follower_learns_where_the_leader_is() {
    let mut table = RouteTable::default();
    let none = Registered::Accepted {
        ha_server_addr: None,
        master_addr: None,
    };
    assert_eq!(register(&mut table, broker("x:1", 0, 1), 1), none);
    let leader = Registered::Accepted {
        ha_server_addr: Some("x:1-ha".to_owned()),
        master_addr: Some("x:1".to_owned()),
    };
    assert_eq!(register(&mut table, broker("x:2", 2, 1), 2), leader);
    let route = route(&table, "t1").unwrap();
    assert_eq!(
        String::from_utf8(route.to_json()).unwrap(),
        concat!(
            r#"{"brokerDatas":[{"brokerAddrs":{"0":"x:1","2":"x:2"},"brokerName":"b","cluster":"c","#,
            r#""enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"b","perm":6,"#,
            r#""readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4}]}"#
        )
    );
    assert!(
        table
            .route(RouteQuery {
                topic: "t3",
                ..RouteQuery::default()
            })
            .is_none()
    );
}

#[test]
fn followers_change_no_topics() {
    let mut table = RouteTable::default();
    accept(&mut table, broker("x:1", 0, 1), 1);
    let mut follower = broker("x:2", 1, 1);
    follower
        .topics
        .topic_config_table
        .insert("t3".to_owned(), TopicConfig::new("t3", 1, 6));
    accept(&mut table, follower, 2);
    assert!(route(&table, "t3").is_none());
}

#[test]
fn a_follower_that_became_leader_leaves_its_old_id() {
    let mut table = RouteTable::default();
    accept(&mut table, broker("x:1", 0, 1), 1);
    accept(&mut table, broker("x:2", 2, 1), 2);
    accept(&mut table, broker("x:2", 0, 2), 2);
    assert_eq!(members(&table), "0=x:2");
    // The former leader comes back as a follower.
    accept(&mut table, broker("x:1", 1, 2), 1);
    assert_eq!(members(&table), "0=x:2 1=x:1");
}

#[test]
fn a_lower_term_never_takes_the_leaders_place() {
    let mut table = RouteTable::default();
    accept(&mut table, broker("x:1", 0, 5), 1);
    accept(&mut table, broker("x:2", 2, 5), 2);
    let stale = Registered::Ignored(Stale::LowerTerm { term: 4, held: 5 });
    assert_eq!(register(&mut table, broker("x:3", 0, 4), 3), stale);
    // From when it led: unlike in the original, the address keeps the id it has by now.
    assert_eq!(register(&mut table, broker("x:2", 0, 4), 2), stale);
    assert_eq!(members(&table), "0=x:1 2=x:2");
    assert!(table.heartbeat(&key("x:2"), 2, 0));
    // The same term or a higher one replaces.
    accept(&mut table, broker("x:2", 0, 5), 2);
    accept(&mut table, broker("x:3", 0, 6), 3);
    assert_eq!(members(&table), "0=x:3");
}

#[test]
fn the_leader_itself_does_not_fall_back_to_a_lower_term() {
    let mut table = RouteTable::default();
    accept(&mut table, broker("x:1", 0, 5), 1);
    let stale = Registered::Ignored(Stale::LowerTerm { term: 4, held: 5 });
    assert_eq!(register(&mut table, broker("x:1", 0, 4), 1), stale);
    assert_eq!(register(&mut table, broker("x:1", 0, 4), 9), stale);
    assert_eq!(members(&table), "0=x:1");
    assert_eq!(table.data_version(&key("x:1")).unwrap().state_version, 5);
}

#[test]
fn the_term_is_remembered_while_the_group_has_members_and_no_longer() {
    let mut table = RouteTable::default();
    accept(&mut table, broker("x:1", 0, 5), 1);
    accept(&mut table, broker("x:2", 2, 5), 2);
    table.connection_closed(1);
    assert_eq!(members(&table), "2=x:2");
    let stale = Registered::Ignored(Stale::LowerTerm { term: 3, held: 5 });
    assert_eq!(register(&mut table, broker("x:3", 0, 3), 3), stale);
    assert_eq!(members(&table), "2=x:2");
    // A group that was set up anew under the same name starts from term 1.
    table.connection_closed(2);
    accept(&mut table, broker("x:3", 0, 1), 4);
    assert_eq!(members(&table), "0=x:3");
}

#[test]
fn brokers_without_terms_replace_each_other_as_in_the_original() {
    let mut table = RouteTable::default();
    accept(&mut table, broker("x:1", 0, 0), 1);
    accept(&mut table, broker("x:2", 0, 0), 2);
    assert_eq!(members(&table), "0=x:2");
    accept(&mut table, broker("x:1", 0, 0), 1);
    assert_eq!(members(&table), "0=x:1");
}

#[test]
fn the_guard_of_other_ids_needs_a_live_holder_of_a_higher_term() {
    let mut table = RouteTable::default();
    accept(&mut table, broker("x:1", 1, 5), 1);
    let stale = Registered::Ignored(Stale::LowerTerm { term: 4, held: 5 });
    assert_eq!(register(&mut table, broker("x:2", 1, 4), 2), stale);
    table.connection_closed(1);
    accept(&mut table, broker("x:2", 1, 4), 2);
    assert_eq!(members(&table), "1=x:2");
}

#[test]
fn a_single_topic_of_an_unknown_broker_is_refused_and_leaves_nothing() {
    let mut table = RouteTable::default();
    let mut single = broker("x:1", 0, 1);
    single.topics.topic_config_table.remove("t2");
    let refused = Registered::Refused(Refused::SingleTopicOfUnknownBroker);
    assert_eq!(register(&mut table, single.clone(), 1), refused);
    assert!(table.cluster_info().broker_addr_table.is_empty());
    assert!(table.cluster_info().cluster_addr_table.is_empty());
    accept(&mut table, broker("x:1", 0, 1), 1);
    single.topics.topic_config_table =
        BTreeMap::from([("t3".to_owned(), TopicConfig::new("t3", 1, 6))]);
    accept(&mut table, single, 1);
    assert!(route(&table, "t3").is_some() && route(&table, "t2").is_some());
}

#[test]
fn topics_are_written_when_the_data_version_differs_or_the_broker_is_missing() {
    let mut table = RouteTable::default();
    accept(&mut table, broker("x:1", 0, 1), 1);
    assert_eq!(table.wipe_write_perm("b"), 2);
    assert_eq!(perms(&table, "t1"), [("b".to_owned(), 4)]);
    // The same version again: the wiped permission stays.
    accept(&mut table, broker("x:1", 0, 1), 1);
    assert_eq!(perms(&table, "t1"), [("b".to_owned(), 4)]);
    table.delete_topic("t2", None);
    accept(&mut table, broker("x:1", 0, 1), 1);
    assert_eq!(perms(&table, "t2"), [("b".to_owned(), 6)]);
    let mut changed = broker("x:1", 0, 1);
    changed.topics.data_version.counter = 2;
    accept(&mut table, changed, 1);
    assert_eq!(perms(&table, "t1"), [("b".to_owned(), 6)]);
    assert_eq!(table.add_write_perm("b"), 2);
    assert_eq!(table.add_write_perm("nobody"), 0);
}

#[test]
fn topics_missing_from_a_registration_go_only_when_asked_to() {
    let mut table = RouteTable::default();
    accept(&mut table, broker("x:1", 0, 1), 1);
    accept(&mut table, named("b2", broker("y:1", 0, 1)), 2);
    let mut fewer = broker("x:1", 0, 1);
    fewer.topics.topic_config_table.remove("t1");
    fewer
        .topics
        .topic_config_table
        .insert("t3".to_owned(), TopicConfig::new("t3", 4, 6));
    accept(&mut table, fewer.clone(), 1);
    assert_eq!(perms(&table, "t1").len(), 2);
    table.register(fewer, true, 1, 0);
    assert_eq!(perms(&table, "t1"), [("b2".to_owned(), 6)]);
}

#[test]
fn the_last_member_takes_the_groups_topics_along() {
    let mut table = RouteTable::default();
    accept(&mut table, broker("x:1", 0, 1), 1);
    accept(&mut table, broker("x:2", 1, 1), 2);
    accept(&mut table, named("b2", broker("y:1", 0, 1)), 3);
    assert_eq!(table.unregister(&wish("x:1", 0), 1), Unregistered::Removed);
    // A follower is left: consumers go on reading, producers see that there is no leader.
    assert_eq!(members(&table), "1=x:2");
    assert_eq!(perms(&table, "t1").len(), 2);
    assert_eq!(table.unregister(&wish("x:2", 1), 2), Unregistered::Removed);
    assert_eq!(perms(&table, "t1"), [("b2".to_owned(), 6)]);
    assert_eq!(table.unregister(&wish("x:2", 1), 2), Unregistered::Unknown);
    table.connection_closed(3);
    assert!(table.topic_list().topic_list.is_empty());
    assert!(table.cluster_info().cluster_addr_table.is_empty());
    assert!(table.live.is_empty() && table.groups.is_empty());
}

#[test]
fn a_stale_unregistration_does_not_remove_a_fresh_registration() {
    let mut table = RouteTable::default();
    accept(&mut table, broker("x:1", 0, 1), 7);
    // By order of connections, for brokers that number nothing.
    let old = Unregistered::Ignored(Stale::OlderConnection);
    assert_eq!(table.unregister(&wish("x:1", 0), 6), old);
    let other = Unregistered::Ignored(Stale::OtherId { held: 0 });
    assert_eq!(table.unregister(&wish("x:1", 1), 8), other);
    // By registration version, whatever the connections.
    accept(
        &mut table,
        Registration {
            version: Some(11),
            ..broker("x:1", 0, 1)
        },
        7,
    );
    let stale = Unregistration {
        version: Some(10),
        ..wish("x:1", 0)
    };
    let older = Unregistered::Ignored(Stale::OlderVersion {
        version: 10,
        held: 11,
    });
    assert_eq!(table.unregister(&stale, 8), older);
    // By term.
    let stale = Unregistration {
        state_version: Some(0),
        ..wish("x:1", 0)
    };
    let lower = Unregistered::Ignored(Stale::LowerTerm { term: 0, held: 1 });
    assert_eq!(table.unregister(&stale, 8), lower);
    let wrong_name = Unregistration {
        broker_name: "other".to_owned(),
        ..wish("x:1", 0)
    };
    assert_eq!(table.unregister(&wrong_name, 8), Unregistered::Unknown);
    assert_eq!(members(&table), "0=x:1");
    let right = Unregistration {
        version: Some(11),
        state_version: Some(1),
        ..wish("x:1", 0)
    };
    assert_eq!(table.unregister(&right, 3), Unregistered::Removed);
}

#[test]
fn a_stale_registration_changes_nothing() {
    let mut table = RouteTable::default();
    accept(
        &mut table,
        Registration {
            version: Some(5),
            ..broker("x:1", 0, 2)
        },
        3,
    );
    let older = Registration {
        version: Some(4),
        ..broker("x:1", 1, 2)
    };
    let stale = Registered::Ignored(Stale::OlderVersion {
        version: 4,
        held: 5,
    });
    assert_eq!(register(&mut table, older, 4), stale);
    let unnumbered = broker("x:1", 1, 2);
    let stale = Registered::Ignored(Stale::OlderConnection);
    assert_eq!(register(&mut table, unnumbered, 2), stale);
    assert_eq!(members(&table), "0=x:1");
}

/// Members that share an address which follows leadership number their registrations by clocks of their own.
#[test]
fn a_new_leader_takes_a_shared_address_over_whatever_the_clocks_say() {
    let mut table = RouteTable::default();
    let numbered = |term, version| Registration {
        version: Some(version),
        ..broker("all:9", 0, term)
    };
    accept(&mut table, numbered(1, 900), 7);
    accept(&mut table, broker("x:1", 1, 1), 7);
    accept(&mut table, numbered(2, 100), 3);
    assert!(matches!(
        register(&mut table, numbered(1, 901), 7),
        Registered::Ignored(Stale::OlderVersion { .. } | Stale::LowerTerm { .. })
    ));
    // What the old leader leaves behind is its own address.
    let late = Unregistration {
        version: Some(902),
        state_version: Some(1),
        ..wish("all:9", 0)
    };
    assert!(matches!(
        table.unregister(&late, 7),
        Unregistered::Ignored(Stale::LowerTerm { .. })
    ));
    assert_eq!(table.connection_closed(7), [key("x:1")]);
    assert_eq!(members(&table), "0=all:9");
}

#[test]
fn only_the_connection_of_the_live_entry_takes_the_broker_along() {
    let mut table = RouteTable::default();
    accept(&mut table, broker("x:1", 0, 1), 1);
    // Reconnected: the old connection ends after the new registration.
    accept(&mut table, broker("x:1", 0, 1), 2);
    assert!(table.connection_closed(1).is_empty());
    // Reconnected again, and so far only a heartbeat has come.
    assert!(table.heartbeat(&key("x:1"), 3, 0));
    assert!(table.connection_closed(2).is_empty());
    assert_eq!(members(&table), "0=x:1");
    assert_eq!(table.connection_closed(3), [key("x:1")]);
    assert_eq!(members(&table), "");
}

#[test]
fn silence_for_longer_than_the_timeout_removes() {
    let mut table = RouteTable::default();
    table.register(broker("x:1", 0, 1), false, 1, 1_000);
    let impatient = Registration {
        heartbeat_timeout_ms: Some(10_000),
        ..broker("x:2", 1, 1)
    };
    table.register(impatient, false, 2, 1_000);
    assert!(table.expire(11_000).is_empty());
    let expired = table.expire(11_001);
    assert_eq!(
        expired,
        [Expired {
            broker: key("x:2"),
            connection: 2,
            timeout_ms: 10_000
        }]
    );
    assert!(table.heartbeat(&key("x:1"), 1, 100_000));
    assert!(!table.heartbeat(&key("x:2"), 2, 100_000));
    assert!(table.expire(220_000).is_empty());
    assert_eq!(table.expire(220_001).len(), 1);
    assert_eq!(members(&table), "");
}

#[test]
fn a_replaced_leader_that_never_came_back_leaves_without_a_trace() {
    let mut table = RouteTable::default();
    accept(&mut table, broker("x:1", 0, 1), 1);
    accept(&mut table, broker("x:2", 0, 2), 2);
    assert_eq!(table.connection_closed(1), [key("x:1")]);
    assert_eq!(members(&table), "0=x:2");
    assert!(route(&table, "t1").is_some());
    assert_eq!(table.live.len(), 1);
}

#[test]
fn an_address_under_a_new_name_or_in_a_new_cluster_leaves_the_old_one() {
    let mut table = RouteTable::default();
    accept(&mut table, broker("x:1", 0, 1), 1);
    accept(&mut table, named("renamed", broker("x:1", 0, 1)), 2);
    let info = table.cluster_info();
    assert_eq!(
        info.broker_addr_table.keys().collect::<Vec<_>>(),
        ["renamed"]
    );
    let moved = Registration {
        cluster: "c2".to_owned(),
        ..named("renamed", broker("x:1", 0, 1))
    };
    accept(&mut table, moved, 3);
    let info = table.cluster_info();
    assert_eq!(info.cluster_addr_table.keys().collect::<Vec<_>>(), ["c2"]);
    assert_eq!(info.broker_addr_table["renamed"].cluster, "c2");
    assert!(table.connection_closed(1).is_empty() && table.connection_closed(2).is_empty());
    assert!(route(&table, "t1").is_some());
}

#[test]
fn a_group_that_allows_it_becomes_read_only_and_is_stood_in_for() {
    let mut table = RouteTable::default();
    let acting = |address, id| Registration {
        enable_acting_master: Some(true),
        ..broker(address, id, 1)
    };
    accept(&mut table, acting("x:1", 0), 1);
    accept(&mut table, acting("x:2", 1), 2);
    let query = RouteQuery {
        topic: "t1",
        acting_master: true,
        zone: None,
    };
    assert_eq!(
        table.route(query).unwrap().broker_datas[0].broker_addrs[&0],
        "x:1"
    );
    table.connection_closed(1);
    assert_eq!(perms(&table, "t1"), [("b".to_owned(), 4)]);
    assert_eq!(
        table.route(query).unwrap().broker_datas[0].broker_addrs,
        BTreeMap::from([(0, "x:2".to_owned())])
    );
    let plain = RouteQuery {
        acting_master: false,
        ..query
    };
    assert_eq!(
        table.route(plain).unwrap().broker_datas[0].broker_addrs,
        BTreeMap::from([(1, "x:2".to_owned())])
    );
    // The lowest follower brings topics too, without their write permission.
    let mut prime = acting("x:2", 1);
    prime.topics.data_version.counter = 2;
    prime
        .topics
        .topic_config_table
        .insert("t3".to_owned(), TopicConfig::new("t3", 4, 6));
    accept(&mut table, prime, 2);
    assert_eq!(perms(&table, "t3"), [("b".to_owned(), 4)]);
}

#[test]
fn zones_keep_near_groups_and_those_without_a_leader() {
    let mut table = RouteTable::default();
    let zoned = |name: &str, address, id, zone: &str| {
        named(
            name,
            Registration {
                zone: Some(zone.to_owned()),
                ..broker(address, id, 1)
            },
        )
    };
    accept(&mut table, zoned("near", "x:1", 0, "z1"), 1);
    accept(&mut table, zoned("far", "x:2", 0, "z2"), 2);
    accept(&mut table, zoned("leaderless", "x:3", 0, "z2"), 3);
    accept(&mut table, zoned("leaderless", "x:4", 1, "z2"), 4);
    table.connection_closed(3);
    let route = table
        .route(RouteQuery {
            topic: "t1",
            zone: Some("Z1"),
            ..RouteQuery::default()
        })
        .unwrap();
    let names: Vec<_> = route
        .broker_datas
        .iter()
        .map(|group| group.broker_name.as_str())
        .collect();
    assert_eq!(names, ["leaderless", "near"]);
    let names: Vec<_> = route
        .queue_datas
        .iter()
        .map(|data| data.broker_name.as_str())
        .collect();
    assert_eq!(names, ["leaderless", "near"]);
}

#[test]
fn topics_can_be_registered_and_deleted_one_by_one() {
    let mut table = RouteTable::default();
    accept(&mut table, broker("x:1", 0, 1), 1);
    accept(
        &mut table,
        Registration {
            cluster: "c2".to_owned(),
            ..named("b2", broker("y:1", 0, 1))
        },
        2,
    );
    let queues = |name: &str| QueueData {
        broker_name: name.to_owned(),
        perm: 6,
        ..QueueData::default()
    };
    table
        .register_topic("new", vec![queues("b"), queues("nobody")])
        .unwrap();
    assert!(route(&table, "new").is_none());
    table.register_topic("new", vec![queues("b")]).unwrap();
    assert_eq!(perms(&table, "new").len(), 1);
    table
        .register_topic("new", vec![queues("b2"), queues("nobody")])
        .unwrap();
    assert_eq!(perms(&table, "new").len(), 2);
    table.delete_topic("new", Some("c"));
    assert_eq!(perms(&table, "new"), [("b2".to_owned(), 6)]);
    table.delete_topic("new", Some("nowhere"));
    table.delete_topic("new", Some("c2"));
    assert!(!table.topic_list().topic_list.contains("new"));
}

#[test]
fn lists_are_by_cluster_and_by_unit_flags() {
    let mut table = RouteTable::default();
    let mut flagged = broker("x:1", 0, 1);
    for (name, flag) in [("unit", 1), ("sub", 2), ("both", 3)] {
        let config = TopicConfig {
            topic_sys_flag: flag,
            ..TopicConfig::new(name, 1, 6)
        };
        flagged
            .topics
            .topic_config_table
            .insert(name.to_owned(), config);
    }
    accept(&mut table, flagged, 1);
    accept(
        &mut table,
        Registration {
            cluster: "c2".to_owned(),
            ..named("b2", broker("y:1", 0, 1))
        },
        2,
    );
    let names = |list: TopicList| list.topic_list.into_iter().collect::<Vec<_>>();
    assert_eq!(names(table.unit_topics()), ["both", "unit"]);
    assert_eq!(names(table.unit_sub_topics()), ["both", "sub"]);
    assert_eq!(names(table.unit_sub_topics_without_unit()), ["sub"]);
    assert_eq!(names(table.topics_by_cluster("c2")), ["t1", "t2"]);
    assert!(names(table.topics_by_cluster("nowhere")).is_empty());
    assert_eq!(names(table.topic_list()).len(), 5);
    let system = table.system_topics();
    assert_eq!(system.broker_addr.as_deref(), Some("x:1"));
    assert_eq!(names(system), ["b", "b2", "c", "c2"]);
}

#[test]
fn the_table_is_bounded() {
    let mut table = RouteTable::new(Limits {
        brokers_max: 1,
        topics_max: 3,
    });
    accept(&mut table, broker("x:1", 0, 1), 1);
    let outcome = register(&mut table, broker("x:2", 1, 1), 2);
    assert!(
        matches!(outcome, Registered::Refused(Refused::Full { limit: 1, .. })),
        "{outcome:?}"
    );
    let mut many = broker("x:1", 0, 1);
    for i in 0..2 {
        many.topics
            .topic_config_table
            .insert(format!("more{i}"), TopicConfig::default());
    }
    let outcome = register(&mut table, many, 1);
    assert!(
        matches!(outcome, Registered::Refused(Refused::Full { limit: 3, .. })),
        "{outcome:?}"
    );
    let queues = QueueData {
        broker_name: "b".to_owned(),
        ..QueueData::default()
    };
    assert!(table.register_topic("t3", vec![queues.clone()]).is_ok());
    assert!(table.register_topic("t4", vec![queues]).is_err());
}
