//! Which workers count for a metric, and how (`groupPods`).

use crate::{
    proposal::Failure,
    samples::{Instance, Phase},
    spec::{Metric, Options, Source, Target},
    time::Time,
};

/// Some workers, and the sums of what they use and of what they requested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many.
    pub count: u64,
    /// What they use, in milli-units.
    pub usage: i128,
    /// What they requested, in milli-units; 0 where that does not matter.
    pub requests: i128,
}

impl Sum {
    fn add(&mut self, usage: i128, request: i64) {
        self.count += 1;
        self.usage += usage;
        self.requests += i128::from(request);
    }

    /// Both together.
    pub fn with(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            usage: self.usage + other.usage,
            requests: self.requests + other.requests,
        }
    }

    /// The same workers, using nothing.
    pub fn idle(self) -> Self {
        Self { usage: 0, ..self }
    }
}

/// The workers of one metric. Those that were told to end, and those that failed, are in no group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// Measured, and what was measured counts.
    pub ready: Sum,
    /// Not started yet or, for CPU, still starting. What was measured of them does not count.
    pub unready: Sum,
    /// Not measured. Their usage is what is assumed on the way down: all that they requested, or the target where
    /// that is more.
    pub missing: Sum,
}

enum Group {
    Ready,
    Unready,
    Missing,
    None,
}

/// Groups the workers and sums them up. It is an error if one of them does not say what it requested, where that
/// matters, whatever its group (`calculateRequests`).
pub fn group(
    metric: &Metric,
    instances: &[Instance],
    options: &Options,
    now: Time,
) -> Result<Groups, Failure> {
    if instances.is_empty() {
        return Err(Failure::NoInstances);
    }
    let (resource, container) = match &metric.source {
        Source::ContainerResource { resource, container } => (resource.as_str(), Some(container.as_str())),
        other => (other.name(), None),
    };
    // Only CPU is spent on starting.
    let is_cpu = resource == "cpu" && !matches!(metric.source, Source::Pods(_));
    let mut groups = Groups::default();
    let mut without_request = None;
    for instance in instances {
        let usage = match metric.source {
            Source::Pods(_) => instance.metrics.get(resource).and_then(|reading| reading.value()),
            _ => instance.usage(resource, container),
        };
        let request = match metric.target {
            Target::Utilization(_) => instance.request(resource, container).unwrap_or_else(|| {
                without_request.get_or_insert(instance);
                0
            }),
            Target::AverageValue(_) | Target::Value(_) => 0,
        };
        match of(instance, usage.is_some(), is_cpu, options, now) {
            Group::Ready => groups.ready.add(usage.unwrap_or(0).into(), request),
            Group::Unready => groups.unready.add(0, request),
            Group::Missing => groups.missing.add(assumed(metric.target, request), request),
            Group::None => {}
        }
    }
    if groups.ready.count == 0 {
        return Err(Failure::NoSamples);
    }
    match without_request {
        Some(Instance { name, .. }) => {
            Err(Failure::NoRequest { instance: name.clone(), resource: resource.into() })
        }
        None => Ok(groups),
    }
}

fn of(instance: &Instance, is_measured: bool, is_cpu: bool, options: &Options, now: Time) -> Group {
    if instance.deleted || instance.phase == Phase::Failed {
        Group::None
    } else if instance.phase == Phase::Pending {
        Group::Unready
    } else if !is_measured {
        Group::Missing
    } else if is_cpu && is_starting(instance, options, now) {
        Group::Unready
    } else {
        Group::Ready
    }
}

/// Whether what was measured of its CPU may be the cost of its start.
fn is_starting(instance: &Instance, options: &Options, now: Time) -> bool {
    let (Some(is_ready), Some(started)) = (instance.ready, instance.started) else { return true };
    if started.plus(options.cpu_initialization) > now {
        // The whole of the sample must be from when it was ready.
        let sampled = instance.sampled.unwrap_or(now);
        !is_ready || sampled < instance.ready_since.plus(options.sample)
    } else {
        // It is not ready now, and it was told so while it started: it has never been ready.
        !is_ready && started.plus(options.initial_readiness) > instance.ready_since
    }
}

/// What a worker that was not measured is taken to use on the way down.
fn assumed(target: Target, request: i64) -> i128 {
    match target {
        Target::Utilization(percent) => i128::from(request) * i128::from(percent.max(100)) / 100,
        Target::AverageValue(milli) | Target::Value(milli) => milli.into(),
    }
}
