//! How many requests one worker gets at a time: any number, a fixed one, or one that follows the latency. The limit is
//! one for all workers of a service, as they are alike, and the same on all cores; who is inside is counted by each
//! worker's gate.

use std::{
    cell::Cell,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{
    config::{Class, Concurrency},
    gradient::{Bounds, Gradient, Sample},
};

/// Of a worker's slots, batch requests may fill so many in percent; the rest is for timely ones alone.
const BATCH_PERCENT: u64 = 80;
/// A window of the adaptive limit is at least so long, and twice as long as its responses took, so that most of them
/// were asked for under the limit of that window; and it has at least so many of them.
const WINDOW_MIN: Duration = Duration::from_millis(100);
const WINDOW_SAMPLES_MIN: u64 = 10;

/// The limit of one service.
#[derive(Debug)]
pub(crate) struct Limit {
    /// Requests that one worker gets at a time; 0 for any number.
    each: AtomicU32,
    adaptive: Mutex<Option<Adaptive>>,
}

#[derive(Debug)]
struct Adaptive {
    bounds: Bounds,
    gradient: Gradient,
    window: Window,
    began: Instant,
}

/// Responses of a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Window {
    responses: u64,
    latency_us: u64,
    in_flight_max: u64,
}

impl Window {
    fn add(&mut self, more: Self) {
        self.responses += more.responses;
        self.latency_us += more.latency_us;
        self.in_flight_max = self.in_flight_max.max(more.in_flight_max);
    }

    /// The mean.
    fn latency(self) -> Duration {
        Duration::from_micros(self.latency_us / self.responses.max(1))
    }
}

/// What one core saw since it last told the limit, in plain cells.
#[derive(Debug, Default)]
pub(crate) struct Noted(Cell<Window>);

impl Noted {
    /// Notes a response, and how many were inside its worker with it.
    pub(crate) fn answered(&self, latency: Duration, in_flight: u64) {
        let mut window = self.0.get();
        let latency_us = latency.as_micros().min(u128::from(u32::MAX)) as u64;
        window.add(Window { responses: 1, latency_us, in_flight_max: in_flight });
        self.0.set(window);
    }
}

impl Limit {
    pub(crate) fn new(concurrency: Concurrency, now: Instant) -> Self {
        let limit = Self { each: AtomicU32::new(0), adaptive: Mutex::new(None) };
        limit.configure(concurrency, now);
        limit
    }

    /// Follows a changed configuration; an adaptive limit goes on from where it is.
    pub(crate) fn configure(&self, concurrency: Concurrency, now: Instant) {
        let mut adaptive = self.adaptive.lock().unwrap_or_else(PoisonError::into_inner);
        let (each, next) = match concurrency {
            Concurrency::Unlimited => (0, None),
            Concurrency::Limited(each) => (each.max(1), None),
            Concurrency::Adaptive { min, max } => {
                let bounds = Bounds::new(min, max);
                let gradient = adaptive.take().map_or_else(|| Gradient::new(bounds), |known| known.gradient);
                let next = Adaptive { bounds, gradient, window: Window::default(), began: now };
                (gradient.limit(bounds), Some(next))
            }
        };
        *adaptive = next;
        self.each.store(each, Relaxed);
    }

    /// Requests that one worker gets at a time; `None` for any number.
    pub(crate) fn each(&self) -> Option<u32> {
        Some(self.each.load(Relaxed)).filter(|&each| each > 0)
    }

    /// How many may be inside a worker for one more of `class` to be let in.
    pub(crate) fn of(&self, class: Class) -> Option<u32> {
        self.each().map(|each| of_class(each, class))
    }

    /// Takes what a core saw, and adapts when a whole window was seen. Returns whether the limit rose.
    pub(crate) fn take(&self, seen: &Noted, now: Instant) -> bool {
        let window = seen.0.take();
        let mut adaptive = self.adaptive.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(adaptive) = &mut *adaptive else { return false };
        adaptive.window.add(window);
        let age = now.saturating_duration_since(adaptive.began);
        if adaptive.window.responses < WINDOW_SAMPLES_MIN
            || age < WINDOW_MIN.max(2 * adaptive.window.latency())
        {
            return false;
        }
        let window = std::mem::take(&mut adaptive.window);
        let latency_us = window.latency_us as f64 / window.responses as f64;
        let sample = Sample { latency_us, in_flight: window.in_flight_max };
        adaptive.began = now;
        adaptive.gradient = adaptive.gradient.next(sample, adaptive.bounds);
        let each = adaptive.gradient.limit(adaptive.bounds);
        self.each.swap(each, Relaxed) < each
    }
}

/// How many may be inside for one more of `class`, of `each` in all. Batch requests leave a fifth of the slots free,
/// and at least one where there are two, so that however many of them there are, a timely one finds a slot.
fn of_class(each: u32, class: Class) -> u32 {
    match class {
        Class::Timely => each,
        Class::Batch => ((u64::from(each) * BATCH_PERCENT / 100) as u32).max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_leaves_slots() {
        for (each, expected) in
            [(1, 1), (2, 1), (3, 2), (5, 4), (10, 8), (100, 80), (u32::MAX, 3_435_973_836)]
        {
            assert_eq!(of_class(each, Class::Batch), expected, "{each}");
            assert_eq!(of_class(each, Class::Timely), each);
        }
    }

    #[test]
    fn fixed_limits() {
        let now = Instant::now();
        let limit = Limit::new(Concurrency::Unlimited, now);
        assert_eq!((limit.each(), limit.of(Class::Batch)), (None, None));
        limit.configure(Concurrency::Limited(10), now);
        assert_eq!((limit.of(Class::Timely), limit.of(Class::Batch)), (Some(10), Some(8)));
        limit.configure(Concurrency::Limited(0), now);
        assert_eq!(limit.each(), Some(1), "none at all would be no service");
        let seen = Noted::default();
        (0..100).for_each(|_| seen.answered(Duration::from_millis(1), 1));
        assert!(!limit.take(&seen, now + Duration::from_secs(9)));
        assert_eq!(limit.each(), Some(1));
    }

    #[test]
    fn an_adaptive_limit_takes_whole_windows_of_all_cores() {
        let begin = Instant::now();
        let limit = Limit::new(Concurrency::Adaptive { min: 4, max: 100 }, begin);
        let first = limit.each().unwrap();
        let cores = [Noted::default(), Noted::default()];
        let see = |core: usize, count| {
            (0..count).for_each(|_| cores[core].answered(Duration::from_millis(1), u64::from(first)))
        };
        see(0, 9);
        assert!(!limit.take(&cores[0], begin + WINDOW_MIN), "too few");
        see(1, 1);
        assert!(!limit.take(&cores[1], begin + WINDOW_MIN / 2), "too early");
        assert!(limit.take(&cores[0], begin + WINDOW_MIN), "a window of both");
        assert!(limit.each().unwrap() > first);
        assert!(!limit.take(&cores[0], begin + WINDOW_MIN * 9), "and then the next");
        limit.configure(Concurrency::Adaptive { min: 4, max: 6 }, begin);
        assert_eq!(limit.each(), Some(6), "new bounds hold at once");
    }
}
