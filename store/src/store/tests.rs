//! Log and state together, on real files.

use bytes::{BufMut, BytesMut};
use proptest::prelude::*;
use raftmq_proto::body::TopicConfig;
use raftmq_proto::command::{Command, DeleteTopic, OffsetRow, Op, PutTopic, SaveOffsets};
use raftmq_proto::message::record::{self, NewRecord};

use super::*;
use crate::entry::{EntryKind, LogId, NewEntry};
use crate::state::{Boundary, QueueBounds};

fn options(root: &Path) -> StoreOptions {
    let by_hand = StateOptions {
        background: false,
        ..StateOptions::default()
    };
    StoreOptions {
        segment_bytes: 1 << 20,
        state: by_hand,
        ..StoreOptions::new(root, "g", 0)
    }
}

fn message(topic: &str, queue_id: i32, offset: u64, time_ms: i64) -> BytesMut {
    let host = "127.0.0.1:10911".parse().unwrap();
    let new = NewRecord {
        queue_id,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 1,
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: b"body",
        topic,
        properties: "TAGS\u{1}a\u{2}",
    };
    let mut out = BytesMut::new();
    new.encode(&mut out).unwrap();
    record::stamp_queue_offset(&mut out, offset);
    record::stamp_store_timestamp(&mut out, time_ms);
    out
}

/// A member's log as its leader would write it, applied at once.
struct Writer {
    store: Store,
    next: u64,
}

impl Writer {
    fn open(root: &Path) -> Writer {
        let store = Store::open(options(root)).unwrap();
        let next = store.log.next_index();
        let mut writer = Writer { store, next };
        writer.replay();
        writer
    }

    fn replay(&mut self) {
        let from = self.store.state.applied().map_or(0, |id| id.index + 1);
        let mut at = from;
        while at < self.next {
            let entries = self.store.log.read(at, self.next, None).unwrap();
            at += entries.len() as u64;
            self.store.state.apply(&entries).unwrap();
        }
    }

    fn append(&mut self, kind: EntryKind, command: &[u8], records: &[u8]) -> Vec<u64> {
        let mut body = BytesMut::new();
        body.put_slice(command);
        body.put_slice(records);
        let id = LogId::new(1, self.next);
        let command_len = command.len() as u32;
        let entry = NewEntry::Fresh {
            id,
            kind,
            command_len,
            body,
        };
        let (done, flushed) = std::sync::mpsc::channel();
        self.store
            .log
            .append([entry], Box::new(move |r| done.send(r).unwrap()))
            .unwrap();
        flushed.recv().unwrap().unwrap();
        self.next += 1;
        let entries = self.store.log.read(id.index, self.next, None).unwrap();
        let applied = self.store.state.apply(&entries).unwrap();
        applied.into_iter().next().unwrap().refused
    }

    fn ops(&mut self, ops: Vec<Op>) {
        let command = Command { time_ms: 7, ops }.encode();
        self.append(EntryKind::Data, &command, &[]);
    }
}

fn put_topic(name: &str) -> Op {
    Op::PutTopic(PutTopic {
        config_json: TopicConfig::new(name, 4, 6).to_json(),
    })
}

fn save(offset: i64, reset: bool) -> Op {
    let row = OffsetRow {
        group: "G".into(),
        topic: "T".into(),
        queue_id: 1,
        offset,
        reset,
    };
    Op::SaveOffsets(SaveOffsets { rows: vec![row] })
}

/// Messages, metadata and time search; a wrongly numbered message is refused and leaves no trace; a
/// reopened store, persisted or not, is the same.
#[test]
fn applies_refuses_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path());
    writer.ops(vec![put_topic("T"), save(5, false), save(3, false)]);
    for n in 0..600 {
        assert!(
            writer
                .append(EntryKind::Data, &[], &message("T", 1, n, 1000 + n as i64))
                .is_empty()
        );
        if n == 300 {
            writer.store.state.persist().unwrap();
        }
    }
    assert_eq!(
        writer
            .append(EntryKind::Data, &[], &message("T", 1, 700, 9999))
            .len(),
        1
    );
    writer.append(EntryKind::Blank, &[], &[]);
    writer.append(EntryKind::Membership, &[], b"members");
    let digest = writer.store.state.digest().unwrap();
    drop(writer);

    for round in 0..2 {
        let writer = Writer::open(dir.path());
        let state = &writer.store.state;
        assert_eq!(state.digest().unwrap(), digest, "round {round}");
        assert_eq!(state.queue_bounds("T", 1), QueueBounds { min: 0, max: 600 });
        assert_eq!(state.consumer_offset("G", "T", 1), Some(5));
        assert_eq!(state.membership().unwrap().1, b"members");
        assert_eq!(state.topic("T").unwrap().write_queue_nums, 4);
        let units = state.units("T", 1, 250, 10).unwrap();
        assert_eq!(units.len(), 10);
        let record = state.record(&units[6]).unwrap();
        let parsed = record::RecordRef::parse(&record).unwrap();
        assert_eq!(
            (parsed.queue_offset(), parsed.physical_offset()),
            (256, units[6].physical_offset)
        );
        let at = |time, boundary| state.offset_by_time("T", 1, time, boundary).unwrap();
        assert_eq!(at(1300, Boundary::Lower), 300);
        assert_eq!(at(0, Boundary::Lower), 0);
        assert_eq!(at(5000, Boundary::Lower), 600);
        assert_eq!(at(1300, Boundary::Upper), 300);
        assert_eq!(at(5000, Boundary::Upper), 599);
        assert_eq!(at(0, Boundary::Upper), 0);
        writer.store.close().unwrap();
    }
}

/// A topic that was deleted leaves nothing; made again it starts from 0.
#[test]
fn deleted_topic_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path());
    writer.ops(vec![put_topic("T"), save(5, false)]);
    for n in 0..300 {
        writer.append(EntryKind::Data, &[], &message("T", 0, n, n as i64));
    }
    writer.store.state.persist().unwrap();
    writer.ops(vec![Op::DeleteTopic(DeleteTopic { topic: "T".into() })]);
    assert!(writer.store.state.topic("T").is_none());
    assert_eq!(writer.store.state.consumer_offset("G", "T", 1), None);
    assert_eq!(
        writer
            .append(EntryKind::Data, &[], &message("T", 0, 300, 1))
            .len(),
        1
    );
    writer.ops(vec![put_topic("T"), save(1, true)]);
    assert!(
        writer
            .append(EntryKind::Data, &[], &message("T", 0, 0, 1))
            .is_empty()
    );
    writer.store.state.persist().unwrap();
    let digest = writer.store.state.digest().unwrap();
    drop(writer);
    let writer = Writer::open(dir.path());
    assert_eq!(writer.store.state.queue_bounds("T", 0).max, 1);
    assert_eq!(writer.store.state.units("T", 0, 0, 10).unwrap().len(), 1);
    assert_eq!(writer.store.state.digest().unwrap(), digest);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whenever the state was persisted, and however often the process was gone, replaying gives the
    /// state that was there.
    #[test]
    fn same_state_whatever_was_persisted(steps in prop::collection::vec((0u8..8, 0i32..3), 1..120)) {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path());
        for (step, queue) in steps {
            match step {
                0 => writer.store.state.persist().unwrap(),
                1 => {
                    let digest = writer.store.state.digest().unwrap();
                    drop(writer);
                    writer = Writer::open(dir.path());
                    prop_assert_eq!(writer.store.state.digest().unwrap(), digest);
                }
                2 => writer.ops(vec![put_topic("T"), save(i64::from(queue) * 10, queue == 0)]),
                3 if queue == 0 => writer.ops(vec![Op::DeleteTopic(DeleteTopic { topic: "T".into() })]),
                _ => {
                    let mut records = BytesMut::new();
                    let next = writer.store.state.next_offset("T", queue);
                    for n in 0..u64::from(step) * 30 {
                        records.put_slice(&message("T", queue, next + n, n as i64));
                    }
                    prop_assert!(writer.append(EntryKind::Data, &[], &records).is_empty());
                }
            }
        }
    }
}

fn mine(root: &Path) -> StoreOptions {
    StoreOptions {
        self_id: 1,
        ..options(root)
    }
}

fn refused(options: StoreOptions) -> String {
    let text = Store::open(options).unwrap_err().to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// One process at a time, also where only the log folder is shared; free again after a drop.
#[test]
fn lock_keeps_others_out() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let store = Store::open(mine(&root)).unwrap();
    assert!(refused(mine(&root)).contains("in use by another process"));
    let log = store.log.clone();
    drop(store);
    assert!(
        refused(mine(&root)).contains("in use"),
        "a handle of the log is left"
    );
    drop(log);
    let store = Store::open(mine(&root)).unwrap();
    assert_eq!(store.last_stop(), LastStop::Process);
    store.close().unwrap();
    drop(store);
    assert_eq!(
        Store::open(mine(&root)).unwrap().last_stop(),
        LastStop::Clean
    );

    let shared = Some(dir.path().join("log"));
    let one = StoreOptions {
        commit_log_dir: shared.clone(),
        ..mine(&dir.path().join("a"))
    };
    let two = StoreOptions {
        commit_log_dir: shared,
        ..mine(&dir.path().join("b"))
    };
    let store = Store::open(one).unwrap();
    assert_eq!(store.last_stop(), LastStop::Never);
    assert!(refused(two.clone()).contains("in use"));
    drop(store);
    assert!(refused(StoreOptions { self_id: 2, ..two }).contains("this is no store"));
}

/// That the machine stopped below a member that had not flushed is known until it has been noted elsewhere.
#[test]
fn what_may_be_forgotten_is_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    drop(Store::open(mine(&root)).unwrap());
    std::fs::write(root.join(ABORT), "an earlier boot\nasync\n").unwrap();
    let forgot = LastStop::Machine { was_async: true };
    // A start that ends before, one that is even closed, and the one that notes it.
    for close in [false, true, false] {
        let store = Store::open(mine(&root)).unwrap();
        assert_eq!(store.last_stop(), forgot);
        if close {
            store.close().unwrap();
        }
    }
    Store::open(mine(&root))
        .unwrap()
        .forgetting_noted()
        .unwrap();
    let store = Store::open(mine(&root)).unwrap();
    assert_eq!(store.last_stop(), LastStop::Process);
    store.close().unwrap();
    drop(store);
    let store = Store::open(mine(&root)).unwrap();
    assert_eq!(store.last_stop(), LastStop::Clean);
}

/// A store of another group or member, or with another segment size, is left alone.
#[test]
fn identity_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let mine = mine(dir.path());
    drop(Store::open(mine.clone()).unwrap());
    let error = refused(StoreOptions {
        group: "other".to_owned(),
        ..mine.clone()
    });
    assert!(
        error.contains("dLegerGroup=g") && error.contains("=other"),
        "{error}"
    );
    assert!(
        refused(StoreOptions {
            self_id: 3,
            ..mine.clone()
        })
        .contains("n3")
    );
    assert!(
        refused(StoreOptions {
            segment_bytes: 1 << 21,
            ..mine.clone()
        })
        .contains("2097152")
    );
    assert!(
        refused(StoreOptions {
            segment_bytes: 1,
            ..mine
        })
        .contains("mappedFileSize")
    );
}

/// Folders that cannot be used, and the files of the original, are refused in one line.
#[test]
fn unusable_folders_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert!(refused(mine(&file)).contains(&file.display().to_string()));
    assert!(refused(mine(&file.join("below"))).contains("below"));

    let java = dir.path().join("java");
    std::fs::create_dir_all(java.join("commitlog")).unwrap();
    std::fs::write(java.join("commitlog/00000000000000000000"), "x").unwrap();
    assert!(refused(mine(&java)).contains("no store of RaftMQ"));
}
