//! One whole-system test at a time: they share the machine's cores and ports, and their figures would spoil each other.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

static IN_PROCESS: Mutex<()> = Mutex::new(());

/// Held by the one test that may run.
#[derive(Debug)]
pub struct Turn {
    _file: File,
    _in_process: MutexGuard<'static, ()>,
}

/// Waits for this test's turn, among the threads of this process and among all processes of the machine.
pub fn turn() -> Result<Turn> {
    // A failed test poisons the mutex; the next one starts processes of its own and is not concerned.
    let in_process = IN_PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
    let path = std::env::temp_dir().join("raftmq-tests.lock");
    let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
    // SAFETY: a plain system call on a descriptor that `file` keeps open.
    let taken = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) };
    if taken != 0 {
        return Err(std::io::Error::last_os_error()).context("lock the turn file");
    }
    Ok(Turn {
        _file: file,
        _in_process: in_process,
    })
}
