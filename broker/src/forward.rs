//! Takes a request to the leader, wherever it is: any member takes any client request.
//!
//! One hop at most: a request that another member forwarded is answered here, or refused with a mark that lets the
//! other member look for the leader again. While an election runs, requests wait for its outcome; when none can come
//! about, they are refused at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use raftmq_proto::code::{request, response};
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::FORWARDED_FIELD;
use raftmq_raft::{Contact, ForwardError, Group, Loss, Role, RoleState};
use tokio::sync::Semaphore;

use crate::exchange::{Exchange, Refusal};
use crate::runtime::Runtime;

/// How long a request waits for a leader. Stock clients give a send 3 s.
const LEADER_WAIT: Duration = Duration::from_millis(2500);
/// How long the leader may take over a forwarded request that is not held.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(5);
/// How soon a leader that could not be reached is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How long a forwarded request waits at a member that was elected and does not serve yet.
const ELECTED_WAIT: Duration = Duration::from_millis(500);
/// Memory for requests that wait for the leader or for its answer, in KiB.
const ROOM_KIB: usize = 256 * 1024;

/// Marks the refusal of a forwarded request by a member that does not lead (any more): nothing was done.
const NOT_LEADER_FIELD: &str = "raftmqNotLeader";

/// Takes a request on.
pub(crate) type Run = Arc<dyn Fn(Exchange) + Send + Sync>;

/// What to do with a request once it is known who leads.
#[derive(Clone)]
pub(crate) struct Route {
    /// Runs it on this member, which leads.
    pub(crate) here: Run,
    /// Runs it on this member although it does not lead, for requests that may be answered so when the leader cannot
    /// be reached.
    pub(crate) otherwise: Option<Run>,
    /// Whether it waits for an election; what this member answers as well without a leader need not.
    pub(crate) waits: bool,
}

/// Finds the leader for requests that only it can answer.
pub(crate) struct Forwarder {
    group: Group,
    self_id: u64,
    room: Arc<Semaphore>,
    runtime: Runtime,
}

impl Forwarder {
    pub(crate) fn new(group: Group, self_id: u64, runtime: Runtime) -> Forwarder {
        Forwarder {
            group,
            self_id,
            room: Arc::new(Semaphore::new(ROOM_KIB)),
            runtime,
        }
    }

    /// Whether this member leads and may answer.
    pub(crate) fn leads_here(&self) -> bool {
        self.group.serves()
    }

    /// Whether another member leads and lives, as far as this one can tell.
    pub(crate) fn hears_leader(&self) -> bool {
        let leader = self.group.role().borrow().leader;
        leader.is_some_and(|leader| leader != self.self_id)
            && *self.group.contact().borrow() == Contact::Led
    }

    /// Why nobody can lead, if that is so.
    fn loss(&self) -> Option<Arc<Loss>> {
        match &*self.group.contact().borrow() {
            Contact::Lost(loss) => Some(Arc::clone(loss)),
            Contact::Led | Contact::Electing => None,
        }
    }

    /// Takes the request to the leader, which is not this member at the moment.
    pub(crate) fn to_leader(self: &Arc<Self>, exchange: Exchange, route: &Route) {
        self.look_for_leader(exchange, route, Duration::ZERO);
    }

    /// The same for a request that this member could not carry out after all, and of which nothing was done.
    pub(crate) fn again(self: &Arc<Self>, exchange: Exchange, route: &Route) {
        // Without the pause a leader out of touch with its quorum would hand the request to itself in a circle.
        self.look_for_leader(exchange, route, RETRY_PAUSE);
    }

    fn look_for_leader(self: &Arc<Self>, mut exchange: Exchange, route: &Route, pause: Duration) {
        let Role { leader, state, .. } = *self.group.role().borrow();
        let loss = self.loss();
        if exchange.is_forwarded() {
            if state != RoleState::Leader || !pause.is_zero() || loss.is_some() {
                return refuse_forwarded(exchange, leader);
            }
            // Elected just now: its first entry is on its way.
            let (mut role, here) = (self.group.role(), Arc::clone(&route.here));
            self.runtime.spawn(async move {
                let serving = role.wait_for(|role| role.serving || role.state != RoleState::Leader);
                match tokio::time::timeout(ELECTED_WAIT, serving).await {
                    Ok(Ok(role)) if role.serving => {
                        drop(role);
                        here(exchange);
                    }
                    _ => refuse_forwarded(exchange, leader),
                }
            });
            return;
        }
        if let Some(loss) = loss {
            return self.end(exchange, route, &loss);
        }
        if exchange.arrived() + LEADER_WAIT <= Instant::now() {
            return give_up(exchange, route, leader);
        }
        let kib = u32::try_from(1 + exchange.request.body.len() / 1024).unwrap_or(u32::MAX);
        let Ok(permit) = Arc::clone(&self.room).try_acquire_many_owned(kib) else {
            return exchange.refuse(Refusal::busy(format!(
                "requests that wait for the leader hold more than {} MiB on this member",
                ROOM_KIB / 1024
            )));
        };
        if is_pull(exchange.request.code) {
            exchange.hold();
        }
        let forwarder = Arc::clone(self);
        let route = route.clone();
        self.runtime.spawn(async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            forwarder.find_and_run(exchange, &route).await;
            drop(permit);
        });
    }

    async fn find_and_run(&self, exchange: Exchange, route: &Route) {
        let deadline = exchange.arrived() + LEADER_WAIT;
        let (mut role, mut contact) = (self.group.role(), self.group.contact());
        loop {
            let known = *role.borrow_and_update();
            if let Contact::Lost(loss) = contact.borrow_and_update().clone() {
                return self.end(exchange, route, &loss);
            }
            if known.serving {
                return (route.here)(exchange);
            }
            if known.leader.is_some_and(|leader| leader != self.self_id) {
                let (request, client) = (exchange.request.clone(), exchange.client());
                match self.forward(request, client, route.waits).await {
                    Ok(mut reply) => {
                        if !reply.ext_fields.remove(NOT_LEADER_FIELD) {
                            return exchange.answer(reply.with_field(FORWARDED_FIELD, "true"));
                        }
                    }
                    Err(Unanswered::Unknown(why)) => {
                        return match &route.otherwise {
                            Some(otherwise) => otherwise(exchange),
                            None => {
                                exchange.refuse(Refusal::error(format!("outcome unknown: {why}")))
                            }
                        };
                    }
                    Err(Unanswered::NotDone(error)) => {
                        tracing::debug!(%error, "request not forwarded, looking for the leader again")
                    }
                }
            }
            let now = Instant::now();
            if now >= deadline || !route.waits {
                return give_up(exchange, route, known.leader);
            }
            // A change ends the wait; the pause covers a leader that is known and not reachable yet.
            let pause = RETRY_PAUSE.min(deadline - now);
            let changed = async {
                tokio::select! {
                    changed = role.changed() => changed,
                    changed = contact.changed() => changed,
                }
            };
            if matches!(tokio::time::timeout(pause, changed).await, Ok(Err(_))) {
                return exchange.refuse(Refusal::busy("this member is shutting down"));
            }
        }
    }

    /// Waits for the leader's answer as long as there is one to wait for.
    async fn forward(
        &self,
        request: RemotingCommand,
        client: SocketAddr,
        waits: bool,
    ) -> Result<RemotingCommand, Unanswered> {
        let timeout = forward_timeout(&request);
        let mut contact = self.group.contact();
        let gone = async {
            let is_gone = |contact: &Contact| match contact {
                Contact::Led => false,
                // It may be slow to say that it lives, and what it was sent it may do.
                Contact::Electing => !waits,
                Contact::Lost(_) => true,
            };
            let found = contact.wait_for(is_gone).await;
            match found.map(|contact| contact.clone()) {
                Ok(Contact::Lost(loss)) => Unanswered::Unknown(self.text(&loss)),
                Ok(_) => Unanswered::Unknown("the leader is not heard any more".to_owned()),
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            reply = self.group.forward(request, client, timeout) => {
                reply.map_err(|error| match error {
                    ForwardError::Unknown { .. } => Unanswered::Unknown(error.to_string()),
                    error => Unanswered::NotDone(error),
                })
            }
            gone = gone => Err(gone),
        }
    }

    /// Nobody can lead, so there is nothing to wait for.
    fn end(&self, exchange: Exchange, route: &Route, loss: &Loss) {
        match &route.otherwise {
            Some(otherwise) => otherwise(exchange),
            None => exchange.refuse(Refusal::new(
                response::SERVICE_NOT_AVAILABLE,
                format!("{}; nothing was done, try again", self.text(loss)),
            )),
        }
    }

    fn text(&self, loss: &Loss) -> String {
        format!("group {} has {loss}", self.group.name())
    }
}

/// Why the leader did not answer.
enum Unanswered {
    /// It may have done what it was asked.
    Unknown(String),
    /// It did nothing.
    NotDone(ForwardError),
}

fn refuse_forwarded(exchange: Exchange, leader: Option<u64>) {
    let refusal = Refusal::busy(not_leader_text(leader));
    exchange.answer(refusal.into_response().with_field(NOT_LEADER_FIELD, "true"));
}

fn give_up(exchange: Exchange, route: &Route, leader: Option<u64>) {
    match &route.otherwise {
        Some(otherwise) => otherwise(exchange),
        None => exchange.refuse(Refusal::busy(format!(
            "{} and was not reached within {} ms; nothing was done, try again",
            not_leader_text(leader),
            LEADER_WAIT.as_millis()
        ))),
    }
}

fn not_leader_text(leader: Option<u64>) -> String {
    match leader {
        Some(leader) => format!("this member is not the leader, n{leader} is"),
        None => "the group has no leader at the moment".to_owned(),
    }
}

fn is_pull(code: i32) -> bool {
    matches!(code, request::PULL_MESSAGE | request::LITE_PULL_MESSAGE)
}

/// A pull may be held at the leader for as long as its client asks.
fn forward_timeout(request: &RemotingCommand) -> Duration {
    if !is_pull(request.code) {
        return FORWARD_TIMEOUT;
    }
    let held = request
        .ext_fields
        .get("suspendTimeoutMillis")
        .and_then(|text| text.parse().ok());
    FORWARD_TIMEOUT + Duration::from_millis(held.unwrap_or(0u64).min(crate::pull::HOLD_MAX_MS))
}
