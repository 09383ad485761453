//! Whether somebody is using a store.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use crate::error::{Error, Result};

/// Nobody can open the store while this is held. Holding it changes no file.
#[derive(Debug)]
pub struct Unlocked {
    _file: Option<File>,
}

/// Makes sure that no member uses the store in `root`, and keeps it so.
///
/// # Errors
/// [`Error::Locked`], [`Error::Io`].
pub fn refuse_locked(root: &Path) -> Result<Unlocked> {
    let path = root.join("lock");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Unlocked { _file: None });
        }
        Err(error) => return Err(Error::io("open", &path)(error)),
    };
    // SAFETY: flock on a descriptor that `file` keeps open.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) } != 0 {
        let error = io::Error::last_os_error();
        return Err(match error.kind() {
            io::ErrorKind::WouldBlock => Error::Locked {
                root: root.to_path_buf(),
                lock: path,
            },
            _ => Error::io("lock", &path)(error),
        });
    }
    Ok(Unlocked { _file: Some(file) })
}

/// Whether a Java program holds a lock on this file: `FileChannel.lock` takes a record lock, which
/// is another kind than this crate's.
///
/// # Errors
/// [`Error::Io`]; a missing file is not locked.
pub fn is_locked_by_java(path: &Path) -> Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    // SAFETY: flock is plain old data, for which all zeros is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: fcntl on a descriptor that `file` keeps open; `lock` is valid for reads and writes.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &raw mut lock) } != 0 {
        return Err(Error::io("ask for the lock of", path)(
            io::Error::last_os_error(),
        ));
    }
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}
