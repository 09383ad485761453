//! A log made in a folder, damaged there, and looked at.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;

use super::*;
use crate::disk::RealDisk;
use crate::entry::{EntryKind, LogId, NewEntry};
use crate::log::{CommitLog, LogOptions};

const SEGMENT: u64 = 4096;

/// A log of `count` entries of 448 bytes: nine fit into a segment.
fn make(dir: &Path, count: u64) {
    let options = LogOptions {
        segment_bytes: SEGMENT,
        prepare_ahead: 0,
        ..LogOptions::new(dir)
    };
    let log = CommitLog::open(Arc::new(RealDisk), options).unwrap();
    let entries = (0..count).map(|index| NewEntry::Fresh {
        id: LogId::new(1, index),
        kind: EntryKind::Blank,
        command_len: 0,
        body: BytesMut::from(&[7u8; 400][..]),
    });
    log.append(entries, Box::new(drop)).unwrap();
    log.sync().unwrap();
}

fn scan(path: &Path) -> Vec<Found> {
    let start = SegmentName::start_of(path).unwrap();
    let mut scan = SegmentScan::open(path, start, SEGMENT).unwrap();
    std::iter::from_fn(|| scan.step().unwrap()).collect()
}

fn damage(path: &Path, offset: u64, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

fn indexes(found: &[Found]) -> Vec<u64> {
    let index = |found: &Found| match found {
        Found::Entry { header, .. } => Some(header.id.index),
        _ => None,
    };
    found.iter().filter_map(index).collect()
}

#[test]
fn whole_segments() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), 12);
    let files = segments(dir.path()).unwrap();
    assert_eq!(files.len(), 2);
    let first = scan(&files[0].path);
    assert_eq!(indexes(&first), (0..9).collect::<Vec<_>>());
    assert!(matches!(
        first.last(),
        Some(Found::Blank { position: 4032 })
    ));
    let second = scan(&files[1].path);
    assert_eq!(indexes(&second), [9, 10, 11]);
    assert!(matches!(
        second.last(),
        Some(Found::Unwritten { position: 5440 })
    ));
}

/// Entries behind a damaged one are found, whatever is damaged of it; the rest of the log is not
/// taken for one.
#[test]
fn goes_on_behind_damage() {
    for (offset, has_header) in [
        (448 * 3 + 60, true),
        (448 * 3 + 2, false),
        (448 * 3 + 6, false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), 12);
        let path = segments(dir.path()).unwrap().remove(0).path;
        damage(&path, offset, &[0xFF]);
        let found = scan(&path);
        assert_eq!(indexes(&found), [0, 1, 2, 4, 5, 6, 7, 8], "{offset}");
        let Found::Damage {
            position,
            end,
            header,
            goes_on,
            ..
        } = &found[3]
        else {
            panic!("{found:?}")
        };
        assert_eq!((*position, *end, *goes_on), (1344, 1792, true));
        assert_eq!(header.is_some(), has_header);
    }
}

/// Zeros amid entries are damage, and so is a file that is too short.
#[test]
fn zeros_and_short_files() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), 12);
    let files = segments(dir.path()).unwrap();
    damage(&files[0].path, 448, &[0; 448]);
    let found = scan(&files[0].path);
    assert!(
        matches!(&found[1], Found::Damage { what, goes_on: true, .. } if what.contains("zeros"))
    );
    let file = std::fs::OpenOptions::new().write(true).open(&files[1].path);
    file.unwrap().set_len(600).unwrap();
    let found = scan(&files[1].path);
    assert_eq!(indexes(&found), [9]);
    assert!(matches!(
        found.last(),
        Some(Found::Damage { goes_on: false, .. })
    ));
}

/// Marks are read as they were written; damage is an error, absence is not.
#[test]
fn marks_of_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let marks = Marks {
        root: dir.path(),
        commit_log: dir.path(),
    };
    assert_eq!(marks.checkpoint().unwrap(), None);
    assert_eq!(marks.committed().unwrap(), None);
    assert_eq!(marks.vote().unwrap(), None);
    assert_eq!(marks.identity().unwrap(), None);
    assert_eq!(marks.abort().unwrap(), None);
    make(dir.path(), 12);
    let flushed = marks.checkpoint().unwrap().unwrap();
    assert_eq!(flushed.segment_bytes, SEGMENT);
    assert_eq!(flushed.entry, Some((LogId::new(1, 11), 4992, 5440)));
    for slot in [0, 4096] {
        damage(&dir.path().join("checkpoint"), slot + 20, &[9; 30]);
    }
    assert!(marks.checkpoint().is_err());
    std::fs::write(dir.path().join("committed"), [1; 24]).unwrap();
    assert!(marks.committed().is_err());
}

/// A store that is locked is refused, and another reader is not.
#[test]
fn locks() {
    use crate::disk::Disk;
    let dir = tempfile::tempdir().unwrap();
    let one = refuse_locked(dir.path()).unwrap();
    drop(one);
    let lock = RealDisk.lock(&dir.path().join("lock")).unwrap();
    assert!(matches!(
        refuse_locked(dir.path()),
        Err(crate::Error::Locked { .. })
    ));
    drop(lock);
    let one = refuse_locked(dir.path()).unwrap();
    let two = refuse_locked(dir.path()).unwrap();
    drop((one, two));
    assert!(!is_locked_by_java(&dir.path().join("lock")).unwrap());
}
