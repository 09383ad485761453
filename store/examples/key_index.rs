//! What the key index costs: time and disk per message, and time per query.
//!
//! `key_index [MESSAGES] [BODY_BYTES]`: 500,000 messages of 200 bytes by default, each with a unique
//! key and one word of KEYS, in batches of 100, in a folder that is removed at the end.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use raftmq_proto::message::properties;
use raftmq_proto::message::record::{self, NewRecord};
use raftmq_store::disk::RealDisk;
use raftmq_store::{CommitLog, EntryKind, LogId, LogOptions, NewEntry, State, StateOptions};

const BATCH: u64 = 100;

type Anything = Box<dyn std::error::Error>;

fn main() -> Result<(), Anything> {
    let mut args = std::env::args().skip(1);
    let messages: u64 = args.next().map_or(Ok(500_000), |arg| arg.parse())?;
    let body = vec![7; args.next().map_or(Ok(200), |arg| arg.parse())?];
    let dir = tempfile::tempdir()?;
    let options = LogOptions::new(dir.path().join("commitlog"));
    let log = CommitLog::open(Arc::new(RealDisk), options)?;
    let options = StateOptions {
        background: false,
        ..StateOptions::default()
    };
    let state = State::open(dir.path().join("state"), log.clone(), options)?;
    let mut apply = std::time::Duration::ZERO;
    for first in (0..messages).step_by(BATCH as usize) {
        let mut records = BytesMut::new();
        for offset in first..first + BATCH {
            put(&mut records, offset, &body)?;
        }
        let entry = NewEntry::Fresh {
            id: LogId::new(1, log.next_index()),
            kind: EntryKind::Data,
            command_len: 0,
            body: records,
        };
        log.append([entry], Box::new(drop))?;
        let entries = log.read(log.next_index() - 1, log.next_index(), None)?;
        let began = Instant::now();
        state.apply(&entries)?;
        apply += began.elapsed();
    }
    log.flush()?;
    state.persist()?;
    let without = size(&dir.path().join("state"))?;
    let began = Instant::now();
    let query = |key: &str, max| state.query("KeyTopic", key, max, 0, i64::MAX);
    let found = query("none", 32)?;
    assert!(found.offsets.is_empty());
    let build = began.elapsed();
    let with = size(&dir.path().join("state"))?;
    let per = |time: std::time::Duration| time.as_nanos() as f64 / messages as f64;
    println!(
        "{messages} messages of {} bytes body, 2 keys each",
        body.len()
    );
    println!("apply: {:.0} ns per message", per(apply));
    println!("index: {:.0} ns per message on its own thread", per(build));
    println!(
        "disk:  {:.1} bytes per message in blocks",
        (with - without) as f64 / messages as f64
    );
    let began = Instant::now();
    for n in 0..1000 {
        let found = query(&unique(n * (messages / 1000)), 32)?;
        assert!(found.offsets.len() == 1);
    }
    println!(
        "query: {:.0} us by unique key, one match",
        began.elapsed().as_micros() as f64 / 1e3
    );
    let began = Instant::now();
    let found = query("word7", 64)?;
    println!(
        "query: {:.0} us by word, {} matches",
        began.elapsed().as_micros() as f64,
        found.offsets.len()
    );
    Ok(())
}

fn unique(offset: u64) -> String {
    format!("7F000001{offset:024X}")
}

fn put(out: &mut BytesMut, offset: u64, body: &[u8]) -> Result<(), Anything> {
    let host = "127.0.0.1:10911".parse()?;
    let (unique, word) = (unique(offset), format!("word{}", offset % 1000));
    let pairs = [(properties::UNIQ_KEY, &*unique), (properties::KEYS, &*word)];
    let new = NewRecord {
        queue_id: 0,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 1,
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        topic: "KeyTopic",
        properties: &properties::encode(pairs),
    };
    let at = out.len();
    new.encode(out)?;
    let record = out.get_mut(at..).ok_or("no record")?;
    record::stamp_queue_offset(record, offset);
    record::stamp_store_timestamp(record, offset as i64);
    Ok(())
}

fn size(dir: &Path) -> Result<u64, Anything> {
    let files = std::fs::read_dir(dir)?.map(|file| Ok(file?.metadata()?.len()));
    files.sum()
}
