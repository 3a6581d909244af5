//! What is looked for beside the schedules, each with a service that does it and a twin that does not.

use serde_json::Value;

use crate::lab::{Lab, Proof, Store, examples};

/// Empties the store.
const RESET: &str = "python3 -c \"import os, urllib.request as r; r.urlopen(r.Request(os.environ['STORE'], method='DELETE'))\"";

fn prove(folder: &str, program: &str, flags: &[&str]) -> Proof {
    let (lab, store, folder) = (Lab::new(), Store::start(), examples().join(folder));
    let runtime = if program.ends_with(".py") { "python3" } else { "node" };
    let mut command = lab.command_with(flags, &folder, &folder.join("journey.toml"), &[runtime, program]);
    lab.run(command.env("STORE", &store.url))
}

/// The one finding, which is of this kind, proven, and about these steps; `None` where no worlds can be made.
fn found(folder: &str, program: &str, flags: &[&str], kind: &str, steps: [u64; 2]) -> Option<Value> {
    let proof = prove(folder, program, flags);
    if !proof.has_worlds() {
        return None;
    }
    let text = proof.text();
    assert_eq!(proof.status.code(), Some(1), "{text}");
    let finding = the_one(&proof);
    assert_eq!((&finding["kind"], &finding["confidence"]), (&kind.into(), &"proven".into()), "{text}");
    let places = [&finding["producer"]["step"], &finding["consumer"]["step"]];
    assert_eq!(places, steps.map(Value::from).each_ref(), "{text}");
    Some(finding)
}

fn the_one(proof: &Proof) -> Value {
    let findings = proof.json["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{}", proof.text());
    findings[0].clone()
}

/// The one finding is a hint of this kind: nobody loses anything, and all steps were looked at.
fn hint(folder: &str, program: &str, kind: &str) {
    let proof = prove(folder, program, &[]);
    if !proof.has_worlds() {
        return;
    }
    let finding = the_one(&proof);
    assert_eq!((&finding["kind"], &finding["confidence"]), (&kind.into(), &"hint".into()));
    assert_eq!(proof.status.code(), Some(0), "{}", proof.text());
    assert!(proof.out.contains("stateless in the steps covered"), "{}", proof.text());
}

fn clean(folder: &str, program: &str, flags: &[&str]) {
    let proof = prove(folder, program, flags);
    if !proof.has_worlds() {
        return;
    }
    assert_eq!(proof.status.code(), Some(0), "{}", proof.text());
    assert_eq!(proof.json["findings"], Value::Array(Vec::new()), "{}", proof.text());
}

#[test]
fn a_worker_that_ends_in_the_middle_of_a_step() {
    for program in ["app.py", "app.mjs"] {
        found("no-drain", program, &[], "drain", [2, 2]);
    }
    for program in ["fixed.py", "fixed.mjs"] {
        clean("no-drain", program, &[]);
    }
}

#[test]
fn a_worker_that_does_not_end_is_told_of() {
    let lab = Lab::new();
    lab.write(
        "app.py",
        "import os, signal\nfrom http.server import HTTPServer, SimpleHTTPRequestHandler\n\
         signal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
         HTTPServer(('127.0.0.1', int(os.environ['PORT'])), SimpleHTTPRequestHandler).serve_forever()\n",
    );
    let journey = lab.write("two.toml", &"[[steps]]\nget = \"/app.py\"\n".repeat(2));
    let proof = lab.prove(lab.path(), &journey, &["python3", "app.py"]);
    if !proof.has_worlds() {
        return;
    }
    assert_eq!(proof.status.code(), Some(0), "{}", proof.text());
    assert!(proof.out.contains("still there 10 s after SIGTERM"), "{}", proof.text());
}

#[test]
fn a_put_that_adds_up() {
    for program in ["app.py", "app.mjs"] {
        let Some(finding) = found("unsafe-retry", program, &[], "retry", [2, 3]) else { return };
        assert_eq!(finding["replay"]["workers"], "A B~A A");
        assert!(
            finding["proof"].as_str().unwrap().contains("the same when it is sent twice to one"),
            "{finding}"
        );
    }
    for program in ["fixed.py", "fixed.mjs"] {
        clean("unsafe-retry", program, &[]);
    }
}

#[test]
fn a_key_that_one_worker_remembers() {
    let Some(finding) = found("key-in-memory", "app.py", &[], "retry", [2, 3]) else { return };
    assert!(finding["proof"].as_str().unwrap().contains("which remembers the first"), "{finding}");
    clean("key-in-memory", "fixed.py", &[]);
}

#[test]
fn a_schedule_in_each_worker() {
    for program in ["app.py", "app.mjs"] {
        let Some(finding) = found("schedule", program, &[], "schedule", [1, 1]) else { return };
        assert!(finding["proof"].as_str().unwrap().contains("POST /bills"), "{finding}");
    }
    for program in ["fixed.py", "fixed.mjs"] {
        clean("schedule", program, &[]);
    }
}

#[test]
fn a_schedule_of_the_hour_in_each_worker() {
    // In Node.js it is among `make prove-cases`.
    let flags = ["--idle", "1"];
    let Some(finding) = found("schedule", "hourly.py", &flags, "schedule", [1, 1]) else { return };
    let proof = finding["proof"].as_str().unwrap();
    assert!(proof.contains("midnight") && proof.contains("POST /bills"), "{finding}");
    clean("schedule", "hourly_fixed.py", &flags);
}

#[test]
fn migrations_of_several_workers_at_once() {
    let flags = ["--reset", RESET];
    found("migration", "app.py", &flags, "migration", [1, 1]);
    clean("migration", "fixed.py", &flags);
}

#[test]
fn a_first_request_that_takes_long_is_a_hint() {
    hint("slow-start", "app.py", "slow-start");
    clean("slow-start", "fixed.py", &[]);
}

#[test]
fn a_number_that_each_worker_counts() {
    let Some(finding) = found("duplicate-id", "app.py", &["--idle", "0"], "duplicate-id", [2, 2]) else {
        return;
    };
    assert!(finding["proof"].as_str().unwrap().contains("were given 1, 1, 1 (JSON /id)"), "{finding}");
    clean("duplicate-id", "fixed.mjs", &["--idle", "0"]);
}

#[test]
fn the_place_of_who_polls_in_one_worker() {
    // Not the step that says something, which is beside and comes wherever it was said, but the one that noted the place.
    let flags = ["--idle", "0"];
    found("polling", "app.py", &flags, "memory", [1, 3]);
    clean("polling", "fixed.py", &flags);
}

#[test]
fn a_cookie_that_names_a_worker_is_a_hint() {
    hint("sticky-cookie", "app.mjs", "sticky-cookie");
    clean("sticky-cookie", "fixed.py", &[]);
}

#[test]
fn configuration_that_is_read_at_start_is_a_hint() {
    let file = examples().join("configuration/config.json");
    let before = std::fs::read(&file).unwrap();
    hint("configuration", "app.py", "configuration");
    clean("configuration", "fixed.mjs", &[]);
    // It was emptied for two workers, and for nobody else.
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[test]
fn messages_that_stay_in_their_worker() {
    let proof = prove("events", "app.mjs", &[]);
    if !proof.has_worlds() {
        return;
    }
    let finding = the_one(&proof);
    assert_eq!((&finding["kind"], &finding["confidence"]), (&"event-stream".into(), &"proven".into()));
    assert_eq!((&finding["producer"]["step"], &finding["consumer"]["step"]), (&1.into(), &2.into()));
    let own = serde_json::json!([[true, false, false], [false, true, false], [false, false, true]]);
    assert_eq!(proof.json["coverage"]["deliveries"][0]["delivered"], own, "{}", proof.text());
    assert!(proof.out.contains("sent to B  -     yes   -"), "{}", proof.out);
}

#[test]
fn a_chat_that_stays_in_its_worker() {
    let Some(finding) = found("websocket", "app.py", &["--idle", "0"], "websocket", [2, 3]) else { return };
    assert!(finding["fix"].as_str().is_some_and(|fix| !fix.is_empty()), "{finding}");
    clean("websocket", "fixed.py", &[]);
}
