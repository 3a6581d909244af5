//! What time it is by the calendar, for an instant that was measured for another purpose: a request asks the clock
//! once, and its line in the access log still says when it came.

use std::{
    cell::Cell,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use lethe_model::calendar;

use crate::json::digits;

/// An instant whose time by the calendar is known.
pub(crate) struct Clock(Cell<(Instant, Duration)>);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Cell::new(together()))
    }

    /// Follows a system clock that was set or is being slewed; to be called now and then.
    pub(crate) fn renew(&self) {
        self.0.set(together());
    }

    /// Since 1970, UTC.
    pub(crate) fn unix(&self, at: Instant) -> Duration {
        let (anchor, unix) = self.0.get();
        match at.checked_duration_since(anchor) {
            Some(later) => unix + later,
            None => unix.saturating_sub(anchor.duration_since(at)),
        }
    }
}

fn together() -> (Instant, Duration) {
    (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Writes a moment as RFC 3339 has it, in UTC with microseconds: `2026-01-31T09:05:00.250125Z`.
pub(crate) fn rfc3339(text: &mut Vec<u8>, unix: Duration) {
    let (days, second) = (unix.as_secs() / 86_400, unix.as_secs() % 86_400);
    let (year, month, day) = calendar::date(days);
    digits(text, year, 4);
    for (mark, number) in
        [(b'-', month), (b'-', day), (b'T', second / 3600), (b':', second / 60 % 60), (b':', second % 60)]
    {
        text.push(mark);
        digits(text, number, 2);
    }
    text.push(b'.');
    digits(text, u64::from(unix.subsec_micros()), 6);
    text.push(b'Z');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        for (micros, wanted) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400_000_001, "2000-02-29T00:00:00.000001Z"),
            (1_709_251_199_999_999, "2024-02-29T23:59:59.999999Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
        ] {
            let mut text = Vec::new();
            rfc3339(&mut text, Duration::from_micros(micros));
            assert_eq!(String::from_utf8(text).unwrap(), wanted);
        }
    }

    #[test]
    fn instants_before_and_after_the_anchor() {
        let clock = Clock::new();
        let (anchor, unix) = clock.0.get();
        let second = Duration::from_secs(1);
        assert_eq!(clock.unix(anchor + second), unix + second);
        assert_eq!(anchor.checked_sub(second).map(|at| clock.unix(at)), Some(unix - second));
    }
}
