//! What members say to each other, over gRPC (`proto/proto/raft.proto`).
//!
//! ```text
//!   replication task ─ Append stream ──▶ server ─ check, CRC ─▶ Raft core
//!   heartbeat task   ─ Heartbeat ──────▶ server ─ check ──────▶ Raft core
//!   election         ─ Vote, PreVote ──▶   …
//!   Group::forward   ─ Forward ────────▶ server ─▶ ForwardHandler (the broker's runtime)
//!   repair, seed     ─ Fetch…, Seed… ──▶ supply ─▶ commit log, copies of the state
//! ```
//!
//! Each lane to each member has a connection of its own, so that a batch of entries or a client's
//! request never stands in front of a heartbeat, and a dead member holds up nobody else.

mod client;
mod forward;
mod identity;
mod link;
mod server;
mod supply;
#[cfg(not(feature = "sim"))]
mod tcp;
pub(crate) mod wire;

pub(crate) use client::Network;
pub use forward::{ForwardError, ForwardHandler};
pub(crate) use forward::{Forwarder, cause};
pub(crate) use identity::{Identity, random};
pub(crate) use link::{Lane, Links, Place};
pub(crate) use server::{ServerParts, serve};
pub(crate) use supply::Supply;
pub(crate) use tcp::{listen, reserve};

#[cfg(feature = "sim")]
use crate::sim as tcp;

/// Longest message: an append with one entry of the largest size. Normally it holds no more than
/// [`crate::log_storage::READ_BYTES_MAX`].
const MESSAGE_BYTES_MAX: usize = 65 * 1024 * 1024;
const _: () = assert!(MESSAGE_BYTES_MAX as u64 > raftmq_store::entry::ENTRY_MAX + 4096);
/// HTTP/2 windows: a whole append may be under way without waiting for a window update.
const STREAM_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 32 * 1024 * 1024;
/// A connection whose other end answers no ping for this long is dead.
const KEEPALIVE_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);
const KEEPALIVE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(3);
