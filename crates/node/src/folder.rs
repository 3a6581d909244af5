//! The private folder with the sockets of `lethe`, and which process is the one that is found in it.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use lethe_admin::runtime;
use lethe_state::server;
use tokio::net::UnixListener;

/// The private folder with the sockets. What is this process's is removed when it is dropped, also by a start that fails.
/// Dropped before the claim on the state folder is given up: what is there afterwards is of the next `lethe`.
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    pub(crate) state_socket: PathBuf,
    pub(crate) charge: Arc<Mutex<Charge>>,
}

/// Whether this process is the one that is found in the folder. Coming → Is → Left, or Is from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Charge {
    /// Not yet: another one is. This one serves [`runtime::NEXT_SOCKET`].
    Coming,
    /// It is.
    Is,
    /// Another has taken over.
    Left,
}

impl Folder {
    /// Enters the folder, with a socket for the state API of this process.
    pub(crate) fn enter(path: PathBuf, charge: Charge) -> anyhow::Result<(Self, UnixListener)> {
        let mut refused = io::Error::from(io::ErrorKind::AddrInUse);
        for state_socket in runtime::state_sockets(&path) {
            match server::socket::bind(&state_socket) {
                Ok(listener) => {
                    let charge = Arc::new(Mutex::new(charge));
                    let path = path.clone();
                    return Ok((Self { path, state_socket, charge }, listener));
                }
                // That of a process before this one, which still finishes its requests.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => refused = error,
                Err(error) => return Err(error.into()),
            }
        }
        Err(refused.into())
    }

    /// The control socket, by the name that its charge gives it.
    pub(crate) fn bind_control(&self) -> io::Result<UnixListener> {
        let name = match self.charge() {
            Charge::Coming => runtime::NEXT_SOCKET,
            Charge::Is | Charge::Left => runtime::CONTROL_SOCKET,
        };
        server::socket::bind(&self.path.join(name))
    }

    fn charge(&self) -> Charge {
        *self.charge.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let charge = self.charge();
        if charge == Charge::Coming {
            let _ = fs::remove_file(self.path.join(runtime::NEXT_SOCKET));
        }
        runtime::withdraw(&self.path, &self.state_socket, charge == Charge::Is);
    }
}
