//! One consume queue: 20-byte units in blocks of 256.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | physical offset of the record |
//! | 8 | 4 | size of the record |
//! | 12 | 8 | tags code |
//!
//! The last, partial block is the tail. Full blocks stay in memory until they are in the database.
//! A tail that nobody appends to leaves memory too, once it is there.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit {
    /// Position of the record in the commit log.
    pub physical_offset: u64,
    /// Bytes of the record.
    pub size: u32,
    /// Hash of the message's tags; 0 without tags.
    pub tags_code: i64,
}

impl Unit {
    fn encode(&self) -> [u8; UNIT] {
        let mut out = [0; UNIT];
        let (physical_offset, rest) = out.split_at_mut(8);
        let (size, tags_code) = rest.split_at_mut(4);
        physical_offset.copy_from_slice(&self.physical_offset.to_be_bytes());
        size.copy_from_slice(&self.size.to_be_bytes());
        tags_code.copy_from_slice(&self.tags_code.to_be_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Unit> {
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

/// Appends the units `first..first + count` of a block to `out`; false when it has fewer.
pub(crate) fn units_of_block(block: &[u8], first: u64, count: u64, out: &mut Vec<Unit>) -> bool {
    let from = first as usize * UNIT;
    let bytes = block.get(from..from + count as usize * UNIT);
    out.extend(
        bytes
            .into_iter()
            .flat_map(|bytes| bytes.chunks_exact(UNIT))
            .filter_map(Unit::decode),
    );
    bytes.is_some()
}

/// Which messages of a queue were applied in the current call, to group arrivals.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ArrivalMark {
    pub(crate) call: u64,
    pub(crate) nth: usize,
}

/// A queue in memory.
pub(crate) struct Queue {
    /// Key of the blocks in the database; never used again, also after the topic is deleted.
    pub(crate) id: u32,
    pub(crate) bounds: QueueBounds,
    /// Units behind the last full block; `None` while only the database has them.
    tail: Option<Arc<Vec<u8>>>,
    /// Full blocks that are not in the database yet, by number, without gaps.
    sealed: VecDeque<(u64, Arc<Vec<u8>>)>,
    /// Changed since the last cut.
    pub(crate) dirty: bool,
    pub(crate) arrival: ArrivalMark,
}

/// What the database has to be given of a queue.
pub(crate) struct QueueCut {
    pub(crate) id: u32,
    pub(crate) bounds: QueueBounds,
    pub(crate) blocks: Vec<(u64, Arc<Vec<u8>>)>,
}

impl Queue {
    /// A queue as the database knows it.
    pub(crate) fn stored(id: u32, bounds: QueueBounds) -> Queue {
        Queue {
            id,
            bounds,
            tail: None,
            sealed: VecDeque::new(),
            dirty: false,
            arrival: ArrivalMark::default(),
        }
    }

    /// An empty queue.
    pub(crate) fn new(id: u32) -> Queue {
        Queue::stored(id, QueueBounds::default())
    }

    /// Whether the tail's units must be fetched before one can be added.
    pub(crate) fn needs_tail(&self) -> bool {
        self.tail.is_none() && !self.bounds.max.is_multiple_of(BLOCK_UNITS)
    }

    /// Number of the tail's block.
    pub(crate) fn tail_block(&self) -> u64 {
        self.bounds.max / BLOCK_UNITS
    }

    /// Puts the fetched tail in place; false when it has not as many units as the queue says.
    pub(crate) fn set_tail(&mut self, mut units: Vec<u8>) -> bool {
        let size = (self.bounds.max % BLOCK_UNITS) as usize * UNIT;
        if units.len() < size {
            return false;
        }
        units.truncate(size);
        self.tail = Some(Arc::new(units));
        true
    }

    /// Adds a unit. The tail must be in memory. Returns the bytes by which memory grew when a
    /// block was sealed.
    pub(crate) fn push(&mut self, unit: Unit) -> usize {
        let tail = self
            .tail
            .get_or_insert_with(|| Arc::new(Vec::with_capacity(4 * UNIT)));
        // Copies only while a persist still holds the block.
        Arc::make_mut(tail).extend_from_slice(&unit.encode());
        let block = self.bounds.max / BLOCK_UNITS;
        self.bounds.max += 1;
        if !self.bounds.max.is_multiple_of(BLOCK_UNITS) {
            return 0;
        }
        self.tail.take().map_or(0, |full| {
            let size = full.len();
            self.sealed.push_back((block, full));
            size
        })
    }

    /// Copies the units of `from..end` that are in memory; returns the offset of the first of
    /// them, `end` if there is none. The rest is in the database.
    pub(crate) fn units_in_memory(&self, from: u64, end: u64, out: &mut Vec<Unit>) -> u64 {
        let tail_begin = self.tail_block() * BLOCK_UNITS;
        let memory_begin = match (self.sealed.front(), &self.tail) {
            (Some((block, _)), _) => block * BLOCK_UNITS,
            (None, Some(_)) => tail_begin,
            (None, None) => return end,
        };
        let first = from.max(memory_begin);
        let mut at = first;
        while at < end {
            let (block, within) = (at / BLOCK_UNITS, at % BLOCK_UNITS);
            let count = (BLOCK_UNITS - within).min(end - at);
            let bytes = if at >= tail_begin {
                self.tail.as_ref()
            } else {
                let nth = block.checked_sub(memory_begin / BLOCK_UNITS);
                nth.and_then(|nth| self.sealed.get(nth as usize))
                    .map(|(_, bytes)| bytes)
            };
            let Some(bytes) = bytes else { break };
            units_of_block(bytes, within, count, out);
            at += count;
        }
        first.min(end)
    }

    /// What changed since the last cut; the queue counts as clean then.
    pub(crate) fn cut(&mut self) -> QueueCut {
        self.dirty = false;
        let mut blocks: Vec<_> = self.sealed.iter().cloned().collect();
        if let Some(tail) = self.tail.as_ref().filter(|tail| !tail.is_empty()) {
            blocks.push((self.tail_block(), tail.clone()));
        }
        QueueCut {
            id: self.id,
            bounds: self.bounds,
            blocks,
        }
    }

    /// Forgets full blocks that a cut up to `max` brought into the database; returns their bytes.
    pub(crate) fn persisted(&mut self, max: u64) -> usize {
        let mut freed = 0;
        while let Some((block, bytes)) = self.sealed.front()
            && (block + 1) * BLOCK_UNITS <= max
        {
            freed += bytes.len();
            self.sealed.pop_front();
        }
        freed
    }

    /// Forgets the tail of a queue that has not changed for a while; it is in the database.
    pub(crate) fn evict_tail(&mut self) {
        if !self.dirty && self.sealed.is_empty() {
            self.tail = None;
        }
    }
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

    /// Every unit is found in memory or in what was cut, through sealing, persisting, eviction.
    #[test]
    fn units_move_from_memory_to_the_database() {
        let mut queue = Queue::new(7);
        for n in 0..600 {
            queue.dirty = true;
            queue.push(unit(n));
        }
        let mut units = Vec::new();
        assert_eq!(queue.units_in_memory(250, 600, &mut units), 250);
        assert_eq!(units, (250..600).map(unit).collect::<Vec<_>>());

        let cut = queue.cut();
        assert_eq!(
            cut.blocks
                .iter()
                .map(|(block, b)| (*block, b.len() / UNIT))
                .collect::<Vec<_>>(),
            [(0, 256), (1, 256), (2, 88)]
        );
        queue.dirty = true;
        queue.push(unit(600));
        assert_eq!(
            cut.blocks[2].1.len() / UNIT,
            88,
            "a cut does not change any more"
        );
        assert_eq!(queue.persisted(cut.bounds.max), 2 * 256 * UNIT);
        units.clear();
        assert_eq!(queue.units_in_memory(250, 601, &mut units), 512);
        assert_eq!(units.len(), 89);

        queue.evict_tail();
        assert!(!queue.needs_tail(), "a changed tail stays");
        let cut = queue.cut();
        queue.evict_tail();
        assert!(queue.needs_tail());
        units.clear();
        assert_eq!(queue.units_in_memory(0, 601, &mut units), 601);
        assert!(queue.set_tail(cut.blocks[0].1.to_vec()));
        queue.push(unit(601));
        assert_eq!(queue.units_in_memory(600, 602, &mut units), 600);
        assert_eq!(units, [unit(600), unit(601)]);
    }
}
