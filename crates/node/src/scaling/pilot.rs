//! One service's decisions: from what was seen to how many workers there should be. Pure: it is told what is, and when.

use std::collections::{BTreeMap, HashSet};

use lethe_model::roster::WorkerState;
use lethe_scaler::{
    case::{Case, SpecSource},
    decision::Decision,
    history::History,
    manifest::writing,
    proposal,
    samples::{Instance, Phase, Reading, Samples},
    spec::{Metric, Source, Target},
    time::Time,
    zero::{self, Zero},
};

use crate::{
    config::{Instances, scale::Scale},
    scaling::{
        gauge::{Buckets, Gauge},
        names,
    },
};

/// What is there now.
#[derive(Debug)]
pub struct Observation {
    /// Now.
    pub now: Time,
    /// Workers that there should be as of now.
    pub wanted: u32,
    /// Requests that wait for one.
    pub waiting: u64,
    /// The workers that there are.
    pub workers: Vec<Seen>,
    /// How long answers took so far, if anybody asks.
    pub latency: Option<Buckets>,
    /// Numbers from elsewhere.
    pub externals: BTreeMap<String, Reading>,
}

/// A worker.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its name.
    pub instance: String,
    /// What may be asked of it.
    pub state: WorkerState,
    /// Whether it has a process; one that has failed waits for the next.
    pub has_process: bool,
    /// When its process was started.
    pub started: Time,
    /// Since when it may get requests, if that is known.
    pub ready_since: Option<Time>,
    /// CPU time so far.
    pub cpu_ms: u64,
    /// Resident memory.
    pub memory_bytes: u64,
}

/// What was decided, and what it was taken from.
#[derive(Debug)]
pub struct Verdict {
    /// How many there should be; an error if too much is unknown to change anything.
    pub decided: Result<Decision, proposal::Error>,
    /// What it can be taken again from.
    pub case: Case,
    /// Metrics that say nothing, by name, and why.
    pub failing: BTreeMap<String, String>,
    /// The ratio of each metric that says something to what it should be.
    pub ratios: BTreeMap<String, f64>,
}

/// Decides for one service.
#[derive(Debug)]
pub struct Pilot {
    scale: Scale,
    range: Instances,
    /// None before the first decision.
    history: Option<History>,
    pub(crate) gauge: Gauge,
    /// Whether each worker is ready, and since when.
    readiness: BTreeMap<String, (bool, Time)>,
}

impl Pilot {
    /// For a service within this range.
    pub fn new(scale: Scale, range: Instances) -> Self {
        Self { scale, range, history: None, gauge: Gauge::default(), readiness: BTreeMap::new() }
    }

    /// Follows a changed configuration. What was proposed before counts on as long as it was by the same numbers.
    pub fn configure(&mut self, scale: Scale, range: Instances) {
        let sources = |scale: &Scale| -> Vec<Source> {
            scale.spec.metrics.iter().map(|metric| metric.source.clone()).collect()
        };
        if sources(&scale) != sources(&self.scale) {
            self.history = None;
        }
        (self.scale, self.range) = (scale, range);
    }

    /// The range.
    pub fn range(&self) -> Instances {
        self.range
    }

    /// What it goes by.
    pub fn scale(&self) -> &Scale {
        &self.scale
    }

    /// Whether what the workers use is asked for.
    pub fn wants_usage(&self) -> bool {
        let is_usage =
            |metric: &Metric| matches!(metric.source, Source::Resource(_) | Source::ContainerResource { .. });
        self.scale.spec.metrics.iter().any(is_usage)
    }

    /// Whether it is asked how long answers take.
    pub fn wants_latency(&self) -> bool {
        self.scale.spec.metrics.iter().any(|metric| metric.source.name() == names::LATENCY)
    }

    /// Decides. Nothing is taken as followed before [`Pilot::follow`].
    pub fn decide(&mut self, observation: Observation) -> Verdict {
        let (now, waiting) = (observation.now, observation.waiting);
        let samples = self.samples(observation);
        let current = samples.replicas;
        if self.is_told_of_work(&samples) {
            self.gauge.note_busy(now);
        }
        let history = self.history.get_or_insert_with(|| History::begin(current, now));
        let zero = (self.range.min == 0).then(|| Zero {
            idle: self.scale.idle,
            idle_for: self.gauge.idle_for(now),
            waiting,
        });
        let decided = zero::decide(zero.as_ref(), &self.scale.spec, history, &samples, now);
        let case = Case {
            spec: SpecSource::Inline(writing::write(&self.scale.spec)),
            options: self.scale.spec.options,
            is_raw: false,
            now,
            samples,
            history: history.clone(),
            zero,
            unknown: Vec::new(),
        };
        let mut failing = self.failing(&decided);
        if case.samples.replicas == 0 {
            // What is measured at workers, or of what they answer, cannot be there without any, and is not missed.
            failing.retain(|name, _| self.scale.externals.iter().any(|external| external.name == *name));
        }
        let ratios = ratios(&decided);
        Verdict { decided, case, failing, ratios }
    }

    /// Notes that a decision was followed, and what it was taken from.
    pub fn follow(&mut self, decision: &Decision, case: &Case) {
        if let Some(history) = &mut self.history {
            history.note(&self.scale.spec, case.samples.replicas, decision, case.now);
        }
    }

    /// Has what somebody else did count as proposed.
    pub fn begin_again(&mut self) {
        self.history = None;
    }

    fn samples(&mut self, observation: Observation) -> Samples {
        let Observation { now, wanted, waiting: _, workers, latency, mut externals } = observation;
        let here: HashSet<&str> = workers.iter().map(|worker| worker.instance.as_str()).collect();
        self.readiness.retain(|name, _| here.contains(name.as_str()));
        self.gauge.keep(|name| here.contains(name));
        let serving = workers.iter().filter(|worker| worker.state == WorkerState::Ready).count();
        let (load, rate) = (self.gauge.concurrency(), self.gauge.rate(now));
        if let Some(buckets) = latency {
            self.gauge.note_latency(now, buckets, serving);
            externals.insert(names::LATENCY.into(), self.gauge.latency(self.scale.quantile, self.goal()));
        }
        externals.insert(names::CONCURRENCY.into(), milli(load));
        externals.insert(names::REQUESTS.into(), milli(rate));
        let each = self.of_each(&externals, serving, load, rate);
        let wants_usage = self.wants_usage();
        let instances = workers.iter().map(|worker| self.instance(worker, now, wants_usage, &each)).collect();
        // A number is an object's or an external one, as the spec has it.
        let mut samples = Samples { replicas: wanted, instances, ..Samples::default() };
        for metric in &self.scale.spec.metrics {
            let (numbers, name) = match &metric.source {
                Source::Object(name) => (&mut samples.object, name),
                Source::External(name) => (&mut samples.external, name),
                _ => continue,
            };
            numbers.extend(externals.get(name).map(|number| (name.clone(), number.clone())));
        }
        samples
    }

    /// Whether a number from elsewhere says that there is something to do, or fails and may have said so. What the gateway
    /// measures is of what was in flight, which the gauge knows better.
    fn is_told_of_work(&self, samples: &Samples) -> bool {
        let is_work = |name: &str| {
            let number = samples.external.get(name).or_else(|| samples.object.get(name));
            number.is_some_and(|number| *number != Reading::Value(0))
        };
        self.scale.externals.iter().any(|external| is_work(&external.name))
    }

    fn goal(&self) -> i64 {
        let of_latency = self.scale.spec.metrics.iter().find(|metric| metric.source.name() == names::LATENCY);
        match of_latency.map(|metric| metric.target) {
            Some(Target::Value(goal) | Target::AverageValue(goal)) => goal,
            _ => i64::MAX,
        }
    }

    /// Numbers that an autoscaler's file asks of each worker: the share of each in what is known of all, or what is told.
    fn of_each(
        &self,
        externals: &BTreeMap<String, Reading>,
        serving: usize,
        load: f64,
        rate: f64,
    ) -> BTreeMap<String, Reading> {
        let share = |number: f64| milli(number / serving.max(1) as f64);
        let asked = self.scale.spec.metrics.iter().filter_map(|metric| match &metric.source {
            Source::Pods(name) => Some(name),
            _ => None,
        });
        let number = |name: &String| match name.as_str() {
            names::REQUESTS => share(rate),
            names::CONCURRENCY => share(load),
            _ => externals.get(name).cloned().unwrap_or_default(),
        };
        asked.map(|name| (name.clone(), number(name))).collect()
    }

    fn instance(
        &mut self,
        worker: &Seen,
        now: Time,
        wants_usage: bool,
        each: &BTreeMap<String, Reading>,
    ) -> Instance {
        let is_ready = worker.state == WorkerState::Ready;
        let readiness = self.readiness.entry(worker.instance.clone()).or_insert((is_ready, now));
        if readiness.0 != is_ready {
            *readiness = (is_ready, now);
        }
        // Whoever gets no requests yet has no share of them.
        let share = |reading: &Reading| if is_ready { reading.clone() } else { Reading::Value(0) };
        let mut metrics: BTreeMap<String, Reading> =
            each.iter().map(|(name, reading)| (name.clone(), share(reading))).collect();
        let mut cpu = Reading::Missing;
        if wants_usage && worker.has_process {
            let window = self.scale.spec.options.sample;
            cpu = self.gauge.cpu(&worker.instance, worker.started, (now, worker.cpu_ms), window);
            let bytes = i64::try_from(worker.memory_bytes).unwrap_or(i64::MAX);
            metrics.insert("memory".into(), Reading::Value(bytes.saturating_mul(1_000)));
        }
        Instance {
            name: worker.instance.clone(),
            phase: if worker.has_process { Phase::Running } else { Phase::Pending },
            ready: Some(is_ready),
            ready_since: worker.ready_since.filter(|_| is_ready).unwrap_or(readiness.1),
            started: Some(worker.started),
            deleted: worker.state == WorkerState::Draining,
            cpu,
            cpu_request: Some(self.scale.cpu_request),
            sampled: None,
            metrics,
            requests: self
                .scale
                .memory_request
                .map(|bytes| ("memory".into(), bytes.saturating_mul(1_000)))
                .into_iter()
                .collect(),
        }
    }

    fn failing(&self, decided: &Result<Decision, proposal::Error>) -> BTreeMap<String, String> {
        let named = |failures: &[(Source, proposal::Failure)]| {
            failures.iter().map(|(source, failure)| (source.name().to_owned(), failure.to_string())).collect()
        };
        match decided {
            Err(proposal::Error::AllFail(failures)) => named(failures),
            Err(proposal::Error::FewerWhileFailing { failures, .. }) => named(failures),
            // Without a proposal, no metric was asked.
            Ok(Decision { proposal: None, .. }) => BTreeMap::new(),
            Ok(decision) => {
                let sources = self.scale.spec.metrics.iter().map(|metric| &metric.source);
                let silent =
                    sources.filter(|source| !decision.usages.iter().any(|usage| usage.source == **source));
                let why = |source: &Source| {
                    let start = format!("{source} fails and does not count: ");
                    decision.reasons.iter().find_map(|reason| reason.strip_prefix(&start)).unwrap_or_default()
                };
                silent.map(|source| (source.name().to_owned(), why(source).to_owned())).collect()
            }
        }
    }
}

fn ratios(decided: &Result<Decision, proposal::Error>) -> BTreeMap<String, f64> {
    let usages = match decided {
        Ok(decision) => &decision.usages,
        Err(error) => error.usages(),
    };
    let ratio = |usage: &proposal::Usage| match usage.target {
        Target::Utilization(percent) => usage.value as f64 / f64::from(percent),
        Target::AverageValue(target) | Target::Value(target) => usage.value as f64 / target as f64,
    };
    usages.iter().map(|usage| (usage.source.name().to_owned(), ratio(usage))).collect()
}

/// In thousandths, rounded up, as Kubernetes rounds.
fn milli(number: f64) -> Reading {
    // Beyond the last digits that arithmetic keeps there is nothing to round up.
    Reading::Value((number * 1_000.0 - 1e-6).ceil() as i64)
}

#[cfg(test)]
mod tests;
