//! What was measured: histograms of latency, counts, and what went wrong. Each thread has its own; they are added up at the end.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

/// Latency is told from 1 µs to 5 minutes; what takes longer counts as that.
const LATENCY_US_MAX: u64 = 300_000_000;

/// Two responses that differ by less than a thousandth are of one latency.
const DIGITS: u8 = 3;

/// Those of stretches of time, of which there are many, are coarser.
const DIGITS_OF_STRETCH: u8 = 2;

/// The most workers that are told apart; responses of others count for all.
pub const WORKERS_MAX: usize = 200;

/// The most kinds of problems that are told apart.
pub const PROBLEMS_MAX: usize = 50;

/// The most stretches of time.
pub const STRETCHES_MAX: usize = 600;

/// How one request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// As expected.
    Ok,
    /// With a response that was not as expected.
    Unmet(String),
    /// With a 502 that says that the request may have been carried out.
    Unknown(String),
    /// Without a whole response.
    Failed(String),
    /// With none that came in time.
    Late(String),
}

/// Latencies, in microseconds.
pub type Latencies = Histogram<u64>;

/// Counts of how requests ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// As expected.
    pub ok: u64,
    /// With a response that was not as expected.
    pub unmet: u64,
    /// With a 502 that says that the request may have been carried out.
    pub unknown: u64,
    /// Without a whole response.
    pub failed: u64,
    /// With none that came in time.
    pub late: u64,
}

/// Requests that belong together, as those of one step or worker.
#[derive(Clone, Debug)]
pub struct Part {
    /// How they ended.
    pub counts: Counts,
    /// How long those that ended as expected took, from the instant at which they were to be sent.
    pub latencies: Latencies,
}

/// All that was measured.
#[derive(Clone, Debug)]
pub struct Recorder {
    /// All requests.
    pub all: Part,
    /// By journey and step, both from 0.
    pub steps: BTreeMap<(usize, usize), Part>,
    /// By the worker that answered.
    pub workers: BTreeMap<String, Part>,
    /// By when they ended, in stretches of equal length.
    pub stretches: Vec<Part>,
    /// How long one stretch is.
    pub stretch: Duration,
    /// How much later than planned users were let in, in microseconds.
    pub lag: Latencies,
    /// What went wrong, and how often.
    pub problems: BTreeMap<String, u64>,
    /// Users who came to the end of their journey.
    pub finished: u64,
    /// Users who broke off, since something went wrong.
    pub broken_off: u64,
    /// Users who were turned away, since there were too many at a time.
    pub turned_away: u64,
}

impl Counts {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.ok + self.unmet + self.unknown + self.failed + self.late
    }

    fn add(&mut self, other: &Self) {
        self.ok += other.ok;
        self.unmet += other.unmet;
        self.unknown += other.unknown;
        self.failed += other.failed;
        self.late += other.late;
    }
}

fn histogram(digits: u8) -> Latencies {
    // The bounds are right: below is 1, above is more than twice as much, and there are 0 to 5 digits.
    let made = Histogram::new_with_bounds(1, LATENCY_US_MAX, digits);
    made.unwrap_or_else(|_| unreachable!("bounds of a histogram"))
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)
}

impl Part {
    fn new(digits: u8) -> Self {
        Self { counts: Counts::default(), latencies: histogram(digits) }
    }

    fn record(&mut self, end: &End, latency: Duration) {
        match end {
            End::Ok => {
                self.counts.ok += 1;
                self.latencies.saturating_record(us(latency));
            }
            End::Unmet(_) => self.counts.unmet += 1,
            End::Unknown(_) => self.counts.unknown += 1,
            End::Failed(_) => self.counts.failed += 1,
            End::Late(_) => self.counts.late += 1,
        }
    }

    fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        // Both have the same bounds.
        let _ = self.latencies.add(&other.latencies);
    }
}

impl Recorder {
    /// One for a run that takes so long, and then waits for so long at most.
    pub fn new(duration: Duration, after: Duration) -> Self {
        let seconds = (duration + after).as_secs() + 1;
        let stretch = Duration::from_secs(seconds.div_ceil(STRETCHES_MAX as u64).max(1));
        Self {
            all: Part::new(DIGITS),
            steps: BTreeMap::new(),
            workers: BTreeMap::new(),
            stretches: Vec::new(),
            stretch,
            lag: histogram(DIGITS),
            problems: BTreeMap::new(),
            finished: 0,
            broken_off: 0,
            turned_away: 0,
        }
    }

    /// A user was let in so much later than planned.
    pub fn let_in(&mut self, lag: Duration) {
        self.lag.saturating_record(us(lag));
    }

    /// A request of a journey's step, both from 0, ended so long after the beginning of the run, and took so long.
    pub fn record(
        &mut self,
        (journey, step): (usize, usize),
        worker: Option<&str>,
        end: &End,
        ended_at: Duration,
        latency: Duration,
    ) {
        self.all.record(end, latency);
        self.steps.entry((journey, step)).or_insert_with(|| Part::new(DIGITS)).record(end, latency);
        if let Some(worker) = worker {
            if let Some(part) = self.workers.get_mut(worker) {
                part.record(end, latency);
            } else if self.workers.len() < WORKERS_MAX {
                self.workers
                    .entry(worker.to_owned())
                    .or_insert_with(|| Part::new(DIGITS))
                    .record(end, latency);
            }
        }
        let at = (ended_at.as_secs() / self.stretch.as_secs()) as usize;
        let at = at.min(STRETCHES_MAX - 1);
        while self.stretches.len() <= at {
            self.stretches.push(Part::new(DIGITS_OF_STRETCH));
        }
        self.stretches[at].record(end, latency);
        if let End::Unmet(why) | End::Unknown(why) | End::Failed(why) | End::Late(why) = end {
            self.note(&format!("step {}: {why}", step + 1), 1);
        }
    }

    fn note(&mut self, problem: &str, count: u64) {
        let key = match self.problems.contains_key(problem) || self.problems.len() < PROBLEMS_MAX {
            true => problem,
            false => "others",
        };
        *self.problems.entry(key.to_owned()).or_default() += count;
    }

    /// Adds what another thread of the same run has measured.
    pub fn add(&mut self, other: &Self) {
        self.all.add(&other.all);
        for (key, part) in &other.steps {
            self.steps.entry(*key).or_insert_with(|| Part::new(DIGITS)).add(part);
        }
        for (worker, part) in &other.workers {
            self.workers.entry(worker.clone()).or_insert_with(|| Part::new(DIGITS)).add(part);
        }
        while self.stretches.len() < other.stretches.len() {
            self.stretches.push(Part::new(DIGITS_OF_STRETCH));
        }
        for (own, part) in self.stretches.iter_mut().zip(&other.stretches) {
            own.add(part);
        }
        let _ = self.lag.add(&other.lag);
        for (problem, count) in &other.problems {
            self.note(problem, *count);
        }
        self.finished += other.finished;
        self.broken_off += other.broken_off;
        self.turned_away += other.turned_away;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up() {
        let (second, ms) = (Duration::from_secs(1), Duration::from_millis(1));
        let mut one = Recorder::new(second * 1000, second * 30);
        assert_eq!(one.stretch, second * 2);
        let mut other = one.clone();
        one.record((0, 0), Some("a"), &End::Ok, second, ms * 10);
        other.record((0, 1), Some("a"), &End::Ok, second * 5, ms * 30);
        other.record((0, 1), Some("b"), &End::Failed("lost".into()), second * 5, ms * 999);
        other.record((0, 1), None, &End::Late("late".into()), second * 5000, Duration::MAX);
        (one.finished, other.broken_off) = (1, 2);
        one.add(&other);
        assert_eq!(one.all.counts, Counts { ok: 2, failed: 1, late: 1, ..Counts::default() });
        assert_eq!(
            (one.all.latencies.len(), one.all.latencies.max() / 100),
            (2, 300),
            "failures have no latency"
        );
        assert_eq!(one.workers["a"].counts.ok, 2);
        assert_eq!(one.steps[&(0, 1)].counts.total(), 3);
        let totals: Vec<u64> = one.stretches.iter().map(|part| part.counts.total()).collect();
        assert_eq!((totals.len(), &totals[..3], totals[599]), (600, &[1, 0, 2][..], 1));
        assert_eq!(one.problems, BTreeMap::from([("step 2: late".into(), 1), ("step 2: lost".into(), 1)]));
        assert_eq!((one.finished, one.broken_off), (1, 2));
    }

    #[test]
    fn what_is_told_apart_is_bounded() {
        let mut recorder = Recorder::new(Duration::from_secs(1), Duration::ZERO);
        for number in 0..300 {
            let (worker, end) = (format!("w{number}"), End::Unmet(format!("status {number}")));
            recorder.record((0, 0), Some(&worker), &end, Duration::ZERO, Duration::ZERO);
        }
        assert_eq!((recorder.workers.len(), recorder.problems.len()), (WORKERS_MAX, PROBLEMS_MAX + 1));
        assert_eq!(recorder.problems["others"], 250);
    }
}
