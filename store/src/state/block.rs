//! A block: up to 256 units of a consume queue, a row of the database.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | number within the block of the first unit there is |
//! | 1 | 20 × n | units |
//!
//! Units are added to a row by RocksDB's merge: a row that is not full yet is neither read nor
//! written again, and what a queue costs to persist is what was added to it. A row of whole units
//! without the first byte begins at 0.

use rocksdb::MergeOperands;

use super::queue::{BLOCK_UNITS, UNIT, Unit};

/// Name of the merge, kept in the database.
pub(crate) const MERGE: &str = "raftmq.units";

/// A row, or what is added to one.
pub(crate) fn encode(first: u64, units: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(1 + units.len());
    row.push(u8::try_from(first % BLOCK_UNITS).unwrap_or(0));
    row.extend_from_slice(units);
    row
}

/// Number of the first unit of a row, and the units.
fn decode(row: &[u8]) -> Option<(usize, &[u8])> {
    match row.len() % UNIT {
        0 => Some((0, row)),
        1 => row
            .split_first()
            .map(|(first, units)| (usize::from(*first), units)),
        _ => None,
    }
}

/// The units of a row: offset of the first one, and each of them.
pub(crate) fn units(block: u64, row: &[u8]) -> Option<(u64, impl ExactSizeIterator<Item = Unit>)> {
    let (first, units) = decode(row)?;
    let units = units.chunks_exact(UNIT);
    // Chunks have the size of a unit.
    let units = units.map(|unit| Unit::decode(unit).unwrap_or_default());
    Some((block * BLOCK_UNITS + first as u64, units))
}

/// Appends the units `first..first + count` of a row to `out`; false when it has not all of them.
pub(crate) fn copy(row: &[u8], first: u64, count: u64, out: &mut Vec<Unit>) -> bool {
    let Some((begin, units)) = decode(row) else {
        return false;
    };
    let Some(from) = (first as usize).checked_sub(begin) else {
        return false;
    };
    let bytes = units.get(from * UNIT..(from + count as usize) * UNIT);
    out.extend(
        bytes
            .into_iter()
            .flat_map(|bytes| bytes.chunks_exact(UNIT))
            .filter_map(Unit::decode),
    );
    bytes.is_some()
}

/// RocksDB's merge: the rows one behind the other. `None`, which RocksDB reports as damage, when
/// they do not continue each other.
pub(crate) fn merge(_key: &[u8], row: Option<&[u8]>, added: &MergeOperands) -> Option<Vec<u8>> {
    join(row.into_iter().chain(added))
}

fn join<'a>(mut rows: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let (begin, units) = decode(rows.next()?)?;
    let mut out = encode(begin as u64, units);
    for row in rows {
        let (first, units) = decode(row)?;
        if first.checked_sub(begin)? * UNIT != out.len() - 1 {
            return None;
        }
        out.extend_from_slice(units);
    }
    Some(out).filter(|out| begin * UNIT + out.len() - 1 <= BLOCK_UNITS as usize * UNIT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unit(n: u64) -> Unit {
        Unit {
            physical_offset: n,
            size: 1,
            tags_code: -1,
        }
    }

    fn row(range: std::ops::Range<u64>) -> Vec<u8> {
        let bytes: Vec<u8> = range.clone().flat_map(|n| unit(n).encode()).collect();
        encode(range.start, &bytes)
    }

    /// Rows join in any grouping, also on a row of before that began at 0; what leaves a gap does
    /// not.
    #[test]
    fn rows_join() {
        let join = |rows: &[&[u8]]| join(rows.iter().copied());
        let (a, b, c) = (row(10..20), row(20..21), row(21..256));
        let all = row(10..256);
        assert_eq!(join(&[&a, &b, &c]), Some(all.clone()));
        let bc = join(&[&b, &c]).unwrap();
        assert_eq!(join(&[&a, &bc]), Some(all.clone()));
        assert_eq!(join(&[&a, &c]), None);
        assert_eq!(join(&[&all, &b]), None);
        assert_eq!(join(&[&row(0..10)[1..], &a, &b, &c]), Some(row(0..256)));
        let mut out = Vec::new();
        assert!(copy(&all, 250, 6, &mut out));
        assert_eq!(out, (250..256).map(unit).collect::<Vec<_>>());
        assert!(!copy(&all, 250, 7, &mut out));
        assert!(!copy(&all, 9, 1, &mut out));
        let (first, units) = units(3, &a).unwrap();
        assert_eq!((first, units.len()), (3 * 256 + 10, 10));
    }

    proptest! {
        /// No bytes make a decoder panic.
        #[test]
        fn any_bytes(rows in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..4)) {
            drop(join(rows.iter().map(Vec::as_slice)));
            for row in &rows {
                drop(units(1, row).map(|(_, units)| units.collect::<Vec<_>>()));
                copy(row, 3, 2, &mut Vec::new());
            }
        }
    }
}
