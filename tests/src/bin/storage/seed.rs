//! Sends while a wiped member is brought up.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use raftmq_tests::clock::Nanos;
use raftmq_tests::cluster::{Cluster, Options};
use raftmq_tests::figures::{ms, say};
use raftmq_tests::wait::{pause, wait_for};

use crate::flood::{flood, flood_until, message};

const TOPIC: &str = "Seeded";
const FILL: usize = 64 << 10;
/// An operator's request to trim lasts this long at most.
const TRIMMED_WITHIN: Duration = Duration::from_secs(4);
const SETTLE: Duration = Duration::from_secs(2);
const MEASURE: Duration = Duration::from_secs(8);

pub(crate) fn measure(mib: usize, rate: usize) -> Result<()> {
    let options = Options {
        segment_bytes: 256 << 20,
        ..Options::default()
    };
    let options = options
        .with("seedRateMax", &(rate << 20).to_string())
        .with("fileReservedTime", "0")
        .with("cleanResourceInterval", "100");
    let mut cluster = Cluster::start(options)?;
    cluster.create_topic(TOPIC, 4)?;
    let leader = cluster.wait_leader()?;
    let address = cluster.members[leader].address();
    let body = vec![b'x'; FILL];
    let fill = |mib: usize| {
        flood(&address, (mib << 20) / FILL, &|nth| {
            message(TOPIC, nth, &body)
        })
    };
    // Without its beginning: a log that has it all is sent as any follower is sent it.
    fill(300)?;
    cluster.admin(&["deleteExpiredCommitLog", "-b", &address])?;
    pause(TRIMMED_WITHIN);
    fill(mib)?;
    let wiped = (leader + 1) % 3;
    let (stop, acked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let load = scope.spawn(|| flood_until(&address, TOPIC, 1024, &stop, &acked));
        let outcome = (|| {
            let rate = |time: Duration| {
                let (started, before) = (Nanos::now(), acked.load(Ordering::Relaxed));
                pause(time);
                (acked.load(Ordering::Relaxed) - before) as f64 / started.elapsed().as_secs_f64()
            };
            pause(SETTLE);
            let before = rate(MEASURE);
            cluster.kill(wiped)?;
            let store = cluster.members[wiped].store.clone();
            std::fs::remove_dir_all(store).context("wipe a store")?;
            let two = rate(MEASURE);
            let (started, sent) = (Nanos::now(), acked.load(Ordering::Relaxed));
            cluster.start_member(wiped)?;
            let step = Duration::from_millis(20);
            wait_for("it to vote again", Duration::from_secs(600), step, || {
                (cluster.said(wiped, "has caught up and votes again") > 0).then_some(())
            })?;
            let time = started.elapsed();
            let during = (acked.load(Ordering::Relaxed) - sent) as f64 / time.as_secs_f64();
            pause(SETTLE);
            let after = rate(MEASURE);
            say(format!(
                "sends of 1 KiB a second: {before:.0} with three members, {two:.0} with two, {during:.0} while {mib} MiB are \
                 fetched, {after:.0} after; the member votes {} after its start",
                ms(time)
            ));
            anyhow::Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        load.join()
            .map_err(|_panic| anyhow::anyhow!("a thread panicked"))??;
        outcome
    })?;
    cluster.passed()
}
