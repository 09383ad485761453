//! The log and the state against simple models of them, case by random case; a case is a seed.
//!
//! | variable | |
//! |---|---|
//! | `RAFTMQ_PROPERTY_CASES` | number of cases; 3000 of the log and 200 of the state if not given |
//! | `RAFTMQ_PROPERTY_SEED` | runs this one case, as a failure prints it, and prints its steps |

mod log;
mod state;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{SystemTime, UNIX_EPOCH};

/// A small generator that needs nothing but its seed.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// One of `0..choices`.
    pub(crate) fn below(&mut self, choices: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % choices.max(1)
    }

    /// True once in so many times.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

fn run_cases(default: u64, run: impl Fn(Random, bool)) {
    if let Some(seed) = number("RAFTMQ_PROPERTY_SEED") {
        run(Random(seed), true);
        return;
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    let first = now.as_micros() as u64;
    let cases = number("RAFTMQ_PROPERTY_CASES").unwrap_or(default);
    for seed in first..first + cases {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(Random(seed), false))) {
            eprintln!("to see this case again: RAFTMQ_PROPERTY_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn log_is_its_model_on_any_disk() {
    run_cases(3000, log::run);
}

#[test]
fn state_is_its_model_after_any_stop() {
    run_cases(200, state::run);
}
