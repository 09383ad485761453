//! What whoever leads knows of consumers: who they are, what they want, and which queues they have locked.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use raftmq_tests::calls;
use raftmq_tests::cluster::{Cluster, GROUP as BROKER, Options};
use raftmq_tests::figures::{ms, say};
use raftmq_tests::serial::turn;
use raftmq_tests::wait::{pause, wait_ok};
use raftmq_tests::wire::{Connection, Request};
use serde_json::{Value, json};

const LOCK_BATCH_MQ: i32 = 41;
const UNLOCK_BATCH_MQ: i32 = 42;
const TOPIC: &str = "Locked";

fn request(code: i32, client: &str, queues: &[i32]) -> Request {
    let queue = |id: &i32| json!({"topic": TOPIC, "brokerName": BROKER, "queueId": id});
    let body = json!({
        "clientId": client,
        "consumerGroup": "LockedGroup",
        "mqSet": queues.iter().map(queue).collect::<Vec<_>>(),
        "onlyThisBroker": false,
    });
    Request::new(code).body(body.to_string())
}

/// The queues that the client owns now.
fn lock(connection: &mut Connection, client: &str, queues: &[i32]) -> Result<Vec<i64>> {
    let reply = calls::call(connection, &request(LOCK_BATCH_MQ, client, queues))?;
    let body: Value = serde_json::from_slice(&reply.body)?;
    let held = body["lockOKMQSet"].as_array().context("no lockOKMQSet")?;
    let mut ids: Vec<i64> = held
        .iter()
        .filter_map(|queue| queue["queueId"].as_i64())
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

fn unlock(connection: &mut Connection, client: &str, queues: &[i32]) -> Result<()> {
    calls::call(connection, &request(UNLOCK_BATCH_MQ, client, queues)).map(drop)
}

fn at(cluster: &Cluster, member: usize) -> Result<Connection> {
    Connection::open(&cluster.members[member].address())
}

/// One consumer has all queues when the leader is killed, and when all members are. Whoever leads then refuses them to
/// another one, renews them, and gives away what the first one gives up.
#[test]
fn owners_survive_the_leader() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = Cluster::start(Options::default())?;
    let leader = cluster.wait_leader()?;
    let mut connection = at(&cluster, leader)?;
    let all = [0, 1, 2, 3];
    ensure!(lock(&mut connection, "one", &all)? == [0, 1, 2, 3]);
    ensure!(lock(&mut connection, "two", &all)?.is_empty());

    cluster.kill(leader)?;
    let killed = Instant::now();
    let follower = (leader + 1) % 3;
    let two = wait_ok(
        "an answer about locks",
        Duration::from_secs(10),
        Duration::from_millis(10),
        || lock(&mut at(&cluster, follower)?, "two", &all),
    )?;
    say(format!(
        "locks are answered for {} after the kill",
        ms(killed.elapsed())
    ));
    ensure!(two.is_empty(), "owned by another one, and granted: {two:?}");
    let next = cluster.wait_leader()?;
    let mut connection = at(&cluster, next)?;
    ensure!(lock(&mut connection, "one", &all)? == [0, 1, 2, 3]);
    // Somebody else's are not given up.
    unlock(&mut connection, "two", &all)?;
    ensure!(lock(&mut connection, "two", &all)?.is_empty());
    unlock(&mut connection, "one", &[0, 2])?;
    ensure!(lock(&mut connection, "two", &all)? == [0, 2]);
    ensure!(lock(&mut connection, "one", &all)? == [1, 3]);

    cluster.kill_all();
    cluster.start_all()?;
    cluster.wait_serving()?;
    let mut connection = at(&cluster, leader)?;
    ensure!(lock(&mut connection, "three", &all)?.is_empty());
    ensure!(lock(&mut connection, "two", &all)? == [0, 2]);
    ensure!(lock(&mut connection, "one", &all)? == [1, 3]);
    cluster.passed()
}

/// Four clients want the same queue, take it in turns and give it up, while leaders are killed: never do two have it.
#[test]
fn never_two_owners() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = Cluster::start(Options::default())?;
    cluster.wait_leader()?;
    let addresses = cluster.addresses();
    let (stop, holders) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let clients: Vec<_> = ["a", "b", "c", "d"]
            .into_iter()
            .map(|client| scope.spawn(|| take_turns(client, &addresses, &stop, &holders)))
            .collect();
        let outcome = (|| {
            for _ in 0..3 {
                pause(Duration::from_millis(1_500));
                let leader = cluster.wait_leader()?;
                cluster.kill(leader)?;
                cluster.wait_leader()?;
                pause(Duration::from_millis(500));
                cluster.start_member(leader)?;
                cluster.wait_member(leader)?;
            }
            anyhow::Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        let mut turns = Vec::new();
        for client in clients {
            let joined = client.join();
            turns.push(joined.map_err(|_panic| anyhow::anyhow!("a client panicked"))??);
        }
        outcome?;
        say(format!(
            "turns of four clients on one queue, three leaders killed: {turns:?}"
        ));
        ensure!(turns.iter().sum::<usize>() > 100, "{turns:?}");
        Ok(())
    })?;
    cluster.passed()
}

/// Locks and unlocks through whichever member answers; returns how often it had the queue.
fn take_turns(
    client: &str,
    addresses: &[String],
    stop: &AtomicBool,
    holders: &AtomicUsize,
) -> Result<usize> {
    let (mut turns, mut place) = (0, 0);
    let mut connection: Option<Connection> = None;
    while !stop.load(Ordering::Relaxed) {
        place += 1;
        let address = &addresses[place % addresses.len()];
        let Ok(mut open) = connection
            .take()
            .map_or_else(|| Connection::open(address), Ok)
        else {
            pause(Duration::from_millis(5));
            continue;
        };
        match lock(&mut open, client, &[0]) {
            Ok(held) if held.is_empty() => {
                connection = Some(open);
                pause(Duration::from_millis(2));
                continue;
            }
            Ok(_) => {}
            Err(_) => continue,
        }
        let others = holders.fetch_add(1, Ordering::SeqCst);
        pause(Duration::from_millis(3));
        holders.fetch_sub(1, Ordering::SeqCst);
        ensure!(
            others == 0,
            "{client} got the queue while another client had it"
        );
        turns += 1;
        if unlock(&mut open, client, &[0]).is_ok() {
            connection = Some(open);
        }
    }
    Ok(turns)
}

/// A consumer sends heartbeats to every member, as RocketMQ's do. The next leader knows it and what it subscribes to before
/// it hears its next heartbeat.
#[test]
fn the_next_leader_knows_the_consumers() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = Cluster::start(Options::default())?;
    cluster.create_topic(TOPIC, 1)?;
    let leader = cluster.wait_leader()?;
    let group = "LockedGroup";
    let mut connections = Vec::new();
    for member in 0..3 {
        let mut connection = at(&cluster, member)?;
        calls::call(
            &mut connection,
            &calls::heartbeat_request("one", group, TOPIC),
        )?;
        connections.push(connection);
    }
    calls::send(
        &mut connections[leader],
        &calls::send_request(TOPIC, 0, "", b"message"),
    )?;
    cluster.kill(leader)?;
    let killed = Instant::now();
    let next = cluster.wait_leader()?;
    let ids = calls::consumer_ids(&mut connections[next], group)?;
    ensure!(ids == ["one"], "{ids:?}");
    // Without a subscription of its own: the member has to know it.
    let pull = calls::pull_request(group, TOPIC, 0, 0, Duration::ZERO)
        .with("sysFlag", 0)
        .with("subVersion", 1);
    let pulled = calls::pulled(connections[next].call(&pull, calls::PATIENCE)?)?;
    ensure!(pulled.records()?.len() == 1, "{pulled:?}");
    say(format!(
        "{} after the kill a consumer is known and served",
        ms(killed.elapsed())
    ));
    cluster.passed()
}
