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
use raftmq_proto::header::{
    Header, PullMessageRequestHeader, PullMessageResponseHeader, UpdateConsumerOffsetRequestHeader,
};
use raftmq_proto::message::pull_sys_flag;
use raftmq_raft::{Contact, Group};
use raftmq_store::state::{ApplyObserver, Arrival, State, Unit};

use crate::clients::Clients;
use crate::config::PullConfig;
use crate::creator::{Change, Creator};
use crate::exchange::{Exchange, Refusal};
use crate::forward::Run;
use crate::offsets::Offsets;
use crate::runtime::Runtime;
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

/// How long the leader may take to save an offset that came with a pull.
const SAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// A member that has not answered the leader for this long is no place to send readers to.
const LIVING: Duration = Duration::from_secs(1);

/// How often a pull of something damaged looks again before it is refused, and the time between two looks.
const MENDING_LOOKS: u32 = 20;
const MENDING_LOOK: Duration = Duration::from_millis(50);

/// In whose name this member answers a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It corrects offsets and saves those that come along.
    Leader,
    /// It answers from what it has applied, which may lag: it never moves a client back.
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
    /// Whether broker 0 is an address that only a leader with a quorum has.
    pub(crate) has_endpoint: bool,
    pub(crate) runtime: Runtime,
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

    fn record(&self, unit: &Unit) -> Result<Option<Bytes>, String> {
        match self.state.record(unit) {
            Ok(record) => Ok(Some(record)),
            Err(_) if unit.physical_offset < self.state.log_start() => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl PullProcessor {
    /// Handles one pull. `leader` takes what a follower lacks to the leader.
    pub(crate) fn process(self: &Arc<Self>, exchange: Exchange, role: Role, leader: Option<&Run>) {
        let header = match exchange.header::<PullMessageRequestHeader>() {
            Ok(header) => header,
            Err(refusal) => return exchange.refuse(refusal),
        };
        let known = self.group.store().state.group(&header.consumer_group);
        if known.is_some() || !self.clients.may_create(&header.consumer_group) {
            return self.start(exchange, header, known, role, leader);
        }
        // It has the settings that it is made with, or will be, also while it cannot be made.
        let made = SubscriptionGroupConfig::new(&header.consumer_group);
        if role == Role::Follower {
            // The leader makes it, so that its offsets can be saved.
            return match leader {
                Some(leader) => leader(exchange),
                None => self.start(exchange, header, Some(Arc::new(made)), role, None),
            };
        }
        let processor = Arc::clone(self);
        self.runtime.spawn(async move {
            let missing = Change::MissingGroup(made.clone());
            if let Err(refusal) = processor.creator.carry_out(vec![missing]).await {
                tracing::debug!(remark = refusal.remark, "group of a pull not made yet");
            }
            processor.start(exchange, header, Some(Arc::new(made)), role, None);
        });
    }

    fn start(
        self: &Arc<Self>,
        exchange: Exchange,
        header: PullMessageRequestHeader,
        group: Option<Arc<SubscriptionGroupConfig>>,
        role: Role,
        leader: Option<&Run>,
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
                if let Some(leader) = leader {
                    return leader(exchange);
                }
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
        match (self.read(&pull), leader) {
            (Err(_), Some(leader)) => leader(pull.exchange),
            (Ok(reading), Some(leader)) if reading.status.is_unsure() => leader(pull.exchange),
            (Ok(reading), _) if self.should_hold(&pull, &reading) => self.hold(pull),
            (outcome, _) => self.answer(pull, outcome),
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
        let Pull { header, .. } = pull;
        if pull.role != Role::Leader {
            if pull_sys_flag::has_commit_offset(header.sys_flag) {
                self.pass_on_offset(pull);
            }
            return;
        }
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

    /// Sends an offset that came with a pull to the leader. Without one it is lost; the client saves it again.
    fn pass_on_offset(&self, pull: &Pull) {
        let Pull { header, .. } = pull;
        let (group, topic, queue_id) = (&header.consumer_group, &header.topic, header.queue_id);
        let saved = self
            .group
            .store()
            .state
            .consumer_offset(group, topic, queue_id);
        if saved >= Some(header.commit_offset) || *self.group.contact().borrow() != Contact::Led {
            return;
        }
        let update = UpdateConsumerOffsetRequestHeader {
            consumer_group: group.clone(),
            topic: topic.clone(),
            queue_id,
            commit_offset: header.commit_offset,
        };
        let request =
            RemotingCommand::request(request::UPDATE_CONSUMER_OFFSET).with_header(&update);
        let (members, client) = (self.group.clone(), pull.exchange.client());
        self.runtime.spawn(async move {
            if let Err(error) = members.forward(request, client, SAVE_TIMEOUT).await {
                tracing::debug!(%error, "offset of a pull not saved");
            }
        });
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
        let lags = pull.role == Role::Follower && reading.status.is_behind();
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

    /// Answers a pull. Before a client's offset is moved it has to be certain that this member still leads and has applied
    /// what is committed: one that was deposed would send consumers back, and so would one that is slower to apply than a
    /// follower that they read from.
    fn answer(self: &Arc<Self>, mut pull: Pull, outcome: Result<Reading, String>) {
        let reading = match outcome {
            Ok(reading) => reading,
            Err(error) => {
                let (topic, queue_id) = (&pull.topic, pull.header.queue_id);
                tracing::error!(%topic, queue_id, error, "queue not readable");
                return self.wait_for_mending(pull, error);
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
                return processor.reply(pull, reading);
            }
            match processor.read(&pull) {
                Ok(reading) => processor.reply(pull, reading),
                Err(error) => pull.exchange.refuse(Refusal::error(error)),
            }
        });
    }

    /// What is damaged is mended from another member, normally within milliseconds.
    fn wait_for_mending(self: &Arc<Self>, pull: Pull, error: String) {
        let processor = Arc::clone(self);
        self.runtime.spawn(async move {
            for _ in 0..MENDING_LOOKS {
                tokio::time::sleep(MENDING_LOOK).await;
                if let Ok(reading) = processor.read(&pull) {
                    return processor.answer(pull, Ok(reading));
                }
            }
            pull.exchange.refuse(Refusal::error(error));
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
        let role = match self.group.serves() {
            true => role,
            false => Role::Follower,
        };
        let (code, next) = match role {
            Role::Leader => (reading.status.code(header.queue_offset), reading.next),
            Role::Follower => reading.status.answer_of_follower(&reading, &header),
        };
        let suggest = match role {
            Role::Leader => self.suggested_by_leader(&allowed.group, &reading),
            Role::Follower => self.suggested_by_follower(&allowed.group, &reading),
        };
        match reading.status {
            Status::Found => self.stats.found(&group, &topic, reading.records.len()),
            _ => self.stats.missed(),
        }
        let answer_header = PullMessageResponseHeader {
            suggest_which_broker_id: suggest,
            next_begin_offset: i64::try_from(next).unwrap_or(i64::MAX),
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
    fn suggested_by_leader(&self, group: &SubscriptionGroupConfig, reading: &Reading) -> i64 {
        if !self.config.follower_reads {
            return MASTER_ID;
        }
        let wanted = if self.is_far_behind(reading) {
            group.which_broker_when_consume_slowly
        } else {
            group.broker_id
        };
        if wanted == MASTER_ID {
            return MASTER_ID;
        }
        let own = self.group.self_id();
        let progress = self.group.progress();
        let living = progress
            .iter()
            .filter(|member| member.id != own && member.silent.is_some_and(|time| time < LIVING));
        living_follower(wanted, living.map(|member| follower_id(member.id)))
    }

    /// The same on a follower. Who is not at the end stays while there is no leader, and where groups may be served by followers;
    /// what is not there yet comes from a leader.
    fn suggested_by_follower(&self, group: &SubscriptionGroupConfig, reading: &Reading) -> i64 {
        if reading.status.is_at_end() {
            return MASTER_ID;
        }
        // A leader that is cut off is still registered as such; over the endpoint it is not reached any more.
        let own = if self.group.role().borrow().serving && !self.has_endpoint {
            MASTER_ID
        } else {
            follower_id(self.group.self_id())
        };
        if *self.group.contact().borrow() != Contact::Led {
            return own;
        }
        let stays = self.is_far_behind(reading) || group.broker_id != MASTER_ID;
        match self.config.follower_reads && stays {
            true => own,
            false => MASTER_ID,
        }
    }

    fn is_far_behind(&self, reading: &Reading) -> bool {
        let end = self.group.store().log.end_position();
        let looked_at = matches!(reading.status, Status::Found | Status::NoMatchedMessage);
        looked_at && end.saturating_sub(reading.end) > self.recent_bytes
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

    /// Answers held pulls whenever another member leads, or nobody can any more: their clients ask again, where they are
    /// told to.
    pub(crate) async fn run_leader_changes(self: Arc<Self>) {
        let (mut role, mut contact) = (self.group.role(), self.group.contact());
        let mut known: Option<(Option<u64>, bool)> = None;
        loop {
            let leader = role.borrow_and_update().leader;
            let lost = matches!(*contact.borrow_and_update(), Contact::Lost(_));
            if known.is_some_and(|(before, was_lost)| leader != before || lost && !was_lost) {
                self.resume_all_held();
            }
            known = Some((leader, lost));
            let changed = tokio::select! {
                changed = role.changed() => changed,
                changed = contact.changed() => changed,
            };
            if changed.is_err() {
                return;
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

/// The broker id of a member while it follows.
pub(crate) fn follower_id(member: u64) -> i64 {
    i64::try_from(member).unwrap_or(i64::MAX).saturating_add(1)
}

/// The wanted follower if it lives, else the next one that does; the leader when there is none. Which member has which id
/// does not change with leadership, so the wanted one may be leading.
fn living_follower(wanted: i64, living: impl Iterator<Item = i64>) -> i64 {
    let in_turn = |id: i64| if id >= wanted { (0, id) } else { (1, id) };
    living.min_by_key(|id| in_turn(*id)).unwrap_or(MASTER_ID)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_are_sent_to_a_follower_that_lives() {
        for (wanted, living, told) in [
            (1, &[1, 2][..], 1),
            // n0 leads.
            (1, &[2, 3], 2),
            (3, &[1, 2], 1),
            (2, &[1], 1),
            (1, &[], MASTER_ID),
        ] {
            assert_eq!(living_follower(wanted, living.iter().copied()), told);
        }
    }
}
