//! Schedules that find what no other one does.

use serde_json::Value;

use crate::lab::{Lab, Proof, Store};

/// Reads a catalogue when it is first asked for one, and adds to what it has read what it is given itself: a worker that nobody has
/// asked yet knows all, and one that has served anybody does not hear of what others are given. With `--fixed`, it is read each time.
const CATALOGUE: &str = r#"
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.error import HTTPError
from urllib.request import Request, urlopen

LIST = os.environ["STORE"] + "/catalogue"
known = None

def read():
    try:
        with urlopen(LIST) as answer:
            return answer.read().decode().split()
    except HTTPError:
        return []

def names():
    global known
    if known is None or "--fixed" in sys.argv:
        known = read()
    return known

class App(BaseHTTPRequestHandler):
    def do_PUT(self):
        name = self.path.rsplit("/", 1)[1]
        names()
        urlopen(Request(LIST, data=" ".join({*read(), name}).encode(), method="PUT")).close()
        known.append(name)
        self.answer(201)
    def do_GET(self):
        self.answer(200 if self.path.rsplit("/", 1)[1] in names() else 404)
    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

HTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"#;

const ITEM: &str = "[[steps]]\nput = \"/items/{{identity}}\"\n[[steps]]\nget = \"/items/{{identity}}\"\n\
    [[steps]]\nget = \"/items/{{identity}}\"\n";

fn catalogue(more: &[&str]) -> Proof {
    let (lab, store) = (Lab::new(), Store::start());
    lab.write("app.py", CATALOGUE);
    let journey = lab.write("item.toml", ITEM);
    let words = [&["python3", "app.py"], more].concat();
    lab.run(lab.command_with(&["--idle", "0"], lab.path(), &journey, &words).env("STORE", &store.url))
}

/// The titles of the schedules of the journey that failed.
fn failed(proof: &Proof) -> Vec<&str> {
    let rows = proof.json["coverage"]["schedules"].as_array().unwrap();
    let failed = rows.iter().filter(|row: &&Value| !row["failed_at"].is_null());
    failed.map(|row| row["schedule"].as_str().unwrap()).collect()
}

#[test]
fn what_shows_at_workers_that_were_used_alone() {
    let proof = catalogue(&[]);
    if !proof.has_worlds() {
        return;
    }
    let text = proof.text();
    assert_eq!((proof.status.code(), failed(&proof)), (Some(1), vec!["warm round robin"]), "{text}");
    let finding = &proof.json["findings"][0];
    assert_eq!(
        (&finding["producer"]["step"], &finding["consumer"]["step"]),
        (&1.into(), &2.into()),
        "{text}"
    );
    let proof = catalogue(&["--fixed"]);
    assert_eq!((proof.status.code(), failed(&proof)), (Some(0), vec![]), "{}", proof.text());
}

/// Does not start where somebody runs already, by a file that only an end in peace removes. With `--fixed`, it looks whether they do.
const JEALOUS: &str = r#"
import atexit, os, signal, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

if os.path.exists("app.pid") and "--fixed" not in sys.argv:
    sys.exit("app.pid says that it runs already")
with open("app.pid", "w") as file:
    file.write(str(os.getpid()))
signal.signal(signal.SIGTERM, lambda *_: (os.unlink("app.pid"), os._exit(0)))

class App(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

HTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"#;

fn jealous(more: &[&str]) -> Proof {
    let lab = Lab::new();
    lab.write("app.py", JEALOUS);
    let journey = lab.write("two.toml", &"[[steps]]\nget = \"/\"\n".repeat(2));
    lab.prove(lab.path(), &journey, &[&["python3", "app.py"], more].concat())
}

#[test]
fn what_shows_after_kill_9_alone() {
    let proof = jealous(&[]);
    if !proof.has_worlds() {
        return;
    }
    let text = proof.text();
    assert_eq!((proof.status.code(), failed(&proof)), (Some(1), vec!["kill -9 after every step"]), "{text}");
    let findings = proof.json["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{text}");
    let finding = &findings[0];
    assert_eq!(
        (&finding["kind"], &finding["confidence"]),
        (&"left-behind".into(), &"proven".into()),
        "{text}"
    );
    assert!(finding["proof"].as_str().unwrap().contains("app.pid says that it runs already"), "{text}");
    let proof = jealous(&["--fixed"]);
    assert_eq!((proof.status.code(), failed(&proof)), (Some(0), vec![]), "{}", proof.text());
    assert_eq!(proof.json["findings"].as_array().map(Vec::len), Some(0), "{}", proof.text());
}

/// Keeps items in a grid of all workers: who is asked for one that it does not have asks the others, by a note in the store, and who has
/// it puts it there. So each worker finds each item, as long as the one that was given it lives. With `--fixed` it is put there at once.
const GRID: &str = r#"
import os, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.request import Request, urlopen

STORE = os.environ["STORE"]
items = {}

def put(path, body):
    urlopen(Request(STORE + path, data=body, method="PUT")).close()

def get(path):
    try:
        with urlopen(STORE + path) as answer:
            return answer.read()
    except HTTPError:
        return None

def hand_over():
    while True:
        for path, body in list(items.items()):
            if get("/wanted" + path) is not None:
                put("/items" + path, body)
        time.sleep(0.01)

class App(BaseHTTPRequestHandler):
    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if "--fixed" in sys.argv:
            put("/items" + self.path, body)
        else:
            items[self.path] = body
        self.answer(204)
    def do_GET(self):
        body = items.get(self.path) or get("/items" + self.path)
        if body is None:
            put("/wanted" + self.path, b"")
        until = time.monotonic() + 2
        while body is None and time.monotonic() < until:
            body = get("/items" + self.path)
        self.answer(200 if body else 404)
    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass

threading.Thread(target=hand_over, daemon=True).start()
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"#;

fn grid(more: &[&str]) -> Proof {
    let (lab, store) = (Lab::new(), Store::start());
    lab.write("app.py", GRID);
    let steps =
        "[[steps]]\nput = \"/{{identity}}\"\nbody = \"the lake\"\n[[steps]]\nget = \"/{{identity}}\"\n";
    let journey = lab.write("item.toml", steps);
    let words = [&["python3", "app.py"], more].concat();
    lab.run(lab.command_with(&["--idle", "0"], lab.path(), &journey, &words).env("STORE", &store.url))
}

/// That it is missed after a worker was killed in the middle of the second step says nothing of that step.
#[test]
fn what_is_lost_with_the_worker_alone() {
    let proof = grid(&[]);
    if !proof.has_worlds() {
        return;
    }
    let text = proof.text();
    assert_eq!((proof.status.code(), failed(&proof)), (Some(1), vec!["kill -9 after every step"]), "{text}");
    let findings = proof.json["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{text}");
    assert_eq!((&findings[0]["kind"], &findings[0]["confidence"]), (&"memory".into(), &"proven".into()));
    assert_eq!((&findings[0]["producer"]["step"], &findings[0]["consumer"]["step"]), (&1.into(), &2.into()));
    let proof = grid(&["--fixed"]);
    assert_eq!((proof.status.code(), failed(&proof)), (Some(0), vec![]), "{}", proof.text());
}
