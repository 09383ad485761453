//! Damage that is found, kept from readers and repaired.

use std::path::Path;
use std::sync::atomic::AtomicUsize;

use bytes::{Bytes, BytesMut};

use super::super::tests::{DIR, append, by_hand, ignore, message, open, raws};
use super::*;
use crate::disk::{Fault, MemoryDisk, Operation};
use crate::entry::{EntryKind, HEADER, Header, LogId, NewEntry, verify};
use crate::log::ScrubCursor;
use crate::log::segment::file_name;

const SEGMENT: u64 = 4096;

fn copies(log: &CommitLog) -> Vec<Bytes> {
    raws(log)
        .iter()
        .map(|raw| Bytes::copy_from_slice(raw))
        .collect()
}

fn flip(disk: &MemoryDisk, position: u64) {
    let path = Path::new(DIR).join(file_name(position / SEGMENT * SEGMENT));
    let offset = position % SEGMENT;
    let byte = disk.content(&path).unwrap()[offset as usize];
    disk.damage(&path, offset, &[byte ^ 0x10]);
}

/// Thirty entries, three to a segment, all flushed; and what they are.
fn filled(disk: &MemoryDisk) -> (CommitLog, Vec<Bytes>) {
    let log = open(disk, &by_hand(SEGMENT)).unwrap();
    for term in 1..11 {
        append(&log, term, &[1000, 900, 1200]).unwrap();
    }
    log.sync().unwrap();
    let model = copies(&log);
    (log, model)
}

fn scrub(log: &CommitLog) -> Vec<Hole> {
    let mut cursor = ScrubCursor::default();
    let mut holes = Vec::new();
    let mut bytes = 0;
    loop {
        let step = log.scrub(&mut cursor, 3000).unwrap();
        holes.extend(step.holes);
        bytes += step.bytes;
        if step.finished {
            assert_eq!(bytes, log.flushed_position() - log.min_position());
            return holes;
        }
        assert!(step.bytes > 0);
    }
}

/// Every byte of an entry and of a blank end matters; a scrub finds it and a repair heals it.
#[test]
fn scrub_finds_every_byte() {
    let disk = MemoryDisk::new();
    let (log, model) = filled(&disk);
    drop(log);
    let log = open(&disk, &by_hand(SEGMENT)).unwrap();
    assert_eq!(scrub(&log), []);
    let heard = Arc::new(AtomicUsize::new(0));
    let h = heard.clone();
    log.on_hole(move |_| {
        h.fetch_add(1, Ordering::Relaxed);
    });
    let second = verify(&model[4]).unwrap();
    let last = verify(&model[5]).unwrap();
    let positions = (second.position..last.end() + 8).step_by(13);
    let mut count = 0;
    let blank = (last.end()..last.end() + 8).chain([last.end() + 100, 2 * SEGMENT - 1]);
    for position in positions.chain(blank) {
        flip(&disk, position);
        let found = scrub(&log);
        if position < last.end() {
            count += 1;
            let index = if position < second.end() { 4 } else { 5 };
            assert_eq!(found.len(), 1, "{position}");
            assert_eq!(
                (found[0].first_index, found[0].next_index),
                (index, index + 1)
            );
            assert_eq!(
                found[0].end,
                found[0].position
                    + model[index as usize].len() as u64
                    + if index == 5 {
                        2 * SEGMENT - last.end()
                    } else {
                        0
                    }
            );
            assert!(found[0].flushed);
            assert_eq!(scrub(&log), [], "it is known");
            assert!(matches!(
                log.read(index, index + 1, None),
                Err(Error::Corrupt { .. })
            ));
            assert_eq!(
                log.repair(&found[0], &model[index as usize..][..1])
                    .unwrap(),
                None
            );
        }
        assert_eq!(log.holes(), []);
        assert_eq!(raws(&log), model);
        assert_eq!(scrub(&log), []);
    }
    assert_eq!(heard.load(Ordering::Relaxed), count);
}

/// Only the entries of a hole, all or the first ones, are taken to repair it.
#[test]
fn repair_checks_what_it_is_given() {
    let disk = MemoryDisk::new();
    let (log, model) = filled(&disk);
    drop(log);
    // From the middle of the second segment to the middle of the fourth.
    for raw in &model[4..=10] {
        flip(&disk, verify(raw).unwrap().position + 30);
    }
    let log = open(&disk, &by_hand(SEGMENT)).unwrap();
    let hole = match log.holes().as_slice() {
        [hole] => hole.clone(),
        [] => scrub(&log).remove(0),
        more => panic!("{more:?}"),
    };
    assert_eq!((hole.first_index, hole.next_index), (4, 11));
    let mut damaged = model[4].to_vec();
    damaged[100] ^= 1;
    for wrong in [
        vec![Bytes::from(damaged)],
        model[5..11].to_vec(),
        model[3..11].to_vec(),
        model[4..12].to_vec(),
        vec![model[4].clone(), model[6].clone()],
    ] {
        let refused = log.repair(&hole, &wrong);
        assert!(
            matches!(refused, Err(Error::Malformed { .. })),
            "{refused:?}"
        );
        assert_eq!(log.holes(), std::slice::from_ref(&hole));
    }
    // Good entries around it are readable all the while.
    for index in (0..4).chain(11..30) {
        assert_eq!(
            log.read(index, index + 1, None).unwrap()[0].raw,
            model[index as usize]
        );
    }
    let left = log.repair(&hole, &model[4..6]).unwrap().unwrap();
    assert_eq!((left.first_index, left.next_index), (6, 11));
    assert!(log.repair(&hole, &model[4..11]).is_err(), "it has changed");
    assert_eq!(raws_of(&log, 0..6), model[..6]);
    let left = log.repair(&left, &model[6..9]).unwrap().unwrap();
    assert_eq!(log.repair(&left, &model[9..11]).unwrap(), None);
    assert_eq!(raws(&log), model);
    drop(log);
    let log = open(&disk, &by_hand(SEGMENT)).unwrap();
    assert_eq!((raws(&log), scrub(&log)), (model, vec![]));
}

fn raws_of(log: &CommitLog, range: std::ops::Range<u64>) -> Vec<Bytes> {
    let entries = log.read(range.start, range.end, None).unwrap();
    entries.into_iter().map(|entry| entry.raw).collect()
}

/// The last entry, damaged at rest: the checkpoint knows that it was there.
#[test]
fn last_entry() {
    let disk = MemoryDisk::new();
    let (log, model) = filled(&disk);
    drop(log);
    let last = verify(&model[29]).unwrap();
    flip(&disk, last.position + 70);
    let log = open(&disk, &by_hand(SEGMENT)).unwrap();
    assert_eq!(log.last(), Some(last.id));
    let hole = log.holes().remove(0);
    assert_eq!(
        (hole.first_index, hole.next_index, hole.end),
        (29, 30, last.end())
    );
    // The log goes on behind it.
    append(&log, 11, &[10]).unwrap();
    assert!(log.read(29, 31, None).is_err());
    log.read(30, 31, None).unwrap();
    log.repair(&hole, &model[29..]).unwrap();
    log.read(29, 31, None).unwrap();
    log.flush().unwrap();
    assert_eq!(scrub(&log), []);
    // Or it is given up.
    flip(&disk, last.position + 70);
    let hole = scrub(&log).remove(0);
    log.truncate_hole(&hole).unwrap();
    assert_eq!((log.next_index(), log.holes()), (29, vec![]));
    assert_eq!(raws(&log), model[..29]);
}

/// What a client writes to look like entries confuses nobody.
#[test]
fn messages_that_look_like_entries() {
    for (damaged, at) in [(false, 0), (true, 5), (true, 200), (true, 700)] {
        let disk = MemoryDisk::new();
        let log = open(&disk, &by_hand(1 << 20)).unwrap();
        append(&log, 1, &[300]).unwrap();
        let mut body = BytesMut::zeroed(2000);
        let mut position = log.end_position() + HEADER as u64 + 500;
        let mut prev_crc = 7;
        for index in 2..8 {
            let mut header = Header {
                size: HEADER as u32,
                id: LogId::new(1, index),
                position,
                kind: EntryKind::Blank,
                prev_crc,
                crc: 0,
                command_len: 0,
            };
            header.crc = header.compute_crc(&[]);
            prev_crc = header.crc;
            let at = 500 + (index as usize - 2) * HEADER;
            body[at..at + HEADER].copy_from_slice(&header.encode());
            position = header.end();
        }
        let id = LogId::new(1, 1);
        let entry = NewEntry::Fresh {
            id,
            kind: EntryKind::Membership,
            command_len: body.len() as u32,
            body,
        };
        let start = log.end_position();
        log.append([entry], ignore()).unwrap();
        append(&log, 1, &[10, 300, 300]).unwrap();
        let model = copies(&log);
        drop(log);
        if damaged {
            let path = Path::new(DIR).join(file_name(0));
            let byte = disk.content(&path).unwrap()[(start + at) as usize];
            disk.damage(&path, start + at, &[byte ^ 2]);
        }
        let log = open(&disk, &by_hand(1 << 20)).unwrap();
        let holes = scrub_all(&log);
        if at == 5 {
            // The header is gone: the forged ones cannot be told apart, but nothing is served
            // that does not lead to good entries, and the peers' entries replace it all.
            assert!(!holes.is_empty());
        } else {
            assert_eq!(holes.len(), usize::from(damaged), "{at}");
        }
        for hole in holes.iter().filter(|_| at != 5) {
            assert_eq!((hole.first_index, hole.next_index), (1, 2));
            log.repair(hole, &model[1..2]).unwrap();
        }
        if at != 5 {
            assert_eq!(raws(&log), model);
        }
    }
}

fn scrub_all(log: &CommitLog) -> Vec<Hole> {
    log.scrub(&mut ScrubCursor::default(), u64::MAX).unwrap();
    log.holes()
}

/// Records are served only from entries that are right, and all of those are.
#[test]
fn records_are_verified() {
    let disk = MemoryDisk::new();
    let log = open(&disk, &by_hand(1 << 20)).unwrap();
    let mut offsets = Vec::new();
    for index in 0..600u64 {
        let mut body = BytesMut::new();
        for n in 0..1 + index % 3 {
            offsets.push((
                index,
                log.end_position() + HEADER as u64 + body.len() as u64,
            ));
            body.extend_from_slice(&message(
                "t",
                &vec![n as u8; 400 + (index as usize * 7) % 900],
            ));
        }
        let size = (HEADER + body.len()) as u64;
        if log.end_position() % (1 << 20) + size > 1 << 20 {
            // The next entry begins a segment.
            let start = log.end_position().next_multiple_of(1 << 20);
            let mut at = start + HEADER as u64;
            for (_, offset) in offsets.iter_mut().filter(|(of, _)| *of == index) {
                *offset = at;
                at += size - HEADER as u64;
            }
            offsets.retain(|(of, offset)| *of != index || *offset == start + HEADER as u64);
        }
        let entry = NewEntry::Fresh {
            id: LogId::new(1, index),
            kind: EntryKind::Data,
            command_len: 0,
            body,
        };
        log.append([entry], ignore()).unwrap();
    }
    log.sync().unwrap();
    let end = log.end_position();
    let model = copies(&log);
    let records: Vec<Bytes> = offsets
        .iter()
        .map(|(_, offset)| Bytes::copy_from_slice(&log.record_at(*offset, None, end).unwrap()))
        .collect();
    drop(log);
    for damaged in [0usize, 1, 77, 300, 597, 599] {
        let log = open(&disk, &by_hand(1 << 20)).unwrap();
        let header = verify(&model[damaged]).unwrap();
        let path = Path::new(DIR).join(file_name(header.position >> 20 << 20));
        let offset = header.position % (1 << 20) + 300;
        let byte = disk.content(&path).unwrap()[offset as usize];
        disk.damage(&path, offset, &[byte ^ 1]);
        for round in 0..2 {
            for ((index, offset), expected) in offsets.iter().zip(&records) {
                match log.record_at(*offset, None, end) {
                    Ok(record) => {
                        assert_ne!(*index, damaged as u64);
                        assert_eq!(record, expected, "{round}");
                    }
                    Err(Error::Corrupt { .. }) => assert_eq!(*index, damaged as u64),
                    Err(error) => panic!("{error}"),
                }
            }
        }
        let holes = log.holes();
        assert_eq!(holes.len(), 1);
        log.repair(&holes[0], &model[damaged..=damaged]).unwrap();
        for ((_, offset), expected) in offsets.iter().zip(&records) {
            assert_eq!(log.record_at(*offset, None, end).unwrap(), expected);
        }
        assert!(matches!(
            log.record_at(5, None, end),
            Err(Error::NoRecord { .. })
        ));
    }
}

/// Bytes that the device cannot read are damage where the log goes on behind them, and keep it
/// from being opened where it may end.
#[test]
fn unreadable_blocks() {
    let disk = MemoryDisk::new();
    let (log, model) = filled(&disk);
    drop(log);
    let path = Path::new(DIR).join(file_name(2 * SEGMENT));
    let bad = path.clone();
    disk.set_rule(move |operation, path| {
        (operation == Operation::Read && path == bad).then_some(Fault::Errno(libc::EIO))
    });
    // Opening looks at the size of a file, which is a read here.
    assert!(open(&disk, &by_hand(SEGMENT)).is_err());
    disk.clear_rule();
    let log = open(&disk, &by_hand(SEGMENT)).unwrap();
    let bad = path.clone();
    disk.set_rule(move |operation, path| {
        (operation == Operation::Read && path == bad).then_some(Fault::Errno(libc::EIO))
    });
    let holes = scrub(&log);
    disk.clear_rule();
    assert_eq!(holes.len(), 1);
    assert_eq!(
        (&holes[0].path, holes[0].first_index, holes[0].next_index),
        (&path, 6, 9)
    );
    log.repair(&holes[0], &model[6..9]).unwrap();
    assert_eq!(raws(&log), model);
}

/// A failed repair poisons the log, and the hole is found again.
#[test]
fn failed_repair() {
    let disk = MemoryDisk::new();
    let (log, model) = filled(&disk);
    flip(&disk, verify(&model[7]).unwrap().position + 50);
    let hole = scrub(&log).remove(0);
    disk.set_rule(|operation, _| {
        (operation == Operation::SyncData).then_some(Fault::Errno(libc::EIO))
    });
    assert!(matches!(
        log.repair(&hole, &model[7..8]),
        Err(Error::Io { .. })
    ));
    assert!(log.poison().check().is_err());
    disk.clear_rule();
}
