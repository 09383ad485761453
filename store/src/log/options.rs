//! How a commit log is opened.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};

/// Smallest segment: large enough for a header and its blank end.
pub const SEGMENT_BYTES_MIN: u64 = 4096;
/// Largest segment: RocketMQ's setting is a Java `int`.
pub const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;
/// RocketMQ's default of `mappedFileSizeCommitLog`.
pub const SEGMENT_BYTES_DEFAULT: u64 = 1 << 30;
/// Default distance that is prepared ahead of the tail.
pub const PREPARE_AHEAD_DEFAULT: u64 = 32 * 1024 * 1024;

/// When appended entries count as stored (RocketMQ: `flushDiskType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushMode {
    /// After fdatasync; appends that wait at the same time share one.
    Sync,
    /// At once; fdatasync each interval.
    Async {
        /// Time between flushes (RocketMQ: `flushIntervalCommitLog`, 500 ms).
        interval: Duration,
    },
}

/// How a commit log is opened.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Folder of the segments (RocketMQ: `storePathCommitLog`).
    pub dir: PathBuf,
    /// Bytes of a segment (RocketMQ: `mappedFileSizeCommitLog`);
    /// [`SEGMENT_BYTES_MIN`]..=[`SEGMENT_BYTES_MAX`]. Never changes in the life of a log.
    pub segment_bytes: u64,
    /// When entries count as stored.
    pub flush: FlushMode,
    /// Bytes written as zeros ahead of the tail; 0 turns the helper off.
    pub prepare_ahead: u64,
    /// Whether threads flush and prepare; otherwise only [`CommitLog::flush`] does, on its caller's
    /// thread.
    ///
    /// [`CommitLog::flush`]: super::CommitLog::flush
    pub background: bool,
}

impl LogOptions {
    /// RocketMQ's default segment size, SYNC_FLUSH.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        LogOptions {
            dir: dir.into(),
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            flush: FlushMode::Sync,
            prepare_ahead: PREPARE_AHEAD_DEFAULT,
            background: true,
        }
    }
}

/// Refuses segment sizes that are not possible.
pub(crate) fn check_segment_bytes(value: u64) -> Result<()> {
    if (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&value) {
        return Ok(());
    }
    Err(Error::Option {
        name: "mappedFileSizeCommitLog",
        value,
        allowed: format!("{SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX} bytes"),
    })
}
