//! A finding of an earlier proof, repeated.

use crate::lab::{Lab, Proof, examples};

/// `lethe prove --replay …` where the last proof was.
fn replay(lab: &Lab, words: &[&str]) -> Proof {
    lab.replay(&examples().join("session-in-memory"), words)
}

#[test]
fn a_finding_fails_again_until_it_is_mended() {
    let (lab, folder) = (Lab::new(), examples().join("session-in-memory"));
    let early = replay(&lab, &["F1"]);
    assert_eq!(early.status.code(), Some(2), "{}", early.text());
    assert!(early.err.contains("no proof of") && early.err.contains("--from"), "{}", early.text());

    let proof = lab.prove(&folder, &folder.join("journey.toml"), &["python3", "app.py"]);
    if !proof.has_worlds() {
        return;
    }
    assert_eq!(proof.json["asked"]["command"][1], "app.py", "{}", proof.text());
    let again = replay(&lab, &["F1"]);
    assert_eq!(again.status.code(), Some(1), "{}", again.text());
    assert!(again.out.contains("F1 fails again (3 of 3 times)"), "{}", again.text());
    assert!(again.out.contains("401 Unauthorized"), "{}", again.text());

    let report = lab.path().join("proof.json");
    let mended = replay(&lab, &["F1", "--from", report.to_str().unwrap(), "--", "python3", "fixed.py"]);
    assert_eq!(mended.status.code(), Some(0), "{}", mended.text());
    assert!(mended.out.contains("F1 does not fail any more"), "{}", mended.text());

    let unknown = replay(&lab, &["F9"]);
    assert_eq!(unknown.status.code(), Some(2), "{}", unknown.text());
    assert!(unknown.err.contains("no finding F9: that proof found F1"), "{}", unknown.text());
}

/// Two journeys find the same service wanting, each in a way of its own.
#[test]
fn one_of_several_findings_is_repeated() {
    let (lab, folder) = (Lab::new(), examples().join("session-in-memory"));
    let sign_in = "[[steps]]\npost = \"/sign-in\"\nform = { name = \"ada-{{identity}}\" }\n";
    let me = "[[steps]]\nget = \"/me\"\n";
    let short = lab.write("short.toml", &format!("name = \"short\"\n{sign_in}{me}"));
    let long = lab.write("long.toml", &format!("name = \"long\"\n[[steps]]\nget = \"/\"\n{sign_in}{me}"));
    let flags = ["--journey", short.to_str().unwrap()];
    let proof = lab.run(&mut lab.command_with(&flags, &folder, &long, &["python3", "app.py"]));
    if !proof.has_worlds() {
        return;
    }
    let findings = proof.json["findings"].as_array().unwrap();
    let told: Vec<_> = findings.iter().map(|found| [&found["id"], &found["replay"]["journey"]]).collect();
    assert_eq!(told, [["F1", "long"], ["F2", "short"]], "{}", proof.text());
    let again = replay(&lab, &["F2"]);
    assert_eq!(again.status.code(), Some(1), "{}", again.text());
    assert!(again.out.contains("F2 fails again (3 of 3 times)"), "{}", again.text());
    assert!(again.err.contains("journey short, 2 steps") && !again.err.contains("long"), "{}", again.text());
}
