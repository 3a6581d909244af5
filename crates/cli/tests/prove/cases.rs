//! The examples of violations, in Python and Node.js, each beside its fixed twin.

use serde_json::Value;

use crate::lab::{Lab, Proof, Store, examples};

fn prove(folder: &str, program: &str) -> Proof {
    let (lab, store, folder) = (Lab::new(), Store::start(), examples().join(folder));
    let runtime = if program.ends_with(".py") { "python3" } else { "node" };
    let mut command = lab.command(&folder, &folder.join("journey.toml"), &[runtime, program]);
    lab.run(command.env("STORE", &store.url))
}

/// The one finding, which is of this kind and about these steps.
fn found(folder: &str, program: &str, kind: &str, producer: u64, consumer: u64) -> Option<Value> {
    let proof = prove(folder, program);
    if !proof.has_worlds() {
        return None;
    }
    let text = proof.text();
    assert_eq!(proof.status.code(), Some(1), "{text}");
    assert_eq!(proof.json["verdict"], "violation", "{text}");
    let findings = proof.json["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{text}");
    let finding = &findings[0];
    assert_eq!(finding["id"], "F1");
    assert_eq!((&finding["kind"], &finding["confidence"]), (&kind.into(), &"proven".into()), "{text}");
    assert_eq!(finding["producer"]["step"], producer, "{text}");
    assert_eq!(finding["consumer"]["step"], consumer, "{text}");
    for line in ["what ", "where ", "proof ", "fix "] {
        assert!(proof.out.lines().any(|shown| shown.trim_start().starts_with(line)), "{line}: {text}");
    }
    Some(finding.clone())
}

fn clean(folder: &str, program: &str) {
    let proof = prove(folder, program);
    if !proof.has_worlds() {
        return;
    }
    let text = proof.text();
    assert_eq!(proof.status.code(), Some(0), "{text}");
    assert_eq!(proof.json["verdict"], "stateless", "{text}");
    assert_eq!(proof.json["findings"], Value::Array(Vec::new()), "{text}");
    let coverage = &proof.json["coverage"];
    assert_eq!(coverage["steps"], coverage["steps_covered"], "{text}");
    assert!(proof.out.contains("stateless in the steps covered"), "{text}");
}

#[test]
fn a_session_in_memory() {
    for program in ["app.py", "app.mjs"] {
        found("session-in-memory", program, "memory", 2, 4);
    }
    for program in ["fixed.py", "fixed.mjs"] {
        clean("session-in-memory", program);
    }
}

#[test]
fn a_secret_of_boot() {
    for program in ["app.py", "app.mjs"] {
        found("boot-secret", program, "boot-secret", 2, 4);
    }
    for program in ["fixed.py", "fixed.mjs"] {
        clean("boot-secret", program);
    }
}

#[test]
fn an_upload_on_the_local_disk() {
    for program in ["app.py", "app.mjs"] {
        let Some(finding) = found("file-upload", program, "file", 2, 4) else { return };
        let file = &finding["file"];
        let folder = examples().join("file-upload/uploads");
        assert!(file["path"].as_str().unwrap().starts_with(folder.to_str().unwrap()), "{file}");
        let canary = file["canary"].as_str().unwrap();
        assert_eq!(file["bytes"], "the photo of ".len() + canary.len());
        let said = finding["proof"].as_str().unwrap();
        assert!(said.contains(canary), "{finding}");
        // As root, it is seen who reads it.
        assert!(!rustix::process::geteuid().is_root() || said.contains("step 4 reads it"), "{finding}");
        // It was written in a world, and nowhere else.
        assert!(!folder.exists());
    }
    for program in ["fixed.py", "fixed.mjs"] {
        clean("file-upload", program);
    }
}

#[test]
fn a_rate_limit_in_memory() {
    for program in ["app.py", "app.mjs"] {
        found("rate-limit", program, "rate-limit", 1, 4);
    }
    for program in ["fixed.py", "fixed.mjs"] {
        clean("rate-limit", program);
    }
}

#[test]
fn a_cache_that_is_not_told_of_changes() {
    found("stale-cache", "app.py", "stale-cache", 2, 3);
    clean("stale-cache", "fixed.py");
}

#[test]
fn an_order_that_is_half_done() {
    let Some(finding) = found("half-done", "app.py", "half-done", 2, 3) else { return };
    // After the order is noted, and before its lines are.
    assert_eq!(finding["replay"]["workers"], "A A†B B, killed at answer 2");
    clean("half-done", "fixed.py");
}
