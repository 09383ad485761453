//! Two members that persist, sweep and crash at different times, and a model.

use std::collections::BTreeMap;

use bytes::{BufMut, BytesMut};
use proptest::prelude::*;
use raftmq_proto::body::{SubscriptionGroupConfig, TopicConfig};
use raftmq_proto::command::{
    Command, DeleteGroup, DeleteKv, DeleteTopic, OffsetRow, Op, PutGroup, PutKv, PutTopic,
    SaveOffsets, StartQueue, TrimLog,
};
use raftmq_proto::message::{sys_flag, tags_code};

use super::super::{Applied, State, Unit};
use super::model::{GROUPS, Model, TOPICS};
use super::{append, by_hand, message};
use crate::entry::EntryKind;
use crate::log::CommitLog;

/// One message to propose.
#[derive(Debug, Clone)]
struct Send {
    topic: usize,
    queue_id: i32,
    /// Numbered this far beside the next offset; refused unless 0.
    off_by: u64,
    flags: i32,
    tag: u8,
    damaged: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Entry(Vec<Change>, Vec<Send>),
    /// So many messages to one queue.
    Burst(usize, u16),
    Membership(u8),
    /// One member looks up so many minima.
    Sweep(usize, usize),
    /// One of the two members persists, or crashes and starts again.
    Persist(usize),
    Crash(usize),
}

#[derive(Debug, Clone)]
enum Change {
    PutTopic(usize, i32),
    DeleteTopic(usize),
    PutGroup(usize, i32),
    DeleteGroup(usize, bool),
    Save {
        group: usize,
        topic: usize,
        queue_id: i32,
        offset: i64,
        reset: bool,
    },
    PutKv(u8, u8),
    DeleteKv(u8),
    /// Up to so many percent of the log; more than all of it is refused.
    Trim(u64),
    Start(usize, i32, u64),
    Unreadable,
}

fn change() -> impl Strategy<Value = Change> {
    let save = (0..2usize, 0..3usize, 0..3i32, 0..50i64, any::<bool>());
    prop_oneof![
        4 => (0..3usize, 1..9i32).prop_map(|(t, n)| Change::PutTopic(t, n)),
        1 => (0..3usize).prop_map(Change::DeleteTopic),
        1 => (0..2usize, 1..9i32).prop_map(|(g, n)| Change::PutGroup(g, n)),
        1 => (0..2usize, any::<bool>()).prop_map(|(g, c)| Change::DeleteGroup(g, c)),
        3 => save.prop_map(|(group, topic, queue_id, offset, reset)| Change::Save { group, topic, queue_id, offset, reset }),
        1 => (0..4u8, any::<u8>()).prop_map(|(k, v)| Change::PutKv(k, v)),
        1 => (0..4u8).prop_map(Change::DeleteKv),
        1 => (0..110u64).prop_map(Change::Trim),
        1 => (0..3usize, 0..3i32, 0..2000u64).prop_map(|(t, q, o)| Change::Start(t, q, o)),
        1 => Just(Change::Unreadable),
    ]
}

fn send() -> impl Strategy<Value = Send> {
    let flags = prop_oneof![
        6 => Just(0),
        1 => Just(sys_flag::TRANSACTION_COMMIT_TYPE),
        1 => Just(sys_flag::TRANSACTION_PREPARED_TYPE),
        1 => Just(sys_flag::TRANSACTION_ROLLBACK_TYPE)
    ];
    let off_by = prop_oneof![8 => Just(0u64), 1 => 1..3u64];
    let damaged = prop_oneof![12 => Just(false), 1 => Just(true)];
    (0..3usize, 0..3i32, off_by, flags, 0..3u8, damaged).prop_map(
        |(topic, queue_id, off_by, flags, tag, damaged)| Send {
            topic,
            queue_id,
            off_by,
            flags,
            tag,
            damaged,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (prop::collection::vec(change(), 0..4), prop::collection::vec(send(), 0..8)).prop_map(|(c, s)| Step::Entry(c, s)),
        3 => (0..3usize, 1..700u16).prop_map(|(t, n)| Step::Burst(t, n)),
        1 => any::<u8>().prop_map(Step::Membership),
        3 => (0..2usize).prop_map(Step::Persist),
        2 => (0..2usize, 1..5usize).prop_map(|(m, n)| Step::Sweep(m, n)),
        1 => (0..2usize).prop_map(Step::Crash),
    ]
}

/// `end` is the end of the log.
fn op(change: Change, end: u64) -> Op {
    match change {
        Change::PutTopic(t, n) => Op::PutTopic(PutTopic {
            config_json: TopicConfig::new(TOPICS[t], n, 6).to_json(),
        }),
        Change::DeleteTopic(t) => Op::DeleteTopic(DeleteTopic {
            topic: TOPICS[t].to_owned(),
        }),
        Change::PutGroup(g, n) => {
            let mut config = SubscriptionGroupConfig::new(GROUPS[g]);
            config.retry_max_times = n;
            Op::PutGroup(PutGroup {
                config_json: config.to_json(),
            })
        }
        Change::DeleteGroup(g, clean_offset) => Op::DeleteGroup(DeleteGroup {
            group: GROUPS[g].to_owned(),
            clean_offset,
        }),
        Change::Save {
            group,
            topic,
            queue_id,
            offset,
            reset,
        } => {
            let (group, topic) = (GROUPS[group].to_owned(), TOPICS[topic].to_owned());
            Op::SaveOffsets(SaveOffsets {
                rows: vec![OffsetRow {
                    group,
                    topic,
                    queue_id,
                    offset,
                    reset,
                }],
            })
        }
        Change::PutKv(key, value) => Op::PutKv(PutKv {
            namespace: "ns".to_owned(),
            key: key.to_string(),
            value: vec![value],
        }),
        Change::DeleteKv(key) => Op::DeleteKv(DeleteKv {
            namespace: "ns".to_owned(),
            key: key.to_string(),
        }),
        Change::Trim(percent) => Op::TrimLog(TrimLog {
            position: if percent > 100 {
                u64::MAX
            } else {
                end * percent / 100
            },
        }),
        Change::Start(t, queue_id, offset) => Op::StartQueue(StartQueue {
            topic: TOPICS[t].to_owned(),
            queue_id,
            offset,
        }),
        Change::Unreadable => Op::PutTopic(PutTopic {
            config_json: b"{".to_vec(),
        }),
    }
}

/// A member: its state, and where it is kept.
struct Member {
    dir: tempfile::TempDir,
    state: State,
}

impl Member {
    fn new(log: &CommitLog) -> Member {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path(), log.clone(), by_hand()).unwrap();
        Member { dir, state }
    }

    /// Forgets what is in memory, and applies again what the database does not have.
    fn crash(self, log: &CommitLog) -> Member {
        let Member { dir, state } = self;
        drop(state);
        let state = State::open(dir.path(), log.clone(), by_hand()).unwrap();
        let from = state.applied().map_or(0, |applied| applied.index + 1);
        let left = log.read(from, log.next_index(), None).unwrap();
        for some in left.chunks(3) {
            state.apply(some).unwrap();
        }
        Member { dir, state }
    }
}

fn run(steps: Vec<Step>) {
    let log = CommitLog::memory();
    let mut members = [Some(Member::new(&log)), Some(Member::new(&log))];
    let mut model = Model::default();
    for step in steps {
        let (changes, sends) = match step {
            Step::Persist(member) => {
                members[member].as_ref().unwrap().state.persist().unwrap();
                continue;
            }
            Step::Crash(member) => {
                members[member] = members[member].take().map(|m| m.crash(&log));
                model.check(&members[member].as_ref().unwrap().state);
                continue;
            }
            Step::Sweep(member, queues) => {
                members[member]
                    .as_ref()
                    .unwrap()
                    .state
                    .sweep(queues)
                    .unwrap();
                continue;
            }
            Step::Membership(byte) => {
                let entry = append(&log, EntryKind::Membership, &[], &[byte; 9]);
                model.membership = Some((entry.id, vec![byte; 9]));
                for member in members.iter().flatten() {
                    member.state.apply(std::slice::from_ref(&entry)).unwrap();
                }
                continue;
            }
            Step::Burst(topic, count) => {
                let send = Send {
                    topic,
                    queue_id: 1,
                    off_by: 0,
                    flags: 0,
                    tag: 1,
                    damaged: false,
                };
                (Vec::new(), vec![send; count.into()])
            }
            Step::Entry(changes, sends) => (changes, sends),
        };
        let ops: Vec<Op> = changes
            .into_iter()
            .map(|change| op(change, log.end_position()))
            .collect();
        let time_ms = log.next_index() as i64 * 10;
        let command = Command {
            time_ms,
            ops: ops.clone(),
        };
        let term = 1 + log.next_index() as i64 / 7;
        let refused_ops: Vec<usize> = ops
            .iter()
            .enumerate()
            .filter(|(_, op)| !model.op(op, term, time_ms))
            .map(|(n, _)| n)
            .collect();

        let bytes = if ops.is_empty() {
            Vec::new()
        } else {
            command.encode()
        };
        let mut records = BytesMut::new();
        let mut refused = Vec::new();
        // What is queued, by its place among the records.
        let mut queued: BTreeMap<(String, i32), Vec<Unit>> = BTreeMap::new();
        for send in &sends {
            let topic = TOPICS[send.topic];
            let tags = ["", "a", "b"][usize::from(send.tag)];
            let key = (topic.to_owned(), send.queue_id);
            let new = queued.get(&key).map_or(0, |units| units.len() as u64);
            let offset = model.next(topic, send.queue_id) + new + send.off_by;
            let mut record = message(topic, send.queue_id, send.flags, tags, offset, time_ms);
            if send.damaged {
                record[4] ^= 1;
            }
            let physical_offset = records.len() as u64;
            let half = send.flags == sys_flag::TRANSACTION_PREPARED_TYPE
                || send.flags == sys_flag::TRANSACTION_ROLLBACK_TYPE;
            if send.damaged || (send.off_by > 0 && !half) {
                refused.push(physical_offset);
            } else if !half {
                let size = record.len() as u32;
                let unit = Unit {
                    physical_offset,
                    size,
                    tags_code: tags_code(tags),
                };
                queued.entry(key).or_default().push(unit);
            }
            records.put_slice(&record);
        }
        let entry = append(&log, EntryKind::Data, &bytes, &records);
        let base = entry.records_position();
        for at in &mut refused {
            *at += base;
        }
        for (key, units) in queued {
            let moved = units.into_iter().map(|unit| Unit {
                physical_offset: unit.physical_offset + base,
                ..unit
            });
            model.queues.entry(key).or_default().units.extend(moved);
        }
        for member in members.iter().flatten() {
            let applied = member.state.apply(std::slice::from_ref(&entry)).unwrap();
            assert_eq!(
                applied,
                [Applied {
                    id: entry.id,
                    refused: refused.clone(),
                    refused_ops: refused_ops.clone()
                }]
            );
        }
    }
    let digests = members.iter().flatten().map(|member| {
        model.check(&member.state);
        member.state.digest().unwrap()
    });
    let digests: Vec<u64> = digests.collect();
    assert_eq!(digests[0], digests[1]);
    for member in members.into_iter().flatten() {
        member.state.close().unwrap();
        model.check_blocks(&member.state);
        let member = member.crash(&log);
        model.check(&member.state);
        assert_eq!(member.state.digest().unwrap(), digests[0]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Both members always equal the model and each other, whenever they persisted or crashed.
    #[test]
    fn members_equal_the_model(steps in prop::collection::vec(step(), 1..40)) {
        run(steps);
    }
}
