//! Two logs that have an entry of the same term at the same index are equal up to it.

use raftmq_store::CommitLog;

use crate::history::{Check, EntryMark, Violation};
use crate::violation;

/// Entries looked at before the shorter one's end.
const BACK: u64 = 64;

/// `mark` reads a member's entry; `all`: from the first one on.
pub fn check(
    logs: &[(usize, CommitLog)],
    all: bool,
    mark: impl Fn(usize, &CommitLog, u64) -> Result<Option<EntryMark>, Violation>,
) -> Check {
    for (nth, (one, one_log)) in logs.iter().enumerate() {
        for (other, other_log) in &logs[nth + 1..] {
            let end = one_log.next_index().min(other_log.next_index());
            let first = if all { 0 } else { end.saturating_sub(BACK) };
            let mut equal_above = false;
            for index in (first..end).rev() {
                let (Some(a), Some(b)) =
                    (mark(*one, one_log, index)?, mark(*other, other_log, index)?)
                else {
                    continue;
                };
                if (a.term == b.term || equal_above) && a != b {
                    return violation!(
                        "log_matching",
                        "n{one} has {a:?} at {index}, n{other} {b:?}"
                    );
                }
                equal_above |= a.term == b.term;
            }
        }
    }
    Ok(())
}
