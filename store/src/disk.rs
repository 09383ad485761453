//! The seam between the commit log and the operating system.
//!
//! [`RealDisk`] is files, `pwrite` and shared maps; [`MemoryDisk`] keeps everything in memory, tells
//! synced from unsynced bytes, and can lose the latter as a power cut would. All commit-log files,
//! the vote and the small marks go through it; RocksDB does not.

mod memory;
mod real;

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

pub use memory::{Crash, Fault, MemoryDisk, Operation};
pub use real::RealDisk;

/// Room on the file system that holds a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// Size of the file system in bytes.
    pub total: u64,
    /// Bytes an unprivileged process may still take.
    pub available: u64,
}

impl DiskSpace {
    /// Used share, 0.0 to 1.0, as RocketMQ's `commitLogDiskRatio`.
    pub fn used_ratio(&self) -> f64 {
        if self.total == 0 {
            return 0.0;
        }
        (self.total - self.available.min(self.total)) as f64 / self.total as f64
    }
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// It must exist.
    Existing,
    /// It is created when it does not exist.
    Create,
}

/// A file system, or something that behaves like one.
pub trait Disk: Send + Sync + 'static {
    /// Creates a folder and its parents; fine if it exists.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Names (not paths) of the entries of a folder, in any order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>>;
    /// Unlinks a file; open handles and maps of it stay usable.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Renames a file over another one of the same folder, atomically.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes creations, removals and renames in a folder durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Size and room of the file system holding `dir`.
    fn space(&self, dir: &Path) -> io::Result<DiskSpace>;
    /// Takes an exclusive lock on a file (created if missing) until the returned guard is dropped.
    /// Fails with [`io::ErrorKind::WouldBlock`] when somebody else holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
    /// Changes with every start of the machine. Empty where the system does not tell.
    fn boot_id(&self) -> String {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.trim().to_owned()
    }
    /// Tells that the first `size` bytes of a map made by this disk will hardly be read soon; they
    /// stay readable.
    fn forget(&self, _map: &Bytes, _size: u64) {}
}

/// An open file. All methods may be called from several threads at once.
pub trait DiskFile: Send + Sync {
    /// Writes the buffers one after the other at `offset`, completely or not at all as far as the
    /// caller may rely on it: after an error any part of the range may hold anything.
    fn write_at(&self, buffers: &[&[u8]], offset: u64) -> io::Result<()>;
    /// Reads exactly `buffer.len()` bytes at `offset`.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Returns once all bytes written before (and the size needed to read them) are durable.
    /// Never retry it after an error.
    fn sync_data(&self) -> io::Result<()>;
    /// Lets the page cache forget a range that is flushed, so that it is next read from the device.
    fn drop_cache(&self, _offset: u64, _size: u64) {}
    /// Size in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Grows with zeros or cuts the file.
    fn set_size(&self, size: u64) -> io::Result<()>;
    /// The first range at or after `offset` that may hold other bytes than zero, as
    /// `start..end`, or `None` when only zeros follow. May report too much, never too little.
    fn data_after(&self, offset: u64) -> io::Result<Option<std::ops::Range<u64>>>;
    /// Maps the first `size` bytes for reading. The map shows later writes at once. The caller must
    /// read only ranges that nobody is writing any more.
    fn map(&self, size: u64) -> io::Result<Bytes>;
}
