//! Members that come and go on a running group.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::{Duration, Instant};

use raftmq_raft::{MemberChange, MemberError, MemberRole, MemberStatus, Peer};
use support::{Cluster, PATIENCE, free_ports, open_store};

/// Carries out a change through whoever leads, again and again while leadership moves or it lacks entries.
async fn change(cluster: &Cluster, change: MemberChange) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let leader = cluster.leader().await;
        match cluster.group(leader).change_members(change.clone()).await {
            Ok(()) => return,
            Err(MemberError::NotLeader(_) | MemberError::Behind { .. }) => {}
            Err(error) => panic!("{change:?}: {error}"),
        }
        assert!(Instant::now() < deadline, "not in time: {change:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn join(cluster: &mut Cluster) -> u64 {
    let id = cluster.peers.len() as u64;
    let host = "127.0.0.1".to_owned();
    let port = free_ports();
    cluster.peers.push(Peer { id, host, port });
    cluster.tune = |options| options.join = true;
    cluster.start(id).await;
    let address = cluster.peers[id as usize].address();
    change(cluster, MemberChange::Add { id, address }).await;
    id
}

async fn voters(cluster: &Cluster) -> Vec<u64> {
    let leader = cluster.leader().await;
    let mut status = cluster.group(leader).member_status().await;
    status.retain(|member| member.role != MemberRole::Learner);
    status.into_iter().map(|member| member.id).collect()
}

/// A group of one becomes one of three, and then loses the member it began with, who led. What each
/// was configured with at its start says otherwise all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_one_grows_and_moves_away() {
    let mut cluster = Cluster::started("grows", 1).await;
    cluster.store("t", 0, b"alone").await;
    for _ in 0..2 {
        let id = join(&mut cluster).await;
        let again = MemberChange::Add {
            id,
            address: "127.0.0.1:1".to_owned(),
        };
        let leader = cluster.leader().await;
        let refused = cluster.group(leader).change_members(again).await;
        assert!(
            matches!(refused, Err(MemberError::IdInUse { .. })),
            "{refused:?}"
        );
        change(&cluster, MemberChange::Promote { id }).await;
        cluster.store("t", 0, b"more").await;
    }
    assert_eq!(voters(&cluster).await, [0, 1, 2]);
    change(&cluster, MemberChange::Remove { id: 0 }).await;
    let mut removed = cluster.group(0).removed();
    tokio::time::timeout(PATIENCE, removed.wait_for(|removed| *removed))
        .await
        .expect("it finds out")
        .unwrap();
    drop(removed);
    cluster.put_down(0).await;
    assert_eq!(voters(&cluster).await, [1, 2]);
    assert_eq!(cluster.store("t", 0, b"without it").await.queue_offset, 3);
    // Two voters: neither may go while the other one is away.
    let (leader, other) = match cluster.leader().await {
        1 => (1, 2),
        _ => (2, 1),
    };
    cluster.kill(other);
    let timeout = cluster.options(leader).election_max;
    let deadline = Instant::now() + PATIENCE;
    let missed = |status: &MemberStatus| status.id == other && status.silent > Some(timeout);
    while !cluster
        .group(leader)
        .member_status()
        .await
        .iter()
        .any(missed)
    {
        assert!(Instant::now() < deadline, "nobody misses member {other}");
    }
    let refused = cluster
        .group(leader)
        .change_members(MemberChange::Remove { id: leader })
        .await;
    assert!(refused.is_err(), "{refused:?}");
    drop(open_store(&cluster.options(other), cluster.folder(other)).await);
    cluster.start(other).await;
    cluster.stop(leader).await;
    cluster.start(leader).await;
    assert_eq!(voters(&cluster).await, [1, 2], "as the log has it");
    assert_eq!(cluster.store("t", 0, b"and again").await.queue_offset, 4);
    cluster.assert_equal().await;
}
