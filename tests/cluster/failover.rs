//! The leader is killed again and again while our producers and a Java producer keep sending.

use std::time::Duration;

use anyhow::{Result, ensure};
use raftmq_tests::cluster::Options;
use raftmq_tests::figures::{Failovers, say};
use raftmq_tests::serial::turn;
use raftmq_tests::trial::{Load, Trial};

/// Ten times `kill -9` of whoever leads, each followed by its restart. Everything acknowledged is read back through
/// consumers, before and after a restart of all members, and the members' segments are compared byte for byte.
#[test]
fn the_leader_is_killed_ten_times() -> Result<()> {
    const KILLS: usize = 10;
    let _turn = turn()?;
    let mut trial = Trial::begin(
        Options::default(),
        Load {
            java: true,
            ..Load::default()
        },
    )?;
    let mut figures = Failovers::default();
    for number in 1..=KILLS {
        trial.run_for(Duration::from_millis(700))?;
        let (victim, failover) = trial.kill_leader()?;
        figures.add(number, victim, failover);
    }
    say(&figures);
    // Not the figure to reach (that is measured on a quiet machine), but no loaded machine explains more.
    let slowest = figures.first_ack().percentile(100).unwrap_or_default();
    ensure!(
        slowest < Duration::from_secs(15),
        "an acknowledged send took {slowest:?}"
    );
    trial.finish()
}
