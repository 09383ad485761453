//! The handle to a running member.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use parking_lot::Mutex;
use raftmq_proto::command::{Op, TrimLog};
use raftmq_proto::frame::RemotingCommand;
use raftmq_store::{LogId, Store};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::confirm::Questions;
use crate::contact::{Contact, Loss, lost};
use crate::members::{MemberChange, MemberError, MemberStatus, Members};
use crate::network::{ForwardError, ForwardHandler, Forwarder, Supply};
use crate::options::{GroupOptions, Peer, StartError};
use crate::proposer::{MessageSubmission, ProposeError, ProposerHandle};
use crate::role::{Lease, Role, RoleState};
use crate::standing::Standing;
use crate::start::start;
use crate::transfer::{Transfer, TransferError};
use crate::types::{Raft, store_log_id};
use crate::upkeep::{DiskTrouble, ScrubStats, Scrubber};

/// Threads for disk waits and name resolution; a name server that hangs takes one a peer and lane.
const BLOCKING_THREADS_MAX: usize = 64;

/// One member of a running group. Clones are handles to the same member.
#[derive(Clone)]
pub struct Group {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) options: GroupOptions,
    pub(crate) raft: Raft,
    pub(crate) store: Store,
    pub(crate) forwarder: Arc<Forwarder>,
    pub(crate) supply: Arc<Supply>,
    pub(crate) proposer: ProposerHandle,
    pub(crate) role: watch::Receiver<Role>,
    pub(crate) lease: Lease,
    pub(crate) contact: watch::Receiver<Contact>,
    pub(crate) questions: Questions,
    pub(crate) fatal: watch::Receiver<Option<Arc<str>>>,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) restart: watch::Receiver<Option<Arc<str>>>,
    pub(crate) disk_trouble: watch::Receiver<Option<DiskTrouble>>,
    pub(crate) transfer: Arc<Transfer>,
    pub(crate) members: Arc<Members>,
    pub(crate) removed: watch::Receiver<bool>,
    pub(crate) scrubber: Scrubber,
    pub(crate) scrub_stats: Arc<ScrubStats>,
    pub(crate) local: SocketAddr,
    pub(crate) server: JoinHandle<()>,
    pub(crate) closing: Arc<AtomicBool>,
    pub(crate) runtime: Mutex<Option<Runtime>>,
}

/// How far the members have come, as the leader knows it; empty elsewhere.
pub(crate) fn progress(raft: &Raft) -> Vec<MemberProgress> {
    let metrics = raft.data_metrics();
    let metrics = metrics.borrow_watched();
    let Some(replication) = &metrics.replication else {
        return Vec::new();
    };
    let heard = |id: &u64| {
        let at = metrics.heartbeat.as_ref()?.get(id)?.as_ref()?;
        Some(openraft::Instant::elapsed(&**at))
    };
    let progress = replication.iter().map(|(id, matched)| MemberProgress {
        id: *id,
        matched: matched.as_ref().map(store_log_id),
        silent: heard(id),
    });
    progress.collect()
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        if let Some(runtime) = self.runtime.get_mut().take() {
            runtime.shutdown_background();
        }
    }
}

/// Positions in the log of this member. `log_start ≤ applied ≤ committed ≤ last` and
/// `flushed ≤ last`; on a follower `committed` may run ahead of `flushed`, when the others were
/// quicker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watermarks {
    /// First physical offset that can be read.
    pub log_start: u64,
    /// Physical offset after the last byte appended.
    pub log_end: u64,
    /// Physical offset after the last byte on disk.
    pub flushed_position: u64,
    /// Last entry applied: consumers can read it.
    pub applied: Option<LogId>,
    /// Last entry known to be on a quorum.
    pub committed: Option<LogId>,
    /// Last entry appended here.
    pub last: Option<LogId>,
}

/// How far a member has come, as its leader knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberProgress {
    /// The member.
    pub id: u64,
    /// Last entry known to be on its disk.
    pub matched: Option<LogId>,
    /// Time since it last answered; `None` when it has not answered this leader.
    pub silent: Option<Duration>,
}

/// This member cannot vouch for its leadership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this member does not lead the group (leader: {leader:?})")]
pub struct NotLeader {
    /// The member that leads, if known.
    pub leader: Option<u64>,
}

impl Group {
    /// Starts this member over its store. Returns once it listens and takes part in the group, not
    /// once there is a leader: watch [`role`](Self::role) for that.
    ///
    /// `forward` answers requests that other members forward here; it is called on the runtime
    /// that this function is called on.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(
        options: GroupOptions,
        store: Store,
        forward: Arc<dyn ForwardHandler>,
    ) -> Result<Group, StartError> {
        let config = Arc::new(options.validate()?);
        let span = tracing::Span::current();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.worker_threads)
            .thread_name(format!("raft-n{}", options.self_id))
            // These threads are this group's alone: what is logged on them, by whomever, says so.
            .on_thread_start(move || std::mem::forget(span.clone().entered()))
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .enable_all()
            .build()
            .map_err(StartError::Threads)?;
        let caller = Handle::current();
        let raft_runtime = runtime.handle().clone();
        let started = raft_runtime
            .spawn(start(options, config, store, forward, caller))
            .await
            .map_err(|error| StartError::Store(format!("a task failed: {error}")))
            .and_then(|started| started);
        match started {
            Ok(mut inner) => {
                *inner.runtime.get_mut() = Some(runtime);
                Ok(Group {
                    inner: Arc::new(inner),
                })
            }
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// [`start`](Self::start) on the runtime it is called on.
    ///
    /// # Errors
    /// See [`StartError`].
    #[cfg(feature = "sim")]
    pub async fn start_here(
        options: GroupOptions,
        store: Store,
        forward: Arc<dyn ForwardHandler>,
    ) -> Result<Group, StartError> {
        let config = Arc::new(options.validate()?);
        let inner = start(options, config, store, forward, Handle::current()).await?;
        Ok(Group {
            inner: Arc::new(inner),
        })
    }

    /// Has messages stored. The outcome arrives at the submission's `done`, exactly once, whatever
    /// happens.
    pub fn submit(&self, submission: MessageSubmission) {
        self.inner.proposer.submit(submission);
    }

    /// Has metadata operations applied, in order and all in one entry. They may be applied even if
    /// the caller stops waiting.
    ///
    /// # Errors
    /// See [`ProposeError`]; never `Renumber`.
    pub async fn propose(&self, ops: Vec<Op>) -> Result<(), ProposeError> {
        self.inner.proposer.propose(ops).await
    }

    /// This member's role, now and at every change.
    pub fn role(&self) -> watch::Receiver<Role> {
        self.inner.role.clone()
    }

    /// Whether this member leads and a quorum has answered it within its lease.
    pub fn holds_lease(&self) -> bool {
        self.inner.lease.holds()
    }

    /// Whether anybody can lead, as seen from this member: now and at every change.
    pub fn contact(&self) -> watch::Receiver<Contact> {
        self.inner.contact.clone()
    }

    /// Returns why nobody can lead the group, once that is so.
    pub async fn lost(&self) -> Arc<Loss> {
        lost(self.contact()).await
    }

    /// Whether this member leads, has applied what earlier leaders acknowledged, and does not know
    /// that too few members answer.
    pub fn serves(&self) -> bool {
        self.inner.role.borrow().serving
            && !matches!(*self.inner.contact.borrow(), Contact::Lost(_))
    }

    /// Why this member can no longer take part, once it cannot: its Raft core or its store has
    /// failed, and the process should end with this reason.
    pub fn fatal(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.inner.fatal.clone()
    }

    /// Makes sure that this member still leads, so that reading its applied state now misses
    /// nothing acknowledged before. Costs a round of heartbeats: a quorum is
    /// asked.
    ///
    /// # Errors
    /// When it does not lead or no quorum answers within the lease.
    pub async fn confirm_leadership(&self) -> Result<(), NotLeader> {
        let role = *self.inner.role.borrow();
        if !role.serving {
            return Err(NotLeader {
                leader: role.leader.filter(|id| *id != self.self_id()),
            });
        }
        if self.inner.transfer.began_in(role.term) {
            return Err(NotLeader { leader: None });
        }
        // The lease is not enough: a process that was frozen must not vouch with what it knew before.
        let term = tokio::select! {
            term = self.inner.questions.led_term() => term,
            _lost = self.lost() => None,
        };
        if term == Some(role.term) {
            return Ok(());
        }
        let leader = self.inner.role.borrow().leader;
        Err(NotLeader {
            leader: leader.filter(|id| *id != self.self_id()),
        })
    }

    /// Sends a client's request to the leader and returns its answer.
    ///
    /// # Errors
    /// See [`ForwardError`]: each says whether the request may have been processed.
    pub async fn forward(
        &self,
        request: RemotingCommand,
        client: SocketAddr,
        timeout: Duration,
    ) -> Result<RemotingCommand, ForwardError> {
        let role = *self.inner.role.borrow();
        let leader = role.leader.ok_or(ForwardError::NoLeader)?;
        if leader == self.self_id() {
            return Err(match role.state {
                RoleState::Leader => ForwardError::Leader,
                // It led before it restarted, and nobody has led since.
                RoleState::Follower | RoleState::Candidate | RoleState::Learner => {
                    ForwardError::NoLeader
                }
            });
        }
        self.inner
            .forwarder
            .send(leader, &request, client, timeout)
            .await
    }

    /// Changes who belongs to the group, one change at a time. Returns once the change is
    /// committed.
    ///
    /// # Errors
    /// See [`MemberError`]; nothing has changed then, except after `Stopped` and `Timeout`.
    pub async fn change_members(&self, change: MemberChange) -> Result<(), MemberError> {
        self.inner.members.change(change).await
    }

    /// Asks all members about themselves, and tells what this member knows of them.
    pub async fn member_status(&self) -> Vec<MemberStatus> {
        self.inner.members.status().await
    }

    /// Whether this member has been removed from its group: it goes on forwarding, and nobody
    /// counts on it.
    pub fn removed(&self) -> watch::Receiver<bool> {
        self.inner.removed.clone()
    }

    /// Whether the member that is known to lead answers; true while it is this one.
    pub async fn leader_answers(&self) -> bool {
        let leader = self.inner.role.borrow().leader;
        match leader {
            None => false,
            Some(leader) if leader == self.self_id() => true,
            Some(leader) => self.inner.transfer.network.survey(leader).await.is_some(),
        }
    }

    /// Positions in this member's log, now.
    pub fn watermarks(&self) -> Watermarks {
        let log = &self.inner.store.log;
        let committed = {
            let metrics = self.inner.raft.data_metrics();
            let metrics = metrics.borrow_watched();
            metrics.local_committed.as_ref().map(store_log_id)
        };
        let applied = self.inner.store.state.applied();
        Watermarks {
            log_start: log.min_position(),
            log_end: log.end_position(),
            flushed_position: log.flushed_position(),
            applied,
            // Applying is told sooner than committing.
            committed: committed.max(applied),
            last: log.last(),
        }
    }

    /// How far the members have come; empty unless this member leads.
    pub fn progress(&self) -> Vec<MemberProgress> {
        progress(&self.inner.raft)
    }

    /// True while this member does not vote because it may lack entries that it acknowledged: it
    /// ran with ASYNC_FLUSH when its machine stopped, or its store is newer than its group. It
    /// becomes false once it has caught up.
    pub fn recovering(&self) -> bool {
        *self.inner.standing.borrow() != Standing::Full
    }

    /// This member's id.
    pub fn self_id(&self) -> u64 {
        self.inner.options.self_id
    }

    /// The group's name.
    pub fn name(&self) -> &str {
        &self.inner.options.group
    }

    /// Members as the membership in the log has them, or as configured while there is none.
    pub fn peers(&self) -> Vec<Peer> {
        let metrics = self.inner.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        if metrics.membership_config.log_id().is_none() {
            return self.inner.options.peers.clone();
        }
        let peer = |(id, node): (&u64, &crate::types::Node)| {
            let (host, port) = node.addr.rsplit_once(':')?;
            let host = host
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned();
            Some(Peer {
                id: *id,
                host,
                port: port.parse().ok()?,
            })
        };
        metrics.membership_config.nodes().filter_map(peer).collect()
    }

    /// Where this member listens for the others.
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.local
    }

    /// The store of this member. Reading is free for all; only the Raft core writes.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Hands leadership to a voter, by default to the one that is furthest and has a sound disk, and
    /// returns its id once it leads. Submissions are refused with the new leader's id from the
    /// moment the transfer begins.
    ///
    /// # Errors
    /// See [`TransferError`].
    pub async fn transfer_leader(&self, to: Option<u64>) -> Result<u64, TransferError> {
        self.inner.transfer.run(to).await
    }

    /// Gives up the beginning of the log on all members: no record below `position`, a segment's
    /// start, is read any more. On a member that does not lead, the leader is asked to. Returns once
    /// the decision is applied; the files go in the background.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn trim(&self, position: u64) -> Result<(), ProposeError> {
        let role = *self.inner.role.borrow();
        match role.leader {
            Some(leader) if leader != self.self_id() => {
                let asked = self.inner.transfer.network.trim(leader, position).await;
                asked.map_err(|_told| ProposeError::NotLeader {
                    leader: Some(leader),
                })
            }
            _ => self.propose(vec![Op::TrimLog(TrimLog { position })]).await,
        }
    }

    /// Why this member has to be taken down and started again in the same process, once it has: it
    /// is to be seeded from another one, or its state is to be built again.
    pub fn restart_wanted(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.inner.restart.clone()
    }

    /// What is wrong with this member's disk, if anything is.
    pub fn disk_trouble(&self) -> watch::Receiver<Option<DiskTrouble>> {
        self.inner.disk_trouble.clone()
    }

    /// Figures of the search for damage.
    pub fn scrub_stats(&self) -> &ScrubStats {
        &self.inner.scrub_stats
    }

    /// Stops this member at once, as a crash of the process would: nothing is handed over, nothing
    /// is saved, and what is under way has no outcome. The store is let go of when the last handle
    /// is dropped.
    pub fn abort(&self) {
        self.inner.closing.store(true, Ordering::Release);
        self.inner.proposer.close();
        self.inner.scrubber.close();
        if let Some(runtime) = self.inner.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }

    /// This member is about to stop: it does not stand for election any more and nobody hands
    /// leadership to it. What it leads it goes on leading; see [`transfer_leader`](Self::transfer_leader).
    pub fn prepare_to_leave(&self) {
        self.inner.supply.set_leaving();
        self.inner.raft.runtime_config().elect(false);
    }

    /// Stops this member: hands over leadership if it leads, refuses new submissions, stops the
    /// Raft core and saves the state. Later calls return at once.
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        if inner.role.borrow().serving {
            match self.transfer_leader(None).await {
                Ok(to) => tracing::info!(group = self.name(), to, "handed over leadership"),
                Err(error) => {
                    tracing::info!(group = self.name(), %error, "stopping without a hand-over");
                }
            }
        }
        if inner.closing.swap(true, Ordering::AcqRel) {
            return;
        }
        inner.proposer.close();
        inner.scrubber.close();
        if let Err(error) = inner.raft.shutdown().await {
            tracing::warn!(group = self.name(), %error, "the Raft core ended with an error");
        }
        inner.server.abort();
        let store = inner.store.clone();
        let saved = crate::blocking::spawn_blocking(move || store.close()).await;
        match saved {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(group = self.name(), %error, "store not saved"),
            Err(error) => tracing::error!(group = self.name(), %error, "store not saved"),
        }
        if let Some(runtime) = inner.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }
}
