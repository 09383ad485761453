//! The beginning of the log goes while everyone works.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use raftmq_tests::calls::{self, response};
use raftmq_tests::figures::say;
use raftmq_tests::segments::starts;
use raftmq_tests::serial::turn;
use raftmq_tests::trial::{Load, QUEUES, TOPIC, Trial};
use raftmq_tests::wait::{wait_for, wait_ok};
use raftmq_tests::wire::Connection;

use crate::{SEGMENT, options};

const WITHIN: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(50);

/// Waits until a member's log has grown by so many segments, for as long as it grows at all.
pub(crate) fn wait_segments(trial: &Trial, member: usize, more: usize) -> Result<()> {
    let folder = trial.cluster.members[member].commit_log();
    let last = || starts(&folder).ok()?.last().copied();
    let mut at = last().context("no segment")?;
    let end = at + more as u64 * SEGMENT;
    while at < end {
        at = wait_for("another segment to fill", WITHIN, STEP, || {
            last().filter(|last| *last > at)
        })?;
    }
    Ok(())
}

/// Has an operator ask for expired segments to go, and waits until the request has ended: nothing goes after that. Returns
/// where the log begins then, on every member that runs.
pub(crate) fn trim(trial: &mut Trial) -> Result<u64> {
    trial.allow_trims();
    let leader = trial.cluster.wait_leader()?;
    let folder = trial.cluster.members[leader].commit_log();
    // The last one stays, and the one that is prepared behind it.
    let known = starts(&folder)?;
    let goal = *known.iter().rev().nth(2).context("few segments")?;
    let address = trial.cluster.members[leader].address();
    trial
        .cluster
        .admin(&["deleteExpiredCommitLog", "-b", &address])?;
    let mut connection = Connection::open(&address)?;
    let what = format!("n{leader} to have done what the operator asked for");
    wait_ok(&what, WITHIN, STEP, || {
        let left = calls::runtime_info(&mut connection, "retentionManualRounds")?;
        ensure!(left == "0", "{left} rounds are left");
        Ok(())
    })?;
    let begin: u64 = calls::runtime_info(&mut connection, "storeLogStart")?.parse()?;
    ensure!(begin >= goal, "the log begins at {begin}, not at {goal}");
    for member in 0..trial.cluster.members.len() {
        if !trial.cluster.members[member].is_running() {
            continue;
        }
        let folder = trial.cluster.members[member].commit_log();
        let what = format!("n{member} to remove its segments below {begin}");
        wait_ok(&what, WITHIN, STEP, || {
            let first = *starts(&folder)?.first().context("no segment")?;
            ensure!(first == begin, "it begins with {first}");
            Ok(())
        })?;
    }
    Ok(begin)
}

/// Twice: segments go on all members and give their room back, minima move, a consumer that is behind is sent on.
pub(crate) fn under_load() -> Result<()> {
    let _turn = turn()?;
    let mut trial = Trial::begin(options(), Load::default())?;
    for round in 1..=2 {
        let leader = trial.cluster.wait_leader()?;
        wait_segments(&trial, leader, 3)?;
        let goal = trim(&mut trial)?;
        nothing_is_held(&trial)?;
        for member in 0..trial.cluster.members.len() {
            stragglers_are_sent_on(&trial, member)?;
        }
        trial.wait_progress()?;
        say(format!("round {round}: the log begins at {goal}"));
    }
    trial.finish()
}

fn nothing_is_held(trial: &Trial) -> Result<()> {
    for member in &trial.cluster.members {
        let process = member.process.as_ref().context("never started")?;
        let what = format!("n{} to let go of removed segments", member.number);
        wait_ok(&what, WITHIN, STEP, || {
            let held = process.removed_files(&member.commit_log())?;
            ensure!(held.is_empty(), "it holds {held:?}");
            Ok(())
        })?;
    }
    Ok(())
}

/// As the original: below the minimum stands the code that moves a consumer to the minimum, where it goes on.
fn stragglers_are_sent_on(trial: &Trial, member: usize) -> Result<()> {
    let address = trial.cluster.members[member].address();
    let mut connection = Connection::open(&address)?;
    for queue in 0..QUEUES {
        let min = calls::min_offset(&mut connection, TOPIC, queue)?;
        ensure!(
            min > 0,
            "n{member}: the minimum of queue {queue} is still 0"
        );
        let what = format!("a pull of queue {queue} through n{member} to be sent on and go on");
        // Meanwhile the minimum may move on.
        wait_ok(&what, WITHIN, STEP, || {
            let mut pull = |at| {
                calls::pull(
                    &mut connection,
                    "STRAGGLER",
                    TOPIC,
                    queue,
                    at,
                    Duration::ZERO,
                )
            };
            let moved = pull(0)?;
            ensure!(
                moved.code == response::PULL_OFFSET_MOVED && moved.next == moved.min,
                "code {}, next {}, minimum {}",
                moved.code,
                moved.next,
                moved.min
            );
            let found = pull(moved.next)?;
            let first = found.records()?.first().map(|record| record.queue_offset);
            ensure!(
                first == Some(moved.next),
                "from {} on: code {}, first record {first:?}",
                moved.next,
                found.code
            );
            Ok(())
        })?;
    }
    Ok(())
}
