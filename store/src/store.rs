//! A member's store: the parts, their places, and what is checked before they are opened.
//!
//! | path | what |
//! |---|---|
//! | `lock` | held while a process uses the store |
//! | `identity` | whose store it is |
//! | `abort` | there while a process uses the store; left behind by a crash |
//! | `vote`, `committed` | Raft's small files |
//! | `commitlog/` | segments and their checkpoint; may be elsewhere |
//! | `state/` | the state database |
//! | `seed*` | files of another member that are to become this store's, see [`crate::seed`] |

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::committed::CommittedMark;
use crate::disk::{Disk, DiskSpace, RealDisk};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::import::refuse_unfinished;
use crate::log::{
    CommitLog, FlushMode, Keep, LogOptions, PREPARE_AHEAD_DEFAULT, SEGMENT_BYTES_DEFAULT,
    check_segment_bytes, has_segments,
};
use crate::poison::Poison;
use crate::seed::Places;
use crate::small_file;
use crate::state::{State, StateOptions};
use crate::vote::VoteFile;

/// File names in the store folder.
pub(crate) const ABORT: &str = "abort";
pub(crate) const COMMITTED: &str = "committed";
pub(crate) const VOTE: &str = "vote";

/// Room that the file system must have for a start: what is prepared ahead of the log at first,
/// and as much for the state.
const ROOM_AT_START: u64 = 16 * 1024 * 1024;

/// Where a store is and how it is used.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The store folder (RocketMQ: `storePathRootDir`); created if missing.
    pub root: PathBuf,
    /// Folder of the commit log (RocketMQ: `storePathCommitLog`); `commitlog` below the root if
    /// not given.
    pub commit_log_dir: Option<PathBuf>,
    /// The broker group's name.
    pub group: String,
    /// This member's id.
    pub self_id: u64,
    /// Bytes of a commit-log segment (RocketMQ: `mappedFileSizeCommitLog`).
    pub segment_bytes: u64,
    /// When entries count as stored (RocketMQ: `flushDiskType`).
    pub flush: FlushMode,
    /// Bytes prepared ahead of the log's tail; 0 turns the helper off.
    pub prepare_ahead: u64,
    /// Whether the log has threads of its own, see [`LogOptions::background`].
    pub background: bool,
    /// When the state is brought to its database.
    pub state: StateOptions,
}

impl StoreOptions {
    /// RocketMQ's defaults, with SYNC_FLUSH.
    pub fn new(root: impl Into<PathBuf>, group: impl Into<String>, self_id: u64) -> Self {
        StoreOptions {
            root: root.into(),
            commit_log_dir: None,
            group: group.into(),
            self_id,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            flush: FlushMode::Sync,
            prepare_ahead: PREPARE_AHEAD_DEFAULT,
            background: true,
            state: StateOptions::default(),
        }
    }
}

/// How the store was left by whoever used it last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastStop {
    /// It is new.
    Never,
    /// It was closed.
    Clean,
    /// The process died, the machine did not: nothing written was lost.
    Process,
    /// The machine stopped or was started anew: what was not flushed may be lost. A member that
    /// ran with ASYNC_FLUSH may have forgotten entries that it acknowledged.
    Machine {
        /// Whether it ran with ASYNC_FLUSH.
        was_async: bool,
    },
}

/// The open store of a member; clones share it. It stays locked until the last clone, and the
/// last handle of its log and state, is gone.
#[derive(Clone)]
pub struct Store {
    /// The commit log.
    pub log: CommitLog,
    /// The applied state.
    pub state: Arc<State>,
    /// The vote.
    pub vote: Arc<VoteFile>,
    /// The committed mark.
    pub committed: Arc<CommittedMark>,
    disk: Arc<dyn Disk>,
    places: Places,
    poison: Poison,
    last_stop: LastStop,
    /// What is to be marked once [`LastStop::Machine`] has been noted elsewhere.
    unmarked: Arc<Mutex<Option<String>>>,
}

impl Store {
    /// Opens a store on the machine's file system, or creates it.
    ///
    /// # Errors
    /// One line each: [`Error::Locked`], [`Error::Identity`], [`Error::Io`] for a folder that
    /// cannot be used or has no room, and what [`CommitLog::open`] and [`State::open`] say.
    pub fn open(options: StoreOptions) -> Result<Store> {
        Self::open_on(Arc::new(RealDisk), options)
    }

    /// [`open`](Self::open) with everything but the state database on the given disk.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_on(disk: Arc<dyn Disk>, options: StoreOptions) -> Result<Store> {
        let Locked {
            places,
            locks,
            is_new,
        } = lock_places(&disk, &options)?;
        places.finish_exchange(&disk)?;
        let Places { root, log: log_dir } = &places;
        if let Some(why) = places.wanted(&disk)? {
            return Err(Error::SeedWanted {
                root: root.clone(),
                why,
            });
        }
        for folder in [root, log_dir] {
            check_room(&*disk, folder)?;
        }
        let poison = Poison::default();
        let (last_stop, unmarked) = mark_open(&disk, root, is_new, options.flush)?;
        let log_options = LogOptions {
            dir: log_dir.clone(),
            segment_bytes: options.segment_bytes,
            flush: options.flush,
            prepare_ahead: options.prepare_ahead,
            background: options.background,
        };
        let keep: Keep = Arc::new(locks);
        let begun = Instant::now();
        let log = CommitLog::open_with(disk.clone(), log_options, poison.clone(), Some(keep))?;
        let log_ms = begun.elapsed().as_millis();
        let state = State::open(root.join("state"), log.clone(), options.state)?;
        let state_ms = begun.elapsed().as_millis() - log_ms;
        let vote = VoteFile::new(disk.clone(), root.join(VOTE), poison.clone());
        let committed = CommittedMark::open(&*disk, root.join(COMMITTED))?;
        tracing::info!(root = %root.display(), last = ?log.last(), applied = ?state.applied(),
            ?last_stop, log_ms, state_ms, "store is open");
        Ok(Store {
            log,
            state: Arc::new(state),
            vote: Arc::new(vote),
            committed: Arc::new(committed),
            disk,
            places,
            poison,
            last_stop,
            unmarked: Arc::new(Mutex::new(unmarked)),
        })
    }

    /// The store folder.
    pub fn root(&self) -> &Path {
        &self.places.root
    }

    /// Size and room of the file system that holds the store folder, and with it the state database.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn space(&self) -> Result<DiskSpace> {
        self.disk
            .space(self.root())
            .map_err(Error::io("ask for the room of", self.root()))
    }

    /// How the store was left before this start. That a member may have forgotten what it acknowledged stays so at every
    /// later start, however the store is left meanwhile, until [`forgetting_noted`](Self::forgetting_noted).
    pub fn last_stop(&self) -> LastStop {
        self.last_stop
    }

    /// What [`last_stop`](Self::last_stop) says has been noted where it lasts, or may be given up.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn forgetting_noted(&self) -> Result<()> {
        let mut unmarked = self.unmarked.lock();
        if let Some(mark) = &*unmarked {
            small_file::replace(&*self.disk, &self.root().join(ABORT), mark.as_bytes())?;
        }
        *unmarked = None;
        Ok(())
    }

    /// Why the store refuses writes, once it does: the first failed write or flush.
    pub fn poisoned(&self) -> Option<Arc<str>> {
        self.poison.reason()
    }

    /// Calls `listener` with the reason, once, when a write or flush has failed. It runs on the
    /// thread that met the failure and must not block.
    pub fn on_poison(&self, listener: impl FnOnce(&str) + Send + 'static) {
        self.poison.on_poison(listener);
    }

    /// Persists the state, flushes the log, and notes that the store was left in order. Nothing
    /// may be appended or applied afterwards; reading goes on.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Io`], [`Error::Database`]; the next start recovers then.
    pub fn close(&self) -> Result<()> {
        self.state.close()?;
        self.log.sync()?;
        if self.unmarked.lock().is_some() {
            return Ok(());
        }
        let root = &self.places.root;
        let path = root.join(ABORT);
        match self.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &path)(error));
            }
            _ => {}
        }
        self.disk.sync_dir(root).map_err(Error::io("flush", root))
    }

    /// Notes, durably, that this store has to be taken over from another member: from the next
    /// start on it does not open before that is done, see [`crate::seed`].
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn want_seed(&self, why: &str) -> Result<()> {
        self.places.want(&*self.disk, why)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("root", &self.places.root)
            .finish_non_exhaustive()
    }
}

/// A store's places, locked.
pub(crate) struct Locked {
    pub(crate) places: Places,
    pub(crate) locks: Vec<Box<dyn Send + Sync>>,
    /// Nobody had used them before.
    pub(crate) is_new: bool,
}

/// Creates and locks a store's folders, and makes sure that they are this member's.
pub(crate) fn lock_places(disk: &Arc<dyn Disk>, options: &StoreOptions) -> Result<Locked> {
    check_segment_bytes(options.segment_bytes)?;
    let root = &options.root;
    create_dir(&**disk, root)?;
    let log_dir = options
        .commit_log_dir
        .clone()
        .unwrap_or_else(|| root.join("commitlog"));
    create_dir(&**disk, &log_dir)?;
    let mut folders = vec![root.clone()];
    if !is_below(&log_dir, root) {
        folders.push(log_dir.clone());
    }
    let mut locks = Vec::new();
    for folder in &folders {
        locks.push(lock(&**disk, folder)?);
    }
    let identity = Identity {
        group: options.group.clone(),
        self_id: options.self_id,
        segment_bytes: options.segment_bytes,
    };
    refuse_unfinished(root)?;
    check_foreign(disk, root, &log_dir)?;
    let mut is_new = false;
    for folder in &folders {
        is_new |= identity.check_or_create(disk, folder)?;
    }
    let places = Places {
        root: root.clone(),
        log: log_dir,
    };
    Ok(Locked {
        places,
        locks,
        is_new,
    })
}

/// Creates a folder, and makes its name durable: what is flushed into it later must be found.
pub(crate) fn create_dir(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let is_new = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.is_dir();
    let new: Vec<&Path> = dir.ancestors().take_while(is_new).collect();
    disk.create_dir_all(dir).map_err(Error::io("create", dir))?;
    for dir in new {
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or_else(|| Path::new("."));
        disk.sync_dir(parent).map_err(Error::io("flush", parent))?;
    }
    Ok(())
}

/// Whether two paths of existing folders lie one in the other.
pub(crate) fn is_below(inner: &Path, outer: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    real(inner).starts_with(real(outer))
}

pub(crate) fn lock(disk: &dyn Disk, folder: &Path) -> Result<Box<dyn Send + Sync>> {
    let path = folder.join("lock");
    disk.lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::Locked {
            root: folder.to_path_buf(),
            lock: path.clone(),
        },
        _ => Error::io("lock", &path)(error),
    })
}

/// Refuses a folder with segments of something else: Java's files have the same names.
fn check_foreign(disk: &Arc<dyn Disk>, root: &Path, log_dir: &Path) -> Result<()> {
    let identity = root.join(crate::identity::NAME);
    let is_known = small_file::read(disk, &identity, 64 * 1024)?.is_some();
    if !is_known && has_segments(&**disk, log_dir)? {
        let what = format!(
            "it has commit-log files, but {} is missing: this is no store of RaftMQ",
            identity.display()
        );
        return Err(Error::Inconsistent {
            path: log_dir.to_path_buf(),
            what,
        });
    }
    Ok(())
}

fn check_room(disk: &dyn Disk, folder: &Path) -> Result<()> {
    let space = disk
        .space(folder)
        .map_err(Error::io("ask for the room of", folder))?;
    if space.available < ROOM_AT_START {
        let text = format!(
            "no space left: {} bytes are available, a start needs {ROOM_AT_START}",
            space.available
        );
        let source = io::Error::new(io::ErrorKind::StorageFull, text);
        return Err(Error::io("use", folder)(source));
    }
    Ok(())
}

/// Finds out how the store was left, and marks it as used; unless what was found must outlive this process: then the mark stays
/// as it is, and what it has to become is returned.
fn mark_open(
    disk: &Arc<dyn Disk>,
    root: &Path,
    is_new: bool,
    flush: FlushMode,
) -> Result<(LastStop, Option<String>)> {
    let path = root.join(ABORT);
    let boot = disk.boot_id();
    let left = small_file::read(disk, &path, 64 * 1024)?;
    let last_stop = match left.as_deref().map(String::from_utf8_lossy) {
        None if is_new => LastStop::Never,
        None => LastStop::Clean,
        Some(text) if text.lines().next() == Some(&boot) && !boot.is_empty() => LastStop::Process,
        Some(text) => LastStop::Machine {
            was_async: text.lines().nth(1) == Some("async"),
        },
    };
    let mode = match flush {
        FlushMode::Sync => "sync",
        FlushMode::Async { .. } => "async",
    };
    let mark = format!("{boot}\n{mode}\n");
    if last_stop == (LastStop::Machine { was_async: true }) {
        return Ok((last_stop, Some(mark)));
    }
    small_file::replace(&**disk, &path, mark.as_bytes())?;
    Ok((last_stop, None))
}

#[cfg(test)]
mod tests;
