//! Networks that fail: members cannot reach each other, in both directions or in one, while clients reach all of them.
//!
//! This process moves into a network namespace of its own before it starts any thread, so nothing outside is touched, and
//! each member gets one more. Where that is not permitted, the tests are skipped, loudly.
//!
//! `cargo test … --test partition -- NAME` runs the tests whose names contain NAME.

mod cases;

use std::process::ExitCode;

use raftmq_tests::figures::say;
use raftmq_tests::network;

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    if let Err(error) = network::enter() {
        say(format!(
            "SKIPPED: no network namespace can be made here ({error:#})"
        ));
        return ExitCode::SUCCESS;
    }
    let mut failed = Vec::new();
    for (name, case) in cases::ALL {
        if !wanted.is_empty() && !wanted.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        say(format!("test {name} ..."));
        match case() {
            Ok(()) => say(format!("test {name} ... ok")),
            Err(error) => {
                say(format!("test {name} ... FAILED: {error:?}"));
                failed.push(*name);
            }
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    say(format!("failed: {}", failed.join(", ")));
    ExitCode::FAILURE
}
