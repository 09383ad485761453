//! The state as a list of maps.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use raftmq_proto::body::{DataVersion, SubscriptionGroupConfig, TopicConfig};
use raftmq_proto::command::Op;
use raftmq_proto::message::record;

use super::super::{Boundary, QueueBounds, State, Unit, rows};
use crate::entry::LogId;
use crate::error::Error;

pub(super) const TOPICS: [&str; 3] = ["A", "B", "C"];
pub(super) const GROUPS: [&str; 2] = ["g", "h"];
/// No position of a log here.
const BEYOND: u64 = u64::MAX / 2;

/// The state as a list of maps.
#[derive(Default, Clone)]
pub(super) struct Model {
    pub(super) topics: BTreeMap<String, TopicConfig>,
    pub(super) groups: BTreeMap<String, SubscriptionGroupConfig>,
    pub(super) topic_version: DataVersion,
    pub(super) group_version: DataVersion,
    pub(super) offsets: BTreeMap<(String, String, i32), i64>,
    pub(super) kv: BTreeMap<String, Vec<u8>>,
    pub(super) queues: BTreeMap<(String, i32), Units>,
    pub(super) log_start: u64,
    pub(super) membership: Option<(LogId, Vec<u8>)>,
}

/// Everything a queue ever had.
#[derive(Default, Clone)]
pub(super) struct Units {
    pub(super) start: u64,
    pub(super) units: Vec<Unit>,
}

impl Units {
    fn bounds(&self, log_start: u64) -> QueueBounds {
        let gone = self
            .units
            .iter()
            .filter(|unit| unit.physical_offset < log_start);
        QueueBounds {
            min: self.start + gone.count() as u64,
            max: self.start + self.units.len() as u64,
        }
    }

    fn from(&self, offset: u64) -> &[Unit] {
        let nth = offset.checked_sub(self.start).unwrap_or(u64::MAX);
        self.units.get(nth as usize..).unwrap_or_default()
    }
}

impl Model {
    fn drop_messages(&mut self, topic: &str) {
        self.queues.retain(|(t, _), _| t != topic);
        self.offsets.retain(|(_, t, _), _| t != topic);
    }

    /// Applies an operation; false when it is refused.
    pub(super) fn op(&mut self, op: &Op, term: i64, time_ms: i64) -> bool {
        match op {
            Op::PutTopic(put) => {
                let Ok(config) = TopicConfig::from_json(&put.config_json) else {
                    return false;
                };
                if !self.topics.contains_key(&config.topic_name) {
                    self.drop_messages(&config.topic_name);
                }
                self.topics.insert(config.topic_name.clone(), config);
                self.topic_version.advance(term, time_ms);
            }
            Op::DeleteTopic(delete) => {
                self.drop_messages(&delete.topic);
                if self.topics.remove(&delete.topic).is_some() {
                    self.topic_version.advance(term, time_ms);
                }
            }
            Op::PutGroup(put) => {
                let config = SubscriptionGroupConfig::from_json(&put.config_json).unwrap();
                self.groups.insert(config.group_name.clone(), config);
                self.group_version.advance(term, time_ms);
            }
            Op::DeleteGroup(delete) => {
                if self.groups.remove(&delete.group).is_some() {
                    self.group_version.advance(term, time_ms);
                }
                if delete.clean_offset {
                    self.offsets.retain(|(g, ..), _| *g != delete.group);
                }
            }
            Op::SaveOffsets(save) => {
                for row in &save.rows {
                    let known = self.topics.contains_key(&row.topic)
                        || self.queues.keys().any(|(topic, _)| *topic == row.topic);
                    if known {
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
            Op::PutKv(put) => {
                self.kv.insert(put.key.clone(), put.value.clone());
            }
            Op::DeleteKv(delete) => {
                self.kv.remove(&delete.key);
            }
            Op::TrimLog(trim) if trim.position > BEYOND => return false,
            Op::TrimLog(trim) => self.log_start = self.log_start.max(trim.position),
            Op::StartQueue(start) => {
                let queue = self.queues.entry((start.topic.clone(), start.queue_id));
                let is_new = matches!(queue, Entry::Vacant(_));
                let queue = queue.or_default();
                // A queue is there once it has a message, or was started.
                if !is_new && !queue.units.is_empty() {
                    return false;
                }
                queue.start = start.offset;
            }
        }
        true
    }

    pub(super) fn next(&self, topic: &str, queue_id: i32) -> u64 {
        self.queues
            .get(&(topic.to_owned(), queue_id))
            .map_or(0, |queue| queue.bounds(0).max)
    }

    pub(super) fn check(&self, state: &State) {
        let topics: Vec<_> = self.topics.values().cloned().map(Arc::new).collect();
        assert_eq!(state.topics(), topics);
        let groups: Vec<_> = self.groups.values().cloned().map(Arc::new).collect();
        assert_eq!(state.groups(), groups);
        assert_eq!(state.topic_version(), self.topic_version);
        assert_eq!(state.group_version(), self.group_version);
        assert_eq!(state.membership(), self.membership);
        for group in GROUPS {
            let expected: Vec<(Arc<str>, i32, i64)> = self
                .offsets
                .iter()
                .filter(|((g, ..), _)| g == group)
                .map(|((_, topic, queue_id), offset)| (Arc::from(&**topic), *queue_id, *offset))
                .collect();
            assert_eq!(state.offsets_of_group(group), expected);
        }
        for topic in TOPICS {
            let of_topic: Vec<Arc<str>> = GROUPS
                .into_iter()
                .filter(|group| {
                    self.offsets
                        .keys()
                        .any(|(g, t, _)| g == group && t == topic)
                })
                .map(Arc::from)
                .collect();
            assert_eq!(state.groups_of_topic(topic), of_topic);
        }
        for key in 0..4 {
            let key = key.to_string();
            assert_eq!(
                state.kv("ns", &key).as_deref(),
                self.kv.get(&key).map(Vec::as_slice)
            );
        }
        for topic in TOPICS {
            for queue_id in 0..3 {
                let queue = self.queues.get(&(topic.to_owned(), queue_id));
                let queue = queue.cloned().unwrap_or_default();
                let bounds = queue.bounds(self.log_start);
                assert_eq!(state.queue_bounds(topic, queue_id), bounds);
                let QueueBounds { min, max } = bounds;
                let all = state.units(topic, queue_id, min, usize::MAX).unwrap();
                assert_eq!(all, queue.from(min));
                for from in [min + 1, min + 250, max.saturating_sub(3)] {
                    let part = queue.from(from.max(min));
                    let part = part.get(..10).unwrap_or(part);
                    let found = state.units(topic, queue_id, from.max(min), 10).unwrap();
                    assert_eq!(found, part);
                }
                for from in [min.wrapping_sub(1), max] {
                    assert!(state.units(topic, queue_id, from, 10).unwrap().is_empty());
                }
                for (nth, unit) in all.iter().enumerate().rev().step_by(50) {
                    let offset = min + nth as u64;
                    let bytes = state.record(unit).unwrap();
                    let record = record::RecordRef::parse(&bytes).unwrap();
                    assert_eq!((record.topic(), record.queue_id()), (topic, queue_id));
                    assert_eq!(record.queue_offset(), offset);
                    assert_eq!(record.physical_offset(), unit.physical_offset);
                    let time = record.store_timestamp();
                    let found = state.offset_by_time(topic, queue_id, time, Boundary::Lower);
                    let of = |offset| state.store_time_at(topic, queue_id, offset).unwrap();
                    let found = found.unwrap();
                    assert!((min..=offset).contains(&found) && of(found) == Some(time));
                }
                for unit in queue.units.iter().take((min - queue.start) as usize) {
                    let gone = state.record(unit);
                    assert!(matches!(gone, Err(Error::NoRecord { .. })));
                }
            }
        }
        assert_eq!(state.log_start(), self.log_start);
    }

    /// The database has no blocks but those of what is there.
    pub(super) fn check_blocks(&self, state: &State) {
        while !state.sweep(usize::MAX).unwrap() {}
        state.persist().unwrap();
        let tables = state.tables();
        let mut found: Vec<Vec<u8>> = Vec::new();
        let from_blocks = rocksdb::IteratorMode::From(b"q", rocksdb::Direction::Forward);
        for row in state.inner.db.iterator(from_blocks) {
            let (key, _) = row.unwrap();
            if rows::decode(&key) != Some(rows::Key::Block) {
                break;
            }
            found.push(key.into_vec());
        }
        for (_, queue) in tables.queues.values().flat_map(|queues| queues.iter()) {
            let QueueBounds { min, max } = queue.bounds;
            for block in min / 256..max.div_ceil(256) {
                let key = rows::block(queue.id, block);
                let nth = found.iter().position(|found| **found == key);
                // The tail of a queue without messages may be there or not.
                assert!(nth.is_some() || min == max, "block {block} of {min}..{max}");
                nth.map(|nth| found.remove(nth));
            }
        }
        assert!(found.is_empty(), "left over: {found:?}");
    }
}
