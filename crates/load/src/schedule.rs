//! When users arrive: at a constant rate, or at one that rises or falls evenly. It is decided beforehand, and nothing that the service
//! does changes it.

use std::time::Duration;

/// The most users of one run.
pub const ARRIVALS_MAX: u64 = 20_000_000;

/// The highest rate, in users a second.
pub const RATE_MAX: f64 = 200_000.0;

/// The longest run.
pub const DURATION_MAX: Duration = Duration::from_hours(4);

/// Users a second, from the beginning to the end of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    from: f64,
    to: f64,
    duration: Duration,
}

/// Why there is no such schedule.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// A rate that cannot be.
    #[error("a rate of {0} a second cannot be made: write one above 0 and up to {RATE_MAX}")]
    Rate(f64),
    /// A duration that cannot be.
    #[error("a run takes more than nothing and at most {} h", DURATION_MAX.as_secs() / 3600)]
    Duration,
    /// Too many users.
    #[error("{0} users are more than the {ARRIVALS_MAX} of one run: lower the rate or shorten the run")]
    Arrivals(u64),
    /// No user at all.
    #[error("nobody would come in that time: raise the rate or lengthen the run")]
    Nobody,
}

impl Schedule {
    /// The same rate from the beginning to the end.
    ///
    /// # Errors
    /// What of it cannot be.
    pub fn constant(rate: f64, duration: Duration) -> Result<Self, Error> {
        Self::ramp(rate, rate, duration)
    }

    /// A rate that goes evenly from one to the other. One of them may be 0.
    ///
    /// # Errors
    /// What of it cannot be.
    pub fn ramp(from: f64, to: f64, duration: Duration) -> Result<Self, Error> {
        for rate in [from, to] {
            if !(0.0..=RATE_MAX).contains(&rate) {
                return Err(Error::Rate(rate));
            }
        }
        if from + to <= 0.0 {
            return Err(Error::Rate(0.0));
        }
        if duration.is_zero() || duration > DURATION_MAX {
            return Err(Error::Duration);
        }
        let schedule = Self { from, to, duration };
        match schedule.arrivals() {
            0 => Err(Error::Nobody),
            arrivals if arrivals > ARRIVALS_MAX => Err(Error::Arrivals(arrivals)),
            _ => Ok(schedule),
        }
    }

    /// From the first to the last second, in users a second.
    pub fn rates(&self) -> (f64, f64) {
        (self.from, self.to)
    }

    /// How long it takes.
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// How many come.
    pub fn arrivals(&self) -> u64 {
        let area = (self.from + self.to) / 2.0 * self.duration.as_secs_f64();
        // What is a whole number but for the arithmetic is one.
        (area + 1e-6).floor() as u64
    }

    /// When user `number`, from 0, comes, counted from the beginning: as soon as so many and half a one are due, so that the first does
    /// not come at once, nor the last at the end. `None` past the last.
    pub fn at(&self, number: u64) -> Option<Duration> {
        if number >= self.arrivals() {
            return None;
        }
        let (due, length) = (number as f64 + 0.5, self.duration.as_secs_f64());
        // The area under a line is due: slope / 2 · t² + from · t = due. Written so that it also holds for a slope of 0.
        let slope = (self.to - self.from) / length;
        let root = (self.from * self.from + 2.0 * slope * due).max(0.0).sqrt();
        let at = 2.0 * due / (self.from + root);
        Some(Duration::from_secs_f64(at.clamp(0.0, length)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn when_they_come() {
        let ms = |from, to| {
            let schedule = Schedule::ramp(from, to, Duration::from_secs(2)).unwrap();
            let at = (0..9).map_while(move |number| schedule.at(number));
            at.map(|at| (at.as_secs_f64() * 1000.0).round()).collect::<Vec<_>>()
        };
        assert_eq!(ms(4.0, 4.0), [125.0, 375.0, 625.0, 875.0, 1125.0, 1375.0, 1625.0, 1875.0]);
        assert_eq!(ms(0.0, 4.0), [707.0, 1225.0, 1581.0, 1871.0]);
        let mut mirrored: Vec<f64> = ms(4.0, 0.0).iter().map(|at| 2000.0 - at).collect();
        mirrored.reverse();
        assert_eq!(mirrored, ms(0.0, 4.0));
    }

    #[test]
    fn what_cannot_be() {
        let second = Duration::from_secs(1);
        for (from, to, duration, expected) in [
            (f64::NAN, 1.0, second, Error::Rate(f64::NAN)),
            (-1.0, 1.0, second, Error::Rate(-1.0)),
            (1.0, f64::INFINITY, second, Error::Rate(f64::INFINITY)),
            (0.0, 0.0, second, Error::Rate(0.0)),
            (1.0, 1.0, Duration::ZERO, Error::Duration),
            (1.0, 1.0, DURATION_MAX + second, Error::Duration),
            (RATE_MAX, RATE_MAX, second * 1000, Error::Arrivals(200_000_000)),
            (0.5, 0.5, second, Error::Nobody),
        ] {
            let error = Schedule::ramp(from, to, duration).unwrap_err();
            assert_eq!(error.to_string(), expected.to_string());
        }
    }

    proptest! {
        #[test]
        fn they_come_in_order_within_the_time_and_at_the_rate(
            from in 0.0..500.0, to in 0.0..500.0, ms in 100_u64..20_000,
        ) {
            let Ok(schedule) = Schedule::ramp(from, to, Duration::from_millis(ms)) else { return Ok(()) };
            let all: Vec<f64> = (0..).map_while(|number| schedule.at(number)).map(|at| at.as_secs_f64()).collect();
            prop_assert_eq!(all.len() as u64, schedule.arrivals());
            prop_assert!(all.is_sorted() && all.last().is_none_or(|last| *last <= ms as f64 / 1000.0));
            // At any time there have been as many as the area says, but for the half.
            let length = ms as f64 / 1000.0;
            for (number, at) in all.iter().enumerate() {
                let due = from * at + (to - from) / length / 2.0 * at * at;
                prop_assert!((due - number as f64 - 0.5).abs() < 1e-3, "{} at {}: {}", number, at, due);
            }
        }
    }
}
