//! One entry of the commit log: a 48-byte header and a body.
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 4 | magic | [`MAGIC`], or [`FILL`] for the blank end of a segment |
//! | 4 | 4 | size | header and body, in bytes |
//! | 8 | 8 | index | log index, from 0 |
//! | 16 | 8 | term | |
//! | 24 | 8 | position | global byte offset of this header |
//! | 32 | 1 | kind | [`EntryKind`] |
//! | 33 | 3 | zero | |
//! | 36 | 4 | prev_crc | `crc` of the entry before, 0 for the first |
//! | 40 | 4 | crc | CRC32C of the header without this field, then the body |
//! | 44 | 4 | command_len | bytes of the command at the start of the body |
//! | 48 | n | body | command, then message records back to back |
//!
//! All integers are big-endian. A blank end is `FILL` and the bytes left in the segment (u32);
//! fewer than 8 bytes left need no mark. `position`, `index` and `prev_crc` tie an entry to its
//! place: bytes left over from an earlier use of the place do not continue the chain.
#![warn(clippy::indexing_slicing)]

use bytes::{Bytes, BytesMut};

use crate::error::{Error, Result};

/// First four bytes of an entry.
pub const MAGIC: u32 = 0x524D_5131;
/// First four bytes of the blank end of a segment.
pub const FILL: u32 = 0x524D_5146;
/// Bytes of the header.
pub const HEADER: usize = 48;
/// Most bytes an entry may have, header included: room for a batch around the largest message,
/// small enough that recovery and replication can hold one in memory.
pub const ENTRY_MAX: u64 = 64 * 1024 * 1024;

const CRC_AT: usize = 40;

/// Term and index of an entry; ordered by term, then index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogId {
    /// Term of the leader that made the entry.
    pub term: u64,
    /// Position in the log, counted from 0.
    pub index: u64,
}

impl LogId {
    /// Makes one of its parts.
    pub const fn new(term: u64, index: u64) -> Self {
        Self { term, index }
    }
}

impl std::fmt::Display for LogId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.term, self.index)
    }
}

/// What an entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// Nothing; a new leader's first entry.
    Blank = 0,
    /// A command, message records, or both.
    Data = 1,
    /// The group's members, in bytes that the store does not look into.
    Membership = 2,
}

impl EntryKind {
    fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(EntryKind::Blank),
            1 => Some(EntryKind::Data),
            2 => Some(EntryKind::Membership),
            _ => None,
        }
    }
}

/// The decoded header of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of header and body.
    pub size: u32,
    /// Term and index.
    pub id: LogId,
    /// Global byte offset of the entry.
    pub position: u64,
    /// What the body holds.
    pub kind: EntryKind,
    /// CRC of the entry before.
    pub prev_crc: u32,
    /// CRC of this entry.
    pub crc: u32,
    /// Bytes of the command at the start of the body.
    pub command_len: u32,
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_be_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_be_bytes)
}

impl Header {
    /// Reads a header; `Err` says what is wrong with it. The CRC is not checked.
    pub fn decode(bytes: &[u8]) -> std::result::Result<Header, String> {
        let short = || format!("header has {} bytes of {HEADER}", bytes.len());
        let magic = u32_at(bytes, 0).ok_or_else(short)?;
        if magic != MAGIC {
            return Err(format!("magic is {magic:#010x}, expected {MAGIC:#010x}"));
        }
        let size = u32_at(bytes, 4).ok_or_else(short)?;
        let index = u64_at(bytes, 8).ok_or_else(short)?;
        let term = u64_at(bytes, 16).ok_or_else(short)?;
        let position = u64_at(bytes, 24).ok_or_else(short)?;
        let [kind, zeros @ ..] = array::<4>(bytes, 32).ok_or_else(short)?;
        let prev_crc = u32_at(bytes, 36).ok_or_else(short)?;
        let crc = u32_at(bytes, CRC_AT).ok_or_else(short)?;
        let command_len = u32_at(bytes, 44).ok_or_else(short)?;
        if (size as usize) < HEADER || u64::from(size) > ENTRY_MAX {
            return Err(format!("size {size} is not within {HEADER}..={ENTRY_MAX}"));
        }
        if command_len as usize > size as usize - HEADER {
            return Err(format!(
                "command of {command_len} bytes in an entry of {size}"
            ));
        }
        let known = EntryKind::from_u8(kind).filter(|_| zeros == [0; 3]);
        let kind = known.ok_or_else(|| format!("kind {kind} is unknown"))?;
        let id = LogId { term, index };
        Ok(Header {
            size,
            id,
            position,
            kind,
            prev_crc,
            crc,
            command_len,
        })
    }

    /// Writes the header with the CRC it has.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        let mut put = |at: usize, bytes: &[u8]| {
            out.get_mut(at..at + bytes.len())
                .expect("inside the header")
                .copy_from_slice(bytes);
        };
        put(0, &MAGIC.to_be_bytes());
        put(4, &self.size.to_be_bytes());
        put(8, &self.id.index.to_be_bytes());
        put(16, &self.id.term.to_be_bytes());
        put(24, &self.position.to_be_bytes());
        put(32, &[self.kind as u8]);
        put(36, &self.prev_crc.to_be_bytes());
        put(CRC_AT, &self.crc.to_be_bytes());
        put(44, &self.command_len.to_be_bytes());
        out
    }

    /// The CRC this header should carry in front of `body`.
    pub(crate) fn compute_crc(&self, body: &[u8]) -> u32 {
        let bytes = self.encode();
        let (before, rest) = bytes.split_at(CRC_AT);
        let after = rest.get(4..).unwrap_or_default();
        let crc = crc32c::crc32c_append(crc32c::crc32c(before), after);
        crc32c::crc32c_append(crc, body)
    }

    /// Position after the entry.
    pub fn end(&self) -> u64 {
        self.position + u64::from(self.size)
    }
}

/// Checks that `raw` is exactly one whole entry with a right CRC. Whether it continues a certain
/// log is for `append` to say.
///
/// # Errors
/// [`Error::Malformed`].
pub fn verify(raw: &[u8]) -> Result<Header> {
    let header = Header::decode(raw).map_err(|what| Error::Malformed { what })?;
    let body = raw.get(HEADER..).unwrap_or_default();
    if raw.len() != header.size as usize {
        let what = format!(
            "entry {} has {} bytes, its header says {}",
            header.id,
            raw.len(),
            header.size
        );
        return Err(Error::Malformed { what });
    }
    let crc = header.compute_crc(body);
    if crc != header.crc {
        let what = format!(
            "entry {} has CRC {crc:#010x}, its header says {:#010x}",
            header.id, header.crc
        );
        return Err(Error::Malformed { what });
    }
    Ok(header)
}

/// The blank end of a segment with `left` bytes to go; the caller writes it when `left ≥ 8`.
pub(crate) fn filler(left: u32) -> [u8; 8] {
    let mut out = [0; 8];
    let (magic, size) = out.split_at_mut(4);
    magic.copy_from_slice(&FILL.to_be_bytes());
    size.copy_from_slice(&left.to_be_bytes());
    out
}

/// An entry that is in the log. `raw` is a slice of the segment's map: cloning copies nothing.
#[derive(Debug, Clone)]
pub struct StoredEntry {
    /// Term and index.
    pub id: LogId,
    /// What the body holds.
    pub kind: EntryKind,
    /// Global byte offset of the header.
    pub position: u64,
    /// Bytes of the command at the start of the body.
    pub command_len: u32,
    /// Header and body.
    pub raw: Bytes,
}

impl StoredEntry {
    /// Takes one entry apart after [`verify`]ing it, as when it was received from a peer.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn from_raw(raw: Bytes) -> Result<StoredEntry> {
        let header = verify(&raw)?;
        Ok(Self::with_header(&header, raw))
    }

    pub(crate) fn with_header(header: &Header, raw: Bytes) -> StoredEntry {
        StoredEntry {
            id: header.id,
            kind: header.kind,
            position: header.position,
            command_len: header.command_len,
            raw,
        }
    }

    /// The body: command and records.
    pub fn body(&self) -> &[u8] {
        self.raw.get(HEADER..).unwrap_or_default()
    }

    /// The encoded command; empty when there is none.
    pub fn command(&self) -> &[u8] {
        self.body()
            .get(..self.command_len as usize)
            .unwrap_or_default()
    }

    /// The message records, back to back.
    pub fn records(&self) -> Bytes {
        self.raw
            .slice((HEADER + self.command_len as usize).min(self.raw.len())..)
    }

    /// The same without counting a reference.
    pub fn records_slice(&self) -> &[u8] {
        self.body()
            .get(self.command_len as usize..)
            .unwrap_or_default()
    }

    /// Physical offset of the first record.
    pub fn records_position(&self) -> u64 {
        self.position + HEADER as u64 + u64::from(self.command_len)
    }

    /// Position after the entry.
    pub fn end(&self) -> u64 {
        self.position + self.raw.len() as u64
    }
}

/// An entry to append.
#[derive(Debug)]
pub enum NewEntry {
    /// Made by this member as leader. `append` gives it its position, stamps `physicalOffset` into
    /// every record of the body, and computes the CRC.
    Fresh {
        /// Term and index; the index must be the next one.
        id: LogId,
        /// What the body holds.
        kind: EntryKind,
        /// Bytes of the command at the start of the body.
        command_len: u32,
        /// Command, then records back to back (for [`EntryKind::Data`]).
        body: BytesMut,
    },
    /// Received from the leader: written as it is. Its position, index and chain must fit this
    /// log. The CRC is *not* checked again: [`verify`] it where it is received.
    Stored {
        /// Header and body.
        raw: Bytes,
    },
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a panic fails the test")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(body: &[u8]) -> Header {
        let mut header = Header {
            size: (HEADER + body.len()) as u32,
            id: LogId::new(3, 9),
            position: 4096,
            kind: EntryKind::Data,
            prev_crc: 77,
            crc: 0,
            command_len: body.len() as u32 / 2,
        };
        header.crc = header.compute_crc(body);
        header
    }

    proptest! {
        /// A header comes back as it was, and any single changed byte is noticed.
        #[test]
        fn header_round_trip_and_damage(body in proptest::collection::vec(any::<u8>(), 0..200), at in any::<usize>(), bit in 0u8..8) {
            let header = header(&body);
            let mut raw = header.encode().to_vec();
            raw.extend_from_slice(&body);
            prop_assert_eq!(verify(&raw).unwrap(), header);
            let at = at % raw.len();
            raw[at] ^= 1 << bit;
            prop_assert!(verify(&raw).is_err());
            raw[at] ^= 1 << bit;
            raw.pop();
            prop_assert!(verify(&raw).is_err());
        }

        /// No bytes make the decoder panic.
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            drop(verify(&bytes));
            let mut with_magic = MAGIC.to_be_bytes().to_vec();
            with_magic.extend(bytes);
            drop(verify(&with_magic));
        }
    }
}
