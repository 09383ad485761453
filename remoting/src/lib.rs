//! Remoting over TCP: a server and a client for RocketMQ's request frames.
//!
//! The crate knows frames, connections and who waits for which answer. It does not know what a request means: that is
//! the [`Handler`]'s business. RocketMQ: `NettyRemotingServer`, `NettyRemotingClient`.
//!
//! ```text
//!  socket ─▶ reader task ─▶ frames ─▶ Handler::handle(request, responder)     a request of the peer
//!                                └──▶ in-flight table ─▶ Connection::request  an answer to a request of ours
//!  socket ◀─ writer task ◀─ write queue ◀─ Responder::reply | Connection::{request, send_oneway}
//! ```
//!
//! Two tasks per connection and none per request. The reader takes as many frames as a read brought; the writer takes
//! as many commands as are queued and puts them into one vectored write. Bodies are handed through as they are.
//!
//! Everything a peer can make grow has a bound: the frame, the number and bytes of requests being worked on (the reader
//! pauses), held requests, unsent answers (the connection is closed), silence (idle close) and the number of connections.

mod client;
mod connection;
mod error;
mod frames;
mod pending;
mod preface;
mod responder;
mod server;
mod write_queue;

pub use client::{Client, ClientOptions};
pub use connection::Connection;
pub use error::ClientError;
pub use responder::Responder;
pub use server::{Server, ServerOptions, listen};

use raftmq_proto::frame::RemotingCommand;

/// Takes the requests of peers, on a server or on the client side of a connection.
pub trait Handler: Send + Sync + 'static {
    /// Handles one request.
    ///
    /// Called on the connection's read task, in the order of arrival: it must not block. Longer work is spawned, or
    /// completed later through the responder, which may be sent to any thread.
    fn handle(&self, request: RemotingCommand, responder: Responder);

    /// A connection is open and its peer address known. Called before its first request.
    fn opened(&self, connection: &Connection) {
        let _ = connection;
    }

    /// A connection that was reported as opened is gone. Called once, after its last request.
    fn closed(&self, connection: &Connection) {
        let _ = connection;
    }
}
