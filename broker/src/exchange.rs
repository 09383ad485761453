//! One request on its way to its answer, whoever brought it: a client's connection or another member of the group.

use std::net::SocketAddr;
use std::time::Instant;

use raftmq_proto::code::response;
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{Header, HeaderError};
use raftmq_remoting::{Connection, Responder};

/// Why a request is not done: the wire code and the text that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: i32,
    pub(crate) remark: String,
}

impl Refusal {
    pub(crate) fn new(code: i32, remark: impl Into<String>) -> Refusal {
        Refusal {
            code,
            remark: remark.into(),
        }
    }

    /// A fault of ours, or input that has no better code.
    pub(crate) fn error(remark: impl Into<String>) -> Refusal {
        Refusal::new(response::SYSTEM_ERROR, remark)
    }

    /// Nothing was done; the client may try again at once.
    pub(crate) fn busy(remark: impl Into<String>) -> Refusal {
        Refusal::new(response::SYSTEM_BUSY, remark)
    }

    /// A parameter outside its range.
    pub(crate) fn invalid(remark: impl Into<String>) -> Refusal {
        Refusal::new(response::INVALID_PARAMETER, remark)
    }

    /// A message that may not be stored.
    pub(crate) fn illegal(remark: impl Into<String>) -> Refusal {
        Refusal::new(response::MESSAGE_ILLEGAL, remark)
    }

    pub(crate) fn into_response(self) -> RemotingCommand {
        RemotingCommand::failure(self.code, self.remark)
    }
}

impl From<HeaderError> for Refusal {
    fn from(error: HeaderError) -> Refusal {
        Refusal::error(error.to_string())
    }
}

/// The typed header of a request.
pub(crate) fn header<H: Header>(request: &RemotingCommand) -> Result<H, Refusal> {
    Ok(H::decode(&request.ext_fields)?)
}

/// What a processor returns.
pub(crate) type Outcome = Result<RemotingCommand, Refusal>;

/// Completes a request that another member forwarded.
pub(crate) type PeerReply = Box<dyn FnOnce(RemotingCommand) + Send>;

/// A request and the way its answer goes. Dropped without an answer it says so to the client.
pub(crate) struct Exchange {
    pub(crate) request: RemotingCommand,
    client: SocketAddr,
    arrived: Instant,
    way: Way,
}

enum Way {
    Client(Responder),
    Peer(PeerAnswer),
}

struct PeerAnswer(Option<PeerReply>);

impl Drop for PeerAnswer {
    fn drop(&mut self) {
        if let Some(reply) = self.0.take() {
            reply(Refusal::error("the request was dropped without an answer").into_response());
        }
    }
}

impl Exchange {
    /// A request that came over a client's connection.
    pub(crate) fn from_client(request: RemotingCommand, responder: Responder) -> Exchange {
        let client = responder.connection().peer();
        Exchange {
            request,
            client,
            arrived: Instant::now(),
            way: Way::Client(responder),
        }
    }

    /// A request of `client` that another member forwarded.
    pub(crate) fn from_peer(
        request: RemotingCommand,
        client: SocketAddr,
        reply: PeerReply,
    ) -> Exchange {
        Exchange {
            request,
            client,
            arrived: Instant::now(),
            way: Way::Peer(PeerAnswer(Some(reply))),
        }
    }

    /// The client's address, also when a member stands between.
    pub(crate) fn client(&self) -> SocketAddr {
        self.client
    }

    /// When the request reached this member.
    pub(crate) fn arrived(&self) -> Instant {
        self.arrived
    }

    /// The client's connection; a forwarded request has none here.
    pub(crate) fn connection(&self) -> Option<&Connection> {
        match &self.way {
            Way::Client(responder) => Some(responder.connection()),
            Way::Peer(_) => None,
        }
    }

    /// Whether another member forwarded it: such a request goes no further.
    pub(crate) fn is_forwarded(&self) -> bool {
        matches!(self.way, Way::Peer(_))
    }

    /// The typed header.
    pub(crate) fn header<H: Header>(&self) -> Result<H, Refusal> {
        header(&self.request)
    }

    /// The request will wait long for its answer, on purpose: it no longer counts as work in flight.
    pub(crate) fn hold(&mut self) {
        if let Way::Client(responder) = &mut self.way {
            responder.hold();
        }
    }

    /// Answers.
    pub(crate) fn answer(self, answer: RemotingCommand) {
        match self.way {
            Way::Client(responder) => responder.reply(answer),
            Way::Peer(mut peer) => {
                if let Some(reply) = peer.0.take() {
                    reply(answer);
                }
            }
        }
    }

    /// Answers with a refusal.
    pub(crate) fn refuse(self, refusal: Refusal) {
        tracing::debug!(
            code = self.request.code,
            client = %self.client,
            answer = refusal.code,
            remark = refusal.remark,
            "request refused"
        );
        self.answer(refusal.into_response());
    }

    /// Answers with whatever a processor returned.
    pub(crate) fn finish(self, outcome: Outcome) {
        match outcome {
            Ok(answer) => self.answer(answer),
            Err(refusal) => self.refuse(refusal),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn exchange() -> (Exchange, mpsc::Receiver<RemotingCommand>) {
        let (sender, receiver) = mpsc::channel();
        let reply: PeerReply = Box::new(move |answer| sender.send(answer).unwrap());
        let client = SocketAddr::from(([127, 0, 0, 1], 1));
        (
            Exchange::from_peer(RemotingCommand::request(10), client, reply),
            receiver,
        )
    }

    #[test]
    fn a_forwarded_request_is_answered_exactly_once() {
        let (answered, answers) = exchange();
        answered.finish(Ok(RemotingCommand::success()));
        assert_eq!(
            answers.iter().map(|answer| answer.code).collect::<Vec<_>>(),
            [response::SUCCESS]
        );

        let (dropped, answers) = exchange();
        drop(dropped);
        assert_eq!(
            answers.iter().map(|answer| answer.code).collect::<Vec<_>>(),
            [response::SYSTEM_ERROR]
        );
    }
}
