//! Rows of a block. Keys are the number of the block (u64) and of a part (u16); the last part
//! number is the block's description. All integers are big-endian.
//!
//! A part holds the keys whose hash begins with its number, sorted by the rest, then by position:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | lower half of the hash |
//! | 4 | 4 | position of the record, from where the block begins |
//! | 8 | 4 | its store time in ms, from the earliest of the block; the highest value for later ones |

use crate::entry::{u32_at, u64_at};

/// Bytes of a key in a part.
const SIZE: usize = 12;
/// Keys of a part, more or less.
const PART_KEYS: usize = if cfg!(test) { 16 } else { 1024 };
const PART_BITS_MAX: u32 = 8;
const META: u16 = u16::MAX;

/// One key of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) hash: u64,
    /// Position of the record.
    pub(crate) position: u64,
    /// Store time of the record.
    pub(crate) time_ms: i64,
}

/// What a block is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockMeta {
    pub(crate) number: u64,
    /// The part of the log whose records are in it: positions, and the index that follows.
    pub(crate) begin: u64,
    pub(crate) end: u64,
    pub(crate) next_index: u64,
    /// Store times.
    pub(crate) begin_ms: i64,
    pub(crate) end_ms: i64,
    /// Store time and position of the last record with a key up to here.
    pub(crate) last: (i64, u64),
    pub(crate) keys: u32,
    /// There are 2 to the power of this parts; 0 keys have none.
    pub(crate) part_bits: u32,
}

pub(crate) fn part_key(block: u64, part: u16) -> [u8; 10] {
    let mut key = [0; 10];
    let (number, at) = key.split_at_mut(8);
    number.copy_from_slice(&block.to_be_bytes());
    at.copy_from_slice(&part.to_be_bytes());
    key
}

pub(crate) fn meta_key(block: u64) -> [u8; 10] {
    part_key(block, META)
}

/// Number of the block a row belongs to.
pub(crate) fn number(key: &[u8]) -> Option<u64> {
    u64_at(key, 0).filter(|_| key.len() == 10)
}

/// Whether a row is what it should be.
pub(crate) fn is_key_row(key: &[u8], row: &[u8]) -> bool {
    number(key).is_some_and(|number| match key == meta_key(number) {
        true => BlockMeta::decode(number, row).is_some(),
        false => row.len().is_multiple_of(SIZE),
    })
}

impl BlockMeta {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let numbers = [
            self.begin,
            self.end,
            self.next_index,
            self.begin_ms.cast_unsigned(),
            self.end_ms.cast_unsigned(),
            self.last.0.cast_unsigned(),
            self.last.1,
        ];
        let mut row: Vec<u8> = numbers.iter().flat_map(|n| n.to_be_bytes()).collect();
        row.extend_from_slice(&self.keys.to_be_bytes());
        row.extend_from_slice(&self.part_bits.to_be_bytes());
        row
    }

    pub(crate) fn decode(number: u64, row: &[u8]) -> Option<BlockMeta> {
        let at = |nth: usize| u64_at(row, nth * 8);
        let meta = BlockMeta {
            number,
            begin: at(0)?,
            end: at(1)?,
            next_index: at(2)?,
            begin_ms: at(3)?.cast_signed(),
            end_ms: at(4)?.cast_signed(),
            last: (at(5)?.cast_signed(), at(6)?),
            keys: u32_at(row, 56)?,
            part_bits: u32_at(row, 60)?,
        };
        let fits = row.len() == 64 && meta.part_bits <= PART_BITS_MAX && meta.begin <= meta.end;
        fits.then_some(meta)
    }

    /// Row of the part that holds a hash.
    pub(crate) fn part_of(&self, hash: u64) -> [u8; 10] {
        part_key(self.number, part(hash, self.part_bits))
    }

    /// The keys with a hash that are in one of the block's parts, newest first.
    pub(crate) fn find(&self, part: &[u8], hash: u64) -> impl Iterator<Item = Key> {
        let (rows, _) = part.as_chunks::<SIZE>();
        let of = |row: &[u8; SIZE]| u32_at(row, 0).unwrap_or_default();
        let from = rows.partition_point(|row| of(row) < low(hash));
        let rows = rows.get(from..).unwrap_or_default();
        let count = rows.partition_point(|row| of(row) == low(hash));
        let (begin, begin_ms) = (self.begin, self.begin_ms);
        rows.iter().take(count).rev().map(move |row| Key {
            hash,
            position: begin.saturating_add(u32_at(row, 4).unwrap_or_default().into()),
            time_ms: begin_ms.saturating_add(u32_at(row, 8).unwrap_or_default().into()),
        })
    }
}

/// Whether a store time is too late for a block to hold it exactly.
pub(crate) fn is_capped(meta: &BlockMeta, time_ms: i64) -> bool {
    time_ms.saturating_sub(meta.begin_ms) >= u32::MAX.into()
}

fn part(hash: u64, bits: u32) -> u16 {
    // Shifting by all 64 bits is none.
    let part = hash.checked_shr(64 - bits).unwrap_or(0);
    u16::try_from(part).unwrap_or(0)
}

fn low(hash: u64) -> u32 {
    (hash & u64::from(u32::MAX)) as u32
}

/// Sorts the keys of a block into rows; completes its description.
pub(crate) fn build(meta: &mut BlockMeta, keys: &mut [Key]) -> Vec<([u8; 10], Vec<u8>)> {
    let parts = (keys.len() / PART_KEYS + 1).next_power_of_two();
    meta.part_bits = parts.trailing_zeros().min(PART_BITS_MAX);
    meta.keys = u32::try_from(keys.len()).unwrap_or(u32::MAX);
    meta.begin_ms = keys.iter().map(|key| key.time_ms).min().unwrap_or(0);
    meta.end_ms = keys.iter().map(|key| key.time_ms).max().unwrap_or(0);
    let bits = meta.part_bits;
    keys.sort_unstable_by_key(|key| (part(key.hash, bits), low(key.hash), key.position));
    let same_part = |a: &Key, b: &Key| part(a.hash, bits) == part(b.hash, bits);
    let rows = keys.chunk_by(same_part).map(|keys| {
        let mut row = Vec::with_capacity(keys.len() * SIZE);
        for key in keys {
            let from_begin = u32::try_from(key.position - meta.begin).unwrap_or(u32::MAX);
            let later = key.time_ms.saturating_sub(meta.begin_ms);
            row.extend_from_slice(&low(key.hash).to_be_bytes());
            row.extend_from_slice(&from_begin.to_be_bytes());
            row.extend_from_slice(&u32::try_from(later).unwrap_or(u32::MAX).to_be_bytes());
        }
        let hash = keys.first().map_or(0, |key| key.hash);
        (meta.part_of(hash), row)
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_block() -> impl Strategy<Value = Vec<Key>> {
        let hash = prop_oneof![any::<u64>(), 0..4u64, Just(u64::MAX)];
        let key = (
            hash,
            0..1_000_000u64,
            prop_oneof![0..1000i64, Just(i64::MAX)],
        );
        let key = key.prop_map(|(hash, position, time_ms)| Key {
            hash,
            position: 5000 + position,
            time_ms,
        });
        prop::collection::vec(key, 0..5000)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Each key is found in its part, newest first, and nothing else but equal lower halves.
        #[test]
        fn keys_are_found(mut keys in any_block()) {
            let mut meta = BlockMeta {
                number: 3, begin: 5000, end: 2_000_000, next_index: 9, begin_ms: 0, end_ms: 0,
                last: (1, 2), keys: 0, part_bits: 0,
            };
            let all = keys.clone();
            let rows = build(&mut meta, &mut keys);
            prop_assert_eq!(BlockMeta::decode(3, &meta.encode()), Some(meta));
            prop_assert!(rows.is_sorted_by(|a, b| a.0 < b.0) && rows.iter().all(|row| row.0 < meta_key(3)));
            for wanted in all.iter().step_by(7) {
                let part = rows.iter().find(|row| row.0 == meta.part_of(wanted.hash)).unwrap();
                let found: Vec<Key> = meta.find(&part.1, wanted.hash).collect();
                prop_assert!(found.is_sorted_by(|a, b| a.position >= b.position));
                let is_it = |key: &Key| key.position == wanted.position
                    && (key.time_ms == wanted.time_ms || is_capped(&meta, key.time_ms));
                prop_assert!(found.iter().any(is_it));
                let positions: Vec<u64> = all.iter().filter(|k| low(k.hash) == low(wanted.hash)).map(|k| k.position).collect();
                prop_assert!(found.iter().all(|key| positions.contains(&key.position)));
            }
        }

        /// No bytes make a decoder panic.
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..80), hash in any::<u64>()) {
            number(&bytes);
            if let Some(meta) = BlockMeta::decode(1, &bytes) {
                drop(meta.find(&bytes, hash).collect::<Vec<_>>());
            }
        }
    }
}
