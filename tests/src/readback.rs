//! Reads everything back through pulls.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::calls;
use crate::history::{FoundKey, found_key};
use crate::record::Record;
use crate::wait::pause;
use crate::wire::Connection;

/// The consumer group under which everything is read back.
const GROUP: &str = "HARNESS_READBACK";

/// One message as a consumer got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Queue offset that the record names.
    pub offset: i64,
    /// Commit log offset that the record names.
    pub physical_offset: i64,
    /// The key, or the text that is no key of ours.
    pub key: FoundKey,
    /// Whether the CRC and the body fit the key.
    pub intact: bool,
}

impl Message {
    /// Takes what the checker needs out of a record.
    pub fn of(record: &Record<'_>) -> Message {
        let key = found_key(record.property("KEYS").unwrap_or_default());
        let owned = key.as_ref().is_ok_and(|key| key.owns(record.body));
        Message {
            offset: record.queue_offset,
            physical_offset: record.physical_offset,
            intact: record.body_intact && owned,
            key,
        }
    }
}

/// What one queue holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueContents {
    /// Smallest offset, as the broker says.
    pub min: i64,
    /// One above the largest offset, as the broker says.
    pub max: i64,
    /// What pulls from `min` to `max` gave, in the order in which it came.
    pub messages: Vec<Message>,
}

/// What a topic holds, by queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// Queue id → contents.
    pub queues: BTreeMap<i32, QueueContents>,
}

impl Contents {
    /// Number of messages.
    pub fn len(&self) -> usize {
        self.queues.values().map(|queue| queue.messages.len()).sum()
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Reads a topic from end to end through the member at `address`.
pub fn read_topic(address: &str, topic: &str, queues: i32) -> Result<Contents> {
    read_all(address, topic, queues, false)
}

/// As [`read_topic`]; an error when the member had another one answer, which a follower with `slaveReadEnable` does only for
/// what it does not have yet.
pub fn read_topic_of(address: &str, topic: &str, queues: i32) -> Result<Contents> {
    read_all(address, topic, queues, true)
}

fn read_all(address: &str, topic: &str, queues: i32, own: bool) -> Result<Contents> {
    let mut contents = Contents::default();
    for queue in 0..queues {
        let read = read_queue(address, topic, queue, own)
            .with_context(|| format!("read {topic} queue {queue} through {address}"))?;
        contents.queues.insert(queue, read);
    }
    Ok(contents)
}

fn read_queue(address: &str, topic: &str, queue: i32, own: bool) -> Result<QueueContents> {
    let mut connection = Connection::open(address)?;
    let min = calls::min_offset(&mut connection, topic, queue)?;
    let max = calls::max_offset(&mut connection, topic, queue)?;
    let mut contents = QueueContents {
        min,
        max,
        messages: Vec::new(),
    };
    let mut at = min;
    let mut standing = Instant::now();
    while at < max {
        let pulled = calls::pull(&mut connection, GROUP, topic, queue, at, Duration::ZERO)?;
        ensure!(
            !(own && pulled.forwarded),
            "another member answered for offset {at} of {max}"
        );
        let records = pulled.records()?;
        contents.messages.extend(records.iter().map(Message::of));
        if pulled.next > at {
            (at, standing) = (pulled.next, Instant::now());
        } else if standing.elapsed() > Duration::from_secs(10) {
            // An offset below max that cannot be read is what the checker calls a gap: report what there is.
            bail!(
                "stuck at offset {at} of {max}: code {}, next {}",
                pulled.code,
                pulled.next
            );
        } else {
            pause(Duration::from_millis(20));
        }
    }
    Ok(contents)
}
