//! What a run came to, as JSON and for what shows it. The form has a version; fields are only added within one.

use std::time::Duration;

use serde::Serialize;

use crate::{
    capacity,
    plan::Plan,
    recorder::{Counts, Latencies, Part},
    run::Run,
    scalability,
};

/// The version of the form.
pub const VERSION: u32 = 1;

/// A whole report: of one run, of a search for the capacity, or of one for each number of workers.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// Where the load went.
    pub target: String,
    /// The journeys, in the order in which users take them.
    pub journeys: Vec<Journey>,
    /// The one run, or the last one of a search.
    pub run: Option<Summary>,
    /// What was found of the capacity, for each number of workers that was tried; one with `null` where it was not changed.
    pub capacities: Vec<Capacity>,
    /// How capacity grows with workers.
    pub scalability: Option<scalability::Scalability>,
    /// Why that is not known, where it was asked for.
    pub scalability_missing_because: Option<String>,
}

/// A journey.
#[derive(Clone, Debug, Serialize)]
pub struct Journey {
    /// Its name.
    pub name: String,
    /// Its steps.
    pub steps: Vec<String>,
    /// What is to be known of how it was read.
    pub notes: Vec<String>,
}

/// What was found of the capacity.
#[derive(Clone, Debug, Serialize)]
pub struct Capacity {
    /// Workers, if their number was set.
    pub workers: Option<u32>,
    /// What was found.
    #[serde(flatten)]
    pub found: capacity::Found,
}

/// What one run came to.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Whether it measured the service rather than the generator.
    pub valid: bool,
    /// Why not.
    pub invalid_because: Vec<String>,
    /// Users a second, at the beginning and at the end.
    pub users_per_s: (f64, f64),
    /// How long users came, in seconds.
    pub duration_s: f64,
    /// Users.
    pub users: Users,
    /// Requests.
    pub requests: Requests,
    /// How long requests took that ended as expected, from the instant at which they were to be sent.
    pub latency: Latency,
    /// How much later than planned users were let in.
    pub lag: Latency,
    /// By step.
    pub steps: Vec<Step>,
    /// By worker.
    pub workers: Vec<Worker>,
    /// Over time.
    pub timeline: Vec<Stretch>,
    /// What went wrong, the most frequent first.
    pub problems: Vec<Problem>,
    /// Workers that were killed meanwhile.
    pub kills: Vec<Kill>,
}

/// Users of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Users {
    /// Who came.
    pub arrived: u64,
    /// Who came to the end of the journey.
    pub finished: u64,
    /// Who broke off, since something went wrong.
    pub broken_off: u64,
    /// Who was turned away, since there were too many at a time.
    pub turned_away: u64,
    /// Who was not waited for at the end.
    pub unfinished: u64,
}

/// Requests of a run, or of a part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Requests {
    /// All.
    pub total: u64,
    /// Those that ended as expected.
    pub ok: u64,
    /// Those with a response that was not as expected.
    pub unmet: u64,
    /// Those with a 502 that says that they may have been carried out.
    pub unknown: u64,
    /// Those without a whole response.
    pub failed: u64,
    /// Those with none in time.
    pub late: u64,
    /// Those that ended as expected, in each second.
    pub ok_per_s: f64,
}

/// Quantiles, in microseconds; all 0 without any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// The least.
    pub min_us: u64,
    /// The mean.
    pub mean_us: f64,
    /// Half took no longer.
    pub p50_us: u64,
    /// 90 of 100.
    pub p90_us: u64,
    /// 99 of 100.
    pub p99_us: u64,
    /// 999 of 1000.
    pub p999_us: u64,
    /// The most.
    pub max_us: u64,
}

/// A step.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// The journey's name.
    pub journey: String,
    /// Its number, from 1.
    pub step: usize,
    /// What it is called.
    pub title: String,
    /// Its requests.
    pub requests: Requests,
    /// How long they took.
    pub latency: Latency,
}

/// A worker.
#[derive(Clone, Debug, Serialize)]
pub struct Worker {
    /// Its name.
    pub name: String,
    /// Requests that it answered.
    pub requests: Requests,
    /// How long they took.
    pub latency: Latency,
}

/// A stretch of time.
#[derive(Clone, Debug, Serialize)]
pub struct Stretch {
    /// When it began, in seconds from the beginning.
    pub at_s: f64,
    /// Requests that ended in it.
    pub requests: Requests,
    /// How long they took.
    pub latency: Latency,
}

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What.
    pub what: String,
    /// How often.
    pub count: u64,
}

/// A worker that was killed.
#[derive(Clone, Debug, Serialize)]
pub struct Kill {
    /// When, in seconds from the beginning.
    pub at_s: f64,
    /// Which.
    pub worker: String,
}

impl Requests {
    fn of(counts: &Counts, seconds: f64) -> Self {
        let Counts { ok, unmet, unknown, failed, late } = *counts;
        let ok_per_s = if seconds > 0.0 { ok as f64 / seconds } else { 0.0 };
        Self { total: counts.total(), ok, unmet, unknown, failed, late, ok_per_s }
    }
}

impl Latency {
    fn of(latencies: &Latencies) -> Self {
        if latencies.is_empty() {
            return Self::default();
        }
        let at = |quantile| latencies.value_at_quantile(quantile);
        Self {
            min_us: latencies.min(),
            mean_us: latencies.mean(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: latencies.max(),
        }
    }
}

impl Summary {
    /// What a run came to.
    pub fn of(plan: &Plan, run: &Run) -> Self {
        let (recorder, seconds) = (&run.recorder, run.took.as_secs_f64());
        let part = |part: &Part, seconds| (Requests::of(&part.counts, seconds), Latency::of(&part.latencies));
        let steps = recorder.steps.iter().map(|(&(journey, at), measured)| {
            let journey = &plan.journeys[journey];
            let (requests, latency) = part(measured, seconds);
            Step {
                journey: journey.name.clone(),
                step: at + 1,
                title: journey.steps[at].title(),
                requests,
                latency,
            }
        });
        let workers = recorder.workers.iter().map(|(name, measured)| {
            let (requests, latency) = part(measured, seconds);
            Worker { name: name.clone(), requests, latency }
        });
        let mut workers: Vec<Worker> = workers.collect();
        workers.sort_by(|one, other| numbered(&one.name).cmp(&numbered(&other.name)));
        let stretch = recorder.stretch.as_secs_f64();
        let timeline = recorder.stretches.iter().enumerate().map(|(at, measured)| {
            let (requests, latency) = part(measured, stretch);
            Stretch { at_s: at as f64 * stretch, requests, latency }
        });
        let mut problems: Vec<Problem> = recorder
            .problems
            .iter()
            .map(|(what, count)| Problem { what: what.clone(), count: *count })
            .collect();
        problems.sort_by_key(|problem| std::cmp::Reverse(problem.count));
        let (requests, latency) = part(&recorder.all, seconds);
        let lag = Latency::of(&recorder.lag);
        let invalid_because = invalid_because(plan, run, &lag);
        Self {
            valid: invalid_because.is_empty(),
            invalid_because,
            users_per_s: plan.schedule.rates(),
            duration_s: seconds,
            users: Users {
                arrived: run.arrived,
                finished: recorder.finished,
                broken_off: recorder.broken_off,
                turned_away: recorder.turned_away,
                unfinished: run.unfinished,
            },
            requests,
            latency,
            lag,
            steps: steps.collect(),
            workers,
            timeline: timeline.collect(),
            problems,
            kills: Vec::new(),
        }
    }
}

fn invalid_because(plan: &Plan, run: &Run, lag: &Latency) -> Vec<String> {
    let mut because = Vec::new();
    if Duration::from_micros(lag.p99_us) > plan.lag_max {
        because.push(format!(
            "one user in a hundred was let in {} or more after the planned instant, where {} are allowed: this machine cannot \
             make that load, so lower the rate or make it from another one",
            in_words(lag.p99_us),
            in_words(u64::try_from(plan.lag_max.as_micros()).unwrap_or(u64::MAX))
        ));
    }
    if run.recorder.turned_away > 0 {
        because.push(format!(
            "{} users were turned away, since there were {} at a time: the service does not keep up, or --users-max is too low",
            run.recorder.turned_away, plan.users_max
        ));
    }
    if run.is_stopped {
        because.push("it was stopped before its end".into());
    }
    because
}

/// A name without its number, and the number: `app-9` comes before `app-10`.
fn numbered(name: &str) -> (&str, u64) {
    let begin = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (begin, name[begin.len()..].parse().unwrap_or_default())
}

/// Whole milliseconds, or microseconds where it is not as much as ten of them.
fn in_words(us: u64) -> String {
    if us < 10_000 { format!("{us} µs") } else { format!("{} ms", us / 1000) }
}

/// A report without anything found yet.
pub fn empty(plan: &Plan, target: String) -> Report {
    let journey = |journey: &lethe_journey::journey::Journey| Journey {
        name: journey.name.clone(),
        steps: journey.steps.iter().map(lethe_journey::journey::Step::title).collect(),
        notes: journey.notes.clone(),
    };
    let journeys = plan.journeys.iter().map(|each| journey(each)).collect();
    Report {
        version: VERSION,
        target,
        journeys,
        run: None,
        capacities: Vec::new(),
        scalability: None,
        scalability_missing_because: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_their_numbers() {
        let mut names = ["b-1", "a-10", "a-9", "a", "a-99999999999999999999999"];
        names.sort_by_key(|name| numbered(name));
        assert_eq!(names[0], "a");
        let at = |name| names.iter().position(|each| *each == name);
        assert!(at("a-9") < at("a-10") && at("a-10") < at("b-1"), "{names:?}");
    }

    #[test]
    fn short_times_are_told_in_microseconds() {
        assert_eq!([520, 9_999, 10_000, 250_999].map(in_words), ["520 µs", "9999 µs", "10 ms", "250 ms"]);
    }
}
