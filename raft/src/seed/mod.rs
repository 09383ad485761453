//! Bringing a member up from another one's files.
//!
//! A member needs it that was down past the beginning of the others' logs, that is new in a group
//! whose log has been trimmed, or that lost its state database while its own log does not reach back
//! to the beginning. It fetches what it lacks before its Raft core starts:
//!
//! ```text
//!   full_snapshot (leader) ──Reseed──▶ marks its store, is taken down and started again
//!                                          │
//!   any member up to date  ◀──SeedBegin──  │   a copy of the state, as hard links, kept for a while
//!                          ◀──SeedFile───  │   its files, from where an earlier attempt stopped
//!                          ◀──SeedLog────  ▼   the log's bytes: each entry's chain is checked
//!                                       exchange of files, Raft core starts, the log goes on
//! ```
//!
//! A new store beside a long log marks itself: being sent all of it by the leader would cost the
//! clients more, see [`GroupOptions::seed_from`](crate::GroupOptions).
//!
//! openraft's snapshots are the trigger only: they carry nothing. The member that fetches sets the
//! pace and remembers how far it is; the source keeps no more than a folder of hard links. A
//! member that is brought up does not vote until it has caught up: whatever it acknowledged
//! earlier lies before the beginning of the others' logs, or is gone.

mod pace;
mod receive;
mod source;

pub use receive::open_store;
pub(crate) use source::Source;

pub(crate) use pace::Pace;
