//! The adaptive limit, as a pure function of what was measured. It follows the gradient between the latency that a
//! worker has without a queue and the one it has now, as Netflix's concurrency-limits describes it: while the two are
//! near, the limit grows by a queue allowance of its square root; when requests wait for each other inside the worker,
//! it shrinks in that proportion.
//!
//! The latency without a queue, the norm, is not known, only approached. It falls quickly to whatever is measured. It
//! never rises by what is measured under load, or else the queue would be taken for the norm and the limit would creep up
//! without end. Instead it is measured anew now and then, by a probe: for a moment the limit is a quarter of itself, so
//! that no queue is left. So a worker that has become slower for good is given its due after one probe.

/// The latency may be so many times the one without a queue before the limit shrinks.
const TOLERANCE: f64 = 1.5;
/// At most so much of the limit goes in one window.
const GRADIENT_MIN: f64 = 0.5;
/// How much of the way to the new limit is gone in one window.
const SMOOTHING: f64 = 0.2;
/// How much of the way down the norm goes in one window.
const NORM_DOWN: f64 = 0.2;
/// From one probe to the next, in windows; the first one comes earlier, as it may be that there was always a queue.
const PROBE_EVERY: u32 = 300;
const PROBE_FIRST: u32 = 10;
/// A probe's windows. In the last one the norm is measured; in those before, what was inside runs out.
const PROBE_WINDOWS: u32 = 3;
/// What a probe leaves of the limit.
const PROBE_PART: f64 = 0.25;
/// What it begins with, within its bounds.
const FIRST: f64 = 20.0;

/// Between which numbers the limit stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    min: u32,
    max: u32,
}

impl Bounds {
    /// At least 1, and `max` no less than `min`.
    pub(crate) fn new(min: u32, max: u32) -> Self {
        let min = min.max(1);
        Self { min, max: max.max(min) }
    }
}

/// What one window showed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// The mean latency.
    pub(crate) latency_us: f64,
    /// The most that were inside one worker.
    pub(crate) in_flight: u64,
}

/// The limit, and the latency that is taken for the one without a queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Gradient {
    limit: f64,
    /// `None` before the first window.
    norm_us: Option<f64>,
    /// So many windows, until the next probe has ended.
    to_probe: u32,
}

impl Gradient {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let limit = FIRST.clamp(f64::from(bounds.min), f64::from(bounds.max));
        Self { limit, norm_us: None, to_probe: PROBE_FIRST }
    }

    /// The limit in whole requests.
    pub(crate) fn limit(self, bounds: Bounds) -> u32 {
        let part = if self.to_probe < PROBE_WINDOWS { PROBE_PART } else { 1.0 };
        ((self.limit * part).round() as u32).clamp(bounds.min, bounds.max)
    }

    /// What follows from one more window.
    pub(crate) fn next(self, sample: Sample, bounds: Bounds) -> Self {
        let (min, max) = (f64::from(bounds.min), f64::from(bounds.max));
        let limit = self.limit.clamp(min, max);
        let Some(to_probe) = self.to_probe.checked_sub(1) else {
            return Self { limit, norm_us: Some(sample.latency_us), to_probe: PROBE_EVERY };
        };
        let norm_us = self.norm_us.unwrap_or(sample.latency_us);
        let fall = (norm_us - sample.latency_us).max(0.0) * NORM_DOWN;
        let next = Self { limit, norm_us: Some(norm_us - fall), to_probe };
        if self.to_probe < PROBE_WINDOWS {
            return next;
        }
        let gradient = (TOLERANCE * norm_us / sample.latency_us.max(1.0)).clamp(GRADIENT_MIN, 1.0);
        // A limit that nobody comes near says nothing about itself, and is not raised by that.
        if (sample.in_flight as f64) < limit / 2.0 && gradient >= 1.0 {
            return next;
        }
        let wanted = limit * gradient + limit.sqrt();
        Self { limit: (limit + (wanted - limit) * SMOOTHING).clamp(min, max), ..next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(limit: f64, norm_us: Option<f64>, sample: (f64, u64), expected: (f64, f64)) {
        let sample = Sample { latency_us: sample.0, in_flight: sample.1 };
        let next = Gradient { limit, norm_us, to_probe: 99 }.next(sample, Bounds::new(4, 200));
        let (limit, norm_us) = (next.limit, next.norm_us.unwrap());
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(limit, expected.0) && near(norm_us, expected.1), "{sample:?}: {limit} {norm_us}");
    }

    #[test]
    fn steps() {
        // The first window is the norm; the limit grows by a fifth of its root.
        check(100.0, None, (1000.0, 100), (102.0, 1000.0));
        // Within the tolerance: it grows.
        check(100.0, Some(1000.0), (1300.0, 100), (102.0, 1000.0));
        // Beyond it: it shrinks.
        check(100.0, Some(1000.0), (2000.0, 100), (97.0, 1000.0));
        // Far beyond: by half at most, a fifth of the way.
        check(100.0, Some(1000.0), (90_000.0, 100), (92.0, 1000.0));
        // Faster than the norm: that falls quickly.
        check(100.0, Some(1000.0), (500.0, 100), (102.0, 900.0));
        // Nobody comes near the limit: it stays.
        check(100.0, Some(1000.0), (1000.0, 49), (100.0, 1000.0));
        // Yet a worker that is slow with few requests is slow.
        check(100.0, Some(1000.0), (2000.0, 49), (97.0, 1000.0));
        // The lowest and the highest.
        check(4.0, Some(1000.0), (9000.0, 4), (4.0, 1000.0));
        check(200.0, Some(1000.0), (1000.0, 200), (200.0, 1000.0));
    }

    /// A worker that does `knee` requests at a time, each within `base_us`, and lets others wait inside itself; always
    /// as many requests as it gets, with a latency that wavers by a tenth.
    fn simulate(
        gradient: &mut Gradient,
        bounds: Bounds,
        base_us: f64,
        knee: f64,
        windows: usize,
    ) -> Vec<f64> {
        let mut limits = Vec::new();
        let mut noise = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..windows {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            let waver = 0.9 + 0.2 * (noise >> 11) as f64 / (1u64 << 53) as f64;
            let in_flight = f64::from(gradient.limit(bounds));
            let latency_us = base_us * (in_flight / knee).max(1.0) * waver;
            *gradient = gradient.next(Sample { latency_us, in_flight: in_flight as u64 }, bounds);
            limits.push(gradient.limit);
        }
        limits
    }

    /// After a while the limit is at the knee or a bounded queue above it, and stays there.
    fn converges(mut gradient: Gradient, base_us: f64, knee: f64) -> Gradient {
        let limits = simulate(&mut gradient, Bounds::new(4, 1000), base_us, knee, 6000);
        for (window, limit) in limits.iter().enumerate().skip(1000) {
            let ratio = limit / knee;
            assert!((1.0..2.5).contains(&ratio), "{limit} for a knee of {knee} at window {window}");
        }
        gradient
    }

    #[test]
    fn a_probe_measures_the_norm_without_a_queue() {
        let bounds = Bounds::new(4, 200);
        let mut gradient = Gradient { limit: 100.0, norm_us: Some(1000.0), to_probe: PROBE_WINDOWS };
        let sample = |latency_us| Sample { latency_us, in_flight: 25 };
        let mut limits = Vec::new();
        for latency_us in [2000.0, 2000.0, 1900.0, 1800.0] {
            gradient = gradient.next(sample(latency_us), bounds);
            limits.push(gradient.limit(bounds));
        }
        assert_eq!(limits, [24, 24, 24, 97], "a quarter of what it was");
        assert_eq!((gradient.norm_us, gradient.to_probe), (Some(1800.0), PROBE_EVERY));
    }

    #[test]
    fn it_finds_the_knee_and_does_not_creep() {
        for knee in [8.0, 30.0, 100.0, 400.0] {
            converges(Gradient::new(Bounds::new(4, 1000)), 5000.0, knee);
        }
    }

    #[test]
    fn it_recovers() {
        let found = converges(Gradient::new(Bounds::new(4, 1000)), 5000.0, 100.0);
        // The worker has become six times slower for good: the way leads through the lowest limit and back.
        let slower = converges(found, 30_000.0, 100.0);
        let faster = converges(slower, 1000.0, 100.0);
        // And half of its processors are gone, or come back.
        let smaller = converges(faster, 1000.0, 50.0);
        converges(smaller, 1000.0, 200.0);
    }
}
