//! Chaos in short: each fault alone about once, then some at a time, from fixed seeds. `cargo run --release --bin chaos` is the
//! long form.
//!
//! This process moves into namespaces of its own before it starts any thread, so nothing outside is touched. Where that is not
//! permitted, the tests are skipped, loudly.

use std::process::ExitCode;
use std::time::Duration;

use raftmq_tests::chaos::run::{Wanted, run};
use raftmq_tests::chaos::schedule::{Kind, Wishes};
use raftmq_tests::disk::enter_private_mounts;
use raftmq_tests::figures::say;
use raftmq_tests::linearizability;
use raftmq_tests::network;
use raftmq_tests::serial::turn;

/// Name, seed, whether mixed, seconds.
const ALL: [(&str, u64, bool, u64); 2] = [("alone", 1, false, 45), ("mixed", 2, true, 20)];

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    linearizability::fetch();
    if let Err(error) = network::enter().and_then(|()| enter_private_mounts()) {
        say(format!(
            "SKIPPED: no namespace can be made here ({error:#})"
        ));
        return ExitCode::SUCCESS;
    }
    let mut failed = false;
    for (name, seed, mixed, seconds) in ALL {
        if !wanted.is_empty() && !wanted.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let wanted = Wanted {
            original: false,
            wishes: Wishes {
                seed,
                kinds: Kind::ALL.to_vec(),
                mixed,
                members: 3,
            },
            time: Duration::from_secs(seconds),
        };
        say(format!("test {name} ..."));
        let outcome = turn().and_then(|_turn| run(&wanted));
        match &outcome {
            Ok(report) => say(report),
            Err(error) => say(format!("{error:?}")),
        }
        let well = outcome.is_ok_and(|report| report.findings.is_empty());
        failed |= !well;
        let verdict = if well { "ok" } else { "FAILED" };
        say(format!("test {name} ... {verdict}"));
        if !well {
            say(format!(
                "to run it again: cargo run --release --bin chaos -- {wanted}"
            ));
        }
    }
    ExitCode::from(u8::from(failed))
}
