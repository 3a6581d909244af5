//! A latency histogram with one writer: log-linear, eight buckets to each doubling, so that a value is known to
//! within 12.5 % whatever its size. Recording is a few plain memory operations. There may be one for each of ten
//! thousand workers on each core, so memory is only taken for the ranges in which there are values.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Buckets to each doubling, as a power of two.
const SUB_BITS: u32 = 3;
const SUB: u64 = 1 << SUB_BITS;
/// Values from here on share the last bucket: 2^30 µs, about 18 minutes.
const LARGEST_BITS: u32 = 30;
const BUCKETS: usize = ((LARGEST_BITS - SUB_BITS + 1) as usize) << SUB_BITS;

/// Buckets whose memory is taken together: four doublings, 256 bytes. What one worker does mostly takes one or two.
const RANGE: usize = 32;
const RANGES: usize = BUCKETS.div_ceil(RANGE);

/// Counts of microseconds, written by one thread and read by any.
#[derive(Default)]
pub(crate) struct Histogram {
    ranges: [OnceLock<Box<[AtomicU64; RANGE]>>; RANGES],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Counts one value. Only ever called by the one thread that owns the histogram.
    pub(crate) fn record(&self, micros: u64) {
        let bucket = bucket(micros);
        let count = &self.ranges[bucket / RANGE].get_or_init(Box::default)[bucket % RANGE];
        count.store(count.load(Relaxed) + 1, Relaxed);
        self.sum_us.store(self.sum_us.load(Relaxed).wrapping_add(micros), Relaxed);
    }

    /// Adds all counts to `sums`.
    pub(crate) fn add_to(&self, sums: &mut Sums) {
        for (sums, counts) in sums.counts.chunks_mut(RANGE).zip(&self.ranges) {
            for (sum, count) in sums.iter_mut().zip(counts.get().into_iter().flat_map(|counts| counts.iter()))
            {
                *sum += count.load(Relaxed);
            }
        }
        sums.micros = sums.micros.wrapping_add(self.sum_us.load(Relaxed));
    }
}

/// Histograms of several cores, added up.
pub(crate) struct Sums {
    counts: Box<[u64]>,
    micros: u64,
}

impl Sums {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; BUCKETS].into(), micros: 0 }
    }

    /// `(upper bound in microseconds, count)` of the buckets that are not empty, upwards.
    pub(crate) fn buckets(&self) -> Vec<(u64, u64)> {
        let counts = self.counts.iter().copied().enumerate();
        counts.filter(|&(_, count)| count > 0).map(|(index, count)| (upper(index), count)).collect()
    }

    /// The sum of all values, in microseconds.
    pub(crate) fn micros(&self) -> u64 {
        self.micros
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
        let (one, two) = (Histogram::default(), Histogram::default());
        one.record(3);
        two.record(3);
        two.record(1000);
        let mut sums = Sums::new();
        one.add_to(&mut sums);
        two.add_to(&mut sums);
        assert_eq!(sums.buckets(), [(3, 2), (1023, 1)]);
        assert_eq!(sums.micros(), 1006);
    }

    #[test]
    fn every_bucket_is_counted_where_it_is_read() {
        for index in 0..BUCKETS {
            let (histogram, mut sums) = (Histogram::default(), Sums::new());
            histogram.record(upper(index));
            histogram.add_to(&mut sums);
            assert_eq!(sums.buckets(), [(upper(index), 1)]);
        }
    }

    #[test]
    fn memory_follows_the_values() {
        let histogram = Histogram::default();
        let taken = || histogram.ranges.iter().filter(|range| range.get().is_some()).count();
        assert_eq!((taken(), size_of::<Histogram>()), (0, RANGES * 16 + 8));
        (64..1024).for_each(|micros| histogram.record(micros));
        assert_eq!(taken(), 1);
    }
}
