//! Money: whole cents, so that no sum is ever off by a rounding.

use std::{fmt, iter::Sum};

use serde::{Deserialize, Serialize};

/// An amount in euro cents. `Display` writes it as `€1,234.50`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cents(pub u64);

impl Cents {
    /// This much, `quantity` times.
    pub fn times(self, quantity: u32) -> Self {
        Self(self.0.saturating_mul(u64::from(quantity)))
    }
}

impl Sum for Cents {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        Self(amounts.fold(0, |sum, amount| sum.saturating_add(amount.0)))
    }
}

impl fmt::Display for Cents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = (self.0 / 100).to_string();
        f.write_str("€")?;
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        write!(f, ".{:02}", self.0 % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_as_prices() {
        for (cents, text) in [
            (0, "€0.00"),
            (5, "€0.05"),
            (1800, "€18.00"),
            (123_450, "€1,234.50"),
            (100_000_000, "€1,000,000.00"),
        ] {
            assert_eq!(Cents(cents).to_string(), text);
        }
    }

    #[test]
    fn sums_and_multiples_never_wrap() {
        assert_eq!([Cents(150), Cents(250)].into_iter().sum::<Cents>(), Cents(400));
        assert_eq!(Cents(u64::MAX).times(2), Cents(u64::MAX));
    }
}
