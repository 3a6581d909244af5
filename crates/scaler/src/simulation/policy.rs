//! The policies that are compared, each with its own period and its own eyes.

use std::{collections::VecDeque, str::FromStr, time::Duration};

use crate::{
    backlog, concurrency, decision,
    history::History,
    samples::{Instance, Reading, Samples},
    simulation::{Model, workers::Workers},
    spec::{Behavior, Metric, Options, Source, Spec, Target},
    time::Time,
    tracking,
};

/// How often Kubernetes' controller decides, and how old the CPU samples are that it sees: both are 15 s by default
/// (`--horizontal-pod-autoscaler-sync-period`, metrics-server's `--metric-resolution`).
const HPA_PERIOD_S: u64 = 15;

/// How often Knative's decides (`tickInterval`).
const KPA_PERIOD_S: u64 = 2;

/// What the number of requests in flight is called.
const IN_FLIGHT: &str = "in-flight";

/// What a policy could look at.
pub struct Observation<'a> {
    /// The end of the second that has passed.
    pub(super) now: Time,
    pub(super) workers: &'a Workers,
    /// How busy the ready workers were, from 0 to 1.
    pub(super) busy: f64,
    /// Requests being served, at all workers together.
    pub(super) inside: f64,
    /// Requests waiting.
    pub(super) waiting: f64,
}

/// Which policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Kubernetes' HorizontalPodAutoscaler on CPU, each 15 s.
    Hpa,
    /// Knative's Pod Autoscaler on concurrency, each 2 s.
    Kpa,
    /// AWS's target tracking on CPU, each minute.
    Target,
    /// Kubernetes' arithmetic on concurrency, each second.
    Lethe,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Hpa, Self::Kpa, Self::Target, Self::Lethe];

    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hpa => "hpa",
            Self::Kpa => "kpa",
            Self::Target => "target",
            Self::Lethe => "lethe",
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text.trim())
            .ok_or_else(|| format!("policies are {}", known()))
    }
}

/// A policy at work.
pub enum Policy {
    /// See [`Kind::Hpa`].
    Hpa(Hpa),
    /// See [`Kind::Kpa`].
    Kpa(Kpa),
    /// See [`Kind::Target`].
    Target(Tracker),
    /// See [`Kind::Lethe`].
    Lethe(Lethe),
}

impl Policy {
    /// One that has not seen anything. `spec` takes the place of what is made of the model, for [`Kind::Hpa`] alone.
    pub fn new(kind: Kind, model: &Model, spec: Option<Spec>) -> Self {
        match kind {
            Kind::Hpa => Self::Hpa(Hpa::new(model, spec)),
            Kind::Kpa => Self::Kpa(Kpa::new(model)),
            Kind::Target => Self::Target(Tracker::new(model)),
            Kind::Lethe => Self::Lethe(Lethe::new(model)),
        }
    }

    /// As it is typed.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hpa(_) => Kind::Hpa.name(),
            Self::Kpa(_) => Kind::Kpa.name(),
            Self::Target(_) => Kind::Target.name(),
            Self::Lethe(_) => Kind::Lethe.name(),
        }
    }

    /// From how many to how many workers it asks for. What looks at the workers' CPU cannot bring them back from zero.
    pub(super) fn bounds(&self, model: &Model) -> (u32, u32) {
        match self {
            Self::Hpa(hpa) => (hpa.spec.min, hpa.spec.max),
            Self::Target(tracker) => (tracker.spec.min, tracker.spec.max),
            Self::Kpa(_) | Self::Lethe(_) => (model.min, model.max),
        }
    }

    /// Looks at a second that has passed, and says how many workers there should be, if it decides now.
    pub(super) fn look(&mut self, model: &Model, observation: &Observation<'_>) -> Option<u32> {
        match self {
            Self::Hpa(hpa) => hpa.look(observation),
            Self::Kpa(kpa) => kpa.look(observation),
            Self::Target(tracker) => tracker.look(observation),
            Self::Lethe(lethe) => lethe.look(model, observation),
        }
    }
}

fn bounded(model: &Model, metric: Metric, behavior: Option<Behavior>) -> Spec {
    let options = Options { sample: Duration::from_secs(HPA_PERIOD_S), ..Options::default() };
    Spec { min: model.min, max: model.max, metrics: vec![metric], behavior, options }
}

/// The last so many seconds of a number.
struct Window {
    seconds: usize,
    values: VecDeque<f64>,
    sum: f64,
}

impl Window {
    fn new(seconds: u64) -> Self {
        Self { seconds: seconds as usize, values: VecDeque::new(), sum: 0.0 }
    }

    fn push(&mut self, value: f64) {
        self.values.push_back(value);
        self.sum += value;
        if self.values.len() > self.seconds {
            self.sum -= self.values.pop_front().unwrap_or(0.0);
        }
    }

    /// Zero before anything was seen.
    fn mean(&self) -> f64 {
        (self.sum / self.values.len().max(1) as f64).max(0.0)
    }
}

/// Counts seconds to when it is time again.
fn is_time(ticks: &mut u64, period: u64) -> bool {
    *ticks += 1;
    (*ticks).is_multiple_of(period)
}

/// Kubernetes' HorizontalPodAutoscaler.
pub struct Hpa {
    spec: Spec,
    history: Option<History>,
    cpu: Window,
    ticks: u64,
    samples: Samples,
}

impl Hpa {
    fn new(model: &Model, spec: Option<Spec>) -> Self {
        let percent = ((model.utilization * 100.0).round() as i32).max(1);
        let cpu = Metric { source: Source::Resource("cpu".into()), target: Target::Utilization(percent) };
        let spec = spec.unwrap_or_else(|| bounded(&Model { min: model.min.max(1), ..*model }, cpu, None));
        Self { spec, history: None, cpu: Window::new(HPA_PERIOD_S), ticks: 0, samples: Samples::default() }
    }

    fn look(&mut self, observation: &Observation<'_>) -> Option<u32> {
        self.cpu.push(observation.busy);
        if !is_time(&mut self.ticks, HPA_PERIOD_S) {
            return None;
        }
        let current = observation.workers.wanted();
        let mut instances: Vec<Instance> = std::mem::take(&mut self.samples.instances);
        observation.workers.write((self.cpu.mean() * 1_000.0).round() as i64, &mut instances);
        self.samples.instances = instances;
        self.samples.replicas = current;
        let history = self.history.get_or_insert_with(|| History::begin(current, observation.now));
        let decision = decision::decide(&self.spec, history, &self.samples, observation.now).ok()?;
        history.note(&self.spec, current, &decision, observation.now);
        Some(decision.desired)
    }
}

/// Kubernetes' arithmetic on requests in flight, each second.
pub struct Lethe {
    spec: Spec,
    history: Option<History>,
}

impl Lethe {
    fn new(model: &Model) -> Self {
        let each = (model.utilization * f64::from(model.slots) * 1_000.0).round().max(1.0) as i64;
        let metric =
            Metric { source: Source::External(IN_FLIGHT.into()), target: Target::AverageValue(each) };
        Self { spec: bounded(model, metric, Some(Behavior::quick())), history: None }
    }

    fn look(&mut self, model: &Model, observation: &Observation<'_>) -> Option<u32> {
        let current = observation.workers.wanted();
        // At zero workers there is nothing but the line, and one request in it is enough to begin.
        let takes = if current == 0 { backlog::WITHIN } else { model.service_time };
        let in_flight = observation.inside + observation.waiting * backlog::part(takes);
        let milli = (in_flight * 1_000.0).min(f64::from(model.max) * 1e9).ceil() as i64;
        let external = [(IN_FLIGHT.to_owned(), Reading::Value(milli))].into();
        let samples = Samples { replicas: current, external, ..Samples::default() };
        let history = self.history.get_or_insert_with(|| History::begin(current, observation.now));
        let decision = decision::decide(&self.spec, history, &samples, observation.now).ok()?;
        history.note(&self.spec, current, &decision, observation.now);
        Some(decision.desired)
    }
}

/// Knative's Pod Autoscaler.
pub struct Kpa {
    spec: concurrency::Spec,
    history: concurrency::History,
    stable: Window,
    panic: Window,
    ticks: u64,
}

impl Kpa {
    fn new(model: &Model) -> Self {
        let target = model.utilization * f64::from(model.slots);
        let spec = concurrency::Spec::new(model.min, model.max, target);
        let (stable, panic) = (spec.stable_window.as_secs(), spec.panic_window.as_secs());
        let history = concurrency::History::default();
        Self { spec, history, stable: Window::new(stable), panic: Window::new(panic), ticks: 0 }
    }

    fn look(&mut self, observation: &Observation<'_>) -> Option<u32> {
        let in_flight = observation.inside + observation.waiting;
        self.stable.push(in_flight);
        self.panic.push(in_flight);
        if !is_time(&mut self.ticks, KPA_PERIOD_S) {
            return None;
        }
        let (stable, panic) = (self.stable.mean(), self.panic.mean());
        let samples = concurrency::Samples { ready: observation.workers.ready(), stable, panic };
        let decision = concurrency::decide(&self.spec, &self.history, &samples, observation.now);
        self.history = decision.history;
        Some(decision.desired)
    }
}

/// AWS's target tracking.
pub struct Tracker {
    spec: tracking::Spec,
    history: tracking::History,
    minute: Window,
    points: Vec<f64>,
    ticks: u64,
}

impl Tracker {
    fn new(model: &Model) -> Self {
        let spec = tracking::Spec::new(model.min.max(1), model.max, model.utilization * 100.0);
        let minute = Window::new(tracking::PERIOD.as_secs());
        Self { spec, history: tracking::History::default(), minute, points: Vec::new(), ticks: 0 }
    }

    fn look(&mut self, observation: &Observation<'_>) -> Option<u32> {
        self.minute.push(observation.busy * 100.0);
        if !is_time(&mut self.ticks, tracking::PERIOD.as_secs()) {
            return None;
        }
        self.points.push(self.minute.mean());
        let most = self.spec.in_points.max(self.spec.out_points);
        self.points.drain(..self.points.len().saturating_sub(most));
        let current = observation.workers.wanted();
        let decision = tracking::decide(&self.spec, &self.history, current, &self.points, observation.now);
        self.history = decision.history;
        Some(decision.desired)
    }
}
