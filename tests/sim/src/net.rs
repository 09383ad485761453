//! The network between the members: connections that behave like TCP over links that do not.
//!
//! What is sent arrives in order and late, or waits while its direction of the link is cut. A lost
//! packet is a delay. A process that dies resets its connections; a machine that dies leaves them
//! half open until somebody asks it again. All of it happens in the order of virtual time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use raftmq_raft::sim::{Connection, World};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot};

use crate::MEMBERS;
use crate::os::{self, MS, Nanos, SECOND};
use crate::random::Random;

/// Bytes a sender may be ahead of its reader.
const WINDOW: usize = 1 << 20;
/// What a lost packet costs.
const RETRANSMIT: Nanos = 200 * MS;
/// How often a connection is tried that nobody answers.
const SYN_AGAIN: Nanos = SECOND;
const PORT: u16 = 40911;

/// Where a member listens.
pub fn address(node: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, node as u8 + 1)), PORT)
}

fn node_at(address: SocketAddr) -> Option<usize> {
    (0..MEMBERS).find(|node| self::address(*node) == address)
}

/// One direction between two machines.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    pub cut: bool,
    pub latency: (Nanos, Nanos),
    pub extra: Nanos,
    pub loss_percent: u64,
}

#[derive(Default)]
struct Host {
    /// The machine is off: nothing answers, not even "no".
    off: bool,
    listener: Option<mpsc::UnboundedSender<Connection>>,
}

/// How long each member's disk takes, in the end.
#[derive(Debug, Clone, Copy)]
pub struct DiskLatency(pub Nanos, pub Nanos);

/// Clones are handles to the same network.
#[derive(Clone)]
pub struct Network(Arc<Mutex<Net>>);

struct Net {
    random: Random,
    links: [[Link; MEMBERS]; MEMBERS],
    hosts: [Host; MEMBERS],
    disks: [DiskLatency; MEMBERS],
    pipes: BTreeMap<PipeId, Pipe>,
    connections: u64,
    events: BTreeMap<(Nanos, u64), Event>,
    sequence: u64,
    /// Connections that nobody took. Each locks the network when it is dropped.
    unwanted: Vec<Connection>,
    /// Members that something has reached.
    reached: BTreeSet<usize>,
    /// A running hash over all that was delivered.
    digest: u64,
    delivered: u64,
}

/// A connection and the side that writes; the client's is 0.
type PipeId = (u64, u8);

struct Pipe {
    from: usize,
    to: usize,
    under_way: VecDeque<(Nanos, Segment)>,
    arrived: VecDeque<Bytes>,
    /// Bytes of both.
    queued: usize,
    ended: bool,
    end_arrived: bool,
    reset: bool,
    /// Nobody reads any more.
    unread: bool,
    /// It was delivered to while the link was cut.
    stalled: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

enum Segment {
    Data(Bytes),
    End,
    Reset,
}

enum Event {
    Deliver(PipeId),
    /// Tells the writer of a pipe that its connection is no more.
    Reset(PipeId),
    Connect {
        from: usize,
        to: usize,
        reply: oneshot::Sender<io::Result<Connection>>,
    },
    Connected {
        from: usize,
        reply: oneshot::Sender<io::Result<Connection>>,
        connection: Connection,
    },
    Refused {
        from: usize,
        reply: oneshot::Sender<io::Result<Connection>>,
    },
}

impl Network {
    pub fn new(random: Random, link: Link, disk: DiskLatency) -> Network {
        Network(Arc::new(Mutex::new(Net {
            random,
            links: [[link; MEMBERS]; MEMBERS],
            hosts: Default::default(),
            disks: [disk; MEMBERS],
            pipes: BTreeMap::new(),
            connections: 0,
            events: BTreeMap::new(),
            sequence: 0,
            unwanted: Vec::new(),
            reached: BTreeSet::new(),
            digest: 0xCBF2_9CE4_8422_2325,
            delivered: 0,
        })))
    }

    /// When something happens next.
    pub fn next(&self) -> Option<Nanos> {
        let net = self.0.lock();
        net.events.keys().next().map(|(time, _)| *time)
    }

    /// Lets everything happen that is due.
    pub fn deliver(&self) {
        loop {
            let mut net = self.0.lock();
            match net.events.first_key_value() {
                Some(((time, _), _)) if *time <= os::now() => {}
                _ => return,
            }
            let Some((_, event)) = net.events.pop_first() else {
                return;
            };
            net.happen(event, self);
            let unwanted = std::mem::take(&mut net.unwanted);
            drop(net);
            drop(unwanted);
        }
    }

    /// The members that something has reached since the last call.
    pub fn reached(&self) -> BTreeSet<usize> {
        std::mem::take(&mut self.0.lock().reached)
    }

    pub fn set_link(&self, from: usize, to: usize, change: impl FnOnce(&mut Link)) {
        let mut net = self.0.lock();
        change(&mut net.links[from][to]);
        if net.links[from][to].cut {
            return;
        }
        // What waited comes through when its sender next tries.
        let stalled: Vec<PipeId> = net
            .pipes
            .iter()
            .filter(|(_, pipe)| pipe.stalled && (pipe.from, pipe.to) == (from, to))
            .map(|(id, _)| *id)
            .collect();
        for id in stalled {
            let late = net.random.below(2 * RETRANSMIT);
            if let Some(pipe) = net.pipes.get_mut(&id) {
                pipe.stalled = false;
            }
            net.after(late, Event::Deliver(id));
        }
    }

    pub fn set_disk(&self, node: usize, latency: DiskLatency) {
        self.0.lock().disks[node] = latency;
    }

    pub fn disk_latency(&self, node: usize) -> Nanos {
        let mut net = self.0.lock();
        let DiskLatency(low, high) = net.disks[node];
        net.random.range(low, high)
    }

    /// The machine is on again.
    pub fn power_on(&self, node: usize) {
        self.0.lock().hosts[node].off = false;
    }

    /// A member's process ends; with `off`, its machine too.
    pub fn crash(&self, node: usize, off: bool) {
        let mut dropped = Vec::new();
        let mut net = self.0.lock();
        net.hosts[node].off = off;
        dropped.extend(net.hosts[node].listener.take());
        let ids: Vec<PipeId> = net.pipes.keys().copied().collect();
        for id in ids {
            let Some(pipe) = net.pipes.get_mut(&id) else {
                continue;
            };
            if pipe.to == node {
                pipe.unread = true;
                pipe.arrived.clear();
                pipe.reader = None;
            }
            if pipe.from == node {
                pipe.writer = None;
                if off {
                    pipe.ended = true;
                    if pipe.stalled {
                        pipe.under_way.clear();
                    }
                } else if !pipe.ended {
                    pipe.ended = true;
                    net.send(id, Segment::Reset);
                }
            }
        }
        drop(net);
    }

    /// A fingerprint of all that was delivered, and how much that was.
    pub fn digest(&self) -> (u64, u64) {
        let net = self.0.lock();
        (net.digest, net.delivered)
    }
}

impl Net {
    fn after(&mut self, delay: Nanos, event: Event) {
        self.sequence += 1;
        self.events
            .insert((os::now() + delay, self.sequence), event);
    }

    fn latency(&mut self, from: usize, to: usize) -> Nanos {
        let link = self.links[from][to];
        let mut latency = self.random.range(link.latency.0, link.latency.1);
        if link.extra > 0 {
            latency += self.random.below(link.extra);
        }
        while self.random.percent(link.loss_percent) {
            latency += RETRANSMIT;
        }
        latency
    }

    fn send(&mut self, id: PipeId, segment: Segment) {
        let Some(pipe) = self.pipes.get(&id) else {
            return;
        };
        let (from, to) = (pipe.from, pipe.to);
        let latency = self.latency(from, to);
        let Some(pipe) = self.pipes.get_mut(&id) else {
            return;
        };
        let before = pipe.under_way.back().map_or(0, |(due, _)| *due);
        let due = before.max(os::now() + latency);
        pipe.under_way.push_back((due, segment));
        self.after(due - os::now(), Event::Deliver(id));
    }

    fn happen(&mut self, event: Event, network: &Network) {
        match event {
            Event::Deliver(id) => self.arrive(id),
            Event::Reset(id) => self.reset(id),
            Event::Connect { from, to, reply } => self.connect(from, to, reply, network),
            Event::Connected {
                from,
                reply,
                connection,
            } => {
                self.reached.insert(from);
                if let Err(Ok(unwanted)) = reply.send(Ok(connection)) {
                    self.unwanted.push(unwanted);
                }
            }
            Event::Refused { from, reply } => {
                self.reached.insert(from);
                drop(reply.send(Err(io::ErrorKind::ConnectionRefused.into())));
            }
        }
    }

    fn connect(
        &mut self,
        from: usize,
        to: usize,
        reply: oneshot::Sender<io::Result<Connection>>,
        network: &Network,
    ) {
        if reply.is_closed() {
            return;
        }
        if self.links[from][to].cut || self.links[to][from].cut || self.hosts[to].off {
            self.after(SYN_AGAIN, Event::Connect { from, to, reply });
            return;
        }
        let latency = self.latency(to, from);
        let Some(listener) = self.hosts[to].listener.clone() else {
            self.after(latency, Event::Refused { from, reply });
            return;
        };
        self.connections += 1;
        let connection = self.connections;
        let pipe = |from, to| Pipe {
            from,
            to,
            under_way: VecDeque::new(),
            arrived: VecDeque::new(),
            queued: 0,
            ended: false,
            end_arrived: false,
            reset: false,
            unread: false,
            stalled: false,
            reader: None,
            writer: None,
        };
        self.pipes.insert((connection, 0), pipe(from, to));
        self.pipes.insert((connection, 1), pipe(to, from));
        let end = |side, remote| Connection {
            duplex: Box::pin(End {
                network: network.clone(),
                connection,
                side,
            }),
            remote: address(remote),
        };
        self.reached.insert(to);
        if let Err(mpsc::error::SendError(refused)) = listener.send(end(1, from)) {
            self.unwanted.push(refused);
            self.after(latency, Event::Refused { from, reply });
            return;
        }
        let connection = end(0, to);
        let event = Event::Connected {
            from,
            reply,
            connection,
        };
        self.after(latency, event);
    }

    fn arrive(&mut self, id: PipeId) {
        let now = os::now();
        let Some(pipe) = self.pipes.get_mut(&id) else {
            return;
        };
        if self.links[pipe.from][pipe.to].cut {
            pipe.stalled = true;
            return;
        }
        if self.hosts[pipe.to].off {
            return;
        }
        let mut answer_reset = false;
        while let Some((due, _)) = pipe.under_way.front() {
            if *due > now {
                break;
            }
            let Some((_, segment)) = pipe.under_way.pop_front() else {
                break;
            };
            self.delivered += 1;
            match segment {
                Segment::Reset => {
                    // The connection is gone for the reader's side as a whole.
                    let other = (id.0, 1 - id.1);
                    self.reset(other);
                    return;
                }
                _ if pipe.unread => answer_reset |= matches!(segment, Segment::Data(_)),
                Segment::Data(bytes) => {
                    tracing::trace!(from = pipe.from, to = pipe.to, ?id, ?bytes, "arrives");
                    for byte in &bytes {
                        self.digest =
                            (self.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
                    }
                    self.digest = (self.digest ^ now ^ id.0).wrapping_mul(0x0100_0000_01B3);
                    pipe.arrived.push_back(bytes);
                }
                Segment::End => pipe.end_arrived = true,
            }
        }
        if let Some(reader) = pipe.reader.take() {
            reader.wake();
        }
        let (from, to) = (pipe.from, pipe.to);
        self.reached.insert(to);
        if answer_reset {
            let latency = self.latency(to, from);
            self.after(latency, Event::Reset(id));
        }
    }

    /// The writer of a pipe learns that its connection is gone.
    fn reset(&mut self, id: PipeId) {
        let Some(pipe) = self.pipes.get(&id) else {
            return;
        };
        let (from, to) = (pipe.from, pipe.to);
        if self.links[to][from].cut {
            // Asked again and told again.
            self.after(RETRANSMIT, Event::Reset(id));
            return;
        }
        for id in [id, (id.0, 1 - id.1)] {
            if let Some(pipe) = self.pipes.get_mut(&id) {
                pipe.reset = true;
                let wakers = [pipe.reader.take(), pipe.writer.take()];
                wakers.into_iter().flatten().for_each(Waker::wake);
            }
        }
        self.reached.insert(from);
    }
}

/// What the members see of it.
impl World for Network {
    fn listen(&self, address: SocketAddr) -> io::Result<mpsc::UnboundedReceiver<Connection>> {
        let node = node_at(address).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let before = self.0.lock().hosts[node].listener.replace(sender);
        drop(before);
        Ok(receiver)
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Connection>> {
        let (reply, answer) = oneshot::channel();
        let from = os::node();
        if let Some(to) = node_at(address) {
            let mut net = self.0.lock();
            let latency = net.latency(from, to);
            net.after(latency, Event::Connect { from, to, reply });
        }
        Box::pin(async move {
            let refused = |_| io::ErrorKind::ConnectionRefused;
            answer.await.map_err(refused)?
        })
    }

    fn disk_latency(&self) -> Duration {
        Duration::from_nanos(Network::disk_latency(self, os::node()))
    }
}

/// One end of a connection.
struct End {
    network: Network,
    connection: u64,
    side: u8,
}

impl End {
    fn outgoing(&self) -> PipeId {
        (self.connection, self.side)
    }

    fn incoming(&self) -> PipeId {
        (self.connection, 1 - self.side)
    }
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut net = self.network.0.lock();
        let net = &mut *net;
        let Some(pipe) = net.pipes.get_mut(&self.incoming()) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        if let Some(bytes) = pipe.arrived.front_mut() {
            let size = bytes.len().min(buffer.remaining());
            buffer.put_slice(&bytes[..size]);
            bytes.advance(size);
            if bytes.is_empty() {
                pipe.arrived.pop_front();
            }
            pipe.queued -= size;
            if let Some(writer) = pipe.writer.take() {
                writer.wake();
                net.reached.insert(pipe.from);
            }
            return Poll::Ready(Ok(()));
        }
        if pipe.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if pipe.end_arrived {
            return Poll::Ready(Ok(()));
        }
        pipe.reader = Some(context.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut net = self.network.0.lock();
        let id = self.outgoing();
        let Some(pipe) = net.pipes.get_mut(&id) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if pipe.reset || pipe.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if pipe.queued >= WINDOW {
            pipe.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let size = bytes.len().min(WINDOW - pipe.queued);
        pipe.queued += size;
        net.send(id, Segment::Data(Bytes::copy_from_slice(&bytes[..size])));
        Poll::Ready(Ok(size))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut net = self.network.0.lock();
        let id = self.outgoing();
        if let Some(pipe) = net.pipes.get_mut(&id)
            && !pipe.ended
        {
            pipe.ended = true;
            net.send(id, Segment::End);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut net = self.network.0.lock();
        let id = self.outgoing();
        if let Some(pipe) = net.pipes.get_mut(&id)
            && !pipe.ended
        {
            pipe.ended = true;
            net.send(id, Segment::End);
        }
        if let Some(pipe) = net.pipes.get_mut(&self.incoming()) {
            pipe.unread = true;
            pipe.arrived.clear();
        }
    }
}
