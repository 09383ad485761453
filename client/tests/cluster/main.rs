//! The client against a cluster whose members come and go.

#![allow(
    clippy::unwrap_used,
    reason = "a test says what is wrong by failing here"
)]

mod consuming;
mod fake;
mod sending;

use std::time::Duration;

/// Polls until `condition` holds; fails the test when it does not within ten seconds.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "not within 10 s: {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
