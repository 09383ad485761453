//! Members apply the same entries, in the same order, and only flushed and committed ones.

use raftmq_raft::Watermarks;
use raftmq_store::CommitLog;

use crate::history::{Check, History};
use crate::replay::mark;
use crate::violation;

/// `term` is the term that the member is in; `before` is what the member had applied when it was last looked at in this life.
pub fn check(
    history: &mut History,
    member: usize,
    before: &mut Option<u64>,
    log: &CommitLog,
    marks: &Watermarks,
    term: u64,
) -> Check {
    let applied = marks.applied.map(|id| id.index);
    if applied < *before {
        return violation!(
            "state_machine_order",
            "n{member} went back from {before:?} to {applied:?}"
        );
    }
    if marks.applied > marks.committed || marks.committed > marks.last {
        return violation!("state_machine_order", "n{member} is at {marks:?}");
    }
    let next = before.map_or(0, |index| index + 1);
    for index in next..applied.map_or(0, |index| index + 1) {
        let Some(found) = mark(log, index)? else {
            return violation!(
                "state_machine_order",
                "n{member} has applied {index}, which is damaged"
            );
        };
        match history.committed.get(index as usize) {
            Some(known) if *known == found => {}
            Some(known) => {
                return violation!(
                    "state_machine_order",
                    "n{member} applied {found:?} at {index}, others {known:?}"
                );
            }
            None => {
                history.committed.push(found);
                // The member may not have told its newest term yet.
                let by = marks.committed.map_or(0, |committed| committed.term);
                history.committed_in.push(term.max(by));
            }
        }
    }
    *before = applied;
    Ok(())
}
