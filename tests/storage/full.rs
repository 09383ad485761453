//! Disks without room.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use raftmq_tests::calls::{self, Refusal};
use raftmq_tests::cluster::Options;
use raftmq_tests::disk::{fill, relieve};
use raftmq_tests::figures::say;
use raftmq_tests::serial::turn;
use raftmq_tests::trial::{Load, QUEUES, TOPIC, Trial};
use raftmq_tests::wait::wait_ok;
use raftmq_tests::wire::Connection;

use crate::options;

const WITHIN: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(50);
const GROUP: &str = "FullDisk";
const DISK: u64 = 200 << 20;

/// The leader's disk runs full: another leads, and everything goes on. All disks run full: sends are refused with the reason,
/// consumers go on. With room again, everything goes on by itself.
pub(crate) fn of_the_leader_and_of_all() -> Result<()> {
    let _turn = turn()?;
    let options = Options {
        disk_bytes: Some(DISK),
        ..options()
    };
    let load = Load {
        pace: Duration::from_millis(10),
        ..Load::default()
    };
    let mut trial = Trial::begin(options, load)?;
    trial.run_for(Duration::from_millis(500))?;

    // To the last byte, and to a twentieth, where only the limit says that it is full.
    for (round, left) in (0..).zip([0, DISK / 20]) {
        let full = trial.cluster.wait_leader()?;
        let store = trial.cluster.members[full].store.clone();
        fill(&store, left)?;
        let leader = trial.cluster.wait_other_leader(full)?;
        trial.wait_progress()?;
        let went_on = consumers_go_on(&trial, full, 1 + 2 * round);
        // The state database may need room of which there is not a byte: then the member ends, with the reason.
        let ended = left == 0 && !trial.cluster.members[full].is_running();
        if !ended {
            went_on?;
        }
        consumers_go_on(&trial, leader, 2 + 2 * round)?;
        relieve(&store)?;
        if ended {
            trial.cluster.wait_said(full, "No space left on device")?;
            trial.cluster.start_member(full)?;
            trial.cluster.wait_member(full)?;
        }
        trial.wait_progress()?;
        trial.cluster.require_running()?;
        say(format!(
            "n{full} had {left} bytes left, n{leader} took over"
        ));
    }

    for member in &trial.cluster.members {
        fill(&member.store, DISK / 20)?;
    }
    let text = refusal(&trial)?;
    say(format!("all disks are full: {text}"));
    for words in ["commitlog", "% used", "limit"] {
        ensure!(text.contains(words), "'{words}' is missing in: {text}");
    }
    trial.run_for(Duration::from_secs(1))?;
    for member in 0..3 {
        consumers_go_on(&trial, member, 10 + i64::try_from(member)?)?;
    }
    for member in &trial.cluster.members {
        relieve(&member.store)?;
    }
    trial.wait_progress()?;
    trial.finish()
}

/// What a member says to a send for which there is no room.
fn refusal(trial: &Trial) -> Result<String> {
    wait_ok("sends to be refused", WITHIN, STEP, || {
        match trial.cluster.probe(0) {
            Ok(_) => bail!("a send was accepted"),
            Err(error) => match error.downcast_ref::<Refusal>() {
                Some(refusal) if refusal.remark.contains("disk") => Ok(refusal.to_string()),
                _ => Err(error),
            },
        }
    })
}

/// Messages can be read through a member, and offsets saved.
fn consumers_go_on(trial: &Trial, member: usize, offset: i64) -> Result<()> {
    trial.require_intact(member)?;
    let mut connection = Connection::open(&trial.cluster.members[member].address())?;
    // The first pull creates the group.
    calls::pull(&mut connection, GROUP, TOPIC, 0, 0, Duration::ZERO)?;
    for queue in 0..QUEUES {
        calls::update_offset(&mut connection, GROUP, TOPIC, queue, offset)?;
        let what = format!("offset {offset} of queue {queue} to be saved through n{member}");
        wait_ok(&what, WITHIN, STEP, || {
            let saved = calls::query_offset(&mut connection, GROUP, TOPIC, queue)?;
            ensure!(saved == Some(offset), "saved is {saved:?}");
            Ok(())
        })?;
    }
    Ok(())
}
