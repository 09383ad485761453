//! Taking over another member's files: where they are gathered, and the step that makes them this
//! store's.
//!
//! A store that cannot go on by itself says so in a file, and does not open while that is there:
//!
//! | path | what |
//! |---|---|
//! | `seed-wanted` | why; written before anything else happens |
//! | `seed/state/` | the state database that is being fetched |
//! | `<commit log>/seed/` | the log that is being fetched |
//! | `seed-phase` | everything is there: how far the exchange of the files has come |
//!
//! Until the last byte is there the store's own files stay, so that a fetch may take as long as it
//! wants. The exchange moves files within their folders; a stop in the middle of it is made up for
//! by the next start.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, RealDisk};
use crate::entry::{Header, LogId};
use crate::error::{Error, Result};
use crate::log::{self, CommitLog, LogBase, LogOptions, Refill};
use crate::small_file;
use crate::store::{self, Locked, StoreOptions};

const WANTED: &str = "seed-wanted";
const PHASE: &str = "seed-phase";
const FOLDER: &str = "seed";
const NUMBER: &str = "number";
/// Most bytes of the small files.
const SMALL: u64 = 64 * 1024;

/// How far the exchange has come, as the phase file says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The old log goes.
    DropLog,
    /// The fetched segments move to their place.
    MoveLog,
    /// The fetched state takes the old one's place.
    MoveState,
}

impl Phase {
    const ALL: [Phase; 3] = [Phase::DropLog, Phase::MoveLog, Phase::MoveState];

    fn word(self) -> &'static str {
        match self {
            Phase::DropLog => "drop-log",
            Phase::MoveLog => "move-log",
            Phase::MoveState => "move-state",
        }
    }

    fn next(self) -> Option<Phase> {
        match self {
            Phase::DropLog => Some(Phase::MoveLog),
            Phase::MoveLog => Some(Phase::MoveState),
            Phase::MoveState => None,
        }
    }
}

/// The places of a store.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) root: PathBuf,
    pub(crate) log: PathBuf,
}

impl Places {
    fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    fn fetched_state(&self) -> PathBuf {
        self.root.join(FOLDER).join("state")
    }

    fn fetched_log(&self) -> PathBuf {
        self.log.join(FOLDER)
    }

    /// Notes that the store has to be taken over from another member, durably.
    pub(crate) fn want(&self, disk: &dyn Disk, why: &str) -> Result<()> {
        small_file::replace(disk, &self.root.join(WANTED), why.as_bytes())
    }

    /// Why the store has to be taken over, if it has.
    pub(crate) fn wanted(&self, disk: &Arc<dyn Disk>) -> Result<Option<String>> {
        let bytes = small_file::read(disk, &self.root.join(WANTED), SMALL)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Goes on with an exchange that a stop interrupted, and ends it.
    pub(crate) fn finish_exchange(&self, disk: &Arc<dyn Disk>) -> Result<()> {
        let path = self.root.join(PHASE);
        let Some(bytes) = small_file::read(disk, &path, SMALL)? else {
            return Ok(());
        };
        let found = String::from_utf8_lossy(&bytes).into_owned();
        let known = Phase::ALL.into_iter().find(|phase| phase.word() == found);
        let mut phase = known.ok_or_else(|| Error::Corrupt {
            path: path.clone(),
            offset: 0,
            what: format!("{found:?} is no phase of an exchange"),
        })?;
        loop {
            self.step(phase)?;
            match phase.next() {
                Some(next) => small_file::replace(&**disk, &path, next.word().as_bytes())?,
                None => break,
            }
            phase = phase.next().unwrap_or(Phase::MoveState);
        }
        remove_file(&self.root.join(WANTED))?;
        sync_dir(&self.root)?;
        remove_file(&path)?;
        sync_dir(&self.root)?;
        self.discard()
    }

    /// One phase; doing it again does no harm.
    fn step(&self, phase: Phase) -> Result<()> {
        match phase {
            Phase::DropLog => drop_log(&self.log),
            Phase::MoveLog => {
                let from = self.fetched_log();
                for name in names(&from)? {
                    let (old, new) = (from.join(&name), self.log.join(&name));
                    fs::rename(&old, &new).map_err(Error::io("move", &old))?;
                }
                sync_dir(&self.log)
            }
            Phase::MoveState => {
                let (from, to) = (self.fetched_state(), self.state());
                if !from.is_dir() {
                    return Ok(());
                }
                remove_dir(&to)?;
                fs::rename(&from, &to).map_err(Error::io("move", &from))?;
                sync_dir(&self.root)
            }
        }
    }

    /// Removes what was fetched.
    fn discard(&self) -> Result<()> {
        remove_dir(&self.root.join(FOLDER))?;
        remove_dir(&self.fetched_log())
    }
}

/// What a store's own log is worth when it is brought up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnLog {
    /// It has the last entry of what is fetched: it stays, only the state is fetched.
    Has,
    /// It ends before the other one begins.
    EndsBefore,
    /// It is replaced in the end.
    Other,
}

/// A store that is being taken over from another member. It is locked as long as this lives.
pub struct SeedFolder {
    places: Places,
    segment_bytes: u64,
    disk: Arc<dyn Disk>,
    _locks: Vec<Box<dyn Send + Sync>>,
}

impl SeedFolder {
    /// Locks the store and prepares the folders.
    ///
    /// # Errors
    /// As [`crate::Store::open`] says for a store that is not this member's or in use.
    pub fn open(options: &StoreOptions) -> Result<SeedFolder> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let Locked { places, locks, .. } = store::lock_places(&disk, options)?;
        places.finish_exchange(&disk)?;
        Ok(SeedFolder {
            places,
            segment_bytes: options.segment_bytes,
            disk,
            _locks: locks,
        })
    }

    /// Why it has to be taken over; `None` once nothing is missing any more.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn wanted(&self) -> Result<Option<String>> {
        self.places.wanted(&self.disk)
    }

    /// Where the files of the state database are put.
    pub fn state_dir(&self) -> PathBuf {
        self.places.fetched_state()
    }

    /// Bytes of a segment.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Number of the copy of a state that was being fetched.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn begun(&self) -> Result<Option<u64>> {
        let path = self.places.root.join(FOLDER).join(NUMBER);
        let bytes = small_file::read(&self.disk, &path, SMALL)?;
        Ok(bytes.and_then(|bytes| String::from_utf8_lossy(&bytes).parse().ok()))
    }

    /// Begins to fetch another copy of a state: files of the one before are removed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn begin(&self, number: u64) -> Result<()> {
        let dir = self.state_dir();
        remove_dir(&dir)?;
        fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        let path = self.places.root.join(FOLDER).join(NUMBER);
        small_file::replace(&*self.disk, &path, number.to_string().as_bytes())
    }

    /// Removes what was fetched of a log.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn discard_log(&self) -> Result<()> {
        remove_dir(&self.places.fetched_log())
    }

    /// The log to go on filling.
    ///
    /// # Errors
    /// As [`Refill::open`].
    pub fn refill(&self, base: LogBase) -> Result<Refill> {
        let dir = self.places.fetched_log();
        Refill::open(self.disk.clone(), &dir, self.segment_bytes, base)
    }

    /// What the store's own log is worth beside one that begins with index `first` and has `entry`
    /// with this CRC.
    pub fn own_log(&self, entry: LogId, crc: u32, first: u64) -> OwnLog {
        let options = LogOptions {
            segment_bytes: self.segment_bytes,
            prepare_ahead: 0,
            ..LogOptions::new(&self.places.log)
        };
        let look = || {
            let log = CommitLog::open(self.disk.clone(), options)?;
            if log.next_index() <= first {
                return Ok(OwnLog::EndsBefore);
            }
            let found = log.read(entry.index, entry.index + 1, None)?;
            let has = found.first().is_some_and(|stored| {
                let header = Header::decode(&stored.raw);
                stored.id == entry && header.is_ok_and(|header| header.crc == crc)
            });
            Ok::<_, Error>(if has { OwnLog::Has } else { OwnLog::Other })
        };
        look().unwrap_or_else(|error| {
            tracing::info!(%error, "the log here is of no use for what is fetched");
            OwnLog::Other
        })
    }

    /// Gives back the room of the store's own log, which ends before the one that is fetched
    /// begins. The caller has made sure that this member does not vote.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn drop_own_log(&self) -> Result<()> {
        drop_log(&self.places.log)
    }

    /// Makes what was fetched this store's: the state, and the log unless its own is kept.
    ///
    /// # Errors
    /// [`Error::Io`]. Called again, or at the next start, it goes on where it stopped.
    pub fn exchange(&self, keep_log: bool) -> Result<()> {
        let state = self.state_dir();
        for name in names(&state)? {
            let path = state.join(name);
            let file = fs::File::open(&path).map_err(Error::io("open", &path))?;
            file.sync_all().map_err(Error::io("flush", &path))?;
        }
        sync_dir(&state)?;
        sync_dir(&self.places.root.join(FOLDER))?;
        sync_dir(&self.places.root)?;
        let first = if keep_log {
            Phase::MoveState
        } else {
            Phase::DropLog
        };
        let phase = self.places.root.join(PHASE);
        small_file::replace(&*self.disk, &phase, first.word().as_bytes())?;
        self.places.finish_exchange(&self.disk)
    }
}

/// Moves a damaged folder out of the way, instead of an earlier one, for somebody to look at.
///
/// # Errors
/// [`Error::Io`].
pub fn set_aside(dir: &Path) -> Result<()> {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".damaged");
    let aside = dir.with_file_name(name);
    remove_dir(&aside)?;
    fs::rename(dir, &aside).map_err(Error::io("move", dir))
}

/// Removes the files of a commit log, the newest first: what is left in between is a log.
fn drop_log(dir: &Path) -> Result<()> {
    let mut found = names(dir)?;
    found.sort_unstable();
    for name in found.iter().rev().filter(|name| log::is_log_file(name)) {
        remove_file(&dir.join(name))?;
    }
    sync_dir(dir)
}

/// Names in a folder; none if it is missing.
fn names(dir: &Path) -> Result<Vec<String>> {
    match RealDisk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(Error::io("list", dir)),
    }
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(Error::io("remove", path)),
    }
}

fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(Error::io("remove", path)),
    }
}

fn sync_dir(dir: &Path) -> Result<()> {
    match RealDisk.sync_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        synced => synced.map_err(Error::io("flush", dir)),
    }
}
