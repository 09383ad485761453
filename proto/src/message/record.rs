//! The message record: what is stored, replicated, and sent to consumers as it is.
//!
//! | # | field | size | notes |
//! |---|---|---|---|
//! | 1 | totalSize | 4 | the whole record |
//! | 2 | magic | 4 | V1, or V2 when the topic is longer than 127 bytes |
//! | 3 | bodyCRC | 4 | CRC-32 of the body, without its top bit |
//! | 4 | queueId | 4 | |
//! | 5 | flag | 4 | the user's |
//! | 6 | queueOffset | 8 | at byte 20 |
//! | 7 | physicalOffset | 8 | at byte 28 |
//! | 8 | sysFlag | 4 | at byte 36 |
//! | 9 | bornTimestamp | 8 | ms |
//! | 10 | bornHost | 8 or 20 | IP and 4 bytes of port |
//! | 11 | storeTimestamp | 8 | ms; at byte 56 with an IPv4 born host, else 68 |
//! | 12 | storeHost | 8 or 20 | |
//! | 13 | reconsumeTimes | 4 | |
//! | 14 | preparedTransactionOffset | 8 | |
//! | 15 | body | 4 + n | |
//! | 16 | topic | 1 + n, V2 2 + n | |
//! | 17 | properties | 2 + n | |
//!
//! All integers are big-endian.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{BufMut, BytesMut};
use thiserror::Error;

use super::properties::PROPERTIES_MAX;
use super::sys_flag::{BORNHOST_V6, STOREHOST_V6, host_len};
use crate::read::Reader;

/// Magic of records whose topic length has one byte; all clients know it.
pub const MAGIC_V1: u32 = 0xDAA3_20A7;
/// Magic of records whose topic length has two bytes; known to Java clients from 5.1.0.
pub const MAGIC_V2: u32 = 0xDAA3_20AB;
/// Byte position of `queueOffset`.
pub const QUEUE_OFFSET_AT: usize = 20;
/// Byte position of `physicalOffset`.
pub const PHYSICAL_OFFSET_AT: usize = 28;
/// Byte position of `sysFlag`.
pub const SYS_FLAG_AT: usize = 36;
/// Bytes of a V1 record with IPv4 hosts and empty body, topic and properties.
pub const RECORD_MIN: usize = 91;
/// Longest topic of a V1 record: Java reads its length as a signed byte.
pub const TOPIC_V1_MAX: usize = 127;
/// Longest topic of a V2 record: Java reads its length as a signed 16-bit integer.
pub const TOPIC_V2_MAX: usize = i16::MAX as usize;

const BORN_HOST_AT: usize = 48;

/// Why a record cannot be written or read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RecordError {
    /// The topic does not fit.
    #[error("topic of {len} bytes is longer than a record holds ({TOPIC_V2_MAX})")]
    TopicTooLong {
        /// Bytes of the topic.
        len: usize,
    },
    /// The properties do not fit.
    #[error("properties of {len} bytes are longer than a record holds ({PROPERTIES_MAX})")]
    PropertiesTooLong {
        /// Bytes of the properties.
        len: usize,
    },
    /// The record does not fit a 32-bit length.
    #[error("record of {len} bytes is longer than its length field can say")]
    TooLong {
        /// Bytes of the record.
        len: usize,
    },
    /// Fewer bytes than the record says it has.
    #[error("record ends after {have} bytes, inside its {field}")]
    Truncated {
        /// The field that was being read.
        field: &'static str,
        /// Bytes that were there.
        have: usize,
    },
    /// The record's parts do not add up to its length.
    #[error("record of {total} bytes has {left} bytes left after its properties")]
    TrailingBytes {
        /// Announced length of the record.
        total: usize,
        /// Bytes beyond the last field.
        left: usize,
    },
    /// Not a record, or the filler at the end of a segment.
    #[error("record magic {0:#010x} is unknown")]
    BadMagic(u32),
    /// A host's port is beyond 65535.
    #[error("record field {field} has port {port}")]
    BadPort {
        /// Name of the field.
        field: &'static str,
        /// The port found.
        port: u32,
    },
    /// Topic or properties are not UTF-8.
    #[error("record field {field} is not UTF-8")]
    NotUtf8 {
        /// Name of the field.
        field: &'static str,
    },
    /// The body's checksum does not match.
    #[error("record body has checksum {found:#010x}, recorded {recorded:#010x}")]
    BodyCrc {
        /// Checksum in the record.
        recorded: u32,
        /// Checksum of the body.
        found: u32,
    },
}

/// CRC-32 of a body as records hold it: without the top bit.
pub fn body_crc(body: &[u8]) -> u32 {
    crc32fast::hash(body) & 0x7FFF_FFFF
}

/// Byte position of `storeTimestamp` in a record with these system flags.
pub fn store_timestamp_at(sys_flag: i32) -> usize {
    BORN_HOST_AT + host_len(sys_flag, BORNHOST_V6)
}

/// A message on its way into the log. Offsets and `storeTimestamp` are stamped later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewRecord<'a> {
    /// Queue within the topic.
    pub queue_id: i32,
    /// The user's own flag.
    pub flag: i32,
    /// System flags; the two IPv6 bits are set to fit the hosts, whatever is given.
    pub sys_flag: i32,
    /// When the message was made, in ms.
    pub born_timestamp: i64,
    /// Where the message was made.
    pub born_host: SocketAddr,
    /// The address under which clients reach the broker that stores it.
    pub store_host: SocketAddr,
    /// How often it was consumed in vain.
    pub reconsume_times: i32,
    /// Physical offset of the half message, 0 outside of transactions.
    pub prepared_transaction_offset: i64,
    /// Body as the producer sent it, compressed or not.
    pub body: &'a [u8],
    /// Topic.
    pub topic: &'a str,
    /// Encoded properties.
    pub properties: &'a str,
}

impl NewRecord<'_> {
    /// Bytes that [`encode`](Self::encode) appends.
    pub fn encoded_len(&self) -> usize {
        let v6 = |host: &SocketAddr| usize::from(host.ip().to_canonical().is_ipv6());
        RECORD_MIN
            + 12 * (v6(&self.born_host) + v6(&self.store_host))
            + self.body.len()
            + usize::from(self.topic.len() > TOPIC_V1_MAX)
            + self.topic.len()
            + self.properties.len()
    }

    /// Appends the record; its offsets and `storeTimestamp` are zero.
    ///
    /// # Errors
    /// When topic, properties or the whole are longer than a record can say; nothing is appended.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), RecordError> {
        let len = self.encoded_len();
        let total = i32::try_from(len)
            .ok()
            .ok_or(RecordError::TooLong { len })?;
        let properties_len =
            i16::try_from(self.properties.len())
                .ok()
                .ok_or(RecordError::PropertiesTooLong {
                    len: self.properties.len(),
                })?;
        let topic_len = i16::try_from(self.topic.len())
            .ok()
            .ok_or(RecordError::TopicTooLong {
                len: self.topic.len(),
            })?;
        let short_topic_len = i8::try_from(topic_len).ok();
        let body_len = u32::try_from(self.body.len())
            .ok()
            .ok_or(RecordError::TooLong { len })?;
        // An IPv4 client on a dual-stack socket shows up as ::ffff:a.b.c.d.
        let born_ip = self.born_host.ip().to_canonical();
        let store_ip = self.store_host.ip().to_canonical();
        let mut sys_flag = self.sys_flag & !(BORNHOST_V6 | STOREHOST_V6);
        sys_flag |= if born_ip.is_ipv6() { BORNHOST_V6 } else { 0 };
        sys_flag |= if store_ip.is_ipv6() { STOREHOST_V6 } else { 0 };

        out.reserve(len);
        out.put_i32(total);
        out.put_u32(if short_topic_len.is_some() {
            MAGIC_V1
        } else {
            MAGIC_V2
        });
        out.put_u32(body_crc(self.body));
        out.put_i32(self.queue_id);
        out.put_i32(self.flag);
        out.put_bytes(0, 16);
        out.put_i32(sys_flag);
        out.put_i64(self.born_timestamp);
        put_host(out, born_ip, self.born_host.port());
        out.put_i64(0);
        put_host(out, store_ip, self.store_host.port());
        out.put_i32(self.reconsume_times);
        out.put_i64(self.prepared_transaction_offset);
        out.put_u32(body_len);
        out.put_slice(self.body);
        match short_topic_len {
            Some(len) => out.put_i8(len),
            None => out.put_i16(topic_len),
        }
        out.put_slice(self.topic.as_bytes());
        out.put_i16(properties_len);
        out.put_slice(self.properties.as_bytes());
        Ok(())
    }
}

fn put_host(out: &mut BytesMut, ip: IpAddr, port: u16) {
    match ip {
        IpAddr::V4(ip) => out.put_slice(&ip.octets()),
        IpAddr::V6(ip) => out.put_slice(&ip.octets()),
    }
    out.put_u32(port.into());
}

fn host(
    read: &mut Reader<'_>,
    v6: bool,
    field: &'static str,
    have: usize,
) -> Result<SocketAddr, RecordError> {
    let truncated = RecordError::Truncated { field, have };
    let ip = if v6 {
        read.array::<16>().map(|ip| IpAddr::V6(Ipv6Addr::from(ip)))
    } else {
        read.array::<4>().map(|ip| IpAddr::V4(Ipv4Addr::from(ip)))
    };
    let (Some(ip), Some(port)) = (ip, read.u32()) else {
        return Err(truncated);
    };
    match u16::try_from(port) {
        Ok(port) => Ok(SocketAddr::new(ip, port)),
        Err(_) => Err(RecordError::BadPort { field, port }),
    }
}

/// A checked view over one stored record: every part lies within its bytes and adds up to its
/// length. The body's checksum is checked by [`verify_body_crc`](Self::verify_body_crc) only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    bytes: &'a [u8],
    magic: u32,
    body_crc: u32,
    queue_id: i32,
    flag: i32,
    queue_offset: u64,
    physical_offset: u64,
    sys_flag: i32,
    born_timestamp: i64,
    born_host: SocketAddr,
    store_timestamp: i64,
    store_host: SocketAddr,
    reconsume_times: i32,
    prepared_transaction_offset: i64,
    body: &'a [u8],
    topic: &'a str,
    properties: &'a str,
}

impl<'a> RecordRef<'a> {
    /// Reads the record at the start of `buf`; more may follow it.
    ///
    /// # Errors
    /// When the bytes are not a whole record.
    pub fn parse(buf: &'a [u8]) -> Result<RecordRef<'a>, RecordError> {
        let have = buf.len();
        let truncated = |field| RecordError::Truncated { field, have };
        let total = Reader::new(buf)
            .u32()
            .ok_or_else(|| truncated("totalSize"))? as usize;
        let bytes = buf.get(..total).ok_or_else(|| truncated("totalSize"))?;
        let mut read = Reader::new(bytes);
        let fixed = truncated("fixed part");
        let (Some(_), Some(magic)) = (read.u32(), read.u32()) else {
            return Err(fixed);
        };
        if magic != MAGIC_V1 && magic != MAGIC_V2 {
            return Err(RecordError::BadMagic(magic));
        }
        let (Some(body_crc), Some(queue_id), Some(flag), Some(queue_offset), Some(physical_offset)) =
            (read.u32(), read.i32(), read.i32(), read.u64(), read.u64())
        else {
            return Err(fixed);
        };
        let (Some(sys_flag), Some(born_timestamp)) = (read.i32(), read.i64()) else {
            return Err(fixed);
        };
        let born_host = host(&mut read, sys_flag & BORNHOST_V6 != 0, "bornHost", have)?;
        let store_timestamp = read.i64().ok_or_else(|| truncated("storeTimestamp"))?;
        let store_host = host(&mut read, sys_flag & STOREHOST_V6 != 0, "storeHost", have)?;
        let (Some(reconsume_times), Some(prepared_transaction_offset)) = (read.i32(), read.i64())
        else {
            return Err(fixed);
        };
        let body = read.sized_i32().ok_or_else(|| truncated("body"))?;
        let topic = if magic == MAGIC_V1 {
            read.u8()
                .filter(|len| *len <= 127)
                .and_then(|len| read.slice(len.into()))
        } else {
            read.sized_i16()
        };
        let topic = topic.ok_or_else(|| truncated("topic"))?;
        let properties = read.sized_i16().ok_or_else(|| truncated("properties"))?;
        if !read.is_empty() {
            return Err(RecordError::TrailingBytes {
                total,
                left: read.remaining(),
            });
        }
        let text = |bytes, field| {
            std::str::from_utf8(bytes)
                .ok()
                .ok_or(RecordError::NotUtf8 { field })
        };
        Ok(RecordRef {
            bytes,
            magic,
            body_crc,
            queue_id,
            flag,
            queue_offset,
            physical_offset,
            sys_flag,
            born_timestamp,
            born_host,
            store_timestamp,
            store_host,
            reconsume_times,
            prepared_transaction_offset,
            body,
            topic: text(topic, "topic")?,
            properties: text(properties, "properties")?,
        })
    }

    /// The record's own bytes.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Bytes of the whole record.
    pub fn total_size(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    /// [`MAGIC_V1`] or [`MAGIC_V2`].
    pub fn magic(&self) -> u32 {
        self.magic
    }

    /// Recorded checksum of the body.
    pub fn body_crc(&self) -> u32 {
        self.body_crc
    }

    /// Queue within the topic.
    pub fn queue_id(&self) -> i32 {
        self.queue_id
    }

    /// The user's own flag.
    pub fn flag(&self) -> i32 {
        self.flag
    }

    /// Position within the queue.
    pub fn queue_offset(&self) -> u64 {
        self.queue_offset
    }

    /// Byte position within the commit log.
    pub fn physical_offset(&self) -> u64 {
        self.physical_offset
    }

    /// System flags, see [`super::sys_flag`].
    pub fn sys_flag(&self) -> i32 {
        self.sys_flag
    }

    /// When the message was made, in ms.
    pub fn born_timestamp(&self) -> i64 {
        self.born_timestamp
    }

    /// Where the message was made.
    pub fn born_host(&self) -> SocketAddr {
        self.born_host
    }

    /// When the message was stored, in ms.
    pub fn store_timestamp(&self) -> i64 {
        self.store_timestamp
    }

    /// The broker that stored it.
    pub fn store_host(&self) -> SocketAddr {
        self.store_host
    }

    /// How often it was consumed in vain.
    pub fn reconsume_times(&self) -> i32 {
        self.reconsume_times
    }

    /// Physical offset of the half message, 0 outside of transactions.
    pub fn prepared_transaction_offset(&self) -> i64 {
        self.prepared_transaction_offset
    }

    /// Body as stored, compressed or not.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Topic.
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// Encoded properties.
    pub fn properties(&self) -> &'a str {
        self.properties
    }

    /// The value of one property.
    pub fn property(&self, name: &str) -> Option<&'a str> {
        super::properties::get(self.properties, name)
    }

    /// Checks the body against its recorded checksum.
    ///
    /// # Errors
    /// With both checksums when they differ.
    pub fn verify_body_crc(&self) -> Result<(), RecordError> {
        let found = body_crc(self.body);
        if found == self.body_crc {
            return Ok(());
        }
        Err(RecordError::BodyCrc {
            recorded: self.body_crc,
            found,
        })
    }
}

/// The records that stand back to back in `buf`; ends after the first that cannot be read.
pub fn records(buf: &[u8]) -> impl Iterator<Item = Result<RecordRef<'_>, RecordError>> {
    let mut rest = buf;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = RecordRef::parse(rest);
        rest = match &record {
            Ok(record) => rest.get(record.bytes.len()..).unwrap_or_default(),
            Err(_) => &[],
        };
        Some(record)
    })
}

/// The same records for stamping, told apart by their lengths alone; ends where a length does
/// not fit.
pub fn records_mut(buf: &mut [u8]) -> impl Iterator<Item = &mut [u8]> {
    let mut rest = buf;
    std::iter::from_fn(move || {
        let total = Reader::new(rest).u32()? as usize;
        if total < RECORD_MIN {
            return None;
        }
        let (record, after) = std::mem::take(&mut rest).split_at_mut_checked(total)?;
        rest = after;
        Some(record)
    })
}

fn stamp(record: &mut [u8], at: usize, value: u64) {
    let field = record
        .get_mut(at..at + 8)
        .expect("a record has its fixed part");
    field.copy_from_slice(&value.to_be_bytes());
}

/// Sets the queue offset of a record.
///
/// # Panics
/// When `record` is shorter than a record's fixed part; it has to come from [`NewRecord`] or to
/// have been parsed.
pub fn stamp_queue_offset(record: &mut [u8], offset: u64) {
    stamp(record, QUEUE_OFFSET_AT, offset);
}

/// Sets the physical offset of a record.
///
/// # Panics
/// As [`stamp_queue_offset`].
pub fn stamp_physical_offset(record: &mut [u8], offset: u64) {
    stamp(record, PHYSICAL_OFFSET_AT, offset);
}

/// Sets the store time of a record, in ms.
///
/// # Panics
/// As [`stamp_queue_offset`].
pub fn stamp_store_timestamp(record: &mut [u8], timestamp_ms: i64) {
    let flags = record
        .get(SYS_FLAG_AT..)
        .and_then(|rest| Reader::new(rest).i32());
    let at = store_timestamp_at(flags.expect("a record has its fixed part"));
    stamp(record, at, timestamp_ms.cast_unsigned());
}

#[cfg(test)]
mod tests;
