//! Tells systemd, or whoever else has set `NOTIFY_SOCKET`, how this process is (sd_notify(3)). Without the variable nothing
//! is told, and nothing depends on it.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

const VARIABLE: &str = "NOTIFY_SOCKET";

/// Whether somebody wants to be told.
pub(crate) fn is_wanted() -> bool {
    env::var_os(VARIABLE).is_some_and(|socket| !socket.is_empty())
}

/// Tells `state`: assignments, one a line, such as `READY=1`. A message that does not arrive is noted in the log.
pub fn notify(state: &str) {
    let Some(socket) = env::var_os(VARIABLE).filter(|socket| !socket.is_empty()) else { return };
    if let Err(error) = send(&socket, state) {
        tracing::warn!(%error, "cannot tell {VARIABLE} `{state}`");
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        // The name of a socket in the abstract namespace (unix(7)).
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_sockets_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("lethe-notify-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, text) in [(&by_path, path.into_os_string()), (&by_name, format!("@{name}").into())] {
            send(&text, "READY=1").unwrap();
            let mut read = [0; 16];
            let count = socket.recv(&mut read).unwrap();
            assert_eq!(&read[..count], b"READY=1");
        }
    }
}
