//! Cost of reading a record by its physical offset, as a pull does it.
//!
//! `cargo run --release -p raftmq-store --example read_bench [FOLDER [MEGABYTES]]`: appends records
//! of 1 KiB, eight to an entry, then reads them all in order: just appended, once after another
//! start (everything is verified), and again (it is known to be right).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use raftmq_proto::message::record::NewRecord;
use raftmq_store::disk::RealDisk;
use raftmq_store::{CommitLog, EntryKind, LogId, LogOptions, NewEntry};

const RECORDS_PER_ENTRY: usize = 8;

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = args
        .next()
        .map_or_else(|| std::env::temp_dir().join("read_bench"), PathBuf::from);
    let megabytes: u64 = args
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(512);
    let open = || {
        let options = LogOptions {
            segment_bytes: 256 << 20,
            prepare_ahead: 0,
            ..LogOptions::new(&dir)
        };
        CommitLog::open(Arc::new(RealDisk), options).expect("open the log")
    };
    let host = "127.0.0.1:10911".parse().expect("an address");
    let mut record = BytesMut::new();
    let new = NewRecord {
        queue_id: 0,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 1,
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: &[7; 900],
        topic: "topic",
        properties: "",
    };
    new.encode(&mut record).expect("a record");
    let log = open();
    let mut offsets = Vec::new();
    while log.end_position() < megabytes << 20 {
        let mut entries = Vec::new();
        for nth in 0..64 {
            let mut body = BytesMut::new();
            for _ in 0..RECORDS_PER_ENTRY {
                body.extend_from_slice(&record);
            }
            entries.push(NewEntry::Fresh {
                id: LogId::new(1, log.next_index() + nth),
                kind: EntryKind::Data,
                command_len: 0,
                body,
            });
        }
        let first = log.next_index();
        log.append(entries, Box::new(drop)).expect("append");
        for entry in log.read(first, first + 64, None).expect("read") {
            let at = entry.records_position();
            offsets.extend((0..RECORDS_PER_ENTRY).map(|nth| at + (nth * record.len()) as u64));
        }
    }
    let read_all = |log: &CommitLog, what: &str| {
        let end = log.end_position();
        let begin = Instant::now();
        let mut sum = 0u64;
        for offset in &offsets {
            let record = log.record_at(*offset, None, end).expect("a record");
            sum += u64::from(record[record.len() - 1]);
        }
        let nanos = begin.elapsed().as_nanos() / offsets.len() as u128;
        println!(
            "{what}: {nanos} ns a record, {} records ({sum})",
            offsets.len()
        );
    };
    read_all(&log, "just appended");
    read_all(&log, "just appended, again");
    log.sync().expect("flush");
    drop(log);
    let begin = Instant::now();
    let log = open();
    println!("open: {:?}", begin.elapsed());
    read_all(&log, "after a start");
    read_all(&log, "after a start, again");
    let begin = Instant::now();
    let entries = log.read(0, log.next_index(), None).expect("read");
    let bytes: usize = entries.iter().map(|entry| entry.raw.len()).sum();
    println!(
        "by index: {} MB/s",
        bytes as u128 / begin.elapsed().as_micros().max(1)
    );
    drop((entries, log));
    std::fs::remove_dir_all(&dir).expect("remove the folder");
}
