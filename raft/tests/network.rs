//! What members say to each other beside Raft's own business, and what they refuse to hear.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use raftmq_proto::command::{Op, PutKv};
use raftmq_proto::frame::RemotingCommand;
use raftmq_raft::{ForwardError, Group, StartError};
use support::{Cluster, Echo, HOLD, open_store, until};

fn client() -> SocketAddr {
    "192.0.2.1:5555".parse().unwrap()
}

async fn follower(cluster: &Cluster) -> (u64, &Group) {
    let leader = cluster.leader().await;
    let knows = || {
        let followers = cluster.groups.values().filter(|g| g.self_id() != leader);
        followers
            .into_iter()
            .find(|g| g.role().borrow().leader == Some(leader))
    };
    (leader, until("a follower knows the leader", knows).await)
}

/// A request is answered by the leader, body and all; a held one is answered when it is let go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_forwarded_to_the_leader() {
    let cluster = Cluster::started("forward", 3).await;
    let (leader, follower) = follower(&cluster).await;
    let body = vec![5; 3 * 1024 * 1024];
    let mut request = RemotingCommand::request(10).with_body(body.clone());
    request.opaque = 77;
    let timeout = Duration::from_secs(20);
    let answer = follower.forward(request, client(), timeout).await.unwrap();
    assert_eq!(answer.opaque, 77);
    assert_eq!(
        answer.remark,
        Some(format!("member {leader} answers {}", client()))
    );
    assert_eq!(answer.body.to_bytes(), body);

    let held = follower.forward(RemotingCommand::request(HOLD), client(), timeout);
    let release = async {
        let echo = &cluster.echoes[&leader];
        let reply = until("the request is held", || echo.held.lock().pop()).await;
        // Other requests pass a held one.
        let quick = follower
            .forward(RemotingCommand::request(1), client(), timeout)
            .await;
        assert_eq!(quick.unwrap().code, 0);
        reply(RemotingCommand::response(19, None));
    };
    let (answer, ()) = tokio::join!(held, release);
    assert_eq!(answer.unwrap().code, 19);

    let own = cluster
        .group(leader)
        .forward(RemotingCommand::request(1), client(), timeout)
        .await;
    assert_eq!(own, Err(ForwardError::Leader));
}

/// Each way a forwarded request can fail has its own name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwarding_fails_clearly() {
    let mut cluster = Cluster::new("unforwarded", 3);
    cluster.tune = |options| options.forward_max = 1;
    cluster.start_all().await;
    let (leader, follower) = follower(&cluster).await;
    let follower = follower.clone();
    let soon = Duration::from_millis(300);
    let later = Duration::from_secs(20);
    let late = follower
        .forward(RemotingCommand::request(HOLD), client(), soon)
        .await;
    assert!(
        matches!(late, Err(ForwardError::Unknown { .. })),
        "{late:?}"
    );

    // The leader has let go of the one nobody waits for any more.
    while follower
        .forward(RemotingCommand::request(1), client(), later)
        .await
        .is_err()
    {
        tokio::task::yield_now().await;
    }
    let held = follower.forward(RemotingCommand::request(HOLD), client(), later);
    let second = async {
        until("the request is held", || {
            (cluster.echoes[&leader].held.lock().len() > 1).then_some(())
        })
        .await;
        let busy = follower
            .forward(RemotingCommand::request(1), client(), later)
            .await;
        assert_eq!(busy, Err(ForwardError::Busy { limit: 1 }));
        cluster.echoes[&leader].held.lock().clear();
    };
    let (dropped, ()) = tokio::join!(held, second);
    assert!(
        matches!(dropped, Err(ForwardError::Unknown { .. })),
        "{dropped:?}"
    );

    cluster.kill(leader);
    // Until the others have chosen a new leader, the old one is not reached, or its connection
    // ends with the request on it.
    let gone = follower
        .forward(RemotingCommand::request(1), client(), later)
        .await;
    assert!(
        matches!(
            gone,
            Ok(_)
                | Err(ForwardError::Unreachable { .. }
                    | ForwardError::Unknown { .. }
                    | ForwardError::NoLeader
                    | ForwardError::Leader)
        ),
        "{gone:?}"
    );
}

/// Metadata operations ride through the same log and are applied on every member.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_are_applied_everywhere() {
    let cluster = Cluster::started("ops", 3).await;
    let leader = cluster.leader().await;
    let put = |n: u32| {
        Op::PutKv(PutKv {
            namespace: "ns".to_owned(),
            key: format!("k{n}"),
            value: n.to_be_bytes().to_vec(),
        })
    };
    let group = cluster.group(leader).clone();
    let proposals: Vec<_> = (0..50)
        .map(|n| {
            let group = group.clone();
            let ops = vec![put(2 * n), put(2 * n + 1)];
            tokio::spawn(async move { group.propose(ops).await })
        })
        .collect();
    // Messages travel in the same entries.
    for n in 0..20u64 {
        assert_eq!(cluster.store("t", 0, b"beside").await.queue_offset, n);
    }
    for proposal in proposals {
        proposal.await.unwrap().unwrap();
    }
    cluster.assert_equal().await;
    for group in cluster.groups.values() {
        for n in 0..100u32 {
            let value = group.store().state.kv("ns", &format!("k{n}"));
            assert_eq!(value.as_deref(), Some(&n.to_be_bytes()[..]), "key {n}");
        }
    }
}

/// A member of another group at a member's address is not taken for it, by either side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_groups_member_is_refused() {
    let mut cluster = Cluster::new("right", 3);
    cluster.tune = |options| options.form_patience = Duration::ZERO;
    cluster.start(0).await;
    cluster.start(1).await;
    let mut stranger = Cluster::new("wrong", 3);
    stranger.peers = cluster.peers.clone();
    stranger.start(2).await;
    for n in 0..50u64 {
        assert_eq!(cluster.store("t", 0, b"y").await.queue_offset, n);
    }
    // It found no group of its own either.
    assert_eq!(stranger.group(2).watermarks().last, None);
    let leader = cluster.leader().await;
    let progress = cluster.group(leader).progress();
    assert_eq!(
        progress
            .iter()
            .find(|member| member.id == 2)
            .unwrap()
            .matched,
        None
    );
    assert_eq!(stranger.group(2).role().borrow().leader, None);
}

/// A member with the store of another group of the same name is refused by its first entry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_groups_store_is_refused() {
    let mut other = Cluster::started("twin", 3).await;
    other.store("t", 0, b"theirs").await;
    other.settled().await;
    for id in 0..3 {
        other.kill(id);
    }
    let mut cluster = Cluster::new("twin", 3);
    cluster.tune = |options| options.form_patience = Duration::ZERO;
    cluster.start(0).await;
    cluster.start(1).await;
    cluster.store("t", 0, b"ours").await;
    other.peers = cluster.peers.clone();
    other.start(2).await;
    let before = other.group(2).watermarks().last;
    for _ in 0..50 {
        cluster.store("t", 0, b"ours").await;
    }
    assert_eq!(other.group(2).watermarks().last, before);
    let leader = cluster.leader().await;
    let progress = cluster.group(leader).progress();
    assert_eq!(
        progress
            .iter()
            .find(|member| member.id == 2)
            .unwrap()
            .matched,
        None
    );
}

/// A port in use is a clear error, and a member without its own id in the peers is another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_fail_clearly() {
    let cluster = Cluster::started("port", 1).await;
    let mut second = Cluster::new("port", 1);
    second.peers = cluster.peers.clone();
    let echo = || {
        std::sync::Arc::new(Echo {
            member: 0,
            held: parking_lot::Mutex::default(),
        })
    };
    let options = second.options(0);
    let store = open_store(&options, second.folder(0)).await;
    let error = Group::start(options, store, echo()).await.err().unwrap();
    assert!(matches!(error, StartError::Bind { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains(&second.peers[0].port.to_string()),
        "{error}"
    );

    let mut options = second.options(0);
    options.self_id = 9;
    let store = open_store(&options, second.folder(9)).await;
    let error = Group::start(options, store, echo()).await.err().unwrap();
    assert!(error.to_string().contains("dLegerSelfId n9"), "{error}");
}

/// A restarted member is found quickly by the leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_member_is_found_quickly() {
    let mut cluster = Cluster::started("found", 3).await;
    cluster.store("t", 0, b"x").await;
    let leader = cluster.leader().await;
    let other = (leader + 1) % 3;
    cluster.kill(other);
    for _ in 0..20 {
        cluster.store("t", 0, b"y").await;
    }
    cluster.start(other).await;
    let begin = Instant::now();
    let last = cluster.group(leader).watermarks().last;
    let level = || (cluster.group(other).watermarks().last >= last).then_some(());
    until("the leader has found it", level).await;
    println!("found {:?} after it had started", begin.elapsed());
}
