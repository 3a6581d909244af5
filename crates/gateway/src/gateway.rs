//! The handle by which the rest of `lethe` runs the gateway.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, atomic::AtomicUsize},
    thread,
};

use lethe_model::roster::Roster;
use tokio::sync::watch;

#[cfg(feature = "otel")]
use crate::otel::exporter::Exporter;
use crate::{
    access_log::{self, writer::Writer},
    config::Config,
    core::{self, Seed},
    listen::listen,
    shard::Shard,
    stats::{self, Snapshot},
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
    /// The access log cannot be written.
    #[error(transparent)]
    AccessLog(#[from] access_log::Error),
}

/// Listeners that are bound and do not accept yet.
pub struct Bound {
    config: Arc<Config>,
    address: SocketAddr,
    listeners: Vec<TcpListener>,
    log: Option<Writer>,
    #[cfg(feature = "otel")]
    exporter: Option<Exporter>,
}

/// The running gateway. Dropping it does not stop it.
pub struct Gateway {
    shards: Vec<Arc<Shard>>,
    draining: watch::Sender<bool>,
    /// How many cores still run.
    running: watch::Receiver<usize>,
    log: Option<Writer>,
    #[cfg(feature = "otel")]
    exporter: Option<Exporter>,
}

impl Bound {
    /// Opens the listeners, one per core.
    ///
    /// A port that another process has fails with [`std::io::ErrorKind::AddrInUse`] as the source, also when that
    /// process is another `lethe`.
    pub fn bind(config: Config) -> Result<Self, Error> {
        let address = config.listeners[0].address;
        let failed = |source| Error::Listen { address, source };
        let listeners = listen(address, config.cores.max(1)).map_err(failed)?;
        let address = listeners[0].local_addr().map_err(failed)?;
        let log = Writer::start(&config.access_log)?;
        Ok(Self {
            config: Arc::new(config),
            address,
            listeners,
            log,
            #[cfg(feature = "otel")]
            exporter: None,
        })
    }

    /// Exports spans of requests.
    ///
    /// # Errors
    /// If the system has no thread left.
    #[cfg(feature = "otel")]
    pub fn export(mut self, settings: crate::otel::settings::Settings) -> std::io::Result<Self> {
        self.exporter = Some(Exporter::start(settings)?);
        Ok(self)
    }

    /// The address in fact, with the chosen port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to accept: starts one thread and runtime per core. Needs no runtime of the caller.
    ///
    /// # Panics
    /// If the system has no thread left.
    pub fn run(self, roster: watch::Receiver<Arc<Roster>>) -> Gateway {
        let (draining, drain) = watch::channel(false);
        let (ended, running) = watch::channel(self.listeners.len());
        let ended = Arc::new(ended);
        let connections = Arc::new(AtomicUsize::new(0));
        let replay_bytes = Arc::new(AtomicUsize::new(self.config.limits.replay_total_bytes_max));
        let start = |(index, listener)| {
            let shard = Arc::new(Shard::default());
            let seed = Seed {
                index,
                config: Arc::clone(&self.config),
                listener,
                shard: Arc::clone(&shard),
                roster: roster.clone(),
                draining: drain.clone(),
                connections: Arc::clone(&connections),
                replay_bytes: Arc::clone(&replay_bytes),
                log: self.log.as_ref().map(Writer::tray),
                #[cfg(feature = "otel")]
                spans: self.exporter.as_ref().map(Exporter::spans),
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
        Gateway {
            shards,
            draining,
            running,
            log: self.log,
            #[cfg(feature = "otel")]
            exporter: self.exporter,
        }
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
        let mut sum = stats::snapshot(&self.shards);
        sum.log_dropped += self.log.as_ref().map_or(0, Writer::lost);
        #[cfg(feature = "otel")]
        {
            sum.spans_dropped += self.exporter.as_ref().map_or(0, Exporter::dropped);
        }
        sum
    }

    /// Stops accepting, lets open requests end within `drain_timeout`, then closes what is left. Callable once;
    /// a second call waits for the same end. Cancellation safe: the draining goes on.
    pub async fn drain(&self) {
        self.draining.send_replace(true);
        // An error means that all cores have ended.
        let _ = self.running.clone().wait_for(|&running| running == 0).await;
        if let Some(log) = &self.log {
            log.close().await;
        }
        #[cfg(feature = "otel")]
        if let Some(exporter) = &self.exporter {
            exporter.close().await;
        }
    }
}
