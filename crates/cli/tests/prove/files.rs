//! What workers do with files that no other worker needs.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::PathBuf,
    process::Command,
};

use crate::lab::{Lab, Proof, examples};

/// Writes a cache, a log and a temporary file when it is asked to keep something, and reads the cache when it is asked for it, which is
/// as well made anew.
const CACHING: &str = r#"
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

class App(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/keep":
            for name, text in [("cache.txt", "42"), ("app.log", "kept"), ("half.tmp", "x")]:
                with open(name, "w") as file:
                    file.write(text)
            os.unlink("half.tmp")
            with open("new.part", "w") as file:
                file.write("x")
            os.rename("new.part", "new.txt")
        elif os.path.exists("cache.txt"):
            with open("cache.txt") as file:
                assert file.read() == "42"
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"42")

HTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"#;

/// Writes the number of its process to files and listens at unix sockets, at its start and when it is asked; at `/again` it reads the
/// number that it has written when it was asked.
const RUNNING: &str = r#"
import os, socket
from http.server import BaseHTTPRequestHandler, HTTPServer

listening = []

def run(name):
    with open(f"{name}.pid", "w") as file:
        file.write(str(os.getpid()))
    if os.path.exists(f"{name}.sock"):
        os.unlink(f"{name}.sock")
    listening.append(socket.socket(socket.AF_UNIX))
    listening[-1].bind(f"{name}.sock")
    listening[-1].listen()

class App(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/asked":
            run("asked")
            run("quiet")
        elif self.path == "/again" and os.path.exists("asked.pid"):
            with open("asked.pid") as file:
                file.read()
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"42")

run("start")
HTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"#;

/// Who is not root, by number: `nobody`.
const NOBODY: u32 = 65534;

/// The folder of the service, and the journey.
fn made(lab: &Lab) -> (PathBuf, PathBuf) {
    let home = lab.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("app.py"), CACHING).unwrap();
    let journey =
        lab.write("j.toml", "[[steps]]\nget = \"/keep\"\n[[steps]]\nget = \"/\"\n[[steps]]\nget = \"/\"\n");
    (home, journey)
}

#[test]
fn files_that_a_later_step_reads_are_a_warning_and_others_a_note() {
    let lab = Lab::new();
    let (home, journey) = made(&lab);
    let by = if rustix::process::geteuid().is_root() { "fanotify" } else { "inotify" };
    each_file_is_told(&lab.prove(&home, &journey, &["python3", "app.py"]), by);
}

#[test]
fn files_of_process_numbers_and_sockets_are_no_violations() {
    let lab = Lab::new();
    let home = lab.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("app.py"), RUNNING).unwrap();
    let steps = ["/", "/asked", "/again"].map(|path| format!("[[steps]]\nget = \"{path}\"\n"));
    let journey = lab.write("j.toml", &steps.concat());
    let proof = lab.run(&mut lab.command_with(&["--idle", "0"], &home, &journey, &["python3", "app.py"]));
    if !proof.has_worlds() {
        return;
    }
    let text = proof.text();
    assert_eq!(proof.status.code(), Some(0), "{text}");
    assert_eq!(proof.json["findings"].as_array().unwrap().len(), 0, "{text}");
    let lines = |start: &str| proof.out.lines().filter(|line| line.starts_with(start)).collect::<Vec<_>>();
    let [warning] = lines("warning: ")[..] else { panic!("{text}") };
    assert!(warning.contains("asked.pid, which step 2 writes, is read again by step 3"), "{text}");
    let [note] = lines("note: written in workers")[..] else { panic!("{text}") };
    assert!(note.contains("quiet.pid") && !note.contains("asked.pid"), "{text}");
    assert_eq!(fs::read_dir(&home).unwrap().count(), 1, "{text}");
}

/// A photo of yesterday: all workers have it, so that nobody misses that of today.
#[test]
fn what_was_there_before_is_not_passed_over() {
    let lab = Lab::new();
    let home = lab.path().join("home");
    fs::create_dir_all(home.join("uploads")).unwrap();
    fs::copy(examples().join("file-upload/app.py"), home.join("app.py")).unwrap();
    fs::write(home.join("uploads/lake.txt"), "the lake").unwrap();
    let journey = lab.write(
        "j.toml",
        "[[steps]]\nput = \"/photos/lake.txt\"\nbody = \"the lake\"\n[[steps]]\nget = \"/photos/lake.txt\"\n",
    );
    let proof = lab.prove(&home, &journey, &["python3", "app.py"]);
    if !proof.has_worlds() {
        return;
    }
    let said = proof.text();
    assert_eq!(proof.status.code(), Some(2), "{said}");
    assert_eq!(proof.json["verdict"], "inconclusive", "{said}");
    let why = proof.json["coverage"]["uncovered"][0]["why"].as_str().unwrap_or_default();
    assert_eq!(proof.json["coverage"]["steps_covered"], 1, "{said}");
    assert!(why.contains("uploads/lake.txt") && why.contains("was there before the proof"), "{said}");
    fs::remove_file(home.join("uploads/lake.txt")).unwrap();
    let proof = lab.prove(&home, &journey, &["python3", "app.py"]);
    assert_eq!(proof.json["findings"][0]["kind"], "file", "{}", proof.text());
}

#[test]
fn without_root_they_are_told_too() {
    // Who is not root has tested it already.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let lab = Lab::new();
    let (home, journey) = made(&lab);
    let lethe = lab.path().join("lethe");
    fs::copy(env!("CARGO_BIN_EXE_lethe"), &lethe).unwrap();
    for path in [lab.path(), &lab.scratch(), &home, &home.join("app.py"), &journey, &lethe] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let told = lab.command(&home, &journey, &["python3", "app.py"]);
    let mut command = Command::new(&lethe);
    command.args(told.get_args()).current_dir(&home).uid(NOBODY).gid(NOBODY);
    command.envs(told.get_envs().filter_map(|(name, value)| Some((name, value?))));
    each_file_is_told(&lab.run(&mut command), "inotify");
}

fn each_file_is_told(proof: &Proof, by: &str) {
    if !proof.has_worlds() {
        return;
    }
    let text = proof.text();
    assert_eq!(proof.status.code(), Some(0), "{text}");
    let coverage = &proof.json["coverage"];
    let isolation = coverage["isolation"].as_str().unwrap();
    assert!(isolation.starts_with(&format!("overlay+{by}+")), "{text}");
    let of = |name: &str| {
        let files = coverage["files"].as_array().unwrap();
        files
            .iter()
            .find(|file| file["path"].as_str().unwrap().ends_with(name))
            .unwrap_or_else(|| panic!("{name}: {text}"))
    };
    assert_eq!(
        (&of("cache.txt")["written_in"], &of("cache.txt")["read_in"]),
        (&vec![1].into(), &vec![2, 3].into())
    );
    assert_eq!(of("cache.txt")["read_back"], serde_json::json!([1, 2]));
    assert_eq!((&of("new.txt")["is_left"], &of("new.txt")["written_in"]), (&true.into(), &vec![1].into()));
    assert_eq!((&of("app.log")["is_left"], &of("half.tmp")["is_left"]), (&true.into(), &false.into()));
    for quiet in ["app.log", "half.tmp"] {
        assert_eq!((&of(quiet)["read_in"], &of(quiet)["read_back"]), (&Vec::<u64>::new().into(), &().into()));
    }
    let warnings: Vec<_> = proof.out.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert!(
        warnings.len() == 1
            && warnings[0].contains("cache.txt, which step 1 writes, is read again by step 2"),
        "{text}"
    );
    let note = proof.out.lines().find(|line| line.starts_with("note: written in workers")).unwrap();
    assert!(note.contains("app.log") && note.contains("half.tmp") && !note.contains("cache.txt"), "{text}");
}
