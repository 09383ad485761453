//! The state by itself; what it does with its log, its database and its observer.

mod members;
mod model;

use bytes::{BufMut, Bytes, BytesMut};
use raftmq_proto::body::{SubscriptionGroupConfig, TopicConfig};
use raftmq_proto::command::{Command, Op, PutGroup, PutTopic};
use raftmq_proto::message::record::{self, NewRecord};
use raftmq_proto::message::tags_code;

use super::*;
use crate::disk::MemoryDisk;
use crate::entry::{EntryKind, LogId, NewEntry};
use crate::log::LogOptions;

pub(super) fn by_hand() -> StateOptions {
    StateOptions {
        background: false,
        ..StateOptions::default()
    }
}

fn put_topic() -> Op {
    Op::PutTopic(PutTopic {
        config_json: TopicConfig::new("A", 4, 6).to_json(),
    })
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
    let put_group = Op::PutGroup(PutGroup {
        config_json: SubscriptionGroupConfig::new("g").to_json(),
    });
    let command = Command {
        time_ms: 5,
        ops: vec![put_topic(), put_group],
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
        ops: vec![put_topic()],
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
