//! Services that do not start, or not as they should, and journeys that say nothing.

use std::process::{Command, Stdio};

use crate::lab::{Lab, Proof, Store, examples};

/// Proves the example of sessions, started by a shell as `script` says.
fn by_shell(script: &str) -> Proof {
    let lab = Lab::new();
    let folder = examples().join("session-in-memory");
    lab.prove(&folder, &folder.join("journey.toml"), &["sh", "-c", script])
}

#[test]
fn what_does_not_start_ends_with_status_3() {
    for (script, expected) in [
        ("echo no key found >&2; exit 7", ["status 7", "no key found"]),
        ("exec /no/such/program", ["did not start", "/no/such/program"]),
        ("test -t 0 || { echo not a terminal; exit 1; }", ["status 1", "not a terminal"]),
    ] {
        let proof = by_shell(script);
        assert_eq!(proof.status.code(), Some(3), "{}", proof.text());
        for expected in expected {
            assert!(proof.err.contains(expected), "{expected:?} in {}", proof.text());
        }
    }
    let lab = Lab::new();
    let journey = examples().join("session-in-memory/journey.toml");
    let proof = lab.prove(lab.path(), &journey, &["/no/such/program"]);
    assert_eq!(proof.status.code(), Some(3), "{}", proof.text());
    assert!(proof.err.contains("cannot be started"), "{}", proof.text());
}

#[test]
fn what_never_listens_is_given_up() {
    let lab = Lab::new();
    let journey = examples().join("session-in-memory/journey.toml");
    let flags = ["--start-timeout", "1"];
    let proof = lab.run(&mut lab.command_with(&flags, lab.path(), &journey, &["sleep", "3600"]));
    assert_eq!(proof.status.code(), Some(3), "{}", proof.text());
    assert!(proof.err.contains("nothing listens after 1 s"), "{}", proof.text());
}

#[test]
fn another_port_and_deaf_ears_are_no_hindrance() {
    for script in
        ["PORT=3000 exec python3 app.py", "python3 app.py & exit 0", "trap '' TERM INT HUP; python3 app.py"]
    {
        let proof = by_shell(script);
        if !proof.has_worlds() {
            return;
        }
        assert_eq!(proof.status.code(), Some(1), "{script}: {}", proof.text());
        assert_eq!(proof.json["findings"][0]["kind"], "memory", "{script}");
    }
}

#[test]
fn a_journey_that_fails_on_one_worker_is_said_first() {
    let lab = Lab::new();
    let journey = lab.write("wrong.toml", "[[steps]]\nget = \"/me\"\n[[steps]]\nget = \"/\"\n");
    let proof = lab.prove(&examples().join("session-in-memory"), &journey, &["python3", "app.py"]);
    assert_eq!(proof.status.code(), Some(2), "{}", proof.text());
    assert_eq!(proof.json["verdict"], "inconclusive");
    let uncovered = &proof.json["coverage"]["uncovered"][0];
    assert_eq!((&uncovered["step"], &uncovered["journey"]), (&1.into(), &"wrong".into()));
    assert!(
        uncovered["response"].as_str().unwrap().contains("401 Unauthorized sign in first"),
        "{uncovered}"
    );
    assert_eq!(proof.json["coverage"]["steps_covered"], 0);
    assert!(proof.out.contains("sign in first"), "{}", proof.text());
}

/// Answers 200, 201 and 202 in turn, whatever the worker.
const IN_TURN: &str = r#"
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.request import Request, urlopen

class App(BaseHTTPRequestHandler):
    def do_POST(self):
        count = int(urlopen(Request(os.environ["STORE"] + "/turns", data=b"", method="POST")).read())
        self.send_response(200 + count % 3)
        self.end_headers()

HTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"#;

#[test]
fn a_journey_that_is_not_repeatable_is_no_ground_for_anything() {
    let (lab, store) = (Lab::new(), Store::start());
    lab.write("app.py", IN_TURN);
    let journey = lab.write("two.toml", "[[steps]]\npost = \"/\"\n[[steps]]\npost = \"/\"\n");
    let proof = lab.run(lab.command(lab.path(), &journey, &["python3", "app.py"]).env("STORE", &store.url));
    assert_eq!(proof.status.code(), Some(2), "{}", proof.text());
    let why = proof.json["coverage"]["uncovered"][0]["why"].as_str().unwrap();
    assert!(why.contains("not repeatable") && why.contains("201"), "{why}");

    // Emptied before each run, it is.
    let url = &store.url;
    let reset =
        format!("python3 -c \"from urllib.request import *; urlopen(Request('{url}/', method='DELETE'))\"");
    let flags = ["--reset", &reset];
    let mut command = lab.command_with(&flags, lab.path(), &journey, &["python3", "app.py"]);
    let proof = lab.run(command.env("STORE", url));
    if proof.has_worlds() {
        assert_eq!(proof.status.code(), Some(0), "{}", proof.text());
    }
    let flags = ["--reset", "echo the disk is full >&2; false"];
    let mut command = lab.command_with(&flags, lab.path(), &journey, &["python3", "app.py"]);
    let proof = lab.run(command.env("STORE", url));
    assert_eq!(proof.status.code(), Some(2), "{}", proof.text());
    assert!(proof.err.contains("--reset") && proof.err.contains("the disk is full"), "{}", proof.text());
}

#[test]
fn a_recording_without_a_journey_starts_no_worker() {
    let lab = Lab::new();
    let entry = |url: &str, status: u16| {
        serde_json::json!({ "startedDateTime": "2026-01-31T09:05:00Z", "_resourceType": "document",
            "request": { "method": "GET", "url": url, "headers": [] },
            "response": { "status": status, "headers": [], "content": { "mimeType": "text/html", "text": "" } } })
    };
    // The page itself had no response; what is left is of others.
    let entries = [entry("https://shop.example/", 0), entry("https://pay.example/form", 200)];
    let elsewhere = serde_json::json!({ "log": { "version": "1.2", "entries": entries } }).to_string();
    let cut = &elsewhere[..elsewhere.len() / 2];
    let huge = lab.path().join("huge.har");
    // Without a block on the disk.
    std::fs::File::create(&huge).unwrap().set_len((256 << 20) + 1).unwrap();
    for (journey, expected) in [
        (lab.write("cut.har", cut), &["cut.har", "the recording ends in the middle"][..]),
        (huge, &["huge.har", "is longer than 256 MiB"]),
        (
            lab.write("elsewhere.har", &elsewhere),
            &["no request to shop.example is left", "1 to other hosts", "1 without a response"],
        ),
    ] {
        // Status 3 if it was started.
        let proof = lab.prove(lab.path(), &journey, &["/no/such/program"]);
        assert_eq!(proof.status.code(), Some(2), "{}", proof.text());
        for expected in expected {
            assert!(proof.err.contains(expected), "{expected:?} in {}", proof.text());
        }
    }
}

#[test]
fn a_file_that_is_no_journey_is_wrong_usage() {
    let lab = Lab::new();
    let journey = lab.write("empty.toml", "");
    let proof = lab.prove(lab.path(), &journey, &["sleep", "1"]);
    assert_eq!(proof.status.code(), Some(2), "{}", proof.text());
    assert!(proof.err.contains("there are no steps"), "{}", proof.text());
}

/// Who names a program as if it were a configuration, or leaves out the `--` before it, is told what to type.
#[test]
fn a_program_in_the_wrong_place_is_recognized() {
    let lab = Lab::new();
    lab.write("app.py", "");
    for (line, meant) in [
        (&["app.py"][..], "`lethe prove -- python3 app.py`"),
        (&["python3", "app.py"], "`lethe prove -- python3 app.py`"),
        (&["server"], "`lethe prove -- server`"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_lethe"))
            .arg("prove")
            .args(line)
            .current_dir(lab.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{line:?}: {said}");
        assert!(said.contains(meant), "{line:?}: {said}");
    }
}

/// A service whose POST writes 8 MiB, and whose page at `/broken` always fails; `HOME` is its first page's status.
const LARGE: &str = r#"
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

class App(BaseHTTPRequestHandler):
    def answer(self, status):
        body = b'<a href="/about">about</a> <a href="/broken">broken</a>'
        self.send_response(status)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer({"/": int(os.environ.get("FIRST", "200")), "/broken": 500}.get(self.path, 200))

    def do_POST(self):
        with open("large", "wb") as file:
            file.write(bytes(8 << 20))
        self.answer(200)

HTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"#;

#[test]
fn a_disk_that_is_full_is_named() {
    let lab = Lab::new();
    lab.write("app.py", LARGE);
    let journey =
        lab.write("large.toml", "[[steps]]\nget = \"/\"\n[[steps]]\npost = \"/\"\n[[steps]]\nget = \"/\"\n");
    let lethe = lab.command(lab.path(), &journey, &["python3", "app.py"]);
    // A disk that is there for this process alone, and goes with it.
    let small = r#"mount -t tmpfs -o size=4m small "$TMPDIR" && exec "$@""#;
    let mut words = Command::new("unshare");
    words.args(["--mount", "sh", "-c", small, "sh"]).arg(lethe.get_program()).args(lethe.get_args());
    words.envs(lethe.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(lab.path());
    let proof = lab.run(words.stdin(Stdio::null()));
    if !proof.has_worlds() {
        return;
    }
    assert_eq!(proof.status.code(), Some(2), "{}", proof.text());
    assert!(proof.out.contains("no disk is left: "), "{}", proof.text());
}

#[test]
fn a_service_that_fails_at_once_is_not_stateless() {
    let lab = Lab::new();
    lab.write("app.py", LARGE);
    let crawl = |first: &str| {
        let mut lethe = lab.lethe(&["--idle", "0"]);
        lethe.args(["--", "python3", "app.py"]).env("FIRST", first).current_dir(lab.path());
        lab.run(&mut lethe)
    };
    let broken = crawl("500");
    assert_eq!(broken.status.code(), Some(2), "{}", broken.text());
    assert!(broken.out.contains("it fails on one worker: status 500"), "{}", broken.text());
    // One page that fails is left out, and said.
    let rest = crawl("200");
    if rest.has_worlds() {
        assert_eq!(rest.status.code(), Some(0), "{}", rest.text());
    }
    assert!(rest.out.contains("GET /broken failed on one worker"), "{}", rest.text());
}

#[test]
fn reports_are_not_written_into_the_service() {
    let lab = Lab::new();
    lab.write("lethe.toml", "");
    let ended = lab.lethe(&["--ci", lab.path().to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(2), "{said}");
    assert!(said.contains("write the service before `--ci`"), "{said}");
}
