//! Chaos in short: each fault alone once, then some at a time, from fixed seeds. `cargo run --release --bin chaos` is the
//! long form.
//!
//! This process moves into namespaces of its own before it starts any thread, so nothing outside is touched. Where that is not
//! permitted, the tests are skipped, loudly.

use std::process::ExitCode;

use anyhow::{Context, ensure};
use raftmq_tests::chaos::run::{Length, Wanted, run};
use raftmq_tests::chaos::schedule::{Kind, Wishes};
use raftmq_tests::disk::enter_private_mounts;
use raftmq_tests::figures::say;
use raftmq_tests::linearizability;
use raftmq_tests::network;
use raftmq_tests::serial::turn;
use raftmq_tests::suite::Suite;

/// Name, seed, whether mixed, rounds.
const ALL: [(&str, u64, bool, usize); 2] =
    [("alone", 1, false, Kind::ALL.len()), ("mixed", 2, true, 6)];

fn main() -> ExitCode {
    linearizability::fetch();
    let namespaces = network::enter()
        .and_then(|()| enter_private_mounts())
        .context("no namespace can be made here");
    let mut suite = Suite::from_args();
    for (name, seed, mixed, rounds) in ALL {
        let wanted = Wanted {
            original: false,
            wishes: Wishes {
                seed,
                kinds: Kind::ALL.to_vec(),
                mixed,
                members: 3,
            },
            length: Length::Rounds(rounds),
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
