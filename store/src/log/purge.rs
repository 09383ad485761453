//! The beginning of the log: removing whole segments there, and what retention has to know.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use raftmq_proto::command::Command;
use raftmq_proto::message::record::RecordRef;

use crate::entry::{ENTRY_MAX, LogId, StoredEntry, verify};
use crate::error::{Error, Result};

use super::base::LogBase;
use super::reader::Reader;
use super::segment::{At, Segment};
use super::{CommitLog, Shared};

/// Entries looked at for a segment's time. The first ones of a leader are blank, hardly more.
const TIMED_ENTRIES: usize = 1024;

/// What retention has to know about a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Position of its first byte.
    pub position: u64,
    /// Bytes of the log in it: all of the file, except for the last segment.
    pub bytes: u64,
    /// When its first message or command was stored, in milliseconds since 1970; `None` without
    /// any.
    pub time_ms: Option<i64>,
}

impl CommitLog {
    /// Removes the segments of which all entries have an index of at most `upto`, oldest first;
    /// never the one being written. Returns the bytes given back, 0 when there is no such segment.
    ///
    /// The first entry that stays has to be committed, or one of those up to `upto`: if it were cut
    /// off, another one in its place might belong into the segment that was removed.
    ///
    /// Durable on return. Slices of the removed segments stay readable, and keep their room until
    /// they are dropped; the log itself keeps neither a handle nor a map. A segment whose last
    /// entry is damaged stays, and all after it.
    ///
    /// # Errors
    /// [`Error::Poisoned`]; [`Error::Io`], which poisons the log, except for a full disk: then
    /// nothing was removed.
    pub fn purge(&self, upto: u64) -> Result<u64> {
        let shared = self.shared();
        let mut file = self.inner.base.lock();
        shared.poison.check()?;
        let Some(base) = self.base_after(upto)? else {
            return Ok(0);
        };
        // No checkpoint may stay that names an entry about to go.
        if shared.flusher.turn().synced_end() <= base.position {
            shared.flusher.finish()?;
        }
        let poison = |error| shared.poison.poison(error);
        file.save(&base).map_err(|error| {
            if error.is_no_space() {
                return error;
            }
            poison(error)
        })?;
        shared.index.write().rebase(base);
        let mut removed: Vec<Arc<Segment>> = Vec::new();
        {
            let mut segments = shared.segments.write();
            while segments
                .front()
                .is_some_and(|first| first.start < base.position)
            {
                removed.extend(segments.pop_front());
            }
        }
        shared.holes.clip(base.position, u64::MAX);
        let mut bytes = 0;
        for segment in removed {
            segment.remove().map_err(poison)?;
            bytes += segment.size;
        }
        let dir = &shared.options.dir;
        shared
            .disk
            .sync_dir(dir)
            .map_err(Error::io("flush", dir))
            .map_err(poison)?;
        tracing::info!(
            position = base.position,
            first = base.next_index,
            bytes,
            "removed the beginning of the commit log"
        );
        Ok(bytes)
    }

    /// Where the log would begin after a purge.
    fn base_after(&self, upto: u64) -> Result<Option<LogBase>> {
        let next = upto.saturating_add(1).min(self.next_index());
        let segments: Vec<_> = self.shared().segments.read().iter().cloned().collect();
        let committed = self.shared().committed_next.load(Ordering::Acquire);
        let stays = next.min(committed.max(upto.saturating_add(1)).saturating_sub(1));
        let begins = |s: &Segment| s.first_index().is_some_and(|first| first <= stays);
        for pair in segments.windows(2).rev() {
            let [before, first] = pair else { continue };
            if !begins(first) {
                continue;
            }
            match last_entry(before, first)? {
                Some((last, chained)) => {
                    return Ok(Some(LogBase {
                        position: first.start,
                        next_index: last.index + 1,
                        prev: Some(last),
                        prev_crc: chained,
                        genesis: self.genesis().unwrap_or_default(),
                    }));
                }
                None => {
                    tracing::warn!(path = %before.path.display(),
                        "the end of the segment is damaged: it cannot be removed");
                }
            }
        }
        Ok(None)
    }

    /// The last entry of the newest segment that ends at or below `position`: what to
    /// [`purge`](Self::purge) up to when the log is trimmed to there. `None` when no segment does.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Corrupt`] when the end of that segment is damaged.
    pub fn last_before(&self, position: u64) -> Result<Option<LogId>> {
        let segments: Vec<_> = self.shared().segments.read().iter().cloned().collect();
        let below = |pair: &&[Arc<Segment>]| {
            let [before, first] = pair else { return false };
            before.end() <= position && first.first_index().is_some()
        };
        let Some([before, first]) = segments.windows(2).rev().find(below) else {
            return Ok(None);
        };
        match last_entry(before, first)? {
            Some((last, _)) => Ok(Some(last)),
            None => {
                let what = "the last entry of the segment is damaged".to_owned();
                Err(before.corrupt(before.start, what))
            }
        }
    }

    /// The segments, oldest first. Cheap: what was read once is remembered.
    ///
    /// # Errors
    /// None at present.
    pub fn segments(&self) -> Result<Vec<SegmentInfo>> {
        let shared = self.shared();
        let segments: Vec<_> = shared.segments.read().iter().cloned().collect();
        let end = shared.end();
        let infos = segments.iter().map(|segment| SegmentInfo {
            position: segment.start,
            bytes: end.clamp(segment.start, segment.end()) - segment.start,
            time_ms: shared.time_of(segment, end),
        });
        Ok(infos.collect())
    }
}

impl Shared {
    /// When the first entry of a segment that has a time was stored. Remembered, unless it can
    /// still be cut off.
    fn time_of(&self, segment: &Segment, end: u64) -> Option<i64> {
        if let Some(time) = segment.time_ms() {
            return Some(time);
        }
        let mut position = segment.start;
        for _ in 0..TIMED_ENTRIES {
            if position >= end {
                break;
            }
            let At::Entry(header) = segment.at(position) else {
                break;
            };
            let raw = segment.slice(position - segment.start, header.size.into())?;
            verify(&raw).ok()?;
            if let Some(time) = time_of(&StoredEntry::with_header(&header, raw)) {
                if header.end() <= self.flusher.flushed() && segment.end() <= end {
                    segment.set_time_ms(Some(time));
                }
                return Some(time);
            }
            position = header.end();
        }
        None
    }
}

/// The store time of an entry's first record, or of its command.
fn time_of(entry: &StoredEntry) -> Option<i64> {
    if let Ok(record) = RecordRef::parse(entry.records_slice()) {
        return Some(record.store_timestamp());
    }
    if entry.kind != crate::EntryKind::Data {
        return None;
    }
    let command = Command::decode(entry.command()).ok()?;
    (command.time_ms > 0).then_some(command.time_ms)
}

/// The last entry of a full segment, given the one after it: its id and CRC. Searched from the
/// end, where it is the entry that the first one of `next` continues. `None` when it is damaged.
fn last_entry(segment: &Arc<Segment>, next: &Arc<Segment>) -> Result<Option<(LogId, u32)>> {
    let Ok(following) = Reader::new(next.clone())?.entry(next.start) else {
        return Ok(None);
    };
    let mut reader = Reader::new(segment.clone())?;
    let mut end = segment.end();
    // What a client put into the entry may look like one.
    while let Some(at) = end.checked_sub(1).and_then(|end| reader.entry_before(end)) {
        if let Ok(header) = reader.entry(at)
            && header.id.index.checked_add(1) == Some(following.id.index)
            && header.crc == following.prev_crc
        {
            return Ok(Some((header.id, header.crc)));
        }
        if at + 2 * ENTRY_MAX < segment.end() || at == segment.start {
            break;
        }
        end = at;
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
