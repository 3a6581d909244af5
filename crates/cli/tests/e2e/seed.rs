//! Seeded randomness: a test prints its seed, and `LETHE_TEST_SEED` runs it again with the same.

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    /// Takes the seed from `LETHE_TEST_SEED`, else from the clock, and prints it.
    pub fn for_test(name: &str) -> Self {
        let seed =
            std::env::var("LETHE_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
                std::time::SystemTime::UNIX_EPOCH.elapsed().expect("the clock is after 1970").as_nanos()
                    as u64
            });
        println!("{name}: LETHE_TEST_SEED={seed}");
        Self(seed)
    }

    /// Another generator, for a task of its own.
    pub fn split(&mut self) -> Self {
        Self(self.next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
