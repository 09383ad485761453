//! A client's request on its way from the member that got it to the leader.

use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use raftmq_proto::frame::RemotingCommand;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tonic::{Code, Status};

use super::{Identity, Lane, Links};
use crate::pb;

/// Bytes of the length word in front of a remoting frame; it does not travel.
const LENGTH_WORD: usize = 4;
/// Longest time a forwarded request may be held, whatever its sender says.
const HOLD_MAX: Duration = Duration::from_secs(300);

/// Answers requests that other members forward here.
pub trait ForwardHandler: Send + Sync + 'static {
    /// Takes a request that a client sent to another member.
    ///
    /// Called on the runtime [`crate::Group::start`] was called on; must not block. `reply` may be
    /// called later and from any thread; dropping it answers the client with an error.
    fn handle(
        &self,
        request: RemotingCommand,
        from_client: SocketAddr,
        reply: Box<dyn FnOnce(RemotingCommand) + Send>,
    );
}

/// Why a request could not be forwarded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// No leader is known at the moment.
    #[error("the group has no leader at the moment")]
    NoLeader,
    /// This member leads; there is nobody to forward to.
    #[error("this member leads the group")]
    Leader,
    /// The leader was not reached. The request was not processed.
    #[error("leader {leader} cannot be reached: {cause}")]
    Unreachable {
        /// The leader's member id.
        leader: u64,
        /// What the connection said.
        cause: String,
    },
    /// Too many requests are being forwarded already. The request was not processed.
    #[error("{limit} requests are being forwarded already (raftForwardMax)")]
    Busy {
        /// The limit, here or at the leader.
        limit: usize,
    },
    /// The leader refused the request before processing it.
    #[error("leader {leader} refused the request: {cause}")]
    Refused {
        /// The leader's member id.
        leader: u64,
        /// What the leader said.
        cause: String,
    },
    /// No answer came. The request may or may not have been processed.
    #[error("no answer from leader {leader}: {cause}")]
    Unknown {
        /// The leader's member id.
        leader: u64,
        /// Why there is no answer.
        cause: String,
    },
}

/// Both ends of forwarding.
pub(crate) struct Forwarder {
    identity: Arc<Identity>,
    links: Arc<Links>,
    handler: Arc<dyn ForwardHandler>,
    /// The broker's runtime: clients' work stays off the Raft core's.
    runtime: Handle,
    limit: usize,
    sending: Semaphore,
    handling: Semaphore,
}

impl Forwarder {
    pub(crate) fn new(
        identity: Arc<Identity>,
        links: Arc<Links>,
        handler: Arc<dyn ForwardHandler>,
        runtime: Handle,
        limit: usize,
    ) -> Self {
        Forwarder {
            identity,
            links,
            handler,
            runtime,
            limit,
            sending: Semaphore::new(limit),
            handling: Semaphore::new(limit),
        }
    }

    /// Sends a request to the leader and waits for its answer.
    pub(crate) async fn send(
        &self,
        leader: u64,
        request: &RemotingCommand,
        client: SocketAddr,
        timeout: Duration,
    ) -> Result<RemotingCommand, ForwardError> {
        let Ok(_permit) = self.sending.try_acquire() else {
            return Err(ForwardError::Busy { limit: self.limit });
        };
        let link = {
            let _runtime = self.runtime.enter();
            self.links.link(leader, Lane::Forward)
        };
        let message = pb::ForwardRequest {
            hello: Some(self.identity.hello(leader)),
            client: client.to_string(),
            frame: request.encode().slice(LENGTH_WORD..),
            timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
        };
        let unreachable = |status: &Status| ForwardError::Unreachable {
            leader,
            cause: cause(status),
        };
        let mut stub = link.client().map_err(|status| unreachable(&status))?;
        let reply = match tokio::time::timeout(timeout, stub.forward(message)).await {
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(status)) => {
                link.failed();
                return Err(match status.code() {
                    _ if never_sent(&status) => unreachable(&status),
                    Code::ResourceExhausted => ForwardError::Busy { limit: self.limit },
                    Code::FailedPrecondition | Code::InvalidArgument => ForwardError::Refused {
                        leader,
                        cause: status.message().to_owned(),
                    },
                    _ => ForwardError::Unknown {
                        leader,
                        cause: cause(&status),
                    },
                });
            }
            Err(_elapsed) => {
                let cause = format!("no answer within {} ms", timeout.as_millis());
                return Err(ForwardError::Unknown { leader, cause });
            }
        };
        RemotingCommand::decode(reply.frame).map_err(|error| ForwardError::Unknown {
            leader,
            cause: error.to_string(),
        })
    }

    /// Has a request from another member answered by the broker.
    pub(crate) async fn answer(
        &self,
        request: pb::ForwardRequest,
    ) -> Result<pb::ForwardReply, Status> {
        let Ok(_permit) = self.handling.try_acquire() else {
            return Err(Status::resource_exhausted(format!(
                "{} forwarded requests are being processed already",
                self.limit
            )));
        };
        let client: SocketAddr = request.client.parse().map_err(|_unparsable| {
            Status::invalid_argument(format!("{:?} is not a client's address", request.client))
        })?;
        let (reply, answered) = oneshot::channel();
        let handler = self.handler.clone();
        let frame = request.frame;
        self.runtime.spawn(async move {
            match RemotingCommand::decode(frame) {
                Ok(command) => {
                    let reply = move |answer: RemotingCommand| {
                        // Nobody waits any more: the other member gave up or is gone.
                        drop(reply.send(Ok(answer)));
                    };
                    handler.handle(command, client, Box::new(reply));
                }
                Err(error) => {
                    drop(reply.send(Err(Status::invalid_argument(error.to_string()))));
                }
            }
        });
        let hold = Duration::from_millis(u64::from(request.timeout_ms)).min(HOLD_MAX);
        match tokio::time::timeout(hold, answered).await {
            Ok(Ok(Ok(answer))) => Ok(pb::ForwardReply {
                frame: answer.encode().slice(LENGTH_WORD..),
            }),
            Ok(Ok(Err(status))) => Err(status),
            Ok(Err(_dropped)) => Err(Status::internal(
                "the request was dropped without an answer",
            )),
            Err(_elapsed) => Err(Status::deadline_exceeded("no answer in time")),
        }
    }
}

/// True when the failure was met before anything was sent.
fn never_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The innermost reason: tonic's own text is "transport error".
pub(crate) fn cause(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = status.source();
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    text
}
