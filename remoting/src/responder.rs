//! The place where a request's answer goes.

use raftmq_proto::code::response;
use raftmq_proto::frame::{RemotingCommand, RequestMeta};

use crate::connection::Connection;
use crate::write_queue::Share;

/// Takes the answer to one request, from any thread, at any time.
///
/// Dropped without an answer it answers `SYSTEM_ERROR`, so that no caller waits for nothing. A oneway request is never
/// answered, whatever is done here.
#[must_use = "dropping it answers SYSTEM_ERROR"]
pub struct Responder {
    connection: Connection,
    request: RequestMeta,
    /// What the request takes of the connection's in-flight bound until its answer is written.
    share: Share,
    held: bool,
    answered: bool,
}

impl Responder {
    pub(crate) fn new(connection: Connection, request: RequestMeta, share: Share) -> Self {
        Self {
            connection,
            request,
            share,
            held: false,
            answered: false,
        }
    }

    /// Answers the request: number, header encoding and flags of the answer are set here. After the connection is
    /// closed this does nothing.
    pub fn reply(mut self, answer: RemotingCommand) {
        self.answer(answer);
    }

    /// Who asked.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// What of the request an answer depends on.
    pub fn request(&self) -> &RequestMeta {
        &self.request
    }

    /// Whether nobody waits for an answer.
    pub fn is_oneway(&self) -> bool {
        self.request.oneway
    }

    /// Says that the request is parked (a long poll): it stops counting against the connection's in-flight bound, so
    /// that parked requests never keep the others from being read. Held requests have a bound of their own; beyond it
    /// they keep counting.
    pub fn hold(&mut self) {
        if !self.held && self.connection.hold_one(self.share) {
            self.held = true;
            self.share = Share::default();
        }
    }

    fn answer(&mut self, mut answer: RemotingCommand) {
        self.answered = true;
        if std::mem::take(&mut self.held) {
            self.connection.unhold_one();
        }
        if self.request.oneway {
            self.connection.release(self.share);
        } else {
            answer.reply_to(&self.request);
            self.connection.push_answer(answer, self.share);
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if !self.answered {
            let text = format!(
                "request {} was dropped without an answer",
                self.request.code
            );
            self.answer(RemotingCommand::failure(response::SYSTEM_ERROR, text));
        }
    }
}

impl std::fmt::Debug for Responder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Responder")
            .field("peer", &self.connection.peer())
            .field("request", &self.request)
            .field("held", &self.held)
            .finish()
    }
}
