//! First pass: which messages a queue has, and which offsets they keep.
//!
//! A queue of the original may have gaps (a message that failed after its offset was taken) and
//! repeated offsets (a leader that took over before everything was dispatched). Here a queue is
//! dense. So its messages are numbered one after the other such that the last ones keep their
//! offsets: what stands before a gap moves up, and consumers' offsets with it.
//!
//! A queue that begins again at 0 is one of a topic that was deleted and made anew: only the
//! messages since then count.

use std::collections::BTreeMap;

/// Messages of a queue whose offsets follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: u64,
    count: u64,
    /// Physical offset of its first message in the source.
    at: u64,
}

impl Run {
    fn next(&self) -> u64 {
        self.first + self.count
    }
}

/// One queue.
#[derive(Debug, Default)]
pub(super) struct QueuePlan {
    runs: Vec<Run>,
    /// Messages at lower physical offsets are of a topic that was deleted.
    from: u64,
    /// How many of those there are.
    pub(super) deleted: u64,
    /// Bytes of the messages to take.
    pub(super) bytes: u64,
    /// Offset of the message that is written next.
    next: u64,
}

impl QueuePlan {
    /// Notes a message of `size` bytes with the queue offset it has in the source. `first_in_queue`
    /// tells which message the original's consume queue has at offset 0.
    pub(super) fn add(
        &mut self,
        offset: u64,
        at: u64,
        size: usize,
        first_in_queue: impl FnOnce() -> Option<u64>,
    ) {
        if let Some(last) = self.runs.last_mut()
            && last.next() == offset
        {
            last.count += 1;
            self.bytes += size as u64;
            return;
        }
        if offset == 0 && !self.runs.is_empty() {
            let old = self.runs.iter().find(|run| run.first == 0);
            let repeated = old.is_some_and(|old| first_in_queue() == Some(old.at));
            if !repeated {
                self.deleted += self.count();
                self.bytes = 0;
                self.runs.clear();
                self.from = at;
            }
        }
        self.bytes += size as u64;
        self.runs.push(Run {
            first: offset,
            count: 1,
            at,
        });
    }

    /// Messages to take.
    pub(super) fn count(&self) -> u64 {
        self.runs.iter().map(|run| run.count).sum()
    }

    /// Whether offsets change.
    pub(super) fn moves(&self) -> bool {
        self.runs.len() > 1
    }

    /// Offset of the first message.
    pub(super) fn start(&self) -> u64 {
        let end = self.runs.last().map_or(0, Run::next);
        end.saturating_sub(self.count())
    }

    /// Offset after the last message.
    pub(super) fn end(&self) -> u64 {
        self.start() + self.count()
    }

    /// Where an offset of the source is now. Where that is not certain, the lower: a message may be
    /// consumed once more, and is not left out.
    pub(super) fn moved(&self, offset: i64) -> i64 {
        let (Ok(wanted), true) = (u64::try_from(offset), self.moves()) else {
            return offset;
        };
        let mut start = self.start();
        for run in &self.runs {
            if wanted <= run.next() {
                return (start + wanted.saturating_sub(run.first)).cast_signed();
            }
            start += run.count;
        }
        let last = self.runs.last().map_or(0, Run::next);
        (start + wanted.saturating_sub(last)).cast_signed()
    }

    /// Begins the second pass.
    fn rewind(&mut self) {
        self.next = self.start();
    }

    /// The new offset of the next message, which stands at `at` in the source; `None` when it is
    /// not taken.
    fn take(&mut self, at: u64) -> Option<u64> {
        if at < self.from {
            return None;
        }
        let offset = self.next;
        self.next += 1;
        Some(offset)
    }
}

/// All queues, by topic and queue id.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) topics: BTreeMap<String, BTreeMap<i32, QueuePlan>>,
}

impl Plan {
    /// The queue, made if new.
    pub(super) fn queue(&mut self, topic: &str, queue_id: i32) -> &mut QueuePlan {
        if !self.topics.contains_key(topic) {
            self.topics.insert(topic.to_owned(), BTreeMap::new());
        }
        let queues = self.topics.get_mut(topic).expect("inserted above");
        queues.entry(queue_id).or_default()
    }

    pub(super) fn queues(&self) -> impl Iterator<Item = (&str, i32, &QueuePlan)> {
        self.topics.iter().flat_map(|(topic, queues)| {
            let queues = queues.iter();
            queues.map(|(queue_id, queue)| (topic.as_str(), *queue_id, queue))
        })
    }

    pub(super) fn rewind(&mut self) {
        let queues = self.topics.values_mut().flat_map(BTreeMap::values_mut);
        queues.for_each(QueuePlan::rewind);
    }

    /// See [`QueuePlan::take`]; `None` also for a topic that is not in the plan.
    pub(super) fn take(&mut self, topic: &str, queue_id: i32, at: u64) -> Option<u64> {
        self.topics.get_mut(topic)?.get_mut(&queue_id)?.take(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(offsets: &[u64], first_in_queue: Option<u64>) -> QueuePlan {
        let mut queue = QueuePlan::default();
        for (nth, offset) in offsets.iter().enumerate() {
            queue.add(*offset, nth as u64 * 100, 10, || first_in_queue);
        }
        queue.rewind();
        queue
    }

    fn taken(queue: &mut QueuePlan, count: u64) -> Vec<Option<u64>> {
        (0..count).map(|nth| queue.take(nth * 100)).collect()
    }

    #[test]
    fn a_dense_queue_stays() {
        let mut queue = plan(&[5, 6, 7], None);
        assert_eq!((queue.start(), queue.end()), (5, 8));
        assert_eq!(taken(&mut queue, 3), [Some(5), Some(6), Some(7)]);
        for offset in [-1, 0, 6, 8, 100] {
            assert_eq!(queue.moved(offset), offset);
        }
    }

    #[test]
    fn what_is_before_a_gap_moves_up() {
        let mut queue = plan(&[0, 1, 2, 5, 6], None);
        assert_eq!((queue.start(), queue.end()), (2, 7));
        assert_eq!(taken(&mut queue, 5), [2, 3, 4, 5, 6].map(Some));
        let moved: Vec<i64> = (0..8).map(|offset| queue.moved(offset)).collect();
        // 3 and 4 are behind the third message and before the fourth.
        assert_eq!(moved, [2, 3, 4, 5, 5, 5, 6, 7]);
    }

    #[test]
    fn repeated_offsets_lose_nothing() {
        let mut queue = plan(&[0, 1, 2, 2, 3], None);
        assert_eq!((queue.start(), queue.end()), (0, 5));
        assert_eq!(taken(&mut queue, 5), [0, 1, 2, 3, 4].map(Some));
        assert_eq!(queue.moved(4), 5);
        let mut queue = plan(&[7, 8, 8, 9], None);
        assert_eq!((queue.start(), queue.end()), (6, 10));
        assert_eq!(taken(&mut queue, 4), [6, 7, 8, 9].map(Some));
    }

    #[test]
    fn a_topic_made_anew_drops_the_old_one() {
        let mut queue = plan(&[0, 1, 2, 0, 1], Some(300));
        assert_eq!((queue.start(), queue.end(), queue.deleted), (0, 2, 3));
        assert_eq!(queue.bytes, 20);
        assert_eq!(taken(&mut queue, 5), [None, None, None, Some(0), Some(1)]);
        // The original itself has the first of both at offset 0: it only repeated it.
        let queue = plan(&[0, 0, 1], Some(0));
        assert_eq!((queue.start(), queue.end(), queue.deleted), (0, 3, 0));
    }
}
