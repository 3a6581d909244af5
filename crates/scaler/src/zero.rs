//! The last worker, and the first. Kubernetes' rules come to zero by a number that is there without workers; here it
//! takes more, and less. More: the last worker leaves only when nothing has been in flight for a while, no number fails,
//! and none would start the first one again. Less: somebody who waits is reason enough for the first worker, also where
//! only CPU is measured.

use std::time::Duration;

use crate::{
    decision::{self, Decision},
    history::History,
    proposal::Error,
    samples::{Reading, Samples},
    spec::{Metric, Source, Spec},
    time::Time,
};

/// What is known of a service that may have no workers at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Zero {
    /// The last worker leaves when nothing was in flight for so long.
    pub idle: Duration,
    /// For so long nothing has been in flight and nobody has waited.
    pub idle_for: Duration,
    /// Requests that wait for a worker.
    pub waiting: u64,
}

impl Zero {
    fn is_idle(&self) -> bool {
        self.waiting == 0 && self.idle_for >= self.idle
    }
}

/// Decides as [`decision::decide`] does, and for a service that may have no workers also about the last and the first.
/// Its `min` is 0 only if one of its metrics is there without workers, else 1, as the rules want it.
pub fn decide(
    zero: Option<&Zero>,
    spec: &Spec,
    history: &History,
    samples: &Samples,
    now: Time,
) -> Result<Decision, Error> {
    let Some(zero) = zero else { return decision::decide(spec, history, samples, now) };
    if samples.replicas == 0 {
        if zero.waiting > 0 {
            let many = if zero.waiting == 1 { "a request waits" } else { "requests wait" };
            return Ok(without_metrics(1, format!("1 instead of 0: {many} for a worker")));
        }
        let nobody = || without_metrics(0, "0, as now: nobody waits".into());
        return match spec.min {
            0 => decision::decide(spec, history, samples, now).or_else(|error| {
                // What can only be measured at workers is no reason to start one.
                if error.is_for_want_of_samples(samples) { Ok(nobody()) } else { Err(error) }
            }),
            _ => Ok(nobody()),
        };
    }
    let mut decision = match decision::decide(spec, history, samples, now) {
        // A worker that cannot start is never measured; who asked for it has gone.
        Err(error) if zero.is_idle() && error.is_for_want_of_samples(samples) => {
            return Ok(without_metrics(0, format!("0: nothing was in flight for {}", seconds(zero.idle))));
        }
        decided => decided?,
    };
    let fails =
        |decision: &Decision| decision.proposal.is_some() && decision.usages.len() < spec.metrics.len();
    let why = match decision.desired {
        // The first would start again at once.
        0 | 1 if is_asked_for(spec, samples) => {
            decision.desired = 1;
            "1: a number that is there without workers asks for one".into()
        }
        0 | 1 if zero.is_idle() && fails(&decision) => {
            decision.desired = 1;
            "1: the last one does not leave while a metric fails".into()
        }
        0 | 1 if zero.is_idle() => {
            decision.desired = 0;
            format!("0: nothing was in flight for {}", seconds(zero.idle))
        }
        0 => {
            decision.desired = 1;
            format!("1 rather than 0: something was in flight within the last {}", seconds(zero.idle))
        }
        _ => return Ok(decision),
    };
    decision.reasons.push(why);
    Ok(decision)
}

/// Whether a number that is there without workers asks for one: it is above zero, of which any share rounds up to a worker.
/// So long the service is not idle.
pub fn is_asked_for(spec: &Spec, samples: &Samples) -> bool {
    let number = |metric: &Metric| match &metric.source {
        Source::Object(name) => samples.object.get(name),
        Source::External(name) => samples.external.get(name),
        _ => None,
    };
    spec.metrics.iter().any(|metric| matches!(number(metric), Some(Reading::Value(1..))))
}

fn without_metrics(desired: u32, why: String) -> Decision {
    Decision { desired, proposal: None, usages: Vec::new(), reasons: vec![why] }
}

fn seconds(span: Duration) -> String {
    format!("{} s", span.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        samples::{Instance, Reading},
        spec::{Metric, Options, Source, Target},
    };

    fn spec(min: u32, source: Source) -> Spec {
        let target = match source {
            Source::Resource(_) => Target::Utilization(50),
            _ => Target::AverageValue(1_000),
        };
        Spec {
            min,
            max: 9,
            metrics: vec![Metric { source, target }],
            behavior: None,
            options: Options::default(),
        }
    }

    fn samples(replicas: u32, busy: bool, queue: Option<i64>) -> Samples {
        let milli = if busy { 500 } else { 0 };
        let worker = Instance { cpu: Reading::Value(milli), cpu_request: Some(1_000), ..Instance::default() };
        let external = queue.map_or(Reading::Missing, |queue| Reading::Value(queue * 1_000));
        Samples {
            replicas,
            instances: vec![worker; replicas as usize],
            external: [("queue".to_owned(), external)].into(),
            ..Samples::default()
        }
    }

    #[test]
    fn the_first_and_the_last() {
        let (cpu, queue) = (|| Source::Resource("cpu".into()), || Source::External("queue".into()));
        let latency = || Source::Object("latency".into());
        let mut unready = samples(1, false, None);
        unready.instances[0].ready = Some(false);
        let both = || {
            let mut both = spec(0, queue());
            both.metrics.extend(spec(0, cpu()).metrics);
            both
        };
        let zero = |idle_for, waiting| Zero {
            idle: Duration::from_secs(60),
            idle_for: Duration::from_secs(idle_for),
            waiting,
        };
        let mut unmeasured = samples(1, false, None);
        unmeasured.instances[0].cpu = Reading::Missing;
        for (rule, spec, zero, samples, expected) in [
            ("nobody waits", spec(1, cpu()), zero(5, 0), samples(0, false, None), Ok(0)),
            (
                "one waits, and CPU alone could not say so",
                spec(1, cpu()),
                zero(0, 1),
                samples(0, false, None),
                Ok(1),
            ),
            ("the queue is long", spec(0, queue()), zero(99, 0), samples(0, false, Some(3)), Ok(3)),
            (
                "one waits, and the queue is away",
                spec(0, queue()),
                zero(0, 2),
                samples(0, false, None),
                Ok(1),
            ),
            (
                "nobody waits, and latency is there with workers alone",
                spec(0, latency()),
                zero(5, 0),
                samples(0, false, None),
                Ok(0),
            ),
            (
                "idle, and nobody serves whose latency could be measured",
                spec(0, latency()),
                zero(60, 0),
                unready.clone(),
                Ok(0),
            ),
            ("the same, but not for long", spec(0, latency()), zero(59, 0), unready, Err(())),
            ("idle for long enough", spec(1, cpu()), zero(60, 0), samples(1, false, None), Ok(0)),
            ("not idle for long enough", spec(1, cpu()), zero(59, 0), samples(1, false, None), Ok(1)),
            ("idle by the clock, but one waits", spec(1, cpu()), zero(60, 1), samples(1, false, None), Ok(1)),
            ("idle, but the others go first", spec(1, cpu()), zero(60, 0), samples(3, true, None), Ok(3)),
            (
                "the queue is empty, but not for long",
                spec(0, queue()),
                zero(3, 0),
                samples(2, false, Some(0)),
                Ok(1),
            ),
            ("the queue is empty", spec(0, queue()), zero(60, 0), samples(2, false, Some(0)), Ok(0)),
            (
                "the queue wants workers, idle or not",
                spec(0, queue()),
                zero(60, 0),
                samples(2, false, Some(4)),
                Ok(4),
            ),
            (
                "idle, and no worker has come to be measured",
                spec(1, cpu()),
                zero(60, 0),
                unmeasured.clone(),
                Ok(0),
            ),
            ("not idle for long enough to say so", spec(1, cpu()), zero(59, 0), unmeasured.clone(), Err(())),
            ("the queue is away", spec(0, queue()), zero(60, 0), samples(1, false, None), Err(())),
            (
                "idle, but the queue asks for one",
                spec(0, queue()),
                zero(60, 0),
                samples(1, false, Some(1)),
                Ok(1),
            ),
            (
                "idle, and CPU keeps one, but it need not",
                both(),
                zero(60, 0),
                samples(1, true, Some(0)),
                Ok(0),
            ),
            (
                "idle, and CPU keeps one, but the queue is away",
                both(),
                zero(60, 0),
                samples(1, true, None),
                Ok(1),
            ),
            ("idle, and CPU and the queue keep one", both(), zero(60, 0), samples(1, true, Some(1)), Ok(1)),
        ] {
            let decided = decide(Some(&zero), &spec, &History::default(), &samples, Time::default());
            assert_eq!(decided.map(|decision| decision.desired).map_err(drop), expected, "{rule}");
        }
        // Whoever would be started again does not leave, whatever else is measured.
        for value in [None, Some(0), Some(1), Some(9)] {
            let spec = both();
            let at = |replicas| {
                let (zero, samples) = (zero(99, 0), samples(replicas, true, value));
                let decided = decide(Some(&zero), &spec, &History::default(), &samples, Time::default());
                decided.map_or(replicas, |decision| decision.desired)
            };
            assert!(at(1) > 0 || at(0) == 0, "{value:?}: it leaves, and is started again");
        }
        // Where there may not be zero, nothing is different.
        let (spec, samples) = (spec(1, cpu()), samples(2, true, None));
        let (history, now) = (History::default(), Time::default());
        assert_eq!(
            decide(None, &spec, &history, &samples, now),
            decision::decide(&spec, &history, &samples, now)
        );
    }
}
