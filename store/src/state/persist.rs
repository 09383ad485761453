//! Bringing the state to the database: one consistent cut, one atomic batch, one flush.
//!
//! The batch has the applied id in it, and the database has no log of its own: after a crash it
//! holds exactly some earlier cut, from where the commit log is applied again.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rocksdb::{FlushOptions, WriteBatch, WriteOptions};

use crate::disk::{Disk, RealDisk};
use crate::entry::LogId;
use crate::error::{Error, Result};

use super::block;
use super::queue::{BLOCK_UNITS, QueueCut};
use super::rows::{self, Meta};
use super::tables::Tables;
use super::{Inner, State};

/// Room the file system must have: more than a batch and the compaction it may cause.
const ROOM_TO_PERSIST: u64 = 32 * 1024 * 1024;

/// What has changed since the last cut, and the applied id that goes with it.
struct Cut {
    meta: Meta,
    /// Rows to put, or to delete where there is no value.
    rows: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    queues: Vec<(Arc<str>, i32, QueueCut)>,
    /// Units among them.
    units: u64,
    dropped: Vec<(Arc<str>, i32, u32)>,
    trimmed: Vec<(u32, Range<u64>)>,
}

/// How far the database is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Persisted {
    pub(super) applied: Option<LogId>,
    pub(super) applied_end: u64,
    pub(super) log_start: u64,
}

/// What the one that persists remembers.
#[derive(Default)]
pub(super) struct Persister {
    /// Of the cut before: its units leave memory with the next one.
    written_before: Written,
}

/// Queues with their number and their maximum in the database.
type Written = Vec<(Arc<str>, i32, u32, u64)>;

/// Queues whose minima are looked up between two cuts in the background.
const SWEEP_QUEUES: usize = 5000;

/// Queues that are tidied up with the tables locked once.
const FORGET_QUEUES: usize = 500;

/// The thread that persists rests so many times as long as it worked, up to a limit: 100,000
/// queues that all change take some 0.2 s.
const IDLE_PER_WORK: u32 = 8;
const PAUSE_MAX: Duration = Duration::from_secs(20);

/// So many blocks are deleted one by one; more of them as a range, which costs readers more.
const DELETE_SINGLY_MAX: u64 = 8;

impl Tables {
    fn cut(&mut self) -> Cut {
        let dirty = std::mem::take(&mut self.dirty);
        let mut out = Vec::new();
        // Settings are few and change rarely; their encoding under the lock does not matter.
        for name in dirty.topics {
            out.push((
                rows::topic(&name),
                self.topics.get(&name).map(|config| config.to_json()),
            ));
        }
        for name in dirty.groups {
            out.push((
                rows::group(&name),
                self.groups.get(&name).map(|config| config.to_json()),
            ));
        }
        for (group, topic) in dirty.offsets {
            let saved = self
                .offsets
                .get(&group)
                .and_then(|topics| topics.get(&topic));
            out.push((
                rows::offsets(&group, &topic),
                saved.map(|rows| rows::encode_offsets(rows.iter())),
            ));
        }
        for (namespace, key) in dirty.kv {
            let value = self.kv.get(&namespace).and_then(|rows| rows.get(&key));
            out.push((
                rows::kv(&namespace, &key),
                value.map(|value| value.to_vec()),
            ));
        }
        let mut units = 0;
        let mut queues = Vec::with_capacity(dirty.queues.len());
        for (topic, queue_id) in dirty.queues {
            // A queue may have been deleted, or be another one of the same name that is listed too.
            if let Some(queue) = self.queue_mut(&topic, queue_id)
                && queue.dirty
            {
                units += queue.uncut();
                let cut = queue.cut();
                queues.push((topic, queue_id, cut));
            }
        }
        let meta = Meta {
            applied: self.applied,
            applied_end: self.applied_end,
            log_start: self.log_start,
            swept: self.swept,
            membership: self.membership.clone(),
            topic_version: self.topic_version,
            group_version: self.group_version,
            next_queue: self.next_queue,
            term_ends: self.term_ends.clone(),
        };
        Cut {
            meta,
            rows: out,
            queues,
            units,
            dropped: dirty.dropped,
            trimmed: dirty.trimmed,
        }
    }
}

impl State {
    /// Brings everything applied so far to the database, durably. Returns at once when nothing
    /// has changed. Also done in the background, and needed for nothing but a quick restart.
    ///
    /// # Errors
    /// [`Error::Io`] when the file system has too little room; nothing is lost by it.
    /// [`Error::Database`] poisons the store.
    pub fn persist(&self) -> Result<()> {
        self.inner.persist(&mut self.inner.persister.lock())
    }

    /// The last applied entry that the database has: a crash takes nothing back up to here.
    pub fn persisted(&self) -> Option<LogId> {
        self.inner.persisted.read().applied
    }
}

impl Inner {
    pub(super) fn persist(&self, persister: &mut Persister) -> Result<()> {
        self.log.poison().check()?;
        self.check_room()?;
        let cut = {
            let mut tables = self.tables.write();
            tables.dirty.any.then(|| {
                self.unpersisted.store(0, Ordering::Relaxed);
                tables.cut()
            })
        };
        let Some(cut) = cut else {
            self.forget(std::mem::take(&mut persister.written_before));
            return Ok(());
        };
        // The state must never be ahead of what the log has after a power cut.
        let written = self.log.flush().and_then(|()| self.write(&cut));
        if let Err(error) = written {
            self.room.notify_all();
            return Err(self.log.poison().poison(error));
        }
        *self.persisted.write() = Persisted {
            applied: cut.meta.applied,
            applied_end: cut.meta.applied_end,
            log_start: cut.meta.log_start,
        };
        self.settle(cut, persister);
        Ok(())
    }

    /// A database that meets a full disk is a failed one, so it is not even tried.
    pub(super) fn check_room(&self) -> Result<()> {
        let ask = Error::io("ask for the room of", &self.path);
        let is_full = RealDisk.space(&self.path).map_err(ask)?.available < ROOM_TO_PERSIST;
        self.no_room.store(is_full, Ordering::Relaxed);
        if is_full {
            let full = std::io::ErrorKind::StorageFull.into();
            return Err(Error::io("persist the state in", &self.path)(full));
        }
        Ok(())
    }

    fn write(&self, cut: &Cut) -> Result<()> {
        let mut batch = WriteBatch::default();
        for (topic, queue_id, number) in &cut.dropped {
            batch.delete(rows::queue(topic, *queue_id));
            batch.delete_range(
                rows::block(*number, 0),
                rows::block(number.saturating_add(1), 0),
            );
        }
        for (key, value) in &cut.rows {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        for (topic, queue_id, queue) in &cut.queues {
            for chunk in &queue.chunks {
                batch.merge(
                    rows::block(queue.id, chunk.first / BLOCK_UNITS),
                    block::encode(chunk.first, &chunk.units),
                );
            }
            batch.put(
                rows::queue(topic, *queue_id),
                rows::encode_queue(queue.id, queue.bounds, queue.unused),
            );
        }
        // After what is written: it may be among it.
        for (number, blocks) in &cut.trimmed {
            let Range { start, end } = *blocks;
            if end - start <= DELETE_SINGLY_MAX {
                for block in start..end {
                    batch.delete(rows::block(*number, block));
                }
            } else {
                batch.delete_range(rows::block(*number, start), rows::block(*number, end));
            }
        }
        batch.put(rows::META, cut.meta.encode());
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db
            .write_opt(batch, &options)
            .map_err(|e| self.database(e))?;
        let mut flush = FlushOptions::default();
        flush.set_wait(true);
        self.db.flush_opt(&flush).map_err(|e| self.database(e))
    }

    /// Forgets what the cut before wrote, after this one is written.
    fn settle(&self, cut: Cut, persister: &mut Persister) {
        let written = cut.queues.into_iter();
        let written = written.map(|(topic, id, cut)| (topic, id, cut.id, cut.bounds.max));
        let before = std::mem::replace(&mut persister.written_before, written.collect());
        self.tables.write().unpersisted_units -= cut.units;
        self.room.notify_all();
        self.forget(before);
    }

    /// Forgets units that the database has.
    fn forget(&self, written: Written) {
        // A few at a time: applying waits meanwhile.
        for some in written.chunks(FORGET_QUEUES) {
            let mut tables = self.tables.write();
            for (topic, queue_id, number, max) in some {
                if let Some(queue) = tables.queue_mut(topic, *queue_id)
                    && queue.id == *number
                {
                    queue.forget(*max);
                }
            }
        }
    }

    /// The background thread's work, until closed.
    pub(super) fn persist_in_background(&self) {
        let mut due = Instant::now() + self.options.persist_interval;
        let mut told = false;
        loop {
            {
                let mut closing = self.closing.lock();
                while !*closing
                    && Instant::now() < due
                    && self.unpersisted.load(Ordering::Relaxed) < self.options.persist_bytes
                {
                    self.wake.wait_until(&mut closing, due);
                }
                if *closing {
                    return;
                }
            }
            let began = Instant::now();
            let done = self
                .persist(&mut self.persister.lock())
                .and_then(|()| self.sweep(SWEEP_QUEUES));
            let pause = (began.elapsed() * IDLE_PER_WORK).min(PAUSE_MAX);
            due = Instant::now() + pause.max(self.options.persist_interval);
            match done {
                Ok(_) => told = false,
                // Tried again, a little later; memory stays bounded, as the log has no room either.
                Err(error) if error.is_no_space() => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%error, "no room to persist the state");
                    }
                    self.unpersisted.store(0, Ordering::Relaxed);
                }
                // It is in the poison, which ends the process.
                Err(error) => {
                    tracing::debug!(%error, "state is not persisted any more");
                    return;
                }
            }
        }
    }
}
