//! Keys and values of the state database.
//!
//! | key | value |
//! |---|---|
//! | `M` | [`Meta`]: applied id, beginning of the log, membership, versions, next queue id |
//! | `t` topic | topic settings, JSON |
//! | `g` group | group settings, JSON |
//! | `o` len group, topic | saved offsets: (queue id i32, offset i64)* |
//! | `k` len namespace, key | value |
//! | `c` len topic, queue id i32 | queue number u32, min u64, max u64, and 1 for a queue that never had a message |
//! | `q` queue number u32, block u64 | up to 256 units, see [`super::block`] |
//!
//! `len` is a u16 before the first of two names. All integers are big-endian.

use raftmq_proto::body::DataVersion;

use crate::entry::{LogId, u32_at, u64_at};

use super::queue::QueueBounds;

pub(crate) const META: &[u8] = b"M";
/// Layout of the rows; a database with another one is not read.
const FORMAT: u8 = 3;

pub(crate) fn topic(name: &str) -> Vec<u8> {
    one(b't', name)
}

pub(crate) fn group(name: &str) -> Vec<u8> {
    one(b'g', name)
}

pub(crate) fn offsets(group: &str, topic: &str) -> Vec<u8> {
    two(b'o', group, topic)
}

pub(crate) fn kv(namespace: &str, key: &str) -> Vec<u8> {
    two(b'k', namespace, key)
}

pub(crate) fn queue(topic: &str, queue_id: i32) -> Vec<u8> {
    let mut key = two(b'c', topic, "");
    key.extend_from_slice(&queue_id.to_be_bytes());
    key
}

pub(crate) fn block(queue: u32, block: u64) -> [u8; 13] {
    let mut key = [b'q'; 13];
    let (_, rest) = key.split_at_mut(1);
    let (number, at) = rest.split_at_mut(4);
    number.copy_from_slice(&queue.to_be_bytes());
    at.copy_from_slice(&block.to_be_bytes());
    key
}

fn one(kind: u8, name: &str) -> Vec<u8> {
    [&[kind], name.as_bytes()].concat()
}

fn two(kind: u8, first: &str, second: &str) -> Vec<u8> {
    // Names longer than that are refused before they get here.
    let len = u16::try_from(first.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[kind], &len[..], first.as_bytes(), second.as_bytes()].concat()
}

/// A decoded key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Key<'a> {
    Meta,
    Topic,
    Group,
    Offsets(&'a str, &'a str),
    Kv(&'a str, &'a str),
    Queue(&'a str, i32),
    Block,
}

pub(crate) fn decode(key: &[u8]) -> Option<Key<'_>> {
    let (kind, rest) = key.split_first()?;
    let split = || {
        let (len, names) = rest.split_at_checked(2)?;
        let len = usize::from(u16::from_be_bytes(len.try_into().ok()?));
        let (first, second) = names.split_at_checked(len)?;
        Some((std::str::from_utf8(first).ok()?, second))
    };
    match kind {
        b'M' => Some(Key::Meta),
        b't' => Some(Key::Topic),
        b'g' => Some(Key::Group),
        b'q' => Some(Key::Block),
        b'o' => split().and_then(|(g, t)| Some(Key::Offsets(g, std::str::from_utf8(t).ok()?))),
        b'k' => split().and_then(|(n, k)| Some(Key::Kv(n, std::str::from_utf8(k).ok()?))),
        b'c' => split().and_then(|(t, id)| Some(Key::Queue(t, u32_at(id, 0)?.cast_signed()))),
        _ => None,
    }
}

pub(crate) fn encode_queue(id: u32, bounds: QueueBounds, unused: bool) -> Vec<u8> {
    let mut value = [
        &id.to_be_bytes()[..],
        &bounds.min.to_be_bytes(),
        &bounds.max.to_be_bytes(),
    ]
    .concat();
    if unused {
        value.push(1);
    }
    value
}

/// Number, bounds, and whether the queue never had a message.
pub(crate) fn decode_queue(value: &[u8]) -> Option<(u32, QueueBounds, bool)> {
    let bounds = QueueBounds {
        min: u64_at(value, 4)?,
        max: u64_at(value, 12)?,
    };
    let unused = match value.get(20..)? {
        [] => false,
        [1] => true,
        _ => return None,
    };
    Some((u32_at(value, 0)?, bounds, unused)).filter(|_| bounds.min <= bounds.max)
}

pub(crate) fn encode_offsets<'a>(rows: impl Iterator<Item = (&'a i32, &'a i64)>) -> Vec<u8> {
    let mut value = Vec::new();
    for (queue_id, offset) in rows {
        value.extend_from_slice(&queue_id.to_be_bytes());
        value.extend_from_slice(&offset.to_be_bytes());
    }
    value
}

pub(crate) fn decode_offsets(value: &[u8]) -> Option<Vec<(i32, i64)>> {
    if !value.len().is_multiple_of(12) {
        return None;
    }
    let row = |row: &[u8]| Some((u32_at(row, 0)?.cast_signed(), u64_at(row, 4)?.cast_signed()));
    value.chunks_exact(12).map(row).collect()
}

/// What there is once.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Meta {
    pub(crate) applied: Option<LogId>,
    /// Position after the applied entry.
    pub(crate) applied_end: u64,
    /// Beginning of the log.
    pub(crate) log_start: u64,
    /// The beginning of the log that all queues' minima are right for.
    pub(crate) swept: u64,
    pub(crate) membership: Option<(LogId, Vec<u8>)>,
    pub(crate) topic_version: DataVersion,
    pub(crate) group_version: DataVersion,
    pub(crate) next_queue: u32,
    /// See [`State::term_ends`](super::State::term_ends).
    pub(crate) term_ends: Vec<TermEnd>,
}

/// The last entry of a term, and the position after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TermEnd {
    pub(crate) last: LogId,
    pub(crate) end: u64,
}

impl Meta {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT, u8::from(self.applied.is_some())];
        let mut number = |n: u64| out.extend_from_slice(&n.to_be_bytes());
        let applied = self.applied.unwrap_or_default();
        number(applied.index);
        number(applied.term);
        number(self.applied_end);
        for version in [self.topic_version, self.group_version] {
            number(version.state_version.cast_unsigned());
            number(version.timestamp.cast_unsigned());
            number(version.counter.cast_unsigned());
        }
        number(self.next_queue.into());
        number(self.log_start);
        number(self.swept);
        number(self.term_ends.len() as u64);
        for TermEnd { last, end } in &self.term_ends {
            number(last.index);
            number(last.term);
            number(*end);
        }
        if let Some((id, body)) = &self.membership {
            number(id.index);
            number(id.term);
            out.extend_from_slice(body);
        }
        out
    }

    pub(crate) fn decode(value: &[u8]) -> Option<Meta> {
        let (&[format, has_applied], rest) = value.split_first_chunk::<2>()?;
        let number = |nth: usize| u64_at(rest, nth * 8);
        if format != FORMAT {
            return None;
        }
        let end = |nth: usize| {
            Some(TermEnd {
                last: LogId::new(number(nth + 1)?, number(nth)?),
                end: number(nth + 2)?,
            })
        };
        let count = usize::try_from(number(12)?).ok()?.min(rest.len());
        let ends = (0..count).map(|nth| end(13 + 3 * nth));
        let term_ends = ends.collect::<Option<_>>()?;
        let numbers = 13 + 3 * count;
        let version = |nth: usize| {
            Some(DataVersion {
                state_version: number(nth)?.cast_signed(),
                timestamp: number(nth + 1)?.cast_signed(),
                counter: number(nth + 2)?.cast_signed(),
            })
        };
        let applied = LogId::new(number(1)?, number(0)?);
        let membership = match rest.get(numbers * 8..)? {
            [] => None,
            body => Some((
                LogId::new(number(numbers + 1)?, number(numbers)?),
                body.get(16..)?.to_vec(),
            )),
        };
        Some(Meta {
            applied: (has_applied == 1).then_some(applied),
            applied_end: number(2)?,
            topic_version: version(3)?,
            group_version: version(6)?,
            next_queue: u32::try_from(number(9)?).ok()?,
            log_start: number(10)?,
            swept: number(11)?,
            membership,
            term_ends,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn meta_round_trip() {
        let full = Meta {
            applied: Some(LogId::new(4, 5)),
            applied_end: 600,
            membership: Some((LogId::new(1, 2), b"members".to_vec())),
            topic_version: DataVersion {
                state_version: 1,
                timestamp: 2,
                counter: 3,
            },
            group_version: DataVersion {
                state_version: -1,
                timestamp: 5,
                counter: 6,
            },
            next_queue: 7,
            log_start: 500,
            swept: 400,
            term_ends: vec![TermEnd {
                last: LogId::new(3, 4),
                end: 550,
            }],
        };
        for meta in [full, Meta::default()] {
            assert_eq!(Meta::decode(&meta.encode()), Some(meta));
        }
    }

    #[test]
    fn queue_round_trip() {
        let bounds = QueueBounds { min: 3, max: 9 };
        for unused in [false, true] {
            let row = encode_queue(5, bounds, unused);
            assert_eq!(decode_queue(&row), Some((5, bounds, unused)));
        }
        let wrong = QueueBounds { min: 9, max: 3 };
        assert_eq!(decode_queue(&encode_queue(5, wrong, false)), None);
    }

    #[test]
    fn keys_round_trip() {
        assert_eq!(decode(&offsets("g", "t@x")), Some(Key::Offsets("g", "t@x")));
        assert_eq!(decode(&kv("", "k")), Some(Key::Kv("", "k")));
        assert_eq!(decode(&queue("topic", -3)), Some(Key::Queue("topic", -3)));
        assert_eq!(decode(&block(1, 2)), Some(Key::Block));
    }

    proptest! {
        /// No bytes make a decoder panic.
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            drop((decode(&bytes), decode_queue(&bytes), decode_offsets(&bytes), Meta::decode(&bytes)));
        }
    }
}
