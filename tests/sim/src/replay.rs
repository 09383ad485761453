//! An independent reading of a log: which message stands where in which queue.

use std::collections::BTreeMap;

use raftmq_proto::message::record;
use raftmq_store::CommitLog;
use raftmq_store::entry::Header;

use crate::history::{Check, EntryMark, QUEUES, TOPIC, Violation};
use crate::violation;

/// A message as it stands in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub queue: usize,
    pub offset: u64,
    pub physical_offset: u64,
    pub store_time: i64,
}

#[derive(Default)]
pub struct Replay {
    /// The messages in each queue, by offset: who submitted it, and its place.
    pub queues: [Vec<(Message, Place)>; QUEUES],
    /// Where each message stands.
    pub places: BTreeMap<Message, Vec<Place>>,
}

/// Attempt and number within it.
pub type Message = (u64, u32);

/// The body of a message.
pub fn body(message: Message, padding: usize) -> Vec<u8> {
    let mut body = format!("{}/{};", message.0, message.1).into_bytes();
    body.resize(body.len() + padding, b'.');
    body
}

fn message(body: &[u8]) -> Option<Message> {
    let text = std::str::from_utf8(body).ok()?;
    let (attempt, nth) = text.split(';').next()?.split_once('/')?;
    Some((attempt.parse().ok()?, nth.parse().ok()?))
}

/// Term and CRC of an entry; `None` for one that a power cut has damaged and that is not mended yet.
pub fn mark(log: &CommitLog, index: u64) -> Result<Option<EntryMark>, Violation> {
    let read = log.read(index, index + 1, None);
    let header = read
        .map_err(|error| error.to_string())
        .and_then(|entries| {
            entries
                .first()
                .map(|entry| entry.raw.clone())
                .ok_or_else(String::new)
        })
        .and_then(|raw| Header::decode(&raw));
    match header {
        Ok(header) => Ok(Some(EntryMark {
            term: header.id.term,
            crc: header.crc,
        })),
        Err(_) if !log.holes().is_empty() => Ok(None),
        Err(error) => violation!("log_matching", "entry {index} cannot be read: {error}"),
    }
}

/// Reads a whole log, entry by entry and record by record.
pub fn replay(log: &CommitLog) -> Result<Replay, Violation> {
    let mut replay = Replay::default();
    let read = log.read(log.first_index(), log.next_index(), None);
    let entries = match read {
        Ok(entries) => entries,
        Err(error) => return violation!("log_matching", "the log cannot be read: {error}"),
    };
    for entry in entries {
        replay.entry(&entry)?;
    }
    Ok(replay)
}

impl Replay {
    fn entry(&mut self, entry: &raftmq_store::StoredEntry) -> Check {
        for record in record::records(entry.records_slice()) {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    return violation!("dense_offsets", "entry {}: {error}", entry.id);
                }
            };
            let queue = usize::try_from(record.queue_id()).unwrap_or(usize::MAX);
            let Some(message) = message(record.body()).filter(|_| queue < QUEUES) else {
                return violation!("no_acknowledged_loss", "entry {} holds a phantom", entry.id);
            };
            if record.topic() != TOPIC {
                return violation!("no_acknowledged_loss", "entry {} holds a phantom", entry.id);
            }
            // The rule of apply: the next one of its queue, or refused.
            if record.queue_offset() != self.queues[queue].len() as u64 {
                continue;
            }
            let place = Place {
                queue,
                offset: record.queue_offset(),
                physical_offset: record.physical_offset(),
                store_time: record.store_timestamp(),
            };
            self.queues[queue].push((message, place));
            self.places.entry(message).or_default().push(place);
        }
        Ok(())
    }
}
