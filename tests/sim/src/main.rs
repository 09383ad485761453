//! Deterministic simulation of a group: three members as they are deployed (Raft core, proposer,
//! store, their gRPC) on one thread, over a simulated network, clock and disk.
//!
//! ```text
//!   raftmq-sim 7          one seed, with a trace of what happens
//!   raftmq-sim 0..2000    many, each in a process of its own
//! ```
//!
//! A seed decides everything, so it can be seen again. Each has a process of its own, as hash maps
//! and the like would remember the seed before.

mod faults;
mod history;
mod invariants;
mod lying;
mod member;
mod net;
mod os;
mod random;
mod replay;
mod run;
mod simulation;
mod workload;

use std::process::ExitCode;

/// Members of the group.
pub const MEMBERS: usize = 3;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run::parse(&arguments) {
        Ok(command) if command.is_one => simulation::run(&command),
        Ok(command) => run::many(&command),
        Err(usage) => {
            eprintln!("{usage}");
            ExitCode::from(2)
        }
    }
}
