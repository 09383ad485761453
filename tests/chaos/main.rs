//! Chaos in short: each fault alone about once, then some at a time, from fixed seeds. `cargo run --release --bin chaos` is the
//! long form.
//!
//! This process moves into namespaces of its own before it starts any thread, so nothing outside is touched. Where that is not
//! permitted, the tests are skipped, loudly.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use raftmq_tests::chaos::run::{Wanted, run};
use raftmq_tests::chaos::schedule::{Kind, Wishes};
use raftmq_tests::disk::enter_private_mounts;
use raftmq_tests::figures::say;
use raftmq_tests::linearizability;
use raftmq_tests::network;
use raftmq_tests::serial::turn;
use raftmq_tests::suite::Suite;

/// Name, seed, whether mixed, seconds.
const ALL: [(&str, u64, bool, u64); 2] = [("alone", 1, false, 45), ("mixed", 2, true, 20)];

fn main() -> ExitCode {
    linearizability::fetch();
    let namespaces = network::enter()
        .and_then(|()| enter_private_mounts())
        .context("no namespace can be made here");
    let mut suite = Suite::from_args();
    for (name, seed, mixed, seconds) in ALL {
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
        suite.run(name, namespaces.as_ref().err(), || {
            let again = || format!("to run it again: cargo run --release --bin chaos -- {wanted}");
            let report = turn().and_then(|_turn| run(&wanted)).with_context(again)?;
            say(&report);
            ensure!(
                report.findings.is_empty(),
                "{} findings; {}",
                report.findings.len(),
                again()
            );
            Ok(())
        });
    }
    suite.verdict()
}
