//! Once everything is healed, somebody leads, every client gets through, and all members catch up.

use crate::history::{Check, Violation};
use crate::os::{Nanos, SECOND};

/// How long it may take.
pub const WITHIN: Nanos = 30 * SECOND;

/// Something took too long, or a member stopped that had no reason to.
pub fn broken(what: String) -> Check {
    Err(Violation {
        invariant: "liveness",
        what,
    })
}
