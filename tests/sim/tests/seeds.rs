//! Seeds, as many as `SIM_SEEDS` says (300) from `SIM_FIRST` (0) on; or the one of `SIM_SEED`, with
//! a trace.

use std::process::Command;

fn number(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => otherwise,
    }
}

#[test]
fn invariants_hold() {
    let mut simulation = Command::new(env!("CARGO_BIN_EXE_raftmq-sim"));
    match std::env::var("SIM_SEED") {
        Ok(seed) => simulation.arg(seed),
        Err(_) => {
            let first = number("SIM_FIRST", 0);
            let end = first + number("SIM_SEEDS", 300);
            simulation.arg(format!("{first}..{end}"))
        }
    };
    assert!(simulation.status().expect("the simulation").success());
}
