//! Queue offsets, followed through a log as applying it would.

use std::collections::{HashMap, HashSet};

use raftmq_proto::body::{self, TopicConfig};
use raftmq_proto::command::Op;

/// The next offset of each queue that the log has shown so far.
#[derive(Default)]
pub(super) struct Queues {
    next: HashMap<String, HashMap<i32, u64>>,
    topics: HashSet<String>,
    /// Whether something of the log was not seen: its beginning, or a damaged part.
    partial: bool,
}

impl Queues {
    /// Something of the log is missing here: each queue is followed again from the next of its
    /// messages that is seen.
    pub(super) fn skip(&mut self) {
        self.next.clear();
        self.topics.clear();
        self.partial = true;
    }

    pub(super) fn op(&mut self, op: &Op) {
        match op {
            Op::PutTopic(put) => {
                if let Ok(config) = body::from_json::<TopicConfig>(&put.config_json)
                    && self.topics.insert(config.topic_name.clone())
                    && !self.partial
                {
                    self.next.remove(&config.topic_name);
                }
            }
            Op::DeleteTopic(delete) => {
                self.topics.remove(&delete.topic);
                self.next.remove(&delete.topic);
            }
            Op::StartQueue(start) => {
                let queues = self.next.entry(start.topic.clone()).or_default();
                queues.entry(start.queue_id).or_insert(start.offset);
            }
            Op::PutGroup(_)
            | Op::DeleteGroup(_)
            | Op::SaveOffsets(_)
            | Op::PutKv(_)
            | Op::DeleteKv(_)
            | Op::TrimLog(_) => {}
        }
    }

    /// Takes a message's offset; the offset that was expected, if it is another one.
    pub(super) fn record(&mut self, topic: &str, queue_id: i32, offset: u64) -> Result<(), u64> {
        if !self.next.contains_key(topic) {
            self.next.insert(topic.to_owned(), HashMap::new());
        }
        let first = if self.partial { offset } else { 0 };
        let queues = self.next.get_mut(topic).expect("inserted above");
        let next = queues.entry(queue_id).or_insert(first);
        if *next != offset {
            // One finding for each gap: what follows is counted from here.
            let expected = std::mem::replace(next, offset + 1);
            return Err(expected);
        }
        *next += 1;
        Ok(())
    }

    /// The next offset of a queue, if a message of it was seen.
    pub(super) fn next(&self, topic: &str, queue_id: i32) -> Option<u64> {
        self.next.get(topic)?.get(&queue_id).copied()
    }

    /// Number of queues seen.
    pub(super) fn count(&self) -> usize {
        self.next.values().map(HashMap::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftmq_proto::command::{DeleteTopic, StartQueue};

    #[test]
    fn offsets_are_dense_until_a_topic_goes() {
        let mut queues = Queues::default();
        assert_eq!(queues.record("T", 0, 0), Ok(()));
        assert_eq!(queues.record("T", 0, 1), Ok(()));
        assert_eq!(queues.record("T", 0, 3), Err(2));
        assert_eq!(queues.record("T", 0, 4), Ok(()));
        assert_eq!(queues.record("T", 1, 5), Err(0));
        queues.op(&Op::DeleteTopic(DeleteTopic { topic: "T".into() }));
        assert_eq!(queues.record("T", 0, 0), Ok(()));
        queues.op(&Op::StartQueue(StartQueue {
            topic: "T".into(),
            queue_id: 7,
            offset: 9,
        }));
        assert_eq!(queues.record("T", 7, 9), Ok(()));
        queues.skip();
        assert_eq!(queues.record("T", 0, 100), Ok(()));
        assert_eq!(queues.next("T", 0), Some(101));
    }
}
