//! Unique keys of messages (property `UNIQ_KEY`), in the layout that RocketMQ's tools take apart.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use raftmq_proto::message::id::{UniqueIdParts, unique_id};

use crate::identity::local_ip;
use crate::local_time::{LocalTime, now_ms};

/// Hands out unique keys; one per client instance.
#[derive(Debug)]
pub(crate) struct UniqueKeys {
    ip: IpAddr,
    pid: u16,
    seed: u32,
    counter: AtomicU32,
}

impl UniqueKeys {
    pub(crate) fn new() -> UniqueKeys {
        UniqueKeys {
            ip: local_ip(),
            pid: std::process::id() as u16,
            seed: RandomState::new().build_hasher().finish() as u32,
            counter: AtomicU32::new(0),
        }
    }

    pub(crate) fn next(&self) -> String {
        unique_id(&UniqueIdParts {
            ip: self.ip,
            pid: self.pid,
            seed: self.seed,
            since_month_start_ms: LocalTime::from_epoch_ms(now_ms()).ms_of_month() as u32,
            // 16 bits wrap after 65,536 keys in one millisecond, far beyond what a client can send.
            counter: self.counter.fetch_add(1, Ordering::Relaxed) as u16,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_have_the_original_s_length() {
        let keys = UniqueKeys::new();
        let all: std::collections::HashSet<_> = (0..10_000).map(|_| keys.next()).collect();
        assert_eq!(all.len(), 10_000);
        assert!(
            all.iter()
                .all(|key| key.len() == if keys.ip.is_ipv4() { 32 } else { 56 })
        );
    }
}
