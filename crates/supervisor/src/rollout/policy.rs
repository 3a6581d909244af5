//! How carefully one version takes another's place.

use std::time::Duration;

/// How carefully a version takes another's place, and what makes it go back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The share of the wanted workers that can always answer, in percent; 0 to 100. Rounded up to whole workers, as
    /// "minimum healthy percentage" of an instance refresh (Amazon EC2 Auto Scaling) and, as its complement, which is
    /// rounded down, `maxUnavailable` of a Deployment (Kubernetes).
    pub min_healthy_percent: u8,
    /// How many more workers there may be than are wanted, in percent of those; at least one. Rounded up, as `maxSurge`
    /// of a Deployment (Kubernetes).
    pub max_surge_percent: u16,
    /// How long a new worker may be without being ready, and for how long after its start its health does not matter.
    pub grace: Duration,
    /// How long a new worker must have been ready before it counts.
    pub warm_up: Duration,
    /// For how long after it is ready it does not count how fast a new worker answers, if that is longer than `warm_up`:
    /// its caches are empty and its code is not compiled.
    pub cold: Duration,
    /// Shares of new workers, in percent and rising, at each of which there is a pause.
    pub checkpoints: Vec<u8>,
    /// How long each of those pauses is.
    pub pause: Duration,
    /// How long the new version is watched after the last old worker has left.
    pub bake: Duration,
    /// Whether the old version comes back when the new one answers worse or its workers fail after they were ready. It
    /// does whenever the new one does not start.
    pub goes_back: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            min_healthy_percent: 90,
            max_surge_percent: 25,
            grace: Duration::from_secs(120),
            warm_up: Duration::ZERO,
            cold: Duration::from_secs(3),
            checkpoints: Vec::new(),
            pause: Duration::from_secs(60),
            bake: Duration::from_secs(30),
            goes_back: true,
        }
    }
}

impl Policy {
    /// How many of `wanted` workers can always answer.
    pub fn least(&self, wanted: usize) -> usize {
        (wanted * usize::from(self.min_healthy_percent)).div_ceil(100)
    }

    /// How many there may be when `wanted` are wanted.
    pub fn most(&self, wanted: usize) -> usize {
        wanted + (wanted * usize::from(self.max_surge_percent)).div_ceil(100).max(1)
    }

    /// How many new workers there are to be at a checkpoint.
    pub(crate) fn at(&self, percent: u8, wanted: usize) -> usize {
        (wanted * usize::from(percent)).div_ceil(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounded_as_kubernetes_and_aws_round() {
        // wanted, least of 90 %, most with 25 %
        for (wanted, least, most) in [
            (0, 0, 1),
            (1, 1, 2),
            (2, 2, 3),
            (3, 3, 4),
            (4, 4, 5),
            (5, 5, 7),
            (10, 9, 13),
            (11, 10, 14),
            (100, 90, 125),
        ] {
            let policy = Policy::default();
            assert_eq!((policy.least(wanted), policy.most(wanted)), (least, most), "{wanted}");
        }
        // "maxUnavailable" 25 % of 10 is rounded down to 2, "maxSurge" 25 % up to 3 (Kubernetes, Deployments).
        let policy = Policy { min_healthy_percent: 75, ..Policy::default() };
        assert_eq!((policy.least(10), policy.most(10)), (8, 13));
        assert_eq!([1, 10, 50, 99].map(|percent| policy.at(percent, 3)), [1, 1, 2, 3]);
    }
}
