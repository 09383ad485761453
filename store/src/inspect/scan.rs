//! A segment, entry by entry, and on behind damage.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::entry::{HEADER, Header, MAGIC, verify};
use crate::error::{Error, Result};
use crate::log::segment::{At, at};

/// Bytes read at once.
const CHUNK: u64 = 1 << 20;

/// What stands at a place of a segment.
#[derive(Debug, Clone)]
pub enum Found {
    /// An entry with a right CRC.
    Entry {
        /// Its header.
        header: Header,
        /// Header and body.
        raw: Bytes,
    },
    /// Bytes that are no entry with a right CRC; `end` is where the next one stands, or the end
    /// of the file.
    Damage {
        /// Position of the first of them.
        position: u64,
        /// Position after them.
        end: u64,
        /// What is wrong at the first.
        what: String,
        /// The header there, if it can be read and says this position.
        header: Option<Header>,
        /// Whether an entry with a right CRC stands at `end`.
        goes_on: bool,
    },
    /// The blank end of the segment.
    Blank {
        /// Where it begins.
        position: u64,
    },
    /// Nothing but zeros from here on.
    Unwritten {
        /// Where they begin.
        position: u64,
    },
}

/// Reads one segment file from its beginning to its end.
pub struct SegmentScan {
    file: File,
    path: PathBuf,
    start: u64,
    /// Bytes a segment has.
    size: u64,
    /// Bytes the file has.
    len: u64,
    position: u64,
    done: bool,
    chunk: Bytes,
    chunk_at: u64,
}

impl SegmentScan {
    /// Opens the file of the segment that starts at `start` and has `size` bytes; it may have
    /// fewer.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: &Path, start: u64, size: u64) -> Result<SegmentScan> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let len = file.metadata().map_err(Error::io("read", path))?.len();
        Ok(SegmentScan {
            file,
            path: path.to_path_buf(),
            start,
            size,
            len: len.min(size),
            position: start,
            done: false,
            chunk: Bytes::new(),
            chunk_at: 0,
        })
    }

    /// Goes on at another position of the segment: one where an entry stands.
    pub fn seek(&mut self, position: u64) {
        self.position = position.clamp(self.start, self.start + self.size);
        self.done = false;
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What stands next, or `None` after the end.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn step(&mut self) -> Result<Option<Found>> {
        if self.done {
            return Ok(None);
        }
        let position = self.position;
        let room = (self.start + self.size).saturating_sub(position);
        if room < 8 {
            self.done = true;
            return Ok(None);
        }
        let (what, header) = match self.at(position, room)? {
            At::End => {
                self.done = true;
                return Ok(Some(Found::Blank { position }));
            }
            At::Bad(what) => (what, None),
            At::Entry(header) => {
                let raw = self.bytes(position, header.size.into())?;
                match verify(&raw) {
                    Ok(header) => {
                        self.position = header.end();
                        return Ok(Some(Found::Entry { header, raw }));
                    }
                    Err(Error::Malformed { what }) => (what, Some(header)),
                    Err(error) => return Err(error),
                }
            }
        };
        let (next, only_zeros) = self.resume(position)?;
        if next.is_none() && only_zeros {
            self.done = true;
            if self.len < self.size && self.start + self.len <= position {
                let what = format!("file ends here, a segment has {} bytes", self.size);
                let end = position;
                return Ok(Some(Found::Damage {
                    position,
                    end,
                    what,
                    header,
                    goes_on: false,
                }));
            }
            return Ok(Some(Found::Unwritten { position }));
        }
        let head = self.bytes(position, HEADER as u64)?;
        let what = if head.iter().all(|byte| *byte == 0) {
            "zeros where an entry is expected".to_owned()
        } else {
            what
        };
        let end = next.unwrap_or(self.start + self.len);
        self.position = end;
        self.done = next.is_none();
        Ok(Some(Found::Damage {
            position,
            end,
            what,
            header,
            goes_on: next.is_some(),
        }))
    }

    fn at(&mut self, position: u64, room: u64) -> Result<At> {
        let bytes = self.bytes(position, HEADER as u64)?;
        Ok(at(&bytes, position, room))
    }

    /// So many bytes at a position, fewer at the end of the file.
    fn bytes(&mut self, position: u64, want: u64) -> Result<Bytes> {
        let offset = position - self.start;
        let left = self.len.saturating_sub(offset);
        let want = want.min(left);
        if position < self.chunk_at || position + want > self.chunk_at + self.chunk.len() as u64 {
            let size = want.max(CHUNK).min(left);
            let mut buffer = vec![0; usize::try_from(size).unwrap_or_default()];
            self.file
                .read_exact_at(&mut buffer, offset)
                .map_err(Error::io("read", &self.path))?;
            self.chunk = Bytes::from(buffer);
            self.chunk_at = position;
        }
        let skip = (position - self.chunk_at) as usize;
        Ok(self.chunk.slice(skip..skip + want as usize))
    }

    /// The first entry with a right CRC behind `position`, and whether only zeros stand before
    /// it. An entry names its own position, so nothing else is taken for one.
    fn resume(&mut self, position: u64) -> Result<(Option<u64>, bool)> {
        let magic = MAGIC.to_be_bytes();
        let end = self.start + self.len;
        let mut only_zeros = true;
        let mut from = position;
        while from < end {
            let chunk = self.bytes(from, CHUNK)?;
            if chunk.iter().all(|byte| *byte == 0) {
                from += chunk.len() as u64;
                continue;
            }
            for (nth, candidate) in chunk.windows(magic.len()).enumerate() {
                let here = from + nth as u64;
                if *candidate == magic && here > position && self.is_entry(here)? {
                    let before = chunk.get(..nth).unwrap_or_default();
                    return Ok((Some(here), only_zeros && before.iter().all(|b| *b == 0)));
                }
            }
            only_zeros = false;
            // A magic may straddle two chunks.
            let step = (chunk.len() as u64).saturating_sub(3).max(1);
            from += step;
        }
        Ok((None, only_zeros))
    }

    fn is_entry(&mut self, position: u64) -> Result<bool> {
        let room = (self.start + self.size).saturating_sub(position);
        match self.at(position, room)? {
            At::Entry(header) => Ok(verify(&self.bytes(position, header.size.into())?).is_ok()),
            At::End | At::Bad(_) => Ok(false),
        }
    }
}
