//! What is measured of one service, over the last moments: from counts that only grow, and from looks at what is there
//! now, to numbers that a decision can be taken from. Pure: it is told the time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use lethe_scaler::{backlog, samples::Reading, time::Time};

/// How many glances make the load that counts: half a second of them.
const GLANCES: usize = 5;
/// So many requests tell a rate to within a tenth; they are waited for …
const RATE_REQUESTS: f64 = 100.0;
/// … for at least so long …
const RATE_SECONDS_MIN: u64 = 1;
/// … and for no longer than this.
const RATE_SECONDS_MAX: u64 = 10;
/// Over so long it is looked at how long a worker takes for a request, in glances.
const SERVICE_GLANCES: usize = 10;
/// Over so long latency is looked at, but not across a change of the workers.
const LATENCY_WINDOW: Duration = Duration::from_secs(10);
/// Fewer requests have no quantile that one could act on.
const LATENCY_REQUESTS_MIN: u64 = 20;

/// Counts by upper bound in microseconds, not cumulative, upwards.
pub type Buckets = Vec<(u64, u64)>;

/// Requests of one service, as they are now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// In workers.
    pub inside: u64,
    /// Waiting for one.
    pub waiting: u64,
    /// Turned away, so far.
    pub shed: u64,
}

/// The last moments of one service.
#[derive(Debug, Default)]
pub struct Gauge {
    glances: VecDeque<f64>,
    /// When that was, how many were in workers, and how many had been answered since the glance before.
    served: VecDeque<(Time, u64, u64)>,
    /// How long a worker takes for a request, once that is known.
    takes: Option<Duration>,
    /// When something was last in flight, or answered.
    busy_at: Option<Time>,
    /// What each worker had answered, and when that was.
    answered: BTreeMap<String, (u64, Time)>,
    began: Option<Time>,
    /// In flight, and turned away, at the last glance.
    load: u64,
    shed: u64,
    arrivals: VecDeque<(Time, f64)>,
    latency: VecDeque<Moment>,
    /// How many were ready when `latency` begins.
    serving: usize,
    cpu: BTreeMap<String, VecDeque<(Time, u64)>>,
}

#[derive(Debug)]
struct Moment {
    at: Time,
    buckets: Buckets,
    load: f64,
}

impl Gauge {
    /// Notes which requests there are, and how many answers each worker has given so far.
    pub fn glance<'a>(
        &mut self,
        now: Time,
        Load { inside, waiting, shed }: Load,
        answered: impl Iterator<Item = (&'a str, u64)>,
    ) {
        let load = inside + waiting;
        let mut more = 0;
        for (worker, count) in answered {
            match self.answered.get_mut(worker) {
                Some(before) => {
                    more += count.saturating_sub(before.0);
                    *before = (count, now);
                }
                None => {
                    more += count;
                    self.answered.insert(worker.to_owned(), (count, now));
                }
            }
        }
        self.answered.retain(|_, (_, seen)| *seen == now);
        self.served.push_back((now, inside, more));
        if self.served.len() > SERVICE_GLANCES {
            self.served.pop_front();
        }
        self.note_takes();
        self.glances
            .push_back(inside as f64 + waiting as f64 * backlog::part(self.takes.unwrap_or(backlog::WITHIN)));
        if self.glances.len() > GLANCES {
            self.glances.pop_front();
        }
        if self.began.is_none() {
            // What was answered before is not of now.
            (self.began, self.load, self.shed, self.busy_at) = (Some(now), load, shed, Some(now));
            return;
        }
        let turned_away = shed.saturating_sub(self.shed);
        if more > 0 || load > 0 || turned_away > 0 {
            self.busy_at = Some(now);
        }
        // Who came is who was answered or turned away, and who is there and was not before.
        let came = (more + turned_away) as f64 + load as f64 - self.load as f64;
        (self.load, self.shed) = (load, shed);
        self.arrivals.push_back((now, came));
        let edge = now.minus(Duration::from_secs(RATE_SECONDS_MAX));
        while self.arrivals.front().is_some_and(|(at, _)| *at <= edge) {
            self.arrivals.pop_front();
        }
    }

    /// How long a worker takes for a request, by Little's law: those inside, to those that are answered in a second. While
    /// there is nobody to tell, as at a start, it is what it was; a second at first.
    fn note_takes(&mut self) {
        let (Some(first), Some(last)) = (self.served.front(), self.served.back()) else { return };
        let span = last.0 - first.0;
        // What was answered by the first glance was before it.
        let since = || self.served.iter().skip(1);
        let answered: u64 = since().map(|(_, _, answered)| answered).sum();
        let inside: u64 = since().map(|(_, inside, _)| inside).sum();
        if answered > 0 {
            let inside = inside as f64 / since().count() as f64;
            self.takes = Some(span.mul_f64(inside / answered as f64));
        } else if self.served.len() == SERVICE_GLANCES && self.served.iter().all(|(_, inside, _)| *inside > 0)
        {
            // They take at least about as long as matters.
            self.takes = self.takes.max(Some(backlog::WITHIN));
        }
    }

    /// Notes that there is something to do that is not in flight here, such as what waits in a queue.
    pub fn note_busy(&mut self, now: Time) {
        self.busy_at = Some(now);
    }

    /// For how long nothing has been in flight, and nothing else was to be done.
    pub fn idle_for(&self, now: Time) -> Duration {
        self.busy_at.map_or(Duration::ZERO, |at| now - at)
    }

    /// Requests in workers over the last half second, and of those that wait as many as have to be in workers so that none
    /// waits for longer than a second.
    pub fn concurrency(&self) -> f64 {
        self.glances.iter().sum::<f64>() / self.glances.len().max(1) as f64
    }

    /// Requests that came each second, over as short a time as tells it well.
    pub fn rate(&self, now: Time) -> f64 {
        let seen = self.began.map_or(Duration::ZERO, |began| now - began).as_secs_f64();
        let over = |seconds: u64| {
            let edge = now.minus(Duration::from_secs(seconds));
            let came: f64 = self.arrivals.iter().filter(|(at, _)| *at > edge).map(|(_, came)| came).sum();
            (came.max(0.0), (seconds as f64).min(seen).max(0.5))
        };
        let windows = (RATE_SECONDS_MIN..=RATE_SECONDS_MAX).map(over);
        let (came, seconds) = windows
            .clone()
            .find(|(came, _)| *came >= RATE_REQUESTS)
            .unwrap_or_else(|| over(RATE_SECONDS_MAX));
        came / seconds
    }

    /// Notes how long answers took so far, and how many workers are ready.
    pub fn note_latency(&mut self, now: Time, buckets: Buckets, serving: usize) {
        if serving != self.serving {
            // Who was slow for want of a worker says nothing of how it is with one more.
            self.latency.clear();
            self.serving = serving;
        }
        self.latency.push_back(Moment { at: now, buckets, load: self.concurrency() });
        let edge = now.minus(LATENCY_WINDOW);
        while self.latency.len() > 2 && self.latency.get(1).is_some_and(|second| second.at <= edge) {
            self.latency.pop_front();
        }
    }

    /// A quantile of the latency in microseconds, as far as more workers can change it. `goal` is what it should be.
    ///
    /// Latency is no number that two workers have half of: it is proportional to load only when requests wait for
    /// each other. So it never asks for more workers than there are requests at a time, of which each then has one for itself; and
    /// too few requests have no quantile and say "as it should be". Without any load it asks for none.
    pub fn latency(&self, quantile: f64, goal: i64) -> Reading {
        let (Some(first), Some(last)) = (self.latency.front(), self.latency.back()) else {
            return Reading::Missing;
        };
        if self.serving == 0 {
            return Reading::Missing;
        }
        let recent = difference(&last.buckets, &first.buckets);
        let count: u64 = recent.iter().map(|(_, count)| count).sum();
        let measured =
            if count < LATENCY_REQUESTS_MIN { goal } else { at_quantile(&recent, count, quantile) };
        let load = self.latency.iter().map(|moment| moment.load).sum::<f64>() / self.latency.len() as f64;
        let most = goal as f64 * load.ceil() / self.serving as f64;
        Reading::Value(measured.min(most.ceil() as i64))
    }

    /// Notes the CPU time of a worker so far. Gives what it uses in milli-cores over `window`, or since its start if that
    /// is later; nothing of one that was there before and is seen for the first time.
    pub fn cpu(
        &mut self,
        worker: &str,
        started: Time,
        (now, cpu_ms): (Time, u64),
        window: Duration,
    ) -> Reading {
        let is_young = started.plus(window) >= now;
        let begin = || if is_young { VecDeque::from([(started, 0)]) } else { VecDeque::new() };
        let past = self.cpu.entry(worker.to_owned()).or_insert_with(begin);
        past.push_back((now, cpu_ms));
        let edge = now.minus(window);
        while past.len() > 2 && past.get(1).is_some_and(|(at, _)| *at <= edge) {
            past.pop_front();
        }
        let Some((at, before)) = past.front() else { return Reading::Missing };
        let micros = (now - *at).as_micros();
        if micros == 0 {
            return Reading::Missing;
        }
        let used = u128::from(cpu_ms.saturating_sub(*before)) * 1_000_000 / micros;
        Reading::Value(i64::try_from(used).unwrap_or(i64::MAX))
    }

    /// Forgets the CPU of workers that are gone.
    pub fn keep(&mut self, is_here: impl Fn(&str) -> bool) {
        self.cpu.retain(|worker, _| is_here(worker));
    }
}

/// What was added since `before`. Both are sorted by bound.
fn difference(now: &[(u64, u64)], before: &[(u64, u64)]) -> Buckets {
    let past =
        |bound: u64| before.binary_search_by_key(&bound, |bucket| bucket.0).map_or(0, |at| before[at].1);
    now.iter().map(|&(bound, count)| (bound, count.saturating_sub(past(bound)))).collect()
}

fn at_quantile(buckets: &[(u64, u64)], count: u64, quantile: f64) -> i64 {
    let rank = ((count as f64 * quantile).ceil() as u64).max(1);
    let mut seen = 0;
    let found = buckets.iter().find(|(_, count)| {
        seen += count;
        seen >= rank
    });
    found.map_or(0, |(bound, _)| i64::try_from(*bound).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Time {
        Time::from_micros(1_000_000_000 + ms * 1_000)
    }

    fn load(inside: u64, waiting: u64) -> Load {
        Load { inside, waiting, shed: 0 }
    }

    /// A second of glances, ten of them, at this load and rate.
    fn second(gauge: &mut Gauge, second: i64, load: u64, answered: &mut u64, each: u64) {
        for tenth in 1..=10 {
            *answered += each;
            gauge.glance(
                at(second * 1_000 + tenth * 100),
                self::load(load, 0),
                [("w-1", *answered)].into_iter(),
            );
        }
    }

    #[test]
    fn a_step_of_load_is_seen_within_half_a_second() {
        let mut gauge = Gauge::default();
        let mut answered = 0;
        second(&mut gauge, 0, 2, &mut answered, 1);
        assert_eq!(gauge.concurrency(), 2.0);
        for tenth in 1..=5 {
            gauge.glance(at(1_000 + tenth * 100), load(60, 0), [("w-1", answered)].into_iter());
        }
        assert_eq!(gauge.concurrency(), 60.0);
    }

    #[test]
    fn rates_take_as_long_as_they_need() {
        let (mut gauge, mut answered) = (Gauge::default(), 0);
        gauge.glance(at(0), load(0, 0), [("w-1", 7_000)].into_iter());
        assert_eq!(gauge.rate(at(0)), 0.0, "what was answered before is not of now");
        answered += 7_000;
        (0..10).for_each(|n| second(&mut gauge, n, 0, &mut answered, 1));
        assert!((gauge.rate(at(10_000)) - 10.0).abs() < 1e-9, "over ten seconds: {}", gauge.rate(at(10_000)));
        second(&mut gauge, 10, 0, &mut answered, 100);
        assert!((gauge.rate(at(11_000)) - 1_000.0).abs() < 1e-9, "a second is enough");
        // A hundred who came and were not answered yet have come.
        gauge.glance(at(11_100), load(100, 0), [("w-1", answered)].into_iter());
        assert!((gauge.rate(at(11_100)) - 1_000.0).abs() < 1e-9, "{}", gauge.rate(at(11_100)));
        // A worker that is gone takes nothing away.
        gauge.glance(at(11_200), load(100, 0), std::iter::empty());
        assert!(gauge.rate(at(11_200)) >= 900.0);
    }

    /// Ten were served in each second, and ninety more were not let in.
    #[test]
    fn who_was_turned_away_has_come() {
        let mut gauge = Gauge::default();
        for tenth in 0..=100 {
            let load = Load { inside: 5, waiting: 20, shed: 1_000 + 9 * tenth };
            gauge.glance(at(tenth as i64 * 100), load, [("w-1", tenth)].into_iter());
        }
        assert!((gauge.rate(at(10_000)) - 100.0).abs() < 1e-9, "{}", gauge.rate(at(10_000)));
        gauge.glance(at(20_000), load(0, 0), [("w-1", 125)].into_iter());
        // It was refused at once, since the line is full for whoever has no worker.
        gauge.glance(at(30_000), Load { shed: 1, ..Load::default() }, [("w-1", 125)].into_iter());
        assert_eq!(gauge.idle_for(at(30_000)), Duration::ZERO);
    }

    #[test]
    fn idle_is_nothing_in_flight_and_nothing_answered() {
        let mut gauge = Gauge::default();
        let (none, one) = ([("w-1", 4)], [("w-1", 5)]);
        gauge.glance(at(0), load(0, 0), none.into_iter());
        gauge.glance(at(9_000), load(0, 0), none.into_iter());
        assert_eq!(gauge.idle_for(at(9_000)), Duration::from_secs(9));
        // It came and went between two glances.
        gauge.glance(at(9_100), load(0, 0), one.into_iter());
        assert_eq!(gauge.idle_for(at(9_100)), Duration::ZERO);
        gauge.glance(at(9_200), load(1, 0), one.into_iter());
        gauge.glance(at(60_000), load(1, 0), one.into_iter());
        assert_eq!(gauge.idle_for(at(60_000)), Duration::ZERO, "one long request is not idle");
    }

    #[test]
    fn cpu_is_of_the_last_moments() {
        let (mut gauge, window) = (Gauge::default(), Duration::from_secs(2));
        let mut cpu = |ms: i64, used: u64| gauge.cpu("w-1", at(0), (at(ms), used), window);
        assert_eq!(cpu(0, 0), Reading::Missing);
        assert_eq!(cpu(1_000, 900), Reading::Value(900), "since its start");
        assert_eq!(cpu(2_000, 1_000), Reading::Value(500));
        assert_eq!(cpu(3_000, 1_000), Reading::Value(50));
        assert_eq!(cpu(4_000, 1_000), Reading::Value(0));
        gauge.keep(|_| false);
        assert!(gauge.cpu.is_empty());
        // It was there before, as after a reload: its life is not what it does now.
        let mut cpu = |ms: i64, used: u64| gauge.cpu("w-1", at(0), (at(ms), used), window);
        assert_eq!(cpu(3_600_000, 9_000), Reading::Missing);
        assert_eq!(cpu(3_600_500, 9_250), Reading::Value(500));
    }

    #[test]
    fn latency_asks_for_what_helps() {
        const GOAL: i64 = 100_000;
        // Load, workers, requests of 50 ms and of 400 ms: what is said.
        for (rule, load, serving, fast, slow, expected) in [
            ("no load asks for nothing", 0, 4, 0, 0, Some(0)),
            ("few requests have no quantile", 8, 4, 0, 10, Some(GOAL)),
            ("few requests and little load: fewer workers do", 1, 4, 0, 10, Some(GOAL / 4)),
            ("slow, and they wait for each other", 40, 4, 50, 50, Some(400_000)),
            ("slow, but each has a worker for itself", 4, 4, 0, 100, Some(GOAL)),
            ("slow, and two for each", 8, 4, 0, 100, Some(2 * GOAL)),
            ("fast", 40, 4, 1_000, 5, Some(50_000)),
            ("nobody is there to be measured", 40, 0, 0, 100, None),
        ] {
            let mut gauge = Gauge::default();
            (0..9).for_each(|n| gauge.glance(at(n * 100), self::load(load, 0), std::iter::empty()));
            gauge.note_latency(at(1_000), vec![(50_000, 1_000), (400_000, 1_000)], serving);
            gauge.note_latency(at(2_000), vec![(50_000, 1_000 + fast), (400_000, 1_000 + slow)], serving);
            assert_eq!(gauge.latency(0.99, GOAL).value(), expected, "{rule}");
        }
    }

    #[test]
    fn a_new_worker_is_given_the_chance_to_help() {
        let mut gauge = Gauge::default();
        gauge.glance(at(0), load(90, 0), std::iter::empty());
        gauge.note_latency(at(0), vec![], 1);
        gauge.note_latency(at(500), vec![(900_000, 300)], 1);
        assert_eq!(gauge.latency(0.99, 100_000).value(), Some(900_000));
        gauge.note_latency(at(1_000), vec![(900_000, 600)], 2);
        assert_eq!(gauge.latency(0.99, 100_000).value(), Some(100_000), "nothing is known of two yet");
    }

    #[test]
    fn a_backlog_counts_for_what_it_takes_to_be_gone_within_a_second() {
        for (rule, inside, each_glance, waiting, expected) in [
            ("320 that take 50 ms each are 16 at a time", 8, 16, 320, 24.0),
            ("of those that take 2 s each counts whole", 8, 0, 320, 328.0),
            ("nothing was answered yet", 0, 0, 5, 5.0),
            ("nobody waits", 8, 16, 0, 8.0),
        ] {
            let mut gauge = Gauge::default();
            for glance in 0..20 {
                let answered = [("w-1", each_glance * glance)];
                gauge.glance(at(glance as i64 * 100), load(inside, waiting), answered.into_iter());
            }
            assert!((gauge.concurrency() - expected).abs() < 0.1, "{rule}: {}", gauge.concurrency());
        }
    }

    /// As while the first worker starts, or all have been killed.
    #[test]
    fn how_long_requests_take_is_remembered_while_nobody_serves() {
        let mut gauge = Gauge::default();
        // 8 inside, 160 answered in a second.
        for glance in 0..20 {
            gauge.glance(at(glance * 100), load(8, 0), [("w-1", 16 * glance as u64)].into_iter());
        }
        for glance in 20..60 {
            gauge.glance(at(glance * 100), load(0, 320), std::iter::empty());
        }
        assert!((gauge.concurrency() - 16.0).abs() < 0.1, "{}", gauge.concurrency());
    }
}
