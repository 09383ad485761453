//! A disk in memory that forgets unsynced bytes when told to crash, and fails when told to.
//!
//! Every file keeps two images: what readers see, and what survives a power cut. Unsynced writes
//! are remembered one by one, so that a crash may keep any subset of their 512-byte sectors.
//! Creations, removals and renames are kept as an ordered list per disk until the folder is
//! synced; a crash keeps a prefix of it, as a journalling file system does.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Disk, DiskFile, DiskSpace, Open};

/// Unit in which a torn write is kept or lost.
const SECTOR: usize = 512;

/// What is about to be done, shown to the fault rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Opening or creating a file.
    Open,
    /// A write of so many bytes.
    Write {
        /// Where in the file.
        offset: u64,
        /// How many bytes.
        size: u64,
    },
    /// A read.
    Read,
    /// A flush of a file.
    SyncData,
    /// A flush of a folder.
    SyncDir,
    /// A change of size.
    SetSize,
    /// A removal.
    Remove,
    /// A rename; the path is the source.
    Rename,
}

/// What a fault rule makes of an operation.
pub enum Fault {
    /// It fails with this system error (`libc::EIO`, `libc::ENOSPC`, …). A write then may have
    /// been done in part; a failed flush drops what was unsynced from the next flush, as Linux does.
    Errno(i32),
    /// It is done after this closure returns: block in it for a slow flush.
    After(Box<dyn FnOnce() + Send>),
    /// The machine stops in the middle of it. Nothing can be done from here on; call
    /// [`MemoryDisk::crash`] for what is left.
    Stop,
}

/// What a crash does to unsynced things. Called with a number of choices, returns one of them.
pub trait Crash {
    /// Picks one of `0..choices`.
    fn choose(&mut self, choices: u64) -> u64;
}

impl<F: FnMut(u64) -> u64> Crash for F {
    fn choose(&mut self, choices: u64) -> u64 {
        self(choices)
    }
}

type Rule = Box<dyn FnMut(Operation, &Path) -> Option<Fault> + Send>;

/// See the module's description. Clones share the same disk.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    dirs: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, Arc<MemoryFile>>,
    durable_names: BTreeMap<PathBuf, Arc<MemoryFile>>,
    unsynced_names: Vec<NameChange>,
    locks: Arc<Mutex<BTreeSet<PathBuf>>>,
    rule: Option<Rule>,
    /// A crashed disk refuses everything: the process that used it is gone.
    gone: bool,
    space: Option<DiskSpace>,
    /// Power cuts so far.
    boots: u64,
}

#[derive(Clone)]
enum NameChange {
    Link(PathBuf, Arc<MemoryFile>),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl NameChange {
    fn dir(&self) -> Option<&Path> {
        match self {
            NameChange::Link(p, _) | NameChange::Unlink(p) | NameChange::Rename(p, _) => p.parent(),
        }
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, Arc<MemoryFile>>) {
        match self {
            NameChange::Link(path, file) => {
                names.insert(path, file);
            }
            NameChange::Unlink(path) => {
                names.remove(&path);
            }
            NameChange::Rename(from, to) => {
                if let Some(file) = names.remove(&from) {
                    names.insert(to, file);
                }
            }
        }
    }
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Installs a rule asked before each operation; `None` as its answer lets it pass.
    pub fn set_rule(&self, rule: impl FnMut(Operation, &Path) -> Option<Fault> + Send + 'static) {
        self.inner.lock().rule = Some(Box::new(rule));
    }

    /// Removes the fault rule.
    pub fn clear_rule(&self) {
        self.inner.lock().rule = None;
    }

    /// Sets what [`Disk::space`] answers.
    pub fn set_space(&self, space: DiskSpace) {
        self.inner.lock().space = Some(space);
    }

    /// The machine loses power: this disk refuses all further work, and the returned one holds
    /// what was synced plus whatever `crash` chose to keep of the rest.
    pub fn crash(&self, mut crash: impl Crash) -> MemoryDisk {
        let mut inner = self.inner.lock();
        inner.gone = true;
        let mut names = inner.durable_names.clone();
        let keep = crash.choose(inner.unsynced_names.len() as u64 + 1);
        for change in inner.unsynced_names.iter().take(keep as usize) {
            change.clone().apply(&mut names);
        }
        let names: BTreeMap<_, _> = names
            .into_iter()
            .map(|(path, file)| (path, Arc::new(file.after_crash(&mut crash))))
            .collect();
        Self::holding(inner.dirs.clone(), names, inner.boots + 1)
    }

    /// The process is killed: this disk refuses all further work, and the returned one holds
    /// everything that was written, synced or not.
    pub fn kill(&self) -> MemoryDisk {
        let mut inner = self.inner.lock();
        inner.gone = true;
        let names = inner
            .names
            .iter()
            .map(|(path, file)| (path.clone(), Arc::new(file.after_kill())))
            .collect();
        let killed = Self::holding(inner.dirs.clone(), names, inner.boots);
        {
            let mut after = killed.inner.lock();
            let durable: BTreeMap<_, _> = inner
                .durable_names
                .keys()
                .filter_map(|path| Some((path.clone(), after.names.get(path)?.clone())))
                .collect();
            after.durable_names = durable;
            after.unsynced_names = after
                .names
                .iter()
                .map(|(path, file)| NameChange::Link(path.clone(), file.clone()))
                .collect();
        }
        killed
    }

    fn holding(
        dirs: BTreeSet<PathBuf>,
        names: BTreeMap<PathBuf, Arc<MemoryFile>>,
        boots: u64,
    ) -> MemoryDisk {
        let disk = MemoryDisk::new();
        {
            let mut inner = disk.inner.lock();
            inner.dirs = dirs;
            inner.boots = boots;
            inner.durable_names = names.clone();
            inner.names = names;
        }
        disk
    }

    /// The whole content of a file, as readers see it.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let file = self.inner.lock().names.get(path)?.clone();
        let content = file.state.lock().content.clone();
        Some(content)
    }

    /// Overwrites bytes behind everybody's back, durably: bit rot.
    pub fn damage(&self, path: &Path, offset: u64, bytes: &[u8]) {
        let file = self.inner.lock().names.get(path).cloned();
        if let Some(file) = file {
            let mut state = file.state.lock();
            state.write(bytes, offset as usize);
            state.sync();
        }
    }

    fn before(&self, operation: Operation, path: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        if inner.gone {
            return Err(io::Error::other("disk is gone: the machine crashed"));
        }
        let Some(rule) = inner.rule.as_mut() else {
            return Ok(());
        };
        let fault = rule(operation, path);
        drop(inner);
        match fault {
            None => Ok(()),
            Some(Fault::Errno(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Fault::Stop) => {
                self.inner.lock().gone = true;
                Err(io::Error::new(
                    io::ErrorKind::Interrupted,
                    "the machine crashed",
                ))
            }
            Some(Fault::After(wait)) => {
                wait();
                Ok(())
            }
        }
    }
}

impl Disk for MemoryDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.before(Operation::Open, dir)?;
        self.inner.lock().dirs.insert(dir.to_path_buf());
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.before(Operation::Read, dir)?;
        let inner = self.inner.lock();
        Ok(inner
            .names
            .keys()
            .filter(|path| path.parent() == Some(dir))
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect())
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        self.before(Operation::Open, path)?;
        let mut inner = self.inner.lock();
        let file = match inner.names.get(path) {
            Some(file) => file.clone(),
            None if how == Open::Existing => return Err(io::ErrorKind::NotFound.into()),
            None => {
                let file = Arc::new(MemoryFile::default());
                inner.names.insert(path.to_path_buf(), file.clone());
                inner
                    .unsynced_names
                    .push(NameChange::Link(path.to_path_buf(), file.clone()));
                file
            }
        };
        Ok(Arc::new(Handle {
            disk: self.clone(),
            path: path.to_path_buf(),
            file,
        }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.before(Operation::Remove, path)?;
        let mut inner = self.inner.lock();
        inner.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        inner
            .unsynced_names
            .push(NameChange::Unlink(path.to_path_buf()));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.before(Operation::Rename, from)?;
        let mut inner = self.inner.lock();
        let change = NameChange::Rename(from.to_path_buf(), to.to_path_buf());
        if !inner.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        change.clone().apply(&mut inner.names);
        inner.unsynced_names.push(change);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.before(Operation::SyncDir, dir)?;
        let mut inner = self.inner.lock();
        let (synced, rest) = std::mem::take(&mut inner.unsynced_names)
            .into_iter()
            .partition(|change| change.dir() == Some(dir));
        inner.unsynced_names = rest;
        let synced: Vec<NameChange> = synced;
        for change in synced {
            change.apply(&mut inner.durable_names);
        }
        Ok(())
    }

    fn space(&self, _dir: &Path) -> io::Result<DiskSpace> {
        Ok(self.inner.lock().space.unwrap_or(DiskSpace {
            total: 1 << 40,
            available: 1 << 39,
        }))
    }

    fn boot_id(&self) -> String {
        format!("boot {}", self.inner.lock().boots)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.before(Operation::Open, path)?;
        let locks = self.inner.lock().locks.clone();
        if !locks.lock().insert(path.to_path_buf()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(LockGuard {
            locks,
            path: path.to_path_buf(),
        }))
    }
}

struct LockGuard {
    locks: Arc<Mutex<BTreeSet<PathBuf>>>,
    path: PathBuf,
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        self.locks.lock().remove(&self.path);
    }
}

#[derive(Default)]
struct MemoryFile {
    state: Mutex<FileState>,
}

#[derive(Default, Clone)]
struct FileState {
    content: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    /// Offset after the last byte ever written: behind it the file is sparse.
    written: usize,
    map: Option<Arc<SharedMap>>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Size(usize),
}

fn write_into(image: &mut Vec<u8>, bytes: &[u8], at: usize) {
    if image.len() < at + bytes.len() {
        image.resize(at + bytes.len(), 0);
    }
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

impl FileState {
    fn write(&mut self, bytes: &[u8], at: usize) {
        write_into(&mut self.content, bytes, at);
        self.written = self.written.max(at + bytes.len());
        if let Some(map) = &self.map {
            map.write(bytes, at);
        }
        self.unsynced.push(Change::Write(at, bytes.to_vec()));
    }

    fn set_size(&mut self, size: usize) {
        self.content.resize(size, 0);
        self.unsynced.push(Change::Size(size));
    }

    fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            match change {
                Change::Write(at, bytes) => write_into(&mut self.durable, &bytes, at),
                Change::Size(size) => self.durable.resize(size, 0),
            }
        }
    }
}

impl MemoryFile {
    fn after_crash(&self, crash: &mut impl Crash) -> MemoryFile {
        let state = self.state.lock();
        let mut image = state.durable.clone();
        // 0: all lost, 1: all kept, 2: a prefix of the writes, 3: any subset of sectors.
        let fate = crash.choose(4);
        let prefix = if fate == 2 {
            crash.choose(state.unsynced.len() as u64 + 1)
        } else {
            0
        };
        for (i, change) in state.unsynced.iter().enumerate() {
            match fate {
                0 => break,
                2 if i as u64 >= prefix => break,
                _ => {}
            }
            match change {
                Change::Size(size) => {
                    if fate != 3 || crash.choose(2) == 1 {
                        image.resize(*size, 0);
                    }
                }
                Change::Write(at, bytes) => {
                    let mut done = 0;
                    while done < bytes.len() {
                        let here = at + done;
                        let step = (SECTOR - here % SECTOR).min(bytes.len() - done);
                        if fate != 3 || crash.choose(2) == 1 {
                            write_into(&mut image, &bytes[done..done + step], here);
                        }
                        done += step;
                    }
                }
            }
        }
        MemoryFile {
            state: Mutex::new(FileState {
                written: image.len(),
                content: image.clone(),
                durable: image,
                ..Default::default()
            }),
        }
    }

    fn after_kill(&self) -> MemoryFile {
        let state = self.state.lock();
        MemoryFile {
            state: Mutex::new(FileState {
                map: None,
                ..state.clone()
            }),
        }
    }
}

struct Handle {
    disk: MemoryDisk,
    path: PathBuf,
    file: Arc<MemoryFile>,
}

impl DiskFile for Handle {
    fn write_at(&self, buffers: &[&[u8]], offset: u64) -> io::Result<()> {
        let size = buffers.iter().map(|b| b.len() as u64).sum();
        let fault = self
            .disk
            .before(Operation::Write { offset, size }, &self.path);
        let mut state = self.file.state.lock();
        let mut at = offset as usize;
        let mut left = match &fault {
            Ok(()) => size as usize,
            // A failed write has done half of its work.
            Err(error) if error.raw_os_error().is_some() => size as usize / 2,
            // Of the one under way when the machine stopped, the crash chooses what is kept.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => size as usize,
            Err(_) => 0,
        };
        for buffer in buffers {
            let part = &buffer[..buffer.len().min(left)];
            if !part.is_empty() {
                state.write(part, at);
            }
            at += part.len();
            left -= part.len();
        }
        fault
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.before(Operation::Read, &self.path)?;
        let state = self.file.state.lock();
        let from = offset as usize;
        let part = state.content.get(from..from + buffer.len());
        buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let fault = self.disk.before(Operation::SyncData, &self.path);
        let mut state = self.file.state.lock();
        match &fault {
            Ok(()) => state.sync(),
            // The pages count as clean now although they never reached the disk.
            Err(error) if error.raw_os_error().is_some() => state.unsynced.clear(),
            Err(_) => {}
        }
        fault
    }

    fn size(&self) -> io::Result<u64> {
        self.disk.before(Operation::Read, &self.path)?;
        Ok(self.file.state.lock().content.len() as u64)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.disk.before(Operation::SetSize, &self.path)?;
        self.file.state.lock().set_size(size as usize);
        Ok(())
    }

    fn data_after(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        self.disk.before(Operation::Read, &self.path)?;
        let state = self.file.state.lock();
        let end = state.content.len().min(state.written) as u64;
        Ok((offset < end).then_some(offset..end))
    }

    fn map(&self, size: u64) -> io::Result<Bytes> {
        let mut state = self.file.state.lock();
        let map = match &state.map {
            Some(map) => map.clone(),
            None => {
                let map = Arc::new(SharedMap::new(size as usize)?);
                map.write(&state.content, 0);
                state.map = Some(map.clone());
                map
            }
        };
        Ok(Bytes::from_owner(MapOwner(map)))
    }
}

/// Memory that one side writes while others read other parts of it, as a shared file map is.
struct SharedMap {
    map: memmap2::MmapRaw,
}

impl SharedMap {
    fn new(size: usize) -> io::Result<Self> {
        Ok(Self {
            map: memmap2::MmapOptions::new().len(size).map_anon()?.into(),
        })
    }

    fn write(&self, bytes: &[u8], at: usize) {
        let size = bytes.len().min(self.map.len().saturating_sub(at));
        if size == 0 {
            return;
        }
        // SAFETY: `at + size` lies inside the map; writers are serialised by the file's lock, and
        // readers keep off ranges being written (`DiskFile::map`).
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.map.as_mut_ptr().add(at), size);
        }
    }
}

struct MapOwner(Arc<SharedMap>);

impl AsRef<[u8]> for MapOwner {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the memory lives as long as the owner; as with a file map, the bytes read
        // through it are ones that nobody writes any more.
        unsafe { std::slice::from_raw_parts(self.0.map.as_ptr(), self.0.map.len()) }
    }
}
