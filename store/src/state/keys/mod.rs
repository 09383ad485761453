//! The key index: finds messages by their unique key and by the words of their KEYS.
//!
//! ```text
//!  applied records ──▶ pending keys, in memory ──full──▶ block: sorted, a row per part of the hashes
//! ```
//!
//! A thread of its own reads what was applied from the log; nobody waits for it but queries, which
//! see both. What is pending at a stop is read from the log again. Blocks follow each other in the
//! log, so that a query in a range of time reads few of them, and those below the beginning of the
//! log are dropped as a whole. An entry is a hash: whether the record is meant is asked of the
//! record.
//!
//! RocketMQ: `IndexService`, `IndexFile`.

mod block;
mod build;
mod query;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::path::Path;

use parking_lot::{Condvar, Mutex};
use raftmq_proto::message::properties;
use raftmq_proto::message::record::RecordRef;
use rocksdb::{ColumnFamily, DB, IteratorMode, WriteOptions};

use crate::error::Result;
use crate::log::CommitLog;

use super::open::{damaged, failure};

pub(super) use block::{BlockMeta, Key, is_key_row};
pub use query::QueryResult;

/// Column family of the blocks.
pub(super) const FAMILY: &str = "keys";

/// Keys of a block, more or less.
const KEYS_MAX: usize = if cfg!(test) { 100 } else { 256 * 1024 };
/// Bytes of the log that a block is about, more or less: so much is read again after a stop.
const SPAN_MAX: u64 = if cfg!(test) {
    60_000
} else {
    512 * 1024 * 1024
};

/// What queries and the thread share.
pub(super) struct KeyIndex {
    state: Mutex<Progress>,
    /// Wakes the thread.
    wanted: Condvar,
    /// Wakes queries.
    read: Condvar,
}

/// How far the index is.
#[derive(Default)]
struct Progress {
    /// In the order of the log, without gaps.
    blocks: VecDeque<BlockMeta>,
    /// Number of the next block.
    next_block: u64,
    /// In the order of the log, behind the blocks.
    pending: Vec<Key>,
    /// Where the pending part begins.
    begin: u64,
    /// Everything below is in blocks or pending; where that ends in the log.
    end: u64,
    /// Index of the entry that comes next.
    next_index: u64,
    /// Store time and place of the last record with a key.
    last: (i64, u64),
}

impl KeyIndex {
    /// Finds the blocks in the database.
    pub(super) fn open(db: &DB, path: &Path, log: &CommitLog) -> Result<KeyIndex> {
        let family = family(db, path)?;
        let failure = |error| failure(path, error);
        let mut progress = Progress::default();
        let first = db.iterator_cf(family, IteratorMode::Start).next();
        if let Some((key, _)) = first.transpose().map_err(failure)? {
            let unreadable = || damaged(path, "the first key block is not readable".to_owned());
            progress.next_block = block::number(&key).ok_or_else(unreadable)?;
        }
        while let Some(row) = db
            .get_cf(family, block::meta_key(progress.next_block))
            .map_err(failure)?
        {
            let unreadable = || {
                let number = progress.next_block;
                damaged(path, format!("key block {number} is not readable"))
            };
            let meta = BlockMeta::decode(progress.next_block, &row).ok_or_else(unreadable)?;
            // Of entries that a power cut took from this log; they come again.
            if meta.end > log.end_position() {
                let (from, to) = (
                    block::part_key(meta.number, 0),
                    block::part_key(u64::MAX, 0),
                );
                let mut options = WriteOptions::default();
                options.disable_wal(true);
                db.delete_range_cf_opt(family, from, to, &options)
                    .map_err(failure)?;
                break;
            }
            progress.begin = meta.end;
            progress.end = meta.end;
            progress.next_index = meta.next_index;
            progress.last = meta.last;
            progress.blocks.push_back(meta);
            progress.next_block += 1;
        }
        Ok(KeyIndex {
            state: Mutex::new(progress),
            wanted: Condvar::new(),
            read: Condvar::new(),
        })
    }
}

impl KeyIndex {
    /// Wakes the thread, which looks whether it is to end.
    pub(super) fn wake(&self) {
        self.wanted.notify_all();
    }
}

fn family<'a>(db: &'a DB, path: &Path) -> Result<&'a ColumnFamily> {
    db.cf_handle(FAMILY)
        .ok_or_else(|| damaged(path, format!("column family {FAMILY} is missing")))
}

/// The keys of a record: its unique key, and the words of its KEYS.
fn keys_of<'a>(record: &RecordRef<'a>) -> impl Iterator<Item = &'a str> {
    let unique = record.property(properties::UNIQ_KEY);
    let words = record.property(properties::KEYS).unwrap_or_default();
    let words = words.split(' ').filter(|word| !word.is_empty());
    unique.into_iter().chain(words)
}

/// FNV-1a over `topic#key`, mixed so that every part of it is a hash. Part of the format.
fn hash(topic: &str, key: &str) -> u64 {
    let mut hash: u64 = 0xCBF2_9CE4_8422_2325;
    for byte in topic.bytes().chain([b'#']).chain(key.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    hash ^ (hash >> 33)
}
