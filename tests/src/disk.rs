//! Small disks of their own for stores, so that one can be filled.

use std::ffi::CString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::figures::say;

/// The file that takes the room.
const BALLAST: &str = "ballast";

/// A file system in memory; unmounted when dropped.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts one with so many bytes at `path`. Needs root.
    pub fn mount(path: &Path, bytes: u64) -> Result<Disk> {
        std::fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
        let target = c_path(path)?;
        let options = CString::new(format!("size={bytes}")).context("mount options")?;
        // SAFETY: a plain system call; all four strings live until it returns.
        let mounted = unsafe {
            libc::mount(
                c"tmpfs".as_ptr(),
                target.as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                options.as_ptr().cast(),
            )
        };
        ensure!(
            mounted == 0,
            "mount a disk at {}: {}",
            path.display(),
            std::io::Error::last_os_error()
        );
        Ok(Disk {
            path: path.to_owned(),
        })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let Ok(target) = c_path(&self.path) else {
            return;
        };
        // SAFETY: a plain system call; the string lives until it returns.
        if unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) } != 0 {
            let error = std::io::Error::last_os_error();
            say(format!(
                "could not unmount {}: {error}",
                self.path.display()
            ));
        }
    }
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).context("a path with a zero in it")
}

/// Moves this process, which must have one thread only, to where its mounts are nobody else's: they are gone with it.
pub fn enter_private_mounts() -> Result<()> {
    // SAFETY: a plain system call.
    let entered = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    let failed = std::io::Error::last_os_error;
    ensure!(entered == 0, "unshare: {}", failed());
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    let null = std::ptr::null();
    // SAFETY: a plain system call; only the target is read, and it is a constant.
    let private = unsafe { libc::mount(null, c"/".as_ptr(), null, flags, null.cast()) };
    ensure!(private == 0, "make the mounts private: {}", failed());
    Ok(())
}

/// Takes all room of the file system of `folder` but `left` bytes.
pub fn fill(folder: &Path, left: u64) -> Result<()> {
    let path = folder.join(BALLAST);
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("create {}", path.display()))?;
    let piece = vec![0xba; 64 * 1024];
    while available(folder)? > left {
        match file.write(&piece) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => break,
            Err(error) => return Err(error).context("fill a disk"),
        }
    }
    Ok(())
}

/// Lets a file system in memory that is mounted at `path` have this size from now on, or what is used if that is more.
pub fn resize(path: &Path, bytes: u64) -> Result<()> {
    let target = c_path(path)?;
    // What is used grows meanwhile, and a size below it is refused.
    let mut failed = std::io::Error::other("not tried");
    for _ in 0..20 {
        let room = numbers(path)?;
        let used = (room.f_blocks - room.f_bfree) * room.f_frsize;
        let options = CString::new(format!("size={}", bytes.max(used))).context("mount options")?;
        let (flags, null) = (libc::MS_REMOUNT, std::ptr::null());
        // SAFETY: a plain system call; the strings live until it returns.
        let done =
            unsafe { libc::mount(null, target.as_ptr(), null, flags, options.as_ptr().cast()) };
        if done == 0 {
            return Ok(());
        }
        failed = std::io::Error::last_os_error();
    }
    Err(failed).with_context(|| format!("resize the disk at {}", path.display()))
}

/// Gives the room back.
pub fn relieve(folder: &Path) -> Result<()> {
    std::fs::remove_file(folder.join(BALLAST)).context("remove the ballast")
}

fn available(folder: &Path) -> Result<u64> {
    let numbers = numbers(folder)?;
    Ok(numbers.f_bavail * numbers.f_frsize)
}

fn numbers(folder: &Path) -> Result<libc::statvfs> {
    let path = c_path(folder)?;
    // SAFETY: all-zero bytes are a valid value of this struct of numbers.
    let mut numbers: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a plain system call; both pointers are to live values.
    let asked = unsafe { libc::statvfs(path.as_ptr(), &raw mut numbers) };
    let failed = std::io::Error::last_os_error;
    ensure!(
        asked == 0,
        "ask for the room in {}: {}",
        folder.display(),
        failed()
    );
    Ok(numbers)
}
