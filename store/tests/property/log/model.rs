//! What a log should be: entries in an order, and bytes that follow from them.

use bytes::{Bytes, BytesMut};
use raftmq_proto::message::record::{self, NewRecord};

use crate::Random;

const HEADER: u64 = 48;

/// An entry as it should stand in the log.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) term: u64,
    pub(crate) position: u64,
    pub(crate) raw: Bytes,
    /// Physical offset and bytes of its record.
    pub(crate) record: Option<(u64, Bytes)>,
}

impl Entry {
    pub(crate) fn end(&self) -> u64 {
        self.position + self.raw.len() as u64
    }

    fn crc(&self) -> u32 {
        u32::from_be_bytes(self.raw[40..44].try_into().expect("four bytes"))
    }

    /// Whether any byte of a range belongs to it.
    pub(crate) fn meets(&self, range: &std::ops::Range<u64>) -> bool {
        self.position < range.end && range.start < self.end()
    }
}

/// Everything that was appended and not truncated, whether or not it was removed since.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) segment: u64,
    pub(crate) entries: Vec<Entry>,
}

impl Model {
    pub(crate) fn end(&self) -> u64 {
        self.entries.last().map_or(0, Entry::end)
    }

    /// Appends an entry of about such a body, made without any help of the log.
    pub(crate) fn push(&mut self, random: &mut Random, term: u64, size: u64) {
        let index = self.entries.len() as u64;
        let has_record = size > 300 && random.once_in(2);
        let mut body = if has_record {
            message(&vec![index as u8; size as usize - 200])
        } else {
            BytesMut::from(&vec![(index ^ term) as u8; size as usize][..])
        };
        let total = HEADER + body.len() as u64;
        let room = self.segment - self.end() % self.segment;
        let position = if room == self.segment || total <= room {
            self.end()
        } else {
            self.end() + room
        };
        if has_record {
            record::stamp_physical_offset(&mut body, position + HEADER);
        }
        let command_len = if has_record { 0 } else { body.len() as u32 };
        let mut raw = Vec::new();
        raw.extend(0x524D_5131u32.to_be_bytes());
        raw.extend((total as u32).to_be_bytes());
        raw.extend(index.to_be_bytes());
        raw.extend(term.to_be_bytes());
        raw.extend(position.to_be_bytes());
        raw.extend([if has_record { 1 } else { 2 }, 0, 0, 0]);
        raw.extend(self.entries.last().map_or(0, Entry::crc).to_be_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&raw), &command_len.to_be_bytes());
        raw.extend(crc32c::crc32c_append(crc, &body).to_be_bytes());
        raw.extend(command_len.to_be_bytes());
        raw.extend_from_slice(&body);
        let record = has_record.then(|| (position + HEADER, body.freeze()));
        self.entries.push(Entry {
            term,
            position,
            raw: raw.into(),
            record,
        });
    }

    /// The bytes of the segment that starts at a position, if the log ended with the last entry.
    pub(crate) fn image(&self, start: u64) -> Vec<u8> {
        let mut image = vec![0; self.segment as usize];
        let mut end = start;
        for entry in &self.entries {
            if (start..start + self.segment).contains(&entry.position) {
                let at = (entry.position - start) as usize;
                image[at..at + entry.raw.len()].copy_from_slice(&entry.raw);
                end = entry.end();
            }
        }
        let left = start + self.segment - end;
        let goes_on = self.end() > start + self.segment;
        if goes_on && left >= 8 {
            let at = (end - start) as usize;
            image[at..at + 4].copy_from_slice(&0x524D_5146u32.to_be_bytes());
            image[at + 4..at + 8].copy_from_slice(&(left as u32).to_be_bytes());
        }
        image
    }
}

fn message(body: &[u8]) -> BytesMut {
    let host = "127.0.0.1:10911".parse().expect("an address");
    let new = NewRecord {
        queue_id: 0,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 1,
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        topic: "t",
        properties: "",
    };
    let mut out = BytesMut::new();
    new.encode(&mut out).expect("a record");
    out
}
