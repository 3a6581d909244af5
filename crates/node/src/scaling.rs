//! The loop that has load decide how many workers services have. It looks at the gateway and the workers ten times a second,
//! decides each half second by `scaler`'s arithmetic, sets the supervisor's numbers, and keeps what it decided with what it was
//! decided from. It runs on the runtime of the node, never on that of a gateway's core.

mod board;
mod fetch;
mod figures;
mod gauge;
mod log;
pub mod names;
mod pilot;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lethe_admin::{
    api::{self, Problem},
    exposition::Exposition,
};
use lethe_gateway::{gateway::Gateway, stats::Queue};
use lethe_model::{
    roster::{Roster, WorkerState},
    service::ServiceName,
};
use lethe_scaler::{case::Case, samples::Reading, time::Time};
use lethe_supervisor::supervisor::{Supervisor, WorkerStatus};
use tokio::{sync::Notify, time::Instant};

use crate::{
    config::{Instances, ServiceConfig, scale::Scale},
    scaling::{
        board::Board,
        gauge::{Buckets, Load},
        log::{DecisionLog, Entry, Writer},
        pilot::{Observation, Pilot, Seen, Verdict},
    },
};

/// How often is looked at what is in flight.
const GLANCE: Duration = Duration::from_millis(100);
/// How often it is decided, in glances. The rules are of times, not of rounds, so that nothing but speed depends on it: a
/// step of load is answered within a second.
const GLANCES_TO_DECIDE: u32 = 5;
/// How long nothing can be decided before somebody is told: workers that all start cannot be measured for a moment.
const PATIENCE: Duration = Duration::from_secs(5);
/// The folder of decisions, in the state folder.
const FOLDER: &str = "scaling";

/// What has load decide. Cheap to look at; the loop is [`Scaling::run`].
pub struct Scaling {
    supervisor: Supervisor,
    gateway: Arc<Gateway>,
    folder: std::path::PathBuf,
    writer: Option<Writer>,
    /// Locked for a look or a decision, never while anything is waited for.
    services: Mutex<BTreeMap<ServiceName, Service>>,
    wake: Notify,
    clock: Clock,
}

/// One service that load decides about.
struct Service {
    pilot: Pilot,
    board: Board,
    log: DecisionLog,
    is_pinned: bool,
    /// Somebody waited for its first worker, and was heard before it was decided.
    is_woken: bool,
    /// What the last decision saw, for whoever looks.
    last: Last,
    trouble: Trouble,
}

/// A decision that is to be kept.
struct Draft {
    from: u32,
    to: u32,
    reasons: Vec<String>,
    error: Option<String>,
    notes: Vec<String>,
    case: Case,
}

#[derive(Default)]
struct Last {
    failing: BTreeMap<String, String>,
    ratios: BTreeMap<String, f64>,
    decisions: u64,
}

/// For how long nothing could be decided, and whether somebody was told.
#[derive(Default)]
struct Trouble {
    since: Option<Instant>,
    told: Option<Vec<String>>,
}

/// Wall-clock time that never jumps.
struct Clock {
    began: Instant,
    at: Time,
}

impl Clock {
    fn new() -> Self {
        Self { began: Instant::now(), at: time(SystemTime::now()) }
    }

    fn now(&self) -> Time {
        self.at.plus(self.began.elapsed())
    }
}

fn time(at: SystemTime) -> Time {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

impl Scaling {
    /// Nothing is decided before [`Scaling::configure`] and [`Scaling::run`].
    pub(crate) fn new(supervisor: Supervisor, gateway: Arc<Gateway>, state_dir: &Path) -> Arc<Self> {
        let folder = state_dir.join(FOLDER);
        let writer = Writer::start(&folder).inspect_err(|error| {
            tracing::warn!(%error, "decisions of scaling are not kept: {} cannot be used", folder.display());
        });
        let (services, wake, clock) = (Mutex::default(), Notify::new(), Clock::new());
        Arc::new(Self { supervisor, gateway, folder, writer: writer.ok(), services, wake, clock })
    }

    /// Follows a configuration: services come, go, and are decided about by other numbers. One that is as before goes on as
    /// it was; one that has changed is no longer pinned. Must be called within a runtime.
    pub(crate) fn configure(&self, configured: &[ServiceConfig]) {
        let mut services = self.services();
        services.retain(|name, _| {
            configured.iter().any(|service| service.spec.name == *name && service.scale.is_some())
        });
        for service in configured {
            let (name, range) = (&service.spec.name, service.instances);
            let Some(scale) = service.scale.clone() else { continue };
            match services.get_mut(name) {
                Some(known) => known.configure(scale, range),
                None => {
                    let log = DecisionLog::open(&self.folder, name.as_str(), self.writer.clone());
                    services.insert(name.clone(), Service::new(scale, range, log));
                }
            }
        }
        drop(services);
        self.wake();
    }

    /// Has it look at once.
    fn wake(&self) {
        self.wake.notify_one();
    }

    /// Notes that the first worker of a service is started, since requests wait for it. That is a decision like others.
    pub(crate) fn is_woken(&self, service: &ServiceName) {
        {
            // Locked before it is asked how many are wanted: a decision under way may just be changing that.
            let mut services = self.services();
            // It is told more than once.
            let is_news = self.supervisor.wanted().get(service) == Some(&0);
            if let Some(service) = services.get_mut(service).filter(|_| is_news) {
                service.is_woken = true;
            }
        }
        self.wake();
    }

    /// The services whose number was set by hand.
    pub(crate) fn pinned(&self) -> Vec<ServiceName> {
        let services = self.services();
        services.iter().filter(|(_, service)| service.is_pinned).map(|(name, _)| name.clone()).collect()
    }

    /// Never returns; dropping the future ends it between two decisions.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(GLANCE);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut glances = 0;
        loop {
            let is_woken = tokio::select! {
                _ = ticks.tick() => false,
                () = self.wake.notified() => true,
            };
            let is_awaited = self.glance();
            glances += 1;
            if is_woken || is_awaited || glances >= GLANCES_TO_DECIDE {
                glances = 0;
                self.decide().await;
            }
        }
    }

    /// Looks at what is in flight. True if somebody waits for the first worker of a service.
    fn glance(&self) -> bool {
        let (roster, queues) = (self.roster(), self.gateway.queues());
        let wanted = self.supervisor.wanted();
        let now = self.clock.now();
        let mut is_awaited = false;
        for (name, service) in &mut *self.services() {
            let workers = || roster.services.get(name).into_iter().flat_map(|workers| workers.iter());
            let Queue { waiting, shed } = queues.get(name).copied().unwrap_or_default();
            let inside: u64 = workers().map(|worker| worker.gate.in_flight()).sum();
            let answered = workers().map(|worker| (worker.instance.as_str(), worker.gate.answered()));
            service.pilot.gauge.glance(now, Load { inside, waiting, shed }, answered);
            let each = workers().map(|worker| (worker.state, worker.gate.in_flight()));
            let is_needed = waiting > 0 || served(each) > 0;
            is_awaited |= is_needed && wanted.get(name) == Some(&0) && !service.is_pinned;
        }
        is_awaited
    }

    /// Decides about all services, and has the supervisor follow.
    async fn decide(self: &Arc<Self>) {
        let asked: Vec<(ServiceName, bool)> = {
            let services = self.services();
            let asked = services.iter().filter(|(_, service)| !service.is_pinned);
            asked.map(|(name, service)| (name.clone(), service.pilot.wants_usage())).collect()
        };
        if asked.is_empty() {
            return;
        }
        let scaling = Arc::clone(self);
        // `/proc` of a thousand workers takes milliseconds.
        let seen = tokio::task::spawn_blocking(move || {
            let workers = |(name, with_usage): (ServiceName, bool)| {
                let workers = scaling.supervisor.workers_of(name.as_str(), with_usage);
                (name, workers)
            };
            asked.into_iter().map(workers).collect::<Vec<_>>()
        });
        // An error is the end of the runtime.
        let Ok(seen) = seen.await else { return };
        let (queues, wanted) = (self.gateway.queues(), self.supervisor.wanted());
        let latency = self.latency();
        let now = self.clock.now();
        let mut drafts = Vec::new();
        let mut services = self.services();
        for (name, workers) in seen {
            // It may have been pinned, or have gone, meanwhile.
            let Some(service) = services.get_mut(&name).filter(|service| !service.is_pinned) else {
                continue;
            };
            let Some(wanted) = wanted.get(&name).copied() else { continue };
            let known = service.board.known(Instant::now());
            let waiting = queues.get(&name).map_or(0, |queue| queue.waiting);
            let each = workers.iter().map(|worker| (worker.state, worker.in_flight));
            let (wanted, waiting) = match (wanted, service.is_woken) {
                // One that is there though none is wanted is there on trial, and serves whoever comes.
                (0, _) => (0, waiting + served(each)),
                (1, true) => (0, waiting.max(1)),
                _ => (wanted, waiting),
            };
            service.is_woken &= wanted == 0;
            let observation = Observation {
                now,
                wanted,
                waiting,
                workers: workers.iter().map(seen_as).collect(),
                latency: service
                    .pilot
                    .wants_latency()
                    .then(|| latency.get(&name).cloned().unwrap_or_default()),
                externals: known.readings,
            };
            let verdict = service.pilot.decide(observation);
            let draft = service.carry_out(&name, wanted, verdict, &known.troubles, &self.supervisor);
            drafts.extend(draft.map(|draft| (name, draft)));
        }
        drop(services);
        for (name, draft) in drafts {
            // That of a thousand workers takes milliseconds too.
            let case = draft.case.to_json().to_string();
            if let Some(service) = self.services().get_mut(&name) {
                service.keep(draft, case);
            }
        }
    }

    /// How long answers took so far, by service; only if somebody goes by that.
    fn latency(&self) -> BTreeMap<ServiceName, Buckets> {
        if !self.services().values().any(|service| service.pilot.wants_latency()) {
            return BTreeMap::new();
        }
        let mut sums: BTreeMap<ServiceName, BTreeMap<u64, u64>> = BTreeMap::new();
        for route in self.gateway.snapshot().routes.into_values() {
            let Some(service) = route.service else { continue };
            let sum = sums.entry(service).or_default();
            route.latency_us.into_iter().for_each(|(bound, count)| *sum.entry(bound).or_default() += count);
        }
        sums.into_iter().map(|(name, sum)| (name, sum.into_iter().collect())).collect()
    }

    fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.supervisor.roster().borrow())
    }

    fn services(&self) -> MutexGuard<'_, BTreeMap<ServiceName, Service>> {
        // What is in it is valid at every moment, also after a panic of whoever held the lock.
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Requests inside workers that take more.
fn served(workers: impl Iterator<Item = (WorkerState, u64)>) -> u64 {
    let ready = workers.filter(|(state, _)| *state == WorkerState::Ready);
    ready.map(|(_, inside)| inside).sum()
}

fn seen_as(worker: &WorkerStatus) -> Seen {
    Seen {
        instance: worker.instance.to_string(),
        state: worker.state,
        has_process: worker.pid.is_some(),
        started: time(worker.started_at),
        ready_since: worker.ready_at.map(time),
        cpu_ms: worker.cpu_ms,
        memory_bytes: worker.memory_bytes,
    }
}

impl Service {
    fn new(scale: Scale, range: Instances, log: DecisionLog) -> Self {
        let board = Board::new(scale.externals.clone());
        let pilot = Pilot::new(scale, range);
        let (last, trouble) = (Last::default(), Trouble::default());
        Self { pilot, board, log, is_pinned: false, is_woken: false, last, trouble }
    }

    fn configure(&mut self, scale: Scale, range: Instances) {
        if *self.pilot.scale() == scale && self.pilot.range() == range {
            return;
        }
        if !self.board.is_of(&scale.externals) {
            self.board = Board::new(scale.externals.clone());
        }
        self.pilot.configure(scale, range);
        self.is_pinned = false;
    }

    /// Has the supervisor follow a decision. Gives it if it is to be kept, since it changes something or could not be taken.
    fn carry_out(
        &mut self,
        name: &ServiceName,
        from: u32,
        verdict: Verdict,
        troubles: &BTreeMap<String, String>,
        supervisor: &Supervisor,
    ) -> Option<Draft> {
        let Verdict { decided, case, mut failing, ratios } = verdict;
        for (metric, why) in &mut failing {
            if let Some(trouble) = troubles.get(metric) {
                why.clone_from(trouble);
            }
        }
        let notes: Vec<String> = failing.iter().map(|(metric, why)| format!("{metric}: {why}")).collect();
        let decision = match decided {
            Ok(decision) => decision,
            Err(error) => {
                (self.last.failing, self.last.ratios) = (failing, ratios);
                let why = error.to_string();
                // One that starts slowly is no trouble of a metric; that it does not start is told by its own output.
                let starts = case.samples.instances.iter().any(|instance| instance.ready == Some(false));
                if starts && error.is_for_want_of_samples(&case.samples)
                    || !self.trouble.is_to_be_told(&self.last.failing)
                {
                    return None;
                }
                tracing::warn!("{name}: stays at {from}: {why} ({})", notes.join("; "));
                return Some(Draft { from, to: from, reasons: Vec::new(), error: Some(why), notes, case });
            }
        };
        (self.last.failing, self.last.ratios) = (failing, ratios);
        if self.last.failing.is_empty() {
            // Where none was asked, nothing is known of them.
            if decision.proposal.is_some() && self.trouble.is_over() {
                tracing::info!("{name}: all its metrics can be measured again");
            }
        } else if self.trouble.is_to_be_told(&self.last.failing) {
            tracing::warn!("{name}: goes by its other metrics, and no worker leaves: {}", notes.join("; "));
        }
        let to = decision.desired;
        if to == from {
            self.pilot.follow(&decision, &case);
            return None;
        }
        let resized = match to {
            // Whoever comes at the last moment keeps its worker.
            0 => supervisor.rest(name.as_str()),
            _ => supervisor.resize(name.as_str(), to),
        };
        match resized {
            Ok(true) => {
                self.is_woken = false;
                self.pilot.follow(&decision, &case);
                tracing::info!("{name}: {from} → {to} workers: {}", decision.reasons.join("; "));
                return Some(Draft { from, to, reasons: decision.reasons, error: None, notes, case });
            }
            // A command runs on it: it is decided again once that is done.
            Ok(false) => {}
            Err(error) => tracing::debug!("{name}: not scaled to {to}: {error}"),
        }
        None
    }

    fn keep(&mut self, draft: Draft, case: String) {
        let Draft { from, to, reasons, error, notes, case: _ } = draft;
        self.last.decisions += 1;
        let (number, at) = (self.log.next(), SystemTime::now().into());
        self.log.add(Entry { number, at, from, to, reasons, error, notes, case });
    }
}

impl Trouble {
    /// Whether nothing could be decided for long enough, and nobody was told of these metrics yet.
    fn is_to_be_told(&mut self, failing: &BTreeMap<String, String>) -> bool {
        let names: Vec<String> = failing.keys().cloned().collect();
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() < PATIENCE || self.told.as_ref() == Some(&names) {
            return false;
        }
        self.told = Some(names);
        true
    }

    /// Ends it. True if somebody was told that it had begun.
    fn is_over(&mut self) -> bool {
        std::mem::take(self).told.is_some()
    }
}

impl lethe_admin::handles::Scaling for Scaling {
    fn range(&self, service: &str) -> Option<api::ServiceScale> {
        self.services().get(service).map(Service::range)
    }

    fn look(&self, service: &str) -> Option<api::Scaling> {
        let wanted = self.supervisor.wanted().get(service).copied().unwrap_or(0);
        let services = self.services();
        let (name, service) = services.get_key_value(service)?;
        let Last { failing, ratios, .. } = &service.last;
        let metric = |metric: &lethe_scaler::spec::Metric| {
            let name = metric.source.name();
            let (ratio, failing) = (ratios.get(name).copied(), failing.get(name).cloned());
            api::ScalingMetric { name: name.into(), ratio, failing }
        };
        let decision = |entry: &Entry| api::Decision {
            number: entry.number,
            at: entry.at,
            from: entry.from,
            to: entry.to,
            reasons: entry.reasons.clone(),
            error: entry.error.clone(),
            notes: entry.notes.clone(),
        };
        Some(api::Scaling {
            service: name.clone(),
            scale: service.range(),
            wanted,
            metrics: service.pilot.scale().spec.metrics.iter().map(metric).collect(),
            decisions: service.log.entries().map(decision).collect(),
        })
    }

    fn case(&self, service: &str, number: u64) -> Option<String> {
        self.services().get(service)?.log.get(number).map(|entry| entry.case.clone())
    }

    fn pin(&self, service: &str, is_pinned: bool) -> Option<()> {
        let mut services = self.services();
        let service = services.get_mut(service)?;
        if service.is_pinned && !is_pinned {
            // From here on, what was set by hand is where it goes on from.
            service.pilot.begin_again();
        }
        (service.is_pinned, service.is_woken) = (is_pinned, false);
        // Nothing is asked of metrics any more, or not yet again.
        (service.last.failing, service.last.ratios) = Default::default();
        drop(services);
        self.wake();
        Some(())
    }

    fn tell(&self, service: &str, metric: &str, number: &str) -> Option<Result<(), Problem>> {
        let services = self.services();
        let board = &services.get(service)?.board;
        let reading = fetch::reading(number);
        if let Err(known) = board.tell(metric, reading.clone(), Instant::now()) {
            let which = match known.as_slice() {
                _ if board.is_fetched(metric) => "that one is fetched from its `url`".into(),
                [] => "none of its metrics is told; write metric = { name = \"…\", per-instance = 10 } for it in lethe.toml".into(),
                names => format!("those that can be told: {}", names.join(", ")),
            };
            let detail = format!("{service} has no metric {metric} that could be told; {which}");
            return Some(Err(Problem { status: 404, title: "No such metric".into(), detail }));
        }
        if let Reading::Bad(text) = reading {
            // It is noted all the same: whoever says this no longer says the number before.
            let detail =
                format!("{text:?} is no number of 0 or more: send one such as 17; until then {metric} fails");
            return Some(Err(Problem { status: 400, title: "No number".into(), detail }));
        }
        Some(Ok(()))
    }

    fn measure(&self, text: &mut Exposition) {
        let wanted = self.supervisor.wanted();
        figures::write(text, &self.services(), &wanted);
    }
}

impl Service {
    fn range(&self) -> api::ServiceScale {
        let Instances { min, max } = self.pilot.range();
        api::ServiceScale { min, max, pinned: self.is_pinned }
    }
}
