//! What each metric proposes, and what they come to together (`ReplicaCalculator` and `computeReplicasForMetrics`).
//! All sums are whole milli-units and are divided as Go divides, towards zero; ratios are floating point and rounded
//! up to workers.

mod group;
mod ratio;
mod whole;

use crate::{
    quantity,
    samples::{Instance, Reading, Samples},
    spec::{Metric, Source, Spec, Target},
    time::Time,
};

/// What the metrics propose, before it is stabilized, slowed and bounded.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// So many workers.
    pub replicas: u32,
    /// What each metric came to, in the order of the spec; those that failed are not here.
    pub usages: Vec<Usage>,
    /// Why, in sentences.
    pub reasons: Vec<String>,
}

/// What a metric was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Which.
    pub source: Source,
    /// In percent of what was requested where the target is [`Target::Utilization`], else in milli-units: for each
    /// worker where it is [`Target::AverageValue`], as a whole where it is [`Target::Value`].
    pub value: i64,
    /// What it should be.
    pub target: Target,
}

/// Why a metric proposes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// There is no worker to measure or to count.
    #[error("there are no workers")]
    NoInstances,
    /// Nothing was measured at any worker that counts.
    #[error("no worker that counts was measured; they may all be starting")]
    NoSamples,
    /// A share of nothing is no number.
    #[error(
        "worker {instance} does not say how much {resource} it requests, of which its use would be a share"
    )]
    NoRequest {
        /// The first such worker.
        instance: String,
        /// What it should say.
        resource: String,
    },
    /// The requests of all workers that were measured are zero.
    #[error("the workers request none of it, and of nothing there is no share")]
    NothingRequested,
    /// The source is away.
    #[error("nobody gives a number for it")]
    Absent,
    /// The source says something that is no number.
    #[error("what is given for it is {0:?}, which is no number")]
    NoNumber(String),
}

/// Why the metrics together propose nothing. Nothing is changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No metric works.
    #[error("no metric works, so nothing is known: {}", list(.0))]
    AllFail(Vec<(Source, Failure)>),
    /// A metric fails, and without it there would be fewer workers; it might have said that they are needed.
    #[error("there would be {replicas} workers instead of {current}, but not while a metric fails: {}", list(.failures))]
    FewerWhileFailing {
        /// What the others propose.
        replicas: u32,
        /// How many there should be now.
        current: u32,
        /// Those that fail.
        failures: Vec<(Source, Failure)>,
        /// What the others came to.
        usages: Vec<Usage>,
    },
}

impl Error {
    /// Whether nothing else is wrong than that there is no worker to measure, as while they start. An object is what workers
    /// serve, so that nobody can tell its number while none of them does.
    pub fn is_for_want_of_samples(&self, samples: &Samples) -> bool {
        let (Self::AllFail(failures) | Self::FewerWhileFailing { failures, .. }) = self;
        let nobody_serves = !samples.instances.iter().any(Instance::is_serving);
        failures.iter().all(|(source, failure)| match failure {
            Failure::NoInstances | Failure::NoSamples => true,
            Failure::Absent => nobody_serves && matches!(source, Source::Object(_)),
            _ => false,
        })
    }

    /// What the metrics came to that work.
    pub fn usages(&self) -> &[Usage] {
        match self {
            Self::AllFail(_) => &[],
            Self::FewerWhileFailing { usages, .. } => usages,
        }
    }
}

fn list(failures: &[(Source, Failure)]) -> String {
    failures.iter().map(|(source, failure)| format!("{source}: {failure}")).collect::<Vec<_>>().join("; ")
}

/// Workers, and the sentence that says how they were come by.
type Said = (u32, String);

/// The largest of what the metrics propose. One that fails is left out, unless all fail or there would be fewer
/// workers than now (`computeReplicasForMetrics`).
pub fn propose(spec: &Spec, samples: &Samples, now: Time) -> Result<Proposal, Error> {
    let mut proposal = Proposal { replicas: 0, usages: Vec::new(), reasons: Vec::new() };
    let mut failures = Vec::new();
    for metric in &spec.metrics {
        match of_metric(spec, metric, samples, now) {
            Ok((usage, (replicas, why))) => {
                proposal.replicas = proposal.replicas.max(replicas);
                proposal.usages.push(usage);
                proposal.reasons.push(why);
            }
            Err(failure) => failures.push((metric.source.clone(), failure)),
        }
    }
    if failures.is_empty() {
        return Ok(proposal);
    }
    if proposal.usages.is_empty() {
        return Err(Error::AllFail(failures));
    }
    if proposal.replicas < samples.replicas {
        return Err(Error::FewerWhileFailing {
            replicas: proposal.replicas,
            current: samples.replicas,
            failures,
            usages: proposal.usages,
        });
    }
    let failing = |(source, failure)| format!("{source} fails and does not count: {failure}");
    proposal.reasons.extend(failures.into_iter().map(failing));
    Ok(proposal)
}

fn of_metric(spec: &Spec, metric: &Metric, samples: &Samples, now: Time) -> Result<(Usage, Said), Failure> {
    let tolerances = spec.tolerances();
    let (value, (replicas, why)) = match &metric.source {
        Source::Object(name) => {
            whole::propose(metric.target, number(samples.object.get(name))?, samples, tolerances)?
        }
        Source::External(name) => {
            whole::propose(metric.target, number(samples.external.get(name))?, samples, tolerances)?
        }
        Source::Resource(_) | Source::ContainerResource { .. } | Source::Pods(_) => {
            let groups = group::group(metric, &samples.instances, &spec.options, now)?;
            ratio::propose(metric.target, &groups, samples.replicas, tolerances)?
        }
    };
    let why = format!("{}: {}, {why}", metric.source, shown(metric.target, value));
    Ok((Usage { source: metric.source.clone(), value, target: metric.target }, (replicas, why)))
}

fn number(reading: Option<&Reading>) -> Result<i64, Failure> {
    match reading {
        Some(Reading::Value(value)) => Ok(*value),
        Some(Reading::Bad(text)) => Err(Failure::NoNumber(text.clone())),
        Some(Reading::Missing) | None => Err(Failure::Absent),
    }
}

fn shown(target: Target, value: i64) -> String {
    match target {
        Target::Utilization(percent) => format!("{value} % of what is requested (target {percent} %)"),
        Target::AverageValue(milli) => {
            format!("{} for each worker (target {})", quantity::decimal(value), quantity::decimal(milli))
        }
        Target::Value(milli) => format!("{} (target {})", quantity::decimal(value), quantity::decimal(milli)),
    }
}

/// Rounded up to whole workers, within what 32 bits with a sign can count, as all counts of Kubernetes are.
fn rounded_up(workers: f64) -> u32 {
    workers.ceil().clamp(0.0, f64::from(i32::MAX)) as u32
}
