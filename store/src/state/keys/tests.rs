//! Queries against a plain search through everything that was applied.

use bytes::{BufMut, BytesMut};
use proptest::prelude::*;
use raftmq_proto::command::{Command, Op, TrimLog};
use raftmq_proto::message::record::{self, NewRecord};
use raftmq_proto::message::{properties, sys_flag};

use super::super::apply::is_queued;
use super::super::tests::{append, by_hand};
use super::super::{State, StateOptions};
use crate::entry::EntryKind;
use crate::log::CommitLog;

const TOPICS: [&str; 2] = ["A", "B"];
const KEYS: [&str; 5] = ["", "k0", "k0 k1", " k1  k2 ", "k2 k2"];

#[derive(Debug, Clone)]
struct Send {
    topic: usize,
    /// Number of the message; its unique key.
    unique: Option<u16>,
    keys: usize,
    flags: i32,
    refused: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Entry(Vec<Send>),
    /// So many messages without any key.
    Without(u8),
    Trim(u64),
    Index,
    Persist,
    Crash,
    Query {
        topic: usize,
        key: String,
        max: usize,
        begin: i64,
        end: i64,
    },
}

struct Message {
    topic: usize,
    position: u64,
    time_ms: i64,
    keys: Vec<String>,
}

fn send() -> impl Strategy<Value = Send> {
    let flags = prop_oneof![
        8 => Just(0),
        1 => Just(sys_flag::TRANSACTION_COMMIT_TYPE),
        1 => Just(sys_flag::TRANSACTION_PREPARED_TYPE),
        1 => Just(sys_flag::TRANSACTION_ROLLBACK_TYPE),
    ];
    let refused = prop_oneof![9 => Just(false), 1 => Just(true)];
    (0..2usize, any::<Option<u16>>(), 0..5usize, flags, refused).prop_map(
        |(topic, unique, keys, flags, refused)| Send {
            topic,
            unique: unique.map(|n| n % 50),
            keys,
            flags,
            refused,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let key = prop_oneof![
        3 => (0..3u8).prop_map(|n| format!("k{n}")),
        2 => (0..60u16).prop_map(|n| format!("U{n}")),
        1 => Just(String::new()),
    ];
    let max = prop_oneof![Just(1usize), Just(32), Just(usize::MAX)];
    let query = (0..2usize, key, max, -5..300i64, 0..300i64);
    prop_oneof![
        6 => prop::collection::vec(send(), 0..60).prop_map(Step::Entry),
        1 => (0..200u8).prop_map(Step::Without),
        1 => (0..100u64).prop_map(Step::Trim),
        2 => Just(Step::Index),
        1 => Just(Step::Persist),
        1 => Just(Step::Crash),
        6 => query.prop_map(|(topic, key, max, begin, span)| Step::Query {
            topic, key, max, begin, end: begin + span,
        }),
    ]
}

fn message(topic: &str, properties: &str, flags: i32, offset: u64, time: i64) -> BytesMut {
    let host = "127.0.0.1:10911".parse().unwrap();
    let new = NewRecord {
        queue_id: 0,
        flag: 0,
        sys_flag: flags,
        born_timestamp: 1,
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: b"body",
        topic,
        properties,
    };
    let mut out = BytesMut::new();
    new.encode(&mut out).unwrap();
    record::stamp_queue_offset(&mut out, offset);
    record::stamp_store_timestamp(&mut out, time);
    out
}

/// Applies what the state lacks.
fn open(dir: &std::path::Path, log: &CommitLog) -> State {
    let state = State::open(dir, log.clone(), by_hand()).unwrap();
    let from = state.applied().map_or(0, |applied| applied.index + 1);
    let left = log.read(from, log.next_index(), None).unwrap();
    state.apply(&left).unwrap();
    state
}

fn run(steps: Vec<Step>) {
    let log = CommitLog::memory();
    let dir = tempfile::tempdir().unwrap();
    let mut state = open(dir.path(), &log);
    let mut messages: Vec<Message> = Vec::new();
    for (time_ms, step) in (0..).zip(steps) {
        match step {
            Step::Entry(sends) => {
                let mut records = BytesMut::new();
                let mut next = TOPICS.map(|topic| state.next_offset(topic, 0));
                let mut new = Vec::new();
                for send in sends {
                    let unique = send.unique.map(|n| format!("U{n}")).unwrap_or_default();
                    let pairs = [
                        (properties::UNIQ_KEY, &*unique),
                        (properties::KEYS, KEYS[send.keys]),
                    ];
                    let pairs = properties::encode(pairs);
                    let at = next[send.topic] + u64::from(send.refused);
                    let record = message(TOPICS[send.topic], &pairs, send.flags, at, time_ms);
                    let is_there = !send.refused && is_queued(send.flags);
                    next[send.topic] += u64::from(is_there);
                    if is_there {
                        let words = KEYS[send.keys].split(' ').map(str::to_owned);
                        new.push(Message {
                            topic: send.topic,
                            position: records.len() as u64,
                            time_ms,
                            keys: words
                                .chain([unique])
                                .filter(|key| !key.is_empty())
                                .collect(),
                        });
                    }
                    records.put_slice(&record);
                }
                let entry = append(&log, EntryKind::Data, &[], &records);
                for message in &mut new {
                    message.position += entry.records_position();
                }
                messages.append(&mut new);
                state.apply(&[entry]).unwrap();
            }
            Step::Without(count) => {
                let next = state.next_offset("A", 0);
                for offset in next..next + u64::from(count) {
                    let record = message("A", "", 0, offset, time_ms);
                    let entry = append(&log, EntryKind::Data, &[], &record);
                    state.apply(&[entry]).unwrap();
                }
            }
            Step::Trim(percent) => {
                let position = log.end_position() * percent / 100;
                let ops = vec![Op::TrimLog(TrimLog { position })];
                let command = Command { time_ms: 0, ops }.encode();
                let entry = append(&log, EntryKind::Data, &command, &[]);
                state.apply(&[entry]).unwrap();
                messages.retain(|message| message.position >= state.log_start());
            }
            Step::Index => state.inner.index_applied().unwrap(),
            Step::Persist => state.persist().unwrap(),
            Step::Crash => {
                drop(state);
                state = open(dir.path(), &log);
            }
            Step::Query {
                topic,
                key,
                max,
                begin,
                end,
            } => {
                let wanted = |message: &&Message| {
                    message.topic == topic
                        && (begin..=end).contains(&message.time_ms)
                        && message.keys.contains(&key)
                };
                let expected = messages.iter().rev().filter(wanted);
                let expected: Vec<u64> = expected.map(|m| m.position).take(max).collect();
                let found = state.query(TOPICS[topic], &key, max, begin, end).unwrap();
                assert_eq!(found.offsets, expected, "{key} of {begin}..={end}");
            }
        }
    }
    state.inner.index_applied().unwrap();
    let start = state.log_start();
    let progress = state.inner.keys.state.lock();
    assert!(progress.pending.len() < super::KEYS_MAX);
    assert!(
        progress
            .blocks
            .iter()
            .skip(1)
            .all(|block| block.end > start)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Queries find what a plain search finds, through blocks, trims and crashes.
    #[test]
    fn queries_equal_a_plain_search(steps in prop::collection::vec(step(), 1..80)) {
        run(steps);
    }
}

/// The thread indexes by itself, and a query waits for it.
#[test]
fn query_sees_what_was_just_applied() {
    let log = CommitLog::memory();
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path(), log.clone(), StateOptions::default()).unwrap();
    for n in 0..300u64 {
        let keys = properties::encode([(properties::UNIQ_KEY, &*format!("U{n}"))]);
        let record = message("A", &keys, 0, n, n as i64);
        let entry = append(&log, EntryKind::Data, &[], &record);
        state.apply(std::slice::from_ref(&entry)).unwrap();
        if n % 50 == 0 {
            let found = state.query("A", &format!("U{n}"), 32, 0, i64::MAX).unwrap();
            assert_eq!(found.offsets, [entry.records_position()]);
            assert_eq!(
                (found.last_update_ms, found.last_update_offset),
                (n as i64, entry.records_position())
            );
        }
    }
    assert!(
        state
            .query("B", "U0", 32, 0, i64::MAX)
            .unwrap()
            .offsets
            .is_empty()
    );
    state.close().unwrap();
}

/// Known values: hashes are in databases.
#[test]
fn hashes_do_not_change() {
    assert_eq!(
        super::hash("TopicTest", "7F0000010001"),
        15_585_322_043_551_186_067
    );
}
