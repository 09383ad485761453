//! The walk over entries by which recovery finds the end of the log.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::DiskFile;
use crate::entry::{HEADER, Header};
use crate::error::{Error, Result};

use super::Mark;
use super::base::LogBase;
use super::segment::{At, Segment, at};

/// Bytes read at once while walking.
const CHUNK: usize = 1 << 20;

/// The header at the beginning of a segment.
pub(super) fn first_header(segment: &Segment) -> Result<Header> {
    let mut bytes = [0; HEADER];
    let read = segment.file()?.read_at(&mut bytes, 0);
    read.map_err(Error::io("read", &segment.path))?;
    match at(&bytes, segment.start, segment.size) {
        At::Entry(header) => Ok(header),
        At::End => Err(segment.corrupt(segment.start, "segment is blank".to_owned())),
        At::Bad(what) => Err(segment.corrupt(segment.start, what)),
    }
}

/// The walk over entries.
pub(super) struct Walk<'a> {
    segments: &'a VecDeque<Arc<Segment>>,
    reader: Reader,
    /// Number of the segment the reader is in.
    segment: usize,
    pub(super) first_segment: usize,
    known: Option<Mark>,
    /// The entry before the position, in the log or removed from it.
    last: Option<Mark>,
    position: u64,
    pub(super) ended_by: Option<String>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        segments: &'a VecDeque<Arc<Segment>>,
        base: &LogBase,
        known: Option<Mark>,
    ) -> Result<Self> {
        let size = segments.front().map_or(1, |first| first.size);
        let position = known.map_or(base.position, |known| known.position);
        let nth = (position - base.position) / size;
        let segment = usize::try_from(nth).unwrap_or(usize::MAX);
        let start = segments.get(segment).expect("checked to be there").clone();
        // The segments before are not walked, but each must at least begin well.
        let mut next_index = base.next_index;
        for earlier in segments.iter().take(segment + 1) {
            if known.is_none() {
                break;
            }
            let header = first_header(earlier)?;
            if header.id.index < next_index {
                let what = format!(
                    "begins with entry {}, expected {next_index} or later",
                    header.id
                );
                return Err(earlier.corrupt(earlier.start, what));
            }
            next_index = header.id.index + 1;
            earlier.set_first_index(Some(header.id.index));
        }
        let reader = Reader::new(start)?;
        Ok(Walk {
            segments,
            reader,
            segment,
            first_segment: segment,
            known,
            last: base.mark(),
            position,
            ended_by: None,
        })
    }

    /// The next valid entry, or `None` where the log ends.
    pub(super) fn step(&mut self) -> Result<Option<Mark>> {
        if let Some(known) = self.known.take() {
            let segment = self.reader.segment.clone();
            let corrupt = |what| Err(segment.corrupt(known.position, what));
            let header = match self.reader.entry(known.position) {
                Ok(header) => header,
                Err(what) => return corrupt(format!("entry {} was flushed, but {what}", known.id)),
            };
            if header.id != known.id || header.crc != known.crc {
                return corrupt(format!(
                    "entry {} is not the flushed one, {}",
                    header.id, known.id
                ));
            }
            return Ok(Some(self.take(&header)));
        }
        match self.try_step() {
            Ok(header) => Ok(Some(self.take(&header))),
            Err(Stop::Io(error)) => Err(error),
            Err(Stop::End(what)) => {
                self.ended_by = what;
                Ok(None)
            }
        }
    }

    fn take(&mut self, header: &Header) -> Mark {
        let segment = &self.reader.segment;
        let offset = header.position - segment.start;
        if offset == 0 {
            segment.set_first_index(Some(header.id.index));
        }
        if let Some(first) = segment.first_index() {
            segment.anchors.lock().push(header.id.index - first, offset);
        }
        let mark = Mark::of(header);
        self.last = Some(mark);
        self.position = mark.end;
        mark
    }

    fn try_step(&mut self) -> std::result::Result<Header, Stop> {
        let here = self.reader.segment.clone();
        let room = here.end().saturating_sub(self.position);
        let ended = room < 8 || matches!(self.reader.at(self.position).map_err(Stop::Io)?, At::End);
        if ended {
            let Some(next) = self.segments.get(self.segment + 1) else {
                return Err(Stop::End(None));
            };
            let before = std::mem::replace(
                &mut self.reader,
                Reader::new(next.clone()).map_err(Stop::Io)?,
            );
            let position = std::mem::replace(&mut self.position, next.start);
            self.segment += 1;
            return self.entry().inspect_err(|_| {
                self.reader = before;
                self.position = position;
                self.segment -= 1;
            });
        }
        self.entry()
    }

    /// The entry at the position, if it continues the log.
    fn entry(&mut self) -> std::result::Result<Header, Stop> {
        if self.reader.is_blank(self.position).map_err(Stop::Io)? {
            return Err(Stop::End(None));
        }
        let header = self
            .reader
            .entry(self.position)
            .map_err(|what| Stop::End(Some(what)))?;
        let next = self.last.map_or(0, |last| last.id.index + 1);
        let prev_crc = self.last.map_or(0, |last| last.crc);
        let term = self.last.map_or(0, |last| last.id.term);
        if header.id.index != next || header.prev_crc != prev_crc || header.id.term < term {
            let what = format!(
                "entry {} with previous CRC {:#010x} does not follow {:?} with CRC {prev_crc:#010x}",
                header.id,
                header.prev_crc,
                self.last.map(|last| last.id)
            );
            return Err(Stop::End(Some(what)));
        }
        Ok(header)
    }
}

enum Stop {
    Io(Error),
    End(Option<String>),
}

/// Reads one segment by `pread`: an unreadable block is an error here and not a signal, and the
/// walk leaves no pages in the map.
pub(super) struct Reader {
    segment: Arc<Segment>,
    file: Arc<dyn DiskFile>,
    chunk: Bytes,
    /// Global position of the chunk.
    chunk_at: u64,
}

impl Reader {
    pub(super) fn new(segment: Arc<Segment>) -> Result<Self> {
        let file = segment.file()?;
        Ok(Reader {
            segment,
            file,
            chunk: Bytes::new(),
            chunk_at: 0,
        })
    }

    /// At least `want` bytes at a position, fewer only at the segment's end.
    fn bytes(&mut self, position: u64, want: usize) -> Result<Bytes> {
        let left = usize::try_from(self.segment.end() - position).unwrap_or(usize::MAX);
        let want = want.min(left);
        let skip = position
            .checked_sub(self.chunk_at)
            .and_then(|skip| usize::try_from(skip).ok());
        if let Some(skip) = skip
            && self.chunk.len() >= skip.saturating_add(want)
        {
            return Ok(self.chunk.slice(skip..));
        }
        let mut buffer = vec![0; want.max(CHUNK).min(left)];
        self.file
            .read_at(&mut buffer, position - self.segment.start)
            .map_err(Error::io("read", &self.segment.path))?;
        self.chunk = Bytes::from(buffer);
        self.chunk_at = position;
        Ok(self.chunk.clone())
    }

    fn at(&mut self, position: u64) -> Result<At> {
        let bytes = self.bytes(position, HEADER)?;
        Ok(at(&bytes, position, self.segment.end() - position))
    }

    fn is_blank(&mut self, position: u64) -> Result<bool> {
        let bytes = self.bytes(position, HEADER)?;
        Ok(bytes.iter().take(HEADER).all(|byte| *byte == 0))
    }

    fn header(&mut self, position: u64) -> std::result::Result<Header, String> {
        match self.at(position).map_err(|error| error.to_string())? {
            At::Entry(header) => Ok(header),
            At::End => Err("there is the end of the segment".to_owned()),
            At::Bad(what) => Err(what),
        }
    }

    /// A whole entry with a right CRC.
    pub(super) fn entry(&mut self, position: u64) -> std::result::Result<Header, String> {
        let header = self.header(position)?;
        let size = header.size as usize;
        let bytes = self
            .bytes(position, size)
            .map_err(|error| error.to_string())?;
        let body = bytes.get(HEADER..size).unwrap_or_default();
        let crc = header.compute_crc(body);
        if crc != header.crc {
            return Err(format!(
                "entry {} has CRC {crc:#010x}, expected {:#010x}",
                header.id, header.crc
            ));
        }
        Ok(header)
    }
}
