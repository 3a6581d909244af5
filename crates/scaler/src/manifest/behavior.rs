//! `spec.behavior`: how fast (`validateScalingRules`, and the defaults of `pkg/apis/autoscaling/v2/defaults.go`).

use crate::{
    manifest::{Problem, field::Field},
    spec::{Amount, Behavior, PERIOD_MAX, Policy, Rules, Select, WINDOW_MAX},
};

/// Reads it. What it does not say is as Kubernetes fills it in.
pub fn read(behavior: &Field<'_>, problems: &mut Vec<Problem>) -> Option<Behavior> {
    if !behavior.is_map(problems, &["scaleDown", "scaleUp"]) {
        return None;
    }
    let mut read = |key: &str, default: Rules| match behavior.child(key) {
        Some(rules) => self::rules(&rules, default, problems),
        None => Some(default),
    };
    let (up, down) = (read("scaleUp", Rules::up()), read("scaleDown", Rules::down()));
    Some(Behavior { up: up?, down: down? })
}

fn rules(rules: &Field<'_>, default: Rules, problems: &mut Vec<Problem>) -> Option<Rules> {
    if !rules.is_map(problems, &["policies", "selectPolicy", "stabilizationWindowSeconds", "tolerance"]) {
        return None;
    }
    let window = rules.child("stabilizationWindowSeconds");
    let window = window.map_or(default.window, |window| window.seconds(problems, 0, WINDOW_MAX));
    let selects = [("Max", Select::Max), ("Min", Select::Min), ("Disabled", Select::Disabled)];
    let select = rules.child("selectPolicy");
    let select = select.map_or(Some(default.select), |select| select.one_of(problems, &selects));
    let policies = match rules.child("policies") {
        Some(policies) => self::policies(&policies, problems),
        None => default.policies,
    };
    let tolerance = rules.child("tolerance").and_then(|tolerance| self::tolerance(&tolerance, problems));
    Some(Rules { window, select: select?, policies, tolerance })
}

fn policies(list: &Field<'_>, problems: &mut Vec<Problem>) -> Vec<Policy> {
    let before = problems.len();
    let items = list.items(problems);
    if items.is_empty() && problems.len() == before {
        list.refuse(
            problems,
            "must hold at least one policy; to forbid this direction, set selectPolicy to Disabled".into(),
        );
    }
    items.iter().filter_map(|item| policy(item, problems)).collect()
}

fn policy(policy: &Field<'_>, problems: &mut Vec<Problem>) -> Option<Policy> {
    if !policy.is_map(problems, &["periodSeconds", "type", "value"]) {
        return None;
    }
    let kinds = [("Pods", Amount::Pods as fn(u32) -> Amount), ("Percent", Amount::Percent)];
    let mut required = |key: &str| {
        let field = policy.child(key);
        if field.is_none() {
            policy.missing(problems, key, "must be set");
        }
        field
    };
    let (kind, value, period) = (required("type"), required("value"), required("periodSeconds"));
    let kind = kind.and_then(|kind| kind.one_of(problems, &kinds));
    let value = value.and_then(|value| value.count(problems, 1));
    let period = period.and_then(|period| period.seconds(problems, 1, PERIOD_MAX));
    Some(Policy { amount: kind?(value?), period: period? })
}

/// A quantity of zero or more, as the number that arithmetic is done with (`AsApproximateFloat64`).
fn tolerance(tolerance: &Field<'_>, problems: &mut Vec<Problem>) -> Option<f64> {
    let milli = tolerance.milli(problems)?;
    if milli < 0 {
        tolerance.refuse(problems, format!("must be 0 or greater, not {}", tolerance.value()));
        return None;
    }
    // Finer than a thousandth is possible when it is written as a number.
    let exact = tolerance.value().as_f64().or_else(|| tolerance.value().as_str()?.parse().ok());
    Some(exact.unwrap_or(milli as f64 / 1_000.0))
}
