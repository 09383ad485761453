//! What the tests of both sides share: a handler that does as the request code says, and a raw socket.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use raftmq_proto::frame::RemotingCommand;
use raftmq_remoting::{Connection, Handler, Responder, Server, ServerOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Answered at once with the request's body.
pub(crate) const ECHO: i32 = 1;
/// Kept until the test answers it.
pub(crate) const KEEP: i32 = 2;
/// Dropped.
pub(crate) const DROP: i32 = 3;
/// Held, and kept until the test answers it.
pub(crate) const HOLD: i32 = 4;
/// Answered with a body of 64 KiB.
pub(crate) const LARGE: i32 = 5;
/// Makes the handler panic.
pub(crate) const PANIC: i32 = 6;

/// Longer than anything here should take, also on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(crate) struct Scripted {
    pub(crate) kept: Mutex<Vec<(RemotingCommand, Responder)>>,
    pub(crate) handled: Mutex<Vec<RemotingCommand>>,
    pub(crate) opened: Mutex<Vec<Connection>>,
    pub(crate) closed: Mutex<Vec<u64>>,
}

impl Handler for Scripted {
    fn handle(&self, request: RemotingCommand, mut responder: Responder) {
        self.handled.lock().push(request.clone());
        match request.code {
            ECHO => responder.reply(RemotingCommand::success().with_body(request.body)),
            KEEP => self.kept.lock().push((request, responder)),
            HOLD => {
                responder.hold();
                self.kept.lock().push((request, responder));
            }
            LARGE => responder.reply(RemotingCommand::success().with_body(vec![7; 64 * 1024])),
            PANIC => panic!("a handler's mistake"),
            _ => drop(responder),
        }
    }

    fn opened(&self, connection: &Connection) {
        self.opened.lock().push(connection.clone());
    }

    fn closed(&self, connection: &Connection) {
        self.closed.lock().push(connection.id());
    }
}

pub(crate) fn options() -> ServerOptions {
    ServerOptions::new("127.0.0.1:0".parse().unwrap())
}

pub(crate) fn serve(options: ServerOptions) -> (Server, Arc<Scripted>) {
    let handler = Arc::new(Scripted::default());
    let server = Server::bind(options, Arc::clone(&handler) as Arc<dyn Handler>).unwrap();
    (server, handler)
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waited = timeout(SOON, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "never happened: {what}");
}

pub(crate) fn request(code: i32, opaque: i32, body: impl Into<Vec<u8>>) -> RemotingCommand {
    let mut command = RemotingCommand::request(code).with_body(body.into());
    command.opaque = opaque;
    command
}

/// A client that speaks bytes.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    buffer: BytesMut,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).await.unwrap())
    }

    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn send_all(&mut self, commands: &[RemotingCommand]) {
        let bytes: Vec<u8> = commands
            .iter()
            .flat_map(|command| command.encode())
            .collect();
        self.send(&bytes).await;
    }

    /// The next command; `None` at the end of the stream.
    pub(crate) async fn receive(&mut self) -> Option<RemotingCommand> {
        loop {
            if let Some(word) = self.buffer.first_chunk::<4>() {
                let len = 4 + u32::from_be_bytes(*word) as usize;
                if self.buffer.len() >= len {
                    let frame: Bytes = self.buffer.split_to(len).freeze();
                    return Some(RemotingCommand::decode(frame.slice(4..)).unwrap());
                }
            }
            let read = timeout(SOON, self.stream.read_buf(&mut self.buffer));
            match read.await.expect("nothing received in time") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Waits for the server to end the connection without having sent anything more.
    pub(crate) async fn expect_closed(&mut self) {
        assert_eq!(self.receive().await, None);
        assert!(self.buffer.is_empty(), "closed within a frame");
    }

    /// That nothing comes for a while.
    pub(crate) async fn expect_silence(&mut self, a_while: Duration) {
        let silent = timeout(a_while, self.stream.read_buf(&mut self.buffer)).await;
        assert!(silent.is_err(), "received {silent:?}");
    }
}
