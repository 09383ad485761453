//! kill -9 under load of the only member of a group, with a long log.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use raftmq_tests::clock::Nanos;
use raftmq_tests::cluster::{Cluster, Options};
use raftmq_tests::figures::{ms, say};
use raftmq_tests::wait::pause;

use crate::memory;
use raftmq_tests::flood::{fill, flood_until};

const TOPIC: &str = "Long";

pub(crate) fn measure(mib: usize, rounds: usize) -> Result<()> {
    let mut cluster = Cluster::start(Options {
        segment_bytes: 1 << 30,
        ..Options::single()
    })?;
    cluster.create_topic(TOPIC, 4)?;
    let address = cluster.members[0].address();
    let time = fill(&address, TOPIC, mib)?;
    let rate = mib as f64 / time.as_secs_f64();
    say(format!("{mib} MiB of log written, {rate:.0} MiB a second"));
    for round in 1..=rounds {
        let (stop, acked) = (AtomicBool::new(false), AtomicUsize::new(0));
        let killed = std::thread::scope(|scope| {
            let load = scope.spawn(|| flood_until(&address, TOPIC, &stop, &acked));
            pause(Duration::from_secs(8));
            stop.store(true, Ordering::Relaxed);
            let killed = cluster.kill(0);
            load.join()
                .map_err(|_panic| anyhow::anyhow!("a thread panicked"))??;
            killed
        })
        .context("the load")?;
        let started = Nanos::now();
        cluster.start_all()?;
        cluster.wait_serving()?;
        let time = ms(started.elapsed());
        let acked = acked.load(Ordering::Relaxed);
        let away = ms(killed.elapsed());
        say(format!(
            "round {round}: killed after {acked} sends, serving {time} after its start ({away} after the kill)"
        ));
    }
    memory(&cluster, "after the last start")?;
    cluster.passed()
}
