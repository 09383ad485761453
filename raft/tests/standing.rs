//! Members that lost what they had, and members that failed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use raftmq_raft::ProposeError;
use raftmq_store::{ApplyObserver, Arrival};
use support::{Cluster, open_store, submit};

/// Puts a stopped member's store aside.
async fn wipe(cluster: &Cluster, id: u64) {
    // Its threads have let go of it once it can be opened.
    drop(open_store(&cluster.options(id), cluster.folder(id)).await);
    let folder = cluster.folder(id);
    std::fs::rename(&folder, folder.with_extension("lost")).unwrap();
}

/// Bodies of all messages of queue 0 of a topic, read through the consume queue.
fn bodies(cluster: &Cluster, id: u64) -> Vec<Vec<u8>> {
    let log = &cluster.group(id).store().log;
    let mut found = Vec::new();
    let next = log.last().map_or(0, |last| last.index + 1);
    for entry in log.read(log.first_index(), next, None).unwrap() {
        for record in raftmq_proto::message::record::records(&entry.records()) {
            found.push(record.unwrap().body().to_vec());
        }
    }
    found
}

/// A member whose store was removed is filled again by the same leader, and counts again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_follower_is_filled_again() {
    let mut cluster = Cluster::started("wiped", 3).await;
    for _ in 0..100 {
        cluster.store("t", 0, b"before").await;
    }
    let leader = cluster.leader().await;
    let wiped = (leader + 1) % 3;
    cluster.settled().await;
    cluster.kill(wiped);
    wipe(&cluster, wiped).await;
    cluster.start(wiped).await;
    for _ in 0..100 {
        cluster.store("t", 0, b"after").await;
    }
    assert_eq!(cluster.leader().await, leader, "it disturbed nobody");
    cluster.assert_equal().await;
    // With its vote the other two are a quorum again.
    cluster.kill(leader);
    assert_eq!(
        cluster.store("t", 0, b"with its vote").await.queue_offset,
        200
    );
    cluster.assert_equal().await;
}

/// A wiped member helps nobody into office who lacks what it acknowledged itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_member_does_not_vote_acknowledged_entries_away() {
    let mut cluster = Cluster::started("abstain", 3).await;
    cluster.store("t", 0, b"on all").await;
    let leader = cluster.leader().await;
    cluster.settled().await;
    let (behind, wiped) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.kill(behind);
    cluster.store("t", 0, b"on two of three").await;
    cluster.kill(leader);
    cluster.kill(wiped);
    wipe(&cluster, wiped).await;
    cluster.start(wiped).await;
    cluster.start(behind).await;
    // Many elections' worth of time.
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        assert!(
            cluster
                .groups
                .values()
                .all(|group| !group.role().borrow().serving)
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cluster.start(leader).await;
    assert_eq!(cluster.store("t", 0, b"later").await.queue_offset, 2);
    cluster.assert_equal().await;
    assert_eq!(
        bodies(&cluster, wiped),
        [&b"on all"[..], b"on two of three", b"later"]
    );
}

/// When most members are wiped nothing better is left than the longest log, and that is taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_log_is_salvaged() {
    let mut cluster = Cluster::started("salvage", 3).await;
    for _ in 0..10 {
        cluster.store("t", 0, b"kept by one").await;
    }
    cluster.settled().await;
    for id in 0..3 {
        cluster.kill(id);
    }
    for id in 0..2 {
        wipe(&cluster, id).await;
    }
    cluster.start_all().await;
    assert_eq!(cluster.store("t", 0, b"later").await.queue_offset, 10);
    cluster.assert_equal().await;
    assert_eq!(bodies(&cluster, 0).len(), 11);
}

/// A failed disk ends the member with its reason, and only that member.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_store_is_fatal_to_its_member_only() {
    let mut cluster = Cluster::started("fatal", 3).await;
    cluster.store("t", 0, b"x").await;
    let leader = cluster.leader().await;
    let group = cluster.group(leader).clone();
    let mut fatal = group.fatal();
    assert!(fatal.borrow().is_none());
    group.store().log.poison().poison(raftmq_store::Error::Io {
        action: "write",
        path: Path::new("/disk/that/failed").to_path_buf(),
        source: std::io::Error::other("no more of it"),
    });
    let reason = fatal
        .wait_for(Option::is_some)
        .await
        .unwrap()
        .clone()
        .unwrap();
    assert!(reason.contains("/disk/that/failed"), "{reason}");
    let refused = submit(&group, "t", 0, &[b"y"]).await;
    assert!(
        matches!(refused, Err(ProposeError::Poisoned(_))),
        "{refused:?}"
    );
    // What a broker does then.
    drop((group, fatal));
    cluster.kill(leader);
    assert_eq!(cluster.store("t", 0, b"z").await.queue_offset, 1);
    cluster.start(leader).await;
    cluster.assert_equal().await;
}

/// Panics when messages arrive, as a bug in the apply task would.
struct Broken;

impl ApplyObserver for Broken {
    fn arrived(&self, _arrivals: &[Arrival]) {
        panic!("a bug");
    }
}

/// A member whose apply task has ended says so, and what was under way gets an outcome.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_apply_task_is_noticed() {
    let cluster = Cluster::started("apply", 3).await;
    let leader = cluster.leader().await;
    let group = cluster.group(leader);
    group.store().state.set_observer(Arc::new(Broken));
    let outcome = submit(group, "t", 0, &[b"x"]).await;
    assert_eq!(outcome, Err(ProposeError::Unknown));
    let mut fatal = group.fatal();
    let reason = fatal
        .wait_for(Option::is_some)
        .await
        .unwrap()
        .clone()
        .unwrap();
    assert!(reason.contains("apply task"), "{reason}");
    assert!(!group.role().borrow().serving);
}
