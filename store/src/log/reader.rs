//! Reading one segment by `pread`.

use std::sync::Arc;

use bytes::Bytes;

use crate::disk::DiskFile;
use crate::entry::{ENTRY_MAX, HEADER, Header, MAGIC};
use crate::error::{Error, Result};

use super::segment::{At, Segment, at};

/// Bytes read at once while walking.
const CHUNK: usize = 1 << 20;
/// Bytes looked at at once while searching backwards.
pub(super) const SCAN_BACK: u64 = 64 * 1024;
/// What is read at once where the device fails to read more.
const PAGE: usize = 4096;

/// Reads one segment by `pread`: an unreadable block is no signal, as it would be in the map, and
/// the walk leaves no pages there.
pub(super) struct Reader {
    pub(super) segment: Arc<Segment>,
    file: Arc<dyn DiskFile>,
    chunk: Bytes,
    /// Global position of the chunk.
    chunk_at: u64,
    chunk_bytes: usize,
    is_cold: bool,
    /// Why the device could not read something, which is taken for zeros.
    pub(super) unreadable: Option<Error>,
}

impl Reader {
    pub(super) fn new(segment: Arc<Segment>) -> Result<Self> {
        let file = segment.file()?;
        Ok(Reader {
            segment,
            file,
            chunk: Bytes::new(),
            chunk_at: 0,
            chunk_bytes: CHUNK,
            is_cold: false,
            unreadable: None,
        })
    }

    /// Reads from the device, so many bytes at once, and not what the page cache still holds.
    pub(super) fn cold(&mut self, chunk: usize) {
        self.narrow(chunk);
        self.is_cold = true;
    }

    /// Reads no more than so many bytes at once, unless an entry needs it.
    pub(super) fn narrow(&mut self, chunk: usize) {
        self.chunk_bytes = chunk.clamp(PAGE, CHUNK);
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
        let mut buffer = vec![0; want.max(self.chunk_bytes).min(left)];
        let offset = position - self.segment.start;
        if self.is_cold {
            self.file.drop_cache(offset, buffer.len() as u64);
        }
        if let Err(error) = self.file.read_at(&mut buffer, offset) {
            if error.raw_os_error() != Some(libc::EIO) {
                return Err(Error::io("read", &self.segment.path)(error));
            }
            self.unreadable = Some(Error::io("read", &self.segment.path)(error));
            for (nth, page) in buffer.chunks_mut(PAGE).enumerate() {
                if self
                    .file
                    .read_at(page, offset + (nth * PAGE) as u64)
                    .is_err()
                {
                    page.fill(0);
                }
            }
        }
        self.chunk = Bytes::from(buffer);
        self.chunk_at = position;
        Ok(self.chunk.clone())
    }

    pub(super) fn at(&mut self, position: u64) -> Result<At> {
        let bytes = self.bytes(position, HEADER)?;
        Ok(at(&bytes, position, self.segment.end() - position))
    }

    pub(super) fn is_blank(&mut self, position: u64) -> Result<bool> {
        let bytes = self.bytes(position, HEADER)?;
        Ok(bytes.iter().take(HEADER).all(|byte| *byte == 0))
    }

    /// Whether only zeros stand between a position and the segment's end.
    pub(super) fn is_zero(&mut self, position: u64) -> Result<bool> {
        let mut at = position;
        while at < self.segment.end() {
            let bytes = self.bytes(at, 1)?;
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += bytes.len() as u64;
        }
        Ok(true)
    }

    pub(super) fn header(&mut self, position: u64) -> std::result::Result<Header, String> {
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

    /// Where the first four bytes of an entry stand next, in `from..to`.
    pub(super) fn find_magic(&mut self, mut from: u64, to: u64) -> Result<Option<u64>> {
        let magic = MAGIC.to_be_bytes();
        while from + HEADER as u64 <= to {
            let offset = from - self.segment.start;
            // What cannot be told is looked at.
            let data = self.file.data_after(offset);
            let data = data.unwrap_or(Some(offset..self.segment.size));
            let Some(data) = data else {
                return Ok(None);
            };
            // Three bytes of a magic may stand at the end of a range of zeros: there are none.
            let range = self.segment.start + data.start.max(offset)
                ..(self.segment.start + data.end).min(to);
            let mut at = range.start;
            while at + HEADER as u64 <= range.end {
                let bytes = self.bytes(at, HEADER)?;
                if let Some(found) = bytes.windows(magic.len()).position(|four| four == magic) {
                    let found = at + found as u64;
                    return Ok((found < to).then_some(found));
                }
                at += bytes.len() as u64 - 3;
            }
            from = range.end.max(from + 1);
        }
        Ok(None)
    }

    /// The nearest position, at or before the given one, of something that is a whole entry.
    pub(super) fn entry_before(&mut self, position: u64) -> Option<u64> {
        let magic = MAGIC.to_be_bytes();
        let start = self.segment.start;
        let lowest = start.max(position.saturating_sub(2 * ENTRY_MAX));
        let mut end = (position + 1).min(self.segment.end());
        while end > lowest {
            let from = lowest.max(end.saturating_sub(SCAN_BACK));
            let size = usize::try_from(end - from).unwrap_or_default();
            let bytes = self.bytes(from, size + magic.len() - 1).ok()?;
            let bytes = bytes.get(..size + magic.len() - 1).unwrap_or(&bytes);
            for (at, four) in bytes.windows(magic.len()).enumerate().rev() {
                if four == magic && self.entry(from + at as u64).is_ok() {
                    return Some(from + at as u64);
                }
            }
            end = from;
        }
        None
    }

    /// How far entries that continue each other go from one on: to `end` or behind it, or to the
    /// first that is wrong.
    pub(super) fn good_until(&mut self, from: u64, end: u64) -> u64 {
        let mut at = from;
        let mut chained = None;
        while at < end {
            if self.segment.end() - at < 8 || matches!(self.at(at), Ok(At::End)) {
                return self.segment.end();
            }
            match self.entry(at) {
                Ok(header) if chained.is_none_or(|crc| crc == header.prev_crc) => {
                    chained = Some(header.crc);
                    at = header.end();
                }
                _ => break,
            }
        }
        at
    }
}
