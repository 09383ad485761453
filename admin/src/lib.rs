//! The command-line tools: `mqadmin`, one module per command, with the original's options, columns and
//! texts, and the parts that `quickstart` and `benchmark` share with it.
//!
//! Beyond the original: a failure is one line on standard error and a non-zero exit code, and every
//! command has `--json`.

pub mod command;
pub mod options;
pub mod text;

use std::io;

/// The nameservers to use: of the option, else of the environment variable `NAMESRV_ADDR`, else the
/// default.
#[must_use]
pub fn name_servers(option: Option<&str>, default: &str) -> String {
    match option {
        Some(list) => list.to_owned(),
        None => std::env::var("NAMESRV_ADDR").unwrap_or_else(|_| default.to_owned()),
    }
}

/// The runtime of a tool.
///
/// # Errors
/// When the system has no threads left.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?)
}

/// Lets `RUST_LOG` show what the client does. Silent by default: output belongs to the command.
pub fn trace_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off"));
    // An error would mean that a subscriber is there already, which serves as well.
    drop(
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr)
            .try_init(),
    );
}

/// Whether the output's reader has gone.
#[must_use]
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
