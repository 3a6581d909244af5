//! How fast a line moves: the mean time from one call to the next while somebody waits. It says how long a request
//! would have to wait, as far as that was measured, and when it may be worth trying again.

use std::time::{Duration, Instant};

/// How much of the mean one more interval makes.
const WEIGHT: f64 = 0.1;
/// Before so many intervals nothing is said.
const INTERVALS_MIN: u32 = 10;
/// Nobody is told to come back later than this: by then much may have changed.
const RETRY_AFTER_MAX_S: u32 = 60;

/// The pace of one line.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// The last call, if somebody has waited ever since.
    last: Option<Instant>,
    interval_s: f64,
    intervals: u32,
}

impl Pace {
    /// Somebody was called at `now`.
    pub(crate) fn note(&mut self, now: Instant) {
        if let Some(last) = self.last.replace(now) {
            let interval_s = now.saturating_duration_since(last).as_secs_f64();
            let weight = WEIGHT.max(1.0 / f64::from(self.intervals + 1));
            self.interval_s += (interval_s - self.interval_s) * weight;
            self.intervals = self.intervals.saturating_add(1);
        }
    }

    /// Nobody waits any more: what follows is another matter.
    pub(crate) fn pause(&mut self) {
        *self = Self::default();
    }

    /// How long it will take until so many are called; `None` when that was not measured.
    pub(crate) fn wait(&self, places: usize, now: Instant) -> Option<Duration> {
        let last = self.last.filter(|_| self.intervals >= INTERVALS_MIN)?;
        let Some(behind) = places.checked_sub(1) else { return Some(Duration::ZERO) };
        // Of the pause that lasts nothing is known but that it lasts. It says nothing of the pace after it: calls come in
        // bursts where workers have begun together, and stop for as long as one that died needs to start.
        let next_s = self.interval_s.max(now.saturating_duration_since(last).as_secs_f64());
        Duration::try_from_secs_f64(next_s + self.interval_s * behind as f64).ok()
    }

    /// When it may be worth trying again, with so many in the line: when they will have been called, or after a
    /// second if that is not known.
    pub(crate) fn retry_after_s(&self, places: usize, now: Instant) -> u32 {
        let wait_s = self.wait(places, now).map_or(1.0, |wait| wait.as_secs_f64().ceil());
        wait_s.clamp(1.0, f64::from(RETRY_AFTER_MAX_S)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_said() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let mut pace = Pace::default();
        assert_eq!((pace.wait(1, begin), pace.retry_after_s(1000, begin)), (None, 1));
        for call in 0..=10 {
            assert_eq!(pace.wait(9, at(100 * call)), None);
            pace.note(at(100 * call));
        }
        let near = |wait: Option<Duration>, expected_ms: f64| {
            assert!((wait.unwrap().as_secs_f64() * 1000.0 - expected_ms).abs() < 0.01, "{wait:?}");
        };
        near(pace.wait(1, at(1000)), 100.0);
        near(pace.wait(50, at(1000)), 5000.0);
        assert_eq!(pace.retry_after_s(51, at(1000)), 6);
        assert_eq!(pace.retry_after_s(0, at(1000)), 1);
        assert_eq!(pace.retry_after_s(100_000, at(1000)), 60);
        near(pace.wait(2, at(3000)), 2100.0);
        near(pace.wait(50, at(3000)), 6900.0);
        // A faster pace is believed by and by.
        (1..=50).for_each(|call| pace.note(at(1000 + 10 * call)));
        assert!(pace.wait(1, at(1500)).unwrap() < Duration::from_millis(12));
        pace.pause();
        assert_eq!(pace.wait(1, at(1500)), None);
    }
}
