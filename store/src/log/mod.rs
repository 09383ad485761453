//! The commit log: RocketMQ's CommitLog and the Raft log in one.
//!
//! ```text
//!  append ──▶ pwrite into the active segment ──▶ readable ──▶ flush thread: fdatasync ──▶ callback
//!                 ▲
//!  helper thread: writes zeros ahead of the tail, creates the next segment early
//! ```
//!
//! Watermarks: `base ≤ flushed ≤ end`, `committed ≤ end`. One task appends and truncates; any
//! thread reads, or removes segments at the beginning. Entries never straddle segments: one that
//! does not fit goes to the next segment, so positions depend on nothing but the entries
//! themselves and are equal on all members.
//!
//! RocketMQ: `CommitLog`, `MappedFileQueue`, `FlushRealTimeService`, `GroupCommitService`,
//! `AllocateMappedFileService`.

mod append;
pub(crate) mod base;
pub(crate) mod checkpoint;
mod flush;
mod full;
mod holes;
mod index;
mod options;
mod prepare;
mod purge;
mod raw;
mod read;
mod reader;
mod recover;
mod refill;
mod repair;
mod scrub;
pub(crate) mod segment;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::disk::{Disk, DiskSpace, MemoryDisk};
use crate::entry::{ENTRY_MAX, Header, LogId};
use crate::error::{Error, Result};
use crate::poison::Poison;

pub use base::LogBase;
pub use holes::Hole;
pub(crate) use options::check_segment_bytes;
pub use options::{
    FlushMode, LogOptions, PREPARE_AHEAD_DEFAULT, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX,
    SEGMENT_BYTES_MIN,
};
pub use purge::SegmentInfo;
pub use refill::Refill;
pub use scrub::{ScrubCursor, ScrubStep};

use base::BaseFile;
use flush::Flusher;
use holes::Holes;
use index::Index;
use prepare::Preparer;
use segment::Segment;

/// Called once when the entries of an append are durable (at once with [`FlushMode::Async`]), or
/// with the reason why they may not be. Runs on the flush thread or inside `append`, `flush` or
/// `truncate_after`; it must not block and must not call the log.
pub type FlushCallback = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Figures of a log, for metrics and `brokerStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogStats {
    /// Number of segment files.
    pub segments: usize,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Position of the first entry (RocketMQ: `commitLogMinOffset`).
    pub min_position: u64,
    /// Position after the last entry (RocketMQ: `commitLogMaxOffset`).
    pub end_position: u64,
    /// Position up to which everything is durable.
    pub flushed_position: u64,
    /// Bytes ahead of the tail that can be appended without asking the file system for room.
    pub prepared_bytes: u64,
    /// The file system had no room when the log was last prepared ahead: appends will fail soon.
    pub no_space: bool,
    /// How many times a segment was flushed since the start.
    pub flushes: u64,
    /// Damaged places that are known and not repaired.
    pub holes: usize,
    /// Damaged places repaired since the start.
    pub repaired: u64,
}

/// One entry's place and chain value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    pub(crate) id: LogId,
    pub(crate) position: u64,
    pub(crate) end: u64,
    pub(crate) crc: u32,
}

impl Mark {
    pub(crate) fn of(header: &Header) -> Mark {
        Mark {
            id: header.id,
            position: header.position,
            end: header.end(),
            crc: header.crc,
        }
    }
}

/// What readers, the flush thread and the helper share.
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: LogOptions,
    pub(crate) poison: Poison,
    /// Without gaps, by start position; the last one is being written.
    pub(crate) segments: RwLock<VecDeque<Arc<Segment>>>,
    pub(crate) index: RwLock<Index>,
    /// Position after the last readable entry.
    end: AtomicU64,
    /// Index after the last entry known to be committed: a truncation stays above.
    committed_next: AtomicU64,
    /// Entries from this position on are not verified when they are read: this process wrote
    /// them, a moment ago.
    trusted_from: AtomicU64,
    holes: Holes,
    /// Counts uses of anchors, to tell which segment's are used least.
    tick: AtomicU64,
    flusher: Flusher,
    preparer: Preparer,
    /// Why the disk is too full for messages.
    full: RwLock<Option<Arc<str>>>,
}

/// Handle of a commit log; clones share it. The last one to go flushes and ends the threads.
#[derive(Clone)]
pub struct CommitLog {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    /// Where the log begins, on disk. Held by whoever removes segments, at either end; taken
    /// before `writer`.
    base: Mutex<BaseFile>,
    /// The last entry, for the one that appends; the one before the base in an empty log.
    writer: Mutex<Option<Mark>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The lock of the store, given back after the threads have ended.
    _keep: Option<Keep>,
}

/// Something that lives as long as a log.
pub(crate) type Keep = Arc<dyn std::any::Any + Send + Sync>;

impl CommitLog {
    /// Opens a log, finding its end after any stop, or creates an empty one.
    ///
    /// On return everything in the log is durable, and only zeros follow it. Damage with good
    /// entries behind it does not keep a log from being opened: see [`holes`](Self::holes).
    ///
    /// # Errors
    /// [`Error::Corrupt`] when nothing says where the log begins or ends; [`Error::Option`]
    /// and [`Error::Identity`] for a wrong segment size; [`Error::Io`].
    pub fn open(disk: Arc<dyn Disk>, options: LogOptions) -> Result<CommitLog> {
        Self::open_with(disk, options, Poison::default(), None)
    }

    /// An empty log in memory, for tests.
    pub fn memory() -> CommitLog {
        let options = LogOptions {
            segment_bytes: 1 << 20,
            prepare_ahead: 0,
            ..LogOptions::new("/commitlog")
        };
        Self::open(Arc::new(MemoryDisk::new()), options).expect("an empty disk has no errors")
    }

    /// [`open`](Self::open) with the poison of a store the log is part of, and something to keep
    /// as long as any handle.
    pub(crate) fn open_with(
        disk: Arc<dyn Disk>,
        options: LogOptions,
        poison: Poison,
        keep: Option<Keep>,
    ) -> Result<CommitLog> {
        check_segment_bytes(options.segment_bytes)?;
        refill::refuse_unfinished(&disk, &options.dir)?;
        Self::open_any(disk, options, poison, keep)
    }

    /// The same, even if the log is still being filled from a peer.
    fn open_any(
        disk: Arc<dyn Disk>,
        options: LogOptions,
        poison: Poison,
        keep: Option<Keep>,
    ) -> Result<CommitLog> {
        let recovered = recover::recover(&disk, &options)?;
        let last = recovered.index.last;
        let tail = recovered.index.tail();
        let end = recovered.index.end();
        let dir = options.dir.clone();
        let preparer = Preparer::new(disk.clone(), dir, options.prepare_ahead, poison.clone());
        let flusher = Flusher::new(options.flush, recovered.checkpoint, last, poison.clone());
        let shared = Arc::new(Shared {
            disk,
            options,
            poison,
            segments: RwLock::new(recovered.segments),
            index: RwLock::new(recovered.index),
            end: AtomicU64::new(end),
            committed_next: AtomicU64::new(0),
            trusted_from: AtomicU64::new(end),
            holes: Holes::new(recovered.holes),
            tick: AtomicU64::new(0),
            flusher,
            preparer,
            full: RwLock::new(None),
        });
        let mut threads = Vec::new();
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let span = tracing::Span::current();
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || span.in_scope(work))
        };
        let background = shared.options.background;
        if background {
            let s = shared.clone();
            let thread = spawn("flush", Box::new(move || s.flusher.serve()));
            threads.push(thread.map_err(Error::io("start a thread for", &shared.options.dir))?);
        } else {
            // As with a log that ends: whoever wants a flush does it.
            shared.flusher.close();
        }
        if background && shared.options.prepare_ahead > 0 {
            let s = shared.clone();
            let thread = spawn("prepare", Box::new(move || s.preparer.serve(&s)));
            threads.push(thread.map_err(Error::io("start a thread for", &shared.options.dir))?);
        }
        let inner = Inner {
            shared,
            base: Mutex::new(recovered.base),
            writer: Mutex::new(tail),
            threads: Mutex::new(threads),
            _keep: keep,
        };
        Ok(CommitLog {
            inner: Arc::new(inner),
        })
    }

    fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    /// Term and index of the last entry.
    pub fn last(&self) -> Option<LogId> {
        self.shared().index.read().last.map(|last| last.id)
    }

    /// Index of the first entry, or of the first to come.
    pub fn first_index(&self) -> u64 {
        self.base().next_index
    }

    /// Index after the last entry.
    pub fn next_index(&self) -> u64 {
        self.shared().index.read().next()
    }

    /// Where the log begins.
    pub fn base(&self) -> LogBase {
        self.shared().index.read().base
    }

    /// CRC of the very first entry: logs that differ in it belong to different groups. `None` while
    /// there is no entry, or when it is damaged.
    pub fn genesis(&self) -> Option<u32> {
        let base = self.base();
        if base.prev.is_some() {
            return Some(base.genesis);
        }
        self.last()?;
        let first = self.read(0, 1, None).ok()?;
        Header::decode(&first.first()?.raw)
            .ok()
            .map(|header| header.crc)
    }

    /// The last entry that was removed at the beginning of the log.
    pub fn purged(&self) -> Option<LogId> {
        self.base().prev
    }

    /// Position of the first entry.
    pub fn min_position(&self) -> u64 {
        self.base().position
    }

    /// Position after the last entry.
    pub fn end_position(&self) -> u64 {
        self.shared().end()
    }

    /// Position up to which everything is durable.
    pub fn flushed_position(&self) -> u64 {
        let flushed = self.shared().flusher.flushed();
        flushed.max(self.min_position()).min(self.end_position())
    }

    /// Index after the last durable entry.
    pub fn flushed_next(&self) -> u64 {
        let next = self.shared().flusher.flushed_next();
        next.max(self.first_index())
    }

    /// How long the flush under way has taken so far; `None` when none is.
    pub fn flushing_for(&self) -> Option<Duration> {
        self.shared().flusher.flushing_for()
    }

    /// Returns once everything appended before the call is durable, in either flush mode.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Closed`].
    pub fn flush(&self) -> Result<()> {
        self.shared().poison.check()?;
        if self.flushed_position() >= self.end_position() {
            return Ok(());
        }
        self.shared().flusher.flush()
    }

    /// Notes that entries up to `index` are committed. They can not be truncated any more. Never
    /// goes back.
    pub fn set_committed(&self, index: u64) {
        self.shared()
            .committed_next
            .fetch_max(index + 1, Ordering::AcqRel);
    }

    /// The reason and the listeners of a failed write.
    pub fn poison(&self) -> &Poison {
        &self.shared().poison
    }

    /// Size and room of the file system that holds the segments.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn space(&self) -> Result<DiskSpace> {
        let dir = &self.shared().options.dir;
        self.shared()
            .disk
            .space(dir)
            .map_err(Error::io("ask for the room of", dir))
    }

    /// Current figures.
    pub fn stats(&self) -> LogStats {
        let shared = self.shared();
        let segments = shared.segments.read();
        let end = shared.end();
        let active = segments.back();
        LogStats {
            segments: segments.len(),
            segment_bytes: shared.options.segment_bytes,
            min_position: self.min_position(),
            end_position: end,
            flushed_position: self.flushed_position(),
            prepared_bytes: active.map_or(0, |active| {
                (active.start + active.ready()).saturating_sub(end)
            }),
            no_space: shared.preparer.no_space(),
            flushes: shared.flusher.flushes(),
            holes: shared.holes.count(),
            repaired: shared.holes.repaired(),
        }
    }

    /// Whether `bytes` can be appended without fear of a full disk: false once the file system
    /// has no room to prepare more and what is prepared would not do. Ask before proposing; an
    /// append that meets a full disk poisons the log.
    pub fn has_room(&self, bytes: u64) -> bool {
        !self.shared().preparer.no_space() || self.stats().prepared_bytes >= bytes
    }

    /// The options the log was opened with.
    pub fn options(&self) -> &LogOptions {
        &self.shared().options
    }

    /// Most bytes (header included) an entry may have.
    pub fn entry_bytes_max(&self) -> u64 {
        self.shared().options.segment_bytes.min(ENTRY_MAX)
    }

    /// Flushes everything and notes the end in the checkpoint, durably. The log stays usable.
    ///
    /// # Errors
    /// [`Error::Poisoned`] or the failure of this flush.
    pub fn sync(&self) -> Result<()> {
        self.shared().flusher.finish()
    }
}

impl std::fmt::Debug for CommitLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommitLog")
            .field("dir", &self.shared().options.dir)
            .field("last", &self.last())
            .field("end", &self.end_position())
            .finish_non_exhaustive()
    }
}

/// Whether a file of that name belongs to a commit log.
pub(crate) fn is_log_file(name: &str) -> bool {
    segment::is_file_name(name) || name == checkpoint::NAME || name == base::NAME
}

/// Whether a folder has files that are named like segments.
pub(crate) fn has_segments(disk: &dyn Disk, dir: &Path) -> Result<bool> {
    Ok(!recover::segment_starts(disk, dir, 1)?.is_empty())
}

impl Shared {
    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    pub(crate) fn trusted_from(&self) -> u64 {
        self.trusted_from.load(Ordering::Relaxed)
    }

    /// The segment that is written.
    pub(crate) fn active(&self) -> Option<Arc<Segment>> {
        self.segments.read().back().cloned()
    }

    /// The segment holding a position.
    pub(crate) fn segment(&self, position: u64) -> Option<Arc<Segment>> {
        let segments = self.segments.read();
        let first = segments.front()?.start;
        let nth = position.checked_sub(first)? / self.options.segment_bytes;
        segments.get(usize::try_from(nth).ok()?).cloned()
    }

    /// Has everything before `trusted_from` verified anew that is read from now on.
    pub(crate) fn forget_verified(&self, trusted_from: u64) {
        self.trusted_from.store(trusted_from, Ordering::Relaxed);
        for segment in self.segments.read().iter() {
            segment.forget_all_verified();
        }
    }

    /// Gives the kernel back what was read of the log, except for its last `keep` bytes.
    pub(crate) fn forget_old(&self, keep: u64) {
        let old = self.end().saturating_sub(keep);
        let segments: Vec<_> = self.segments.read().iter().cloned().collect();
        for segment in segments.iter().take_while(|segment| segment.start < old) {
            segment.forget(old - segment.start);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        let me = std::thread::current().id();
        // The last handle may be dropped by a callback on the flush thread, which has the turn then
        // and ends by itself.
        if threads.iter().all(|thread| thread.thread().id() != me) {
            // A log whose disk failed says so in the poison already.
            drop(self.shared.flusher.finish());
        }
        self.shared.flusher.close();
        self.shared.preparer.close();
        for thread in threads {
            if thread.thread().id() != me {
                drop(thread.join());
            }
        }
    }
}
