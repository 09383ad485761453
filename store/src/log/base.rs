//! The `base` file beside the segments: where the log begins, once its beginning was removed.
//!
//! Two copies of 64 bytes, at 0 and 4096, each with a sequence number and a CRC. The file keeps
//! its size from the first start on and is written in place, so that a full disk cannot keep
//! segments from being removed; one copy is rewritten and flushed before the other, so that a
//! crash leaves one of them, and so does one damaged byte.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic |
//! | 4 | 4 | 1 when entries were removed, 0 for a log that begins at 0 |
//! | 8 | 8 | sequence number of the copy |
//! | 16 | 8 | position of the first entry: the start of a segment |
//! | 24 | 8 | index of the last entry removed |
//! | 32 | 8 | its term |
//! | 40 | 4 | its CRC |
//! | 44 | 4 | CRC of the very first entry |
//! | 48 | 12 | zeros |
//! | 60 | 4 | CRC32C of the 60 bytes before |

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, Open};
use crate::entry::{LogId, u32_at, u64_at};
use crate::error::{Error, Result};

use super::Mark;

const MAGIC: u32 = 0x524D_5142;
pub(crate) const COPY: usize = 64;
pub(crate) const COPIES_AT: [u64; 2] = [0, 4096];
const FILE: u64 = 8192;

/// File name in the commit-log folder.
pub(crate) const NAME: &str = "base";

/// Where a log begins. All zeros and no entry before, unless its beginning was removed or it was
/// filled from a peer whose beginning was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogBase {
    /// Position of the first entry; the start of a segment.
    pub position: u64,
    /// Index of the first entry.
    pub next_index: u64,
    /// The entry before it, which is not in the log any more.
    pub prev: Option<LogId>,
    /// CRC of that entry, with which the chain goes on; 0 without one.
    pub prev_crc: u32,
    /// CRC of the very first entry, which tells groups apart; 0 while it is in the log.
    pub genesis: u32,
}

impl LogBase {
    /// What is wrong with a base that was read or received, for a log with such segments.
    pub(crate) fn check(&self, segment_bytes: u64) -> std::result::Result<(), String> {
        if !self.position.is_multiple_of(segment_bytes) {
            return Err(format!(
                "position {} is no multiple of the segment size {segment_bytes}",
                self.position
            ));
        }
        let fits = match self.prev {
            None => *self == LogBase::default(),
            Some(prev) => self.position > 0 && prev.index.checked_add(1) == Some(self.next_index),
        };
        if fits {
            return Ok(());
        }
        Err(format!("its values do not fit together: {self:?}"))
    }

    /// The entry before the first one, as far as what follows it has to know.
    pub(crate) fn mark(&self) -> Option<Mark> {
        self.prev.map(|id| Mark {
            id,
            position: self.position,
            end: self.position,
            crc: self.prev_crc,
        })
    }
}

/// The open `base` file.
pub(crate) struct BaseFile {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    sequence: u64,
    was_new: bool,
}

impl BaseFile {
    /// Opens the file or creates it at its full size, and reads what it says.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when neither copy is readable although something was written.
    pub(crate) fn open(
        disk: &dyn Disk,
        dir: &Path,
        segment_bytes: u64,
    ) -> Result<(BaseFile, LogBase)> {
        let path = dir.join(NAME);
        let file = disk
            .open(&path, Open::Create)
            .map_err(Error::io("open", &path))?;
        let size = file.size().map_err(Error::io("read", &path))?;
        let mut newest: Option<(u64, LogBase)> = None;
        let mut whole = 0;
        let mut blank = true;
        for at in COPIES_AT {
            let mut bytes = [0; COPY];
            if size >= at + COPY as u64 {
                file.read_at(&mut bytes, at)
                    .map_err(Error::io("read", &path))?;
            }
            blank &= bytes == [0; COPY];
            let Some((sequence, base)) = decode(&bytes) else {
                continue;
            };
            whole += usize::from(newest.is_none_or(|(other, _)| other == sequence));
            if newest.is_none_or(|(other, _)| other < sequence) {
                newest = Some((sequence, base));
            }
        }
        if newest.is_none() && !blank {
            let what = "it does not say where the log begins; remove the commit log and the state to have this member filled by its peers";
            return Err(Error::Corrupt {
                path,
                offset: 0,
                what: what.to_owned(),
            });
        }
        let (sequence, base) = newest.unwrap_or_default();
        if let Err(what) = base.check(segment_bytes) {
            let offset = 0;
            return Err(Error::Corrupt { path, offset, what });
        }
        let mut opened = BaseFile {
            file,
            path,
            sequence,
            was_new: newest.is_none(),
        };
        // New, interrupted while it was written, or one copy damaged: written out in full.
        if whole < COPIES_AT.len() || size < FILE {
            opened.save(&base)?;
            disk.sync_dir(dir).map_err(Error::io("flush", dir))?;
        }
        Ok((opened, base))
    }

    /// Whether the file said nothing when it was opened.
    pub(crate) fn was_new(&self) -> bool {
        self.was_new
    }

    /// Replaces what the file says, durably: after a crash it says the old or the new.
    pub(crate) fn save(&mut self, base: &LogBase) -> Result<()> {
        self.sequence += 1;
        let bytes = encode(self.sequence, base);
        for at in COPIES_AT {
            let padding = [0; FILE as usize / COPIES_AT.len() - COPY];
            self.file
                .write_at(&[&bytes, &padding], at)
                .map_err(Error::io("write", &self.path))?;
            self.file
                .sync_data()
                .map_err(Error::io("flush", &self.path))?;
        }
        Ok(())
    }
}

pub(super) fn encode(sequence: u64, base: &LogBase) -> [u8; COPY] {
    let prev = base.prev.unwrap_or_default();
    let mut out = Vec::with_capacity(COPY);
    out.extend_from_slice(&MAGIC.to_be_bytes());
    out.extend_from_slice(&u32::from(base.prev.is_some()).to_be_bytes());
    out.extend_from_slice(&sequence.to_be_bytes());
    out.extend_from_slice(&base.position.to_be_bytes());
    out.extend_from_slice(&prev.index.to_be_bytes());
    out.extend_from_slice(&prev.term.to_be_bytes());
    out.extend_from_slice(&base.prev_crc.to_be_bytes());
    out.extend_from_slice(&base.genesis.to_be_bytes());
    out.resize(COPY - 4, 0);
    out.extend_from_slice(&crc32c::crc32c(&out).to_be_bytes());
    out.try_into().expect("the fields add up to the copy")
}

pub(crate) fn decode(bytes: &[u8; COPY]) -> Option<(u64, LogBase)> {
    let (content, crc) = bytes.split_at(COPY - 4);
    if u32_at(bytes, 0)? != MAGIC || crc32c::crc32c(content) != u32_at(crc, 0)? {
        return None;
    }
    let sequence = u64_at(bytes, 8)?;
    if u32_at(bytes, 4)? == 0 {
        return Some((sequence, LogBase::default()));
    }
    let prev = LogId::new(u64_at(bytes, 32)?, u64_at(bytes, 24)?);
    let base = LogBase {
        position: u64_at(bytes, 16)?,
        next_index: prev.index.checked_add(1)?,
        prev: Some(prev),
        prev_crc: u32_at(bytes, 40)?,
        genesis: u32_at(bytes, 44)?,
    };
    Some((sequence, base))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    /// One damaged copy is replaced by the other; without any the file is refused by name.
    #[test]
    fn one_copy_is_enough() {
        let disk = MemoryDisk::new();
        let dir = Path::new("/log");
        let open = || BaseFile::open(&disk, dir, 4096);
        let (mut file, base) = open().unwrap();
        assert_eq!(base, LogBase::default());
        let moved = LogBase {
            position: 8192,
            next_index: 8,
            prev: Some(LogId::new(3, 7)),
            prev_crc: 99,
            genesis: 7,
        };
        file.save(&moved).unwrap();
        for at in COPIES_AT {
            disk.damage(&dir.join(NAME), at + 20, &[9]);
            assert_eq!(open().unwrap().1, moved);
        }
        for at in COPIES_AT {
            disk.damage(&dir.join(NAME), at + 20, &[9]);
        }
        assert!(matches!(open(), Err(Error::Corrupt { path, .. }) if path.ends_with(NAME)));
    }

    #[test]
    fn impossible_bases_are_refused() {
        let good = LogBase {
            position: 4096,
            next_index: 5,
            prev: Some(LogId::new(1, 4)),
            prev_crc: 1,
            genesis: 7,
        };
        assert_eq!(good.check(4096), Ok(()));
        assert!(good.check(8192).is_err());
        assert!(LogBase { prev: None, ..good }.check(4096).is_err());
        assert!(
            LogBase {
                next_index: 9,
                ..good
            }
            .check(4096)
            .is_err()
        );
        assert!(
            LogBase {
                position: 0,
                ..good
            }
            .check(4096)
            .is_err()
        );
    }
}
