//! Kubernetes' rules, each with a case that shows it: `tests/cases/`.

#![allow(clippy::unwrap_used, reason = "a table that cannot be read is a failed test")]

use std::{fs, path::Path};

use lethe_scaler::{
    case::{Case, SpecSource},
    decision, manifest,
    proposal::{self, Usage},
};
use lethe_yaml as yaml;
use serde_json::{Map, Value, json};

/// There are no fewer cases.
const CASES_MIN: usize = 492;

/// What belongs to the table, not to the input of a decision.
const EXPECTED: [&str; 6] = ["test", "rule", "desired", "error", "usage", "because"];

/// What a decision comes to, as far as the table speaks of it.
struct Outcome {
    desired: u32,
    usages: Vec<Usage>,
    reasons: Vec<String>,
}

fn outcome(case: &Value) -> Result<Outcome, String> {
    let case: Case = serde_json::from_value(case.clone()).map_err(|error| error.to_string())?;
    assert_eq!(case.unknown, [] as [String; 0]);
    let SpecSource::Inline(spec) = &case.spec else {
        return Err("a case of the table has its spec in it".into());
    };
    let mut spec = manifest::read_value(spec).map_err(|error| error.to_string())?;
    spec.options = case.options;
    if case.is_raw {
        let proposal =
            proposal::propose(&spec, &case.samples, case.now).map_err(|error| error.to_string())?;
        return Ok(Outcome {
            desired: proposal.replicas,
            usages: proposal.usages,
            reasons: proposal.reasons,
        });
    }
    let decision =
        decision::decide(&spec, &case.history, &case.samples, case.now).map_err(|error| error.to_string())?;
    Ok(Outcome { desired: decision.desired, usages: decision.usages, reasons: decision.reasons })
}

/// What is wrong with a case, or nothing.
fn check(case: &Value) -> Option<String> {
    match (outcome(case), &case["desired"], &case["error"]) {
        (Ok(found), Value::Number(desired), Value::Null) => {
            if json!(found.desired) != json!(desired) {
                return Some(format!("{} instead of {desired}: {:#?}", found.desired, found.reasons));
            }
            if let Some(because) = case["because"].as_str()
                && !found.reasons.iter().any(|reason| reason.contains(because))
            {
                return Some(format!("no reason has {because:?}: {:#?}", found.reasons));
            }
            let usage = found.usages.first().map(|usage| usage.value);
            (!case["usage"].is_null() && json!(usage) != case["usage"]).then(|| format!("usage is {usage:?}"))
        }
        (Err(error), Value::Null, Value::String(expected)) => {
            (!error.contains(expected.as_str())).then(|| format!("the error is: {error}"))
        }
        (Ok(found), ..) => Some(format!("{} without an error: {:#?}", found.desired, found.reasons)),
        (Err(error), ..) => Some(format!("an error: {error}")),
    }
}

/// A case with what its file has in common, and with its shorthands written out.
fn whole(common: &Map<String, Value>, case: &Map<String, Value>) -> Value {
    let mut whole = common.clone();
    for (key, value) in case {
        let value = match (key.as_str(), common.get(key), value) {
            ("spec", Some(Value::Object(below)), Value::Object(above)) => {
                let mut spec = below.clone();
                spec.extend(above.clone());
                Value::Object(spec)
            }
            _ => value.clone(),
        };
        whole.insert(key.clone(), value);
    }
    let mut instances = Vec::new();
    let request = whole.remove("request").unwrap_or(json!(1000));
    for cpu in whole.remove("cpu").iter().flat_map(repeated) {
        instances.push(json!({ "cpu": cpu, "cpuRequest": request }));
    }
    if let Some(Value::Object(each)) = whole.remove("each") {
        for (name, values) in &each {
            instances.extend(repeated(values).into_iter().map(|value| json!({ "metrics": { name: value } })));
        }
    }
    instances.extend(whole.remove("instances").iter().flat_map(|given| given.as_array().cloned().unwrap()));
    whole.insert("instances".into(), Value::Array(instances));
    Value::Object(whole)
}

/// `[1, 2 x 3]` is `[1, 3, 3]`.
fn repeated(values: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    for value in values.as_array().unwrap() {
        match value.as_str().and_then(|text| text.split_once(" x ")) {
            Some((times, value)) => {
                let value: i64 = value.parse().unwrap();
                all.extend(vec![json!(value); times.parse().unwrap()]);
            }
            None => all.push(value.clone()),
        }
    }
    all
}

#[test]
fn each_rule_has_its_case() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let (mut count, mut wrong) = (0, Vec::new());
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let documents = yaml::documents(&fs::read_to_string(&path).unwrap());
        let document = documents.unwrap_or_else(|error| panic!("{}: {error}", path.display())).remove(0);
        let mut common = document.as_object().unwrap().clone();
        assert!(common.remove("source").is_some_and(|source| source.is_string()), "{}", path.display());
        for case in common.remove("cases").unwrap().as_array().unwrap() {
            let case = case.as_object().unwrap();
            let whole = whole(&common, case);
            let rule = case["rule"].as_str().unwrap();
            let test =
                case.get("test").and_then(Value::as_str).map(|test| format!(" ({test})")).unwrap_or_default();
            count += 1;
            wrong.extend(check(&whole).map(|what| format!("{}: {rule}{test}\n    {what}", path.display())));
            let known = ["spec", "now", "options", "replicas", "instances", "external", "object", "history"];
            let unknown: Vec<_> = whole
                .as_object()
                .unwrap()
                .keys()
                .filter(|key| !known.contains(&key.as_str()) && !EXPECTED.contains(&key.as_str()))
                .collect();
            assert_eq!(unknown, [] as [&String; 0], "{rule}");
        }
    }
    assert!(count >= CASES_MIN, "{count}");
    assert!(wrong.is_empty(), "{} of {count} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}
