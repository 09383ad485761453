//! Runs the tests of a suite whose process has to change itself before it has any thread, which libtest does not allow; and
//! tells what is left out, here and in the other suites.

use std::fmt;
use std::process::ExitCode;

use anyhow::{Error, Result, ensure};

use crate::figures::say;

/// Set where nothing may be left out for want of something on this machine.
const COMPLETE: &str = "RAFTMQ_TESTS_COMPLETE";

/// Tells loudly what is left out and why. An error where nothing may be left out.
pub fn leave_out(what: impl fmt::Display) -> Result<()> {
    ensure!(
        std::env::var_os(COMPLETE).is_none(),
        "{what}, and {COMPLETE} is set"
    );
    say(format!("SKIPPED: {what}"));
    Ok(())
}

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

    /// Runs a test if it is wanted. What it lacks on this machine, if anything, leaves it out.
    pub fn run(
        &mut self,
        name: &'static str,
        lacks: Option<&Error>,
        case: impl FnOnce() -> Result<()>,
    ) {
        if !self.words.is_empty() && !self.words.iter().any(|word| name.contains(word.as_str())) {
            return;
        }
        say(format!("test {name} ..."));
        let done = match lacks {
            Some(error) => leave_out(format!("{error:#}")),
            None => case(),
        };
        match done {
            Ok(()) if lacks.is_some() => say(format!("test {name} ... ignored")),
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
