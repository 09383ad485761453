//! Filling a log folder from a peer's bytes, across any number of stops.
//!
//! The folder is a log all the while, only a short one: a resumed refill finds its end as any
//! start does. The file `refill` says that it is not complete, and keeps the log from being
//! opened. It holds a base as the `base` file does, with one of two sequence numbers: while the
//! folder is emptied, and while it is filled.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::disk::Disk;
use crate::entry::{LogId, NewEntry, verify};
use crate::error::{Error, Result};
use crate::poison::Poison;
use crate::small_file;

use super::base::{self, BaseFile, LogBase};
use super::{CommitLog, FlushMode, LogOptions, check_segment_bytes};

/// File name in the commit-log folder.
const NAME: &str = "refill";
const EMPTYING: u64 = 1;
const FILLING: u64 = 2;
/// How much work a stop may cost.
const FLUSH_EVERY: Duration = Duration::from_millis(500);

/// See the module's description. Used before the log is opened; the caller holds the store's lock.
pub struct Refill {
    log: CommitLog,
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl Refill {
    /// Begins to fill a log folder, or goes on where a refill with the same base stopped. In any
    /// other case everything the folder has of a log is removed first.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a base that cannot be; [`Error::Option`], [`Error::Io`]; what
    /// [`CommitLog::open`] says.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        segment_bytes: u64,
        base: LogBase,
    ) -> Result<Refill> {
        check_segment_bytes(segment_bytes)?;
        base.check(segment_bytes)
            .map_err(|what| Error::Malformed { what })?;
        disk.create_dir_all(dir).map_err(Error::io("create", dir))?;
        let path = dir.join(NAME);
        if begun(&disk, dir)? != Some((FILLING, base)) {
            let say = |phase| small_file::replace(&*disk, &path, &base::encode(phase, &base));
            say(EMPTYING)?;
            empty(&*disk, dir)?;
            BaseFile::open(&*disk, dir, segment_bytes)?.0.save(&base)?;
            say(FILLING)?;
        }
        let options = LogOptions {
            dir: dir.to_path_buf(),
            segment_bytes,
            flush: FlushMode::Async {
                interval: FLUSH_EVERY,
            },
            prepare_ahead: 0,
            background: true,
        };
        let log = CommitLog::open_any(disk.clone(), options, Poison::default(), None)?;
        // What a power cut took out of the middle is filled again with all behind it.
        if let Some(hole) = log.holes().first() {
            log.truncate_hole(hole)?;
        }
        Ok(Refill { log, disk, path })
    }

    /// The base of a refill that is not finished.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn unfinished(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Option<LogBase>> {
        Ok(begun(disk, dir)?.map(|(_, base)| base))
    }

    /// Position after the last entry: where to go on reading from the peer.
    pub fn position(&self) -> u64 {
        self.log.end_position()
    }

    /// The last entry, which may be the one before the base.
    pub fn last(&self) -> Option<LogId> {
        self.log.last().or_else(|| self.log.purged())
    }

    /// Appends whole entries as a peer's [`CommitLog::raw`] gives them. Each one's CRC and place
    /// and what it continues are checked; one that is wrong refuses them all.
    ///
    /// # Errors
    /// [`Error::Malformed`]; [`Error::Io`], after which the refill must be opened anew.
    pub fn push(&mut self, raw: &[u8]) -> Result<()> {
        let mut rest = Bytes::copy_from_slice(raw);
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let size = crate::entry::u32_at(&rest, 4).unwrap_or(u32::MAX) as usize;
            if size == 0 || size > rest.len() {
                let what = format!("{} bytes at the end are no whole entry", rest.len());
                return Err(Error::Malformed { what });
            }
            let raw = rest.split_to(size);
            verify(&raw)?;
            entries.push(NewEntry::Stored { raw });
        }
        match self.log.append(entries, Box::new(drop)) {
            Err(Error::Diverged { what }) => Err(Error::Malformed { what }),
            appended => appended,
        }
    }

    /// Flushes everything; the folder is a log like any other then.
    ///
    /// # Errors
    /// [`Error::Io`]; the refill can be opened again.
    pub fn finish(self) -> Result<()> {
        let Refill { log, disk, path } = self;
        log.sync()?;
        drop(log);
        disk.remove(&path).map_err(Error::io("remove", &path))?;
        let dir = path.parent().unwrap_or_else(|| Path::new("."));
        disk.sync_dir(dir).map_err(Error::io("flush", dir))
    }
}

impl std::fmt::Debug for Refill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Refill").field(&self.log).finish()
    }
}

/// What the mark of an unfinished refill says. A damaged one says that it has to start anew.
fn begun(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Option<(u64, LogBase)>> {
    let bytes = small_file::read(disk, &dir.join(NAME), 4096)?;
    Ok(bytes.map(|bytes| {
        let whole = bytes.as_slice().try_into().ok();
        whole.and_then(base::decode).unwrap_or_default()
    }))
}

/// Keeps a log that is still being filled from being opened.
pub(super) fn refuse_unfinished(disk: &Arc<dyn Disk>, dir: &Path) -> Result<()> {
    if begun(disk, dir)?.is_none() {
        return Ok(());
    }
    let what = "it is being filled from another member and is not complete";
    Err(Error::Inconsistent {
        path: dir.to_path_buf(),
        what: what.to_owned(),
    })
}

/// Removes every file of a log.
fn empty(disk: &dyn Disk, dir: &Path) -> Result<()> {
    for name in disk.list(dir).map_err(Error::io("list", dir))? {
        if super::is_log_file(&name) {
            let path = dir.join(name);
            disk.remove(&path).map_err(Error::io("remove", &path))?;
        }
    }
    disk.sync_dir(dir).map_err(Error::io("flush", dir))
}

#[cfg(test)]
mod tests;
