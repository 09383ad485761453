//! The vote: what this member promised in its last election. Losing it could elect two leaders.
//!
//! File: magic (u32), length (u32), the bytes, CRC32C of all before (u32).

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::Disk;
use crate::entry::u32_at;
use crate::error::{Error, Result};
use crate::poison::Poison;
use crate::small_file;

const MAGIC: u32 = 0x524D_5156;
/// Most bytes of a vote; it is a few numbers.
const VOTE_MAX: usize = 4096;

/// Stores opaque bytes so that they are never lost and never seen half.
pub struct VoteFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    poison: Poison,
    saving: Mutex<()>,
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

    /// Replaces the vote; durable on return.
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
        let mut bytes = Vec::with_capacity(vote.len() + 12);
        bytes.extend_from_slice(&MAGIC.to_be_bytes());
        bytes.extend_from_slice(&(vote.len() as u32).to_be_bytes());
        bytes.extend_from_slice(vote);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
        small_file::replace(&*self.disk, &self.path, &bytes).map_err(|e| self.poison.poison(e))
    }

    /// The last vote saved, or `None` when there never was one.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the file is not a vote: a member must not go on without it.
    pub fn load(&self) -> Result<Option<Vec<u8>>> {
        let max = VOTE_MAX as u64 + 12;
        let Some(bytes) = small_file::read(&self.disk, &self.path, max)? else {
            return Ok(None);
        };
        let vote = (|| {
            let content = bytes.get(..bytes.len().checked_sub(4)?)?;
            let crc = u32_at(&bytes, content.len())?;
            let vote = content.get(8..)?;
            let fits = u32_at(content, 0)? == MAGIC
                && u32_at(content, 4)? as usize == vote.len()
                && crc32c::crc32c(content) == crc;
            fits.then(|| vote.to_vec())
        })();
        vote.map(Some).ok_or_else(|| Error::Corrupt {
            path: self.path.clone(),
            offset: 0,
            what: "vote is damaged; this member must be removed from its group and added again"
                .to_owned(),
        })
    }
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

    /// A damaged vote is an error that names the file, never "no vote".
    #[test]
    fn damage_is_an_error() {
        let disk = MemoryDisk::new();
        vote(&disk).save(b"12345").unwrap();
        disk.damage(Path::new("/store/vote"), 9, b"x");
        let error = vote(&disk).load().unwrap_err().to_string();
        assert!(error.contains("/store/vote"), "{error}");
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
