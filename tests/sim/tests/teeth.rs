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

/// The promise that is broken is named, not just a member that does not come up.
fn breaks(flaw: &str, invariants: &[&str]) {
    let failures = failures(flaw);
    let named = |invariant: &&str| failures.contains(&format!("VIOLATION of {invariant} "));
    assert!(invariants.iter().any(named), "{failures}");
}

#[test]
fn a_disk_that_does_not_flush() {
    breaks(
        "lying-disk",
        &["leader_completeness", "state_machine_order"],
    );
}

#[test]
fn members_that_vote_without_what_they_acknowledged() {
    breaks("forgetful", &["leader_completeness"]);
}
