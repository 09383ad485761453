//! One consume queue: 20-byte units in blocks of 256.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | physical offset of the record |
//! | 8 | 4 | size of the record |
//! | 12 | 8 | tags code |
//!
//! In memory are the units that the database does not have yet, and for a while those it has just
//! been given: most consumers ask for nothing else. A queue that nobody appends to has none.
//!
//! RocketMQ: `ConsumeQueue`.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::entry::{u32_at, u64_at};

/// Bytes of a unit.
pub(crate) const UNIT: usize = 20;
/// Units of a block.
pub(crate) const BLOCK_UNITS: u64 = 256;

/// Where a message is: an element of a consume queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unit {
    /// Position of the record in the commit log.
    pub physical_offset: u64,
    /// Bytes of the record.
    pub size: u32,
    /// Hash of the message's tags; 0 without tags.
    pub tags_code: i64,
}

impl Unit {
    pub(crate) fn encode(&self) -> [u8; UNIT] {
        let mut out = [0; UNIT];
        let (physical_offset, rest) = out.split_at_mut(8);
        let (size, tags_code) = rest.split_at_mut(4);
        physical_offset.copy_from_slice(&self.physical_offset.to_be_bytes());
        size.copy_from_slice(&self.size.to_be_bytes());
        tags_code.copy_from_slice(&self.tags_code.to_be_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Unit> {
        Some(Unit {
            physical_offset: u64_at(bytes, 0)?,
            size: u32_at(bytes, 8)?,
            tags_code: u64_at(bytes, 12)?.cast_signed(),
        })
    }
}

/// First and last offsets of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueBounds {
    /// Offset of the first message that is there.
    pub min: u64,
    /// Offset after the last message.
    pub max: u64,
}

/// Which messages of a queue were applied in the current call, to group arrivals.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ArrivalMark {
    pub(crate) call: u64,
    pub(crate) nth: usize,
}

/// Units of one block that came between two cuts.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    /// Queue offset of the first one.
    pub(crate) first: u64,
    pub(crate) units: Arc<Vec<u8>>,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.first + (self.units.len() / UNIT) as u64
    }

    fn unit(&self, offset: u64) -> Option<Unit> {
        let nth = usize::try_from(offset.checked_sub(self.first)?).ok()?;
        Unit::decode(self.units.get(nth * UNIT..)?)
    }
}

/// A queue in memory.
pub(crate) struct Queue {
    /// Key of the blocks in the database; never used again, also after the topic is deleted.
    pub(crate) id: u32,
    /// `min` may be too low for the beginning of the log: see `trimmed`.
    pub(crate) bounds: QueueBounds,
    /// `bounds.min` is right for this beginning of the log.
    pub(crate) trimmed: u64,
    /// Ascending, without gaps, up to `bounds.max`.
    chunks: VecDeque<Chunk>,
    /// Units from here on are in no cut yet. `≤ bounds.max`.
    cut_to: u64,
    /// Made without a message, and has none so far: it may begin anywhere.
    pub(crate) unused: bool,
    /// Changed since the last cut.
    pub(crate) dirty: bool,
    pub(crate) arrival: ArrivalMark,
}

/// What the database has to be given of a queue.
pub(crate) struct QueueCut {
    pub(crate) id: u32,
    pub(crate) bounds: QueueBounds,
    pub(crate) unused: bool,
    pub(crate) chunks: Vec<Chunk>,
}

impl Queue {
    /// A queue without units in memory.
    pub(crate) fn new(id: u32, bounds: QueueBounds, trimmed: u64) -> Queue {
        Queue {
            id,
            bounds,
            trimmed,
            chunks: VecDeque::new(),
            cut_to: bounds.max,
            unused: false,
            dirty: false,
            arrival: ArrivalMark::default(),
        }
    }

    /// Lets a queue that never had a message begin at an offset.
    pub(crate) fn begin(&mut self, offset: u64) {
        self.bounds = QueueBounds {
            min: offset,
            max: offset,
        };
        self.cut_to = offset;
        self.unused = true;
    }

    /// Adds a unit.
    pub(crate) fn push(&mut self, unit: Unit) {
        let at = self.bounds.max;
        self.bounds.max += 1;
        self.unused = false;
        // What a cut holds does not change any more.
        let last = self.chunks.back_mut().filter(|last| {
            last.first >= self.cut_to && last.first / BLOCK_UNITS == at / BLOCK_UNITS
        });
        if let Some(units) = last.and_then(|last| Arc::get_mut(&mut last.units)) {
            units.extend_from_slice(&unit.encode());
            return;
        }
        self.chunks.push_back(Chunk {
            first: at,
            units: Arc::new(unit.encode().to_vec()),
        });
    }

    /// Units that are in no cut yet.
    pub(crate) fn uncut(&self) -> u64 {
        self.bounds.max - self.cut_to
    }

    /// Copies the units of `from..end` that are in memory; returns the offset of the first of
    /// them, `end` if there is none. The rest is in the database.
    pub(crate) fn units_in_memory(&self, from: u64, end: u64, out: &mut Vec<Unit>) -> u64 {
        let Some(begin) = self.chunks.front().map(|chunk| chunk.first) else {
            return end;
        };
        let first = from.max(begin).min(end);
        let nth = self.chunks.partition_point(|chunk| chunk.end() <= first);
        for chunk in self.chunks.range(nth..) {
            if chunk.first >= end {
                break;
            }
            let skip = first.saturating_sub(chunk.first) as usize;
            let units = chunk.units.chunks_exact(UNIT).filter_map(Unit::decode);
            let until = chunk.end().min(end) - chunk.first;
            out.extend(units.take(until as usize).skip(skip));
        }
        first
    }

    /// Looks in memory for the first unit whose record is at or above a position.
    pub(crate) fn find_in_memory(&self, position: u64) -> Found {
        let below = |chunk: &Chunk| {
            let last = chunk.unit(chunk.end() - 1);
            last.is_some_and(|last| last.physical_offset < position)
        };
        let nth = self.chunks.partition_point(below);
        let Some(chunk) = self.chunks.get(nth) else {
            return match self.chunks.front() {
                Some(_) => Found::At(self.bounds.max),
                None => Found::Below(self.bounds.max),
            };
        };
        let units = chunk.units.chunks_exact(UNIT).filter_map(Unit::decode);
        let before = units
            .take_while(|unit| unit.physical_offset < position)
            .count() as u64;
        if (nth, before) == (0, 0) {
            return Found::Below(chunk.first);
        }
        Found::At(chunk.first + before)
    }

    /// What changed since the last cut; the queue counts as clean then.
    pub(crate) fn cut(&mut self) -> QueueCut {
        self.dirty = false;
        let first = std::mem::replace(&mut self.cut_to, self.bounds.max);
        let old = self.chunks.partition_point(|chunk| chunk.first < first);
        QueueCut {
            id: self.id,
            bounds: self.bounds,
            unused: self.unused,
            chunks: self.chunks.range(old..).cloned().collect(),
        }
    }

    /// Forgets units below an offset up to which the database has them.
    pub(crate) fn forget(&mut self, below: u64) {
        while self.chunks.front().is_some_and(|c| c.end() <= below) {
            self.chunks.pop_front();
        }
        if self.chunks.is_empty() {
            // Gives its memory back too.
            self.chunks = VecDeque::new();
        }
    }
}

/// Where the first unit at or above a position is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// At this queue offset, or nowhere if that is the end.
    At(u64),
    /// At this queue offset, or below it in the database.
    Below(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(n: u64) -> Unit {
        Unit {
            physical_offset: n * 1000,
            size: n as u32,
            tags_code: -(n as i64),
        }
    }

    fn units(queue: &Queue, from: u64, end: u64) -> (u64, Vec<Unit>) {
        let mut out = Vec::new();
        let first = queue.units_in_memory(from, end, &mut out);
        (first, out)
    }

    /// Every unit is found in memory or in what was cut, through cuts and forgetting.
    #[test]
    fn units_move_from_memory_to_the_database() {
        let mut queue = Queue::new(7, QueueBounds { min: 100, max: 100 }, 0);
        for n in 100..600 {
            queue.push(unit(n));
        }
        assert_eq!(queue.uncut(), 500);
        let all = |range: std::ops::Range<u64>| range.map(unit).collect::<Vec<_>>();
        assert_eq!(units(&queue, 250, 600), (250, all(250..600)));
        assert_eq!(units(&queue, 110, 113), (110, all(110..113)));
        assert_eq!(units(&queue, 0, 50), (50, vec![]));

        let cut = queue.cut();
        let sizes = cut.chunks.iter().map(|c| (c.first, c.units.len() / UNIT));
        assert_eq!(
            sizes.collect::<Vec<_>>(),
            [(100, 156), (256, 256), (512, 88)]
        );
        queue.push(unit(600));
        assert_eq!(cut.chunks[2].units.len() / UNIT, 88, "a cut stays");
        drop(cut);
        queue.push(unit(601));
        let cut = queue.cut();
        assert_eq!((cut.chunks.len(), cut.chunks[0].first), (1, 600));
        assert_eq!(units(&queue, 255, 602), (255, all(255..602)));
        queue.forget(600);
        assert_eq!(units(&queue, 250, 602), (600, all(600..602)));
        queue.forget(602);
        assert_eq!(units(&queue, 250, 602), (602, vec![]));
        queue.push(unit(602));
        assert_eq!(units(&queue, 250, 603), (602, all(602..603)));
    }

    /// The first unit at or above a position, as far as memory can tell.
    #[test]
    fn positions_are_found() {
        let mut queue = Queue::new(7, QueueBounds { min: 0, max: 10 }, 0);
        assert_eq!(queue.find_in_memory(5000), Found::Below(10));
        for n in 10..600 {
            queue.push(unit(n));
        }
        assert_eq!(queue.find_in_memory(10_000), Found::Below(10));
        assert_eq!(queue.find_in_memory(10_001), Found::At(11));
        assert_eq!(queue.find_in_memory(255_001), Found::At(256));
        assert_eq!(queue.find_in_memory(300_000), Found::At(300));
        assert_eq!(queue.find_in_memory(599_001), Found::At(600));
    }
}
