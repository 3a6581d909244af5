//! The handle by which the rest of `lethe` runs the gateway.

use std::{net::SocketAddr, sync::Arc};

use lethe_model::roster::Roster;
use tokio::sync::watch;

use crate::{config::Config, stats::Snapshot};

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Listeners that are bound and do not accept yet.
pub struct Bound {}

/// The running gateway. Dropping it does not stop it.
pub struct Gateway {}

#[allow(clippy::todo, missing_docs, unused_variables)]
impl Bound {
    /// Opens the listeners, one per core.
    pub fn bind(config: Config) -> Result<Self, Error> {
        todo!()
    }
    /// The address in fact, with the chosen port.
    pub fn address(&self) -> SocketAddr {
        todo!()
    }
    /// Begins to accept: starts one thread and runtime per core.
    pub fn run(self, roster: watch::Receiver<Arc<Roster>>) -> Gateway {
        todo!()
    }
}

#[allow(clippy::todo, missing_docs)]
impl Gateway {
    /// What was counted so far.
    pub fn snapshot(&self) -> Snapshot {
        todo!()
    }
    /// Stops accepting, lets open requests end within `drain_timeout`, then closes what is left. Callable once;
    /// a second call waits for the same end.
    pub async fn drain(&self) {
        todo!()
    }
}
