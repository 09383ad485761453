//! Reading a long backlog of small messages.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use raftmq_tests::calls;
use raftmq_tests::clock::Nanos;
use raftmq_tests::cluster::{Cluster, Options};
use raftmq_tests::figures::say;
use raftmq_tests::wire::Connection;

use crate::memory;
use raftmq_tests::flood::flood;

const TOPIC: &str = "Backlog";
const BATCH: usize = 500;
const BODY: [u8; 100] = [b'x'; 100];
/// Messages read for each figure.
const READ: i64 = 200_000;

pub(crate) fn measure(messages: usize) -> Result<()> {
    let mut cluster = Cluster::start(Options {
        segment_bytes: 1 << 30,
        ..Options::single()
    })?;
    cluster.create_topic(TOPIC, 1)?;
    let address = cluster.members[0].address();
    let batch = |_| calls::batch_request(TOPIC, 0, std::iter::repeat_n(("", BODY), BATCH));
    let time = flood(&address, messages.div_ceil(BATCH), &batch)?;
    let rate = messages as f64 / time.as_secs_f64();
    say(format!(
        "{messages} messages of 100 bytes sent, {rate:.0} a second"
    ));
    memory(&cluster, "then")?;
    let end = calls::max_offset(&mut Connection::open(&address)?, TOPIC, 0)?;
    let last = (end - READ).max(0);
    for round in 1..=3 {
        // What the kernel still has of the file would flatter both.
        std::fs::write("/proc/sys/vm/drop_caches", "1").context("drop the kernel's caches")?;
        let rates = [
            read(&address, 0)?,
            read(&address, last / 2)?,
            read(&address, last)?,
        ];
        let [oldest, middle, newest] = rates;
        say(format!(
            "round {round}: read from the oldest {oldest:.0}, the middle {middle:.0}, the newest {newest:.0} messages a second"
        ));
    }
    memory(&cluster, "after reading")?;
    cluster.passed()
}

/// Messages a second from an offset on, pull after pull.
fn read(address: &str, from: i64) -> Result<f64> {
    let mut connection = Connection::open(address)?;
    let (started, mut at) = (Nanos::now(), from);
    while at < from + READ {
        let pulled = calls::pull(&mut connection, "Reader", TOPIC, 0, at, Duration::ZERO)?;
        if pulled.next <= at {
            ensure!(pulled.next == pulled.max, "stuck at {at}");
            break;
        }
        at = pulled.next;
    }
    Ok((at - from) as f64 / started.elapsed().as_secs_f64())
}
