//! Who listens, asked of the kernel by its diagnosis of sockets (`sock_diag(7)`). The table in `/proc` says the same, but walks all
//! connections of the machine each time, which takes longer than the rest of a start.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// `SOCK_DIAG_BY_FAMILY`, of questions and answers.
const BY_FAMILY: u16 = 20;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `NLMSG_DONE`.
const DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// A set of states with `TCP_LISTEN` alone.
const LISTENING: u32 = 1 << 10;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// Length of `nlmsghdr`.
const HEADER: usize = 16;
/// Length of `inet_diag_req_v2`.
const QUESTION: usize = 56;
/// Largest batch of answers; the kernel's are of 32 KiB at most.
const BATCH_BYTES_MAX: usize = 64 << 10;

/// The TCP addresses that are listened on in the network namespace of this process.
pub(super) fn listening() -> io::Result<BTreeSet<SocketAddr>> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::SOCK_DIAG))?;
    let mut found = BTreeSet::new();
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        send(&socket, &question(family), SendFlags::empty())?;
        let mut batch = vec![0; BATCH_BYTES_MAX];
        loop {
            let (length, _) = recv(&socket, &mut *batch, RecvFlags::empty())?;
            if read(&batch[..length], &mut found)? {
                break;
            }
        }
    }
    Ok(found)
}

fn question(family: AddressFamily) -> [u8; HEADER + QUESTION] {
    let mut bytes = [0; HEADER + QUESTION];
    bytes[0..4].copy_from_slice(&((HEADER + QUESTION) as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&DUMP.to_ne_bytes());
    bytes[HEADER] = family.as_raw() as u8;
    bytes[HEADER + 1] = TCP;
    bytes[HEADER + 4..HEADER + 8].copy_from_slice(&LISTENING.to_ne_bytes());
    bytes
}

/// Reads a batch of messages; whether it was the last.
fn read(mut batch: &[u8], found: &mut BTreeSet<SocketAddr>) -> io::Result<bool> {
    let cut = || io::Error::from(io::ErrorKind::InvalidData);
    while batch.len() >= HEADER {
        let length = u32::from_ne_bytes([batch[0], batch[1], batch[2], batch[3]]) as usize;
        let message = batch.get(HEADER..length).ok_or_else(cut)?;
        match u16::from_ne_bytes([batch[4], batch[5]]) {
            DONE => return Ok(true),
            ERROR => return Err(io::ErrorKind::Unsupported.into()),
            BY_FAMILY => drop(found.insert(address(message).ok_or_else(cut)?)),
            _ => {}
        }
        // Each begins at a multiple of four.
        batch = batch.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// `inet_diag_msg`: the family, and from byte 4 the port, in the network's order; from byte 8 the address.
fn address(message: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(message.get(4..6)?.try_into().ok()?);
    let is_v6 = AddressFamily::from_raw(u16::from(*message.first()?)) == AddressFamily::INET6;
    let ip: IpAddr = match is_v6 {
        true => Ipv6Addr::from(<[u8; 16]>::try_from(message.get(8..24)?).ok()?).into(),
        false => Ipv4Addr::from(<[u8; 4]>::try_from(message.get(8..12)?).ok()?).into(),
    };
    Some((ip, port).into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn what_listens_is_found_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        let found = listening().unwrap();
        assert!(found.contains(&address) && !found.contains(&client.local_addr().unwrap()), "{found:?}");
        drop(listener);
        assert!(!listening().unwrap().contains(&address));
        if let Ok(listener) = TcpListener::bind("[::1]:0") {
            assert!(listening().unwrap().contains(&listener.local_addr().unwrap()));
        }
    }

    #[test]
    fn cut_answers_are_refused() {
        let mut batch = question(AddressFamily::INET).to_vec();
        assert!(!read(&batch, &mut BTreeSet::new()).unwrap());
        batch.truncate(30);
        assert!(read(&batch, &mut BTreeSet::new()).is_err());
        assert!(address(&[2, 10, 0, 0, 0]).is_none());
    }
}
