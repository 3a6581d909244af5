//! Rates, numbers of workers and intervals as they are typed.

use std::{str::FromStr, time::Duration};

use lethe_load::schedule::{self, Schedule};

use crate::span::Span;

/// The most workers that are tried.
const WORKERS_MAX: u32 = 64;

/// Users a second, from the beginning to the end: `200`, `10..500`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    pub(super) from: f64,
    to: f64,
}

impl Rate {
    pub(super) fn schedule(self, duration: Duration) -> Result<Schedule, schedule::Error> {
        Schedule::ramp(self.from, self.to, duration)
    }

    /// The higher of both.
    pub(super) fn most(self) -> f64 {
        self.from.max(self.to)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        match (from.parse::<f64>(), to.parse::<f64>()) {
            (Ok(from), Ok(to))
                if from.is_finite() && to.is_finite() && from >= 0.0 && to >= 0.0 && from + to > 0.0 =>
            {
                Ok(Self { from, to })
            }
            _ => {
                Err("write users a second such as 200, or from how many to how many, such as 10..500".into())
            }
        }
    }
}

/// Numbers of workers: `1..4`, or one alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Workers {
    pub(super) from: u32,
    pub(super) to: u32,
}

impl FromStr for Workers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        match (from.parse(), to.parse()) {
            (Ok(from), Ok(to)) if (1..=to).contains(&from) && to <= WORKERS_MAX => Ok(Self { from, to }),
            _ => Err(format!("write numbers of workers such as 1..4, of up to {WORKERS_MAX}")),
        }
    }
}

/// An interval, `every=300ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Every(pub(super) Duration);

impl FromStr for Every {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let span = text.strip_prefix("every=").ok_or("write how often, such as every=300ms")?;
        let Span(every) = span.parse()?;
        match every < Duration::from_millis(10) {
            true => Err("write a time of at least 10ms".into()),
            false => Ok(Self(every)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_they_are_typed() {
        assert_eq!("200".parse(), Ok(Rate { from: 200.0, to: 200.0 }));
        assert_eq!("0..12.5".parse(), Ok(Rate { from: 0.0, to: 12.5 }));
        for text in ["", "x", "-1", "0", "0..0", "inf", "1..nan"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        assert_eq!("1..4".parse(), Ok(Workers { from: 1, to: 4 }));
        assert_eq!("3".parse(), Ok(Workers { from: 3, to: 3 }));
        for text in ["0..4", "4..1", "1..65", "a"] {
            assert!(text.parse::<Workers>().is_err(), "{text}");
        }
        assert_eq!("every=300ms".parse(), Ok(Every(Duration::from_millis(300))));
        for text in ["300ms", "every=", "every=5ms", "every=x"] {
            assert!(text.parse::<Every>().is_err(), "{text}");
        }
    }
}
