//! Logs filled from another one.

use std::sync::atomic::{AtomicU64, Ordering};

use super::super::tests::{DIR, append, by_hand, crash, open};
use super::*;
use crate::disk::{Fault, MemoryDisk};

const SEGMENT: u64 = 4096;

/// A log with a base and eight segments behind it.
fn source() -> CommitLog {
    let log = open(&MemoryDisk::new(), &by_hand(SEGMENT)).unwrap();
    for term in 1..10 {
        append(&log, term, &[1000, 900, 1200, 10, 700, 1300, 0]).unwrap();
    }
    log.flush().unwrap();
    log.set_committed(40);
    log.purge(20).unwrap();
    log
}

fn begin(disk: &MemoryDisk, base: LogBase) -> Result<Refill> {
    Refill::open(Arc::new(disk.clone()), Path::new(DIR), SEGMENT, base)
}

fn pump(refill: &mut Refill, source: &CommitLog, bytes_max: u64) -> Result<()> {
    loop {
        let raw = source.raw(refill.position(), bytes_max, source.end_position())?;
        if raw.is_empty() {
            return Ok(());
        }
        refill.push(&raw)?;
    }
}

/// The filled folder is the source byte for byte.
fn check(disk: &MemoryDisk, source: &CommitLog) {
    let log = open(disk, &by_hand(SEGMENT)).unwrap();
    assert_eq!((log.base(), log.last()), (source.base(), source.last()));
    let other = source.shared().disk.clone();
    for segment in source.segments().unwrap() {
        let path = Path::new(DIR).join(super::super::segment::file_name(segment.position));
        let mut expected = vec![0; SEGMENT as usize];
        let file = other.open(&path, crate::disk::Open::Existing).unwrap();
        file.read_at(&mut expected, 0).unwrap();
        assert!(
            disk.content(&path).unwrap() == expected,
            "{}",
            path.display()
        );
    }
}

#[test]
fn fills_a_folder() {
    let source = source();
    for bytes_max in [0, 3000, 1 << 20] {
        let disk = MemoryDisk::new();
        // Something else was there.
        let old = open(&disk, &by_hand(SEGMENT)).unwrap();
        append(&old, 1, &[1000; 90]).unwrap();
        drop(old);
        let mut refill = begin(&disk, source.base()).unwrap();
        assert_eq!(refill.position(), source.min_position());
        assert_eq!(refill.last(), source.purged());
        pump(&mut refill, &source, bytes_max).unwrap();
        assert_eq!(refill.last(), source.last());
        assert!(
            open(&disk, &by_hand(SEGMENT)).is_err(),
            "it is not finished"
        );
        refill.finish().unwrap();
        check(&disk, &source);
    }
}

/// It goes on where it stopped; with another base it starts anew.
#[test]
fn resumes() {
    let source = source();
    let disk = MemoryDisk::new();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut refill = begin(&disk, source.base()).unwrap();
    let raw = source.raw(refill.position(), 3000, u64::MAX).unwrap();
    refill.push(&raw).unwrap();
    let (position, last) = (refill.position(), refill.last());
    drop(refill);
    let unfinished = Refill::unfinished(&shared, Path::new(DIR)).unwrap();
    assert_eq!(unfinished, Some(source.base()));
    let refill = begin(&disk, source.base()).unwrap();
    assert_eq!((refill.position(), refill.last()), (position, last));
    drop(refill);
    source.purge(30).unwrap();
    let mut refill = begin(&disk, source.base()).unwrap();
    assert_eq!(refill.position(), source.min_position());
    pump(&mut refill, &source, 10_000).unwrap();
    refill.finish().unwrap();
    assert_eq!(Refill::unfinished(&shared, Path::new(DIR)).unwrap(), None);
    check(&disk, &source);
}

/// Bytes that do not continue it, or are damaged, are refused and change nothing.
#[test]
fn wrong_bytes_are_refused() {
    let source = source();
    let mut refill = begin(&MemoryDisk::new(), source.base()).unwrap();
    let raw = source.raw(refill.position(), 3000, u64::MAX).unwrap();
    let mut wrong: Vec<Vec<u8>> = (0..raw.len())
        .step_by(7)
        .map(|at| {
            let mut bytes = raw.to_vec();
            bytes[at] ^= 4;
            bytes
        })
        .collect();
    wrong.push(raw[..raw.len() - 1].to_vec());
    wrong.push(
        source
            .raw(refill.position() + SEGMENT, 3000, u64::MAX)
            .unwrap()
            .to_vec(),
    );
    for bytes in wrong {
        let refused = refill.push(&bytes);
        assert!(
            matches!(refused, Err(Error::Malformed { .. })),
            "{refused:?}"
        );
        assert_eq!(refill.position(), source.min_position());
    }
    refill.push(&raw).unwrap();
    let twice = refill.push(&raw);
    assert!(matches!(twice, Err(Error::Malformed { .. })), "{twice:?}");
    assert!(source.raw(0, 10, u64::MAX).is_err(), "removed");
    assert!(source.raw(source.min_position() + 1, 10, u64::MAX).is_err());
    assert!(
        source
            .raw(source.end_position(), 10, u64::MAX)
            .unwrap()
            .is_empty()
    );
    let odd = LogBase {
        position: 100,
        ..source.base()
    };
    assert!(matches!(
        begin(&MemoryDisk::new(), odd),
        Err(Error::Malformed { .. })
    ));
}

/// A machine that stops at any moment: the refill goes on, or a finished one is whole.
#[test]
fn stops_anywhere() {
    let source = source();
    let run = |disk: &MemoryDisk| -> Result<()> {
        let mut refill = begin(disk, source.base())?;
        pump(&mut refill, &source, 3000)?;
        refill.finish()
    };
    for stop_at in 0.. {
        let mut finished = true;
        for seed in 0..4 {
            let disk = MemoryDisk::new();
            let old = open(&disk, &by_hand(SEGMENT)).unwrap();
            append(&old, 1, &[1000; 20]).unwrap();
            drop(old);
            let count = AtomicU64::new(0);
            disk.set_rule(move |_, _| {
                (count.fetch_add(1, Ordering::Relaxed) == stop_at).then_some(Fault::Stop)
            });
            finished &= run(&disk).is_ok();
            let disk = crash(&disk, stop_at * 4 + seed);
            let shared: Arc<dyn Disk> = Arc::new(disk.clone());
            if finished {
                assert_eq!(Refill::unfinished(&shared, Path::new(DIR)).unwrap(), None);
            } else {
                run(&disk).unwrap();
            }
            check(&disk, &source);
        }
        if finished {
            assert!(stop_at > 30, "{stop_at}");
            break;
        }
    }
}
