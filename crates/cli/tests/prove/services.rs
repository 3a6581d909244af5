//! Real services with a state tier, and a service without any journey.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::lab::{Lab, examples};

#[test]
fn the_guestbook_is_stateless() {
    let lab = Lab::new();
    let guestbook =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/guestbook").canonicalize().unwrap();
    let proof = lab.run(lab.lethe(&[]).arg("--journey").arg(guestbook.join("sign.toml")).arg(&guestbook));
    if !proof.has_worlds() {
        return;
    }
    assert_eq!(proof.status.code(), Some(0), "{}", proof.text());
    assert_eq!(proof.json["verdict"], "stateless", "{}", proof.text());
    assert_eq!(proof.json["coverage"]["steps_covered"], 6, "{}", proof.text());
}

#[test]
fn the_shop_is_stateless() {
    let lab = Lab::new();
    let shop = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop").canonicalize().unwrap();
    let proof = lab.run(lab.lethe(&[]).arg("--journey").arg(shop.join("shopping.toml")).arg(&shop));
    if !proof.has_worlds() {
        return;
    }
    assert_eq!(proof.status.code(), Some(0), "{}", proof.text());
    assert_eq!(proof.json["verdict"], "stateless", "{}", proof.text());
    assert_eq!(proof.json["coverage"]["steps_covered"], 7, "{}", proof.text());
}

#[test]
fn one_page_without_links_shows_nothing() {
    let (lab, folder) = (Lab::new(), examples().join("session-in-memory"));
    let proof = lab.run(lab.lethe(&[]).args(["--", "python3", "app.py"]).current_dir(&folder));
    assert_eq!(proof.status.code(), Some(2), "{}", proof.text());
    assert!(proof.out.contains("one step alone"), "{}", proof.text());
}

#[test]
fn all_forms_of_the_report_are_written() {
    let (lab, folder) = (Lab::new(), examples().join("session-in-memory"));
    let (journey, reports) = (folder.join("journey.toml"), lab.path().join("reports/proof"));
    let mut lethe = lab.lethe(&["--workers", "2", "--seed", "7", "--ci", reports.to_str().unwrap()]);
    lethe.arg("--journey").arg(&journey).args(["--", "python3", "app.py"]);
    let proof = lab.run(lethe.current_dir(&folder));
    assert_eq!(proof.status.code(), Some(1), "{}", proof.text());
    let read = |name: &str| fs::read_to_string(reports.join(name)).unwrap();
    let json: Value = serde_json::from_str(&read("proof.json")).unwrap();
    let sarif: Value = serde_json::from_str(&read("proof.sarif")).unwrap();
    assert_eq!(json["findings"][0]["rule"], "lethe/memory");
    let result = &sarif["runs"][0]["results"][0];
    assert_eq!(result["ruleId"], "lethe/memory");
    let file = &result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"];
    assert_eq!(file.as_str(), journey.to_str());
    let junit = read("proof.junit.xml");
    // With a reader of XML that is not ours.
    let parse = "import sys, xml.etree.ElementTree as x; x.parse(sys.argv[1])";
    let parsed = Command::new("python3").args(["-c", parse]).arg(reports.join("proof.junit.xml")).status();
    assert!(parsed.unwrap().success(), "{junit}");
    assert!(junit.contains("tests=\"5\" failures=\"2\" skipped=\"0\""), "{junit}");
    assert!(junit.contains("name=\"4 GET /me\"><failure type=\"lethe/memory\""), "{junit}");
    let page = read("proof.html");
    assert!(page.contains("<h1 class=\"violation\">1 violation</h1>"), "{page}");
    assert!(page.contains("<del>− 200 OK</del><ins>+ 401 Unauthorized</ins>"), "{page}");
    // Who plays is called after the seed.
    assert!(page.contains("hello ada-p000007n"), "{page}");
    // A step that needs the same is not green either.
    assert_eq!(json["findings"][0]["also"][0]["step"], 5);
    assert_eq!(json["coverage"]["steps_covered"], 4);
}

#[test]
fn the_verdict_is_the_status_though_nobody_reads_and_nothing_is_written() {
    let (lab, folder) = (Lab::new(), examples().join("session-in-memory"));
    let mut command = lab.command_with(
        &["--sarif", "/dev/full"],
        &folder,
        &folder.join("journey.toml"),
        &["python3", "app.py"],
    );
    let mut lethe = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(lethe.stdout.take());
    let ended = lethe.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write /dev/full"), "{said}");
}
