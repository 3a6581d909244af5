//! One of `spec.metrics`: where a number comes from, and what it should be (`validateMetricSpec`).

use crate::{
    manifest::{Problem, field::Field},
    spec::{Metric, Source, Target},
};

/// The types of metrics, and the field that each has its description in.
const TYPES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

const TARGET_TYPES: [(&str, &str); 3] =
    [("AverageValue", "averageValue"), ("Utilization", "averageUtilization"), ("Value", "value")];

/// Reads a metric, or says what is wrong with it.
pub fn read(metric: &Field<'_>, problems: &mut Vec<Problem>) -> Option<Metric> {
    let keys = ["containerResource", "external", "object", "pods", "resource", "type"];
    if !metric.is_map(problems, &keys) {
        return None;
    }
    let Some(kind) = metric.child("type") else {
        metric.missing(
            problems,
            "type",
            "must be set, to Resource, ContainerResource, Pods, Object or External",
        );
        return None;
    };
    let key = kind.one_of(problems, &TYPES)?;
    for (_, other) in TYPES.iter().filter(|(_, other)| *other != key) {
        if let Some(other) = metric.child(other) {
            other.refuse(problems, format!("does not go with type {}", kind.value()));
        }
    }
    let Some(source) = metric.child(key) else {
        metric.missing(problems, key, &format!("must be set, since type is {}", kind.value()));
        return None;
    };
    match key {
        "resource" => resource(&source, problems),
        "containerResource" => container_resource(&source, problems),
        "pods" => pods(&source, problems),
        "object" => object(&source, problems),
        _ => external(&source, problems),
    }
}

fn resource(source: &Field<'_>, problems: &mut Vec<Problem>) -> Option<Metric> {
    if !source.is_map(problems, &["name", "target"]) {
        return None;
    }
    let name = required(source, "name", problems).and_then(|name| name.text(problems));
    let target = of_resource(source, problems);
    Some(Metric { source: Source::Resource(name?.into()), target: target? })
}

fn container_resource(source: &Field<'_>, problems: &mut Vec<Problem>) -> Option<Metric> {
    if !source.is_map(problems, &["container", "name", "target"]) {
        return None;
    }
    let name = required(source, "name", problems).and_then(|name| name.text(problems));
    let container = required(source, "container", problems).and_then(|container| container.text(problems));
    let target = of_resource(source, problems);
    let source = Source::ContainerResource { resource: name?.into(), container: container?.into() };
    Some(Metric { source, target: target? })
}

fn pods(source: &Field<'_>, problems: &mut Vec<Problem>) -> Option<Metric> {
    if !source.is_map(problems, &["metric", "target"]) {
        return None;
    }
    let name = identifier(source, problems);
    let target = Targets::read(source, problems)?;
    let Some(average) = target.average_value else {
        target.lacks(problems, "averageValue", "must be set for a metric of each worker");
        return None;
    };
    Some(Metric { source: Source::Pods(name?), target: Target::AverageValue(average) })
}

fn object(source: &Field<'_>, problems: &mut Vec<Problem>) -> Option<Metric> {
    if !source.is_map(problems, &["describedObject", "metric", "target"]) {
        return None;
    }
    let name = identifier(source, problems);
    let targets = Targets::read(source, problems)?;
    // Which of both counts is said by the type, here alone (`computeStatusForObjectMetric`).
    let target = match (targets.kind, targets.value, targets.average_value) {
        ("value", Some(value), _) => Target::Value(value),
        ("averageValue", _, Some(average)) => Target::AverageValue(average),
        ("averageUtilization", ..) => {
            targets.lacks(problems, "type", "must be Value or AverageValue for an object's metric");
            return None;
        }
        (kind, ..) => {
            targets.lacks(problems, kind, "must be set, since the target's type says so");
            return None;
        }
    };
    Some(Metric { source: Source::Object(name?), target })
}

fn external(source: &Field<'_>, problems: &mut Vec<Problem>) -> Option<Metric> {
    if !source.is_map(problems, &["metric", "target"]) {
        return None;
    }
    let name = identifier(source, problems);
    let targets = Targets::read(source, problems)?;
    let target = match (targets.value, targets.average_value) {
        (Some(value), None) => Target::Value(value),
        (None, Some(average)) => Target::AverageValue(average),
        (None, None) => {
            targets.lacks(problems, "averageValue", "must be set, or value");
            return None;
        }
        (Some(_), Some(_)) => {
            targets.lacks(problems, "value", "may not be set beside averageValue");
            return None;
        }
    };
    Some(Metric { source: Source::External(name?), target })
}

fn required<'a>(of: &Field<'a>, key: &str, problems: &mut Vec<Problem>) -> Option<Field<'a>> {
    let field = of.child(key);
    if field.is_none() {
        of.missing(problems, key, "must be set");
    }
    field
}

/// The name in `metric`. Its selector is read over: names are enough to tell numbers apart here.
fn identifier(source: &Field<'_>, problems: &mut Vec<Problem>) -> Option<String> {
    let metric = required(source, "metric", problems)?;
    if !metric.is_map(problems, &["name", "selector"]) {
        return None;
    }
    required(&metric, "name", problems)?.name(problems).map(Into::into)
}

/// The target of a resource: percent of what was requested, or an amount for each worker.
fn of_resource(source: &Field<'_>, problems: &mut Vec<Problem>) -> Option<Target> {
    let targets = Targets::read(source, problems)?;
    match (targets.utilization, targets.average_value) {
        (Some(percent), None) => Some(Target::Utilization(percent)),
        (None, Some(average)) => Some(Target::AverageValue(average)),
        (None, None) => {
            targets.lacks(problems, "averageUtilization", "must be set, or averageValue");
            None
        }
        (Some(_), Some(_)) => {
            targets.lacks(problems, "averageValue", "may not be set beside averageUtilization");
            None
        }
    }
}

/// What a target holds, each checked for itself (`validateMetricTarget`).
struct Targets<'a> {
    field: Field<'a>,
    /// The field that its type means.
    kind: &'static str,
    utilization: Option<i32>,
    average_value: Option<i64>,
    value: Option<i64>,
}

impl<'a> Targets<'a> {
    fn read(source: &Field<'a>, problems: &mut Vec<Problem>) -> Option<Self> {
        let field = required(source, "target", problems)?;
        if !field.is_map(problems, &["averageUtilization", "averageValue", "type", "value"]) {
            return None;
        }
        let before = problems.len();
        let utilization = field.child("averageUtilization").and_then(|percent| percent.percent(problems));
        let average_value = field.child("averageValue").and_then(|average| average.positive(problems));
        let value = field.child("value").and_then(|value| value.positive(problems));
        let kind = match field.child("type") {
            Some(kind) => kind.one_of(problems, &TARGET_TYPES),
            // Without a type there is no doubt, as long as there is one number.
            None => TARGET_TYPES.iter().map(|(_, key)| *key).find(|key| field.child(key).is_some()),
        };
        if problems.len() > before {
            return None;
        }
        let Some(kind) = kind else {
            field.missing(
                problems,
                "type",
                "must be set, to Utilization, AverageValue or Value, and its number too",
            );
            return None;
        };
        Some(Self { field, kind, utilization, average_value, value })
    }

    fn lacks(&self, problems: &mut Vec<Problem>, key: &str, what: &str) {
        self.field.missing(problems, key, what);
    }
}
