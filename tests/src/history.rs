//! What producers did: every send with its times and its outcome.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::calls::MessageId;
use crate::clock::Nanos;

/// Names one message of a test: the producer and its running number. Travels as the message's `KEYS` and in its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Producer, unique in a test.
    pub producer: u32,
    /// Running number of the send, from 0.
    pub seq: u32,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}-{}", self.producer, self.seq)
    }
}

impl Key {
    /// Parses what `Display` writes.
    pub fn parse(text: &str) -> Option<Key> {
        let (producer, seq) = text.strip_prefix('p')?.split_once('-')?;
        let key = Key {
            producer: producer.parse().ok()?,
            seq: seq.parse().ok()?,
        };
        // Only the canonical text: "p01-+2" is not a key of ours.
        (key.to_string() == text).then_some(key)
    }

    /// The message body: the key, then letters that follow from it up to `size` bytes, so that a torn or swapped body
    /// shows.
    pub fn body(&self, size: usize) -> Vec<u8> {
        let mut body = self.to_string().into_bytes();
        body.push(b' ');
        let mut state = (self.producer.wrapping_mul(0x9E37_79B9)) ^ self.seq.wrapping_add(1);
        while body.len() < size {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let letter = u8::try_from((state >> 24) % 26).expect("below 26");
            body.push(b'a' + letter);
        }
        body
    }

    /// Whether `body` is this key's body.
    pub fn owns(&self, body: &[u8]) -> bool {
        self.body(body.len()) == body
    }
}

/// The key of a message that was read, or the text found in its place.
pub type FoundKey = Result<Key, String>;

/// Reads a message's `KEYS`.
pub fn found_key(text: &str) -> FoundKey {
    Key::parse(text).ok_or_else(|| text.to_owned())
}

/// What the broker said about an acknowledged send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Queue that took it.
    pub queue: i32,
    /// Offset in the queue.
    pub offset: i64,
    /// Offset message id, when the client reports it.
    pub id: Option<MessageId>,
}

/// How a send ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Stored, says the broker.
    Acked(Ack),
    /// Timed out, connection lost, or the broker does not know: may or may not be stored.
    Unknown(String),
    /// Not stored, says the broker.
    Refused(String),
}

/// One send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    /// The message.
    pub key: Key,
    /// Queue that was asked for.
    pub queue: i32,
    /// Not later than the true start.
    pub started: Nanos,
    /// Not earlier than the true end.
    pub finished: Nanos,
    /// How many times the client may have tried, hence how many copies there may be.
    pub attempts_max: u32,
    /// How it ended.
    pub outcome: Outcome,
}

impl Send {
    /// The acknowledgement, if there was one.
    pub fn ack(&self) -> Option<&Ack> {
        match &self.outcome {
            Outcome::Acked(ack) => Some(ack),
            Outcome::Unknown(_) | Outcome::Refused(_) => None,
        }
    }
}

/// Sends are added a moment after they finished, so their times are not quite in order.
const DISORDER: u64 = 1_000_000_000;

/// Those that finished at `time` or later, the last ones first.
pub fn since(sends: &[Send], time: Nanos) -> impl Iterator<Item = &Send> + Clone {
    let recent = sends
        .iter()
        .rev()
        .take_while(move |send| send.finished.0 + DISORDER >= time.0);
    recent.filter(move |send| send.finished >= time)
}

/// All sends of a test; clones share it.
#[derive(Debug, Clone, Default)]
pub struct History {
    sends: Arc<Mutex<Vec<Send>>>,
}

impl History {
    /// Adds a finished send.
    pub fn add(&self, send: Send) {
        self.lock().push(send);
    }

    /// Adds many finished sends.
    pub fn extend(&self, sends: impl IntoIterator<Item = Send>) {
        self.lock().extend(sends);
    }

    /// How many sends have finished.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nothing has finished yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Looks at the sends.
    pub fn with<T>(&self, look: impl FnOnce(&[Send]) -> T) -> T {
        look(&self.lock())
    }

    /// How many sends were acknowledged.
    pub fn acked(&self) -> usize {
        self.with(|sends| sends.iter().filter(|send| send.ack().is_some()).count())
    }

    /// The producers that had a send acknowledged at `time` or later.
    pub fn acked_since(&self, time: Nanos) -> BTreeSet<u32> {
        self.with(|sends| {
            since(sends, time)
                .filter(|send| send.ack().is_some())
                .map(|send| send.key.producer)
                .collect()
        })
    }

    /// The largest offset of a queue that has been acknowledged.
    pub fn largest_acked(&self, queue: i32) -> Option<i64> {
        self.with(|sends| {
            let acks = sends
                .iter()
                .filter_map(Send::ack)
                .filter(|ack| ack.queue == queue);
            acks.map(|ack| ack.offset).max()
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Send>> {
        self.sends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_and_nothing_else_does() {
        let key = Key {
            producer: 3,
            seq: 41,
        };
        assert_eq!(Key::parse(&key.to_string()), Some(key));
        for bad in [
            "", "p", "p1", "p1-", "p-1", "q1-1", "p1-1 ", "p01-1", "p1-+1", "p1--1",
        ] {
            assert_eq!(Key::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_body_belongs_to_one_key_only() {
        let (one, two) = (
            Key {
                producer: 1,
                seq: 2,
            },
            Key {
                producer: 1,
                seq: 3,
            },
        );
        let mut body = one.body(100);
        assert!(one.owns(&body) && !two.owns(&body));
        body[99] ^= 1;
        assert!(!one.owns(&body));
    }
}
