//! A nameserver and the members of one broker group, in this process: enough of them to show what the
//! client does when they come and go. Members share one store, as a replicated group does.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use raftmq_proto::body::{
    BrokerData, ConsumerListBody, HeartbeatData, QueueData, TopicRouteData, from_json, to_json,
};
use raftmq_proto::code::{request, response};
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{
    GetConsumerListByGroupRequestHeader, GetMaxOffsetRequestHeader, GetMaxOffsetResponseHeader,
    GetMinOffsetResponseHeader, GetRouteInfoRequestHeader, Header,
    NotifyConsumerIdsChangedRequestHeader, PullMessageRequestHeader, PullMessageResponseHeader,
    QueryConsumerOffsetRequestHeader, QueryConsumerOffsetResponseHeader,
    SearchOffsetResponseHeader, SendMessageRequestHeader, SendMessageResponseHeader,
    UnregisterClientRequestHeader, UpdateConsumerOffsetRequestHeader,
};
use raftmq_proto::message::record::{NewRecord, stamp_physical_offset, stamp_queue_offset};
use raftmq_proto::message::{batch, id, pull_sys_flag};
use raftmq_remoting::{Connection, Handler, Responder, Server, ServerOptions};
use tokio::sync::Notify;

pub(crate) const GROUP: &str = "RaftNode00";
pub(crate) const QUEUES: i32 = 4;

/// What a member does with requests that the leader should serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Serves: it leads, or forwards to who does.
    Serves,
    /// Knows no leader: answers with this code.
    Refuses(i32),
    /// Never answers.
    Hangs,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<String, i32>,
    /// Whether a send to an unknown topic creates it.
    auto_create: bool,
    /// Broker id → address, as registered at the nameserver.
    registered: BTreeMap<i64, String>,
    moods: HashMap<usize, Mood>,
    queues: HashMap<(String, i32), Vec<Bytes>>,
    offsets: HashMap<(String, String, i32), i64>,
    members: BTreeMap<u64, (Connection, HeartbeatData)>,
    /// Code and member of every request, in the order of arrival.
    log: Vec<(i32, usize)>,
}

/// The cluster; dropping it ends everything.
pub(crate) struct Cluster {
    shared: Arc<Shared>,
    name_server: Server,
    servers: Vec<Option<Server>>,
    addresses: Vec<SocketAddr>,
}

struct Shared {
    state: Mutex<State>,
    arrived: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

fn bind(address: SocketAddr, handler: Arc<dyn Handler>) -> Server {
    let options = ServerOptions {
        drain: Duration::ZERO,
        ..ServerOptions::new(address)
    };
    Server::bind(options, handler).unwrap()
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

impl Cluster {
    /// Starts `count` members, the first of which leads, and a nameserver that knows `topic`.
    pub(crate) fn start(count: usize, topic: &str) -> Cluster {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            arrived: Notify::new(),
        });
        let name_server = bind(
            any_port(),
            Arc::new(NameServer {
                shared: Arc::clone(&shared),
            }),
        );
        let servers: Vec<Server> = (0..count)
            .map(|index| {
                bind(
                    any_port(),
                    Arc::new(Member {
                        shared: Arc::clone(&shared),
                        index,
                    }),
                )
            })
            .collect();
        let addresses: Vec<SocketAddr> = servers.iter().map(Server::local_addr).collect();
        let cluster = Cluster {
            shared,
            name_server,
            servers: servers.into_iter().map(Some).collect(),
            addresses,
        };
        cluster
            .shared
            .state()
            .topics
            .insert(topic.to_owned(), QUEUES);
        cluster.register(0);
        cluster
    }

    pub(crate) fn name_server(&self) -> String {
        self.name_server.local_addr().to_string()
    }

    /// Lets the nameserver name this member as leader, and the others that are alive as followers.
    pub(crate) fn register(&self, leader: usize) {
        let mut registered = BTreeMap::new();
        for (index, address) in self.addresses.iter().enumerate() {
            if index == leader {
                registered.insert(0, address.to_string());
            } else if self.servers[index].is_some() {
                registered.insert(index as i64 + 1, address.to_string());
            }
        }
        self.shared.state().registered = registered;
    }

    pub(crate) fn set_mood(&self, index: usize, mood: Mood) {
        self.shared.state().moods.insert(index, mood);
    }

    pub(crate) fn allow_auto_create(&self) {
        let mut state = self.shared.state();
        state.auto_create = true;
        state.topics.insert("TBW102".to_owned(), 8);
    }

    /// Ends a member as kill -9 does: its connections are reset.
    pub(crate) async fn kill(&mut self, index: usize) {
        let server = self.servers[index].take().unwrap();
        server.shutdown().await;
    }

    /// How many requests with this code this member got.
    pub(crate) fn asked(&self, code: i32, index: usize) -> usize {
        let state = self.shared.state();
        state
            .log
            .iter()
            .filter(|entry| **entry == (code, index))
            .count()
    }

    pub(crate) fn stored(&self, topic: &str) -> usize {
        let state = self.shared.state();
        let queues = state.queues.iter().filter(|((name, _), _)| name == topic);
        queues.map(|(_, records)| records.len()).sum()
    }

    pub(crate) fn saved(&self, group: &str, topic: &str) -> BTreeMap<i32, i64> {
        let state = self.shared.state();
        let offsets = state
            .offsets
            .iter()
            .filter(|((owner, name, _), _)| owner == group && name == topic);
        offsets
            .map(|((_, _, queue_id), offset)| (*queue_id, *offset))
            .collect()
    }

    pub(crate) fn member_count(&self) -> usize {
        self.shared.state().members.len()
    }
}

struct NameServer {
    shared: Arc<Shared>,
}

impl Handler for NameServer {
    fn handle(&self, request: RemotingCommand, responder: Responder) {
        if request.code != request::GET_ROUTEINFO_BY_TOPIC {
            return responder.reply(RemotingCommand::failure(3, "not supported"));
        }
        let header = GetRouteInfoRequestHeader::decode(&request.ext_fields).unwrap();
        let state = self.shared.state();
        let Some(queues) = state.topics.get(&header.topic) else {
            let text = format!(
                "No topic route info in name server for the topic: {}",
                header.topic
            );
            return responder.reply(RemotingCommand::failure(response::TOPIC_NOT_EXIST, text));
        };
        let route = TopicRouteData {
            broker_datas: vec![BrokerData {
                broker_addrs: state.registered.clone(),
                broker_name: GROUP.to_owned(),
                cluster: "RaftCluster".to_owned(),
                ..BrokerData::default()
            }],
            queue_datas: vec![QueueData {
                broker_name: GROUP.to_owned(),
                perm: 6,
                read_queue_nums: *queues,
                write_queue_nums: *queues,
                topic_sys_flag: 0,
            }],
            ..TopicRouteData::default()
        };
        responder.reply(RemotingCommand::success().with_body(to_json(&route)));
    }
}

struct Member {
    shared: Arc<Shared>,
    index: usize,
}

impl Handler for Member {
    fn handle(&self, request: RemotingCommand, responder: Responder) {
        let mood = {
            let mut state = self.shared.state();
            state.log.push((request.code, self.index));
            *state.moods.entry(self.index).or_insert(Mood::Serves)
        };
        match mood {
            Mood::Serves => self.serve(&request, responder),
            Mood::Refuses(code) => {
                responder.reply(RemotingCommand::failure(code, "no leader right now"));
            }
            Mood::Hangs => {
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    drop(responder);
                });
            }
        }
    }

    fn closed(&self, connection: &Connection) {
        let gone = self.shared.state().members.remove(&connection.id());
        if let Some((_, data)) = gone {
            self.notify_groups(&data);
        }
    }
}

impl Member {
    fn serve(&self, request: &RemotingCommand, responder: Responder) {
        let fields = &request.ext_fields;
        let answer = match request.code {
            request::SEND_MESSAGE | request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE => {
                self.send(request)
            }
            request::PULL_MESSAGE => return self.pull(request, responder),
            request::HEART_BEAT => {
                let data: HeartbeatData = from_json(&request.body.to_bytes()).unwrap();
                let connection = responder.connection().clone();
                let old = {
                    let mut state = self.shared.state();
                    state
                        .members
                        .insert(connection.id(), (connection, data.clone()))
                };
                if old.is_none() {
                    self.notify_groups(&data);
                }
                RemotingCommand::success()
            }
            request::UNREGISTER_CLIENT => {
                let header = UnregisterClientRequestHeader::decode(fields).unwrap();
                let mut state = self.shared.state();
                let connection = state.members.get_mut(&responder.connection().id());
                if let (Some((_, data)), Some(group)) = (connection, header.consumer_group) {
                    data.consumer_data_set
                        .retain(|consumer| consumer.group_name != group);
                }
                RemotingCommand::success()
            }
            request::GET_CONSUMER_LIST_BY_GROUP => {
                let header = GetConsumerListByGroupRequestHeader::decode(fields).unwrap();
                let ids = self.ids_of(&header.consumer_group);
                let body = ConsumerListBody {
                    consumer_id_list: ids,
                };
                RemotingCommand::success().with_body(to_json(&body))
            }
            request::QUERY_CONSUMER_OFFSET => {
                let header = QueryConsumerOffsetRequestHeader::decode(fields).unwrap();
                let key = (header.consumer_group, header.topic, header.queue_id);
                match self.shared.state().offsets.get(&key) {
                    Some(offset) => RemotingCommand::success()
                        .with_header(&QueryConsumerOffsetResponseHeader { offset: *offset }),
                    None => RemotingCommand::failure(response::QUERY_NOT_FOUND, "none"),
                }
            }
            request::UPDATE_CONSUMER_OFFSET => {
                let header = UpdateConsumerOffsetRequestHeader::decode(fields).unwrap();
                let key = (header.consumer_group, header.topic, header.queue_id);
                self.shared
                    .state()
                    .offsets
                    .insert(key, header.commit_offset);
                RemotingCommand::success()
            }
            request::GET_MAX_OFFSET => {
                let header = GetMaxOffsetRequestHeader::decode(fields).unwrap();
                let offset = self.records(&header.topic, header.queue_id).len() as i64;
                RemotingCommand::success().with_header(&GetMaxOffsetResponseHeader { offset })
            }
            request::GET_MIN_OFFSET => {
                RemotingCommand::success().with_header(&GetMinOffsetResponseHeader { offset: 0 })
            }
            request::SEARCH_OFFSET_BY_TIMESTAMP => {
                RemotingCommand::success().with_header(&SearchOffsetResponseHeader { offset: 1 })
            }
            other => RemotingCommand::failure(3, format!(" request type {other} not supported")),
        };
        responder.reply(answer);
    }

    fn records(&self, topic: &str, queue_id: i32) -> Vec<Bytes> {
        let state = self.shared.state();
        state
            .queues
            .get(&(topic.to_owned(), queue_id))
            .cloned()
            .unwrap_or_default()
    }

    fn ids_of(&self, group: &str) -> Vec<String> {
        let state = self.shared.state();
        let members = state.members.values().filter(|(_, data)| {
            data.consumer_data_set
                .iter()
                .any(|consumer| consumer.group_name == group)
        });
        let mut ids: Vec<String> = members.map(|(_, data)| data.client_id.clone()).collect();
        ids.sort();
        ids.dedup();
        ids
    }

    fn notify_groups(&self, data: &HeartbeatData) {
        for consumer in &data.consumer_data_set {
            let header = NotifyConsumerIdsChangedRequestHeader {
                consumer_group: consumer.group_name.clone(),
            };
            let mut notice =
                RemotingCommand::request(request::NOTIFY_CONSUMER_IDS_CHANGED).with_header(&header);
            notice.mark_oneway();
            for (connection, _) in self.shared.state().members.values() {
                drop(connection.send_oneway(notice.clone()));
            }
        }
    }

    fn send(&self, request: &RemotingCommand) -> RemotingCommand {
        let header =
            SendMessageRequestHeader::decode_for_code(request.code, &request.ext_fields).unwrap();
        let body = request.body.to_bytes();
        if body.starts_with(b"illegal") {
            return RemotingCommand::failure(response::MESSAGE_ILLEGAL, "the message is illegal");
        }
        let mut state = self.shared.state();
        if !state.topics.contains_key(&header.topic) {
            if !state.auto_create {
                return RemotingCommand::failure(response::TOPIC_NOT_EXIST, "no such topic");
            }
            state
                .topics
                .insert(header.topic.clone(), header.default_topic_queue_nums);
        }
        let properties = header.properties.clone().unwrap_or_default();
        let items: Vec<(i32, Vec<u8>, String)> = if request.code == request::SEND_BATCH_MESSAGE {
            batch::decode_batch(&body)
                .map(|item| item.unwrap())
                .map(|item| (item.flag, item.body.to_vec(), item.properties.to_owned()))
                .collect()
        } else {
            vec![(header.flag, body.to_vec(), properties)]
        };
        let store_host: SocketAddr = "127.0.0.1:10911".parse().unwrap();
        let queue = state
            .queues
            .entry((header.topic.clone(), header.queue_id))
            .or_default();
        let first = queue.len();
        let mut ids = Vec::new();
        for (flag, body, properties) in items {
            let record = NewRecord {
                queue_id: header.queue_id,
                flag,
                sys_flag: header.sys_flag,
                born_timestamp: header.born_timestamp,
                born_host: "127.0.0.1:1".parse().unwrap(),
                store_host,
                reconsume_times: 0,
                prepared_transaction_offset: 0,
                body: &body,
                topic: &header.topic,
                properties: &properties,
            };
            let mut encoded = BytesMut::new();
            record.encode(&mut encoded).unwrap();
            let offset = queue.len() as u64;
            stamp_queue_offset(&mut encoded, offset);
            stamp_physical_offset(&mut encoded, offset * 1000);
            ids.push(id::offset_message_id(store_host, offset * 1000));
            queue.push(encoded.freeze());
        }
        drop(state);
        self.shared.arrived.notify_waiters();
        let header = SendMessageResponseHeader {
            msg_id: ids.join(","),
            queue_id: header.queue_id,
            queue_offset: first as i64,
            ..SendMessageResponseHeader::default()
        };
        RemotingCommand::success().with_header(&header)
    }

    fn pull(&self, request: &RemotingCommand, mut responder: Responder) {
        let header = PullMessageRequestHeader::decode(&request.ext_fields).unwrap();
        let found = pull_now(&self.shared, &header);
        if found.code != response::PULL_NOT_FOUND || header.sys_flag & pull_sys_flag::SUSPEND == 0 {
            return responder.reply(found);
        }
        responder.hold();
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let hold = Duration::from_millis(header.suspend_timeout_millis as u64);
            let woken = async {
                loop {
                    let arrived = shared.arrived.notified();
                    let found = pull_now(&shared, &header);
                    if found.code != response::PULL_NOT_FOUND {
                        return found;
                    }
                    arrived.await;
                }
            };
            let answer = match tokio::time::timeout(hold, woken).await {
                Ok(found) => found,
                Err(_) => pull_now(&shared, &header),
            };
            responder.reply(answer);
        });
    }
}

fn pull_now(shared: &Shared, header: &PullMessageRequestHeader) -> RemotingCommand {
    let state = shared.state();
    let key = (header.topic.clone(), header.queue_id);
    let records = state.queues.get(&key).map_or(&[][..], Vec::as_slice);
    let max = records.len() as i64;
    let (code, next, body) = if header.queue_offset > max || header.queue_offset < 0 {
        (
            response::PULL_OFFSET_MOVED,
            header.queue_offset.clamp(0, max),
            Vec::new(),
        )
    } else if header.queue_offset == max {
        (response::PULL_NOT_FOUND, max, Vec::new())
    } else {
        let start = header.queue_offset as usize;
        let end = records.len().min(start + header.max_msg_nums as usize);
        (response::SUCCESS, end as i64, records[start..end].to_vec())
    };
    let header = PullMessageResponseHeader {
        suggest_which_broker_id: 0,
        next_begin_offset: next,
        min_offset: 0,
        max_offset: max,
        ..PullMessageResponseHeader::default()
    };
    RemotingCommand::response(code, None)
        .with_header(&header)
        .with_body(body)
}
