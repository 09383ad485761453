//! The state against plain lists and against a member that never stops.
//!
//! A case is a seed. Two members get the same entries. One of them only applies; the other one
//! persists, sweeps, trims its log for good, is killed or loses power, is closed, or goes on from a
//! checkpoint, at random. Whatever it went through, it has to be what the lists say, its digest
//! that of the other one, and a query by key has to find what a plain search finds.

mod model;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use raftmq_proto::body::TopicConfig;
use raftmq_proto::command::{
    Command, DeleteKv, DeleteTopic, OffsetRow, Op, PutKv, PutTopic, SaveOffsets, StartQueue,
    TrimLog,
};
use raftmq_store::disk::MemoryDisk;
use raftmq_store::{
    CommitLog, EntryKind, FlushMode, LogId, LogOptions, NewEntry, State, StateOptions, Unit,
};

use crate::Random;
use model::{GROUPS, KEYS, Model, QUEUES, Sent, TOPICS};

/// A member's log and state.
struct Member {
    log: CommitLog,
    state: State,
    disk: MemoryDisk,
    dir: PathBuf,
}

struct Case {
    random: Random,
    folder: tempfile::TempDir,
    /// Numbers the folders of states.
    folders: u32,
    log_options: LogOptions,
    /// Only applies.
    calm: Member,
    /// What is tested. Its log has all entries of the other one, its state may be behind.
    tried: Option<Member>,
    model: Model,
    now_ms: i64,
    loud: bool,
}

pub(crate) fn run(mut random: Random, loud: bool) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log_options = LogOptions {
        segment_bytes: [4096, 16384, 65536][random.below(3) as usize],
        flush: FlushMode::Async {
            interval: Duration::from_secs(100_000),
        },
        prepare_ahead: 0,
        ..LogOptions::new("/log")
    };
    let calm = Member::open(
        MemoryDisk::new(),
        folder.path().join("calm"),
        &log_options,
        false,
    );
    let dir = folder.path().join("0");
    let tried = Member::open(MemoryDisk::new(), dir, &log_options, false);
    let mut case = Case {
        random,
        folder,
        folders: 0,
        log_options,
        calm,
        tried: Some(tried),
        model: Model::default(),
        now_ms: 1000,
        loud,
    };
    for _ in 0..10 + case.random.below(50) {
        case.step();
    }
    case.compare();
    case.stop();
    case.compare();
}

impl Member {
    fn open(disk: MemoryDisk, dir: PathBuf, options: &LogOptions, background: bool) -> Member {
        let log = CommitLog::open(Arc::new(disk.clone()), options.clone());
        let log = log.unwrap_or_else(|error| panic!("{error}"));
        let options = StateOptions {
            background,
            persist_interval: Duration::from_millis(1),
            ..StateOptions::default()
        };
        let state = State::open(&dir, log.clone(), options);
        let state = state.unwrap_or_else(|error| panic!("{error}"));
        Member {
            log,
            state,
            disk,
            dir,
        }
    }

    /// Applies at most so many of the entries that it has not applied.
    fn apply(&self, max: u64) {
        let first = self.state.applied().map_or(0, |applied| applied.index + 1);
        let end = self.log.next_index().min(first.saturating_add(max));
        let entries = self
            .log
            .read(first, end, None)
            .expect("a log without damage");
        let applied = self.state.apply(&entries).expect("entries in order");
        assert_eq!(applied.len() as u64, end - first);
    }
}

impl Case {
    fn tried(&self) -> &Member {
        self.tried.as_ref().expect("it is open between steps")
    }

    fn step(&mut self) {
        let choice = self.random.below(24);
        if self.loud {
            let (log, applied) = (self.calm.log.next_index(), self.tried().state.applied());
            println!("choice {choice}: {log} entries, applied {applied:?}");
        }
        match choice {
            0..5 => {
                let count = self.random.below(25);
                let sent = (0..count).map(|_| self.any_message()).collect::<Vec<_>>();
                self.send(&sent);
            }
            5..7 => {
                // Full blocks of one queue.
                let sent = self.any_message();
                for _ in 0..self.random.below(20) {
                    self.send(&vec![sent.clone(); 25]);
                }
            }
            7..11 => {
                let count = 1 + self.random.below(3);
                let ops = (0..count).map(|_| self.any_op()).collect();
                self.command(ops);
            }
            11..13 => {
                // Often a segment's start, sometimes more than there is.
                let end = self.calm.log.end_position();
                let at = self.random.below(end + end / 10 + 1);
                let segment = self.log_options.segment_bytes;
                let position = match self.random.below(3) {
                    0 => at,
                    _ => at / segment * segment,
                };
                self.command(vec![Op::TrimLog(TrimLog { position })]);
            }
            13..16 => {
                let max = self.random.below(20);
                self.tried().apply(max);
            }
            16..18 => self.tried().state.persist().expect("there is room"),
            18 => {
                let queues = 1 + self.random.below(5) as usize;
                self.tried()
                    .state
                    .sweep(queues)
                    .expect("nothing is damaged");
            }
            19 => self.purge(),
            20..22 => self.stop(),
            22 => {
                self.tried().apply(u64::MAX);
                let mut random = self.random.clone();
                self.model
                    .query(&self.tried().state, &mut random, self.now_ms);
            }
            _ => self.compare(),
        }
    }

    fn any_message(&mut self) -> Sent {
        let key = self.random.below(2 * KEYS.len() as u64) as usize;
        Sent {
            topic: self.random.below(TOPICS.len() as u64) as usize,
            queue_id: self.random.below(QUEUES as u64) as i32,
            is_refused: self.random.once_in(15),
            key: Some(key).filter(|key| *key < KEYS.len()),
        }
    }

    fn any_op(&mut self) -> Op {
        let topic = TOPICS[self.random.below(TOPICS.len() as u64) as usize].to_owned();
        let queue_id = self.random.below(QUEUES as u64) as i32;
        match self.random.below(12) {
            0..3 => Op::PutTopic(PutTopic {
                config_json: TopicConfig::new(&*topic, QUEUES, 6).to_json(),
            }),
            3 => Op::DeleteTopic(DeleteTopic { topic }),
            4..7 => Op::StartQueue(StartQueue {
                topic,
                queue_id,
                offset: self.random.below(1000),
            }),
            7..10 => {
                let row = OffsetRow {
                    group: GROUPS[self.random.below(2) as usize].to_owned(),
                    topic,
                    queue_id,
                    offset: self.random.below(500) as i64,
                    reset: self.random.once_in(4),
                };
                Op::SaveOffsets(SaveOffsets { rows: vec![row] })
            }
            10 => Op::PutKv(PutKv {
                namespace: "ns".to_owned(),
                key: topic,
                value: vec![queue_id as u8],
            }),
            _ => Op::DeleteKv(DeleteKv {
                namespace: "ns".to_owned(),
                key: topic,
            }),
        }
    }

    fn command(&mut self, ops: Vec<Op>) {
        let command = Command {
            time_ms: self.now_ms,
            ops: ops.clone(),
        };
        let body = BytesMut::from(&*command.encode());
        let position = self.append(body, true);
        for op in ops {
            self.model.apply(&op, position);
        }
    }

    fn send(&mut self, sent: &[Sent]) {
        self.now_ms += self.random.below(3) as i64;
        let mut body = BytesMut::new();
        let mut units: Vec<(&Sent, Unit)> = Vec::new();
        for sent in sent {
            let is_same =
                |other: &&Sent| (other.topic, other.queue_id) == (sent.topic, sent.queue_id);
            let before = units.iter().map(|(sent, _)| *sent).filter(is_same).count() as u64;
            let next = self.model.next(sent.topic, sent.queue_id) + before;
            let offset = next + u64::from(sent.is_refused);
            let at = body.len() as u64;
            let size = model::put(&mut body, sent, offset, self.now_ms);
            if !sent.is_refused {
                let unit = Unit {
                    physical_offset: at,
                    size,
                    tags_code: 0,
                };
                units.push((sent, unit));
            }
        }
        let position = self.append(body, false) + 48;
        for (sent, mut unit) in units {
            unit.physical_offset += position;
            self.model.push(sent, unit, self.now_ms);
        }
    }

    /// Appends an entry to both logs; the calm member applies it. Returns its position.
    fn append(&mut self, body: BytesMut, is_command: bool) -> u64 {
        let log = &self.calm.log;
        let entry = NewEntry::Fresh {
            id: LogId::new(1 + log.next_index() / 16, log.next_index()),
            kind: EntryKind::Data,
            command_len: if is_command { body.len() as u32 } else { 0 },
            body,
        };
        let fine = "a log without faults";
        log.append([entry], Box::new(drop)).expect(fine);
        let last = log.next_index() - 1;
        let entry = log.read(last, last + 1, None).expect(fine).remove(0);
        let raw = entry.raw.clone();
        let tried = &self.tried().log;
        tried
            .append([NewEntry::Stored { raw }], Box::new(drop))
            .expect(fine);
        self.calm.apply(u64::MAX);
        entry.position
    }

    /// Removes what is below the beginning of the log, as a member does: once what was made of it
    /// is durable. On a full disk the trim itself may not be.
    fn purge(&mut self) {
        let is_full = self.random.once_in(3);
        let Member { log, state, .. } = self.tried();
        if !is_full {
            state.persist().expect("there is room");
        }
        let before = log
            .last_before(state.log_start())
            .expect("nothing is damaged");
        if let Some(before) = before
            && state.persisted() >= Some(before)
        {
            log.purge(before.index).expect("there is room");
            assert!(log.min_position() <= state.log_start());
        }
    }

    /// Ends the tried member in some way, and starts it again.
    fn stop(&mut self) {
        let Member {
            log,
            state,
            disk,
            dir,
        } = self.tried.take().expect("it is open");
        let mut dir = dir;
        let how = self.random.below(4);
        let disk = match how {
            0 => {
                state.close().expect("there is room");
                disk.kill()
            }
            1 => {
                let seed = self.random.below(u64::MAX);
                let mut random = Random(seed);
                disk.crash(move |choices: u64| random.below(choices))
            }
            2 if state.applied().is_some() => {
                self.folders += 1;
                dir = self.folder.path().join(self.folders.to_string());
                let made = state.checkpoint(&dir).expect("there is room");
                assert_eq!(
                    (Some(made.applied), made.log_start),
                    (state.applied(), state.log_start())
                );
                disk.kill()
            }
            _ => disk.kill(),
        };
        if self.loud {
            println!("stop {how}, persisted {:?}", state.persisted());
        }
        drop((log, state));
        let background = self.random.once_in(8);
        let tried = Member::open(disk, dir, &self.log_options, background);
        // What a power cut took comes from the other one.
        while let Some(hole) = tried.log.holes().first() {
            let missing = self.calm.log.read(hole.first_index, hole.next_index, None);
            let missing = missing.expect("it is there").into_iter();
            let missing: Vec<_> = missing.map(|entry| entry.raw).collect();
            tried.log.repair(hole, &missing).expect("it fits");
        }
        let (from, end) = (tried.log.next_index(), self.calm.log.next_index());
        let lost = self.calm.log.read(from, end, None).expect("it is there");
        let lost = lost
            .into_iter()
            .map(|entry| NewEntry::Stored { raw: entry.raw });
        let lost: Vec<_> = lost.collect();
        if !lost.is_empty() {
            tried
                .log
                .append(lost, Box::new(drop))
                .expect("a log without faults");
        }
        self.tried = Some(tried);
    }

    fn compare(&mut self) {
        let mut random = self.random.clone();
        self.random.below(2);
        let tried = self.tried();
        tried.apply(u64::MAX);
        self.model.compare(&tried.state, &mut random);
        self.model.query(&tried.state, &mut random, self.now_ms);
        let digests = (self.calm.state.digest_parts(), tried.state.digest_parts());
        assert_eq!(self.calm.state.term_ends(), tried.state.term_ends());
        assert_eq!(
            digests.0.expect("it is calm"),
            digests.1.expect("nothing is damaged")
        );
        tried
            .state
            .scrub(&mut |_| true)
            .expect("nothing is damaged");
    }
}
