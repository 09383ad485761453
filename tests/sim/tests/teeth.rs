//! What is broken on purpose is noticed, or the invariants are worth nothing.

use std::process::Command;

fn failures(flaw: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_raftmq-sim"))
        .args(["0..40", "--flaw", flaw])
        .output()
        .expect("the simulation");
    assert!(!output.status.success(), "{flaw}: nobody noticed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_disk_that_does_not_flush() {
    assert!(failures("lying-disk").contains("VIOLATION"));
}

#[test]
fn members_that_vote_without_what_they_acknowledged() {
    assert!(failures("forgetful").contains("VIOLATION"));
}
