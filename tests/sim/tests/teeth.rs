//! What is broken on purpose is noticed, or the invariants are worth nothing.

use std::process::Command;

/// Few, as most of them show a flaw.
const SEEDS: &str = "0..40";

fn failures(flaw: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_raftmq-sim"))
        .args([SEEDS, "--flaw", flaw])
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

/// These do nothing to the members: the invariants are shown something else than what is.
#[test]
fn what_is_not_so_is_not_believed() {
    for (flaw, invariant) in [
        ("two-leaders", "election_safety"),
        ("forged", "log_matching"),
        ("overruled", "state_machine_order"),
        ("gap", "dense_offsets"),
        ("lost", "no_acknowledged_loss"),
        ("scribbled", "identical_segments"),
        ("stuck", "liveness"),
    ] {
        breaks(flaw, &[invariant]);
    }
}
