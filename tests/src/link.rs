//! The links between members, through a proxy that can make them slow, silent or reset them.
//!
//! Members know nothing of it: the router of the [`Network`] hands it what one member sends to the port of another, it accepts
//! in the name of that one, and connects on in the name of the first. What the network cuts stays cut on both sides of it.

use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::network::Network;

/// Bytes read at once.
const PIECE: usize = 64 << 10;
/// Pieces under way in one direction of one connection; then the sender has to wait.
const PIECES: usize = 64;

/// How a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quality {
    /// As if there were no proxy.
    Well,
    /// Everything arrives this much later.
    Slow(Duration),
    /// Half open: connections stand and new ones are accepted, and nothing arrives. When that ends they are reset, for what
    /// was swallowed is gone.
    Silent,
}

#[derive(Debug, Clone, Copy)]
struct State {
    quality: Quality,
    /// How often all its connections have been reset.
    resets: u64,
}

/// From the member that connects to the one that listens.
type Pair = (usize, usize);

#[derive(Debug, Default)]
struct States {
    links: Mutex<BTreeMap<Pair, watch::Sender<State>>>,
}

impl States {
    fn with<T>(&self, pair: Pair, act: impl FnOnce(&watch::Sender<State>) -> T) -> T {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let well = State {
            quality: Quality::Well,
            resets: 0,
        };
        act(links
            .entry(pair)
            .or_insert_with(|| watch::Sender::new(well)))
    }
}

/// All links of a group.
#[derive(Debug)]
pub struct Links {
    states: Arc<States>,
    runtime: Runtime,
    ports: Vec<u16>,
}

impl Links {
    /// No link yet.
    pub fn new() -> Result<Links> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("start a runtime for the links")?;
        Ok(Links {
            states: Arc::default(),
            runtime,
            ports: Vec::new(),
        })
    }

    /// From now on what others send to this port of `member` goes through here, if it does not already.
    pub fn take_over(&mut self, network: &Network, member: usize, port: u16) -> Result<()> {
        if self.ports.contains(&port) {
            return Ok(());
        }
        let listening = self.runtime.block_on(async { listen(port) });
        let listener = listening.with_context(|| format!("listen for n{member} on {port}"))?;
        self.runtime
            .spawn(serve(listener, Arc::clone(&self.states)));
        network.hand_over(member, port)?;
        self.ports.push(port);
        Ok(())
    }

    /// Changes the links between two members, whoever connects to whom.
    pub fn set(&self, one: usize, other: usize, quality: Quality) {
        for pair in [(one, other), (other, one)] {
            self.states.with(pair, |state| {
                state.send_modify(|state| {
                    let spoilt = state.quality == Quality::Silent && quality != Quality::Silent;
                    state.resets += u64::from(spoilt);
                    state.quality = quality;
                });
            });
        }
    }

    /// Resets every connection between two members.
    pub fn reset(&self, one: usize, other: usize) {
        for pair in [(one, other), (other, one)] {
            self.states
                .with(pair, |state| state.send_modify(|state| state.resets += 1));
        }
    }
}

/// Switches a socket option that the standard library does not know.
fn set_option<T>(socket: &impl AsRawFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    let value: *const T = value;
    // SAFETY: a plain system call; the pointer is to a live value of that size, and the descriptor is the socket's.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value.cast(), size) };
    if set == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

/// A socket that may have an address of somebody else.
fn transparent() -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    set_option(&socket, libc::SOL_IP, libc::IP_TRANSPARENT, &1_i32)?;
    Ok(socket)
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = transparent()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from(([0, 0, 0, 0], port)))?;
    socket.listen(128)
}

async fn serve(listener: TcpListener, states: Arc<States>) {
    loop {
        let Ok((near, from)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let Ok(to) = near.local_addr() else { continue };
        let pair = (member_at(from.ip()), member_at(to.ip()));
        let state = states.with(pair, watch::Sender::subscribe);
        tokio::spawn(relay(near, from.ip(), to, state));
    }
}

/// See [`host`](crate::network::host).
fn member_at(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(address) => usize::from(address.octets()[2]),
        IpAddr::V6(_) => usize::MAX,
    }
}

/// Relays one connection until it ends or is reset.
async fn relay(mut near: TcpStream, from: IpAddr, to: SocketAddr, state: watch::Receiver<State>) {
    let reset = reset_of(state.clone());
    tokio::pin!(reset);
    let connecting = async {
        let socket = transparent()?;
        socket.bind(SocketAddr::new(from, 0))?;
        socket.connect(to).await
    };
    let far = tokio::select! {
        far = connecting => far.ok(),
        () = &mut reset => None,
    };
    let Some(mut far) = far else {
        return abort(near);
    };
    near.set_nodelay(true).ok(); // either only costs time
    far.set_nodelay(true).ok();
    let ended = {
        let ((near_read, near_write), (far_read, far_write)) = (near.split(), far.split());
        let both = async {
            tokio::try_join!(
                pump(near_read, far_write, state.clone()),
                pump(far_read, near_write, state.clone())
            )
        };
        tokio::select! {
            ended = both => ended.is_ok(),
            () = &mut reset => false,
        }
    };
    if !ended {
        abort(near);
        abort(far);
    }
}

fn reset_of(mut state: watch::Receiver<State>) -> impl Future<Output = ()> {
    let born = state.borrow_and_update().resets;
    async move {
        // An error means that the whole network is going.
        state.wait_for(|state| state.resets != born).await.ok();
    }
}

/// Ends a connection with a reset.
fn abort(stream: TcpStream) {
    let at_once = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // Otherwise it ends in order, which is as good as nothing better.
    set_option(&stream, libc::SOL_SOCKET, libc::SO_LINGER, &at_once).ok();
}

async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    state: watch::Receiver<State>,
) -> io::Result<()> {
    let (pieces, mut due) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES);
    let seen = state.clone();
    let reading = async move {
        loop {
            let mut piece = vec![0; PIECE];
            let size = from.read(&mut piece).await?;
            piece.truncate(size);
            let quality = seen.borrow().quality;
            let delay = match quality {
                Quality::Well | Quality::Silent => Duration::ZERO,
                Quality::Slow(delay) => delay,
            };
            // The other side has ended when nobody takes it.
            let taken = pieces.send((Instant::now() + delay, piece)).await;
            if size == 0 || taken.is_err() {
                return Ok(());
            }
        }
    };
    let writing = async move {
        while let Some((at, piece)) = due.recv().await {
            sleep_until(at).await;
            if state.borrow().quality == Quality::Silent {
                pending::<()>().await; // until the reset
            }
            if piece.is_empty() {
                return to.shutdown().await;
            }
            to.write_all(&piece).await?;
        }
        Ok(())
    };
    tokio::try_join!(reading, writing).map(|_| ())
}
