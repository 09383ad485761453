//! The log against a list of entries as its model, through any sequence of appends, truncations,
//! restarts and crashes; and what a failing disk does to it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use raftmq_proto::message::record::{self, NewRecord};

use super::*;
use crate::disk::{Fault, MemoryDisk, Operation, RealDisk};
use crate::entry::{EntryKind, HEADER, NewEntry, verify};

pub(super) const DIR: &str = "/log";
const NEVER: Duration = Duration::from_secs(100_000);

pub(super) fn options(segment_bytes: u64, prepare_ahead: u64, flush: FlushMode) -> LogOptions {
    LogOptions {
        dir: PathBuf::from(DIR),
        segment_bytes,
        flush,
        prepare_ahead,
        background: true,
    }
}

pub(super) fn by_hand(segment_bytes: u64) -> LogOptions {
    options(segment_bytes, 0, FlushMode::Async { interval: NEVER })
}

pub(super) fn open(disk: &MemoryDisk, options: &LogOptions) -> Result<CommitLog> {
    CommitLog::open(Arc::new(disk.clone()), options.clone())
}

pub(super) fn blank(term: u64, index: u64, size: usize) -> NewEntry {
    let body = BytesMut::from(&vec![term as u8 ^ index as u8; size][..]);
    let id = LogId::new(term, index);
    NewEntry::Fresh {
        id,
        kind: EntryKind::Membership,
        command_len: size as u32,
        body,
    }
}

pub(super) fn ignore() -> FlushCallback {
    Box::new(drop)
}

pub(super) fn append(log: &CommitLog, term: u64, sizes: &[usize]) -> Result<()> {
    let first = log.next_index();
    let entries = sizes
        .iter()
        .zip(first..)
        .map(|(size, index)| blank(term, index, *size));
    log.append(entries.collect::<Vec<_>>(), ignore())
}

pub(super) fn raws(log: &CommitLog) -> Vec<Bytes> {
    let entries = log.read(0, log.next_index(), None).unwrap();
    entries.into_iter().map(|entry| entry.raw).collect()
}

pub(super) fn message(topic: &str, body: &[u8]) -> BytesMut {
    let host = "127.0.0.1:10911".parse().unwrap();
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
        topic,
        properties: "",
    };
    let mut out = BytesMut::new();
    new.encode(&mut out).unwrap();
    out
}

/// A small deterministic source of choices for crashes.
struct Choices(u64);

impl Choices {
    fn next(&mut self, choices: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % choices
    }
}

pub(super) fn crash(disk: &MemoryDisk, seed: u64) -> MemoryDisk {
    let mut choices = Choices(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    disk.crash(move |n: u64| choices.next(n))
}

#[derive(Debug, Clone)]
enum Step {
    Append {
        sizes: Vec<usize>,
        new_term: bool,
    },
    /// The leader sends again, byte for byte, what was truncated or lost last.
    Resend {
        count: usize,
    },
    Truncate {
        back: usize,
    },
    Flush,
    Checkpoint,
    Reopen,
    Kill,
    Crash {
        seed: u64,
    },
    Read {
        first: u16,
        count: u16,
        max: u16,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![4 => 0usize..300, 2 => 300usize..2000, 1 => Just(4096 - HEADER), 1 => 3900usize..4049];
    prop_oneof![
        6 => (prop::collection::vec(size, 1..8), any::<bool>()).prop_map(|(sizes, new_term)| Step::Append { sizes, new_term }),
        2 => (1usize..4).prop_map(|count| Step::Resend { count }),
        2 => (0usize..12).prop_map(|back| Step::Truncate { back }),
        2 => Just(Step::Flush),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
        2 => any::<u64>().prop_map(|seed| Step::Crash { seed }),
        2 => (any::<u16>(), 1u16..30, any::<u16>()).prop_map(|(first, count, max)| Step::Read { first, count, max }),
    ]
}

/// Runs steps against the log and its model. `prepare_ahead` > 0 lets the helper thread take part.
fn run(steps: Vec<Step>, prepare_ahead: u64) {
    let options = options(4096, prepare_ahead, FlushMode::Async { interval: NEVER });
    let mut disk = MemoryDisk::new();
    let mut log = open(&disk, &options).unwrap();
    let mut model: Vec<Bytes> = Vec::new();
    let mut term = 1;
    // How many entries of the model must survive a crash.
    let mut durable = 0;
    // What followed the model's last entry before it was cut off.
    let mut lost: Vec<Bytes> = Vec::new();
    for step in steps {
        match step {
            Step::Resend { count } => {
                let again: Vec<Bytes> = lost.drain(..count.min(lost.len())).collect();
                let entries: Vec<_> = again
                    .iter()
                    .map(|raw| NewEntry::Stored { raw: raw.clone() })
                    .collect();
                log.append(entries, ignore()).unwrap();
                model.extend(again);
            }
            Step::Append { sizes, new_term } => {
                term += u64::from(new_term);
                lost.clear();
                append(&log, term, &sizes).unwrap();
                let first = model.len() as u64;
                let entries = log.read(first, log.next_index(), None).unwrap();
                assert_eq!(entries.len(), sizes.len());
                for entry in entries {
                    verify(&entry.raw).unwrap();
                    model.push(Bytes::copy_from_slice(&entry.raw));
                }
            }
            Step::Truncate { back } => {
                let keep = model.len().saturating_sub(back);
                log.truncate_after((keep as u64).checked_sub(1)).unwrap();
                if keep < model.len() {
                    lost = model.split_off(keep);
                    durable = keep;
                }
            }
            Step::Flush => {
                log.flush().unwrap();
                assert_eq!(log.flushed_position(), log.end_position());
                durable = model.len();
            }
            Step::Checkpoint => {
                log.sync().unwrap();
                durable = model.len();
            }
            Step::Reopen => {
                drop(log);
                log = open(&disk, &options).unwrap();
                durable = model.len();
            }
            Step::Kill => {
                disk = disk.kill();
                log = open(&disk, &options).unwrap();
                durable = model.len();
            }
            Step::Crash { seed } => {
                disk = crash(&disk, seed);
                log = open(&disk, &options).unwrap();
                // Nobody has what the power cut took out of the middle.
                if let Some(hole) = log.holes().first() {
                    assert!(!hole.flushed);
                    log.truncate_hole(hole).unwrap();
                }
                assert_eq!(log.holes(), []);
                let left = log.next_index() as usize;
                assert!(
                    (durable..=model.len()).contains(&left),
                    "{left} of {durable}..={}",
                    model.len()
                );
                if left < model.len() {
                    lost = model.split_off(left);
                }
                durable = left;
            }
            Step::Read { first, count, max } => {
                let first = usize::from(first) % (model.len() + 1);
                let end = (first + usize::from(count)).min(model.len());
                let read = log
                    .read(first as u64, end as u64, Some(max.into()))
                    .unwrap();
                assert_eq!(read.is_empty(), first == end);
                let bytes: usize = read.iter().map(|entry| entry.raw.len()).sum();
                assert!(read.len() == 1 || bytes <= usize::from(max));
                for (entry, expected) in read.iter().zip(&model[first..end]) {
                    assert_eq!(entry.raw, expected);
                }
            }
        }
        assert_eq!(log.next_index(), model.len() as u64);
        assert_eq!(raws(&log), model);
        assert!(log.flushed_next() >= durable as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever happens, the log is its model: all flushed entries, in order, and never one that
    /// was truncated or lost before.
    #[test]
    fn log_is_its_model(steps in prop::collection::vec(step(), 1..40)) {
        run(steps, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// The same with the helper thread writing zeros and creating segments meanwhile.
    #[test]
    fn log_is_its_model_with_helper(steps in prop::collection::vec(step(), 1..40), ahead in 1u64..20_000) {
        run(steps, ahead);
    }

    /// A byte damaged anywhere in a segment is never served: it is met when the log is opened or
    /// read, can be repaired, and otherwise at most cuts off the log's very end.
    #[test]
    fn damage_is_found_or_cut(sizes in prop::collection::vec(0usize..1500, 1..30), more in prop::collection::vec(0usize..1500, 0..6), at in any::<u32>(), bit in 0u8..8) {
        let disk = MemoryDisk::new();
        let options = by_hand(4096);
        let log = open(&disk, &options).unwrap();
        append(&log, 1, &sizes).unwrap();
        log.sync().unwrap();
        let flushed = log.end_position();
        append(&log, 1, &more).unwrap();
        let end = log.end_position();
        let model = raws(&log);
        let disk = disk.kill();
        drop(log);

        let position = u64::from(at) % end;
        let path = Path::new(DIR).join(segment::file_name(position / 4096 * 4096));
        let byte = disk.content(&path).unwrap()[(position % 4096) as usize];
        disk.damage(&path, position % 4096, &[byte ^ (1 << bit)]);
        let log = open(&disk, &options).unwrap();
        let last = verify(&model[model.len() - 1]).unwrap().position;
        if position >= flushed && position >= last {
            // Nothing says that it was ever flushed.
            prop_assert_eq!(log.next_index(), model.len() as u64 - 1);
            prop_assert_eq!(&raws(&log), &model[..model.len() - 1]);
            return Ok(());
        }
        prop_assert_eq!(log.next_index(), model.len() as u64);
        for (index, expected) in model.iter().enumerate() {
            match log.read(index as u64, index as u64 + 1, None) {
                Ok(entries) => prop_assert_eq!(&entries[0].raw, expected),
                Err(Error::Corrupt { .. }) => {
                    let header = verify(expected).unwrap();
                    let is_blank = header.position.is_multiple_of(4096);
                    prop_assert!((header.position..header.end()).contains(&position) || is_blank);
                }
                Err(error) => prop_assert!(false, "{error}"),
            }
        }
        for hole in log.holes() {
            let missing = &model[hole.first_index as usize..hole.next_index as usize];
            prop_assert_eq!(log.repair(&hole, missing).unwrap(), None);
        }
        prop_assert_eq!(raws(&log), model);
        prop_assert_eq!(log.holes(), []);
    }

    /// A follower that is sent a leader's entries has the same bytes in the same places.
    #[test]
    fn followers_are_byte_identical(batches in prop::collection::vec(prop::collection::vec(0usize..1500, 1..8), 1..10)) {
        let (leader_disk, follower_disk) = (MemoryDisk::new(), MemoryDisk::new());
        let leader = open(&leader_disk, &by_hand(4096)).unwrap();
        let follower = open(&follower_disk, &options(4096, 6000, FlushMode::Sync)).unwrap();
        for sizes in batches {
            append(&leader, 1, &sizes).unwrap();
        }
        let mut at = 0;
        while at < leader.next_index() {
            let sent = leader.read(at, leader.next_index(), Some(3000)).unwrap();
            at += sent.len() as u64;
            let stored: Vec<_> = sent.into_iter().map(|e| NewEntry::Stored { raw: Bytes::copy_from_slice(&e.raw) }).collect();
            follower.append(stored, ignore()).unwrap();
        }
        prop_assert_eq!(raws(&leader), raws(&follower));
        for start in (0..leader.end_position()).step_by(4096) {
            let path = Path::new(DIR).join(segment::file_name(start));
            prop_assert_eq!(leader_disk.content(&path), follower_disk.content(&path));
        }
    }
}

/// Entries written in groups of crashes at each possible write: every acknowledged append is there.
#[test]
fn acknowledged_appends_survive_a_power_cut() {
    for seed in 0..150u64 {
        let disk = MemoryDisk::new();
        let log = open(&disk, &options(8192, 16_384, FlushMode::Sync)).unwrap();
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let mut choices = Choices(seed);
        let mut written = 0;
        for _ in 0..30 {
            let sizes: Vec<usize> = (0..=choices.next(4))
                .map(|_| choices.next(1500) as usize)
                .collect();
            written += sizes.len();
            let (count, total) = (acknowledged.clone(), written);
            let first = log.next_index();
            let entries: Vec<_> = sizes
                .iter()
                .zip(first..)
                .map(|(s, i)| blank(1, i, *s))
                .collect();
            let done = move |result: io::Result<()>| {
                if result.is_ok() {
                    count.fetch_max(total, Ordering::SeqCst);
                }
            };
            log.append(entries, Box::new(done)).unwrap();
        }
        let model: Vec<Bytes> = raws(&log)
            .iter()
            .map(|raw| Bytes::copy_from_slice(raw))
            .collect();
        let survive = acknowledged.load(Ordering::SeqCst);
        let disk = crash(&disk, seed);
        let log = open(&disk, &by_hand(8192)).unwrap();
        if let Some(hole) = log.holes().first() {
            log.truncate_hole(hole).unwrap();
        }
        let found = raws(&log);
        assert!(
            found.len() >= survive,
            "seed {seed}: {} of {survive}",
            found.len()
        );
        assert_eq!(found, model[..found.len()]);
    }
}

/// A power cut loses the first of two entries and keeps the second. When nobody has the first, and
/// it is sent again later, the second must not come back with it.
#[test]
fn what_a_power_cut_left_over_does_not_come_back() {
    let disk = MemoryDisk::new();
    let log = open(&disk, &by_hand(1 << 20)).unwrap();
    append(&log, 1, &[2000, 2000]).unwrap();
    let first = Bytes::copy_from_slice(&raws(&log)[0]);
    let mut sectors = 0;
    let disk = disk.crash(move |choices: u64| match choices {
        // Any subset of the sectors: all but the first.
        4 => 3,
        2 => {
            sectors += 1;
            u64::from(sectors > 1)
        }
        _ => choices - 1,
    });
    drop(log);
    let log = open(&disk, &by_hand(1 << 20)).unwrap();
    let hole = log.holes().remove(0);
    assert_eq!(
        (hole.first_index, hole.next_index, hole.flushed),
        (0, 1, false)
    );
    log.truncate_hole(&hole).unwrap();
    assert_eq!(log.last(), None);
    log.append([NewEntry::Stored { raw: first }], ignore())
        .unwrap();
    log.flush().unwrap();
    let disk = disk.kill();
    drop(log);
    let log = open(&disk, &by_hand(1 << 20)).unwrap();
    assert_eq!(log.last(), Some(LogId::new(1, 0)));
}

/// Records carry their physical offset, are found by it, and not before they may be read.
#[test]
fn records_are_stamped_and_found() {
    let log = CommitLog::memory();
    let mut body = BytesMut::from(&b"command"[..]);
    let first = message("T", b"one");
    body.extend_from_slice(&first);
    body.extend_from_slice(&message("T", b"two"));
    let id = LogId::new(1, 0);
    log.append(
        [NewEntry::Fresh {
            id,
            kind: EntryKind::Data,
            command_len: 7,
            body,
        }],
        ignore(),
    )
    .unwrap();
    let entry = &log.read(0, 1, None).unwrap()[0];
    assert_eq!(entry.command(), b"command");
    let offset = entry.records_position();
    let records = entry.records();
    let stored: Vec<_> = record::records(&records).map(|r| r.unwrap()).collect();
    assert_eq!(stored[0].physical_offset(), offset);
    assert_eq!(stored[1].physical_offset(), offset + first.len() as u64);

    let end = log.end_position();
    let found = log
        .record_at(offset, Some(first.len() as u32), end)
        .unwrap();
    assert_eq!(found, stored[0].as_bytes());
    assert_eq!(found.as_ptr(), stored[0].as_bytes().as_ptr(), "not a copy");
    assert_eq!(
        log.record_at(stored[1].physical_offset(), None, end)
            .unwrap(),
        stored[1].as_bytes()
    );
    for (offset, size, limit) in [
        (offset, Some(1), end),
        (offset, None, offset + 10),
        (offset, None, offset),
        (offset + 1, None, end),
        (0, None, end),
        (u64::MAX, None, u64::MAX),
        (end, None, u64::MAX),
    ] {
        assert!(matches!(
            log.record_at(offset, size, limit),
            Err(Error::NoRecord { .. })
        ));
    }
}

/// What does not continue the log, or is no entry, is refused and leaves no trace.
#[test]
fn wrong_entries_are_refused() {
    let log = open(&MemoryDisk::new(), &by_hand(4096)).unwrap();
    append(&log, 3, &[10, 10]).unwrap();
    let end = log.end_position();
    let refuse = |entry: NewEntry| log.append([entry], ignore()).unwrap_err();
    assert!(matches!(refuse(blank(3, 3, 1)), Error::Diverged { .. }));
    assert!(matches!(refuse(blank(3, 1, 1)), Error::Diverged { .. }));
    assert!(matches!(refuse(blank(2, 2, 1)), Error::Diverged { .. }));
    assert!(matches!(
        refuse(blank(3, 2, 4096)),
        Error::EntryTooLarge { max: 4096, .. }
    ));
    // One bad entry refuses the whole append.
    let two = [blank(3, 2, 1), blank(3, 9, 1)];
    assert!(matches!(
        log.append(two, ignore()),
        Err(Error::Diverged { .. })
    ));
    let id = LogId::new(3, 2);
    let body = BytesMut::from(&message("T", b"x")[..50]);
    let torn = NewEntry::Fresh {
        id,
        kind: EntryKind::Data,
        command_len: 0,
        body,
    };
    assert!(matches!(refuse(torn), Error::Malformed { .. }));
    let other = open(&MemoryDisk::new(), &by_hand(4096)).unwrap();
    append(&other, 2, &[10, 10, 10]).unwrap();
    let raw = other.read(2, 3, None).unwrap()[0].raw.clone();
    assert!(matches!(
        refuse(NewEntry::Stored { raw: raw.clone() }),
        Error::Diverged { .. }
    ));
    assert!(matches!(
        refuse(NewEntry::Stored {
            raw: raw.slice(1..)
        }),
        Error::Malformed { .. }
    ));
    assert_eq!(log.end_position(), end);
    append(&log, 3, &[10]).unwrap();
    assert!(matches!(
        log.read(0, 4, None),
        Err(Error::OutOfRange {
            index: 3,
            first: 0,
            next: 3
        })
    ));
    assert!(log.read(5, 5, None).unwrap().is_empty());
}

/// A committed entry cannot be truncated.
#[test]
fn committed_entries_stay() {
    let log = open(&MemoryDisk::new(), &by_hand(4096)).unwrap();
    append(&log, 1, &[10; 5]).unwrap();
    log.set_committed(2);
    assert!(matches!(
        log.truncate_after(Some(1)),
        Err(Error::TruncateCommitted { committed: 2, .. })
    ));
    assert!(matches!(
        log.truncate_after(None),
        Err(Error::TruncateCommitted { .. })
    ));
    log.truncate_after(Some(2)).unwrap();
    assert_eq!(log.last(), Some(LogId::new(1, 2)));
    assert!(matches!(
        log.truncate_after(Some(7)),
        Err(Error::OutOfRange { .. })
    ));
}

/// Appends that wait while a slow flush runs share the next one.
#[test]
fn waiting_appends_share_a_flush() {
    let disk = MemoryDisk::new();
    let log = open(&disk, &options(1 << 20, 0, FlushMode::Sync)).unwrap();
    let (release, gate) = mpsc::channel::<()>();
    let (entered, under_way) = mpsc::channel::<()>();
    let mut gate = Some(gate);
    disk.set_rule(move |operation, path| {
        let is_log = path.file_name().is_some_and(|name| name.len() == 20);
        if operation != Operation::SyncData || !is_log {
            return None;
        }
        let (gate, entered) = (gate.take()?, entered.clone());
        Some(Fault::After(Box::new(move || {
            entered.send(()).unwrap();
            gate.recv().unwrap();
        })))
    });
    let (done, results) = mpsc::channel();
    for n in 0..100 {
        let done = done.clone();
        let entry = blank(1, n, 100);
        log.append(
            [entry],
            Box::new(move |r| done.send((n, r.is_ok())).unwrap()),
        )
        .unwrap();
        if n == 0 {
            under_way.recv().unwrap();
        }
    }
    assert!(results.try_recv().is_err(), "nothing is durable yet");
    assert_eq!(log.flushed_next(), 0);
    release.send(()).unwrap();
    let answered: Vec<_> = results.iter().take(100).collect();
    assert_eq!(answered, (0..100).map(|n| (n, true)).collect::<Vec<_>>());
    assert_eq!(log.stats().flushes, 2);
}

/// A failed flush tells all who wait, poisons the log with its reason, and nothing is tried again.
#[test]
fn failed_flush_poisons() {
    let disk = MemoryDisk::new();
    let log = open(&disk, &options(1 << 20, 0, FlushMode::Sync)).unwrap();
    let (told, reason) = mpsc::channel();
    log.poison()
        .on_poison(move |why| told.send(why.to_owned()).unwrap());
    let tried = Arc::new(AtomicUsize::new(0));
    let count = tried.clone();
    disk.set_rule(move |operation, _| {
        (operation == Operation::SyncData).then(|| {
            count.fetch_add(1, Ordering::SeqCst);
            Fault::Errno(libc::EIO)
        })
    });
    let (done, result) = mpsc::channel();
    log.append([blank(1, 0, 10)], Box::new(move |r| done.send(r).unwrap()))
        .unwrap();
    let error = result.recv().unwrap().unwrap_err().to_string();
    assert!(error.contains("00000000000000000000"), "{error}");
    assert!(reason.recv().unwrap().contains("Input/output error"));
    disk.clear_rule();
    assert!(matches!(append(&log, 1, &[1]), Err(Error::Poisoned(_))));
    assert!(matches!(log.truncate_after(None), Err(Error::Poisoned(_))));
    assert!(matches!(log.flush(), Err(Error::Poisoned(_))));
    assert_eq!(raws(&log).len(), 1, "reading goes on");
    drop(log);
    assert_eq!(tried.load(Ordering::SeqCst), 1);
}

/// A failed write poisons; what was acknowledged before is there after a restart.
#[test]
fn failed_write_poisons() {
    for errno in [libc::EIO, libc::ENOSPC] {
        let disk = MemoryDisk::new();
        let log = open(&disk, &by_hand(1 << 20)).unwrap();
        append(&log, 1, &[100, 100]).unwrap();
        log.flush().unwrap();
        disk.set_rule(move |operation, _| {
            matches!(operation, Operation::Write { size, .. } if size > 64)
                .then_some(Fault::Errno(errno))
        });
        let error = append(&log, 1, &[100]).unwrap_err();
        assert_eq!(error.is_no_space(), errno == libc::ENOSPC);
        assert!(matches!(append(&log, 1, &[1]), Err(Error::Poisoned(_))));
        assert_eq!(log.next_index(), 2);
        disk.clear_rule();
        let disk = disk.kill();
        drop(log);
        let log = open(&disk, &by_hand(1 << 20)).unwrap();
        assert_eq!(log.next_index(), 2);
        append(&log, 1, &[100]).unwrap();
    }
}

/// No room to prepare ahead is told in the figures, and appends into prepared room still work.
#[test]
fn no_room_ahead_is_no_failure() {
    let disk = MemoryDisk::new();
    let full = Arc::new(AtomicBool::new(false));
    let now_full = full.clone();
    let told = Arc::new(AtomicBool::new(false));
    let refused = told.clone();
    disk.set_rule(move |operation, _| match operation {
        Operation::Write { size, .. } if size > 2000 && now_full.load(Ordering::SeqCst) => {
            refused.store(true, Ordering::SeqCst);
            Some(Fault::Errno(libc::ENOSPC))
        }
        _ => None,
    });
    let log = open(&disk, &options(1 << 20, 256 << 10, FlushMode::Sync)).unwrap();
    wait_until(|| log.stats().prepared_bytes >= 256 << 10);
    full.store(true, Ordering::SeqCst);
    for _ in 0..100 {
        append(&log, 1, &[1000]).unwrap();
    }
    wait_until(|| log.stats().no_space);
    assert!(told.load(Ordering::SeqCst));
    assert!(log.has_room(10_000) && !log.has_room(1 << 20));
    append(&log, 1, &[1000]).unwrap();
    assert!(log.poison().check().is_ok());
}

/// A file system that is nearly full counts as full, so that votes and the state still find room.
#[test]
fn some_room_is_left_to_others() {
    let disk = MemoryDisk::new();
    disk.set_space(crate::disk::DiskSpace {
        total: 1 << 30,
        available: 60 << 20,
    });
    let log = open(&disk, &options(1 << 20, 256 << 10, FlushMode::Sync)).unwrap();
    wait_until(|| log.stats().no_space);
    assert!(!log.has_room(1));
    assert!(log.space().unwrap().used_ratio() > 0.9);
    disk.set_space(crate::disk::DiskSpace {
        total: 1 << 30,
        available: 1 << 29,
    });
    append(&log, 1, &[10]).unwrap();
    wait_until(|| log.has_room(100 << 10));
}

/// Messages stop while somebody says that the disk is full, or it is; operations go on with what
/// is prepared.
#[test]
fn a_full_disk_says_so_by_name() {
    let disk = MemoryDisk::new();
    let log = open(&disk, &options(1 << 20, 256 << 10, FlushMode::Sync)).unwrap();
    wait_until(|| log.stats().prepared_bytes >= 256 << 10);
    assert!(log.full().is_none() && log.takes_messages(1).is_ok());
    log.set_full(Some("91 % used, limit 90 %".into()));
    assert_eq!(&*log.full().unwrap(), "91 % used, limit 90 %");
    assert_eq!(log.takes_messages(1).unwrap_err(), log.full().unwrap());
    assert!(log.has_room(1 << 30));
    log.set_full(None);
    assert!(log.full().is_none() && log.takes_messages(1).is_ok());
    disk.set_space(crate::disk::DiskSpace {
        total: 1 << 30,
        available: 60 << 20,
    });
    append(&log, 1, &[1000; 100]).unwrap();
    wait_until(|| log.full().is_some());
    let why = log.takes_messages(1 << 20).unwrap_err();
    for part in [DIR, "62914560 of 1073741824 bytes"] {
        assert!(why.contains(part), "{part} in {why}");
    }
    assert!(log.takes_messages(10).is_ok());
}

fn wait_until(mut what: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !what() {
        assert!(std::time::Instant::now() < deadline, "not in time");
        std::thread::yield_now();
    }
}

/// Without its checkpoint a log is scanned from the beginning, and a gap in it is refused.
#[test]
fn checkpoint_may_be_missing() {
    let disk = MemoryDisk::new();
    let log = open(&disk, &by_hand(4096)).unwrap();
    append(&log, 1, &[1000; 20]).unwrap();
    let model: Vec<Bytes> = raws(&log)
        .iter()
        .map(|raw| Bytes::copy_from_slice(raw))
        .collect();
    drop(log);
    let checkpoint = Path::new(DIR).join("checkpoint");
    disk.damage(&checkpoint, 0, &[0; 5000]);
    let log = open(&disk, &by_hand(4096)).unwrap();
    assert_eq!(raws(&log), model);
    drop(log);
    disk.damage(&checkpoint, 0, &[0; 5000]);
    disk.damage(&Path::new(DIR).join(segment::file_name(4096)), 1100, &[9]);
    let log = open(&disk, &by_hand(4096)).unwrap();
    let holes = log.holes();
    assert_eq!(
        (holes.len(), holes[0].first_index, holes[0].next_index),
        (1, 4, 5)
    );
    assert!(holes[0].path.ends_with("00000000000000004096"));
    assert_eq!(log.next_index(), model.len() as u64);
}

/// Missing and short files are holes; a changed segment size is refused by name.
#[test]
fn damaged_folders() {
    let build = || {
        let disk = MemoryDisk::new();
        let log = open(&disk, &by_hand(4096)).unwrap();
        append(&log, 1, &[1000; 20]).unwrap();
        let model: Vec<Bytes> = raws(&log)
            .iter()
            .map(|raw| Bytes::copy_from_slice(raw))
            .collect();
        drop(log);
        (disk, model)
    };
    let refused =
        |disk: &MemoryDisk, options: &LogOptions| open(disk, options).unwrap_err().to_string();
    for start in (0..7).map(|nth| nth * 4096) {
        for size in [None, Some(0), Some(100), Some(1500)] {
            let (disk, model) = build();
            let path = Path::new(DIR).join(segment::file_name(start));
            match size {
                None => disk.remove(&path).unwrap(),
                Some(size) => {
                    let file = disk.open(&path, crate::disk::Open::Existing).unwrap();
                    file.set_size(size).unwrap();
                }
            }
            let log = open(&disk, &by_hand(4096)).unwrap();
            let holes = log.holes();
            assert_eq!(holes.len(), 1, "{start} {size:?}");
            assert!(holes[0].flushed);
            assert_eq!(holes[0].path, path);
            assert_eq!(log.next_index(), 20);
            for hole in holes {
                let missing = &model[hole.first_index as usize..hole.next_index as usize];
                assert!(missing.len() <= 3);
                log.repair(&hole, missing).unwrap();
            }
            assert_eq!(raws(&log), model);
            drop(log);
            let log = open(&disk, &by_hand(4096)).unwrap();
            assert_eq!((raws(&log), log.holes()), (model, vec![]));
        }
    }
    let (disk, _) = build();
    disk.remove(&Path::new(DIR).join("base")).unwrap();
    disk.remove(&Path::new(DIR).join(segment::file_name(0)))
        .unwrap();
    let error = refused(&disk, &by_hand(4096));
    assert!(
        error.contains("00000000000000000000") && error.contains("missing"),
        "{error}"
    );
    let (disk, _) = build();
    let error = refused(&disk, &by_hand(8192));
    assert!(error.contains("mappedFileSizeCommitLog"), "{error}");
    assert!(refused(&disk, &by_hand(100)).contains("mappedFileSizeCommitLog = 100"));
}

/// Entries of many sealed segments are found after a restart, when no anchors are in memory yet.
#[test]
fn old_entries_are_found_by_anchors() {
    let disk = MemoryDisk::new();
    let options = by_hand(1 << 20);
    let log = open(&disk, &options).unwrap();
    for batch in 0..100u64 {
        let sizes: Vec<usize> = (0..100)
            .map(|n| 100 + (batch as usize * 37 + n * 11) % 900)
            .collect();
        append(&log, 1, &sizes).unwrap();
    }
    let model: Vec<Bytes> = raws(&log)
        .iter()
        .map(|raw| Bytes::copy_from_slice(raw))
        .collect();
    for log in [log.clone(), {
        drop(log);
        open(&disk, &options).unwrap()
    }] {
        for index in (0..model.len()).rev().step_by(97).chain([0, 1, 4000, 4001]) {
            let entries = log.read(index as u64, index as u64 + 1, None).unwrap();
            assert_eq!(entries[0].raw, model[index]);
        }
    }
}

/// Readers on real files see whole entries while the log grows and is cut behind them.
#[test]
fn readers_see_whole_entries() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions {
        segment_bytes: 256 << 10,
        flush: FlushMode::Sync,
        prepare_ahead: 1 << 20,
        ..LogOptions::new(dir.path())
    };
    let log = CommitLog::open(Arc::new(RealDisk), options.clone()).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (log, stop) = (log.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut seen = 0u64;
                while !stop.load(Ordering::SeqCst) {
                    // Up to what was flushed: entries behind it may be cut off.
                    let next = log.flushed_next();
                    if next < 20 {
                        continue;
                    }
                    let from = seen % (next - 10);
                    match log.read(from, next - 10, Some(20_000)) {
                        Ok(entries) => {
                            for entry in &entries {
                                verify(&entry.raw).unwrap();
                            }
                            seen += entries.len() as u64;
                        }
                        Err(Error::OutOfRange { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                seen
            })
        })
        .collect();
    for round in 0..300u64 {
        append(&log, round + 1, &[700, 20, 1300, 0, 90]).unwrap();
        if round % 10 == 9 {
            let last = log.next_index() - 1;
            log.truncate_after(Some(last - 3)).unwrap();
        }
    }
    log.flush().unwrap();
    stop.store(true, Ordering::SeqCst);
    for reader in readers {
        assert!(reader.join().unwrap() > 0);
    }
    let model: Vec<Bytes> = raws(&log);
    drop(log);
    let log = CommitLog::open(Arc::new(RealDisk), options).unwrap();
    assert_eq!(raws(&log), model);
}

/// An entry whose damaged size leads nowhere does not keep the one behind it from being read.
#[test]
fn a_damaged_size_is_gone_around() {
    let disk = MemoryDisk::new();
    let log = open(&disk, &by_hand(4096)).unwrap();
    append(&log, 1, &[500, 0, 400, 300]).unwrap();
    let model = raws(&log);
    let position = verify(&model[1]).unwrap().position;
    drop(log);
    let log = open(&disk, &by_hand(4096)).unwrap();
    disk.damage(
        &Path::new(DIR).join(segment::file_name(0)),
        position + 6,
        &[1],
    );
    for index in [2, 3, 0, 2] {
        assert_eq!(
            log.read(index, index + 1, None).unwrap()[0].raw,
            model[index as usize]
        );
    }
    assert!(matches!(log.read(0, 3, None), Err(Error::Corrupt { .. })));
}
