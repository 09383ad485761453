//! Members that cannot be caught up from the log, because its beginning has gone.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use raftmq_tests::cluster::GROUP;
use raftmq_tests::figures::say;
use raftmq_tests::segments::{file, last_entry, starts};
use raftmq_tests::serial::turn;
use raftmq_tests::trial::{Load, Trial};
use raftmq_tests::wait::{pause, wait_for};

use crate::trimmed::{trim, wait_segments};
use crate::{SEGMENT, options};

const WITHIN: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(20);

const BROUGHT_UP: &str = "everything is there: the member starts";
const VOTES: &str = "has caught up and votes again";

/// A member is down while the log it would need is trimmed. It is brought up from another one, by itself.
pub(crate) fn past_the_log() -> Result<()> {
    let _turn = turn()?;
    let mut trial = Trial::begin(options(), Load::default())?;
    trial.run_for(Duration::from_millis(500))?;
    let leader = trial.cluster.wait_leader()?;
    let away = (leader + 1) % 3;
    trial.cluster.terminate(away, WITHIN)?;
    let (_, end) = last_entry(&trial.cluster.members[away].commit_log())?;
    wait_segments(&trial, leader, 4)?;
    let goal = trim(&mut trial)?;
    ensure!(
        goal > end,
        "trimmed up to {goal}, n{away} has all up to {end}"
    );
    trial.cluster.start_member(away)?;
    trial.cluster.wait_said(away, BROUGHT_UP)?;
    trial.cluster.wait_said(away, VOTES)?;
    trial.cluster.wait_member(away)?;
    trial.wait_progress()?;
    // It can carry the group.
    let other = (leader + 2) % 3;
    trial.cluster.kill(other)?;
    trial.wait_progress()?;
    trial.cluster.start_member(other)?;
    trial.cluster.wait_member(other)?;
    trial.finish()
}

/// A member lost its store, and is killed again and again while it fetches another one. It goes on where it stopped, and
/// until it is done the group does not count on it.
pub(crate) fn wiped_and_killed() -> Result<()> {
    const KILLS: usize = 3;
    let _turn = turn()?;
    // Slow enough to be killed in the middle: all of it takes most of a minute.
    let slow = (SEGMENT / 16).to_string();
    let options = options().with("seedRateMax", &slow);
    let load = Load {
        pace: Duration::from_millis(20),
        ..Load::default()
    };
    let mut trial = Trial::begin(options, load)?;
    let leader = trial.cluster.wait_leader()?;
    wait_segments(&trial, leader, 3)?;
    trim(&mut trial)?;
    wait_segments(&trial, leader, 3)?;
    let leader = trial.cluster.wait_leader()?;
    let wiped = (leader + 1) % 3;
    trial.cluster.kill(wiped)?;
    std::fs::remove_dir_all(&trial.cluster.members[wiped].store).context("wipe a store")?;

    let fetched = trial.cluster.members[wiped].commit_log().join("seed");
    let mut reached = 0;
    for kill in 1..=KILLS {
        trial.cluster.start_member(wiped)?;
        let goal = reached + SEGMENT / 16;
        let what = format!("n{wiped} to fetch the log beyond {goal}");
        wait_for(&what, WITHIN, STEP, || {
            let (_, end) = last_entry(&fetched).ok()?;
            let begin = *starts(&fetched).ok()?.first()?;
            (end - begin > goal).then_some(())
        })?;
        if kill == 2 {
            does_not_vote(&mut trial, wiped)?;
        }
        ensure!(
            trial.cluster.said(wiped, BROUGHT_UP) == 0,
            "n{wiped} is done before it was killed"
        );
        trial.cluster.kill(wiped)?;
        let (_, end) = last_entry(&fetched)?;
        let bytes = end - starts(&fetched)?.first().context("no segment")?;
        ensure!(bytes >= reached, "{bytes} bytes are there after {reached}");
        say(format!(
            "n{wiped} killed with {} KiB of the log fetched",
            bytes >> 10
        ));
        reached = bytes;
    }
    let first = *starts(&fetched)?.first().context("no segment")?;
    let inode = file(&fetched, first).metadata()?.ino();
    // The rest at full speed.
    let conf = &trial.cluster.members[wiped].conf;
    let [slow, fast] = [slow, SEGMENT.to_string()].map(|rate| format!("seedRateMax={rate}\n"));
    let fast = std::fs::read_to_string(conf)?.replace(&slow, &fast);
    std::fs::write(conf, fast)?;
    trial.cluster.start_member(wiped)?;
    trial.cluster.wait_said(wiped, BROUGHT_UP)?;
    trial.cluster.wait_said(wiped, VOTES)?;
    trial.cluster.wait_member(wiped)?;
    let kept = file(&trial.cluster.members[wiped].commit_log(), first)
        .metadata()?
        .ino();
    ensure!(kept == inode, "the first segment was fetched once more");
    trial.wait_progress()?;
    trial.finish()
}

/// A member that is added finds that the log it would need is trimmed: it is filled from another one, and then gets a vote.
pub(crate) fn a_new_member() -> Result<()> {
    let _turn = turn()?;
    let mut trial = Trial::begin(options(), Load::default())?;
    let leader = trial.cluster.wait_leader()?;
    wait_segments(&trial, leader, 3)?;
    trim(&mut trial)?;
    let new = trial.cluster.prepare_joining()?;
    trial.cluster.start_member(new)?;
    let place = trial.cluster.raft_address(new);
    let words = ["addMember", "-g", GROUP, "-i", "n3", "-a", &place];
    wait_for("n3 to be added", WITHIN, STEP, || {
        trial.cluster.admin(&words).ok()
    })?;
    trial.cluster.wait_said(new, BROUGHT_UP)?;
    let words = ["promoteMember", "-g", GROUP, "-i", "n3"];
    wait_for("n3 to get a vote", WITHIN, STEP, || {
        trial.cluster.admin(&words).ok()
    })?;
    trial.cluster.wait_member(new)?;
    trial.wait_progress()?;
    trial.finish()
}

/// With one of the two complete members gone, the one that is being brought up must not help to elect anyone.
fn does_not_vote(trial: &mut Trial, wiped: usize) -> Result<()> {
    let leader = trial.cluster.wait_leader()?;
    trial.cluster.kill(leader)?;
    let other = 3 - wiped - leader;
    // Several election timeouts.
    pause(Duration::from_millis(1_500));
    for member in [wiped, other] {
        let sent = trial.cluster.probe(member);
        ensure!(
            sent.is_err(),
            "n{member} took a send with one complete member: {sent:?}"
        );
    }
    ensure!(
        trial.cluster.said(wiped, VOTES) == 0,
        "n{wiped} votes before it has caught up"
    );
    trial.cluster.start_member(leader)?;
    trial.cluster.wait_member(leader)?;
    trial.wait_progress()
}
