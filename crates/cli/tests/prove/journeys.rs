//! What is played: several journeys, one whose answers are never quite the same, and none at all.

use std::path::Path;

use serde_json::{Value, json};

use crate::lab::{Lab, Proof, examples};

/// Signs in, as `session-in-memory` has it, and looks at the front page alone.
const TWO: [(&str, &str); 2] = [
    ("look.toml", "name = \"look\"\n[[steps]]\nget = \"/\"\n[[steps]]\nget = \"/\"\n"),
    (
        "enter.toml",
        "name = \"enter\"\n[[steps]]\npost = \"/sign-in\"\nform = { name = \"ada-{{identity}}\" }\nexpect = { status = 303 }\n\
         [[steps]]\nget = \"/me\"\n",
    ),
];

#[test]
fn of_several_journeys_it_is_said_which() {
    let (lab, folder) = (Lab::new(), examples().join("session-in-memory"));
    let [look, enter] = TWO.map(|(name, text)| lab.write(name, text));
    let flags = ["--journey", look.to_str().unwrap()];
    let proof = lab.run(&mut lab.command_with(&flags, &folder, &enter, &["python3", "app.py"]));
    if !proof.has_worlds() {
        return;
    }
    let text = proof.text();
    assert_eq!(proof.status.code(), Some(1), "{text}");
    let findings = proof.json["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{text}");
    for (place, step) in [("producer", 1), ("consumer", 2)] {
        let place = &findings[0][place];
        assert_eq!((&place["journey"], &place["step"]), (&"enter".into(), &step.into()), "{text}");
    }
    assert_eq!(findings[0]["kind"], "memory", "{text}");
    assert_eq!(proof.json["coverage"]["steps"], 4, "{text}");
    assert!(
        proof.err.contains("journey look, 2 steps") && proof.err.contains("journey enter, 2 steps"),
        "{text}"
    );
    let rows = proof.json["coverage"]["schedules"].as_array().unwrap();
    let failed = |row: &&Value| !row["failed_at"].is_null();
    assert!(rows.iter().filter(failed).all(|row| row["journey"] == "enter"), "{text}");
    assert!(rows.iter().any(|row| row["journey"] == "look"), "{text}");
}

/// Keeps nothing; says when it is, and what it thinks of. Its answers have fields that are others each time.
const CHATTY: &str = r#"
import json, os, secrets, time
from http.server import BaseHTTPRequestHandler, HTTPServer

class App(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"page": self.path, "trace": secrets.token_hex(8), "took": time.perf_counter_ns()}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

HTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"#;

#[test]
fn what_is_another_one_each_time_is_masked_and_said() {
    let lab = Lab::new();
    lab.write("app.py", CHATTY);
    let journey =
        lab.write("look.toml", "name = \"look\"\n[[steps]]\nget = \"/\"\n[[steps]]\nget = \"/news\"\n");
    let proof = lab.prove(lab.path(), &journey, &["python3", "app.py"]);
    if !proof.has_worlds() {
        return;
    }
    let text = proof.text();
    assert_eq!((proof.status.code(), &proof.json["verdict"]), (Some(0), &"stateless".into()), "{text}");
    let masked = proof.json["coverage"]["masked"].as_array().unwrap();
    let of_step = |step: u64| -> Vec<&str> {
        masked
            .iter()
            .filter(|field| field["step"] == step)
            .map(|field| field["place"].as_str().unwrap())
            .collect()
    };
    assert_eq!(of_step(1), of_step(2), "{text}");
    for place in ["trace", "took"] {
        assert!(of_step(1).iter().any(|masked| masked.to_lowercase().contains(place)), "{place}: {masked:?}");
    }
    assert!(!masked.iter().any(|field| field["place"].as_str().unwrap().contains("page")), "{masked:?}");
    assert!(proof.out.contains(&format!(" · {} fields masked · ", masked.len())), "{text}");
}

/// A page with a form, whose notes are in memory, or in a folder that is no worker's own: the client.
const NOTES: &str = r#"
import html, os, secrets, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, quote, unquote

notes = []

class App(BaseHTTPRequestHandler):
    def do_POST(self):
        note = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())["note"][0]
        if "--fixed" not in sys.argv:
            notes.append(note)
        self.send_response(303)
        self.send_header("Location", "/notes/0" + secrets.token_hex(8))
        self.send_header("Set-Cookie", "note=" + quote(note) + "; HttpOnly")
        self.send_header("Content-Length", "0")
        self.end_headers()
    def do_GET(self):
        own = [unquote(self.headers.get("Cookie", "note=").removeprefix("note="))] if "--fixed" in sys.argv else notes
        if self.path == "/":
            page = '<a href="/notes">notes</a><form method="post" action="/notes"><input name="note" required><button>Keep</button></form>'
        else:
            page = "<ul>" + "".join("<li>" + html.escape(note) + "</li>" for note in own[-1:]) + "</ul>"
        body = page.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

HTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"#;

fn without_a_journey(lab: &Lab, flags: &[&str]) -> Proof {
    lab.write("app.py", NOTES);
    lab.run(lab.lethe(&[]).args(["--", "python3", "app.py"]).args(flags).current_dir(lab.path()))
}

#[test]
fn links_and_forms_find_what_is_kept() {
    let lab = Lab::new();
    let proof = without_a_journey(&lab, &[]);
    if !proof.has_worlds() {
        return;
    }
    let text = proof.text();
    assert_eq!(proof.status.code(), Some(1), "{text}");
    let finding = &proof.json["findings"][0];
    assert_eq!((&finding["kind"], &finding["confidence"]), (&"memory".into(), &"proven".into()), "{text}");
    assert!(finding["producer"]["title"].as_str().unwrap().contains("POST /notes"), "{finding}");
    // What it is called is the same in each run, so that the finding can be found again.
    assert_eq!(finding["consumer"]["title"], "GET /notes/…", "{finding}");
    let again = lab.replay(lab.path(), &["F1"]);
    assert!(again.out.contains("F1 fails again (3 of 3 times)"), "{}", again.text());

    let proof = without_a_journey(&lab, &["--fixed"]);
    assert_eq!(proof.status.code(), Some(0), "{}", proof.text());
    assert_eq!(proof.json["findings"], json!([]), "{}", proof.text());
}

/// A journey's file that is not there is named before anything is started.
#[test]
fn a_journey_that_is_not_there_is_named() {
    let lab = Lab::new();
    let proof = lab.prove(lab.path(), Path::new("nowhere.toml"), &["python3", "app.py"]);
    assert_eq!(proof.status.code(), Some(2), "{}", proof.text());
    assert!(proof.err.contains("nowhere.toml"), "{}", proof.text());
}
