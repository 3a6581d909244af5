//! How much a service holds: the rate is raised step by step until a step is not held, then the last that was and the first that was not
//! are brought together. This decides what to try; who tries it tells it what came of it.

use serde::Serialize;

/// Of what is offered, at least this share must end as expected.
pub const SHARE_MIN: f64 = 0.98;

/// Each step of the first part is so many times the one before.
pub const GROWTH: f64 = 1.6;

/// It is enough if what was held and what was not differ by no more than this share.
pub const PRECISION: f64 = 0.05;

/// The most steps.
pub const TRIES_MAX: usize = 30;

/// What came of one step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Try {
    /// Users a second that were sent.
    pub rate: f64,
    /// The share of their journeys that ended as expected in time.
    pub share: f64,
    /// 99 of 100 requests took no longer, in microseconds.
    pub p99_us: u64,
    /// Whether the step measured the service rather than the generator.
    pub valid: bool,
    /// Whether it was held.
    pub held: bool,
}

/// Why it is not known more exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// It is known: a little more was not held.
    Service,
    /// More could not be offered from this machine: the capacity is at least what was found.
    Generator,
    /// The highest rate that may be tried was held.
    RateMax,
    /// It took too many steps, or was stopped.
    Tries,
    /// Not even the first rate was held.
    First,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Found {
    /// The highest rate that was held, in users a second; `null` if none was.
    pub users_per_s: Option<f64>,
    /// The lowest that was not.
    pub not_held_users_per_s: Option<f64>,
    /// Why it is not more.
    pub limit: Limit,
    /// All steps.
    pub tries: Vec<Try>,
}

/// A search that goes on.
#[derive(Clone, Debug)]
pub struct Search {
    goal_us: u64,
    rate_max: f64,
    next: f64,
    held: Option<f64>,
    not_held: Option<f64>,
    limit: Option<Limit>,
    tries: Vec<Try>,
}

impl Search {
    /// One that begins with `first` users a second, and never tries more than `rate_max`. The goal for 99 of 100 requests is in
    /// microseconds.
    pub fn new(first: f64, rate_max: f64, goal_us: u64) -> Self {
        let next = first.min(rate_max);
        Self { goal_us, rate_max, next, held: None, not_held: None, limit: None, tries: Vec::new() }
    }

    /// What to try next, in users a second; `None` when all is found.
    pub fn next(&self) -> Option<f64> {
        self.limit.is_none().then_some(self.next)
    }

    /// Takes in what came of trying [`Search::next`]: the share of journeys that ended as expected, how long 99 of 100 requests took, in
    /// microseconds, and whether the step was valid.
    pub fn tell(&mut self, share: f64, p99_us: u64, valid: bool) -> Try {
        let rate = self.next;
        let held = valid && share >= SHARE_MIN && p99_us <= self.goal_us;
        let told = Try { rate, share, p99_us, valid, held };
        self.tries.push(told);
        if held {
            self.held = Some(rate);
        } else if valid {
            self.not_held = Some(rate);
        }
        // A step that did not measure the service says nothing of what it holds, and more would say no more.
        self.limit = match (self.held, self.not_held) {
            _ if !valid => Some(Limit::Generator),
            (Some(held), Some(not_held)) if not_held - held <= held * PRECISION => Some(Limit::Service),
            (None, Some(not_held)) if not_held < 0.5 => Some(Limit::First),
            (Some(held), None) if held >= self.rate_max => Some(Limit::RateMax),
            _ if self.tries.len() >= TRIES_MAX => Some(Limit::Tries),
            _ => None,
        };
        self.next = match (self.held, self.not_held) {
            (Some(held), Some(not_held)) => f64::midpoint(held, not_held),
            (Some(held), None) => (held * GROWTH).min(self.rate_max),
            // What is asked first may be far too much.
            (None, Some(not_held)) => not_held / 4.0,
            (None, None) => rate,
        };
        told
    }

    /// Ends it, since a rate as low as [`Search::next`] cannot be tried.
    pub fn too_low(&mut self) {
        self.limit = Some(if self.held.is_none() { Limit::First } else { Limit::Tries });
    }

    /// What was found so far.
    pub fn found(self) -> Found {
        Found {
            users_per_s: self.held,
            not_held_users_per_s: self.not_held,
            limit: self.limit.unwrap_or(Limit::Tries),
            tries: self.tries,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Searches a service that holds `capacity`, from a machine that can make `generator`.
    fn search(first: f64, rate_max: f64, capacity: f64, generator: f64) -> Found {
        let mut search = Search::new(first, rate_max, 100_000);
        while let Some(rate) = search.next() {
            let is_held = rate <= capacity;
            search.tell(
                if is_held { 1.0 } else { capacity / rate },
                if is_held { 5_000 } else { 2_000_000 },
                rate <= generator,
            );
        }
        search.found()
    }

    #[test]
    fn what_limits_is_told() {
        let rate = |found: &Found| found.users_per_s.map(f64::round);
        let found = search(10.0, 1e5, 1000.0, 1e6);
        assert_eq!(found.limit, Limit::Service);
        assert!((950.0..=1000.0).contains(&found.users_per_s.unwrap()), "{found:?}");
        let generator = search(10.0, 1e5, 1000.0, 200.0);
        assert_eq!((generator.limit, rate(&generator)), (Limit::Generator, Some(168.0)));
        assert_eq!(search(10.0, 50.0, 1000.0, 1e6).limit, Limit::RateMax);
        let none = search(10.0, 1e5, 0.0, 1e6);
        assert_eq!((none.limit, none.users_per_s), (Limit::First, None));
        assert_eq!(Search::new(1.0, 2.0, 1).found().limit, Limit::Tries);
        let mut low = Search::new(10.0, 1e5, 1);
        low.tell(0.0, 1, true);
        low.too_low();
        assert_eq!((low.next(), low.found().limit), (None, Limit::First));
    }

    #[test]
    fn a_step_is_held_by_share_and_latency() {
        for (share, p99_us, held) in [(0.98, 100_000, true), (0.979, 1, false), (1.0, 100_001, false)] {
            let mut search = Search::new(10.0, 1e5, 100_000);
            assert_eq!(search.tell(share, p99_us, true).held, held, "{share} {p99_us}");
            assert!(!Search::new(10.0, 1e5, 100_000).tell(share, p99_us, false).held);
        }
    }

    proptest! {
        #[test]
        fn it_ends_near_the_capacity(first in 1.0..1000.0, capacity in 1.0..1e5) {
            let found = search(first, 1e6, capacity, 1e9);
            let held = found.users_per_s.unwrap();
            prop_assert!(held <= capacity && held >= capacity * (1.0 - PRECISION), "{} of {}: {:?}", held, capacity, found);
            prop_assert_eq!(found.limit, Limit::Service);
        }
    }
}
