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
mod digest;
mod persist;
mod queue;
mod read;
pub(crate) mod rows;
mod tables;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock, RwLockReadGuard};
use raftmq_proto::body;
use rocksdb::{BlockBasedOptions, Cache, DB, IteratorMode, Options};

use crate::entry::StoredEntry;
use crate::error::{Error, Result};
use crate::log::CommitLog;

use apply::Call;
use persist::Persister;
use queue::Queue;
use rows::{Key, Meta};
use tables::{Tables, TopicQueues, entry};

pub use apply::{Applied, ApplyObserver, Arrival};
pub use digest::StateDigest;
pub use queue::{QueueBounds, Unit};

/// Bytes of full consume-queue blocks that may wait to be persisted before applying waits too:
/// some seven million messages, seconds of full load.
const SEALED_BYTES_MAX: usize = 128 * 1024 * 1024;

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
}

impl Default for StateOptions {
    fn default() -> Self {
        StateOptions {
            persist_interval: Duration::from_secs(2),
            persist_bytes: 64 * 1024 * 1024,
            background: true,
        }
    }
}

/// The applied state of a member. See the module's description.
///
/// Dropping it without [`close`](Self::close) is like a crash: what was not persisted is applied
/// again after the next start.
pub struct State {
    inner: Arc<Inner>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Inner {
    path: PathBuf,
    /// Closed before the log is let go of, whose last handle unlocks the store.
    db: DB,
    log: CommitLog,
    options: StateOptions,
    tables: RwLock<Tables>,
    /// Copy of the tables' field, for readers of records.
    applied_end: AtomicU64,
    /// Counts calls of apply; held by the one that applies.
    applier: Mutex<u64>,
    observer: RwLock<Option<Arc<dyn ApplyObserver>>>,
    persister: Mutex<Persister>,
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
    /// [`Error::Database`]; [`Error::Corrupt`] for rows that cannot be read.
    pub fn open(dir: impl AsRef<Path>, log: CommitLog, options: StateOptions) -> Result<State> {
        let path = dir.as_ref().to_path_buf();
        std::fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        let db = DB::open(&database_options(), &path).map_err(|source| Error::Database {
            path: path.clone(),
            source,
        })?;
        let tables = load(&db, &path)?;
        check_log(&tables, &log, &path)?;
        if let Some(applied) = tables.applied {
            log.set_committed(applied.index);
        }
        let inner = Arc::new(Inner {
            path: path.clone(),
            db,
            log,
            options,
            applied_end: AtomicU64::new(tables.applied_end),
            tables: RwLock::new(tables),
            applier: Mutex::new(0),
            observer: RwLock::new(None),
            persister: Mutex::new(Persister::default()),
            no_room: AtomicBool::new(false),
            unpersisted: AtomicU64::new(0),
            closing: Mutex::new(false),
            wake: Condvar::new(),
            room: Condvar::new(),
            room_lock: Mutex::new(()),
        });
        let thread = if inner.options.background {
            let work = inner.clone();
            let thread = std::thread::Builder::new()
                .name("persist".to_owned())
                .spawn(move || work.persist_in_background());
            Some(thread.map_err(Error::io("start a thread for", &path))?)
        } else {
            None
        };
        Ok(State {
            inner,
            thread: Mutex::new(thread),
        })
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
                fetch_tail: |queue_id, queue: &mut Queue| inner.fetch_tail(queue_id, queue),
            };
            for parsed in parsed {
                // Half an entry may have been applied: this process must not go on.
                let entry = call.entry(parsed, &records);
                applied.push(entry.map_err(|error| inner.log.poison().poison(error))?);
            }
            let changes = call.changes;
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

    /// Ends the background thread and persists everything. The state stays readable.
    ///
    /// # Errors
    /// As [`persist`](Self::persist).
    pub fn close(&self) -> Result<()> {
        self.stop_thread();
        self.persist()
    }

    fn stop_thread(&self) {
        *self.inner.closing.lock() = true;
        self.inner.wake.notify_all();
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != std::thread::current().id()
        {
            drop(thread.join());
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.stop_thread();
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
        Error::Database {
            path: self.path.clone(),
            source,
        }
    }

    /// Brings a queue's tail back into memory.
    fn fetch_tail(&self, queue_id: i32, queue: &mut Queue) -> Result<()> {
        let block = queue.tail_block();
        let units = self.block(queue.id, block)?.unwrap_or_default();
        if queue.set_tail(units) {
            return Ok(());
        }
        let what = format!(
            "block {block} of queue {} (queue id {queue_id}) is cut off",
            queue.id
        );
        Err(Error::Inconsistent {
            path: self.path.clone(),
            what,
        })
    }

    /// Keeps memory bounded when the database takes no more.
    fn wait_for_room(&self) -> Result<()> {
        while self.tables.read().sealed_bytes > SEALED_BYTES_MAX
            && !self.no_room.load(Ordering::Relaxed)
        {
            self.log.poison().check()?;
            if !self.options.background || *self.closing.lock() {
                return self.persist();
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

/// RocksDB kept small: it holds little beside consume-queue blocks, which are written in order
/// and read seldom.
fn database_options() -> Options {
    const MIB: usize = 1024 * 1024;
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(16 * MIB));
    table.set_block_size(16 * 1024);
    table.set_cache_index_and_filter_blocks(true);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(32 * MIB);
    options.set_max_write_buffer_number(2);
    options.set_max_background_jobs(2);
    options.set_max_open_files(256);
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(4 * MIB);
    options.set_max_manifest_file_size(4 * MIB);
    options.set_log_level(rocksdb::LogLevel::Warn);
    options.set_stats_dump_period_sec(0);

    options
}

fn load(db: &DB, path: &Path) -> Result<Tables> {
    let mut tables = Tables::default();
    let database = |source| Error::Database {
        path: path.to_path_buf(),
        source,
    };
    let bad = |key: &[u8], what: &str| Error::Corrupt {
        path: path.to_path_buf(),
        offset: 0,
        what: format!(
            "row {} {what}; with the folder removed the state is built again from the commit log",
            String::from_utf8_lossy(key).escape_debug()
        ),
    };
    let mut seek: Vec<u8> = Vec::new();
    'all: loop {
        for row in db.iterator(IteratorMode::From(&seek, rocksdb::Direction::Forward)) {
            let (key, value) = row.map_err(database)?;
            let decoded = rows::decode(&key).ok_or_else(|| bad(&key, "has an unknown key"))?;
            let unreadable = || bad(&key, "is not readable");
            match decoded {
                Key::Meta => {
                    let meta = Meta::decode(&value).ok_or_else(unreadable)?;
                    tables.applied = meta.applied;
                    tables.applied_end = meta.applied_end;
                    tables.membership = meta.membership;
                    tables.topic_version = meta.topic_version;
                    tables.group_version = meta.group_version;
                    tables.next_queue = meta.next_queue;
                }
                Key::Topic => {
                    let config: body::TopicConfig =
                        body::from_json(&value).ok().ok_or_else(unreadable)?;
                    tables
                        .topics
                        .insert(Arc::from(&*config.topic_name), Arc::new(config));
                }
                Key::Group => {
                    let config: body::SubscriptionGroupConfig =
                        body::from_json(&value).ok().ok_or_else(unreadable)?;
                    tables
                        .groups
                        .insert(Arc::from(&*config.group_name), Arc::new(config));
                }
                Key::Offsets(group, topic) => {
                    let saved = rows::decode_offsets(&value).ok_or_else(unreadable)?;
                    entry(entry(&mut tables.offsets, group), topic).extend(saved);
                }
                Key::Kv(namespace, key) => {
                    entry(&mut tables.kv, namespace).insert(Arc::from(key), Arc::from(value));
                }
                Key::Queue(topic, queue_id) => {
                    let (id, bounds) = rows::decode_queue(&value).ok_or_else(unreadable)?;
                    let name = tables
                        .topics
                        .get_key_value(topic)
                        .map(|(name, _)| name.clone());
                    let name = name.unwrap_or_else(|| Arc::from(topic));
                    let queues = tables.queues.entry(name.clone());
                    let queues = queues.or_insert_with(|| TopicQueues::new(name));
                    queues.insert(queue_id, Queue::stored(id, bounds));
                }
                Key::Block => {
                    // The bulk; nothing of it is needed now.
                    seek = vec![b'q' + 1];
                    continue 'all;
                }
            }
        }
        return Ok(tables);
    }
}

/// Refuses a state that is ahead of its log, or of another log.
fn check_log(tables: &Tables, log: &CommitLog, path: &Path) -> Result<()> {
    let Some(applied) = tables.applied else {
        return Ok(());
    };
    let inconsistent = |what| {
        Err(Error::Inconsistent {
            path: path.to_path_buf(),
            what,
        })
    };
    let dir = log.options().dir.display();
    match log.last() {
        Some(last) if last.index >= applied.index => {}
        last => {
            let last = last.map_or_else(|| "is empty".to_owned(), |last| format!("ends at {last}"));
            return inconsistent(format!(
                "state has applied entry {applied}, but the commit log in {dir} {last}: the log lost entries"
            ));
        }
    }
    let found = log.log_id(applied.index)?;
    if found != applied {
        return inconsistent(format!(
            "state has applied entry {applied}, the commit log in {dir} has {found} there: they do not belong together"
        ));
    }
    Ok(())
}
