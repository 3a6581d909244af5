//! Honest services whose answers depend on what is beside them: nothing of that is called a violation.

use crate::lab::{Lab, Proof, Store};

/// Keeps nothing: all requests of all users are counted in a store beside, and some of them are too many. `REFUSED` is one of them, and
/// `REFUSED_FROM` the first after which all are.
const LIMITED: &str = r#"
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request, urlopen

class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with urlopen(Request(os.environ["STORE"] + "/all", data=b"", method="POST")) as answer:
            count = int(answer.read())
        refused = count == int(os.environ["REFUSED"]) or count >= int(os.environ["REFUSED_FROM"])
        self.send_response(429 if refused else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"#;

/// Requests of the controls of a journey of three steps.
const OF_CONTROLS: usize = 9;

/// Requests of the first cut.
const OF_A_CUT: usize = 3;

const NEVER: usize = usize::MAX;

/// Proves it, and gives why it is inconclusive.
fn inconclusive(refused: usize, refused_from: usize) -> Option<String> {
    let (lab, store) = (Lab::new(), Store::start());
    lab.write("app.py", LIMITED);
    let journey = lab.write("three.toml", &"[[steps]]\nget = \"/\"\n".repeat(3));
    let mut command = lab.command(lab.path(), &journey, &["python3", "app.py"]);
    command.env("STORE", &store.url).env("REFUSED", refused.to_string());
    let proof = lab.run(command.env("REFUSED_FROM", refused_from.to_string()));
    if !proof.has_worlds() {
        return None;
    }
    let text = proof.text();
    assert_eq!(proof.status.code(), Some(2), "{text}");
    assert_eq!(proof.json["verdict"], "inconclusive", "{text}");
    assert_eq!(proof.json["findings"].as_array().unwrap().len(), 0, "{text}");
    let coverage = &proof.json["coverage"];
    assert!(coverage["steps_covered"].as_u64() < coverage["steps"].as_u64(), "{text}");
    Some(coverage["uncovered"].to_string())
}

#[test]
fn a_limit_that_all_workers_share_is_no_violation() {
    // It is used up in the first cut, and stays so.
    let Some(why) = inconclusive(NEVER, OF_CONTROLS + OF_A_CUT) else { return };
    assert!(why.contains("429"), "{why}");
}

#[test]
fn what_differed_once_is_no_violation() {
    let Some(why) = inconclusive(OF_CONTROLS + OF_A_CUT, NEVER) else { return };
    assert!(why.contains("once, and not again"), "{why}");
}

#[test]
fn a_worker_that_nobody_has_used_keeps_nothing() {
    // The first step of the first cut fails, and one worker passes after it.
    let Some(why) = inconclusive(OF_CONTROLS + 1, NEVER) else { return };
    assert!(why.contains("a worker that nobody had used"), "{why}");
}

/// Sets a cookie with each answer but one, by a count that all workers share. With `KEPT`, whoever a worker does not know gets a cookie:
/// that is all that shows that it keeps who they are. With `LAZY`, it lets each second one be of those who bring one that it does not
/// know, by a count that all workers share.
const SETTING: &str = r#"
import os, secrets
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request, urlopen

known = set()

class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def count(self, name):
        with urlopen(Request(os.environ["STORE"] + "/" + name, data=b"", method="POST")) as answer:
            return int(answer.read())

    def do_GET(self):
        self.send_response(200)
        if "KEPT" in os.environ:
            cookie = self.headers.get("Cookie", "")
            is_stranger = cookie not in known
            is_lazy = is_stranger and cookie and "LAZY" in os.environ and self.count("strangers") % 2 == 0
            if is_stranger and not is_lazy:
                session = secrets.token_hex(16)
                known.add("session=" + session)
                self.send_header("Set-Cookie", "session=" + session + "; HttpOnly")
        elif self.count("all") != int(os.environ["WITHOUT"]):
            self.send_header("Set-Cookie", "tip=42; HttpOnly")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"#;

fn setting(lab: &Lab, steps: usize, environment: &[(&str, &str)]) -> Proof {
    let store = Store::start();
    lab.write("app.py", SETTING);
    let journey = lab.write("asks.toml", &"[[steps]]\nget = \"/\"\n".repeat(steps));
    let mut command = lab.command_with(&["--idle", "0"], lab.path(), &journey, &["python3", "app.py"]);
    lab.run(command.env("STORE", &store.url).envs(environment.iter().copied()))
}

#[test]
fn a_cookie_that_was_left_out_once_is_masked_and_one_that_says_more_is_not() {
    let lab = Lab::new();
    let without = (OF_CONTROLS + OF_A_CUT).to_string();
    let proof = setting(&lab, 3, &[("WITHOUT", &without)]);
    if !proof.has_worlds() {
        return;
    }
    let text = proof.text();
    assert_eq!((proof.status.code(), &proof.json["verdict"]), (Some(0), &"stateless".into()), "{text}");
    let masked = proof.json["coverage"]["masked"].to_string();
    assert!(masked.contains("cookie tip"), "{masked}");

    let proof = setting(&lab, 2, &[("KEPT", "")]);
    let findings = proof.json["findings"].as_array().unwrap();
    assert_eq!((proof.status.code(), findings.len()), (Some(1), 1), "{}", proof.text());
    let finding = &findings[0];
    assert_eq!((&finding["kind"], &finding["confidence"]), (&"memory".into(), &"proven".into()));
    assert!(finding["proof"].as_str().unwrap().contains("cookie session"), "{finding}");
}

/// It comes and goes between workers, and never on one: that is no chance.
#[test]
fn a_cookie_that_one_worker_never_leaves_out_is_not_masked() {
    let lab = Lab::new();
    let proof = setting(&lab, 2, &[("KEPT", ""), ("LAZY", "")]);
    if !proof.has_worlds() {
        return;
    }
    assert_ne!(proof.json["verdict"], "stateless", "{}", proof.text());
}
