//! One TCP connection: its shared state, and the reader that runs it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::BytesMut;
use raftmq_proto::code::response;
use raftmq_proto::frame::RemotingCommand;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::Handler;
use crate::error::ClientError;
use crate::frames::{self, Next};
use crate::pending::{self, Pending};
use crate::responder::Responder;
use crate::write_queue::{self, Share, WriteQueue, weight};

/// Room offered to a read at first; it grows while reads fill it.
const READ_MIN: usize = 8 * 1024;

/// Most room offered to one read, unless a frame is known to be longer.
const READ_MAX: usize = 256 * 1024;

/// Most room allocated for a frame ahead of its bytes: a peer gets memory for what it sends, not for what it announces.
const AHEAD_MAX: usize = 1024 * 1024;

/// How long a peer has to be silent before a stopping server closes its connection: a request that crosses the end of
/// the connection has no answer.
pub(crate) const QUIET: Duration = Duration::from_millis(500);

/// How often a stopping server looks at a connection whose requests are being worked on.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How long a stopping server reads on, until the peer has seen the end of the connection.
const LINGER: Duration = Duration::from_millis(300);

/// The bounds of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) idle: Duration,
    pub(crate) in_flight_max: usize,
    pub(crate) in_flight_bytes_max: usize,
    pub(crate) held_max: usize,
    /// Requests of this side that wait for an answer.
    pub(crate) pending_max: usize,
    pub(crate) frame_max: usize,
    pub(crate) write_queue_bytes_max: usize,
    pub(crate) write_stall: Duration,
}

/// A connection to a peer, on the server or the client side. Clones are handles of the same connection.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
}

struct Shared {
    id: u64,
    peer: SocketAddr,
    local: SocketAddr,
    limits: Limits,
    queue: WriteQueue,
    pending: Pending,
    in_flight: InFlight,
    held: AtomicUsize,
    /// False from the moment `closed` is cancelled; cheaper to look at.
    open: AtomicBool,
    closed: CancellationToken,
    /// When bytes last went in either direction, in milliseconds after `born`.
    active_ms: AtomicU64,
    born: Instant,
}

/// Requests of the peer that are being worked on, and the bytes they and their unwritten answers take.
#[derive(Default)]
struct InFlight {
    requests: AtomicUsize,
    bytes: AtomicUsize,
    /// Set while the reader waits for `room`. Set before it looks at the counters again, read after they are lowered.
    wanted: AtomicBool,
    room: Notify,
}

impl Connection {
    pub(crate) fn new(peer: SocketAddr, local: SocketAddr, limits: Limits) -> Self {
        // Across all servers and clients of the process: whoever keys a table by it may serve several ports.
        static IDS: AtomicU64 = AtomicU64::new(1);
        let shared = Shared {
            id: IDS.fetch_add(1, SeqCst),
            peer,
            local,
            queue: WriteQueue::new(limits.write_queue_bytes_max),
            limits,
            pending: Pending::new(),
            in_flight: InFlight::default(),
            held: AtomicUsize::new(0),
            open: AtomicBool::new(true),
            closed: CancellationToken::new(),
            active_ms: AtomicU64::new(0),
            born: Instant::now(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Number of this connection: unique in this process, and larger than that of every older connection.
    pub fn id(&self) -> u64 {
        self.shared.id
    }

    /// The client's address; behind a proxy that says so, the one the proxy gave.
    pub fn peer(&self) -> SocketAddr {
        self.shared.peer
    }

    /// This side's address.
    pub fn local(&self) -> SocketAddr {
        self.shared.local
    }

    /// Whether requests can still be sent. A connection that looks open may break any time.
    pub fn is_open(&self) -> bool {
        self.shared.open.load(SeqCst)
    }

    /// Closes the connection at once: unsent answers are dropped, waiting requests fail.
    pub fn close(&self) {
        self.shared.open.store(false, SeqCst);
        self.shared.closed.cancel();
        self.shared.queue.close();
        self.shared.pending.close();
    }

    /// Completes when the connection is closed, by whichever side.
    pub async fn closed(&self) {
        self.shared.closed.cancelled().await;
    }

    /// Requests of this side that wait for their answer.
    pub fn pending_requests(&self) -> usize {
        self.shared.pending.len()
    }

    /// Sends a request that expects no answer. On success it is queued, not yet sent.
    ///
    /// # Errors
    /// `Closed`, `TooManyInFlight` when the peer does not take what is queued already, `TooLarge`.
    pub fn send_oneway(&self, mut command: RemotingCommand) -> Result<(), ClientError> {
        command.opaque = self.shared.pending.unwaited_opaque();
        command.mark_oneway();
        self.push_request(command)
    }

    /// Sends a request and waits for its answer. Requests are pipelined; dropping the future gives the answer up.
    ///
    /// # Errors
    /// `Timeout` and `Closed` leave open whether the peer executed the request; the others mean it was not sent.
    pub async fn request(
        &self,
        mut command: RemotingCommand,
        within: Duration,
    ) -> Result<RemotingCommand, ClientError> {
        let limit = self.shared.limits.pending_max;
        let mut ticket = self
            .shared
            .pending
            .begin(limit)
            .map_err(|refused| match refused {
                pending::Refused::Closed => self.closed_error(),
                pending::Refused::Full(value) => ClientError::TooManyInFlight {
                    peer: self.peer().to_string(),
                    what: "requests in flight",
                    value,
                    limit,
                },
            })?;
        command.opaque = ticket.opaque();
        self.push_request(command)?;
        match timeout(within, ticket.answer()).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(self.closed_error()),
            Err(_elapsed) => Err(ClientError::Timeout {
                peer: self.peer().to_string(),
                after: within,
            }),
        }
    }

    fn closed_error(&self) -> ClientError {
        ClientError::Closed { peer: self.peer() }
    }

    fn push_request(&self, command: RemotingCommand) -> Result<(), ClientError> {
        let bytes = weight(&command);
        let limit = self.shared.limits.frame_max;
        if bytes > limit {
            return Err(ClientError::TooLarge {
                peer: self.peer(),
                bytes,
                limit,
            });
        }
        self.shared
            .queue
            .push(command, bytes, Share::default())
            .map_err(|refused| match refused {
                write_queue::Refused::Closed => self.closed_error(),
                write_queue::Refused::Full { bytes, limit } => ClientError::TooManyInFlight {
                    peer: self.peer().to_string(),
                    what: "unsent bytes",
                    value: bytes,
                    limit,
                },
            })
    }

    /// Queues an answer. It takes over the share of its request, and its own bytes count as well until it is written.
    pub(crate) fn push_answer(&self, mut answer: RemotingCommand, mut share: Share) {
        let mut bytes = weight(&answer);
        let frame_max = self.shared.limits.frame_max;
        if bytes > frame_max {
            warn!(peer = %self.peer(), code = answer.code, bytes, frame_max, "answer exceeds the frame limit");
            let text =
                format!("the answer has about {bytes} bytes, the frame limit is {frame_max}");
            let (opaque, serialize, flag) = (answer.opaque, answer.serialize, answer.flag);
            answer = RemotingCommand::failure(response::SYSTEM_ERROR, text);
            (answer.opaque, answer.serialize, answer.flag) = (opaque, serialize, flag);
            bytes = weight(&answer);
        }
        self.shared.in_flight.bytes.fetch_add(bytes, SeqCst);
        share.bytes += bytes;
        match self.shared.queue.push(answer, bytes, share) {
            Ok(()) => {}
            Err(write_queue::Refused::Closed) => self.release(share),
            Err(write_queue::Refused::Full { bytes, limit }) => {
                debug!(peer = %self.peer(), bytes, limit, "closing a connection that does not read its answers");
                self.close();
            }
        }
    }

    /// Gives back a part of the in-flight bound.
    pub(crate) fn release(&self, share: Share) {
        let in_flight = &self.shared.in_flight;
        in_flight.requests.fetch_sub(share.requests, SeqCst);
        in_flight.bytes.fetch_sub(share.bytes, SeqCst);
        if in_flight.wanted.load(SeqCst) {
            in_flight.room.notify_one();
        }
    }

    /// Parks a request of this share; false when too many are parked.
    pub(crate) fn hold_one(&self, share: Share) -> bool {
        let limit = self.shared.limits.held_max;
        let taken = self
            .shared
            .held
            .fetch_update(SeqCst, SeqCst, |n| (n < limit).then_some(n + 1));
        if taken.is_ok() {
            self.release(share);
        }
        taken.is_ok()
    }

    pub(crate) fn unhold_one(&self) {
        self.shared.held.fetch_sub(1, SeqCst);
    }

    /// Waits until `enough` holds for the number and bytes of requests in flight.
    async fn until_in_flight(&self, enough: impl Fn(usize, usize) -> bool) {
        let in_flight = &self.shared.in_flight;
        let holds = || {
            enough(
                in_flight.requests.load(SeqCst),
                in_flight.bytes.load(SeqCst),
            )
        };
        if holds() {
            return;
        }
        in_flight.wanted.store(true, SeqCst);
        while !holds() {
            in_flight.room.notified().await;
        }
        in_flight.wanted.store(false, SeqCst);
    }

    fn touch(&self) {
        let ms = u64::try_from(self.shared.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.shared.active_ms.store(ms, SeqCst);
    }

    /// When the connection has been silent for too long, unless something happens before.
    fn idle_at(&self) -> Instant {
        let active = Duration::from_millis(self.shared.active_ms.load(SeqCst));
        self.shared.born + active + self.shared.limits.idle
    }

    /// When a connection that is to end may: it has been silent for a while and has every answer, or it is `deadline`.
    fn quiet_at(&self, deadline: Instant) -> Instant {
        let active = Duration::from_millis(self.shared.active_ms.load(SeqCst));
        let mut quiet = self.shared.born + active + QUIET;
        if self.shared.in_flight.requests.load(SeqCst) > 0 {
            quiet = quiet.max(Instant::now() + LOOK_AGAIN);
        }
        quiet.min(deadline)
    }

    /// Runs the connection until it is closed. `buffer` holds bytes that were read already. When `stop` is cancelled,
    /// it goes on until the peer is silent, for `drain` at most; then nothing more is read, requests in flight get
    /// `drain` to be answered, and the connection closes.
    pub(crate) async fn run<R, W>(
        &self,
        (mut read, mut write): (R, W),
        buffer: BytesMut,
        handler: Arc<dyn Handler>,
        stop: CancellationToken,
        drain: Duration,
    ) where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let writer = self.clone();
        let writer = tokio::spawn(async move {
            let stall = writer.shared.limits.write_stall;
            let written = |share| {
                writer.touch();
                writer.release(share);
            };
            let result = tokio::select! {
                result = writer.shared.queue.drain_into(&mut write, stall, written) => result,
                () = writer.shared.closed.cancelled() => Ok(()),
            };
            if let Err(error) = result {
                debug!(peer = %writer.peer(), %error, "closing a connection that cannot be written to");
            }
            writer.close();
        });
        let end = {
            let _closes = OpenConnection::new(self, &*handler);
            let end = self
                .read_frames(&mut read, buffer, &handler, &stop, drain)
                .await;
            if matches!(end, End::Stopped) {
                // What is in flight is answered; held requests are not waited for.
                let answered = self.until_in_flight(|requests, _| requests == 0);
                if timeout(drain, answered).await.is_err() {
                    debug!(peer = %self.peer(), "closing a connection with unanswered requests");
                }
                self.shared.queue.finish();
                let _flushed = timeout(drain, self.closed()).await;
                // Closing a socket with unread bytes resets it, and the peer may lose answers on their way.
                let _quiet = timeout(LINGER.min(drain), discard(&mut read)).await;
            }
            end
        };
        match end {
            End::Closed | End::Stopped => debug!(peer = %self.peer(), "connection closed"),
            End::Idle => {
                debug!(peer = %self.peer(), idle = ?self.shared.limits.idle, "closing an idle connection")
            }
            End::Failed(error) => {
                debug!(peer = %self.peer(), %error, "closing a broken connection")
            }
            End::Malformed(error) => {
                debug!(peer = %self.peer(), %error, "closing a connection with malformed input")
            }
        }
        if let Err(error) = writer.await {
            warn!(peer = %self.peer(), %error, "connection writer failed");
        }
    }

    async fn read_frames<R: AsyncRead + Unpin>(
        &self,
        read: &mut R,
        mut buffer: BytesMut,
        handler: &Arc<dyn Handler>,
        stop: &CancellationToken,
        drain: Duration,
    ) -> End {
        let idle = tokio::time::sleep_until(self.idle_at());
        tokio::pin!(idle);
        let closed = self.shared.closed.cancelled();
        tokio::pin!(closed);
        let stopped = stop.cancelled();
        tokio::pin!(stopped);
        let mut leave_by = None;
        let mut room = READ_MIN;
        loop {
            let (count, offered) = {
                let progress = async {
                    let missing = self.take_frames(&mut buffer, handler).await?;
                    reserve(&mut buffer, missing, room);
                    let offered = buffer.capacity() - buffer.len();
                    let count = read.read_buf(&mut buffer).await.map_err(End::Failed)?;
                    Ok::<_, End>((count, offered))
                };
                tokio::pin!(progress);
                loop {
                    tokio::select! {
                        biased;
                        progress = &mut progress => match progress {
                            Ok((0, _)) => return End::Closed,
                            Ok(progress) => break progress,
                            Err(end) => return end,
                        },
                        () = &mut closed => return End::Closed,
                        () = &mut stopped, if leave_by.is_none() => {
                            let deadline = Instant::now() + drain;
                            leave_by = Some(deadline);
                            idle.as_mut().reset(self.quiet_at(deadline));
                        }
                        // The timer is not moved at every read: when it fires, it may find that it fired too early.
                        () = &mut idle => {
                            let (at, end) = match leave_by {
                                None => (self.idle_at(), End::Idle),
                                Some(deadline) => (self.quiet_at(deadline), End::Stopped),
                            };
                            if at <= Instant::now() {
                                return end;
                            }
                            idle.as_mut().reset(at);
                        }
                    }
                }
            };
            self.touch();
            room = if count >= offered {
                (room * 2).min(READ_MAX)
            } else if count < room / 4 {
                (room / 2).max(READ_MIN)
            } else {
                room
            };
        }
    }

    /// Handles all whole frames of the buffer; returns how many bytes the next one lacks.
    async fn take_frames(
        &self,
        buffer: &mut BytesMut,
        handler: &Arc<dyn Handler>,
    ) -> Result<usize, End> {
        let limits = &self.shared.limits;
        loop {
            let frame = match frames::next(buffer, limits.frame_max) {
                Ok(Next::Frame(frame)) => frame,
                Ok(Next::Missing(missing)) => return Ok(missing),
                Err(bad) => return Err(End::Malformed(bad.to_string())),
            };
            let frame_len = frame.len();
            let command = RemotingCommand::decode(frame)
                .map_err(|error| End::Malformed(error.to_string()))?;
            if command.is_response() {
                let opaque = command.opaque;
                if !self.shared.pending.complete(command) {
                    debug!(peer = %self.peer(), opaque, "answer that nobody waits for");
                }
                continue;
            }
            // Before the request is counted: one request is always let through, however large it is.
            self.until_in_flight(|requests, bytes| {
                requests < limits.in_flight_max && bytes < limits.in_flight_bytes_max
            })
            .await;
            let share = Share {
                requests: 1,
                bytes: frame_len,
            };
            self.shared
                .in_flight
                .requests
                .fetch_add(share.requests, SeqCst);
            self.shared.in_flight.bytes.fetch_add(share.bytes, SeqCst);
            let responder = Responder::new(self.clone(), command.meta(), share);
            handler.handle(command, responder);
            if !self.is_open() {
                return Err(End::Closed);
            }
        }
    }
}

/// Why a connection's reader ended.
enum End {
    Closed,
    Stopped,
    Idle,
    Failed(io::Error),
    Malformed(String),
}

/// Tells the handler of the connection's end, also when a handler panics in the reader.
struct OpenConnection<'a> {
    connection: &'a Connection,
    handler: &'a dyn Handler,
}

impl<'a> OpenConnection<'a> {
    fn new(connection: &'a Connection, handler: &'a dyn Handler) -> Self {
        handler.opened(connection);
        Self {
            connection,
            handler,
        }
    }
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.connection.close();
        self.handler.closed(self.connection);
    }
}

/// Makes room for a read of about `room` bytes, or for the rest of a frame when that is longer.
fn reserve(buffer: &mut BytesMut, missing: usize, room: usize) {
    if buffer.is_empty() && buffer.capacity() > 4 * room {
        // Left from a busy time or a large frame; an idle connection should not keep it.
        *buffer = BytesMut::with_capacity(room);
    }
    let wanted = missing.clamp(room, room.max(AHEAD_MAX).max(buffer.len()));
    if buffer.capacity() - buffer.len() < wanted.min(missing.max(room / 2)).min(READ_MAX) {
        buffer.reserve(wanted);
    }
}

async fn discard<R: AsyncRead + Unpin>(read: &mut R) {
    let mut scrap = vec![0; READ_MIN];
    while matches!(read.read(&mut scrap).await, Ok(count) if count > 0) {}
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.id())
            .field("peer", &self.peer())
            .field("open", &self.is_open())
            .finish()
    }
}
