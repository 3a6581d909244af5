//! What shows only when somebody asks often: limits that a journey does not reach, and results that are waited for.

use serde_json::Value;

use crate::lab::{Lab, Proof, Store, examples};

fn prove(folder: &str, journey: &str, program: &str) -> Option<Proof> {
    let (lab, store, folder) = (Lab::new(), Store::start(), examples().join(folder));
    let runtime = if program.ends_with(".py") { "python3" } else { "node" };
    let mut command = lab.command(&folder, &folder.join(journey), &[runtime, program]);
    let proof = lab.run(command.env("STORE", &store.url));
    proof.has_worlds().then_some(proof)
}

/// The one finding, which is proven and of this kind.
fn found(folder: &str, journey: &str, program: &str, kind: &str) -> Option<Value> {
    let proof = prove(folder, journey, program)?;
    let text = proof.text();
    assert_eq!(proof.status.code(), Some(1), "{text}");
    let findings = proof.json["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{text}");
    let finding = findings[0].clone();
    assert_eq!((&finding["kind"], &finding["confidence"]), (&kind.into(), &"proven".into()), "{text}");
    Some(finding)
}

fn clean(folder: &str, journey: &str, program: &str) {
    let Some(proof) = prove(folder, journey, program) else { return };
    assert_eq!(proof.status.code(), Some(0), "{}", proof.text());
    assert_eq!(proof.json["findings"], Value::Array(Vec::new()), "{}", proof.text());
}

#[test]
fn a_limit_that_is_not_reached_is_looked_for() {
    for program in ["app.py", "app.mjs"] {
        let Some(finding) = found("rate-limit", "seldom.toml", program, "rate-limit") else { return };
        let proof = finding["proof"].as_str().unwrap();
        assert!(proof.contains("3/6/9"), "{proof}");
    }
    for program in ["fixed.py", "fixed.mjs"] {
        clean("rate-limit", "seldom.toml", program);
    }
}

#[test]
fn the_result_of_a_job_in_the_worker_that_did_it() {
    let Some(finding) = found("job", "journey.toml", "app.py", "job") else { return };
    let steps = ["producer", "consumer"].map(|place| finding[place]["step"].clone());
    assert_eq!(steps, [1, 2].map(Value::from), "{finding}");
    clean("job", "journey.toml", "fixed.py");
}
