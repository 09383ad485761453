//! Very many queues.

use std::time::Duration;

use anyhow::{Result, ensure};
use raftmq_tests::calls;
use raftmq_tests::clock::Nanos;
use raftmq_tests::cluster::{Cluster, Options};
use raftmq_tests::figures::{ms, say};
use raftmq_tests::wait::wait_for;
use raftmq_tests::wire::{Connection, Request};

use crate::memory;
use raftmq_tests::flood::{flood, message};

const QUEUES: i32 = 4;
const PATIENCE: Duration = Duration::from_secs(30);
const FEW: &str = "Few";
const BODY: [u8; 256] = [b'x'; 256];

pub(crate) fn measure(topics: usize, messages: usize) -> Result<()> {
    let mut cluster = Cluster::start(Options {
        segment_bytes: 256 << 20,
        // A line for each topic.
        log_bytes_max: 64 << 20,
        ..Options::default()
    })?;
    let leader = cluster.wait_leader()?;
    let address = cluster.members[leader].address();
    memory(&cluster, "before any topic")?;

    calls::create_topic(&mut Connection::open(&address)?, FEW, QUEUES)?;
    let create = |nth| calls::topic_request(&name(nth), QUEUES);
    let time = flood(&address, topics, &create)?;
    let rate = topics as f64 / time.as_secs_f64();
    let time = ms(time);
    say(format!(
        "{topics} topics created in {time} ({rate:.0} a second)"
    ));
    let nameserver = format!("127.0.0.1:{}", cluster.nameservers[0].port);
    let step = Duration::from_millis(20);
    let known = wait_for("a route of the last topic", PATIENCE, step, || {
        let mut connection = Connection::open(&nameserver).ok()?;
        calls::route_addresses(&mut connection, &name(topics - 1)).ok()
    })?;
    ensure!(!known.is_empty(), "the last topic has no member");

    let queues = topics * QUEUES as usize;
    // One message in each queue before anything is timed, so that all exist.
    flood(&address, queues, &send)?;
    memory(&cluster, &format!("with {queues} queues"))?;
    for round in 1..=3 {
        let few = flood(&address, messages, &|nth| message(FEW, nth, &BODY))?;
        // All queues, in an order that jumps.
        let many = flood(&address, messages, &|nth| {
            send(nth.wrapping_mul(7919) % queues)
        })?;
        let rate = |time: Duration| messages as f64 / time.as_secs_f64();
        let (few, many) = (rate(few), rate(many));
        say(format!(
            "round {round}: {few:.0} messages a second over 4 queues, {many:.0} over {queues}: {:.2} times",
            many / few
        ));
    }
    memory(&cluster, "after these sends")?;

    cluster.kill_all();
    let started = Nanos::now();
    cluster.start_all()?;
    cluster.wait_serving()?;
    let time = ms(started.elapsed());
    say(format!("all members killed, and serving again in {time}"));
    memory(&cluster, "after the restart")?;
    cluster.passed()
}

fn name(nth: usize) -> String {
    format!("ScaleTopic{nth:06}")
}

/// A message for the nth of all queues.
fn send(nth: usize) -> Request {
    message(&name(nth / QUEUES as usize), nth, &BODY)
}
