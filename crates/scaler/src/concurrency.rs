//! Workers by requests in flight, over a long window and a short one that takes over when load leaps up: the rules of
//! Knative's Pod Autoscaler. They are in its documentation ("Additional autoscaling configuration for Knative Pod
//! Autoscaler") and in `Scale` of knative/serving, `pkg/autoscaler/scaling/autoscaler.go`.

use std::time::Duration;

use crate::{history::Recommendation, time::Time};

/// What is wished. The defaults are Knative's (`config-autoscaler`).
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// No fewer.
    pub min: u32,
    /// No more.
    pub max: u32,
    /// So many requests in flight for each worker; above zero. Knative aims at 70 % of what a worker can have.
    pub target: f64,
    /// The long window, which decides while all is calm.
    pub stable_window: Duration,
    /// The short window, which decides in panic.
    pub panic_window: Duration,
    /// Panic begins when the short window asks for so many times as many workers as are ready.
    pub panic_threshold: f64,
    /// No more than so many times as many at once.
    pub up_rate_max: f64,
    /// No fewer than this fraction of them at once.
    pub down_rate_max: f64,
    /// Fewer only when fewer were enough for all of so long.
    pub down_delay: Duration,
    /// If any worker is needed, then so many.
    pub activation: u32,
}

impl Spec {
    /// With Knative's defaults.
    pub fn new(min: u32, max: u32, target: f64) -> Self {
        Self {
            min,
            max,
            target,
            stable_window: Duration::from_secs(60),
            panic_window: Duration::from_secs(6),
            panic_threshold: 2.0,
            up_rate_max: 1_000.0,
            down_rate_max: 2.0,
            down_delay: Duration::ZERO,
            activation: 1,
        }
    }
}

/// What was measured: requests in flight at all workers together, on average over each window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Samples {
    /// Workers that get requests.
    pub ready: u32,
    /// Over the long window.
    pub stable: f64,
    /// Over the short window.
    pub panic: f64,
}

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// The panic, while there is one.
    pub panic: Option<Panic>,
    /// What was decided within the delay.
    pub decided: Vec<Recommendation>,
}

/// A panic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Panic {
    /// When its threshold was last exceeded.
    pub last: Time,
    /// The most workers that it asked for; in panic there are no fewer.
    pub most: u32,
}

/// How many workers there should be, why, and what to remember.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// So many.
    pub desired: u32,
    /// Sentences.
    pub reasons: Vec<String>,
    /// For the next decision.
    pub history: History,
}

/// Decides.
pub fn decide(spec: &Spec, history: &History, samples: &Samples, now: Time) -> Decision {
    let ready = f64::from(samples.ready.max(1));
    // Rounded up, or one worker could never become two.
    let most = (spec.up_rate_max * ready).ceil();
    let least = (ready / spec.down_rate_max).floor();
    let asked = |in_flight: f64| (in_flight / spec.target).ceil();
    let reachable = |workers: f64| {
        let count = workers.max(least).min(most) as u32;
        if workers > 0.0 { count.max(spec.activation) } else { count }
    };
    let (stable, urgent) = (reachable(asked(samples.stable)), reachable(asked(samples.panic)));
    let is_over = asked(samples.panic) / ready >= spec.panic_threshold;
    let mut reasons = vec![
        format!(
            "{:.2} in flight over {:?}, {} for each: {stable}",
            samples.stable, spec.stable_window, spec.target
        ),
        format!("{:.2} in flight over {:?}: {urgent}", samples.panic, spec.panic_window),
    ];
    let panic = match history.panic {
        _ if is_over => Some(Panic { last: now, most: history.panic.map_or(0, |panic| panic.most) }),
        Some(panic) if panic.last.plus(spec.stable_window) >= now => Some(panic),
        _ => None,
    };
    // In panic the number only grows.
    let panic = panic.map(|panic| Panic { most: panic.most.max(stable).max(urgent), ..panic });
    let wanted = panic.map_or(stable, |panic| panic.most);
    if panic.is_some() {
        reasons.push(format!("panic: no fewer than {wanted} until the long window has caught up"));
    }
    let (delayed, decided) = delayed(wanted, history, spec.down_delay, now);
    if delayed != wanted {
        reasons.push(format!("{delayed} rather than {wanted}: needed within the last {:?}", spec.down_delay));
    }
    let desired = delayed.clamp(spec.min, spec.max.max(spec.min));
    if desired != delayed {
        reasons
            .push(format!("{desired} rather than {delayed}: from {} to {} are allowed", spec.min, spec.max));
    }
    Decision { desired, reasons, history: History { panic, decided } }
}

/// The most of what was wanted within the delay, and what is to be remembered of it.
fn delayed(wanted: u32, history: &History, delay: Duration, now: Time) -> (u32, Vec<Recommendation>) {
    if delay.is_zero() {
        return (wanted, Vec::new());
    }
    let edge = now.minus(delay);
    let mut decided: Vec<_> = history.decided.iter().copied().filter(|old| old.t > edge).collect();
    decided.push(Recommendation { t: now, replicas: wanted });
    (decided.iter().map(|old| old.replicas).max().unwrap_or(wanted), decided)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    fn decided(spec: &Spec, ready: u32, stable: f64, panic: f64) -> u32 {
        decide(spec, &History::default(), &Samples { ready, stable, panic }, at(1_000)).desired
    }

    #[test]
    fn each_rule_by_itself() {
        let spec = Spec::new(0, 1_000, 10.0);
        for (rule, spec, (ready, stable, panic), desired) in [
            // 75 ÷ 10 = 7.5
            ("the long window ÷ target, rounded up", spec.clone(), (5, 75.0, 75.0), 8),
            // 99 ÷ 10 = 9.9 → 10, which is 1.67 × 6: no panic.
            ("below the threshold the short window counts for nothing", spec.clone(), (6, 60.0, 99.0), 6),
            // 100 ÷ 10 = 10, which is 2 × 5.
            (
                "at the threshold it is panic, and the larger of both counts",
                spec.clone(),
                (5, 60.0, 100.0),
                10,
            ),
            // Long 120 ÷ 10 = 12 beats short 10.
            ("in panic the long window may ask for more", spec.clone(), (5, 120.0, 100.0), 12),
            // 0 ÷ 10 = 0, but 9 ÷ 2 = 4.5 → 4.
            ("not below half at once, rounded down", spec.clone(), (9, 0.0, 0.0), 4),
            ("one ready worker leaves to zero", spec.clone(), (1, 0.0, 0.0), 0),
            ("no ready worker counts as one", spec.clone(), (0, 15.0, 15.0), 2),
            // 1.1 × 2 = 2.2 → 3, though 5 are asked for.
            (
                "not above the rate at once, rounded up",
                Spec { up_rate_max: 1.1, ..spec.clone() },
                (2, 50.0, 30.0),
                3,
            ),
            ("if any, then so many", Spec { activation: 3, ..spec.clone() }, (1, 5.0, 5.0), 3),
            ("if none, then none", Spec { activation: 3, ..spec.clone() }, (1, 0.0, 0.0), 0),
            ("the bounds come last", Spec { max: 7, ..spec.clone() }, (5, 75.0, 75.0), 7),
            ("both of them", Spec { min: 2, ..spec }, (1, 0.0, 0.0), 2),
        ] {
            assert_eq!(decided(&spec, ready, stable, panic), desired, "{rule}");
        }
    }

    #[test]
    fn panic_only_adds_and_ends_after_a_calm_long_window() {
        let spec = Spec::new(1, 100, 10.0);
        let calm = Samples { ready: 10, stable: 30.0, panic: 20.0 };
        let leap =
            decide(&spec, &History::default(), &Samples { ready: 3, stable: 30.0, panic: 95.0 }, at(0));
        assert_eq!(leap.desired, 10);
        let before = decide(&spec, &leap.history, &calm, at(60));
        assert_eq!(before.desired, 10, "at the end of the window it is still panic");
        // 30 ÷ 10 = 3, but not below half of 10.
        assert_eq!(decide(&spec, &before.history, &calm, at(61)).desired, 5);
        let again = decide(&spec, &leap.history, &Samples { ready: 4, stable: 30.0, panic: 80.0 }, at(50));
        assert_eq!(
            decide(&spec, &again.history, &calm, at(110)).desired,
            10,
            "each leap begins the window anew"
        );
    }

    #[test]
    fn the_delay_keeps_the_most_that_was_wanted() {
        let spec = Spec { down_delay: Duration::from_secs(30), ..Spec::new(0, 100, 10.0) };
        let mut history = History::default();
        let wanted = [(0, 80.0, 8), (10, 50.0, 8), (29, 50.0, 8), (30, 50.0, 5), (31, 90.0, 9)];
        for (seconds, in_flight, desired) in wanted {
            let samples = Samples { ready: 8, stable: in_flight, panic: in_flight };
            let decision = decide(&spec, &history, &samples, at(seconds));
            assert_eq!(decision.desired, desired, "at {seconds} s: {:?}", decision.reasons);
            history = decision.history;
        }
    }
}
