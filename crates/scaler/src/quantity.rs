//! Kubernetes' quantities, `500m`, `1k`, `1.5Gi`, `2e3`, as milli-units, which is what all arithmetic on them is done
//! in (`resource.Quantity` and its `MilliValue` in k8s.io/apimachinery, `pkg/api/resource`).

use std::str::FromStr;

/// So many digits are read at most; nobody means more, and they fit the arithmetic.
const DIGITS_MAX: usize = 36;

/// A quantity in milli-units. What is finer is rounded away from zero; what is larger than fits is the largest that
/// fits, as in Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity {
    /// Thousandths.
    pub milli: i64,
}

/// A text that is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no quantity; write a number, or one with a suffix, such as 500m, 2k or 1Gi")]
pub struct NoQuantity(String);

/// What a suffix means: a power of 1024, or of ten.
enum Scale {
    Binary(u32),
    Decimal(i32),
}

impl FromStr for Quantity {
    type Err = NoQuantity;

    fn from_str(text: &str) -> Result<Self, NoQuantity> {
        parse(text).ok_or_else(|| NoQuantity(text.into()))
    }
}

fn parse(text: &str) -> Option<Quantity> {
    let (is_negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.len() > DIGITS_MAX || fraction.contains('.') {
        return None;
    }
    let mantissa: i128 = digits.parse().ok()?;
    let magnitude = scaled(mantissa, &scale(suffix)?, fraction.len());
    let milli = i64::try_from(magnitude).unwrap_or(i64::MAX);
    Some(Quantity { milli: if is_negative { -milli } else { milli } })
}

fn scale(suffix: &str) -> Option<Scale> {
    Some(match suffix {
        "Ki" => Scale::Binary(1),
        "Mi" => Scale::Binary(2),
        "Gi" => Scale::Binary(3),
        "Ti" => Scale::Binary(4),
        "Pi" => Scale::Binary(5),
        "Ei" => Scale::Binary(6),
        "n" => Scale::Decimal(-9),
        "u" => Scale::Decimal(-6),
        "m" => Scale::Decimal(-3),
        "" => Scale::Decimal(0),
        "k" => Scale::Decimal(3),
        "M" => Scale::Decimal(6),
        "G" => Scale::Decimal(9),
        "T" => Scale::Decimal(12),
        "P" => Scale::Decimal(15),
        "E" => Scale::Decimal(18),
        _ => Scale::Decimal(exponent(suffix.strip_prefix(['e', 'E'])?)?),
    })
}

fn exponent(text: &str) -> Option<i32> {
    text.parse().ok().filter(|exponent: &i32| exponent.unsigned_abs() <= 1_000)
}

/// `mantissa` × `scale` in thousandths, where the last `fraction` digits of `mantissa` stood behind the point.
fn scaled(mantissa: i128, scale: &Scale, fraction: usize) -> i128 {
    let (factor, power) = match scale {
        Scale::Binary(power) => (1024_i128.pow(*power), 3),
        Scale::Decimal(power) => (1, power + 3),
    };
    let power = power - i32::try_from(fraction).unwrap_or(i32::MAX);
    let Some(value) = mantissa.checked_mul(factor) else { return i128::MAX };
    let Some(ten) = 10_i128.checked_pow(power.unsigned_abs()) else {
        return if power < 0 { i128::from(value > 0) } else { value.saturating_mul(i128::MAX) };
    };
    if power < 0 { value / ten + i128::from(value % ten > 0) } else { value.saturating_mul(ten) }
}

/// Milli-units as people read them: `1500` is `1.5`.
pub fn decimal(milli: i64) -> String {
    let sign = if milli < 0 { "-" } else { "" };
    let (whole, rest) = (milli.unsigned_abs() / 1_000, milli.unsigned_abs() % 1_000);
    if rest == 0 {
        return format!("{sign}{whole}");
    }
    format!("{sign}{whole}.{}", format!("{rest:03}").trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_thousandths() {
        for (text, milli) in [
            ("1", 1_000),
            ("500m", 500),
            ("0.5", 500),
            (".5", 500),
            ("5.", 5_000),
            ("1k", 1_000_000),
            ("1Ki", 1_024_000),
            ("1.5Gi", 1_610_612_736_000),
            ("1Gi", 1_073_741_824_000),
            ("2e3", 2_000_000),
            ("2E3", 2_000_000),
            ("2E", i64::MAX),
            ("12e-1", 1_200),
            ("100n", 1),
            ("1u", 1),
            ("0n", 0),
            ("1001u", 2),
            ("-1500m", -1_500),
            ("-1u", -1),
            ("+3", 3_000),
            ("0e999", 0),
            ("1e-999", 1),
            ("1e999", i64::MAX),
            ("-99Ei", -i64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(Quantity { milli }), "{text}");
        }
    }

    #[test]
    fn as_people_read_them() {
        for (milli, text) in
            [(1_500, "1.5"), (-30, "-0.03"), (2_000, "2"), (0, "0"), (i64::MIN, "-9223372036854775.808")]
        {
            assert_eq!(decimal(milli), text);
        }
    }

    #[test]
    fn no_quantities() {
        for text in [
            "", "-", ".", "m", "1 k", "1kk", "1K", "1e", "1e1.5", "1e9999", "0x10", "NaN", "1.2.3", "ten",
            "１",
        ] {
            assert_eq!(text.parse::<Quantity>(), Err(NoQuantity(text.into())), "{text}");
        }
        assert!("1".repeat(37).parse::<Quantity>().is_err());
    }
}
