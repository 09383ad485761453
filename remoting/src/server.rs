//! Accepts connections and runs each until it ends.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use raftmq_proto::frame::FRAME_MAX;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, debug, warn};

use crate::Handler;
use crate::connection::{Connection, Limits, QUIET};
use crate::preface::{self, Preface};

/// How long to wait after a failed accept: the usual reason is that the process has no file descriptor left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Where a server listens and how much a peer may demand of it.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Address to listen on; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Connections that the system may keep waiting to be accepted (`serverSocketBacklog`).
    pub backlog: u32,
    /// A connection without a byte in either direction for this long is closed (`serverChannelMaxIdleTimeSeconds`).
    pub idle: Duration,
    /// Requests of one connection that may be worked on or have their answer unsent. At the limit nothing more is read.
    pub in_flight_max: usize,
    /// Bytes of those requests and answers. At the limit nothing more is read.
    pub in_flight_bytes_max: usize,
    /// Requests of one connection that may be parked, see [`crate::Responder::hold`].
    pub held_max: usize,
    /// Requests that this side sends to one client and that may wait for their answer.
    pub pending_max: usize,
    /// Longest frame in bytes, its length word included.
    pub frame_max: usize,
    /// Unsent bytes of one connection beyond which a client that does not read is disconnected.
    pub write_queue_bytes_max: usize,
    /// A write without progress for this long ends the connection.
    pub write_stall: Duration,
    /// Connections at a time; more are closed as soon as they are accepted.
    pub connections_max: usize,
    /// How long [`Server::shutdown`] waits for clients to be silent, and then for requests in flight.
    pub drain: Duration,
    /// Others accept from the same socket too: once this server is to stop, who waits in its queue is theirs.
    pub shared: bool,
}

impl ServerOptions {
    /// The stock server's limits where it has them; elsewhere values that no well-behaved client reaches.
    pub fn new(bind: SocketAddr) -> Self {
        Self {
            bind,
            backlog: 1024,
            idle: Duration::from_secs(120),
            in_flight_max: 8192,
            in_flight_bytes_max: 64 * 1024 * 1024,
            held_max: 65_536,
            pending_max: 1024,
            frame_max: FRAME_MAX,
            // A thousand waiting pulls of the largest usual answer (256 KiB) may complete at once.
            write_queue_bytes_max: 256 * 1024 * 1024,
            write_stall: Duration::from_secs(30),
            connections_max: 65_536,
            drain: Duration::from_secs(3),
            shared: false,
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            idle: self.idle,
            in_flight_max: self.in_flight_max.max(1),
            in_flight_bytes_max: self.in_flight_bytes_max.max(1),
            held_max: self.held_max,
            pending_max: self.pending_max,
            frame_max: self.frame_max,
            write_queue_bytes_max: self.write_queue_bytes_max,
            write_stall: self.write_stall,
        }
    }
}

/// A listening server. Dropping it stops it without waiting; [`Server::shutdown`] waits.
pub struct Server {
    local_addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    options: ServerOptions,
    handler: Arc<dyn Handler>,
    stop: CancellationToken,
    tasks: TaskTracker,
    connections: AtomicUsize,
}

impl Server {
    /// Binds the address and serves it from tasks of the current tokio runtime. Clients can connect on return.
    ///
    /// # Errors
    /// When the address cannot be bound, for example because its port is in use.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind(options: ServerOptions, handler: Arc<dyn Handler>) -> io::Result<Self> {
        Self::serve(listen(&options)?, options, handler)
    }

    /// As [`bind`](Self::bind), for a socket that listens already. The options' address is not looked at.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn serve(
        listener: std::net::TcpListener,
        options: ServerOptions,
        handler: Arc<dyn Handler>,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let local_addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            options,
            handler,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            connections: AtomicUsize::new(0),
        });
        let accept = accept(listener, Arc::clone(&shared));
        shared.tasks.spawn(accept.in_current_span());
        Ok(Self { local_addr, shared })
    }

    /// The address bound, with the port taken when 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(SeqCst)
    }

    /// Stops: accepts nothing more, closes each connection once its client is silent and has all its answers (held
    /// requests are not waited for). Returns when every connection is gone, after twice [`ServerOptions::drain`] and a
    /// little at most.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}

/// Binds the address of the options and listens on it.
///
/// # Errors
/// When it cannot be bound, for example because its port is in use.
pub fn listen(options: &ServerOptions) -> io::Result<std::net::TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(
        Domain::for_address(options.bind),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restarted server must not wait for the connections of its predecessor to time out.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&options.bind.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let limit = shared.options.connections_max;
    let mut refusing = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.stop.cancelled(), if shared.options.shared => return,
            // Also when it is to stop: who is in the queue is connected already, as far as they know.
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if shared.stop.is_cancelled() {
                    return;
                }
                warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let place = Place::take(&shared);
        let full = place.is_none();
        if full && !refusing {
            warn!(%peer, limit, "refusing connections: too many are open");
        }
        refusing = full;
        if let Some(place) = place {
            shared
                .tasks
                .spawn(serve(stream, peer, place).in_current_span());
        }
    }
}

/// One of the connections that may be open at a time.
struct Place(Arc<Shared>);

impl Place {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        let limit = shared.options.connections_max;
        let taken = shared
            .connections
            .fetch_update(SeqCst, SeqCst, |n| (n < limit).then_some(n + 1));
        taken.ok().map(|_| Self(Arc::clone(shared)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, SeqCst);
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, place: Place) {
    let Place(shared) = &place;
    let local = match stream.set_nodelay(true).and_then(|()| stream.local_addr()) {
        Ok(local) => local,
        Err(error) => return debug!(%peer, %error, "connection broke before it began"),
    };
    let (mut read, write) = stream.into_split();
    // The whole preface has the time that a silent connection has: a half-open one does not stay.
    let greeting = tokio::time::timeout(shared.options.idle, greet(&mut read));
    let stopping = async {
        shared.stop.cancelled().await;
        tokio::time::sleep(QUIET.min(shared.options.drain)).await;
    };
    let greeted = tokio::select! {
        greeted = greeting => greeted.unwrap_or(Err("nothing was sent")),
        () = stopping => Err("the server stops"),
    };
    let (source, buffer) = match greeted {
        Ok(greeted) => greeted,
        Err(reason) => return debug!(%peer, reason, "closing a connection before its first frame"),
    };
    let connection = Connection::new(source.unwrap_or(peer), local, shared.options.limits());
    let handler = Arc::clone(&shared.handler);
    connection
        .run(
            (read, write),
            buffer,
            handler,
            shared.stop.clone(),
            shared.options.drain,
        )
        .await;
}

/// Reads what may stand before the first frame. Returns the address a proxy gave, and the first bytes of the frames.
async fn greet<R: AsyncRead + Unpin>(
    read: &mut R,
) -> Result<(Option<SocketAddr>, BytesMut), &'static str> {
    let mut buffer = BytesMut::with_capacity(1024);
    let mut source = None;
    let mut proxied = false;
    loop {
        match preface::detect(&buffer) {
            Preface::Plain => return Ok((source, buffer)),
            Preface::Tls => return Err("it speaks TLS, which this port does not"),
            Preface::Bad(reason) => return Err(reason),
            Preface::Proxied { .. } if proxied => return Err("a second PROXY header"),
            Preface::Proxied {
                source: named,
                length,
            } => {
                source = named;
                proxied = true;
                buffer.advance(length);
            }
            Preface::NeedMore => match read.read_buf(&mut buffer).await {
                Ok(0) => return Err("it was closed by the peer"),
                Ok(_) => {}
                Err(_broken) => return Err("it broke"),
            },
        }
    }
}
