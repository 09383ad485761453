//! Handing leadership over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::async_runtime::WatchReceiver;
use raftmq_store::CommitLog;
use tokio::sync::watch;

use crate::group::{MemberProgress, NotLeader, progress};
use crate::network::Network;
use crate::options::GroupOptions;
use crate::role::Role;
use crate::types::Raft;

/// How many election timeouts a hand-over of leadership may take before it has failed.
const ELECTIONS_MAX: u32 = 4;
/// How far, in entries, a member may be behind and still be handed leadership.
const LAG_MAX: u64 = 10_000;

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
    /// The chosen member does not answer.
    #[error("member {0} does not answer")]
    Silent(u64),
    /// The chosen member could not serve.
    #[error("member {id} cannot lead now: {why}")]
    Unable {
        /// The member.
        id: u64,
        /// What it says of itself.
        why: &'static str,
    },
    /// Nobody took over in time.
    #[error("member {0} did not take over in time")]
    Timeout(u64),
    /// The Raft core has stopped.
    #[error("the Raft core has stopped: {0}")]
    Stopped(String),
}

/// Hands leadership over, for a command, a stop or trouble with the disk.
pub(crate) struct Transfer {
    pub(crate) options: GroupOptions,
    pub(crate) raft: Raft,
    pub(crate) network: Network,
    pub(crate) log: CommitLog,
    pub(crate) role: watch::Receiver<Role>,
    /// The last term whose leadership this member began to hand over. Whoever is to take over does
    /// not wait for the lease, so nothing vouches for this one any more.
    began: AtomicU64,
}

impl Transfer {
    pub(crate) fn new(
        options: GroupOptions,
        raft: Raft,
        network: Network,
        log: CommitLog,
        role: watch::Receiver<Role>,
    ) -> Arc<Self> {
        Arc::new(Transfer {
            options,
            raft,
            network,
            log,
            role,
            began: AtomicU64::new(u64::MAX),
        })
    }

    /// Whether this member began to hand over the leadership of a term.
    pub(crate) fn began_in(&self, term: u64) -> bool {
        self.began.load(Ordering::Acquire) == term
    }

    /// Hands over, and returns the id of the member that leads then.
    pub(crate) async fn run(&self, to: Option<u64>) -> Result<u64, TransferError> {
        let role = *self.role.borrow();
        if !role.serving {
            return Err(NotLeader {
                leader: role.leader,
            }
            .into());
        }
        let to = match to {
            Some(to) if to == self.options.self_id => return Ok(to),
            Some(to) => self.check(to).await?,
            None => self.choose().await?,
        };
        let stopped = |fatal: crate::types::Fatal| TransferError::Stopped(fatal.to_string());
        self.began.store(role.term, Ordering::Release);
        self.raft
            .trigger()
            .transfer_leader(to)
            .await
            .map_err(stopped)?;
        let own = self.options.self_id;
        let mut role = self.role.clone();
        let taken = role.wait_for(|role| role.leader.is_some_and(|leader| leader != own));
        let within = self.options.election_max * ELECTIONS_MAX;
        let taken = tokio::time::timeout(within, taken).await;
        match taken {
            Ok(Ok(role)) => Ok(role.leader.unwrap_or(to)),
            Ok(Err(_)) => Err(TransferError::Stopped("it ended".to_owned())),
            Err(_elapsed) => Err(TransferError::Timeout(to)),
        }
    }

    fn voters(&self) -> Vec<u64> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics
            .membership_config
            .voter_ids()
            .filter(|id| *id != self.options.self_id)
            .collect()
    }

    fn behind(&self, member: &MemberProgress) -> u64 {
        let last = self.log.last().map_or(0, |id| id.index);
        last.saturating_sub(member.matched.map_or(0, |id| id.index))
    }

    /// Checks the member that is to lead next: from the moment in which it is told to take over, nobody leads.
    async fn check(&self, to: u64) -> Result<u64, TransferError> {
        if !self.voters().contains(&to) {
            return Err(TransferError::NotVoter(to));
        }
        let known = progress(&self.raft);
        let member = known.iter().find(|member| member.id == to);
        self.require_able(member.ok_or(TransferError::NotVoter(to))?)
            .await?;
        Ok(to)
    }

    /// The voter that can take over: the furthest of them.
    async fn choose(&self) -> Result<u64, TransferError> {
        let voters = self.voters();
        let mut others = progress(&self.raft);
        others.retain(|member| voters.contains(&member.id));
        others.sort_by_key(|member| self.behind(member));
        let able = others.iter().map(|member| self.require_able(member));
        let able = futures::future::join_all(able).await;
        let able = others.iter().zip(able).find(|(_, able)| able.is_ok());
        able.map(|(member, _)| member.id)
            .ok_or(TransferError::Nobody)
    }

    /// Whether a voter answers, is close, and could serve.
    async fn require_able(&self, member: &MemberProgress) -> Result<(), TransferError> {
        let id = member.id;
        if member
            .silent
            .is_none_or(|silent| silent >= self.options.election_max)
        {
            return Err(TransferError::Silent(id));
        }
        let lag = self.behind(member);
        if lag > LAG_MAX {
            return Err(TransferError::Behind { id, lag });
        }
        let reply = self.network.survey(id).await;
        let reply = reply.ok_or(TransferError::Silent(id))?;
        let why = match reply {
            _ if reply.leaving => "it is being stopped",
            _ if reply.disk_trouble => "its disk is full or does not keep up",
            _ if reply.recovering => "it does not vote until it has caught up",
            _ => return Ok(()),
        };
        Err(TransferError::Unable { id, why })
    }
}
