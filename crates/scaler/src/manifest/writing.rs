//! A spec as a HorizontalPodAutoscaler has it, which [`read_value`](super::read_value) reads to the same spec. What it
//! does not say, the options, are no part of an autoscaler.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::spec::{Amount, Metric, Rules, Select, Source, Spec, Target};

/// The `spec` of an autoscaler. Windows and periods are whole seconds there; what is shorter is left off.
pub fn write(spec: &Spec) -> Value {
    let mut written = json!({
        "minReplicas": spec.min,
        "maxReplicas": spec.max,
        "metrics": spec.metrics.iter().map(metric).collect::<Vec<_>>(),
    });
    if let Some(behavior) = &spec.behavior {
        written["behavior"] = json!({ "scaleUp": rules(&behavior.up), "scaleDown": rules(&behavior.down) });
    }
    written
}

fn metric(metric: &Metric) -> Value {
    let target = target(metric.target);
    let identified = |name: &str| json!({ "metric": { "name": name }, "target": target });
    let (key, source) = match &metric.source {
        Source::Resource(name) => ("resource", json!({ "name": name, "target": target })),
        Source::ContainerResource { resource, container } => {
            ("containerResource", json!({ "name": resource, "container": container, "target": target }))
        }
        Source::Pods(name) => ("pods", identified(name)),
        Source::Object(name) => ("object", identified(name)),
        Source::External(name) => ("external", identified(name)),
    };
    let mut written = Map::new();
    written.insert("type".into(), metric.source.kind().into());
    written.insert(key.into(), source);
    written.into()
}

fn target(target: Target) -> Value {
    match target {
        Target::Utilization(percent) => json!({ "type": "Utilization", "averageUtilization": percent }),
        Target::AverageValue(milli) => json!({ "type": "AverageValue", "averageValue": quantity(milli) }),
        Target::Value(milli) => json!({ "type": "Value", "value": quantity(milli) }),
    }
}

fn quantity(milli: i64) -> String {
    if milli % 1_000 == 0 { (milli / 1_000).to_string() } else { format!("{milli}m") }
}

fn rules(rules: &Rules) -> Value {
    let select = match rules.select {
        Select::Max => "Max",
        Select::Min => "Min",
        Select::Disabled => "Disabled",
    };
    let seconds = |span: Duration| span.as_secs();
    let policies: Vec<Value> = rules
        .policies
        .iter()
        .map(|policy| {
            let (kind, value) = match policy.amount {
                Amount::Pods(count) => ("Pods", count),
                Amount::Percent(percent) => ("Percent", percent),
            };
            json!({ "type": kind, "value": value, "periodSeconds": seconds(policy.period) })
        })
        .collect();
    let mut written = json!({ "selectPolicy": select, "policies": policies });
    if let Some(window) = rules.window {
        written["stabilizationWindowSeconds"] = seconds(window).into();
    }
    if let Some(tolerance) = rules.tolerance {
        written["tolerance"] = json!(tolerance);
    }
    written
}
