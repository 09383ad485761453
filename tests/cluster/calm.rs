//! The leader stays when there is much to do.

use std::time::Duration;

use anyhow::Result;
use raftmq_tests::cluster::Options;
use raftmq_tests::serial::turn;
use raftmq_tests::soak::soak;

/// The short form of the `soak` program.
#[test]
fn as_much_load_as_the_machine_takes_makes_no_election() -> Result<()> {
    let _turn = turn()?;
    soak(Options::default(), Duration::from_secs(10))
}
