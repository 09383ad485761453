//! The operating system's files: `pwritev`, `fdatasync`, shared read-only maps.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::{Disk, DiskFile, DiskSpace, Open};

/// Most buffers one `pwritev` takes on Linux (`IOV_MAX`).
const BUFFERS_PER_CALL: usize = 1024;

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(how == Open::Create)
            .truncate(false)
            .mode(0o644)
            .open(path)?;
        Ok(Arc::new(RealFile { file }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn space(&self, dir: &Path) -> io::Result<DiskSpace> {
        let path = std::ffi::CString::new(dir.as_os_str().as_bytes())?;
        // SAFETY: statvfs is plain old data, for which all zeros is a value.
        let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: `path` is a NUL-terminated string and `stat` is valid for writes.
        if unsafe { libc::statvfs(path.as_ptr(), &mut stat) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let unit = stat.f_frsize;
        // Blocks reserved for root are used as far as we are concerned.
        let usable = stat
            .f_blocks
            .saturating_sub(stat.f_bfree - stat.f_bavail.min(stat.f_bfree));
        Ok(DiskSpace {
            total: usable.saturating_mul(unit),
            available: stat.f_bavail.saturating_mul(unit),
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        // SAFETY: flock on a descriptor that `file` keeps open.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Box::new(file))
    }

    fn forget(&self, map: &Bytes, size: u64) {
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(map.len());
        if size == 0 {
            return;
        }
        // SAFETY: the range lies inside a shared file map that `map` keeps alive. On such a map
        // MADV_DONTNEED only drops page-table entries: the next read faults the same bytes in
        // again from the page cache. A failure would change nothing, so it is not looked at.
        unsafe { libc::madvise(map.as_ptr().cast_mut().cast(), size, libc::MADV_DONTNEED) };
    }
}

struct RealFile {
    file: File,
}

impl RealFile {
    fn seek_to(&self, offset: u64, whence: libc::c_int) -> io::Result<Option<u64>> {
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: lseek on a descriptor that `self.file` keeps open; nobody uses its file position.
        let found = unsafe { libc::lseek(self.file.as_raw_fd(), offset, whence) };
        if let Ok(found) = u64::try_from(found) {
            return Ok(Some(found));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENXIO) => Ok(None),
            _ => Err(error),
        }
    }
}

impl DiskFile for RealFile {
    fn write_at(&self, buffers: &[&[u8]], mut offset: u64) -> io::Result<()> {
        if let [one] = buffers {
            return self.file.write_all_at(one, offset);
        }
        let mut slices: Vec<io::IoSlice<'_>> = buffers
            .iter()
            .filter(|b| !b.is_empty())
            .map(|b| io::IoSlice::new(b))
            .collect();
        let mut left = &mut slices[..];
        while !left.is_empty() {
            let count = left.len().min(BUFFERS_PER_CALL) as libc::c_int;
            let at = libc::off_t::try_from(offset).map_err(io::Error::other)?;
            // SAFETY: IoSlice has the layout of iovec, `count` of them are valid for reads, and the
            // descriptor is open.
            let wrote =
                unsafe { libc::pwritev(self.file.as_raw_fd(), left.as_ptr().cast(), count, at) };
            match usize::try_from(wrote) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    offset += n as u64;
                    io::IoSlice::advance_slices(&mut left, n);
                }
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn drop_cache(&self, offset: u64, size: u64) {
        let (Ok(offset), Ok(size)) = (offset.try_into(), size.try_into()) else {
            return;
        };
        // SAFETY: advice about a descriptor that `self.file` keeps open. It is advice only: whether
        // it was taken changes nothing.
        unsafe {
            libc::posix_fadvise(
                self.file.as_raw_fd(),
                offset,
                size,
                libc::POSIX_FADV_DONTNEED,
            )
        };
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.file.set_len(size)
    }

    fn data_after(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let size = self.size()?;
        if offset >= size {
            return Ok(None);
        }
        // A file system without holes reports the whole rest as data, which is correct, if slow.
        let Some(start) = self.seek_to(offset, libc::SEEK_DATA)? else {
            return Ok(None);
        };
        let end = self.seek_to(start, libc::SEEK_HOLE)?.unwrap_or(size);
        Ok(Some(start..end))
    }

    fn map(&self, size: u64) -> io::Result<Bytes> {
        let size = usize::try_from(size).map_err(io::Error::other)?;
        // SAFETY: the file is not shorter than the map (segments get their full size before they
        // are mapped, and are never cut). Only this process writes it (store lock), and readers
        // are handed only ranges whose bytes are final; see `DiskFile::map`.
        let map = unsafe { memmap2::MmapOptions::new().len(size).map(&self.file)? };
        Ok(Bytes::from_owner(map))
    }
}
