//! A latency histogram with one writer: log-linear, eight buckets to each doubling, so that a value is known to
//! within 12.5 % whatever its size. It is fixed in size, and recording is two plain memory operations.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Buckets to each doubling, as a power of two.
const SUB_BITS: u32 = 3;
const SUB: u64 = 1 << SUB_BITS;
/// Values from here on share the last bucket: 2^30 µs, about 18 minutes.
const LARGEST_BITS: u32 = 30;
const BUCKETS: usize = ((LARGEST_BITS - SUB_BITS + 1) as usize) << SUB_BITS;

/// Counts of microseconds, written by one thread and read by any.
pub(crate) struct Histogram {
    counts: Box<[AtomicU64]>,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Counts one value. Only ever called by the one thread that owns the histogram.
    pub(crate) fn record(&self, micros: u64) {
        let count = &self.counts[bucket(micros)];
        count.store(count.load(Relaxed) + 1, Relaxed);
    }

    /// Adds all counts to `sums`, which has one place for each bucket.
    pub(crate) fn add_to(&self, sums: &mut Sums) {
        for (sum, count) in sums.0.iter_mut().zip(&self.counts) {
            *sum += count.load(Relaxed);
        }
    }
}

/// Histograms of several cores, added up.
pub(crate) struct Sums(Box<[u64]>);

impl Sums {
    pub(crate) fn new() -> Self {
        Self(vec![0; BUCKETS].into())
    }

    /// `(upper bound in microseconds, count)` of the buckets that are not empty, upwards.
    pub(crate) fn buckets(&self) -> Vec<(u64, u64)> {
        let counts = self.0.iter().copied().enumerate();
        counts.filter(|&(_, count)| count > 0).map(|(index, count)| (upper(index), count)).collect()
    }
}

/// The bucket of a value: the first eight hold one value each, from there each doubling is cut in eight.
fn bucket(micros: u64) -> usize {
    let micros = micros.min((1 << LARGEST_BITS) - 1);
    if micros < SUB {
        return micros as usize;
    }
    let octave = micros.ilog2() - SUB_BITS;
    (((u64::from(octave) + 1) << SUB_BITS) + ((micros >> octave) - SUB)) as usize
}

/// The largest value of a bucket.
fn upper(index: usize) -> u64 {
    let (octave, sub) = (index as u64 >> SUB_BITS, index as u64 & (SUB - 1));
    if octave == 0 { sub } else { ((SUB + sub + 1) << (octave - 1)) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_within_an_eighth_below_its_bound() {
        let mut previous = 0;
        for micros in
            (0..5_000).chain((13..30).flat_map(|bits| [(1 << bits) - 1, 1 << bits, (1 << bits) + 1]))
        {
            let bound = upper(bucket(micros));
            assert!(bound >= micros, "{micros} is above {bound}");
            assert!((bound - micros) * 8 <= micros, "{micros} is known only as up to {bound}");
            assert!(bound >= previous, "bounds rise");
            previous = bound;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn sums_over_cores() {
        let (one, two) = (Histogram::new(), Histogram::new());
        one.record(3);
        two.record(3);
        two.record(1000);
        let mut sums = Sums::new();
        one.add_to(&mut sums);
        two.add_to(&mut sums);
        assert_eq!(sums.buckets(), [(3, 2), (1023, 1)]);
    }
}
