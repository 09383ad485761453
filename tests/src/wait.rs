//! Waiting for conditions, always with a deadline.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Lets time pass between two looks at a condition, or gives a fault time to do its work.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place of the test crate that sleeps, outside any runtime"
)]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Looks every `step` until `probe` has a value; an error that names `what` after `within`.
pub fn wait_for<T>(
    what: &str,
    within: Duration,
    step: Duration,
    mut probe: impl FnMut() -> Option<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return Ok(value);
        }
        if start.elapsed() >= within {
            bail!("waited {:.1} s in vain for: {what}", within.as_secs_f64());
        }
        pause(step);
    }
}

/// As [`wait_for`], for a probe that says why it is not content yet; the last reason is in the error.
pub fn wait_ok<T>(
    what: &str,
    within: Duration,
    step: Duration,
    mut probe: impl FnMut() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(reason) if start.elapsed() >= within => {
                return Err(reason.context(format!(
                    "waited {:.1} s in vain for: {what}",
                    within.as_secs_f64()
                )));
            }
            Err(_) => pause(step),
        }
    }
}
