//! Sends (10, 310, 320): checks, records, proposal, answer. RocketMQ: `SendMessageProcessor`.
//!
//! ```text
//! request ─▶ checks::place ─▶ message::{single, batch} ─▶ Group::submit ─▶ (applied) answer
//!                └ topic is missing ─▶ Creator ─▶ once more from the start
//! ```
//!
//! Everything up to the proposal runs on the connection's task; the answer is written from the apply task.

pub(crate) mod back;
pub(crate) mod checks;
pub(crate) mod message;
pub(crate) mod waiting;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use raftmq_proto::body::{TopicConfig, TopicFilterType};
use raftmq_proto::code::{request, response};
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{SendMessageRequestHeader, SendMessageResponseHeader};
use raftmq_proto::message::{id, properties};
use raftmq_raft::{Contact, Group, MessageSubmission, ProposeError, Stored};

use crate::creator::{self, Change, Creator};
use crate::exchange::{Exchange, Refusal};
use crate::forward::Run;
use crate::lookup::GroupLookup;
use crate::runtime::Runtime;
use crate::stats::Stats;
use crate::time::now_ms;
use crate::unique_key::UniqueKeys;
use checks::{Moment, Placement, Rules};
use message::{Envelope, Message, Stamp};
use waiting::WaitingTable;

/// How long a send waits for its outcome once this member is out of touch with a quorum; stock clients wait 3 s.
const OUTCOME_WITHIN: Duration = Duration::from_millis(2500);
/// How long it waits while the quorum answers.
const OUTCOME_WITHIN_SLOW: Duration = Duration::from_secs(10);
/// How often sends are looked at that wait.
const WATCH_PERIOD: Duration = Duration::from_millis(250);

/// Everything a send touches.
pub(crate) struct SendProcessor {
    pub(crate) group: Group,
    pub(crate) rules: Rules,
    pub(crate) stamp: Stamp,
    pub(crate) lookup: GroupLookup,
    pub(crate) creator: Creator,
    pub(crate) unique_keys: UniqueKeys,
    pub(crate) stats: Arc<Stats>,
    pub(crate) runtime: Runtime,
    pub(crate) waiting: Mutex<WaitingTable<Waiting>>,
    /// Takes a request that turned out not to be this member's to the leader.
    pub(crate) reroute: Run,
}

/// How often a send was started over: each reason is tried once, so that no request circles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tried {
    topic_made: bool,
    numbered_anew: bool,
}

/// A send that waits for its entry to be applied.
pub(crate) struct Waiting {
    exchange: Exchange,
    topic: Arc<str>,
    queue_id: i32,
    store_host: SocketAddr,
    unique_key: Option<String>,
    count: u32,
    bytes: usize,
    tried: Tried,
}

impl SendProcessor {
    /// Handles one send on the leader.
    pub(crate) fn process(self: &Arc<Self>, exchange: Exchange) {
        self.start(exchange, Tried::default());
    }

    fn start(self: &Arc<Self>, exchange: Exchange, tried: Tried) {
        let header = SendMessageRequestHeader::decode_for_code(
            exchange.request.code,
            &exchange.request.ext_fields,
        );
        let header = match header {
            Ok(header) => header,
            Err(error) => return exchange.refuse(error.into()),
        };
        let moment = Moment {
            now_ms: now_ms(),
            dice: self.unique_keys.dice(),
            client_version: exchange.request.version,
        };
        let place = match checks::place(&self.rules, &self.lookup, &header, moment) {
            Ok(Placement::At(place)) => place,
            Ok(Placement::After(topic)) => return self.make_topic(exchange, topic, tried),
            Err(refusal) => return self.refuse(exchange, refusal),
        };
        let envelope = Envelope {
            topic: &place.topic.topic_name,
            queue_id: place.queue_id,
            multi_tags: place.topic.topic_filter_type == TopicFilterType::MultiTag,
            dead: place.dead,
            born_host: exchange.client(),
        };
        let body = exchange.request.body.to_bytes();
        let is_batch =
            exchange.request.code == request::SEND_BATCH_MESSAGE || header.batch == Some(true);
        let message = if is_batch {
            message::batch(&self.stamp, envelope, &header, &body)
        } else {
            message::single(&self.stamp, envelope, &header, &body, || {
                self.unique_keys.next()
            })
        };
        match message {
            Ok(message) => {
                let topic = Arc::from(place.topic.topic_name.as_str());
                self.submit(exchange, topic, place.queue_id, message, tried);
            }
            Err(refusal) => self.refuse(exchange, refusal),
        }
    }

    fn make_topic(self: &Arc<Self>, exchange: Exchange, topic: TopicConfig, tried: Tried) {
        if tried.topic_made {
            let text = format!("topic[{}] was made and is gone again", topic.topic_name);
            return self.refuse(exchange, Refusal::error(text));
        }
        tracing::info!(topic = topic.topic_name, client = %exchange.client(), "a send makes a topic");
        let processor = Arc::clone(self);
        self.runtime.spawn(async move {
            match processor
                .creator
                .carry_out(vec![Change::MissingTopic(topic)])
                .await
            {
                Ok(()) => processor.start(
                    exchange,
                    Tried {
                        topic_made: true,
                        ..tried
                    },
                ),
                Err(refusal) => processor.refuse(exchange, refusal),
            }
        });
    }

    fn submit(
        self: &Arc<Self>,
        exchange: Exchange,
        topic: Arc<str>,
        queue_id: i32,
        message: Message,
        tried: Tried,
    ) {
        let Message {
            records,
            count,
            unique_key,
        } = message;
        let bytes = records.len();
        let store_host = self.stamp.store_host;
        let waiting = Waiting {
            exchange,
            topic: Arc::clone(&topic),
            queue_id,
            store_host,
            unique_key,
            count,
            bytes,
            tried,
        };
        let key = self
            .waiting
            .lock()
            .insert(waiting.exchange.arrived(), waiting);
        let processor = Arc::clone(self);
        let done = Box::new(move |outcome| {
            let waiting = processor.waiting.lock().take(key);
            if let Some(waiting) = waiting {
                processor.complete(waiting, outcome);
            }
        });
        self.group.submit(MessageSubmission {
            topic,
            queue_id,
            records,
            count,
            done,
        });
    }

    /// Ends the waiting of sends whose outcome does not come: at once when too few members answer, soon when this member
    /// is out of touch with a quorum, later when the group is merely slow.
    pub(crate) async fn run_deadlines(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(WATCH_PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut contact = self.group.contact();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                Ok(()) = contact.changed() => {}
            }
            let lost = match &*contact.borrow_and_update() {
                Contact::Lost(loss) => Some(loss.clone()),
                Contact::Led | Contact::Electing => None,
            };
            if let Some(loss) = lost {
                self.end_waiting(
                    Duration::ZERO,
                    &format!("group {} has {loss}", self.group.name()),
                );
                continue;
            }
            let is_overdue = self
                .waiting
                .lock()
                .is_overdue(Instant::now(), OUTCOME_WITHIN);
            if !is_overdue {
                continue;
            }
            let in_touch = self.group.confirm_leadership().await.is_ok();
            let age = if in_touch {
                OUTCOME_WITHIN_SLOW
            } else {
                OUTCOME_WITHIN
            };
            let why = format!("not acknowledged by a quorum within {} ms", age.as_millis());
            self.end_waiting(age, &why);
        }
    }

    /// Ends the waiting of sends that have waited for `age` or longer.
    fn end_waiting(&self, age: Duration, why: &str) {
        let given_up = self.waiting.lock().give_up(Instant::now(), age);
        for waiting in given_up {
            let text = format!("outcome unknown: {why}; the message may or may not be stored");
            self.refuse(waiting.exchange, Refusal::error(text));
        }
    }

    /// Runs on the apply task when the message is stored: answers, or starts over.
    fn complete(self: &Arc<Self>, waiting: Waiting, outcome: Result<Stored, ProposeError>) {
        match outcome {
            Ok(stored) => {
                self.stats.put(&waiting.topic, waiting.count, waiting.bytes);
                let answer = self.success(&waiting, &stored);
                waiting.exchange.answer(answer);
            }
            Err(ProposeError::NotLeader { .. }) => (self.reroute)(waiting.exchange),
            Err(ProposeError::Renumber) if !waiting.tried.numbered_anew => {
                let processor = Arc::clone(self);
                let tried = Tried {
                    numbered_anew: true,
                    ..waiting.tried
                };
                self.runtime
                    .spawn(async move { processor.start(waiting.exchange, tried) });
            }
            Err(error) => self.refuse(waiting.exchange, creator::refusal_of(&error)),
        }
    }

    fn success(&self, waiting: &Waiting, stored: &Stored) -> RemotingCommand {
        let ids = stored
            .physical_offsets
            .iter()
            .map(|offset| id::offset_message_id(waiting.store_host, *offset));
        let header = SendMessageResponseHeader {
            msg_id: ids.collect::<Vec<_>>().join(","),
            queue_id: waiting.queue_id,
            queue_offset: i64::try_from(stored.queue_offset).unwrap_or(i64::MAX),
            transaction_id: waiting.unique_key.clone(),
            ..SendMessageResponseHeader::default()
        };
        self.attach_trace(RemotingCommand::success())
            .with_header(&header)
    }

    /// Clients read these two from any answer to a send, without looking whether they are there.
    fn attach_trace(&self, answer: RemotingCommand) -> RemotingCommand {
        let trace_on = if self.stamp.trace_on { "true" } else { "false" };
        answer
            .with_field(properties::MSG_REGION, &self.stamp.region)
            .with_field(properties::TRACE_ON, trace_on)
    }

    fn refuse(&self, exchange: Exchange, refusal: Refusal) {
        if refusal.code != response::SYSTEM_BUSY {
            self.stats.put_failed();
        }
        tracing::debug!(client = %exchange.client(), code = refusal.code, remark = refusal.remark, "send refused");
        exchange.answer(self.attach_trace(refusal.into_response()));
    }
}
