//! Bringing the state to the database: one consistent cut, one atomic batch, one flush.
//!
//! The batch has the applied id in it, and the database has no log of its own: after a crash it
//! holds exactly some earlier cut, from where the commit log is applied again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rocksdb::{FlushOptions, WriteBatch, WriteOptions};

use crate::disk::{Disk, RealDisk};
use crate::error::{Error, Result};

use super::queue::QueueCut;
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
    dropped: Vec<(Arc<str>, i32, u32)>,
}

/// What the one that persists remembers.
#[derive(Default)]
pub(super) struct Persister {
    /// Queues that changed before the cut before: if they have not changed since, their tails go.
    changed_before: Vec<(Arc<str>, i32)>,
}

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
        let mut queues = Vec::with_capacity(dirty.queues.len());
        for (topic, queue_id) in dirty.queues {
            // A queue may have been deleted, or be another one of the same name that is listed too.
            if let Some(queue) = self.queue_mut(&topic, queue_id)
                && queue.dirty
            {
                let cut = queue.cut();
                queues.push((topic, queue_id, cut));
            }
        }
        let meta = Meta {
            applied: self.applied,
            applied_end: self.applied_end,
            membership: self.membership.clone(),
            topic_version: self.topic_version,
            group_version: self.group_version,
            next_queue: self.next_queue,
        };
        Cut {
            meta,
            rows: out,
            queues,
            dropped: dirty.dropped,
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
        self.inner.persist()
    }
}

impl Inner {
    pub(super) fn persist(&self) -> Result<()> {
        let mut persister = self.persister.lock();
        self.log.poison().check()?;
        self.check_room()?;
        let cut = {
            let mut tables = self.tables.write();
            if !tables.dirty.any {
                return Ok(());
            }
            self.unpersisted.store(0, Ordering::Relaxed);
            tables.cut()
        };
        // The state must never be ahead of what the log has after a power cut.
        let written = self.log.flush().and_then(|()| self.write(&cut));
        if let Err(error) = written {
            self.room.notify_all();
            return Err(self.log.poison().poison(error));
        }
        self.persisted(&cut, &mut persister);
        Ok(())
    }

    /// A database that meets a full disk is a failed one, so it is not even tried.
    fn check_room(&self) -> Result<()> {
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
            for (block, units) in &queue.blocks {
                batch.put(rows::block(queue.id, *block), units.as_slice());
            }
            batch.put(
                rows::queue(topic, *queue_id),
                rows::encode_queue(queue.id, queue.bounds),
            );
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

    fn persisted(&self, cut: &Cut, persister: &mut Persister) {
        let mut tables = self.tables.write();
        for (topic, queue_id, written) in &cut.queues {
            if let Some(queue) = tables.queue_mut(topic, *queue_id)
                && queue.id == written.id
            {
                let freed = queue.persisted(written.bounds.max);
                tables.sealed_bytes -= freed;
            }
        }
        let changed = cut
            .queues
            .iter()
            .map(|(topic, id, _)| (topic.clone(), *id))
            .collect();
        for (topic, queue_id) in std::mem::replace(&mut persister.changed_before, changed) {
            if let Some(queue) = tables.queue_mut(&topic, queue_id) {
                queue.evict_tail();
            }
        }
        drop(tables);
        self.room.notify_all();
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
            due = Instant::now() + self.options.persist_interval;
            match self.persist() {
                Ok(()) => told = false,
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
