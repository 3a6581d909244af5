//! The handle by which the rest of `lethe` runs the gateway.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    sync::{Arc, atomic::AtomicUsize},
    thread,
    time::Instant,
};

use lethe_model::{roster::Roster, service::ServiceName};
use tokio::sync::watch;

use crate::{
    config::{self, Config},
    core::{self, Seed},
    health::{self, Checked},
    joint::Joint,
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
}

/// Listeners that are bound and do not accept yet.
pub struct Bound {
    config: Arc<Config>,
    address: SocketAddr,
    listeners: Vec<TcpListener>,
}

/// The running gateway. Dropping it does not stop it.
pub struct Gateway {
    shards: Vec<Arc<Shard>>,
    joints: Arc<BTreeMap<ServiceName, Arc<Joint>>>,
    draining: watch::Sender<bool>,
    /// How many cores still run.
    running: watch::Receiver<usize>,
    /// The health checks run for as long as this is here.
    _plan: watch::Sender<health::Plan>,
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
        Ok(Self { config: Arc::new(config), address, listeners })
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
        let joints = Arc::new(joints(&self.config));
        let (plan, planned) = watch::channel(plan(&self.config, &joints));
        if !planned.borrow().is_empty()
            && let Err(error) = health::start(planned, roster.clone())
        {
            panic!("cannot start a thread for the health checks: {error}");
        }
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
                joints: Arc::clone(&joints),
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
        Gateway { shards, joints, draining, running, _plan: plan }
    }
}

/// What all cores hold jointly for each service that a route leads to.
fn joints(config: &Config) -> BTreeMap<ServiceName, Arc<Joint>> {
    let (usual, now) = (config::Service::default(), Instant::now());
    let joint = |name| Joint::new(config.services.get(name).unwrap_or(&usual), now);
    config.routes.iter().map(|route| (route.service.clone(), joint(&route.service))).collect()
}

/// The services that have health checks.
fn plan(config: &Config, joints: &BTreeMap<ServiceName, Arc<Joint>>) -> health::Plan {
    let checked = |(name, service): (&ServiceName, &config::Service)| {
        let (health, joint) = (service.health.clone()?, Arc::clone(joints.get(name)?));
        let out_percent_max = service.ejection.out_percent_max;
        Some((name.clone(), Checked { health, protocol: service.protocol, out_percent_max, joint }))
    };
    Arc::new(config.services.iter().filter_map(checked).collect())
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
        let now = Instant::now();
        let services = self.joints.iter().map(|(name, joint)| (name.clone(), joint.stats(now))).collect();
        stats::snapshot(&self.shards, services)
    }

    /// Stops accepting, lets open requests end within `drain_timeout`, then closes what is left. Callable once;
    /// a second call waits for the same end. Cancellation safe: the draining goes on.
    pub async fn drain(&self) {
        self.draining.send_replace(true);
        // An error means that all cores have ended.
        let _ = self.running.clone().wait_for(|&running| running == 0).await;
    }
}
