//! Answers requests: the only place that matches on the request code. RocketMQ: `DefaultRequestProcessor` and
//! `ClientRequestProcessor`.

mod admin;
mod broker;
mod topic;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use raftmq_proto::body::JsonError;
use raftmq_proto::code::{request as code, response};
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::HeaderError;
use raftmq_remoting::{Connection, Handler, Responder};
use tracing::{debug, info};

use crate::config::{Config, Settings};
use crate::kv_config::KvConfig;
use crate::route_table::{Expired, Limits, RouteTable};
use admin::Admin;

/// Everything a request may need.
pub(crate) struct Processor {
    table: RwLock<RouteTable>,
    admin: Arc<Admin>,
    /// Open connections by number: those of silent brokers are closed.
    connections: Mutex<HashMap<u64, Connection>>,
    started: Instant,
}

/// An answer other than success.
#[derive(Debug)]
struct Failure {
    code: i32,
    remark: String,
}

type Answer = Result<RemotingCommand, Failure>;

impl Failure {
    fn new(code: i32, remark: impl Into<String>) -> Self {
        Self {
            code,
            remark: remark.into(),
        }
    }

    /// What the original answers when something goes wrong.
    fn system_error(error: impl std::fmt::Display) -> Self {
        Self::new(response::SYSTEM_ERROR, error.to_string())
    }
}

impl From<HeaderError> for Failure {
    fn from(error: HeaderError) -> Self {
        Self::system_error(error)
    }
}

impl From<JsonError> for Failure {
    fn from(error: JsonError) -> Self {
        Self::system_error(error)
    }
}

impl Processor {
    pub(crate) fn new(config: Config, kv: KvConfig) -> Self {
        Self {
            table: RwLock::new(RouteTable::new(Limits::default())),
            admin: Arc::new(Admin::new(config, kv)),
            connections: Mutex::default(),
            started: Instant::now(),
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        self.admin.settings()
    }

    /// Removes brokers that fell silent and closes their connections.
    pub(crate) fn expire(&self) -> Vec<Expired> {
        let expired = self.table.write().expire(self.now_ms());
        for broker in &expired {
            let connection = self.connections.lock().get(&broker.connection).cloned();
            if let Some(connection) = connection {
                connection.close();
            }
        }
        expired
    }

    /// Time of the route table: monotonic, so that a jump of the clock neither removes brokers nor keeps them.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn answer(&self, request: &RemotingCommand, connection: &Connection) -> Answer {
        match request.code {
            code::GET_ROUTEINFO_BY_TOPIC => self.route(request),
            code::REGISTER_BROKER => self.register_broker(request, connection),
            code::UNREGISTER_BROKER => self.unregister_broker(request, connection),
            code::BROKER_HEARTBEAT => self.heartbeat(request, connection),
            code::QUERY_DATA_VERSION => self.query_data_version(request, connection),
            code::GET_BROKER_CLUSTER_INFO => Ok(self.cluster_info()),
            code::GET_BROKER_MEMBER_GROUP => self.member_group(request),
            code::WIPE_WRITE_PERM_OF_BROKER => self.wipe_write_perm(request),
            code::ADD_WRITE_PERM_OF_BROKER => self.add_write_perm(request),
            code::REGISTER_TOPIC_IN_NAMESRV => self.register_topic(request),
            code::DELETE_TOPIC_IN_NAMESRV => self.delete_topic(request),
            code::GET_ALL_TOPIC_LIST_FROM_NAMESERVER => self.all_topics(),
            code::GET_TOPICS_BY_CLUSTER => self.topics_by_cluster(request),
            code::GET_SYSTEM_TOPIC_LIST_FROM_NS => Ok(self.system_topics()),
            code::GET_UNIT_TOPIC_LIST => self.unit_topics(RouteTable::unit_topics),
            code::GET_HAS_UNIT_SUB_TOPIC_LIST => self.unit_topics(RouteTable::unit_sub_topics),
            code::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST => {
                self.unit_topics(RouteTable::unit_sub_topics_without_unit)
            }
            code::GET_KV_CONFIG => self.admin.kv_value(request),
            code::GET_KVLIST_BY_NAMESPACE => self.admin.kv_namespace(request),
            code::GET_NAMESRV_CONFIG => Ok(self.admin.config_lines()),
            other => Err(Failure::new(
                response::REQUEST_CODE_NOT_SUPPORTED,
                format!(" request type {other} not supported"),
            )),
        }
    }
}

impl Handler for Processor {
    fn handle(&self, request: RemotingCommand, responder: Responder) {
        let peer = responder.connection().peer();
        debug!(%peer, code = request.code, opaque = request.opaque, "request");
        // These wait for the disk, which the read task must not.
        let change: Option<fn(&Admin, &RemotingCommand) -> Answer> = match request.code {
            code::PUT_KV_CONFIG => Some(Admin::put_kv),
            code::DELETE_KV_CONFIG => Some(Admin::delete_kv),
            code::UPDATE_NAMESRV_CONFIG => Some(Admin::update_config),
            _ => None,
        };
        match change {
            Some(change) => {
                let admin = Arc::clone(&self.admin);
                tokio::task::spawn_blocking(move || reply(responder, change(&admin, &request)));
            }
            None => {
                let answer = self.answer(&request, responder.connection());
                reply(responder, answer);
            }
        }
    }

    fn opened(&self, connection: &Connection) {
        self.connections
            .lock()
            .insert(connection.id(), connection.clone());
    }

    fn closed(&self, connection: &Connection) {
        self.connections.lock().remove(&connection.id());
        for broker in self.table.write().connection_closed(connection.id()) {
            let peer = connection.peer();
            info!(address = broker.address, cluster = broker.cluster, %peer, "broker disconnected");
        }
    }
}

fn reply(responder: Responder, answer: Answer) {
    responder.reply(
        answer.unwrap_or_else(|failure| RemotingCommand::failure(failure.code, failure.remark)),
    );
}
