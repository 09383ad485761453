//! How far a consumer has come in each queue, and how much of that is saved at the brokers. Pure.

use std::collections::HashMap;

use parking_lot::Mutex;
use raftmq_proto::body::MessageQueue;

/// Bounded by the queues assigned to the consumer.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    queues: Mutex<HashMap<MessageQueue, Offsets>>,
}

#[derive(Clone, Copy, Debug)]
struct Offsets {
    consumed: i64,
    saved: Option<i64>,
}

impl Progress {
    /// A queue is read from `offset` on; `saved` is what the broker has.
    pub(crate) fn begin(&self, queue: &MessageQueue, offset: i64, saved: Option<i64>) {
        let offsets = Offsets {
            consumed: offset,
            saved,
        };
        self.queues.lock().insert(queue.clone(), offsets);
    }

    /// Everything before `offset` is consumed.
    pub(crate) fn consumed(&self, queue: &MessageQueue, offset: i64) {
        if let Some(offsets) = self.queues.lock().get_mut(queue) {
            offsets.consumed = offset;
        }
    }

    /// The broker has saved `offset`.
    pub(crate) fn saved(&self, queue: &MessageQueue, offset: i64) {
        if let Some(offsets) = self.queues.lock().get_mut(queue) {
            offsets.saved = Some(offset);
        }
    }

    /// All queues being read and how far they are consumed.
    pub(crate) fn all(&self) -> Vec<(MessageQueue, i64)> {
        let queues = self.queues.lock();
        queues
            .iter()
            .map(|(queue, offsets)| (queue.clone(), offsets.consumed))
            .collect()
    }

    /// What the brokers do not have yet.
    pub(crate) fn unsaved(&self) -> Vec<(MessageQueue, i64)> {
        let queues = self.queues.lock();
        let unsaved = queues
            .iter()
            .filter(|(_, offsets)| offsets.saved != Some(offsets.consumed));
        unsaved
            .map(|(queue, offsets)| (queue.clone(), offsets.consumed))
            .collect()
    }

    /// The queue is no longer read; what is still to be saved of it.
    pub(crate) fn end(&self, queue: &MessageQueue) -> Option<i64> {
        let offsets = self.queues.lock().remove(queue)?;
        (offsets.saved != Some(offsets.consumed)).then_some(offsets.consumed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> MessageQueue {
        MessageQueue {
            topic: "T".to_owned(),
            broker_name: "B".to_owned(),
            queue_id: 0,
        }
    }

    #[test]
    fn only_what_changed_is_saved() {
        let progress = Progress::default();
        progress.begin(&queue(), 5, Some(5));
        assert!(progress.unsaved().is_empty());
        progress.consumed(&queue(), 7);
        assert_eq!(progress.unsaved(), [(queue(), 7)]);
        progress.consumed(&queue(), 8);
        progress.saved(&queue(), 7);
        assert_eq!(progress.unsaved(), [(queue(), 8)]);
        progress.saved(&queue(), 8);
        assert!(progress.unsaved().is_empty());
        assert_eq!(progress.end(&queue()), None);
    }

    #[test]
    fn a_first_offset_is_saved_even_if_nothing_came() {
        let progress = Progress::default();
        progress.begin(&queue(), 0, None);
        assert_eq!(progress.unsaved(), [(queue(), 0)]);
        assert_eq!(progress.end(&queue()), Some(0));
    }

    #[test]
    fn a_queue_given_up_is_forgotten() {
        let progress = Progress::default();
        progress.begin(&queue(), 1, Some(1));
        progress.consumed(&queue(), 2);
        assert_eq!(progress.end(&queue()), Some(2));
        progress.consumed(&queue(), 3);
        assert!(progress.unsaved().is_empty());
        assert_eq!(progress.end(&queue()), None);
    }
}
