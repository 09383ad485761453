//! The outside of a member in a simulation: its sockets, and how long its disk takes.
//!
//! Everything else of a member is what is deployed. A simulation has one thread, so whatever would
//! run on another one runs here as a task.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::transport::Uri;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// The network and the disks.
pub trait World: Send + Sync {
    /// Opens a port of the member that is running: others' connections to it arrive here.
    fn listen(&self, address: SocketAddr) -> io::Result<mpsc::UnboundedReceiver<Connection>>;
    /// Connects the member that is running to a port.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Connection>>;
    /// How long a piece of work that waits for the disk is going to take.
    fn disk_latency(&self) -> Duration;
}

static WORLD: OnceLock<Box<dyn World>> = OnceLock::new();

/// Sets the world of this process. The first one counts.
pub fn install(world: impl World + 'static) {
    WORLD.get_or_init(|| Box::new(world));
}

fn world() -> &'static dyn World {
    &**WORLD.get().expect("a simulation installs its world first")
}

/// Both directions of a connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// One end of a connection.
pub struct Connection {
    /// The bytes.
    pub duplex: Pin<Box<dyn Duplex>>,
    /// The other end.
    pub remote: SocketAddr,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.duplex.as_mut().poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.duplex.as_mut().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.duplex.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.duplex.as_mut().poll_shutdown(context)
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo {
            local_addr: None,
            remote_addr: Some(self.remote),
        }
    }
}

/// A port of a member.
pub(crate) struct Listener {
    address: SocketAddr,
    accepted: mpsc::UnboundedReceiver<Connection>,
}

impl Listener {
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

pub(crate) async fn listen(address: SocketAddr) -> io::Result<Listener> {
    let accepted = world().listen(address)?;
    Ok(Listener { address, accepted })
}

/// A simulated address has one owner.
pub(crate) async fn reserve(_address: SocketAddr) -> io::Result<()> {
    Ok(())
}

pub(crate) fn incoming(
    listener: Listener,
) -> impl Stream<Item = io::Result<Connection>> + Send + 'static {
    futures::stream::unfold(listener, |mut listener| async move {
        let connection = listener.accepted.recv().await?;
        Some((Ok(connection), listener))
    })
}

/// How long a connection may take to be set up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) async fn connect(address: Uri) -> io::Result<Connection> {
    let authority = address
        .authority()
        .map_or("", |authority| authority.as_str());
    let address = authority.parse().map_err(io::Error::other)?;
    tokio::time::timeout(CONNECT_TIMEOUT, world().connect(address)).await?
}

pub(crate) fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    tokio::spawn(async move {
        tokio::time::sleep(world().disk_latency()).await;
        work()
    })
}
