//! Points in time as the scaler is told them. Seconds with fractions outside, whole microseconds inside, so that the
//! edge of a window is where arithmetic on paper says it is.

use std::{ops::Sub, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// A point in time, in microseconds since whatever the caller counts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

impl Time {
    /// Before everything: of what has been as it is for as long as anybody remembers.
    pub const LONG_AGO: Self = Self(i64::MIN);

    /// This many microseconds after the beginning.
    pub const fn from_micros(us: i64) -> Self {
        Self(us)
    }

    /// This many seconds after the beginning, rounded to a microsecond. None for what is no number, or is further from
    /// the beginning than 290,000 years.
    pub fn from_seconds(seconds: f64) -> Option<Self> {
        let us = (seconds * 1e6).round();
        (us.abs() < 9.2e18).then_some(Self(us as i64))
    }

    /// In seconds.
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// So much later. It saturates.
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros(span)))
    }

    /// So much earlier. It saturates.
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(micros(span)))
    }
}

impl Sub for Time {
    type Output = Duration;

    /// How long it is since `earlier`; nothing, if that is later.
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.seconds())
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Self::from_seconds(seconds)
            .ok_or_else(|| D::Error::custom(format!("{seconds} is no time in seconds")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_where_paper_has_them() {
        // In binary fractions, 1000.3 - 300 is not 700.3.
        let now = Time::from_seconds(1_000.3).unwrap();
        assert_eq!(now.minus(Duration::from_secs(300)), Time::from_seconds(700.3).unwrap());
        let epoch = Time::from_seconds(1_790_000_000.3).unwrap();
        assert_eq!(epoch.minus(Duration::from_secs(300)), Time::from_seconds(1_789_999_700.3).unwrap());
        assert_eq!(epoch - now, Duration::from_secs(1_789_999_000));
        assert_eq!(now - epoch, Duration::ZERO);
    }

    #[test]
    fn nothing_overflows() {
        assert_eq!(Time::LONG_AGO.minus(Duration::MAX), Time::LONG_AGO);
        assert!(Time::LONG_AGO.plus(Duration::from_secs(60)) < Time::default());
        for seconds in [f64::NAN, f64::INFINITY, 1e30] {
            assert_eq!(Time::from_seconds(seconds), None);
        }
    }
}
