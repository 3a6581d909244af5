//! A HorizontalPodAutoscaler as it is written, YAML or JSON, to a [`Spec`] that can be followed. What is impossible or
//! unknown is refused, all at once, each with the path of its field, by the rules of Kubernetes' own validation
//! (`pkg/apis/autoscaling/validation`).

mod behavior;
mod field;
mod metric;
pub mod writing;

use lethe_yaml as yaml;
use serde_json::Value;

use crate::{
    manifest::field::Field,
    spec::{Metric, Source, Spec, Target},
};

/// The kind of object that is read.
const KIND: &str = "HorizontalPodAutoscaler";

/// The versions of it that are read. Version 1 knows nothing but CPU.
const VERSIONS: [&str; 3] = ["autoscaling/v2", "autoscaling/v2beta2", "autoscaling/v1"];

/// What the spec can say of how workers are counted. The target of the scaling is read over: it is this service.
const FIELDS: [&str; 6] =
    ["behavior", "maxReplicas", "metrics", "minReplicas", "scaleTargetRef", "targetCPUUtilizationPercentage"];

/// Why a manifest is not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is neither YAML nor JSON.
    #[error(transparent)]
    Syntax(yaml::Error),
    /// It holds no autoscaler, or several.
    #[error("{0}")]
    Which(String),
    /// It asks for what cannot be.
    #[error("{}", lines(.0))]
    Refused(Vec<Problem>),
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {what}")]
pub struct Problem {
    /// Such as `spec.metrics[0].resource.target.averageUtilization`.
    pub path: String,
    /// Such as `must be greater than 0, not -5`.
    pub what: String,
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// Reads the text of a file: a whole object, or only its spec; among other objects, if it is the only autoscaler.
pub fn read(text: &str) -> Result<Spec, Error> {
    let mut documents = yaml::documents(text).map_err(Error::Syntax)?;
    if documents.len() > 1 {
        documents.retain(|document| document.get("kind").is_some_and(|kind| kind == KIND));
    }
    match documents.as_slice() {
        [document] => read_value(document),
        [] => Err(Error::Which(format!("there is no {KIND} in it"))),
        several => {
            let names: Vec<&str> =
                several.iter().filter_map(|document| document["metadata"]["name"].as_str()).collect();
            Err(Error::Which(format!(
                "there is more than one {KIND} in it ({}); leave one",
                names.join(", ")
            )))
        }
    }
}

/// Reads a whole object, or only its spec.
pub fn read_value(document: &Value) -> Result<Spec, Error> {
    let mut problems = Vec::new();
    let is_whole = ["kind", "apiVersion", "spec"].iter().any(|key| document.get(*key).is_some());
    if is_whole {
        object(&Field::new(document, ""), &mut problems);
    }
    let value = if is_whole { document.get("spec").unwrap_or(&Value::Null) } else { document };
    let spec = spec(&Field::new(value, "spec"), &mut problems);
    match spec {
        Some(spec) if problems.is_empty() => Ok(spec),
        _ => Err(Error::Refused(problems)),
    }
}

/// Checks what is around the spec.
fn object(object: &Field<'_>, problems: &mut Vec<Problem>) {
    if let Some(kind) = object.child("kind").filter(|kind| kind.value() != KIND) {
        kind.refuse(problems, format!("must be {KIND}, not {}", kind.value()));
    }
    if let Some(version) = object.child("apiVersion") {
        version.one_of(problems, &VERSIONS.map(|version| (version, ())));
    }
}

fn spec(spec: &Field<'_>, problems: &mut Vec<Problem>) -> Option<Spec> {
    if !spec.is_map(problems, &FIELDS) {
        return None;
    }
    let min = spec.child("minReplicas").map_or(Some(1), |min| min.count(problems, 0));
    let Some(max) = spec.child("maxReplicas") else {
        spec.missing(problems, "maxReplicas", "must be set");
        return None;
    };
    let max_count = max.count(problems, 1);
    if let (Some(min), Some(count)) = (min, max_count)
        && count < min
    {
        max.refuse(problems, format!("must be no less than minReplicas, which is {min}, not {count}"));
    }
    let metrics = metrics(spec, min == Some(0), problems);
    let behavior = spec.child("behavior").and_then(|behavior| behavior::read(&behavior, problems));
    Some(Spec { min: min?, max: max_count?, metrics, behavior, options: crate::spec::Options::default() })
}

fn metrics(spec: &Field<'_>, is_to_zero: bool, problems: &mut Vec<Problem>) -> Vec<Metric> {
    let list = spec.child("metrics");
    let fields = list.as_ref().map(|list| list.items(problems)).unwrap_or_default();
    let mut metrics: Vec<Metric> = fields.iter().filter_map(|field| metric::read(field, problems)).collect();
    // Version 1 of the object has this instead of the list.
    if let Some(cpu) = spec.child("targetCPUUtilizationPercentage")
        && let Some(percent) = cpu.percent(problems)
    {
        metrics.push(Metric { source: Source::Resource("cpu".into()), target: Target::Utilization(percent) });
    }
    let counts_without_workers =
        |metric: &Metric| matches!(metric.source, Source::Object(_) | Source::External(_));
    if is_to_zero && fields.len() == metrics.len() && !metrics.iter().any(counts_without_workers) {
        let what = "must hold at least one Object or External metric, since minReplicas is 0: the others are measured at workers";
        spec.missing(problems, "metrics", what);
    }
    if fields.is_empty() && metrics.is_empty() {
        metrics.push(Metric::default());
    }
    metrics
}
