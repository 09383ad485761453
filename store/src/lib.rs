//! What a RaftMQ member keeps on disk: the commit log (which is the Raft log), the vote, and the
//! state that follows from the log.
//!
//! ```text
//!   entries ──▶ CommitLog ──committed──▶ State::apply ──▶ consume queues, topics, groups, offsets
//!                   │                                          │ persist, now and then
//!                   └── slices of the maps ──▶ readers         └──▶ RocksDB (no WAL of its own)
//! ```
//!
//! The log is sufficient by itself: the state database is some earlier consistent point of it, and
//! replaying the rest of the log gives the same state on every member.
//!
//! The crate knows files; it knows neither sockets nor a Raft library.

pub mod committed;
pub mod disk;
pub mod entry;
pub mod error;
pub mod identity;
mod import;
pub mod inspect;
pub mod log;
pub mod poison;
pub mod retention;
pub mod seed;
mod small_file;
pub mod state;
pub mod store;
pub mod vote;

pub use committed::CommittedMark;
pub use entry::{EntryKind, LogId, NewEntry, StoredEntry};
pub use error::{Error, Result};
pub use identity::Identity;
pub use import::NewStore;
pub use log::{
    CommitLog, FlushCallback, FlushMode, Hole, LogBase, LogOptions, LogStats, Refill, ScrubCursor,
    ScrubStep, SegmentInfo,
};
pub use poison::Poison;
pub use seed::{OwnLog, SeedFolder};
pub use state::{
    Applied, ApplyObserver, Arrival, Boundary, QueryResult, QueueBounds, State, StateCheckpoint,
    StateDigest, StateOptions, Unit,
};
pub use store::{LastStop, Store, StoreOptions};
pub use vote::VoteFile;
