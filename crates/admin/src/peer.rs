//! Who may speak to the control socket. Its permissions keep others out already; the peer's credentials, which the
//! kernel vouches for (`SO_PEERCRED`, unix(7)), keep out whoever got hold of the socket by another way.

use std::io;

use tokio::net::UnixStream;

/// The users who may give commands.
#[derive(Clone, Debug)]
pub struct Peers {
    uids: Vec<u32>,
}

impl Peers {
    /// The user that `lethe` runs as, and root.
    pub fn own() -> Self {
        Self::only(&[rustix::process::geteuid().as_raw(), 0])
    }

    /// These users and nobody else.
    pub fn only(uids: &[u32]) -> Self {
        Self { uids: uids.into() }
    }

    /// Refuses a connection of somebody else.
    pub fn check(&self, stream: &UnixStream) -> io::Result<()> {
        let uid = stream.peer_cred()?.uid();
        if self.uids.contains(&uid) {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {uid} may not command this lethe")))
    }
}
