//! What a member of a group is told when it starts.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};

use crate::types::Node;

/// A member of the group, as the configuration names it (one item of `dLegerPeers`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Member id: the number in `n0`, unique in the group for ever.
    pub id: u64,
    /// Host name or IP address, IPv6 with or without brackets.
    pub host: String,
    /// Port for Raft and forwarding.
    pub port: u16,
}

impl Peer {
    /// `host:port`, IPv6 addresses in brackets.
    pub fn address(&self) -> String {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        if host.contains(':') {
            format!("[{host}]:{}", self.port)
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}-{}", self.id, self.address())
    }
}

/// Options of one member of one group.
#[derive(Debug, Clone)]
pub struct GroupOptions {
    /// Group (RocketMQ: `dLegerGroup`, the broker name).
    pub group: String,
    /// This member (`dLegerSelfId`); must be in `peers`.
    pub self_id: u64,
    /// All members (`dLegerPeers`). Forms the group at its first start; afterwards the membership
    /// in the log rules and a difference is reported.
    pub peers: Vec<Peer>,
    /// Where this member listens for the others.
    pub bind: SocketAddr,
    /// Time between heartbeats of the leader. Default 60 ms.
    pub heartbeat: Duration,
    /// Shortest time without a leader before a member stands for election. Default 200 ms; more
    /// than `heartbeat`.
    pub election_min: Duration,
    /// Longest such time, and the leader's lease: a new leader is found within about twice this.
    /// Default 350 ms; more than `election_min`.
    pub election_max: Duration,
    /// Entries of the proposer under way at once. Default 4, at least 1.
    pub proposals_in_flight: usize,
    /// Most submissions in one entry. Default 1,024, at least 1.
    pub entry_submissions_max: usize,
    /// Most bytes in one entry, one larger submission excepted. Default 1 MiB.
    pub entry_bytes_max: usize,
    /// Submissions that may wait to be proposed (`raftQueueCountMax`). Default 10,000.
    pub queue_count_max: usize,
    /// Bytes of submissions that may wait to be proposed (`raftQueueBytesMax`). Default 64 MiB.
    pub queue_bytes_max: usize,
    /// Requests with entries under way to each follower. Default 2, at least 1; more helps over
    /// long distances only.
    pub appends_in_flight: usize,
    /// Client requests being forwarded, in each direction (`raftForwardMax`). Default 4,096; long
    /// polls count while they are held.
    pub forward_max: usize,
    /// How long the very first start waits for all members before a majority forms the group.
    /// Default 10 s.
    pub form_patience: Duration,
    /// This member has to be added to its group by an operator before it takes part (`raftJoin`):
    /// without a log it neither forms a group nor votes. Default false.
    pub join: bool,
    /// Vote and stand for election although this member may lack entries it acknowledged
    /// (`raftVoteDespiteLoss`). For an operator who gives up what the lost members had; default
    /// false.
    pub vote_despite_loss: bool,
    /// Bytes per second that this member fetches when it is seeded from another (`seedRateMax`);
    /// 0 is no limit. Default 100 MiB.
    pub seed_rate_max: u64,
    /// Bytes that the others' log has to have for a new member, or one that lost its store, to be seeded at once instead of
    /// being sent the log by the leader. Default 64 MiB.
    pub seed_from: u64,
    /// Bytes per second that are read to look for damage (`storeScrubRate`); 0 turns it off.
    /// Default 20 MiB.
    pub scrub_rate: u64,
    /// How long a flush may take before a leader hands over (`flushStallMax`). Default 5 s.
    pub flush_stall_max: Duration,
    /// Worker threads of the Raft core, its transport and its timers. Default 2: one for the core
    /// while the other applies.
    pub worker_threads: usize,
}

impl GroupOptions {
    /// Options with the defaults named at each field.
    pub fn new(group: impl Into<String>, self_id: u64, peers: Vec<Peer>, bind: SocketAddr) -> Self {
        GroupOptions {
            group: group.into(),
            self_id,
            peers,
            bind,
            heartbeat: Duration::from_millis(60),
            election_min: Duration::from_millis(200),
            election_max: Duration::from_millis(350),
            proposals_in_flight: 4,
            entry_submissions_max: 1024,
            entry_bytes_max: 1024 * 1024,
            queue_count_max: 10_000,
            queue_bytes_max: 64 * 1024 * 1024,
            appends_in_flight: 2,
            forward_max: 4096,
            form_patience: Duration::from_secs(10),
            join: false,
            vote_despite_loss: false,
            seed_rate_max: 100 * 1024 * 1024,
            seed_from: 64 * 1024 * 1024,
            scrub_rate: 20 * 1024 * 1024,
            flush_stall_max: Duration::from_secs(5),
            worker_threads: 2,
        }
    }

    /// Members with their addresses, as the first membership entry holds them.
    pub(crate) fn nodes(&self) -> BTreeMap<u64, Node> {
        self.peers
            .iter()
            .map(|peer| {
                (
                    peer.id,
                    Node {
                        addr: peer.address(),
                    },
                )
            })
            .collect()
    }

    /// Checks the options and makes openraft's configuration of them.
    pub(crate) fn validate(&self) -> Result<Config, StartError> {
        let wrong = |text: String| Err(StartError::Options(text));
        let mut ids = HashSet::new();
        let mut addresses = HashSet::new();
        for peer in &self.peers {
            if !ids.insert(peer.id) {
                return wrong(format!("dLegerPeers names member n{} twice", peer.id));
            }
            if !addresses.insert(peer.address()) {
                return wrong(format!(
                    "dLegerPeers names the address {} twice",
                    peer.address()
                ));
            }
        }
        if !ids.contains(&self.self_id) {
            let peers: Vec<String> = self.peers.iter().map(Peer::to_string).collect();
            return wrong(format!(
                "dLegerSelfId n{} is not in dLegerPeers {}",
                self.self_id,
                peers.join(";")
            ));
        }
        let positive = [
            ("proposals_in_flight", self.proposals_in_flight),
            ("entry_submissions_max", self.entry_submissions_max),
            ("entry_bytes_max", self.entry_bytes_max),
            ("queue_count_max", self.queue_count_max),
            ("queue_bytes_max", self.queue_bytes_max),
            ("appends_in_flight", self.appends_in_flight),
            ("forward_max", self.forward_max),
            ("worker_threads", self.worker_threads),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return wrong(format!("{name} must be at least 1"));
        }
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let config = Config {
            cluster_name: self.group.clone(),
            heartbeat_interval: ms(self.heartbeat),
            election_timeout_min: ms(self.election_min),
            election_timeout_max: ms(self.election_max),
            enable_pre_vote: Some(true),
            // A leader that restarts has forgotten its lease: it must be elected again.
            enable_leader_restore: Some(false),
            allow_log_reversion: Some(false),
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            // Bytes bound a request, see READ_BYTES_MAX.
            max_payload_entries: 4096,
            ..Config::default()
        };
        if config.heartbeat_interval < 5 {
            // openraft ticks every 13/64 of it, in whole milliseconds.
            return wrong("heartbeat must be at least 5 ms".to_owned());
        }
        config
            .validate()
            .map_err(|error| StartError::Options(error.to_string()))
    }
}

/// Why a member could not start. Every text is one line.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The options contradict each other.
    #[error("{0}")]
    Options(String),
    /// The port for the other members is not available.
    #[error("cannot listen on {address} for the other members: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// The threads could not be created.
    #[error("cannot start the threads of the Raft core: {0}")]
    Threads(io::Error),
    /// The store does not open.
    #[error(transparent)]
    Open(#[from] raftmq_store::Error),
    /// What the store holds cannot be used.
    #[error("cannot resume from the store: {0}")]
    Store(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(peers: &[(u64, &str, u16)]) -> GroupOptions {
        let peers = peers
            .iter()
            .map(|(id, host, port)| Peer {
                id: *id,
                host: (*host).to_owned(),
                port: *port,
            })
            .collect();
        GroupOptions::new("g", 0, peers, "127.0.0.1:0".parse().unwrap())
    }

    #[test]
    fn addresses_of_both_families() {
        let peers = options(&[(0, "a-b.c", 1), (1, "::1", 2), (2, "[fe80::1]", 3)]).peers;
        let addresses: Vec<String> = peers.iter().map(Peer::address).collect();
        assert_eq!(addresses, ["a-b.c:1", "[::1]:2", "[fe80::1]:3"]);
        assert_eq!(peers[1].to_string(), "n1-[::1]:2");
    }

    /// What would make a member unsafe is refused with the key's name.
    #[test]
    fn contradictions_are_refused() {
        let text = |options: GroupOptions| options.validate().unwrap_err().to_string();
        assert!(options(&[(0, "a", 1), (1, "b", 1)]).validate().is_ok());
        assert!(text(options(&[(1, "a", 1)])).contains("dLegerSelfId n0 is not in dLegerPeers n1"));
        assert!(text(options(&[(0, "a", 1), (0, "b", 1)])).contains("n0 twice"));
        assert!(text(options(&[(0, "a", 1), (1, "a", 1)])).contains("a:1 twice"));
        let mut slow = options(&[(0, "a", 1)]);
        slow.heartbeat = slow.election_min;
        assert!(slow.validate().is_err());
        let mut none = options(&[(0, "a", 1)]);
        none.queue_count_max = 0;
        assert!(text(none).contains("queue_count_max"));
    }
}
