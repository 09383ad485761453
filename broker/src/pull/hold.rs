//! Pulls that found nothing and wait for an arrival (RocketMQ: `PullRequestHoldService`).
//!
//! Pure: the clock and the arrivals are arguments, and what is to be answered is returned. A pull leaves the table
//! exactly once: woken, expired, withdrawn or drained.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use raftmq_proto::filter::TagFilter;

/// Names a held pull.
pub(crate) type HoldId = u64;

/// A pull in the table, with whatever is needed to answer it.
#[derive(Debug)]
struct Held<T> {
    id: HoldId,
    from: u64,
    filter: TagFilter,
    deadline: Instant,
    payload: T,
}

/// All held pulls of a member.
#[derive(Debug)]
pub(crate) struct HoldTable<T> {
    queues: HashMap<Arc<str>, HashMap<i32, Vec<Held<T>>>>,
    deadlines: BTreeMap<(Instant, HoldId), (Arc<str>, i32)>,
    next_id: HoldId,
    max: usize,
}

/// What a pull waits for.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) topic: Arc<str>,
    pub(crate) queue_id: i32,
    /// The first queue offset that would be new to the client.
    pub(crate) from: u64,
    pub(crate) filter: TagFilter,
    pub(crate) deadline: Instant,
}

impl<T> HoldTable<T> {
    /// An empty table for up to `max` pulls: each costs a few hundred bytes and a client that waits.
    pub(crate) fn new(max: usize) -> HoldTable<T> {
        HoldTable {
            queues: HashMap::new(),
            deadlines: BTreeMap::new(),
            next_id: 0,
            max,
        }
    }

    /// Number of held pulls.
    pub(crate) fn len(&self) -> usize {
        self.deadlines.len()
    }

    /// Takes a pull in; gives it back when the table is full.
    pub(crate) fn insert(&mut self, wanted: Wanted, payload: T) -> Result<HoldId, T> {
        if self.deadlines.len() >= self.max {
            return Err(payload);
        }
        self.next_id += 1;
        let id = self.next_id;
        let Wanted {
            topic,
            queue_id,
            from,
            filter,
            deadline,
        } = wanted;
        self.deadlines
            .insert((deadline, id), (Arc::clone(&topic), queue_id));
        let held = Held {
            id,
            from,
            filter,
            deadline,
            payload,
        };
        self.queues
            .entry(topic)
            .or_default()
            .entry(queue_id)
            .or_default()
            .push(held);
        Ok(id)
    }

    /// Takes back one pull, if it is still there.
    pub(crate) fn withdraw(&mut self, id: HoldId, topic: &str, queue_id: i32) -> Option<T> {
        self.take(topic, queue_id, |held| held.id == id).pop()
    }

    /// The pulls that want one of the messages from offset `first` on, which have these tags codes.
    pub(crate) fn wake(
        &mut self,
        topic: &str,
        queue_id: i32,
        first: u64,
        tags_codes: &[i64],
    ) -> Vec<T> {
        self.take(topic, queue_id, |held| {
            let known = usize::try_from(held.from.saturating_sub(first)).unwrap_or(usize::MAX);
            tags_codes
                .iter()
                .skip(known)
                .any(|code| held.filter.matches_code(*code))
        })
    }

    /// The pulls whose time is over at `now`.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<T> {
        let mut expired = Vec::new();
        while let Some((&(deadline, id), (topic, queue_id))) = self.deadlines.first_key_value() {
            if deadline > now {
                break;
            }
            let (topic, queue_id) = (Arc::clone(topic), *queue_id);
            expired.extend(self.take(&topic, queue_id, |held| held.id == id));
        }
        expired
    }

    /// The pulls of queues whose end, told by `end`, lies beyond what they wait for: a safety net under
    /// [`wake`](Self::wake), which a filter may have passed over.
    pub(crate) fn behind(&mut self, mut end: impl FnMut(&str, i32) -> u64) -> Vec<T> {
        let mut all = Vec::new();
        for (topic, queue_id) in self.waited_for() {
            let end = end(&topic, queue_id);
            all.extend(self.take(&topic, queue_id, |held| held.from < end));
        }
        all
    }

    /// All pulls.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        self.deadlines.clear();
        let queues = std::mem::take(&mut self.queues);
        queues
            .into_values()
            .flat_map(HashMap::into_values)
            .flatten()
            .map(|held| held.payload)
            .collect()
    }

    fn waited_for(&self) -> Vec<(Arc<str>, i32)> {
        let of_topic = |(topic, queues): (&Arc<str>, &HashMap<i32, Vec<Held<T>>>)| {
            queues
                .keys()
                .map(|queue_id| (Arc::clone(topic), *queue_id))
                .collect::<Vec<_>>()
        };
        self.queues.iter().flat_map(of_topic).collect()
    }

    fn take(&mut self, topic: &str, queue_id: i32, wanted: impl Fn(&Held<T>) -> bool) -> Vec<T> {
        let Some(queues) = self.queues.get_mut(topic) else {
            return Vec::new();
        };
        let Some(held) = queues.get_mut(&queue_id) else {
            return Vec::new();
        };
        let mut taken = Vec::new();
        let mut at = 0;
        while let Some(candidate) = held.get(at) {
            if wanted(candidate) {
                let held = held.swap_remove(at);
                self.deadlines.remove(&(held.deadline, held.id));
                taken.push(held.payload);
            } else {
                at += 1;
            }
        }
        if held.is_empty() {
            queues.remove(&queue_id);
            if queues.is_empty() {
                self.queues.remove(topic);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use raftmq_proto::message::tags_code;

    use super::*;

    fn wanted(queue_id: i32, from: u64, filter: &str, deadline: Instant) -> Wanted {
        Wanted {
            topic: "T".into(),
            queue_id,
            from,
            filter: TagFilter::parse(filter).unwrap(),
            deadline,
        }
    }

    #[test]
    fn wakes_only_who_waits_for_that_offset_and_tag() {
        let now = Instant::now();
        let mut table = HoldTable::new(10);
        table.insert(wanted(0, 5, "*", now), "any from 5").unwrap();
        table.insert(wanted(0, 5, "a || b", now), "a or b").unwrap();
        table.insert(wanted(0, 6, "*", now), "any from 6").unwrap();
        table.insert(wanted(1, 0, "*", now), "other queue").unwrap();
        assert_eq!(
            table.wake("T", 0, 4, &[tags_code("a"), tags_code("c")]),
            ["any from 5"]
        );
        assert_eq!(table.wake("U", 0, 9, &[0]), Vec::<&str>::new());
        let mut woken = table.wake("T", 0, 6, &[tags_code("a")]);
        woken.sort_unstable();
        assert_eq!(woken, ["a or b", "any from 6"]);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn each_pull_leaves_once_and_the_table_is_bounded() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut table = HoldTable::new(3);
        let first = table.insert(wanted(0, 0, "*", now), 1).unwrap();
        table.insert(wanted(0, 0, "*", later), 2).unwrap();
        table.insert(wanted(1, 7, "*", later), 3).unwrap();
        assert_eq!(table.insert(wanted(0, 0, "*", now), 4), Err(4));
        assert_eq!(table.expire(now), [1]);
        assert_eq!(table.withdraw(first, "T", 0), None);
        assert_eq!(
            table.behind(|_, queue_id| if queue_id == 1 { 7 } else { 1 }),
            [2]
        );
        assert_eq!(table.drain(), [3]);
        assert_eq!((table.len(), table.expire(later).len()), (0, 0));
        assert!(table.queues.is_empty() && table.deadlines.is_empty());
    }
}
