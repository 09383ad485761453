//! Who may speak to whom: the check behind every request between members.
//!
//! A wrong address, a store copied from another group or a member started twice would otherwise
//! show as lost votes and vanished entries. Here each is refused with a sentence that names both
//! sides; the receiver logs it and sends it back, so both logs have it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use raftmq_store::CommitLog;
use tonic::Status;

use crate::pb;

/// Version of the messages in `raft.proto` and of the entry layout they carry.
pub(crate) const FORMAT: u32 = 1;

/// The same complaint is logged once in this time.
const REPEAT_AFTER: Duration = Duration::from_secs(10);
/// Different complaints remembered for that; the oldest go first.
const COMPLAINTS_MAX: usize = 64;
/// Member ids remembered; far more than a group has.
const PEERS_MAX: usize = 64;
/// Former processes remembered for each member.
const FORMER_MAX: usize = 8;
/// How long the last words of a stopped process may take.
const LATE: Duration = Duration::from_secs(1);
/// How long a member id stays contested after two processes were heard with it.
const CONTEST: Duration = Duration::from_secs(10);

/// This member, as its peers know it.
pub(crate) struct Identity {
    group: String,
    id: u64,
    process: u64,
    /// `None` while this member has no log that it could speak for.
    log: Option<CommitLog>,
    genesis: OnceLock<u32>,
    peers: Mutex<HashMap<u64, PeerProcess>>,
    complaints: Mutex<HashMap<String, Instant>>,
}

/// The processes that spoke for one member id.
struct PeerProcess {
    current: Process,
    /// Those it took over from, with the time of it.
    former: Vec<(Process, Instant)>,
    /// Two of them speak in turns: none is heard until then.
    contested_until: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Process {
    number: u64,
    remote: Option<SocketAddr>,
    heard: Instant,
}

impl Identity {
    pub(crate) fn new(group: String, id: u64, log: Option<CommitLog>) -> Self {
        Identity {
            group,
            id,
            process: random(),
            log,
            genesis: OnceLock::new(),
            peers: Mutex::default(),
            complaints: Mutex::default(),
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The hello for a request to member `to`.
    pub(crate) fn hello(&self, to: u64) -> pb::Hello {
        pb::Hello {
            group: self.group.clone(),
            from: self.id,
            to,
            format: FORMAT,
            process: self.process,
            genesis: self.genesis(),
        }
    }

    /// CRC of the first entry of the log. It never changes once it is there.
    fn genesis(&self) -> Option<u32> {
        if let Some(crc) = self.genesis.get() {
            return Some(*crc);
        }
        let crc = self.log.as_ref()?.genesis()?;
        Some(*self.genesis.get_or_init(|| crc))
    }

    /// Refuses a request that is not meant for this member, and says why in the log.
    pub(crate) fn check(
        &self,
        hello: Option<&pb::Hello>,
        remote: Option<SocketAddr>,
    ) -> Result<(), Status> {
        let Some(hello) = hello else {
            return Err(Status::invalid_argument(
                "the request does not say who sends it",
            ));
        };
        match self.complaint(hello, remote) {
            None => Ok(()),
            Some(complaint) => {
                if self.say(&complaint) {
                    tracing::error!(group = %self.group, member = self.id, "refused: {complaint}");
                }
                Err(Status::failed_precondition(complaint))
            }
        }
    }

    fn complaint(&self, hello: &pb::Hello, remote: Option<SocketAddr>) -> Option<String> {
        let (id, group) = (self.id, &self.group);
        let from = hello.from;
        // Its port changes with every connection and says nothing.
        let at = show(remote);
        if hello.format != FORMAT {
            return Some(format!(
                "member {from} at {at} speaks format {} of the group protocol, member {id} speaks \
                 {FORMAT}",
                hello.format
            ));
        }
        if hello.group != *group {
            return Some(format!(
                "member {from} of group {:?} at {at} sent a request to member {id} of group \
                 {group:?}: an address in its dLegerPeers belongs to another group",
                hello.group
            ));
        }
        if from == id {
            let whose = if hello.process == self.process {
                "its own request came back to it: an address in its dLegerPeers is its own"
            } else {
                "two processes have this dLegerSelfId"
            };
            return Some(format!(
                "member {id} got a request from member {from} at {at}: {whose}"
            ));
        }
        if hello.to != id {
            return Some(format!(
                "member {from} at {at} sent a request for member {} to member {id}: the address of \
                 one of them in its dLegerPeers is wrong, or one process has the dLegerSelfId of \
                 another",
                hello.to
            ));
        }
        if let (Some(theirs), Some(ours)) = (hello.genesis, self.genesis())
            && theirs != ours
        {
            return Some(format!(
                "the logs of member {from} at {at} and of member {id} do not begin with the same \
                 entry ({theirs:08x}, {ours:08x}): one of them has the store of another group, or \
                 they were first started with different dLegerPeers"
            ));
        }
        self.twice(hello, remote, Instant::now())
    }

    /// Notices a member id that is claimed by two processes: after a restart the old process is
    /// never heard again, so if it is there must be two. Neither is heard then: which of them holds
    /// the member's vote and log cannot be told from here.
    fn twice(&self, hello: &pb::Hello, remote: Option<SocketAddr>, now: Instant) -> Option<String> {
        let mut peers = self.peers.lock();
        // Ids are those of the group's members, a handful; strangers must not grow the map.
        if peers.len() >= PEERS_MAX && !peers.contains_key(&hello.from) {
            return None;
        }
        let process = Process {
            number: hello.process,
            remote,
            heard: now,
        };
        let peer = peers.entry(hello.from).or_insert_with(|| PeerProcess {
            current: process,
            former: Vec::new(),
            contested_until: None,
        });
        let former = peer
            .former
            .iter()
            .position(|(p, _)| p.number == process.number);
        match former {
            _ if peer.current.number == process.number => peer.current = process,
            None => {
                if peer.former.len() == FORMER_MAX {
                    peer.former.remove(0);
                }
                peer.former.push((peer.current, now));
                peer.current = process;
            }
            // What the old process sent last may be read after the first words of the new one.
            Some(at) if now.duration_since(peer.former[at].1) < LATE => {}
            Some(_) if now.duration_since(peer.current.heard) < CONTEST => {
                peer.contested_until = Some(now + CONTEST);
            }
            Some(at) => {
                peer.former.remove(at);
                peer.current = process;
            }
        }
        if peer.contested_until.is_none_or(|until| until <= now) {
            peer.contested_until = None;
            return None;
        }
        let other = peer
            .former
            .last()
            .map_or_else(String::new, |(p, _)| show(p.remote));
        Some(format!(
            "two processes claim to be member {}, one at {}, one at {other}: every member needs its \
             own dLegerSelfId",
            hello.from,
            show(peer.current.remote),
        ))
    }

    /// True when a complaint has not been logged lately.
    pub(crate) fn say(&self, complaint: &str) -> bool {
        let mut said = self.complaints.lock();
        let now = Instant::now();
        said.retain(|_, at| now.duration_since(*at) < REPEAT_AFTER);
        if said.contains_key(complaint) {
            return false;
        }
        if said.len() < COMPLAINTS_MAX {
            said.insert(complaint.to_owned(), now);
        }
        true
    }
}

fn show(remote: Option<SocketAddr>) -> String {
    remote.map_or_else(|| "an unknown address".to_owned(), |a| a.ip().to_string())
}

/// A number that no other process of the group is likely to have.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(from: u64, to: u64, process: u64) -> pb::Hello {
        pb::Hello {
            group: "g".to_owned(),
            from,
            to,
            format: FORMAT,
            process,
            genesis: None,
        }
    }

    fn identity() -> Identity {
        Identity::new("g".to_owned(), 1, Some(crate::test_log()))
    }

    /// Each thing that does not fit is refused with both sides named.
    #[test]
    fn refuses_what_is_not_meant_for_it() {
        let me = identity();
        let remote = Some("10.0.0.7:4000".parse().unwrap());
        assert!(me.check(Some(&hello(0, 1, 7)), remote).is_ok());
        assert!(me.check(None, remote).is_err());
        let refused = |hello: pb::Hello| {
            me.check(Some(&hello), remote)
                .unwrap_err()
                .message()
                .to_owned()
        };
        let other_group = refused(pb::Hello {
            group: "other".to_owned(),
            ..hello(0, 1, 7)
        });
        assert!(other_group.contains("\"other\"") && other_group.contains("10.0.0.7"));
        assert!(
            refused(pb::Hello {
                format: 9,
                ..hello(0, 1, 7)
            })
            .contains("format 9")
        );
        assert!(refused(hello(0, 2, 7)).contains("a request for member 2 to member 1"));
        assert!(refused(hello(1, 1, 7)).contains("two processes have this dLegerSelfId"));
        assert!(refused(me.hello(1)).contains("its own request came back"));
    }

    /// A restart is silent; two processes that speak in turns are both refused until one is quiet.
    #[test]
    fn notices_two_processes_with_one_id() {
        let me = identity();
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert_eq!(me.twice(&hello(0, 1, 100), None, at(0)), None);
        assert_eq!(me.twice(&hello(0, 1, 200), None, at(100)), None, "restart");
        assert_eq!(
            me.twice(&hello(0, 1, 100), None, at(200)),
            None,
            "last words"
        );
        assert_eq!(me.twice(&hello(0, 1, 200), None, at(1_900)), None);
        assert!(me.twice(&hello(0, 1, 100), None, at(2_000)).is_some());
        assert!(me.twice(&hello(0, 1, 200), None, at(2_100)).is_some());
        assert_eq!(
            me.twice(&hello(2, 1, 300), None, at(2_100)),
            None,
            "others are heard"
        );
        assert_eq!(
            me.twice(&hello(0, 1, 200), None, at(12_200)),
            None,
            "the other one is gone"
        );
        assert_eq!(
            me.twice(&hello(0, 1, 100), None, at(30_000)),
            None,
            "now this one is"
        );
    }
}
