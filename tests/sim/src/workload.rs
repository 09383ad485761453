//! Producers and consumers: they send to whoever they believe leads, and try again until it works.

use std::collections::BTreeMap;

use bytes::BytesMut;
use raftmq_proto::message::record::NewRecord;
use raftmq_raft::ProposeError;

use crate::history::{QUEUES, TOPIC};
use crate::os::{MS, Nanos};
use crate::random::Random;
use crate::replay::body;

/// Producers.
pub const CLIENTS: usize = 4;
/// What an answer may take before it is not waited for.
pub const PATIENCE: Nanos = 1_000 * MS;
/// Messages of one submission.
const COUNT_MAX: u64 = 4;

pub struct Client {
    pub queue: usize,
    pub random: Random,
    /// Whom it believes to lead.
    pub leader: usize,
    pub next: u64,
    /// What it wants stored and is not yet, with the attempt under way.
    pub open: BTreeMap<u64, Option<u64>>,
    pub acknowledged: u64,
}

impl Client {
    pub fn new(id: usize, mut random: Random) -> Client {
        Client {
            queue: id % QUEUES,
            leader: random.below(crate::MEMBERS as u64) as usize,
            random,
            next: 0,
            open: BTreeMap::new(),
            acknowledged: 0,
        }
    }

    /// It does not know whom to ask.
    pub fn ask_anyone(&mut self) {
        self.leader = self.random.below(crate::MEMBERS as u64) as usize;
    }

    /// The number of messages of what it wants stored; the same each time it is tried.
    pub fn count(number: u64) -> u32 {
        (number.wrapping_mul(0x9E37_79B9) >> 7).wrapping_rem(COUNT_MAX) as u32 + 1
    }
}

/// The records of an attempt.
pub fn records(attempt: u64, queue: usize, count: u32, padding: usize) -> BytesMut {
    let mut out = BytesMut::new();
    for nth in 0..count {
        let record = NewRecord {
            queue_id: queue as i32,
            flag: 0,
            sys_flag: 0,
            born_timestamp: 1_700_000_000_000,
            born_host: ([10, 0, 1, 1], 1000).into(),
            store_host: ([10, 0, 0, 1], 10911).into(),
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: &body((attempt, nth), padding),
            topic: TOPIC,
            properties: "",
        };
        record.encode(&mut out).expect("a small record");
    }
    out
}

/// Whether an error says that nothing is stored, now or ever.
pub fn is_refusal(error: &ProposeError) -> bool {
    match error {
        ProposeError::NotLeader { .. }
        | ProposeError::Busy { .. }
        | ProposeError::DiskFull { .. }
        | ProposeError::TooLarge { .. }
        | ProposeError::Malformed { .. }
        | ProposeError::Renumber
        | ProposeError::Closed => true,
        ProposeError::Unknown | ProposeError::Poisoned(_) => false,
    }
}
