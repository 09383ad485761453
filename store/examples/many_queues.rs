//! What many queues cost: 25,000 topics of 4 queues, one message for each queue, then 20 rounds more.
//!
//! `many_queues [TOPICS] [ROUNDS]`, in a folder that is removed at the end. The cost to apply is
//! compared with as many messages in one topic of 4 queues.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use raftmq_proto::body::TopicConfig;
use raftmq_proto::command::{Command, Op, PutTopic, TrimLog};
use raftmq_proto::message::record::{self, NewRecord};
use raftmq_store::disk::RealDisk;
use raftmq_store::{CommitLog, EntryKind, LogId, LogOptions, NewEntry, State, StateOptions};

/// Messages of an entry.
const BATCH: u64 = 100;
const QUEUES: u64 = 4;

type Anything = Box<dyn std::error::Error>;

struct Bench {
    dir: tempfile::TempDir,
    log: CommitLog,
    state: State,
    topics: Vec<String>,
}

fn options() -> StateOptions {
    StateOptions {
        background: false,
        ..StateOptions::default()
    }
}

impl Bench {
    fn new(topics: u64) -> Result<Bench, Anything> {
        let dir = tempfile::tempdir()?;
        let log_options = LogOptions::new(dir.path().join("commitlog"));
        let log = CommitLog::open(Arc::new(RealDisk), log_options)?;
        let state = State::open(dir.path().join("state"), log.clone(), options())?;
        let bench = Bench {
            dir,
            log,
            state,
            topics: (0..topics).map(|n| format!("TopicOfMany{n:06}")).collect(),
        };
        for topics in bench.topics.chunks(500) {
            let put = topics.iter().map(|topic| {
                let config_json = TopicConfig::new(&**topic, 4, 6).to_json();
                Op::PutTopic(PutTopic { config_json })
            });
            let command = Command {
                time_ms: 1,
                ops: put.collect(),
            };
            bench.apply(BytesMut::from(&*command.encode()), true)?;
        }
        Ok(bench)
    }

    fn apply(&self, body: BytesMut, is_command: bool) -> Result<Duration, Anything> {
        let index = self.log.next_index();
        let entry = NewEntry::Fresh {
            id: LogId::new(1, index),
            kind: EntryKind::Data,
            command_len: if is_command { body.len() as u32 } else { 0 },
            body,
        };
        self.log.append([entry], Box::new(drop))?;
        let entries = self.log.read(index, index + 1, None)?;
        let began = Instant::now();
        let applied = self.state.apply(&entries)?;
        let took = began.elapsed();
        assert!(
            applied
                .iter()
                .all(|a| a.refused.is_empty() && a.refused_ops.is_empty())
        );
        Ok(took)
    }

    /// A message for each queue, spread so that neighbours are of different topics.
    fn round(&self, round: u64, messages: u64) -> Result<Duration, Anything> {
        let queues = self.topics.len() as u64 * QUEUES;
        let mut took = Duration::ZERO;
        for first in (0..messages).step_by(BATCH as usize) {
            let mut records = BytesMut::new();
            for n in first..(first + BATCH).min(messages) {
                let at = n % queues;
                let (queue, topic) = (at / self.topics.len() as u64, at % self.topics.len() as u64);
                let topic = self.topics.get(topic as usize).ok_or("no topic")?;
                let offset = round * (messages / queues) + n / queues;
                put(&mut records, topic, queue as i32, offset)?;
            }
            took += self.apply(records, false)?;
        }
        Ok(took)
    }
}

fn put(out: &mut BytesMut, topic: &str, queue_id: i32, offset: u64) -> Result<(), Anything> {
    let host = "127.0.0.1:10911".parse()?;
    let new = NewRecord {
        queue_id,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 1,
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: &[7; 100],
        topic,
        properties: "UNIQ_KEY\u{1}7F00000100002A9F0000000000000001\u{2}TAGS\u{1}TagA\u{2}",
    };
    let at = out.len();
    new.encode(out)?;
    let record = out.get_mut(at..).ok_or("no record")?;
    record::stamp_queue_offset(record, offset);
    record::stamp_store_timestamp(record, offset as i64);
    Ok(())
}

/// Resident memory of this process that is no file's, in MiB.
fn memory() -> Result<u64, Anything> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib: u64 = line
        .and_then(|l| l.split_whitespace().next())
        .ok_or("no RssAnon")?
        .parse()?;
    Ok(kib / 1024)
}

fn size(dir: &Path) -> Result<u64, Anything> {
    let files = std::fs::read_dir(dir)?.map(|file| Ok(file?.metadata()?.len()));
    files.sum::<Result<u64, Anything>>()
}

fn run(topics: u64, rounds: u64, messages: u64) -> Result<(), Anything> {
    println!("{topics} topics of {QUEUES} queues, {messages} messages in each round");
    let bench = Bench::new(topics)?;
    bench.state.persist()?;
    println!("  memory with the topics alone: {} MiB", memory()?);
    for round in 0..=rounds {
        let took = bench.round(round, messages)?;
        let before = memory()?;
        let began = Instant::now();
        bench.state.persist()?;
        if round % 5 == 0 || round == 1 {
            println!(
                "  round {round:2}: apply {:4} ns a message, persist {:4} ms, memory {before} MiB before, {} MiB after, database {} MiB",
                took.as_nanos() / u128::from(messages),
                began.elapsed().as_millis(),
                memory()?,
                size(&bench.dir.path().join("state"))? >> 20,
            );
        }
    }
    let Bench {
        dir,
        log,
        state,
        topics,
    } = bench;
    state.close()?;
    let digest = state.digest()?;
    drop(state);
    let began = Instant::now();
    let state = State::open(dir.path().join("state"), log.clone(), options())?;
    let took = began.elapsed();
    println!(
        "  opened again in {} ms, memory {} MiB",
        took.as_millis(),
        memory()?
    );
    let topic = topics.last().ok_or("no topic")?;
    assert_eq!(
        state.queue_bounds(topic, 3).max,
        (rounds + 1) * messages / (topics.len() as u64 * QUEUES)
    );
    assert_eq!(state.digest()?, digest);
    let bench = Bench {
        dir,
        log,
        state,
        topics,
    };
    for percent in [50, 100] {
        let position = bench.log.end_position() * percent / 100;
        let ops = vec![Op::TrimLog(TrimLog { position })];
        let command = Command { time_ms: 1, ops };
        bench.apply(BytesMut::from(&*command.encode()), true)?;
        let began = Instant::now();
        assert!(bench.state.sweep(usize::MAX)?);
        let took = began.elapsed();
        bench.state.persist()?;
        println!(
            "  trimmed to {percent} %: swept in {} ms, persisted in {} ms, memory {} MiB",
            took.as_millis(),
            (began.elapsed() - took).as_millis(),
            memory()?
        );
    }
    Ok(())
}

fn main() -> Result<(), Anything> {
    let mut args = std::env::args().skip(1);
    let topics: u64 = args.next().map_or(Ok(25_000), |arg| arg.parse())?;
    let rounds: u64 = args.next().map_or(Ok(20), |arg| arg.parse())?;
    run(1, rounds, topics * QUEUES)?;
    run(topics, rounds, topics * QUEUES)
}
