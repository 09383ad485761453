//! The commands over small stores made here.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use raftmq_proto::body::TopicConfig;
use raftmq_proto::command::{Command, Op, PutTopic};
use raftmq_proto::message::record::{NewRecord, stamp_queue_offset};
use raftmq_raft::offline::Ballot;
use raftmq_store::{EntryKind, LogId, NewEntry, Store, StoreOptions};
use serde_json::Value;

use super::*;

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs a command line; what it said about the store, and its output.
pub(super) fn tool(line: &str) -> (anyhow::Result<bool>, String) {
    let words = std::iter::once("storetool").chain(line.split_whitespace());
    let matches = command().try_get_matches_from(words).unwrap();
    let buffer = Buffer::default();
    let mut out = Output::new(Box::new(buffer.clone()), json(&matches));
    let result = run(&matches, &mut out);
    let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
    (result, text)
}

fn verify(root: &Path) -> (bool, Value) {
    let (result, text) = tool(&format!("verify {} --json", root.display()));
    (result.unwrap(), serde_json::from_str(&text).unwrap())
}

fn record(topic: &str, queue_id: i32, offset: u64, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    let host = "127.0.0.1:1".parse().unwrap();
    let record = NewRecord {
        queue_id,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 1,
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        topic,
        properties: "KEYS\u{1}k1\u{2}TAGS\u{1}t1\u{2}",
    };
    record.encode(&mut out).unwrap();
    stamp_queue_offset(&mut out, offset);
    out
}

fn open(root: &Path) -> Store {
    let mut options = StoreOptions::new(root, "g", 0);
    options.segment_bytes = 4096;
    options.prepare_ahead = 0;
    options.state.background = false;
    Store::open(options).unwrap()
}

/// A store of one topic and 30 messages in two queues, four to a segment or so.
fn make(root: &Path) {
    let store = open(root);
    let fresh = |id, kind, command_len, body| NewEntry::Fresh {
        id,
        kind,
        command_len,
        body,
    };
    let peer = raftmq_raft::Peer {
        id: 0,
        host: "h".to_owned(),
        port: 1,
    };
    let members = raftmq_raft::offline::first_membership(&[peer]).unwrap();
    let mut entries = vec![fresh(
        LogId::new(0, 0),
        EntryKind::Membership,
        members.len() as u32,
        BytesMut::from(&members[..]),
    )];
    let config_json = TopicConfig::new("T", 2, 6).to_json();
    let command = Command {
        time_ms: 1,
        ops: vec![Op::PutTopic(PutTopic { config_json })],
    };
    let command = command.encode();
    entries.push(fresh(
        LogId::new(1, 1),
        EntryKind::Data,
        command.len() as u32,
        BytesMut::from(&command[..]),
    ));
    for n in 0..30u64 {
        let body = record("T", (n % 2) as i32, n / 2, &[n as u8; 700]);
        entries.push(fresh(LogId::new(1, n + 2), EntryKind::Data, 0, body));
    }
    store.log.append(entries, Box::new(drop)).unwrap();
    let entries = store.log.read(0, 32, None).unwrap();
    for applied in store.state.apply(&entries).unwrap() {
        assert!(applied.refused.is_empty());
    }
    store.committed.save(LogId::new(1, 31)).unwrap();
    let ballot = Ballot {
        vote: Some((1, 0, true)),
        recovering: false,
    };
    store.vote.save(&ballot.encode()).unwrap();
    store.close().unwrap();
}

fn damage(path: &Path, offset: u64, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

/// Names, sizes, contents and times of all files below a folder.
fn everything(root: &Path) -> Vec<(std::path::PathBuf, Vec<u8>, std::time::SystemTime)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(dir) = folders.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let time = path.metadata().unwrap().modified().unwrap();
                found.push((path.clone(), std::fs::read(&path).unwrap(), time));
            }
        }
        let time = dir.metadata().unwrap().modified().unwrap();
        found.push((dir, Vec::new(), time));
    }
    found.sort();
    found
}

/// Nothing is wrong with a store that was closed, nor with one whose process died, and looking
/// changes nothing.
#[test]
fn a_sound_store() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let before = everything(dir.path());
    let (fine, report) = verify(dir.path());
    assert!(fine, "{report:#}");
    assert_eq!(report["entries"], 32);
    assert_eq!(report["records"], 30);
    assert_eq!(report["queues"], 2);
    assert_eq!(report["readable"][0]["last"], "1-31");
    let (result, text) = tool(&format!("marks {} --json", dir.path().display()));
    result.unwrap();
    let marks: Value = serde_json::from_str(&text).unwrap();
    for (name, value) in [
        ("lastEntry", "1-31"),
        ("committed", "1-31"),
        ("persisted", "1-31"),
        ("lastStop", "in order"),
        ("identity.dLegerGroup", "g"),
    ] {
        assert_eq!(marks[name], value, "{marks:#}");
    }
    assert_eq!(marks["vote"]["term"], 1);
    let (result, text) = tool(&format!("marks {}", dir.path().display()));
    result.unwrap();
    assert!(text.contains("n0-h:1"), "{text}");
    assert_eq!(everything(dir.path()), before);
}

/// A store in use is refused by name; only dump is not.
#[test]
fn a_store_in_use() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let _store = open(dir.path());
    for command in ["verify", "marks"] {
        let (result, _) = tool(&format!("{command} {}", dir.path().display()));
        let error = result.unwrap_err().to_string();
        assert!(error.contains("in use by another process"), "{error}");
    }
    let segment = dir.path().join("commitlog/00000000000000000000");
    let (result, text) = tool(&format!("dump {} --records", segment.display()));
    assert!(result.unwrap());
    for part in [
        "membership",
        "address=h:1",
        "PutTopic",
        "topic=T",
        "keys=k1",
        "blank end",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

/// Each kind of damage is found, with its file and byte, and what is behind it is still read.
#[test]
fn a_damaged_store() {
    let segment = |n: u64| format!("commitlog/{:020}", n * 4096);
    let cases: [(&str, u64, &[u8], &str, u64); 7] = [
        (&segment(1), 60, &[1], "is damaged", 31),
        (&segment(2), 0, &[0; 2000], "zeros", 29),
        ("vote", 9, &[9], "vote is damaged", 32),
        ("committed", 3, &[9], "CRC is wrong", 32),
        ("identity", 0, &[0xFF], "no text", 32),
        (&segment(0), 0, &[9; 20], "magic", 31),
        ("state/CURRENT", 0, b"x", "state database", 32),
    ];
    for (file, offset, bytes, what, entries) in cases {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path());
        damage(&dir.path().join(file), offset, bytes);
        let before = everything(dir.path());
        let (fine, report) = verify(dir.path());
        assert!(!fine, "{file}: {report:#}");
        let found = report["findings"].to_string();
        let name = file.split('/').next_back().unwrap();
        assert!(
            found.contains(what) && found.contains(name) || what == "state database",
            "{file}: {found}"
        );
        assert_eq!(report["entries"], entries, "{file}: {report:#}");
        assert_eq!(everything(dir.path()), before);
        tool(&format!("marks {}", dir.path().display())).0.unwrap();
    }
}

/// A log whose beginning was removed is sound, and one that does not fit its base is not.
#[test]
fn a_log_without_its_beginning() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let store = open(dir.path());
    assert!(store.log.purge(12).unwrap() > 0);
    let base = store.log.base();
    store.close().unwrap();
    drop(store);
    let (fine, report) = verify(dir.path());
    assert!(fine, "{report:#}");
    assert_eq!(report["entries"], 32 - base.next_index);
    let (_, text) = tool(&format!("marks {} --json", dir.path().display()));
    let marks: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(marks["logStart"], base.position);
    assert_eq!(marks["lastRemoved"], base.prev.unwrap().to_string());
    damage(&dir.path().join("commitlog/base"), 40, &[9]);
    let (fine, report) = verify(dir.path());
    let found = report["findings"].to_string();
    assert!(!fine && found.contains("one of its two copies"), "{found}");
    let first = dir.path().join(format!("commitlog/{:020}", base.position));
    std::fs::remove_file(first).unwrap();
    let (_, report) = verify(dir.path());
    let found = report["findings"].to_string();
    assert!(found.contains("file is missing"), "{found}");
}

/// A missing file, a state ahead of its log and a queue with a gap.
#[test]
fn what_does_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    std::fs::remove_file(dir.path().join(format!("commitlog/{:020}", 4096))).unwrap();
    let (fine, report) = verify(dir.path());
    let found = report["findings"].to_string();
    assert!(!fine && found.contains("file is missing"), "{found}");
    assert_eq!(report["readable"].as_array().unwrap().len(), 2);

    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    std::fs::rename(dir.path().join("state"), dir.path().join("kept")).unwrap();
    std::fs::remove_dir_all(dir.path().join("commitlog")).unwrap();
    let store = open(dir.path());
    let gap = [0, 1, 3].map(|offset| record("T", 0, offset, b"x"));
    let entries = gap
        .into_iter()
        .enumerate()
        .map(|(n, body)| NewEntry::Fresh {
            id: LogId::new(1, n as u64),
            kind: EntryKind::Data,
            command_len: 0,
            body,
        });
    store.log.append(entries, Box::new(drop)).unwrap();
    store.log.sync().unwrap();
    drop(store);
    std::fs::remove_dir_all(dir.path().join("state")).unwrap();
    std::fs::rename(dir.path().join("kept"), dir.path().join("state")).unwrap();
    let (fine, report) = verify(dir.path());
    let found = report["findings"].to_string();
    assert!(!fine);
    for part in ["the queue's next offset is 2", "the log ends at 1-2"] {
        assert!(found.contains(part), "{found}");
    }
}

/// Wrong arguments are answered with the path or value, and what is allowed.
#[test]
fn wrong_arguments() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let root = dir.path().display();
    let error = |line: String| tool(&line).0.unwrap_err().to_string();
    assert!(error("verify /nowhere".to_owned()).contains("/nowhere is no folder"));
    assert!(error(format!("dump {root}/identity")).contains("20 digits"));
    let segment = format!("{root}/commitlog/00000000000000004096");
    let text = error(format!("dump {segment} --from 5"));
    assert!(
        text.contains("--from 5") && text.contains("4096 to 8192"),
        "{text}"
    );
    let (_, text) = tool(&format!("dump {segment} --from 4500 --count 2 --json"));
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(lines[0]["chain"], true);
}
