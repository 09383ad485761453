//! Whether this member may vote.
//!
//! A vote is worth something because whoever gives it still has every entry it ever acknowledged.
//! Two kinds of members have not: one that ran with ASYNC_FLUSH when its machine stopped, and one
//! whose store is new although its group is not. If they voted, a quorum could elect a leader
//! without an entry that was acknowledged. So they neither vote nor stand for election until they
//! have applied an entry of a living leader's own term, and with it everything before.
//!
//! ```text
//!   new store ── Undecided ─┬─ the group is new too ─────────────▶ Full
//!                           └─ the group exists ──▶ Recovering ──▶ Full   (caught up)
//!   unflushed, machine stopped ───────────────────▶ Recovering
//!                         no quorum of others left ──▶ Salvaging ──▶ Full
//! ```
//!
//! *Recovering* is saved with the vote before anything else is done, so that another restart in between changes nothing. When so
//! many members are recovering that the others are no quorum, nothing can be lost by voting that is
//! not lost already: all members together then choose the longest log there is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use raftmq_store::{LastStop, LogId, Store};
use tokio::sync::watch;

use crate::log_storage::VoteKeeper;
use crate::network::Network;
use crate::options::GroupOptions;
use crate::pb;
use crate::types::{Raft, Types};

/// How long the members named later in `dLegerPeers` leave it to those before them to form the
/// group; each waits once more for every member before it.
const FORM_AFTER: Duration = Duration::from_millis(300);
/// Time between two rounds of questions to the other members.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Time without a leader before members that do not vote count themselves.
const UNLED: Duration = Duration::from_secs(3);

/// See the module's introduction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not known yet whether the group exists.
    Undecided,
    /// Does not vote.
    Recovering,
    /// Votes for whoever has at least this entry.
    Salvaging { floor: Option<LogId> },
    /// Votes.
    Full,
}

impl Standing {
    /// The standing a member starts with. That its configuration names nobody else says nothing: the
    /// group may have grown since.
    pub(crate) fn at_start(options: &GroupOptions, store: &Store, vote: &VoteKeeper) -> Self {
        let new = store.log.last().is_none() && vote.vote().is_none();
        if options.join && new {
            return Standing::Undecided;
        }
        if options.vote_despite_loss {
            return Standing::Full;
        }
        let forgot = store.last_stop() == LastStop::Machine { was_async: true };
        if forgot || vote.recovering() {
            Standing::Recovering
        } else if new {
            Standing::Undecided
        } else {
            Standing::Full
        }
    }

    /// Whether a candidate with this last entry may have this member's vote, as far as this
    /// member's own past is concerned.
    pub(crate) fn votes_for(self, last: Option<LogId>) -> bool {
        match self {
            Standing::Full => true,
            Standing::Salvaging { floor } => last >= floor,
            Standing::Undecided | Standing::Recovering => false,
        }
    }
}

/// What [`Settle`] works with.
pub(crate) struct Settle {
    pub(crate) options: GroupOptions,
    pub(crate) raft: Raft,
    pub(crate) store: Store,
    pub(crate) network: Network,
    pub(crate) vote: Arc<VoteKeeper>,
    pub(crate) standing: watch::Sender<Standing>,
}

impl Settle {
    /// Brings this member to full standing: forms the group at its very first start, or waits until
    /// it has caught up.
    pub(crate) async fn run(self) {
        let undecided = *self.standing.borrow() == Standing::Undecided;
        if undecided && self.options.join {
            tracing::info!(group = %self.options.group, member = self.options.self_id,
                "this member waits to be added to its group (raftJoin)");
        } else if undecided && self.group_is_new().await {
            self.set(Standing::Full);
        }
        if *self.standing.borrow() == Standing::Full {
            self.form().await;
            return;
        }
        self.recover().await;
    }

    fn set(&self, standing: Standing) {
        let own = self.store.log.last();
        self.raft.runtime_config().elect(standing.votes_for(own));
        self.standing.send_replace(standing);
    }

    /// Finds out whether anything was ever stored in this group. Any member that says so settles
    /// it. That nothing was takes all members, or after a while a majority: two of three whose
    /// stores were removed look like a new group until the third one answers.
    async fn group_is_new(&self) -> bool {
        let begin = Instant::now();
        loop {
            let answers = self.network.survey_others().await;
            let exists = |answer: &pb::SurveyReply| answer.last.is_some_and(|last| last.index > 0);
            if answers.iter().any(|(_, answer)| exists(answer)) {
                return false;
            }
            let needed = if begin.elapsed() < self.options.form_patience {
                self.options.peers.len()
            } else {
                self.options.peers.len() / 2 + 1
            };
            if answers.len() + 1 >= needed {
                return true;
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Writes the first entry if nobody has. Any member may do it, since all write the same one;
    /// doing it one after the other saves a split vote.
    async fn form(&self) {
        let options = &self.options;
        let before = options
            .peers
            .iter()
            .filter(|peer| peer.id < options.self_id)
            .count();
        for _ in 0..before {
            match self.raft.is_initialized().await {
                Ok(false) => tokio::time::sleep(FORM_AFTER).await,
                Ok(true) | Err(_) => return,
            }
        }
        match self.raft.initialize(options.nodes()).await {
            Ok(()) => tracing::info!(group = %options.group, member = options.self_id,
                members = options.peers.len(), "formed the group"),
            // It has a log or has voted already.
            Err(RaftError::APIError(InitializeError::<Types>::NotAllowed(_))) => {}
            Err(error) => tracing::error!(group = %options.group, member = options.self_id,
                %error, "cannot form the group"),
        }
    }

    async fn recover(&self) {
        let options = &self.options;
        let vote = self.vote.clone();
        if !self.saved(move || vote.set_recovering(true)).await {
            return;
        }
        self.set(Standing::Recovering);
        if !options.join || self.store.log.last().is_some() {
            tracing::warn!(group = %options.group, member = options.self_id,
                "this member may lack entries it acknowledged: it does not vote until it has caught up");
        }
        let mut metrics = self.raft.metrics();
        let mut unled_since = Instant::now();
        let mut asked = Instant::now();
        while !self.caught_up() {
            if metrics.borrow_watched().current_leader.is_some() {
                unled_since = Instant::now();
            }
            if unled_since.elapsed() >= UNLED && asked.elapsed() >= ASK_AGAIN {
                self.salvage().await;
                asked = Instant::now();
            }
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(ASK_AGAIN) => {}
            }
        }
        let (log, vote) = (self.store.log.clone(), self.vote.clone());
        if self
            .saved(move || log.flush().and_then(|()| vote.set_recovering(false)))
            .await
        {
            self.set(Standing::Full);
            tracing::info!(group = %options.group, member = options.self_id,
                "this member has caught up and votes again");
        }
    }

    /// Runs something that waits for the disk; a failure poisons the store, which ends this member.
    async fn saved(
        &self,
        work: impl FnOnce() -> raftmq_store::Result<()> + Send + 'static,
    ) -> bool {
        matches!(crate::blocking::spawn_blocking(work).await, Ok(Ok(())))
    }

    /// True once an entry of the present leader's own term is applied here: the leader had every
    /// committed entry before it wrote that one.
    fn caught_up(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let Some(committed) = &metrics.cluster_committed else {
            return false;
        };
        metrics.vote.committed
            && committed.leader_id.term == metrics.vote.leader_id.term
            && metrics.last_applied.as_ref() >= Some(committed)
    }

    /// Votes again, with care, when the members that have forgotten nothing are no quorum.
    async fn salvage(&self) {
        let voters = self.network.links.voters();
        let waits_to_join = self.options.join && self.store.log.last().is_none();
        if waits_to_join || !voters.contains(&self.options.self_id) {
            return;
        }
        let mut answers = self.network.survey_others().await;
        answers.retain(|(member, _)| voters.contains(member));
        if answers.len() + 1 < voters.len() {
            return;
        }
        let answers: Vec<_> = answers.into_iter().map(|(_, answer)| answer).collect();
        let sound = answers.iter().filter(|answer| !answer.recovering).count();
        if sound > voters.len() / 2 {
            return;
        }
        let lasts = answers.iter().map(|answer| {
            answer.last.as_ref().map(|last| LogId {
                term: last.term,
                index: last.index,
            })
        });
        let floor = lasts.max().flatten().max(self.store.log.last());
        let standing = Standing::Salvaging { floor };
        if *self.standing.borrow() != standing {
            tracing::error!(group = %self.options.group, member = self.options.self_id, sound,
                longest = ?floor, "too few members have kept all they acknowledged: going on with \
                the longest log there is, entries may be lost");
            self.set(standing);
        }
    }
}
