//! The stored message record as consumers get it, parsed from the description of the layout.
//!
//! | field | size | | field | size |
//! |---|---|---|---|---|
//! | total size | 4 | | born timestamp | 8 |
//! | magic | 4 | | born host | 8 (IPv6: 20) |
//! | body CRC | 4 | | store timestamp | 8 |
//! | queue id | 4 | | store host | 8 (IPv6: 20) |
//! | flag | 4 | | reconsume times | 4 |
//! | queue offset | 8 | | prepared transaction offset | 8 |
//! | physical offset | 8 | | body length, body | 4 + n |
//! | sys flag | 4 | | topic length, topic | 1 + n (magic V2: 2 + n) |
//! | | | | properties length, properties | 2 + n |

use anyhow::{Result, bail, ensure};

const MAGIC_V1: u32 = 0xDAA3_20A7;
const MAGIC_V2: u32 = 0xDAA3_20AB;
const BORN_HOST_V6: i32 = 1 << 4;
const STORE_HOST_V6: i32 = 1 << 5;

/// One stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    /// The whole record's size in bytes.
    pub size: usize,
    /// Queue within the topic.
    pub queue: i32,
    /// Position in the queue.
    pub queue_offset: i64,
    /// Position in the commit log.
    pub physical_offset: i64,
    /// When the leader stored it, ms since 1970.
    pub store_timestamp: i64,
    /// Message body.
    pub body: &'a [u8],
    /// Whether the stored CRC fits the body.
    pub body_intact: bool,
    /// Topic name.
    pub topic: &'a str,
    /// Properties, still encoded.
    pub properties: &'a str,
}

impl Record<'_> {
    /// A property's value.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties
            .split('\u{2}')
            .filter_map(|pair| pair.split_once('\u{1}'))
            .find_map(|(key, value)| (key == name).then_some(value))
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.saturating_add(count);
        let Some(taken) = self.bytes.get(self.at..end) else {
            bail!("the record ends at {} and {count} more are wanted", self.at);
        };
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn int(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    fn long(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }
}

/// Parses the record at the start of `bytes`.
pub fn parse(bytes: &[u8]) -> Result<Record<'_>> {
    let mut cursor = Cursor { bytes, at: 0 };
    let size = usize::try_from(cursor.int()?)?;
    ensure!(
        size <= bytes.len(),
        "a record of {size} bytes in {}",
        bytes.len()
    );
    let magic = u32::from_be_bytes(cursor.array()?);
    let body_crc = u32::from_be_bytes(cursor.array()?);
    let queue = cursor.int()?;
    cursor.int()?; // flag
    let queue_offset = cursor.long()?;
    let physical_offset = cursor.long()?;
    let sys_flag = cursor.int()?;
    cursor.long()?; // born timestamp
    cursor.take(if sys_flag & BORN_HOST_V6 == 0 { 8 } else { 20 })?;
    let store_timestamp = cursor.long()?;
    cursor.take(if sys_flag & STORE_HOST_V6 == 0 { 8 } else { 20 })?;
    cursor.int()?; // reconsume times
    cursor.long()?; // prepared transaction offset
    let body_len = usize::try_from(cursor.int()?)?;
    let body = cursor.take(body_len)?;
    let topic_len = match magic {
        MAGIC_V1 => usize::from(cursor.array::<1>()?[0]),
        MAGIC_V2 => usize::from(u16::from_be_bytes(cursor.array()?)),
        other => bail!("magic {other:#010x}"),
    };
    let topic = std::str::from_utf8(cursor.take(topic_len)?)?;
    let properties_len = usize::from(u16::from_be_bytes(cursor.array()?));
    let properties = std::str::from_utf8(cursor.take(properties_len)?)?;
    ensure!(
        cursor.at == size,
        "the record says {size} bytes and has {}",
        cursor.at
    );
    Ok(Record {
        size,
        queue,
        queue_offset,
        physical_offset,
        store_timestamp,
        body,
        body_intact: crc32fast::hash(body) & 0x7FFF_FFFF == body_crc,
        topic,
        properties,
    })
}

/// Parses records that stand back to back.
pub fn parse_all(bytes: &[u8]) -> Result<Vec<Record<'_>>> {
    let mut records = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let record = parse(rest)?;
        rest = &rest[record.size..];
        records.push(record);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Topic T, body "hi", TAGS=a; made with the published Java classes.
    const VECTOR: &str = "00000065 daa320a7 58932aac 00000000 00000000 0000000000000000 0000000000000000 \
        00000000 0000000000000000 7f00000100000001 0000000000000000 7f00000100002a9f 00000000 \
        0000000000000000 00000002 6869 01 54 0007 54414753016102";

    fn vector() -> Vec<u8> {
        let digits: Vec<u8> = VECTOR.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn reads_a_record_of_the_java_classes() {
        let bytes = vector();
        let record = parse(&bytes).expect("a good record");
        assert_eq!(
            (record.size, record.topic, record.body),
            (0x65, "T", &b"hi"[..])
        );
        assert!(record.body_intact);
        assert_eq!(record.property("TAGS"), Some("a"));
        assert_eq!(record.property("KEYS"), None);
    }

    #[test]
    fn cut_records_are_errors() {
        let bytes = vector();
        for end in 0..bytes.len() {
            assert!(parse(&bytes[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_flipped_body_bit_shows() {
        let mut bytes = vector();
        let at = bytes.len() - 12;
        assert_eq!(bytes[at], b'i');
        bytes[at] ^= 1;
        assert!(!parse(&bytes).expect("still a record").body_intact);
    }
}
