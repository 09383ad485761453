//! Child processes that never outlive the test: each in its own process group, killed on drop, and killed by the
//! kernel when the test process itself dies.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::clock::Nanos;
use crate::wait::wait_for;

type Order = (Command, Sender<std::io::Result<Child>>);

/// Starts `command` from a thread that lives as long as this process.
///
/// The kernel sends the parent-death signal when the *thread* that forked ends, and tests run on threads that end.
fn spawn_from_lasting_thread(command: Command) -> std::io::Result<Child> {
    static ORDERS: OnceLock<Sender<Order>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (sender, receiver) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in receiver {
                // The other side waits for the answer, so it is there.
                answer.send(command.spawn()).ok();
            }
        });
        sender
    });
    let (sender, receiver) = channel();
    let gone = || std::io::Error::other("the spawning thread is gone");
    orders.send((command, sender)).ok().ok_or_else(gone)?;
    receiver.recv().ok().ok_or_else(gone)?
}

/// A running (or ended) child.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its standard output and error appended to `log`.
    pub fn spawn(mut command: Command, log: &Path) -> Result<Process> {
        let out = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("open {}", log.display()))?;
        let err = out.try_clone().context("share the log")?;
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let program = command.get_program().to_owned();
        let child = spawn_from_lasting_thread(bound_to_parent(command))
            .with_context(|| format!("start {}", Path::new(&program).display()))?;
        Ok(Process {
            child,
            log: log.to_owned(),
        })
    }

    /// The process id, also of the process group.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where standard output and error go.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Sends a signal to the process group.
    pub fn signal(&self, signal: i32) {
        let group = i32::try_from(self.child.id()).expect("process ids are 22 bits wide");
        // SAFETY: a plain system call; the group is our own child's, which is not reaped before `wait`.
        unsafe { libc::kill(-group, signal) };
    }

    /// `kill -9` and wait until the process is gone. Returns the time of the kill.
    pub fn kill_9(&mut self) -> Nanos {
        let time = Nanos::now();
        self.signal(libc::SIGKILL);
        // An error means that it was reaped before, and that is as good.
        self.child.wait().ok();
        time
    }

    /// The exit status once the process has ended.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Whether the process has not ended.
    pub fn is_running(&mut self) -> bool {
        self.exit_status().is_none()
    }

    /// Waits for the process to end by itself.
    pub fn wait_exit(&mut self, within: Duration) -> Result<ExitStatus> {
        let what = format!("process {} to exit", self.child.id());
        wait_for(&what, within, Duration::from_millis(10), || {
            self.exit_status()
        })
    }

    /// Resident memory in bytes, mapped files included.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.status_bytes("VmRSS:")
    }

    /// Resident memory that is no file's, in bytes.
    pub fn private_bytes(&self) -> Result<u64> {
        self.status_bytes("RssAnon:")
    }

    /// Largest resident memory so far, in bytes.
    pub fn peak_bytes(&self) -> Result<u64> {
        self.status_bytes("VmHWM:")
    }

    /// Files below `folder` that were removed and that the process still holds, open or mapped.
    pub fn removed_files(&self, folder: &Path) -> Result<Vec<String>> {
        let folder = folder.to_string_lossy();
        let is_one = |text: &str| text.contains(&*folder) && text.ends_with("(deleted)");
        let path = format!("/proc/{}/maps", self.child.id());
        let maps = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let mut held: Vec<String> = maps
            .lines()
            .filter(|line| is_one(line))
            .map(|line| format!("mapped: {line}"))
            .collect();
        let path = format!("/proc/{}/fd", self.child.id());
        let open = std::fs::read_dir(&path).with_context(|| format!("list {path}"))?;
        for entry in open.flatten() {
            // A descriptor that is closed meanwhile is none.
            if let Ok(target) = std::fs::read_link(entry.path())
                && is_one(&target.to_string_lossy())
            {
                held.push(format!("open: {}", target.display()));
            }
        }
        Ok(held)
    }

    fn status_bytes(&self, name: &str) -> Result<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| {
                rest.trim()
                    .trim_end_matches("kB")
                    .trim()
                    .parse::<u64>()
                    .ok()
            })
            .with_context(|| format!("no {name} in {path}"))?;
        Ok(kib * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            self.kill_9();
        }
    }
}

/// Puts the child into a group of its own and has the kernel kill it when its parent dies.
pub fn bound_to_parent(mut command: Command) -> Command {
    command.process_group(0);
    // SAFETY: the closure runs between fork and exec and makes one async-signal-safe system call.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    command
}

/// Starts a child whose pipes the caller reads itself; see [`bound_to_parent`].
pub fn spawn_piped(command: Command) -> std::io::Result<Child> {
    spawn_from_lasting_thread(bound_to_parent(command))
}

/// The last `lines` lines of a file; a note when it cannot be read.
pub fn tail(path: &Path, lines: usize) -> String {
    match read_tail(path) {
        Ok(text) => {
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) => format!("({}: {error})", path.display()),
    }
}

fn read_tail(path: &Path) -> std::io::Result<String> {
    const ENOUGH: u64 = 64 * 1024;
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(ENOUGH)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
