//! A pool of connections to servers, one per address.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use raftmq_proto::code::response;
use raftmq_proto::frame::{FRAME_MAX, RemotingCommand};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::Handler;
use crate::connection::{Connection, Limits};
use crate::error::ClientError;
use crate::responder::Responder;

/// How a [`Client`] connects and what it allows on one connection.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Longest time for name resolution and connecting together.
    pub connect_timeout: Duration,
    /// A connection without a byte in either direction for this long is closed.
    pub idle: Duration,
    /// Requests to one address that may wait for their answer.
    pub in_flight_max: usize,
    /// Bytes to one address that may wait to be sent.
    pub write_queue_bytes_max: usize,
    /// A write without progress for this long ends the connection.
    pub write_stall: Duration,
    /// Longest frame in bytes, its length word included.
    pub frame_max: usize,
    /// Addresses connected at a time.
    pub connections_max: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            idle: Duration::from_secs(120),
            in_flight_max: 65_536,
            write_queue_bytes_max: 64 * 1024 * 1024,
            write_stall: Duration::from_secs(30),
            frame_max: FRAME_MAX,
            connections_max: 4096,
        }
    }
}

/// Sends requests to servers by address. Clones share the pool; when the last one is dropped, its connections close.
#[derive(Clone)]
pub struct Client {
    pool: Arc<Pool>,
}

struct Pool {
    options: ClientOptions,
    handler: Arc<dyn Handler>,
    peers: Mutex<HashMap<String, Peer>>,
    stop: CancellationToken,
}

enum Peer {
    /// Somebody connects; everyone who wants the address waits for the same attempt.
    Connecting(watch::Receiver<Attempt>),
    Open(Connection),
}

/// Outcome of a connect, `None` while it is under way.
type Attempt = Option<Result<Connection, Arc<io::Error>>>;

impl Client {
    /// A pool without connections. Requests that servers send are answered `REQUEST_CODE_NOT_SUPPORTED`.
    pub fn new(options: ClientOptions) -> Self {
        Self::build(options, Arc::new(Unsupported))
    }

    /// The same pool options with a handler for requests that servers send. Connections of `self` are not taken over.
    #[must_use]
    pub fn with_handler(self, handler: Arc<dyn Handler>) -> Self {
        Self::build(self.pool.options.clone(), handler)
    }

    fn build(options: ClientOptions, handler: Arc<dyn Handler>) -> Self {
        let peers = Mutex::new(HashMap::new());
        let stop = CancellationToken::new();
        Self {
            pool: Arc::new(Pool {
                options,
                handler,
                peers,
                stop,
            }),
        }
    }

    /// Sends a request to `address` (`host:port`) and waits for its answer, connecting first if necessary. The whole
    /// of it takes `within` at most.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::is_unsent`] tells whether the server may have executed the request.
    pub async fn invoke(
        &self,
        address: &str,
        command: RemotingCommand,
        within: Duration,
    ) -> Result<RemotingCommand, ClientError> {
        let deadline = Instant::now() + within;
        let connection = self.connection_until(address, deadline).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        connection
            .request(command, left)
            .await
            .map_err(|error| match error {
                ClientError::Timeout { peer, .. } => ClientError::Timeout {
                    peer,
                    after: within,
                },
                other => other,
            })
    }

    /// Sends a request that expects no answer, connecting first if necessary. On success it is queued, not yet sent.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn invoke_oneway(
        &self,
        address: &str,
        command: RemotingCommand,
        within: Duration,
    ) -> Result<(), ClientError> {
        self.connection_until(address, Instant::now() + within)
            .await?
            .send_oneway(command)
    }

    /// The open connection to `address`, made if necessary.
    ///
    /// # Errors
    /// When it cannot be made within the connect timeout.
    pub async fn connection(&self, address: &str) -> Result<Connection, ClientError> {
        self.connection_until(address, Instant::now() + self.pool.options.connect_timeout)
            .await
    }

    /// Closes the connection to an address, if there is one. The next request connects again.
    pub fn close(&self, address: &str) {
        if let Some(Peer::Open(connection)) = self.pool.peers.lock().remove(address) {
            connection.close();
        }
    }

    /// Closes all connections. Later requests connect again.
    pub fn close_all(&self) {
        let peers = std::mem::take(&mut *self.pool.peers.lock());
        for peer in peers.into_values() {
            if let Peer::Open(connection) = peer {
                connection.close();
            }
        }
    }

    async fn connection_until(
        &self,
        address: &str,
        deadline: Instant,
    ) -> Result<Connection, ClientError> {
        let mut attempt = match self.pool.find(address)? {
            Peer::Open(connection) => return Ok(connection),
            Peer::Connecting(attempt) => attempt,
        };
        let failed = |reason: String| ClientError::Connect {
            address: address.to_owned(),
            reason,
        };
        let outcome = match timeout_at(deadline, attempt.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone(),
            Ok(Err(_gone)) => None,
            Err(_elapsed) => return Err(failed("no connection in time".to_owned())),
        };
        match outcome {
            Some(Ok(connection)) => Ok(connection),
            Some(Err(error)) => Err(failed(error.to_string())),
            None => Err(failed("the client was closed".to_owned())),
        }
    }
}

impl Pool {
    /// The connection to an address, or the attempt to make one, which is begun if there is none.
    fn find(self: &Arc<Self>, address: &str) -> Result<Peer, ClientError> {
        let mut peers = self.peers.lock();
        match peers.get(address) {
            Some(Peer::Open(connection)) if connection.is_open() => {
                return Ok(Peer::Open(connection.clone()));
            }
            Some(Peer::Connecting(attempt)) => return Ok(Peer::Connecting(attempt.clone())),
            Some(Peer::Open(_)) | None => {}
        }
        let limit = self.options.connections_max;
        if peers.len() >= limit && !peers.contains_key(address) {
            return Err(ClientError::TooManyInFlight {
                peer: address.to_owned(),
                what: "connections",
                value: peers.len(),
                limit,
            });
        }
        let (sender, attempt) = watch::channel(None);
        peers.insert(address.to_owned(), Peer::Connecting(attempt.clone()));
        drop(peers);
        // A task of its own: the caller may give up while others wait for the same attempt.
        tokio::spawn(connect(Arc::downgrade(self), address.to_owned(), sender));
        Ok(Peer::Connecting(attempt))
    }

    /// Forgets an address, unless it has been connected anew.
    fn forget(&self, address: &str, id: u64) {
        let mut peers = self.peers.lock();
        if matches!(peers.get(address), Some(Peer::Open(connection)) if connection.id() == id) {
            peers.remove(address);
        }
    }

    fn limits(&self) -> Limits {
        let options = &self.options;
        Limits {
            idle: options.idle,
            in_flight_max: options.in_flight_max.max(1),
            in_flight_bytes_max: options.write_queue_bytes_max.max(1),
            held_max: options.in_flight_max,
            pending_max: options.in_flight_max,
            frame_max: options.frame_max,
            write_queue_bytes_max: options.write_queue_bytes_max,
            write_stall: options.write_stall,
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop.cancel();
        for peer in self.peers.get_mut().values() {
            if let Peer::Open(connection) = peer {
                connection.close();
            }
        }
    }
}

/// Connects, tells everyone who waits, and runs the connection.
async fn connect(pool: Weak<Pool>, address: String, attempt: watch::Sender<Attempt>) {
    let Some((within, stop)) = pool
        .upgrade()
        .map(|p| (p.options.connect_timeout, p.stop.clone()))
    else {
        return;
    };
    let opened = tokio::select! {
        opened = timeout(within, open(&address)) => opened,
        () = stop.cancelled() => return,
    };
    let opened = opened.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()));
    // From here on nothing waits while it holds the pool alive.
    let Some(owner) = pool.upgrade() else {
        return;
    };
    let (stream, connection) = match opened.and_then(|stream| {
        let connection = Connection::new(stream.peer_addr()?, stream.local_addr()?, owner.limits());
        Ok((stream, connection))
    }) {
        Ok(made) => made,
        Err(error) => {
            debug!(%address, %error, "connect failed");
            owner.peers.lock().remove(&address);
            attempt.send_replace(Some(Err(Arc::new(error))));
            return;
        }
    };
    let handler = Arc::clone(&owner.handler);
    owner
        .peers
        .lock()
        .insert(address.clone(), Peer::Open(connection.clone()));
    drop(owner);
    attempt.send_replace(Some(Ok(connection.clone())));
    drop(attempt);
    connection
        .run(
            stream.into_split(),
            BytesMut::new(),
            handler,
            stop,
            Duration::ZERO,
        )
        .await;
    if let Some(pool) = pool.upgrade() {
        pool.forget(&address, connection.id());
    }
}

async fn open(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // On one machine, a connection to a port in the range for outgoing connections on which nobody listens can meet
    // itself, and would keep the server that is to listen there from starting.
    if stream.local_addr()? == stream.peer_addr()? {
        stream.set_zero_linger()?;
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Answers requests of servers when nobody else does.
struct Unsupported;

impl Handler for Unsupported {
    fn handle(&self, request: RemotingCommand, responder: Responder) {
        let text = format!(" request type {} not supported", request.code);
        responder.reply(RemotingCommand::failure(
            response::REQUEST_CODE_NOT_SUPPORTED,
            text,
        ));
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("addresses", &self.pool.peers.lock().len())
            .finish_non_exhaustive()
    }
}
