//! What a healthy group does.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use raftmq_raft::{Group, ProposeError};
use support::{Cluster, submit};

const TASKS: usize = 64;
const MESSAGES: usize = 10_000;
const QUEUES: usize = 8;

/// Ten thousand messages from concurrent tasks: every queue's offsets are dense, every physical
/// offset is taken once, and all members end with the same bytes and state.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_messages_are_numbered_densely() {
    let cluster = Cluster::started("dense", 3).await;
    let leader = cluster.group(cluster.leader().await).clone();
    let begin = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let leader = leader.clone();
            tokio::spawn(async move {
                let mut stored = Vec::new();
                for n in (task..MESSAGES).step_by(TASKS) {
                    let queue = (n % QUEUES) as i32;
                    let body = vec![b'x'; n % 300];
                    stored.push((queue, store_surely(&leader, queue, &body).await));
                }
                stored
            })
        })
        .collect();
    let mut offsets: BTreeMap<i32, BTreeSet<u64>> = BTreeMap::new();
    let mut physical = BTreeSet::new();
    for task in tasks {
        for (queue, (offset, position)) in task.await.unwrap() {
            assert!(
                offsets.entry(queue).or_default().insert(offset),
                "an offset given twice"
            );
            assert!(physical.insert(position), "a physical offset given twice");
        }
    }
    println!("{MESSAGES} messages stored in {:?}", begin.elapsed());
    for (queue, offsets) in &offsets {
        let dense: BTreeSet<u64> = (0..(MESSAGES / QUEUES) as u64).collect();
        assert_eq!(offsets, &dense, "offsets of queue {queue}");
        assert_eq!(
            leader.store().state.next_offset("dense", *queue),
            dense.len() as u64
        );
    }
    cluster.assert_equal().await;
}

async fn store_surely(leader: &Group, queue: i32, body: &[u8]) -> (u64, u64) {
    loop {
        match submit(leader, "dense", queue, &[body]).await {
            Ok(stored) => return (stored.queue_offset, stored.physical_offsets[0]),
            Err(ProposeError::Busy { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Several records of one submission get consecutive offsets; what is stored is what was sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_numbered_as_one() {
    let cluster = Cluster::started("batch", 3).await;
    let leader = cluster.group(cluster.leader().await);
    let first = submit(leader, "t", 3, &[b"a", b"bb", b"ccc"])
        .await
        .unwrap();
    let second = submit(leader, "t", 3, &[b"d"]).await.unwrap();
    assert_eq!((first.queue_offset, second.queue_offset), (0, 3));
    assert_eq!(first.physical_offsets.len(), 3);
    cluster.settled().await;
    for group in cluster.groups.values() {
        let mut found = BTreeMap::new();
        let log = &group.store().log;
        for entry in log.read(0, log.last().unwrap().index + 1, None).unwrap() {
            let records = entry.records();
            for record in raftmq_proto::message::record::records(&records) {
                let record = record.unwrap();
                record.verify_body_crc().unwrap();
                assert!(record.store_timestamp() > 1_700_000_000_000);
                found.insert(
                    record.physical_offset(),
                    (record.queue_offset(), record.body().to_vec()),
                );
            }
        }
        let bodies: Vec<_> = first
            .physical_offsets
            .iter()
            .chain(second.physical_offsets.iter())
            .map(|at| found[at].clone())
            .collect();
        let expected: Vec<(u64, Vec<u8>)> = [&b"a"[..], b"bb", b"ccc", b"d"]
            .iter()
            .zip(0u64..)
            .map(|(body, n)| (n, body.to_vec()))
            .collect();
        assert_eq!(bodies, expected, "member {}", group.self_id());
    }
}

/// A follower names the leader instead of storing, and refuses what is no record at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_refuse_with_the_leaders_name() {
    let cluster = Cluster::started("refuse", 3).await;
    cluster.store("t", 0, b"x").await;
    let leader = cluster.leader().await;
    cluster.settled().await;
    let follower = cluster
        .groups
        .values()
        .find(|g| g.self_id() != leader)
        .unwrap();
    let refused = submit(follower, "t", 0, &[b"x"]).await;
    assert_eq!(
        refused,
        Err(ProposeError::NotLeader {
            leader: Some(leader)
        })
    );
    assert!(follower.confirm_leadership().await.is_err());
    let leader = cluster.group(leader);
    assert!(leader.confirm_leadership().await.is_ok());
    let (tell, told) = tokio::sync::oneshot::channel();
    leader.submit(raftmq_raft::MessageSubmission {
        topic: Arc::from("t"),
        queue_id: 0,
        records: bytes::BytesMut::from(&b"no record"[..]),
        count: 1,
        done: Box::new(move |outcome| drop(tell.send(outcome))),
    });
    assert!(matches!(
        told.await.unwrap(),
        Err(ProposeError::Malformed { .. })
    ));
}
