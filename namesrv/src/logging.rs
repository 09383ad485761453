//! Where log lines go: stderr, or daily files in a folder.

use std::io;

use tracing::warn;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::EnvFilter;

use crate::config::Settings;

/// Keeps the log writer alive; dropping it writes what is left.
#[must_use = "log lines are lost once it is dropped"]
pub struct Logging {
    _writer: Option<WorkerGuard>,
}

/// Starts logging for the whole process.
///
/// With `logDir` set, lines go to `namesrv.<date>.log` there, of which `logFilesMax` are kept. They are written by a
/// thread of their own; when the disk cannot keep up, lines are dropped rather than requests delayed.
///
/// # Errors
/// When the folder cannot be used.
pub fn start(settings: &Settings) -> io::Result<Logging> {
    let filter = EnvFilter::try_new(&settings.log_level);
    let bad_filter = filter.as_ref().err().map(ToString::to_string);
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_bad| EnvFilter::new("info")));
    let writer = if settings.log_dir.is_empty() {
        let ansi = io::IsTerminal::is_terminal(&io::stderr());
        subscriber
            .with_writer(io::stderr)
            .with_ansi(ansi)
            .try_init()
            .map_err(io::Error::other)?;
        None
    } else {
        let (files, guard) = tracing_appender::non_blocking(log_files(settings)?);
        subscriber
            .with_writer(files)
            .with_ansi(false)
            .try_init()
            .map_err(io::Error::other)?;
        Some(guard)
    };
    if let Some(error) = bad_filter {
        warn!(
            logLevel = settings.log_level,
            error, "configuration key logLevel is ignored; it stays info"
        );
    }
    Ok(Logging { _writer: writer })
}

fn log_files(settings: &Settings) -> io::Result<RollingFileAppender> {
    RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix("namesrv")
        .filename_suffix("log")
        .max_log_files(usize::try_from(settings.log_files_max).unwrap_or(usize::MAX))
        .build(&settings.log_dir)
        .map_err(|error| io::Error::other(format!("logDir {}: {error}", settings.log_dir)))
}
