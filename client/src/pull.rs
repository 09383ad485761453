//! One pull: the request, its answer, and the offsets around it.

use std::time::Duration;

use bytes::Bytes;
use raftmq_proto::body::MessageQueue;
use raftmq_proto::code::{request, response};
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{
    GetMaxOffsetRequestHeader, GetMaxOffsetResponseHeader, GetMinOffsetRequestHeader,
    GetMinOffsetResponseHeader, Header, PullMessageRequestHeader, PullMessageResponseHeader,
    QueryConsumerOffsetRequestHeader, QueryConsumerOffsetResponseHeader, SearchOffsetRequestHeader,
    SearchOffsetResponseHeader, UpdateConsumerOffsetRequestHeader,
};
use raftmq_proto::message::pull_sys_flag;

use crate::call::{Answer, Plan, Target};
use crate::error::{Error, Result};
use crate::instance::Inner;
use crate::message::{MessageExt, decode_records};
use crate::subscription::Subscription;

/// Time for a question about offsets, retries over a failover included.
const OFFSET_TIMEOUT: Duration = Duration::from_secs(5);
const OFFSET_ATTEMPT: Duration = Duration::from_secs(2);
/// Time beyond the broker's hold in which an answer must come.
const BEYOND_HOLD: Duration = Duration::from_secs(10);

/// What a pull found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullStatus {
    /// Messages.
    Found,
    /// The queue has nothing at or after the offset yet.
    NoNewMessage,
    /// Messages, none of which passed the filter.
    NoMatchedMessage,
    /// The offset is outside the queue; the next offset is inside.
    OffsetIllegal,
}

/// The answer to a pull.
#[derive(Clone, Debug)]
pub struct PullResult {
    /// What was found.
    pub status: PullStatus,
    /// Where to go on.
    pub next_offset: i64,
    /// First offset of the queue.
    pub min_offset: i64,
    /// Offset after the last message of the queue.
    pub max_offset: i64,
    /// The member the next pull had best ask; 0 is the leader.
    pub suggested_broker_id: i64,
    /// The messages that passed the filter, in the order of the queue.
    pub messages: Vec<MessageExt>,
}

/// A pull to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pull<'a> {
    pub(crate) group: &'a str,
    pub(crate) queue: &'a MessageQueue,
    pub(crate) offset: i64,
    pub(crate) max_messages: i32,
    pub(crate) subscription: &'a Subscription,
    /// How long the broker may hold the request while there is nothing.
    pub(crate) hold: Option<Duration>,
    /// Whether the request brings its own filter instead of the one in the heartbeat.
    pub(crate) own_filter: bool,
    /// Member to ask first.
    pub(crate) broker_id: i64,
    /// Whole time, failovers included.
    pub(crate) allowed: Duration,
}

fn target_of(queue: &MessageQueue, broker_id: i64) -> Target<'_> {
    Target {
        topic: &queue.topic,
        broker_name: &queue.broker_name,
        broker_id,
    }
}

fn read_header<H: Header>(answer: &Answer) -> Result<H> {
    H::decode(&answer.reply.ext_fields).map_err(|error| Error::Unreadable {
        address: answer.address.clone(),
        reason: error.to_string(),
    })
}

impl Inner {
    pub(crate) async fn pull(&self, pull: &Pull<'_>) -> Result<PullResult> {
        let mut sys_flag = 0;
        if pull.hold.is_some() {
            sys_flag |= pull_sys_flag::SUSPEND;
        }
        if pull.own_filter {
            sys_flag |= pull_sys_flag::SUBSCRIPTION;
        }
        let hold = pull.hold.unwrap_or_default();
        let header = PullMessageRequestHeader {
            consumer_group: pull.group.to_owned(),
            topic: pull.queue.topic.clone(),
            queue_id: pull.queue.queue_id,
            queue_offset: pull.offset,
            max_msg_nums: pull.max_messages,
            sys_flag,
            commit_offset: 0,
            suspend_timeout_millis: i64::try_from(hold.as_millis()).unwrap_or(i64::MAX),
            subscription: pull
                .own_filter
                .then(|| pull.subscription.expression.clone()),
            sub_version: pull.subscription.version,
            expression_type: Some(pull.subscription.expression_type.clone()),
            ..PullMessageRequestHeader::default()
        };
        let request = RemotingCommand::request(request::PULL_MESSAGE).with_header(&header);
        let plan = Plan {
            follow_leader: pull.broker_id == 0,
            accepts: |code| {
                matches!(
                    code,
                    response::SUCCESS
                        | response::PULL_NOT_FOUND
                        | response::PULL_RETRY_IMMEDIATELY
                        | response::PULL_OFFSET_MOVED
                )
            },
            ..Plan::new(pull.allowed, hold + BEYOND_HOLD)
        };
        let target = target_of(pull.queue, pull.broker_id);
        let answer = self.call(target, &plan, &request).await?;
        let header: PullMessageResponseHeader = read_header(&answer)?;
        let status = match answer.reply.code {
            response::SUCCESS => PullStatus::Found,
            response::PULL_NOT_FOUND => PullStatus::NoNewMessage,
            response::PULL_RETRY_IMMEDIATELY => PullStatus::NoMatchedMessage,
            _ => PullStatus::OffsetIllegal,
        };
        let mut messages = Vec::new();
        if status == PullStatus::Found {
            let body: Bytes = answer.reply.body.into_bytes();
            messages = decode_records(&pull.queue.broker_name, &body)?;
            messages.retain(|message| pull.subscription.wants(message));
        }
        Ok(PullResult {
            status,
            next_offset: header.next_begin_offset,
            min_offset: header.min_offset,
            max_offset: header.max_offset,
            suggested_broker_id: header.suggest_which_broker_id,
            messages,
        })
    }

    async fn offset_call<H: Header>(
        &self,
        queue: &MessageQueue,
        code: i32,
        header: &impl Header,
        accepts: fn(i32) -> bool,
    ) -> Result<(i32, Option<H>)> {
        // The route may not be known yet: a tool may ask for offsets before anything else.
        self.routes.get(&queue.topic, false).await?;
        let request = RemotingCommand::request(code).with_header(header);
        let plan = Plan {
            accepts,
            ..Plan::new(OFFSET_TIMEOUT, OFFSET_ATTEMPT)
        };
        let answer = self.call(target_of(queue, 0), &plan, &request).await?;
        let code = answer.reply.code;
        let header = if code == response::SUCCESS {
            Some(read_header(&answer)?)
        } else {
            None
        };
        Ok((code, header))
    }

    /// The offset saved for the group, if there is one.
    pub(crate) async fn query_offset(
        &self,
        group: &str,
        queue: &MessageQueue,
    ) -> Result<Option<i64>> {
        let header = QueryConsumerOffsetRequestHeader {
            consumer_group: group.to_owned(),
            topic: queue.topic.clone(),
            queue_id: queue.queue_id,
            ..QueryConsumerOffsetRequestHeader::default()
        };
        let accepts = |code| matches!(code, response::SUCCESS | response::QUERY_NOT_FOUND);
        let (_, answer) = self
            .offset_call::<QueryConsumerOffsetResponseHeader>(
                queue,
                request::QUERY_CONSUMER_OFFSET,
                &header,
                accepts,
            )
            .await?;
        Ok(answer.map(|header| header.offset))
    }

    /// Saves the group's offset and waits until the broker has it.
    pub(crate) async fn save_offset(
        &self,
        group: &str,
        queue: &MessageQueue,
        offset: i64,
    ) -> Result<()> {
        let header = UpdateConsumerOffsetRequestHeader {
            consumer_group: group.to_owned(),
            topic: queue.topic.clone(),
            queue_id: queue.queue_id,
            commit_offset: offset,
        };
        let request =
            RemotingCommand::request(request::UPDATE_CONSUMER_OFFSET).with_header(&header);
        let plan = Plan::new(OFFSET_TIMEOUT, OFFSET_ATTEMPT);
        self.call(target_of(queue, 0), &plan, &request).await?;
        Ok(())
    }

    pub(crate) async fn max_offset(&self, queue: &MessageQueue) -> Result<i64> {
        let header = GetMaxOffsetRequestHeader {
            topic: queue.topic.clone(),
            queue_id: queue.queue_id,
            ..GetMaxOffsetRequestHeader::default()
        };
        let (_, answer) = self
            .offset_call::<GetMaxOffsetResponseHeader>(
                queue,
                request::GET_MAX_OFFSET,
                &header,
                only_success,
            )
            .await?;
        Ok(answer.map_or(0, |header| header.offset))
    }

    pub(crate) async fn min_offset(&self, queue: &MessageQueue) -> Result<i64> {
        let header = GetMinOffsetRequestHeader {
            topic: queue.topic.clone(),
            queue_id: queue.queue_id,
        };
        let (_, answer) = self
            .offset_call::<GetMinOffsetResponseHeader>(
                queue,
                request::GET_MIN_OFFSET,
                &header,
                only_success,
            )
            .await?;
        Ok(answer.map_or(0, |header| header.offset))
    }

    /// First offset stored at or after `timestamp_ms`.
    pub(crate) async fn search_offset(
        &self,
        queue: &MessageQueue,
        timestamp_ms: i64,
    ) -> Result<i64> {
        let header = SearchOffsetRequestHeader {
            topic: queue.topic.clone(),
            queue_id: queue.queue_id,
            timestamp: timestamp_ms,
            ..SearchOffsetRequestHeader::default()
        };
        let (_, answer) = self
            .offset_call::<SearchOffsetResponseHeader>(
                queue,
                request::SEARCH_OFFSET_BY_TIMESTAMP,
                &header,
                only_success,
            )
            .await?;
        Ok(answer.map_or(0, |header| header.offset))
    }
}

fn only_success(code: i32) -> bool {
    code == response::SUCCESS
}
