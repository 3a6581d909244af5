//! Chooses a port on 127.0.0.1 for each worker: one that the system says is free, and that no worker of this or
//! of another `lethe` has been given, even if it has not opened it yet.
//!
//! The claim on a port is a socket with an abstract name. Such names belong to a network namespace, as ports
//! do, and are free again when their process ends, however it ends.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

/// How often another port is asked for when the system names one that is given away already.
const TRIES_MAX: usize = 100;

/// A port that is kept for one worker until this is dropped.
#[derive(Debug)]
pub(crate) struct Port {
    /// Its number.
    pub(crate) number: u16,
    _claim: UnixDatagram,
}

/// Reserves a free port. The listener holds it open; dropping the listener frees it for the worker to open.
pub(crate) fn reserve() -> io::Result<(Port, TcpListener)> {
    for _ in 0..TRIES_MAX {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let number = listener.local_addr()?.port();
        match claim(number) {
            Ok(_claim) => return Ok((Port { number, _claim }, listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no free port on 127.0.0.1"))
}

fn claim(number: u16) -> io::Result<UnixDatagram> {
    UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(format!("lethe-port-{number}"))?)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_port_is_given_once_until_it_is_dropped() {
        // The listeners are dropped at once, as when workers have not opened their ports yet.
        let given: Vec<Port> = (0..300).map(|_| reserve().unwrap().0).collect();
        let numbers: HashSet<u16> = given.iter().map(|port| port.number).collect();
        assert_eq!(numbers.len(), given.len());
        let number = given[0].number;
        assert_eq!(claim(number).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(given);
        claim(number).unwrap();
    }
}
