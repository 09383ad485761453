//! Calls to a broker group, followed through its failovers (see [`crate::retry`] for the rules).

use std::time::Duration;

use raftmq_proto::code::response;
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::FORWARDED_FIELD;
use raftmq_remoting::ClientError;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::instance::Inner;
use crate::retry::{Verdict, judge_code};
use crate::route::BrokerGroup;
use crate::routes::Known;

/// Pause between two rounds over the members of a group that is in failover.
const ROUND_PAUSE: Duration = Duration::from_millis(50);

/// Where a call is to go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) topic: &'a str,
    pub(crate) broker_name: &'a str,
    /// The member that should serve; 0 is the leader.
    pub(crate) broker_id: i64,
}

/// How long and how often a call is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Begin and length of the whole call.
    pub(crate) begun: Instant,
    pub(crate) allowed: Duration,
    /// Longest wait for one attempt.
    pub(crate) attempt: Duration,
    /// Attempts that may end in an error about the request itself or without outcome.
    pub(crate) counted_max: u32,
    /// Rounds over the members of the group.
    pub(crate) rounds_max: u32,
    /// Whether an attempt is given up when the route names another leader, as held pulls want.
    pub(crate) follow_leader: bool,
    /// Which response codes are an answer rather than a failure.
    pub(crate) accepts: fn(i32) -> bool,
}

impl Plan {
    pub(crate) fn new(allowed: Duration, attempt: Duration) -> Plan {
        Plan {
            begun: Instant::now(),
            allowed,
            attempt,
            counted_max: 3,
            rounds_max: u32::MAX,
            follow_leader: false,
            accepts: |code| code == response::SUCCESS,
        }
    }

    pub(crate) fn remaining(&self) -> Duration {
        self.allowed.saturating_sub(self.begun.elapsed())
    }
}

/// An accepted answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) reply: RemotingCommand,
    pub(crate) address: String,
    pub(crate) attempts: u32,
}

/// A call that failed, and whether another broker group may be asked instead.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) verdict: Verdict,
    pub(crate) attempts: u32,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        failure.error
    }
}

/// What has been tried so far.
#[derive(Default)]
struct Attempts {
    made: u32,
    counted: u32,
    last: Option<Error>,
}

impl Attempts {
    fn fail(&self, error: Error, verdict: Verdict) -> Failure {
        Failure {
            error,
            verdict,
            attempts: self.made,
        }
    }

    fn deadline(&mut self, plan: &Plan) -> Failure {
        let last = self.last.take().map(Box::new);
        self.fail(
            Error::Deadline {
                allowed: plan.allowed,
                last,
            },
            Verdict::GiveUp,
        )
    }
}

impl Inner {
    /// One request to one address.
    pub(crate) async fn call_address(
        &self,
        address: &str,
        request: RemotingCommand,
        timeout: Duration,
    ) -> Result<RemotingCommand> {
        if self.is_closed() {
            return Err(Error::Closed);
        }
        self.remoting
            .invoke(address, request, timeout)
            .await
            .map_err(|cause| Error::Connection {
                address: address.to_owned(),
                cause,
            })
    }

    /// Sends a oneway request to the first member of a group that a connection can be made to.
    pub(crate) async fn oneway(
        &self,
        target: Target<'_>,
        request: &RemotingCommand,
        timeout: Duration,
    ) -> Result<()> {
        let topic = self.routes.topic(target.topic)?;
        let (order, _) = self.order(target, &topic.known());
        let mut failure = Error::NoRoute {
            topic: target.topic.to_owned(),
        };
        for address in order {
            if self.is_closed() {
                return Err(Error::Closed);
            }
            match self
                .remoting
                .invoke_oneway(&address, request.clone(), timeout)
                .await
            {
                Ok(()) => return Ok(()),
                Err(cause) => {
                    self.experience.failed(&address, std::time::Instant::now());
                    self.routes
                        .watch_failover(&topic, target.broker_name, &address);
                    failure = Error::Connection { address, cause };
                }
            }
        }
        Err(failure)
    }

    /// Sends a request to a broker group and follows it through a failover: members are tried in turn,
    /// the route is watched meanwhile, until the plan's end.
    pub(crate) async fn call(
        &self,
        target: Target<'_>,
        plan: &Plan,
        request: &RemotingCommand,
    ) -> std::result::Result<Answer, Failure> {
        let mut attempts = Attempts::default();
        let topic = match self.routes.topic(target.topic) {
            Ok(topic) => topic,
            Err(error) => return Err(attempts.fail(error, Verdict::GiveUp)),
        };
        let mut route_changes = topic.subscribe();
        for _round in 0..plan.rounds_max {
            let known = route_changes.borrow_and_update().clone();
            let (order, leader) = self.order(target, &known);
            for address in order {
                if self.is_closed() {
                    return Err(attempts.fail(Error::Closed, Verdict::GiveUp));
                }
                let remaining = plan.remaining();
                if remaining.is_zero() {
                    return Err(attempts.deadline(plan));
                }
                attempts.made += 1;
                let invocation =
                    self.remoting
                        .invoke(&address, request.clone(), plan.attempt.min(remaining));
                let outcome = if plan.follow_leader {
                    let moved =
                        leader_moves(&mut route_changes, target.broker_name, leader.as_deref());
                    tokio::select! {
                        outcome = invocation => outcome,
                        () = moved => break,
                    }
                } else {
                    invocation.await
                };
                let (error, verdict) = match self.judge(&address, outcome, plan.accepts) {
                    Ok(reply) => {
                        let asked_leader = leader.as_ref() == Some(&address);
                        if asked_leader && reply.ext_fields.get(FORWARDED_FIELD).is_some() {
                            // The route is out of date; who served may be about to stop.
                            self.routes
                                .watch_failover(&topic, target.broker_name, &address);
                        }
                        self.experience
                            .served(target.broker_name, &address, leader.as_deref());
                        return Ok(Answer {
                            reply,
                            address,
                            attempts: attempts.made,
                        });
                    }
                    Err(failed) => failed,
                };
                tracing::debug!(%error, ?verdict, "attempt failed");
                attempts.counted += u32::from(verdict == Verdict::Again);
                if verdict == Verdict::GiveUp || attempts.counted >= plan.counted_max {
                    return Err(attempts.fail(error, verdict));
                }
                attempts.last = Some(error);
                if leader.as_ref().is_none_or(|leader| *leader == address) {
                    self.routes
                        .watch_failover(&topic, target.broker_name, &address);
                }
                if route_changes.has_changed().unwrap_or(false) {
                    break;
                }
            }
            let pause = ROUND_PAUSE.min(plan.remaining());
            if pause.is_zero() {
                return Err(attempts.deadline(plan));
            }
            tokio::select! {
                // An error would mean that the topic's entry is gone; the pause still bounds the loop.
                Ok(()) = route_changes.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        let no_route = || Error::NoRoute {
            topic: target.topic.to_owned(),
        };
        let error = attempts.last.take().unwrap_or_else(no_route);
        Err(attempts.fail(error, Verdict::Elsewhere))
    }

    /// Whom to try, in this order, and who leads by the route.
    fn order(&self, target: Target<'_>, known: &Known) -> (Vec<String>, Option<String>) {
        let group = known
            .route(true)
            .and_then(|route| route.group(target.broker_name));
        let Some(group) = group else {
            return (Vec::new(), None);
        };
        let (name, members) = (target.broker_name, group.members.as_slice());
        let now = std::time::Instant::now();
        let order = self.experience.order(name, members, target.broker_id, now);
        (order, group.leader().map(ToOwned::to_owned))
    }

    /// The reply, if it is an answer; else what is wrong and what follows from it.
    fn judge(
        &self,
        address: &str,
        outcome: std::result::Result<RemotingCommand, ClientError>,
        accepts: fn(i32) -> bool,
    ) -> std::result::Result<RemotingCommand, (Error, Verdict)> {
        let address = address.to_owned();
        let cause = match outcome {
            Ok(reply) if accepts(reply.code) => return Ok(reply),
            Ok(reply) => {
                let verdict = judge_code(reply.code);
                let remark = reply.remark.unwrap_or_default();
                return Err((
                    Error::Refused {
                        address,
                        code: reply.code,
                        remark,
                    },
                    verdict,
                ));
            }
            Err(cause) => cause,
        };
        let verdict = match &cause {
            ClientError::TooLarge { .. } => Verdict::GiveUp,
            // The member may be fine: a bound of this side was reached.
            ClientError::TooManyInFlight { .. } => Verdict::Elsewhere,
            ClientError::Timeout { .. } => {
                self.experience.failed(&address, std::time::Instant::now());
                Verdict::Again
            }
            ClientError::Connect { .. } | ClientError::Closed { .. } => {
                self.experience.failed(&address, std::time::Instant::now());
                Verdict::Elsewhere
            }
        };
        Err((Error::Connection { address, cause }, verdict))
    }
}

/// Resolves when the route names a leader of `broker_name` that is not `leader`.
async fn leader_moves(
    changes: &mut watch::Receiver<Known>,
    broker_name: &str,
    leader: Option<&str>,
) {
    loop {
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
        let known = changes.borrow_and_update();
        let group = known.route(true).and_then(|route| route.group(broker_name));
        if let Some(now) = group.and_then(BrokerGroup::leader)
            && Some(now) != leader
        {
            return;
        }
    }
}
