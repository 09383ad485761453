//! A consumer gives a message back (36). RocketMQ: `AbstractSendMessageProcessor.consumerSendMsgBack`.
//!
//! A message that may be tried again would have to wait first; there is no delayed delivery yet, so that is refused and
//! the consumer keeps the message and tries again itself. A message that is given up goes to the dead-letter topic.

use std::sync::Arc;

use bytes::BytesMut;
use raftmq_proto::body::{TopicConfig, perm};
use raftmq_proto::code::response;
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::ConsumerSendMsgBackRequestHeader;
use raftmq_proto::message::record::{NewRecord, RecordRef};
use raftmq_proto::message::{id, name, properties};
use raftmq_raft::{MessageSubmission, ProposeError};

use super::SendProcessor;
use super::checks::{Lookup, group_not_exist};
use crate::creator::{self, Change};
use crate::exchange::{Exchange, Refusal, header};

impl SendProcessor {
    /// Handles one message given back, on the leader.
    pub(crate) fn process_back(self: &Arc<Self>, exchange: Exchange) {
        let processor = Arc::clone(self);
        self.runtime.spawn(async move {
            match processor.give_up(&exchange.request).await {
                Ok(None) => exchange.answer(RemotingCommand::success()),
                Ok(Some((topic, records))) => processor.store_dead(exchange, topic, records),
                Err(refusal) => exchange.refuse(refusal),
            }
        });
    }

    /// The dead-letter record to store; nothing when the group does not want failed messages at all.
    async fn give_up(
        &self,
        request: &RemotingCommand,
    ) -> Result<Option<(Arc<str>, BytesMut)>, Refusal> {
        let header: ConsumerSendMsgBackRequestHeader = header(request)?;
        let group = self
            .lookup
            .group(&header.group)
            .ok_or_else(|| group_not_exist(&header.group))?;
        if !perm::is_writable(self.rules.permission) {
            let text = format!(
                "the broker[{}] sending message is forbidden",
                self.rules.host
            );
            return Err(Refusal::new(response::NO_PERMISSION, text));
        }
        if group.retry_queue_nums <= 0 {
            return Ok(None);
        }
        let not_found =
            || Refusal::error(format!("look message by offset failed, {}", header.offset));
        let offset = u64::try_from(header.offset).map_err(|_negative| not_found())?;
        let bytes = self.lookup.record_at(offset).ok_or_else(not_found)?;
        let record = RecordRef::parse(&bytes).map_err(|_damaged| not_found())?;
        let max = header.max_reconsume_times.unwrap_or(group.retry_max_times);
        if header.delay_level >= 0 && record.reconsume_times() < max {
            return Err(Refusal::error(format!(
                "delayed delivery is not supported yet: message {} of group {} has to be retried by its consumer; \
                 nothing was stored",
                header.offset, header.group
            )));
        }
        let topic = name::dlq_topic(&header.group);
        let missing = Change::MissingTopic(TopicConfig::new(&topic, 1, perm::READ | perm::WRITE));
        if self.lookup.topic(&topic).is_none() {
            self.creator.carry_out(vec![missing]).await?;
        }
        let mut records = BytesMut::new();
        dead_letter(&record, &topic, self.stamp.store_host)
            .encode(&mut records)
            .map_err(|error| Refusal::illegal(error.to_string()))?;
        Ok(Some((Arc::from(topic), records)))
    }

    fn store_dead(self: &Arc<Self>, exchange: Exchange, topic: Arc<str>, records: BytesMut) {
        let bytes = records.len();
        let processor = Arc::clone(self);
        let to = Arc::clone(&topic);
        let done = Box::new(move |outcome: Result<_, _>| match outcome {
            Ok(_) => {
                processor.stats.put(&to, 1, bytes);
                exchange.answer(RemotingCommand::success());
            }
            Err(ProposeError::NotLeader { .. }) => (processor.reroute)(exchange),
            Err(error) => exchange.refuse(creator::refusal_of(&error)),
        });
        self.group.submit(MessageSubmission {
            topic,
            queue_id: 0,
            records,
            count: 1,
            done,
        });
    }
}

/// The dead-letter copy of a record; owns its texts, so it is built in two steps.
struct DeadLetter<'a> {
    record: &'a RecordRef<'a>,
    topic: &'a str,
    properties: String,
    store_host: std::net::SocketAddr,
}

fn dead_letter<'a>(
    record: &'a RecordRef<'a>,
    topic: &'a str,
    store_host: std::net::SocketAddr,
) -> DeadLetter<'a> {
    let mut text = properties::PropertiesBuilder::from_encoded(record.properties());
    if text.get(properties::RETRY_TOPIC).is_none() {
        text.set(properties::RETRY_TOPIC, record.topic());
    }
    if text.get(properties::ORIGIN_MESSAGE_ID).is_none() {
        let origin = id::offset_message_id(record.store_host(), record.physical_offset());
        text.set(properties::ORIGIN_MESSAGE_ID, &origin);
    }
    text.remove(properties::DELAY);
    DeadLetter {
        record,
        topic,
        properties: text.finish(),
        store_host,
    }
}

impl DeadLetter<'_> {
    fn encode(&self, out: &mut BytesMut) -> Result<(), raftmq_proto::message::record::RecordError> {
        let record = NewRecord {
            queue_id: 0,
            flag: self.record.flag(),
            sys_flag: self.record.sys_flag(),
            born_timestamp: self.record.born_timestamp(),
            born_host: self.record.born_host(),
            store_host: self.store_host,
            reconsume_times: self.record.reconsume_times().saturating_add(1),
            prepared_transaction_offset: 0,
            body: self.record.body(),
            topic: self.topic,
            properties: &self.properties,
        };
        record.encode(out)
    }
}
