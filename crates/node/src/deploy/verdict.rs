//! Whether a new version answers worse than the old one. Pure: two tallies in, a sentence out.
//!
//! Both questions, how many answers fail and how many are slow, are one: whether a share is larger among the new version's
//! answers than among the old one's by more than what is allowed. That is a test of two proportions with a margin: the
//! difference less the margin, in standard errors of the difference, each share estimated with one success and one failure
//! more (A. Agresti and B. Caffo, "Simple and effective confidence intervals for proportions and differences of
//! proportions", The American Statistician 54, 2000), since without them a share of 0 or 1 would have no error at all.

use std::collections::BTreeMap;

/// What is allowed before a version goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// How many more of a hundred answers may fail than of the old version's; `None` for any number.
    pub errors_percent: Option<u16>,
    /// How much longer than the old version's 95 of 100 answers may take, in percent; `None` for any time.
    pub latency_percent: Option<u16>,
    /// Fewer answers than these say nothing, of either version.
    pub requests_min: u64,
}

impl Default for Guard {
    fn default() -> Self {
        Self { errors_percent: Some(1), latency_percent: Some(100), requests_min: 50 }
    }
}

/// How sure one must be, in standard errors. Less than one in 30,000 lies beyond by chance (one-sided normal
/// distribution), as the question is asked each second.
const SURE: f64 = 4.0;
/// The share of the old version's answers that count as slow by definition: those above its 95th percentile.
const SLOW_SHARE: f64 = 0.05;
/// How much larger the new version's share of slow answers may be.
const SLOW_MARGIN: f64 = 0.05;
/// What a latency may be longer in any case: less is the machine's noise.
const SLOW_FLOOR_US: u64 = 5_000;
/// The share of failing answers that is too much when there is nothing to compare with.
const ALONE: f64 = 0.5;

/// What was counted of the workers of one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Attempts, answered or not.
    pub attempts: u64,
    /// Those that failed: 5xx but for 501 and 505, and those without an answer.
    pub failed: u64,
    /// Time to the head of the answer: upper bound of the bucket in microseconds, and count.
    pub latency_us: BTreeMap<u64, u64>,
}

impl Tally {
    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.attempts += other.attempts;
        self.failed += other.failed;
        for (bound, count) in &other.latency_us {
            *self.latency_us.entry(*bound).or_default() += count;
        }
    }

    fn answers(&self) -> u64 {
        self.latency_us.values().sum()
    }

    /// Answers that took longer than `bound_us`, as far as the buckets can tell.
    fn slower_than(&self, bound_us: u64) -> u64 {
        self.latency_us.range(bound_us + 1..).map(|(_, count)| count).sum()
    }

    /// What `share` of the answers did not take longer than.
    fn quantile(&self, share: f64) -> Option<u64> {
        let wanted = (self.answers() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        self.latency_us.iter().find_map(|(bound, count)| {
            seen += count;
            (seen >= wanted).then_some(*bound)
        })
    }
}

/// In which way `new` answers worse than `old` by more than `guard` allows, for people.
pub fn judge(guard: &Guard, old: &Tally, new: &Tally) -> Option<String> {
    errors(guard, old, new).or_else(|| slowness(guard, old, new))
}

fn errors(guard: &Guard, old: &Tally, new: &Tally) -> Option<String> {
    let margin = f64::from(guard.errors_percent?) / 100.0;
    if new.attempts < guard.requests_min {
        return None;
    }
    let (failing, of) = (new.failed, new.attempts);
    let shown = format!("{:.1} % of its {of} answers fail", percent(failing, of));
    if old.attempts < guard.requests_min {
        let is_bad = excess((0, 0), (failing, of), ALONE) > SURE;
        return is_bad.then(|| format!("{shown}; of the old version there are too few to compare with"));
    }
    let is_worse = excess((old.failed, old.attempts), (failing, of), margin) > SURE;
    is_worse.then(|| {
        format!(
            "{shown}, {:.1} % of {} of the old version's",
            percent(old.failed, old.attempts),
            old.attempts
        )
    })
}

fn slowness(guard: &Guard, old: &Tally, new: &Tally) -> Option<String> {
    let factor = 1.0 + f64::from(guard.latency_percent?) / 100.0;
    let (before, now) = (old.answers(), new.answers());
    if before < guard.requests_min || now < guard.requests_min {
        return None;
    }
    let usual = old.quantile(1.0 - SLOW_SHARE)?;
    let bound = ((usual as f64 * factor) as u64).max(usual + SLOW_FLOOR_US);
    let slow = new.slower_than(bound);
    let is_worse = excess((old.slower_than(bound), before), (slow, now), SLOW_MARGIN) > SURE;
    let ms = |us: u64| format!("{:.1} ms", us as f64 / 1000.0);
    is_worse.then(|| {
        let p95 = new.quantile(1.0 - SLOW_SHARE).unwrap_or(bound);
        format!("95 of 100 answers take up to {}, those of the old version up to {}", ms(p95), ms(usual))
    })
}

/// By how many standard errors the second share is larger than the first and the margin. Without any of the first, the
/// margin is what the second is held against.
fn excess((bad_old, old): (u64, u64), (bad_new, new): (u64, u64), margin: f64) -> f64 {
    let share = |bad: u64, all: u64| (bad as f64 + 1.0) / (all as f64 + 2.0);
    let variance = |share: f64, all: u64| share * (1.0 - share) / (all as f64 + 2.0);
    let second = share(bad_new, new);
    let (first, error) = match old {
        0 => (0.0, 0.0),
        old => {
            let first = share(bad_old, old);
            (first, variance(first, old))
        }
    };
    (second - first - margin) / (error + variance(second, new)).sqrt()
}

fn percent(part: u64, all: u64) -> f64 {
    part as f64 / all.max(1) as f64 * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(attempts: u64, failed: u64, latencies: &[(u64, u64)]) -> Tally {
        Tally { attempts, failed, latency_us: latencies.iter().copied().collect() }
    }

    #[test]
    fn errors_of_both() {
        let guard = Guard::default();
        // Old: attempts and failed; new: attempts and failed; worse?
        let cases = [
            // Too few say nothing, however bad they are.
            ((1000, 0), (3, 1), false),
            ((1000, 0), (49, 49), false),
            ((1000, 0), (50, 50), true),
            ((1000, 0), (50, 0), false),
            // One of a hundred more is allowed, and a little more may be chance.
            ((1000, 0), (1000, 10), false),
            ((1000, 0), (1000, 20), false),
            ((1000, 0), (1000, 40), true),
            ((100_000, 0), (100_000, 1_100), false),
            ((100_000, 0), (100_000, 1_500), true),
            ((1000, 0), (100, 3), false),
            ((1000, 0), (100, 20), true),
            // The old one fails as well: then it is not the version.
            ((1000, 300), (1000, 300), false),
            ((1000, 300), (1000, 330), false),
            ((1000, 300), (1000, 450), true),
            ((1000, 1000), (1000, 1000), false),
            // Better is not worse.
            ((1000, 500), (1000, 0), false),
            // Nothing to compare with: half of them must fail.
            ((0, 0), (100, 30), false),
            ((0, 0), (100, 50), false),
            ((0, 0), (100, 90), true),
            ((49, 49), (100, 100), true),
        ];
        for ((old, bad_old), (new, bad_new), expected) in cases {
            let verdict = judge(&guard, &tally(old, bad_old, &[]), &tally(new, bad_new, &[]));
            assert_eq!(verdict.is_some(), expected, "{bad_old} of {old}, {bad_new} of {new}: {verdict:?}");
        }
        let off = Guard { errors_percent: None, ..guard };
        assert_eq!(judge(&off, &tally(1000, 0, &[]), &tally(1000, 1000, &[])), None);
        let said = judge(&guard, &tally(1000, 10, &[]), &tally(200, 100, &[])).unwrap();
        assert_eq!(said, "50.0 % of its 200 answers fail, 1.0 % of 1000 of the old version's");
    }

    #[test]
    fn latencies_of_both() {
        let guard = Guard::default();
        let usual: &[(u64, u64)] = &[(10_000, 900), (20_000, 100)];
        // Latencies of the old and the new version, in buckets; worse?
        let cases: [(&[_], &[_], bool); 12] = [
            (usual, usual, false),
            // Twice the 95th percentile (20 ms) is allowed.
            (usual, &[(40_000, 1000)], false),
            (usual, &[(41_000, 1000)], true),
            // Too few.
            (usual, &[(500_000, 49)], false),
            (usual, &[(500_000, 50)], true),
            (&[(10_000, 49)], &[(500_000, 1000)], false),
            // A few slow ones are no news, many are.
            (usual, &[(10_000, 95), (500_000, 5)], false),
            (usual, &[(10_000, 920), (500_000, 80)], false),
            (usual, &[(10_000, 800), (500_000, 200)], true),
            // Less than 5 ms more is noise, whatever the factor is.
            (&[(300, 1000)], &[(5_000, 1000)], false),
            (&[(300, 1000)], &[(6_000, 1000)], true),
            // Faster is not worse.
            (usual, &[(1_000, 1000)], false),
        ];
        for (old, new, expected) in cases {
            let verdict = judge(&guard, &tally(0, 0, old), &tally(0, 0, new));
            assert_eq!(verdict.is_some(), expected, "{old:?} {new:?}: {verdict:?}");
        }
        let off = Guard { latency_percent: None, ..guard };
        assert_eq!(judge(&off, &tally(0, 0, usual), &tally(0, 0, &[(500_000, 1000)])), None);
        let said = judge(&guard, &tally(0, 0, usual), &tally(0, 0, &[(500_000, 1000)])).unwrap();
        assert_eq!(said, "95 of 100 answers take up to 500.0 ms, those of the old version up to 20.0 ms");
    }

    /// Two thousand comparisons of what is the same.
    #[test]
    fn chance_alone_rolls_nothing_back() {
        let guard = Guard { errors_percent: Some(0), ..Guard::default() };
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut wrong = 0;
        for _ in 0..2_000 {
            let mut fail = |count: u64| (0..count).filter(|_| random() % 20 == 0).count() as u64;
            let (old, new) = (fail(400), fail(400));
            wrong += u32::from(judge(&guard, &tally(400, old, &[]), &tally(400, new, &[])).is_some());
        }
        assert!(wrong <= 2, "{wrong} of 2000");
    }
}
