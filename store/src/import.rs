//! Filling a new store from outside, before any member runs over it.
//!
//! The identity file is written last. Until then a marker stands in the folder: a member refuses
//! to start over a half-filled store, and the next import begins anew.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::committed::CommittedMark;
use crate::disk::{Disk, RealDisk};
use crate::error::{Error, Result};
use crate::identity::{self, Identity};
use crate::log::{CommitLog, Keep, LogOptions, base, check_segment_bytes, checkpoint};
use crate::poison::Poison;
use crate::small_file;
use crate::state::State;
use crate::store::{COMMITTED, StoreOptions, VOTE, create_dir, is_below, lock};
use crate::vote::VoteFile;

/// File name of the marker in the store folder.
const MARKER: &str = "importing";
/// What may stand in the folder of a new store: an administrator's or a file system's things.
const IGNORED: [&str; 4] = ["lock", "lost+found", "logs", MARKER];
/// What an import that was not finished may have left.
const LEFTOVERS: [&str; 4] = ["state", VOTE, COMMITTED, identity::NAME];

/// A store that is being filled.
pub struct NewStore {
    /// The commit log.
    pub log: CommitLog,
    /// The state; apply what is appended.
    pub state: State,
    /// The vote.
    pub vote: VoteFile,
    /// The committed mark.
    pub committed: CommittedMark,
    disk: Arc<dyn Disk>,
    identity: Identity,
    root: PathBuf,
    /// Where an identity file has to be: the root last.
    folders: Vec<PathBuf>,
}

/// Whether a store folder holds an import that was not finished.
///
/// # Errors
/// [`Error::Inconsistent`] says so.
pub(crate) fn refuse_unfinished(root: &Path) -> Result<()> {
    if !root.join(MARKER).exists() {
        return Ok(());
    }
    Err(Error::Inconsistent {
        path: root.to_path_buf(),
        what: "an import into this store was not finished; run storetool import again".to_owned(),
    })
}

impl NewStore {
    /// Takes the folders of a store that does not exist yet. What an unfinished import left there
    /// is removed.
    ///
    /// # Errors
    /// [`Error::Inconsistent`] when something else is there; [`Error::Locked`], [`Error::Io`].
    pub fn begin(options: &StoreOptions) -> Result<NewStore> {
        check_segment_bytes(options.segment_bytes)?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let root = options.root.clone();
        let log_dir = options.commit_log_dir.clone();
        let log_dir = log_dir.unwrap_or_else(|| root.join("commitlog"));
        create_dir(&*disk, &root)?;
        let unfinished = refuse_unfinished(&root).is_err();
        if !unfinished {
            refuse_used(&root, &log_dir)?;
        }
        create_dir(&*disk, &log_dir)?;
        let mut folders = vec![root.clone()];
        if !is_below(&log_dir, &root) {
            if !unfinished {
                refuse_used(&log_dir, &log_dir)?;
            }
            folders.insert(0, log_dir.clone());
        }
        let mut locks = Vec::new();
        for folder in &folders {
            locks.push(lock(&*disk, folder)?);
        }
        let text = b"A storetool import into this store was not finished.\n";
        small_file::replace(&*disk, &root.join(MARKER), text)?;
        if unfinished {
            remove_leftovers(&*disk, &folders, &log_dir)?;
        }
        let poison = Poison::default();
        let log_options = LogOptions {
            dir: log_dir,
            segment_bytes: options.segment_bytes,
            flush: options.flush,
            prepare_ahead: options.prepare_ahead,
            background: options.background,
        };
        let keep: Keep = Arc::new(locks);
        let log = CommitLog::open_with(disk.clone(), log_options, poison.clone(), Some(keep))?;
        let state = State::open(root.join("state"), log.clone(), options.state.clone())?;
        Ok(NewStore {
            log,
            state,
            vote: VoteFile::new(disk.clone(), root.join(VOTE), poison),
            committed: CommittedMark::open(&*disk, root.join(COMMITTED))?,
            disk,
            identity: Identity {
                group: options.group.clone(),
                self_id: options.self_id,
                segment_bytes: options.segment_bytes,
            },
            root,
            folders,
        })
    }

    /// Makes everything durable and the folder a store. A member may be started over it then.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Database`], [`Error::Poisoned`]: the import is not finished then.
    pub fn finish(self) -> Result<()> {
        self.state.close()?;
        self.log.sync()?;
        for folder in &self.folders {
            self.identity.check_or_create(&self.disk, folder)?;
        }
        let marker = self.root.join(MARKER);
        self.disk
            .remove(&marker)
            .map_err(Error::io("remove", &marker))?;
        self.disk
            .sync_dir(&self.root)
            .map_err(Error::io("flush", &self.root))
    }
}

/// Refuses a folder that holds anything already, except for an empty folder of the log.
fn refuse_used(folder: &Path, log_dir: &Path) -> Result<()> {
    let list = |dir: &Path| match RealDisk.list(dir) {
        Ok(names) => Ok(names),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io("list", dir)(error)),
    };
    for name in list(folder)? {
        if IGNORED.contains(&name.as_str()) {
            continue;
        }
        let path = folder.join(&name);
        let inside = if path == *log_dir {
            list(&path)?
        } else {
            vec![name]
        };
        if let Some(name) = inside.iter().find(|name| !IGNORED.contains(&name.as_str())) {
            return Err(Error::Inconsistent {
                path: folder.to_path_buf(),
                what: format!("it has {name} in it; an import needs a folder for a new store"),
            });
        }
    }
    Ok(())
}

fn remove_leftovers(disk: &dyn Disk, folders: &[PathBuf], log_dir: &Path) -> Result<()> {
    let remove = |path: &Path| {
        let removed = if path.is_dir() {
            std::fs::remove_dir_all(path)
        } else {
            disk.remove(path)
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove", path)(error))
            }
            _ => Ok(()),
        }
    };
    for folder in folders {
        for name in LEFTOVERS {
            remove(&folder.join(name))?;
        }
    }
    for segment in crate::inspect::segments(log_dir)? {
        remove(&segment.path)?;
    }
    remove(&log_dir.join(base::NAME))?;
    remove(&log_dir.join(checkpoint::NAME))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::entry::{EntryKind, LogId, NewEntry};
    use crate::store::Store;

    fn options(root: &Path, log_dir: Option<PathBuf>) -> StoreOptions {
        let mut options = StoreOptions::new(root, "g", 0);
        options.segment_bytes = 4096;
        options.commit_log_dir = log_dir;
        options
    }

    fn fill(store: &NewStore, count: u64) {
        let entries = (0..count).map(|index| NewEntry::Fresh {
            id: LogId::new(1, index),
            kind: EntryKind::Blank,
            command_len: 0,
            body: BytesMut::from(&[1u8; 1000][..]),
        });
        store.log.append(entries, Box::new(drop)).unwrap();
        let entries = store.log.read(0, count, None).unwrap();
        store.state.apply(&entries).unwrap();
    }

    /// A finished one opens; an unfinished one is refused until it is imported again.
    #[test]
    fn finished_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        for log_dir in [None, Some(dir.path().join("elsewhere"))] {
            let root = dir.path().join(format!("store{}", log_dir.is_some()));
            let options = options(&root, log_dir);
            let new = NewStore::begin(&options).unwrap();
            fill(&new, 20);
            new.state.persist().unwrap();
            drop(new);
            let error = Store::open(options.clone()).unwrap_err().to_string();
            assert!(error.contains("not finished"), "{error}");

            let new = NewStore::begin(&options).unwrap();
            assert_eq!(new.log.last(), None);
            fill(&new, 7);
            new.finish().unwrap();
            let store = Store::open(options.clone()).unwrap();
            assert_eq!(store.log.last(), Some(LogId::new(1, 6)));
            assert_eq!(store.state.applied(), Some(LogId::new(1, 6)));
            drop(store);
            let error = NewStore::begin(&options).err().unwrap().to_string();
            assert!(error.contains("needs a folder for a new store"), "{error}");
        }
    }

    /// Somebody else's files are never touched.
    #[test]
    fn used_folders_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("commitlog")).unwrap();
        drop(NewStore::begin(&options(dir.path(), None)).unwrap());
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("anything"), b"x").unwrap();
        let error = NewStore::begin(&options(dir.path(), None)).err().unwrap();
        assert!(error.to_string().contains("anything"), "{error}");
        assert!(!dir.path().join("commitlog").exists());
    }
}
