//! Looking at a store without changing it, also at a damaged one.
//!
//! Opening a store repairs it: recovery cuts the log, writes zeros and saves marks. What is here
//! opens files for reading only, goes on behind damage, and says what it found.

mod disk;
mod lock;
mod marks;
mod scan;
mod segment;
mod state;
#[cfg(test)]
mod tests;

pub use disk::ReadOnlyDisk;
pub use lock::{Unlocked, is_locked_by_java, refuse_locked};
pub use marks::{Abort, FlushedMark, IdentityLines, Marks};
pub use scan::{Found, SegmentScan};
pub use segment::{SegmentName, segments};
pub use state::{QueueRow, StateSummary, read_state};
