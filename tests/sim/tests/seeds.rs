//! Seeds from 0 on, as many as `SIM_SEEDS` says; or the one of `SIM_SEED`, with a trace.

use std::env::var;
use std::process::Command;

#[test]
fn invariants_hold() {
    let seeds = match (var("SIM_SEED"), var("SIM_SEEDS")) {
        (Ok(one), _) => one,
        (_, Ok(count)) => format!("0..{count}"),
        _ => "0..2000".to_owned(),
    };
    let mut simulation = Command::new(env!("CARGO_BIN_EXE_raftmq-sim"));
    let status = simulation.arg(seeds).status().expect("the simulation");
    assert!(status.success());
}

/// Seeds that showed something once, in long runs.
#[test]
fn what_was_found_stays_mended() {
    // A power cut of all members left a later write on two of them, and an earlier one, never flushed, on none: the first two.
    // A member that lost what it had acknowledged unflushed was killed while it started, and voted after the next start.
    for seed in ["50199", "73116", "48264", "71129", "86156"] {
        let mut simulation = Command::new(env!("CARGO_BIN_EXE_raftmq-sim"));
        let output = simulation.args([seed, "--quiet"]).output();
        let output = output.expect("the simulation");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "seed {seed}: {said}");
    }
}
