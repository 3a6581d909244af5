//! The examples of violations, each beside its fixed twin, in Python and Node.js; of those in Rust one pair, since `make prove-cases`
//! proves them all.

use std::path::Path;

use serde_json::Value;

use crate::lab::{Lab, Proof, Store, examples};

/// A program is a file of the folder, or `rust` with its flags.
fn prove(folder: &str, program: &str) -> Proof {
    let (lab, store, words) = (Lab::new(), Store::start(), words_of(folder, program));
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let folder = examples().join(folder);
    let mut command = lab.command(&folder, &folder.join("journey.toml"), &words);
    lab.run(command.env("STORE", &store.url))
}

fn words_of(folder: &str, program: &str) -> Vec<String> {
    let words = match program.split_once(' ').map_or(program, |(language, _)| language) {
        "rust" => vec![rust_examples(), folder.to_owned()],
        python if python.ends_with(".py") => vec!["python3".to_owned(), python.to_owned()],
        node => vec!["node".to_owned(), node.to_owned()],
    };
    let flags = program.split(' ').skip(1).map(str::to_owned);
    words.into_iter().chain(flags).collect()
}

/// The program that all examples in Rust are. It lies beside `lethe`, whose tests Cargo does not tell of it.
fn rust_examples() -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_lethe")).with_file_name("violations");
    assert!(program.exists(), "{} is not there; `cargo build -p violations` makes it", program.display());
    program.into_os_string().into_string().unwrap()
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
    for program in ["app.py", "app.mjs", "rust"] {
        found("session-in-memory", program, "memory", 2, 4);
    }
    for program in ["fixed.py", "fixed.mjs", "rust --fixed"] {
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
        assert_eq!(file["kind"], "text");
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
