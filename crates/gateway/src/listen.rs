//! The listeners: one for each core on one address, among which the kernel spreads connections.

use std::{io, net::SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel keeps for each listener until they are accepted.
const BACKLOG: i32 = 4096;

/// Opens `count` listeners on `address`. Fails with [`io::ErrorKind::AddrInUse`] if anyone else has the port.
///
/// `SO_REUSEPORT` would let a second process of the same user share the port without a word. So the first socket is
/// bound without it, which only succeeds on a port that nobody has, and gets it afterwards; from then on the other
/// cores' sockets may join, and a second `lethe`, whose first socket is without it too, may not.
pub(crate) fn listen(address: SocketAddr, count: usize) -> io::Result<Vec<std::net::TcpListener>> {
    let first = socket(address)?;
    first.bind(&address.into())?;
    first.set_reuse_port(true)?;
    // Port 0 has become a number.
    let address = first.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mut sockets = vec![first];
    for _ in 1..count {
        let socket = socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        sockets.push(socket);
    }
    for socket in &sockets {
        socket.listen(BACKLOG)?;
    }
    Ok(sockets.into_iter().map(Into::into).collect())
}

/// Makes of inherited listeners at least `count`: where there are fewer, several share one and its queue.
pub(crate) fn share(
    mut sockets: Vec<std::net::TcpListener>,
    count: usize,
) -> io::Result<Vec<std::net::TcpListener>> {
    for socket in &sockets {
        socket.set_nonblocking(true)?;
    }
    let inherited = sockets.len();
    for number in inherited..count.max(inherited) {
        let same = sockets.get(number % inherited.max(1)).ok_or(io::ErrorKind::InvalidInput)?.try_clone()?;
        sockets.push(same);
    }
    Ok(sockets)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // A port whose last connections are in TIME_WAIT is free.
    socket.set_reuse_address(true)?;
    // Each connection has it from its listener (tcp(7)), and need not be told.
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, io::Read, net::TcpStream};

    use super::*;

    #[test]
    fn a_taken_port_is_noticed() {
        let listeners = listen(([127, 0, 0, 1], 0).into(), 2).unwrap();
        let address = listeners[0].local_addr().unwrap();
        assert_eq!(listeners[1].local_addr().unwrap(), address);
        assert_eq!(listen(address, 2).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listeners);
        listen(address, 2).unwrap();
    }

    #[test]
    fn every_listener_gets_connections() {
        let listeners = listen(([127, 0, 0, 1], 0).into(), 2).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let mut served = BTreeSet::new();
        let mut clients = Vec::new();
        // The kernel spreads by a hash of the ports: 64 connections all on one side would be 1 in 2^63.
        for _ in 0..64 {
            clients.push(TcpStream::connect(address).unwrap());
        }
        for (index, listener) in listeners.iter().enumerate() {
            while let Ok((stream, _)) = listener.accept() {
                served.insert(index);
                drop(stream);
            }
        }
        assert_eq!(served.len(), 2);
        // All were accepted by one or the other.
        clients.iter_mut().for_each(|client| assert_eq!(client.read(&mut [0]).unwrap(), 0));
    }
}
