//! Messages as applications write and read them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;
use raftmq_proto::message::compression::{self, CompressionType};
use raftmq_proto::message::{id, properties, record, sys_flag};

use crate::error::{Error, Result};

/// Largest body after decompression; RocketMQ's broker takes 4 MiB, compressed, by default.
const UNCOMPRESSED_MAX: usize = 64 * 1024 * 1024;

/// A message to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Topic to send to.
    pub topic: String,
    /// Free for the application.
    pub flag: i32,
    /// Properties, the system's own (`TAGS`, `KEYS`, …) among them.
    pub properties: BTreeMap<String, String>,
    /// The content.
    pub body: Bytes,
}

impl Message {
    /// A message without tag and keys.
    #[must_use]
    pub fn new(topic: impl Into<String>, body: impl Into<Bytes>) -> Message {
        Message {
            topic: topic.into(),
            body: body.into(),
            ..Message::default()
        }
    }

    /// Sets the tag, by which consumers filter.
    #[must_use]
    pub fn with_tag(self, tag: impl Into<String>) -> Message {
        self.with_property(properties::TAGS, tag)
    }

    /// Sets the keys, by which the message can be found; several are separated by blanks.
    #[must_use]
    pub fn with_keys(self, keys: impl Into<String>) -> Message {
        self.with_property(properties::KEYS, keys)
    }

    /// Sets a property.
    #[must_use]
    pub fn with_property(mut self, name: impl Into<String>, value: impl Into<String>) -> Message {
        self.properties.insert(name.into(), value.into());
        self
    }
}

/// A message as a broker stored it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageExt {
    /// Group it was read from.
    pub broker_name: String,
    /// Topic.
    pub topic: String,
    /// Queue of the topic.
    pub queue_id: i32,
    /// Position in the queue.
    pub queue_offset: i64,
    /// Bytes of the stored record.
    pub store_size: i32,
    /// Set by the sending application.
    pub flag: i32,
    /// RocketMQ's message flags, as stored.
    pub sys_flag: i32,
    /// When the producer made it, milliseconds since the epoch by its clock.
    pub born_timestamp: i64,
    /// Where the producer ran.
    pub born_host: SocketAddr,
    /// When it was stored, milliseconds since the epoch.
    pub store_timestamp: i64,
    /// The member that stored it.
    pub store_host: SocketAddr,
    /// Unique key, or the offset message id where the producer set none.
    pub msg_id: String,
    /// Where it is stored: member's address and physical offset.
    pub offset_msg_id: String,
    /// Position in the commit log.
    pub commit_log_offset: i64,
    /// CRC of the body as stored.
    pub body_crc: i32,
    /// How often it was delivered again.
    pub reconsume_times: i32,
    /// Physical offset of the half message, of a transaction's message.
    pub prepared_transaction_offset: i64,
    /// Properties.
    pub properties: BTreeMap<String, String>,
    /// The content, decompressed. Left as stored when it is compressed in a way this client cannot
    /// undo (LZ4, ZSTD): see [`is_compressed`](MessageExt::is_compressed).
    pub body: Bytes,
    /// Whether the body is still compressed.
    pub is_compressed: bool,
}

impl MessageExt {
    /// The tag, if it has one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.properties.get(properties::TAGS).map(String::as_str)
    }

    /// The keys, if it has any.
    #[must_use]
    pub fn keys(&self) -> Option<&str> {
        self.properties.get(properties::KEYS).map(String::as_str)
    }
}

/// Reads all records of a pull's body.
///
/// # Errors
/// When a record is malformed. Nothing of the body is then returned: a consumer that skipped what it
/// cannot read would lose messages silently.
pub fn decode_records(broker_name: &str, body: &Bytes) -> Result<Vec<MessageExt>> {
    record::records(body)
        .map(|record| match record {
            Ok(record) => decode_record(broker_name, body, &record),
            Err(error) => Err(unreadable(broker_name, &error)),
        })
        .collect()
}

fn unreadable(broker_name: &str, reason: &dyn fmt::Display) -> Error {
    Error::Unreadable {
        address: broker_name.to_owned(),
        reason: reason.to_string(),
    }
}

fn decode_record(
    broker_name: &str,
    whole: &Bytes,
    record: &record::RecordRef<'_>,
) -> Result<MessageExt> {
    let flags = record.sys_flag();
    let mut body = whole.slice_ref(record.body());
    let mut is_compressed = flags & sys_flag::COMPRESSED != 0;
    let undone = CompressionType::of(flags).is_ok_and(|by| by == CompressionType::Zlib);
    if is_compressed && undone {
        body = compression::decompress_zlib(&body, UNCOMPRESSED_MAX)
            .map_err(|error| unreadable(broker_name, &error))?
            .into();
        is_compressed = false;
    }
    let properties: BTreeMap<String, String> = properties::parse(record.properties())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let physical_offset = record.physical_offset();
    let offset_msg_id = id::offset_message_id(record.store_host(), physical_offset);
    let msg_id = match properties.get(properties::UNIQ_KEY) {
        Some(unique_key) => unique_key.clone(),
        None => offset_msg_id.clone(),
    };
    Ok(MessageExt {
        broker_name: broker_name.to_owned(),
        topic: record.topic().to_owned(),
        queue_id: record.queue_id(),
        queue_offset: record.queue_offset() as i64,
        store_size: record.total_size() as i32,
        flag: record.flag(),
        sys_flag: flags,
        born_timestamp: record.born_timestamp(),
        born_host: record.born_host(),
        store_timestamp: record.store_timestamp(),
        store_host: record.store_host(),
        msg_id,
        offset_msg_id,
        commit_log_offset: physical_offset as i64,
        body_crc: record.body_crc() as i32,
        reconsume_times: record.reconsume_times(),
        prepared_transaction_offset: record.prepared_transaction_offset(),
        properties,
        body,
        is_compressed,
    })
}

/// The form in which RocketMQ's Java client prints a message.
impl fmt::Display for MessageExt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "MessageExt [brokerName={}, queueId={}, storeSize={}, queueOffset={}, sysFlag={}, \
             bornTimestamp={}, bornHost=/{}, storeTimestamp={}, storeHost=/{}, msgId={}, \
             commitLogOffset={}, bodyCRC={}, reconsumeTimes={}, preparedTransactionOffset={}, \
             toString()=Message{{topic='{}', flag={}, properties={{",
            self.broker_name,
            self.queue_id,
            self.store_size,
            self.queue_offset,
            self.sys_flag,
            self.born_timestamp,
            self.born_host,
            self.store_timestamp,
            self.store_host,
            self.offset_msg_id,
            self.commit_log_offset,
            self.body_crc,
            self.reconsume_times,
            self.prepared_transaction_offset,
            self.topic,
            self.flag,
        )?;
        for (index, (name, value)) in self.properties.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{name}={value}")?;
        }
        f.write_str("}, body=[")?;
        for (index, byte) in self.body.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            // Java's bytes are signed.
            write!(f, "{comma}{}", *byte as i8)?;
        }
        let transaction_id = self
            .properties
            .get("__transactionId__")
            .map_or("null", String::as_str);
        write!(f, "], transactionId='{transaction_id}'}}]")
    }
}
