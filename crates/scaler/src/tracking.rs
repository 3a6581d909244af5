//! Workers so that a number stays at its target, as AWS's target tracking does. Its rules are in the user guides of
//! Amazon EC2 Auto Scaling and Application Auto Scaling ("Target tracking scaling policies", "How target tracking
//! scaling works", "Define cooldown periods"): an alarm above and one below the target, in proportion, out fast and in
//! slowly, with a cooldown after each change.

use std::time::Duration;

use crate::time::Time;

/// What is wished. The defaults are those of the alarms that AWS makes, and of ECS services.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// No fewer.
    pub min: u32,
    /// No more.
    pub max: u32,
    /// What the number should be, for each worker on average; above zero.
    pub target: f64,
    /// So many points in a row above the target set off the alarm above.
    pub out_points: usize,
    /// So many points in a row below the margin set off the alarm below.
    pub in_points: usize,
    /// The alarm below is at this fraction of the target.
    pub in_margin: f64,
    /// After workers were added, more are added only as far as more are asked for than were.
    pub out_cooldown: Duration,
    /// After workers were removed, no more are.
    pub in_cooldown: Duration,
    /// Whether workers are removed at all.
    pub is_in_enabled: bool,
}

/// How often the number is looked at by the alarms that AWS makes.
pub const PERIOD: Duration = Duration::from_secs(60);

impl Spec {
    /// With AWS's defaults.
    pub fn new(min: u32, max: u32, target: f64) -> Self {
        Self {
            min,
            max,
            target,
            out_points: 3,
            in_points: 15,
            in_margin: 0.9,
            out_cooldown: Duration::from_secs(300),
            in_cooldown: Duration::from_secs(300),
            is_in_enabled: true,
        }
    }
}

/// What was changed last.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct History {
    /// When workers were last added, and how many there were before the cooldown that this began or prolonged.
    pub out: Option<(Time, u32)>,
    /// When workers were last removed, unless some were added since.
    pub in_: Option<Time>,
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

/// Decides, where there should be `current` workers. `points` are averages over all workers, one for each [`PERIOD`],
/// the newest last. Too few of them set off no alarm.
pub fn decide(spec: &Spec, history: &History, current: u32, points: &[f64], now: Time) -> Decision {
    let last = |count: usize| points.len().checked_sub(count).and_then(|from| points.get(from..));
    let margin = spec.target * spec.in_margin;
    let is_above =
        last(spec.out_points).is_some_and(|points| points.iter().all(|point| *point > spec.target));
    let is_below = last(spec.in_points).is_some_and(|points| points.iter().all(|point| *point < margin));
    let newest = points.last().copied().unwrap_or(spec.target);
    let mut history = *history;
    let mut reasons = Vec::new();
    let mut wanted = current;
    if is_above {
        let cooling = history.out.filter(|(since, _)| since.plus(spec.out_cooldown) > now);
        let base = cooling.map_or(current, |(_, base)| base);
        let asked = proportional(base, newest, spec);
        reasons.push(format!("{newest:.2} is above {}: {asked}, from {base}", spec.target));
        if asked > current {
            wanted = asked;
            history = History { out: Some((now, base)), in_: None };
        } else {
            reasons.push(format!("{current} are enough for that; they were added in this cooldown"));
        }
    } else if is_below && spec.is_in_enabled {
        let asked = proportional(current, newest, spec);
        reasons.push(format!("{newest:.2} is below {margin:.2}: {asked}"));
        if history.in_.is_some_and(|since| since.plus(spec.in_cooldown) > now) {
            reasons.push(format!("{current} for the rest of the cooldown"));
        } else if asked < current {
            wanted = asked;
            history.in_ = Some(now);
        }
    } else {
        reasons.push("no alarm".into());
    }
    let desired = wanted.clamp(spec.min, spec.max.max(spec.min));
    if desired != wanted {
        reasons
            .push(format!("{desired} rather than {wanted}: from {} to {} are allowed", spec.min, spec.max));
    }
    Decision { desired, reasons, history }
}

/// As many as bring the number to its target, rounded up: so that fewer never means above the target.
fn proportional(workers: u32, newest: f64, spec: &Spec) -> u32 {
    (f64::from(workers) * newest / spec.target).ceil().clamp(0.0, f64::from(i32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    fn decided(spec: &Spec, history: History, current: u32, points: &[f64], seconds: i64) -> u32 {
        decide(spec, &history, current, points, at(seconds)).desired
    }

    #[test]
    fn each_rule_by_itself() {
        let spec = Spec::new(1, 100, 50.0);
        let none = History::default();
        let low = [20.0; 15];
        for (rule, spec, current, points, desired) in [
            // 4 × 75 ÷ 50 = 6
            ("three points above: in proportion to the newest", &spec, 4, &[60.0, 51.0, 75.0][..], 6),
            ("two of three: nothing", &spec, 4, &[50.0, 60.0, 75.0], 4),
            ("too few points: nothing", &spec, 4, &[60.0, 75.0], 4),
            // 3 × 51 ÷ 50 = 3.06
            ("rounded up on the way out", &spec, 3, &[51.0; 3], 4),
            // 10 × 20 ÷ 50 = 4
            ("fifteen points below the margin: fewer", &spec, 10, &low, 4),
            ("fourteen: nothing", &spec, 10, &low[1..], 10),
            ("between margin and target: nothing", &spec, 10, &[45.0; 15], 10),
            // 10 × 44 ÷ 50 = 8.8
            ("rounded up on the way in", &spec, 10, &[44.0; 15], 9),
            ("not below the least", &Spec { min: 6, ..spec.clone() }, 10, &low, 6),
            ("not above the most", &Spec { max: 5, ..spec.clone() }, 4, &[75.0; 3], 5),
            ("never fewer if that is off", &Spec { is_in_enabled: false, ..spec.clone() }, 10, &low, 10),
            ("no points: nothing", &spec, 4, &[], 4),
        ] {
            assert_eq!(decided(spec, none, current, points, 0), desired, "{rule}");
        }
    }

    #[test]
    fn in_the_cooldown_out_only_what_exceeds_was_added() {
        let spec = Spec::new(1, 100, 50.0);
        let first = decide(&spec, &History::default(), 4, &[75.0; 3], at(0));
        assert_eq!((first.desired, first.history.out), (6, Some((at(0), 4))));
        assert_eq!(decided(&spec, first.history, 6, &[75.0; 3], 60), 6, "these were added already");
        let more = decide(&spec, &first.history, 6, &[100.0; 3], at(120));
        assert_eq!((more.desired, more.history.out), (8, Some((at(120), 4))), "a larger one begins it anew");
        assert_eq!(decided(&spec, more.history, 8, &[100.0; 3], 419), 8);
        assert_eq!(
            decided(&spec, more.history, 8, &[100.0; 3], 420),
            16,
            "after it, from as many as there are"
        );
    }

    #[test]
    fn in_the_cooldown_in_nothing_but_out() {
        let spec = Spec::new(1, 100, 50.0);
        let fewer = decide(&spec, &History::default(), 10, &[40.0; 15], at(0));
        assert_eq!(fewer.desired, 8);
        assert_eq!(decided(&spec, fewer.history, 8, &[20.0; 15], 299), 8);
        assert_eq!(decided(&spec, fewer.history, 8, &[20.0; 15], 300), 4);
        let out = decide(&spec, &fewer.history, 8, &[75.0; 3], at(100));
        assert_eq!((out.desired, out.history.in_), (12, None), "more are added at once, and end it");
    }
}
