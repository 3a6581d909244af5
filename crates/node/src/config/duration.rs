//! Durations as people write them: a number and a unit.

use std::time::Duration;

/// The longest that is accepted.
const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);

/// Reads `250ms`, `10s`, `5m` or `1h`. The error is a sentence that goes after the value.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let millis_per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" if !number.is_empty() => {
            return Err(format!(
                "needs a unit: write \"{number}s\", or \"{number}ms\", \"{number}m\", \"{number}h\""
            ));
        }
        _ => return Err(NOT_A_DURATION.into()),
    };
    if number.is_empty() {
        return Err(NOT_A_DURATION.into());
    }
    // Too many digits for a number are too long for a duration as well.
    let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(millis_per_unit));
    match millis.map(Duration::from_millis) {
        Some(duration) if duration <= DURATION_MAX => Ok(duration),
        _ => Err("is too long: the longest is \"24h\"".into()),
    }
}

/// A duration in the largest unit that gives a whole number.
pub(crate) fn shown(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    match units.iter().find(|(_, unit)| millis >= *unit && millis.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", millis / unit),
        None => format!("{millis}ms"),
    }
}

/// What a duration looks like, for a value of another type.
pub(super) const EXPECTED: &str = "a duration such as `\"10s\"`";

const NOT_A_DURATION: &str =
    "is not a duration: write a whole number and a unit, such as \"250ms\", \"10s\", \"5m\" or \"1h\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in
            [("0s", 0), ("250ms", 250), ("10s", 10_000), ("5m", 300_000), ("24h", 86_400_000)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
            assert_eq!(parse(&shown(Duration::from_millis(millis))), parse(text), "{text}");
        }
        for text in
            ["", "s", "10", "1.5s", "-1s", "10 s", "10S", "1d", "1m30s", "25h", "99999999999999999999h"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("10").is_err_and(|e| e.contains("\"10s\"")));
    }
}
