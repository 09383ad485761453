//! Flushes that take long or fail and clocks that jump, in unmodified programs: a few lines of C stand between them and libc.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// How flushes of a commit log go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// As the disk does it.
    Well,
    /// Not before this time is over.
    Slow(Duration),
    /// With an I/O error.
    Failing,
}

/// The compiled lines, and the files by which each member is told what to suffer.
#[derive(Debug)]
pub struct Library {
    folder: PathBuf,
    library: PathBuf,
}

impl Library {
    /// Compiles the library into `folder`, where the files will be, too.
    pub fn compile(folder: &Path) -> Result<Library> {
        let (source, library) = (folder.join("fault.c"), folder.join("fault.so"));
        std::fs::write(&source, include_str!("fault.c")).context("write a C file")?;
        let status = Command::new("cc")
            .args(["-O1", "-shared", "-fPIC", "-o"])
            .arg(&library)
            .arg(&source)
            .arg("-ldl")
            .status()
            .context("run cc")?;
        ensure!(status.success(), "cc: {status}");
        Ok(Library {
            folder: folder.to_owned(),
            library,
        })
    }

    /// Has the library loaded into what `command` will start, as the member of that number. What was set for it stays.
    pub fn load(&self, command: &mut Command, member: usize) -> Result<()> {
        let clock = self.clock_place(member);
        if !clock.is_file() {
            std::fs::write(&clock, 0_i64.to_ne_bytes()).context("write a clock's file")?;
        }
        command
            .env("LD_PRELOAD", &self.library)
            .env("RAFTMQ_TEST_FLUSH", self.flush_place(member))
            .env("RAFTMQ_TEST_CLOCK", clock);
        Ok(())
    }

    /// Has the flushes of a member's commit log go so from now on.
    pub fn set_flush(&self, member: usize, flush: Flush) -> Result<()> {
        let text = match flush {
            Flush::Well => "0".to_owned(),
            Flush::Slow(time) => time.as_millis().to_string(),
            Flush::Failing => "-1".to_owned(),
        };
        // In one step: it is read all the time.
        let place = self.flush_place(member);
        let new = place.with_extension("new");
        std::fs::write(&new, text)
            .and_then(|()| std::fs::rename(&new, &place))
            .with_context(|| format!("write {}", place.display()))
    }

    /// Has a member's wall clock be so many milliseconds ahead of ours from now on; it never was off for `CLOCK_MONOTONIC`.
    pub fn set_clock(&self, member: usize, ahead_ms: i64) -> Result<()> {
        let place = self.clock_place(member);
        // In place: whoever runs has it mapped, and an aligned word changes in one step.
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&place)
            .and_then(|file| file.write_all_at(&(ahead_ms * 1_000_000).to_ne_bytes(), 0))
            .with_context(|| format!("write {}", place.display()))
    }

    fn flush_place(&self, member: usize) -> PathBuf {
        self.folder.join(format!("flush-n{member}"))
    }

    fn clock_place(&self, member: usize) -> PathBuf {
        self.folder.join(format!("clock-n{member}"))
    }
}
