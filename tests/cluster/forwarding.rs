//! Clients that only know a follower are served as by the leader.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use raftmq_tests::calls::{self, PATIENCE, request, response};
use raftmq_tests::cluster::{Cluster, Options};
use raftmq_tests::serial::turn;
use raftmq_tests::wait::{wait_for, wait_ok};
use raftmq_tests::wire::{Connection, Request};

const TOPIC: &str = "Forwarded";
const GROUP: &str = "ForwardedGroup";

/// Every request of a producer's or consumer's daily life, through each follower.
#[test]
fn a_follower_takes_every_request() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = Cluster::start(Options::default())?;
    let leader = cluster.wait_leader()?;
    let mut at_leader = Connection::open(&cluster.members[leader].address())?;
    let mut expected = 0;
    for step in 1..=2 {
        let follower = (leader + step) % 3;
        let mut at_follower = Connection::open(&cluster.members[follower].address())?;
        calls::create_topic(&mut at_follower, TOPIC, 2).context("create a topic")?;
        expected = sends(&mut at_follower, expected)?;
        reads(&mut at_follower, &mut at_leader, expected)?;
        progress(&mut at_follower, &mut at_leader, expected)?;
        membership(&mut at_follower, &mut at_leader, &format!("client-{step}"))?;
    }
    ensure!(
        cluster.leader()? == leader,
        "the leader changed without a fault"
    );
    cluster.passed()
}

/// Sends in every form; returns the next offset of queue 0.
fn sends(follower: &mut Connection, first: i64) -> Result<i64> {
    let forms: [(&str, Request); 4] = [
        (
            "V2",
            calls::send_request(TOPIC, 0, &calls::keys_property("k"), b"two"),
        ),
        (
            "V1",
            calls::send_request_v1(TOPIC, 0, &calls::keys_property("k"), b"one"),
        ),
        (
            "batch",
            calls::batch_request(TOPIC, 0, [("", "a"), ("", "b"), ("", "c")]),
        ),
        // As large as a message may be: forwarding must not have a smaller limit of its own.
        (
            "4 MiB",
            calls::send_request(TOPIC, 0, "", &vec![b'x'; 4 << 20]),
        ),
    ];
    let mut next = first;
    for (form, request) in forms {
        let sent = calls::send(follower, &request).with_context(|| format!("send {form}"))?;
        ensure!(
            (sent.queue, sent.offset) == (0, next),
            "{form}: {sent:?}, expected {next}"
        );
        ensure!(
            sent.ids.len() == if form == "batch" { 3 } else { 1 },
            "{form}: {sent:?}"
        );
        next += i64::try_from(sent.ids.len())?;
    }
    let chosen = calls::send(follower, &calls::send_request(TOPIC, -1, "", b"any"))?;
    ensure!(
        (0..2).contains(&chosen.queue),
        "queue -1 went to {}",
        chosen.queue
    );
    Ok(if chosen.queue == 0 { next + 1 } else { next })
}

fn reads(follower: &mut Connection, leader: &mut Connection, max: i64) -> Result<()> {
    for connection in [&mut *follower, &mut *leader] {
        ensure!(calls::max_offset(connection, TOPIC, 0)? == max);
        ensure!(calls::min_offset(connection, TOPIC, 0)? == 0);
        let by_time = Request::new(request::SEARCH_OFFSET_BY_TIMESTAMP)
            .field("topic", TOPIC)
            .field("queueId", 0)
            .field("timestamp", 0);
        ensure!(calls::call(connection, &by_time)?.number("offset")? == 0);
        let mut at = 0;
        while at < max {
            let pulled = calls::pull(connection, GROUP, TOPIC, 0, at, Duration::ZERO)?;
            ensure!(
                pulled.code == response::SUCCESS,
                "offset {at}: code {}",
                pulled.code
            );
            let offsets: Vec<i64> = pulled
                .records()?
                .iter()
                .map(|record| record.queue_offset)
                .collect();
            ensure!(
                offsets.first() == Some(&at),
                "asked for {at}, got {offsets:?}"
            );
            at = pulled.next;
        }
        let end = calls::pull(connection, GROUP, TOPIC, 0, max, Duration::ZERO)?;
        ensure!(
            (end.code, end.next, end.max) == (response::PULL_NOT_FOUND, max, max),
            "{end:?}"
        );
    }
    Ok(())
}

fn progress(follower: &mut Connection, leader: &mut Connection, max: i64) -> Result<()> {
    // Through the follower first, then through the leader: each sees the other's at once.
    calls::update_offset(follower, GROUP, TOPIC, 0, max - 1)?;
    ensure!(calls::query_offset(leader, GROUP, TOPIC, 0)? == Some(max - 1));
    calls::update_offset(leader, GROUP, TOPIC, 0, max)?;
    ensure!(calls::query_offset(follower, GROUP, TOPIC, 0)? == Some(max));
    ensure!(calls::query_offset(follower, "ForwardedNobody", TOPIC, 0)?.is_none());
    Ok(())
}

/// Clients with consumers send heartbeats to every member, as RocketMQ's do; whoever is asked then names the leader's members
/// of the group.
fn membership(follower: &mut Connection, leader: &mut Connection, client: &str) -> Result<()> {
    for connection in [&mut *follower, &mut *leader] {
        calls::call(connection, &calls::heartbeat_request(client, GROUP, TOPIC))?;
    }
    let everywhere = |connection: &mut Connection| {
        wait_for(
            "the heartbeat to count",
            PATIENCE,
            Duration::from_millis(20),
            || {
                let ids = calls::consumer_ids(connection, GROUP).ok()?;
                ids.iter().any(|id| id == client).then_some(())
            },
        )
    };
    everywhere(leader).context("asking the leader")?;
    everywhere(follower).context("asking the follower")?;
    let leave = Request::new(request::UNREGISTER_CLIENT)
        .field("clientID", client)
        .field("consumerGroup", GROUP);
    for connection in [&mut *follower, &mut *leader] {
        calls::call(connection, &leave)?;
    }
    wait_for(
        "the client to be gone",
        PATIENCE,
        Duration::from_millis(20),
        || {
            // Code 1 (nobody there) is as good as a list without it.
            match calls::consumer_ids(follower, GROUP) {
                Ok(ids) => (!ids.iter().any(|id| id == client)).then_some(()),
                Err(error) => error.is::<calls::Refusal>().then_some(()),
            }
        },
    )
}

/// A pull held at a follower is woken by a message that arrives at the leader, and is answered when the leader dies.
#[test]
fn a_held_pull_at_a_follower_is_answered() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = Cluster::start(Options::default())?;
    cluster.create_topic(TOPIC, 1)?;
    let leader = cluster.wait_leader()?;
    let follower = cluster.members[(leader + 1) % 3].address();
    let mut at_leader = Connection::open(&cluster.members[leader].address())?;
    let mut at_follower = Connection::open(&follower)?;
    let hold = Duration::from_secs(20);

    at_follower.write(&calls::pull_request(GROUP, TOPIC, 0, 0, hold))?;
    wait_held(&mut at_leader)?;
    let started = Instant::now();
    calls::send(&mut at_leader, &calls::send_request(TOPIC, 0, "", b"wake"))?;
    let pulled = calls::pulled(at_follower.read(hold)?)?;
    ensure!(
        pulled.code == response::SUCCESS && pulled.records()?.len() == 1,
        "{pulled:?}"
    );
    let woken = started.elapsed();
    ensure!(woken < Duration::from_secs(1), "woken after {woken:?}");

    at_follower.write(&calls::pull_request(GROUP, TOPIC, 0, 1, hold))?;
    wait_held(&mut at_leader)?;
    cluster.kill(leader)?;
    let started = Instant::now();
    // Any answer will do, and so will a closed connection: the client then pulls again.
    let answer = at_follower.read(hold);
    let took = started.elapsed();
    ensure!(
        took < Duration::from_secs(8),
        "a held pull was left alone for {took:?}: {answer:?}"
    );
    cluster.passed()
}

/// Waits until the leader holds a pull.
fn wait_held(leader: &mut Connection) -> Result<()> {
    let step = Duration::from_millis(10);
    wait_ok("the leader to hold a pull", PATIENCE, step, || {
        let held = calls::runtime_info(leader, "pullThreadPoolQueueSize")?;
        ensure!(held == "1", "{held} are held");
        Ok(())
    })
}

/// The fast port, two below, takes sends but no pulls.
#[test]
fn the_fast_port_takes_sends() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = Cluster::start(Options::default())?;
    for member in &cluster.members {
        let mut fast = Connection::open(&format!("127.0.0.1:{}", member.port - 2))?;
        let sent = calls::send(&mut fast, &calls::send_request("Fast", 0, "", b"fast"))
            .with_context(|| format!("send to n{} on the fast port", member.number))?;
        let pull = calls::pull_request(GROUP, "Fast", sent.queue, 0, Duration::ZERO);
        let reply = fast.call(&pull, PATIENCE)?;
        ensure!(
            reply.code == response::REQUEST_CODE_NOT_SUPPORTED,
            "a pull: {reply:?}"
        );
    }
    cluster.passed()
}
