//! The log of a Java broker's store, record by record.
//!
//! A plain one has the records back to back. DLedger's puts 48 bytes before each:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic: 1 for a record, 2 and 3 for entries without one |
//! | 4 | 4 | size, header included |
//! | 8 | 8 | index |
//! | 16 | 8 | term |
//! | 24 | 8 | position of the entry |
//! | 32 | 12 | not used |
//! | 44 | 4 | size of the record |
//!
//! A record says its own physical offset, so none is taken for another after damage.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::Context as _;
use bytes::Bytes;
use raftmq_proto::message::record::{MAGIC_V1, MAGIC_V2, RECORD_MIN, RecordRef};
use raftmq_store::inspect::SegmentName;

/// Bytes read at once.
const CHUNK: u64 = 1 << 20;
/// Begins the unused end of a segment, behind its size.
const BLANK_PLAIN: u32 = 0xCBD4_3194;
/// Begins the unused end of a DLedger segment.
const BLANK_DLEDGER: u32 = 0xFFFF_FFFF;
/// Bytes of DLedger's header.
const DLEDGER_HEADER: u64 = 48;

/// How records stand in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Back to back.
    Plain,
    /// As bodies of DLedger entries.
    DLedger,
}

/// One log: the segments of one folder.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) layout: Layout,
    pub(super) files: Vec<SegmentName>,
    /// Index of the last entry to take.
    pub(super) last_index: Option<u64>,
}

/// What is found on the way through a log.
pub(super) enum Found {
    /// A whole record with a right checksum.
    Record {
        /// Its physical offset.
        offset: u64,
        bytes: Bytes,
    },
    /// A place that cannot be read, with records behind it.
    Damage(String),
    /// What follows the last record is neither a record nor zeros.
    TornEnd(String),
}

/// What stands at a position.
enum Stand {
    Record {
        offset: u64,
        bytes: Bytes,
        end: u64,
        index: u64,
    },
    /// An entry that holds no record.
    Other {
        end: u64,
        index: u64,
    },
    /// The rest of the segment is not used.
    Blank,
    Bad(String),
}

/// Reads the parts of a log one after the other.
pub(super) struct Reader {
    parts: VecDeque<Part>,
    part: Option<PartReader>,
    /// Last DLedger entry read: index and term.
    pub(super) last_entry: Option<(u64, u64)>,
    /// DLedger entries behind the last one to take.
    pub(super) left_out: u64,
    /// Bytes gone through.
    pub(super) bytes: u64,
}

impl Reader {
    pub(super) fn new(parts: &[Part]) -> Reader {
        Reader {
            parts: parts.to_vec().into(),
            part: None,
            last_entry: None,
            left_out: 0,
            bytes: 0,
        }
    }

    pub(super) fn next(&mut self) -> anyhow::Result<Option<Found>> {
        loop {
            let Some(part) = &mut self.part else {
                let Some(next) = self.parts.pop_front() else {
                    return Ok(None);
                };
                self.part = PartReader::open(next)?;
                continue;
            };
            let before = part.position;
            match part.next()? {
                None => self.part = None,
                Some(Ahead::Found(found)) => return Ok(Some(found)),
                Some(Ahead::Entry {
                    stand_index,
                    term,
                    record,
                }) => {
                    self.bytes += part.position.saturating_sub(before);
                    if part.part.layout == Layout::DLedger {
                        if part.part.last_index.is_some_and(|last| stand_index > last) {
                            self.left_out += 1;
                            continue;
                        }
                        self.last_entry = Some((stand_index, term));
                    }
                    if let Some((offset, bytes)) = record {
                        return Ok(Some(Found::Record { offset, bytes }));
                    }
                }
            }
        }
    }
}

/// The next thing of a part.
enum Ahead {
    Found(Found),
    Entry {
        stand_index: u64,
        term: u64,
        record: Option<(u64, Bytes)>,
    },
}

struct PartReader {
    part: Part,
    nth: usize,
    file: Segment,
    position: u64,
    ended: bool,
}

impl PartReader {
    fn open(part: Part) -> anyhow::Result<Option<PartReader>> {
        let Some(first) = part.files.first() else {
            return Ok(None);
        };
        Ok(Some(PartReader {
            nth: 0,
            file: Segment::open(first)?,
            position: first.start,
            ended: false,
            part,
        }))
    }

    fn next(&mut self) -> anyhow::Result<Option<Ahead>> {
        while !self.ended {
            match self.file.stand(self.position, self.part.layout)? {
                Stand::Record {
                    offset,
                    bytes,
                    end,
                    index,
                } => {
                    let term = self.file.term(self.position)?;
                    self.position = end;
                    return Ok(Some(Ahead::Entry {
                        stand_index: index,
                        term,
                        record: Some((offset, bytes)),
                    }));
                }
                Stand::Other { end, index } => {
                    let term = self.file.term(self.position)?;
                    self.position = end;
                    return Ok(Some(Ahead::Entry {
                        stand_index: index,
                        term,
                        record: None,
                    }));
                }
                Stand::Blank => {
                    let expected = self.file.end();
                    if !self.open_next()? {
                        self.ended = true;
                    } else if self.file.start != expected {
                        return Ok(Some(Ahead::Found(Found::Damage(format!(
                            "{}: the file before it is missing, at position {expected}",
                            self.file.path.display()
                        )))));
                    }
                }
                Stand::Bad(what) => {
                    let place = format!(
                        "{} at byte {}: {what}",
                        self.file.path.display(),
                        self.position - self.file.start
                    );
                    let is_zero = self.file.is_zero(self.position)?;
                    if self.resume()? {
                        return Ok(Some(Ahead::Found(Found::Damage(place))));
                    }
                    self.ended = true;
                    if !is_zero {
                        return Ok(Some(Ahead::Found(Found::TornEnd(place))));
                    }
                }
            }
        }
        Ok(None)
    }

    fn open_next(&mut self) -> anyhow::Result<bool> {
        let Some(next) = self.part.files.get(self.nth + 1) else {
            return Ok(false);
        };
        self.file = Segment::open(next)?;
        self.position = next.start;
        self.nth += 1;
        Ok(true)
    }

    /// Goes to the next record behind something that is none; false when there is none.
    fn resume(&mut self) -> anyhow::Result<bool> {
        let layout = self.part.layout;
        let mut from = self.position + 1;
        loop {
            if let Some(found) = self.file.search(from, layout)? {
                self.position = found;
                return Ok(true);
            }
            if !self.open_next()? {
                return Ok(false);
            }
            from = self.position;
        }
    }
}

/// One segment file.
struct Segment {
    file: File,
    path: PathBuf,
    start: u64,
    len: u64,
    chunk: Bytes,
    chunk_at: u64,
}

impl Segment {
    fn open(name: &SegmentName) -> anyhow::Result<Segment> {
        let file = File::open(&name.path)
            .with_context(|| format!("cannot open {}", name.path.display()))?;
        Ok(Segment {
            file,
            path: name.path.clone(),
            start: name.start,
            len: name.len,
            chunk: Bytes::new(),
            chunk_at: 0,
        })
    }

    fn end(&self) -> u64 {
        self.start + self.len
    }

    /// So many bytes at a position, fewer at the end of the file.
    fn bytes(&mut self, position: u64, want: u64) -> anyhow::Result<Bytes> {
        let left = self.end().saturating_sub(position);
        let want = want.min(left);
        if position < self.chunk_at || position + want > self.chunk_at + self.chunk.len() as u64 {
            let size = want.max(CHUNK).min(left);
            let mut buffer = vec![0; usize::try_from(size)?];
            self.file
                .read_exact_at(&mut buffer, position - self.start)
                .with_context(|| format!("cannot read {}", self.path.display()))?;
            self.chunk = Bytes::from(buffer);
            self.chunk_at = position;
        }
        let skip = usize::try_from(position - self.chunk_at)?;
        Ok(self.chunk.slice(skip..skip + usize::try_from(want)?))
    }

    fn u32(&mut self, position: u64) -> anyhow::Result<u32> {
        let bytes = self.bytes(position, 4)?;
        Ok(bytes.first_chunk().map_or(0, |b| u32::from_be_bytes(*b)))
    }

    fn u64(&mut self, position: u64) -> anyhow::Result<u64> {
        let bytes = self.bytes(position, 8)?;
        Ok(bytes.first_chunk().map_or(0, |b| u64::from_be_bytes(*b)))
    }

    fn term(&mut self, position: u64) -> anyhow::Result<u64> {
        self.u64(position + 16)
    }

    fn stand(&mut self, position: u64, layout: Layout) -> anyhow::Result<Stand> {
        let room = self.end().saturating_sub(position);
        if room < 8 {
            return Ok(Stand::Blank);
        }
        let (first, second) = (self.u32(position)?, self.u32(position + 4)?);
        if layout == Layout::Plain {
            if second == BLANK_PLAIN {
                return Ok(Stand::Blank);
            }
            return self.record(position, u64::from(first), 0);
        }
        if first == BLANK_DLEDGER {
            return Ok(Stand::Blank);
        }
        let size = u64::from(second);
        if !(1..=3).contains(&first) || size < DLEDGER_HEADER || size > room {
            return Ok(Stand::Bad(format!(
                "no DLedger entry: magic {first:#x}, size {second}, {room} bytes left"
            )));
        }
        let says = self.u64(position + 24)?;
        if says != position {
            return Ok(Stand::Bad(format!("entry says position {says}")));
        }
        let index = self.u64(position + 8)?;
        if first != 1 {
            let end = position + size;
            return Ok(Stand::Other { end, index });
        }
        let body = size - DLEDGER_HEADER;
        self.record(position + DLEDGER_HEADER, body, index)
    }

    /// The record of `size` bytes at `offset`.
    fn record(&mut self, offset: u64, size: u64, index: u64) -> anyhow::Result<Stand> {
        let room = self.end().saturating_sub(offset);
        if size < RECORD_MIN as u64 || size > room {
            return Ok(Stand::Bad(format!(
                "record of {size} bytes at {offset}, {room} are left"
            )));
        }
        let bytes = self.bytes(offset, size)?;
        let record = match RecordRef::parse(&bytes) {
            Ok(record) => record,
            Err(error) => return Ok(Stand::Bad(error.to_string())),
        };
        if u64::from(record.total_size()) != size {
            return Ok(Stand::Bad(format!(
                "record of {} bytes in an entry for {size}",
                record.total_size()
            )));
        }
        if record.physical_offset() != offset {
            let says = record.physical_offset();
            return Ok(Stand::Bad(format!("record says physical offset {says}")));
        }
        // As the original: an empty body has no checksum.
        if !record.body().is_empty()
            && let Err(error) = record.verify_body_crc()
        {
            return Ok(Stand::Bad(error.to_string()));
        }
        Ok(Stand::Record {
            offset,
            end: offset + size,
            index,
            bytes,
        })
    }

    /// The first position at or after `from` where a whole record stands.
    fn search(&mut self, mut from: u64, layout: Layout) -> anyhow::Result<Option<u64>> {
        let before = match layout {
            Layout::Plain => 4,
            Layout::DLedger => DLEDGER_HEADER + 4,
        };
        let magics = [MAGIC_V1.to_be_bytes(), MAGIC_V2.to_be_bytes()];
        while from < self.end() {
            let chunk = self.bytes(from, CHUNK)?;
            if chunk.iter().any(|byte| *byte != 0) {
                for (nth, four) in chunk.windows(4).enumerate() {
                    if magics.iter().any(|magic| magic == four)
                        && let Some(position) = (from + nth as u64).checked_sub(before)
                        && position >= from.max(self.start)
                        && matches!(self.stand(position, layout)?, Stand::Record { .. })
                    {
                        return Ok(Some(position));
                    }
                }
            }
            // What begins a record may straddle two chunks.
            let keep = (before + 3).min(chunk.len() as u64 - 1);
            if from + chunk.len() as u64 >= self.end() {
                return Ok(None);
            }
            from += chunk.len() as u64 - keep;
        }
        Ok(None)
    }

    /// Whether only zeros follow.
    fn is_zero(&mut self, mut position: u64) -> anyhow::Result<bool> {
        while position < self.end() {
            let chunk = self.bytes(position, CHUNK)?;
            if chunk.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            position += chunk.len() as u64;
        }
        Ok(true)
    }
}
