//! The leader endpoint (`leaderEndpoint`): one address that follows leadership.
//!
//! Whoever leads listens there too, on the port and on the one two below, and is registered as broker 0 with it. A
//! client that loses its leader then finds the next one where it looks anyway: it connects again, without a new route.
//!
//! Never two at a time: the port is bound without SO_REUSEPORT, with which connections could reach a member that does
//! not lead any more. A member that cannot have the port, because one that led before and hangs still holds it on the
//! same machine, advertises its own address until it can.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use raftmq_raft::{Group, Role};
use raftmq_remoting::Server;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::Instrument as _;

use crate::broker::StartError;

/// First pause after the port could not be bound; it doubles up to the longest one.
const RETRY_PAUSE: Duration = Duration::from_millis(1);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(100);
/// A new leader that has no port by then is advertised with its own address.
const GIVE_UP_WITHIN: Duration = Duration::from_millis(250);
/// How often a leader looks whether its lease holds.
const LOOK_PERIOD: Duration = Duration::from_millis(100);
/// After so many looks without a lease it closes: its clients may reach the next leader. Looks and not time, so that a
/// process that was frozen first hears what happened meanwhile.
const LOOKS_MAX: u32 = 10;

/// Whether clients reach this member over the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// There is no endpoint.
    None,
    /// Not open, or not yet.
    Closed,
    /// The leader of this term listens there.
    Open(u64),
    /// The leader of this term cannot listen there for now.
    Denied(u64),
}

/// Listens on the endpoint's ports.
pub(crate) type Listen = Box<dyn Fn() -> Result<[Server; 2], StartError> + Send + Sync>;

/// The endpoint of a running member.
pub(crate) struct Endpoint {
    keeper: Arc<Keeper>,
    task: JoinHandle<()>,
}

impl Endpoint {
    /// Opens and closes as this member gains and loses leadership; `tell` hears of it.
    pub(crate) fn start(group: Group, listen: Listen, tell: watch::Sender<Access>) -> Endpoint {
        let keeper = Arc::new(Keeper {
            group,
            listen,
            tell,
            servers: Mutex::new(None),
        });
        tell_closed(&keeper.tell);
        let run = {
            let keeper = Arc::clone(&keeper);
            async move { keeper.run().await }
        };
        let task = tokio::spawn(run.in_current_span());
        Endpoint { keeper, task }
    }

    /// Closes for good; returns once what is in flight is answered.
    pub(crate) async fn close(self) {
        self.task.abort();
        // Cancelled, as wanted, unless it ended by itself.
        drop(self.task.await);
        let servers = self.keeper.servers.lock().take();
        if let Some([main, fast]) = servers {
            tokio::join!(main.shutdown(), fast.shutdown());
        }
    }
}

struct Keeper {
    group: Group,
    listen: Listen,
    tell: watch::Sender<Access>,
    servers: Mutex<Option<[Server; 2]>>,
}

impl Keeper {
    async fn run(&self) {
        let mut role = self.group.role();
        loop {
            let Ok(term) = role
                .wait_for(|role| role.serving)
                .await
                .map(|role| role.term)
            else {
                return;
            };
            let mut over = self.group.role();
            let over = over.wait_for(|role| !leads_in(role, term));
            tokio::select! {
                _ = over => {}
                () = self.keep_open(term) => {}
            }
            // Dropped servers accept nothing from now on, so that the next leader can bind the ports, and read nothing
            // more: clients connect again as soon as what is in flight is answered.
            if self.servers.lock().take().is_some() {
                tracing::info!(term, "the leader endpoint is closed here");
            }
            tell_closed(&self.tell);
        }
    }

    /// Opens for the leader of `term` whenever it is in touch with a quorum.
    async fn keep_open(&self, term: u64) {
        loop {
            let servers = self.bind(term).await;
            *self.servers.lock() = Some(servers);
            self.tell.send_replace(Access::Open(term));
            tracing::info!(term, "the leader endpoint is open here");
            self.out_of_touch().await;
            self.servers.lock().take();
            // What is applied can still be read under its own address.
            self.tell.send_replace(Access::Denied(term));
            tracing::warn!(
                term,
                "no quorum answers this leader: its leader endpoint is closed"
            );
            while !self.group.holds_lease() {
                sleep(LOOK_PERIOD).await;
            }
        }
    }

    /// Listens as soon as nobody else does.
    async fn bind(&self, term: u64) -> [Server; 2] {
        let begun = Instant::now();
        let mut pause = RETRY_PAUSE;
        loop {
            match (self.listen)() {
                Ok(servers) => return servers,
                Err(error) if begun.elapsed() >= GIVE_UP_WITHIN => {
                    let told = self.tell.send_replace(Access::Denied(term));
                    if told != Access::Denied(term) {
                        tracing::warn!(%error, "the leader endpoint cannot be opened, trying on; clients are told \
                            this member's own address");
                    }
                }
                Err(_) => {}
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    /// Returns once no quorum has answered for too long.
    async fn out_of_touch(&self) {
        let mut without = 0;
        while without < LOOKS_MAX {
            sleep(LOOK_PERIOD).await;
            without = if self.group.holds_lease() {
                0
            } else {
                without + 1
            };
        }
    }
}

fn leads_in(role: &Role, term: u64) -> bool {
    role.serving && role.term == term
}

fn tell_closed(tell: &watch::Sender<Access>) {
    tell.send_replace(Access::Closed);
}
