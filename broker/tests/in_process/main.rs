//! Members in this process, asked over real connections as clients and tools ask them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod calls;
mod group;
mod messages;
#[path = "../../../raft/tests/support/ports.rs"]
mod ports;
mod room;
mod single_member;
mod support;
