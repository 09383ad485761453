//! Walking over entries by `pread`, checking everything, and going on behind damage.
//!
//! After bytes that do not continue the chain, the walk looks for the next entry that stands where
//! it says it stands, is whole, and can come later in this log. What lies between is a gap. When
//! there is none the log ends: bytes left over from a torn write, zeros, or an entry of an earlier
//! life of the place, which is whole but does not continue the chain.

use std::sync::Arc;

use crate::entry::{HEADER, Header, LogId};
use crate::error::{Error, Result};

use super::Mark;
use super::holes::Hole;
use super::reader::Reader;
use super::segment::{At, Segment};

/// What a walk comes to.
pub(super) enum Step {
    /// The next entry.
    Entry(Header),
    /// Damage; the walk goes on behind it.
    Gap(Gap),
    /// The end of the log.
    End(End),
}

/// Why a walk ends.
#[derive(Debug)]
pub(super) struct End {
    /// What stands there if it is neither zeros nor the end of the last segment.
    pub(super) what: Option<String>,
    /// Where the next entry was looked for.
    pub(super) position: u64,
}

impl End {
    /// The end as a gap up to something that is known to follow.
    pub(super) fn gap(self, first_index: u64, end: u64, next_index: u64) -> Gap {
        Gap {
            position: self.position,
            end,
            first_index,
            next_index,
            what: self.what.unwrap_or_else(only_zeros),
        }
    }
}

fn only_zeros() -> String {
    "there are only zeros".to_owned()
}

/// Bytes that should hold entries, or the blank end of a segment, and do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gap {
    /// Where the first missing entry was looked for.
    pub(super) position: u64,
    /// Position of the next good entry.
    pub(super) end: u64,
    /// Index of the first missing entry.
    pub(super) first_index: u64,
    /// Index of the next good entry; the same when only a blank end is damaged.
    pub(super) next_index: u64,
    pub(super) what: String,
}

pub(super) struct Walk {
    /// Without gaps.
    segments: Vec<Arc<Segment>>,
    /// Number of the segment the reader is in.
    nth: usize,
    reader: Reader,
    position: u64,
    /// The entry before the position, in the log or removed from it.
    last: Option<Mark>,
    /// Nothing at or behind this position is looked at.
    until: u64,
    /// Read from the device, so many bytes at once.
    cold: Option<usize>,
    /// Holes that were found before: they end where they ended then, if they still can.
    holes: Vec<Hole>,
}

impl Walk {
    /// Begins at `position`, behind the entry `last`.
    pub(super) fn new(
        segments: Vec<Arc<Segment>>,
        position: u64,
        last: Option<Mark>,
        until: u64,
    ) -> Result<Walk> {
        let first = segments.first().map_or(0, |first| first.start);
        let size = segments.first().map_or(1, |first| first.size);
        let nth = usize::try_from(position.saturating_sub(first) / size).unwrap_or(usize::MAX);
        let nth = nth.min(segments.len().saturating_sub(1));
        let segment = segments.get(nth).cloned();
        let reader = Reader::new(segment.expect("a log has at least one segment"))?;
        Ok(Walk {
            segments,
            nth,
            reader,
            position,
            last,
            until,
            cold: None,
            holes: Vec::new(),
        })
    }

    /// Begins at the start of the nth segment, or of the nearest one before it whose first entry
    /// is whole; at the base, behind `base`, if there is none.
    pub(super) fn at_segment(
        segments: Vec<Arc<Segment>>,
        nth: usize,
        base: Option<Mark>,
        until: u64,
    ) -> Result<Walk> {
        for nth in (1..=nth).rev() {
            let Some(segment) = segments.get(nth) else {
                continue;
            };
            let start = segment.start;
            if let Ok(header) = Reader::new(segment.clone())?.entry(start) {
                return Self::new(segments, start, before(&header), until);
            }
        }
        let start = segments.first().map_or(0, |first| first.start);
        Self::new(segments, start, base, until)
    }

    /// Reads from the device, so many bytes at once, and not what the page cache still holds.
    pub(super) fn cold(&mut self, chunk: usize) {
        self.cold = Some(chunk);
        self.reader.cold(chunk);
    }

    pub(super) fn know(&mut self, holes: Vec<Hole>) {
        self.holes = holes;
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn last(&self) -> Option<Mark> {
        self.last
    }

    /// The next entry, gap, or the end.
    ///
    /// # Errors
    /// [`Error::Io`]. Bytes the device cannot read are damage when the log goes on behind them,
    /// and an error where it would end there.
    pub(super) fn step(&mut self) -> Result<Step> {
        if self.position >= self.until {
            let position = self.position;
            return Ok(Step::End(End {
                what: None,
                position,
            }));
        }
        let start = self.position;
        let home = self.nth;
        match self.next_entry()? {
            Ok(header) => {
                self.reader.unreadable = None;
                let mark = Mark::of(&header);
                self.last = Some(mark);
                self.position = mark.end;
                Ok(Step::Entry(header))
            }
            Err(what) => {
                let unreadable = self.reader.unreadable.take();
                let (found, failed) = self.resync()?;
                let Some(found) = found else {
                    if let Some(error) = unreadable.or(failed) {
                        return Err(error);
                    }
                    let position = self.position;
                    self.enter(home)?;
                    self.position = start;
                    return Ok(Step::End(End { what, position }));
                };
                let gap = Gap {
                    position: self.position,
                    end: found.position,
                    first_index: self.next_index(),
                    next_index: found.id.index,
                    what: what.unwrap_or_else(only_zeros),
                };
                let size = self.reader.segment.size;
                let first = self.segments.first().map_or(0, |first| first.start);
                self.enter(((found.position - first) / size) as usize)?;
                self.position = found.position;
                self.last = before(&found);
                Ok(Step::Gap(gap))
            }
        }
    }

    fn next_index(&self) -> u64 {
        self.last.map_or(0, |last| last.id.index + 1)
    }

    fn enter(&mut self, nth: usize) -> Result<()> {
        if nth != self.nth
            && let Some(segment) = self.segments.get(nth)
        {
            self.reader = self.reader_of(segment)?;
            self.nth = nth;
        }
        Ok(())
    }

    fn reader_of(&self, segment: &Arc<Segment>) -> Result<Reader> {
        let mut reader = Reader::new(segment.clone())?;
        if let Some(chunk) = self.cold {
            reader.cold(chunk);
        }
        Ok(reader)
    }

    /// The entry that continues the chain, at the position or at the start of the next segment,
    /// to which the walk moves then. `Err` says what is wrong; nothing when there are zeros.
    fn next_entry(&mut self) -> Result<std::result::Result<Header, Option<String>>> {
        let room = self.reader.segment.end().saturating_sub(self.position);
        if room < 8 || matches!(self.reader.at(self.position)?, At::End) {
            let Some(next) = self.segments.get(self.nth + 1) else {
                return Ok(Err(None));
            };
            if !self.reader.is_zero(self.position + room.min(8))? {
                let what = "there is something in the blank end of the segment";
                return Ok(Err(Some(what.to_owned())));
            }
            self.position = next.start;
            self.enter(self.nth + 1)?;
            if self.position >= self.until {
                return Ok(Err(None));
            }
        }
        if self.reader.is_blank(self.position)? {
            return Ok(Err(None));
        }
        Ok(self.reader.entry(self.position).map_err(Some).and_then(|header| {
            let prev_crc = self.last.map_or(0, |last| last.crc);
            let term = self.last.map_or(0, |last| last.id.term);
            if header.id.index == self.next_index()
                && header.prev_crc == prev_crc
                && header.id.term >= term
            {
                return Ok(header);
            }
            Err(Some(format!(
                "entry {} with previous CRC {:#010x} does not follow {:?} with CRC {prev_crc:#010x}",
                header.id,
                header.prev_crc,
                self.last.map(|last| last.id)
            )))
        }))
    }

    /// The next entry behind the position that can be a later one of this log, and what could not
    /// be read.
    ///
    /// A client may have written something into a message that looks like an entry. So one that
    /// is followed by its successor is preferred; it is the damaged entry's own successor if the
    /// header of that one still says where it is.
    fn resync(&self) -> Result<(Option<Header>, Option<Error>)> {
        if let Some(known) = self.known_end()? {
            return Ok((Some(known), None));
        }
        let mut lone = None;
        let mut failed = None;
        // CRC of a whole entry that is left over from an earlier life: what follows it is, too.
        let mut stale = None;
        let mut from = self.position;
        for (nth, segment) in self.segments.iter().enumerate().skip(self.nth) {
            if segment.start >= self.until {
                break;
            }
            let mut reader = self.reader_of(segment)?;
            if nth == self.nth
                && let Ok(damaged) = reader.header(from)
                && damaged.id.index == self.next_index()
                && damaged.prev_crc == self.last.map_or(0, |last| last.crc)
                && reader.entry(from).is_err()
                && let Ok(next) = self.successor(&mut reader, nth, &damaged)?
                && next.position < self.until
            {
                return Ok((Some(next), None));
            }
            from = from.max(segment.start);
            while let Some(at) = reader.find_magic(from, segment.end().min(self.until))? {
                from = at + 1;
                let Ok(header) = reader.entry(at) else {
                    continue;
                };
                if !self.can_follow(&header) || stale == Some(header.prev_crc) {
                    stale = Some(header.crc);
                    continue;
                }
                match self.successor(&mut reader, nth, &header)? {
                    Ok(next) if next.prev_crc == header.crc => return Ok((Some(header), None)),
                    _ => lone = lone.or(Some(header)),
                }
            }
            failed = failed.or(reader.unreadable);
        }
        Ok((lone, failed))
    }

    /// The entry at the end of a hole that is known.
    fn known_end(&self) -> Result<Option<Header>> {
        let here = (self.position, self.next_index());
        let known = |hole: &&Hole| (hole.position, hole.first_index) == here;
        let Some(hole) = self.holes.iter().find(known) else {
            return Ok(None);
        };
        let holds = |s: &&Arc<Segment>| (s.start..s.end()).contains(&hole.end);
        let Some(segment) = self.segments.iter().find(holds) else {
            return Ok(None);
        };
        let header = self.reader_of(segment)?.entry(hole.end);
        let fits = |h: &Header| h.id.index == hole.next_index && h.position < self.until;
        Ok(header.ok().filter(fits))
    }

    /// The entry right behind another one, if it is whole and has the next index.
    fn successor(
        &self,
        reader: &mut Reader,
        nth: usize,
        header: &Header,
    ) -> Result<std::result::Result<Header, ()>> {
        let fits =
            |next: &Header| next.id.index == header.id.index + 1 && next.id.term >= header.id.term;
        let end = header.end();
        let room = reader.segment.end().saturating_sub(end);
        if room < 8 || matches!(reader.at(end)?, At::End) {
            let Some(segment) = self.segments.get(nth + 1) else {
                return Ok(Err(()));
            };
            let next = self.reader_of(segment)?.entry(segment.start);
            return Ok(next.ok().filter(fits).ok_or(()));
        }
        Ok(reader.entry(end).ok().filter(fits).ok_or(()))
    }

    /// Whether a whole entry behind the position can be a later one of this log.
    fn can_follow(&self, header: &Header) -> bool {
        let term = self.last.map_or(0, |last| last.id.term);
        let Some(missing) = header.id.index.checked_sub(self.next_index()) else {
            return false;
        };
        if header.id.term < term || header.position < self.position {
            return false;
        }
        if missing == 0 {
            // Only a blank end lies between, or it is left over from an earlier life.
            let Some(last) = self.last else { return false };
            let is_first = header.position == self.reader.segment.end();
            return is_first && last.crc == header.prev_crc;
        }
        (header.position - self.position) / HEADER as u64 >= missing
    }
}

/// What an entry says about the one before it.
pub(super) fn before(header: &Header) -> Option<Mark> {
    let index = header.id.index.checked_sub(1)?;
    Some(Mark {
        id: LogId::new(header.id.term, index),
        position: header.position,
        end: header.position,
        crc: header.prev_crc,
    })
}
