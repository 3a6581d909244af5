//! What a proof leaves behind: nothing, however it ends.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::lab::{Lab, examples};

/// All that can be known of a tree: what each file is, has in it, and when it was changed.
type Tree = BTreeMap<PathBuf, (u32, i64, i64, Vec<u8>)>;

fn tree(folder: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let bytes = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            if metadata.is_dir() {
                folders.push(path.clone());
            }
            tree.insert(path, (metadata.mode(), metadata.mtime(), metadata.mtime_nsec(), bytes));
        }
    }
    tree
}

/// A service that writes wherever it can: it changes, removes, renames and makes files, when it starts and when it is asked.
const VANDAL: &str = r#"
import os, pathlib, shutil
from http.server import BaseHTTPRequestHandler, HTTPServer

here = pathlib.Path(__file__).parent

def harm():
    (here / "data" / "changed").write_text("harmed")
    (here / "data" / "removed").unlink(missing_ok=True)
    if (here / "data" / "renamed").exists():
        (here / "data" / "renamed").rename(here / "data" / "elsewhere")
    (here / "data" / "new").write_text("harmed")
    os.chmod(here / "data" / "rights", 0o777)
    shutil.rmtree(here / "folder", ignore_errors=True)

class App(BaseHTTPRequestHandler):
    def do_GET(self):
        harm()
        self.send_response(200)
        self.end_headers()

harm()
HTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"#;

#[test]
fn the_users_files_stay_as_they_were() {
    let lab = Lab::new();
    let home = lab.path().join("home");
    fs::create_dir_all(home.join("data")).unwrap();
    fs::create_dir(home.join("folder")).unwrap();
    for name in ["app.py", "data/changed", "data/removed", "data/renamed", "data/rights", "folder/inside"] {
        fs::write(home.join(name), if name == "app.py" { VANDAL } else { name }).unwrap();
    }
    let journey = lab.write("two.toml", "[[steps]]\nget = \"/\"\n[[steps]]\nget = \"/\"\n");
    let before = tree(&home);
    let proof = lab.prove(&home, &journey, &["python3", "app.py"]);
    assert_eq!(before, tree(&home), "{}", proof.text());
    assert_ne!(proof.status.code(), Some(3), "{}", proof.text());
    if proof.has_worlds() {
        let written = proof.json["coverage"]["written"].to_string();
        assert!(written.contains("data/new"), "{written}");
    }
}

/// Ends a proof in the middle, and waits until nothing of it is left.
fn ended_by(signal: Signal) {
    let lab = Lab::new();
    let folder = examples().join("session-in-memory");
    let mut command = lab.command(&folder, &folder.join("journey.toml"), &["python3", "app.py"]);
    let mut lethe = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut err = BufReader::new(lethe.stderr.take().unwrap());
    let mut line = String::new();
    // The first schedule was played, so there are workers.
    while !line.contains("pinned") {
        line.clear();
        assert_ne!(err.read_line(&mut line).unwrap(), 0, "it ended by itself");
    }
    kill_process(Pid::from_child(&lethe), signal).unwrap();
    assert!(!lethe.wait().unwrap().success());
    // Whoever still has these pipes still runs: workers, their helpers, or the sweeper.
    err.read_to_string(&mut line).unwrap();
    lethe.stdout.take().unwrap().read_to_string(&mut line).unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    // Whoever removed the folder, or was killed, is gone itself a moment later.
    while fs::read_dir(lab.scratch()).unwrap().next().is_some() || runs_in(&lab.scratch()) {
        assert!(std::time::Instant::now() < until, "{:?} has something left, or a process", lab.scratch());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(lab.path().to_str().unwrap()), "{mounts}");
}

/// Whether a process has a word of `folder` on its command line, as all helpers of a proof have.
fn runs_in(folder: &Path) -> bool {
    let folder = folder.to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.any(|line| String::from_utf8_lossy(&line).contains(folder))
}

#[test]
fn ctrl_c_leaves_nothing() {
    ended_by(Signal::INT);
}

#[test]
fn kill_9_leaves_nothing() {
    ended_by(Signal::KILL);
}
