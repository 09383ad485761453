//! The vote: what this member promised in its last election. Losing it could elect two leaders.
//!
//! Two copies of 512 bytes, at 0 and 4096. Once it exists, the file is written in place, so that a
//! full disk keeps no member from voting: one copy is written and flushed before the other is
//! touched, and both before the vote counts. So a crash leaves one of them, and so does one damaged
//! byte: the newest that is whole is the last vote that counted, or a newer one.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic |
//! | 4 | 4 | length of the vote |
//! | 8 | 8 | sequence number of the copy |
//! | 16 | | the vote, then zeros |
//! | 508 | 4 | CRC32C of all before |

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, Open};
use crate::entry::{u32_at, u64_at};
use crate::error::{Error, Result};
use crate::poison::Poison;
use crate::small_file;

const MAGIC: u32 = 0x524D_5156;
const COPY: usize = 512;
const COPIES_AT: [usize; 2] = [0, 4096];
const FILE: usize = 8192;
const VOTE_AT: usize = 16;
const CRC_AT: usize = COPY - 4;
/// Most bytes of a vote; it is a few numbers.
const VOTE_MAX: usize = CRC_AT - VOTE_AT;

/// Stores opaque bytes so that they are never lost and never seen half.
pub struct VoteFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    poison: Poison,
    saving: Mutex<()>,
}

/// A copy that is whole.
struct Copy {
    sequence: u64,
    vote: Vec<u8>,
}

impl VoteFile {
    /// The vote file at `path`, which need not exist yet.
    pub fn new(disk: Arc<dyn Disk>, path: impl Into<PathBuf>, poison: Poison) -> VoteFile {
        VoteFile {
            disk,
            path: path.into(),
            poison,
            saving: Mutex::new(()),
        }
    }

    /// Replaces the vote; durable on return. Once there is a file it needs no room.
    ///
    /// # Errors
    /// [`Error::Io`] poisons the store; [`Error::Poisoned`].
    pub fn save(&self, vote: &[u8]) -> Result<()> {
        let _one = self.saving.lock();
        self.poison.check()?;
        if vote.len() > VOTE_MAX {
            let what = format!(
                "vote of {} bytes, at most {VOTE_MAX} are expected",
                vote.len()
            );
            return Err(Error::Malformed { what });
        }
        self.put(vote).map_err(|error| self.poison.poison(error))
    }

    fn put(&self, vote: &[u8]) -> Result<()> {
        let copies = self.copies()?;
        let sequences =
            copies.map(|copies| copies.map(|copy| copy.map_or(0, |copy| copy.sequence)));
        let Some([first, second]) = sequences.filter(|both| *both != [0, 0]) else {
            let copy = encode(1, vote);
            let mut bytes = vec![0; FILE];
            for at in COPIES_AT {
                bytes[at..at + COPY].copy_from_slice(&copy);
            }
            return small_file::replace(&*self.disk, &self.path, &bytes);
        };
        let copy = encode(first.max(second) + 1, vote);
        let file = self.open(Open::Existing)?;
        // The older one first: until it is durable the other one has to stand.
        let mut order = COPIES_AT;
        if first > second {
            order.reverse();
        }
        for at in order {
            file.write_at(&[&copy], at as u64)
                .map_err(Error::io("write", &self.path))?;
            file.sync_data().map_err(Error::io("flush", &self.path))?;
        }
        Ok(())
    }

    /// The last vote saved, or `None` when there never was one.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when neither copy is a vote: a member must not go on without it.
    pub fn load(&self) -> Result<Option<Vec<u8>>> {
        let Some(copies) = self.copies()? else {
            return Ok(None);
        };
        let newest = copies
            .into_iter()
            .flatten()
            .max_by_key(|copy| copy.sequence);
        newest.map(|copy| Some(copy.vote)).ok_or_else(|| {
            self.corrupt(
                0,
                "vote is damaged; this member must be removed from its group and added again",
            )
        })
    }

    /// Fails when a copy is damaged, even if the other one is not.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn verify(&self) -> Result<()> {
        let damaged = self
            .copies()?
            .and_then(|copies| copies.iter().position(Option::is_none));
        match damaged {
            Some(nth) => Err(self.corrupt(COPIES_AT[nth] as u64, "a copy of the vote is damaged")),
            None => Ok(()),
        }
    }

    fn corrupt(&self, offset: u64, what: &str) -> Error {
        Error::Corrupt {
            path: self.path.clone(),
            offset,
            what: what.to_owned(),
        }
    }

    fn open(&self, how: Open) -> Result<Arc<dyn DiskFile>> {
        let opened = self.disk.open(&self.path, how);
        opened.map_err(Error::io("open", &self.path))
    }

    /// The copies that are whole; `None` without a file.
    fn copies(&self) -> Result<Option<[Option<Copy>; 2]>> {
        let bytes = small_file::read(&self.disk, &self.path, FILE as u64)?;
        Ok(bytes.map(|bytes| COPIES_AT.map(|at| decode(bytes.get(at..at + COPY)?))))
    }
}

fn encode(sequence: u64, vote: &[u8]) -> [u8; COPY] {
    let mut out = [0; COPY];
    out[..4].copy_from_slice(&MAGIC.to_be_bytes());
    out[4..8].copy_from_slice(&(vote.len() as u32).to_be_bytes());
    out[8..VOTE_AT].copy_from_slice(&sequence.to_be_bytes());
    out[VOTE_AT..VOTE_AT + vote.len()].copy_from_slice(vote);
    let crc = crc32c::crc32c(&out[..CRC_AT]);
    out[CRC_AT..].copy_from_slice(&crc.to_be_bytes());
    out
}

fn decode(bytes: &[u8]) -> Option<Copy> {
    let (content, crc) = bytes.split_at_checked(CRC_AT)?;
    if u32_at(content, 0)? != MAGIC || u32_at(crc, 0)? != crc32c::crc32c(content) {
        return None;
    }
    let size = u32_at(content, 4)? as usize;
    Some(Copy {
        sequence: u64_at(content, 8)?,
        vote: content.get(VOTE_AT..)?.get(..size)?.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Fault, MemoryDisk, Operation};
    use std::path::Path;

    fn vote(disk: &MemoryDisk) -> VoteFile {
        VoteFile::new(Arc::new(disk.clone()), "/store/vote", Poison::default())
    }

    /// A saved vote survives every crash, and a crash while saving leaves the old or the new one.
    #[test]
    fn survives_crashes() {
        for seed in 0..100u64 {
            let disk = MemoryDisk::new();
            assert_eq!(vote(&disk).load().unwrap(), None);
            vote(&disk).save(b"one").unwrap();
            let mut steps = seed % 6;
            disk.set_rule(move |_, _| {
                steps = steps.checked_sub(1)?;
                (steps == 0).then_some(Fault::Errno(libc::EIO))
            });
            let second = vote(&disk).save(b"second");
            let mut state = seed + 1;
            let disk = disk.crash(|n: u64| {
                state = state.wrapping_mul(0x5851_F42D_4C95_7F2D) + 1;
                (state >> 40) % n
            });
            let found = vote(&disk).load().unwrap().unwrap();
            if second.is_ok() {
                assert_eq!(found, b"second");
            } else {
                assert!(found == b"one" || found == b"second");
            }
        }
    }

    /// Either copy stands for the other, and is made whole by the next save. Without any it is an
    /// error that names the file, never "no vote".
    #[test]
    fn one_copy_is_enough() {
        let disk = MemoryDisk::new();
        let damage = |at| disk.damage(Path::new("/store/vote"), at, b"x");
        vote(&disk).save(b"12345").unwrap();
        for at in [9, 4096 + 17, 508] {
            damage(at);
            assert_eq!(vote(&disk).load().unwrap().unwrap(), b"12345");
            assert!(matches!(vote(&disk).verify(), Err(Error::Corrupt { .. })));
            vote(&disk).save(b"12345").unwrap();
            vote(&disk).verify().unwrap();
        }
        damage(9);
        damage(4096 + 9);
        let error = vote(&disk).load().unwrap_err().to_string();
        assert!(error.contains("/store/vote"), "{error}");
    }

    /// Only the first one needs room.
    #[test]
    fn full_disk() {
        let disk = MemoryDisk::new();
        vote(&disk).save(b"1").unwrap();
        disk.set_rule(|op, _| {
            let grows = [Operation::SetSize, Operation::Rename].contains(&op);
            grows.then_some(Fault::Errno(libc::ENOSPC))
        });
        vote(&disk).save(b"2").unwrap();
        assert_eq!(vote(&disk).load().unwrap().unwrap(), b"2");
    }

    /// A failed save poisons: nothing else may be written after it.
    #[test]
    fn failed_save_poisons() {
        let disk = MemoryDisk::new();
        let vote = vote(&disk);
        disk.set_rule(|op, _| (op == Operation::SyncData).then_some(Fault::Errno(libc::EIO)));
        assert!(matches!(vote.save(b"1"), Err(Error::Io { .. })));
        disk.clear_rule();
        assert!(matches!(vote.save(b"2"), Err(Error::Poisoned(_))));
    }
}
