//! The handle to a running member.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use parking_lot::Mutex;
use raftmq_proto::command::Op;
use raftmq_proto::frame::RemotingCommand;
use raftmq_store::{LogId, Store};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::log_storage::{LogStorage, VoteKeeper};
use crate::network::{
    ForwardError, ForwardHandler, Forwarder, Identity, Links, Network, ServerParts, listen, serve,
};
use crate::options::{GroupOptions, Peer, StartError};
use crate::proposer::{MessageSubmission, ProposeError, Proposer, ProposerHandle};
use crate::role::{Follow, Lease, Role, RoleState, follow, set_fatal};
use crate::standing::{Settle, Standing};
use crate::state_machine::StateMachine;
use crate::types::{Raft, store_log_id};

/// Requests one connection may have under way beside forwarded ones.
const STREAMS_SPARE: usize = 64;
/// How many heartbeats a hand-over of leadership may take before it has failed.
const TRANSFER_ELECTIONS: u32 = 4;
/// How far, in entries, a member may be behind and still be handed leadership.
const TRANSFER_LAG_MAX: u64 = 10_000;
/// Threads for disk waits and name resolution; a name server that hangs takes one a peer and lane.
const BLOCKING_THREADS_MAX: usize = 64;

/// One member of a running group. Clones are handles to the same member.
#[derive(Clone)]
pub struct Group {
    inner: Arc<Inner>,
}

struct Inner {
    options: GroupOptions,
    raft: Raft,
    store: Store,
    forwarder: Arc<Forwarder>,
    proposer: ProposerHandle,
    role: watch::Receiver<Role>,
    fatal: watch::Receiver<Option<Arc<str>>>,
    standing: watch::Receiver<Standing>,
    /// The last term whose leadership this member began to hand over. Whoever is to take over does
    /// not wait for the lease, so nothing vouches for this one any more.
    handed_over: AtomicU64,
    local: SocketAddr,
    server: JoinHandle<()>,
    closing: Arc<AtomicBool>,
    runtime: Mutex<Option<Runtime>>,
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

/// Why leadership was not handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// This member does not lead.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// No other member could take over.
    #[error("no other voter of the group is caught up")]
    Nobody,
    /// The chosen member has no vote in the group.
    #[error("member {0} has no vote in the group")]
    NotVoter(u64),
    /// The chosen member lacks too many entries.
    #[error("member {id} is {lag} entries behind")]
    Behind {
        /// The member.
        id: u64,
        /// Entries it lacks.
        lag: u64,
    },
    /// Nobody took over in time.
    #[error("member {0} did not take over in time")]
    Timeout(u64),
    /// The Raft core has stopped.
    #[error("the Raft core has stopped: {0}")]
    Stopped(String),
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
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.worker_threads)
            .thread_name(format!("raft-n{}", options.self_id))
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
        if self.inner.handed_over.load(Ordering::Acquire) == role.term {
            return Err(NotLeader { leader: None });
        }
        // A round of heartbeats, not the lease: a process that was frozen must not vouch with what
        // it knew before.
        match self
            .inner
            .raft
            .ensure_linearizable(ReadPolicy::ReadIndex)
            .await
        {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
                Err(NotLeader {
                    leader: to.leader_id,
                })
            }
            Err(
                RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))
                | RaftError::Fatal(_),
            ) => Err(NotLeader { leader: None }),
        }
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
        let address = {
            let metrics = self.inner.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            metrics
                .membership_config
                .get_node(&leader)
                .map(|node| node.addr.clone())
        };
        self.inner
            .forwarder
            .send(leader, address.as_deref(), &request, client, timeout)
            .await
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
        let metrics = self.inner.raft.data_metrics();
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

    /// Hands leadership to a voter, by default to the one that is furthest, and returns its id
    /// once it leads. Submissions are refused with the new leader's id from the moment the transfer
    /// begins.
    ///
    /// # Errors
    /// See [`TransferError`].
    pub async fn transfer_leader(&self, to: Option<u64>) -> Result<u64, TransferError> {
        let role = *self.inner.role.borrow();
        if !role.serving {
            return Err(NotLeader {
                leader: role.leader,
            }
            .into());
        }
        let to = self.successor(to)?;
        let stopped = |fatal: crate::types::Fatal| TransferError::Stopped(fatal.to_string());
        self.inner.handed_over.store(role.term, Ordering::Release);
        self.inner
            .raft
            .trigger()
            .transfer_leader(to)
            .await
            .map_err(stopped)?;
        let mut role = self.role();
        let own = self.self_id();
        let taken = role.wait_for(|role| role.leader.is_some_and(|leader| leader != own));
        let within = self.inner.options.election_max * TRANSFER_ELECTIONS;
        let taken = tokio::time::timeout(within, taken).await;
        match taken {
            Ok(Ok(role)) => Ok(role.leader.unwrap_or(to)),
            Ok(Err(_)) => Err(TransferError::Stopped("it ended".to_owned())),
            Err(_elapsed) => Err(TransferError::Timeout(to)),
        }
    }

    /// Checks the member that is to lead next, or chooses one.
    fn successor(&self, to: Option<u64>) -> Result<u64, TransferError> {
        let voters: Vec<u64> = {
            let metrics = self.inner.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            metrics
                .membership_config
                .voter_ids()
                .filter(|id| *id != self.self_id())
                .collect()
        };
        let last = self.inner.store.log.last().map_or(0, |id| id.index);
        let behind =
            |member: &MemberProgress| last.saturating_sub(member.matched.map_or(0, |id| id.index));
        let answers = |member: &MemberProgress| {
            member
                .silent
                .is_some_and(|silent| silent < self.inner.options.election_max)
        };
        let progress = self.progress();
        match to {
            Some(to) if !voters.contains(&to) => Err(TransferError::NotVoter(to)),
            Some(to) => match progress.iter().find(|member| member.id == to) {
                Some(member) if behind(member) <= TRANSFER_LAG_MAX => Ok(to),
                Some(member) => Err(TransferError::Behind {
                    id: to,
                    lag: behind(member),
                }),
                None => Err(TransferError::NotVoter(to)),
            },
            None => progress
                .iter()
                .filter(|member| voters.contains(&member.id) && answers(member))
                .filter(|member| behind(member) <= TRANSFER_LAG_MAX)
                .min_by_key(|member| behind(member))
                .map(|member| member.id)
                .ok_or(TransferError::Nobody),
        }
    }

    /// Stops this member at once, as a crash of the process would: nothing is handed over, nothing
    /// is saved, and what is under way has no outcome. The store is let go of when the last handle
    /// is dropped.
    pub fn abort(&self) {
        self.inner.closing.store(true, Ordering::Release);
        self.inner.proposer.close();
        if let Some(runtime) = self.inner.runtime.lock().take() {
            runtime.shutdown_background();
        }
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
        if let Err(error) = inner.raft.shutdown().await {
            tracing::warn!(group = self.name(), %error, "the Raft core ended with an error");
        }
        inner.server.abort();
        let store = inner.store.clone();
        let saved = tokio::task::spawn_blocking(move || store.close()).await;
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

/// Builds everything, on the Raft runtime.
async fn start(
    options: GroupOptions,
    config: Arc<openraft::Config>,
    store: Store,
    forward: Arc<dyn ForwardHandler>,
    caller: Handle,
) -> Result<Inner, StartError> {
    let bind = |source| StartError::Bind {
        address: options.bind,
        source,
    };
    let listener = listen(options.bind).await.map_err(bind)?;
    let local = listener.local_addr().map_err(bind)?;

    let storage = |error: &dyn std::fmt::Display| StartError::Store(error.to_string());
    let vote = Arc::new(VoteKeeper::open(store.vote.clone()).map_err(|error| storage(&error))?);
    let log_storage = LogStorage::new(store.log.clone(), store.committed.clone(), vote.clone());
    let standing = Standing::at_start(&options, &store, &vote);
    let (applied_term, applied_term_seen) = watch::channel(0);
    let state_machine = StateMachine::new(store.state.clone(), applied_term);
    let identity = Arc::new(Identity::new(
        options.group.clone(),
        options.self_id,
        store.log.clone(),
    ));
    let configured: HashMap<u64, String> = options
        .peers
        .iter()
        .map(|peer| (peer.id, peer.address()))
        .collect();
    let links = Arc::new(Links::new(configured));
    let network = Network {
        identity: identity.clone(),
        links: links.clone(),
        appends_in_flight: options.appends_in_flight,
        raft: Arc::new(OnceLock::new()),
    };
    // Applies what was committed before; the core starts with `run`.
    let raft = Raft::build(
        options.self_id,
        config,
        network.clone(),
        log_storage,
        state_machine,
    )
    .await
    .map_err(|error| storage(&error))?;
    network.raft.get_or_init(|| raft.clone());
    raft.runtime_config()
        .elect(standing.votes_for(store.log.last()));
    let (standing_tell, standing) = watch::channel(standing);

    let (role_tell, role) = watch::channel(Role::UNKNOWN);
    let (fatal_tell, fatal) = watch::channel(None);
    let poisoned = fatal_tell.clone();
    store.on_poison(move |reason| set_fatal(&poisoned, reason));
    let closing = Arc::new(AtomicBool::new(false));
    let lease = Lease::new(options.self_id, options.election_max, &raft);
    let parts = (store.log.clone(), store.state.clone());
    let (proposer, proposer_handle) = Proposer::new(
        &options,
        raft.clone(),
        parts,
        lease,
        role.clone(),
        fatal.clone(),
    );
    let forwarder = Arc::new(Forwarder::new(
        identity.clone(),
        links,
        forward,
        caller,
        options.forward_max,
    ));
    let streams_max = u32::try_from(options.forward_max + STREAMS_SPARE).unwrap_or(u32::MAX);
    let server = ServerParts {
        raft: raft.clone(),
        identity,
        forwarder: forwarder.clone(),
        log: store.log.clone(),
        standing: standing.clone(),
        streams_max,
    };
    let server = tokio::spawn(async move {
        if let Err(error) = serve(listener, server).await {
            tracing::error!(%error, "the port for other members is closed");
        }
    });

    raft.run();
    tokio::spawn(proposer.run());
    tokio::spawn(follow(Follow {
        id: options.self_id,
        group: options.group.clone(),
        raft: raft.clone(),
        configured: options.nodes(),
        applied_term: applied_term_seen,
        role: role_tell,
        fatal: fatal_tell,
        closing: closing.clone(),
    }));
    let settle = Settle {
        options: options.clone(),
        raft: raft.clone(),
        store: store.clone(),
        network,
        vote,
        standing: standing_tell,
    };
    tokio::spawn(settle.run());
    tracing::info!(group = %options.group, member = options.self_id, %local, "member started");
    Ok(Inner {
        options,
        raft,
        store,
        forwarder,
        proposer: proposer_handle,
        role,
        fatal,
        standing,
        handed_over: AtomicU64::new(u64::MAX),
        local,
        server,
        closing,
        runtime: Mutex::new(None),
    })
}
