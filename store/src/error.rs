//! What can go wrong in the store, by what the caller does next.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Result of a store operation.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the store. Every text is one line and names the file or the value concerned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as in "cannot *open*".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process holds the store.
    #[error("store {} is in use by another process (it holds the lock {})", root.display(), lock.display())]
    Locked {
        /// The store folder.
        root: PathBuf,
        /// The lock file.
        lock: PathBuf,
    },
    /// The store was created for something else than it is opened for.
    #[error("{} says {key}={stored}, but the configuration says {key}={wanted}: this store belongs to another member or was created with other settings", path.display())]
    Identity {
        /// The identity file.
        path: PathBuf,
        /// Which value differs.
        key: &'static str,
        /// The value in the file.
        stored: String,
        /// The value asked for.
        wanted: String,
    },
    /// An option is outside its range.
    #[error("{name} = {value} is not possible: {allowed}")]
    Option {
        /// Name of the option.
        name: &'static str,
        /// The value given.
        value: u64,
        /// What is allowed.
        allowed: String,
    },
    /// Bytes on disk are not what was written there.
    #[error("{} is corrupt at byte {offset}: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Byte offset in the file.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The log and the state database disagree.
    #[error("{}: {what}", path.display())]
    Inconsistent {
        /// The folder of the part that is ahead.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// An entry does not continue the log: wrong index, term, position or chain.
    #[error("entry does not continue the log: {what}")]
    Diverged {
        /// Which field, expected and found value.
        what: String,
    },
    /// An entry given to append (or received from a peer) is malformed.
    #[error("malformed entry: {what}")]
    Malformed {
        /// What is wrong.
        what: String,
    },
    /// An entry is larger than a segment or than [`crate::entry::ENTRY_MAX`].
    #[error("entry of {size} bytes is larger than the {max} bytes an entry may have")]
    EntryTooLarge {
        /// Size of header and body.
        size: u64,
        /// The limit: the smaller of the segment size and `ENTRY_MAX`.
        max: u64,
    },
    /// A log index outside the log.
    #[error("log index {index} is outside the log ({first}..{next})")]
    OutOfRange {
        /// The index asked for.
        index: u64,
        /// First index of the log.
        first: u64,
        /// The index after the last.
        next: u64,
    },
    /// A truncation below what is committed.
    #[error("refusing to truncate the log after {after:?}: index {committed} is committed")]
    TruncateCommitted {
        /// Last index that was to stay.
        after: Option<u64>,
        /// The committed bound.
        committed: u64,
    },
    /// No record at this physical offset, or it is not readable (yet).
    #[error("no message at physical offset {offset}: {what}")]
    NoRecord {
        /// The physical offset asked for.
        offset: u64,
        /// Why.
        what: &'static str,
    },
    /// An earlier write or flush failed; the store refuses all later ones.
    #[error("store is poisoned: {0}")]
    Poisoned(Arc<str>),
    /// The state database failed.
    #[error("state database {}: {source}", path.display())]
    Database {
        /// Folder of the database.
        path: PathBuf,
        /// RocksDB's answer.
        source: rocksdb::Error,
    },
    /// The state database cannot be relied on. What it held follows from the commit log, or can
    /// be copied from another member.
    #[error("state database {} is damaged: {what}", path.display())]
    StateDamaged {
        /// Folder of the database.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The log does not go back far enough to make the state of it.
    #[error("the state in {} needs entry {next} next, but the commit log begins at {first}: it has to be copied from another member", path.display())]
    NeedsSeed {
        /// Folder of the state database.
        path: PathBuf,
        /// Index after the last entry that the state has.
        next: u64,
        /// First index of the log.
        first: u64,
    },
    /// The store waits for being taken over from another member, see [`crate::seed`].
    #[error("store {} has to be brought up from another member: {why}", root.display())]
    SeedWanted {
        /// The store folder.
        root: PathBuf,
        /// Why.
        why: String,
    },
    /// The store is closed.
    #[error("store is closed")]
    Closed,
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io {
            action,
            path,
            source,
        }
    }

    /// A file operation outside this crate, on files that will be this store's.
    pub fn file(action: &'static str, path: &Path, source: io::Error) -> Error {
        Error::io(action, path)(source)
    }

    /// True when the disk had no room for a write.
    pub fn is_no_space(&self) -> bool {
        match self {
            Error::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ),
            _ => false,
        }
    }
}
