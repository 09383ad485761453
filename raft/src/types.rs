//! The one place where openraft's generics are spelled out.
//!
//! An [`Entry`] comes into being in one of two shapes. On the leader it is *fresh*: openraft gives
//! an id to a [`Proposal`] (or to a blank or membership payload) and the commit log gives it its
//! position and its bytes. Everywhere else it is *stored*: a slice of the map, or of the receive
//! buffer it came in, whose bytes are final. Followers append stored bytes as they are, so every
//! member keeps the very bytes the leader wrote.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use openraft::entry::{RaftEntry, RaftPayload};
use openraft::raft::responder::Responder;
use openraft::vote::RaftLeaderId;
use openraft::{OptionalSend, RaftTypeConfig};
use openraft_rt_tokio::TokioRuntime;
use raftmq_store::{EntryKind, StoredEntry};

use crate::encoding::{MalformedMembership, decode_membership};
use crate::state_machine::StateMachine;

/// openraft's type parameters, chosen once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Types;

impl RaftTypeConfig for Types {
    type D = Proposal;
    type R = EntryApplied;
    type NodeId = u64;
    type Node = Node;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = TokioRuntime;
    type Responder<T>
        = Completion<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// Address of a member as the membership entry records it: `host:port` or `[ipv6]:port`.
pub(crate) type Node = openraft::BasicNode;
/// At most one leader a term, as in the Raft paper: an entry's id is its term and index.
pub(crate) type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
pub(crate) type CommittedLeaderId = <LeaderId as RaftLeaderId>::Committed;
pub(crate) type Vote = openraft::impls::Vote<LeaderId>;
pub(crate) type LogId = openraft::LogId<CommittedLeaderId>;
pub(crate) type Membership = openraft::Membership<u64, Node>;
pub(crate) type StoredMembership = openraft::StoredMembership<CommittedLeaderId, u64, Node>;
pub(crate) type Raft = openraft::Raft<Types, StateMachine>;
pub(crate) type RaftState = openraft::RaftState<Types>;
pub(crate) type AppendEntriesRequest = openraft::raft::AppendEntriesRequest<Types>;
pub(crate) type StreamAppendResult = openraft::raft::StreamAppendResult<Types>;
pub(crate) type StreamAppendError = openraft::raft::StreamAppendError<Types>;
pub(crate) type VoteRequest = openraft::raft::VoteRequest<Types>;
pub(crate) type VoteResponse = openraft::raft::VoteResponse<Types>;
pub(crate) type TransferLeaderRequest = openraft::raft::TransferLeaderRequest<Types>;
pub(crate) type TransferLeaderResponse = openraft::raft::TransferLeaderResponse<Types>;
pub(crate) type TransferLeaderError = openraft::raft::TransferLeaderError<Types>;
pub(crate) type ClientWriteResult = openraft::raft::ClientWriteResult<Types>;
pub(crate) type ClientWriteError = openraft::errors::ClientWriteError<Types>;
pub(crate) type RPCError = openraft::errors::RPCError<Types>;
pub(crate) type Unreachable = openraft::errors::Unreachable<Types>;
pub(crate) type StreamingError = openraft::errors::StreamingError<Types>;
pub(crate) type Fatal = openraft::errors::Fatal<Types>;
pub(crate) type IOFlushed = openraft::storage::IOFlushed<Types>;
pub(crate) type EntryResponder = openraft::storage::EntryResponder<Types>;
pub(crate) type LogState = openraft::LogState<Types>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, u64, Node>;
pub(crate) type Snapshot = openraft::Snapshot<CommittedLeaderId, u64, Node, ()>;

/// The store's name for a log id, as openraft's.
pub(crate) fn log_id(id: raftmq_store::LogId) -> LogId {
    LogId::new_term_index(id.term, id.index)
}

/// openraft's name for a log id, as the store's.
pub(crate) fn store_log_id(id: &LogId) -> raftmq_store::LogId {
    raftmq_store::LogId {
        term: id.leader_id.term,
        index: id.index,
    }
}

/// What the proposer wants in the log: the body of an entry that has no id and no position yet.
pub(crate) struct Proposal {
    /// Leading bytes of `body` that are an encoded command; the rest is message records.
    pub(crate) command_len: u32,
    pub(crate) body: BytesMut,
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Proposal({} + {} bytes)",
            self.command_len,
            self.body.len()
        )
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What the proposer learns about an entry once it is applied.
#[derive(Debug, Default)]
pub(crate) struct EntryApplied {
    /// Position of the entry's header in the log.
    pub(crate) position: u64,
    /// Physical offsets of the records that were refused, ascending; normally none.
    pub(crate) refused: Vec<u64>,
}

/// Content of an entry, see the module's introduction.
pub(crate) enum Payload {
    Blank,
    Proposal(Proposal),
    Membership(Membership),
    Stored(StoredPayload),
}

/// An entry whose bytes are final.
pub(crate) struct StoredPayload {
    pub(crate) entry: StoredEntry,
    /// Decoded body of a membership entry; decoded where a bad one can still be refused.
    pub(crate) membership: Option<Arc<Membership>>,
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Payload::Blank => f.write_str("blank"),
            Payload::Proposal(p) => fmt::Debug::fmt(p, f),
            Payload::Membership(m) => write!(f, "membership {m}"),
            Payload::Stored(s) => {
                write!(
                    f,
                    "{:?} at {} ({} bytes)",
                    s.entry.kind,
                    s.entry.position,
                    s.entry.raw.len()
                )
            }
        }
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl RaftPayload for Payload {
    type D = Proposal;
    type NodeId = u64;
    type Node = Node;

    fn blank() -> Self {
        Payload::Blank
    }

    fn with_normal(self, data: Proposal) -> Self {
        Payload::Proposal(data)
    }

    fn with_membership(self, membership: Membership) -> Self {
        Payload::Membership(membership)
    }

    fn get_membership(&self) -> Option<Membership> {
        match self {
            Payload::Membership(m) => Some(m.clone()),
            Payload::Stored(s) => s.membership.as_deref().cloned(),
            Payload::Blank | Payload::Proposal(_) => None,
        }
    }
}

/// A log entry on its way into or out of the commit log.
pub(crate) struct Entry {
    leader: CommittedLeaderId,
    index: u64,
    pub(crate) payload: Payload,
}

impl Entry {
    /// Wraps an entry whose bytes are final. Fails when it is a membership entry that cannot be
    /// decoded.
    pub(crate) fn stored(entry: StoredEntry) -> Result<Self, MalformedMembership> {
        let membership = match entry.kind {
            EntryKind::Membership => Some(Arc::new(decode_membership(entry.body())?)),
            EntryKind::Blank | EntryKind::Data => None,
        };
        Ok(Entry {
            leader: CommittedLeaderId::new(entry.id.term),
            index: entry.id.index,
            payload: Payload::Stored(StoredPayload { entry, membership }),
        })
    }

    /// The bytes that travel to followers; `None` for an entry that was not read from the log.
    pub(crate) fn raw(&self) -> Option<&Bytes> {
        match &self.payload {
            Payload::Stored(s) => Some(&s.entry.raw),
            Payload::Blank | Payload::Proposal(_) | Payload::Membership(_) => None,
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}: {:?}", self.leader, self.index, self.payload)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl RaftEntry for Entry {
    type CommittedLeaderId = CommittedLeaderId;
    type Payload = Payload;

    fn new(log_id: LogId, payload: Payload) -> Self {
        Entry {
            leader: log_id.leader_id,
            index: log_id.index,
            payload,
        }
    }

    fn log_id_parts(&self) -> (&CommittedLeaderId, u64) {
        (&self.leader, self.index)
    }

    fn set_log_id(&mut self, new: LogId) {
        self.leader = new.leader_id;
        self.index = new.index;
    }

    fn get_membership(&self) -> Option<Membership> {
        self.payload.get_membership()
    }
}

/// Hands the outcome of a proposal to a closure, on the task where it becomes known.
///
/// For an entry that is applied this is the apply task itself: the results of a whole batch fan
/// out from there without another hop. Dropped without a call when the Raft core stops, so the
/// closure must carry whatever has to happen then in the `Drop` of something it owns.
pub(crate) struct Completion<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Completion<T> {
    pub(crate) fn new(on_complete: impl FnOnce(T) + Send + 'static) -> Self {
        Completion(Box::new(on_complete))
    }
}

impl<T: Send + 'static> Responder<Types, T> for Completion<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}
