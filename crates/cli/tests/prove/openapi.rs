//! A service that is known by its OpenAPI document alone.

use crate::lab::{Lab, Proof, Store, examples};

fn prove(program: &str) -> Proof {
    let (lab, store, folder) = (Lab::new(), Store::start(), examples().join("items-in-memory"));
    let mut command = lab.command(&folder, &folder.join("openapi.yaml"), &["python3", program]);
    lab.run(command.env("STORE", &store.url))
}

#[test]
fn items_in_memory_are_found() {
    let proof = prove("app.py");
    if !proof.has_worlds() {
        return;
    }
    let text = proof.text();
    assert_eq!(proof.status.code(), Some(1), "{text}");
    let findings = proof.json["findings"].as_array().unwrap();
    let is_it = |finding: &&serde_json::Value| {
        finding["kind"] == "memory" && finding["confidence"] == "proven" && finding["producer"]["step"] == 1
    };
    assert!(findings.iter().any(|finding| is_it(&finding) && finding["consumer"]["step"] == 2), "{text}");
}

#[test]
fn items_in_a_store_are_no_violation() {
    let proof = prove("fixed.py");
    if !proof.has_worlds() {
        return;
    }
    let text = proof.text();
    assert_eq!(proof.status.code(), Some(0), "{text}");
    assert_eq!(proof.json["coverage"]["steps"], 4, "{text}");
    assert_eq!(proof.json["coverage"]["steps_covered"], 4, "{text}");
}

#[test]
fn what_is_no_document_is_refused() {
    let lab = Lab::new();
    let journey = lab.write("api.yaml", "swagger: '2.0'\n");
    let proof = lab.prove(lab.path(), &journey, &["python3", "app.py"]);
    assert!(!proof.status.success(), "{}", proof.text());
    assert!(proof.err.contains("convert it to OpenAPI 3"), "{}", proof.text());
}
