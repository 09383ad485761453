//! Which client may consume a queue in order (41, 42). RocketMQ: `RebalanceLockManager`.
//!
//! Who owns a queue goes through the log, as a key of the state: a new leader knows it. When an owner last renewed its
//! lock, only the leader knows, by its own clock that never jumps. A new leader counts from the moment it leads; so an
//! owner that is gone keeps its queues for up to [`LOCK_LIFE`] longer, and no two clients ever own one queue, whatever
//! the members' clocks say. Renewing costs no entry.
//!
//! ```text
//!   lock ─▶ the client's own ──────────────▶ renewed: granted
//!        ├▶ free, or not renewed in time ──▶ marked, proposed, applied: granted
//!        └▶ another's, or marked ──────────▶ not granted
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use raftmq_proto::body::MessageQueue;
use raftmq_proto::command::{DeleteKv, Op, PutKv};
use raftmq_raft::{Group, ProposeError};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::creator::refusal_of;
use crate::exchange::Refusal;

/// A lock not renewed for this long is free. Clients renew theirs every 20 s and stop trusting one after 30 s.
const LOCK_LIFE: Duration = Duration::from_secs(60);

/// Locks one group may hold: far above the queues of any real one.
const LOCKS_PER_GROUP_MAX: usize = 65_536;
/// Groups with locks.
const GROUPS_MAX: usize = 65_536;
/// Longest name of a group, a topic, a broker or a client; real ones are far shorter.
const NAME_MAX: usize = 1024;
/// Changes in one entry.
const BATCH_MAX: usize = 4096;
/// How long a change may take. Without a quorum its outcome may never come.
const OUTCOME_WITHIN: Duration = Duration::from_secs(2);

/// Where the state has them: key [`key_of`], value the owner's client id.
const NAMESPACE: &str = "orderLock";
/// Between the parts of a key; no name contains it.
const BETWEEN: char = '\u{1}';

#[derive(Debug, PartialEq, Eq)]
struct Lock {
    /// None while its first owner is on its way through the log.
    owner: Option<String>,
    renewed: Instant,
    /// A change is on its way: until it is applied nobody gets the queue.
    changing: bool,
}

impl Lock {
    fn is_live(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.renewed) < LOCK_LIFE
    }

    fn is_owned_by(&self, client: &str) -> bool {
        !self.changing && self.owner.as_deref() == Some(client)
    }
}

/// All locks, by group and queue, in one term. Pure: the clock is an argument.
#[derive(Debug, Default)]
struct LockTable {
    term: u64,
    groups: HashMap<String, HashMap<MessageQueue, Lock>>,
}

impl LockTable {
    /// The locks that a leader finds when it begins to lead.
    fn begin<'a>(
        term: u64,
        rows: impl Iterator<Item = (&'a str, &'a [u8])>,
        now: Instant,
    ) -> LockTable {
        let mut groups: HashMap<String, HashMap<MessageQueue, Lock>> = HashMap::new();
        for (key, owner) in rows {
            let Some((group, queue)) = queue_of(key) else {
                tracing::error!(key, "a lock that belongs to no queue");
                continue;
            };
            let lock = Lock {
                owner: Some(String::from_utf8_lossy(owner).into_owned()),
                renewed: now,
                changing: false,
            };
            groups
                .entry(group.to_owned())
                .or_default()
                .insert(queue, lock);
        }
        LockTable { term, groups }
    }

    /// Renews what the client owns and marks what it may get; returns the latter.
    fn lock(
        &mut self,
        group: &str,
        client: &str,
        queues: &[MessageQueue],
        now: Instant,
    ) -> Vec<MessageQueue> {
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(group) {
            return Vec::new();
        }
        let locks = self.groups.entry(group.to_owned()).or_default();
        let mut marked = Vec::new();
        for queue in queues {
            let full = locks.len() >= LOCKS_PER_GROUP_MAX;
            match locks.get_mut(queue) {
                Some(lock) if lock.is_owned_by(client) => lock.renewed = now,
                Some(lock) if !lock.changing && !lock.is_live(now) => {
                    lock.changing = true;
                    marked.push(queue.clone());
                }
                Some(_) => {}
                None if full => {}
                None => {
                    let lock = Lock {
                        owner: None,
                        renewed: now,
                        changing: true,
                    };
                    locks.insert(queue.clone(), lock);
                    marked.push(queue.clone());
                }
            }
        }
        self.forget_if_empty(group);
        marked
    }

    /// Those of the queues that the client owns.
    fn owned(&self, group: &str, client: &str, queues: &[MessageQueue]) -> Vec<MessageQueue> {
        let Some(locks) = self.groups.get(group) else {
            return Vec::new();
        };
        let is_owned = |queue: &&MessageQueue| {
            let lock = locks.get(*queue);
            lock.is_some_and(|lock| lock.is_owned_by(client))
        };
        queues.iter().filter(is_owned).cloned().collect()
    }

    /// Marks the queues that the client owns and gives up.
    fn unlock(&mut self, group: &str, client: &str, queues: &[MessageQueue]) -> Vec<MessageQueue> {
        let owned = self.owned(group, client, queues);
        self.mark(group, &owned);
        owned
    }

    /// Marks what has not been renewed in time, up to `max` of it.
    fn expire(&mut self, now: Instant, max: usize) -> Vec<(String, MessageQueue)> {
        let all = self.groups.iter_mut().flat_map(|(group, locks)| {
            let locks = locks.iter_mut();
            locks.map(move |(queue, lock)| (group, queue, lock))
        });
        let gone = all.filter(|(_, _, lock)| !lock.changing && !lock.is_live(now));
        let mark = |(group, queue, lock): (&String, &MessageQueue, &mut Lock)| {
            lock.changing = true;
            (group.clone(), queue.clone())
        };
        gone.take(max).map(mark).collect()
    }

    fn mark(&mut self, group: &str, queues: &[MessageQueue]) {
        let Some(locks) = self.groups.get_mut(group) else {
            return;
        };
        for queue in queues {
            if let Some(lock) = locks.get_mut(queue) {
                lock.changing = true;
            }
        }
    }

    /// A change that was marked has had its outcome: `owner` is what the state says now.
    fn settle(&mut self, group: &str, queue: &MessageQueue, owner: Option<String>, now: Instant) {
        let Some(locks) = self.groups.get_mut(group) else {
            return;
        };
        match owner {
            None => drop(locks.remove(queue)),
            Some(owner) => {
                if let Some(lock) = locks.get_mut(queue) {
                    // One that was not taken over after all is as old as before.
                    if lock.owner.as_deref() != Some(&owner) {
                        lock.renewed = now;
                    }
                    lock.owner = Some(owner);
                    lock.changing = false;
                }
            }
        }
        self.forget_if_empty(group);
    }

    fn forget_if_empty(&mut self, group: &str) {
        if self.groups.get(group).is_some_and(HashMap::is_empty) {
            self.groups.remove(group);
        }
    }

    /// Whether any lock of the group is live: its consumers consume in order.
    fn is_any_live(&self, group: &str, now: Instant) -> bool {
        self.groups
            .get(group)
            .is_some_and(|locks| locks.values().any(|lock| lock.is_live(now)))
    }
}

fn key_of(group: &str, queue: &MessageQueue) -> String {
    let MessageQueue {
        topic,
        broker_name,
        queue_id,
    } = queue;
    format!("{group}{BETWEEN}{topic}{BETWEEN}{broker_name}{BETWEEN}{queue_id}")
}

fn queue_of(key: &str) -> Option<(&str, MessageQueue)> {
    let mut parts = key.split(BETWEEN);
    let (group, topic, broker) = (parts.next()?, parts.next()?, parts.next()?);
    let queue_id = parts.next()?.parse().ok()?;
    let queue = MessageQueue::new(topic, broker, queue_id);
    parts.next().is_none().then_some((group, queue))
}

fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    if name.is_empty() || name.len() > NAME_MAX || name.contains(BETWEEN) {
        return Err(Refusal::invalid(format!(
            "a lock's {what} is empty, longer than {NAME_MAX} bytes, or contains the character 1"
        )));
    }
    Ok(())
}

/// Who wants queues, or gives them up.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) group: String,
    pub(crate) client: String,
    pub(crate) queues: Vec<MessageQueue>,
}

impl Claim {
    fn check(&self) -> Result<(), Refusal> {
        check_name("consumerGroup", &self.group)?;
        check_name("clientId", &self.client)?;
        for queue in &self.queues {
            check_name("topic", &queue.topic)?;
            check_name("brokerName", &queue.broker_name)?;
        }
        Ok(())
    }
}

/// The locks as the leader knows them.
pub(crate) struct Locks {
    group: Group,
    table: Mutex<LockTable>,
}

impl Locks {
    pub(crate) fn new(group: Group) -> Locks {
        Locks {
            group,
            table: Mutex::default(),
        }
    }

    /// The table of this member's term; none unless it leads.
    fn table(&self) -> Option<MutexGuard<'_, LockTable>> {
        let mut table = self.table.lock();
        let role = *self.group.role().borrow();
        if !role.serving {
            return None;
        }
        if table.term != role.term {
            let rows = self.group.store().state.kv_of(NAMESPACE);
            let rows = rows.iter().map(|(key, owner)| (&**key, &**owner));
            *table = LockTable::begin(role.term, rows, Instant::now());
        }
        Some(table)
    }

    /// This member leads from now on: what nobody renews begins to age.
    pub(crate) fn begin(&self) {
        drop(self.table());
    }

    /// This member does not lead any more.
    pub(crate) fn end(&self) {
        *self.table.lock() = LockTable::default();
    }

    /// Locks or renews what is free or the client's own; returns the queues it owns now. The caller has confirmed that
    /// this member still leads.
    pub(crate) async fn lock(self: &Arc<Self>, claim: Claim) -> Result<Vec<MessageQueue>, Refusal> {
        claim.check()?;
        let Claim {
            group,
            client,
            queues,
        } = claim;
        let (term, marked) = {
            let mut table = self.table().ok_or_else(not_leader)?;
            (
                table.term,
                table.lock(&group, &client, &queues, Instant::now()),
            )
        };
        let take = |queue: &MessageQueue| {
            Op::PutKv(PutKv {
                namespace: NAMESPACE.to_owned(),
                key: key_of(&group, queue),
                value: client.clone().into_bytes(),
            })
        };
        let ops = marked.iter().map(take).collect();
        let marked = marked.into_iter().map(|queue| (group.clone(), queue));
        self.change(term, ops, marked.collect()).await?;
        let table = self.table().ok_or_else(not_leader)?;
        Ok(table.owned(&group, &client, &queues))
    }

    /// Frees the queues that the client owns.
    pub(crate) async fn unlock(self: &Arc<Self>, claim: Claim) -> Result<(), Refusal> {
        claim.check()?;
        let (term, marked) = {
            let mut table = self.table().ok_or_else(not_leader)?;
            let marked = table.unlock(&claim.group, &claim.client, &claim.queues);
            (table.term, marked)
        };
        let marked = marked.into_iter().map(|queue| (claim.group.clone(), queue));
        self.free(term, marked.collect()).await
    }

    /// Frees what has not been renewed in time.
    pub(crate) async fn drop_expired(self: &Arc<Self>) {
        loop {
            let Some((term, marked)) = self
                .table()
                .map(|mut table| (table.term, table.expire(Instant::now(), BATCH_MAX)))
            else {
                return;
            };
            let is_last = marked.len() < BATCH_MAX;
            if let Err(refusal) = self.free(term, marked).await {
                tracing::debug!(remark = refusal.remark, "locks not freed yet");
                return;
            }
            if is_last {
                return;
            }
        }
    }

    /// Whether any lock of the group is live: its consumers consume in order.
    pub(crate) fn is_any_live(&self, group: &str) -> bool {
        self.table()
            .is_some_and(|table| table.is_any_live(group, Instant::now()))
    }

    async fn free(
        self: &Arc<Self>,
        term: u64,
        marked: Vec<(String, MessageQueue)>,
    ) -> Result<(), Refusal> {
        let free = |(group, queue): &(String, MessageQueue)| {
            Op::DeleteKv(DeleteKv {
                namespace: NAMESPACE.to_owned(),
                key: key_of(group, queue),
            })
        };
        let ops = marked.iter().map(free).collect();
        self.change(term, ops, marked).await
    }

    /// Has a change applied and settles what was marked for it, also if nobody waits any more.
    async fn change(
        self: &Arc<Self>,
        term: u64,
        ops: Vec<Op>,
        marked: Vec<(String, MessageQueue)>,
    ) -> Result<(), Refusal> {
        if ops.is_empty() {
            return Ok(());
        }
        let (done, outcome) = oneshot::channel();
        let locks = Arc::clone(self);
        tokio::spawn(async move {
            let proposed = locks.group.propose(ops).await;
            locks.settle(term, &marked);
            // The request may have given up waiting.
            drop(done.send(proposed));
        });
        tokio::select! {
            outcome = timeout(OUTCOME_WITHIN, outcome) => match outcome {
                Ok(Ok(Ok(()))) => Ok(()),
                Ok(Ok(Err(ProposeError::NotLeader { .. }))) => Err(not_leader()),
                Ok(Ok(Err(error))) => Err(refusal_of(&error)),
                Ok(Err(_)) => Err(Refusal::busy("this member is shutting down")),
                Err(_) => Err(Refusal::error(format!(
                    "outcome unknown: not acknowledged by a quorum within {} ms",
                    OUTCOME_WITHIN.as_millis()
                ))),
            },
            loss = self.group.lost() => {
                let name = self.group.name();
                Err(Refusal::error(format!("outcome unknown: group {name} has {loss}")))
            }
        }
    }

    fn settle(&self, term: u64, marked: &[(String, MessageQueue)]) {
        let now = Instant::now();
        let mut table = self.table.lock();
        // A newer table was made from the state, and its marks are others'.
        if table.term != term {
            return;
        }
        let state = &self.group.store().state;
        for (group, queue) in marked {
            let owner = state.kv(NAMESPACE, &key_of(group, queue));
            let owner = owner.map(|owner| String::from_utf8_lossy(&owner).into_owned());
            table.settle(group, queue, owner, now);
        }
    }
}

fn not_leader() -> Refusal {
    Refusal::busy("this member does not lead any more; nothing was done, try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(queue_id: i32) -> MessageQueue {
        MessageQueue::new("t", "b", queue_id)
    }

    /// The table with what stands for the log: every change is applied at once.
    #[derive(Default)]
    struct Model {
        table: LockTable,
        rows: HashMap<String, String>,
    }

    impl Model {
        fn lock(&mut self, client: &str, queues: &[MessageQueue], now: Instant) -> Vec<i32> {
            for queue in self.table.lock("g", client, queues, now) {
                self.rows.insert(key_of("g", &queue), client.to_owned());
                self.settle(&queue, now);
            }
            let owned = self.table.owned("g", client, queues);
            owned.iter().map(|queue| queue.queue_id).collect()
        }

        fn settle(&mut self, queue: &MessageQueue, now: Instant) {
            let owner = self.rows.get(&key_of("g", queue)).cloned();
            self.table.settle("g", queue, owner, now);
        }

        fn unlock(&mut self, client: &str, queues: &[MessageQueue], now: Instant) {
            for queue in self.table.unlock("g", client, queues) {
                self.rows.remove(&key_of("g", &queue));
                self.settle(&queue, now);
            }
        }

        fn next_leader(&mut self, now: Instant) {
            let rows = self.rows.iter();
            let rows = rows.map(|(key, owner)| (key.as_str(), owner.as_bytes()));
            self.table = LockTable::begin(self.table.term + 1, rows, now);
        }
    }

    #[test]
    fn one_owner_at_a_time_until_released_or_expired() {
        let start = Instant::now();
        let mut model = Model::default();
        assert_eq!(model.lock("a", &[queue(0), queue(1)], start), [0, 1]);
        assert_eq!(model.lock("b", &[queue(0), queue(2)], start), [2]);
        model.unlock("b", &[queue(0)], start);
        assert!(model.lock("b", &[queue(0)], start).is_empty());
        model.unlock("a", &[queue(0)], start);
        assert_eq!(model.lock("b", &[queue(0)], start), [0]);

        let renewed = start + LOCK_LIFE / 2;
        assert_eq!(model.lock("a", &[queue(1)], renewed), [1]);
        assert!(model.lock("b", &[queue(1)], start + LOCK_LIFE).is_empty());
        assert_eq!(model.lock("b", &[queue(1)], renewed + LOCK_LIFE), [1]);
        assert!(model.lock("a", &[queue(1)], renewed + LOCK_LIFE).is_empty());
    }

    #[test]
    fn a_new_leader_knows_the_owners_and_counts_anew() {
        let start = Instant::now();
        let mut model = Model::default();
        assert_eq!(model.lock("a", &[queue(0), queue(1)], start), [0, 1]);
        let led = start + LOCK_LIFE * 2;
        model.next_leader(led);
        assert_eq!(model.lock("b", &[queue(0), queue(2)], led), [2]);
        assert_eq!(model.lock("a", &[queue(0)], led + LOCK_LIFE / 2), [0]);
        // Nobody renewed this one.
        assert_eq!(model.lock("b", &[queue(0), queue(1)], led + LOCK_LIFE), [1]);
        model.unlock("a", &[queue(0)], led + LOCK_LIFE);
        model.next_leader(led + LOCK_LIFE);
        assert_eq!(model.lock("c", &[queue(0), queue(1)], led + LOCK_LIFE), [0]);
    }

    #[test]
    fn a_queue_whose_change_is_under_way_is_nobodys() {
        let start = Instant::now();
        let mut model = Model::default();
        assert_eq!(model.table.lock("g", "a", &[queue(0)], start), [queue(0)]);
        assert!(model.lock("b", &[queue(0)], start).is_empty());
        assert!(model.table.owned("g", "a", &[queue(0)]).is_empty());
        // It came to nothing.
        model.settle(&queue(0), start);
        assert_eq!(model.lock("b", &[queue(0)], start), [0]);
        // A takeover that comes to nothing leaves the old owner, and its age.
        let late = start + LOCK_LIFE;
        assert_eq!(model.table.lock("g", "c", &[queue(0)], late), [queue(0)]);
        assert!(model.lock("b", &[queue(0)], late).is_empty());
        model.settle(&queue(0), late);
        assert_eq!(model.lock("c", &[queue(0)], late), [0]);
    }

    #[test]
    fn what_expired_is_freed_and_a_group_is_ordered_while_any_lock_lives() {
        let start = Instant::now();
        let mut model = Model::default();
        assert_eq!(model.lock("a", &[queue(0), queue(1)], start), [0, 1]);
        assert!(model.table.is_any_live("g", start));
        assert!(!model.table.is_any_live("h", start));
        assert!(!model.table.is_any_live("g", start + LOCK_LIFE));
        assert!(model.table.expire(start, 10).is_empty());
        for _ in 0..2 {
            let expired = model.table.expire(start + LOCK_LIFE, 1);
            assert_eq!(expired.len(), 1);
            for (_, queue) in expired {
                model.rows.remove(&key_of("g", &queue));
                model.settle(&queue, start);
            }
        }
        assert!(model.table.groups.is_empty());
    }

    #[test]
    fn keys_name_group_and_queue() {
        let key = key_of("%RETRY%g", &queue(7));
        assert_eq!(queue_of(&key), Some(("%RETRY%g", queue(7))));
        for wrong in [
            "",
            "g",
            "g\u{1}t\u{1}b",
            "g\u{1}t\u{1}b\u{1}x",
            "g\u{1}t\u{1}b\u{1}1\u{1}",
        ] {
            assert_eq!(queue_of(wrong), None, "{wrong:?}");
        }
        let claim = |topic: &str| Claim {
            group: "g".to_owned(),
            client: "c".to_owned(),
            queues: vec![MessageQueue::new(topic, "b", 0)],
        };
        assert_eq!(claim("t").check(), Ok(()));
        for topic in ["", "a\u{1}b", &"x".repeat(NAME_MAX + 1)] {
            assert!(claim(topic).check().is_err());
        }
    }
}
