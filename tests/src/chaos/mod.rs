//! Chaos: a group of real processes, each in a network namespace, under a schedule of faults that follows from a seed, with
//! producers, consumers and administrators at work, and a judgement at the end.
//!
//! ```text
//! seed ─▶ schedule ─▶ run ─▶ faults ─▶ Subject (processes), Network (cuts), Links (proxy), Library (clock, flushes), disks
//!                      │
//!                      ├── clients: producers, producers in order, a consumer group, topics made, readers
//!                      └─▶ judge ─▶ findings
//! ```

pub mod faults;
pub mod group;
pub mod judge;
pub mod ordered;
pub mod run;
pub mod schedule;
pub mod topics;
