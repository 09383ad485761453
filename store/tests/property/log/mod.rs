//! The commit log against a list of entries, on a disk that fails in every way.
//!
//! A case appends, flushes, truncates, purges, scrubs and restarts at random, until the process is
//! killed or the machine stops, at any disk operation, those of a recovery included; or until an
//! operation fails (`EIO`, `ENOSPC`, a failed fsync). A power cut loses any of what was not synced:
//! all, the end, or any sectors. Then bits flip, files vanish, and what looks like the rest of an
//! earlier life turns up behind the end. After the next start every flushed entry has to be there
//! byte for byte, or in a hole that is reported where something was damaged, and a repair heals it;
//! nothing may be there that was not appended, nothing that was cut off, and the files have to be
//! those of the model to the last byte.

mod model;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use raftmq_store::disk::{Disk, Fault, MemoryDisk, Open, Operation};
use raftmq_store::{CommitLog, Error, FlushMode, Hole, LogOptions, NewEntry, ScrubCursor};

use crate::Random;
use model::{Entry, Model};

const DIR: &str = "/log";

struct Case {
    random: Random,
    disk: MemoryDisk,
    options: LogOptions,
    model: Model,
    /// Entries of the model that must survive a power cut.
    durable: usize,
    /// Entries removed at the beginning; or so many more, by a purge that did not return.
    first: usize,
    first_max: usize,
    /// Entries that no truncation reaches, as a purge has counted on them.
    kept: usize,
    term: u64,
    /// What was cut off last.
    cut: Vec<Entry>,
    /// Prints what happens.
    loud: bool,
}

pub(crate) fn run(mut random: Random, loud: bool) {
    let segment = [4096, 8192, 16384][random.below(3) as usize];
    let prepare_ahead = if random.once_in(8) {
        1 + random.below(20_000)
    } else {
        0
    };
    let interval = Duration::from_secs(100_000);
    let options = LogOptions {
        segment_bytes: segment,
        flush: FlushMode::Async { interval },
        prepare_ahead,
        ..LogOptions::new(DIR)
    };
    let model = Model {
        segment,
        entries: Vec::new(),
    };
    let mut case = Case {
        random,
        disk: MemoryDisk::new(),
        options,
        model,
        durable: 0,
        first: 0,
        first_max: 0,
        kept: 0,
        term: 1,
        cut: Vec::new(),
        loud,
    };
    for _ in 0..1 + case.random.below(5) {
        if !case.live() {
            break;
        }
    }
}

/// How a life of the log ends.
#[derive(Debug, PartialEq)]
enum End {
    /// Everything went well.
    Well,
    /// An operation failed, and the log refuses the next ones.
    Failed,
    /// An fsync of a truncation failed: the page cache says what the disk does not.
    CutFailed,
    /// The machine stopped in the middle of something.
    Stopped,
}

impl Case {
    fn say(&self, what: &str) {
        if self.loud {
            let (len, end) = (self.model.entries.len(), self.model.end());
            let (durable, first) = (self.durable, self.first);
            println!("{what}: {first}..{len} to position {end}, {durable} durable");
        }
    }

    fn open(&self) -> Result<CommitLog, Error> {
        CommitLog::open(Arc::new(self.disk.clone()), self.options.clone())
    }

    /// False when the log is lost.
    fn live(&mut self) -> bool {
        let stopped = self.plan_fault();
        let mut end = End::Well;
        match self.open() {
            // What a stop during this recovery leaves has to be as good.
            Err(_) => end = End::Failed,
            Ok(log) => {
                self.durable = self.model.entries.len();
                for _ in 0..self.random.below(25) {
                    end = self.step(&log);
                    self.say(&format!("step {end:?}"));
                    if end != End::Well {
                        if !stopped.load(Ordering::SeqCst) {
                            assert!(log.poison().check().is_err(), "it failed and goes on");
                        }
                        assert!(log.flush().is_err() || self.durable == self.model.entries.len());
                        break;
                    }
                }
                let is_fine = end == End::Well && !stopped.load(Ordering::SeqCst);
                let is_over = is_fine && self.random.once_in(4);
                if is_over {
                    self.disk.clear_rule();
                    drop(log);
                    self.durable = self.model.entries.len();
                } else {
                    // As if the process were gone: closing finds no disk any more.
                    let next = self.stop(&end, &stopped);
                    drop(log);
                    self.disk = next;
                    return self.restart();
                }
            }
        }
        if stopped.load(Ordering::SeqCst) {
            end = End::Stopped;
        }
        if end != End::Well {
            self.disk = self.stop(&end, &stopped);
        }
        self.restart()
    }

    /// Lets an operation fail or the machine stop after a while, or never.
    fn plan_fault(&mut self) -> Arc<AtomicBool> {
        let stopped = Arc::new(AtomicBool::new(false));
        let kind = self.random.below(10);
        let after = self.random.below(70);
        let count = AtomicU64::new(0);
        let s = stopped.clone();
        let loud = self.loud;
        self.disk.set_rule(move |operation, path| {
            let counts = match kind {
                0..4 => true,
                4 => operation == Operation::SyncData,
                5 => matches!(operation, Operation::Write { .. }),
                6 => matches!(operation, Operation::Write { .. } | Operation::SetSize),
                7 => matches!(operation, Operation::SyncDir | Operation::Remove),
                _ => return None,
            };
            if !counts || count.fetch_add(1, Ordering::SeqCst) != after / (1 + kind / 4 * 4) {
                return None;
            }
            if loud {
                println!("{operation:?} of {} fails, kind {kind}", path.display());
            }
            if kind < 4 {
                s.store(true, Ordering::SeqCst);
                return Some(Fault::Stop);
            }
            Some(Fault::Errno(if kind == 6 {
                libc::ENOSPC
            } else {
                libc::EIO
            }))
        });
        stopped
    }

    fn step(&mut self, log: &CommitLog) -> End {
        let outcome = |result: Result<(), Error>| {
            let Err(error) = result else { return End::Well };
            assert!(log.poison().check().is_err(), "it goes on after: {error}");
            End::Failed
        };
        let len = self.model.entries.len();
        let choice = self.random.below(20);
        self.say(&format!("choice {choice}"));
        match choice {
            0..9 => {
                let first = len;
                for _ in 0..1 + self.random.below(6) {
                    let size = match self.random.below(12) {
                        0 => 0,
                        1 => self.model.segment - 48 - self.random.below(3) * 4,
                        2..5 => self.random.below(100),
                        _ => self.random.below(1800),
                    };
                    // A record takes a little more than its body.
                    let size = size.min(self.model.segment - 48);
                    self.model.push(&mut self.random, self.term, size);
                }
                let new = &self.model.entries[first..];
                let new: Vec<_> = new
                    .iter()
                    .map(|entry| NewEntry::Stored {
                        raw: entry.raw.clone(),
                    })
                    .collect();
                outcome(log.append(new, Box::new(drop)))
            }
            9..12 => {
                let flushed = if self.random.once_in(2) {
                    log.flush()
                } else {
                    log.sync()
                };
                if flushed.is_ok() {
                    self.durable = len;
                }
                outcome(flushed)
            }
            12..14 => {
                let keep = len
                    .saturating_sub(self.random.below(10) as usize)
                    .max(self.kept);
                if keep == len {
                    return End::Well;
                }
                if let Err(error) = log.truncate_after((keep as u64).checked_sub(1)) {
                    assert!(log.poison().check().is_err(), "it goes on after: {error}");
                    // It may be done or not.
                    self.durable = self.durable.min(keep);
                    return End::CutFailed;
                }
                self.cut = self.model.entries.split_off(keep);
                self.durable = keep;
                self.term += 1;
                End::Well
            }
            14..16 => {
                if self.durable == 0 {
                    return End::Well;
                }
                let upto = self.random.below(self.durable as u64);
                self.first_max = self.first_max.max(upto as usize + 1);
                self.kept = self.kept.max(upto as usize + 1);
                match log.purge(upto) {
                    Ok(bytes) => {
                        self.first = log.first_index() as usize;
                        // One that found no room before may yet show after a stop.
                        if bytes > 0 {
                            self.first_max = self.first;
                        }
                        End::Well
                    }
                    Err(error) if error.is_no_space() => {
                        // The log goes on; nothing was removed.
                        assert_eq!(log.first_index(), self.first as u64);
                        if log.poison().check().is_ok() {
                            End::Well
                        } else {
                            End::Failed
                        }
                    }
                    Err(_) => End::Failed,
                }
            }
            16 => {
                let scrubbed = log.scrub(&mut ScrubCursor::default(), u64::MAX);
                if let Ok(step) = scrubbed {
                    assert_eq!(step.holes, []);
                }
                End::Well
            }
            _ => {
                let from = self.random.below(len as u64 + 1).max(self.first as u64);
                if let Ok(read) = log.read(from, len as u64, Some(5000)) {
                    for (entry, expected) in read.iter().zip(&self.model.entries[from as usize..]) {
                        assert_eq!(entry.raw, expected.raw);
                    }
                }
                End::Well
            }
        }
    }

    /// What a stop leaves of the disk.
    fn stop(&mut self, end: &End, stopped: &AtomicBool) -> MemoryDisk {
        let machine = stopped.load(Ordering::SeqCst)
            || matches!(end, End::Stopped | End::CutFailed)
            || self.random.once_in(2);
        self.say(if machine { "power cut" } else { "killed" });
        if machine {
            let mut random = self.random.clone();
            self.random.below(2);
            return self.disk.crash(move |choices: u64| random.below(choices));
        }
        if *end == End::Well {
            self.durable = self.model.entries.len();
        }
        self.disk.kill()
    }

    fn file(&self, start: u64) -> PathBuf {
        Path::new(DIR).join(format!("{start:020}"))
    }

    /// Damages the disk a little. Returns the ranges of the log that are damaged.
    fn damage(&mut self) -> Vec<Range<u64>> {
        let mut damaged = Vec::new();
        if self.durable <= self.first_max || !self.random.once_in(3) {
            return damaged;
        }
        for _ in 0..1 + self.random.below(3) {
            let span = (self.durable - self.first_max) as u64;
            let entry = &self.model.entries[self.first_max + self.random.below(span) as usize];
            let at = entry.position + self.random.below(entry.raw.len() as u64);
            let start = at / self.model.segment * self.model.segment;
            if self.random.once_in(8) {
                if self.disk.remove(&self.file(start)).is_ok() {
                    damaged.push(start..start + self.model.segment);
                }
                continue;
            }
            let Some(content) = self.disk.content(&self.file(start)) else {
                continue;
            };
            let Some(byte) = content.get((at - start) as usize) else {
                continue;
            };
            let flipped = byte ^ (1 << self.random.below(8));
            self.disk.damage(&self.file(start), at - start, &[flipped]);
            damaged.push(at..at + 1);
        }
        damaged
    }

    /// Puts bytes of an earlier life behind the end: entries that were cut off, and a whole file.
    fn leave_over(&mut self) {
        let last = self
            .durable
            .checked_sub(1)
            .map(|last| &self.model.entries[last]);
        let Some(last) = last.filter(|_| self.durable == self.model.entries.len()) else {
            return;
        };
        if !self.random.once_in(2) {
            return;
        }
        let end = last.end();
        let stale = self
            .cut
            .iter()
            .filter(|cut| cut.term < last.term && cut.position >= end);
        for entry in stale.cloned().collect::<Vec<_>>() {
            let start = entry.position / self.model.segment * self.model.segment;
            if self.disk.content(&self.file(start)).is_some() {
                self.disk
                    .damage(&self.file(start), entry.position - start, &entry.raw);
            }
        }
        let segment = self.model.segment;
        let next = end.next_multiple_of(segment);
        let used = self.file((end - 1) / segment * segment);
        if let Some(content) = self.disk.content(&used)
            && self.disk.content(&self.file(next)).is_none()
            && self.disk.open(&self.file(next), Open::Create).is_ok()
        {
            self.disk.damage(&self.file(next), 0, &content);
        }
    }

    /// False when the log is lost.
    fn restart(&mut self) -> bool {
        self.disk.clear_rule();
        let damaged = self.damage();
        if damaged.is_empty() {
            self.leave_over();
        }
        let log = match self.open() {
            Ok(log) => log,
            // Every file is gone, and nothing says what was in them.
            Err(error) => {
                let listed = self.disk.list(Path::new(DIR)).expect("no read fails");
                assert!(listed.iter().all(|name| name.len() != 20), "{error}");
                assert!(
                    !damaged.is_empty() && error.to_string().contains("missing"),
                    "{error}"
                );
                return false;
            }
        };
        self.say(&format!("opened, damaged {damaged:?}, {:?}", log.holes()));
        self.check(&log, &damaged);
        self.cut.clear();
        true
    }

    /// Everything that is claimed of a log after a stop.
    fn check(&mut self, log: &CommitLog, damaged: &[Range<u64>]) {
        let first = log.first_index() as usize;
        let bounds = self.first..=self.first_max.max(self.first);
        assert!(bounds.contains(&first), "{first} is not in {bounds:?}");
        (self.first, self.first_max) = (first, first);
        let is_damaged = |entry: &Entry| damaged.iter().any(|range| entry.meets(range));
        let next = log.next_index() as usize;
        assert!(
            next <= self.model.entries.len(),
            "there is more than was appended"
        );
        if next < self.durable {
            // The very end, of which nothing says that it was ever flushed.
            let lost = &self.model.entries[next..self.durable];
            assert!(lost.iter().all(is_damaged), "{next} of {}", self.durable);
            self.durable = next;
        }
        for range in [1 << 20, 777] {
            self.read_all(log, first, next);
            let mut cursor = ScrubCursor::default();
            while !log
                .scrub(&mut cursor, range)
                .expect("no read fails")
                .finished
            {}
        }
        let holes = log.holes();
        let in_hole = |index: usize| {
            let holds = |hole: &Hole| (hole.first_index..hole.next_index).contains(&(index as u64));
            holes.iter().any(holds)
        };
        for index in first..next {
            let entry = &self.model.entries[index];
            let read = log.read(index as u64, index as u64 + 1, None);
            match read {
                Ok(read) => assert_eq!(read[0].raw, entry.raw, "entry {index}"),
                Err(Error::Corrupt { .. }) => assert!(in_hole(index), "entry {index}"),
                Err(error) => panic!("{error}"),
            }
            if let Some((offset, expected)) = &entry.record {
                match log.record_at(*offset, None, log.end_position()) {
                    Ok(record) => assert_eq!(record, expected, "record of {index}"),
                    Err(Error::Corrupt { .. }) => assert!(in_hole(index), "entry {index}"),
                    Err(error) => panic!("{error}"),
                }
            }
        }
        for hole in &holes {
            let missing = hole.first_index as usize..hole.next_index as usize;
            let reason =
                |index: usize| index >= self.durable || is_damaged(&self.model.entries[index]);
            assert!(
                missing.clone().any(reason),
                "{hole:?} where nothing was damaged"
            );
            assert!(!hole.flushed || missing.start < self.durable, "{hole:?}");
        }
        self.heal(log);
        self.compare(log);
    }

    fn read_all(&self, log: &CommitLog, first: usize, next: usize) {
        for index in first..next {
            if let Ok(read) = log.read(index as u64, (index as u64 + 4).min(next as u64), None) {
                for (entry, expected) in read.iter().zip(&self.model.entries[index..]) {
                    assert_eq!(entry.raw, expected.raw);
                }
            }
        }
    }

    /// Repairs all holes, or cuts the log where only what was never flushed is lost.
    fn heal(&mut self, log: &CommitLog) {
        while let Some(hole) = log.holes().first() {
            let missing = hole.first_index as usize..hole.next_index as usize;
            if missing.start >= self.durable && self.random.once_in(2) {
                log.truncate_hole(hole)
                    .unwrap_or_else(|error| panic!("{error}"));
                continue;
            }
            let raws = self.model.entries[missing]
                .iter()
                .map(|entry| entry.raw.clone());
            let mut raws: Vec<_> = raws.collect();
            if raws.len() > 1 && self.random.once_in(3) {
                raws.truncate(1 + self.random.below(raws.len() as u64 - 1) as usize);
            }
            log.repair(hole, &raws)
                .unwrap_or_else(|error| panic!("{error}"));
        }
        let next = log.next_index() as usize;
        if next < self.model.entries.len() {
            self.term += 1;
            self.model.entries.truncate(next);
        }
        self.durable = next;
        self.kept = self.kept.min(next);
    }

    /// Entry by entry and byte by byte.
    fn compare(&self, log: &CommitLog) {
        let (first, next) = (self.first as u64, self.model.entries.len() as u64);
        let read = log
            .read(first, next, None)
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(read.len() as u64, next - first);
        for (entry, expected) in read.iter().zip(&self.model.entries[self.first..]) {
            assert_eq!(entry.raw, expected.raw);
            assert_eq!(entry.position, expected.position);
        }
        let end = self.model.end().max(log.min_position());
        assert_eq!(log.end_position(), end);
        assert_eq!((log.flushed_next(), log.flushed_position()), (next, end));
        let mut starts = (log.min_position()..end).step_by(self.model.segment as usize);
        assert!(starts.all(|start| {
            self.disk.content(&self.file(start)) == Some(self.model.image(start))
        }));
    }
}
