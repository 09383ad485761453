//! What brokers ask of a client over the connections that it opened.

use std::sync::{Arc, OnceLock, Weak};

use raftmq_proto::body::to_json;
use raftmq_proto::code::{request, response};
use raftmq_proto::frame::{ExtFields, RemotingCommand};
use raftmq_proto::header::{
    GetConsumerRunningInfoRequestHeader, Header, NotifyConsumerIdsChangedRequestHeader,
};
use raftmq_remoting::{Connection, Handler, Responder};
use tokio::sync::Notify;

use crate::instance::Inner;

/// RocketMQ: `ClientRemotingProcessor`.
pub(crate) struct Callbacks {
    /// Filled right after the instance is made; the connections must not keep it alive.
    instance: Arc<OnceLock<Weak<Inner>>>,
    heartbeat_now: Arc<Notify>,
}

impl Callbacks {
    pub(crate) fn new(
        instance: Arc<OnceLock<Weak<Inner>>>,
        heartbeat_now: Arc<Notify>,
    ) -> Callbacks {
        Callbacks {
            instance,
            heartbeat_now,
        }
    }
}

impl Handler for Callbacks {
    fn handle(&self, request: RemotingCommand, responder: Responder) {
        let instance = self.instance.get().and_then(Weak::upgrade);
        let answer = match (request.code, instance) {
            (request::NOTIFY_CONSUMER_IDS_CHANGED, Some(instance)) => {
                rebalance(&instance, &request.ext_fields)
            }
            (request::GET_CONSUMER_RUNNING_INFO, Some(instance)) => {
                running_info(&instance, &request.ext_fields)
            }
            (code, _) => RemotingCommand::failure(
                response::REQUEST_CODE_NOT_SUPPORTED,
                format!(" request type {code} not supported"),
            ),
        };
        responder.reply(answer);
    }

    fn closed(&self, _connection: &Connection) {
        // The broker has dropped what it knew of this client: tell it again, or its successor.
        self.heartbeat_now.notify_one();
    }
}

fn rebalance(instance: &Inner, fields: &ExtFields) -> RemotingCommand {
    match NotifyConsumerIdsChangedRequestHeader::decode(fields) {
        Ok(header) => {
            instance.rebalance(&header.consumer_group);
            RemotingCommand::success()
        }
        Err(error) => RemotingCommand::failure(response::SYSTEM_ERROR, error.to_string()),
    }
}

fn running_info(instance: &Inner, fields: &ExtFields) -> RemotingCommand {
    let header = match GetConsumerRunningInfoRequestHeader::decode(fields) {
        Ok(header) => header,
        Err(error) => return RemotingCommand::failure(response::SYSTEM_ERROR, error.to_string()),
    };
    match instance.running_info(&header.consumer_group) {
        Some(info) => RemotingCommand::success().with_body(to_json(&info)),
        None => RemotingCommand::failure(
            response::SYSTEM_ERROR,
            format!(
                "The Consumer Group <{}> not exist in this consumer",
                header.consumer_group
            ),
        ),
    }
}
