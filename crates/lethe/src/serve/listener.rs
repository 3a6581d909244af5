//! Where a worker listens: on the socket it inherited, else on the unix socket `$SOCKET`, else on `127.0.0.1:$PORT`.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::{
        fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixListener,
    },
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{io::FdFlags, net::SocketType};

use super::socket::Socket;
use crate::Error;

/// The port when `PORT` is not set.
pub const PORT_DEFAULT: u16 = 3000;
/// The first descriptor that is passed on: `SD_LISTEN_FDS_START` of `sd_listen_fds(3)`.
const FIRST_FD: RawFd = 3;

/// Whether this process has taken the inherited socket, which it can do once.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// A bound socket, and whether others may hold it too.
pub(super) struct Listener {
    pub(super) socket: Socket,
    pub(super) inherited: bool,
}

pub(super) fn open() -> Result<Listener, Error> {
    let variable = |name| env::var(name).ok();
    let inherited = is_for_us(variable("LISTEN_FDS"), variable("LISTEN_PID"), std::process::id());
    let socket = match (inherited, env::var_os("SOCKET")) {
        (true, _) => watched(inherit()?)?,
        (false, Some(path)) => open_unix(path.into())?,
        (false, None) => watched(bind(variable("PORT"))?)?,
    };
    Ok(Listener { socket, inherited })
}

fn watched(socket: TcpListener) -> Result<Socket, Error> {
    let refused = |error| Error::Inherited(format!("it cannot be used: {error}"));
    socket.set_nonblocking(true).map_err(refused)?;
    tokio::net::TcpListener::from_std(socket).map(Socket::Tcp).map_err(refused)
}

fn open_unix(path: PathBuf) -> Result<Socket, Error> {
    let open = || {
        let socket = UnixListener::bind(&path)?;
        socket.set_nonblocking(true)?;
        tokio::net::UnixListener::from_std(socket)
    };
    open().map(Socket::Unix).map_err(|source| Error::ListenUnix { path: path.clone(), source })
}

/// The protocol of `sd_listen_fds(3)`: `LISTEN_PID` keeps a child from taking what was meant for its parent.
fn is_for_us(fds: Option<String>, pid: Option<String>, own_pid: u32) -> bool {
    let number = |text: Option<String>| text.and_then(|text| text.parse::<u32>().ok());
    number(fds).is_some_and(|count| count > 0) && number(pid) == Some(own_pid)
}

fn inherit() -> Result<TcpListener, Error> {
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(Error::Inherited("it was taken before; call `serve` once".into()));
    }
    // SAFETY: the descriptor is only asked about, and a closed one is answered with EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(FIRST_FD) };
    let listens = rustix::net::sockopt::socket_acceptconn(borrowed)
        .and_then(|listens| Ok(listens && rustix::net::sockopt::socket_type(borrowed)? == SocketType::STREAM))
        .map_err(|error| Error::Inherited(format!("that is not one: {error}")))?;
    if !listens {
        return Err(Error::Inherited("that does not listen".into()));
    }
    // SAFETY: whoever sets LISTEN_FDS hands the descriptor over for good, and `TAKEN` sees to it that it gets
    // one owner.
    let owned = unsafe { OwnedFd::from_raw_fd(FIRST_FD) };
    rustix::io::fcntl_setfd(&owned, FdFlags::CLOEXEC)
        .map_err(|error| Error::Inherited(format!("it cannot be kept from children: {error}")))?;
    let socket = TcpListener::from(owned);
    match socket.local_addr() {
        Ok(_) => Ok(socket),
        Err(error) => Err(Error::Inherited(format!("that is not a TCP socket: {error}"))),
    }
}

fn bind(port: Option<String>) -> Result<TcpListener, Error> {
    let port = match port {
        None => PORT_DEFAULT,
        Some(text) => text.trim().parse().map_err(|_| Error::Port(text))?,
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address).map_err(|source| Error::Listen { address, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_taken_only_when_it_is_meant_for_this_process() {
        let text = |text: &str| Some(text.to_owned());
        assert!(is_for_us(text("1"), text("42"), 42));
        assert!(is_for_us(text("2"), text("42"), 42));
        assert!(!is_for_us(text("1"), None, 42));
        assert!(!is_for_us(text("1"), text("41"), 42));
        assert!(!is_for_us(text("1"), text(""), 42));
        assert!(!is_for_us(text("0"), text("42"), 42));
        assert!(!is_for_us(text("one"), text("42"), 42));
        assert!(!is_for_us(None, None, 42));
    }

    #[test]
    fn a_port_that_is_none_is_named() {
        let error = bind(Some("80a".into())).unwrap_err();
        assert_eq!(error.to_string(), "PORT is `80a`, which is not a number from 0 to 65535");
    }

    #[tokio::test]
    async fn a_unix_socket_is_opened_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("its.sock");
        let socket = open_unix(path.clone()).unwrap();
        assert_eq!(socket.place().unwrap(), format!("unix:{}", path.display()));
        drop(socket);
        let error = open_unix(path.clone()).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains("remove that file"), "{error}");
    }

    #[test]
    fn a_taken_port_is_named() {
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = other.local_addr().unwrap().port();
        let error = bind(Some(port.to_string())).unwrap_err();
        assert!(matches!(error, Error::Listen { address, .. } if address.port() == port));
    }
}
