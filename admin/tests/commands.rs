//! Commands against servers that answer from a table: what is asked, what is printed, what fails.

#![allow(
    clippy::unwrap_used,
    reason = "a test says what is wrong by failing here"
)]

use std::net::Ipv4Addr;
use std::sync::Arc;

use raftmq_admin::{command, options};
use raftmq_client::Admin;
use raftmq_proto::body::{
    BrokerData, ClusterInfo, KvTable, MessageQueue, QueueData, TopicList, TopicOffset,
    TopicRouteData, TopicStatsTable, to_json,
};
use raftmq_proto::code::{request, response};
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{CreateTopicRequestHeader, GetRouteInfoRequestHeader, Header};
use raftmq_remoting::{Handler, Responder, Server, ServerOptions};

/// Nameserver and broker at one address.
struct Everything {
    address: std::sync::OnceLock<String>,
}

impl Everything {
    fn broker(&self) -> BrokerData {
        let address = self.address.get().unwrap().clone();
        BrokerData {
            // The second member is not there.
            broker_addrs: [(0, address), (2, "127.0.0.1:1".to_owned())].into(),
            broker_name: "RaftNode00".to_owned(),
            cluster: "RaftCluster".to_owned(),
            ..BrokerData::default()
        }
    }

    fn answer(&self, request: &RemotingCommand) -> RemotingCommand {
        let body = match request.code {
            request::GET_BROKER_CLUSTER_INFO => to_json(&ClusterInfo {
                broker_addr_table: [("RaftNode00".to_owned(), self.broker())].into(),
                cluster_addr_table: [("RaftCluster".to_owned(), ["RaftNode00".to_owned()].into())]
                    .into(),
            }),
            request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER => to_json(&TopicList {
                topic_list: ["T".to_owned(), "%RETRY%g".to_owned()].into(),
                ..TopicList::default()
            }),
            request::GET_ROUTEINFO_BY_TOPIC => {
                let header = GetRouteInfoRequestHeader::decode(&request.ext_fields).unwrap();
                if header.topic != "T" {
                    let text = "No topic route info in name server for the topic: X";
                    return RemotingCommand::failure(response::TOPIC_NOT_EXIST, text);
                }
                to_json(&TopicRouteData {
                    broker_datas: vec![self.broker()],
                    queue_datas: vec![QueueData {
                        broker_name: "RaftNode00".to_owned(),
                        perm: 6,
                        read_queue_nums: 1,
                        write_queue_nums: 1,
                        topic_sys_flag: 0,
                    }],
                    ..TopicRouteData::default()
                })
            }
            request::GET_TOPIC_STATS_INFO => {
                let queue = MessageQueue::new("T", "RaftNode00", 0);
                let offset = TopicOffset {
                    max_offset: 42,
                    ..TopicOffset::default()
                };
                to_json(&TopicStatsTable {
                    offset_table: [(queue, offset)].into(),
                    topic_put_tps: 1.5,
                })
            }
            request::GET_BROKER_RUNTIME_INFO => to_json(&KvTable {
                table: [("brokerActive".to_owned(), "true".to_owned())].into(),
            }),
            request::UPDATE_AND_CREATE_TOPIC => {
                let header = CreateTopicRequestHeader::decode(&request.ext_fields).unwrap();
                if header.topic == "forbidden" {
                    return RemotingCommand::failure(response::NO_PERMISSION, "not\n allowed");
                }
                Vec::new()
            }
            other => panic!("unexpected request {other}"),
        };
        RemotingCommand::success().with_body(body)
    }
}

impl Handler for Everything {
    fn handle(&self, request: RemotingCommand, responder: Responder) {
        responder.reply(self.answer(&request));
    }
}

struct Tools {
    _server: Server,
    address: String,
    admin: Admin,
}

fn tools() -> Tools {
    let handler = Arc::new(Everything {
        address: std::sync::OnceLock::new(),
    });
    let bind = (Ipv4Addr::LOCALHOST, 0).into();
    let server = Server::bind(ServerOptions::new(bind), Arc::clone(&handler) as _).unwrap();
    let address = server.local_addr().to_string();
    handler.address.set(address.clone()).unwrap();
    Tools {
        _server: server,
        admin: Admin::start(&address).unwrap(),
        address,
    }
}

impl Tools {
    async fn run(&self, line: &str) -> Result<String, String> {
        let words: Vec<String> = line.split_whitespace().map(ToOwned::to_owned).collect();
        let command = command::find(&words[0]).unwrap();
        let given = options::parse(&command.options(), &words[1..]).unwrap();
        let mut out = Vec::new();
        let outcome = command.run(&given, &self.admin, &mut out).await;
        let text = String::from_utf8(out).unwrap();
        outcome
            .map(|()| text)
            .map_err(|error| command::one_line(&error))
    }

    async fn json(&self, line: &str) -> serde_json::Value {
        serde_json::from_str(&self.run(&format!("{line} --json")).await.unwrap()).unwrap()
    }
}

#[tokio::test]
async fn topics_are_listed_and_described() {
    let tools = tools();
    assert_eq!(tools.run("topicList").await.unwrap(), "%RETRY%g\nT\n");
    assert_eq!(
        tools.json("topicList").await,
        serde_json::json!(["%RETRY%g", "T"])
    );
    let status = tools.run("topicStatus -t T").await.unwrap();
    assert!(status.ends_with("\n\nTopic Put TPS: 1.5\n"), "{status}");
    assert_eq!(
        tools.json("topicStatus -t T").await["queues"][0]["maxOffset"],
        42
    );
    assert!(
        tools
            .run("topicRoute -t T")
            .await
            .unwrap()
            .starts_with("{\n\t\"brokerDatas\":[\n")
    );
    assert_eq!(
        tools.json("topicRoute -t T").await["brokerDatas"][0]["brokerName"],
        "RaftNode00"
    );
    assert_eq!(
        tools.run("topicRoute -t X").await.unwrap_err(),
        format!(
            "CODE: 17 DESC: No topic route info in name server for the topic: X ({})",
            tools.address
        )
    );
}

#[tokio::test]
async fn every_member_has_a_row_dead_or_alive() {
    let tools = tools();
    let list = tools.run("clusterList").await.unwrap();
    let rows: Vec<&str> = list.lines().skip(1).collect();
    assert_eq!(rows.len(), 2);
    assert!(
        rows[0].ends_with("true") && rows[1].ends_with("false"),
        "{list}"
    );
    let json = tools.json("clusterList").await;
    assert_eq!(json[0]["runtime"]["brokerActive"], "true");
    assert!(json[1]["runtime"].is_null());

    let status = tools.run("brokerStatus -c RaftCluster").await.unwrap();
    assert_eq!(
        status,
        format!("{:<24} {:<32}: true\n", tools.address, "brokerActive")
    );
    let status = tools
        .run(&format!("brokerStatus -b {}", tools.address))
        .await
        .unwrap();
    assert_eq!(status, format!("{:<32}: true\n", "brokerActive"));
    assert!(
        tools
            .run("brokerStatus -b 127.0.0.1:1")
            .await
            .unwrap_err()
            .contains("127.0.0.1:1")
    );
}

#[tokio::test]
async fn topics_are_created_at_leaders_and_refusals_fit_a_line() {
    let tools = tools();
    let created = tools
        .run("updateTopic -c RaftCluster -t T -r 2 -w 2")
        .await
        .unwrap();
    assert_eq!(
        created,
        format!(
            "create topic to {} success.\nTopicConfig [topicName=T, readQueueNums=2, \
             writeQueueNums=2, perm=RW-, topicFilterType=SINGLE_TAG, topicSysFlag=0, order=false, \
             attributes={{}}]\n",
            tools.address
        )
    );
    assert_eq!(
        tools
            .run("updateTopic -c RaftCluster -t forbidden")
            .await
            .unwrap_err(),
        format!("CODE: 16 DESC: not allowed ({})", tools.address)
    );
    assert_eq!(
        tools
            .run("updateTopic -c Elsewhere -t T")
            .await
            .unwrap_err(),
        "[error] Make sure the specified clusterName exists or the name server connected to is \
         correct."
    );
    assert_eq!(
        tools
            .run("updateTopic -c RaftCluster -t T -r many")
            .await
            .unwrap_err(),
        "option -r many is not a valid number"
    );
}
