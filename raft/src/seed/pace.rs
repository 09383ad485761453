//! A limit of bytes per second.

use std::time::Duration;

use tokio::time::Instant;

/// How much may be made up for after a pause.
const BURST: Duration = Duration::from_millis(200);

/// Spreads work evenly: each piece pushes the time at which the next may begin.
pub(crate) struct Pace {
    /// Bytes per second; 0 is no limit.
    rate: u64,
    next: Instant,
}

impl Pace {
    pub(crate) fn new(rate: u64) -> Self {
        Pace {
            rate,
            next: Instant::now(),
        }
    }

    /// Notes work done, and when more is due.
    fn note(&mut self, bytes: u64, now: Instant) -> Instant {
        if self.rate == 0 {
            return now;
        }
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let took = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        self.next = self.next.max(earliest) + took;
        self.next
    }

    /// Waits as long as `bytes` take.
    pub(crate) async fn spend(&mut self, bytes: u64) {
        let due = self.note(bytes, Instant::now());
        tokio::time::sleep_until(due).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_over_time_and_pauses_are_not_saved_up() {
        let mut pace = Pace::new(1000);
        let start = Instant::now();
        for nth in 1..=10 {
            let due = pace.note(100, start);
            let expected = start + Duration::from_millis(100 * nth);
            assert!(due >= expected - BURST && due <= expected + Duration::from_millis(1));
        }
        let later = start + Duration::from_secs(100);
        assert!(pace.note(100, later) <= later);
        assert!(Pace::new(0).note(u64::MAX, start) == start);
    }
}
