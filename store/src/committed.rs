//! The committed mark: how far the log was known to be committed, for a quick restart.
//!
//! Written without waiting for the disk: if it is lost, the leader tells again. 24 bytes: index,
//! term, CRC32C of both, zeros.

use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, Open};
use crate::entry::{LogId, u32_at, u64_at};
use crate::error::{Error, Result};

const SIZE: usize = 24;

/// See the module's description.
pub struct CommittedMark {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
}

impl CommittedMark {
    /// Opens or creates the file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(disk: &dyn Disk, path: impl Into<PathBuf>) -> Result<CommittedMark> {
        let path = path.into();
        let file = disk
            .open(&path, Open::Create)
            .map_err(Error::io("open", &path))?;
        Ok(CommittedMark { file, path })
    }

    /// Notes the last committed entry. Not synced: a power cut may bring an older mark back.
    ///
    /// # Errors
    /// [`Error::Io`]; harmless to the log.
    pub fn save(&self, id: LogId) -> Result<()> {
        let mut bytes = [0; SIZE];
        bytes[..8].copy_from_slice(&id.index.to_be_bytes());
        bytes[8..16].copy_from_slice(&id.term.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[..16]);
        bytes[16..20].copy_from_slice(&crc.to_be_bytes());
        self.file
            .write_at(&[&bytes], 0)
            .map_err(Error::io("write", &self.path))
    }

    /// The mark, or `None` when there is none or it is damaged.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn load(&self) -> Result<Option<LogId>> {
        let mut bytes = [0; SIZE];
        if self.file.size().map_err(Error::io("read", &self.path))? < SIZE as u64 {
            return Ok(None);
        }
        self.file
            .read_at(&mut bytes, 0)
            .map_err(Error::io("read", &self.path))?;
        let crc = crc32c::crc32c(&bytes[..16]);
        let id = u64_at(&bytes, 8).zip(u64_at(&bytes, 0));
        let valid = u32_at(&bytes, 16) == Some(crc) && crc != 0;
        Ok(id
            .filter(|_| valid)
            .map(|(term, index)| LogId { term, index }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;
    use std::path::Path;

    #[test]
    fn mark_comes_back_unless_damaged() {
        let disk = MemoryDisk::new();
        let mark = CommittedMark::open(&disk, "/committed").unwrap();
        assert_eq!(mark.load().unwrap(), None);
        mark.save(LogId::new(7, 99)).unwrap();
        assert_eq!(mark.load().unwrap(), Some(LogId::new(7, 99)));
        disk.damage(Path::new("/committed"), 3, &[1]);
        assert_eq!(mark.load().unwrap(), None);
    }
}
