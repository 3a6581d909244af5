//! How many requests may be sent again for a status or a timeout: a share of the requests of the last seconds. When
//! everything fails, retries then add that share to the load, and not a multiple of it. Each core keeps one for each
//! service, so that it costs a plain addition a request.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

/// The window's seconds.
const WINDOW_S: usize = 10;
/// Retries in one window that are allowed whatever the load, so that a service with few requests has retries too.
const RETRIES_MIN: u64 = 3 * WINDOW_S as u64;

/// The pause before the first retry for overload is at most this.
const BACKOFF_FIRST: Duration = Duration::from_millis(25);
/// No pause before a retry is longer.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// What was asked of a service in the last ten seconds, and what of it twice.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    /// Requests of the second that runs.
    requests: Cell<u64>,
    window: RefCell<Window>,
}

#[derive(Debug)]
struct Window {
    /// When the second that runs began.
    began: Instant,
    /// Requests and retries of each second; the one that runs is at `now`, and its requests are still in the cell.
    seconds: [(u64, u64); WINDOW_S],
    now: usize,
}

impl RetryBudget {
    /// An empty one.
    pub(crate) fn new(now: Instant) -> Self {
        let window = Window { began: now, seconds: [(0, 0); WINDOW_S], now: 0 };
        Self { requests: Cell::new(0), window: RefCell::new(window) }
    }

    /// Counts a request, once, whatever becomes of it.
    pub(crate) fn deposit(&self) {
        self.requests.set(self.requests.get() + 1);
    }

    /// Whether one more retry is within `percent` of the requests; if so, it is counted.
    pub(crate) fn withdraw(&self, now: Instant, percent: u8) -> bool {
        self.turn(now);
        let mut window = self.window.borrow_mut();
        let sum = window
            .seconds
            .iter()
            .fold((self.requests.get(), 0), |sum, second| (sum.0 + second.0, sum.1 + second.1));
        let allowed = RETRIES_MIN.max(sum.0 * u64::from(percent) / 100);
        // None at all is what zero percent says.
        if percent == 0 || sum.1 >= allowed {
            return false;
        }
        let running = window.now;
        window.seconds[running].1 += 1;
        true
    }

    /// Moves the window on; to be called each second or more often while there are requests.
    pub(crate) fn turn(&self, now: Instant) {
        let mut window = self.window.borrow_mut();
        let seconds = now.saturating_duration_since(window.began).as_secs();
        for _ in 0..seconds.min(WINDOW_S as u64) {
            let (running, next) = (window.now, (window.now + 1) % WINDOW_S);
            window.seconds[running].0 += self.requests.take();
            window.seconds[next] = (0, 0);
            window.now = next;
        }
        window.began += Duration::from_secs(seconds);
    }
}

/// The pause before retry number `retry`, from 0, for overload: anything up to a bound that doubles each time ("full
/// jitter"), so that those who failed together do not come back together. `random` is any number.
pub(crate) fn backoff(retry: u32, random: u64) -> Duration {
    let bound = BACKOFF_FIRST.saturating_mul(1 << retry.min(16)).min(BACKOFF_MAX);
    let nanos = (u128::from(random) * (bound.as_nanos() + 1)) >> 64;
    Duration::from_nanos(nanos as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn withdrawals(budget: &RetryBudget, now: Instant, percent: u8) -> u64 {
        (0..100_000).take_while(|_| budget.withdraw(now, percent)).count() as u64
    }

    #[test]
    fn a_share_of_the_last_ten_seconds() {
        let begin = Instant::now();
        let at = |s: f64| begin + Duration::from_secs_f64(s);
        let budget = RetryBudget::new(begin);
        assert_eq!(withdrawals(&budget, at(0.1), 20), RETRIES_MIN, "some without any load");
        assert_eq!(withdrawals(&budget, at(9.5), 20), 0);
        assert_eq!(withdrawals(&budget, at(10.5), 20), RETRIES_MIN, "they come back after the window");
        let budget = RetryBudget::new(begin);
        for second in 0..10 {
            (0..100).for_each(|_| budget.deposit());
            budget.turn(at(f64::from(second) + 0.9));
        }
        assert_eq!(withdrawals(&budget, at(9.9), 20), 200);
        assert_eq!(withdrawals(&budget, at(9.9), 20), 0);
        assert_eq!(withdrawals(&budget, at(9.9), 50), 300, "a share that was raised");
        let budget = RetryBudget::new(begin);
        (0..1000).for_each(|_| budget.deposit());
        assert_eq!(withdrawals(&budget, at(9.0), 20), 200);
        (0..1000).for_each(|_| budget.deposit());
        assert_eq!(
            withdrawals(&budget, at(10.5), 20),
            0,
            "the first thousand are too old, the retries are not"
        );
        assert_eq!(withdrawals(&budget, at(99.0), 20), RETRIES_MIN);
        assert_eq!(withdrawals(&RetryBudget::new(begin), begin, 0), 0, "zero is none");
    }

    #[test]
    fn pauses() {
        for (retry, bound_ms) in
            [(0, 25), (1, 50), (2, 100), (5, 800), (6, 1000), (7, 1000), (u32::MAX, 1000)]
        {
            assert_eq!(backoff(retry, u64::MAX), Duration::from_millis(bound_ms), "{retry}");
            assert_eq!(backoff(retry, 0), Duration::ZERO, "{retry}");
            let middle = backoff(retry, u64::MAX / 2).as_secs_f64() * 1000.0;
            assert!((middle * 2.0 - bound_ms as f64).abs() < 0.01, "{middle}");
        }
    }
}
