//! The thread that reads applied records and writes blocks.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use raftmq_proto::message::record::{RECORD_MIN, RecordRef};
use rocksdb::{FlushOptions, WriteBatch, WriteOptions};

use crate::entry::{EntryKind, StoredEntry, u32_at};
use crate::error::{Error, Result};

use super::super::Inner;
use super::super::apply::is_queued;
use super::block::{self, BlockMeta};
use super::{KEYS_MAX, Key, SPAN_MAX, family, hash, keys_of};

/// Bytes of the log read at once.
const READ_BYTES: u64 = 1024 * 1024;
/// Longest time until something applied is read.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long a query waits for what was applied before it.
const QUERY_WAIT: Duration = Duration::from_millis(500);

impl Inner {
    /// The thread's work, until closed.
    pub(in super::super) fn index_in_background(&self) {
        let mut told = false;
        loop {
            {
                let mut closing = self.closing.lock();
                if !*closing {
                    self.keys.wanted.wait_for(&mut closing, INTERVAL);
                }
                if *closing {
                    return;
                }
            }
            match self.index_applied() {
                Ok(()) => told = false,
                // The log may be repaired, and the disk get room: tried again.
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%error, "key index does not go on");
                    }
                }
            }
        }
    }

    /// Brings the index up to what is applied now.
    pub(super) fn index_applied(&self) -> Result<()> {
        self.drop_blocks()?;
        let (next, log_start) = {
            let tables = self.tables.read();
            let next = tables.applied.map_or(0, |applied| applied.index + 1);
            (next, tables.log_start)
        };
        loop {
            // Full since a write that failed, or just now.
            self.write_block()?;
            let from = self.keys.state.lock().next_index;
            let from = from.max(self.log.first_index());
            if from >= next || *self.closing.lock() {
                return Ok(());
            }
            let entries = match self.log.read(from, next, Some(READ_BYTES)) {
                // It was removed meanwhile.
                Err(Error::OutOfRange { .. }) if from < self.log.first_index() => continue,
                entries => entries?,
            };
            let mut found = Vec::with_capacity(1024);
            for entry in &entries {
                keys_of_entry(entry, log_start, &mut found);
            }
            let mut progress = self.keys.state.lock();
            if let Some(last) = found.last() {
                progress.last = (last.time_ms, last.position);
            }
            if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
                if first.id.index > progress.next_index {
                    // What was between, and what is pending, has left the log.
                    progress.pending.clear();
                    progress.begin = first.position;
                }
                progress.end = last.end();
                progress.next_index = last.id.index + 1;
            }
            progress.pending.append(&mut found);
            self.keys.read.notify_all();
        }
    }

    /// Writes what is pending once it is enough for a block.
    fn write_block(&self) -> Result<()> {
        let (mut keys, mut meta) = {
            let progress = self.keys.state.lock();
            let span = progress.end - progress.begin;
            if progress.pending.len() < KEYS_MAX && span < SPAN_MAX {
                return Ok(());
            }
            let meta = BlockMeta {
                number: progress.next_block,
                begin: progress.begin,
                end: progress.end,
                next_index: progress.next_index,
                begin_ms: 0,
                end_ms: 0,
                last: progress.last,
                keys: 0,
                part_bits: 0,
            };
            (progress.pending.clone(), meta)
        };
        self.log.poison().check()?;
        self.check_room()?;
        // A block must not know more than the log has after a power cut.
        self.log.flush()?;
        let rows = block::build(&mut meta, &mut keys);
        drop(keys);
        let family = family(&self.db, &self.path)?;
        let mut batch = WriteBatch::default();
        for (key, row) in rows {
            batch.put_cf(family, key, row);
        }
        batch.put_cf(family, block::meta_key(meta.number), meta.encode());
        let written = self.write_keys(batch, true);
        written.map_err(|error| self.log.poison().poison(error))?;
        let mut progress = self.keys.state.lock();
        progress.blocks.push_back(meta);
        progress.next_block += 1;
        progress.pending = Vec::new();
        progress.begin = meta.end;
        Ok(())
    }

    fn write_keys(&self, batch: WriteBatch, flush: bool) -> Result<()> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db
            .write_opt(batch, &options)
            .map_err(|e| self.database(e))?;
        if !flush {
            return Ok(());
        }
        let mut options = FlushOptions::default();
        options.set_wait(true);
        let family = family(&self.db, &self.path)?;
        let flushed = self.db.flush_cf_opt(family, &options);
        flushed.map_err(|e| self.database(e))
    }

    /// Drops blocks below the beginning of the log, but for the last one, which knows where the
    /// index goes on.
    fn drop_blocks(&self) -> Result<()> {
        let log_start = self.log_start.load(Ordering::Acquire);
        let (first, end) = {
            let mut progress = self.keys.state.lock();
            let first = progress.blocks.front().map(|block| block.number);
            let below = progress.blocks.partition_point(|b| b.end <= log_start);
            let below = below.min(progress.blocks.len().saturating_sub(1));
            progress.blocks.drain(..below);
            let end = progress.blocks.front().map(|block| block.number);
            let below = progress.pending.partition_point(|k| k.position < log_start);
            progress.pending.drain(..below);
            (first, end)
        };
        let (Some(first), Some(end)) = (first, end) else {
            return Ok(());
        };
        if first == end {
            return Ok(());
        }
        let family = family(&self.db, &self.path)?;
        let (first, end) = (block::part_key(first, 0), block::part_key(end, 0));
        // Whole files at once, then what is left in others.
        let deleted = self.db.delete_file_in_range_cf(family, first, end);
        deleted.map_err(|e| self.database(e))?;
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(family, first, end);
        let written = self.write_keys(batch, false);
        written.map_err(|error| self.log.poison().poison(error))
    }

    /// Waits, not for ever, until the index has what is applied now.
    pub(super) fn wait_for_index(&self) -> Result<()> {
        if !self.options.background {
            return self.index_applied();
        }
        let end = self.applied_end.load(Ordering::Acquire);
        let until = Instant::now() + QUERY_WAIT;
        if *self.closing.lock() {
            return Ok(());
        }
        self.keys.wanted.notify_all();
        let mut progress = self.keys.state.lock();
        while progress.end < end && !self.keys.read.wait_until(&mut progress, until).timed_out() {}
        Ok(())
    }
}

/// Keys of the records of an entry, except for those below a position.
fn keys_of_entry(entry: &StoredEntry, from: u64, out: &mut Vec<Key>) {
    if entry.kind != EntryKind::Data || entry.end() <= from {
        return;
    }
    let mut rest = entry.records_slice();
    let mut position = entry.records_position();
    // As apply reads them; what is malformed is in no queue.
    while let Some(total) = u32_at(rest, 0).map(|total| total as usize) {
        let Some((bytes, after)) = rest.split_at_checked(total).filter(|_| total >= RECORD_MIN)
        else {
            return;
        };
        rest = after;
        if position >= from
            && let Ok(record) = RecordRef::parse(bytes)
            && is_queued(record.sys_flag())
        {
            out.extend(keys_of(&record).map(|key| Key {
                hash: hash(record.topic(), key),
                position,
                time_ms: record.store_timestamp(),
            }));
        }
        position += total as u64;
    }
}
