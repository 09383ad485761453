//! Puts a member together and takes it apart again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use raftmq_raft::{Group, GroupOptions, Peer, open_store};
use raftmq_remoting::{Client, ClientOptions, Server, ServerOptions};
use raftmq_store::{ApplyObserver, Arrival, FlushMode, StateOptions, StoreOptions};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::config::{Config, EndpointConfig, FlushDisk, GroupConfig, NodeConfig};
use crate::dispatch::FromPeers;
use crate::endpoint::{Access, Endpoint};
use crate::offsets::Offsets;
use crate::parts::Parts;
use crate::ports::ClientPorts;
use crate::pull::{PullProcessor, Waker};
use crate::register::{Card, Changes, Registrar};

/// How long a member that stops tries to save what consumers have told it.
pub(crate) const SAVE_WITHIN: Duration = Duration::from_secs(1);
/// A member that stops waits this long for a leader that does not answer.
const LEADER_SILENT: Duration = Duration::from_secs(2);
/// How often it looks whether a client or a leader is still there.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How long a leader that is deposed takes to answer what came over its leader endpoint: a client that waits there is
/// not yet with the new leader.
const ENDPOINT_DRAIN: Duration = Duration::from_millis(500);

/// Why a member could not start. Every text is one line.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The group cannot be joined.
    #[error(transparent)]
    Raft(#[from] raftmq_raft::StartError),
    /// A client port cannot be used.
    #[error("cannot listen on {address} ({key}{}): {source}", if *below == 0 { "" } else { " - 2" })]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The configuration key it comes from.
        key: &'static str,
        /// How far below that key's port it is: 2 for the fast port.
        below: u16,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl StartError {
    /// Whether another process, or a member of this one that is just ending, has the store.
    pub fn is_locked(&self) -> bool {
        matches!(
            self,
            StartError::Raft(raftmq_raft::StartError::Open(
                raftmq_store::Error::Locked { .. }
            ))
        )
    }
}

/// A running member.
pub struct Broker {
    group: Group,
    address: SocketAddr,
    servers: [Server; 2],
    endpoint: Option<Endpoint>,
    registrar: Registrar,
    offsets: Arc<Offsets>,
    pulls: Arc<PullProcessor>,
    tasks: Vec<JoinHandle<()>>,
    /// Whether this member, leading, has made what has to exist.
    made: watch::Receiver<bool>,
}

impl Broker {
    /// Opens the store, joins the group and listens for clients, on the current tokio runtime. Requests that need a
    /// leader wait until there is one; see [`role_known`](Self::role_known).
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config) -> Result<Broker, StartError> {
        let Config {
            group: group_config,
            node,
            values,
        } = config;
        let options = group_options(&group_config, &node);
        let store = open_store(&options, store_options(&group_config, &node)).await?;
        let from_peers = Arc::new(FromPeers::default());
        let forward = Arc::clone(&from_peers) as Arc<dyn raftmq_raft::ForwardHandler>;
        let group = Group::start(options, store, forward).await?;
        let settings = values
            .all()
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let parts = Parts::new(&group, &group_config, &node, settings);
        // The dispatch exists before any request can come: from peers, then from clients.
        drop(from_peers.dispatch.set(Arc::downgrade(&parts.dispatch)));
        let own = ServerOptions::new(SocketAddr::new(node.listen.bind, node.listen.port));
        let ports = ClientPorts::new(&node, own, "listenPort", &parts.dispatch);
        let servers = match ports.bind().and_then(|pair| ports.serve(pair)) {
            Ok(servers) => servers,
            Err(error) => {
                group.shutdown().await;
                return Err(error);
            }
        };
        let topics_changed = Arc::new(Notify::new());
        let waker = Waker {
            pulls: Arc::clone(&parts.pulls),
            topics_changed: Arc::clone(&topics_changed),
        };
        group.store().state.set_observer(Arc::new(waker));
        let card = Card {
            names: parts.names.clone(),
            address: node.listen.address(),
            ha_address: node.listen.ha_address(),
            endpoint: node.endpoint.as_ref().map(EndpointConfig::address),
            self_id: node.self_id,
            permission: node.send.permission,
        };
        let (access_tell, access) = watch::channel(Access::None);
        let endpoint = node.endpoint.clone().map(|endpoint| {
            let options = ServerOptions {
                drain: ENDPOINT_DRAIN,
                shared: true,
                ..ServerOptions::new(SocketAddr::new(endpoint.bind, endpoint.port))
            };
            let peers = group_config.peers.iter().map(|peer| peer.id).collect();
            let ports = ClientPorts::new(&node, options, "leaderEndpoint", &parts.dispatch);
            Endpoint::start(group.clone(), ports, peers, access_tell)
        });
        let client = Arc::new(Client::new(ClientOptions::default()));
        let registrar = Registrar::start(
            card,
            node.nameservers.clone(),
            group.clone(),
            client,
            Changes {
                topics: topics_changed,
                access,
            },
            Arc::clone(&parts.registered),
        );
        let (made_tell, made) = watch::channel(false);
        let mut tasks = parts.spawn_tasks(&group, &node, made_tell);
        let address = servers[0].local_addr();
        let Parts {
            offsets,
            pulls,
            creating,
            ..
        } = parts;
        tasks.push(creating);
        Ok(Broker {
            group,
            address,
            servers,
            endpoint,
            registrar,
            offsets,
            pulls,
            tasks,
            made,
        })
    }

    /// Where clients reach this member.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The member's part in its group.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Returns once this member follows a leader, or leads and all that has to exist does.
    pub async fn role_known(&self) {
        let mut role = self.group.role();
        let self_id = self.group.self_id();
        let follows = role.wait_for(|role| role.leader.is_some_and(|leader| leader != self_id));
        let mut made = self.made.clone();
        let ended = tokio::select! {
            follows = follows => follows.is_err(),
            made = made.wait_for(|made| *made) => made.is_err(),
        };
        if ended {
            // `failed` says why.
            std::future::pending::<()>().await;
        }
    }

    /// Returns why this member cannot go on, once it cannot: the process must end then.
    pub async fn failed(&self) -> Arc<str> {
        let mut fatal = self.group.fatal();
        let reason = fatal
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }

    /// Returns why this member has to be taken down and started again, once it has.
    pub async fn restart_wanted(&self) -> Arc<str> {
        let mut wanted = self.group.restart_wanted();
        let reason = wanted
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }

    /// Stops so that no client notices: saves offsets, hands leadership over, leaves the routes, forwards what clients
    /// with older routes send until none is left or `enough` returns, closes each connection once it is silent, flushes.
    pub async fn shutdown(self, enough: impl Future<Output = ()>) {
        let Broker {
            group,
            servers,
            registrar,
            offsets,
            pulls,
            tasks,
            endpoint,
            ..
        } = self;
        group.prepare_to_leave();
        let handed_over = hand_over(&group, &offsets).await;
        registrar.leave(handed_over).await;
        tokio::select! {
            () = enough => {}
            () = until_unneeded(&group, &offsets, &servers) => {}
        }
        pulls.resume_all_held();
        if let Some(endpoint) = endpoint {
            endpoint.close().await;
        }
        let [main, fast] = &servers;
        tokio::join!(main.shutdown(), fast.shutdown());
        for task in tasks {
            task.abort();
            // Wait until it has let go of the group: the store's lock is released with the last handle.
            drop(task.await);
        }
        group.store().state.set_observer(Arc::new(Nobody));
        group.shutdown().await;
    }
}

/// Hands leadership over; true if another member leads then.
async fn hand_over(group: &Group, offsets: &Offsets) -> bool {
    if !group.role().borrow().serving {
        return false;
    }
    // Without a quorum it would never end.
    drop(timeout(SAVE_WITHIN, offsets.save_all()).await);
    match group.transfer_leader(None).await {
        Ok(leader) => {
            tracing::info!(leader, "leadership handed over");
            true
        }
        Err(error) => {
            tracing::info!(%error, "leadership not handed over");
            false
        }
    }
}

/// Returns once no client is connected any more, or there is no leader to forward to.
async fn until_unneeded(group: &Group, offsets: &Offsets, servers: &[Server; 2]) {
    let connected = || servers.iter().any(|server| server.connections() > 0);
    let mut answered = Instant::now();
    while connected() && answered.elapsed() < LEADER_SILENT {
        if group.role().borrow().serving && !hand_over(group, offsets).await {
            return;
        }
        if group.leader_answers().await {
            answered = Instant::now();
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Takes the place of the waker, which holds the group, when the member stops.
struct Nobody;

impl ApplyObserver for Nobody {
    fn arrived(&self, _: &[Arrival]) {}
    fn topics_changed(&self) {}
    fn groups_changed(&self) {}
}

pub(crate) fn store_options(group: &GroupConfig, node: &NodeConfig) -> StoreOptions {
    let flush = match node.store.flush {
        FlushDisk::Sync => FlushMode::Sync,
        FlushDisk::Async { interval } => FlushMode::Async { interval },
    };
    StoreOptions {
        commit_log_dir: Some(node.store.commit_log.clone()),
        segment_bytes: group.segment_bytes,
        flush,
        state: StateOptions {
            key_index: node.store.key_index,
            ..StateOptions::default()
        },
        ..StoreOptions::new(&node.store.root, &group.name, node.self_id)
    }
}

pub(crate) fn group_options(group: &GroupConfig, node: &NodeConfig) -> GroupOptions {
    let peers = group.peers.iter().map(|peer| Peer {
        id: peer.id,
        host: peer.host.clone(),
        port: peer.port,
    });
    GroupOptions {
        heartbeat: node.raft.heartbeat,
        election_min: node.raft.election_min,
        election_max: node.raft.election_max,
        queue_count_max: node.raft.queue_count_max,
        queue_bytes_max: node.raft.queue_bytes_max,
        forward_max: node.raft.forward_max,
        join: node.raft.join,
        vote_despite_loss: node.raft.vote_despite_loss,
        seed_rate_max: node.raft.seed_rate_max,
        scrub_rate: node.store.scrub_rate.unwrap_or_default(),
        flush_stall_max: node.store.flush_stall_max,
        ..GroupOptions::new(&group.name, node.self_id, peers.collect(), node.raft.bind)
    }
}
