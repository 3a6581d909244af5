//! Chooses a port on 127.0.0.1 for each worker: one that the system says is free, and that no worker of this or
//! of another `lethe` has been given, even if it has not opened it yet.
//!
//! The claim on a port is a socket with an abstract name. Such names belong to a network namespace, as ports
//! do, and are free again when their process ends, however it ends.
//!
//! Ports are taken from below those that the system gives to whoever asks for any: in the moment between a worker's
//! death and the news of it, no other program must come to listen where requests are still sent.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::{Ipv4Addr, TcpListener},
    ops::Range,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

/// How many ports are tried before the system is asked for any.
const TRIES_MAX: usize = 1000;
/// Below are the ports by which databases and the like are known; one that is started later must find its own free.
const LOWEST: u16 = 29_000;
/// Where the system says which ports it gives to whoever asks for any.
const EPHEMERAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// A port that is kept for one worker until this is dropped.
#[derive(Debug)]
pub(crate) struct Port {
    /// Its number.
    pub(crate) number: u16,
    _claim: UnixDatagram,
}

/// Reserves a free port. The listener holds it open; dropping the listener frees it for the worker to open.
pub(crate) fn reserve() -> io::Result<(Port, TcpListener)> {
    let own = own();
    let first = RandomState::new().hash_one(());
    for step in 0..TRIES_MAX as u64 {
        let wanted = match own.len() as u64 {
            0 => 0,
            count => own.start + ((first.wrapping_add(step)) % count) as u16,
        };
        if let Some(reserved) = take(wanted)? {
            return Ok(reserved);
        }
    }
    // Better one that others may be given too than none.
    take(0)?.ok_or_else(|| io::Error::new(io::ErrorKind::AddrInUse, "no free port on 127.0.0.1"))
}

/// The ports below those that the system gives to whoever asks for any; empty if there are none.
fn own() -> Range<u16> {
    let ephemeral = std::fs::read_to_string(EPHEMERAL).unwrap_or_default();
    let end = ephemeral.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0);
    LOWEST.min(end)..end
}

/// Takes a port, any if `wanted` is 0; nothing if it is somebody's.
fn take(wanted: u16) -> io::Result<Option<(Port, TcpListener)>> {
    let taken = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => Ok(None),
        _ => Err(error),
    };
    let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, wanted)) {
        Ok(listener) => listener,
        Err(error) => return taken(error),
    };
    let number = listener.local_addr()?.port();
    match claim(number) {
        Ok(_claim) => Ok(Some((Port { number, _claim }, listener))),
        Err(error) => taken(error),
    }
}

fn claim(number: u16) -> io::Result<UnixDatagram> {
    UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(format!("lethe-port-{number}"))?)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_system_gives_it_to_nobody_else() {
        let own = own();
        assert!(!own.is_empty(), "this system gives all ports to whoever asks");
        for _ in 0..50 {
            assert!(own.contains(&reserve().unwrap().0.number));
            assert!(!own.contains(&TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()));
        }
    }

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
