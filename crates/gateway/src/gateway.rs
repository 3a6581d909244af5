//! The handle by which the rest of `lethe` runs the gateway.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use lethe_model::{gate::Gate, roster::Roster, service::ServiceName};
use tokio::sync::watch;

#[cfg(feature = "otel")]
use crate::otel::exporter::Exporter;
use crate::{
    accept::Manner,
    access_log::{self, writer::Writer},
    allowance::Allowance,
    body_budget::Budgets,
    config::{self, AccessLog, Config},
    core::{self, Leaving, Seed, Turn},
    crowd::Crowd,
    descriptors,
    health::{self, Checked},
    joint::Joint,
    ledger::Ledger,
    listen::{self, listen},
    shard::Shard,
    stats::{self, Queue, Snapshot},
    tls::{self, Certificates, Loaded},
    wanted::Bell,
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
    /// It is to take over listeners, and others are configured.
    #[error(
        "the listeners are taken over as they are, at {}, and the configuration wants {}; other addresses need a restart",
        list(.found),
        list(.configured)
    )]
    Moved {
        /// What is configured.
        configured: Vec<SocketAddr>,
        /// What there is.
        found: Vec<SocketAddr>,
    },
    /// The certificates cannot be used.
    #[error("cannot use the certificates")]
    Tls(#[from] tls::Error),
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" and ")
}

/// The sockets of one listener of the configuration. All of them must be served: the kernel spreads connections among
/// them, whoever holds them, and keeps those of each apart until they are accepted.
#[derive(Debug)]
pub struct Listeners {
    /// Its address as it was configured, so perhaps with port 0.
    pub address: SocketAddr,
    /// Its sockets; at least one.
    pub sockets: Vec<TcpListener>,
}

/// Listeners that are bound and do not accept yet.
pub struct Bound {
    config: Config,
    certificates: Option<Certificates>,
    addresses: Vec<SocketAddr>,
    /// Its own hold on each listener.
    listeners: Vec<Listeners>,
    /// For each core, its listeners, in the order of the configuration.
    doors: Vec<Vec<(TcpListener, Manner)>>,
    log: Option<Arc<Writer>>,
    allowance: Option<Arc<dyn Allowance>>,
    ledger: Option<Arc<dyn Ledger>>,
    #[cfg(feature = "otel")]
    exporter: Option<Exporter>,
}

/// The running gateway. Dropping it does not stop it.
pub struct Gateway {
    shards: Vec<Arc<Shard>>,
    /// Of every service that a route ever led to.
    joints: Mutex<BTreeMap<ServiceName, Arc<Joint>>>,
    /// The health checks run for as long as this is here.
    plan: watch::Sender<health::Plan>,
    /// Rung by services that want a worker.
    bell: Bell,
    turns: watch::Sender<Arc<Turn>>,
    /// The number of the turn that each core has come to.
    reached: watch::Receiver<Vec<u64>>,
    budgets: Budgets,
    certificates: Option<Certificates>,
    log: Mutex<Option<Arc<Writer>>>,
    #[cfg(feature = "otel")]
    exporter: Option<Exporter>,
    /// Its own hold on each listener, to be given to another process; none once it leaves.
    listeners: Mutex<Vec<Listeners>>,
    leaving: watch::Sender<Leaving>,
    /// How many cores still run.
    running: watch::Receiver<usize>,
}

impl Bound {
    /// Reads the certificates and opens the listeners, one per core for each address.
    ///
    /// A port that another process has fails with [`std::io::ErrorKind::AddrInUse`] as the source, also when that
    /// process is another `lethe`.
    pub fn bind(config: Config) -> Result<Self, Error> {
        let cores = config.cores.max(1);
        let mut bound = Self::without_doors(config)?;
        for listener in bound.config.listeners.clone() {
            let address = listener.address;
            let failed = |source| Error::Listen { address, source };
            let sockets = listen(address, cores).map_err(failed)?;
            bound.open(&listener, sockets).map_err(failed)?;
        }
        Ok(bound)
    }

    /// As [`Bound::bind`], with the listeners of a process that this one takes over from, as [`Gateway::listeners`] gave
    /// them. Nobody waits in a queue that is not served: where there are more cores than sockets, cores share one, and
    /// where there are fewer, one has several.
    ///
    /// The configured addresses must be those; [`Error::Moved`] otherwise.
    pub fn adopt(config: Config, inherited: Vec<Listeners>) -> Result<Self, Error> {
        let configured: Vec<_> = config.listeners.iter().map(|listener| listener.address).collect();
        let found: Vec<_> = inherited.iter().map(|listeners| listeners.address).collect();
        if configured != found {
            return Err(Error::Moved { configured, found });
        }
        let cores = config.cores.max(1);
        let mut bound = Self::without_doors(config)?;
        for (listener, inherited) in bound.config.listeners.clone().into_iter().zip(inherited) {
            let address = listener.address;
            let failed = |source| Error::Listen { address, source };
            let sockets = listen::share(inherited.sockets, cores).map_err(failed)?;
            bound.open(&listener, sockets).map_err(failed)?;
        }
        Ok(bound)
    }

    /// Reads the certificates.
    fn without_doors(config: Config) -> Result<Self, Error> {
        let wants_tls = config.listeners.iter().any(|listener| listener.tls);
        let certificates = match &config.tls {
            Some(tls) if wants_tls => Some(Certificates::load(tls)?),
            None if wants_tls => return Err(tls::Error::NoneNamed.into()),
            _ => None,
        };
        let cores = config.cores.max(1);
        let doors = (0..cores).map(|_| Vec::new()).collect();
        let log = Writer::start(&config.access_log)?.map(Arc::new);
        Ok(Self {
            config,
            certificates,
            addresses: Vec::new(),
            listeners: Vec::new(),
            doors,
            log,
            allowance: None,
            ledger: None,
            #[cfg(feature = "otel")]
            exporter: None,
        })
    }

    /// Gives the sockets of a listener to the cores in turn.
    fn open(&mut self, listener: &config::Listener, sockets: Vec<TcpListener>) -> io::Result<()> {
        let first = sockets.first().ok_or(io::ErrorKind::InvalidInput)?;
        self.addresses.push(first.local_addr()?);
        let kept = sockets.iter().map(TcpListener::try_clone).collect::<Result<_, _>>()?;
        self.listeners.push(Listeners { address: listener.address, sockets: kept });
        let tls = self.certificates.as_ref().filter(|_| listener.tls).map(Certificates::acceptor);
        let manner = Manner { tls, proxy_protocol: listener.proxy_protocol };
        let cores = self.doors.len();
        for (number, socket) in sockets.into_iter().enumerate() {
            self.doors[number % cores].push((socket, manner.clone()));
        }
        Ok(())
    }

    /// Has the limits of routes counted. Without this they are limits of nothing: all requests pass.
    pub fn counted_by(mut self, allowance: Arc<dyn Allowance>) -> Self {
        self.allowance = Some(allowance);
        self
    }

    /// Has kept what is answered to requests that are done once. Without this they are done as often as they come.
    pub fn recorded_by(mut self, ledger: Arc<dyn Ledger>) -> Self {
        self.ledger = Some(ledger);
        self
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

    /// The address of the first listener in fact, with the chosen port.
    ///
    /// # Panics
    /// If the configuration named none.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// The addresses of all listeners in fact, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The certificates of its listeners, if one of them speaks TLS.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// Begins to accept: starts one thread and runtime per core. Needs no runtime of the caller.
    ///
    /// # Panics
    /// If the system has no thread left.
    pub fn run(mut self, roster: watch::Receiver<Arc<Roster>>) -> Gateway {
        self.config.limits = descriptors::bounded(self.config.limits);
        let (leaving, leave) = watch::channel(Leaving::Not);
        let (ended, running) = watch::channel(self.doors.len());
        let ended = Arc::new(ended);
        let crowd = Arc::<Crowd>::default();
        let budgets = Budgets::new(&self.config.limits);
        let (reaching, reached) = watch::channel(vec![0; self.doors.len()]);
        let reaching = Arc::new(reaching);
        let bell = Bell::default();
        let joints = joints(&self.config, &bell, BTreeMap::new());
        let (plan, planned) = watch::channel(plan(&self.config, &joints));
        if let Err(error) = health::start(planned, roster.clone()) {
            panic!("cannot start a thread for the health checks: {error}");
        }
        let first = Turn {
            number: 0,
            config: self.config,
            joints: joints.clone(),
            log: self.log.clone(),
            allowance: self.allowance,
            ledger: self.ledger,
        };
        let (turns, turn) = watch::channel(Arc::new(first));
        let start = |(index, doors)| {
            let shard = Arc::new(Shard::default());
            let seed = Seed {
                index,
                turns: turn.clone(),
                reached: Arc::clone(&reaching),
                doors,
                shard: Arc::clone(&shard),
                roster: roster.clone(),
                leaving: leave.clone(),
                crowd: Arc::clone(&crowd),
                budgets: budgets.clone(),
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
        let shards = self.doors.into_iter().enumerate().map(start).collect();
        Gateway {
            shards,
            joints: Mutex::new(joints),
            plan,
            bell,
            turns,
            reached,
            budgets,
            certificates: self.certificates,
            log: Mutex::new(self.log),
            #[cfg(feature = "otel")]
            exporter: self.exporter,
            listeners: Mutex::new(self.listeners),
            leaving,
            running,
        }
    }
}

/// What all cores hold jointly for each service that a route leads to, or has led to; changed to what `config` says.
fn joints(
    config: &Config,
    bell: &Bell,
    mut known: BTreeMap<ServiceName, Arc<Joint>>,
) -> BTreeMap<ServiceName, Arc<Joint>> {
    let (usual, now) = (config::Service::default(), Instant::now());
    for route in &config.routes {
        let settings = config.services.get(&route.service).unwrap_or(&usual);
        match known.get(&route.service) {
            Some(joint) => joint.configure(settings, now),
            None => drop(known.insert(route.service.clone(), Joint::new(settings, bell, now))),
        }
    }
    known
}

/// The services that have health checks.
fn plan(config: &Config, joints: &BTreeMap<ServiceName, Arc<Joint>>) -> health::Plan {
    let checked = |(name, service): (&ServiceName, &config::Service)| {
        let (health, joint) = (service.health.clone()?, Arc::clone(joints.get(name)?));
        let out_percent_max = service.ejection.out_percent_max;
        Some((name.clone(), Checked { health, out_percent_max, joint }))
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
        let joints = self.joints.lock().unwrap_or_else(PoisonError::into_inner);
        let services = joints.iter().map(|(name, joint)| (name.clone(), joint.stats(now))).collect();
        let mut sum = stats::snapshot(&self.shards, services);
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        sum.log_dropped += log.as_ref().map_or(0, |log| log.lost());
        #[cfg(feature = "otel")]
        {
            sum.spans_dropped += self.exporter.as_ref().map_or(0, Exporter::dropped);
        }
        sum
    }

    /// The gates of the workers of `service` that live and are passed over now, since they keep failing or their health
    /// check fails.
    pub fn out(&self, service: &str) -> Vec<Arc<Gate>> {
        let joints = self.joints.lock().unwrap_or_else(PoisonError::into_inner);
        joints.get(service).map(|joint| joint.out(Instant::now())).unwrap_or_default()
    }

    /// Who waits for a worker, and was turned away, by service. Far cheaper than a [`Gateway::snapshot`].
    pub fn queues(&self) -> BTreeMap<ServiceName, Queue> {
        let joints = self.joints.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = |joint: &Joint| Queue {
            waiting: joint.line.lengths().iter().sum(),
            shed: joint.line.shed_so_far().iter().sum(),
        };
        joints.iter().map(|(name, joint)| (name.clone(), queue(joint))).collect()
    }

    /// How long a request waits at most while a worker of `service` starts, if it waits for that at all.
    pub fn start_wait(&self, service: &ServiceName) -> Option<Duration> {
        let turn = self.turns.borrow();
        turn.config.services.get(service)?.start_wait
    }

    /// Works by `config` from now on, but for its listeners and cores, which stay. Requests that were routed before go on
    /// as they are. Returns when all cores have it, and no request waits any more for a worker of a service to which no
    /// route leads now, so that its workers may be ended; a request that has waited for its whole time is not waited for.
    /// If the certificates cannot be used, nothing is changed.
    ///
    /// One call at a time. Cancellation safe: the change goes on.
    pub async fn reload(&self, config: Config) -> Result<(), Error> {
        // All that can be refused comes before the first change.
        let loaded = match (&self.certificates, &config.tls) {
            (Some(certificates), Some(tls)) => Some((certificates, Loaded::read(tls)?)),
            _ => None,
        };
        let log = self.reopen(&config.access_log)?;
        if let Some((certificates, loaded)) = loaded {
            certificates.replace(loaded);
        }
        let before = Arc::clone(&self.turns.borrow());
        self.budgets.resize(&config.limits);
        let (listeners, cores) = (before.config.listeners.clone(), before.config.cores);
        let number = before.number + 1;
        let limits = descriptors::bounded(config.limits);
        let config = Config { listeners, cores, limits, ..config };
        let joints = {
            let mut known = self.joints.lock().unwrap_or_else(PoisonError::into_inner);
            *known = joints(&config, &self.bell, std::mem::take(&mut known));
            known.clone()
        };
        self.plan.send_replace(plan(&config, &joints));
        let (allowance, ledger) = (before.allowance.clone(), before.ledger.clone());
        self.turns.send_replace(Arc::new(Turn { number, config, joints, log, allowance, ledger }));
        let mut reached = self.reached.clone();
        // An error means that all cores have ended.
        let _ = reached.wait_for(|reached| reached.iter().all(|reached| *reached >= number)).await;
        Ok(())
    }

    /// The access log as it is to be from now on. The file is opened anew also if it is the same.
    fn reopen(&self, access_log: &AccessLog) -> Result<Option<Arc<Writer>>, Error> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*log, access_log) {
            (_, AccessLog::Off) => Ok(None),
            (Some(writer), access_log) => {
                writer.reopen(access_log)?;
                Ok(log.clone())
            }
            (None, access_log) => {
                *log = Writer::start(access_log)?.map(Arc::new);
                Ok(log.clone())
            }
        }
    }

    /// Waits until requests wait for services without a ready worker which [may have none](config::Service::from_zero), and
    /// tells which. Each is told again for as long as requests wait for it, ten times a second at least. If none can be
    /// started, [`Gateway::not_started`] lets them go.
    ///
    /// One call at a time. Cancellation safe.
    pub async fn wanted(&self) -> Vec<ServiceName> {
        loop {
            {
                let joints = self.joints.lock().unwrap_or_else(PoisonError::into_inner);
                let wanted = joints.iter().filter(|(_, joint)| joint.want.hear());
                let wanted: Vec<_> = wanted.map(|(name, _)| name.clone()).collect();
                if !wanted.is_empty() {
                    return wanted;
                }
            }
            self.bell.rung().await;
        }
    }

    /// No worker of `service` starts: who waits for one is answered so. Has no effect where one is ready.
    pub fn not_started(&self, service: &ServiceName) {
        let joints = self.joints.lock().unwrap_or_else(PoisonError::into_inner);
        let joint = joints.get(service).cloned();
        drop(joints);
        if let Some(joint) = joint {
            joint.line.call_off();
        }
    }

    /// Looks at the certificate files from time to time and takes changed ones into use; never ends. For a task of the
    /// caller's. Cancellation safe.
    pub async fn follow_certificates(&self) {
        match &self.certificates {
            Some(certificates) => certificates.clone().watch().await,
            None => std::future::pending().await,
        }
    }

    /// Its listeners, for a process that is to accept on the same sockets; none once it is leaving.
    pub fn listeners(&self) -> io::Result<Vec<Listeners>> {
        let share = |listeners: &Listeners| {
            let sockets = listeners.sockets.iter().map(TcpListener::try_clone).collect::<Result<_, _>>()?;
            Ok(Listeners { address: listeners.address, sockets })
        };
        self.held().iter().map(share).collect()
    }

    /// Stops accepting, lets open requests end within `drain_timeout`, then closes what is left. Callable once;
    /// a second call waits for the same end. Cancellation safe: the draining goes on.
    pub async fn drain(&self) {
        self.leave(Leaving::Drain).await;
    }

    /// As [`Gateway::drain`], when another process accepts on the same sockets by now: it serves those who wait to be
    /// accepted. Clients that are connected are told with their next answer to connect anew; idle ones are closed when they
    /// have said nothing for a second more, and upgraded connections (WebSocket) have the whole time.
    pub async fn release(&self) {
        self.leave(Leaving::Release).await;
    }

    async fn leave(&self, how: Leaving) {
        // Given up first, so that the cores' are the last: what comes to a queue that nobody serves would be reset.
        self.held().clear();
        self.leaving.send_if_modified(|leaving| {
            let is_first = *leaving == Leaving::Not;
            *leaving = if is_first { how } else { *leaving };
            is_first
        });
        // An error means that all cores have ended.
        let _ = self.running.clone().wait_for(|&running| running == 0).await;
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(log) = log {
            log.close().await;
        }
        #[cfg(feature = "otel")]
        if let Some(exporter) = &self.exporter {
            exporter.close().await;
        }
    }

    fn held(&self) -> MutexGuard<'_, Vec<Listeners>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
