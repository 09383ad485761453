//! As much load as the machine takes, for as long as wanted, and nothing else: the leader has no reason to change.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::calls::{self, response};
use crate::clock::Nanos;
use crate::cluster::{Cluster, Options};
use crate::figures::{ms, say};
use crate::flood::flood_until;
use crate::segments::require_identical;
use crate::wait::{pause, wait_ok};
use crate::wire::Connection;

const TOPIC: &str = "Soak";
const QUEUES: i32 = 4;
/// Time between two lines of figures.
const LINE_EVERY: Duration = Duration::from_secs(60);
/// How often it is looked whether anything was acknowledged.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// For how long a reader waits for a message.
const HOLD: Duration = Duration::from_millis(500);
/// For the readers to come to the end, when the senders have stopped.
const READ_WITHIN: Duration = Duration::from_secs(60);

/// What the load has counted so far.
#[derive(Debug, Default)]
struct Counts {
    acked: AtomicUsize,
    read: AtomicUsize,
    /// Messages that were removed before a reader came to them.
    skipped: AtomicUsize,
}

/// Floods a group of three with sends of 1 KiB, reads everything meanwhile, and says figures every minute. Segments are
/// removed as they fill, so that any disk is large enough. An error when anything fails, when a member has seen another
/// term than the first, or when something acknowledged was not read.
pub fn soak(options: Options, time: Duration) -> Result<()> {
    let hours: Vec<String> = (0..24).map(|hour| format!("{hour:02}")).collect();
    let options = Options {
        segment_bytes: 256 << 20,
        ..options
    };
    let options = options
        .with("fileReservedTime", "0")
        .with("deleteWhen", &hours.join(";"))
        .with("cleanResourceInterval", "1000");
    let mut cluster = Cluster::start(options)?;
    cluster.create_topic(TOPIC, QUEUES)?;
    let leader = cluster.wait_leader()?;
    let address = cluster.members[leader].address();
    let term = term_of(&address)?;
    let (counts, stop, ended) = (
        Counts::default(),
        AtomicBool::new(false),
        AtomicBool::new(false),
    );
    std::thread::scope(|scope| {
        let load = scope.spawn(|| flood_until(&address, TOPIC, &stop, &counts.acked));
        let readers: Vec<_> = (0..QUEUES)
            .map(|queue| {
                let (address, counts, ended) = (&address, &counts, &ended);
                scope.spawn(move || read(address, queue, counts, ended))
            })
            .collect();
        let outcome = watch(&cluster, term, time, &counts);
        stop.store(true, Ordering::Relaxed);
        let sent = load
            .join()
            .map_err(|_panic| anyhow::anyhow!("a thread panicked"));
        let at_the_end = wait_ok("everything to be read", READ_WITHIN, LOOK_EVERY, || {
            let stored = stored(&address)?;
            let (read, skipped) = (get(&counts.read), get(&counts.skipped));
            ensure!(
                read + skipped >= stored,
                "{read} of {stored} were read, {skipped} removed before"
            );
            Ok(stored)
        });
        ended.store(true, Ordering::Relaxed);
        for reader in readers {
            reader
                .join()
                .map_err(|_panic| anyhow::anyhow!("a thread panicked"))??;
        }
        outcome?;
        sent??;
        let (stored, acked) = (at_the_end?, get(&counts.acked));
        ensure!(
            stored >= acked,
            "{acked} sends were acknowledged, and {stored} messages stored"
        );
        say(format!(
            "{acked} sends acknowledged in {:.0} s; {} of {stored} messages were read, {} removed before",
            time.as_secs_f64(),
            get(&counts.read),
            get(&counts.skipped)
        ));
        anyhow::Ok(())
    })?;
    require_term(&cluster, term)?;
    say(format!(
        "term {term} from the beginning to the end: nobody asked for an election"
    ));
    say(require_identical(&mut cluster)?);
    cluster.passed()
}

/// Says figures each minute until the time is over.
fn watch(cluster: &Cluster, term: u64, time: Duration, counts: &Counts) -> Result<()> {
    let started = Nanos::now();
    while started.elapsed() < time {
        let left = time.saturating_sub(started.elapsed());
        let (begun, acked, read) = (Nanos::now(), get(&counts.acked), get(&counts.read));
        let longest = longest_pause(counts, left.min(LINE_EVERY))?;
        let seconds = begun.elapsed().as_secs_f64();
        require_term(cluster, term)?;
        let mut memory = Vec::new();
        for member in &cluster.members {
            let process = member.process.as_ref().context("it runs")?;
            memory.push((process.private_bytes()? >> 20).to_string());
        }
        say(format!(
            "{:5.0} s  sends/s {:6.0}  reads/s {:6.0}  longest time without an acknowledged send {}  term {term}  \
             memory without mapped files {} MiB",
            started.elapsed().as_secs_f64(),
            (get(&counts.acked) - acked) as f64 / seconds,
            (get(&counts.read) - read) as f64 / seconds,
            ms(longest),
            memory.join(" ")
        ));
    }
    Ok(())
}

/// Waits, and returns the longest time in which nothing was acknowledged.
fn longest_pause(counts: &Counts, time: Duration) -> Result<Duration> {
    let begun = Nanos::now();
    let (mut longest, mut last, mut at) = (Duration::ZERO, get(&counts.acked), begun);
    while begun.elapsed() < time {
        pause(LOOK_EVERY);
        let acked = get(&counts.acked);
        longest = longest.max(at.elapsed());
        if acked != last {
            (last, at) = (acked, Nanos::now());
        }
        ensure!(
            at.elapsed() < Duration::from_secs(10),
            "no send was acknowledged for 10 s"
        );
    }
    Ok(longest)
}

/// Reads a queue until `ended`; an error when an offset is missing, though it was not removed.
fn read(address: &str, queue: i32, counts: &Counts, ended: &AtomicBool) -> Result<()> {
    let mut connection = Connection::open(address)?;
    let mut at = 0;
    while !ended.load(Ordering::Relaxed) {
        let pulled = calls::pull(&mut connection, "SOAK", TOPIC, queue, at, HOLD)?;
        if pulled.code == response::PULL_OFFSET_MOVED {
            if pulled.next <= at || pulled.next != pulled.min {
                bail!(
                    "queue {queue}: moved from offset {at} to {}, the minimum being {}",
                    pulled.next,
                    pulled.min
                );
            }
            counts
                .skipped
                .fetch_add(usize::try_from(pulled.next - at)?, Ordering::Relaxed);
            at = pulled.next;
        }
        for record in pulled.records()? {
            let offset = record.queue_offset;
            ensure!(
                offset == at && record.body_intact,
                "queue {queue}: offset {offset} instead of {at}, or a damaged body"
            );
            at += 1;
            counts.read.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Messages of the topic so far.
fn stored(address: &str) -> Result<usize> {
    let mut connection = Connection::open(address)?;
    let mut stored = 0;
    for queue in 0..QUEUES {
        stored += usize::try_from(calls::max_offset(&mut connection, TOPIC, queue)?)?;
    }
    Ok(stored)
}

fn require_term(cluster: &Cluster, term: u64) -> Result<()> {
    for member in &cluster.members {
        let now = term_of(&member.address())?;
        ensure!(
            now == term,
            "{} is in term {now}, and all were in term {term}",
            member.name()
        );
    }
    Ok(())
}

fn term_of(address: &str) -> Result<u64> {
    let term = calls::runtime_info(&mut Connection::open(address)?, "raftTerm")?;
    term.parse().with_context(|| format!("raftTerm {term}"))
}

fn get(count: &AtomicUsize) -> usize {
    count.load(Ordering::Relaxed)
}
