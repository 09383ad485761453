//! Compares the members' commit logs byte for byte, and reads one as the format says.
//!
//! An entry is a header of 48 bytes, big-endian, and a body; segments are files named by their first position in 20 digits.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic |
//! | 4 | 4 | size of header and body |
//! | 8 | 8 | index |
//! | 16 | 8 | term |
//! | 24 | 8 | position |
//! | 32 | 1 | kind |
//! | 36 | 4 | CRC32C of the entry before |
//! | 40 | 4 | CRC32C of header without this field, and body |
//! | 44 | 4 | length of the command, with which the body begins |

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::calls::MessageId;
use crate::cluster::Cluster;
use crate::record;
use crate::wait::wait_ok;

const HEADER: usize = 48;

/// What was compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    /// Members.
    pub members: usize,
    /// Segments of each.
    pub segments: usize,
    /// Bytes of each.
    pub bytes: u64,
    /// Entries of each.
    pub entries: u64,
}

impl std::fmt::Display for Compared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Compared {
            members,
            segments,
            bytes,
            entries,
        } = self;
        write!(
            f,
            "{members} members agree byte for byte on {bytes} bytes in {segments} segments, {entries} entries"
        )
    }
}

/// One member's commit log.
#[derive(Debug)]
struct Log {
    folder: PathBuf,
    segment_bytes: u64,
    segments: Vec<(u64, File)>,
}

impl Log {
    fn open(folder: &Path) -> Result<Log> {
        let mut segments = Vec::new();
        let listing = std::fs::read_dir(folder)
            .with_context(|| format!("list the segments in {}", folder.display()))?;
        for entry in listing {
            let path = entry.context("list the segments")?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit()) {
                let start = name.parse().context("a segment's name")?;
                let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
                segments.push((start, file));
            }
        }
        segments.sort_by_key(|(start, _)| *start);
        let first = segments
            .first()
            .with_context(|| format!("no segment in {}", folder.display()))?;
        let segment_bytes = first.1.metadata().context("size of a segment")?.len();
        Ok(Log {
            folder: folder.to_owned(),
            segment_bytes,
            segments,
        })
    }

    fn begin(&self) -> Option<u64> {
        self.segments.first().map(|(start, _)| *start)
    }

    fn read(&self, position: u64, bytes: usize) -> Result<Vec<u8>> {
        let segment = position / self.segment_bytes * self.segment_bytes;
        let file = self
            .segments
            .iter()
            .find_map(|(start, file)| (*start == segment).then_some(file))
            .with_context(|| format!("{} has no segment {segment}", self.folder.display()))?;
        let mut buffer = vec![0; bytes];
        file.read_exact_at(&mut buffer, position - segment)
            .with_context(|| {
                format!(
                    "read {bytes} bytes at {position} of {}",
                    self.folder.display()
                )
            })?;
        Ok(buffer)
    }

    /// The record at a commit log offset, if its bytes are there and whole.
    fn record_at(&self, position: u64) -> Result<Vec<u8>> {
        let size = self.read(position, 4)?;
        let size = u32::from_be_bytes([size[0], size[1], size[2], size[3]]) as usize;
        ensure!(
            size <= 32 << 20,
            "no record at {position} of {}",
            self.folder.display()
        );
        let bytes = self.read(position, size)?;
        let found = record::parse(&bytes)
            .with_context(|| format!("the record at {position} of {}", self.folder.display()))?;
        ensure!(u64::try_from(found.physical_offset).is_ok_and(|offset| offset == position));
        ensure!(found.body_intact, "the record at {position} is damaged");
        Ok(bytes)
    }
}

/// Sends one more message, waits until every member has it in its file, and compares everything up to there.
///
/// All members must be running. The message was acknowledged, so it is committed, and with it everything before it; no
/// watermark has to be asked for.
pub fn require_identical(cluster: &mut Cluster) -> Result<Compared> {
    require_identical_within(cluster, Duration::from_secs(30))
}

/// As [`require_identical`], with the time that the members have to become equal.
pub fn require_identical_within(cluster: &mut Cluster, within: Duration) -> Result<Compared> {
    let leader = cluster.wait_leader()?;
    let sent = cluster.probe(leader)?;
    let MessageId {
        physical_offset, ..
    } = *sent.ids.first().context("a send without an id")?;
    let fence = u64::try_from(physical_offset).context("a negative physical offset")?;
    let folders: Vec<PathBuf> = cluster
        .members
        .iter()
        .map(crate::cluster::Member::commit_log)
        .collect();
    let (logs, end) = wait_ok(
        &format!("every member to have the acknowledged message at {fence}"),
        within,
        Duration::from_millis(20),
        || {
            let logs: Vec<Log> = folders
                .iter()
                .map(|folder| Log::open(folder))
                .collect::<Result<_>>()?;
            let expected = logs[leader].record_at(fence)?;
            for log in &logs {
                // Each member removes what was trimmed in its own time.
                ensure!(
                    log.begin() == logs[leader].begin(),
                    "{} begins elsewhere",
                    log.folder.display()
                );
                ensure!(
                    log.record_at(fence)? == expected,
                    "{} differs at {fence}",
                    log.folder.display()
                );
            }
            Ok((logs, fence + expected.len() as u64))
        },
    )?;
    compare(&logs, end)
}

/// Where a stopped member's log ends: its last entry's bytes, and the position behind it.
pub fn last_entry(folder: &Path) -> Result<(Vec<u8>, u64)> {
    let log = Log::open(folder)?;
    let mut at = log.segments.first().map_or(0, |(start, _)| *start);
    let mut last = None;
    while let Ok(header) = log.read(at, HEADER) {
        let rest_of_segment = log.segment_bytes - at % log.segment_bytes;
        let size = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let position = u64::from_be_bytes(header[24..32].try_into().context("8 bytes")?);
        if u64::from(size) == rest_of_segment && position != at {
            at += rest_of_segment; // a filler
        } else if size as usize >= HEADER && position == at {
            last = Some(log.read(at, size as usize)?);
            at += u64::from(size);
        } else {
            break;
        }
    }
    Ok((
        last.with_context(|| format!("{} is empty", folder.display()))?,
        at,
    ))
}

/// Overwrites bytes of a stopped member's log, as far as they fit the segment.
pub fn scribble(folder: &Path, position: u64, bytes: &[u8]) -> Result<()> {
    let log = Log::open(folder)?;
    let segment = position / log.segment_bytes * log.segment_bytes;
    let path = file(folder, segment);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    let room = log.segment_bytes - (position - segment);
    let fitting = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
    file.write_all_at(&bytes[..fitting], position - segment)
        .context("scribble")
}

/// Flips bits of the byte at `position`, of a running or stopped member.
pub fn flip(folder: &Path, position: u64) -> Result<()> {
    let log = Log::open(folder)?;
    let byte = log.read(position, 1)?[0];
    scribble(folder, position, &[byte ^ 0x55])
}

/// The first positions of the segments that have a file.
pub fn starts(folder: &Path) -> Result<Vec<u64>> {
    let log = Log::open(folder)?;
    Ok(log.segments.iter().map(|(start, _)| *start).collect())
}

/// The file of the segment that begins at `start`.
pub fn file(folder: &Path, start: u64) -> PathBuf {
    folder.join(format!("{start:020}"))
}

fn compare(logs: &[Log], end: u64) -> Result<Compared> {
    let (first, others) = logs.split_first().context("no members")?;
    let starts = |log: &Log| -> Vec<u64> {
        log.segments
            .iter()
            .map(|(start, _)| *start)
            .filter(|start| *start < end)
            .collect()
    };
    for other in others {
        ensure!(
            starts(other) == starts(first) && other.segment_bytes == first.segment_bytes,
            "{} and {} have different segments",
            first.folder.display(),
            other.folder.display()
        );
    }
    const CHUNK: u64 = 1 << 20;
    let begin = first.segments.first().map_or(0, |(start, _)| *start);
    let mut at = begin;
    while at < end {
        let segment_end = (at / first.segment_bytes + 1) * first.segment_bytes;
        let next = end.min(segment_end).min(at + CHUNK);
        let bytes = usize::try_from(next - at).context("a chunk")?;
        let expected = first.read(at, bytes)?;
        for other in others {
            let found = other.read(at, bytes)?;
            if let Some(index) = (0..bytes).find(|index| expected[*index] != found[*index]) {
                bail!(
                    "{} and {} differ at position {}, before the committed end {end}",
                    first.folder.display(),
                    other.folder.display(),
                    at + index as u64
                );
            }
        }
        at = next;
    }
    let entries = walk(first, begin, end)?;
    Ok(Compared {
        members: logs.len(),
        segments: starts(first).len(),
        bytes: end - begin,
        entries,
    })
}

/// Reads entry after entry: indexes without a gap, terms that never fall, positions and checksums that fit.
fn walk(log: &Log, begin: u64, end: u64) -> Result<u64> {
    let (mut at, mut entries) = (begin, 0);
    let mut last: Option<(u64, u64, u32)> = None;
    while at < end {
        let rest_of_segment = log.segment_bytes - at % log.segment_bytes;
        if rest_of_segment < HEADER as u64 {
            at += rest_of_segment;
            continue;
        }
        let header = log.read(at, HEADER)?;
        let word = |at: usize| {
            u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
        // A filler has only a magic and what is left of the segment.
        if u64::from(word(4)) == rest_of_segment && long(24) != at {
            at += rest_of_segment;
            continue;
        }
        let place = format!("entry at {at} of {}", log.folder.display());
        ensure!(long(24) == at, "{place} says position {}", long(24));
        let size = word(4) as usize;
        ensure!(
            size >= HEADER && size as u64 <= rest_of_segment,
            "{place} has size {size}"
        );
        let bytes = log.read(at, size)?;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..40]), &bytes[44..]);
        ensure!(
            crc == word(40),
            "{place}: checksum {:#x}, computed {crc:#x}",
            word(40)
        );
        let (index, term) = (long(8), long(16));
        if let Some((last_index, last_term, last_crc)) = last {
            ensure!(
                index == last_index + 1,
                "{place}: index {index} after {last_index}"
            );
            ensure!(term >= last_term, "{place}: term {term} after {last_term}");
            ensure!(
                word(36) == last_crc,
                "{place} does not chain to the one before"
            );
        }
        last = Some((index, term, word(40)));
        entries += 1;
        at += size as u64;
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 4096;

    fn entry(index: u64, term: u64, position: u64, previous: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(b"RMQE");
        bytes.extend_from_slice(&u32::try_from(HEADER + body.len()).unwrap().to_be_bytes());
        for long in [index, term, position] {
            bytes.extend_from_slice(&long.to_be_bytes());
        }
        bytes.extend_from_slice(&[1, 0, 0, 0]);
        bytes.extend_from_slice(&previous.to_be_bytes());
        let crc = {
            let mut covered = bytes.clone();
            covered.extend_from_slice(&0_u32.to_be_bytes());
            covered.extend_from_slice(body);
            crc32c::crc32c(&covered)
        };
        bytes.extend_from_slice(&crc.to_be_bytes());
        bytes.extend_from_slice(&0_u32.to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    /// Entries of 1,000 bytes until two segments are used, with a filler where the first ends.
    fn image() -> (Vec<u8>, u64) {
        let (mut bytes, mut previous) = (Vec::new(), 0);
        for index in 0..6 {
            let left = SEGMENT - bytes.len() as u64 % SEGMENT;
            if left < 1_000 {
                bytes.extend_from_slice(b"FILL");
                bytes.extend_from_slice(&u32::try_from(left).unwrap().to_be_bytes());
                bytes.resize(usize::try_from(SEGMENT).unwrap(), 0);
            }
            let entry = entry(index, 1, bytes.len() as u64, previous, &[7; 952]);
            previous = u32::from_be_bytes([entry[40], entry[41], entry[42], entry[43]]);
            bytes.extend_from_slice(&entry);
        }
        let end = bytes.len() as u64;
        bytes.resize(usize::try_from(2 * SEGMENT).unwrap(), 0);
        (bytes, end)
    }

    fn log(name: &str, bytes: &[u8]) -> (tempfile::TempDir, Log) {
        let folder = tempfile::Builder::new().prefix(name).tempdir().unwrap();
        for (number, segment) in bytes.chunks(usize::try_from(SEGMENT).unwrap()).enumerate() {
            let name = format!("{:020}", number as u64 * SEGMENT);
            std::fs::write(folder.path().join(name), segment).unwrap();
        }
        let log = Log::open(folder.path()).unwrap();
        (folder, log)
    }

    #[test]
    fn equal_logs_agree_and_tails_do_not_matter() {
        let (bytes, end) = image();
        let mut tail = bytes.clone();
        *tail.last_mut().unwrap() = 9;
        let (_keep_one, one) = log("one", &bytes);
        let (_keep_two, two) = log("two", &tail);
        let compared = compare(&[one, two], end).expect("equal up to the end");
        assert_eq!(
            (compared.entries, compared.segments, compared.bytes),
            (6, 2, end)
        );
    }

    #[test]
    fn one_flipped_bit_is_found() {
        let (bytes, end) = image();
        for at in [0, 1_000, 4_100, usize::try_from(end).unwrap() - 1] {
            let mut other = bytes.clone();
            other[at] ^= 1;
            let (_keep_one, one) = log("one", &bytes);
            let (_keep_two, two) = log("two", &other);
            let error = compare(&[one, two], end)
                .expect_err("one bit differs")
                .to_string();
            assert!(error.contains(&format!("position {at}")), "{error}");
        }
    }

    #[test]
    fn a_log_that_does_not_fit_together_is_found() {
        let (good, end) = image();
        // Index, term, position, previous checksum, body: of the second entry.
        for at in [1_015, 1_023, 1_031, 1_039, 1_500] {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            let (_keep, log) = log("bad", &bytes);
            assert!(walk(&log, 0, end).is_err(), "byte {at} was flipped");
        }
    }

    #[test]
    fn the_last_entry_is_found_and_can_be_spoilt() {
        let (bytes, end) = image();
        let (keep, log) = log("last", &bytes);
        let (last, found) = last_entry(keep.path()).unwrap();
        assert_eq!((found, last.len()), (end, 1_000));
        assert!(walk(&log, 0, end).is_ok());
        scribble(keep.path(), end - 1, &[0xff; 100_000]).unwrap();
        assert!(walk(&log, 0, end).is_err());
    }

    /// Entries that are whole in themselves and yet do not follow each other.
    #[test]
    fn an_entry_of_another_history_is_found() {
        let first = entry(0, 2, 0, 0, &[1; 16]);
        let crc = u32::from_be_bytes([first[40], first[41], first[42], first[43]]);
        let end = 2 * first.len() as u64;
        for (index, term, previous, fits) in [
            (1, 2, crc, true),
            (2, 2, crc, false),
            (1, 1, crc, false),
            (1, 2, crc ^ 1, false),
        ] {
            let mut bytes = first.clone();
            bytes.extend(entry(index, term, first.len() as u64, previous, &[2; 16]));
            bytes.resize(usize::try_from(SEGMENT).unwrap(), 0);
            let (_keep, log) = log("stale", &bytes);
            assert_eq!(
                walk(&log, 0, end).is_ok(),
                fits,
                "index {index} term {term}"
            );
        }
    }
}
