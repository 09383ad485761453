//! Commands on their way to the socket, and the task that writes them.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use raftmq_proto::frame::RemotingCommand;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

/// Commands encoded before the socket is written to: enough for one vectored write, few enough that the space of
/// written answers is given back soon.
const BATCH_COMMANDS: usize = 64;

/// Body bytes after which a batch takes no further command.
const BATCH_BYTES: usize = 1024 * 1024;

/// Slices per vectored write; the system takes up to 1024, and a batch rarely has more than two per command.
const SLICES: usize = 2 * BATCH_COMMANDS;

/// What is counted for a command beside its body and fields: its place in the queue and the fixed part of its header.
const COMMAND_OVERHEAD: usize = 256;

/// A share of the connection's in-flight bound. It is given back when the command that carries it has been written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) requests: usize,
    pub(crate) bytes: usize,
}

impl std::ops::AddAssign for Share {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
    }
}

/// About how many bytes a command takes, in memory and on the wire.
pub(crate) fn weight(command: &RemotingCommand) -> usize {
    let fields: usize = command
        .ext_fields
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    COMMAND_OVERHEAD + command.remark.as_ref().map_or(0, String::len) + fields + command.body.len()
}

/// Unsent commands of one connection. Senders never wait; what they may add is bounded by bytes.
pub(crate) struct WriteQueue {
    state: Mutex<State>,
    ready: Notify,
    bytes_max: usize,
}

struct State {
    commands: VecDeque<Queued>,
    /// Weight of all commands that are queued or being written.
    bytes: usize,
    phase: Phase,
}

struct Queued {
    command: RemotingCommand,
    weight: usize,
    share: Share,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Nothing more is taken; what is queued is written, then the connection ends.
    Finishing,
    Closed,
}

/// Why a command was not queued.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Closed,
    Full { bytes: usize, limit: usize },
}

impl WriteQueue {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let state = State {
            commands: VecDeque::new(),
            bytes: 0,
            phase: Phase::Open,
        };
        Self {
            state: Mutex::new(state),
            ready: Notify::new(),
            bytes_max,
        }
    }

    /// Queues a command. Its `share` is reported by [`WriteQueue::drain_into`] once it has been written.
    pub(crate) fn push(
        &self,
        command: RemotingCommand,
        weight: usize,
        share: Share,
    ) -> Result<(), Refused> {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return Err(Refused::Closed);
        }
        // One command always fits, however large: frames have their own limit.
        if state.bytes > 0 && state.bytes + weight > self.bytes_max {
            return Err(Refused::Full {
                bytes: state.bytes,
                limit: self.bytes_max,
            });
        }
        state.bytes += weight;
        state.commands.push_back(Queued {
            command,
            weight,
            share,
        });
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// Lets the writer end after what is queued.
    pub(crate) fn finish(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Finishing;
        }
        drop(state);
        self.ready.notify_one();
    }

    /// Throws away what is queued and refuses everything from now on.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.phase = Phase::Closed;
        let commands = std::mem::take(&mut state.commands);
        drop(state);
        drop(commands);
        self.ready.notify_one();
    }

    /// Writes what is queued until the queue is finished or closed, or the socket fails. A write that makes no progress
    /// for `stall` fails: the peer does not read. `written` gets the share of each batch.
    pub(crate) async fn drain_into<W: AsyncWrite + Unpin>(
        &self,
        socket: &mut W,
        stall: Duration,
        mut written: impl FnMut(Share),
    ) -> io::Result<()> {
        let mut batch = Batch::default();
        loop {
            match self.take(&mut batch) {
                Taken::Some => {
                    batch.write(socket, stall).await?;
                    self.state.lock().bytes -= batch.weight;
                    written(batch.share);
                    batch.clear();
                }
                Taken::Nothing => self.ready.notified().await,
                Taken::End => return socket.shutdown().await,
            }
        }
    }

    fn take(&self, batch: &mut Batch) -> Taken {
        let mut state = self.state.lock();
        while batch.commands.len() < BATCH_COMMANDS && batch.weight < BATCH_BYTES {
            let Some(next) = state.commands.pop_front() else {
                break;
            };
            batch.weight += next.weight;
            batch.share += next.share;
            batch.commands.push(next.command);
        }
        match (batch.commands.is_empty(), state.phase) {
            (false, _) => Taken::Some,
            (true, Phase::Open) => Taken::Nothing,
            (true, Phase::Finishing | Phase::Closed) => Taken::End,
        }
    }
}

enum Taken {
    Some,
    Nothing,
    End,
}

/// Commands that are written together.
#[derive(Default)]
struct Batch {
    commands: Vec<RemotingCommand>,
    weight: usize,
    share: Share,
    /// Length words and headers of all commands, back to back.
    heads: BytesMut,
    pieces: Vec<Piece>,
}

/// What goes to the socket, in order. Heads that follow each other are one piece.
enum Piece {
    Heads { start: usize, end: usize },
    Body(Bytes),
}

impl Batch {
    fn clear(&mut self) {
        self.commands.clear();
        self.pieces.clear();
        self.heads.clear();
        self.weight = 0;
        self.share = Share::default();
    }

    fn encode(&mut self) {
        for command in &self.commands {
            let start = self.heads.len();
            command.encode_head(&mut self.heads);
            let end = self.heads.len();
            match self.pieces.last_mut() {
                Some(Piece::Heads { end: last, .. }) => *last = end,
                _ => self.pieces.push(Piece::Heads { start, end }),
            }
            let chunks = command
                .body
                .chunks()
                .iter()
                .filter(|chunk| !chunk.is_empty());
            self.pieces.extend(chunks.cloned().map(Piece::Body));
        }
    }

    async fn write<W: AsyncWrite + Unpin>(
        &mut self,
        socket: &mut W,
        stall: Duration,
    ) -> io::Result<()> {
        self.encode();
        let mut pieces = self.pieces.as_slice();
        // Bytes of the first piece that are written already.
        let mut offset = 0;
        while !pieces.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut used = 0;
            for (slice, piece) in slices.iter_mut().zip(pieces) {
                *slice = IoSlice::new(piece.bytes(&self.heads));
                used += 1;
            }
            if let Some(first) = slices.first_mut() {
                first.advance(offset);
            }
            let write = socket.write_vectored(slices.get(..used).unwrap_or_default());
            let mut count = match tokio::time::timeout(stall, write).await {
                Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(result) => result?,
                Err(_elapsed) => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "peer does not read",
                    ));
                }
            };
            count += offset;
            offset = 0;
            while let Some((first, rest)) = pieces.split_first() {
                let len = first.bytes(&self.heads).len();
                if count < len {
                    offset = count;
                    break;
                }
                count -= len;
                pieces = rest;
            }
        }
        Ok(())
    }
}

impl Piece {
    fn bytes<'a>(&'a self, heads: &'a BytesMut) -> &'a [u8] {
        match self {
            Self::Heads { start, end } => heads.get(*start..*end).unwrap_or_default(),
            Self::Body(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    /// Takes at most `step` bytes per write.
    struct Slow {
        step: usize,
        got: Vec<u8>,
        writes: usize,
        stuck: bool,
    }

    impl Slow {
        fn new(step: usize) -> Self {
            Self {
                step,
                got: Vec::new(),
                writes: 0,
                stuck: false,
            }
        }
    }

    impl AsyncWrite for Slow {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }
        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            if self.stuck {
                return Poll::Pending;
            }
            let bytes: Vec<u8> = slices
                .iter()
                .flat_map(|slice| slice.iter().copied())
                .take(self.step)
                .collect();
            self.got.extend_from_slice(&bytes);
            self.writes += 1;
            Poll::Ready(Ok(bytes.len()))
        }
        fn is_write_vectored(&self) -> bool {
            true
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn commands() -> Vec<RemotingCommand> {
        (0..200u8)
            .map(|i| {
                let mut command = RemotingCommand::response(0, Some(format!("remark {i}")));
                command.opaque = i32::from(i);
                let chunks: Vec<Bytes> =
                    (0..i % 4).map(|n| vec![n; usize::from(i)].into()).collect();
                command.with_body(chunks)
            })
            .collect()
    }

    #[tokio::test]
    async fn partial_writes_keep_every_byte_in_order() {
        let expected: Vec<u8> = commands()
            .iter()
            .flat_map(|command| command.encode())
            .collect();
        for step in [1, 7, 100, 10_000, usize::MAX] {
            let queue = WriteQueue::new(usize::MAX);
            for command in commands() {
                queue
                    .push(
                        command,
                        1,
                        Share {
                            requests: 1,
                            bytes: 10,
                        },
                    )
                    .unwrap();
            }
            queue.finish();
            let (mut socket, mut written) = (Slow::new(step), Share::default());
            queue
                .drain_into(&mut socket, Duration::from_secs(5), |share| {
                    written += share
                })
                .await
                .unwrap();
            assert!(socket.got == expected, "step {step}");
            assert_eq!(
                written,
                Share {
                    requests: 200,
                    bytes: 2000
                }
            );
            assert_eq!(queue.state.lock().bytes, 0);
            if step == usize::MAX {
                assert!(
                    socket.writes < 10,
                    "{} writes for 200 commands",
                    socket.writes
                );
            }
        }
    }

    #[test]
    fn the_queue_is_bounded_by_bytes_and_always_takes_one_command() {
        let queue = WriteQueue::new(100);
        let command = || RemotingCommand::response(0, None);
        queue.push(command(), 1_000, Share::default()).unwrap();
        let full = Refused::Full {
            bytes: 1_000,
            limit: 100,
        };
        assert_eq!(queue.push(command(), 1, Share::default()), Err(full));
        queue.close();
        assert_eq!(
            queue.push(command(), 1, Share::default()),
            Err(Refused::Closed)
        );
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_is_given_up() {
        let queue = WriteQueue::new(100);
        queue
            .push(RemotingCommand::response(0, None), 1, Share::default())
            .unwrap();
        let mut socket = Slow {
            stuck: true,
            ..Slow::new(1)
        };
        let result = queue
            .drain_into(&mut socket, Duration::from_millis(20), |_| ())
            .await;
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
