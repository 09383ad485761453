//! Members that stop, come back, and disagree for a while.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::{Duration, Instant};

use raftmq_raft::{GroupOptions, ProposeError, RoleState, TransferError};
use support::{Cluster, PATIENCE, records, submit, until};

/// Kills the leader again and again while messages are stored: offsets go on without gap or reuse,
/// and every acknowledged message is on all members in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_leaders_lose_nothing_and_number_on() {
    let mut cluster = Cluster::started("kill", 3).await;
    let mut acknowledged = Vec::new();
    for round in 0..4u64 {
        for n in 0..50u64 {
            let body = format!("{round}-{n}");
            let stored = cluster.store("t", 0, body.as_bytes()).await;
            acknowledged.push((stored.queue_offset, stored.physical_offsets[0], body));
        }
        let leader = cluster.leader().await;
        let begin = Instant::now();
        cluster.kill(leader);
        let next = cluster.leader().await;
        let elected = begin.elapsed();
        let stored = cluster.store("t", 0, b"first").await;
        println!(
            "leader n{leader} killed: n{next} serves after {elected:?}, stores after {:?}",
            begin.elapsed()
        );
        acknowledged.push((
            stored.queue_offset,
            stored.physical_offsets[0],
            "first".to_owned(),
        ));
        cluster.start(leader).await;
    }
    cluster.assert_equal().await;
    let offsets: Vec<u64> = acknowledged.iter().map(|(offset, ..)| *offset).collect();
    // Nothing ran at a kill, so nothing is stored beside what was acknowledged.
    let dense: Vec<u64> = (0..acknowledged.len() as u64).collect();
    assert_eq!(offsets, dense);
    for group in cluster.groups.values() {
        for (_, position, body) in &acknowledged {
            let record = group.store().state.record_at(*position).unwrap();
            let record = raftmq_proto::message::record::RecordRef::parse(&record).unwrap();
            assert_eq!(record.body(), body.as_bytes());
        }
    }
}

/// Prints how long a start from nothing and a failover take with the default timings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_with_default_timings() {
    let mut cluster = Cluster::new("times", 3);
    cluster.tune = |options| {
        let defaults = GroupOptions::new("", 0, Vec::new(), options.bind);
        options.heartbeat = defaults.heartbeat;
        options.election_min = defaults.election_min;
        options.election_max = defaults.election_max;
    };
    let begin = Instant::now();
    cluster.start_all().await;
    cluster.store("t", 0, b"first").await;
    println!("first message of a new group after {:?}", begin.elapsed());
    let mut served = Vec::new();
    let mut stored = Vec::new();
    for _ in 0..9 {
        let leader = cluster.leader().await;
        cluster.settled().await;
        let begin = Instant::now();
        cluster.kill(leader);
        cluster.leader().await;
        served.push(begin.elapsed());
        cluster.store("t", 0, b"x").await;
        stored.push(begin.elapsed());
        cluster.start(leader).await;
    }
    served.sort_unstable();
    stored.sort_unstable();
    println!(
        "leader killed 9 times: serving again after p50 {:?}, max {:?}; stored p50 {:?}, max {:?}",
        served[4], served[8], stored[4], stored[8]
    );
    cluster.assert_equal().await;
}

/// Leaders killed under load: what was acknowledged is there, offsets are dense, members equal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_leaders_under_load() {
    let mut cluster = Cluster::started("load", 3).await;
    let mut acknowledged = 0u64;
    let mut unknown = 0u64;
    for _ in 0..3 {
        let leader = cluster.leader().await;
        let group = cluster.group(leader).clone();
        let tasks: Vec<_> = (0..32)
            .map(|task| {
                let group = group.clone();
                tokio::spawn(async move {
                    let (mut stored, mut unknown) = (0u64, 0u64);
                    loop {
                        match submit(&group, "t", task % 4, &[b"some body"]).await {
                            Ok(_) => stored += 1,
                            Err(ProposeError::Unknown) => unknown += 1,
                            Err(ProposeError::Renumber | ProposeError::Busy { .. }) => {}
                            Err(
                                ProposeError::NotLeader { .. }
                                | ProposeError::Closed
                                | ProposeError::Poisoned(_),
                            ) => return (stored, unknown),
                            Err(error) => panic!("{error}"),
                        }
                    }
                })
            })
            .collect();
        let applied = |g: &raftmq_raft::Group| g.watermarks().applied.map_or(0, |id| id.index);
        let begin = applied(&group);
        until("some load", || {
            (applied(&group) > begin + 100).then_some(())
        })
        .await;
        drop(group);
        cluster.kill(leader);
        for task in tasks {
            let (stored, lost) = task.await.unwrap();
            acknowledged += stored;
            unknown += lost;
        }
        cluster.leader().await;
        cluster.start(leader).await;
    }
    cluster.leader().await;
    cluster.assert_equal().await;
    let group = cluster.groups.values().next().unwrap();
    let stored: u64 = (0..4)
        .map(|queue| group.store().state.next_offset("t", queue))
        .sum();
    println!("{acknowledged} acknowledged, {unknown} unknown, {stored} stored");
    assert!(
        stored >= acknowledged,
        "{stored} stored of {acknowledged} acknowledged"
    );
    assert!(stored <= acknowledged + unknown);
}

/// All members stop and come back with everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_members_restart() {
    let mut cluster = Cluster::started("restart", 3).await;
    for n in 0..200u64 {
        assert_eq!(
            cluster.store("t", 1, &n.to_be_bytes()).await.queue_offset,
            n
        );
    }
    for id in 0..3 {
        if id == 1 {
            cluster.stop(id).await
        } else {
            cluster.kill(id)
        }
    }
    cluster.start_all().await;
    assert_eq!(cluster.store("t", 1, b"after").await.queue_offset, 200);
    cluster.assert_equal().await;
}

/// A member that was away while megabytes were stored catches up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_catches_up() {
    let mut cluster = Cluster::started("behind", 3).await;
    cluster.store("t", 0, b"first").await;
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    cluster.kill(follower);
    let body = vec![7; 64 * 1024];
    for _ in 0..300 {
        cluster.store("t", 0, &body).await;
    }
    let begin = Instant::now();
    cluster.start(follower).await;
    let last = cluster.group(leader).watermarks().last;
    let applied = || (cluster.group(follower).watermarks().applied >= last).then_some(());
    until("the follower has caught up", applied).await;
    println!(
        "caught up with 19 MB in {:?}, its start included",
        begin.elapsed()
    );
    cluster.assert_equal().await;
}

/// A leader without its followers keeps entries that the others replace: they are cut off when it
/// comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflicting_tail_is_truncated() {
    let mut cluster = Cluster::new("tail", 3);
    // Long enough to append something before the lease is over.
    cluster.tune = |options| options.election_max = Duration::from_millis(1500);
    cluster.start_all().await;
    for _ in 0..10 {
        cluster.store("t", 0, b"agreed").await;
    }
    let old = cluster.leader().await;
    cluster.settled().await;
    let agreed = cluster.group(old).watermarks().last.unwrap().index;
    let others: Vec<u64> = (0..3).filter(|id| *id != old).collect();
    for id in &others {
        cluster.kill(*id);
    }
    // It may append for one lease more, but not commit.
    let group = cluster.group(old).clone();
    let lonely: Vec<_> = (0..3)
        .map(|_| {
            let group = group.clone();
            tokio::spawn(async move { submit(&group, "t", 0, &[b"lonely"]).await })
        })
        .collect();
    let longer = || group.watermarks().last.filter(|last| last.index > agreed);
    let tail = until("the leader has a tail of its own", longer).await;
    drop(group);
    cluster.kill(old);
    for outcome in lonely {
        assert_eq!(outcome.await.unwrap(), Err(ProposeError::Unknown));
    }
    for id in &others {
        cluster.start(*id).await;
    }
    for n in 0..5u64 {
        assert_eq!(
            cluster.store("t", 0, b"replaced").await.queue_offset,
            10 + n
        );
    }
    cluster.start(old).await;
    cluster.assert_equal().await;
    let id = cluster.group(old).store().log.log_id(tail.index).unwrap();
    assert!(id.term > tail.term, "entry {tail} became {id}");
}

/// A leader that hears of nobody stops answering within a lease, and goes on when they are back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lonely_leader_does_not_vouch() {
    let mut cluster = Cluster::started("lonely", 3).await;
    cluster.store("t", 0, b"x").await;
    let leader = cluster.leader().await;
    assert!(cluster.group(leader).confirm_leadership().await.is_ok());
    for id in (0..3).filter(|id| *id != leader) {
        cluster.kill(id);
    }
    let group = cluster.group(leader).clone();
    let deadline = Instant::now() + PATIENCE;
    while group.confirm_leadership().await.is_ok() {
        assert!(
            Instant::now() < deadline,
            "a lonely leader still vouches for its leadership"
        );
    }
    // What is submitted now is refused rather than left waiting.
    let outcome = submit(&group, "t", 0, &[b"y"]).await;
    assert!(
        matches!(
            outcome,
            Err(ProposeError::NotLeader { .. } | ProposeError::Unknown)
        ),
        "{outcome:?}"
    );
    drop(group);
    for id in (0..3).filter(|id| *id != leader) {
        cluster.start(id).await;
    }
    cluster.store("t", 0, b"z").await;
    cluster.assert_equal().await;
}

/// A planned hand-over takes no election timeout, and a clean stop hands over by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over() {
    let mut cluster = Cluster::started("transfer", 3).await;
    cluster.store("t", 0, b"x").await;
    let old = cluster.leader().await;
    let to = (old + 1) % 3;
    let progress = || {
        let all = cluster.group(old).progress();
        let last = cluster.group(old).watermarks().last;
        all.iter()
            .all(|member| member.matched == last)
            .then_some(())
    };
    until("all members are level", progress).await;
    let begin = Instant::now();
    assert_eq!(cluster.group(old).transfer_leader(Some(to)).await, Ok(to));
    let elected = begin.elapsed();
    assert_eq!(cluster.leader().await, to);
    println!(
        "leadership handed over in {elected:?}, serving after {:?}",
        begin.elapsed()
    );
    assert_eq!(cluster.store("t", 0, b"y").await.queue_offset, 1);
    assert!(
        cluster.group(old).transfer_leader(None).await.is_err(),
        "it does not lead any more"
    );

    let begin = Instant::now();
    cluster.stop(to).await;
    let stopped = begin.elapsed();
    let next = cluster.leader().await;
    println!(
        "leader stopped in {stopped:?}, n{next} serves after {:?}",
        begin.elapsed()
    );
    assert_eq!(cluster.store("t", 0, b"z").await.queue_offset, 2);
    cluster.start(to).await;
    cluster.assert_equal().await;
}

/// From the moment in which a member is told to take over nobody leads, so whoever could not is not told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_to_nobody_who_could_not_take_it() {
    let mut cluster = Cluster::started("unable", 3).await;
    cluster.store("t", 0, b"x").await;
    let leader = cluster.leader().await;
    let (leaving, dead) = ((leader + 1) % 3, (leader + 2) % 3);
    let term = cluster.group(leader).role().borrow().term;
    cluster.group(leaving).prepare_to_leave();
    cluster.kill(dead);
    let transfer = async |to| cluster.group(leader).transfer_leader(to).await;
    let refused = transfer(Some(leaving)).await.unwrap_err();
    let unable = "cannot lead now: it is being stopped";
    assert_eq!(refused.to_string(), format!("member {leaving} {unable}"));
    let refused = transfer(Some(dead)).await.unwrap_err();
    assert_eq!(refused, TransferError::Silent(dead));
    assert_eq!(transfer(None).await, Err(TransferError::Nobody));
    let role = *cluster.group(leader).role().borrow();
    assert!(role.serving && role.term == term, "{role:?}");
    cluster.store("t", 0, b"y").await;
}

/// Bounds of the queue refuse with their key, also while nothing can be committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_names_its_limit() {
    let mut cluster = Cluster::new("full", 3);
    cluster.tune = |options| {
        options.queue_count_max = 5;
        options.proposals_in_flight = 1;
        // Long enough that the leader still believes in its lease throughout.
        options.election_max = Duration::from_secs(4);
    };
    cluster.start_all().await;
    cluster.store("t", 0, b"x").await;
    let leader = cluster.leader().await;
    for id in (0..3).filter(|id| *id != leader) {
        cluster.kill(id);
    }
    let group = cluster.group(leader);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..20 {
        let tell = tell.clone();
        group.submit(raftmq_raft::MessageSubmission {
            topic: "t".into(),
            queue_id: 0,
            records: records("t", 0, &[b"x"]),
            count: 1,
            done: Box::new(move |outcome| drop(tell.send(outcome))),
        });
    }
    let first = tokio::time::timeout(PATIENCE, told.recv())
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    let text = first.to_string();
    assert!(
        text.contains("limit 5") && text.contains("raftQueueCountMax"),
        "{text}"
    );
}

/// One member alone is a group too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_one() {
    let mut cluster = Cluster::started("one", 1).await;
    assert_eq!(cluster.store("t", 0, b"x").await.queue_offset, 0);
    assert!(cluster.group(0).confirm_leadership().await.is_ok());
    cluster.stop(0).await;
    cluster.start(0).await;
    assert_eq!(cluster.store("t", 0, b"y").await.queue_offset, 1);
    assert_eq!(cluster.group(0).role().borrow().state, RoleState::Leader);
}
