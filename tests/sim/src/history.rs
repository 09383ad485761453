//! What happened, as far as the invariants need it.

use std::collections::BTreeMap;

use raftmq_raft::{ProposeError, Stored};

/// The one topic.
pub const TOPIC: &str = "T";
/// Its queues.
pub const QUEUES: usize = 3;
/// The consumer group that commits offsets.
pub const GROUP: &str = "G";

/// A broken promise.
#[derive(Debug)]
pub struct Violation {
    pub invariant: &'static str,
    pub what: String,
}

pub type Check = Result<(), Violation>;

/// Builds a violation.
#[macro_export]
macro_rules! violation {
    ($invariant:literal, $($what:tt)*) => {
        Err($crate::history::Violation { invariant: $invariant, what: format!($($what)*) })
    };
}

/// Identity of an entry: its CRC covers its bytes and the CRC of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryMark {
    pub term: u64,
    pub crc: u32,
}

/// One submission. Its messages' bodies name it.
#[derive(Debug)]
pub struct Attempt {
    pub client: usize,
    /// What the client wants stored; retries have the same.
    pub number: u64,
    pub queue: usize,
    pub count: u32,
    pub member: usize,
    /// Its messages come behind this offset: it was acknowledged before.
    pub above: Option<u64>,
    pub outcome: Option<Outcome>,
}

#[derive(Debug, Clone)]
pub enum Outcome {
    Stored(Stored),
    /// Nothing of it is stored, now or ever.
    Refused(ProposeError),
    Unknown,
}

#[derive(Default)]
pub struct History {
    /// Who led which term.
    pub leaders: BTreeMap<u64, usize>,
    /// Entries that some member has applied, by index.
    pub committed: Vec<EntryMark>,
    /// The term in which each of them was first seen to be committed, or a later one.
    pub committed_in: Vec<u64>,
    pub attempts: Vec<Attempt>,
    /// The highest acknowledged offset of each queue.
    pub acknowledged: [Option<u64>; QUEUES],
    /// Consumer offsets: the highest sent, and the highest acknowledged.
    pub sent_offset: [i64; QUEUES],
    pub saved_offset: [i64; QUEUES],
    /// How submissions ended, and reads that were vouched for.
    pub stored: u64,
    pub refused: u64,
    pub unknown: u64,
    pub reads: u64,
}
