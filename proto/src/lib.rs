//! Every byte format that RaftMQ speaks or stores, and nothing else.
//!
//! The crate is pure: it opens no socket or file and reads no clock. Bytes and times come in as
//! arguments, values and bytes go out. Decoders take any bytes at all: malformed input is an
//! error that names what is wrong with it, never a panic and never an unbounded allocation.
//!
//! ```text
//!   socket bytes ──▶ frame ──▶ code + header + body        (remoting requests and replies)
//!   send body    ──▶ message::batch ──▶ message::record    (what is stored and pulled)
//!   metadata     ──▶ command                               (what travels in a Raft entry)
//! ```

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

pub mod body;
pub mod code;
pub mod command;
pub mod filter;
pub mod frame;
pub mod header;
pub mod json;
pub mod message;
pub mod properties_file;
mod read;
