//! Consumer offsets and topics go through the log: a failover takes nothing of them away.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use raftmq_tests::calls;
use raftmq_tests::clock::Nanos;
use raftmq_tests::cluster::{Cluster, Options, SERVING_WITHIN};
use raftmq_tests::figures::say;
use raftmq_tests::history::History;
use raftmq_tests::preload::preload;
use raftmq_tests::serial::turn;
use raftmq_tests::wait::{pause, wait_for, wait_ok};
use raftmq_tests::wire::Connection;

const STEP: Duration = Duration::from_millis(20);
/// A save that nobody waits for is in the log by then: it waits 100 ms for its batch, and the rest is for a busy machine.
const LOGGED_WITHIN: Duration = Duration::from_millis(300);
const TOPIC: &str = "Progress";
const GROUP: &str = "ProgressGroup";

/// A group, and messages in one queue to make progress through.
fn start() -> Result<Cluster> {
    let mut cluster = Cluster::start(Options::default())?;
    cluster.create_topic(TOPIC, 1)?;
    let addresses = cluster.addresses();
    // Offsets beyond the queue's end are refused.
    let leader = cluster.wait_leader()?;
    preload(&addresses[leader], TOPIC, 1, 50_000, &History::default())?;
    // The first pull of a group creates it; offsets of unknown groups are refused.
    let mut connection = Connection::open(&addresses[0])?;
    calls::pull(&mut connection, GROUP, TOPIC, 0, 0, Duration::ZERO)?;
    Ok(cluster)
}

/// A consumer saves one offset after the other while the leader is killed three times. After each kill the saved offset is
/// at least what had been acknowledged before it, and never less than what was read before.
#[test]
fn consumer_offsets_survive_the_leader() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = start()?;
    let addresses = cluster.addresses();
    let (stop, saved) = (
        AtomicBool::new(false),
        Mutex::new(Vec::<(Nanos, i64)>::new()),
    );
    std::thread::scope(|scope| {
        let saver = scope.spawn(|| save(&addresses, &stop, &saved));
        let outcome = kill_and_compare(&mut cluster, &saved);
        stop.store(true, Ordering::Relaxed);
        let last = saver
            .join()
            .map_err(|_panic| anyhow::anyhow!("the saving thread panicked"))?;
        let last = last?; // what kept the consumer from saving explains the rest
        outcome?;
        let leader = cluster.wait_leader()?;
        let found = query(&cluster, leader)?;
        ensure!(
            found == last,
            "{last} was acknowledged last, {found} is saved"
        );
        cluster.kill_all();
        cluster.start_all()?;
        cluster.wait_serving()?;
        let leader = cluster.wait_leader()?;
        let found = query(&cluster, leader)?;
        ensure!(
            found == last,
            "{last} was saved, after a restart of all members {found}"
        );
        Ok(())
    })?;
    cluster.passed()
}

/// Saves 1, 2, 3 … through whichever member answers; returns the last one acknowledged. The last save is retried until it
/// is acknowledged, so nothing is in doubt at the end.
fn save(addresses: &[String], stop: &AtomicBool, saved: &Mutex<Vec<(Nanos, i64)>>) -> Result<i64> {
    let (mut offset, mut turn) = (1, 0);
    let mut last_success = Instant::now();
    let mut connection: Option<Connection> = None;
    loop {
        let address = &addresses[turn % addresses.len()];
        let result = match connection
            .take()
            .map_or_else(|| Connection::open(address), Ok)
        {
            Ok(mut open) => calls::update_offset(&mut open, GROUP, TOPIC, 0, offset).map(|()| open),
            Err(error) => Err(error),
        };
        match result {
            Ok(open) => {
                connection = Some(open);
                saved
                    .lock()
                    .expect("nobody panics with it")
                    .push((Nanos::now(), offset));
                if stop.load(Ordering::Relaxed) {
                    return Ok(offset);
                }
                offset += 1;
                last_success = Instant::now();
                pause(Duration::from_millis(2));
            }
            Err(error) => {
                if last_success.elapsed() > Duration::from_secs(30) {
                    return Err(error.context("no offset could be saved for 30 s"));
                }
                turn += 1;
                pause(Duration::from_millis(20));
            }
        }
    }
}

fn query(cluster: &Cluster, member: usize) -> Result<i64> {
    let mut connection = Connection::open(&cluster.members[member].address())?;
    Ok(calls::query_offset(&mut connection, GROUP, TOPIC, 0)?.unwrap_or(0))
}

fn kill_and_compare(cluster: &mut Cluster, saved: &Mutex<Vec<(Nanos, i64)>>) -> Result<()> {
    let acked_before =
        |time: Nanos| last_until(&saved.lock().expect("nobody panics with it"), time);
    for round in 1..=3 {
        let leader = cluster.wait_leader()?;
        let begun = Nanos::now();
        let before = acked_before(begun);
        wait_for("more to be saved", SERVING_WITHIN, STEP, || {
            (acked_before(Nanos::now()) > before).then_some(())
        })?;
        let killed = cluster.kill(leader)?;
        let sure = acked_before(killed);
        ensure!(sure > 0, "round {round}: nothing was saved before the kill");
        let next = cluster.wait_leader()?;
        let found = query(cluster, next)?;
        ensure!(
            found >= sure,
            "round {round}: {sure} was acknowledged before the kill, the new leader has {found}"
        );
        require_growing(cluster, leader, found)?;
        cluster.start_member(leader)?;
        cluster.wait_member(leader)?;
    }
    Ok(())
}

/// The last of these offsets whose time has come by `time`; 0 when there is none.
fn last_until(saved: &[(Nanos, i64)], time: Nanos) -> i64 {
    let mut latest_first = saved.iter().rev();
    latest_first
        .find(|(at, _)| *at <= time)
        .map_or(0, |(_, offset)| *offset)
}

/// Asks the members that are left, in turn: what they say may only grow. Returns what the last one said.
fn require_growing(cluster: &Cluster, killed: usize, found: i64) -> Result<i64> {
    let mut most = found;
    for member in (0..3).cycle().filter(|member| *member != killed).take(40) {
        let found = wait_ok(
            "an offset query to be answered",
            Duration::from_secs(10),
            STEP,
            || query(cluster, member),
        )?;
        ensure!(found >= most, "n{member} says {found} after {most}");
        most = found;
    }
    Ok(most)
}

/// A consumer saves as RocketMQ's do, without waiting for an answer. The next leader has what was sent a moment before the
/// kill, and nobody ever says less than was read before.
#[test]
fn offsets_saved_one_way_survive_the_leader() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = start()?;
    let (mut first, mut most) = (1, 0);
    for round in 1..=3 {
        let leader = cluster.wait_leader()?;
        let sent = save_one_way(&cluster, leader, first)?;
        let killed = cluster.kill(leader)?;
        let (_, last) = *sent.last().context("nothing was sent")?;
        let logged = Nanos(killed.0 - u64::try_from(LOGGED_WITHIN.as_nanos())?);
        let sure = last_until(&sent, logged);
        ensure!(sure > first, "round {round}: {sure} was sent in time");
        let next = cluster.wait_leader()?;
        let found = query(&cluster, next)?;
        say(format!(
            "{last} was sent last, {sure} {LOGGED_WITHIN:?} before the kill; the next leader has {found}"
        ));
        ensure!(
            found >= sure.max(most),
            "round {round}: {sure} was sent in time, {most} was read before; the next leader has {found}"
        );
        ensure!(
            found <= last,
            "round {round}: {last} was sent last, the next leader has {found}"
        );
        most = require_growing(&cluster, leader, found)?;
        cluster.start_member(leader)?;
        cluster.wait_member(leader)?;
        // The consumer goes on where it is, not where its offset is.
        first = last + 1;
    }
    cluster.passed()
}

/// Sends one offset after the other for a second, from `first` on; returns them with the times at which they were sent.
fn save_one_way(cluster: &Cluster, member: usize, first: i64) -> Result<Vec<(Nanos, i64)>> {
    let mut connection = Connection::open(&cluster.members[member].address())?;
    let begun = Instant::now();
    let mut sent = Vec::new();
    for offset in first.. {
        let mut save = calls::update_offset_request(GROUP, TOPIC, 0, offset);
        save.oneway = true;
        connection.write(&save)?;
        sent.push((Nanos::now(), offset));
        if begun.elapsed() > Duration::from_secs(1) {
            break;
        }
        pause(Duration::from_millis(2));
    }
    Ok(sent)
}

/// A topic whose creation was acknowledged is there, with its settings, whatever happens right afterwards.
#[test]
fn a_created_topic_survives_the_leader() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = Cluster::start(Options::default())?;
    for round in 0..3_i32 {
        let leader = cluster.wait_leader()?;
        let (topic, queues) = (format!("Created{round}"), round + 3);
        let mut connection = Connection::open(&cluster.members[leader].address())?;
        calls::create_topic(&mut connection, &topic, queues)?;
        cluster.kill(leader)?;
        let next = cluster.wait_leader()?;
        let mut connection = Connection::open(&cluster.members[next].address())?;
        // The highest queue exists, and the one above does not.
        let last = calls::send_request(&topic, queues - 1, "", b"last");
        let sent = calls::send(&mut connection, &last)
            .with_context(|| format!("{topic} after the leader that created it was killed"))?;
        ensure!((sent.queue, sent.offset) == (queues - 1, 0), "{sent:?}");
        let beyond = calls::send_request(&topic, queues, "", b"beyond");
        ensure!(
            calls::send(&mut connection, &beyond).is_err(),
            "queue {queues} was accepted"
        );
        cluster.start_member(leader)?;
        cluster.wait_member(leader)?;
    }
    cluster.passed()
}
