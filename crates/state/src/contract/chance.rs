//! Chance that can be repeated: random numbers from a seed, which is printed.

use std::time::{SystemTime, UNIX_EPOCH};

/// Sets the seed of random calls.
const SEED: &str = "LETHE_TEST_SEED";

/// Random numbers that a seed repeats (xorshift64*; Vigna 2016).
pub(super) struct Random(u64);

impl Random {
    /// Those of one client of many.
    pub(super) fn new(seed: u64, client: u64) -> Self {
        Self(seed.wrapping_mul(client) | 1)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}

/// The seed that is given, or the time.
#[allow(clippy::print_stderr, reason = "the seed repeats a failure")]
pub(super) fn seed() -> u64 {
    let given = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seed =
        given.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64);
    eprintln!("{SEED}={seed}");
    seed
}
