//! The state against a plain model, with two members that persist and crash at different times.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use raftmq_proto::body::{DataVersion, SubscriptionGroupConfig, TopicConfig};
use raftmq_proto::command::{
    Command, DeleteGroup, DeleteKv, DeleteTopic, OffsetRow, Op, PutGroup, PutKv, PutTopic,
    SaveOffsets, StartQueue, TrimLog,
};
use raftmq_proto::message::record::{self, NewRecord};
use raftmq_proto::message::{sys_flag, tags_code};

use super::queue::QueueBounds;
use super::*;
use crate::disk::MemoryDisk;
use crate::entry::{EntryKind, LogId, NewEntry};
use crate::log::LogOptions;

const TOPICS: [&str; 3] = ["A", "B", "C"];
const GROUPS: [&str; 2] = ["g", "h"];
/// No position of a log here.
const BEYOND: u64 = u64::MAX / 2;

pub(super) fn by_hand() -> StateOptions {
    StateOptions {
        background: false,
        ..StateOptions::default()
    }
}

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

/// The state as a list of maps.
#[derive(Default, Clone)]
struct Model {
    topics: BTreeMap<String, TopicConfig>,
    groups: BTreeMap<String, SubscriptionGroupConfig>,
    topic_version: DataVersion,
    group_version: DataVersion,
    offsets: BTreeMap<(String, String, i32), i64>,
    kv: BTreeMap<String, Vec<u8>>,
    queues: BTreeMap<(String, i32), Units>,
    log_start: u64,
    membership: Option<(LogId, Vec<u8>)>,
}

/// Everything a queue ever had.
#[derive(Default, Clone)]
struct Units {
    start: u64,
    units: Vec<Unit>,
}

impl Units {
    fn bounds(&self, log_start: u64) -> QueueBounds {
        let gone = self
            .units
            .iter()
            .filter(|unit| unit.physical_offset < log_start);
        QueueBounds {
            min: self.start + gone.count() as u64,
            max: self.start + self.units.len() as u64,
        }
    }

    fn from(&self, offset: u64) -> &[Unit] {
        let nth = offset.checked_sub(self.start).unwrap_or(u64::MAX);
        self.units.get(nth as usize..).unwrap_or_default()
    }
}

impl Model {
    fn drop_messages(&mut self, topic: &str) {
        self.queues.retain(|(t, _), _| t != topic);
        self.offsets.retain(|(_, t, _), _| t != topic);
    }

    /// Applies an operation; false when it is refused.
    fn op(&mut self, op: &Op, term: i64, time_ms: i64) -> bool {
        match op {
            Op::PutTopic(put) => {
                let Ok(config) = TopicConfig::from_json(&put.config_json) else {
                    return false;
                };
                if !self.topics.contains_key(&config.topic_name) {
                    self.drop_messages(&config.topic_name);
                }
                self.topics.insert(config.topic_name.clone(), config);
                self.topic_version.advance(term, time_ms);
            }
            Op::DeleteTopic(delete) => {
                self.drop_messages(&delete.topic);
                if self.topics.remove(&delete.topic).is_some() {
                    self.topic_version.advance(term, time_ms);
                }
            }
            Op::PutGroup(put) => {
                let config = SubscriptionGroupConfig::from_json(&put.config_json).unwrap();
                self.groups.insert(config.group_name.clone(), config);
                self.group_version.advance(term, time_ms);
            }
            Op::DeleteGroup(delete) => {
                if self.groups.remove(&delete.group).is_some() {
                    self.group_version.advance(term, time_ms);
                }
                if delete.clean_offset {
                    self.offsets.retain(|(g, ..), _| *g != delete.group);
                }
            }
            Op::SaveOffsets(save) => {
                for row in &save.rows {
                    let known = self.topics.contains_key(&row.topic)
                        || self.queues.keys().any(|(topic, _)| *topic == row.topic);
                    if known {
                        let key = (row.group.clone(), row.topic.clone(), row.queue_id);
                        let saved = self.offsets.entry(key).or_insert(row.offset);
                        *saved = if row.reset {
                            row.offset
                        } else {
                            row.offset.max(*saved)
                        };
                    }
                }
            }
            Op::PutKv(put) => {
                self.kv.insert(put.key.clone(), put.value.clone());
            }
            Op::DeleteKv(delete) => {
                self.kv.remove(&delete.key);
            }
            Op::TrimLog(trim) if trim.position > BEYOND => return false,
            Op::TrimLog(trim) => self.log_start = self.log_start.max(trim.position),
            Op::StartQueue(start) => {
                let queue = self.queues.entry((start.topic.clone(), start.queue_id));
                let is_new = matches!(queue, Entry::Vacant(_));
                let queue = queue.or_default();
                // A queue is there once it has a message, or was started.
                if !is_new && !queue.units.is_empty() {
                    return false;
                }
                queue.start = start.offset;
            }
        }
        true
    }

    fn next(&self, topic: &str, queue_id: i32) -> u64 {
        self.queues
            .get(&(topic.to_owned(), queue_id))
            .map_or(0, |queue| queue.bounds(0).max)
    }

    fn check(&self, state: &State) {
        let topics: Vec<_> = self.topics.values().cloned().map(Arc::new).collect();
        assert_eq!(state.topics(), topics);
        let groups: Vec<_> = self.groups.values().cloned().map(Arc::new).collect();
        assert_eq!(state.groups(), groups);
        assert_eq!(state.topic_version(), self.topic_version);
        assert_eq!(state.group_version(), self.group_version);
        assert_eq!(state.membership(), self.membership);
        for group in GROUPS {
            let expected: Vec<(Arc<str>, i32, i64)> = self
                .offsets
                .iter()
                .filter(|((g, ..), _)| g == group)
                .map(|((_, topic, queue_id), offset)| (Arc::from(&**topic), *queue_id, *offset))
                .collect();
            assert_eq!(state.offsets_of_group(group), expected);
        }
        for topic in TOPICS {
            let of_topic: Vec<Arc<str>> = GROUPS
                .into_iter()
                .filter(|group| {
                    self.offsets
                        .keys()
                        .any(|(g, t, _)| g == group && t == topic)
                })
                .map(Arc::from)
                .collect();
            assert_eq!(state.groups_of_topic(topic), of_topic);
        }
        for key in 0..4 {
            let key = key.to_string();
            assert_eq!(
                state.kv("ns", &key).as_deref(),
                self.kv.get(&key).map(Vec::as_slice)
            );
        }
        for topic in TOPICS {
            for queue_id in 0..3 {
                let queue = self.queues.get(&(topic.to_owned(), queue_id));
                let queue = queue.cloned().unwrap_or_default();
                let bounds = queue.bounds(self.log_start);
                assert_eq!(state.queue_bounds(topic, queue_id), bounds);
                let QueueBounds { min, max } = bounds;
                let all = state.units(topic, queue_id, min, usize::MAX).unwrap();
                assert_eq!(all, queue.from(min));
                for from in [min + 1, min + 250, max.saturating_sub(3)] {
                    let part = queue.from(from.max(min));
                    let part = part.get(..10).unwrap_or(part);
                    let found = state.units(topic, queue_id, from.max(min), 10).unwrap();
                    assert_eq!(found, part);
                }
                for from in [min.wrapping_sub(1), max] {
                    assert!(state.units(topic, queue_id, from, 10).unwrap().is_empty());
                }
                for (nth, unit) in all.iter().enumerate().rev().step_by(50) {
                    let offset = min + nth as u64;
                    let bytes = state.record(unit).unwrap();
                    let record = record::RecordRef::parse(&bytes).unwrap();
                    assert_eq!((record.topic(), record.queue_id()), (topic, queue_id));
                    assert_eq!(record.queue_offset(), offset);
                    assert_eq!(record.physical_offset(), unit.physical_offset);
                    let time = record.store_timestamp();
                    let found = state.offset_by_time(topic, queue_id, time, Boundary::Lower);
                    let of = |offset| state.store_time_at(topic, queue_id, offset).unwrap();
                    let found = found.unwrap();
                    assert!((min..=offset).contains(&found) && of(found) == Some(time));
                }
                for unit in queue.units.iter().take((min - queue.start) as usize) {
                    let gone = state.record(unit);
                    assert!(matches!(gone, Err(Error::NoRecord { .. })));
                }
            }
        }
        assert_eq!(state.log_start(), self.log_start);
    }

    /// The database has no blocks but those of what is there.
    fn check_blocks(&self, state: &State) {
        while !state.sweep(usize::MAX).unwrap() {}
        state.persist().unwrap();
        let tables = state.tables();
        let mut found: Vec<Vec<u8>> = Vec::new();
        let from_blocks = rocksdb::IteratorMode::From(b"q", rocksdb::Direction::Forward);
        for row in state.inner.db.iterator(from_blocks) {
            let (key, _) = row.unwrap();
            if rows::decode(&key) != Some(rows::Key::Block) {
                break;
            }
            found.push(key.into_vec());
        }
        for (_, queue) in tables.queues.values().flat_map(|queues| queues.iter()) {
            let QueueBounds { min, max } = queue.bounds;
            for block in min / 256..max.div_ceil(256) {
                let key = rows::block(queue.id, block);
                let nth = found.iter().position(|found| **found == key);
                // The tail of a queue without messages may be there or not.
                assert!(nth.is_some() || min == max, "block {block} of {min}..{max}");
                nth.map(|nth| found.remove(nth));
            }
        }
        assert!(found.is_empty(), "left over: {found:?}");
    }
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

pub(super) fn message(
    topic: &str,
    queue_id: i32,
    sys_flag: i32,
    tags: &str,
    offset: u64,
    time: i64,
) -> BytesMut {
    let host = "127.0.0.1:10911".parse().unwrap();
    let properties = format!("TAGS\u{1}{tags}\u{2}");
    let new = NewRecord {
        queue_id,
        flag: 0,
        sys_flag,
        born_timestamp: 1,
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: b"body",
        topic,
        properties: if tags.is_empty() { "" } else { &properties },
    };
    let mut out = BytesMut::new();
    new.encode(&mut out).unwrap();
    record::stamp_queue_offset(&mut out, offset);
    record::stamp_store_timestamp(&mut out, time);
    out
}

/// Appends an entry and returns it as it is in the log.
pub(super) fn append(
    log: &CommitLog,
    kind: EntryKind,
    command: &[u8],
    records: &[u8],
) -> StoredEntry {
    let index = log.next_index();
    let mut body = BytesMut::from(command);
    body.put_slice(records);
    let command_len = if kind == EntryKind::Membership {
        body.len()
    } else {
        command.len()
    };
    let id = LogId::new(1 + index / 7, index);
    let command_len = command_len as u32;
    log.append(
        [NewEntry::Fresh {
            id,
            kind,
            command_len,
            body,
        }],
        Box::new(drop),
    )
    .unwrap();
    log.read(index, index + 1, None).unwrap().remove(0)
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

/// Observers hear of arrivals once they are visible, grouped by queue, and of changes.
#[test]
fn observer_is_told_what_is_visible() {
    #[derive(Default)]
    struct Heard {
        state: Mutex<Option<Arc<State>>>,
        arrivals: Mutex<Vec<Arrival>>,
        changes: Mutex<Vec<&'static str>>,
    }
    impl ApplyObserver for Heard {
        fn arrived(&self, arrivals: &[Arrival]) {
            let state = self.state.lock().clone().unwrap();
            for arrival in arrivals {
                let max = state.queue_bounds(&arrival.topic, arrival.queue_id).max;
                assert_eq!(max, arrival.queue_offset_end);
                let units = state
                    .units(&arrival.topic, arrival.queue_id, arrival.first, 99)
                    .unwrap();
                let codes: Vec<i64> = units.iter().map(|unit| unit.tags_code).collect();
                assert_eq!(codes, arrival.tags_codes);
                assert!(units.iter().all(|unit| state.record(unit).is_ok()));
            }
            self.arrivals.lock().extend_from_slice(arrivals);
        }
        fn topics_changed(&self) {
            self.changes.lock().push("topics");
        }
        fn groups_changed(&self) {
            self.changes.lock().push("groups");
        }
    }
    let log = CommitLog::memory();
    let dir = tempfile::tempdir().unwrap();
    let state = Arc::new(State::open(dir.path(), log.clone(), by_hand()).unwrap());
    let heard = Arc::new(Heard::default());
    *heard.state.lock() = Some(state.clone());
    state.set_observer(heard.clone());
    let command = Command {
        time_ms: 5,
        ops: vec![op(Change::PutTopic(0, 4), 0), op(Change::PutGroup(0, 1), 0)],
    };
    let mut records = message("A", 0, 0, "x", 0, 1);
    records.put_slice(&message("A", 1, 0, "", 0, 1));
    records.put_slice(&message("A", 0, 0, "y", 1, 1));
    records.put_slice(&message("A", 0, 0, "y", 7, 1));
    let first = append(&log, EntryKind::Data, &command.encode(), &records);
    let second = append(&log, EntryKind::Data, &[], &message("A", 0, 0, "z", 2, 1));
    state.apply(&[first, second]).unwrap();
    assert_eq!(*heard.changes.lock(), ["topics", "groups"]);
    let arrival = |queue_id, end, tags: &[&str]| Arrival {
        topic: Arc::from("A"),
        queue_id,
        first: 0,
        queue_offset_end: end,
        tags_codes: tags.iter().map(|tags| tags_code(tags)).collect(),
    };
    assert_eq!(
        *heard.arrivals.lock(),
        [arrival(0, 3, &["x", "y", "z"]), arrival(1, 1, &[""])]
    );
    *heard.state.lock() = None;
}

/// Boundaries of the search by time, also with equal times and in an empty queue.
#[test]
fn offset_by_time_has_both_boundaries() {
    let log = CommitLog::memory();
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path(), log.clone(), by_hand()).unwrap();
    assert_eq!(state.offset_by_time("A", 0, 5, Boundary::Lower).unwrap(), 0);
    for (offset, time) in (0..).zip([100, 200, 200, 200, 300]) {
        let entry = append(
            &log,
            EntryKind::Data,
            &[],
            &message("A", 0, 0, "", offset, time),
        );
        state.apply(&[entry]).unwrap();
    }
    for (time, lower, upper) in [
        (0, 0, 0),
        (100, 0, 0),
        (150, 1, 0),
        (200, 1, 3),
        (250, 4, 3),
        (300, 4, 4),
        (400, 5, 4),
    ] {
        assert_eq!(
            state.offset_by_time("A", 0, time, Boundary::Lower).unwrap(),
            lower,
            "{time}"
        );
        assert_eq!(
            state.offset_by_time("A", 0, time, Boundary::Upper).unwrap(),
            upper,
            "{time}"
        );
    }
    assert_eq!(state.store_time_at("A", 0, 4).unwrap(), Some(300));
    assert_eq!(state.store_time_at("A", 0, 5).unwrap(), None);
}

/// Entries out of order and commands of a newer version stop the member before anything changes.
#[test]
fn what_cannot_be_applied_changes_nothing() {
    let log = CommitLog::memory();
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path(), log.clone(), by_hand()).unwrap();
    let put = Command {
        time_ms: 1,
        ops: vec![op(Change::PutTopic(0, 1), 0)],
    }
    .encode();
    let first = append(&log, EntryKind::Data, &put, &[]);
    let second = append(&log, EntryKind::Data, &put, &[]);
    // A second operation with field 15, which no version has.
    let newer = [&put[..], &[0x12, 0x02, 0x7a, 0x00]].concat();
    let third = append(&log, EntryKind::Data, &newer, &[]);
    assert!(matches!(
        state.apply(std::slice::from_ref(&second)),
        Err(Error::Malformed { .. })
    ));
    assert!(matches!(
        state.apply(&[first.clone(), second, third]),
        Err(Error::Malformed { .. })
    ));
    assert_eq!(state.applied(), None);
    assert!(state.topic("A").is_none());
    state.apply(&[first]).unwrap();
    assert_eq!(state.applied(), Some(LogId::new(1, 0)));
}

/// A state that is ahead of its log, or belongs to another one, is refused.
#[test]
fn state_must_fit_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = CommitLog::memory();
    let state = State::open(dir.path(), log.clone(), by_hand()).unwrap();
    for _ in 0..8 {
        let entry = append(&log, EntryKind::Blank, &[], &[]);
        state.apply(&[entry]).unwrap();
    }
    state.close().unwrap();
    drop(state);
    let refused = |log: CommitLog| {
        State::open(dir.path(), log, by_hand())
            .unwrap_err()
            .to_string()
    };
    let shorter = CommitLog::memory();
    append(&shorter, EntryKind::Blank, &[], &[]);
    let error = refused(shorter);
    assert!(error.contains("lost entries"), "{error}");
    let other = CommitLog::memory();
    for index in 0..9 {
        let id = LogId::new(9, index);
        let body = BytesMut::new();
        let entry = NewEntry::Fresh {
            id,
            kind: EntryKind::Blank,
            command_len: 0,
            body,
        };
        other.append([entry], Box::new(drop)).unwrap();
    }
    let error = refused(other);
    assert!(error.contains("do not belong together"), "{error}");
    assert!(State::open(dir.path(), log, by_hand()).is_ok());
}

/// A hole in the log where the state was persisted last does not keep a member from starting.
#[test]
fn state_opens_beside_a_hole() {
    let disk = MemoryDisk::new();
    let options = LogOptions {
        segment_bytes: 1 << 20,
        prepare_ahead: 0,
        ..LogOptions::new("/log")
    };
    let log = CommitLog::open(Arc::new(disk.clone()), options.clone()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path(), log.clone(), by_hand()).unwrap();
    let mut entries = Vec::new();
    for offset in 0..5 {
        let record = message("A", 0, 0, "", offset, 1);
        entries.push(append(&log, EntryKind::Data, &[], &record));
    }
    state.apply(&entries[..3]).unwrap();
    state.close().unwrap();
    log.sync().unwrap();
    drop((state, log));
    let file = std::path::Path::new("/log/00000000000000000000");
    let raw = Bytes::copy_from_slice(&entries[2].raw);
    disk.damage(file, entries[2].position + 9, b"damage");
    let log = CommitLog::open(Arc::new(disk), options).unwrap();
    assert!(matches!(log.log_id(2), Err(Error::Corrupt { .. })));
    let state = State::open(dir.path(), log.clone(), by_hand()).unwrap();
    assert_eq!(state.applied(), Some(entries[2].id));
    let hole = log.holes().remove(0);
    log.repair(&hole, &[raw]).unwrap();
    state.apply(&entries[3..]).unwrap();
    assert_eq!(state.next_offset("A", 0), 5);
}

/// The background thread persists by time and by size, without being asked.
#[test]
fn background_thread_persists() {
    let log = CommitLog::memory();
    let dir = tempfile::tempdir().unwrap();
    let soon = StateOptions {
        persist_interval: Duration::from_millis(1),
        ..StateOptions::default()
    };
    let by_size = StateOptions {
        persist_interval: Duration::from_secs(1000),
        persist_bytes: 100,
        ..StateOptions::default()
    };
    let mut applied = None;
    for options in [soon, by_size] {
        let state = State::open(dir.path(), log.clone(), options).unwrap();
        assert_eq!(state.applied(), applied);
        let entry = append(
            &log,
            EntryKind::Data,
            &[],
            &message("A", 0, 0, "", log.next_index(), 1),
        );
        state.apply(std::slice::from_ref(&entry)).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while state.inner.tables.read().dirty.any || state.inner.persister.is_locked() {
            assert!(std::time::Instant::now() < deadline, "not in time");
            std::thread::yield_now();
        }
        applied = Some(entry.id);
        drop(state);
    }
}
