//! Who listens: the kernel's tables of TCP sockets, and of unix sockets (`proc_net_tcp(5)`, `proc(5)`).

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use super::diag;

/// `TCP_LISTEN`, as the tables write it.
const LISTEN: &str = "0A";

/// `TCP_ESTABLISHED`.
const ESTABLISHED: &str = "01";

/// `__SO_ACCEPTCON` in the flags of a unix socket: it listens.
const ACCEPTS: u32 = 0x1_0000;

/// The TCP addresses that are listened on in the network namespace of this process.
pub fn tcp() -> io::Result<BTreeSet<SocketAddr>> {
    // Not all kernels are built with it.
    diag::listening().or_else(|_| by_table())
}

fn by_table() -> io::Result<BTreeSet<SocketAddr>> {
    let mut found = of_table(&fs::read_to_string("/proc/net/tcp")?);
    // Absent where IPv6 is switched off.
    found.extend(fs::read_to_string("/proc/net/tcp6").iter().flat_map(|table| of_table(table)));
    Ok(found)
}

/// The listening addresses of one table.
fn of_table(table: &str) -> BTreeSet<SocketAddr> {
    let rows = table.lines().skip(1).map(|line| line.split_ascii_whitespace());
    rows.filter_map(|mut row| {
        let local = row.nth(1)?;
        (row.nth(1)? == LISTEN).then(|| address(local)).flatten()
    })
    .collect()
}

/// How much of what came to a local port nobody has read yet: bytes of connections, and connections that nobody has accepted. Zero says that
/// all that was sent is in the hands of who listens there.
pub fn unread(port: u16) -> io::Result<u64> {
    let mut unread = unread_in(&fs::read_to_string("/proc/net/tcp")?, port);
    unread += fs::read_to_string("/proc/net/tcp6").map_or(0, |table| unread_in(&table, port));
    Ok(unread)
}

/// The same of one table. A connection that the other end has closed counts its end as a byte, which says nothing, and is left out.
fn unread_in(table: &str, port: u16) -> u64 {
    let rows = table.lines().skip(1).map(|line| line.split_ascii_whitespace());
    rows.filter_map(|mut row| {
        let local = address(row.nth(1)?)?;
        let state = row.nth(1)?;
        let (_, received) = row.next()?.split_once(':')?;
        let is_meant = local.port() == port && (state == LISTEN || state == ESTABLISHED);
        is_meant.then(|| u64::from_str_radix(received, 16).ok()).flatten()
    })
    .sum()
}

/// `0100007F:1F90`: words of four bytes in the machine's order, then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        ip.get(at * 8..at * 8 + 8).and_then(|word| u32::from_str_radix(word, 16).ok()).map(u32::to_ne_bytes)
    };
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut bytes = [0; 16];
            for at in 0..4 {
                bytes[at * 4..at * 4 + 4].copy_from_slice(&word(at)?);
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some((ip, port).into())
}

/// Where a worker's world needs doors, so that `localhost` leads where it leads outside: the loopback addresses of all
/// that is listened on at loopback or at all addresses.
pub fn doors(listening: &BTreeSet<SocketAddr>) -> BTreeSet<SocketAddr> {
    let mut doors = BTreeSet::new();
    for address in listening {
        let port = address.port();
        match address.ip() {
            IpAddr::V4(ip) if ip.is_loopback() => drop(doors.insert((ip, port).into())),
            IpAddr::V4(ip) if ip.is_unspecified() => drop(doors.insert((Ipv4Addr::LOCALHOST, port).into())),
            IpAddr::V6(ip) if ip.is_loopback() => drop(doors.insert((ip, port).into())),
            // Such a socket usually serves IPv4 too.
            IpAddr::V6(ip) if ip.is_unspecified() => {
                doors.insert((Ipv6Addr::LOCALHOST, port).into());
                doors.insert((Ipv4Addr::LOCALHOST, port).into());
            }
            _ => {}
        }
    }
    doors
}

/// The files of unix sockets that are listened on in this network namespace.
pub fn unix() -> io::Result<BTreeSet<PathBuf>> {
    Ok(of_unix_table(&String::from_utf8_lossy(&fs::read("/proc/net/unix")?)))
}

fn of_unix_table(table: &str) -> BTreeSet<PathBuf> {
    let rows = table.lines().skip(1).map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    rows.filter(|row| {
        row.get(3).and_then(|flags| u32::from_str_radix(flags, 16).ok()).is_some_and(|f| f & ACCEPTS != 0)
    })
    .filter_map(|row| row.get(7).filter(|path| path.starts_with('/')).map(PathBuf::from))
    .collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn tables_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
            0: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1 1\n\
            1: 0100007F:18EB 0100007F:9C40 01 00000000:00000000 00:00000000 00000000 0 0 2 1\n\
            2: nonsense\n";
        assert_eq!(of_table(table), BTreeSet::from(["127.0.0.1:6379".parse().unwrap()]));
        let table = "head\n0: 00000000000000000000000001000000:0BB8 0:0 0A x\n";
        assert_eq!(of_table(table), BTreeSet::from(["[::1]:3000".parse().unwrap()]));
    }

    #[test]
    fn what_nobody_has_read_is_counted() {
        use std::io::{Read, Write};
        let table = "head\n\
            0: 0100007F:1F40 00000000:0000 0A 00000000:00000002 x\n\
            1: 0100007F:1F40 0100007F:9C40 01 00000000:00000010 x\n\
            2: 0100007F:1F40 0100007F:9C42 08 00000000:00000001 x\n\
            3: 0100007F:9C40 0100007F:1F40 01 00000000:00000007 x\n\
            4: nonsense\n";
        assert_eq!((unread_in(table, 8000), unread_in(table, 8001)), (18, 0));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = std::net::TcpStream::connect(address).unwrap();
        client.write_all(b"four").unwrap();
        assert!(unread(address.port()).unwrap() > 0);
        let mut bytes = [0; 4];
        listener.accept().unwrap().0.read_exact(&mut bytes).unwrap();
        assert_eq!(unread(address.port()).unwrap(), 0);
    }

    #[test]
    fn what_listens_here_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(tcp().unwrap().contains(&address) && by_table().unwrap().contains(&address));
    }

    #[test]
    fn doors_are_where_localhost_leads() {
        let listening = ["0.0.0.0:80", "127.0.0.53:53", "[::]:81", "10.0.0.1:82", "[::1]:83"];
        let listening = listening.iter().map(|address| address.parse().unwrap()).collect();
        let doors = doors(&listening).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(doors, ["127.0.0.1:80", "127.0.0.1:81", "127.0.0.53:53", "[::1]:81", "[::1]:83"]);
    }

    #[test]
    fn unix_sockets_are_found() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0: 00000002 00000000 00010000 0001 01 100 /run/db.sock\n\
            0: 00000003 00000000 00000000 0001 03 101 /run/db.sock2\n\
            0: 00000002 00000000 00010000 0001 01 102 @abstract\n\
            0: 00000003 00000000 00000000 0001 03 103\n";
        assert_eq!(of_unix_table(table), BTreeSet::from([PathBuf::from("/run/db.sock")]));
    }
}
