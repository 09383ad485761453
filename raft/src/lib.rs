//! One Raft group: the commit log of one broker group, kept equal on all its members.
//!
//! openraft decides; this crate gives it the commit log as its log, the store's state as its state
//! machine and gRPC as its network, and shows the broker a [`Group`] in plain words. openraft's
//! generics are spelled out in `types` only. What a request means is not known here: messages come
//! as records, metadata as operations, forwarded requests as frames.
//!
//! ```text
//!   Group::submit ─▶ proposer ─▶ Raft core ─▶ log storage ─▶ commit log   (appended, flushed)
//!        ▲                          │ ▲
//!        │                          ▼ │ Append streams ──▶ other members  (committed)
//!      done ◀── apply task ◀── state machine ─▶ state                     (applied)
//! ```
//!
//! openraft logs each failed heartbeat and each vote; this crate says what matters of that itself.
//! A log filter should therefore contain [`LOG_FILTER`].
//!
//! The Raft core, its network and its timers run on threads of their own: clients' work cannot
//! delay a heartbeat.

mod blocking;
mod confirm;
mod contact;
mod encoding;
mod group;
mod log_storage;
mod members;
mod mend;
mod network;
pub mod offline;
mod options;
mod proposer;
mod role;
mod seed;
#[cfg(feature = "sim")]
pub mod sim;
mod standing;
mod start;
mod state_machine;
mod succession;
mod transfer;
mod types;
mod upkeep;

/// Messages of `proto/proto/raft.proto`.
#[allow(
    missing_docs,
    unreachable_pub,
    reason = "generated; the .proto file documents them"
)]
#[allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
mod pb {
    tonic::include_proto!("raftmq.raft.v1");
}

/// Directive for `tracing`'s `EnvFilter` that keeps openraft's and its transport's own lines out.
pub const LOG_FILTER: &str = "openraft=error,tonic=warn,h2=warn,hyper=warn,tower=warn";

pub use contact::{Contact, Loss};
pub use group::{Group, MemberProgress, NotLeader, Watermarks};
pub use members::{MemberChange, MemberError, MemberRole, MemberStatus};
pub use network::{ForwardError, ForwardHandler};
pub use options::{GroupOptions, Peer, StartError};
pub use proposer::{Done, MessageSubmission, PhysicalOffsets, ProposeError, Stored};
pub use role::{Role, RoleState};
pub use seed::open_store;
pub use transfer::TransferError;
pub use upkeep::{DiskTrouble, ScrubStats};

/// A log in memory for unit tests.
#[cfg(test)]
fn test_log() -> raftmq_store::CommitLog {
    let disk = std::sync::Arc::new(raftmq_store::disk::MemoryDisk::new());
    let options = raftmq_store::LogOptions {
        segment_bytes: 1 << 20,
        ..raftmq_store::LogOptions::new("/commitlog")
    };
    raftmq_store::CommitLog::open(disk, options).expect("an empty disk in memory")
}
