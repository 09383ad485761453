//! Damage in the log: finding its bounds, and keeping it from readers.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, Result};

use super::reader::{Reader, SCAN_BACK};
use super::segment::Segment;
use super::walk::{Gap, Step, Walk};
use super::{CommitLog, Shared};

/// A part of the log that is damaged or missing. What stands before it and behind it is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hole {
    /// The file in which it begins.
    pub path: PathBuf,
    /// Where in the file.
    pub offset: u64,
    /// Position in the log.
    pub position: u64,
    /// Position of the next good entry, or the end of the log.
    pub end: u64,
    /// Index of the first entry in it.
    pub first_index: u64,
    /// Index of the first entry behind it.
    pub next_index: u64,
    /// Whether it is known to have been flushed. If not, a power cut may have taken it before
    /// anybody could rely on it.
    pub flushed: bool,
    /// What is wrong.
    pub what: String,
}

impl Hole {
    /// Only the blank end of a segment is damaged, which needs nobody's help.
    pub(super) fn is_blank(&self) -> bool {
        self.first_index == self.next_index
    }

    pub(super) fn is_at(&self, other: &Hole) -> bool {
        (self.position, self.end) == (other.position, other.end)
    }

    /// What a reader of the entries is told.
    pub fn error(&self) -> Error {
        let (first, next) = (self.first_index, self.next_index);
        Error::Corrupt {
            path: self.path.clone(),
            offset: self.offset,
            what: format!("entries {first}..{next} are damaged: {}", self.what),
        }
    }
}

type Listener = Arc<dyn Fn(&Hole) + Send + Sync>;

/// The holes of a log that are known and not repaired.
#[derive(Default)]
pub(super) struct Holes {
    /// Apart from each other, ascending.
    pub(super) list: Mutex<Vec<Hole>>,
    listeners: Mutex<Vec<Listener>>,
    /// How many were repaired since the start.
    pub(super) repaired: AtomicU64,
    /// Counts truncations: what was looked for across one is not believed.
    pub(super) generation: AtomicU64,
}

/// Puts a hole among others, joined with those that touch it. False when it is nothing new.
pub(super) fn join(list: &mut Vec<Hole>, mut hole: Hole) -> bool {
    let covers = |other: &Hole| other.position <= hole.position && hole.end <= other.end;
    if list.iter().any(covers) {
        return false;
    }
    list.retain(|other| {
        let apart = other.end < hole.position || hole.end < other.position;
        if !apart {
            if other.position < hole.position {
                hole.path.clone_from(&other.path);
                hole.offset = other.offset;
                hole.position = other.position;
                hole.first_index = other.first_index;
                hole.what.clone_from(&other.what);
            }
            if other.end > hole.end {
                hole.end = other.end;
                hole.next_index = other.next_index;
            }
            hole.flushed |= other.flushed;
        }
        apart
    });
    let at = list.partition_point(|other| other.position < hole.position);
    list.insert(at, hole);
    true
}

impl Holes {
    pub(super) fn new(list: Vec<Hole>) -> Self {
        Holes {
            list: Mutex::new(list),
            ..Holes::default()
        }
    }

    pub(super) fn repaired(&self) -> u64 {
        self.repaired.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self) -> usize {
        self.list.lock().len()
    }

    pub(super) fn all(&self) -> Vec<Hole> {
        self.list.lock().clone()
    }

    /// The hole around a position.
    pub(super) fn at(&self, position: u64) -> Option<Hole> {
        let list = self.list.lock();
        let holds = |hole: &&Hole| (hole.position..hole.end).contains(&position);
        list.iter().find(holds).cloned()
    }

    /// The last hole that ends behind `from` and at or before `to`.
    pub(super) fn ending_in(&self, from: u64, to: u64) -> Option<Hole> {
        let list = self.list.lock();
        let fits = |hole: &&Hole| hole.end > from && hole.end <= to;
        list.iter().rev().find(fits).cloned()
    }

    /// The last hole that begins at or before `to` and ends behind `from`.
    pub(super) fn begun(&self, from: u64, to: u64) -> Option<Hole> {
        let list = self.list.lock();
        let fits = |hole: &&Hole| hole.position <= to && hole.end > from;
        list.iter().rev().find(fits).cloned()
    }

    /// Whether an entry lies in a hole.
    pub(super) fn has(&self, index: u64) -> bool {
        let holds = |hole: &Hole| (hole.first_index..hole.next_index).contains(&index);
        self.list.lock().iter().any(holds)
    }

    /// The last hole that ends in a range and before or at an entry.
    pub(super) fn last_of(&self, range: std::ops::Range<u64>, index: u64) -> Option<Hole> {
        let list = self.list.lock();
        let fits = |hole: &&Hole| {
            range.start < hole.end && hole.end < range.end && hole.next_index <= index
        };
        list.iter().rev().find(fits).cloned()
    }

    /// Forgets holes outside of `from..to`.
    pub(super) fn clip(&self, from: u64, to: u64) {
        self.list
            .lock()
            .retain(|hole| hole.position >= from && hole.end <= to);
    }

    /// Called before a truncation zeros what it cuts off.
    pub(super) fn cut(&self) {
        let _list = self.list.lock();
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Adds holes that were found in such a generation, and tells of those that are new. Blank
    /// ends of segments are written anew at once.
    fn note(&self, shared: &Shared, generation: u64, found: &[Hole]) -> Result<()> {
        let mut news = found.to_vec();
        {
            let mut list = self.list.lock();
            if self.generation.load(Ordering::Acquire) != generation {
                return Ok(());
            }
            for blank in found.iter().filter(|hole| hole.is_blank()) {
                if let Some(segment) = shared.segment(blank.position) {
                    let write = segment.write_blank(blank.offset);
                    write.map_err(|error| shared.poison.poison(error))?;
                }
            }
            news.retain(|hole| !hole.is_blank() && join(&mut list, hole.clone()));
        }
        let listeners = self.listeners.lock().clone();
        for hole in &news {
            tracing::error!(path = %hole.path.display(), offset = hole.offset, first = hole.first_index,
                next = hole.next_index, what = hole.what, "commit log is damaged");
            for listener in &listeners {
                listener(hole);
            }
        }
        Ok(())
    }
}

impl CommitLog {
    /// Damage found when the log was opened, by a reader or by [`scrub`](Self::scrub), and not
    /// repaired yet; oldest first.
    pub fn holes(&self) -> Vec<Hole> {
        self.shared().holes.all()
    }

    /// Calls `listener` for each hole there is, and for each one that is found later or grows. It
    /// runs on the thread that met the damage, must not block and must not call the log.
    pub fn on_hole(&self, listener: impl Fn(&Hole) + Send + Sync + 'static) {
        let holes = &self.shared().holes;
        let mut listeners = holes.listeners.lock();
        for hole in holes.all() {
            listener(&hole);
        }
        listeners.push(Arc::new(listener));
    }
}

impl Shared {
    /// Looks for all damage of a segment, after a reader met something wrong there: a walk from its
    /// first entry, as far as that is good. Returns all that it has.
    pub(super) fn examine(&self, segment: &Arc<Segment>) -> Result<Vec<Hole>> {
        let generation = self.holes.generation.load(Ordering::Acquire);
        let (base, end, next) = {
            let index = self.index.read();
            (index.base, index.end(), index.next())
        };
        let segments: Vec<_> = self.segments.read().iter().cloned().collect();
        let Some(nth) = segments.iter().position(|s| s.start == segment.start) else {
            return Ok(Vec::new());
        };
        let mut walk = Walk::at_segment(segments, nth, base.mark(), end)?;
        walk.know(self.holes.all());
        let mut found: Vec<Hole> = Vec::new();
        let stop = segment.end().min(end);
        while walk.position() < stop {
            let gap = match walk.step()? {
                Step::Entry(_) => continue,
                Step::Gap(gap) => gap,
                Step::End(_) if walk.position() >= end => break,
                Step::End(at) => {
                    let first = walk.last().map_or(0, |last| last.id.index + 1);
                    at.gap(first, end, next)
                }
            };
            let ends = gap.end >= end;
            found.extend(self.hole(gap));
            if ends {
                break;
            }
        }
        segment.set_verified(stop, |from, to| {
            found
                .iter()
                .all(|hole| hole.end <= from || hole.position >= to)
        });
        self.holes.note(self, generation, &found)?;
        Ok(found)
    }

    fn hole(&self, gap: Gap) -> Option<Hole> {
        let segment = self.segment(gap.position)?;
        let flushed = gap.end <= self.flusher.flushed();
        Some(hole_of(&segment, gap, flushed))
    }

    /// The error for an entry that cannot be read: with all damage of its segment noted.
    pub(super) fn damaged(&self, segment: &Arc<Segment>, position: u64, what: String) -> Error {
        if self.holes.at(position).is_none()
            && let Err(error) = self.examine(segment)
        {
            return error;
        }
        match self.holes.at(position) {
            Some(hole) => hole.error(),
            None => segment.corrupt(position.clamp(segment.start, segment.end()), what),
        }
    }

    /// Fails unless all of the entry around a position, and of those near it, is as it was
    /// written. Cheap after the first time.
    pub(super) fn check(&self, segment: &Arc<Segment>, position: u64) -> Result<()> {
        if segment.is_verified(position) {
            return Ok(());
        }
        if let Some(hole) = self.holes.at(position) {
            return Err(hole.error());
        }
        let window = segment.window(position);
        let end = self.end().min(segment.end()).min(window.end);
        let mut reader = Reader::new(segment.clone())?;
        reader.narrow(2 * SCAN_BACK as usize);
        // From the end of a hole in the window, or from what looks like an entry before it; if a
        // client made it look so, nothing fits behind it.
        let hole = self.holes.ending_in(window.start, position);
        let from = match &hole {
            Some(hole) => Some(hole.end),
            None => reader.entry_before(window.start),
        };
        let at = match from {
            Some(from) => reader.good_until(from, end),
            None => segment.start,
        };
        if at >= end {
            if hole.is_none() {
                segment.set_verified_window(position);
            }
            return Ok(());
        }
        // Good as far as it is asked for, up to a hole that is known.
        if at > position && self.holes.at(at).is_some() {
            return Ok(());
        }
        let holds = |hole: &Hole| (hole.position..hole.end).contains(&position);
        match self.examine(segment)?.into_iter().find(holds) {
            Some(hole) => Err(hole.error()),
            None => Ok(()),
        }
    }
}

/// A gap with the place of its file.
pub(super) fn hole_of(segment: &Segment, gap: Gap, flushed: bool) -> Hole {
    Hole {
        path: segment.path.clone(),
        offset: gap.position - segment.start,
        position: gap.position,
        end: gap.end,
        first_index: gap.first_index,
        next_index: gap.next_index,
        flushed,
        what: gap.what,
    }
}

#[cfg(test)]
mod tests;
