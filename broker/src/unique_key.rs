//! Unique keys for messages whose client gave none.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use raftmq_proto::message::id::{UniqueIdParts, unique_id};

use crate::time::now_ms;

/// Tools read the send time of a key relative to the start of a month; 31 days fit the field.
const MONTH_MS: i64 = 31 * 24 * 3600 * 1000;

/// Makes unique keys.
pub(crate) struct UniqueKeys {
    ip: IpAddr,
    pid: u16,
    seed: u32,
    counter: AtomicU32,
    rolls: AtomicU32,
}

impl UniqueKeys {
    pub(crate) fn new(ip: IpAddr) -> UniqueKeys {
        let seed = RandomState::new().build_hasher().finish();
        UniqueKeys {
            ip,
            pid: (std::process::id() & 0xFFFF) as u16,
            seed: (seed & 0xFFFF_FFFF) as u32,
            counter: AtomicU32::new((seed >> 32) as u32),
            rolls: AtomicU32::new(0),
        }
    }

    /// The next key.
    pub(crate) fn next(&self) -> String {
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        unique_id(&UniqueIdParts {
            ip: self.ip,
            pid: self.pid,
            // The counter's upper half keeps keys apart once its lower half has gone round within a millisecond.
            seed: self.seed ^ (count & 0xFFFF_0000),
            since_month_start_ms: u32::try_from(now_ms() % MONTH_MS).unwrap_or(0),
            counter: (count & 0xFFFF) as u16,
        })
    }

    /// A number for choices that only have to be spread evenly.
    pub(crate) fn dice(&self) -> u32 {
        self.rolls.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn keys_differ() {
        let keys = UniqueKeys::new(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let some: HashSet<String> = (0..200_000).map(|_| keys.next()).collect();
        assert_eq!(some.len(), 200_000);
        assert!(some.iter().all(|key| key.len() == 32));
    }
}
