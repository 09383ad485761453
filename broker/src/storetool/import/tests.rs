//! Stores of the original, made here byte by byte, and what becomes of them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use raftmq_proto::message::record::{
    NewRecord, RecordRef, stamp_physical_offset, stamp_queue_offset,
};
use raftmq_proto::message::sys_flag::TRANSACTION_ROLLBACK_TYPE;
use raftmq_store::{QueueBounds, Store};
use serde_json::Value;
use tempfile::TempDir;

use super::reader::Layout;
use super::*;
use crate::storetool::tests::tool;

const SEGMENT: usize = 4096;
const CONF: &str = "brokerName=g\nbrokerClusterName=c\nenableDLegerCommitLog=true\n\
    dLegerGroup=g\ndLegerPeers=n0-127.0.0.1:1;n1-127.0.0.1:2;n2-127.0.0.1:3\ndLegerSelfId=n1\n\
    maxMessageSize=65536\nmappedFileSizeCommitLog=4194304\n";

/// A store of the original in a folder of its own.
struct Java {
    dir: TempDir,
    layout: Layout,
    /// Position and bytes of the segment being filled.
    start: usize,
    segment: Vec<u8>,
    index: u64,
    term: u64,
}

impl Java {
    fn new(layout: Layout) -> Java {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("java/config")).unwrap();
        Java {
            dir,
            layout,
            start: 0,
            segment: Vec::new(),
            index: 0,
            term: 1,
        }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("java")
    }

    fn log(&self) -> PathBuf {
        self.root().join(match self.layout {
            Layout::Plain => "commitlog",
            Layout::DLedger => "dledger-n0/data",
        })
    }

    fn table(&self, name: &str, text: &str) {
        std::fs::write(self.root().join("config").join(name), text).unwrap();
    }

    fn topics(&self, names: &[&str]) {
        let mut text = String::from("{\"topicConfigTable\":{");
        for (nth, name) in names.iter().enumerate() {
            let comma = if nth > 0 { "," } else { "" };
            write!(
                text,
                "{comma}\"{name}\":{{\"topicName\":\"{name}\",\"readQueueNums\":4,\"writeQueueNums\":4,\"perm\":6}}"
            )
            .unwrap();
        }
        text.push_str("}}");
        self.table("topics.json", &text);
    }

    fn flagged(&mut self, topic: &str, queue_id: i32, offset: u64, body: &str, sys_flag: i32) {
        let host = "10.0.0.1:10911".parse().unwrap();
        let mut record = BytesMut::new();
        NewRecord {
            queue_id,
            flag: 5,
            sys_flag,
            born_timestamp: 1,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: body.as_bytes(),
            topic,
            properties: "KEYS\u{1}key\u{2}TAGS\u{1}tag\u{2}",
        }
        .encode(&mut record)
        .unwrap();
        let header = if self.layout == Layout::Plain { 0 } else { 48 };
        if self.segment.len() + header + record.len() + 8 > SEGMENT {
            let left = ((SEGMENT - self.segment.len()) as u32).to_be_bytes();
            match self.layout {
                Layout::Plain => {
                    self.segment.extend(left);
                    self.segment.extend(0xCBD4_3194u32.to_be_bytes());
                }
                Layout::DLedger => {
                    self.segment.extend([0xFF; 4]);
                    self.segment.extend(left);
                }
            }
            self.save();
            self.start += SEGMENT;
            self.segment.clear();
        }
        let position = (self.start + self.segment.len()) as u64;
        stamp_queue_offset(&mut record, offset);
        stamp_physical_offset(&mut record, position + header as u64);
        if self.layout == Layout::DLedger {
            self.header(1, record.len());
        }
        self.segment.extend(&record);
    }

    fn header(&mut self, magic: u32, body: usize) {
        let position = (self.start + self.segment.len()) as u64;
        self.segment.extend(magic.to_be_bytes());
        self.segment.extend((48 + body as u32).to_be_bytes());
        self.segment.extend(self.index.to_be_bytes());
        self.segment.extend(self.term.to_be_bytes());
        self.segment.extend(position.to_be_bytes());
        self.segment.extend([0; 12]);
        self.segment.extend((body as u32).to_be_bytes());
        self.index += 1;
    }

    fn put(&mut self, topic: &str, queue_id: i32, offset: u64) {
        let body = format!("{topic}/{queue_id}/{offset} at {}", self.index);
        self.flagged(topic, queue_id, offset, &body, 0);
    }

    /// Writes the segment, whole as Java does.
    fn save(&self) {
        std::fs::create_dir_all(self.log()).unwrap();
        let mut bytes = self.segment.clone();
        bytes.resize(SEGMENT, 0);
        let name = format!("{:020}", self.start);
        std::fs::write(self.log().join(name), bytes).unwrap();
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("new")
    }

    fn import(&self, options: &str) -> anyhow::Result<Value> {
        let conf = self.dir.path().join("conf");
        let text = format!("{CONF}storePathRootDir={}\n", self.target().display());
        std::fs::write(&conf, text).unwrap();
        let (result, text) = tool(&format!(
            "import --from {} -c {} --json {options}",
            self.root().display(),
            conf.display()
        ));
        result?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Opens the new store as a member would.
    fn open(&self) -> Store {
        let text = format!("{CONF}storePathRootDir={}\n", self.target().display());
        let conf = checked::read(text.as_bytes(), None, &Environment::default()).unwrap();
        Store::open(store_options(&conf.group, &conf.node)).unwrap()
    }
}

/// Bodies of a queue, from its first offset on.
fn bodies(store: &Store, topic: &str, queue_id: i32) -> Vec<String> {
    let bounds = store.state.queue_bounds(topic, queue_id);
    let units = store
        .state
        .units(topic, queue_id, bounds.min, 1000)
        .unwrap();
    let read = units.iter().enumerate().map(|(nth, unit)| {
        let bytes = store.state.record(unit).unwrap();
        let record = RecordRef::parse(&bytes).unwrap();
        assert_eq!(record.queue_offset(), bounds.min + nth as u64);
        assert_eq!(record.physical_offset(), unit.physical_offset);
        assert_eq!(record.store_host(), "10.0.0.1:10911".parse().unwrap());
        assert_eq!(record.property("KEYS"), Some("key"));
        record.verify_body_crc().unwrap();
        String::from_utf8(record.body().to_vec()).unwrap()
    });
    read.collect()
}

fn sound(java: &Java) {
    let (result, text) = tool(&format!("verify {}", java.target().display()));
    assert!(result.unwrap(), "{text}");
}

fn error(java: &Java, options: &str) -> String {
    format!("{:#}", java.import(options).unwrap_err())
}

/// Messages, settings and progress of either layout are there afterwards, and the store is sound.
#[test]
fn both_layouts() {
    for layout in [Layout::Plain, Layout::DLedger] {
        let mut java = Java::new(layout);
        java.topics(&["T", "%RETRY%G", "SCHEDULE_TOPIC_XXXX"]);
        java.table(
            "subscriptionGroup.json",
            r#"{"subscriptionGroupTable":{"G":{"groupName":"G","retryMaxTimes":3}}}"#,
        );
        java.table(
            "consumerOffset.json",
            r#"{"offsetTable":{"T@G":{0:7,1:20},"gone@G":{0:1}}}"#,
        );
        java.table("delayOffset.json", r#"{"offsetTable":{3:1}}"#);
        for n in 0..100u64 {
            java.put("T", (n % 2) as i32, n / 2);
        }
        java.put("%RETRY%G", 0, 0);
        java.put("SCHEDULE_TOPIC_XXXX", 2, 0);
        java.put("SCHEDULE_TOPIC_XXXX", 2, 1);
        java.flagged("T", 0, 0, "rolled back", TRANSACTION_ROLLBACK_TYPE);
        java.save();
        let planned = java.import("--dry-run").unwrap();
        assert!(!java.target().exists());
        let report = java.import("").unwrap();
        assert_eq!(planned["messages"], report["messages"]);
        assert_eq!(report["messages"], 103);
        assert_eq!(
            report["leftOut"]["half messages and rollbacks, in no queue"],
            1
        );
        assert!(
            report["notes"]
                .to_string()
                .contains("1 delayed messages wait")
        );
        if layout == Layout::DLedger {
            assert_eq!(report["lastDLedgerEntry"]["index"], 103);
        }
        sound(&java);

        let store = java.open();
        let expected: Vec<String> = (0..50).map(|n| format!("T/1/{n} at ")).collect();
        let found = bodies(&store, "T", 1);
        assert_eq!(found.len(), 50);
        assert!(found.iter().zip(&expected).all(|(a, b)| a.starts_with(b)));
        let state = &store.state;
        assert_eq!(state.consumer_offset("G", "T", 0), Some(7));
        assert_eq!(state.consumer_offset("G", "T", 1), Some(20));
        assert_eq!(state.consumer_offset("G", "gone", 0), None);
        assert_eq!(state.group("G").unwrap().retry_max_times, 3);
        assert_eq!(state.topic("T").unwrap().read_queue_nums, 4);
        assert_eq!(state.kv("delayOffset", "3").unwrap().as_ref(), b"1");
        assert_eq!(bodies(&store, "SCHEDULE_TOPIC_XXXX", 2).len(), 2);
        let (_, members) = state.membership().unwrap();
        assert_eq!(raftmq_raft::offline::members(&members).unwrap().len(), 3);
        assert_eq!(store.log.last(), state.applied());
        assert_eq!(store.committed.load().unwrap(), state.applied());
        drop(store);
        assert!(error(&java, "").contains("needs a folder for a new store"));
    }
}

/// A log whose beginning was removed: queues begin where its first messages are.
#[test]
fn a_log_without_its_beginning() {
    let mut java = Java::new(Layout::Plain);
    java.topics(&["T"]);
    java.start = 7 * SEGMENT;
    for n in 40..90 {
        java.put("T", 2, n);
    }
    java.save();
    java.import("").unwrap();
    sound(&java);
    let store = java.open();
    let bounds = QueueBounds { min: 40, max: 90 };
    assert_eq!(store.state.queue_bounds("T", 2), bounds);
    assert!(bodies(&store, "T", 2)[0].starts_with("T/2/40 at"));
}

/// No message is lost at a gap, and consumers go on with the same message.
#[test]
fn gaps_and_repeats() {
    let mut java = Java::new(Layout::DLedger);
    java.topics(&["T"]);
    for offset in [0, 1, 2, 5, 6] {
        java.put("T", 0, offset);
    }
    for offset in [0, 1, 1, 2] {
        java.put("T", 1, offset);
    }
    java.save();
    java.table(
        "consumerOffset.json",
        r#"{"offsetTable":{"T@early":{0:1,1:1},"T@late":{0:6,1:3}}}"#,
    );
    let report = java.import("").unwrap();
    assert_eq!(report["messages"], 9);
    assert!(
        report["notes"].to_string().contains("T/0 has gaps"),
        "{report}"
    );
    sound(&java);
    let store = java.open();
    let of = |queue_id| store.state.queue_bounds("T", queue_id);
    assert_eq!(of(0), QueueBounds { min: 2, max: 7 });
    assert_eq!(of(1), QueueBounds { min: 0, max: 4 });
    let offset = |group, queue_id| store.state.consumer_offset(group, "T", queue_id).unwrap();
    assert_eq!((offset("early", 0), offset("early", 1)), (3, 1));
    assert_eq!((offset("late", 0), offset("late", 1)), (6, 4));
    assert!(bodies(&store, "T", 0)[1].starts_with("T/0/1 at"));
}

/// Deleted topics stay deleted, unknown ones are kept when nothing tells that they were.
#[test]
fn topics_that_are_not_in_the_table() {
    let mut java = Java::new(Layout::Plain);
    java.topics(&["T"]);
    for offset in [0, 1, 2, 0, 1] {
        java.put("T", 0, offset);
    }
    java.put("gone", 0, 0);
    java.put("kept", 5, 0);
    java.save();
    for topic in ["T", "kept"] {
        std::fs::create_dir_all(java.root().join("consumequeue").join(topic)).unwrap();
    }
    let report = java.import("").unwrap();
    assert_eq!(report["messages"], 3, "{report}");
    assert_eq!(report["leftOut"]["of topics that were deleted"], 1);
    let anew = "of topics that were deleted and made anew";
    assert_eq!(report["leftOut"][anew], 3);
    sound(&java);
    let store = java.open();
    assert_eq!(store.state.topic("kept").unwrap().read_queue_nums, 6);
    assert!(store.state.topic("gone").is_none());
    let found = bodies(&store, "T", 0);
    assert!(found[0].starts_with("T/0/0 at") && found.len() == 2);
}

/// What DLedger does not know to be committed is taken unless it shall not be, entries without a
/// message are passed over, and a torn end is no damage.
#[test]
fn the_end_of_a_ledger() {
    let mut java = Java::new(Layout::DLedger);
    java.topics(&["T"]);
    for offset in 0..5 {
        java.put("T", 0, offset);
    }
    java.header(2, 0);
    java.term = 2;
    for offset in 5..8 {
        java.put("T", 0, offset);
    }
    java.header(1, 300);
    java.segment.extend([3; 100]);
    java.save();
    let ledger = java.root().join("dledger-n0");
    std::fs::write(ledger.join("checkpoint"), "endIndex=8\ncommittedIndex=6\n").unwrap();
    let report = java.import("--dry-run --committed-only").unwrap();
    assert_eq!(report["messages"], 6);
    assert_eq!(report["leftOut"]["not known to be committed"], 2);
    let report = java.import("").unwrap();
    assert_eq!(report["messages"], 8);
    assert_eq!(report["committedIndex"], 6);
    assert_eq!(report["lastDLedgerEntry"]["term"], 2);
    assert!(
        report["notes"].to_string().contains("end of the log"),
        "{report}"
    );
    sound(&java);
}

/// Damage is refused with its place, and passed over on request.
#[test]
fn damage() {
    for layout in [Layout::Plain, Layout::DLedger] {
        let mut java = Java::new(layout);
        java.topics(&["T"]);
        for offset in 0..60 {
            java.put("T", 0, offset);
        }
        java.save();
        let path = java.log().join(format!("{:020}", 0));
        let mut bytes = std::fs::read(&path).unwrap();
        for body in [b"T/0/10 at", b"T/0/20 at"] {
            let mut windows = bytes.windows(body.len());
            let at = windows.position(|bytes| bytes == body).unwrap();
            bytes[at] ^= 1;
        }
        std::fs::write(&path, &bytes).unwrap();
        let text = error(&java, "");
        assert!(
            text.contains("2 damaged places") && text.contains("at byte"),
            "{text}"
        );
        assert!(!java.target().exists());
        let report = java.import("--skip-damaged").unwrap();
        assert_eq!(report["messages"], 58, "{report}");
        sound(&java);
        let store = java.open();
        let bounds = QueueBounds { min: 2, max: 60 };
        assert_eq!(store.state.queue_bounds("T", 0), bounds);
    }
}

/// Wrong folders are refused by name.
#[test]
fn refusals() {
    let mut java = Java::new(Layout::Plain);
    java.topics(&[]);
    assert!(error(&java, "").contains("no commit log found"));
    java.put("T", 0, 0);
    java.save();
    let conf = java.dir.path().join("inside");
    let text = format!("{CONF}storePathRootDir={}/x\n", java.root().display());
    std::fs::write(&conf, text).unwrap();
    let (result, _) = tool(&format!(
        "import --from {} -c {}",
        java.root().display(),
        conf.display()
    ));
    assert!(result.unwrap_err().to_string().contains("lies in --from"));
    std::fs::create_dir(java.root().join("dledger-n0")).unwrap();
    std::fs::create_dir(java.root().join("dledger-n1")).unwrap();
    assert!(error(&java, "").contains("several members"));
    let options = format!("--from-commitlog {}", java.log().display());
    assert_eq!(java.import(&options).unwrap()["messages"], 1);
    let (result, _) = tool(&format!(
        "import --from {} -c {}",
        java.target().display(),
        java.dir.path().join("conf").display()
    ));
    assert!(result.unwrap_err().to_string().contains("store of RaftMQ"));
    assert!(Path::new(&java.target()).join("identity").is_file());
}
