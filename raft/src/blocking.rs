//! Work that waits for the disk, kept off the few threads that carry heartbeats.

#[cfg(not(feature = "sim"))]
pub(crate) use tokio::task::spawn_blocking;

#[cfg(feature = "sim")]
pub(crate) use crate::sim::spawn_blocking;
