//! The leader endpoint (`leaderEndpoint`): one address that follows leadership.
//!
//! Whoever leads listens there too, on the port and on the one two below, and is registered as broker 0 with it. A
//! client that loses its leader then finds the next one where it looks anyway: it connects again, without a new route.
//!
//! One member at a time accepts there. Members on one machine share the listening sockets ([`sockets`]), so that a client that
//! connects while nobody leads waits for the next leader instead of being refused. Elsewhere, and wherever nobody shares
//! them, a leader that is deposed closes them, and the next one binds its own. They are bound without SO_REUSEPORT, with
//! which connections could reach a member that does not lead any more. A leader that can neither bind them nor is given
//! them advertises its own address until it can.

mod sockets;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use raftmq_raft::{Contact, Group, Role};
use raftmq_remoting::Server;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::broker::StartError;
use crate::ports::{ClientPorts, Pair};
use crate::runtime::{spawn, spawn_blocking};

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
/// How often a member asks a leader for its sockets at first, and for how long; after that it is believed to be on another
/// machine, and asked rarely.
const ASK_PERIOD: Duration = Duration::from_millis(20);
const ASK_WITHIN: Duration = Duration::from_secs(1);
const ASK_RARELY: Duration = Duration::from_secs(1);

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

/// The endpoint of a running member.
pub(crate) struct Endpoint {
    keeper: Arc<Keeper>,
    tasks: [JoinHandle<()>; 3],
}

impl Endpoint {
    /// Opens and closes as this member gains and loses leadership; `tell` hears of it. `peers` are the members of the
    /// conf, which may have the sockets if they are on this machine.
    pub(crate) fn start(
        group: Group,
        ports: ClientPorts,
        peers: Vec<u64>,
        tell: watch::Sender<Access>,
    ) -> Endpoint {
        let keeper = Arc::new(Keeper {
            group,
            ports,
            peers,
            tell,
            servers: Mutex::new(None),
            held: Mutex::new(None),
            shared: AtomicBool::new(false),
        });
        tell_closed(&keeper.tell);
        let [run, give, hold] = [0, 1, 2].map(|_| Arc::clone(&keeper));
        let tasks = [
            spawn(async move { run.run().await }),
            spawn(async move { give.give().await }),
            spawn(async move { hold.hold_along().await }),
        ];
        Endpoint { keeper, tasks }
    }

    /// Closes for good; returns once what is in flight is answered.
    pub(crate) async fn close(self) {
        for task in self.tasks {
            task.abort();
            // Cancelled, as wanted, unless it ended by itself.
            drop(task.await);
        }
        self.keeper.held.lock().take();
        let servers = self.keeper.servers.lock().take();
        if let Some([main, fast]) = servers {
            tokio::join!(main.shutdown(), fast.shutdown());
        }
    }
}

struct Keeper {
    group: Group,
    ports: ClientPorts,
    peers: Vec<u64>,
    tell: watch::Sender<Access>,
    /// While this member leads.
    servers: Mutex<Option<[Server; 2]>>,
    /// What it listens on when it leads.
    held: Mutex<Option<Pair>>,
    /// Whether another member may have what is held.
    shared: AtomicBool,
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
            // Dropped servers accept nothing from now on, so that the next leader can, and read nothing more: clients
            // connect again as soon as what is in flight is answered.
            if self.stop_serving() {
                tracing::info!(term, "the leader endpoint is closed here");
            }
            tell_closed(&self.tell);
        }
    }

    /// Whether this member served.
    fn stop_serving(&self) -> bool {
        let served = self.servers.lock().take().is_some();
        if !self.shared.load(Ordering::Acquire) || self.nobody_can_lead() {
            // Nobody would accept who waits there.
            self.held.lock().take();
        }
        served
    }

    fn nobody_can_lead(&self) -> bool {
        matches!(*self.group.contact().borrow(), Contact::Lost(_))
    }

    /// Opens for the leader of `term` whenever it is in touch with a quorum.
    async fn keep_open(&self, term: u64) {
        loop {
            let servers = self.open(term).await;
            *self.servers.lock() = Some(servers);
            self.tell.send_replace(Access::Open(term));
            tracing::info!(term, "the leader endpoint is open here");
            self.out_of_touch().await;
            self.stop_serving();
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

    /// Serves what is held, else binds the ports, else asks the others for them, until one of this works.
    async fn open(&self, term: u64) -> [Server; 2] {
        let begun = Instant::now();
        let mut pause = RETRY_PAUSE;
        loop {
            let error = match self.try_open().await {
                Ok(servers) => return servers,
                Err(error) => error,
            };
            if begun.elapsed() >= GIVE_UP_WITHIN {
                let told = self.tell.send_replace(Access::Denied(term));
                if told != Access::Denied(term) {
                    tracing::warn!(%error, "the leader endpoint cannot be opened, trying on; clients are told \
                        this member's own address");
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    async fn try_open(&self) -> Result<[Server; 2], StartError> {
        if self.held.lock().is_none() {
            match self.ports.bind() {
                Ok(pair) => self.hold(pair, false),
                Err(error) => {
                    let others = self.peers.iter().filter(|id| **id != self.group.self_id());
                    for member in others {
                        if self.ask(*member).await {
                            break;
                        }
                    }
                    if self.held.lock().is_none() {
                        return Err(error);
                    }
                }
            }
        }
        let pair = self.held.lock().as_ref().map(sockets::another);
        match pair {
            Some(Ok(pair)) => self.ports.serve(pair),
            Some(Err(error)) => Err(self.ports.unusable(0, error)),
            None => Err(self.ports.unusable(0, io::Error::other("it was let go of"))),
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

    /// Gives what is held to every member that asks.
    async fn give(&self) {
        let port = self.ports.addresses()[0].port();
        let name = sockets::name(self.group.name(), port, self.group.self_id());
        let listener = sockets::give_at(&name).and_then(UnixListener::from_std);
        let listener = match listener {
            Ok(listener) => listener,
            Err(error) => {
                tracing::warn!(%error, name, "members on this machine cannot share the leader endpoint");
                return;
            }
        };
        loop {
            let asking = match listener.accept().await {
                Ok((asking, _)) => asking,
                Err(error) => {
                    tracing::debug!(%error, "nobody could ask for the leader endpoint");
                    sleep(RETRY_PAUSE_MAX).await;
                    continue;
                }
            };
            let held = self.held.lock();
            if let Some(pair) = &*held {
                match sockets::give(&asking, pair) {
                    Ok(()) => self.shared.store(true, Ordering::Release),
                    Err(error) => tracing::debug!(%error, "the leader endpoint was not given away"),
                }
            }
        }
    }

    /// While another member leads: holds what that one listens on, if it is on this machine. While nobody leads, what was
    /// held before, until it is known that nobody can lead: who connects then is refused at once.
    async fn hold_along(&self) {
        let (mut role, mut contact) = (self.group.role(), self.group.contact());
        // The leader that is asked, since when, and whether it gave what is held.
        let mut followed: Option<(u64, Instant, bool)> = None;
        let mut pause = ASK_PERIOD;
        loop {
            tokio::select! {
                changed = role.changed() => if changed.is_err() {
                    return;
                },
                changed = contact.changed() => if changed.is_err() {
                    return;
                },
                () = sleep(pause) => {}
            }
            pause = ASK_RARELY;
            let leader = role.borrow_and_update().leader;
            contact.mark_unchanged();
            if self.nobody_can_lead() {
                self.let_go();
                followed = None;
                continue;
            }
            let Some(leader) = leader else {
                continue;
            };
            if leader == self.group.self_id() {
                followed = None;
                continue;
            }
            let (since, given) = match followed {
                Some((known, since, given)) if known == leader => (since, given),
                _ => (Instant::now(), false),
            };
            let given = given || self.ask(leader).await;
            followed = Some((leader, since, given));
            if given {
                continue;
            }
            if since.elapsed() < ASK_WITHIN {
                pause = ASK_PERIOD;
            } else {
                self.let_go();
            }
        }
    }

    /// Asks a member for its sockets; whether it gave them.
    async fn ask(&self, member: u64) -> bool {
        let addresses = self.ports.addresses();
        let name = sockets::name(self.group.name(), addresses[0].port(), member);
        let asked = spawn_blocking(move || sockets::ask(&name, addresses)).await;
        match asked {
            Ok(Ok(pair)) => {
                self.hold(pair, true);
                true
            }
            Ok(Err(error)) => {
                tracing::trace!(%error, member, "no sockets of the leader endpoint");
                false
            }
            Err(_panicked) => false,
        }
    }

    fn hold(&self, pair: Pair, shared: bool) {
        self.shared.store(shared, Ordering::Release);
        *self.held.lock() = Some(pair);
    }

    /// Holds nothing any more, unless it is served.
    fn let_go(&self) {
        let serving = self.servers.lock();
        if serving.is_none() {
            self.held.lock().take();
        }
    }
}

fn leads_in(role: &Role, term: u64) -> bool {
    role.serving && role.term == term
}

fn tell_closed(tell: &watch::Sender<Access>) {
    tell.send_replace(Access::Closed);
}
