//! All members die at once.

use std::time::Duration;

use anyhow::Result;
use raftmq_tests::clock::Nanos;
use raftmq_tests::cluster::Options;
use raftmq_tests::figures::{ms, say};
use raftmq_tests::serial::turn;
use raftmq_tests::trial::{Load, Trial};
use raftmq_tests::wait::pause;

/// `kill -9` of all three under load, several times; in some rounds again while they recover.
#[test]
fn all_members_are_killed_under_load() -> Result<()> {
    let _turn = turn()?;
    let mut trial = Trial::begin(Options::default(), Load::default())?;
    for round in 1..=5 {
        trial.run_for(Duration::from_millis(800))?;
        trial.cluster.kill_all();
        if round % 2 == 0 {
            // Killed again in the middle of recovery and election.
            for after_ms in [30, 150, 600] {
                trial.cluster.start_all()?;
                pause(Duration::from_millis(after_ms));
                trial.cluster.kill_all();
            }
        }
        back(&mut trial, round)?;
    }
    trial.finish()
}

fn back(trial: &mut Trial, round: usize) -> Result<()> {
    let started = Nanos::now();
    trial.cluster.start_all()?;
    trial.cluster.wait_serving()?;
    say(format!(
        "round {round}: serving again after {}",
        ms(started.elapsed())
    ));
    trial.wait_progress()
}

/// With `ASYNC_FLUSH` an acknowledgement does not wait for the disk, only for the page cache of a majority: the death of
/// processes, as opposed to machines, still loses nothing.
#[test]
fn asynchronous_flush_survives_the_death_of_processes() -> Result<()> {
    let _turn = turn()?;
    let options = Options::default().with("flushDiskType", "ASYNC_FLUSH");
    let mut trial = Trial::begin(options, Load::default())?;
    for round in 1..=2 {
        trial.run_for(Duration::from_millis(800))?;
        trial.kill_leader()?;
        trial.run_for(Duration::from_millis(300))?;
        trial.cluster.kill_all();
        back(&mut trial, round)?;
    }
    trial.finish()
}

/// One member on its own keeps what it acknowledged, without anyone to help it.
#[test]
fn a_group_of_one_is_killed_under_load() -> Result<()> {
    let _turn = turn()?;
    let mut trial = Trial::begin(Options::single(), Load::default())?;
    for round in 1..=4 {
        trial.run_for(Duration::from_millis(600))?;
        trial.cluster.kill_all();
        back(&mut trial, round)?;
    }
    trial.finish()
}
