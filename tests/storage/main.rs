//! What the disk does to a store: the beginning of the log goes, members come back without what they had, bytes rot, disks
//! run full.
//!
//! This process moves into a mount namespace of its own before it starts any thread, so that small disks mounted for members
//! are gone with it. Where that is not permitted, the tests that need it are skipped, loudly.
//!
//! `cargo test … --test storage -- NAME` runs the tests whose names contain NAME.

mod damaged;
mod flush;
mod full;
mod seeded;
mod trimmed;

use std::process::ExitCode;

use anyhow::Context;
use raftmq_tests::cluster::Options;
use raftmq_tests::disk::enter_private_mounts;
use raftmq_tests::suite::{Case, Suite};

/// Name, test, whether it mounts disks.
const ALL: &[(&str, Case, bool)] = &[
    ("trimmed::under_load", trimmed::under_load, false),
    ("seeded::past_the_log", seeded::past_the_log, false),
    ("seeded::wiped_and_killed", seeded::wiped_and_killed, false),
    ("seeded::a_new_member", seeded::a_new_member, false),
    ("damaged::in_the_log", damaged::in_the_log, false),
    ("damaged::while_stopped", damaged::while_stopped, false),
    ("flush::hanging", flush::hanging, false),
    ("flush::failing", flush::failing, false),
    (
        "full::of_the_leader_and_of_all",
        full::of_the_leader_and_of_all,
        true,
    ),
];

fn main() -> ExitCode {
    let mounts = enter_private_mounts().context("nothing can be mounted here");
    let mut suite = Suite::from_args();
    for (name, case, mounting) in ALL {
        suite.run(name, mounts.as_ref().err().filter(|_| *mounting), case);
    }
    suite.verdict()
}

/// Bytes of a segment.
const SEGMENT: u64 = 4 << 20;

/// Small segments, of which nothing goes unless the test asks for it, whatever this machine's hour and disk are.
fn options() -> Options {
    Options {
        segment_bytes: SEGMENT,
        ..Options::default()
    }
    .with("maxMessageSize", "131072")
    .with("fileReservedTime", "0")
    .with("deleteWhen", &far_hour().to_string())
    .with("diskMaxUsedSpaceRatio", "95")
    .with("cleanFileForciblyEnable", "false")
    .with("cleanResourceInterval", "100")
    .with("deleteCommitLogFilesInterval", "0")
}

/// An hour of the local day that does not come soon.
fn far_hour() -> i32 {
    // SAFETY: all-zero bytes are a valid value of this struct of numbers and an optional pointer.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: plain calls; the pointers are to live values, and no time is asked to be stored.
    unsafe {
        let now = libc::time(std::ptr::null_mut());
        libc::localtime_r(&raw const now, &raw mut local);
    }
    (local.tm_hour + 12) % 24
}
