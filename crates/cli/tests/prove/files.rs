//! What workers do with files that no other worker needs.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

use crate::lab::{Lab, Proof, examples, is_without_worlds};

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

/// `lethe prove` by somebody who is not root, of whom all is but the group of the service's folder.
fn as_nobody(lab: &Lab, home: &Path, group: u32, journey: &Path, command: &[&str]) -> Proof {
    let lethe = lab.path().join("lethe");
    fs::copy(env!("CARGO_BIN_EXE_lethe"), &lethe).unwrap();
    for path in [lab.path(), &lab.scratch(), &home.join("app.py"), journey, &lethe] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    chown(home, Some(NOBODY), Some(group)).unwrap();
    let told = lab.command(home, journey, command);
    let mut command = Command::new(&lethe);
    command.args(told.get_args()).current_dir(home).uid(NOBODY).gid(NOBODY);
    command.envs(told.get_envs().filter_map(|(name, value)| Some((name, value?))));
    lab.run(&mut command)
}

#[test]
fn without_root_they_are_told_too() {
    // Who is not root has tested it already.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let lab = Lab::new();
    let (home, journey) = made(&lab);
    let proof = as_nobody(&lab, &home, NOBODY, &journey, &["python3", "app.py"]);
    each_file_is_told(&proof, "inotify");
}

/// The service fails there for no fault of its own.
#[test]
fn a_folder_of_another_group_is_told_of() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let lab = Lab::new();
    let (home, journey) = made(&lab);
    let script = "mkdir made-at-start && exec python3 app.py";
    let proof = as_nobody(&lab, &home, 0, &journey, &["sh", "-c", script]);
    if proof.err.contains("cannot be kept apart") || is_without_worlds() {
        assert!(is_without_worlds(), "{}", proof.text());
        return;
    }
    assert_eq!(proof.status.code(), Some(3), "{}", proof.text());
    let note = format!("note: {} is not of the user and the group", home.display());
    assert!(proof.err.contains(&note), "{}", proof.text());
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

/// Keeps a note in a file that it opens, writes and closes through io_uring alone (io_uring_setup(2)), so that no call says so. Ends with
/// status 77 where there is none.
const RING: &str = r#"
import ctypes, mmap, os, struct, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

libc = ctypes.CDLL(None, use_errno=True)
SETUP, ENTER, OPENAT, CLOSE, WRITE, HERE = 425, 426, 18, 19, 23, -100
params = ctypes.create_string_buffer(120)
ring = libc.syscall(SETUP, 4, params)
if ring < 0:
    print("io_uring is refused: errno", ctypes.get_errno(), file=sys.stderr)
    sys.exit(77)
# struct io_uring_params: ten numbers, the places in the ring of submissions, and those in the ring of completions.
numbers = struct.unpack("30I", params.raw)
entries, (_, sq_tail, _, _, _, _, sq_array), (cq_head, _, cq_mask, _, _, cqes) = numbers[0], numbers[10:17], numbers[20:26]
submissions = mmap.mmap(ring, sq_array + 4 * entries)
completions = mmap.mmap(ring, cqes + 16 * numbers[1], offset=0x8000000)
queue = mmap.mmap(ring, 64 * entries, offset=0x10000000)

def number(at, value=None, of=submissions):
    if value is not None:
        of[at:at + 4] = struct.pack("I", value)
    return struct.unpack("I", of[at:at + 4])[0]

def done(operation, fd, place=0, address=0, length=0, flags=0):
    tail = number(sq_tail)
    queue[0:64] = struct.pack("BBHiQQIIQ24x", operation, 0, 0, fd, place, address, length, flags, 1)
    number(sq_array + 4 * (tail % entries), 0)
    number(sq_tail, tail + 1)
    libc.syscall(ENTER, ring, 1, 1, 1, None, 0)
    head = number(cq_head, of=completions)
    at = cqes + 16 * (head & number(cq_mask, of=completions))
    result = struct.unpack("i", completions[at + 8:at + 12])[0]
    number(cq_head, head + 1, completions)
    assert result >= 0, (operation, result)
    return result

class App(BaseHTTPRequestHandler):
    def do_PUT(self):
        name = ctypes.create_string_buffer(b"note.txt")
        text = ctypes.create_string_buffer(self.rfile.read(int(self.headers["Content-Length"])))
        fd = done(OPENAT, HERE, address=ctypes.addressof(name), length=0o600, flags=os.O_WRONLY | os.O_CREAT)
        done(WRITE, fd, address=ctypes.addressof(text), length=len(text.raw) - 1)
        done(CLOSE, fd)
        self.answer(201, b"")
    def do_GET(self):
        known = os.path.exists("note.txt")
        self.answer(200 if known else 404, open("note.txt", "rb").read() if known else b"")
    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

HTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"#;

#[test]
fn a_file_that_io_uring_writes_is_seen() {
    let lab = Lab::new();
    let home = lab.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("app.py"), RING).unwrap();
    let steps = "[[steps]]\nput = \"/note\"\nbody = \"of {{identity}}\"\n[[steps]]\nget = \"/note\"\n";
    let journey = lab.write("j.toml", steps);
    let proof = lab.prove(&home, &journey, &["python3", "app.py"]);
    if proof.err.contains("io_uring is refused") {
        println!("NOT TESTED: this kernel refuses io_uring\n{}", proof.text());
        return;
    }
    if !proof.has_worlds() {
        return;
    }
    let text = proof.text();
    assert_eq!(proof.status.code(), Some(1), "{text}");
    let finding = &proof.json["findings"][0];
    assert_eq!((&finding["kind"], &finding["confidence"]), (&"file".into(), &"proven".into()), "{text}");
    assert_eq!(finding["file"]["path"].as_str(), home.join("note.txt").to_str(), "{text}");
    let said = finding["proof"].as_str().unwrap();
    assert!(said.contains(finding["file"]["canary"].as_str().unwrap()), "{finding}");
    // Which step wrote it is known from watching alone: no call of the program's says so.
    let files = proof.json["coverage"]["files"].as_array().unwrap();
    let file = files.iter().find(|file| file["path"].as_str().unwrap().ends_with("note.txt"));
    assert_eq!(file.map(|file| &file["written_in"]), Some(&vec![1].into()), "{text}");
}

/// Keeps notes in a database beside the program.
const TABLE: &str = r#"
import os, sqlite3
from http.server import BaseHTTPRequestHandler, HTTPServer

table = sqlite3.connect("notes.db", isolation_level=None)
table.execute("create table if not exists notes (text text)")

class App(BaseHTTPRequestHandler):
    def do_PUT(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        table.execute("insert into notes values (?)", (text,))
        self.answer(201, "")
    def do_GET(self):
        self.answer(200, ", ".join(text for text, in table.execute("select text from notes")))
    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

HTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"#;

#[test]
fn a_database_that_is_a_file_is_told_from_other_files() {
    let lab = Lab::new();
    let home = lab.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("app.py"), TABLE).unwrap();
    let steps = "[[steps]]\nput = \"/note\"\nbody = \"of {{identity}}\"\n[[steps]]\nget = \"/note\"\n";
    let journey = lab.write("j.toml", steps);
    let proof = lab.prove(&home, &journey, &["python3", "app.py"]);
    if !proof.has_worlds() {
        return;
    }
    let finding = &proof.json["findings"][0];
    assert_eq!((proof.status.code(), &finding["kind"]), (Some(1), &"file".into()), "{}", proof.text());
    assert_eq!(finding["file"]["kind"], "SQLite database", "{finding}");
    assert!(finding["fix"].as_str().unwrap().contains("PostgreSQL"), "{finding}");
    assert!(proof.out.contains("notes.db of the worker's disk (SQLite database, "), "{}", proof.text());
}
