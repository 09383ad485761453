//! What is in the log after any stop: an entry-by-entry walk from the checkpoint.
//!
//! The log ends before the first bytes that do not continue it. Damage at or before the entry
//! the checkpoint names is an error: those bytes were flushed, and members may rely on them.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::{Disk, DiskFile};
use crate::entry::{HEADER, Header};
use crate::error::{Error, Result};

use super::checkpoint::{self, Checkpoint};
use super::index::Index;
use super::segment::{At, Segment, at, file_name};
use super::{LogOptions, Mark};

/// Bytes read at once while walking.
const CHUNK: usize = 1 << 20;

pub(crate) struct Recovered {
    pub(crate) segments: VecDeque<Arc<Segment>>,
    pub(crate) index: Index,
    pub(crate) checkpoint: Checkpoint,
}

pub(crate) fn recover(disk: &Arc<dyn Disk>, options: &LogOptions) -> Result<Recovered> {
    let dir = &options.dir;
    disk.create_dir_all(dir).map_err(Error::io("create", dir))?;
    let (mut checkpoint, slot) = Checkpoint::open(&**disk, dir, options.segment_bytes)?;
    if let Some(slot) = slot
        && slot.segment_bytes != options.segment_bytes
    {
        return Err(Error::Identity {
            path: dir.join(checkpoint::NAME),
            key: "mappedFileSizeCommitLog",
            stored: slot.segment_bytes.to_string(),
            wanted: options.segment_bytes.to_string(),
        });
    }
    let starts = segment_starts(&**disk, dir, options.segment_bytes)?;
    let known = slot.and_then(|slot| slot.mark);
    check_complete(&**disk, dir, &starts, options.segment_bytes, known)?;

    let mut segments = VecDeque::with_capacity(starts.len().max(1));
    for start in starts {
        segments.push_back(Arc::new(Segment::open(
            disk,
            dir,
            start,
            options.segment_bytes,
        )?));
    }
    if segments.is_empty() {
        segments.push_back(Arc::new(Segment::create(
            disk,
            dir,
            0,
            options.segment_bytes,
        )?));
    }
    let mut index = Index::default();
    let mut walk = Walk::new(&segments, known)?;
    while let Some(mark) = walk.step()? {
        index.push(mark);
    }
    let last = index.last;
    let tail = last.map_or(0, |last| last.position) / options.segment_bytes;
    if slot.is_none() {
        refuse_gap(&segments, tail as usize, last)?;
    }
    let Walk {
        first_segment,
        ended_by,
        ..
    } = walk;
    if let Some(what) = ended_by {
        tracing::info!(last = ?last.map(|l| l.id), position = last.map_or(0, |l| l.end), what,
            "commit log ends before bytes that do not continue it");
    }

    // Durable from here on is what was found, and only zeros behind it.
    for segment in segments.iter().take(tail as usize + 1).skip(first_segment) {
        segment.sync()?;
    }
    let active = segments
        .get(tail as usize)
        .expect("the walk stays in the segments")
        .clone();
    active.clean_after(last.map_or(0, |last| last.end) - active.start)?;
    let stale: Vec<_> = segments.drain(tail as usize + 1..).collect();
    for segment in stale.iter().rev() {
        disk.remove(&segment.path)
            .map_err(Error::io("remove", &segment.path))?;
    }
    disk.sync_dir(dir).map_err(Error::io("flush", dir))?;
    checkpoint.save_synced(last)?;
    for segment in segments.iter().rev().skip(1) {
        segment.close_file();
    }
    Ok(Recovered {
        segments,
        index,
        checkpoint,
    })
}

/// Start positions of the segment files in a folder, ascending.
pub(crate) fn segment_starts(disk: &dyn Disk, dir: &Path, size: u64) -> Result<Vec<u64>> {
    let mut starts = Vec::new();
    for name in disk.list(dir).map_err(Error::io("list", dir))? {
        let digits = name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit());
        match name.parse::<u64>() {
            Ok(start) if digits && start % size == 0 => starts.push(start),
            Ok(_) if digits => {
                return Err(Error::Corrupt {
                    path: dir.join(&name),
                    offset: 0,
                    what: format!("file name is no multiple of the segment size {size}"),
                });
            }
            _ if name == checkpoint::NAME => {}
            _ => tracing::debug!(name, "not a file of the commit log"),
        }
    }
    starts.sort_unstable();
    Ok(starts)
}

/// Refuses a log with missing or short files below what is known to be flushed.
fn check_complete(
    disk: &dyn Disk,
    dir: &Path,
    starts: &[u64],
    size: u64,
    known: Option<Mark>,
) -> Result<()> {
    let flushed = known.map_or(0, |known| known.end);
    let count = (starts.len() as u64).max(flushed.div_ceil(size));
    for expected in (0..count).map(|nth| nth * size) {
        let path = dir.join(file_name(expected));
        let missing = |what: &str| Error::Corrupt {
            path: path.clone(),
            offset: 0,
            what: format!("{what}, but the log reaches to position {flushed} at least"),
        };
        if starts.binary_search(&expected).is_err() {
            if expected < flushed || expected < starts.last().copied().unwrap_or(0) {
                return Err(missing("file is missing"));
            }
            continue;
        }
        if expected < flushed {
            let file = disk
                .open(&path, crate::disk::Open::Existing)
                .map_err(Error::io("open", &path))?;
            let found = file.size().map_err(Error::io("read", &path))?;
            if found < size {
                return Err(missing(&format!("file has {found} bytes of {size}")));
            }
        }
    }
    Ok(())
}

/// Without a checkpoint nothing says how far the log was flushed; but an entry in a later segment
/// means that it went on, and a cut here would lose what others may rely on.
fn refuse_gap(segments: &VecDeque<Arc<Segment>>, tail: usize, last: Option<Mark>) -> Result<()> {
    let (Some(tail), Some(next)) = (segments.get(tail), segments.get(tail + 1)) else {
        return Ok(());
    };
    let mut reader = Reader::new(next.clone())?;
    if let Ok(header) = reader.entry(next.start)
        && last.is_none_or(|last| header.id.index > last.id.index)
    {
        let end = last.map_or(tail.start, |last| last.end);
        let what = format!(
            "log breaks off here, but {} goes on with entry {} (and there is no checkpoint)",
            next.path.display(),
            header.id
        );
        return Err(tail.corrupt(end.max(tail.start), what));
    }
    Ok(())
}

/// The header at the beginning of a segment.
fn first_header(segment: &Segment) -> Result<Header> {
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
struct Walk<'a> {
    segments: &'a VecDeque<Arc<Segment>>,
    reader: Reader,
    /// Number of the segment the reader is in.
    segment: usize,
    first_segment: usize,
    known: Option<Mark>,
    last: Option<Mark>,
    position: u64,
    ended_by: Option<String>,
}

impl<'a> Walk<'a> {
    fn new(segments: &'a VecDeque<Arc<Segment>>, known: Option<Mark>) -> Result<Self> {
        let size = segments.front().map_or(1, |first| first.size);
        let position = known.map_or(0, |known| known.position);
        let segment = usize::try_from(position / size).unwrap_or(usize::MAX);
        let start = segments.get(segment).expect("checked to be there").clone();
        // The segments before are not walked, but each must at least begin well.
        let mut next_index = 0;
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
            last: None,
            position,
            ended_by: None,
        })
    }

    /// The next valid entry, or `None` where the log ends.
    fn step(&mut self) -> Result<Option<Mark>> {
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
struct Reader {
    segment: Arc<Segment>,
    file: Arc<dyn DiskFile>,
    chunk: Bytes,
    /// Global position of the chunk.
    chunk_at: u64,
}

impl Reader {
    fn new(segment: Arc<Segment>) -> Result<Self> {
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
    fn entry(&mut self, position: u64) -> std::result::Result<Header, String> {
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
