//! Writing what is damaged anew, or giving it up.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::entry::{Header, verify};
use crate::error::{Error, Result};

use super::holes::{Hole, join};
use super::walk::before;
use super::{CommitLog, Mark};

impl CommitLog {
    /// Writes the entries of a hole anew: consecutive ones, beginning with its first. They have to
    /// continue the entry before the hole, and if they are all, the one behind has to continue
    /// them. Durable on return, and readable. Returns what is left of the hole, if they are not all.
    ///
    /// # Errors
    /// [`Error::Malformed`] when `hole` is not one of [`holes`](Self::holes) or the entries are not
    /// those of it: then nothing was written. [`Error::Io`] poisons the log.
    pub fn repair(&self, hole: &Hole, entries: &[Bytes]) -> Result<Option<Hole>> {
        let shared = self.shared();
        let _no_cut = self.inner.base.lock();
        shared.poison.check()?;
        let malformed = |what| Error::Malformed { what };
        if !self.holes().iter().any(|other| other.is_at(hole)) {
            return Err(malformed("there is no such hole (any more)".to_owned()));
        }
        let mut last = match hole.first_index {
            first if first == self.first_index() => self.base().mark(),
            first => Some(self.mark_at(first - 1)?),
        };
        let mut headers = Vec::with_capacity(entries.len());
        for raw in entries {
            let header = verify(raw)?;
            let next = last.map_or(0, |last| last.id.index + 1);
            let place = self.place(last.map_or(0, |last| last.end), header.size.into());
            let fits = header.id.index == next
                && header.id.index < hole.next_index
                && header.prev_crc == last.map_or(0, |last| last.crc)
                && header.id.term >= last.map_or(0, |last| last.id.term)
                && header.position == place
                && header.end() <= hole.end;
            if !fits {
                let what = format!("entry {} is not what is missing: {header:?}", header.id);
                return Err(malformed(what));
            }
            last = Some(Mark::of(&header));
            headers.push(header);
        }
        let next = last.map_or(0, |last| last.id.index + 1);
        let is_all = next == hole.next_index;
        let behind = self.behind(hole)?;
        if is_all && !last.is_some_and(|last| behind.fits(&last)) {
            let what = format!(
                "what stands at position {} does not continue them",
                hole.end
            );
            return Err(malformed(what));
        }
        let until = last.filter(|_| !is_all).map_or(hole.end, |last| last.end);
        self.write_anew(hole.position, until, &headers, entries)
            .map_err(|error| shared.poison.poison(error))?;
        let mut list = shared.holes.list.lock();
        list.retain(|other| !other.is_at(hole));
        if is_all {
            shared.holes.repaired.fetch_add(1, Ordering::Relaxed);
            tracing::info!(path = %hole.path.display(), first = hole.first_index,
                next = hole.next_index, "damage of the commit log is repaired");
            return Ok(None);
        }
        let mut left = hole.clone();
        left.position = until;
        left.first_index = next;
        if let Some(segment) = shared.segment(until) {
            left.path.clone_from(&segment.path);
            left.offset = until - segment.start;
        }
        join(&mut list, left.clone());
        Ok(Some(left))
    }

    /// Cuts the log before a hole, if nobody has what was in it: everything behind goes with it.
    ///
    /// # Errors
    /// [`Error::Malformed`] when there is no such hole; as
    /// [`truncate_after`](Self::truncate_after).
    pub fn truncate_hole(&self, hole: &Hole) -> Result<()> {
        if !self.holes().iter().any(|other| other.is_at(hole)) {
            let what = "there is no such hole (any more)".to_owned();
            return Err(Error::Malformed { what });
        }
        self.truncate_after(hole.first_index.checked_sub(1))
    }

    /// What the entries of a hole have to lead to.
    fn behind(&self, hole: &Hole) -> Result<Behind> {
        let index = self.shared().index.read();
        if let Some(last) = index.last.filter(|last| last.end == hole.end) {
            return Ok(Behind::Last(last));
        }
        drop(index);
        let next = self.read(hole.next_index, hole.next_index + 1, None)?;
        let header = next.first().and_then(|next| Header::decode(&next.raw).ok());
        header.map(Behind::Next).ok_or_else(|| hole.error())
    }

    fn write_anew(&self, from: u64, until: u64, headers: &[Header], raws: &[Bytes]) -> Result<()> {
        let shared = self.shared();
        let size = shared.options.segment_bytes;
        for start in (from / size * size..until).step_by(size as usize) {
            let Some(segment) = shared.segment(start) else {
                continue;
            };
            let mut at = from.max(start);
            let end = until.min(segment.end());
            for (header, raw) in headers.iter().zip(raws) {
                if !(at..end).contains(&header.position) {
                    continue;
                }
                segment.write(&[raw], header.position - start)?;
                if header.position == start {
                    segment.set_first_index(Some(header.id.index));
                }
                at = header.end();
            }
            if at < end {
                segment.write_blank(at - start)?;
            }
            segment.sync()?;
            // They count from the first index.
            segment.anchors.lock().clear();
            segment.set_time_ms(None);
            if segment.end() <= shared.flusher.flushed() {
                segment.close_file();
            }
        }
        Ok(())
    }
}

enum Behind {
    Next(Header),
    /// Nothing, but the last entry was known.
    Last(Mark),
}

impl Behind {
    fn fits(&self, last: &Mark) -> bool {
        match self {
            Behind::Next(next) => before(next)
                .is_some_and(|before| before.crc == last.crc && before.id.index == last.id.index),
            Behind::Last(known) => known == last,
        }
    }
}
