//! Consumers that read from followers: sent there by the leader, or because there is none.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use raftmq_tests::calls::{self, Pulled, Refusal, response};
use raftmq_tests::cluster::{self, Cluster, Options};
use raftmq_tests::figures::{ms, say};
use raftmq_tests::history::History;
use raftmq_tests::preload::preload;
use raftmq_tests::serial::turn;
use raftmq_tests::wait::{wait_for, wait_ok};
use raftmq_tests::wire::Connection;

const TOPIC: &str = "Reads";
const GROUP: &str = "ReadsGroup";
const MESSAGES: i64 = 3_000;

/// A group with messages, which every member has applied.
fn begin(options: Options) -> Result<(Cluster, usize)> {
    let mut cluster = Cluster::start(options)?;
    cluster.create_topic(TOPIC, 1)?;
    let leader = cluster.wait_leader()?;
    let count = u32::try_from(MESSAGES)?;
    preload(
        &cluster.members[leader].address(),
        TOPIC,
        1,
        count,
        &History::default(),
    )?;
    // A group that nobody has seen is made by its first pull at the leader.
    pull(&mut open(&cluster, leader)?, 0)?;
    for member in 0..cluster.members.len() {
        wait_applied(&cluster, leader, member)?;
    }
    Ok((cluster, leader))
}

/// Followers hear with the next heartbeat what is committed.
fn wait_applied(cluster: &Cluster, leader: usize, member: usize) -> Result<()> {
    let applied = |member| -> Result<u64> {
        let applied = calls::runtime_info(&mut open(cluster, member)?, "raftAppliedIndex")?;
        applied.parse().context("an index")
    };
    let (wanted, step) = (applied(leader)?, Duration::from_millis(10));
    let what = format!("n{member} to apply {wanted}");
    wait_ok(&what, calls::PATIENCE, step, || {
        let is = applied(member)?;
        ensure!(is >= wanted, "it has applied {is}");
        Ok(())
    })
}

fn open(cluster: &Cluster, member: usize) -> Result<Connection> {
    Connection::open(&cluster.members[member].address())
}

fn pull(connection: &mut Connection, offset: i64) -> Result<Pulled> {
    calls::pull(connection, GROUP, TOPIC, 0, offset, Duration::ZERO)
}

/// Pulls everything from one member: offsets are dense and the next offset never goes back. Returns the last answer with
/// messages.
fn read_all(connection: &mut Connection, from: i64) -> Result<Pulled> {
    let mut at = from;
    loop {
        let pulled = pull(connection, at)?;
        ensure!(
            pulled.code == response::SUCCESS,
            "offset {at}: {} {}",
            pulled.code,
            pulled.next
        );
        let offsets: Vec<i64> = pulled.records()?.iter().map(|r| r.queue_offset).collect();
        let dense: Vec<i64> = (at..pulled.next).collect();
        ensure!(
            offsets == dense && !dense.is_empty(),
            "offset {at}: got {offsets:?}, next {}",
            pulled.next
        );
        at = pulled.next;
        if at == MESSAGES {
            return Ok(pulled);
        }
    }
}

/// A consumer that is behind is sent to a follower, which answers from its own log, also while the leader is frozen; what
/// lies beyond the follower's end it asks the leader for, and offsets that come along are saved.
#[test]
fn a_consumer_far_behind_reads_from_a_follower() -> Result<()> {
    let _turn = turn()?;
    let options = Options::default()
        .with("slaveReadEnable", "true")
        .with("accessMessageInMemoryMaxRatio", "0");
    let (mut cluster, leader) = begin(options)?;
    let mut at_leader = open(&cluster, leader)?;
    let told = pull(&mut at_leader, 0)?;
    let registered = cluster.registered(0)?;
    let sent_to = registered.iter().find(|(id, _)| *id == told.suggested);
    let (id, address) =
        sent_to.with_context(|| format!("nobody is broker {}: {registered:?}", told.suggested))?;
    let follower = cluster
        .addresses()
        .iter()
        .position(|known| known == address);
    let follower = follower.context("an address of no member")?;
    ensure!(
        *id > 0 && follower != leader,
        "the leader suggests broker {id}"
    );

    let mut at_follower = open(&cluster, follower)?;
    let first = pull(&mut at_follower, 0)?;
    ensure!(!first.forwarded && first.suggested == *id, "{first:?}");
    let last = read_all(&mut at_follower, 0)?;
    ensure!(!last.forwarded, "{last:?}");
    let end = pull(&mut at_follower, MESSAGES)?;
    ensure!(
        (end.code, end.next, end.forwarded) == (response::PULL_NOT_FOUND, MESSAGES, false),
        "{end:?}"
    );
    // Nobody has that offset: the leader says so, and only it may.
    let beyond = pull(&mut at_follower, MESSAGES + 10)?;
    ensure!(
        (beyond.code, beyond.next, beyond.forwarded)
            == (response::PULL_OFFSET_MOVED, MESSAGES, true),
        "{beyond:?}"
    );

    // A group that nobody has heard of is made by the leader, so that its offsets can be saved.
    let unheard = calls::pull(&mut at_follower, "Unheard", TOPIC, 0, 0, Duration::ZERO)?;
    ensure!(unheard.forwarded, "{unheard:?}");
    calls::update_offset(&mut at_follower, "Unheard", TOPIC, 0, 1)?;

    let commit = calls::pull_request(GROUP, TOPIC, 0, 100, Duration::ZERO)
        .with("sysFlag", 1 | 4)
        .with("commitOffset", 77);
    ensure!(!calls::pulled(at_follower.call(&commit, calls::PATIENCE)?)?.forwarded);
    wait_for(
        "the leader to know the offset",
        calls::PATIENCE,
        Duration::from_millis(10),
        || {
            let saved = calls::query_offset(&mut at_leader, GROUP, TOPIC, 0).ok()?;
            (saved == Some(77)).then_some(())
        },
    )?;

    cluster.signal(leader, libc::SIGSTOP)?;
    let started = Instant::now();
    read_all(&mut at_follower, 0)?;
    let took = started.elapsed();
    say(format!(
        "{MESSAGES} messages read from a follower in {} while the leader was frozen",
        ms(took)
    ));
    cluster.signal(leader, libc::SIGCONT)?;
    cluster.wait_serving()?;
    cluster.passed()
}

/// Two of three are dead, once with a follower left, once with the leader left: what is applied can be read at once, and
/// nothing moves a consumer; everything else is refused soon, with a text that says why. With another member back the group
/// goes on.
#[test]
fn the_last_member_serves_reads_and_refuses_the_rest() -> Result<()> {
    let _turn = turn()?;
    let (mut cluster, mut leader) = begin(Options::default())?;
    for leader_is_left in [false, true] {
        let left = if leader_is_left {
            leader
        } else {
            (leader + 1) % 3
        };
        let dead = [(left + 1) % 3, (left + 2) % 3];
        let mut reader = open(&cluster, left)?;
        // It holds this one when nobody leads any more.
        let mut held = open(&cluster, left)?;
        for member in dead {
            cluster.signal(member, libc::SIGKILL)?;
        }
        let killed = Instant::now();
        for member in dead {
            cluster.kill(member)?;
        }
        let first = pull(&mut reader, 0)?;
        let first_read = killed.elapsed();
        ensure!(first.code == response::SUCCESS, "{first:?}");
        let refused = refused_send(&cluster, left)?;
        let first_refusal = killed.elapsed();
        say(format!(
            "two of three killed, {} left: first read {}, first send refused {} ({})",
            if leader_is_left {
                "the leader"
            } else {
                "a follower"
            },
            ms(first_read),
            ms(first_refusal),
            refused.remark
        ));
        ensure!(
            first_read < Duration::from_millis(2_500),
            "the first read took {first_read:?}"
        );
        ensure!(
            first_refusal < Duration::from_millis(2_500),
            "the first send took {first_refusal:?}"
        );
        ensure!(
            [response::SYSTEM_ERROR, response::SERVICE_NOT_AVAILABLE].contains(&refused.code),
            "a code on which no producer tries again: {refused}"
        );
        held.write(&calls::pull_request(
            GROUP,
            TOPIC,
            0,
            MESSAGES + 5,
            Duration::from_secs(2),
        ))?;
        check_alone(&cluster, left)?;
        let last = read_all(&mut reader, 0)?;
        let own = i64::try_from(left)? + 1;
        ensure!(
            last.suggested == if leader_is_left { 0 } else { own },
            "sent to broker {}",
            last.suggested
        );
        for offset in [MESSAGES, MESSAGES + 5, i64::MAX] {
            let beyond = pull(&mut reader, offset)?;
            ensure!(
                (beyond.code, beyond.next) == (response::PULL_NOT_FOUND, offset),
                "{beyond:?}"
            );
        }
        let answer = calls::pulled(held.read(calls::PATIENCE)?)?;
        ensure!(
            (answer.code, answer.next) == (response::PULL_NOT_FOUND, MESSAGES + 5),
            "{answer:?}"
        );

        cluster.start_member(dead[0])?;
        cluster.wait_member(left)?;
        cluster.start_member(dead[1])?;
        cluster.wait_serving()?;
        leader = cluster.wait_leader()?;
        read_all(&mut open(&cluster, left)?, 0)?;
    }
    cluster.passed()
}

fn refused_send(cluster: &Cluster, member: usize) -> Result<Refusal> {
    let request = calls::send_request(cluster::GROUP, 0, "", b"nobody takes it");
    match calls::send(&mut open(cluster, member)?, &request) {
        Ok(sent) => anyhow::bail!("one of three acknowledged {sent:?}"),
        Err(error) => error.downcast::<Refusal>().context("no answer at all"),
    }
}

/// Once a member knows that it is alone, it says so at once to whatever needs a leader.
fn check_alone(cluster: &Cluster, left: usize) -> Result<()> {
    let mut connection = open(cluster, left)?;
    let started = Instant::now();
    let refusals = [
        refused_send(cluster, left)?,
        refusal(calls::max_offset(&mut connection, TOPIC, 0))?,
        refusal(calls::query_offset(&mut connection, GROUP, TOPIC, 0))?,
        refusal(calls::update_offset(&mut connection, GROUP, TOPIC, 0, 5))?,
        refusal(calls::create_topic(&mut connection, "Never", 1))?,
    ];
    let took = started.elapsed();
    ensure!(took < Duration::from_secs(2), "five refusals took {took:?}");
    for refusal in &refusals {
        let says = format!(
            "of the voters n0, n1, n2 only n{left} can be reached from here, and 2 are needed"
        );
        ensure!(
            refusal.code == response::SERVICE_NOT_AVAILABLE
                && refusal
                    .remark
                    .contains("group RaftNode00 has no leader for ")
                && refusal.remark.contains(&says),
            "{refusal}"
        );
    }
    Ok(())
}

fn refusal<T: std::fmt::Debug>(answer: Result<T>) -> Result<Refusal> {
    match answer {
        Ok(answer) => anyhow::bail!("answered with {answer:?}"),
        Err(error) => error.downcast::<Refusal>().context("no answer at all"),
    }
}

/// A follower is frozen while the queue grows, and woken with pulls of what it does not have yet waiting in its sockets.
/// Whatever it answers, nobody is sent back.
#[test]
fn a_follower_that_lags_sends_nobody_back() -> Result<()> {
    let _turn = turn()?;
    let options = Options::default().with("slaveReadEnable", "true");
    let (mut cluster, leader) = begin(options)?;
    let follower = (leader + 1) % 3;
    let mut end = MESSAGES;
    let mut answers = std::collections::BTreeMap::<(i32, bool), usize>::new();
    for _round in 0..3 {
        let mut waiting = Vec::new();
        for n in 0..20_i64 {
            waiting.push((end + 97 * n, open(&cluster, follower)?));
        }
        cluster.signal(follower, libc::SIGSTOP)?;
        let address = cluster.members[leader].address();
        preload(&address, TOPIC, 1, 2_000, &History::default())?;
        end += 2_000;
        for (offset, connection) in &mut waiting {
            connection.write(&calls::pull_request(
                GROUP,
                TOPIC,
                0,
                *offset,
                Duration::ZERO,
            ))?;
        }
        cluster.signal(follower, libc::SIGCONT)?;
        for (offset, mut connection) in waiting {
            let reply = connection.read(Duration::from_secs(10))?;
            let pulled = calls::pulled(reply)?;
            ensure!(
                pulled.next >= offset,
                "{offset} was asked for: {} {}",
                pulled.code,
                pulled.next
            );
            *answers.entry((pulled.code, pulled.forwarded)).or_default() += 1;
        }
        wait_ok(
            "the follower to have caught up",
            calls::PATIENCE,
            Duration::from_millis(20),
            || {
                let pulled = pull(&mut open(&cluster, follower)?, end - 1)?;
                ensure!(pulled.code == response::SUCCESS && !pulled.forwarded);
                Ok(())
            },
        )?;
    }
    say(format!(
        "answers of a follower that lags, by code and whether it asked the leader: {answers:?}"
    ));
    cluster.wait_serving()?;
    cluster.passed()
}
