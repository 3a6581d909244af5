//! SARIF 2.1.0 (OASIS), as code hosts and editors show it: a result for each finding, at the file of its journey.

use serde_json::{Value, json};

use crate::{
    finding::{Confidence, Finding, Kind},
    proof::Proof,
};

/// The whole log. `file_of` gives the file of a journey by its name, as the reader of the log should find it.
pub fn log(proof: &Proof, version: &str, file_of: &dyn Fn(&str) -> Option<String>) -> Value {
    let results: Vec<Value> = proof.findings.iter().map(|finding| result(finding, file_of)).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "lethe prove", "version": version, "rules": rules() } },
            "invocations": [{ "executionSuccessful": proof.coverage.uncovered.is_empty() }],
            "results": results,
        }],
    })
}

fn rules() -> Vec<Value> {
    let rule = |kind: &Kind| json!({ "id": kind.rule(), "help": { "text": kind.fix() } });
    Kind::ALL.iter().map(rule).collect()
}

fn result(finding: &Finding, file_of: &dyn Fn(&str) -> Option<String>) -> Value {
    let (producer, consumer) = (&finding.producer, &finding.consumer);
    let level = match finding.confidence {
        Confidence::Proven => "error",
        Confidence::Likely => "warning",
        Confidence::Hint => "note",
    };
    let text = format!("{}. {}. Fix: {}", finding.what(), finding.proof, finding.fix);
    let name = format!("{}/{}", consumer.journey, consumer.step);
    let mut location = json!({ "logicalLocations": [{ "fullyQualifiedName": name, "kind": "step" }] });
    if let Some(file) = file_of(&consumer.journey) {
        location["physicalLocation"] = json!({ "artifactLocation": { "uri": file } });
    }
    json!({
        "ruleId": finding.rule,
        "level": level,
        "message": { "text": text },
        "locations": [location],
        // The same violation is known again in the next proof.
        "partialFingerprints": {
            "steps/v1": format!("{}/{}/{}/{}", finding.rule, producer.journey, producer.step, consumer.step),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::tests::proof;

    #[test]
    fn a_finding_is_a_result_of_a_rule_that_is_there() {
        let log = log(&proof(), "1.2.3", &|name| (name == "a <b>").then(|| "a.toml".to_owned()));
        assert_eq!(log["version"], "2.1.0");
        let run = &log["runs"][0];
        let result = &run["results"][0];
        assert_eq!((&result["ruleId"], &result["level"]), (&"lethe/memory".into(), &"error".into()));
        assert_eq!(result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], "a.toml");
        let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
        assert!(rules.iter().any(|rule| rule["id"] == result["ruleId"]));
    }

    /// Through types that were made from the schema of OASIS: what is not in it would be lost on the way.
    #[test]
    fn it_is_as_the_schema_has_it() {
        let log = log(&proof(), "1.2.3", &|_| Some("a.toml".to_owned()));
        let read: serde_sarif::sarif::Sarif = serde_json::from_value(log.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), log);
    }
}
