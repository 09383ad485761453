//! Support for the whole-system tests: starts nameservers and brokers as real processes, kills and pauses them while
//! producers send, reads everything back through consumers and judges the history.
//!
//! ```text
//! binaries ─▶ process ─▶ cluster ──┐            workload (our client) ──┐
//!                                  ├─▶ a test ─▶ java (Java client) ────┼─▶ history ─▶ checker ─▶ verdict
//! wire ─▶ calls ─▶ tail, readback ─┘            tail (reads meanwhile) ─┘                ▲
//!                                               readback (reads all) ────────────────────┤
//!                                               segments (files, byte for byte) ─────────┘
//! ```
//!
//! Beside it: [`registers`] (offsets, topics and groups) ─▶ [`linearizability`], with who led from [`leadership`]; [`routes`]
//! watches nameservers; [`original`] is the original's cluster under the same faults ([`subject`]).
//!
//! [`wire`] and [`record`] are written from the protocol's description and share no code with `raftmq-proto`: a mistake
//! made on both sides of the product's own codec would cancel out, here it shows.
//!
//! Nothing in here knows how the broker works; it may only start it, stop it, talk to it and read its files.

pub mod binaries;
pub mod calls;
pub mod chaos;
pub mod checker;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod fault;
pub mod figures;
pub mod flood;
pub mod foreign;
pub mod golang;
pub mod group;
pub mod history;
pub mod java;
pub mod leadership;
pub mod linearizability;
pub mod link;
pub mod network;
pub mod original;
pub mod ports;
pub mod preload;
pub mod process;
pub mod readback;
pub mod record;
pub mod registers;
pub mod routes;
pub mod segments;
pub mod serial;
pub mod soak;
pub mod subject;
pub mod suite;
pub mod tail;
pub mod trial;
pub mod wait;
pub mod wire;
pub mod workload;
