//! Disks that hang, and disks that fail.

use std::time::Duration;

use anyhow::{Result, bail};
use raftmq_tests::cluster::Options;
use raftmq_tests::fault::Flush;
use raftmq_tests::figures::say;
use raftmq_tests::serial::turn;
use raftmq_tests::trial::{Load, Trial};
use raftmq_tests::wait::wait_for;

use crate::options;

const WITHIN: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(20);

fn begin() -> Result<Trial> {
    let options = Options {
        faulty: true,
        ..options().with("flushStallMax", "1000")
    };
    let mut trial = Trial::begin(options, Load::default())?;
    trial.run_for(Duration::from_millis(500))?;
    Ok(trial)
}

/// The leader's flushes hang: it steps down, everyone goes on; and it is a sound member once they end.
pub(crate) fn hanging() -> Result<()> {
    let _turn = turn()?;
    let mut trial = begin()?;
    let slow = trial.cluster.wait_leader()?;
    trial
        .cluster
        .set_flush(slow, Flush::Slow(Duration::from_secs(20)))?;
    let leader = trial.cluster.wait_other_leader(slow)?;
    say(format!("n{slow} hangs in a flush, n{leader} took over"));
    trial.cluster.require_running()?;
    trial.wait_progress()?;
    trial.cluster.wait_said(slow, "has not finished a flush")?;
    trial.cluster.set_flush(slow, Flush::Well)?;
    trial.wait_progress()?;
    trial.cluster.require_running()?;
    trial.finish()
}

/// A flush fails: what it was to make durable is never acknowledged by that member, which ends with the reason. Started
/// again on a disk that works it is as good as before.
pub(crate) fn failing() -> Result<()> {
    let _turn = turn()?;
    let mut trial = begin()?;
    let leader = trial.cluster.wait_leader()?;
    for victim in [leader, (leader + 1) % 3] {
        trial.cluster.set_flush(victim, Flush::Failing)?;
        let what = format!("n{victim} to end");
        wait_for(&what, WITHIN, STEP, || {
            (!trial.cluster.members[victim].is_running()).then_some(())
        })?;
        if trial.cluster.said(victim, "cannot flush") == 0 {
            bail!("n{victim} ended without saying what it cannot flush");
        }
        trial.wait_progress()?;
        trial.cluster.set_flush(victim, Flush::Well)?;
        trial.cluster.start_member(victim)?;
        trial.cluster.wait_member(victim)?;
        say(format!("n{victim} ended after a failed flush, and is back"));
    }
    trial.wait_progress()?;
    trial.finish()
}
