//! Where the log of the process goes.

use std::fs;

use anyhow::Context as _;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_appender::rolling::{Builder, Rotation};
use tracing_subscriber::EnvFilter;

use crate::config::LogConfig;

/// Starts logging: daily files `broker.<date>.log` in the folder of the configuration, or standard error. `RUST_LOG`
/// filters; without it everything from `info` up is written. Keep the guard: it flushes when dropped.
///
/// # Errors
/// When the folder cannot be written to.
pub fn start(config: &LogConfig) -> anyhow::Result<Option<WorkerGuard>> {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,h2=warn,openraft=error"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter);
    let Some(dir) = &config.dir else {
        subscriber
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .init();
        return Ok(None);
    };
    fs::create_dir_all(dir)
        .with_context(|| format!("logDir = '{}' cannot be used", dir.display()))?;
    let files = Builder::new()
        .rotation(Rotation::DAILY)
        .filename_prefix("broker")
        .filename_suffix("log")
        .max_log_files(config.keep)
        .build(dir)
        .with_context(|| format!("logDir = '{}' cannot be used", dir.display()))?;
    let (writer, guard) = tracing_appender::non_blocking(files);
    subscriber.with_writer(writer).with_ansi(false).init();
    Ok(Some(guard))
}
