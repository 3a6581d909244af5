//! One of the N places of a service: it runs one worker after the other until it is told to leave.
//!
//! The life of a worker: Starting → Ready → Draining → Gone, and from each of them to Gone when it dies. What
//! happens in the end, in this order: nobody enters its gate, it is out of the roster, the rest of its process
//! group is killed, its output is read to the end, and the next one is started, as [`restart`] decides.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use lethe_model::{
    gate::{Fate, Gate},
    roster::{Address, Worker, WorkerState},
    service::{InstanceId, ServiceName},
};
use rustix::process::Signal;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{
    board::Board,
    cell::{Cell, Starved},
    cgroup::Cgroups,
    home::{Home, Homes},
    launch::{Berth, Launched, Launcher, Order},
    logs::{Logs, Source},
    memory::OutOfMemory,
    output::Output,
    process::{self, Death, InWords, Leader},
    ready::Probe,
    restart::{self, End, Life, Rate, Verdict},
    rollout::Progress,
    service::{Listener, Spec, StateUrls},
    socket::Sockets,
    supervisor::{Error, WorkerStatus},
    usage,
};

/// After this time a worker that is not ready is named, with what it lacks.
const NAMED_AFTER: Duration = Duration::from_secs(30);
/// The lines of a worker that could not start that are shown with its trouble.
const LAST_LINES: usize = 10;
/// How long the last lines of a worker that has ended are waited for. They are there already, unless a process that has left
/// its process group keeps its output open.
const LINES_WAIT: Duration = Duration::from_millis(20);
/// How much longer if it could not start: they say why, and its place backs off in any case.
const FAILURE_LINES_WAIT: Duration = Duration::from_secs(5);
/// How long the system may take to end a process after SIGKILL, before we go on without it.
const KILL_WAIT: Duration = Duration::from_secs(10);
/// How often is looked whether processes of a group are left whose leader has ended.
const OTHERS_LOOK: Duration = Duration::from_millis(20);
/// How long the last processes of a group may take to be gone after SIGKILL.
const GROUP_WAIT: Duration = Duration::from_millis(500);

/// What all services share.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) board: Board,
    pub(crate) logs: Arc<Logs>,
    pub(crate) launcher: Launcher,
    pub(crate) sockets: Arc<Sockets>,
    pub(crate) cgroups: Arc<Cgroups>,
    pub(crate) state_urls: Option<StateUrls>,
    pub(crate) homes: Option<Homes>,
    /// Becomes true for good when the supervisor is stopped.
    pub(crate) stopping: watch::Sender<bool>,
    pub(crate) memory: OutOfMemory,
    /// The number of each service's last worker, also of services that are gone.
    pub(crate) numbers: Mutex<BTreeMap<ServiceName, Arc<AtomicU64>>>,
    /// The moment that [`Rate`] counts from.
    pub(crate) began: Instant,
}

/// What all places of one service share, as long as its spec is the same.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    pub(crate) hub: Arc<Hub>,
    pub(crate) spec: Arc<Spec>,
    /// The number of its last worker.
    pub(crate) instances: Arc<AtomicU64>,
    pub(crate) rate: Arc<Mutex<Rate>>,
}

/// One place.
#[derive(Debug)]
pub(crate) struct Place {
    ground: Arc<Ground>,
    leaving: watch::Sender<bool>,
    progress: watch::Sender<Progress>,
    shown: Mutex<Shown>,
}

/// What is known of the place's present worker.
#[derive(Debug)]
struct Shown {
    instance: InstanceId,
    /// `None` when it has no process.
    leader: Option<Arc<Leader>>,
    /// Its cgroup, if it has one and a process.
    cell: Option<Arc<Cell>>,
    /// `None` before its first worker was started.
    address: Option<Address>,
    state: WorkerState,
    started_at: SystemTime,
    ready_at: Option<SystemTime>,
    restarts: u64,
    memory_kills: u64,
    gate: Arc<Gate>,
    trouble: Option<String>,
    /// The last signal that an operator had sent to it.
    commanded: Option<Signal>,
}

/// A worker whose process exists.
struct Running {
    instance: InstanceId,
    leader: Arc<Leader>,
    cell: Option<Arc<Cell>>,
    death: Death,
    gate: Arc<Gate>,
    probe: Probe,
    output: Output,
    started: Instant,
    ready: Option<Instant>,
    /// Given back when it has ended.
    _berth: Berth,
    /// The same.
    _home: Option<Home>,
}

/// How a worker ended.
struct Ended {
    instance: InstanceId,
    life: Life,
    how: String,
}

impl Ground {
    /// That of a service which begins, or begins again.
    pub(crate) fn new(hub: Arc<Hub>, spec: Spec) -> Self {
        let mut numbers = hub.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let instances = Arc::clone(numbers.entry(spec.name.clone()).or_default());
        drop(numbers);
        Self { hub, spec: Arc::new(spec), instances, rate: Arc::new(Mutex::new(Rate::new())) }
    }

    fn next_instance(&self) -> InstanceId {
        InstanceId::new(&self.spec.name, self.instances.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn tell(&self, instance: &InstanceId, text: String) {
        self.hub.logs.push(&self.spec.name, instance, Source::Lethe, text);
    }
}

impl Place {
    /// A place without a worker, in which `restarts` workers have died before.
    pub(crate) fn new(ground: Arc<Ground>, restarts: u64) -> Self {
        let shown = Shown {
            instance: ground.next_instance(),
            leader: None,
            cell: None,
            address: None,
            state: WorkerState::Starting,
            started_at: SystemTime::now(),
            ready_at: None,
            restarts,
            memory_kills: 0,
            gate: Gate::new(),
            trouble: None,
            commanded: None,
        };
        Self {
            ground,
            leaving: watch::Sender::new(false),
            progress: watch::Sender::new(Progress::default()),
            shown: Mutex::new(shown),
        }
    }

    /// What its workers are started from.
    pub(crate) fn ground(&self) -> &Arc<Ground> {
        &self.ground
    }

    /// Tells the place to drain and end its worker, and to start no other.
    pub(crate) fn leave(&self) {
        self.leaving.send_replace(true);
    }

    /// Whether it was told to leave.
    pub(crate) fn is_leaving(&self) -> bool {
        *self.leaving.borrow()
    }

    /// What it has come to.
    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// The present worker's name.
    pub(crate) fn instance(&self) -> InstanceId {
        self.shown().instance.clone()
    }

    /// The present worker's state.
    pub(crate) fn state(&self) -> WorkerState {
        self.shown().state
    }

    /// How many workers died here.
    pub(crate) fn restarts(&self) -> u64 {
        self.shown().restarts
    }

    /// Why it does not do well.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.shown().trouble.clone()
    }

    /// Whether a request is inside its worker, or one may be waiting for it to be ready.
    pub(crate) fn is_busy(&self) -> bool {
        let is_starting = self.state() == WorkerState::Starting && self.progress.borrow().failures == 0;
        is_starting || self.shown().gate.in_flight() > 0
    }

    /// Lets nobody into its worker any more, if nobody is inside; returns whether that is so.
    pub(crate) fn close_if_idle(&self) -> bool {
        self.shown().gate.close_if_empty()
    }

    /// Sends a signal to the worker, if it has a process.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Error> {
        let leader = {
            let mut shown = self.shown();
            shown.commanded = Some(signal);
            shown.leader.clone()
        };
        let leader = leader
            .ok_or_else(|| Error::System("the worker has no process now; it waits to be started".into()))?;
        leader.signal(signal).map_err(|error| Error::System(format!("the signal was not sent: {error}")))
    }

    /// The worker as shown to people; with what it uses, or without.
    pub(crate) fn status(&self, with_usage: bool) -> WorkerStatus {
        let (mut status, pid, cell) = {
            let shown = self.shown();
            let pid = shown.leader.as_ref().map(|leader| leader.pid);
            let cell = shown.cell.clone();
            let status = WorkerStatus {
                service: self.ground.spec.name.clone(),
                release: self.ground.spec.release,
                instance: shown.instance.clone(),
                pid: pid.map(|pid| pid.as_raw_nonzero().get().unsigned_abs()),
                port: shown.address.as_ref().and_then(Address::port),
                socket: shown.address.as_ref().and_then(Address::path).map(Into::into),
                state: shown.state,
                started_at: shown.started_at,
                ready_at: shown.ready_at,
                restarts: shown.restarts,
                memory_kills: shown.memory_kills,
                in_flight: shown.gate.in_flight(),
                cpu_ms: 0,
                memory_bytes: 0,
                memory_limit_bytes: cell.as_ref().and_then(|cell| cell.memory_limit_bytes()),
                trouble: shown.trouble.clone(),
            };
            (status, pid, cell)
        };
        if let Some(pid) = pid.filter(|_| with_usage) {
            let usage = usage::of(pid, cell.as_deref());
            (status.cpu_ms, status.memory_bytes) = (usage.cpu_ms, usage.memory_bytes);
        }
        status
    }

    /// Runs workers until the place is told to leave.
    pub(crate) async fn run(&self) {
        let mut leaving = self.leaving.subscribe();
        let mut instance = self.instance();
        let mut replaced = None;
        while !*leaving.borrow_and_update() {
            let ended = match self.start(&instance, replaced.as_ref()).await {
                Ok(running) => self.watch(running, &mut leaving).await,
                Err(error) => Ended::not_launched(instance, &error),
            };
            if *leaving.borrow() {
                break;
            }
            let delay = self.judge(&ended);
            if !delay.is_zero() && timeout(delay, told(&mut leaving)).await.is_ok() {
                break;
            }
            replaced = Some(ended.instance);
            instance = self.ground.next_instance();
        }
    }

    /// Notes that [`Place::run`] has ended.
    pub(crate) fn has_left(&self) {
        self.progress.send_modify(|progress| progress.gone = true);
    }

    /// Starts a worker: it is in the roster when this returns.
    async fn start(&self, instance: &InstanceId, replaced: Option<&InstanceId>) -> Result<Running, Error> {
        let Ground { hub, spec, .. } = &*self.ground;
        let mut contract = vec![
            ("LETHE_SERVICE", OsString::from(spec.name.as_str())),
            ("LETHE_INSTANCE", instance.as_str().into()),
        ];
        if spec.release > 0 {
            contract.push(("LETHE_RELEASE", spec.release.to_string().into()));
        }
        contract.extend(hub.state_urls.as_ref().map(|urls| ("LETHE_STATE", urls.of(&spec.name).into())));
        let started = Instant::now();
        let home = self.home(instance).await?;
        let at = match &home {
            Some(home) => Arc::new(Spec { directory: home.directory.clone(), ..Spec::clone(spec) }),
            None => Arc::clone(spec),
        };
        let order = Order {
            spec: at,
            instance: instance.clone(),
            cgroups: Arc::clone(&hub.cgroups),
            sockets: Arc::clone(&hub.sockets),
            contract,
        };
        let Launched { leader, berth, cell, death, pipes } = hub.launcher.launch(order).await?;
        let address = berth.address();
        let gate = Gate::new();
        self.show(instance, &leader, cell.as_ref(), &address, &gate);
        hub.board.enter(
            &spec.name,
            Worker {
                instance: instance.clone(),
                address: address.clone(),
                protocol: spec.protocol,
                state: WorkerState::Starting,
                gate: Arc::clone(&gate),
                weight: Worker::WEIGHT,
            },
        );
        let place = match &address {
            Address::Tcp(address) => format!("port {}", address.port()),
            Address::Unix(path) => format!("socket {}", path.display()),
        };
        let mut text = format!("started (pid {}, {place})", leader.pid.as_raw_nonzero());
        if let Some(replaced) = replaced {
            text += &format!(", replaces {replaced}");
        }
        self.ground.tell(instance, text);
        let mut output = Output::new();
        for (pipe, source) in pipes.into_iter().zip([Source::Stdout, Source::Stderr]) {
            let (logs, service, instance) = (Arc::clone(&hub.logs), spec.name.clone(), instance.clone());
            output.read(pipe, move |text| logs.push(&service, &instance, source, text));
        }
        let probe = Probe::new(spec, address);
        let instance = instance.clone();
        Ok(Running {
            instance,
            leader,
            cell,
            death,
            gate,
            probe,
            output,
            started,
            ready: None,
            _berth: berth,
            _home: home,
        })
    }

    /// Where the worker runs, if that is not simply the directory of its service.
    async fn home(&self, instance: &InstanceId) -> Result<Option<Home>, Error> {
        let Ground { hub, spec, .. } = &*self.ground;
        let Some(homes) = &hub.homes else { return Ok(None) };
        let mut leaving = self.leaving.subscribe();
        let home = tokio::select! {
            home = homes.of(&spec.directory, instance) => home,
            () = told(&mut leaving) => return Err(Error::Stopping),
        };
        home.map(Some).map_err(|reason| Error::Command { service: spec.name.clone(), reason })
    }

    /// Watches a worker until it has ended, by itself or because the place leaves.
    async fn watch(&self, mut running: Running, leaving: &mut watch::Receiver<bool>) -> Ended {
        let named = sleep(NAMED_AFTER);
        tokio::pin!(named);
        let mut is_named = false;
        loop {
            tokio::select! {
                biased;
                () = running.death.seen() => return self.bury(running).await,
                () = told(leaving) => break,
                () = running.probe.ready(), if running.ready.is_none() => self.ready(&mut running),
                () = &mut named, if running.ready.is_none() && !is_named => {
                    is_named = true;
                    let trouble = format!("not ready after {NAMED_AFTER:?}: {}", running.probe.trouble());
                    self.ground.tell(&running.instance, trouble.clone());
                    self.shown().trouble = Some(trouble);
                }
            }
        }
        self.drain(&running).await;
        let (leader, cell) = (Arc::clone(&running.leader), running.cell.clone());
        let ended = self.bury(running).await;
        group_gone(&leader).await;
        if let Some(cell) = cell {
            cell.gone().await;
        }
        ended
    }

    fn ready(&self, running: &mut Running) {
        running.ready = Some(Instant::now());
        {
            let mut shown = self.shown();
            shown.ready_at = Some(SystemTime::now());
            shown.trouble = None;
        }
        self.set(&running.instance, WorkerState::Ready);
        self.progress.send_modify(|progress| progress.ready = true);
        let mut text = format!("ready after {} ms", running.started.elapsed().as_millis());
        if let Some(took) = running.probe.warm_up.took() {
            text += &format!(", {} ms of them to warm up", took.as_millis());
        }
        self.ground.tell(&running.instance, text);
        for trouble in running.probe.warm_up.troubles().drain(..) {
            self.ground.tell(&running.instance, trouble);
        }
    }

    /// Out of the roster → requests inside end → SIGTERM → SIGKILL. Returns when the leader has ended.
    async fn drain(&self, running: &Running) {
        let bound = self.ground.spec.drain;
        self.set(&running.instance, WorkerState::Draining);
        running.gate.close();
        let inside = running.gate.in_flight();
        self.ground.tell(&running.instance, format!("draining ({inside} requests inside)"));
        tokio::select! {
            () = running.death.seen() => return,
            emptied = timeout(bound, running.gate.emptied()) => if emptied.is_err() {
                let inside = running.gate.in_flight();
                self.ground.tell(&running.instance, format!("{inside} requests did not end within {bound:?}"));
            },
        }
        let _ = running.leader.signal(Signal::TERM);
        if timeout(bound, ended_all(running)).await.is_ok() {
            return;
        }
        self.ground.tell(&running.instance, format!("did not exit within {bound:?} of SIGTERM; killed"));
        let _ = running.leader.signal(Signal::KILL);
        if timeout(KILL_WAIT, running.death.seen()).await.is_err() {
            self.ground.tell(&running.instance, format!("did not end within {KILL_WAIT:?} of SIGKILL"));
        }
    }

    /// Does what is to be done when a worker has ended.
    async fn bury(&self, running: Running) -> Ended {
        let Ground { hub, spec, .. } = &*self.ground;
        running.gate.close();
        hub.board.leave(&spec.name, &running.instance);
        let now = Instant::now();
        let status = running.leader.bury();
        let (end, starved) =
            status.map_or((End::Fell, None), |status| end(status, running.cell.as_deref(), &hub.memory));
        running.gate.ended(if end == End::Killed { Fate::Killed } else { Fate::Fell });
        if status.is_some() {
            hub.launcher.table.strike(&running.leader);
        }
        if let Some(cell) = running.cell {
            // Also what has left its process group.
            cell.kill();
            tokio::spawn(async move { cell.gone().await });
        }
        let commanded = {
            let mut shown = self.shown();
            shown.leader = None;
            shown.cell = None;
            shown.memory_kills += u64::from(starved.is_some());
            shown.state = WorkerState::Gone;
            shown.commanded.take()
        };
        self.progress.send_modify(|progress| progress.ready = false);
        let ready_for = running.ready.map(|ready| now - ready);
        let life = || Life {
            end,
            ready_for,
            answered: running.gate.answered(),
            commanded: commanded.is_some_and(|signal| is_effect(signal, status)),
        };
        let has_failed = restart::judge(&life()) == Verdict::CouldNotStart;
        running.output.finish(self.heard_out(has_failed)).await;
        let how = match (starved, status) {
            (Some(why), _) => why.to_string(),
            (None, Some(status)) => InWords(status).to_string(),
            (None, None) => "not ended yet".into(),
        };
        let lived = now - running.started;
        self.ground.tell(&running.instance, format!("ended after {}: {how}", Rounded(lived)));
        let life = life();
        Ended { instance: running.instance, life, how }
    }

    /// How long the last lines of a worker that has ended are waited for.
    async fn heard_out(&self, has_failed: bool) {
        sleep(LINES_WAIT).await;
        if has_failed {
            let _ = timeout(FAILURE_LINES_WAIT, told(&mut self.leaving.subscribe())).await;
        }
    }

    /// Decides when the next worker is started.
    fn judge(&self, ended: &Ended) -> Duration {
        let verdict = restart::judge(&ended.life);
        self.shown().restarts += 1;
        if verdict == Verdict::Served {
            // The end of one that was killed from outside says nothing about its version.
            let has_fallen = ended.life.end == End::Fell && !ended.life.commanded;
            self.progress.send_modify(|progress| {
                progress.failures = 0;
                progress.falls += u32::from(has_fallen);
            });
            let now = self.ground.hub.began.elapsed();
            let delay = self.ground.rate.lock().unwrap_or_else(PoisonError::into_inner).take(now);
            if !delay.is_zero() {
                let rate = restart::REPLACEMENTS_PER_SECOND;
                let text = format!("replaced in {} ms: over {rate} replacements a second", delay.as_millis());
                self.ground.tell(&ended.instance, text);
            }
            return delay;
        }
        let mut failures = 0;
        self.shown().trouble = Some(self.failure(ended));
        self.progress.send_modify(|progress| {
            progress.failures = progress.failures.saturating_add(1);
            failures = progress.failures;
        });
        let delay = restart::backoff(failures);
        let text = format!(
            "could not start: {}; failure {failures} in a row, next try in {} ms",
            ended.how,
            delay.as_millis()
        );
        self.ground.tell(&ended.instance, text);
        delay
    }

    /// A failed start in words, with the worker's last lines.
    fn failure(&self, ended: &Ended) -> String {
        let when = if ended.life.end == End::NotLaunched {
            ""
        } else if ended.life.ready_for.is_none() {
            " before it was ready"
        } else {
            " as soon as it was ready"
        };
        let spec = &self.ground.spec;
        let lines = self.ground.hub.logs.last_printed(&ended.instance, &spec.name, LAST_LINES);
        let lines = if lines.is_empty() { lines } else { format!("; its last lines:\n{lines}") };
        let hint = if ended.life.end == End::Fell && ended.life.ready_for.is_none() && lines.is_empty() {
            match spec.listener {
                Listener::Port => "; it printed nothing",
                Listener::Inherited => "; it printed nothing (does it serve file descriptor 3?)",
                Listener::Socket => "; it printed nothing (does it listen on the unix socket $SOCKET?)",
            }
        } else {
            ""
        };
        format!("{}{when}{hint}{lines}", ended.how)
    }

    fn show(
        &self,
        instance: &InstanceId,
        leader: &Arc<Leader>,
        cell: Option<&Arc<Cell>>,
        address: &Address,
        gate: &Arc<Gate>,
    ) {
        let mut shown = self.shown();
        shown.instance = instance.clone();
        shown.leader = Some(Arc::clone(leader));
        shown.cell = cell.cloned();
        shown.address = Some(address.clone());
        shown.state = WorkerState::Starting;
        shown.started_at = SystemTime::now();
        shown.ready_at = None;
        shown.gate = Arc::clone(gate);
        shown.commanded = None;
    }

    fn set(&self, instance: &InstanceId, state: WorkerState) {
        self.shown().state = state;
        self.ground.hub.board.set(&self.ground.spec.name, instance, state);
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ended {
    fn not_launched(instance: InstanceId, error: &Error) -> Self {
        let life = Life { end: End::NotLaunched, ready_for: None, answered: 0, commanded: false };
        Self { instance, life, how: error.to_string() }
    }
}

/// How a worker ended, and why the kernel has killed it if it has.
fn end(status: ExitStatus, cell: Option<&Cell>, memory: &OutOfMemory) -> (End, Option<Starved>) {
    match status.signal() {
        Some(libc::SIGTERM) => (End::Killed, None),
        // The kernel kills with the same signal when there is no memory left, and then the worker may be the cause.
        Some(libc::SIGKILL) => match cell.and_then(Cell::starved) {
            Some(starved @ Some(_)) => {
                // This one is explained, and must not be held against the next.
                memory.has_struck();
                (End::Fell, starved)
            }
            // Its own count is exact, unlike that of the machine.
            Some(None) => (End::Killed, None),
            None if memory.has_struck() => (End::Fell, None),
            None => (End::Killed, None),
        },
        _ => (End::Fell, None),
    }
}

/// Whether a worker ended because of an operator's signal: by it, or by exiting after one that asks to.
fn is_effect(signal: Signal, status: Option<ExitStatus>) -> bool {
    let asks = [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP].contains(&signal);
    status.is_some_and(|status| match status.signal() {
        Some(by) => by == signal.as_raw(),
        None => asks,
    })
}

/// Waits until the place is told to leave. Cancellation safe.
async fn told(leaving: &mut watch::Receiver<bool>) {
    // The sender lives as long as the place, which is watching.
    let _ = leaving.wait_for(|leaving| *leaving).await;
}

/// Waits until all processes of the group have ended: a shell or npm may end at SIGTERM before what it runs.
async fn ended_all(running: &Running) {
    running.death.seen().await;
    let group = running.leader.pid;
    while tokio::task::spawn_blocking(move || process::others_live(group)).await.unwrap_or(false) {
        sleep(OTHERS_LOOK).await;
    }
}

/// Waits until the last processes of a killed group are gone, for a while.
async fn group_gone(leader: &Leader) {
    let began = Instant::now();
    while leader.group_exists() && began.elapsed() < GROUP_WAIT {
        sleep(Duration::from_millis(1)).await;
    }
}

/// A duration for people.
struct Rounded(Duration);

impl std::fmt::Display for Rounded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_secs() {
            0..10 => write!(f, "{} ms", self.0.as_millis()),
            10..600 => write!(f, "{} s", self.0.as_secs()),
            seconds => write!(f, "{} min", seconds / 60),
        }
    }
}
