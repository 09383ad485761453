//! What readers ask of the state. None of it waits for applying longer than a piece of it takes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use raftmq_proto::body::{DataVersion, SubscriptionGroupConfig, TopicConfig};
use raftmq_proto::message::record;

use crate::entry::{LogId, u32_at, u64_at};
use crate::error::{Error, Result};

use super::queue::{BLOCK_UNITS, QueueBounds, Unit};
use super::{Boundary, State, block, rows};

impl State {
    /// The last applied entry.
    pub fn applied(&self) -> Option<LogId> {
        self.tables().applied
    }

    /// The last entry of each term before that of [`applied`](Self::applied), ascending, as far as
    /// the log still has any of it. To be found in the log they would cost a read of whole segments.
    pub fn term_ends(&self) -> Vec<LogId> {
        let tables = self.tables();
        tables.term_ends.iter().map(|term| term.last).collect()
    }

    /// Position after the last applied entry: the end of what may be read.
    pub fn applied_position(&self) -> u64 {
        self.inner.applied_end.load(Ordering::Acquire)
    }

    /// The last membership entry: where it stands, and its body.
    pub fn membership(&self) -> Option<(LogId, Vec<u8>)> {
        self.tables().membership.clone()
    }

    /// A topic's settings.
    pub fn topic(&self, topic: &str) -> Option<Arc<TopicConfig>> {
        self.tables().topics.get(topic).cloned()
    }

    /// All topics, by name.
    pub fn topics(&self) -> Vec<Arc<TopicConfig>> {
        let mut topics: Vec<_> = self.tables().topics.values().cloned().collect();
        topics.sort_unstable_by(|a, b| a.topic_name.cmp(&b.topic_name));
        topics
    }

    /// State of the topics: changes with every one of them.
    pub fn topic_version(&self) -> DataVersion {
        self.tables().topic_version
    }

    /// A subscription group's settings.
    pub fn group(&self, group: &str) -> Option<Arc<SubscriptionGroupConfig>> {
        self.tables().groups.get(group).cloned()
    }

    /// All subscription groups, by name.
    pub fn groups(&self) -> Vec<Arc<SubscriptionGroupConfig>> {
        let mut groups: Vec<_> = self.tables().groups.values().cloned().collect();
        groups.sort_unstable_by(|a, b| a.group_name.cmp(&b.group_name));
        groups
    }

    /// State of the subscription groups.
    pub fn group_version(&self) -> DataVersion {
        self.tables().group_version
    }

    /// A group's saved offset in a queue.
    pub fn consumer_offset(&self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        self.tables()
            .offsets
            .get(group)?
            .get(topic)?
            .get(&queue_id)
            .copied()
    }

    /// All saved offsets of a group: topic, queue id, offset; by topic and queue.
    pub fn offsets_of_group(&self, group: &str) -> Vec<(Arc<str>, i32, i64)> {
        let tables = self.tables();
        let topics = tables.offsets.get(group).into_iter().flatten();
        let mut all: Vec<_> = topics
            .flat_map(|(topic, rows)| {
                rows.iter()
                    .map(|(id, offset)| (topic.clone(), *id, *offset))
            })
            .collect();
        all.sort_unstable();
        all
    }

    /// Groups that have saved an offset for a topic, by name.
    pub fn groups_of_topic(&self, topic: &str) -> Vec<Arc<str>> {
        let tables = self.tables();
        let groups: BTreeSet<_> = tables
            .offsets
            .iter()
            .filter(|(_, topics)| topics.contains_key(topic))
            .map(|(group, _)| group.clone())
            .collect();
        groups.into_iter().collect()
    }

    /// The value of a key.
    pub fn kv(&self, namespace: &str, key: &str) -> Option<Arc<[u8]>> {
        self.tables().kv.get(namespace)?.get(key).cloned()
    }

    /// All keys of a namespace with their values, by key.
    pub fn kv_of(&self, namespace: &str) -> Vec<(Arc<str>, Arc<[u8]>)> {
        let tables = self.tables();
        let rows = tables.kv.get(namespace).into_iter().flatten();
        rows.map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// Ids of the queues of a topic that ever had a message, ascending.
    pub fn queue_ids(&self, topic: &str) -> Vec<i32> {
        let tables = self.tables();
        tables
            .queues
            .get(topic)
            .into_iter()
            .flat_map(|q| q.iter())
            .map(|(id, _)| id)
            .collect()
    }

    /// First offset and offset after the last of a queue; both 0 if it never had a message.
    /// The first one may be too low when the database is damaged.
    pub fn queue_bounds(&self, topic: &str, queue_id: i32) -> QueueBounds {
        match self.inner.bounds(topic, queue_id) {
            Ok(bounds) => bounds.unwrap_or_default(),
            Err(error) => {
                // Whoever reads on meets it too.
                tracing::warn!(topic, queue_id, %error, "cannot look up a queue's minimum");
                let tables = self.tables();
                let queue = tables.queue(topic, queue_id);
                queue.map(|queue| queue.bounds).unwrap_or_default()
            }
        }
    }

    /// The queue offset of the next message.
    pub fn next_offset(&self, topic: &str, queue_id: i32) -> u64 {
        let tables = self.tables();
        let queue = tables.queue(topic, queue_id);
        queue.map_or(0, |queue| queue.bounds.max)
    }

    /// At most `max` units of a queue, the first one at offset `from`. Empty when `from` is not
    /// within the queue's bounds.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::StateDamaged`].
    pub fn units(&self, topic: &str, queue_id: i32, from: u64, max: usize) -> Result<Vec<Unit>> {
        self.inner.bounds(topic, queue_id)?;
        let mut in_memory = Vec::new();
        let (id, memory_begin) = {
            let tables = self.tables();
            let Some(queue) = tables.queue(topic, queue_id) else {
                return Ok(Vec::new());
            };
            let QueueBounds { min, max: end } = queue.bounds;
            if from < min || from >= end {
                return Ok(Vec::new());
            }
            let end = end.min(from.saturating_add(max as u64));
            (queue.id, queue.units_in_memory(from, end, &mut in_memory))
        };
        if from == memory_begin {
            return Ok(in_memory);
        }
        let mut units = Vec::with_capacity((memory_begin - from) as usize + in_memory.len());
        let mut at = from;
        while at < memory_begin {
            let (nth, within) = (at / BLOCK_UNITS, at % BLOCK_UNITS);
            let count = (BLOCK_UNITS - within).min(memory_begin - at);
            let bytes = self.inner.block(id, nth)?;
            if !bytes.is_some_and(|bytes| block::copy(&bytes, within, count, &mut units)) {
                if self
                    .tables()
                    .queue(topic, queue_id)
                    .is_none_or(|queue| queue.id != id || queue.bounds.min > at)
                {
                    // The topic was deleted meanwhile, or the log trimmed.
                    return Ok(Vec::new());
                }
                let what = format!(
                    "units {at}..{} of {topic}, queue {queue_id} are missing",
                    at + count
                );
                return Err(self.inner.damaged(what));
            }
            at += count;
        }
        units.append(&mut in_memory);
        Ok(units)
    }

    /// The stored record of a unit, as a slice of the log.
    ///
    /// # Errors
    /// [`Error::NoRecord`], also for one below [`log_start`](Self::log_start).
    pub fn record(&self, unit: &Unit) -> Result<Bytes> {
        self.inner.record(unit.physical_offset, Some(unit.size))
    }

    /// The applied record at a physical offset, as a slice of the log.
    ///
    /// # Errors
    /// [`Error::NoRecord`], also for one below [`log_start`](Self::log_start).
    pub fn record_at(&self, physical_offset: u64) -> Result<Bytes> {
        self.inner.record(physical_offset, None)
    }

    /// When the message at a queue offset was stored, in ms; `None` when there is none.
    ///
    /// # Errors
    /// As [`units`](Self::units) and [`record`](Self::record).
    pub fn store_time_at(&self, topic: &str, queue_id: i32, offset: u64) -> Result<Option<i64>> {
        let units = self.units(topic, queue_id, offset, 1)?;
        let Some(unit) = units.first() else {
            return Ok(None);
        };
        let record = match self.record(unit) {
            // The log was trimmed meanwhile.
            Err(_) if unit.physical_offset < self.log_start() => return Ok(None),
            record => record?,
        };
        let time = u32_at(&record, record::SYS_FLAG_AT)
            .and_then(|flags| u64_at(&record, record::store_timestamp_at(flags.cast_signed())));
        Ok(time.map(u64::cast_signed))
    }

    /// The queue offset belonging to a time in ms (RocketMQ: `getOffsetInQueueByTime`).
    ///
    /// [`Boundary::Lower`]: the first message stored at or after that time, or the offset after
    /// the last. [`Boundary::Upper`]: the last message stored at or before it, 0 if there is none.
    ///
    /// # Errors
    /// As [`store_time_at`](Self::store_time_at).
    pub fn offset_by_time(
        &self,
        topic: &str,
        queue_id: i32,
        time_ms: i64,
        boundary: Boundary,
    ) -> Result<u64> {
        let QueueBounds { min, max } = self.queue_bounds(topic, queue_id);
        let (mut low, mut high) = (min, max);
        while low < high {
            let middle = low + (high - low) / 2;
            let before = match (self.store_time_at(topic, queue_id, middle)?, boundary) {
                (Some(stored), Boundary::Lower) => stored < time_ms,
                (Some(stored), Boundary::Upper) => stored <= time_ms,
                // The log was trimmed meanwhile.
                (None, _) if middle < self.queue_bounds(topic, queue_id).min => true,
                // The topic was deleted meanwhile.
                (None, _) => return Ok(0),
            };
            if before {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(match boundary {
            Boundary::Lower => low,
            Boundary::Upper if low == min => 0,
            Boundary::Upper => low - 1,
        })
    }
}

impl super::Inner {
    fn record(&self, physical_offset: u64, size: Option<u32>) -> Result<Bytes> {
        if physical_offset < self.log_start.load(Ordering::Acquire) {
            // Its file may be gone, or be just going.
            return Err(Error::NoRecord {
                offset: physical_offset,
                what: "it is below the beginning of the log",
            });
        }
        let limit = self.applied_end.load(Ordering::Acquire);
        self.log.record_at(physical_offset, size, limit)
    }

    /// A block of units from the database.
    pub(super) fn block(&self, queue: u32, block: u64) -> Result<Option<Vec<u8>>> {
        self.db
            .get(rows::block(queue, block))
            .map_err(|e| self.database(e))
    }
}
