//! A fingerprint of the state, to compare members: equal logs must give equal digests.

use std::collections::BTreeMap;

use crate::entry::LogId;
use crate::error::Result;

use super::State;

/// Fingerprint of each part of the state. Independent of what is persisted, of queue numbers and
/// of the order of hash maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateDigest {
    /// The last applied entry.
    pub applied: Option<LogId>,
    /// Beginning of the log.
    pub log_start: u64,
    /// Last membership entry.
    pub membership: u64,
    /// Topics and their version.
    pub topics: u64,
    /// Subscription groups and their version.
    pub groups: u64,
    /// Saved offsets.
    pub offsets: u64,
    /// Key-value pairs.
    pub kv: u64,
    /// Consume queues, unit by unit.
    pub queues: u64,
}

/// FNV-1a, 64 bits: the same on every machine and in every version.
struct Hash(u64);

impl Hash {
    fn new() -> Self {
        Hash(0xCBF2_9CE4_8422_2325)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }

    fn number(&mut self, number: u64) {
        self.bytes(&number.to_be_bytes());
    }

    /// With its length, so that neighbours do not run together.
    fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u64);
        self.bytes(text);
    }

    fn version(&mut self, version: raftmq_proto::body::DataVersion) {
        for part in [version.state_version, version.timestamp, version.counter] {
            self.number(part.cast_unsigned());
        }
    }
}

impl State {
    /// One number for the whole of [`digest_parts`](Self::digest_parts).
    ///
    /// # Errors
    /// As [`State::units`].
    pub fn digest(&self) -> Result<u64> {
        let parts = self.digest_parts()?;
        let applied = parts.applied.unwrap_or_default();
        let mut all = Hash::new();
        for part in [
            u64::from(parts.applied.is_some()),
            applied.term,
            applied.index,
            parts.log_start,
            parts.membership,
            parts.topics,
            parts.groups,
            parts.offsets,
            parts.kv,
            parts.queues,
        ] {
            all.number(part);
        }
        Ok(all.0)
    }

    /// The fingerprint of the state as it is now. Nothing may be applied meanwhile, or the parts
    /// do not fit together. Reads all consume queues: for tests and tools.
    ///
    /// # Errors
    /// As [`State::units`].
    pub fn digest_parts(&self) -> Result<StateDigest> {
        let mut membership = Hash::new();
        if let Some((id, body)) = self.membership() {
            membership.number(id.term);
            membership.number(id.index);
            membership.text(&body);
        }
        let mut topics = Hash::new();
        topics.version(self.topic_version());
        for topic in self.topics() {
            topics.text(&topic.to_json());
        }
        let mut groups = Hash::new();
        groups.version(self.group_version());
        for group in self.groups() {
            groups.text(&group.to_json());
        }
        let mut offsets = Hash::new();
        let mut kv = Hash::new();
        let mut names: BTreeMap<_, Vec<i32>> = BTreeMap::new();
        {
            let tables = self.tables();
            let saved: BTreeMap<_, _> = tables.offsets.iter().collect();
            for (group, saved) in saved {
                for (topic, rows) in saved.iter().collect::<BTreeMap<_, _>>() {
                    offsets.text(group.as_bytes());
                    offsets.text(topic.as_bytes());
                    for (queue_id, offset) in rows {
                        offsets.number(u64::from(queue_id.cast_unsigned()));
                        offsets.number(offset.cast_unsigned());
                    }
                }
            }
            for (namespace, rows) in tables.kv.iter().collect::<BTreeMap<_, _>>() {
                for (key, value) in rows {
                    kv.text(namespace.as_bytes());
                    kv.text(key.as_bytes());
                    kv.text(value);
                }
            }
            for (topic, queues) in &tables.queues {
                names.insert(topic.clone(), queues.iter().map(|(id, _)| id).collect());
            }
        }
        let mut queues = Hash::new();
        for (topic, ids) in names {
            queues.text(topic.as_bytes());
            for queue_id in ids {
                let bounds = self.inner.bounds(&topic, queue_id)?.unwrap_or_default();
                queues.number(u64::from(queue_id.cast_unsigned()));
                queues.number(bounds.min);
                queues.number(bounds.max);
                let mut at = bounds.min;
                while at < bounds.max {
                    let units = self.units(&topic, queue_id, at, 4096)?;
                    if units.is_empty() {
                        break;
                    }
                    at += units.len() as u64;
                    for unit in units {
                        queues.number(unit.physical_offset);
                        queues.number(unit.size.into());
                        queues.number(unit.tags_code.cast_unsigned());
                    }
                }
            }
        }
        Ok(StateDigest {
            applied: self.applied(),
            log_start: self.log_start(),
            membership: membership.0,
            topics: topics.0,
            groups: groups.0,
            offsets: offsets.0,
            kv: kv.0,
            queues: queues.0,
        })
    }
}
