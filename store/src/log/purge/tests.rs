//! Logs whose beginning was removed.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::super::tests::{DIR, append, by_hand, crash, ignore, message, open};
use super::*;
use crate::disk::{Disk, Fault, MemoryDisk, Operation, RealDisk};
use crate::log::segment::file_name;
use crate::log::{FlushMode, LogOptions};
use crate::{EntryKind, NewEntry};

/// The entries of a log that are not removed, by index.
fn rest(log: &CommitLog) -> Vec<(u64, Bytes)> {
    let entries = log.read(log.first_index(), log.next_index(), None).unwrap();
    entries
        .into_iter()
        .map(|entry| (entry.id.index, Bytes::copy_from_slice(&entry.raw)))
        .collect()
}

fn files(disk: &MemoryDisk) -> Vec<String> {
    let mut names = disk.list(Path::new(DIR)).unwrap();
    names.retain(|name| crate::log::segment::is_file_name(name));
    names
}

/// Three or four entries in each of eight segments, several terms.
fn filled(disk: &MemoryDisk) -> CommitLog {
    let log = open(disk, &by_hand(4096)).unwrap();
    for term in 1..6 {
        append(&log, term, &[1000, 900, 1200, 10, 700, 1300]).unwrap();
    }
    log.flush().unwrap();
    log.set_committed(log.next_index() - 1);
    log
}

fn reopen(disk: &MemoryDisk) -> CommitLog {
    let log = open(disk, &by_hand(4096)).unwrap();
    log.set_committed(log.next_index() - 1);
    log
}

/// Whole segments go, the rest stays as it was; also after another start, and appends go on.
#[test]
fn whole_segments_are_removed() {
    let disk = MemoryDisk::new();
    let mut log = filled(&disk);
    let model = rest(&log);
    for upto in [0, 2, 5, 11, 11, 17, 400] {
        let before = log.segments().unwrap();
        let bytes = log.purge(upto).unwrap();
        let base = log.base();
        assert!(base.next_index <= upto + 1);
        assert_eq!(base.prev.map_or(0, |prev| prev.index + 1), base.next_index);
        let after = log.segments().unwrap();
        assert_eq!(bytes, (before.len() - after.len()) as u64 * 4096);
        assert_eq!(after.first().unwrap().position, base.position);
        assert_eq!(files(&disk).len(), after.len());
        // Not one segment less than asked for.
        if let Some(second) = after.get(1) {
            let next = log.shared().segment(second.position).unwrap();
            assert!(next.first_index().unwrap() > upto + 1);
        }
        for _ in 0..2 {
            assert_eq!(log.base(), base);
            assert_eq!(rest(&log), model[base.next_index as usize..]);
            assert_eq!(log.min_position(), base.position);
            let below = log.read(base.next_index.wrapping_sub(1), base.next_index, None);
            assert!(matches!(below, Err(Error::OutOfRange { .. })) || base.next_index == 0);
            drop(log);
            log = reopen(&disk);
        }
    }
    assert_eq!(log.segments().unwrap().len(), 1, "the active one stays");
    append(&log, 6, &[1000; 9]).unwrap();
    log.truncate_after(Some(model.len() as u64)).unwrap();
    assert_eq!(log.next_index(), model.len() as u64 + 1);
}

/// The entry behind what is removed cannot be cut off any more.
#[test]
fn the_first_entry_stays() {
    let disk = MemoryDisk::new();
    drop(filled(&disk));
    let log = open(&disk, &by_hand(4096)).unwrap();
    let second = log.shared().segment(4096).unwrap().first_index().unwrap();
    assert_eq!(log.purge(second - 1).unwrap(), 0, "it may not be committed");
    assert_eq!(log.purge(second).unwrap(), 4096);
    assert_eq!(log.first_index(), second);
}

/// A log that was filled from nothing but a base goes on from the entry before it.
#[test]
fn log_may_be_empty_above_its_base() {
    let source = filled(&MemoryDisk::new());
    let model = rest(&source);
    source.purge(12).unwrap();
    let base = source.base();
    let disk = MemoryDisk::new();
    let shared = std::sync::Arc::new(disk.clone());
    let refill = crate::Refill::open(shared, Path::new(DIR), 4096, base).unwrap();
    refill.finish().unwrap();
    for _ in 0..2 {
        let log = open(&disk, &by_hand(4096)).unwrap();
        assert_eq!((log.last(), log.base()), (None, base));
        assert_eq!(log.end_position(), base.position);
        assert_eq!(log.flushed_position(), base.position);
        assert_eq!(log.flushed_next(), base.next_index);
        log.append([], ignore()).unwrap();
        log.truncate_after(base.prev.map(|prev| prev.index))
            .unwrap();
        log.sync().unwrap();
    }
    let log = open(&disk, &by_hand(4096)).unwrap();
    let again = model[base.next_index as usize..].iter();
    let again = again.map(|(_, raw)| NewEntry::Stored { raw: raw.clone() });
    log.append(again.collect::<Vec<_>>(), ignore()).unwrap();
    drop(log);
    let log = open(&disk, &by_hand(4096)).unwrap();
    assert_eq!(rest(&log), model[base.next_index as usize..]);
}

/// A machine that stops at any moment of a purge leaves the log before or after it.
#[test]
fn stops_anywhere() {
    let reference = filled(&MemoryDisk::new());
    reference.purge(15).unwrap();
    let mut done = 0;
    for stop_at in 0.. {
        let mut finished = true;
        for seed in 0..8 {
            let disk = MemoryDisk::new();
            let log = filled(&disk);
            let model = rest(&log);
            let count = AtomicU64::new(0);
            disk.set_rule(move |_, _| {
                (count.fetch_add(1, Ordering::Relaxed) == stop_at).then_some(Fault::Stop)
            });
            finished &= log.purge(15).is_ok();
            let disk = crash(&disk, seed);
            drop(log);
            let log = reopen(&disk);
            assert!(!finished || log.base() == reference.base());
            assert_eq!(rest(&log), model[log.first_index() as usize..]);
            assert_eq!(files(&disk).len(), log.segments().unwrap().len());
            done += 1;
            // And it can be done again.
            log.purge(15).unwrap();
            assert_eq!(log.base(), reference.base());
        }
        if finished {
            break;
        }
    }
    assert!(done > 50, "{done}");
}

/// A full disk keeps nothing from being removed but a failing one poisons the log.
#[test]
fn failures() {
    let disk = MemoryDisk::new();
    let log = filled(&disk);
    disk.set_rule(|operation, _| {
        let grows = match operation {
            Operation::Write { offset, size } => offset + size > 8192,
            Operation::SetSize | Operation::Rename => true,
            _ => false,
        };
        grows.then_some(Fault::Errno(libc::ENOSPC))
    });
    assert!(log.purge(15).unwrap() > 0);
    disk.set_rule(|operation, _| {
        (operation == Operation::Remove).then_some(Fault::Errno(libc::EIO))
    });
    assert!(log.purge(25).is_err());
    disk.clear_rule();
    assert!(matches!(log.purge(28), Err(Error::Poisoned(_))));
}

/// Without its base a log that does not begin at 0 is refused; a damaged copy does no harm.
#[test]
fn base_is_needed() {
    let disk = MemoryDisk::new();
    let log = filled(&disk);
    log.purge(15).unwrap();
    let model = rest(&log);
    drop(log);
    let path = Path::new(DIR).join("base");
    disk.damage(&path, 17, &[1]);
    assert_eq!(rest(&open(&disk, &by_hand(4096)).unwrap()), model);
    disk.damage(&path, 4096 + 17, &[1]);
    assert_eq!(rest(&open(&disk, &by_hand(4096)).unwrap()), model);
    disk.damage(&path, 17, &[1]);
    disk.damage(&path, 4096 + 17, &[1]);
    let error = open(&disk, &by_hand(4096)).unwrap_err().to_string();
    assert!(error.contains("/log/base is corrupt"), "{error}");
    disk.remove(&path).unwrap();
    let error = open(&disk, &by_hand(4096)).unwrap_err().to_string();
    assert!(
        error.contains(&file_name(0)) && error.contains("missing"),
        "{error}"
    );
}

/// What to purge for a trim, and what retention is told.
#[test]
fn segments_and_their_times() {
    let disk = MemoryDisk::new();
    let log = open(&disk, &by_hand(4096)).unwrap();
    for index in 0..20u64 {
        append(&log, 1, &[100]).unwrap();
        let id = crate::LogId::new(1, log.next_index());
        let mut body = message("t", &[7; 900]);
        let at = 5_000 + index as i64;
        raftmq_proto::message::record::stamp_store_timestamp(&mut body, at);
        let entry = NewEntry::Fresh {
            id,
            kind: EntryKind::Data,
            command_len: 0,
            body,
        };
        log.append([entry], ignore()).unwrap();
    }
    log.flush().unwrap();
    log.set_committed(log.next_index() - 1);
    let segments = log.segments().unwrap();
    assert!(segments.len() > 4);
    assert!(
        segments
            .iter()
            .rev()
            .skip(1)
            .all(|segment| segment.bytes == 4096)
    );
    let last = segments.last().unwrap();
    assert_eq!(last.position + last.bytes, log.end_position());
    for segment in &segments {
        let first = log.shared().segment(segment.position).unwrap();
        let nth = first.first_index().unwrap() / 2;
        assert_eq!(segment.time_ms, Some(5_000 + nth as i64));
        for position in [segment.position, segment.position + 4095] {
            let before = log.last_before(position).unwrap();
            let expected = first.first_index().unwrap().checked_sub(1);
            assert_eq!(before.map(|id| id.index), expected);
        }
    }
    assert_eq!(segments, log.segments().unwrap());
    let before = log.last_before(segments[3].position + 1).unwrap().unwrap();
    assert_eq!(log.purge(before.index).unwrap(), 3 * 4096);
    assert_eq!(log.segments().unwrap(), segments[3..]);
    assert_eq!(log.last_before(segments[3].position).unwrap(), None);
}

/// On real files: nothing of the process keeps a removed segment's room.
#[test]
fn room_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions {
        segment_bytes: 1 << 20,
        flush: FlushMode::Sync,
        ..LogOptions::new(dir.path())
    };
    let log = CommitLog::open(std::sync::Arc::new(RealDisk), options).unwrap();
    for _ in 0..20 {
        append(&log, 1, &[200_000; 2]).unwrap();
    }
    log.flush().unwrap();
    let held = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let links = std::fs::read_dir("/proc/self/fd").unwrap();
        let links = links.filter_map(|link| std::fs::read_link(link.ok()?.path()).ok());
        let mut held: Vec<String> = links.map(|path| path.display().to_string()).collect();
        held.extend(maps.lines().map(str::to_owned));
        let dir = dir.path().display().to_string();
        held.retain(|line| line.contains(&dir) && line.contains("(deleted)"));
        held
    };
    let slice = log.read(0, 1, None).unwrap();
    log.read(0, 30, None).unwrap();
    assert!(log.purge(30).unwrap() > 0);
    assert_eq!(held().len(), 1, "the slice keeps its segment: {:?}", held());
    assert!(verify(&slice[0].raw).is_ok());
    drop(slice);
    assert_eq!(held(), Vec::<String>::new());
}
