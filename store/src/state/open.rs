//! Opening the state database: its settings, its rows, and whether it fits the log.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use raftmq_proto::body;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, ErrorKind, IteratorMode, Options,
};

use crate::error::{Error, Result};
use crate::log::CommitLog;

use super::block;
use super::keys::{self, KeyIndex};
use super::queue::Queue;
use super::rows::{self, Key, Meta};
use super::tables::{Tables, TopicQueues, entry};

/// File in the database's folder that says that it was found damaged, and how.
const DAMAGED: &str = "damaged";

/// Opens the database of a log and reads what is kept in memory.
pub(super) fn open(path: &Path, log: &CommitLog) -> Result<(DB, Tables, KeyIndex)> {
    std::fs::create_dir_all(path).map_err(Error::io("create", path))?;
    if let Ok(what) = std::fs::read_to_string(path.join(DAMAGED)) {
        return Err(damaged(path, what.trim().to_owned()));
    }
    let mut table = table_options();
    table.set_block_cache(&BLOCK_CACHE);
    let db = DB::open_cf_descriptors(&options(&table), path, families(&table));
    let db = db.map_err(|error| failure(path, error))?;
    let mut tables = load(&db, path)?;
    check_log(&tables, log, path)?;
    // With a full disk the log's beginning goes although the database could not note the trim,
    // which is applied once more.
    tables.trim_to(log.base().position);
    let keys = KeyIndex::open(&db, path, log)?;
    Ok((db, tables, keys))
}

fn families(table: &BlockBasedOptions) -> [ColumnFamilyDescriptor; 2] {
    [
        ColumnFamilyDescriptor::new(rocksdb::DEFAULT_COLUMN_FAMILY_NAME, options(table)),
        ColumnFamilyDescriptor::new(keys::FAMILY, keys_options(table)),
    ]
}

/// Opens a database to look at it, and says which column families it has. Everything is read from the files: blocks in
/// [`BLOCK_CACHE`] are known by file, so a database that is open twice would be shown what the other one has read.
pub(crate) fn open_read_only(path: &Path) -> Result<(DB, Vec<String>)> {
    let mut table = table_options();
    table.disable_cache();
    let names = DB::list_cf(&options(&table), path).map_err(|error| failure(path, error))?;
    let there = families(&table).into_iter();
    let there = there.filter(|family| names.iter().any(|name| name == family.name()));
    let db = DB::open_cf_descriptors_read_only(&options(&table), path, there, false);
    let db = db.map_err(|error| failure(path, error))?;
    let known = |name: &String| db.cf_handle(name).is_some();
    let names = names.iter().filter(|name| known(name)).cloned().collect();
    Ok((db, names))
}

/// What an answer of RocksDB means.
pub(crate) fn failure(path: &Path, source: rocksdb::Error) -> Error {
    let text = source.to_string();
    let is_lost = source.kind() == ErrorKind::IOError && text.contains("No such file");
    if is_lost || source.kind() == ErrorKind::Corruption {
        return damaged(path, text);
    }
    Error::Database {
        path: path.to_path_buf(),
        source,
    }
}

pub(super) fn damaged(path: &Path, what: String) -> Error {
    Error::StateDamaged {
        path: path.to_path_buf(),
        what,
    }
}

/// Leaves word that the database must not be used again. Best effort: it is found anew otherwise.
pub(super) fn note_damage(path: &Path, what: &str) {
    if let Err(error) = std::fs::write(path.join(DAMAGED), what) {
        tracing::warn!(%error, "cannot note that the state database is damaged");
    }
}

const MIB: usize = 1024 * 1024;

/// The cache of all databases in use in this process: a process with members of several groups needs no more than the busiest.
static BLOCK_CACHE: LazyLock<Cache> = LazyLock::new(|| Cache::new_lru_cache(16 * MIB));

fn table_options() -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_size(16 * 1024);
    table.set_cache_index_and_filter_blocks(true);
    table
}

/// RocksDB kept small: it holds little beside consume-queue blocks, which are written in order
/// and read seldom.
fn options(table: &BlockBasedOptions) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_block_based_table_factory(table);
    options.set_merge_operator_associative(block::MERGE, block::merge);
    options.set_write_buffer_size(32 * MIB);
    options.set_max_write_buffer_number(2);
    options.set_max_background_jobs(2);
    options.set_max_open_files(256);
    // A few dozen files: one thread opens them sooner than sixteen, its default, are started.
    options.set_max_file_opening_threads(1);
    options.set_manifest_preallocation_size(64 * 1024);
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(4 * MIB);
    options.set_max_manifest_file_size(4 * MIB);
    options.set_log_level(rocksdb::LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    options
}

/// Blocks of keys follow each other, and hashes do not compress.
fn keys_options(table: &BlockBasedOptions) -> Options {
    let mut options = Options::default();
    options.set_block_based_table_factory(table);
    options.set_write_buffer_size(8 * MIB);
    options.set_max_write_buffer_number(2);
    options.set_compression_type(rocksdb::DBCompressionType::None);
    options
}

fn load(db: &DB, path: &Path) -> Result<Tables> {
    let mut tables = Tables::default();
    let bad = |key: &[u8], what: &str| {
        let key = String::from_utf8_lossy(key);
        damaged(path, format!("row {} {what}", key.escape_debug()))
    };
    let mut seek: Vec<u8> = Vec::new();
    'all: loop {
        for row in db.iterator(IteratorMode::From(&seek, rocksdb::Direction::Forward)) {
            let (key, value) = row.map_err(|error| failure(path, error))?;
            let decoded = rows::decode(&key).ok_or_else(|| bad(&key, "has an unknown key"))?;
            let unreadable = || bad(&key, "is not readable");
            match decoded {
                Key::Meta => {
                    let meta = Meta::decode(&value).ok_or_else(unreadable)?;
                    tables.applied = meta.applied;
                    tables.applied_end = meta.applied_end;
                    tables.log_start = meta.log_start;
                    tables.swept = meta.swept;
                    tables.membership = meta.membership;
                    tables.topic_version = meta.topic_version;
                    tables.group_version = meta.group_version;
                    tables.next_queue = meta.next_queue;
                    tables.term_ends = meta.term_ends;
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
                    let row = rows::decode_queue(&value).ok_or_else(unreadable)?;
                    let (id, bounds, unused) = row;
                    let name = tables
                        .topics
                        .get_key_value(topic)
                        .map(|(name, _)| name.clone());
                    let name = name.unwrap_or_else(|| Arc::from(topic));
                    let queues = tables.queues.entry(name.clone());
                    let queues = queues.or_insert_with(|| TopicQueues::new(name));
                    let mut queue = Queue::new(id, bounds, 0);
                    queue.unused = unused;
                    queues.insert(queue_id, queue);
                }
                Key::Block => {
                    // The bulk; nothing of it is needed now.
                    seek = vec![b'q' + 1];
                    continue 'all;
                }
            }
        }
        let swept = tables.swept;
        for queues in tables.queues.values_mut() {
            queues.iter_mut().for_each(|queue| queue.trimmed = swept);
        }
        return Ok(tables);
    }
}

/// Refuses a state that is ahead of its log, or behind its beginning, or of another log.
fn check_log(tables: &Tables, log: &CommitLog, path: &Path) -> Result<()> {
    let (next, first) = (
        tables.applied.map_or(0, |applied| applied.index + 1),
        log.first_index(),
    );
    if next < first {
        return Err(Error::NeedsSeed {
            path: path.to_path_buf(),
            next,
            first,
        });
    }
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
    match log.last().max(log.purged()) {
        Some(last) if last.index >= applied.index => {}
        last => {
            let last = last.map_or_else(|| "is empty".to_owned(), |last| format!("ends at {last}"));
            return inconsistent(format!(
                "state has applied entry {applied}, but the commit log in {dir} {last}: the log lost entries"
            ));
        }
    }
    let found = match log.purged() {
        Some(purged) if purged.index == applied.index => purged,
        _ => match log.log_id(applied.index) {
            // A hole in the log, which is mended before anything is applied.
            Err(error @ Error::Corrupt { .. }) => {
                tracing::warn!(%applied, %error, "the state is not compared with its log");
                return Ok(());
            }
            found => found?,
        },
    };
    if found != applied {
        return inconsistent(format!(
            "state has applied entry {applied}, the commit log in {dir} has {found} there: they do not belong together"
        ));
    }
    Ok(())
}
