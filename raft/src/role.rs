//! Who leads, as seen from this member.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::ServerState;
use openraft::alias::WatchReceiverOf;
use openraft::async_runtime::WatchReceiver;
use openraft::metrics::{RaftMetrics, RaftServerMetrics};
use tokio::sync::watch;

use crate::network::{Links, Place};
use crate::types::{Node, Raft, StoredMembership, Types};

/// What this member is in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleState {
    /// Decides what enters the log.
    Leader,
    /// Copies the leader's log and votes.
    Follower,
    /// Stands for election.
    Candidate,
    /// Copies the leader's log without a vote, or has not heard of a group yet.
    Learner,
}

/// This member's role at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Role {
    /// Term of the vote this member last saved.
    pub term: u64,
    /// The leader this member follows or is; it may be gone without this member knowing yet.
    pub leader: Option<u64>,
    /// Part of this member.
    pub state: RoleState,
    /// This member leads, and everything earlier leaders acknowledged is applied here: queue
    /// offsets can be assigned and reads answered.
    pub serving: bool,
}

impl Role {
    pub(crate) const UNKNOWN: Role = Role {
        term: 0,
        leader: None,
        state: RoleState::Learner,
        serving: false,
    };

    fn new(id: u64, metrics: &RaftServerMetrics<Types>, applied_term: u64) -> Self {
        let vote = &metrics.vote;
        let term = vote.leader_id.term;
        let state = match metrics.state {
            ServerState::Leader => RoleState::Leader,
            ServerState::Follower => RoleState::Follower,
            ServerState::Candidate => RoleState::Candidate,
            ServerState::Learner | ServerState::Shutdown => RoleState::Learner,
        };
        // The first entry of a term is the leader's own blank one, so an applied entry of the term
        // means that everything before it is applied too.
        let serving = state == RoleState::Leader
            && vote.committed
            && vote.leader_id.voted_for == id
            && applied_term == term;
        Role {
            term,
            leader: metrics.current_leader,
            state,
            serving,
        }
    }
}

/// The leader's lease: while a quorum answered lately, no other member can have been elected.
#[derive(Clone)]
pub(crate) struct Lease {
    id: u64,
    length: Duration,
    metrics: WatchReceiverOf<Types, RaftMetrics<Types>>,
}

impl Lease {
    pub(crate) fn new(id: u64, length: Duration, raft: &Raft) -> Self {
        Lease {
            id,
            length,
            metrics: raft.metrics(),
        }
    }

    /// True when this member leads and its lease holds now.
    pub(crate) fn holds(&self) -> bool {
        self.age().is_some_and(|age| age < self.length)
    }

    /// How long ago a quorum was asked that answered, when this member leads.
    pub(crate) fn age(&self) -> Option<Duration> {
        let metrics = self.metrics.borrow_watched();
        if metrics.state != ServerState::Leader {
            return None;
        }
        let mut voters = metrics.membership_config.voter_ids();
        if voters.next() == Some(self.id) && voters.next().is_none() {
            return Some(Duration::ZERO);
        }
        let acked = metrics.last_quorum_acked;
        acked.map(|at| openraft::Instant::elapsed(&*at))
    }

    /// How long it lasts without an answer of a quorum.
    pub(crate) fn length(&self) -> Duration {
        self.length
    }
}

/// What [`follow`] watches and tells.
pub(crate) struct Follow {
    pub(crate) id: u64,
    pub(crate) group: String,
    pub(crate) raft: Raft,
    pub(crate) links: Arc<Links>,
    /// Members as the configuration has them.
    pub(crate) configured: BTreeMap<u64, Node>,
    /// Its sender lives in the apply task, and ends with it.
    pub(crate) applied_term: watch::Receiver<u64>,
    pub(crate) role: watch::Sender<Role>,
    pub(crate) fatal: watch::Sender<Option<Arc<str>>>,
    /// The group is being shut down: the end of the core is no failure.
    pub(crate) closing: Arc<AtomicBool>,
}

/// Time for the core to name its reason after the apply task has ended.
const REASON_WITHIN: Duration = Duration::from_millis(500);

/// Publishes the role, reports a membership that differs from the configuration, and notices when
/// the Raft core or its apply task has ended.
pub(crate) async fn follow(mut this: Follow) {
    let mut server = this.raft.server_metrics();
    let mut reported = None;
    let mut apply_ended = false;
    loop {
        let (role, membership) = {
            let applied_term = *this.applied_term.borrow_and_update();
            let metrics = server.borrow_and_update();
            (
                Role::new(this.id, &metrics, applied_term),
                metrics.membership_config.clone(),
            )
        };
        publish(&this, role);
        if reported.as_ref() != Some(membership.log_id()) {
            reported = Some(*membership.log_id());
            take_over(&this.links, &membership);
            report_disagreement(&this, &membership);
        }
        tokio::select! {
            changed = server.changed() => if changed.is_err() { break },
            changed = this.applied_term.changed() => if changed.is_err() {
                apply_ended = true;
                break;
            },
        }
    }
    if apply_ended {
        // The core normally ends with the reason, unless the apply task panicked.
        let ended = async { while server.changed().await.is_ok() {} };
        let _late = tokio::time::timeout(REASON_WITHIN, ended).await;
    }
    let last = *this.role.borrow();
    publish(
        &this,
        Role {
            leader: None,
            state: RoleState::Learner,
            serving: false,
            ..last
        },
    );
    if this.closing.load(Ordering::Acquire) {
        return;
    }
    let reason = match &this.raft.metrics().borrow_watched().running_state {
        Err(fatal) => format!("the Raft core stopped: {fatal}"),
        Ok(()) if apply_ended => "the Raft apply task stopped: it panicked".to_owned(),
        Ok(()) => "the Raft core stopped: it panicked".to_owned(),
    };
    tracing::error!(group = %this.group, member = this.id, "{reason}");
    set_fatal(&this.fatal, &reason);
}

/// Keeps the first reason.
pub(crate) fn set_fatal(fatal: &watch::Sender<Option<Arc<str>>>, reason: &str) {
    fatal.send_if_modified(|known| {
        let first = known.is_none();
        known.get_or_insert_with(|| reason.into());
        first
    });
}

fn publish(this: &Follow, role: Role) {
    this.role.send_if_modified(|known| {
        let changed = *known != role;
        if changed
            && (known.leader, known.state, known.term) != (role.leader, role.state, role.term)
        {
            tracing::info!(group = %this.group, member = this.id, term = role.term,
                leader = ?role.leader, state = ?role.state, "role changed");
        }
        *known = role;
        changed
    });
}

/// Has the connections follow the membership.
fn take_over(links: &Links, membership: &StoredMembership) {
    if membership.log_id().is_none() {
        return;
    }
    let voters: Vec<u64> = membership.voter_ids().collect();
    let place = |(id, node): (&u64, &Node)| {
        let (address, voter) = (node.addr.clone(), voters.contains(id));
        (*id, Place { address, voter })
    };
    links.set_members(membership.nodes().map(place).collect());
}

/// The membership in the log rules; a configuration that says otherwise should be corrected before
/// somebody relies on it.
fn report_disagreement(this: &Follow, membership: &StoredMembership) {
    if membership.log_id().is_none() {
        return;
    }
    let nodes: BTreeMap<u64, Node> = membership
        .nodes()
        .map(|(id, node)| (*id, node.clone()))
        .collect();
    if nodes == this.configured {
        return;
    }
    let show = |nodes: &BTreeMap<u64, Node>| {
        let nodes: Vec<String> = nodes
            .iter()
            .map(|(id, node)| format!("n{id}-{}", node.addr))
            .collect();
        nodes.join(";")
    };
    tracing::info!(group = %this.group, member = this.id,
        "dLegerPeers is {}, but the group's membership is {}, which counts",
        show(&this.configured), show(&nodes));
}
