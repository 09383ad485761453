//! Who belongs to the group: changes on the running group, and what members know of each other.
//!
//! The membership in the log rules; the configuration is for the first start. A change is an entry
//! like any other, two when voters change (joint consensus). The leader takes one at a time, and
//! refuses what would leave the group without a quorum that answers.
//!
//! ```text
//!   started with raftJoin ── Add ─▶ learner, caught up or seeded ── Promote ─▶ voter ── Remove ─▶ gone
//!                                           └───── Replace (one change) ─▶ voter in another's place
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, RaftError};
use parking_lot::Mutex;
use raftmq_store::{LogId, Store};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::group::{NotLeader, progress};
use crate::network::{Network, Supply, wire};
use crate::options::GroupOptions;
use crate::pb;
use crate::role::Role;
use crate::standing::Standing;
use crate::transfer::Transfer;
use crate::types::{ClientWriteError, Node, Raft, StoredMembership, store_log_id};

/// How far, in entries, a learner may be behind and still be given a vote.
const LAG_MAX: u64 = 1000;
/// How long a learner that is further behind is waited for before it is refused.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(2);
/// How long a change may take to be committed.
const COMMITTED_WITHIN: Duration = Duration::from_secs(10);
/// Time between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long a change that a leader left half done rests with the next one.
const HALF_DONE: Duration = Duration::from_secs(1);
/// A member that has not heard of a leader for this long asks whether it still belongs to the group,
/// and how often.
const UNHEARD: Duration = Duration::from_secs(1);

/// A change of who belongs to the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberChange {
    /// A new member, without a vote, at `host:port`. It has to be running.
    Add {
        /// An id nobody in the group has.
        id: u64,
        /// Where it listens for the others.
        address: String,
    },
    /// A learner that has caught up gets a vote.
    Promote {
        /// The learner.
        id: u64,
    },
    /// A member leaves the group.
    Remove {
        /// The member.
        id: u64,
    },
    /// A learner that has caught up takes the vote and the place of a member, which leaves the group.
    Replace {
        /// The member that leaves.
        id: u64,
        /// The learner.
        by: u64,
    },
    /// A member is at another `host:port` now.
    Move {
        /// The member.
        id: u64,
        /// Where it listens for the others.
        address: String,
    },
}

/// Why members were not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// This member does not lead.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// No such member.
    #[error("no member of the group has the id n{id}; its members are {members}")]
    Unknown {
        /// The id.
        id: u64,
        /// Those there are.
        members: String,
    },
    /// The id is taken.
    #[error("the id n{id} is in use: that member is at {address}")]
    IdInUse {
        /// The id.
        id: u64,
        /// Where its owner is.
        address: String,
    },
    /// The address is taken.
    #[error("the address {address} is in use: n{id} is there")]
    AddressInUse {
        /// The address.
        address: String,
        /// Who is there.
        id: u64,
    },
    /// Not an address.
    #[error("'{0}' is no address: write host:port, such as 192.168.0.4:40911")]
    Address(String),
    /// It votes already.
    #[error("n{0} has a vote already")]
    Voter(u64),
    /// It has no vote that another one could take over.
    #[error("n{0} has no vote: remove it and promote the other one")]
    NoVote(u64),
    /// The member does not answer.
    #[error("n{id} does not answer at {address}: {cause}; start it there first")]
    Silent {
        /// The member.
        id: u64,
        /// Where it should be.
        address: String,
        /// What the connection said.
        cause: String,
    },
    /// The learner lacks too many entries, or entries that it acknowledged once.
    #[error("n{id} has not caught up: {what}; try again when memberStatus shows less")]
    Behind {
        /// The learner.
        id: u64,
        /// What it lacks.
        what: String,
    },
    /// Too few voters would answer.
    #[error(
        "this would lose the quorum: of the voters {voters} then {needed} have to answer, and \
         {answering} do now"
    )]
    Quorum {
        /// Voters after the change.
        voters: String,
        /// How many of them make a quorum.
        needed: usize,
        /// How many of them answer now.
        answering: usize,
    },
    /// Another change is not finished.
    #[error("another change of the group's members is under way")]
    UnderWay,
    /// Leadership would have to move first and did not.
    #[error("n{id} leads, and leadership was not handed over: {cause}")]
    Leads {
        /// The leader.
        id: u64,
        /// Why.
        cause: String,
    },
    /// No quorum took it in time. It may still become effective.
    #[error("outcome unknown: the change was not committed within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The Raft core has stopped.
    #[error("the Raft core has stopped: {0}")]
    Stopped(String),
}

/// What a member is in the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberRole {
    /// It leads.
    Leader,
    /// It votes.
    Voter,
    /// It copies the log.
    Learner,
}

/// What is known of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its id.
    pub id: u64,
    /// Where the membership says it listens for the others.
    pub address: String,
    /// Its part.
    pub role: MemberRole,
    /// Whether it answered just now; what follows is unknown otherwise.
    pub answers: bool,
    /// It does not vote until it has caught up.
    pub recovering: bool,
    /// Term of its vote.
    pub term: Option<u64>,
    /// Last entry of its log; of a silent member, as the leader knows it.
    pub last: Option<LogId>,
    /// Last entry it knows to be on a quorum.
    pub committed: Option<LogId>,
    /// Last entry applied.
    pub applied: Option<LogId>,
    /// Physical offset after the last byte on its disk.
    pub flushed_position: Option<u64>,
    /// Entries it lacks of the longest log that answers.
    pub lag_entries: Option<u64>,
    /// Bytes it lacks of that.
    pub lag_bytes: Option<u64>,
    /// Time since the leader last heard of it; known on the leader only, zero for itself.
    pub silent: Option<Duration>,
}

/// Changes members, and tells about them.
pub(crate) struct Members {
    pub(crate) options: GroupOptions,
    pub(crate) raft: Raft,
    pub(crate) store: Store,
    pub(crate) network: Network,
    pub(crate) transfer: Arc<Transfer>,
    /// Held by the one change under way here.
    pub(crate) one: tokio::sync::Mutex<()>,
}

impl Members {
    fn membership(&self) -> Arc<StoredMembership> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.clone()
    }

    pub(crate) async fn change(&self, change: MemberChange) -> Result<(), MemberError> {
        let role = *self.transfer.role.borrow();
        if !role.serving {
            let leader = role.leader.filter(|id| *id != self.options.self_id);
            return Err(NotLeader { leader }.into());
        }
        let Ok(_one) = self.one.try_lock() else {
            return Err(MemberError::UnderWay);
        };
        let membership = self.membership();
        if membership.get_joint_config().len() > 1 {
            return Err(MemberError::UnderWay);
        }
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let change = match change {
            MemberChange::Add { id, address } => {
                if let Some(node) = membership.get_node(&id) {
                    let address = node.addr.clone();
                    return Err(MemberError::IdInUse { id, address });
                }
                let node = self.free_place(&membership, id, address).await?;
                ChangeMembers::AddNodes(BTreeMap::from([(id, node)]))
            }
            MemberChange::Move { id, address } => {
                known(&membership, id)?;
                let node = self.free_place(&membership, id, address).await?;
                ChangeMembers::SetNodes(BTreeMap::from([(id, node)]))
            }
            MemberChange::Promote { id } => {
                known(&membership, id)?;
                if voters.contains(&id) {
                    return Err(MemberError::Voter(id));
                }
                self.caught_up(id).await?;
                let mut after = voters;
                after.insert(id);
                self.require_quorum(&after).await?;
                ChangeMembers::AddVoterIds(BTreeSet::from([id]))
            }
            MemberChange::Remove { id } => {
                known(&membership, id)?;
                let mut after = voters;
                if after.remove(&id) {
                    self.require_quorum(&after).await?;
                    self.step_aside(id).await?;
                    ChangeMembers::RemoveVoters(BTreeSet::from([id]))
                } else {
                    ChangeMembers::RemoveNodes(BTreeSet::from([id]))
                }
            }
            MemberChange::Replace { id, by } => {
                known(&membership, id)?;
                known(&membership, by)?;
                if voters.contains(&by) {
                    return Err(MemberError::Voter(by));
                }
                let mut after = voters;
                if !after.remove(&id) {
                    return Err(MemberError::NoVote(id));
                }
                self.caught_up(by).await?;
                after.insert(by);
                self.require_quorum(&after).await?;
                self.step_aside(id).await?;
                ChangeMembers::Batch(vec![
                    ChangeMembers::AddVoterIds(BTreeSet::from([by])),
                    ChangeMembers::RemoveVoters(BTreeSet::from([id])),
                ])
            }
        };
        self.commit(change).await
    }

    async fn commit(&self, change: ChangeMembers<u64, Node>) -> Result<(), MemberError> {
        let what = change.to_string();
        let changing = self.raft.change_membership(change, false);
        let outcome = timeout(COMMITTED_WITHIN, changing)
            .await
            .map_err(|_elapsed| MemberError::Timeout(COMMITTED_WITHIN))?;
        match outcome {
            Ok(_committed) => {
                tracing::info!(group = %self.options.group, member = self.options.self_id,
                    change = what, members = %self.membership().membership(), "members changed");
                Ok(())
            }
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => Err(NotLeader {
                leader: to.leader_id,
            }
            .into()),
            Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                ChangeMembershipError::InProgress(_),
            ))) => Err(MemberError::UnderWay),
            Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => {
                Err(NotLeader { leader: None }.into())
            }
            Err(error) => Err(MemberError::Stopped(error.to_string())),
        }
    }

    /// The node at an address that nobody else has, if that member answers there.
    async fn free_place(
        &self,
        membership: &StoredMembership,
        id: u64,
        address: String,
    ) -> Result<Node, MemberError> {
        let port = address
            .rsplit_once(':')
            .filter(|(host, _)| !host.is_empty() && (!host.contains(':') || host.starts_with('[')))
            .and_then(|(_, port)| port.parse().ok());
        if !matches!(port, Some(1u16..)) || address.contains(char::is_whitespace) {
            return Err(MemberError::Address(address));
        }
        let mut others = membership.nodes().filter(|(other, _)| **other != id);
        if let Some((other, _)) = others.find(|(_, node)| node.addr == address) {
            let id = *other;
            return Err(MemberError::AddressInUse { address, id });
        }
        if id != self.options.self_id
            && let Err(cause) = self.network.survey_at(id, &address).await
        {
            return Err(MemberError::Silent { id, address, cause });
        }
        Ok(Node { addr: address })
    }

    /// Waits a little until a learner has nearly all entries and may vote.
    async fn caught_up(&self, id: u64) -> Result<(), MemberError> {
        let begin = Instant::now();
        loop {
            let Some(what) = self.lacks(id).await else {
                return Ok(());
            };
            if begin.elapsed() >= CATCH_UP_WITHIN {
                return Err(MemberError::Behind { id, what });
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn lacks(&self, id: u64) -> Option<String> {
        let last = self.store.log.last().map_or(0, |last| last.index);
        let members = progress(&self.raft);
        let matched = members.iter().find(|member| member.id == id)?.matched;
        let lag = last.saturating_sub(matched.map_or(0, |id| id.index));
        if lag > LAG_MAX || matched.is_none() {
            return Some(format!("it lacks {lag} entries"));
        }
        match self.network.survey(id).await {
            None => Some("it does not answer".to_owned()),
            Some(reply) if reply.recovering => {
                Some("it may lack entries that were acknowledged".to_owned())
            }
            Some(_) => None,
        }
    }

    /// Requires that most of these voters answer this leader. One that was elected just now has not
    /// heard them yet.
    async fn require_quorum(&self, voters: &BTreeSet<u64>) -> Result<(), MemberError> {
        let begin = Instant::now();
        let needed = voters.len() / 2 + 1;
        loop {
            let answering = self.answering(voters);
            if answering >= needed {
                return Ok(());
            }
            if begin.elapsed() >= self.options.election_max {
                return Err(MemberError::Quorum {
                    voters: names(voters.iter().copied()),
                    needed,
                    answering,
                });
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// How many of these answer this leader now.
    fn answering(&self, voters: &BTreeSet<u64>) -> usize {
        let members = progress(&self.raft);
        let answers = |id: &&u64| {
            let member = members.iter().find(|member| member.id == **id);
            let silent = member.and_then(|member| member.silent);
            **id == self.options.self_id
                || silent.is_some_and(|silent| silent < self.options.election_max)
        };
        voters.iter().filter(answers).count()
    }

    /// Hands leadership over if it is this member that has to go; the next leader then is to be asked.
    async fn step_aside(&self, id: u64) -> Result<(), MemberError> {
        if id != self.options.self_id {
            return Ok(());
        }
        match self.transfer.run(None).await {
            Ok(leader) => Err(NotLeader {
                leader: Some(leader),
            }
            .into()),
            Err(error) => Err(MemberError::Leads {
                id,
                cause: error.to_string(),
            }),
        }
    }

    pub(crate) async fn status(&self) -> Vec<MemberStatus> {
        let own = self.options.self_id;
        let membership = self.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let mut answers: BTreeMap<u64, pb::SurveyReply> =
            self.network.survey_others().await.into_iter().collect();
        answers.insert(own, self.own_reply());
        let id = |id: pb::LogId| store_log_id(&wire::from_log_id(id));
        let index = |reply: &pb::SurveyReply| reply.last.map_or(0, |last| last.index);
        let longest = answers.values().map(index).max().unwrap_or_default();
        let end = answers.values().map(|reply| reply.log_end).max();
        let end = end.unwrap_or_default();
        let leads = self.transfer.role.borrow().serving;
        let progress = progress(&self.raft);
        let status = |(member, node): (&u64, &Node)| {
            let known = progress.iter().find(|progress| progress.id == *member);
            let reply = answers.get(member);
            let matched = known.and_then(|known| known.matched);
            let role = match reply {
                Some(reply) if reply.leads => MemberRole::Leader,
                _ if voters.contains(member) => MemberRole::Voter,
                _ => MemberRole::Learner,
            };
            let last = reply.and_then(|reply| reply.last).map(id).or(matched);
            MemberStatus {
                id: *member,
                address: node.addr.clone(),
                role,
                answers: reply.is_some(),
                recovering: reply.is_some_and(|reply| reply.recovering),
                term: reply.map(|reply| reply.term),
                last,
                committed: reply.and_then(|reply| reply.committed).map(id),
                applied: reply.and_then(|reply| reply.applied).map(id),
                flushed_position: reply.map(|reply| reply.flushed),
                lag_entries: last.map(|last| longest.saturating_sub(last.index)),
                lag_bytes: reply
                    .map(|reply| reply.log_end)
                    .or_else(|| self.end_of(matched?))
                    .map(|theirs| end.saturating_sub(theirs)),
                silent: match known {
                    _ if *member == own && leads => Some(Duration::ZERO),
                    Some(known) => known.silent,
                    None => None,
                },
            }
        };
        membership.nodes().map(status).collect()
    }

    /// Position after an entry.
    fn end_of(&self, at: LogId) -> Option<u64> {
        let entries = self.store.log.read(at.index, at.index + 1, None).ok()?;
        let entry = entries.first()?;
        Some(entry.position + entry.raw.len() as u64)
    }

    fn own_reply(&self) -> pb::SurveyReply {
        let id = |id: LogId| wire::to_log_id(&crate::types::log_id(id));
        let (server, data) = (self.raft.server_metrics(), self.raft.data_metrics());
        let (server, data) = (server.borrow_watched(), data.borrow_watched());
        let log = &self.store.log;
        let applied = self.store.state.applied();
        let committed = data.local_committed.as_ref().map(store_log_id);
        pb::SurveyReply {
            last: log.last().or_else(|| log.purged()).map(id),
            leads: server.state == openraft::ServerState::Leader,
            applied: applied.map(id),
            committed: committed.max(applied).map(id),
            term: server.vote.leader_id.term,
            log_end: log.end_position(),
            flushed: log.flushed_position(),
            ..pb::SurveyReply::default()
        }
    }
}

fn known(membership: &StoredMembership, id: u64) -> Result<(), MemberError> {
    if membership.get_node(&id).is_some() {
        return Ok(());
    }
    let members = names(membership.nodes().map(|(id, _)| *id));
    Err(MemberError::Unknown { id, members })
}

pub(crate) fn names(ids: impl Iterator<Item = u64>) -> String {
    let ids: Vec<String> = ids.map(|id| format!("n{id}")).collect();
    ids.join(", ")
}

/// Finishes what an earlier leader left in the middle, for as long as the Raft core runs: two sets of
/// voters both have to agree to everything.
pub(crate) async fn finish_changes(members: Arc<Members>, mut role: watch::Receiver<Role>) {
    while role.wait_for(|role| role.serving).await.is_ok() {
        sleep(HALF_DONE).await;
        let membership = members.membership();
        let half_done = membership.get_joint_config().len() > 1;
        if half_done
            && role.borrow().serving
            && let Ok(_one) = members.one.try_lock()
            && let Some(voters) = membership.get_joint_config().last()
        {
            let outcome = members
                .commit(ChangeMembers::ReplaceAllVoters(voters.clone()))
                .await;
            tracing::info!(group = %members.options.group, ?outcome,
                "finishing a change of members that another leader began");
        }
    }
}

/// Finds out that this member has been removed: nobody tells a member that does not belong to the
/// group any more.
pub(crate) struct Removal {
    pub(crate) options: GroupOptions,
    pub(crate) raft: Raft,
    pub(crate) store: Store,
    pub(crate) network: Network,
    /// When a leader was last heard.
    pub(crate) heard: Arc<Mutex<Instant>>,
    pub(crate) supply: Arc<Supply>,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) removed: watch::Sender<bool>,
}

impl Removal {
    /// Runs as long as the Raft core.
    pub(crate) async fn run(self) {
        loop {
            sleep(UNHEARD).await;
            if self.raft.metrics().borrow_watched().running_state.is_err() {
                return;
            }
            let removed = *self.removed.borrow();
            if self.heard.lock().elapsed() < UNHEARD {
                if removed {
                    self.back();
                }
            } else if !removed && self.excluded().await {
                self.gone();
            }
        }
    }

    /// Whether a leader has applied a membership without this member. One that has no log yet was
    /// never in.
    async fn excluded(&self) -> bool {
        let leads = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            metrics.state == openraft::ServerState::Leader
        };
        if leads || self.store.log.last().is_none() {
            return false;
        }
        let own = self.options.self_id;
        let answers = self.network.survey_others().await;
        answers.iter().any(|(_, reply)| {
            let without = |members: &pb::Membership| members.nodes.iter().all(|n| n.id != own);
            reply.leads && !reply.recovering && reply.membership.as_ref().is_some_and(without)
        })
    }

    fn gone(&self) {
        tracing::error!(group = %self.options.group, member = self.options.self_id,
            "this member was removed from the group: it votes and registers no more and only \
             forwards what clients still send it; stop it, and delete its store");
        self.raft.runtime_config().elect(false);
        self.removed.send_replace(true);
    }

    /// It was added again.
    fn back(&self) {
        tracing::info!(group = %self.options.group, member = self.options.self_id,
            "this member belongs to the group again");
        let votes = self.standing.borrow().votes_for(self.store.log.last());
        self.raft
            .runtime_config()
            .elect(votes && !self.supply.leaving());
        self.removed.send_replace(false);
    }
}
