//! Prints how fast the commit log appends and flushes, and how fast entries are applied.
//!
//! `cargo run --release -p raftmq-store --example append_bench -- [FOLDER] [MIB]`
//!
//! FOLDER defaults to a new one in the system's temporary folder; it must not hold a store.

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use raftmq_proto::message::record::{self, NewRecord};
use raftmq_store::{EntryKind, FlushMode, LogId, NewEntry, Store, StoreOptions};

const BODY_BYTES: usize = 1024;
const QUEUES: u64 = 8;

type Anything = Box<dyn std::error::Error>;

struct Case {
    name: &'static str,
    flush: FlushMode,
    /// Messages of an entry.
    batch: u64,
    /// Entries that may wait for their flush.
    in_flight: usize,
    prepare_ahead: u64,
}

fn records(offsets: &mut [u64], batch: u64) -> Result<BytesMut, Anything> {
    let host = "127.0.0.1:10911".parse()?;
    let mut body = BytesMut::with_capacity((BODY_BYTES + 200) * batch as usize);
    for n in 0..batch {
        let queue = n % QUEUES;
        let from = body.len();
        let new = NewRecord {
            queue_id: queue as i32,
            flag: 0,
            sys_flag: 0,
            born_timestamp: 1,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: &[b'x'; BODY_BYTES],
            topic: "TopicTest",
            properties: "UNIQ_KEY\u{1}7F00000100002A9F0000000000000001\u{2}WAIT\u{1}true\u{2}TAGS\u{1}TagA\u{2}",
        };
        new.encode(&mut body)?;
        if let (Some(offset), Some(record)) =
            (offsets.get_mut(queue as usize), body.get_mut(from..))
        {
            record::stamp_queue_offset(record, *offset);
            *offset += 1;
        }
    }
    Ok(body)
}

fn run(root: PathBuf, case: &Case, bytes: u64) -> Result<(), Anything> {
    let options = StoreOptions {
        flush: case.flush,
        prepare_ahead: case.prepare_ahead,
        ..StoreOptions::new(&root, "bench", 0)
    };
    let started = Instant::now();
    let store = Store::open(options)?;
    let opened = started.elapsed();
    // As in a group, whose members meet for a moment before the first message.
    let deadline = Instant::now() + Duration::from_secs(2);
    while case.prepare_ahead > 0
        && store.log.stats().prepared_bytes < 4 << 20
        && Instant::now() < deadline
    {
        std::thread::yield_now();
    }
    let mut offsets = vec![0; QUEUES as usize];
    let (done, flushed) = mpsc::channel();
    let mut latencies = Vec::new();
    let mut in_flight = 0;
    let mut index = 0;
    let mut appending = Duration::ZERO;
    let started = Instant::now();
    while store.log.end_position() < bytes && started.elapsed() < Duration::from_secs(5) {
        let body = records(&mut offsets, case.batch)?;
        let id = LogId::new(1, index);
        let entry = NewEntry::Fresh {
            id,
            kind: EntryKind::Data,
            command_len: 0,
            body,
        };
        let done = done.clone();
        let at = Instant::now();
        store.log.append(
            [entry],
            Box::new(move |result| drop(done.send((at, result)))),
        )?;
        appending += at.elapsed();
        index += 1;
        in_flight += 1;
        while in_flight >= case.in_flight {
            let (at, result) = flushed.recv()?;
            result?;
            latencies.push(at.elapsed());
            in_flight -= 1;
        }
    }
    while in_flight > 0 {
        flushed.recv()?.1?;
        in_flight -= 1;
    }
    let took = started.elapsed();
    let stats = store.log.stats();
    latencies.sort_unstable();
    let at = |share: f64| {
        latencies
            .get((latencies.len() as f64 * share) as usize)
            .copied()
            .unwrap_or_default()
    };

    let mut next = 0;
    let mut applying = Duration::ZERO;
    while next < index {
        let entries = store.log.read(next, index, Some(1 << 20))?;
        next += entries.len() as u64;
        let started = Instant::now();
        store.state.apply(&entries)?;
        applying += started.elapsed();
    }
    let messages = (index * case.batch) as f64;
    let persisting = Instant::now();
    store.state.persist()?;
    println!(
        "{:<34} {:>9.0} msg/s {:>7.1} MB/s  append {:>6.1} us  flushed p50 {:>7.1} p99 {:>8.1} us  \
         {:>6} flushes  apply {:>5.0} ns/msg  persist {:>6.1} ms  open {:>5.1} ms",
        case.name,
        messages / took.as_secs_f64(),
        stats.end_position as f64 / took.as_secs_f64() / 1e6,
        appending.as_secs_f64() * 1e6 / index as f64,
        at(0.5).as_secs_f64() * 1e6,
        at(0.99).as_secs_f64() * 1e6,
        stats.flushes,
        applying.as_secs_f64() * 1e9 / messages,
        persisting.elapsed().as_secs_f64() * 1e3,
        opened.as_secs_f64() * 1e3,
    );
    store.close()?;
    drop(store);
    std::fs::remove_dir_all(root)?;
    Ok(())
}

fn main() -> Result<(), Anything> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let bytes = arguments.next().map_or(Ok(512), |mib| mib.parse::<u64>())? << 20;
    let root = folder.join(format!("append-bench-{}", std::process::id()));
    let background = FlushMode::Async {
        interval: Duration::from_millis(500),
    };
    let ahead = 32 << 20;
    let case = |name, flush, batch, in_flight, prepare_ahead| Case {
        name,
        flush,
        batch,
        in_flight,
        prepare_ahead,
    };
    for case in [
        case("sync, 1 message, one by one", FlushMode::Sync, 1, 1, ahead),
        case("the same, nothing prepared", FlushMode::Sync, 1, 1, 0),
        case(
            "sync, 1 message, 64 in flight",
            FlushMode::Sync,
            1,
            64,
            ahead,
        ),
        case(
            "sync, 64 messages, 4 in flight",
            FlushMode::Sync,
            64,
            4,
            ahead,
        ),
        case("the same, nothing prepared", FlushMode::Sync, 64, 4, 0),
        case(
            "sync, 512 messages, 4 in flight",
            FlushMode::Sync,
            512,
            4,
            ahead,
        ),
        case("async, 1 message, one by one", background, 1, 1, ahead),
        case("async, 64 messages, one by one", background, 64, 1, ahead),
        case("the same, nothing prepared", background, 64, 1, 0),
    ] {
        run(root.clone(), &case, bytes)?;
    }
    Ok(())
}
