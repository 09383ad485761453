//! One member of a broker group, as RocketMQ's clients and tools see it.
//!
//! The crate knows what requests mean. It does not know how bytes reach the disk or the other members: that is
//! `raftmq-store`'s and `raftmq-raft`'s business.
//!
//! ```text
//!   connection ─▶ dispatch ─▶ send / pull / clients / offsets / admin ─▶ Group (proposals, applied state)
//!                    └ only the leader may answer ─▶ forward ─▶ the leader's dispatch
//! ```
//!
//! Rules that hold throughout: checks are pure and come first; whatever must survive a change of leader is proposed to
//! the group; a request is answered once, and a refusal names the limit or the key that made it.

mod admin;
mod background;
mod broker;
mod clients;
pub mod config;
mod creator;
mod dispatch;
mod endpoint;
mod exchange;
mod forward;
mod locks;
pub mod logging;
mod lookup;
mod offsets;
mod parts;
mod ports;
mod pull;
mod register;
mod retention;
mod runtime;
mod send;
mod stats;
pub mod storetool;
mod system;
mod time;
mod unique_key;

pub use broker::{Broker, StartError};
