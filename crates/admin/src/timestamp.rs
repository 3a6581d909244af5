//! A moment as the API writes it: RFC 3339 in UTC with milliseconds, `2026-01-31T09:05:00.250Z`, which sorts as
//! text, is read by every language and says its zone.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lethe_model::calendar;
use serde::{Deserialize, Serialize};

/// A moment, to the millisecond. Moments before 1970 are shown as 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Timestamp(u64);

/// Why a text is not a moment.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a time such as 2026-01-31T09:05:00.250Z")]
pub struct Invalid(String);

impl Timestamp {
    /// Milliseconds since 1970, UTC.
    pub fn unix_ms(self) -> u64 {
        self.0
    }

    /// The moment as the standard library has it.
    pub fn system_time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0)
    }

    /// How long ago it was at `now`; zero for a moment to come.
    pub fn age_at(self, now: SystemTime) -> Duration {
        now.duration_since(self.system_time()).unwrap_or_default()
    }

    /// Reads exactly the form that [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |range: std::ops::Range<usize>| -> Option<u64> {
            let digits = text.get(range)?;
            digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
        };
        let mark = |at: usize, wanted: u8| text.as_bytes().get(at) == Some(&wanted);
        let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (23, b'Z')];
        if text.len() != 24 || !marks.into_iter().all(|(at, wanted)| mark(at, wanted)) {
            return None;
        }
        let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
        let (hour, minute, second, ms) = (number(11..13)?, number(14..16)?, number(17..19)?, number(20..23)?);
        let days = calendar::day(year, month, day);
        let moment = Self((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + ms);
        // The way back refuses whatever is no date, such as the 30th of February, and years before 1970.
        (moment.to_string() == text).then_some(moment)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let ms = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Self(u64::try_from(ms).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, ms) = (self.0 / 1000, self.0 % 1000);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = calendar::date(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }
}

impl From<Timestamp> for String {
    fn from(moment: Timestamp) -> Self {
        moment.to_string()
    }
}

impl TryFrom<String> for Timestamp {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text).ok_or(Invalid(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (4_107_542_400_001, "2100-03-01T00:00:00.001Z"),
        ] {
            assert_eq!(Timestamp(ms).to_string(), text);
            assert_eq!(Timestamp::parse(text), Some(Timestamp(ms)));
        }
    }

    #[test]
    fn every_day_there_and_back() {
        for day in 0..80_000 {
            let moment = Timestamp(day * 86_400_000 + 1);
            assert_eq!(Timestamp::parse(&moment.to_string()), Some(moment));
        }
    }

    #[test]
    fn what_is_no_moment() {
        for text in [
            "",
            "2024-02-30T00:00:00.000Z",
            "2023-02-29T00:00:00.000Z",
            "2024-13-01T00:00:00.000Z",
            "2024-01-01T24:00:00.000Z",
            "1969-12-31T23:59:59.999Z",
            "2024-01-01 00:00:00.000Z",
            "2024-01-01T00:00:00.000+",
            "2024-0é-01T00:00:00.00Z",
            "+024-01-01T00:00:00.000Z",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }
}
