//! At most one member leads a term.

use raftmq_raft::{Role, RoleState};

use crate::history::{Check, History};
use crate::violation;

pub fn check(history: &mut History, member: usize, role: &Role) -> Check {
    if role.state != RoleState::Leader {
        return Ok(());
    }
    let known = *history.leaders.entry(role.term).or_insert(member);
    if known != member {
        return violation!(
            "election_safety",
            "n{known} and n{member} both lead term {}",
            role.term
        );
    }
    Ok(())
}
