//! Networks that fail: members cannot reach each other, in both directions or in one, while clients reach all of them.
//!
//! This process moves into a network namespace of its own before it starts any thread, so nothing outside is touched, and
//! each member gets one more. Where that is not permitted, the tests are skipped, loudly.
//!
//! `cargo test … --test partition -- NAME` runs the tests whose names contain NAME.

mod cases;

use std::process::ExitCode;

use anyhow::Context;
use raftmq_tests::network;
use raftmq_tests::suite::Suite;

fn main() -> ExitCode {
    let network = network::enter().context("no network namespace can be made here");
    let mut suite = Suite::from_args();
    for (name, case) in cases::ALL {
        suite.run(name, network.as_ref().err(), case);
    }
    suite.verdict()
}
