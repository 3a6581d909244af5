//! What a person did before `lethe record` is enough to prove a service with.

use std::fs;

use http::Method;
use rustix::process::Signal;

use crate::{
    lab::{Lab, examples},
    recorder::Recorder,
    visitor::Visitor,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_in_memory_is_found() -> anyhow::Result<()> {
    let (lab, folder) = (Lab::new(), examples().join("session-in-memory"));
    let path = lab.path().join("recorded.toml");
    let output = path.to_str().unwrap();
    let recorder = Recorder::start(&folder, &["-o", output, "--", "python3", "app.py"])?;
    let mut visitor = Visitor::new(recorder.address);
    visitor.get("/").await?;
    assert_eq!(visitor.post("/sign-in", &[("name", "ada")]).await?.location(), "/me");
    assert_eq!(visitor.get("/me").await?.text(), "hello ada");
    let (status, said) = recorder.end(Signal::INT)?;
    assert!(status.success(), "{said}");
    let expected = format!("prove with: lethe prove --journey {output} -- python3 app.py");
    assert!(said.contains(&expected), "{said}");

    let proof = lab.prove(&folder, &path, &["python3", "app.py"]);
    if !proof.has_worlds() {
        return Ok(());
    }
    let finding = &proof.json["findings"][0];
    assert_eq!(proof.status.code(), Some(1), "{}", proof.text());
    assert_eq!(
        (&finding["kind"], &finding["confidence"]),
        (&"memory".into(), &"proven".into()),
        "{finding:#}"
    );
    assert_eq!(
        (&finding["producer"]["step"], &finding["consumer"]["step"]),
        (&2.into(), &3.into()),
        "{finding:#}"
    );
    Ok(())
}

/// A photo that is uploaded while it is recorded would be found by every worker of the proof, were it still there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_leaves_no_file_behind() -> anyhow::Result<()> {
    let (lab, example) = (Lab::new(), examples().join("file-upload/app.py"));
    let folder = lab.path().join("service");
    fs::create_dir(&folder)?;
    fs::copy(example, folder.join("app.py"))?;
    let path = lab.path().join("recorded.toml");
    let recorder = Recorder::start(&folder, &["-o", path.to_str().unwrap(), "--", "python3", "app.py"])?;
    let mut visitor = Visitor::new(recorder.address);
    let photo = b"the lake at noon".as_slice().into();
    assert_eq!(visitor.send(Method::PUT, "/photos/lake.txt", &[], photo).await?.status, 201);
    assert_eq!(visitor.get("/photos/lake.txt").await?.text(), "the lake at noon");
    let (status, said) = recorder.end(Signal::INT)?;
    assert!(status.success(), "{said}");
    if said.contains("to files stays") {
        assert!(std::env::var_os("LETHE_TEST_WITHOUT_WORLDS").is_some(), "{said}");
        return Ok(());
    }
    assert_eq!(fs::read_dir(&folder)?.count(), 1, "{said}");

    let proof = lab.prove(&folder, &path, &["python3", "app.py"]);
    let finding = &proof.json["findings"][0];
    assert_eq!(
        (proof.status.code(), &finding["kind"], &finding["confidence"]),
        (Some(1), &"file".into(), &"proven".into()),
        "{}",
        proof.text()
    );
    Ok(())
}

/// Gives out tokens, which it keeps in its memory, and knows who has one.
const TOKENS: &str = r#"
import json, os, secrets
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

tokens = set()

class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        token = secrets.token_hex(16)
        tokens.add("Bearer " + token)
        self.answer(201, {"access_token": token})

    def do_GET(self):
        known = self.headers.get("Authorization") in tokens
        self.answer(200 if known else 401, {"known": known})

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"#;

/// Browsers take it out of what they export; others leave it in.
#[test]
fn a_token_of_a_recording_is_that_of_the_replay() {
    let lab = Lab::new();
    lab.write("app.py", TOKENS);
    let token = "0123456789abcdef0123456789abcdef";
    let entry = |method: &str,
                 path: &str,
                 headers: serde_json::Value,
                 status: u16,
                 body: serde_json::Value| {
        serde_json::json!({
            "startedDateTime": "2026-01-31T09:05:00Z", "_resourceType": "fetch",
            "request": { "method": method, "url": format!("https://app.example{path}"), "headers": headers },
            "response": { "status": status, "headers": [],
                "content": { "mimeType": "application/json", "text": body.to_string() } },
        })
    };
    let bearer = serde_json::json!([{ "name": "Authorization", "value": format!("Bearer {token}") }]);
    for (name, sent) in [("whole.har", bearer), ("exported.har", serde_json::json!([]))] {
        let entries = [
            entry(
                "POST",
                "/tokens",
                serde_json::json!([]),
                201,
                serde_json::json!({ "access_token": token }),
            ),
            entry("GET", "/me", sent, 200, serde_json::json!({ "known": true })),
        ];
        let har = serde_json::json!({ "log": { "version": "1.2", "entries": entries } }).to_string();
        let journey = lab.write(name, &har);
        let proof = lab.prove(lab.path(), &journey, &["python3", "app.py"]);
        if !proof.has_worlds() {
            return;
        }
        let findings = proof.json["findings"].as_array().unwrap();
        assert_eq!((proof.status.code(), findings.len()), (Some(1), 1), "{name}: {}", proof.text());
        assert_eq!(findings[0]["kind"], "memory", "{name}: {}", proof.text());
        let steps = ["producer", "consumer"].map(|place| findings[0][place]["step"].clone());
        assert_eq!(steps, [1, 2].map(serde_json::Value::from), "{name}: {}", proof.text());
    }
}
