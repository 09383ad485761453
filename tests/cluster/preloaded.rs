//! The same promises on a store that already holds a million messages: recovery must not count its way through them
//! wrongly.

use std::time::Duration;

use anyhow::Result;
use raftmq_tests::cluster::Options;
use raftmq_tests::figures::{ms, say};
use raftmq_tests::serial::turn;
use raftmq_tests::trial::{Load, Trial};

/// Five kills of different kinds on a store of a million messages; then all of it is read back, the members are
/// restarted, and all of it is read again.
#[test]
fn a_million_messages_survive_five_kills() -> Result<()> {
    let _turn = turn()?;
    let load = Load {
        preloaded: 1_000_000,
        ..Load::default()
    };
    let mut trial = Trial::begin(
        Options {
            segment_bytes: 64 << 20,
            ..Options::default()
        },
        load,
    )?;

    let (victim, failover) = trial.kill_leader()?;
    say(format!(
        "leader n{victim} killed: first acknowledged send {}",
        ms(failover.first_ack)
    ));

    let leader = trial.cluster.wait_leader()?;
    let follower = (leader + 1) % 3;
    trial.cluster.kill(follower)?;
    trial.wait_progress()?;
    trial.cluster.start_member(follower)?;
    trial.cluster.wait_member(follower)?;
    say(format!("follower n{follower} killed and back"));

    trial.cluster.kill_all();
    trial.cluster.start_all()?;
    trial.cluster.wait_serving()?;
    trial.wait_progress()?;
    say("all three killed and back");

    let leader = trial.cluster.wait_leader()?;
    let follower = (leader + 1) % 3;
    trial.cluster.kill(leader)?;
    trial.cluster.kill(follower)?;
    trial.cluster.start_all()?;
    trial.cluster.wait_serving()?;
    trial.wait_progress()?;
    say(format!(
        "leader n{leader} and follower n{follower} killed and back"
    ));

    let leader = trial.cluster.wait_leader()?;
    trial.cluster.terminate(leader, Duration::from_secs(20))?;
    trial.wait_progress()?;
    trial.cluster.start_member(leader)?;
    trial.cluster.wait_member(leader)?;
    say(format!("leader n{leader} stopped in order and back"));

    trial.run_for(Duration::from_millis(500))?;
    trial.finish()
}
