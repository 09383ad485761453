//! Where a command's result goes: text for people, JSON for programs.

use std::io::{self, BufWriter, Write};

use serde_json::Value;

/// Standard output, or a buffer in tests.
pub(super) struct Output {
    to: Box<dyn Write>,
    json: bool,
}

impl Output {
    pub(super) fn stdout(json: bool) -> Output {
        Self::new(Box::new(BufWriter::new(io::stdout())), json)
    }

    pub(super) fn new(to: Box<dyn Write>, json: bool) -> Output {
        Output { to, json }
    }

    /// Whether JSON is wanted.
    pub(super) fn json(&self) -> bool {
        self.json
    }

    /// Writes a line of text, unless JSON is wanted.
    pub(super) fn text(&mut self, line: impl AsRef<str>) -> anyhow::Result<()> {
        if !self.json {
            writeln!(self.to, "{}", line.as_ref())?;
        }
        Ok(())
    }

    /// Writes a line of JSON, if it is wanted.
    pub(super) fn value(&mut self, value: &Value) -> anyhow::Result<()> {
        if self.json {
            writeln!(self.to, "{value}")?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.to.flush()?)
    }
}

pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
