//! Who begins to lead has every entry that was committed in a term before. A member that slept may well begin to lead a term
//! that was left long ago, without what was committed since.

use raftmq_store::CommitLog;

use crate::history::{Check, History};
use crate::replay::mark;
use crate::violation;

pub fn check(history: &History, member: usize, term: u64, log: &CommitLog) -> Check {
    // A CRC covers the one before it: where the last one is equal, all before are.
    let is_before = |by: &u64| *by < term;
    let Some(nth) = history.committed_in.iter().rposition(is_before) else {
        return Ok(());
    };
    let Some(last) = history.committed.get(nth) else {
        return Ok(());
    };
    let index = nth as u64;
    if log.next_index() <= index {
        return violation!(
            "leader_completeness",
            "n{member} leads term {term} with a log that ends before {}, but {index} is committed",
            log.next_index()
        );
    }
    let found = mark(log, index)?;
    if found.is_some_and(|found| found != *last) {
        return violation!(
            "leader_completeness",
            "n{member} leads term {term} with {found:?} at {index}, but {last:?} is committed"
        );
    }
    Ok(())
}
