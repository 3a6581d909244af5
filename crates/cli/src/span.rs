//! Spans of time on the command line.

use std::{str::FromStr, time::Duration};

const DAY: Duration = Duration::from_hours(24);

/// A row may end after a century at most: far enough, and within what every engine can write down.
const LIFETIME_MAX: Duration = Duration::from_hours(24 * 36_525);

/// A time as people write it, `20us`, `50ms`, `1.5s`, `2m`; above zero and up to a day.
#[derive(Clone, Copy, Debug)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text, DAY)
            .map(Self)
            .map_err(|why| why.unwrap_or("write a time above zero and up to 24h".into()))
    }
}

/// How long something is kept: a span of up to a century, or whole seconds without a unit.
#[derive(Clone, Copy, Debug)]
pub struct Lifetime(pub Duration);

impl FromStr for Lifetime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_bare = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let text = if is_bare { &format!("{text}s") } else { text };
        parse(text, LIFETIME_MAX)
            .map(Self)
            .map_err(|why| why.unwrap_or("write a time above zero and up to 36525d".into()))
    }
}

/// Reads a number and its unit. What is wrong, unless it is that the span is not above zero and up to `longest`.
fn parse(text: &str, longest: Duration) -> Result<Duration, Option<String>> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        // Keyboards have no Greek letter; texts have one of two that look alike, the micro sign and mu.
        "us" | "\u{b5}s" | "\u{3bc}s" => 0.000_001,
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => {
            return Err(Some(
                "write a number and a unit of us, ms, s, m, h and d, such as 250ms, 1.5s or 5m".into(),
            ));
        }
    };
    let number: f64 = number.parse().map_err(|_| Some(format!("{number:?} is no number")))?;
    let span = Duration::try_from_secs_f64(number * seconds).ok();
    span.filter(|span| !span.is_zero() && *span <= longest).ok_or(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_they_are_typed() {
        for (text, ms) in [("50ms", 50), ("1.5s", 1_500), ("2m", 120_000), ("24h", 86_400_000)] {
            assert_eq!(text.parse::<Span>().unwrap().0, Duration::from_millis(ms), "{text}");
        }
        for text in ["20us", "20\u{b5}s", "20\u{3bc}s", "0.02ms"] {
            assert_eq!(text.parse::<Span>().unwrap().0, Duration::from_micros(20), "{text}");
        }
        for text in ["", "5", "0s", "-1s", "25h", "2d", "s", "1.2.3s", "us", "5ns", "5µ"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        assert!("5ns".parse::<Span>().unwrap_err().contains("us, ms, s, m, h and d"));
    }

    #[test]
    fn lifetimes_as_they_are_typed() {
        for (text, s) in [("1", 1), ("600", 600), ("10m", 600), ("30d", 2_592_000), ("36525d", 3_155_760_000)]
        {
            assert_eq!(text.parse::<Lifetime>().unwrap().0, Duration::from_secs(s), "{text}");
        }
        for text in ["", "0", "-1", "1.5", "36526d", "99999999999999999999", "week"] {
            assert!(text.parse::<Lifetime>().is_err(), "{text}");
        }
    }
}
