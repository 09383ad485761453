//! Which client may consume a queue in order (RocketMQ: `RebalanceLockManager`). Kept in the leader's memory.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use raftmq_proto::body::MessageQueue;

/// A lock not renewed for this long is free. Clients renew theirs every 20 s and stop trusting one after 30 s.
pub(crate) const LOCK_LIFE: Duration = Duration::from_secs(60);

/// Locks one group may hold: far above the queues of any real one.
const LOCKS_PER_GROUP_MAX: usize = 65_536;
/// Groups with locks.
const GROUPS_MAX: usize = 65_536;

#[derive(Debug)]
struct Lock {
    client_id: String,
    renewed: Instant,
}

impl Lock {
    fn is_live(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.renewed) < LOCK_LIFE
    }
}

/// All locks, by group and queue. Pure: the clock is an argument.
#[derive(Debug, Default)]
pub(crate) struct LockTable {
    groups: HashMap<String, HashMap<MessageQueue, Lock>>,
}

impl LockTable {
    /// Locks or renews what is free or the client's own; gives back the queues it holds now.
    pub(crate) fn lock(
        &mut self,
        group: &str,
        client_id: &str,
        queues: &[MessageQueue],
        now: Instant,
    ) -> Vec<MessageQueue> {
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(group) {
            self.drop_expired(now);
            if self.groups.len() >= GROUPS_MAX {
                return Vec::new();
            }
        }
        let locks = self.groups.entry(group.to_owned()).or_default();
        let mut held = Vec::new();
        for queue in queues {
            let free = match locks.get(queue) {
                Some(lock) => lock.client_id == client_id || !lock.is_live(now),
                None => locks.len() < LOCKS_PER_GROUP_MAX,
            };
            if free {
                locks.insert(
                    queue.clone(),
                    Lock {
                        client_id: client_id.to_owned(),
                        renewed: now,
                    },
                );
                held.push(queue.clone());
            }
        }
        held
    }

    /// Frees the queues that the client holds.
    pub(crate) fn unlock(&mut self, group: &str, client_id: &str, queues: &[MessageQueue]) {
        let Some(locks) = self.groups.get_mut(group) else {
            return;
        };
        for queue in queues {
            if locks
                .get(queue)
                .is_some_and(|lock| lock.client_id == client_id)
            {
                locks.remove(queue);
            }
        }
        if locks.is_empty() {
            self.groups.remove(group);
        }
    }

    /// Whether any lock of the group is live: its consumers consume in order.
    pub(crate) fn is_any_live(&self, group: &str, now: Instant) -> bool {
        self.groups
            .get(group)
            .is_some_and(|locks| locks.values().any(|lock| lock.is_live(now)))
    }

    /// Drops what has expired.
    pub(crate) fn drop_expired(&mut self, now: Instant) {
        self.groups.retain(|_, locks| {
            locks.retain(|_, lock| lock.is_live(now));
            !locks.is_empty()
        });
    }

    /// Drops everything: leadership is lost, another member grants locks now.
    pub(crate) fn clear(&mut self) {
        self.groups.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(queue_id: i32) -> MessageQueue {
        MessageQueue {
            topic: "t".to_owned(),
            broker_name: "b".to_owned(),
            queue_id,
        }
    }

    #[test]
    fn one_owner_at_a_time_until_released_or_expired() {
        let start = Instant::now();
        let mut table = LockTable::default();
        assert_eq!(
            table.lock("g", "a", &[queue(0), queue(1)], start),
            [queue(0), queue(1)]
        );
        assert_eq!(
            table.lock("g", "b", &[queue(0), queue(2)], start),
            [queue(2)]
        );
        assert_eq!(table.lock("other", "b", &[queue(0)], start), [queue(0)]);
        table.unlock("g", "b", &[queue(0)]);
        assert_eq!(table.lock("g", "b", &[queue(0)], start), []);
        table.unlock("g", "a", &[queue(0)]);
        assert_eq!(table.lock("g", "b", &[queue(0)], start), [queue(0)]);

        let renewed = start + LOCK_LIFE / 2;
        assert_eq!(table.lock("g", "a", &[queue(1)], renewed), [queue(1)]);
        assert_eq!(table.lock("g", "b", &[queue(1)], start + LOCK_LIFE), []);
        assert_eq!(
            table.lock("g", "b", &[queue(1)], renewed + LOCK_LIFE),
            [queue(1)]
        );
    }

    #[test]
    fn a_group_is_ordered_while_any_lock_lives() {
        let start = Instant::now();
        let mut table = LockTable::default();
        table.lock("g", "a", &[queue(0)], start);
        assert!(table.is_any_live("g", start));
        assert!(!table.is_any_live("h", start));
        assert!(!table.is_any_live("g", start + LOCK_LIFE));
        table.drop_expired(start + LOCK_LIFE);
        assert!(table.groups.is_empty());
    }
}
