//! Runs the tests of a suite whose process has to change itself before it has any thread, which libtest does not allow.

use std::process::ExitCode;

use anyhow::{Error, Result};

use crate::figures::say;

/// A test.
pub type Case = fn() -> Result<()>;

/// The tests of a suite, one after the other: those whose names contain one of the words of the command line, or all.
pub struct Suite {
    words: Vec<String>,
    failed: Vec<&'static str>,
}

impl Suite {
    /// With the words of the command line.
    pub fn from_args() -> Suite {
        let words = std::env::args().skip(1);
        Suite {
            words: words.filter(|word| !word.starts_with('-')).collect(),
            failed: Vec::new(),
        }
    }

    /// Runs a test if it is wanted. What it lacks on this machine, if anything, is told instead.
    pub fn run(
        &mut self,
        name: &'static str,
        lacks: Option<&Error>,
        case: impl FnOnce() -> Result<()>,
    ) {
        if !self.words.is_empty() && !self.words.iter().any(|word| name.contains(word.as_str())) {
            return;
        }
        if let Some(error) = lacks {
            return say(format!("SKIPPED {name}: {error:#}"));
        }
        say(format!("test {name} ..."));
        match case() {
            Ok(()) => say(format!("test {name} ... ok")),
            Err(error) => {
                say(format!("test {name} ... FAILED: {error:?}"));
                self.failed.push(name);
            }
        }
    }

    /// Success if no test failed.
    pub fn verdict(self) -> ExitCode {
        if self.failed.is_empty() {
            return ExitCode::SUCCESS;
        }
        say(format!("failed: {}", self.failed.join(", ")));
        ExitCode::FAILURE
    }
}
