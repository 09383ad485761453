//! One segment file: written by `pwrite`, read through one shared map of its whole size.
//!
//! Everything after the last entry is zeros, always: the file starts as zeros, a truncation and
//! recovery write zeros over what they cut off. `ready` says up to where the zeros have been
//! *written*, so that an append there changes no file metadata; beyond it the file is sparse.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, Open};
use crate::entry::{FILL, HEADER, Header, filler, u32_at};
use crate::error::{Error, Result};

use super::index::Anchors;

/// No entry begins in the segment yet.
const NO_INDEX: u64 = u64::MAX;

/// No entry's time is known.
const NO_TIME: i64 = i64::MIN;

/// Bytes of which it is remembered at once that they were verified.
const WINDOW: u64 = 64 * 1024;

/// Most zeros written by one call.
const ZEROS: usize = 1 << 20;

pub(crate) struct Segment {
    /// Global position of the first byte.
    pub(crate) start: u64,
    /// Bytes of the file.
    pub(crate) size: u64,
    pub(crate) path: PathBuf,
    map: Bytes,
    disk: Arc<dyn Disk>,
    /// Open while the segment may be written; reading needs only the map.
    file: Mutex<File>,
    /// The error of a flush that failed. Held while a flush runs.
    sync_failed: Mutex<Option<i32>>,
    first_index: AtomicU64,
    /// See [`time_ms`](Self::time_ms).
    time_ms: AtomicI64,
    /// Offset up to which zeros or entries have been written. Held while zeros are written, so
    /// that they never land on an entry.
    frontier: Mutex<u64>,
    /// Copy of `frontier` to look at without waiting.
    ready: AtomicU64,
    /// One bit for each [`WINDOW`]: all entries that lie in it were read and found right.
    verified: Vec<AtomicU64>,
    pub(crate) anchors: Mutex<Anchors>,
    /// Tick of the last use of `anchors`.
    pub(crate) used: AtomicU64,
}

enum File {
    Open(Arc<dyn DiskFile>),
    Closed,
    /// Another one may have the name by now.
    Removed,
}

/// File name of the segment starting at a position: 20 decimal digits.
pub(crate) fn file_name(start: u64) -> String {
    format!("{start:020}")
}

/// Whether a file is named like a segment.
pub(crate) fn is_file_name(name: &str) -> bool {
    name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit())
}

/// What stands at a position of a segment.
pub(crate) enum At {
    /// An entry's header.
    Entry(Header),
    /// The segment ends here; the next entry, if any, starts the next one.
    End,
    /// Not an entry: what is wrong.
    Bad(String),
}

/// Reads what stands at `position` of a segment that has `room` bytes left there; `bytes` are
/// those bytes, or the first 48 of them.
pub(crate) fn at(bytes: &[u8], position: u64, room: u64) -> At {
    if room < 8 {
        return At::End;
    }
    if u32_at(bytes, 0) == Some(FILL) {
        let left = u32_at(bytes, 4).unwrap_or_default();
        if u64::from(left) == room {
            return At::End;
        }
        return At::Bad(format!("blank end says {left} bytes are left of {room}"));
    }
    match Header::decode(bytes) {
        Err(what) => At::Bad(what),
        Ok(header) if header.position != position => At::Bad(format!(
            "entry says position {}, found at {position}",
            header.position
        )),
        Ok(header) if u64::from(header.size) > room => At::Bad(format!(
            "entry of {} bytes where {room} are left",
            header.size
        )),
        Ok(header) => At::Entry(header),
    }
}

impl Segment {
    /// Creates the file with full size and durable name.
    pub(crate) fn create(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        start: u64,
        size: u64,
    ) -> Result<Segment> {
        let path = dir.join(file_name(start));
        if disk.open(&path, Open::Existing).is_ok() {
            // Never reuse what an earlier life of the log left there.
            disk.remove(&path).map_err(Error::io("remove", &path))?;
        }
        let segment = Self::open(disk, dir, start, size)?;
        segment.set_ready(0);
        segment.sync()?;
        disk.sync_dir(dir).map_err(Error::io("flush", dir))?;
        Ok(segment)
    }

    /// Opens a file and maps it, after growing it to its full size.
    pub(crate) fn open(disk: &Arc<dyn Disk>, dir: &Path, start: u64, size: u64) -> Result<Segment> {
        let path = dir.join(file_name(start));
        let file = disk
            .open(&path, Open::Create)
            .map_err(Error::io("open", &path))?;
        let found = file.size().map_err(Error::io("read", &path))?;
        if found > size {
            return Err(Error::Corrupt {
                path,
                offset: size,
                what: format!("file has {found} bytes, a segment has {size}"),
            });
        }
        if found < size {
            file.set_size(size).map_err(Error::io("extend", &path))?;
        }
        let map = file.map(size).map_err(Error::io("map", &path))?;
        Ok(Segment {
            start,
            size,
            path,
            map,
            disk: disk.clone(),
            file: Mutex::new(File::Open(file)),
            sync_failed: Mutex::new(None),
            first_index: AtomicU64::new(NO_INDEX),
            time_ms: AtomicI64::new(NO_TIME),
            // Nothing to prepare in a file with unknown content; `create` and recovery say more.
            frontier: Mutex::new(size),
            ready: AtomicU64::new(size),
            verified: (0..size.div_ceil(WINDOW * 64))
                .map(|_| AtomicU64::new(0))
                .collect(),
            anchors: Mutex::new(Anchors::default()),
            used: AtomicU64::new(0),
        })
    }

    /// Global position after the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.size
    }

    /// Index of the entry at offset 0.
    pub(crate) fn first_index(&self) -> Option<u64> {
        match self.first_index.load(Ordering::Acquire) {
            NO_INDEX => None,
            index => Some(index),
        }
    }

    pub(crate) fn set_first_index(&self, index: Option<u64>) {
        self.first_index
            .store(index.unwrap_or(NO_INDEX), Ordering::Release);
    }

    /// When the first entry that has a time was stored, once somebody asked for it.
    pub(crate) fn time_ms(&self) -> Option<i64> {
        Some(self.time_ms.load(Ordering::Relaxed)).filter(|time| *time != NO_TIME)
    }

    pub(crate) fn set_time_ms(&self, time: Option<i64>) {
        self.time_ms
            .store(time.unwrap_or(NO_TIME), Ordering::Relaxed);
    }

    pub(crate) fn file(&self) -> Result<Arc<dyn DiskFile>> {
        let mut file = self.file.lock();
        match &*file {
            File::Open(file) => return Ok(file.clone()),
            File::Closed => {}
            File::Removed => {
                let error = std::io::ErrorKind::NotFound.into();
                return Err(Error::io("open", &self.path)(error));
            }
        }
        let opened = self
            .disk
            .open(&self.path, Open::Existing)
            .map_err(Error::io("open", &self.path))?;
        *file = File::Open(opened.clone());
        Ok(opened)
    }

    /// Closes the descriptor of a segment that is full and flushed.
    pub(crate) fn close_file(&self) {
        let mut file = self.file.lock();
        if let File::Open(_) = &*file {
            *file = File::Closed;
        }
    }

    /// Removes the file. Whoever still holds the segment can read it, but not open the file, nor
    /// one that gets its name.
    pub(crate) fn remove(&self) -> Result<()> {
        *self.file.lock() = File::Removed;
        self.disk
            .remove(&self.path)
            .map_err(Error::io("remove", &self.path))
    }

    /// The only way log bytes reach the file. Waits for zeros being written at the same place.
    pub(crate) fn write(&self, buffers: &[&[u8]], offset: u64) -> Result<()> {
        let end = offset + buffers.iter().map(|b| b.len() as u64).sum::<u64>();
        if end > self.ready.load(Ordering::Acquire) {
            let mut frontier = self.frontier.lock();
            if end > *frontier {
                *frontier = end;
                self.ready.store(end, Ordering::Release);
            }
        }
        self.file()?
            .write_at(buffers, offset)
            .map_err(Error::io("write", &self.path))
    }

    /// Once a flush has failed, all fail: the kernel reports what it could not write to one of
    /// those who wait, and calls the pages clean. So they also wait for each other; what is dirty
    /// is written once, whoever asks.
    pub(crate) fn sync(&self) -> Result<()> {
        let file = self.file()?;
        let mut failed = self.sync_failed.lock();
        if let Some(code) = *failed {
            let earlier = std::io::Error::from_raw_os_error(code);
            return Err(Error::io("flush", &self.path)(earlier));
        }
        file.sync_data().map_err(|error| {
            *failed = Some(error.raw_os_error().unwrap_or(libc::EIO));
            Error::io("flush", &self.path)(error)
        })
    }

    pub(crate) fn ready(&self) -> u64 {
        self.ready.load(Ordering::Acquire)
    }

    pub(crate) fn set_ready(&self, offset: u64) {
        let mut frontier = self.frontier.lock();
        *frontier = offset;
        self.ready.store(offset, Ordering::Release);
    }

    /// Writes zeros over at most `step` bytes behind the frontier, but not beyond `goal`. False
    /// when the frontier had reached the goal.
    pub(crate) fn prepare(&self, goal: u64, step: u64) -> Result<bool> {
        let mut frontier = self.frontier.lock();
        let end = goal.min(frontier.saturating_add(step)).min(self.size);
        if *frontier >= end {
            return Ok(false);
        }
        zero(&*self.file()?, *frontier, end).map_err(Error::io("write", &self.path))?;
        *frontier = end;
        self.ready.store(end, Ordering::Release);
        Ok(true)
    }

    /// Writes zeros over `from..to`, which no reader may look at any more.
    pub(crate) fn zero(&self, from: u64, to: u64) -> Result<()> {
        zero(&*self.file()?, from, to).map_err(Error::io("write", &self.path))
    }

    /// Writes once more what stands between two global positions.
    pub(crate) fn rewrite(&self, from: u64, to: u64) -> Result<()> {
        let file = self.file()?;
        let mut buffer = Vec::new();
        let mut at = from;
        while at < to {
            let size = (to - at).min(ZEROS as u64);
            buffer.resize(size as usize, 0);
            file.read_at(&mut buffer, at - self.start)
                .map_err(Error::io("read", &self.path))?;
            self.write(&[&buffer], at - self.start)?;
            at += size;
        }
        Ok(())
    }

    /// Makes sure that only zeros follow `offset`, and that this is durable. True when there was
    /// something else.
    pub(crate) fn clean_after(&self, offset: u64) -> Result<bool> {
        let file = self.file()?;
        let io = || Error::io("read", &self.path);
        let mut dirty = false;
        let mut at = offset;
        let mut ready = offset;
        let mut buffer = Vec::new();
        while let Some(range) = file.data_after(at).map_err(io())? {
            let mut from = range.start.max(at);
            if from <= ready {
                ready = range.end;
            }
            while from < range.end {
                let size = (range.end - from).min(ZEROS as u64) as usize;
                buffer.resize(size, 0);
                file.read_at(&mut buffer, from).map_err(io())?;
                if buffer.iter().any(|byte| *byte != 0) {
                    dirty = true;
                    self.zero(from, from + size as u64)?;
                }
                from += size as u64;
            }
            at = range.end;
        }
        self.set_ready(ready);
        if dirty {
            self.sync()?;
        }
        Ok(dirty)
    }

    /// Writes the blank end, from an offset on, durably.
    pub(crate) fn write_blank(&self, offset: u64) -> Result<()> {
        let left = self.size.saturating_sub(offset);
        self.zero(offset, self.size)?;
        if left >= 8 {
            let blank = filler(u32::try_from(left).unwrap_or_default());
            self.write(&[&blank], offset)?;
        }
        self.sync()
    }

    /// The window around a global position, in global positions.
    pub(crate) fn window(&self, position: u64) -> std::ops::Range<u64> {
        let offset = position.saturating_sub(self.start) / WINDOW * WINDOW;
        self.start + offset..self.start + (offset + WINDOW).min(self.size)
    }

    fn window_bit(&self, position: u64) -> Option<(&AtomicU64, u64)> {
        let nth = position.checked_sub(self.start)? / WINDOW;
        let word = self.verified.get(usize::try_from(nth / 64).ok()?)?;
        Some((word, 1 << (nth % 64)))
    }

    /// Whether the window around a global position was verified, not long ago.
    pub(crate) fn is_verified(&self, position: u64) -> bool {
        self.window_bit(position)
            .is_some_and(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }

    pub(crate) fn set_verified_window(&self, position: u64) {
        if let Some((word, bit)) = self.window_bit(position) {
            word.fetch_or(bit, Ordering::AcqRel);
        }
    }

    /// Notes all windows up to a global position of which the given rule says that they are right.
    pub(crate) fn set_verified(&self, stop: u64, is_good: impl Fn(u64, u64) -> bool) {
        for start in (self.start..stop).step_by(WINDOW as usize) {
            if is_good(start, start + WINDOW) {
                self.set_verified_window(start);
            }
        }
    }

    /// Forgets what was verified from an offset on.
    pub(crate) fn forget_verified(&self, offset: u64) {
        for start in (offset / WINDOW * WINDOW..self.size).step_by(WINDOW as usize) {
            if let Some((word, bit)) = self.window_bit(self.start + start) {
                word.fetch_and(!bit, Ordering::AcqRel);
            }
        }
    }

    pub(crate) fn forget_all_verified(&self) {
        for word in &self.verified {
            // Most are clear, and stay in their caches as they are.
            if word.load(Ordering::Relaxed) != 0 {
                word.store(0, Ordering::Release);
            }
        }
    }

    /// The bytes from `offset` to the end of the segment.
    pub(crate) fn bytes_from(&self, offset: u64) -> &[u8] {
        self.map.get(offset as usize..).unwrap_or_default()
    }

    /// A slice that keeps the map alive; `None` when it is not inside the segment.
    pub(crate) fn slice(&self, offset: u64, size: u64) -> Option<Bytes> {
        let end = offset.checked_add(size)?;
        (end <= self.size).then(|| self.map.slice(offset as usize..end as usize))
    }

    /// What stands at a global position of this segment, seen through the map.
    pub(crate) fn at(&self, position: u64) -> At {
        let offset = position - self.start;
        let bytes = self.bytes_from(offset);
        at(
            bytes.get(..HEADER).unwrap_or(bytes),
            position,
            self.size - offset,
        )
    }

    /// Lets the kernel take back page-table entries of a part nobody is likely to read soon.
    pub(crate) fn forget(&self, to_offset: u64) {
        self.disk.forget(&self.map, to_offset.min(self.size));
    }

    pub(crate) fn corrupt(&self, position: u64, what: String) -> Error {
        Error::Corrupt {
            path: self.path.clone(),
            offset: position - self.start,
            what,
        }
    }
}

fn zero(file: &dyn DiskFile, from: u64, to: u64) -> std::io::Result<()> {
    static ZERO: [u8; ZEROS] = [0; ZEROS];
    let mut at = from;
    while at < to {
        let size = (to - at).min(ZEROS as u64);
        file.write_at(&[ZERO.get(..size as usize).unwrap_or_default()], at)?;
        at += size;
    }
    Ok(())
}
