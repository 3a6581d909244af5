//! The handle by which the rest of `lethe` runs the gateway.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use lethe_model::roster::Roster;
use tokio::sync::watch;

use crate::{
    config::Config,
    core::{self, Seed, Turn},
    listen::listen,
    stats::{self, Shard, Snapshot},
};

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
    /// More than one listener, TLS, or the PROXY protocol.
    #[error("this engine listens on one address, without TLS and without the PROXY protocol")]
    Unsupported,
}

/// Listeners that are bound and do not accept yet.
pub struct Bound {
    config: Config,
    address: SocketAddr,
    listeners: Vec<TcpListener>,
}

/// The running gateway. Dropping it does not stop it.
pub struct Gateway {
    shards: Vec<Arc<Shard>>,
    draining: watch::Sender<bool>,
    turns: watch::Sender<Arc<Turn>>,
    /// The number of the turn that each core has come to.
    reached: watch::Receiver<Vec<u64>>,
    /// Bytes left for kept request bodies.
    replay_bytes: Arc<AtomicUsize>,
    /// How many cores still run.
    running: watch::Receiver<usize>,
}

impl Bound {
    /// Opens the listeners, one per core.
    ///
    /// A port that another process has fails with [`std::io::ErrorKind::AddrInUse`] as the source, also when that
    /// process is another `lethe`.
    pub fn bind(config: Config) -> Result<Self, Error> {
        if config.listeners.len() > 1 || config.listeners.iter().any(|it| it.tls || it.proxy_protocol) {
            return Err(Error::Unsupported);
        }
        let address = config.listeners[0].address;
        let failed = |source| Error::Listen { address, source };
        let listeners = listen(address, config.cores.max(1)).map_err(failed)?;
        let address = listeners[0].local_addr().map_err(failed)?;
        Ok(Self { config, address, listeners })
    }

    /// The address in fact, with the chosen port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The addresses in fact, in the order of the configuration's listeners.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        vec![self.address]
    }

    /// Begins to accept: starts one thread and runtime per core. Needs no runtime of the caller.
    ///
    /// # Panics
    /// If the system has no thread left.
    pub fn run(self, roster: watch::Receiver<Arc<Roster>>) -> Gateway {
        let (draining, drain) = watch::channel(false);
        let (ended, running) = watch::channel(self.listeners.len());
        let ended = Arc::new(ended);
        let (reaching, reached) = watch::channel(vec![0; self.listeners.len()]);
        let reaching = Arc::new(reaching);
        let (turns, turn) = watch::channel(Arc::new(Turn { number: 0, config: self.config.clone() }));
        let connections = Arc::new(AtomicUsize::new(0));
        let replay_bytes = Arc::new(AtomicUsize::new(self.config.limits.replay_total_bytes_max));
        let start = |(index, listener)| {
            let shard = Arc::new(Shard::default());
            let seed = Seed {
                index,
                turns: turn.clone(),
                reached: Arc::clone(&reaching),
                listener,
                shard: Arc::clone(&shard),
                roster: roster.clone(),
                draining: drain.clone(),
                connections: Arc::clone(&connections),
                replay_bytes: Arc::clone(&replay_bytes),
            };
            let ended = Ended(Arc::clone(&ended));
            let thread = thread::Builder::new().name(format!("gateway-{index}")).spawn(move || {
                let _ended = ended;
                if let Err(error) = core::run(seed) {
                    tracing::error!(%error, "a core of the gateway could not start");
                }
            });
            if let Err(error) = thread {
                panic!("cannot start a thread for the gateway: {error}");
            }
            shard
        };
        let shards = self.listeners.into_iter().enumerate().map(start).collect();
        Gateway { shards, draining, turns, reached, replay_bytes, running }
    }
}

/// Counts a core as ended when dropped, also if it panicked.
struct Ended(Arc<watch::Sender<usize>>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

impl Gateway {
    /// What was counted so far.
    pub fn snapshot(&self) -> Snapshot {
        stats::snapshot(&self.shards)
    }

    /// Works by `config` from now on, but for its listeners and cores, which stay. Requests that were routed before go on
    /// as they are. Returns when all cores have it, and no request waits any more for a worker of a service to which no
    /// route leads now, so that its workers may be ended; a request that has waited for its whole time is not waited for.
    /// One call at a time. Cancellation safe: the change goes on.
    pub async fn reload(&self, config: Config) -> Result<(), Error> {
        let before = Arc::clone(&self.turns.borrow());
        let (old, new) = (before.config.limits.replay_total_bytes_max, config.limits.replay_total_bytes_max);
        // What is kept beyond the new bound is given back as its requests end.
        let _ =
            self.replay_bytes.fetch_update(Relaxed, Relaxed, |left| Some((left + new).saturating_sub(old)));
        let (listeners, cores) = (before.config.listeners.clone(), before.config.cores);
        let number = before.number + 1;
        self.turns.send_replace(Arc::new(Turn { number, config: Config { listeners, cores, ..config } }));
        let mut reached = self.reached.clone();
        // An error means that all cores have ended.
        let _ = reached.wait_for(|reached| reached.iter().all(|reached| *reached >= number)).await;
        Ok(())
    }

    /// Stops accepting, lets open requests end within `drain_timeout`, then closes what is left. Callable once;
    /// a second call waits for the same end. Cancellation safe: the draining goes on.
    pub async fn drain(&self) {
        self.draining.send_replace(true);
        // An error means that all cores have ended.
        let _ = self.running.clone().wait_for(|&running| running == 0).await;
    }
}
