//! The one clock of a test run: nanoseconds of `CLOCK_MONOTONIC`.
//!
//! `std::time::Instant` reads the same clock but hides the number. Java's `System.nanoTime` prints it, and so the
//! times of a Java producer can be compared with ours.

use std::time::Duration;

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The time now.
    pub fn now() -> Nanos {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `time` is a valid timespec that outlives the call; CLOCK_MONOTONIC always exists on Linux.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
        Nanos(time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs())
    }

    /// Time passed from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Nanos) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Time passed since `self`.
    pub fn elapsed(self) -> Duration {
        Nanos::now().since(self)
    }
}
