//! Sends while a wiped member is brought up.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use raftmq_tests::clock::Nanos;
use raftmq_tests::cluster::{Cluster, Options};
use raftmq_tests::figures::{ms, say};
use raftmq_tests::segments::{last_entry, starts};
use raftmq_tests::wait::{pause, wait_for};

use raftmq_tests::flood::{fill, flood_until};

const TOPIC: &str = "Seeded";
const SEGMENT_MIB: usize = 256;
const WITHIN: Duration = Duration::from_secs(600);
const STEP: Duration = Duration::from_millis(20);
const SETTLE: Duration = Duration::from_secs(2);
const MEASURE: Duration = Duration::from_secs(8);

/// With the `whole_log` in the others' hands, or without its beginning.
pub(crate) fn measure(mib: usize, rate: usize, whole_log: bool) -> Result<()> {
    let options = Options {
        segment_bytes: (SEGMENT_MIB as u64) << 20,
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
    fill(&address, TOPIC, SEGMENT_MIB + 1)?;
    if !whole_log {
        cluster.admin(&["deleteExpiredCommitLog", "-b", &address])?;
        for member in &cluster.members {
            let what = format!("n{} to remove its first segment", member.number);
            wait_for(&what, WITHIN, STEP, || {
                (*starts(&member.commit_log()).ok()?.first()? > 0).then_some(())
            })?;
        }
    }
    fill(&address, TOPIC, mib)?;
    let wiped = (leader + 1) % 3;
    let (stop, acked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let load = scope.spawn(|| flood_until(&address, TOPIC, &stop, &acked));
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
            let said = |words| (cluster.said(wiped, words) > 0).then(|| started.elapsed());
            let filled = wait_for("it to be filled", WITHIN, STEP, || {
                said("everything is there: the member starts")
            })?;
            let log = cluster.members[wiped].commit_log();
            let fetched = last_entry(&log)?.1 - starts(&log)?.first().context("no segment")?;
            let time = wait_for("it to vote again", WITHIN, STEP, || {
                said("has caught up and votes again")
            })?;
            let during = (acked.load(Ordering::Relaxed) - sent) as f64 / time.as_secs_f64();
            pause(SETTLE);
            let after = rate(MEASURE);
            say(format!(
                "sends of 1 KiB a second: {before:.0} with three members, {two:.0} with two, {during:.0} while {} MiB are \
                 fetched, {after:.0} after; the member has them {} after its start, and votes after {}",
                fetched >> 20,
                ms(filled),
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
