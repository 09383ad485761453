//! Making sure that this member still leads: ReadIndex (Raft dissertation, 6.4).
//!
//! Every question is answered by a round of heartbeats that begins after it was asked, and once
//! what was committed then is applied here: a follower that people read from may have been quicker
//! to apply it. Questions that come while a round is under way share the next one.
//!
//! openraft has a read of this kind too, but counts the answer to an earlier append as one to a
//! later append without entries: a leader that was frozen found such answers in its sockets when it
//! woke, long after it was deposed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use raftmq_store::State;
use tokio::sync::{mpsc, oneshot, watch};

use crate::network::Network;
use crate::role::Role;
use crate::types::{Raft, RaftState, Vote};

/// Questions that may wait for a round; who asks more waits longer.
const QUESTIONS_MAX: usize = 1024;
/// Pause before a member that did not answer is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Pause between two looks at what is applied.
const APPLY_PAUSE: Duration = Duration::from_millis(1);

/// Where to ask.
#[derive(Clone)]
pub(crate) struct Questions(mpsc::Sender<oneshot::Sender<u64>>);

impl Questions {
    /// Returns a term in which this member leads, by the word of a quorum given after this was
    /// called, and has applied what was committed when it was called; `None` when there is no such
    /// term.
    pub(crate) async fn led_term(&self) -> Option<u64> {
        let (tell, told) = oneshot::channel();
        self.0.send(tell).await.ok()?;
        told.await.ok()
    }
}

/// Answers the questions.
pub(crate) struct Confirm {
    self_id: u64,
    raft: Raft,
    state: Arc<State>,
    network: Network,
    role: watch::Receiver<Role>,
    /// How long a quorum has for its answers, and this member to apply.
    patience: Duration,
    asked: mpsc::Receiver<oneshot::Sender<u64>>,
}

impl Confirm {
    pub(crate) fn new(
        self_id: u64,
        raft: Raft,
        state: Arc<State>,
        network: Network,
        role: watch::Receiver<Role>,
        patience: Duration,
    ) -> (Confirm, Questions) {
        let (ask, asked) = mpsc::channel(QUESTIONS_MAX);
        let confirm = Confirm {
            self_id,
            raft,
            state,
            network,
            role,
            patience,
            asked,
        };
        (confirm, Questions(ask))
    }

    pub(crate) async fn run(mut self) {
        let mut waiting = Vec::new();
        while self.asked.recv_many(&mut waiting, QUESTIONS_MAX).await > 0 {
            match self.round().await {
                Some(term) => {
                    for question in waiting.drain(..) {
                        // Whoever asked may have given up.
                        let _gone = question.send(term);
                    }
                }
                None => {
                    waiting.clear();
                    // What was asked meanwhile would get the same answer, later.
                    while self.asked.try_recv().is_ok() {}
                }
            }
        }
    }

    async fn round(&self) -> Option<u64> {
        let (tell, told) = oneshot::channel();
        let look = move |state: &RaftState| {
            let config = state
                .membership_state
                .effective()
                .get_joint_config()
                .clone();
            // Followers apply it, although this member may not even have flushed it.
            let committed = state.cluster_committed().map_or(0, |id| id.index);
            // Nobody listens once the group is shutting down.
            let _gone = tell.send((*state.vote_ref(), config, committed));
        };
        self.raft.external_request(look).await.ok()?;
        let (vote, config, committed): (Vote, _, _) = told.await.ok()?;
        if !vote.committed || vote.leader_id.voted_for != self.self_id {
            return None;
        }
        let term = vote.leader_id.term;
        let mut role = self.role.clone();
        let deposed = role.wait_for(|role| role.term > term);
        let confirmed = async {
            let followed = self.followed(vote, &config).await;
            if followed {
                self.applied(committed).await;
            }
            followed
        };
        tokio::select! {
            confirmed = tokio::time::timeout(self.patience, confirmed) => {
                confirmed.is_ok_and(|confirmed| confirmed).then_some(term)
            }
            _role = deposed => None,
        }
    }

    /// Returns once this member has applied the entry.
    async fn applied(&self, index: u64) {
        while self.state.applied().map_or(0, |id| id.index) < index {
            tokio::time::sleep(APPLY_PAUSE).await;
        }
    }

    /// Whether a quorum follows the leader with this vote.
    async fn followed(&self, leader: Vote, config: &[BTreeSet<u64>]) -> bool {
        let voters: BTreeSet<u64> = config.iter().flatten().copied().collect();
        let others = voters.iter().filter(|id| **id != self.self_id);
        let mut answers: FuturesUnordered<_> = others
            .map(|id| async move { self.follows(*id, leader).await.then_some(*id) })
            .collect();
        let mut followed = BTreeSet::from([self.self_id]);
        while !is_quorum(config, &followed) {
            match answers.next().await {
                Some(follower) => followed.extend(follower),
                None => return false,
            }
        }
        true
    }

    async fn follows(&self, member: u64, leader: Vote) -> bool {
        loop {
            match self.network.follows(member, leader).await {
                Ok(follows) => return follows,
                Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
            }
        }
    }
}

/// Whether these members can decide for the group: each set of voters has to agree, of which there
/// are two while members are being changed.
pub(crate) fn is_quorum(configs: &[BTreeSet<u64>], members: &BTreeSet<u64>) -> bool {
    let majority = |voters: &BTreeSet<u64>| voters.intersection(members).count() > voters.len() / 2;
    configs.iter().all(majority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sets_of_voters_have_to_agree() {
        let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<u64>>();
        let one = [set(&[0, 1, 2])];
        assert!(is_quorum(&one, &set(&[1, 2])));
        assert!(!is_quorum(&one, &set(&[2, 3, 4])));
        assert!(!is_quorum(&[set(&[0, 1, 2, 3])], &set(&[0, 1])));
        let joint = [set(&[0, 1, 2]), set(&[0, 1, 3])];
        assert!(is_quorum(&joint, &set(&[0, 1])));
        assert!(!is_quorum(&joint, &set(&[0, 2])));
        // Nobody to vote: not this member's to say.
        assert!(is_quorum(&[], &set(&[0])));
    }
}
