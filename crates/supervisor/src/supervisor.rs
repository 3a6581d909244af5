//! The handle by which the rest of `lethe` commands the supervisor.

use std::{
    collections::BTreeMap,
    future::Future,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, atomic::Ordering},
    time::{Duration, SystemTime},
};

use lethe_model::{
    roster::{Roster, WorkerState},
    service::{InstanceId, ServiceName},
};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{broadcast, watch},
    task::JoinSet,
    time::Instant,
};

use crate::{
    board::Board,
    cgroup::Cgroups,
    fleet::Fleet,
    guard,
    home::Homes,
    kin::{self, Kin},
    launch::Launcher,
    logs::{self, Line, Logs},
    memory::OutOfMemory,
    orphans,
    place::{Ground, Hub, Place},
    program,
    rollout::{
        policy::Policy,
        rolling::{Blind, Phase, Rolling, Watch},
        steps::Reason,
    },
    service::{Spec, StateUrls},
    socket::Sockets,
};

/// What the supervisor needs to begin.
#[derive(Clone, Debug)]
pub struct Config {
    /// The services to run.
    pub services: Vec<Spec>,
    /// The folder for the unix sockets of workers; exists, and is closed to other users.
    pub sockets: PathBuf,
    /// What workers get as `LETHE_STATE`; `None` for nothing.
    pub state_urls: Option<StateUrls>,
    /// Where workers run; `None` for the directories of their services.
    pub homes: Option<Homes>,
    /// The program that is started, with the argument `guard`, to end the workers if `lethe` is killed.
    pub guard: PathBuf,
}

/// One worker, as shown to people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its service.
    pub service: ServiceName,
    /// Which release of the service it is of; 0 if nobody counts.
    pub release: u64,
    /// Its name.
    pub instance: InstanceId,
    /// Its process id; `None` while it waits to be started again after a failure.
    pub pid: Option<u32>,
    /// Its port on 127.0.0.1; `None` if it has none yet, or listens on a unix socket.
    pub port: Option<u16>,
    /// The path of its unix socket, if it listens on one.
    pub socket: Option<PathBuf>,
    /// What may be asked of it.
    pub state: WorkerState,
    /// When its process was started.
    pub started_at: SystemTime,
    /// Since when it may get requests, after its warm-up; `None` before that. What it used of the CPU until then was for its
    /// start.
    #[serde(default)]
    pub ready_at: Option<SystemTime>,
    /// How many workers died in its place before it (a place is one of the N of the service).
    pub restarts: u64,
    /// How many of them the kernel killed for memory, as far as they had a cgroup that tells.
    #[serde(default)]
    pub memory_kills: u64,
    /// Requests inside it now.
    pub in_flight: u64,
    /// CPU time used so far, in milliseconds, of all its processes if it has a cgroup, else of its process group as far
    /// as it can be read.
    pub cpu_ms: u64,
    /// Memory in bytes: of all its processes if it has a cgroup that counts it, else resident, of its process group; what
    /// processes share is counted once, as far as it can be told.
    pub memory_bytes: u64,
    /// Memory beyond which it is killed, in bytes, if that is kept up.
    #[serde(default)]
    pub memory_limit_bytes: Option<u64>,
    /// Why it is backed off or was last seen to fail, for people; `None` when all is well.
    pub trouble: Option<String>,
}

/// Why the supervisor did not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such service; the text names those that exist.
    #[error("no service `{name}`; there are: {known}")]
    NoService {
        /// What was asked for.
        name: String,
        /// What there is, joined by commas.
        known: String,
    },
    /// Neither a service nor a worker.
    #[error("no service and no worker `{name}`; the services are: {known}")]
    NoName {
        /// What was asked for.
        name: String,
        /// The services there are, joined by commas.
        known: String,
    },
    /// No such worker.
    #[error("no worker `{name}`; {}`lethe ps` lists them", did_you_mean(.near))]
    NoWorker {
        /// What was asked for.
        name: String,
        /// The one that was probably meant.
        near: Option<InstanceId>,
    },
    /// There is such a service already.
    #[error("there is a service `{0}` already")]
    Exists(ServiceName),
    /// The service was removed while a command on it ran.
    #[error("service `{0}` was removed")]
    Removed(ServiceName),
    /// A service that was to be added did not start.
    #[error("{service}: its first workers did not become ready: {reason}")]
    Unready {
        /// The service.
        service: ServiceName,
        /// What happened, with the worker's last lines.
        reason: String,
    },
    /// The command of a service cannot be started.
    #[error("{service}: {reason}")]
    Command {
        /// The service.
        service: ServiceName,
        /// What is wrong with it, where, and what to do.
        reason: String,
    },
    /// The new workers of a service that has others could not start; the others were kept.
    #[error("{service}: the new worker did not become ready: {reason}; the old workers keep serving")]
    Rollout {
        /// The service.
        service: ServiceName,
        /// What happened, with the worker's last lines.
        reason: String,
    },
    /// A new version was rolled back, and not since it could not start.
    #[error("{service}: rolled back: {reason}")]
    RolledBack {
        /// The service.
        service: ServiceName,
        /// Why.
        reason: String,
    },
    /// Another version takes over at this moment.
    #[error(
        "{0}: a rollout is under way; wait for its end (`lethe deploy {0} --follow`), or call it off (`lethe deploy {0} --abort`)"
    )]
    Rolling(ServiceName),
    /// The version before was to come back, and does not start.
    #[error(
        "{0}: the release before does not start, and is waited for; bring one that does (`lethe deploy {0}`)"
    )]
    Stuck(ServiceName),
    /// No other version takes over.
    #[error("{0}: no rollout is under way; `lethe history {0}` shows those that were")]
    NotRolling(ServiceName),
    /// The system refused.
    #[error("{0}")]
    System(String),
    /// The supervisor is stopping.
    #[error("lethe is stopping")]
    Stopping,
}

impl Error {
    /// The same of a service that has no other workers.
    fn first(self) -> Self {
        match self {
            Self::Rollout { service, reason } => Self::Unready { service, reason },
            error => error,
        }
    }
}

/// The handle. Cheap to clone. Dropping it stops nothing: [`Supervisor::stop`] does. Workers that are left when
/// the tokio runtime ends are killed.
#[derive(Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

struct Inner {
    hub: Arc<Hub>,
    /// Locked for a look or a change of the map, never while anything is waited for.
    fleets: RwLock<BTreeMap<ServiceName, Arc<Fleet>>>,
}

impl Supervisor {
    /// Starts the guard and all workers, and returns at once; readiness shows in the roster. Nothing is started
    /// if a command cannot be. Needs a tokio runtime with I/O and time, which must live as long as the workers.
    pub async fn start(config: Config) -> Result<Self, Error> {
        Self::start_after(config, BTreeMap::new()).await
    }

    /// The same, with names for the workers that come after those of another supervisor, by its
    /// [`Supervisor::numbers`].
    pub async fn start_after(config: Config, numbers: BTreeMap<ServiceName, u64>) -> Result<Self, Error> {
        let numbers = numbers.into_iter().map(|(name, last)| (name, Arc::new(last.into()))).collect();
        config.services.iter().try_for_each(program::check)?;
        // Before the guard is started, which is to be where lethe is.
        let cgroups = Arc::new(Cgroups::default());
        config.services.iter().try_for_each(|spec| cgroups.check(spec))?;
        let names = || config.services.iter().map(|spec| spec.name.clone());
        let no_guard =
            |error| Error::System(format!("the guard {} did not start: {error}", config.guard.display()));
        let (link, input) = guard::link().map_err(no_guard)?;
        let guard = guard::start(&config.guard, input).map_err(no_guard)?;
        let launcher = Launcher::start(link)
            .map_err(|error| Error::System(format!("no thread to start workers from: {error}")))?;
        let table = Arc::clone(&launcher.table);
        let guard_program = config.guard;
        if orphans::come_here() {
            let table = Arc::clone(&table);
            tokio::spawn(async move { orphans::reap(&table).await });
        }
        tokio::spawn(async move { guard::keep(guard, &guard_program, &table).await });
        let hub = Arc::new(Hub {
            board: Board::new(names()),
            logs: Arc::new(Logs::new(names())),
            launcher,
            sockets: Arc::new(Sockets::new(config.sockets)),
            cgroups,
            state_urls: config.state_urls,
            homes: config.homes,
            stopping: watch::Sender::new(false),
            memory: OutOfMemory::new(),
            numbers: Mutex::new(numbers),
            began: Instant::now(),
        });
        let mut fleets = BTreeMap::new();
        for spec in config.services {
            let (name, instances) = (spec.name.clone(), spec.instances);
            let fleet = Arc::new(Fleet::new(Ground::new(Arc::clone(&hub), spec)));
            for _ in 0..instances {
                fleet.open(0)?;
            }
            fleets.insert(name, fleet);
        }
        Ok(Self { inner: Arc::new(Inner { hub, fleets: RwLock::new(fleets) }) })
    }

    /// Adds a service and starts its workers; returns when all of them are ready. If one does not become ready, or the
    /// command cannot be started, there is no such service afterwards. Goes on to its end even if the caller is
    /// cancelled.
    pub async fn add(&self, spec: Spec) -> Result<(), Error> {
        self.check(&spec)?;
        let supervisor = self.clone();
        run(async move {
            let (name, instances) = (spec.name.clone(), spec.instances);
            let fleet = supervisor.insert(spec)?;
            let opened = (0..instances).try_for_each(|_| fleet.open(0).map(drop));
            let ready = match opened {
                Ok(()) => fleet.all_proved().await,
                refused => refused,
            };
            match ready {
                Ok(()) => fleet.want(instances),
                Err(_) => supervisor.take_out(&name, &fleet).await,
            }
            ready.map_err(Error::first)
        })
        .await
    }

    /// Drains all workers of a service at once and ends them; returns when they have ended and the service is gone.
    /// What it printed is kept. Goes on to its end even if the caller is cancelled.
    pub async fn remove(&self, service: &str) -> Result<(), Error> {
        let fleet = self.fleet(service)?;
        let supervisor = self.clone();
        let name = fleet.name();
        run(async move {
            supervisor.take_out(&name, &fleet).await;
            Ok(())
        })
        .await
    }

    /// Replaces all workers of the service by such of another spec, as [`Supervisor::roll`] does when nothing is said; how
    /// many there shall be stays as it is. If a new worker does not become ready, all is put back as it was. Returns
    /// the number replaced. Goes on to its end even if the caller is cancelled.
    pub async fn update(&self, spec: Spec) -> Result<u32, Error> {
        let name = spec.name.clone();
        let replaced = self.wanted().get(&name).copied().unwrap_or_default();
        let policy = Policy { bake: Duration::ZERO, ..Policy::default() };
        self.roll(spec, policy, Box::new(Blind)).await?.ended().await?;
        Ok(replaced)
    }

    /// Lets a version of a service take the place of the one that runs, as carefully as `policy` says. Returns as soon as
    /// it has begun; from there on it goes to its end by itself. One rollout of a service at a time: one that only
    /// watches its new workers still is taken as good.
    pub async fn roll(&self, spec: Spec, policy: Policy, watch: Box<dyn Watch>) -> Result<Rollout, Error> {
        self.check(&spec)?;
        let service = spec.name.clone();
        let fleet = self.fleet(service.as_str())?;
        let rolling = run(fleet.roll(spec, policy, watch)).await?;
        Ok(Rollout { service, rolling })
    }

    /// Whether a service may have workers of two versions at this moment, and not only a new one that is watched.
    pub fn is_rolling(&self, service: &ServiceName) -> bool {
        let fleet = self.fleets().get(service).cloned();
        fleet
            .and_then(|fleet| fleet.rolling())
            .is_some_and(|rolling| *rolling.phase.borrow() == Phase::Rolling)
    }

    /// The watched roster.
    pub fn roster(&self) -> watch::Receiver<Arc<Roster>> {
        self.inner.hub.board.subscribe()
    }

    /// Waits until all workers of all services are ready. An error if one does not become ready; it stays and goes on
    /// trying. Cancellation safe.
    pub async fn all_ready(&self) -> Result<(), Error> {
        let fleets: Vec<_> = self.fleets().values().cloned().collect();
        for fleet in fleets {
            fleet.all_proved().await.map_err(Error::first)?;
        }
        Ok(())
    }

    /// The number of each service's last worker, also of services that are gone. [`Supervisor::start_after`] goes on
    /// from there.
    pub fn numbers(&self) -> BTreeMap<ServiceName, u64> {
        let numbers = self.inner.hub.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.iter().map(|(name, number)| (name.clone(), number.load(Ordering::Relaxed))).collect()
    }

    /// How many workers each service shall have, as it was configured or scaled to last.
    pub fn wanted(&self) -> BTreeMap<ServiceName, u32> {
        self.fleets().iter().map(|(name, fleet)| (name.clone(), fleet.wanted())).collect()
    }

    /// Whose the process with this id is. Reads `/proc`.
    pub async fn kin(&self, pid: i32) -> Kin {
        let Some(pid) = Pid::from_raw(pid) else { return Kin::Other };
        let launcher = &self.inner.hub.launcher;
        match kin::of(pid, &launcher.table) {
            Kin::Stray => {
                // A worker may be quicker than the thread that has started it.
                launcher.settled().await;
                kin::of(pid, &launcher.table)
            }
            kin => kin,
        }
    }

    /// All workers, by service and age. Reads `/proc` for each of them.
    pub fn workers(&self) -> Vec<WorkerStatus> {
        let fleets: Vec<_> = self.fleets().values().cloned().collect();
        let by_age = fleets.into_iter().map(|fleet| {
            let mut workers = fleet.workers(true);
            workers.sort_by_key(|worker| worker.started_at);
            workers
        });
        by_age.flatten().collect()
    }

    /// Sends a signal (a number, as in `kill -9`) to a worker's process group, without draining.
    pub async fn kill(&self, instance: &str, signal: i32) -> Result<(), Error> {
        let signal = Signal::from_named_raw(signal)
            .ok_or_else(|| Error::System(format!("{signal} is not a signal; `kill -l` lists them")))?;
        let (_, place) = self.find(instance)?;
        place.signal(signal)
    }

    /// Drains a worker and replaces it (launch before terminate); returns when it has ended. Goes on to its end
    /// even if the caller is cancelled.
    pub async fn drain(&self, instance: &str) -> Result<(), Error> {
        let (fleet, place) = self.find(instance)?;
        run(fleet.drain(place.instance())).await
    }

    /// Sets the number of workers; returns when the new ones are ready and the surplus ones have ended. An
    /// error if a new one does not become ready; it stays and goes on trying. Goes on to its end even if the
    /// caller is cancelled.
    pub async fn scale(&self, service: &str, instances: u32) -> Result<(), Error> {
        run(self.fleet(service)?.scale(instances)).await
    }

    /// Sees to it that the service has a worker: starts one if it has none at all. Returns when one is ready; however many
    /// call at the same time, one is started. An error if it does not become ready; it stays and goes on trying, and each
    /// call says so again. Goes on to its end even if the caller is cancelled.
    pub async fn wake(&self, service: &str) -> Result<(), Error> {
        run(self.fleet(service)?.wake()).await.map_err(Error::first)
    }

    /// Ends all workers of the service if nothing is inside any of them: no request, no WebSocket, no upload, and none that
    /// is being started for somebody. A request that comes at the same moment keeps its worker. Returns at once, and whether
    /// there shall be none now; false, and nothing is done, while another command on the service runs.
    pub fn rest(&self, service: &str) -> Result<bool, Error> {
        Ok(self.fleet(service)?.rest())
    }

    /// Sets the number of workers and returns at once: the new ones are on their way, and the surplus ones finish what they
    /// have. Returns false, and changes nothing, while another command on the service runs, which may be setting it too.
    pub fn resize(&self, service: &str, instances: u32) -> Result<bool, Error> {
        self.fleet(service)?.resize(instances)
    }

    /// The workers of a service, by age; none if there is no such service. Reads `/proc` for each of them if
    /// `with_usage`; else what they use is zero.
    pub fn workers_of(&self, service: &str, with_usage: bool) -> Vec<WorkerStatus> {
        let Ok(fleet) = self.fleet(service) else { return Vec::new() };
        let mut workers = fleet.workers(with_usage);
        workers.sort_by_key(|worker| worker.started_at);
        workers
    }

    /// Replaces all workers of a service one after the other, each new one ready before an old one leaves.
    /// Returns the number replaced. Goes on to its end even if the caller is cancelled.
    pub async fn restart(&self, service: &str) -> Result<u32, Error> {
        run(self.fleet(service)?.restart()).await
    }

    /// Drains all workers at once and ends them. When it returns no worker process is left. Commands that run
    /// end with [`Error::Stopping`].
    pub async fn stop(&self) {
        self.inner.hub.stopping.send_replace(true);
        let mut stopping = JoinSet::new();
        for fleet in self.fleets().values().map(Arc::clone) {
            stopping.spawn(async move { fleet.stop().await });
        }
        while stopping.join_next().await.is_some() {}
        self.inner.hub.cgroups.clear();
    }

    /// Ends all workers with SIGKILL, now, and starts no other. May be called at any time and from any thread.
    pub fn kill_all(&self) {
        self.inner.hub.stopping.send_replace(true);
        self.fleets().values().for_each(|fleet| fleet.tell_to_leave());
        self.inner.hub.launcher.table.kill_all();
    }

    /// The last lines kept (at most `lines_max`), oldest first, of one worker, one service or all (`None`).
    /// `name` may be an instance (also one that is gone) or a service.
    pub fn logs(&self, name: Option<&str>, lines_max: usize) -> Result<Vec<Line>, Error> {
        match self.inner.hub.logs.last(name, lines_max) {
            // It exists, but its lines were crowded out by those of others.
            Err(Error::NoWorker { name, .. }) => self.find(&name).map(|_| Vec::new()),
            lines => lines,
        }
    }

    /// The lines from now on, of all workers. A receiver that lags learns how many it missed.
    pub fn follow(&self) -> broadcast::Receiver<Arc<Line>> {
        self.inner.hub.logs.follow()
    }

    /// Whether workers of `spec` could be started as it says.
    fn check(&self, spec: &Spec) -> Result<(), Error> {
        program::check(spec)?;
        self.inner.hub.cgroups.check(spec)
    }

    fn fleet(&self, service: &str) -> Result<Arc<Fleet>, Error> {
        let fleets = self.fleets();
        let unknown = || Error::NoService { name: service.into(), known: logs::known(&fleets) };
        fleets.get(service).cloned().ok_or_else(unknown)
    }

    fn find(&self, instance: &str) -> Result<(Arc<Fleet>, Arc<Place>), Error> {
        let fleets = self.fleets();
        let found = fleets.values().find_map(|fleet| Some((Arc::clone(fleet), fleet.find(instance)?)));
        let near = || nearest(instance, fleets.values().flat_map(|fleet| fleet.instances()));
        found.ok_or_else(|| Error::NoWorker { name: instance.into(), near: near() })
    }

    /// Puts a service into the books that has no workers and wants none: nobody depends on it before it is ready, so
    /// that until then it must not be seen to lack any.
    fn insert(&self, spec: Spec) -> Result<Arc<Fleet>, Error> {
        let mut fleets = self.inner.fleets.write().unwrap_or_else(PoisonError::into_inner);
        if fleets.contains_key(&spec.name) {
            return Err(Error::Exists(spec.name));
        }
        let name = spec.name.clone();
        self.inner.hub.board.open(&name);
        self.inner.hub.logs.open(&name);
        let fleet = Arc::new(Fleet::new(Ground::new(Arc::clone(&self.inner.hub), spec)));
        fleet.want(0);
        fleets.insert(name, Arc::clone(&fleet));
        Ok(fleet)
    }

    /// Ends the workers of a service and takes it out of the books.
    async fn take_out(&self, name: &ServiceName, fleet: &Arc<Fleet>) {
        fleet.close().await;
        let mut fleets = self.inner.fleets.write().unwrap_or_else(PoisonError::into_inner);
        if fleets.get(name).is_some_and(|known| Arc::ptr_eq(known, fleet)) {
            fleets.remove(name);
            self.inner.hub.board.close(name);
            self.inner.hub.logs.close(name);
        }
    }

    fn fleets(&self) -> RwLockReadGuard<'_, BTreeMap<ServiceName, Arc<Fleet>>> {
        self.inner.fleets.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A rollout that was begun. Dropping it ends nothing.
#[derive(Clone)]
pub struct Rollout {
    service: ServiceName,
    rolling: Arc<Rolling>,
}

impl Rollout {
    /// Waits until all workers are of the new version, so that it is only watched from there on. An error if the old one
    /// is back. Cancellation safe.
    pub async fn stepped(&self) -> Result<(), Error> {
        let mut phase = self.rolling.phase.subscribe();
        let seen = phase.wait_for(|phase| *phase != Phase::Rolling).await.map(|phase| phase.clone());
        self.outcome(seen.unwrap_or(Phase::Interrupted))
    }

    /// Waits until the new version has taken over. An error if the old one is back. Cancellation safe.
    pub async fn ended(&self) -> Result<(), Error> {
        self.outcome(self.rolling.ended().await)
    }

    /// Whether the new version has taken over for good.
    pub fn has_taken_over(&self) -> bool {
        *self.rolling.phase.borrow() == Phase::Promoted
    }

    /// How it ended; waits for that. Cancellation safe.
    pub async fn phase(&self) -> Phase {
        self.rolling.ended().await
    }

    /// Calls it off; it then goes back. Returns as soon as it knows, and whether there was anything to call off: it may
    /// have ended. `by` says who, for people.
    pub fn call_off(&self, by: String) -> bool {
        self.rolling.call_off(by)
    }

    fn outcome(&self, phase: Phase) -> Result<(), Error> {
        let service = self.service.clone();
        match phase {
            Phase::Rolling | Phase::Baking | Phase::Promoted => Ok(()),
            Phase::RolledBack(Reason::Start | Reason::Unready(_), Some(reason)) => {
                Err(Error::Rollout { service, reason })
            }
            Phase::RolledBack(reason @ (Reason::Start | Reason::Unready(_)), None) => {
                Err(Error::Rollout { service, reason: reason.to_string() })
            }
            Phase::RolledBack(reason, _) => Err(Error::RolledBack { service, reason: reason.to_string() }),
            Phase::Stuck(reason, said) => {
                let said = said.map(|said| format!(": {said}")).unwrap_or_default();
                let reason = format!("{reason}; the old version does not start either{said}");
                Err(Error::RolledBack { service, reason })
            }
            Phase::Interrupted => Err(Error::Stopping),
        }
    }
}

fn did_you_mean(near: &Option<InstanceId>) -> String {
    near.as_ref().map(|near| format!("did you mean `{near}`? ")).unwrap_or_default()
}

/// The instance whose name differs in at most two letters, the least first.
fn nearest(name: &str, instances: impl Iterator<Item = InstanceId>) -> Option<InstanceId> {
    const LETTERS_MAX: usize = 2;
    let distances =
        instances.map(|instance| (strsim::damerau_levenshtein(name, instance.as_str()), instance));
    distances.filter(|(letters, _)| *letters <= LETTERS_MAX).min().map(|(_, instance)| instance)
}

/// Runs a command to its end even if its caller is cancelled, so that none is left half done.
async fn run<T: Send + 'static>(
    command: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    tokio::spawn(command).await.unwrap_or(Err(Error::Stopping))
}

/// Runs the guard (the hidden verb `lethe guard`): reads process groups from standard input, waits for its end,
/// which means that `lethe` has died, and kills those groups. Returns the exit status.
pub fn guard() -> i32 {
    guard::run(std::io::stdin().lock())
}
