//! Flushes that take long or fail, in an unmodified broker: a few lines of C stand between it and libc.

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

/// Compiles the library into `folder`.
pub fn compile(folder: &Path) -> Result<PathBuf> {
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
    Ok(library)
}

/// Has the flushes of whoever was started with `place` go so from now on.
pub fn set(place: &Path, flush: Flush) -> Result<()> {
    let text = match flush {
        Flush::Well => "0".to_owned(),
        Flush::Slow(time) => time.as_millis().to_string(),
        Flush::Failing => "-1".to_owned(),
    };
    // In one step: it is read all the time.
    let new = place.with_extension("new");
    std::fs::write(&new, text)
        .and_then(|()| std::fs::rename(&new, place))
        .with_context(|| format!("write {}", place.display()))
}
