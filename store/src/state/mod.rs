//! The state that follows from the log: consume queues, topics, subscription groups, consumer
//! offsets, key-value pairs, and the group's members.
//!
//! One task applies, any thread reads. All of it is in memory, except for consume-queue blocks
//! that are in the database (RocksDB) already. The database is brought up to date now and then,
//! as a whole; what it lacks after a crash is applied again from the log. Deleting its folder only
//! makes the next start apply the whole log.
//!
//! RocketMQ: `ConsumeQueueStore`, `TopicConfigManager`, `SubscriptionGroupManager`,
//! `ConsumerOffsetManager`, `KVConfigManager`.

mod apply;
mod block;
mod checkpoint;
mod digest;
mod keys;
pub(crate) mod open;
mod persist;
mod queue;
mod read;
pub(crate) mod rows;
mod scrub;
mod tables;
#[cfg(test)]
mod tests;
mod trim;
mod unused;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock, RwLockReadGuard};
use rocksdb::DB;

use crate::entry::StoredEntry;
use crate::error::{Error, Result};
use crate::log::CommitLog;

use apply::Call;
use keys::KeyIndex;
use persist::{Persisted, Persister};
use tables::Tables;
use trim::Sweep;

pub use apply::{Applied, ApplyObserver, Arrival};
pub use checkpoint::StateCheckpoint;
pub use digest::StateDigest;
pub use keys::QueryResult;
pub use queue::{QueueBounds, Unit};

/// Units that may wait to be persisted before applying waits too: seconds of full load, and some
/// 130 MB.
const UNPERSISTED_UNITS_MAX: u64 = 6_000_000;

/// Which message [`State::offset_by_time`] picks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Boundary {
    /// The first one not before the time.
    #[default]
    Lower,
    /// The last one not after the time.
    Upper,
}

/// When the state is brought to the database.
#[derive(Debug, Clone)]
pub struct StateOptions {
    /// Longest time that something applied is not persisted.
    pub persist_interval: Duration,
    /// Most bytes of entries that are applied but not persisted.
    pub persist_bytes: u64,
    /// Whether a thread does it; otherwise only [`State::persist`] and [`State::close`] do.
    pub background: bool,
    /// Whether messages can be found by their keys (RocketMQ: `messageIndexEnable`).
    pub key_index: bool,
}

impl Default for StateOptions {
    fn default() -> Self {
        StateOptions {
            persist_interval: Duration::from_secs(2),
            persist_bytes: 64 * 1024 * 1024,
            background: true,
            key_index: true,
        }
    }
}

type DamageListener = Box<dyn FnOnce(&str) + Send>;

/// The applied state of a member. See the module's description.
///
/// Dropping it without [`close`](Self::close) is like a crash: what was not persisted is applied
/// again after the next start.
pub struct State {
    inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Inner {
    path: PathBuf,
    /// Closed before the log is let go of, whose last handle unlocks the store.
    db: DB,
    log: CommitLog,
    options: StateOptions,
    tables: RwLock<Tables>,
    /// Copies of the tables' fields, for readers of records.
    applied_end: AtomicU64,
    log_start: AtomicU64,
    persisted: RwLock<Persisted>,
    /// Counts calls of apply; held by the one that applies.
    applier: Mutex<u64>,
    observer: RwLock<Option<Arc<dyn ApplyObserver>>>,
    persister: Mutex<Persister>,
    sweep: Mutex<Sweep>,
    keys: KeyIndex,
    /// What is wrong with the database, once something is.
    damage: OnceLock<String>,
    /// To be told of it.
    damage_listeners: Mutex<Vec<DamageListener>>,
    /// The file system had too little room for the last cut.
    no_room: AtomicBool,
    /// Bytes of entries applied since the last cut.
    unpersisted: AtomicU64,
    closing: Mutex<bool>,
    /// Wakes the background thread.
    wake: Condvar,
    /// Wakes whoever waits for blocks to be persisted.
    room: Condvar,
    room_lock: Mutex<()>,
}

impl State {
    /// Opens the database in `dir` (created if missing) as the state of `log`.
    ///
    /// Entries after [`State::applied`] have to be applied again.
    ///
    /// # Errors
    /// [`Error::Inconsistent`] when the database has applied entries that the log does not have;
    /// [`Error::NeedsSeed`] when the log begins behind what the database has;
    /// [`Error::StateDamaged`] for what cannot be read, also when it was found earlier;
    /// [`Error::Database`], [`Error::Io`].
    pub fn open(dir: impl AsRef<Path>, log: CommitLog, options: StateOptions) -> Result<State> {
        let path = dir.as_ref().to_path_buf();
        let (db, tables, keys) = open::open(&path, &log)?;
        if let Some(applied) = tables.applied {
            log.set_committed(applied.index);
        }
        let inner = Arc::new(Inner {
            path,
            db,
            log,
            options,
            applied_end: AtomicU64::new(tables.applied_end),
            log_start: AtomicU64::new(tables.log_start),
            persisted: RwLock::new(Persisted {
                applied: tables.applied,
                applied_end: tables.applied_end,
                log_start: tables.log_start,
            }),
            tables: RwLock::new(tables),
            applier: Mutex::new(0),
            observer: RwLock::new(None),
            persister: Mutex::new(Persister::default()),
            sweep: Mutex::new(Sweep::default()),
            keys,
            damage: OnceLock::new(),
            damage_listeners: Mutex::default(),
            no_room: AtomicBool::new(false),
            unpersisted: AtomicU64::new(0),
            closing: Mutex::new(false),
            wake: Condvar::new(),
            room: Condvar::new(),
            room_lock: Mutex::new(()),
        });
        let state = State {
            inner,
            threads: Mutex::new(Vec::new()),
        };
        if state.inner.options.background {
            state.spawn("persist", Inner::persist_in_background)?;
            if state.inner.options.key_index {
                state.spawn("keys", Inner::index_in_background)?;
            }
        }
        Ok(state)
    }

    fn spawn(&self, name: &str, work: fn(&Inner)) -> Result<()> {
        let (inner, span) = (self.inner.clone(), tracing::Span::current());
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || span.in_scope(|| work(&inner)));
        let path = &self.inner.path;
        let thread = thread.map_err(Error::io("start a thread for", path))?;
        self.threads.lock().push(thread);
        Ok(())
    }

    fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.inner.tables.read()
    }

    /// Sets who is told of arrivals and changes, instead of the one before.
    pub fn set_observer(&self, observer: Arc<dyn ApplyObserver>) {
        *self.inner.observer.write() = Some(observer);
    }

    /// Applies committed entries, which must follow the applied ones without a gap. What they
    /// bring is visible on return, and the observer has been told. One [`Applied`] for each.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a command this version cannot read or for entries out of order:
    /// nothing is applied, and the member must stop. [`Error::Database`], [`Error::Poisoned`].
    pub fn apply(&self, entries: &[StoredEntry]) -> Result<Vec<Applied>> {
        let inner = &*self.inner;
        let mut call = inner.applier.lock();
        *call += 1;
        inner.log.poison().check()?;
        inner.wait_for_room()?;

        let mut records = Vec::with_capacity(entries.len() * 4);
        let parsed = entries
            .iter()
            .map(|entry| apply::parse(entry, &mut records));
        let parsed = parsed.collect::<Result<Vec<_>>>()?;
        let observer = inner.observer.read().clone();
        let mut applied = Vec::with_capacity(entries.len());
        let changes = {
            let mut tables = inner.tables.write();
            let next = tables
                .applied
                .map_or_else(|| inner.log.first_index(), |last| last.index + 1);
            for (index, entry) in (next..).zip(entries) {
                if entry.id.index != index {
                    let what = format!(
                        "entry {} is to be applied, expected index {index}",
                        entry.id
                    );
                    return Err(Error::Malformed { what });
                }
            }
            let mut call = Call {
                tables: &mut tables,
                call: *call,
                observed: observer.is_some(),
                changes: apply::Changes::default(),
            };
            for parsed in parsed {
                applied.push(call.entry(parsed, &records));
            }
            let changes = call.changes;
            inner.log_start.store(tables.log_start, Ordering::Release);
            inner
                .applied_end
                .store(tables.applied_end, Ordering::Release);
            changes
        };
        if let Some(last) = entries.last() {
            inner.log.set_committed(last.id.index);
        }
        let bytes = entries
            .iter()
            .map(|entry| entry.raw.len() as u64)
            .sum::<u64>();
        let before = inner.unpersisted.fetch_add(bytes, Ordering::Relaxed);
        if before < inner.options.persist_bytes && before + bytes >= inner.options.persist_bytes {
            let _closing = inner.closing.lock();
            inner.wake.notify_all();
        }
        if let Some(observer) = observer {
            if changes.topics {
                observer.topics_changed();
            }
            if changes.groups {
                observer.groups_changed();
            }
            if !changes.arrivals.is_empty() {
                observer.arrived(&changes.arrivals);
            }
        }
        Ok(applied)
    }

    /// What is wrong with the state database, once something was found by a read, a cut or a
    /// [`scrub`](Self::scrub). It is not opened again; the folder has to be removed, and the state
    /// made again from the log or another member.
    pub fn damage(&self) -> Option<&str> {
        self.inner.damage.get().map(String::as_str)
    }

    /// Calls `listener`, once, with what is wrong with the database when that is found (at once if
    /// it was), by whoever reads it. It must not block and must not keep the state alive.
    pub fn on_damage(&self, listener: impl FnOnce(&str) + Send + 'static) {
        let mut listeners = self.inner.damage_listeners.lock();
        match self.damage() {
            Some(what) => {
                drop(listeners);
                listener(what);
            }
            None => listeners.push(Box::new(listener)),
        }
    }

    /// Ends the background threads and persists everything. The state stays readable.
    ///
    /// # Errors
    /// As [`persist`](Self::persist).
    pub fn close(&self) -> Result<()> {
        self.stop_threads();
        self.persist()
    }

    fn stop_threads(&self) {
        *self.inner.closing.lock() = true;
        self.inner.wake.notify_all();
        self.inner.keys.wake();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.thread().id() != std::thread::current().id() {
                drop(thread.join());
            }
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.stop_threads();
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("path", &self.inner.path)
            .field("applied", &self.applied())
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn database(&self, source: rocksdb::Error) -> Error {
        match open::failure(&self.path, source) {
            Error::StateDamaged { what, .. } => self.damaged(what),
            error => error,
        }
    }

    /// Notes that the database is damaged, for good.
    fn damaged(&self, what: String) -> Error {
        let first = self.damage.get_or_init(|| {
            tracing::error!(path = %self.path.display(), what, "state database is damaged");
            open::note_damage(&self.path, &what);
            what
        });
        for listener in std::mem::take(&mut *self.damage_listeners.lock()) {
            listener(first);
        }
        Error::StateDamaged {
            path: self.path.clone(),
            what: first.clone(),
        }
    }

    /// Keeps memory bounded when the database takes no more.
    fn wait_for_room(&self) -> Result<()> {
        while self.tables.read().unpersisted_units > UNPERSISTED_UNITS_MAX
            && !self.no_room.load(Ordering::Relaxed)
        {
            self.log.poison().check()?;
            if !self.options.background || *self.closing.lock() {
                return self.persist(&mut self.persister.lock());
            }
            self.unpersisted
                .store(self.options.persist_bytes, Ordering::Relaxed);
            drop(self.closing.lock());
            self.wake.notify_all();
            self.room
                .wait_for(&mut self.room_lock.lock(), Duration::from_millis(20));
        }
        Ok(())
    }
}
