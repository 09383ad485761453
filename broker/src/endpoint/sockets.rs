//! The sockets that the leader listens on at its endpoint, shared by the members of a group on one machine.
//!
//! The system keeps a listening socket for as long as any process has it. So when the leader dies, clients that connect to
//! its endpoint are not refused: they wait in the socket's queue until the next leader, which has the same socket,
//! accepts them. Members ask the leader for it over a Unix socket with an abstract name, which reaches those of the same
//! machine (and network namespace) only. Elsewhere there is nobody of that name, and nothing is shared.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use crate::ports::Pair;
use rustix::cmsg_space;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect,
    listen, recvmsg, sendmsg, socket_with, sockopt,
};

/// A member on the same machine answers at once; one that is frozen does not.
const ANSWER_WITHIN: Duration = Duration::from_millis(100);
/// Members that may wait to be given the sockets.
const ASKING_MAX: i32 = 16;

/// Another handle of the same sockets.
pub(crate) fn another(pair: &Pair) -> io::Result<Pair> {
    Ok([pair[0].try_clone()?, pair[1].try_clone()?])
}

/// The name under which a member of a group gives its sockets away.
pub(crate) fn name(group: &str, port: u16, member: u64) -> String {
    format!("raftmq/{group}/{port}/n{member}")
}

/// Listens for those who ask for the sockets; nonblocking.
///
/// # Errors
/// When somebody has the name.
pub(crate) fn give_at(name: &str) -> io::Result<UnixListener> {
    let socket = unix_socket()?;
    bind(
        &socket,
        &SocketAddrUnix::new_abstract_name(name.as_bytes())?,
    )?;
    listen(&socket, ASKING_MAX)?;
    Ok(UnixListener::from(socket))
}

/// Gives the sockets to somebody who asked, if it is a process of the same user.
pub(crate) fn give(asking: impl AsFd, pair: &Pair) -> io::Result<()> {
    require_same_user(&asking)?;
    let sockets = [pair[0].as_fd(), pair[1].as_fd()];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::Error::other("no room for two sockets"));
    }
    sendmsg(
        asking,
        &[IoSlice::new(b"2")],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Asks the member of that name for its sockets, which listen at these addresses. Takes as long as [`ANSWER_WITHIN`] at
/// most.
///
/// # Errors
/// When nobody has the name, when it does not answer or has none, or when what it has is something else.
pub(crate) fn ask(name: &str, addresses: [SocketAddr; 2]) -> io::Result<Pair> {
    let socket = unix_socket()?;
    // Nonblocking, so that a frozen member whose queue is full is no reason to wait.
    connect(
        &socket,
        &SocketAddrUnix::new_abstract_name(name.as_bytes())?,
    )?;
    require_same_user(&socket)?;
    rustix::io::ioctl_fionbio(&socket, false)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(ANSWER_WITHIN))?;
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0];
    let mut text = [IoSliceMut::new(&mut text)];
    recvmsg(&socket, &mut text, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut given: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(sockets) = message {
            given.extend(sockets);
        }
    }
    let given = <[OwnedFd; 2]>::try_from(given)
        .map_err(|given| io::Error::other(format!("{} sockets were given", given.len())))?;
    let pair = given.map(TcpListener::from);
    for (listener, address) in pair.iter().zip(addresses) {
        if !sockopt::socket_acceptconn(listener)? || listener.local_addr()? != address {
            return Err(io::Error::other(format!(
                "what was given does not listen on {address}"
            )));
        }
    }
    Ok(pair)
}

fn unix_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        flags,
        None,
    )?)
}

/// An abstract name has no permissions: anybody may have it, or ask there.
fn require_same_user(socket: &impl AsFd) -> io::Result<()> {
    let theirs = sockopt::socket_peercred(socket)?.uid;
    if theirs == rustix::process::geteuid() {
        return Ok(());
    }
    let text = format!("a process of another user (id {})", theirs.as_raw());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn pair() -> (Pair, [SocketAddr; 2]) {
        let any = || TcpListener::bind("127.0.0.1:0").unwrap();
        let pair = [any(), any()];
        let addresses = [pair[0].local_addr().unwrap(), pair[1].local_addr().unwrap()];
        (pair, addresses)
    }

    fn own_name(of: &str) -> String {
        name(of, 1, u64::from(std::process::id()))
    }

    /// What somebody gets who asks the owner of `pair` once.
    fn ask_for(pair: &Pair, name: &str, addresses: [SocketAddr; 2]) -> io::Result<Pair> {
        let giving = give_at(name).unwrap();
        giving.set_nonblocking(false).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| give(giving.accept().unwrap().0, pair).unwrap());
            ask(name, addresses)
        })
    }

    /// Who connects while the first owner is gone is accepted by the one that was given the sockets.
    #[test]
    fn a_queue_outlives_who_bound_it() {
        let (first, addresses) = pair();
        let name = own_name("outlives");
        let given = ask_for(&first, &name, addresses).unwrap();
        drop(first);
        let client = TcpStream::connect(addresses[1]).unwrap();
        let (_, peer) = given[1].accept().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        drop(given);
        assert!(TcpStream::connect(addresses[1]).is_err());
    }

    #[test]
    fn nobody_answers_there() {
        let (_pair, addresses) = pair();
        let name = own_name("nobody");
        let error = ask(&name, addresses).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        // Frozen: it has the name and says nothing, however often it is asked.
        let _frozen = give_at(&name).unwrap();
        for _ in 0..3 {
            assert_eq!(
                ask(&name, addresses).unwrap_err().kind(),
                io::ErrorKind::WouldBlock
            );
        }
        assert_eq!(give_at(&name).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn sockets_of_something_else_are_not_taken() {
        let (first, _) = pair();
        let (_other, addresses) = pair();
        let name = own_name("else");
        let error = ask_for(&first, &name, addresses).unwrap_err();
        assert!(
            error.to_string().contains("does not listen on 127.0.0.1:"),
            "{error}"
        );
    }
}
