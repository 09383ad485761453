//! Followers come and go.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use raftmq_tests::calls::{self, Refusal};
use raftmq_tests::cluster::{Cluster, Options, SERVING_WITHIN};
use raftmq_tests::serial::turn;
use raftmq_tests::trial::{Load, Trial};
use raftmq_tests::wait::wait_for;
use raftmq_tests::wire::Connection;

const STEP: Duration = Duration::from_millis(20);

/// Each follower is killed and restarted in turn under load; it catches up, and nobody else notices.
#[test]
fn followers_are_killed_and_catch_up() -> Result<()> {
    let _turn = turn()?;
    let mut trial = Trial::begin(Options::default(), Load::default())?;
    for _ in 0..2 {
        for step in 1..=2 {
            let leader = trial.cluster.wait_leader()?;
            let follower = (leader + step) % 3;
            trial.cluster.kill(follower)?;
            // It is to have something to catch up with.
            let goal = trial.history().acked() + 500;
            wait_for("500 more sends", SERVING_WITHIN, STEP, || {
                (trial.history().acked() >= goal).then_some(())
            })?;
            trial.cluster.start_member(follower)?;
            trial.cluster.wait_member(follower)?;
            trial.wait_progress()?;
        }
    }
    trial.finish()
}

/// A leader that has lost both followers acknowledges nothing and, once its lease is over, answers no offset query: what
/// it knows may be out of date. When one follower is back, it serves again.
#[test]
fn a_leader_without_followers_serves_nothing() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = Cluster::start(Options::default())?;
    cluster.create_topic("Alone", 1)?;
    let leader = cluster.wait_leader()?;
    let address = cluster.members[leader].address();
    let send = || {
        let request = calls::send_request("Alone", 0, "", b"message");
        calls::send(&mut Connection::open(&address)?, &request)
    };
    let before = send()?.offset;
    let followers = [(leader + 1) % 3, (leader + 2) % 3];
    for follower in followers {
        cluster.kill(follower)?;
    }
    wait_for(
        "the leader alone to refuse offset queries",
        Duration::from_secs(10),
        Duration::from_millis(50),
        || {
            let asked = calls::max_offset(&mut Connection::open(&address).ok()?, "Alone", 0);
            asked.err()?.downcast_ref::<Refusal>().map(|_| ())
        },
    )?;
    let started = Instant::now();
    let answer = send();
    let took = started.elapsed();
    let error = match answer {
        Ok(sent) => anyhow::bail!("a leader without followers acknowledged {sent:?}"),
        Err(error) => error,
    };
    let refusal = error.downcast_ref::<Refusal>();
    ensure!(refusal.is_some(), "no answer at all: {error:#}");
    ensure!(took < Duration::from_secs(4), "a refusal took {took:?}");
    ensure!(
        refusal.is_some_and(|refusal| [1, 2, 14].contains(&refusal.code)),
        "a code on which no producer tries again: {error:#}"
    );

    cluster.start_member(followers[0])?;
    cluster.wait_member(leader)?;
    let after = send()?.offset;
    // Sends whose outcome was unknown may have been stored after all.
    ensure!(after > before, "offset {after} after {before}");
    let max = calls::max_offset(&mut Connection::open(&address)?, "Alone", 0)?;
    ensure!(
        max == after + 1,
        "max offset {max} after the message at {after}"
    );
    cluster.passed()
}
