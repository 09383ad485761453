//! The `checkpoint` file beside the segments: up to where the log is known to be flushed.
//!
//! Recovery starts there instead of at the first segment, and takes damage before it for what it
//! is: corruption, not a torn tail. Two slots of 64 bytes, at 0 and 4096:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic |
//! | 4 | 4 | 1 when an entry follows, 0 for an empty log |
//! | 8 | 8 | sequence number of the slot |
//! | 16 | 8 | segment size |
//! | 24 | 8 | index of the last flushed entry |
//! | 32 | 8 | its term |
//! | 40 | 8 | its position |
//! | 48 | 8 | position after it |
//! | 56 | 4 | its CRC |
//! | 60 | 4 | CRC32C of the 60 bytes before |
//!
//! An unsynced save always goes to the slot that does not hold the last synced one, so a power
//! cut leaves at least one slot readable. A truncation rewrites both, synced, before it touches
//! the log: no slot ever names an entry that was cut off.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, Open};
use crate::entry::{LogId, u32_at, u64_at};
use crate::error::{Error, Result};

use super::Mark;

const MAGIC: u32 = 0x524D_5143;
const SLOT: usize = 64;
const SLOTS_AT: [u64; 2] = [0, 4096];

/// File name in the commit-log folder.
pub(crate) const NAME: &str = "checkpoint";

/// What a slot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    sequence: u64,
    pub(crate) segment_bytes: u64,
    /// The last entry known to be flushed.
    pub(crate) mark: Option<Mark>,
}

/// The open checkpoint file.
pub(crate) struct Checkpoint {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    segment_bytes: u64,
    sequence: u64,
    /// Which slot holds the last synced save.
    synced: usize,
    /// End position of the last save of any kind.
    saved_end: u64,
    /// End position of the last synced save.
    synced_end: u64,
}

impl Checkpoint {
    /// Opens or creates the file; also returns the newest readable slot.
    pub(crate) fn open(
        disk: &dyn Disk,
        dir: &Path,
        segment_bytes: u64,
    ) -> Result<(Checkpoint, Option<Slot>)> {
        let path = dir.join(NAME);
        let file = disk
            .open(&path, Open::Create)
            .map_err(Error::io("open", &path))?;
        let size = file.size().map_err(Error::io("read", &path))?;
        let mut newest: Option<(usize, Slot)> = None;
        for (which, at) in SLOTS_AT.into_iter().enumerate() {
            if size < at + SLOT as u64 {
                continue;
            }
            let mut bytes = [0; SLOT];
            file.read_at(&mut bytes, at)
                .map_err(Error::io("read", &path))?;
            if let Some(slot) = decode(&bytes)
                && newest.is_none_or(|(_, other)| other.sequence < slot.sequence)
            {
                newest = Some((which, slot));
            }
        }
        let checkpoint = Checkpoint {
            file,
            path,
            segment_bytes,
            sequence: newest.map_or(0, |(_, slot)| slot.sequence),
            // After a restart the newest slot counts as the synced one: whatever its state, it
            // is the one recovery stood on, so the other is overwritten first.
            synced: newest.map_or(1, |(which, _)| which),
            saved_end: newest
                .and_then(|(_, slot)| slot.mark)
                .map_or(0, |mark| mark.end),
            synced_end: 0,
        };
        Ok((checkpoint, newest.map(|(_, slot)| slot)))
    }

    /// Position up to which the last save knows the log to be flushed.
    pub(crate) fn saved_end(&self) -> u64 {
        self.saved_end
    }

    /// Position up to which the last save that was itself flushed knows the log to be flushed.
    pub(crate) fn synced_end(&self) -> u64 {
        self.synced_end
    }

    fn put(&mut self, which: usize, mark: Option<Mark>) -> Result<()> {
        self.sequence += 1;
        let slot = Slot {
            sequence: self.sequence,
            segment_bytes: self.segment_bytes,
            mark,
        };
        self.saved_end = mark.map_or(0, |mark| mark.end);
        let at = SLOTS_AT.get(which).copied().unwrap_or_default();
        self.file
            .write_at(&[&encode(&slot)], at)
            .map_err(Error::io("write", &self.path))
    }

    /// Notes `mark` without waiting for the disk.
    pub(crate) fn save(&mut self, mark: Option<Mark>) -> Result<()> {
        self.put(1 - self.synced, mark)
    }

    /// Notes `mark` durably.
    pub(crate) fn save_synced(&mut self, mark: Option<Mark>) -> Result<()> {
        let which = 1 - self.synced;
        self.put(which, mark)?;
        self.file
            .sync_data()
            .map_err(Error::io("flush", &self.path))?;
        self.synced = which;
        self.synced_end = self.saved_end;
        Ok(())
    }

    /// Makes every slot say `mark`, durably, before the log behind it is cut off.
    pub(crate) fn lower(&mut self, mark: Option<Mark>) -> Result<()> {
        self.save_synced(mark)?;
        self.save_synced(mark)
    }
}

fn encode(slot: &Slot) -> [u8; SLOT] {
    let mark = slot.mark.unwrap_or_default();
    let mut out = Vec::with_capacity(SLOT);
    out.extend_from_slice(&MAGIC.to_be_bytes());
    out.extend_from_slice(&u32::from(slot.mark.is_some()).to_be_bytes());
    out.extend_from_slice(&slot.sequence.to_be_bytes());
    out.extend_from_slice(&slot.segment_bytes.to_be_bytes());
    out.extend_from_slice(&mark.id.index.to_be_bytes());
    out.extend_from_slice(&mark.id.term.to_be_bytes());
    out.extend_from_slice(&mark.position.to_be_bytes());
    out.extend_from_slice(&mark.end.to_be_bytes());
    out.extend_from_slice(&mark.crc.to_be_bytes());
    out.extend_from_slice(&crc32c::crc32c(&out).to_be_bytes());
    out.try_into().expect("the fields add up to the slot")
}

fn decode(bytes: &[u8; SLOT]) -> Option<Slot> {
    let (content, crc) = bytes.split_at(SLOT - 4);
    if u32_at(bytes, 0)? != MAGIC || crc32c::crc32c(content) != u32_at(crc, 0)? {
        return None;
    }
    let mark = Mark {
        id: LogId::new(u64_at(bytes, 32)?, u64_at(bytes, 24)?),
        position: u64_at(bytes, 40)?,
        end: u64_at(bytes, 48)?,
        crc: u32_at(bytes, 56)?,
    };
    Some(Slot {
        sequence: u64_at(bytes, 8)?,
        segment_bytes: u64_at(bytes, 16)?,
        mark: (u32_at(bytes, 4)? == 1).then_some(mark),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    fn mark(n: u64) -> Mark {
        Mark {
            id: LogId::new(1, n),
            position: n * 100,
            end: n * 100 + 50,
            crc: n as u32,
        }
    }

    fn stored(disk: &MemoryDisk) -> Option<Option<Mark>> {
        Checkpoint::open(disk, Path::new("/log"), 4096)
            .unwrap()
            .1
            .map(|slot| slot.mark)
    }

    /// Whatever a power cut keeps of unsynced saves, a synced one or a later one is found, and
    /// after a lowering never one from before it.
    #[test]
    fn survives_any_crash() {
        for seed in 0..200u64 {
            let disk = MemoryDisk::new();
            let (mut checkpoint, none) = Checkpoint::open(&disk, Path::new("/log"), 4096).unwrap();
            assert_eq!(none, None);
            checkpoint.save_synced(None).unwrap();
            disk.sync_dir(Path::new("/log")).unwrap();
            for n in 1..5 {
                checkpoint.save(Some(mark(n))).unwrap();
            }
            checkpoint.save_synced(Some(mark(5))).unwrap();
            checkpoint.save(Some(mark(6))).unwrap();
            checkpoint.save(Some(mark(7))).unwrap();
            if seed % 2 == 0 {
                checkpoint.lower(Some(mark(3))).unwrap();
                checkpoint.save(Some(mark(4))).unwrap();
            }
            let mut state = seed * 2 + 1;
            let crashed = disk.crash(|choices: u64| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1442695040888963407);
                (state >> 33) % choices
            });
            let found = stored(&crashed).unwrap().unwrap().id.index;
            let allowed = if seed % 2 == 0 { 3..=4 } else { 5..=7 };
            assert!(allowed.contains(&found), "seed {seed}: {found}");
        }
    }

    /// A damaged slot is not believed.
    #[test]
    fn damage_is_noticed() {
        let disk = MemoryDisk::new();
        let (mut checkpoint, _) = Checkpoint::open(&disk, Path::new("/log"), 4096).unwrap();
        checkpoint.save_synced(Some(mark(1))).unwrap();
        checkpoint.save_synced(Some(mark(2))).unwrap();
        let newest = checkpoint.synced;
        disk.damage(Path::new("/log/checkpoint"), SLOTS_AT[newest] + 30, &[9]);
        assert_eq!(stored(&disk), Some(Some(mark(1))));
        disk.damage(
            Path::new("/log/checkpoint"),
            SLOTS_AT[1 - newest] + 60,
            &[9],
        );
        assert_eq!(stored(&disk), None);
    }
}
