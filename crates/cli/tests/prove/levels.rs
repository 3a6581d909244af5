//! How well workers are kept apart where that is hardly possible: said, and never more concluded than was seen.

use std::{fs, path::Path, process::Command};

use crate::lab::{Lab, Proof, can_lose_privileges, is_without_worlds, without_privileges};

/// Keeps one note, in the file of its first argument.
const NOTES: &str = r#"
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class App(BaseHTTPRequestHandler):
    def do_PUT(self):
        with open(sys.argv[1], "wb") as file:
            file.write(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(201, b"")
    def do_GET(self):
        if os.path.exists(sys.argv[1]):
            with open(sys.argv[1], "rb") as file:
                self.answer(200, file.read())
        else:
            self.answer(404, b"")
    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

HTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"#;

const JOURNEY: &str = "[[steps]]\nput = \"/note\"\nbody = \"of {{identity}}\"\n[[steps]]\nget = \"/note\"\n";

/// `lethe prove` of a service that keeps its notes in `file`, by somebody who may not do anything.
fn prove(lab: &Lab, flags: &[&str], file: &Path) -> Proof {
    let home = lab.path().join("home");
    if !home.exists() {
        fs::create_dir(&home).unwrap();
    }
    fs::write(home.join("app.py"), NOTES).unwrap();
    let journey = lab.write("journey.toml", JOURNEY);
    let told = lab.command_with(flags, &home, &journey, &["python3", "app.py", file.to_str().unwrap()]);
    lab.run(&mut without_privileges(&told))
}

#[test]
fn without_any_privileges_nothing_is_proven_and_copies_are_offered() {
    if !can_lose_privileges() {
        return;
    }
    let lab = Lab::new();
    let proof = prove(&lab, &[], Path::new("note"));
    assert_eq!(proof.status.code(), Some(2), "{}", proof.text());
    assert!(proof.json.is_null() && proof.err.contains("nothing was proven"), "{}", proof.text());
    assert!(proof.err.contains("allow `--copied`"), "{}", proof.text());
    assert!(!lab.path().join("home/note").exists());
}

#[test]
fn in_copies_files_of_the_folder_are_found_and_of_others_nothing_is_concluded() {
    if !can_lose_privileges() {
        return;
    }
    let lab = Lab::new();
    let proof = prove(&lab, &["--copied"], Path::new("note"));
    assert_eq!(proof.status.code(), Some(1), "{}", proof.text());
    let coverage = &proof.json["coverage"];
    assert_eq!(coverage["isolation"], "copied folder", "{}", proof.text());
    let finding = &proof.json["findings"][0];
    assert_eq!((&finding["kind"], &finding["confidence"]), (&"file".into(), &"likely".into()));
    assert!(finding["proof"].as_str().unwrap().contains("with the same copy"), "{finding}");
    assert!(!lab.path().join("home/note").exists());

    // All workers share what lies elsewhere, so that none misses it.
    let elsewhere = lab.path().join("note");
    let proof = prove(&lab, &["--copied"], &elsewhere);
    assert_eq!(proof.status.code(), Some(2), "{}", proof.text());
    assert_eq!(proof.json["verdict"], "inconclusive", "{}", proof.text());
    assert_eq!(proof.json["findings"].as_array().map(Vec::len), Some(0), "{}", proof.text());
    assert!(proof.out.contains("files at absolute paths"), "{}", proof.text());
    assert!(elsewhere.exists(), "what it does elsewhere stays, as is said");
}

#[test]
fn where_worlds_can_be_made_copies_are_not_needed() {
    if is_without_worlds() {
        return;
    }
    let lab = Lab::new();
    let elsewhere = lab.path().join("note");
    let home = lab.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("app.py"), NOTES).unwrap();
    let journey = lab.write("journey.toml", JOURNEY);
    let words = ["python3", "app.py", elsewhere.to_str().unwrap()];
    let proof = lab.run(&mut lab.command_with(&["--copied"], &home, &journey, &words));
    assert!(proof.has_worlds());
    assert_eq!(proof.json["findings"][0]["kind"], "file", "{}", proof.text());
    assert_eq!(proof.json["findings"][0]["file"]["path"].as_str(), elsewhere.to_str(), "{}", proof.text());
    assert!(!elsewhere.exists());
}

/// As `lethe prove` does, and only where it is allowed.
#[test]
fn a_recording_may_be_of_a_copy_too() {
    if !can_lose_privileges() {
        return;
    }
    let lab = Lab::new();
    fs::write(lab.path().join("app.py"), "open('kept', 'w').close(); raise SystemExit(3)").unwrap();
    let record = |flags: &[&str]| {
        let mut told = Command::new(env!("CARGO_BIN_EXE_lethe"));
        told.arg("record").args(flags).args(["--", "python3", "app.py"]).current_dir(lab.path());
        told.env("TMPDIR", lab.scratch());
        lab.run(&mut without_privileges(&told))
    };
    let copied = record(&["--copied"]);
    assert!(!lab.path().join("kept").exists(), "{}", copied.text());
    assert!(copied.err.contains("it ended with status 3"), "{}", copied.text());
    // Where it is not allowed, it runs in its folder, and that is said.
    let in_place = record(&[]);
    assert!(lab.path().join("kept").exists(), "{}", in_place.text());
}
