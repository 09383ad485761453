//! Sockets between members.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::Stream;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;
use tonic::transport::Uri;
use tonic::transport::server::TcpIncoming;

/// How long a connection may take to be set up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections waiting to be accepted.
const BACKLOG: u32 = 128;

/// How long a taken port is tried again, and how often.
const TAKEN_PORT_PATIENCE: Duration = Duration::from_secs(2);
const TAKEN_PORT_PAUSE: Duration = Duration::from_millis(50);

pub(crate) type Listener = TcpListener;
pub(crate) type Connection = TcpStream;

/// Opens the port that members reach this one at.
///
/// A port that is taken is tried again for a while: on a machine with other members, an outgoing
/// connection may have it for a moment.
pub(crate) async fn listen(address: SocketAddr) -> io::Result<Listener> {
    patiently(|| bind(address)?.listen(BACKLOG)).await
}

/// Has the port, on which nobody listens yet: connections to it are refused at once.
pub(crate) async fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    patiently(|| bind(address)).await
}

async fn patiently<T>(take: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let until = Instant::now() + TAKEN_PORT_PATIENCE;
    loop {
        match take() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                tokio::time::sleep(TAKEN_PORT_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restarted member must not wait for the last connections of its former life.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// The connections that others make.
pub(crate) fn incoming(
    listener: Listener,
) -> impl Stream<Item = io::Result<Connection>> + Send + 'static {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// Connects to the host and port of an address.
///
/// On one machine a connection to a port on which nobody listens can meet itself: the system may
/// pick that very port as the local one, as it may any in its range for outgoing connections
/// (32768 and up). It would keep the member that is to listen there from starting.
pub(crate) async fn connect(address: Uri) -> io::Result<Connection> {
    let host = address.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let connecting = TcpStream::connect((host, address.port_u16().unwrap_or_default()));
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await??;
    if stream.local_addr()? == stream.peer_addr()? {
        // Without lingering the port is free at once.
        stream.set_zero_linger()?;
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}
