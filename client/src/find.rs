//! Finding single messages (RocketMQ: `MQAdminImpl`), and what administrators have cleaned up.

use std::time::Duration;

use raftmq_proto::body::MessageQueue;
use raftmq_proto::code::{request, response};
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{QueryMessageRequestHeader, ViewMessageRequestHeader};

use crate::admin::Admin;
use crate::error::{Error, Result};
use crate::message::{MessageExt, decode_records};
use crate::nameservers::{check, expect_success};
use crate::pull::{Pull, PullResult};
use crate::subscription::Subscription;

/// Time for one call, as in RocketMQ.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The group that the tools read with.
const TOOLS_GROUP: &str = "TOOLS_CONSUMER";
/// Marks a query for a unique key; brokers then bound the answer themselves.
const UNIQUE_KEY_QUERY: &str = "_UNIQUE_KEY_QUERY";

/// What to look for by key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyQuery {
    /// Topic of the messages.
    pub topic: String,
    /// The key, as one of the message's keys or as its unique key.
    pub key: String,
    /// Whether the key is a unique key.
    pub is_unique: bool,
    /// Most messages that each broker answers with; the newest go first.
    pub max: i32,
    /// Stored at this time or later, in milliseconds since 1970.
    pub begin_ms: i64,
    /// Stored at this time or earlier.
    pub end_ms: i64,
    /// Only brokers of this cluster.
    pub cluster: Option<String>,
}

impl KeyQuery {
    fn matches(&self, message: &MessageExt) -> bool {
        if self.is_unique {
            return message.msg_id == self.key;
        }
        // Brokers find by a hash.
        let keys = message.keys().unwrap_or_default();
        message.topic == self.topic && keys.split(' ').any(|key| key == self.key)
    }
}

impl Admin {
    /// The message at a physical offset of the broker with this address.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is none.
    pub async fn message_at(&self, address: &str, topic: &str, offset: u64) -> Result<MessageExt> {
        let header = ViewMessageRequestHeader {
            topic: Some(topic.to_owned()),
            offset: i64::try_from(offset).unwrap_or(i64::MAX),
        };
        let request = RemotingCommand::request(request::VIEW_MESSAGE_BY_ID).with_header(&header);
        let reply = self
            .instance()
            .inner
            .call_address(address, request, TIMEOUT)
            .await?;
        let body = check(address, reply)?.body.into_bytes();
        let messages = decode_records("", &body)?;
        messages
            .into_iter()
            .next()
            .ok_or_else(|| Error::Unreadable {
                address: address.to_owned(),
                reason: "no message in it".to_owned(),
            })
    }

    /// The messages with a key, of all broker groups that have the topic.
    ///
    /// # Errors
    /// [`Error::Refused`] with code 208 when no broker that answers has one.
    pub async fn messages_by_key(&self, query: &KeyQuery) -> Result<Vec<MessageExt>> {
        let route = self.topic_route(&query.topic).await?;
        let header = QueryMessageRequestHeader {
            topic: query.topic.clone(),
            key: query.key.clone(),
            max_num: query.max,
            begin_timestamp: query.begin_ms,
            end_timestamp: query.end_ms,
        };
        let mut found = Vec::new();
        for broker in &route.broker_datas {
            let others = query
                .cluster
                .as_ref()
                .is_some_and(|cluster| *cluster != broker.cluster);
            let addresses = &broker.broker_addrs;
            let address = addresses.get(&0).or_else(|| addresses.values().next());
            let Some(address) = address.filter(|_| !others) else {
                continue;
            };
            let mut request = RemotingCommand::request(request::QUERY_MESSAGE).with_header(&header);
            if query.is_unique {
                request = request.with_field(UNIQUE_KEY_QUERY, "true");
            }
            let inner = &self.instance().inner;
            // As in the original, the brokers that answer have to do.
            match inner.call_address(address, request, TIMEOUT * 3).await {
                Ok(reply) if reply.code == response::SUCCESS => {
                    let body = reply.body.into_bytes();
                    found.extend(decode_records(&broker.broker_name, &body)?);
                }
                Ok(reply) => tracing::debug!(address, code = reply.code, "no message by key"),
                Err(error) => tracing::warn!(address, %error, "broker not asked for a key"),
            }
        }
        found.retain(|message| query.matches(message));
        if found.is_empty() {
            return Err(Error::Refused {
                address: String::new(),
                code: response::NO_MESSAGE,
                remark: "query message by key finished, but no message.".to_owned(),
            });
        }
        Ok(found)
    }

    /// One message of a queue, by its offset there.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn message_in_queue(&self, queue: &MessageQueue, offset: i64) -> Result<PullResult> {
        let inner = &self.instance().inner;
        inner.routes.get(&queue.topic, false).await?;
        inner
            .pull(&Pull {
                group: TOOLS_GROUP,
                queue,
                offset,
                max_messages: 1,
                subscription: &Subscription::tags(queue.topic.as_str(), "*"),
                hold: None,
                own_filter: true,
                broker_id: 0,
                allowed: TIMEOUT * 2,
            })
            .await
    }

    /// Has the broker with this address drop what lies below the beginning of its queues.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn clean_expired_queues(&self, address: &str) -> Result<()> {
        self.clean(address, request::CLEAN_EXPIRED_CONSUMEQUEUE)
            .await
    }

    /// Has the broker with this address drop the queues of topics that do not exist.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn clean_unused_topics(&self, address: &str) -> Result<()> {
        self.clean(address, request::CLEAN_UNUSED_TOPIC).await
    }

    /// Has the broker with this address delete expired files of its commit log, whatever the hour.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_expired_log(&self, address: &str) -> Result<()> {
        self.clean(address, request::DELETE_EXPIRED_COMMITLOG).await
    }

    async fn clean(&self, address: &str, code: i32) -> Result<()> {
        let request = RemotingCommand::request(code);
        let inner = &self.instance().inner;
        let reply = inner.call_address(address, request, TIMEOUT).await?;
        expect_success(address, reply)
    }
}
