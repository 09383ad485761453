//! What the state should be, as plain lists.

use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;
use raftmq_proto::body::TopicConfig;
use raftmq_proto::command::Op;
use raftmq_proto::message::properties;
use raftmq_proto::message::record::{self, NewRecord, RecordRef};
use raftmq_store::{Boundary, QueueBounds, State, Unit};

use crate::Random;

pub(crate) const TOPICS: [&str; 4] = ["A", "B", "TopicC", "%RETRY%group"];
pub(crate) const GROUPS: [&str; 2] = ["g", "h"];
pub(crate) const QUEUES: i32 = 3;
pub(crate) const KEYS: [&str; 3] = ["k0", "k1", "k2"];

/// A message as it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) topic: usize,
    pub(crate) queue_id: i32,
    /// Numbered beside its place: it is refused.
    pub(crate) is_refused: bool,
    pub(crate) key: Option<usize>,
}

/// A message in its queue.
#[derive(Clone)]
struct Message {
    unit: Unit,
    time_ms: i64,
    key: Option<usize>,
}

/// Everything a queue ever had.
#[derive(Clone, Default)]
struct Queue {
    start: u64,
    messages: Vec<Message>,
}

#[derive(Clone, Default)]
pub(crate) struct Model {
    topics: BTreeSet<String>,
    offsets: BTreeMap<(String, String, i32), i64>,
    kv: BTreeMap<String, Vec<u8>>,
    queues: BTreeMap<(String, i32), Queue>,
    pub(crate) log_start: u64,
}

impl Queue {
    fn bounds(&self, log_start: u64) -> QueueBounds {
        let is_gone = |message: &&Message| message.unit.physical_offset < log_start;
        let gone = self.messages.iter().filter(is_gone).count() as u64;
        QueueBounds {
            min: self.start + gone,
            max: self.start + self.messages.len() as u64,
        }
    }
}

impl Model {
    pub(crate) fn next(&self, topic: usize, queue_id: i32) -> u64 {
        let queue = self.queues.get(&(TOPICS[topic].to_owned(), queue_id));
        queue.map_or(0, |queue| queue.start + queue.messages.len() as u64)
    }

    /// Applies an operation; false when it has to be refused.
    pub(crate) fn apply(&mut self, op: &Op, entry_position: u64) -> bool {
        match op {
            Op::PutTopic(put) => {
                let config = TopicConfig::from_json(&put.config_json).expect("made here");
                if self.topics.insert(config.topic_name.clone()) {
                    self.forget(&config.topic_name);
                }
            }
            Op::DeleteTopic(delete) => {
                self.topics.remove(&delete.topic);
                self.forget(&delete.topic);
            }
            Op::SaveOffsets(save) => {
                for row in &save.rows {
                    let has_queue = self.queues.keys().any(|(topic, _)| *topic == row.topic);
                    if has_queue || self.topics.contains(&row.topic) {
                        let key = (row.group.clone(), row.topic.clone(), row.queue_id);
                        let saved = self.offsets.entry(key).or_insert(row.offset);
                        *saved = if row.reset {
                            row.offset
                        } else {
                            row.offset.max(*saved)
                        };
                    }
                }
            }
            Op::PutKv(put) => drop(self.kv.insert(put.key.clone(), put.value.clone())),
            Op::DeleteKv(delete) => drop(self.kv.remove(&delete.key)),
            Op::TrimLog(trim) if trim.position > entry_position => return false,
            Op::TrimLog(trim) => self.log_start = self.log_start.max(trim.position),
            Op::StartQueue(start) => {
                let queue = self.queues.entry((start.topic.clone(), start.queue_id));
                let queue = queue.or_default();
                if !queue.messages.is_empty() {
                    return false;
                }
                queue.start = start.offset;
            }
            Op::PutGroup(_) | Op::DeleteGroup(_) => unreachable!("not made here"),
        }
        true
    }

    fn forget(&mut self, topic: &str) {
        self.queues.retain(|(name, _), _| name != topic);
        self.offsets.retain(|(_, name, _), _| name != topic);
    }

    /// Adds a message that is at a position now.
    pub(crate) fn push(&mut self, sent: &Sent, unit: Unit, time_ms: i64) {
        let queue = (TOPICS[sent.topic].to_owned(), sent.queue_id);
        let key = sent.key;
        let message = Message { unit, time_ms, key };
        self.queues.entry(queue).or_default().messages.push(message);
    }

    /// Compares everything that can be read.
    pub(crate) fn compare(&self, state: &State, random: &mut Random) {
        let topics: Vec<_> = state
            .topics()
            .iter()
            .map(|t| t.topic_name.clone())
            .collect();
        assert_eq!(topics, self.topics.iter().cloned().collect::<Vec<_>>());
        assert_eq!(state.log_start(), self.log_start);
        for group in GROUPS {
            let saved = state.offsets_of_group(group).into_iter();
            let saved: Vec<_> = saved
                .map(|(t, q, o)| ((group.to_owned(), t.to_string(), q), o))
                .collect();
            let expected = self.offsets.clone().into_iter();
            assert_eq!(
                saved,
                expected.filter(|row| row.0.0 == group).collect::<Vec<_>>()
            );
        }
        let kv: Vec<_> = state.kv_of("ns").into_iter().collect();
        let expected = self
            .kv
            .iter()
            .map(|(k, v)| (k.as_str().into(), v.as_slice().into()));
        assert_eq!(kv, expected.collect::<Vec<_>>());
        for topic in TOPICS {
            for queue_id in 0..QUEUES {
                let queue = self.queues.get(&(topic.to_owned(), queue_id));
                self.compare_queue(state, topic, queue_id, queue, random);
            }
        }
    }

    fn compare_queue(
        &self,
        state: &State,
        topic: &str,
        queue_id: i32,
        queue: Option<&Queue>,
        random: &mut Random,
    ) {
        let none = Queue::default();
        let queue = queue.unwrap_or(&none);
        let QueueBounds { min, max } = queue.bounds(self.log_start);
        assert_eq!(state.next_offset(topic, queue_id), max);
        assert_eq!(
            state.queue_bounds(topic, queue_id),
            QueueBounds { min, max }
        );
        let there = &queue.messages[(min - queue.start) as usize..];
        let ok = "no part of the database is damaged";
        let units = state.units(topic, queue_id, min, usize::MAX).expect(ok);
        assert_eq!(
            units,
            there.iter().map(|message| message.unit).collect::<Vec<_>>()
        );
        for from in [min.wrapping_sub(1), max] {
            assert!(state.units(topic, queue_id, from, 9).expect(ok).is_empty());
        }
        if there.is_empty() {
            return;
        }
        let at = random.below(there.len() as u64);
        let part = state.units(topic, queue_id, min + at, 7).expect(ok);
        let until = units.len().min(at as usize + 7);
        assert_eq!(part, units[at as usize..until]);
        let message = &there[at as usize];
        let bytes = state.record(&message.unit).expect("it is there");
        let record = RecordRef::parse(&bytes).expect("it is a record");
        assert_eq!((record.topic(), record.queue_id()), (topic, queue_id));
        assert_eq!(record.queue_offset(), min + at);
        let time = message.time_ms;
        let found = state.offset_by_time(topic, queue_id, time, Boundary::Lower);
        let first = there.partition_point(|message| message.time_ms < time) as u64;
        assert_eq!(found.expect(ok), min + first);
        let found = state.offset_by_time(topic, queue_id, time, Boundary::Upper);
        let after = there.partition_point(|message| message.time_ms <= time) as u64;
        assert_eq!(found.expect(ok), min + after - 1);
        if let Some(gone) = queue.messages[..(min - queue.start) as usize].last() {
            assert!(state.record(&gone.unit).is_err(), "it was given up");
        }
    }

    /// Compares a query for a random key.
    pub(crate) fn query(&self, state: &State, random: &mut Random, now_ms: i64) {
        let topic = TOPICS[random.below(TOPICS.len() as u64) as usize];
        let key = random.below(KEYS.len() as u64) as usize;
        let begin = random.below(now_ms as u64 + 1) as i64;
        let end = begin + random.below(now_ms as u64 + 1) as i64;
        let max = [1, 10, 1000][random.below(3) as usize];
        let queues = self.queues.iter().filter(|((name, _), _)| name == topic);
        let messages = queues.flat_map(|(_, queue)| &queue.messages);
        let wanted = messages.filter(|message| {
            message.key == Some(key)
                && (begin..=end).contains(&message.time_ms)
                && message.unit.physical_offset >= self.log_start
        });
        let mut expected: Vec<u64> = wanted.map(|m| m.unit.physical_offset).collect();
        expected.sort_unstable_by(|a, b| b.cmp(a));
        expected.truncate(max);
        let found = state.query(topic, KEYS[key], max, begin, end);
        assert_eq!(found.expect("nothing is damaged").offsets, expected);
    }
}

/// Appends a message's record to an entry's body.
pub(crate) fn put(out: &mut BytesMut, sent: &Sent, offset: u64, time_ms: i64) -> u32 {
    let host = "127.0.0.1:10911".parse().expect("an address");
    let key = sent.key.map_or("", |key| KEYS[key]);
    let new = NewRecord {
        queue_id: sent.queue_id,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 1,
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: b"",
        topic: TOPICS[sent.topic],
        properties: &properties::encode([(properties::KEYS, key)]),
    };
    let at = out.len();
    new.encode(out).expect("it is small");
    let record = &mut out[at..];
    record::stamp_queue_offset(record, offset);
    record::stamp_store_timestamp(record, time_ms);
    (out.len() - at) as u32
}
