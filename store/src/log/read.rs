//! Reading: entries by index, records by physical offset. No copies: slices of the maps.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use raftmq_proto::message::record;

use crate::entry::{Header, LogId, StoredEntry, u32_at, u64_at, verify};
use crate::error::{Error, Result};

use super::index::{ANCHORED_SEGMENTS, Anchors};
use super::segment::{At, Segment};
use super::{CommitLog, Mark, Shared};

impl CommitLog {
    /// Entries `first..end_exclusive`, all of them without `max_bytes`; with it, at least one and
    /// as many as fit into so many bytes. Empty for an empty range.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when the range is not inside the log; [`Error::Corrupt`].
    pub fn read(
        &self,
        first: u64,
        end_exclusive: u64,
        max_bytes: Option<u64>,
    ) -> Result<Vec<StoredEntry>> {
        if first >= end_exclusive {
            return Ok(Vec::new());
        }
        self.check_range(first, end_exclusive - 1)?;
        let count = usize::try_from(end_exclusive - first).unwrap_or(usize::MAX);
        let mut entries = Vec::with_capacity(count.min(1024));
        let mut next: Option<(Arc<Segment>, u64)> = None;
        let mut left = max_bytes.unwrap_or(u64::MAX);
        for index in first..end_exclusive {
            let (here, header) = match next.take() {
                None => self.find(index)?,
                Some((segment, position)) => self.entry_at(position, index, Some(segment))?,
            };
            let size = u64::from(header.size);
            if size > left && !entries.is_empty() {
                break;
            }
            left = left.saturating_sub(size);
            let raw = here
                .slice(header.position - here.start, size)
                .ok_or_else(|| here.corrupt(header.position, "entry is cut off".to_owned()))?;
            self.check_entry(&here, &header, &raw)?;
            entries.push(StoredEntry::with_header(&header, raw));
            next = Some((here, header.end()));
        }
        Ok(entries)
    }

    /// Term and index of one entry.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn log_id(&self, index: u64) -> Result<LogId> {
        Ok(self.mark_at(index)?.id)
    }

    /// Position after an entry.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn end_of(&self, index: u64) -> Result<u64> {
        Ok(self.mark_at(index)?.end)
    }

    pub(super) fn mark_at(&self, index: u64) -> Result<Mark> {
        self.check_range(index, index)?;
        let (segment, header) = self.find(index)?;
        let raw = segment.slice(header.position - segment.start, header.size.into());
        self.check_entry(&segment, &header, &raw.unwrap_or_default())?;
        Ok(Mark::of(&header))
    }

    /// Verifies an entry, unless this process wrote it a short while ago.
    fn check_entry(&self, segment: &Arc<Segment>, header: &Header, raw: &[u8]) -> Result<()> {
        if header.position >= self.shared().trusted_from() {
            return Ok(());
        }
        let Err(error) = verify(raw) else {
            return Ok(());
        };
        // Unless it was truncated or removed just now.
        self.check_range(header.id.index, header.id.index)?;
        let what = error.to_string();
        Err(self.shared().damaged(segment, header.position, what))
    }

    fn check_range(&self, first: u64, last: u64) -> Result<()> {
        let index = self.shared().index.read();
        let (begin, next) = (index.base.next_index, index.next());
        if first < begin || last >= next {
            let index = if first < begin { first } else { last };
            return Err(Error::OutOfRange {
                index,
                first: begin,
                next,
            });
        }
        Ok(())
    }

    /// The header of entry `index`, which stands at `position` or at the start of the segment
    /// after it.
    fn entry_at(
        &self,
        position: u64,
        index: u64,
        known: Option<Arc<Segment>>,
    ) -> Result<(Arc<Segment>, Header)> {
        let gone = || {
            self.check_range(index, index)
                .err()
                .unwrap_or_else(|| Error::Corrupt {
                    path: self.options().dir.clone(),
                    offset: position,
                    what: format!("no segment holds entry {index}"),
                })
        };
        let mut segment = match known.filter(|s| (s.start..s.end()).contains(&position)) {
            Some(segment) => segment,
            None => self.shared().segment(position).ok_or_else(gone)?,
        };
        let mut at = segment.at(position);
        if let At::End = at {
            segment = self.shared().segment(segment.end()).ok_or_else(gone)?;
            at = segment.at(segment.start);
        }
        let what = match at {
            At::Entry(header) if header.id.index == index => return Ok((segment, header)),
            At::Entry(header) => format!("entry {} where {index} is expected", header.id),
            At::End => "segment has no entry".to_owned(),
            At::Bad(what) => what,
        };
        // Truncated meanwhile, or truly damaged.
        self.check_range(index, index)?;
        let what = format!("entry {index} cannot be read: {what}");
        Err(self
            .shared()
            .damaged(&segment, position.max(segment.start), what))
    }

    /// A position from which the entry is found: its own, or the end of the one before.
    fn locate(&self, index: u64) -> Result<u64> {
        let shared = self.shared();
        if let Some(position) = shared.index.read().position(index) {
            return Ok(position);
        }
        let segment = {
            let segments = shared.segments.read();
            let begun = segments.partition_point(|s| s.first_index().is_some_and(|f| f <= index));
            begun
                .checked_sub(1)
                .and_then(|nth| segments.get(nth).cloned())
        };
        let Some(segment) = segment else {
            self.check_range(index, index)?;
            let path = self.options().dir.clone();
            let what = format!("no segment begins at or before entry {index}");
            return Err(Error::Corrupt {
                path,
                offset: 0,
                what,
            });
        };
        let first = segment.first_index().unwrap_or_default();
        let anchor = shared.anchor(&segment, index - first)?;
        let anchor = (first + anchor.0, segment.start + anchor.1);
        // Or behind damage that is known, if that is nearer.
        let hole = shared.holes.last_of(anchor.1..segment.end(), index);
        let (from, mut position) = hole.map_or(anchor, |hole| (hole.next_index, hole.end));
        for expected in from..index {
            let (_, header) = self.entry_at(position, expected, Some(segment.clone()))?;
            position = header.end();
        }
        Ok(position)
    }

    /// The header of an entry. Damage that is met for the first time on the way there costs another
    /// attempt, which goes around it.
    fn find(&self, index: u64) -> Result<(Arc<Segment>, Header)> {
        let find = || {
            let position = self.locate(index)?;
            self.entry_at(position, index, None)
        };
        match find() {
            Err(Error::Corrupt { .. }) if !self.shared().holes.has(index) => find(),
            found => found,
        }
    }

    /// The stored record at a physical offset, as a slice of the log. `size` is the record's size
    /// if known (from a consume-queue unit). Only records that end at or before `limit` are
    /// returned: pass the position after the last applied entry.
    ///
    /// # Errors
    /// [`Error::NoRecord`] when there is no record or it is beyond the limit; [`Error::Corrupt`]
    /// when it is damaged.
    pub fn record_at(&self, offset: u64, size: Option<u32>, limit: u64) -> Result<Bytes> {
        let none = |what| Error::NoRecord { offset, what };
        if offset >= limit {
            return Err(none("it is beyond the readable end of the log"));
        }
        let segment = self
            .shared()
            .segment(offset)
            .ok_or_else(|| none("it is outside the log"))?;
        if offset < self.shared().trusted_from() {
            let checked = self.shared().check(&segment, offset);
            checked.map_err(|error| match error {
                Error::Io { .. } if offset < self.min_position() => none("it was removed"),
                error => error,
            })?;
        }
        let bytes = segment.bytes_from(offset - segment.start);
        let total = u32_at(bytes, 0).unwrap_or_default();
        let magic = u32_at(bytes, 4).unwrap_or_default();
        if magic != record::MAGIC_V1 && magic != record::MAGIC_V2 {
            return Err(none("there is no record"));
        }
        if u64_at(bytes, record::PHYSICAL_OFFSET_AT) != Some(offset) {
            return Err(none("there is no record that says it is there"));
        }
        if (total as usize) < record::RECORD_MIN || size.is_some_and(|size| size != total) {
            return Err(none("the record has another size"));
        }
        if offset + u64::from(total) > limit {
            return Err(none("it is beyond the readable end of the log"));
        }
        segment
            .slice(offset - segment.start, total.into())
            .ok_or_else(|| none("the record does not fit into its segment"))
    }
}

impl Shared {
    /// The nearest anchor at or before the nth entry of a segment: number and offset.
    fn anchor(&self, segment: &Arc<Segment>, nth: u64) -> Result<(u64, u64)> {
        let mut anchors = segment.anchors.lock();
        if anchors.find(nth).is_none() {
            // Recovery or a clean-up left the beginning without anchors: walk it once.
            let limit = anchors.first().map_or(u64::MAX, |(_, offset)| offset);
            let end = self.end().min(segment.end());
            let first = segment.first_index().unwrap_or_default();
            let mut expected = first;
            let mut resumed = segment.start;
            let mut earlier = Anchors::default();
            let mut position = segment.start;
            while position < end && position - segment.start < limit {
                match segment.at(position) {
                    At::Entry(header) if header.id.index == expected => {
                        earlier.push(expected - first, position - segment.start);
                        position = header.end();
                        expected += 1;
                    }
                    At::End => break,
                    wrong => {
                        let what = match wrong {
                            At::Bad(what) => what,
                            _ => format!("entry {expected} is expected"),
                        };
                        let error = self.damaged(segment, position, what);
                        // On behind the damage, which may begin before the place it is met at.
                        let hole = self.holes.begun(resumed, position).ok_or(error)?;
                        earlier.truncate(hole.position.saturating_sub(segment.start));
                        position = hole.end;
                        resumed = hole.end;
                        expected = hole.next_index;
                    }
                }
            }
            anchors.prepend(earlier);
        }
        let found = anchors.find(nth).unwrap_or((0, 0));
        drop(anchors);
        self.anchored(segment);
        Ok(found)
    }

    /// Notes that a segment's anchors were used, and drops the least used ones of too many.
    pub(super) fn anchored(&self, segment: &Arc<Segment>) {
        let tick = self.tick.fetch_add(1, Ordering::Relaxed) + 1;
        segment.used.store(tick, Ordering::Relaxed);
        let segments = self.segments.read();
        if segments.len() <= ANCHORED_SEGMENTS {
            return;
        }
        let anchored = |s: &&Arc<Segment>| {
            !Arc::ptr_eq(s, segment) && s.anchors.try_lock().is_some_and(|a| !a.is_empty())
        };
        let mut others: Vec<_> = segments.iter().rev().skip(1).filter(anchored).collect();
        if others.len() >= ANCHORED_SEGMENTS {
            others.sort_by_key(|s| s.used.load(Ordering::Relaxed));
            for old in others.iter().take(others.len() + 1 - ANCHORED_SEGMENTS) {
                if let Some(mut anchors) = old.anchors.try_lock() {
                    anchors.clear();
                }
            }
        }
    }
}
