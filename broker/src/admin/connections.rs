//! Who is connected (203, 204), and questions passed on to a consumer (307).

use std::time::Duration;

use raftmq_proto::body::{Connection as ConnectionRow, ConsumerConnection, ProducerConnection};
use raftmq_proto::code::response;
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{
    GetConsumerConnectionListRequestHeader, GetConsumerRunningInfoRequestHeader,
    GetProducerConnectionListRequestHeader,
};
use raftmq_remoting::{ClientError, Connection};

use super::Admin;
use crate::clients::registry::Client;
use crate::exchange::{Exchange, Outcome, Refusal, header};

/// How long a consumer may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// Clients before V3_1_8_SNAPSHOT do not understand the question.
const VERSION_WITH_RUNNING_INFO: i32 = 62;

impl Admin {
    /// 203.
    pub(crate) fn consumer_connections(&self, exchange: &Exchange) -> Outcome {
        let header: GetConsumerConnectionListRequestHeader = exchange.header()?;
        let registry = self.clients.registry();
        let Some(group) = registry.consumer_group(&header.consumer_group) else {
            let text = format!("the consumer group[{}] not online", header.consumer_group);
            return Err(Refusal::new(response::CONSUMER_NOT_ONLINE, text));
        };
        let body = ConsumerConnection {
            connection_set: group.members().map(row).collect(),
            consume_from_where: group.consume_from_where,
            consume_type: group.consume_type,
            message_model: group.message_model,
            subscription_table: group
                .subscriptions()
                .iter()
                .map(|(topic, s)| (topic.clone(), s.clone()))
                .collect(),
        };
        Ok(RemotingCommand::success().with_body(body.to_json()))
    }

    /// 204.
    pub(crate) fn producer_connections(&self, exchange: &Exchange) -> Outcome {
        let header: GetProducerConnectionListRequestHeader = exchange.header()?;
        let producers = self.clients.registry().producers(&header.producer_group);
        if producers.is_empty() {
            return Err(Refusal::error(format!(
                "the producer group[{}] not exist",
                header.producer_group
            )));
        }
        let body = ProducerConnection {
            connection_set: producers.iter().map(row).collect(),
        };
        Ok(RemotingCommand::success().with_body(body.to_json()))
    }

    /// 307. The question and the answer pass through untouched.
    pub(crate) async fn ask_consumer(&self, request: &RemotingCommand) -> Outcome {
        let header: GetConsumerRunningInfoRequestHeader = header(request)?;
        let who = format!("<{}> <{}>", header.consumer_group, header.client_id);
        let client = {
            let registry = self.clients.registry();
            let group = registry.consumer_group(&header.consumer_group);
            group.and_then(|group| {
                group
                    .members()
                    .find(|client| client.client_id == header.client_id)
                    .cloned()
            })
        };
        let Some(client) = client else {
            return Err(Refusal::error(format!("The Consumer {who} not online")));
        };
        if client.version < VERSION_WITH_RUNNING_INFO {
            return Err(Refusal::error(format!(
                "The Consumer {who} is too old to answer"
            )));
        }
        let mut question = RemotingCommand::request(request.code);
        question.ext_fields = request.ext_fields.clone();
        question.body = request.body.clone();
        match client.connection.request(question, ASK_TIMEOUT).await {
            Ok(mut answer) => {
                // Its encoding and number belong to the other connection; the reply gets its own.
                answer.serialize = request.serialize;
                Ok(answer)
            }
            Err(ClientError::Timeout { .. }) => {
                let text = format!(
                    "consumer {who} Timeout: no answer within {} s",
                    ASK_TIMEOUT.as_secs()
                );
                Err(Refusal::new(response::CONSUME_MSG_TIMEOUT, text))
            }
            Err(error) => Err(Refusal::error(format!(
                "invoke consumer {who} Exception: {error}"
            ))),
        }
    }
}

fn row(client: &Client<Connection>) -> ConnectionRow {
    ConnectionRow {
        client_addr: client.connection.peer().to_string(),
        client_id: client.client_id.clone(),
        language: client.language,
        version: client.version,
    }
}
