//! The small files of a store.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::committed::CommittedMark;
use crate::disk::{Disk, Open};
use crate::entry::LogId;
use crate::error::{Error, Result};
use crate::log::LogBase;
use crate::log::base;
use crate::log::checkpoint::{self, Checkpoint};
use crate::poison::Poison;
use crate::store::{ABORT, COMMITTED, VOTE};
use crate::vote::VoteFile;
use crate::{identity, small_file};

use super::ReadOnlyDisk;

/// What the log's checkpoint says was flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlushedMark {
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// The last entry known to be flushed, with its position and the position after it; `None`
    /// for an empty log.
    pub entry: Option<(LogId, u64, u64)>,
}

/// Lines of an identity file, as key and value.
pub type IdentityLines = Vec<(String, String)>;

/// What the mark of a store in use says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abort {
    /// Whether the machine has not been started anew since.
    pub same_boot: bool,
    /// Whether it ran with ASYNC_FLUSH.
    pub was_async: bool,
}

/// Reads the small files of a store. Each is `Ok(None)` when the file is not there, and an error
/// when it is there and cannot be read.
#[derive(Debug, Clone, Copy)]
pub struct Marks<'a> {
    /// The store folder.
    pub root: &'a Path,
    /// The folder of the commit log.
    pub commit_log: &'a Path,
}

impl Marks<'_> {
    /// The log's checkpoint.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when neither of its two slots is readable; [`Error::Io`].
    pub fn checkpoint(&self) -> Result<Option<FlushedMark>> {
        let path = self.commit_log.join(checkpoint::NAME);
        if !exists(&path)? {
            return Ok(None);
        }
        let (_, slot) = Checkpoint::open(&ReadOnlyDisk, self.commit_log, 0)?;
        let slot = slot.ok_or_else(|| corrupt(&path, "neither of its two slots is readable"))?;
        Ok(Some(FlushedMark {
            segment_bytes: slot.segment_bytes,
            entry: slot.mark.map(|mark| (mark.id, mark.position, mark.end)),
        }))
    }

    /// Where the log begins, and whether both copies of that are readable.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when neither is; [`Error::Io`].
    pub fn base(&self) -> Result<Option<(LogBase, bool)>> {
        let path = self.commit_log.join(base::NAME);
        let Some(bytes) = read(&path)? else {
            return Ok(None);
        };
        let copies = base::COPIES_AT.map(|at| {
            let at = usize::try_from(at).unwrap_or_default();
            let copy = bytes.get(at..at + base::COPY)?;
            base::decode(copy.try_into().ok()?)
        });
        let both = copies.iter().all(Option::is_some);
        let newest = copies.into_iter().flatten().max_by_key(|copy| copy.0);
        let newest =
            newest.ok_or_else(|| corrupt(&path, "neither of its two copies is readable"))?;
        Ok(Some((newest.1, both)))
    }

    /// The committed mark.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn committed(&self) -> Result<Option<LogId>> {
        let path = self.root.join(COMMITTED);
        if !exists(&path)? {
            return Ok(None);
        }
        let file = ReadOnlyDisk
            .open(&path, Open::Existing)
            .map_err(Error::io("open", &path))?;
        if file.size().map_err(Error::io("read", &path))? == 0 {
            return Ok(None);
        }
        let mark = CommittedMark::open(&ReadOnlyDisk, &path)?.load()?;
        mark.map(Some)
            .ok_or_else(|| corrupt(&path, "its CRC is wrong"))
    }

    /// The bytes of the vote.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn vote(&self) -> Result<Option<Vec<u8>>> {
        self.vote_file().load()
    }

    /// Fails when one of the two copies of the vote is damaged.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn verify_vote(&self) -> Result<()> {
        self.vote_file().verify()
    }

    fn vote_file(&self) -> VoteFile {
        let path = self.root.join(VOTE);
        VoteFile::new(Arc::new(ReadOnlyDisk), path, Poison::default())
    }

    /// Whose store it is.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn identity(&self) -> Result<Option<IdentityLines>> {
        let path = self.root.join(identity::NAME);
        let Some(bytes) = read(&path)? else {
            return Ok(None);
        };
        let text = String::from_utf8(bytes).map_err(|_not_utf8| corrupt(&path, "is no text"))?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.map(|line| {
            let (key, value) = line.split_once('=')?;
            Some((key.to_owned(), value.trim().to_owned()))
        });
        pairs
            .collect::<Option<Vec<_>>>()
            .map(Some)
            .ok_or_else(|| corrupt(&path, "has a line that is no key=value"))
    }

    /// The mark that a store is in use, left behind by a crash.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn abort(&self) -> Result<Option<Abort>> {
        let Some(bytes) = read(&self.root.join(ABORT))? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&bytes);
        let boot = ReadOnlyDisk.boot_id();
        Ok(Some(Abort {
            same_boot: !boot.is_empty() && text.lines().next() == Some(boot.as_str()),
            was_async: text.lines().nth(1) == Some("async"),
        }))
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let disk: Arc<dyn Disk> = Arc::new(ReadOnlyDisk);
    small_file::read(&disk, path, 64 * 1024)
}

fn exists(path: &Path) -> Result<bool> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

fn corrupt(path: &Path, what: &str) -> Error {
    Error::Corrupt {
        path: path.to_path_buf(),
        offset: 0,
        what: what.to_owned(),
    }
}
