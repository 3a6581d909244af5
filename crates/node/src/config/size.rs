//! Sizes as people write them: a number and a binary unit.

/// Units and the bytes in one, the smallest first.
const UNITS: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// What a size looks like, for a value of another type.
pub(super) const EXPECTED: &str = "a size such as `\"32KiB\"`, or a number of bytes";

/// Reads `512B`, `32KiB`, `1MiB` or `2GiB`. The error is a sentence that goes after the value.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    if number.is_empty() {
        return Err(NOT_A_SIZE.into());
    }
    let Some((_, bytes)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(match unit.chars().next().map(|c| c.to_ascii_uppercase()) {
            None => format!(
                "needs a unit: write \"{number}KiB\", or \"{number}B\", \"{number}MiB\", \"{number}GiB\""
            ),
            // `K`, `kB` and `kb` mean 1000 to some and 1024 to others.
            Some(first @ ('K' | 'M' | 'G')) if unit.len() < 3 => {
                format!("is not a size: write \"{number}{first}iB\" (units of 1024)")
            }
            Some(_) => NOT_A_SIZE.into(),
        });
    };
    let size = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*bytes));
    size.ok_or_else(|| "is too large".into())
}

/// A size in the largest unit that gives a whole number.
pub(super) fn shown(bytes: u64) -> String {
    let unit = UNITS.iter().rev().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    let (name, unit) = unit.unwrap_or(&UNITS[0]);
    format!("{}{name}", bytes / unit)
}

const NOT_A_SIZE: &str =
    "is not a size: write a whole number and a unit, such as \"512B\", \"32KiB\" or \"1MiB\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("0B", 0), ("512B", 512), ("32KiB", 32 << 10), ("1MiB", 1 << 20), ("2GiB", 2 << 30)]
        {
            assert_eq!(parse(text), Ok(bytes), "{text}");
            assert_eq!(shown(bytes), text);
        }
        assert_eq!(shown(1536), "1536B");
        for (text, why) in [
            ("", "is not a size"),
            ("KiB", "is not a size"),
            ("32", "\"32KiB\""),
            ("32k", "\"32KiB\""),
            ("32kB", "\"32KiB\""),
            ("1MB", "\"1MiB\""),
            ("1.5MiB", "is not a size"),
            ("1 MiB", "is not a size"),
            ("-1B", "is not a size"),
            ("99999999999999999999B", "too large"),
            ("99999999999999GiB", "too large"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
