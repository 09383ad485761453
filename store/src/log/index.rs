//! Where entries are: the newest by number, older ones by anchors and a short walk.
//!
//! The ring holds the positions of the last few thousand entries. Each segment has anchors, one
//! about every 64 KiB, from which a look-up walks headers. Anchors of a segment that was there
//! before the process started are made when first needed; only so many segments keep theirs.

use std::collections::VecDeque;

use super::Mark;
use super::base::LogBase;

/// Distance of anchors in bytes: a look-up walks at most this far.
pub(crate) const ANCHOR_EVERY: u64 = 64 * 1024;
/// Entries whose exact position is kept.
pub(crate) const RING: usize = 4096;
/// Segments that keep their anchors: at 8 bytes an anchor and 1 GiB a segment, 4 MiB in all.
pub(crate) const ANCHORED_SEGMENTS: usize = 32;

/// Positions of entries of one segment, ascending. Not necessarily from its beginning: recovery
/// starts in the middle of a segment.
#[derive(Default)]
pub(crate) struct Anchors {
    /// Index less the segment's first index, offset in the segment. 32 bits do, as a segment has
    /// at most 2 GiB.
    list: Vec<(u32, u32)>,
}

impl Anchors {
    /// Notes an entry behind the last one, if it is far enough from it.
    pub(crate) fn push(&mut self, nth: u64, offset: u64) {
        let far = |&(_, last): &(u32, u32)| offset >= u64::from(last) + ANCHOR_EVERY;
        if self.list.last().is_none_or(far)
            && let (Ok(nth), Ok(offset)) = (u32::try_from(nth), u32::try_from(offset))
        {
            self.list.push((nth, offset));
        }
    }

    /// The last anchor at or before the nth entry.
    pub(crate) fn find(&self, nth: u64) -> Option<(u64, u64)> {
        let after = self.list.partition_point(|&(n, _)| u64::from(n) <= nth);
        let &(n, offset) = self.list.get(after.checked_sub(1)?)?;
        Some((n.into(), offset.into()))
    }

    /// The first anchor.
    pub(crate) fn first(&self) -> Option<(u64, u64)> {
        self.list
            .first()
            .map(|&(n, offset)| (n.into(), offset.into()))
    }

    /// Puts anchors of earlier entries in front.
    pub(crate) fn prepend(&mut self, mut earlier: Anchors) {
        earlier.list.append(&mut self.list);
        earlier.list.shrink_to_fit();
        self.list = earlier.list;
    }

    /// Drops anchors at or behind an offset.
    pub(crate) fn truncate(&mut self, offset: u64) {
        let keep = self.list.partition_point(|&(_, at)| u64::from(at) < offset);
        self.list.truncate(keep);
    }

    pub(crate) fn clear(&mut self) {
        self.list = Vec::new();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// The log's ends and the newest positions.
#[derive(Default)]
pub(crate) struct Index {
    /// The last entry.
    pub(crate) last: Option<Mark>,
    /// Where the first entry is, or the first to come.
    pub(crate) base: LogBase,
    /// Positions of the entries `last.index + 1 - ring.len() ..= last.index`.
    ring: VecDeque<u64>,
}

impl Index {
    /// An empty log that begins there.
    pub(crate) fn new(base: LogBase) -> Self {
        Index {
            base,
            ..Index::default()
        }
    }

    /// Index after the last entry.
    pub(crate) fn next(&self) -> u64 {
        self.last
            .map_or(self.base.next_index, |last| last.id.index + 1)
    }

    /// Position after the last entry.
    pub(crate) fn end(&self) -> u64 {
        self.last.map_or(self.base.position, |last| last.end)
    }

    /// What the next entry has to continue: the last one, even if it is not in the log any more.
    pub(crate) fn tail(&self) -> Option<Mark> {
        self.last.or_else(|| self.base.mark())
    }

    /// Moves the beginning; the last entry stays.
    pub(crate) fn rebase(&mut self, base: LogBase) {
        let held = self.next() - base.next_index;
        let keep = self
            .ring
            .len()
            .min(usize::try_from(held).unwrap_or(usize::MAX));
        self.ring.drain(..self.ring.len() - keep);
        self.base = base;
    }

    pub(crate) fn push(&mut self, mark: Mark) {
        if mark.id.index != self.next() {
            // Those between are damaged.
            self.ring.clear();
        }
        if self.ring.len() == RING {
            self.ring.pop_front();
        }
        self.ring.push_back(mark.position);
        self.last = Some(mark);
    }

    /// Position of an entry if it is among the newest.
    pub(crate) fn position(&self, index: u64) -> Option<u64> {
        let base = self.next() - self.ring.len() as u64;
        self.ring
            .get(usize::try_from(index.checked_sub(base)?).ok()?)
            .copied()
    }

    /// Makes `last` the last entry.
    pub(crate) fn truncate(&mut self, last: Option<Mark>) {
        let drop = self.next() - last.map_or(self.base.next_index, |last| last.id.index + 1);
        let keep = self
            .ring
            .len()
            .saturating_sub(usize::try_from(drop).unwrap_or(usize::MAX));
        self.ring.truncate(keep);
        self.last = last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::LogId;

    fn mark(index: u64) -> Mark {
        Mark {
            id: LogId::new(1, index),
            position: index * 10,
            end: index * 10 + 10,
            crc: 0,
        }
    }

    /// The ring knows exactly the newest entries, through pushes and truncations.
    #[test]
    fn ring_follows_the_log() {
        let mut index = Index::default();
        for i in 0..RING as u64 + 100 {
            index.push(mark(i));
        }
        assert_eq!(index.position(99), None);
        assert_eq!(index.position(100), Some(1000));
        index.truncate(Some(mark(150)));
        assert_eq!(index.position(100), Some(1000));
        assert_eq!(index.position(151), None);
        index.push(mark(151));
        assert_eq!(index.position(151), Some(1510));
        index.truncate(Some(mark(40)));
        assert_eq!(index.position(40), None);
        index.push(mark(41));
        assert_eq!(index.position(41), Some(410));
        assert_eq!(index.position(40), None);
        index.truncate(None);
        assert_eq!(index.next(), 0);
        assert_eq!(index.position(0), None);
    }

    #[test]
    fn anchors_are_sparse() {
        let mut anchors = Anchors::default();
        for i in 0..100 {
            anchors.push(i, i * 10_000);
        }
        assert_eq!(anchors.find(6), Some((0, 0)));
        assert_eq!(anchors.find(7), Some((7, 70_000)));
        assert_eq!(anchors.find(99), Some((98, 980_000)));
        anchors.truncate(70_000);
        assert_eq!(anchors.find(99), Some((0, 0)));
    }
}
