//! Pulls (11, 361): checks, reading, holding. RocketMQ: `PullMessageProcessor`, `PullRequestHoldService`.
//!
//! ```text
//! request ─▶ checks ─▶ read ─▶ answer: slices of the log, not copied
//!                        └ nothing there ─▶ HoldTable ─(arrival, timeout, change of leader)─▶ read once more ─▶ answer
//! ```

pub(crate) mod checks;
pub(crate) mod hold;
pub(crate) mod read;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use raftmq_proto::body::{MASTER_ID, SubscriptionGroupConfig};
use raftmq_proto::code::{request, response};
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{Header, PullMessageRequestHeader, PullMessageResponseHeader};
use raftmq_proto::message::pull_sys_flag;
use raftmq_raft::Group;
use raftmq_store::state::{ApplyObserver, Arrival, State, Unit};
use tokio::runtime::Handle;

use crate::clients::Clients;
use crate::config::PullConfig;
use crate::creator::{Change, Creator};
use crate::exchange::{Exchange, Refusal};
use crate::offsets::Offsets;
use crate::stats::Stats;
use checks::{Allowed, Facts, Registered, Rules};
use hold::{HoldTable, Wanted};
use read::{Queue, Reading, Status, Wish};

/// The longest a pull is held, whatever its client asks for: half the idle time of a connection.
pub(crate) const HOLD_MAX_MS: u64 = 60_000;
/// How exactly held pulls time out.
const TICK: Duration = Duration::from_millis(100);
/// How many ticks pass between two looks at queues that have grown without waking anyone.
const TICKS_BETWEEN_RECHECKS: u32 = 50;
/// Woken pulls answered by one task; more of them are spread over the workers.
const WOKEN_PER_TASK: usize = 64;

/// In whose name this member answers a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It corrects offsets and saves those that come along.
    Leader,
    /// It answers from what it has applied, which may lag.
    Follower,
}

/// A pull that passed its checks.
pub(crate) struct Pull {
    exchange: Exchange,
    header: PullMessageRequestHeader,
    allowed: Allowed,
    group: Arc<str>,
    topic: Arc<str>,
    role: Role,
}

/// Everything a pull touches.
pub(crate) struct PullProcessor {
    pub(crate) group: Group,
    pub(crate) rules: Rules,
    pub(crate) config: PullConfig,
    pub(crate) clients: Arc<Clients>,
    pub(crate) offsets: Arc<Offsets>,
    pub(crate) creator: Creator,
    pub(crate) stats: Arc<Stats>,
    pub(crate) holds: Mutex<HoldTable<Pull>>,
    pub(crate) recent_bytes: u64,
    pub(crate) runtime: Handle,
}

/// The queue of a pull, in the applied state.
struct AppliedQueue<'a> {
    state: &'a State,
    topic: &'a str,
    queue_id: i32,
}

impl Queue for AppliedQueue<'_> {
    fn bounds(&self) -> (u64, u64) {
        let bounds = self.state.queue_bounds(self.topic, self.queue_id);
        (bounds.min, bounds.max)
    }

    fn units(&self, from: u64, max: usize) -> Result<Vec<Unit>, String> {
        self.state
            .units(self.topic, self.queue_id, from, max)
            .map_err(|error| error.to_string())
    }

    fn record(&self, unit: &Unit) -> Option<Bytes> {
        self.state.record(unit).ok()
    }
}

impl PullProcessor {
    /// Handles one pull.
    pub(crate) fn process(self: &Arc<Self>, exchange: Exchange, role: Role) {
        let header = match exchange.header::<PullMessageRequestHeader>() {
            Ok(header) => header,
            Err(refusal) => return exchange.refuse(refusal),
        };
        let known = self.group.store().state.group(&header.consumer_group);
        if known.is_some() || !self.clients.may_create(&header.consumer_group) {
            return self.start(exchange, header, known, role);
        }
        // It has the settings that it is made with, or will be, also while it cannot be made.
        let made = SubscriptionGroupConfig::new(&header.consumer_group);
        if role == Role::Follower {
            return self.start(exchange, header, Some(Arc::new(made)), role);
        }
        let processor = Arc::clone(self);
        self.runtime.spawn(async move {
            let missing = Change::MissingGroup(made.clone());
            if let Err(refusal) = processor.creator.carry_out(vec![missing]).await {
                tracing::debug!(remark = refusal.remark, "group of a pull not made yet");
            }
            processor.start(exchange, header, Some(Arc::new(made)), role);
        });
    }

    fn start(
        self: &Arc<Self>,
        exchange: Exchange,
        header: PullMessageRequestHeader,
        group: Option<Arc<SubscriptionGroupConfig>>,
        role: Role,
    ) {
        let facts = Facts {
            is_lite: exchange.request.code == request::LITE_PULL_MESSAGE,
            group,
            topic: self.group.store().state.topic(&header.topic),
            registered: self.registered(&header),
        };
        let allowed = match checks::check(&self.rules, &header, facts) {
            Ok(allowed) => allowed,
            Err(refusal) => {
                tracing::debug!(
                    client = %exchange.client(),
                    topic = header.topic,
                    group = header.consumer_group,
                    code = refusal.refusal.code,
                    remark = refusal.refusal.remark,
                    "pull refused"
                );
                return exchange.answer(refusal.into_response());
            }
        };
        if let Err(refusal) = self.check_rejected(&exchange, &header) {
            return exchange.refuse(refusal);
        }
        let (group, topic) = (
            Arc::from(header.consumer_group.as_str()),
            Arc::from(header.topic.as_str()),
        );
        let pull = Pull {
            exchange,
            header,
            allowed,
            group,
            topic,
            role,
        };
        self.note_offsets(&pull);
        match self.read(&pull) {
            Ok(reading) if self.should_hold(&pull, &reading) => self.hold(pull),
            outcome => self.answer(pull, outcome),
        }
    }

    fn registered(&self, header: &PullMessageRequestHeader) -> Option<Registered> {
        if pull_sys_flag::has_subscription(header.sys_flag) {
            return None;
        }
        let registry = self.clients.registry();
        let group = registry.consumer_group(&header.consumer_group)?;
        Some(Registered {
            message_model: group.message_model,
            subscription: group.subscription(&header.topic).cloned(),
        })
    }

    /// `rejectPullConsumerEnable`: only members of push groups may pull.
    fn check_rejected(
        &self,
        exchange: &Exchange,
        header: &PullMessageRequestHeader,
    ) -> Result<(), Refusal> {
        if !self.config.reject_pull_consumers
            || raftmq_proto::message::name::is_system_group(&header.consumer_group)
            || exchange.is_forwarded()
        {
            return Ok(());
        }
        let registry = self.clients.registry();
        let group = registry.consumer_group(&header.consumer_group);
        let is_member = exchange
            .connection()
            .is_some_and(|c| group.is_some_and(|group| group.has(c.id())));
        if is_member {
            return Ok(());
        }
        let text =
            "the consumer's group info not exist, or the pull consumer is rejected by server";
        Err(Refusal::new(response::SUBSCRIPTION_NOT_EXIST, text))
    }

    fn note_offsets(&self, pull: &Pull) {
        if pull.role != Role::Leader {
            return;
        }
        let Pull { header, .. } = pull;
        self.offsets.note_pull(
            &pull.group,
            &pull.topic,
            header.queue_id,
            header.queue_offset,
        );
        if pull_sys_flag::has_commit_offset(header.sys_flag)
            && let Err(refusal) = self.offsets.save(
                &header.consumer_group,
                &header.topic,
                header.queue_id,
                header.commit_offset,
            )
        {
            tracing::debug!(remark = refusal.remark, "offset of a pull not saved");
        }
    }

    fn read(&self, pull: &Pull) -> Result<Reading, String> {
        let Pull {
            header, allowed, ..
        } = pull;
        let wanted = usize::try_from(header.max_msg_nums).unwrap_or(0).max(1);
        let of_client = header
            .max_msg_bytes
            .and_then(|bytes| usize::try_from(bytes).ok())
            .filter(|bytes| *bytes > 0);
        let wish = Wish {
            offset: header.queue_offset,
            filter: &allowed.filter,
            messages_max: wanted.min(self.config.messages_max),
            bytes_max: of_client.unwrap_or(usize::MAX).min(self.config.bytes_max),
            examine_max: self.config.examine_max,
        };
        let state = &self.group.store().state;
        read::read(
            &AppliedQueue {
                state,
                topic: &header.topic,
                queue_id: header.queue_id,
            },
            wish,
        )
    }

    /// Whether the pull waits. A follower that lags waits too, rather than moving the client's offset.
    fn should_hold(&self, pull: &Pull, reading: &Reading) -> bool {
        let lags = pull.role == Role::Follower && reading.status == Status::OffsetOverflowBadly;
        let nothing = reading.status.code(pull.header.queue_offset) == response::PULL_NOT_FOUND;
        pull_sys_flag::has_suspend(pull.header.sys_flag) && (nothing || lags)
    }

    fn hold(self: &Arc<Self>, mut pull: Pull) {
        let asked = Duration::from_millis(
            u64::try_from(pull.header.suspend_timeout_millis)
                .unwrap_or(0)
                .min(HOLD_MAX_MS),
        );
        let period = if self.config.long_polling {
            asked
        } else {
            self.config.short_polling
        };
        let (topic, queue_id) = (Arc::clone(&pull.topic), pull.header.queue_id);
        let from = u64::try_from(pull.header.queue_offset).unwrap_or(0);
        let wanted = Wanted {
            topic: Arc::clone(&topic),
            queue_id,
            from,
            filter: pull.allowed.filter.clone(),
            // A pull that came back from a leader that is gone has waited already.
            deadline: pull.exchange.arrived() + period,
        };
        pull.exchange.hold();
        let inserted = self.holds.lock().insert(wanted, pull);
        let id = match inserted {
            Ok(id) => id,
            Err(pull) => {
                tracing::warn!(
                    max = self.config.held_max,
                    "no pull is held any more: pullThreadPoolQueueCapacity"
                );
                return self.resume(pull);
            }
        };
        // What was applied between the look at the queue and the insertion has woken nobody.
        if self.group.store().state.queue_bounds(&topic, queue_id).max > from {
            let pull = self.holds.lock().withdraw(id, &topic, queue_id);
            if let Some(pull) = pull {
                self.resume(pull);
            }
        }
    }

    /// Answers a pull that was held, whatever there is now.
    fn resume(self: &Arc<Self>, pull: Pull) {
        let outcome = self.read(&pull);
        self.answer(pull, outcome);
    }

    /// Answers a pull. Before a client's offset is moved it has to be certain that this member still leads: one that
    /// was deposed and lags would send consumers back.
    fn answer(self: &Arc<Self>, mut pull: Pull, outcome: Result<Reading, String>) {
        let reading = match outcome {
            Ok(reading) => reading,
            Err(error) => {
                let (topic, queue_id) = (&pull.topic, pull.header.queue_id);
                tracing::error!(%topic, queue_id, error, "queue not readable");
                return pull.exchange.refuse(Refusal::error(error));
            }
        };
        let moves = reading.status.code(pull.header.queue_offset) == response::PULL_OFFSET_MOVED;
        if pull.role == Role::Follower || !moves {
            return self.reply(pull, reading);
        }
        let processor = Arc::clone(self);
        self.runtime.spawn(async move {
            if processor.group.confirm_leadership().await.is_err() {
                pull.role = Role::Follower;
            }
            processor.reply(pull, reading);
        });
    }

    fn reply(&self, pull: Pull, reading: Reading) {
        let Pull {
            exchange,
            header,
            allowed,
            group,
            topic,
            role,
        } = pull;
        let mut code = reading.status.code(header.queue_offset);
        let mut next = i64::try_from(reading.next).unwrap_or(i64::MAX);
        let mut suggest = self.suggested(&allowed.group, &reading);
        if role == Role::Follower && reading.status != Status::Found {
            suggest = MASTER_ID;
            if code != response::PULL_NOT_FOUND {
                // Only the leader knows the queue's true bounds.
                code = response::PULL_RETRY_IMMEDIATELY;
                if reading.status != Status::NoMatchedMessage {
                    next = header.queue_offset;
                }
            }
        }
        match reading.status {
            Status::Found => self.stats.found(&group, &topic, reading.records.len()),
            _ => self.stats.missed(),
        }
        let answer_header = PullMessageResponseHeader {
            suggest_which_broker_id: suggest,
            next_begin_offset: next,
            min_offset: i64::try_from(reading.min).unwrap_or(i64::MAX),
            max_offset: i64::try_from(reading.max).unwrap_or(i64::MAX),
            topic_sys_flag: Some(allowed.topic.topic_sys_flag),
            group_sys_flag: Some(allowed.group.group_sys_flag),
            ..PullMessageResponseHeader::default()
        };
        let answer = RemotingCommand::response(code, Some(reading.status.name().to_owned()))
            .with_header(&answer_header)
            .with_body(reading.records);
        exchange.answer(answer);
    }

    /// The broker id to pull from next: a group far behind is sent to a follower when those may be read.
    fn suggested(&self, group: &SubscriptionGroupConfig, reading: &Reading) -> i64 {
        if !self.config.follower_reads {
            return MASTER_ID;
        }
        let end = self.group.store().log.end_position();
        let is_far_behind =
            reading.status == Status::Found && end.saturating_sub(reading.end) > self.recent_bytes;
        if is_far_behind {
            group.which_broker_when_consume_slowly
        } else {
            group.broker_id
        }
    }

    /// Times held pulls out, for as long as the member runs.
    pub(crate) async fn run_timeouts(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut until_recheck = TICKS_BETWEEN_RECHECKS;
        loop {
            ticks.tick().await;
            let mut woken = self.holds.lock().expire(Instant::now());
            until_recheck -= 1;
            if until_recheck == 0 {
                until_recheck = TICKS_BETWEEN_RECHECKS;
                let state = &self.group.store().state;
                woken.extend(
                    self.holds
                        .lock()
                        .behind(|topic, queue_id| state.queue_bounds(topic, queue_id).max),
                );
            }
            self.resume_all(woken);
        }
    }

    /// Answers held pulls whenever another member leads: their clients ask again and reach it.
    pub(crate) async fn run_leader_changes(self: Arc<Self>) {
        let mut role = self.group.role();
        let mut leader = role.borrow_and_update().leader;
        while role.changed().await.is_ok() {
            let now = role.borrow_and_update().leader;
            if now != leader {
                leader = now;
                self.resume_all_held();
            }
        }
    }

    /// Answers all held pulls.
    pub(crate) fn resume_all_held(self: &Arc<Self>) {
        let held = self.holds.lock().drain();
        self.resume_all(held);
    }

    fn resume_all(self: &Arc<Self>, woken: Vec<Pull>) {
        let mut rest = woken;
        while !rest.is_empty() {
            let later = rest.split_off(rest.len().min(WOKEN_PER_TASK));
            let processor = Arc::clone(self);
            self.runtime.spawn(async move {
                for pull in rest {
                    processor.resume(pull);
                }
            });
            rest = later;
        }
    }

    /// Number of held pulls.
    pub(crate) fn held(&self) -> usize {
        self.holds.lock().len()
    }

    /// Writes into a pull that is about to be forwarded what its group wants: the leader may not have heard from the
    /// client yet.
    pub(crate) fn add_subscription(&self, exchange: &mut Exchange) {
        let Ok(mut header) = exchange.header::<PullMessageRequestHeader>() else {
            return;
        };
        if pull_sys_flag::has_subscription(header.sys_flag) {
            return;
        }
        let subscription = {
            let registry = self.clients.registry();
            let group = registry.consumer_group(&header.consumer_group);
            group
                .and_then(|group| group.subscription(&header.topic))
                .cloned()
        };
        // One that is too old has to be refused by whoever answers.
        let Some(subscription) =
            subscription.filter(|known| known.sub_version >= header.sub_version)
        else {
            return;
        };
        header.sys_flag |= pull_sys_flag::SUBSCRIPTION;
        header.subscription = Some(subscription.sub_string);
        header.expression_type = Some(subscription.expression_type);
        header.encode(&mut exchange.request.ext_fields);
    }
}

/// Wakes held pulls from the apply task.
pub(crate) struct Waker {
    pub(crate) pulls: Arc<PullProcessor>,
    pub(crate) topics_changed: Arc<tokio::sync::Notify>,
}

impl ApplyObserver for Waker {
    fn arrived(&self, arrivals: &[Arrival]) {
        let mut woken = Vec::new();
        {
            let mut holds = self.pulls.holds.lock();
            if holds.len() == 0 {
                return;
            }
            for arrival in arrivals {
                woken.extend(holds.wake(
                    &arrival.topic,
                    arrival.queue_id,
                    arrival.first,
                    &arrival.tags_codes,
                ));
            }
        }
        self.pulls.resume_all(woken);
    }

    fn topics_changed(&self) {
        self.topics_changed.notify_one();
    }

    fn groups_changed(&self) {}
}
