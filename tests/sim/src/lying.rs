//! A disk that says it has flushed and has not: with it, promises must be seen to break.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use raftmq_store::disk::{Disk, DiskFile, DiskSpace, MemoryDisk, Open};

pub struct LyingDisk(pub MemoryDisk);

impl Disk for LyingDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.0.open(path, how)?;
        // Only entries: a vote, or an identity, that is lost is noticed at once.
        let lies = path
            .components()
            .any(|part| part.as_os_str() == "commitlog");
        Ok(if lies {
            Arc::new(LyingFile(file))
        } else {
            file
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }

    fn space(&self, dir: &Path) -> io::Result<DiskSpace> {
        self.0.space(dir)
    }

    fn boot_id(&self) -> String {
        self.0.boot_id()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.0.lock(path)
    }
}

struct LyingFile(Arc<dyn DiskFile>);

impl DiskFile for LyingFile {
    fn write_at(&self, buffers: &[&[u8]], offset: u64) -> io::Result<()> {
        self.0.write_at(buffers, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buffer, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.0.set_size(size)
    }

    fn data_after(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        self.0.data_after(offset)
    }

    fn map(&self, size: u64) -> io::Result<Bytes> {
        self.0.map(size)
    }
}
