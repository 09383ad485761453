//! A nameserver over real sockets, asked by the remoting client as brokers, clients and tools ask it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::Duration;

use raftmq_namesrv::{Config, NameServer, StartError};
use raftmq_proto::body::{
    ClusterInfo, DataVersion, GetBrokerMemberGroupResponseBody, KvTable, RegisterBrokerBody,
    TopicConfig, TopicList, TopicRouteData,
};
use raftmq_proto::code::{request as code, response};
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{
    Header, QueryDataVersionResponseHeader, RegisterBrokerResponseHeader,
    WipeWritePermOfBrokerResponseHeader,
};
use raftmq_proto::message::record::body_crc;
use raftmq_remoting::{Client, ClientOptions};

const SOON: Duration = Duration::from_secs(10);

struct Fixture {
    server: NameServer,
    folder: tempfile::TempDir,
    client: Client,
}

/// A client of its own has connections of its own.
fn client() -> Client {
    Client::new(ClientOptions::default())
}

fn start_in(folder: &Path, text: &str) -> NameServer {
    let (mut config, warnings) = Config::from_properties(text.as_bytes());
    assert!(warnings.is_empty(), "{warnings:?}");
    let settings = config.settings_mut();
    settings.bind_address = "127.0.0.1".to_owned();
    settings.listen_port = 0;
    settings.kv_config_path = folder.join("kvConfig.json").to_str().unwrap().to_owned();
    settings.config_store_path = folder
        .join("namesrv.properties")
        .to_str()
        .unwrap()
        .to_owned();
    NameServer::start(config).unwrap()
}

fn start(text: &str) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    Fixture {
        server: start_in(folder.path(), text),
        folder,
        client: client(),
    }
}

impl Fixture {
    async fn ask_by(&self, client: &Client, request: RemotingCommand) -> RemotingCommand {
        client
            .invoke(&self.server.local_addr().to_string(), request, SOON)
            .await
            .unwrap()
    }

    async fn ask(&self, code: i32, fields: &[(&str, &str)]) -> RemotingCommand {
        self.ask_by(&self.client, command(code, fields)).await
    }

    /// Registers `address`, and checks that it was accepted.
    async fn register(
        &self,
        client: &Client,
        address: &str,
        id: &str,
        term: i64,
    ) -> RemotingCommand {
        let answer = self.ask_by(client, registration(address, id, term)).await;
        assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark);
        answer
    }

    async fn members(&self) -> Vec<(i64, String)> {
        let answer = self
            .ask(
                code::GET_BROKER_MEMBER_GROUP,
                &[("clusterName", "c"), ("brokerName", "b")],
            )
            .await;
        let body = GetBrokerMemberGroupResponseBody::from_json(&answer.body.to_bytes()).unwrap();
        body.broker_member_group.broker_addrs.into_iter().collect()
    }

    async fn eventually_members(&self, expected: &[(i64, &str)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(id, address)| (*id, (*address).to_owned()))
            .collect();
        let waited = tokio::time::timeout(SOON, async {
            while self.members().await != expected {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        assert!(
            waited.await.is_ok(),
            "members are {:?}",
            self.members().await
        );
    }

    async fn route(&self, topic: &str) -> Option<TopicRouteData> {
        let answer = self
            .ask(code::GET_ROUTEINFO_BY_TOPIC, &[("topic", topic)])
            .await;
        (answer.code == response::SUCCESS)
            .then(|| TopicRouteData::from_json(&answer.body.to_bytes()).unwrap())
    }

    async fn topics(&self, code: i32, fields: &[(&str, &str)]) -> Vec<String> {
        let answer = self.ask(code, fields).await;
        assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark);
        TopicList::from_json(&answer.body.to_bytes())
            .unwrap()
            .topic_list
            .into_iter()
            .collect()
    }
}

fn command(code: i32, fields: &[(&str, &str)]) -> RemotingCommand {
    fields
        .iter()
        .fold(RemotingCommand::request(code), |command, (name, value)| {
            command.with_field(name, value)
        })
}

fn body(term: i64) -> RegisterBrokerBody {
    let mut body = RegisterBrokerBody::default();
    let wrapper = &mut body.topic_config_serialize_wrapper;
    wrapper.data_version = DataVersion {
        state_version: term,
        timestamp: 17,
        counter: 3,
    };
    for topic in ["TBW102", "orders"] {
        wrapper
            .topic_config_table
            .insert(topic.to_owned(), TopicConfig::new(topic, 8, 6));
    }
    body
}

fn registration(address: &str, id: &str, term: i64) -> RemotingCommand {
    let fields = [
        ("brokerName", "b"),
        ("brokerAddr", address),
        ("clusterName", "c"),
        ("haServerAddr", "ha:1"),
        ("brokerId", id),
    ];
    command(code::REGISTER_BROKER, &fields).with_body(body(term).to_json())
}

fn unregistration(address: &str, id: &str) -> RemotingCommand {
    let fields = [
        ("brokerName", "b"),
        ("brokerAddr", address),
        ("clusterName", "c"),
        ("brokerId", id),
    ];
    command(code::UNREGISTER_BROKER, &fields)
}

#[tokio::test]
async fn a_registered_broker_is_in_routes_and_cluster_info() {
    let ns = start("");
    let (leader, follower) = (client(), client());
    let answer = ns.register(&leader, "x:1", "0", 1).await;
    assert_eq!(
        RegisterBrokerResponseHeader::decode(&answer.ext_fields)
            .unwrap()
            .master_addr,
        None
    );
    let answer = ns.register(&follower, "x:2", "2", 1).await;
    let header = RegisterBrokerResponseHeader::decode(&answer.ext_fields).unwrap();
    assert_eq!(header.master_addr.as_deref(), Some("x:1"));
    assert_eq!(header.ha_server_addr.as_deref(), Some("ha:1"));

    let answer = ns
        .ask(code::GET_ROUTEINFO_BY_TOPIC, &[("topic", "orders")])
        .await;
    assert_eq!(
        std::str::from_utf8(&answer.body.to_bytes()).unwrap(),
        concat!(
            r#"{"brokerDatas":[{"brokerAddrs":{"0":"x:1","2":"x:2"},"brokerName":"b","cluster":"c","#,
            r#""enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"b","perm":6,"#,
            r#""readQueueNums":8,"topicSysFlag":0,"writeQueueNums":8}]}"#
        )
    );
    let answer = ns.ask(code::GET_BROKER_CLUSTER_INFO, &[]).await;
    let info = ClusterInfo::from_json(&answer.body.to_bytes()).unwrap();
    assert_eq!(info.broker_addr_table["b"].broker_addrs[&2], "x:2");
    assert!(info.cluster_addr_table["c"].contains("b"));

    let missing = ns
        .ask(code::GET_ROUTEINFO_BY_TOPIC, &[("topic", "nothing")])
        .await;
    assert_eq!(missing.code, response::TOPIC_NOT_EXIST);
    assert_eq!(
        missing.remark.as_deref(),
        Some(
            "No topic route info in name server for the topic: nothing\n\
             See https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details."
        )
    );
}

#[tokio::test]
async fn compressed_and_checked_bodies_are_read_and_damaged_ones_refused() {
    let ns = start("");
    let packed = body(1).encode_compressed();
    let crc = body_crc(&packed).to_string();
    let plain = registration("x:1", "0", 1);
    let good = plain
        .clone()
        .with_field("compressed", "true")
        .with_field("bodyCrc32", &crc)
        .with_body(packed.clone());
    assert_eq!(
        ns.ask_by(&ns.client, good.clone()).await.code,
        response::SUCCESS
    );
    assert_eq!(
        ns.route("orders").await.unwrap().queue_datas[0].read_queue_nums,
        8
    );

    let wrong_crc = good.clone().with_field("bodyCrc32", "1");
    let answer = ns.ask_by(&ns.client, wrong_crc).await;
    assert_eq!(
        (answer.code, answer.remark.as_deref()),
        (response::SYSTEM_ERROR, Some("crc32 not match"))
    );
    for broken in [&packed[..packed.len() / 2], b"{", b"\x78\x9c garbage"] {
        let broken = plain
            .clone()
            .with_field("compressed", "true")
            .with_body(broken.to_vec());
        assert_eq!(
            ns.ask_by(&ns.client, broken).await.code,
            response::SYSTEM_ERROR
        );
    }
    let broken = plain.with_body(b"{\"topicConfigSerializeWrapper\":".to_vec());
    assert_eq!(
        ns.ask_by(&ns.client, broken).await.code,
        response::SYSTEM_ERROR
    );
    assert_eq!(ns.members().await.len(), 1);
}

#[tokio::test]
async fn a_lower_term_is_answered_and_ignored() {
    let ns = start("");
    let (new, old) = (client(), client());
    ns.register(&new, "x:2", "0", 7).await;
    ns.register(&old, "x:1", "0", 6).await;
    assert_eq!(ns.members().await, [(0, "x:2".to_owned())]);
}

#[tokio::test]
async fn a_broker_goes_with_its_connection_but_not_with_an_older_one() {
    let ns = start("");
    let (old, new, follower) = (client(), client(), client());
    ns.register(&old, "x:1", "0", 1).await;
    ns.register(&follower, "x:2", "2", 1).await;
    ns.register(&new, "x:1", "0", 1).await;
    // An unregistration that was sent before the new registration and comes over the old connection.
    ns.ask_by(&old, unregistration("x:1", "0")).await;
    old.close_all();
    follower.close_all();
    ns.eventually_members(&[(0, "x:1")]).await;
    new.close_all();
    ns.eventually_members(&[]).await;
    assert!(ns.route("orders").await.is_none());
}

#[tokio::test]
async fn an_unregistration_removes_unless_it_is_older_than_the_registration() {
    let ns = start("");
    let broker = client();
    let numbered =
        |number: &str| registration("x:1", "0", 3).with_field("registrationVersion", number);
    ns.ask_by(&broker, numbered("20")).await;
    let other = client();
    let stale = unregistration("x:1", "0").with_field("registrationVersion", "19");
    assert_eq!(ns.ask_by(&other, stale).await.code, response::SUCCESS);
    let stale = unregistration("x:1", "0").with_field("stateVersion", "2");
    assert_eq!(ns.ask_by(&other, stale).await.code, response::SUCCESS);
    assert_eq!(ns.members().await.len(), 1);
    let meant = unregistration("x:1", "0").with_field("registrationVersion", "20");
    ns.ask_by(&other, meant).await;
    assert!(ns.members().await.is_empty());
    let unreadable = unregistration("x:1", "0").with_field("registrationVersion", "new");
    let answer = ns.ask_by(&other, unreadable).await;
    assert_eq!(answer.code, response::SYSTEM_ERROR);
    assert!(answer.remark.unwrap().contains("registrationVersion"));
}

#[tokio::test]
async fn silent_brokers_expire_and_lose_their_connection() {
    let ns = start("scanNotActiveBrokerInterval=10");
    let broker = client();
    let impatient = registration("x:1", "0", 1).with_field("heartbeatTimeoutMillis", "1");
    assert_eq!(ns.ask_by(&broker, impatient).await.code, response::SUCCESS);
    let connection = broker
        .connection(&ns.server.local_addr().to_string())
        .await
        .unwrap();
    tokio::time::timeout(SOON, connection.closed())
        .await
        .unwrap();
    ns.eventually_members(&[]).await;
}

#[tokio::test]
async fn data_versions_are_compared_and_heartbeats_answered() {
    let ns = start("");
    let who = [
        ("brokerName", "b"),
        ("brokerAddr", "x:1"),
        ("clusterName", "c"),
        ("brokerId", "0"),
    ];
    let ask =
        |version: DataVersion| command(code::QUERY_DATA_VERSION, &who).with_body(version.to_json());
    let changed = |answer: &RemotingCommand| {
        QueryDataVersionResponseHeader::decode(&answer.ext_fields)
            .unwrap()
            .changed
    };
    let version = body(1).topic_config_serialize_wrapper.data_version;
    let answer = ns.ask_by(&ns.client, ask(version)).await;
    assert!(changed(&answer) && answer.body.is_empty());
    ns.register(&ns.client, "x:1", "0", 1).await;
    let answer = ns.ask_by(&ns.client, ask(version)).await;
    assert!(!changed(&answer));
    assert_eq!(
        DataVersion::from_json(&answer.body.to_bytes()).unwrap(),
        version
    );
    let answer = ns
        .ask_by(
            &ns.client,
            ask(DataVersion {
                counter: 9,
                ..version
            }),
        )
        .await;
    assert!(changed(&answer));
    assert_eq!(
        ns.ask(code::BROKER_HEARTBEAT, &who).await.code,
        response::SUCCESS
    );
    assert_eq!(
        ns.ask(code::BROKER_HEARTBEAT, &who[..2]).await.code,
        response::SYSTEM_ERROR
    );
}

#[tokio::test]
async fn tools_list_and_change_topics() {
    let ns = start("");
    ns.register(&ns.client, "x:1", "0", 1).await;
    assert_eq!(
        ns.topics(code::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, &[])
            .await,
        ["TBW102", "orders"]
    );
    assert_eq!(
        ns.topics(code::GET_TOPICS_BY_CLUSTER, &[("cluster", "c")])
            .await
            .len(),
        2
    );
    assert!(
        ns.topics(code::GET_TOPICS_BY_CLUSTER, &[("cluster", "nowhere")])
            .await
            .is_empty()
    );
    assert_eq!(
        ns.topics(code::GET_SYSTEM_TOPIC_LIST_FROM_NS, &[]).await,
        ["b", "c"]
    );
    for unit in [
        code::GET_UNIT_TOPIC_LIST,
        code::GET_HAS_UNIT_SUB_TOPIC_LIST,
        code::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST,
    ] {
        assert!(ns.topics(unit, &[]).await.is_empty());
    }
    let answer = ns
        .ask(code::WIPE_WRITE_PERM_OF_BROKER, &[("brokerName", "b")])
        .await;
    let header = WipeWritePermOfBrokerResponseHeader::decode(&answer.ext_fields).unwrap();
    assert_eq!(header.wipe_topic_count, 2);
    assert_eq!(ns.route("orders").await.unwrap().queue_datas[0].perm, 4);
    ns.ask(code::ADD_WRITE_PERM_OF_BROKER, &[("brokerName", "b")])
        .await;
    assert_eq!(ns.route("orders").await.unwrap().queue_datas[0].perm, 6);

    let queues = br#"{"brokerDatas":[],"queueDatas":[{brokerName:"b",readQueueNums:1,writeQueueNums:2,perm:6}]}"#;
    let single =
        command(code::REGISTER_TOPIC_IN_NAMESRV, &[("topic", "new")]).with_body(queues.to_vec());
    assert_eq!(ns.ask_by(&ns.client, single).await.code, response::SUCCESS);
    assert_eq!(
        ns.route("new").await.unwrap().queue_datas[0].write_queue_nums,
        2
    );
    let delete = [("topic", "new"), ("clusterName", "")];
    assert_eq!(
        ns.ask(code::DELETE_TOPIC_IN_NAMESRV, &delete).await.code,
        response::SUCCESS
    );
    assert!(ns.route("new").await.is_none());
}

#[tokio::test]
async fn lists_can_be_disabled() {
    let ns = start("enableAllTopicList=false\nenableTopicList=false\n");
    let lists = [
        (code::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, vec![]),
        (code::GET_TOPICS_BY_CLUSTER, vec![("cluster", "c")]),
        (code::GET_UNIT_TOPIC_LIST, vec![]),
    ];
    for (code, fields) in lists {
        let answer = ns.ask(code, &fields).await;
        assert_eq!(
            (answer.code, answer.remark.as_deref()),
            (response::SYSTEM_ERROR, Some("disable"))
        );
    }
}

#[tokio::test]
async fn routes_wait_for_brokers_when_told_to() {
    let ns = start("needWaitForService=true\n");
    let answer = ns
        .ask(code::GET_ROUTEINFO_BY_TOPIC, &[("topic", "t")])
        .await;
    assert_eq!(
        (answer.code, answer.remark.as_deref()),
        (response::SYSTEM_ERROR, Some("name server not ready"))
    );
}

#[tokio::test]
async fn key_value_entries_survive_a_restart_and_reach_brokers() {
    let ns = start("orderMessageEnable=true\n");
    let entry = [
        ("namespace", "ORDER_TOPIC_CONFIG"),
        ("key", "orders"),
        ("value", "b:4"),
    ];
    assert_eq!(
        ns.ask(code::PUT_KV_CONFIG, &entry).await.code,
        response::SUCCESS
    );
    let answer = ns.ask(code::GET_KV_CONFIG, &entry[..2]).await;
    assert_eq!(answer.ext_fields.get("value"), Some("b:4"));
    let answer = ns.register(&ns.client, "x:1", "0", 1).await;
    assert_eq!(
        KvTable::from_json(&answer.body.to_bytes()).unwrap().table["orders"],
        "b:4"
    );
    assert_eq!(
        ns.route("orders")
            .await
            .unwrap()
            .order_topic_conf
            .as_deref(),
        Some("b:4")
    );

    let Fixture {
        server,
        folder,
        client,
    } = ns;
    server.shutdown().await;
    let ns = Fixture {
        server: start_in(folder.path(), ""),
        folder,
        client,
    };
    let answer = ns.ask(code::GET_KVLIST_BY_NAMESPACE, &entry[..1]).await;
    assert_eq!(
        KvTable::from_json(&answer.body.to_bytes()).unwrap().table["orders"],
        "b:4"
    );
    assert_eq!(
        ns.ask(code::DELETE_KV_CONFIG, &entry[..2]).await.code,
        response::SUCCESS
    );
    assert_eq!(
        ns.ask(code::GET_KV_CONFIG, &entry[..2]).await.code,
        response::QUERY_NOT_FOUND
    );
    let missing = ns.ask(code::GET_KVLIST_BY_NAMESPACE, &entry[..1]).await;
    assert_eq!(missing.code, response::QUERY_NOT_FOUND);
    assert_eq!(
        missing.remark.as_deref(),
        Some("No config item, Namespace: ORDER_TOPIC_CONFIG")
    );
}

#[tokio::test]
async fn the_configuration_is_shown_and_changed_at_run_time() {
    let ns = start("");
    let file = ns.folder.path().join("namesrv.properties");
    std::fs::write(&file, "# mine\nlistenPort=9876\n").unwrap();
    let update =
        |text: &str| command(code::UPDATE_NAMESRV_CONFIG, &[]).with_body(text.as_bytes().to_vec());
    let answer = ns
        .ask_by(&ns.client, update("enableTopicList=false\nunknownKey=1\n"))
        .await;
    assert_eq!(answer.code, response::SUCCESS);
    assert_eq!(
        ns.ask(code::GET_UNIT_TOPIC_LIST, &[]).await.code,
        response::SYSTEM_ERROR
    );
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        "# mine\nlistenPort=9876\nenableTopicList=false\nunknownKey=1\n"
    );
    let shown = ns.ask(code::GET_NAMESRV_CONFIG, &[]).await.body.to_bytes();
    let shown = std::str::from_utf8(&shown).unwrap();
    for line in [
        "enableTopicList=false",
        "unknownKey=1",
        "scanNotActiveBrokerInterval=5000",
    ] {
        assert!(
            shown.lines().any(|shown| shown == line),
            "{line} is not in\n{shown}"
        );
    }
    let answer = ns
        .ask_by(&ns.client, update("kvConfigPath=/etc/passwd\n"))
        .await;
    assert_eq!(answer.code, response::NO_PERMISSION);
    assert_eq!(
        answer.remark.as_deref(),
        Some("Can not update config in black list.")
    );
    let answer = ns
        .ask_by(
            &ns.client,
            update("enableTopicList=true\nwaitSecondsForService=soon\n"),
        )
        .await;
    assert_eq!(answer.code, response::SYSTEM_ERROR);
    assert!(
        answer
            .remark
            .unwrap()
            .contains("waitSecondsForService = 'soon'")
    );
    // Nothing of a refused update is in force.
    assert_eq!(
        ns.ask(code::GET_UNIT_TOPIC_LIST, &[]).await.code,
        response::SYSTEM_ERROR
    );
    assert_eq!(
        ns.ask(code::UPDATE_NAMESRV_CONFIG, &[]).await.code,
        response::SUCCESS
    );
}

#[tokio::test]
async fn requests_that_make_no_sense_are_answered() {
    let ns = start("");
    let answer = ns.ask(11, &[]).await;
    assert_eq!(answer.code, response::REQUEST_CODE_NOT_SUPPORTED);
    assert_eq!(
        answer.remark.as_deref(),
        Some(" request type 11 not supported")
    );
    let answer = ns.ask(code::GET_ROUTEINFO_BY_TOPIC, &[]).await;
    assert_eq!(answer.code, response::SYSTEM_ERROR);
    assert!(answer.remark.unwrap().contains("topic"));
    let answer = ns.ask_by(&ns.client, registration("x:1", "zero", 1)).await;
    assert_eq!(answer.code, response::SYSTEM_ERROR);
    assert!(answer.remark.unwrap().contains("brokerId"));
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let ns = start("");
    let text = format!(
        "bindAddress=127.0.0.1\nlistenPort={}\n",
        ns.server.local_addr().port()
    );
    let (mut config, _) = Config::from_properties(text.as_bytes());
    config.settings_mut().kv_config_path = ns
        .folder
        .path()
        .join("other.json")
        .to_str()
        .unwrap()
        .to_owned();
    let error = NameServer::start(config).unwrap_err();
    assert!(matches!(error, StartError::Listen { .. }));
    assert!(
        error
            .to_string()
            .contains(&ns.server.local_addr().to_string()),
        "{error}"
    );
}
