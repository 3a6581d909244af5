//! Chooses a port on 127.0.0.1 for each worker: one that the system says is free and that no other worker of
//! ours has been given, even if it has not opened it yet.

use std::{
    collections::HashSet,
    io,
    net::{Ipv4Addr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
};

/// How often another port is asked for when the system names one that is given away already.
const TRIES_MAX: usize = 100;

/// The ports that are given away.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    given: Mutex<HashSet<u16>>,
}

/// A port that is kept for one worker until this is dropped.
#[derive(Debug)]
pub(crate) struct Port {
    ports: Arc<Ports>,
    /// Its number.
    pub(crate) number: u16,
}

impl Ports {
    /// Reserves a free port. The listener holds it open; dropping the listener frees it for the worker to open.
    pub(crate) fn reserve(self: &Arc<Self>) -> io::Result<(Port, TcpListener)> {
        for _ in 0..TRIES_MAX {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let number = listener.local_addr()?.port();
            if self.given.lock().unwrap_or_else(PoisonError::into_inner).insert(number) {
                return Ok((Port { ports: Arc::clone(self), number }, listener));
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "no free port on 127.0.0.1"))
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.ports.given.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once_until_it_is_dropped() {
        let ports = Arc::new(Ports::default());
        // The listeners are dropped at once, as when workers have not opened their ports yet.
        let given: Vec<Port> = (0..300).map(|_| ports.reserve().unwrap().0).collect();
        let numbers: HashSet<u16> = given.iter().map(|port| port.number).collect();
        assert_eq!(numbers.len(), given.len());
        drop(given);
        assert!(ports.given.lock().unwrap().is_empty());
    }
}
