//! How many workers a service has: a number, or the range within which load may change it.

use std::fmt;

/// Most workers of one service: beyond it, a number is a slip of the finger rather than a wish.
pub const INSTANCES_MAX: u32 = 1000;

/// From how many to how many workers; `max` is at least 1, and at least `min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instances {
    /// The fewest. With 0 the service may have none while nobody asks for anything.
    pub min: u32,
    /// The most.
    pub max: u32,
}

impl Instances {
    /// How many a service starts with: the fewest, and one where there may be none. So it is known that it starts before
    /// somebody waits for it.
    pub fn first(self) -> u32 {
        self.min.max(1)
    }

    /// Whether there may be none.
    pub fn may_be_none(self) -> bool {
        self.min == 0
    }

    /// Exactly `number`.
    pub(super) fn exactly(number: i64) -> Result<Self, String> {
        Self::between(number, number)
    }

    /// Reads `3` or `2..8`. The error is a sentence that goes after the value.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        match (min.trim().parse(), max.trim().parse()) {
            (Ok(min), Ok(max)) => Self::between(min, max),
            _ => {
                Err("is not a number of workers: write a number such as 3, or a range such as \"2..8\""
                    .into())
            }
        }
    }

    fn between(min: i64, max: i64) -> Result<Self, String> {
        if min > max {
            return Err(format!("is upside down: write \"{max}..{min}\""));
        }
        if min < 0 || max < 1 {
            return Err("is too few: a service needs at least 1 worker; write \"0..1\" for one that has none while nobody \
                        asks for anything"
                .into());
        }
        match (u32::try_from(min), u32::try_from(max)) {
            (Ok(min), Ok(max)) if max <= INSTANCES_MAX => Ok(Self { min, max }),
            _ => Err(format!("is too many: a service has at most {INSTANCES_MAX} workers")),
        }
    }
}

impl fmt::Display for Instances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max { self.min.fmt(f) } else { write!(f, "{}..{}", self.min, self.max) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (text, min, max) in [
            ("3", 3, 3),
            ("2..8", 2, 8),
            ("1..1", 1, 1),
            ("0..4", 0, 4),
            (" 2 .. 8 ", 2, 8),
            ("1000", 1000, 1000),
        ] {
            assert_eq!(Instances::parse(text), Ok(Instances { min, max }), "{text}");
        }
        for (text, why) in [
            ("8..2", "upside down: write \"2..8\""),
            ("0", "too few"),
            ("0..0", "too few"),
            ("-1..4", "too few"),
            ("-1", "too few"),
            ("1001", "too many"),
            ("2..99999999999", "too many"),
            ("", "is not"),
            ("..", "is not"),
            ("2..", "is not"),
            ("2..=8", "is not"),
            ("2-8", "is not"),
            ("1..2..3", "is not"),
        ] {
            let error = Instances::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert_eq!(Instances { min: 2, max: 8 }.to_string(), "2..8");
        assert_eq!(Instances { min: 3, max: 3 }.to_string(), "3");
        let none = Instances { min: 0, max: 4 };
        assert_eq!((none.to_string().as_str(), none.first(), none.may_be_none()), ("0..4", 1, true));
    }
}
