//! Looking up messages by key.

use raftmq_proto::message::record::RecordRef;

use crate::error::{Error, Result};

use super::super::{Inner, State};
use super::block::{BlockMeta, is_capped};
use super::{Key, family, hash, keys_of};

/// Most records that a query looks at: it ends when so many have the hash, but not the key, or are
/// in no queue any more.
const CHECKS_MAX: usize = 10_000;

/// What a query found (RocketMQ: `QueryOffsetResult`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueryResult {
    /// Physical offsets of the messages, newest first.
    pub offsets: Vec<u64>,
    /// Store time in ms of the last message in the index; 0 without one
    /// (RocketMQ: `indexLastUpdateTimestamp`).
    pub last_update_ms: i64,
    /// Its physical offset (RocketMQ: `indexLastUpdatePhyoffset`).
    pub last_update_offset: u64,
}

impl State {
    /// The newest messages of a topic, at most `max`, that have a key and were stored within a
    /// range of time, in ms, both ends included. The key is a message's unique key or a word of
    /// its KEYS. Sees everything that was applied before, unless the index is far behind (after a
    /// start). Messages that are in no queue (any more) are not found.
    ///
    /// RocketMQ (`DefaultMessageStore.queryMessage`) answers the same messages oldest first.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::StateDamaged`], and those of [`State::record_at`].
    pub fn query(
        &self,
        topic: &str,
        key: &str,
        max: usize,
        begin_ms: i64,
        end_ms: i64,
    ) -> Result<QueryResult> {
        let inner = &*self.inner;
        if !inner.options.key_index {
            return Ok(QueryResult::default());
        }
        inner.wait_for_index()?;
        let hash = hash(topic, key);
        let is_wanted = |time_ms: i64| (begin_ms..=end_ms).contains(&time_ms);
        let (pending, blocks, last) = {
            let progress = inner.keys.state.lock();
            let pending = progress.pending.iter().rev();
            let pending = pending.filter(|key| key.hash == hash && is_wanted(key.time_ms));
            let blocks = progress.blocks.iter().rev();
            let blocks =
                blocks.filter(|b| b.keys > 0 && b.begin_ms <= end_ms && begin_ms <= b.end_ms);
            (
                pending.copied().take(CHECKS_MAX).collect::<Vec<Key>>(),
                blocks.copied().collect::<Vec<BlockMeta>>(),
                progress.last,
            )
        };
        let mut search = Search {
            state: self,
            topic,
            key,
            max,
            begin_ms,
            end_ms,
            checks: 0,
            offsets: Vec::new(),
        };
        let mut goes_on = search.take(pending)?;
        for block in blocks {
            if !goes_on {
                break;
            }
            let Some(part) = inner.key_part(&block, hash)? else {
                continue;
            };
            let keys = block.find(&part, hash);
            goes_on = search
                .take(keys.filter(|k| is_wanted(k.time_ms) || is_capped(&block, k.time_ms)))?;
        }
        Ok(QueryResult {
            offsets: search.offsets,
            last_update_ms: last.0,
            last_update_offset: last.1,
        })
    }
}

impl Inner {
    fn key_part(&self, block: &BlockMeta, hash: u64) -> Result<Option<Vec<u8>>> {
        let family = family(&self.db, &self.path)?;
        let part = self.db.get_cf(family, block.part_of(hash));
        part.map_err(|error| self.database(error))
    }
}

struct Search<'a> {
    state: &'a State,
    topic: &'a str,
    key: &'a str,
    max: usize,
    begin_ms: i64,
    end_ms: i64,
    checks: usize,
    offsets: Vec<u64>,
}

impl Search<'_> {
    /// Takes the records among some, newest first, that are meant; false when it is enough.
    fn take(&mut self, keys: impl IntoIterator<Item = Key>) -> Result<bool> {
        for key in keys {
            if self.offsets.len() >= self.max || self.checks >= CHECKS_MAX {
                return Ok(false);
            }
            // A record may have the key twice.
            if self.offsets.last() == Some(&key.position) {
                continue;
            }
            self.checks += 1;
            if self.is_meant(key.position)? {
                self.offsets.push(key.position);
            }
        }
        Ok(self.offsets.len() < self.max)
    }

    fn is_meant(&self, position: u64) -> Result<bool> {
        let bytes = match self.state.record_at(position) {
            // Below the beginning of the log.
            Err(Error::NoRecord { .. }) => return Ok(false),
            bytes => bytes?,
        };
        let Ok(record) = RecordRef::parse(&bytes) else {
            return Ok(false);
        };
        let is_right = record.topic() == self.topic
            && (self.begin_ms..=self.end_ms).contains(&record.store_timestamp())
            && keys_of(&record).any(|key| key == self.key);
        if !is_right {
            return Ok(false);
        }
        // A record that was refused is in the log, too.
        let (queue_id, offset) = (record.queue_id(), record.queue_offset());
        let units = self.state.units(self.topic, queue_id, offset, 1)?;
        Ok(units
            .first()
            .is_some_and(|unit| unit.physical_offset == position))
    }
}
