//! Worlds, with real programs in them. This binary is its own helper processes, as `lethe` is, so it has a `main`.

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "all of this is a test")]

mod files;
mod proofs;

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpListener},
    os::unix::{fs::symlink, net::UnixListener},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use lethe_prover::{
    disk::Disk,
    hidden,
    scratch::Scratch,
    service::Service,
    worker::{Error, Worker},
    world::Level,
    yard::{Start, Yard},
};
use rustix::{
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount},
    thread::{UnshareFlags, unshare_unsafe},
};

/// A service in Python: prints and keeps what it is asked to, over one line of text for each connection.
const SERVICE: &str = r#"
import os, secrets, socket, sys
port = int(sys.argv[1]) if len(sys.argv) > 1 else int(os.environ["PORT"])
secret = secrets.token_hex(8)
memory = ""
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", port))
listener.listen()
while True:
    stream, _ = listener.accept()
    word, _, rest = stream.makefile().readline().strip().partition(" ")
    if word == "write":
        path, text = rest.split(" ")
        open(path, "w").write(text)
        answer = "written"
    elif word == "scratch":
        with open(rest + ".tmp", "w") as file:
            file.write("x")
        os.rename(rest + ".tmp", rest)
        open(rest + ".gone", "w").write("x")
        os.unlink(rest + ".gone")
        answer = "done"
    elif word == "folders":
        path, count = rest.split(" ")
        for number in range(int(count)):
            os.makedirs(f"{path}/{number}")
        open(f"{path}/{count}", "w").write("x")
        answer = "made"
    elif word == "read":
        answer = open(rest).read() if os.path.exists(rest) else "nothing"
    elif word == "keep":
        memory = rest
        answer = "kept"
    elif word == "kept":
        answer = memory or "nothing"
    elif word == "secret":
        answer = secret
    elif word == "fresh":
        answer = secrets.token_hex(8)
    elif word == "list":
        answer = " ".join(sorted(os.listdir(rest)))
    elif word == "beside":
        with socket.create_connection(("127.0.0.1", int(rest))) as other:
            answer = other.makefile().readline().strip()
    elif word == "socket":
        with socket.socket(socket.AF_UNIX) as other:
            answer = "connected" if other.connect_ex(rest) == 0 else "refused"
    elif word == "pids":
        answer = " ".join(name for name in os.listdir("/proc") if name.isdigit())
    stream.sendall(answer.encode())
    stream.close()
"#;

/// What a test has: the service in a folder, and a yard for it.
struct Lab {
    folder: tempfile::TempDir,
    scratch: Arc<Scratch>,
    yard: Yard,
}

impl Lab {
    fn new(level: Level) -> Self {
        Self::with(level, &["python3", "app.py"], Duration::from_secs(60))
    }

    fn with(level: Level, command: &[&str], start_max: Duration) -> Self {
        Self::ready(level, command, start_max, None)
    }

    fn ready(level: Level, command: &[&str], start_max: Duration, ready: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("app.py"), SERVICE).unwrap();
        let program = std::env::current_exe().unwrap();
        let scratch = Arc::new(Scratch::new(&std::env::temp_dir(), &program).unwrap());
        let ready = ready.map(ToOwned::to_owned);
        let service = Service { ready, start_max, ..service(folder.path(), command) };
        let yard = Yard::open(Arc::clone(&scratch), service, level, level == Level::Copied).unwrap();
        assert_eq!(yard.level(), level, "{:?}", yard.notices());
        Self { folder, scratch, yard }
    }

    fn start(&self) -> Worker {
        self.start_on(Arc::new(self.yard.disk().unwrap()), None)
    }

    fn start_on(&self, disk: Arc<Disk>, entropy: Option<u64>) -> Worker {
        Worker::start(&self.yard, &self.yard.next("lab-1".into(), entropy).unwrap(), disk).unwrap()
    }

    fn refusal(&self) -> Error {
        let start = self.yard.next("lab-1".into(), None).unwrap();
        let started = Worker::start(&self.yard, &start, Arc::new(self.yard.disk().unwrap()));
        started.err().expect("it does not start")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn service(folder: &Path, command: &[&str]) -> Service {
    Service {
        name: "lab".into(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        directory: folder.to_owned(),
        env: Vec::new(),
        sockets: Vec::new(),
        ready: None,
        start_max: Duration::from_secs(60),
    }
}

fn ask(worker: &Worker, line: &str) -> String {
    let mut stream = worker.door()().unwrap();
    stream.write_all(line.as_bytes()).unwrap();
    stream.write_all(b"\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// What is mounted in a folder keeps that from being a layer, in a user namespace.
fn a_world_that_is_unlike_those_before_it_is_none(level: Level) {
    if level != Level::UserOverlay || !rustix::process::geteuid().is_root() {
        return;
    }
    // What this thread mounts, it has for itself.
    let apart = thread::spawn(move || {
        // SAFETY: only the mounts and the working folder of this thread become its own.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        let lab = Lab::new(level);
        drop(lab.start());
        let target = lab.file("mounted");
        fs::create_dir(&target).unwrap();
        mount("tmpfs", &target, "tmpfs", MountFlags::NOSUID, c"size=1m").unwrap();
        let refusal = lab.refusal();
        assert!(matches!(&refusal, Error::Unlike(path) if lab.folder.path().starts_with(path)), "{refusal}");
        unmount(&target, UnmountFlags::DETACH).unwrap();
        assert_eq!(ask(&lab.start(), &format!("write {} x", lab.file("photo").display())), "written");
    });
    apart.join().unwrap();
}

fn files_are_a_workers_own_and_stay_for_its_disk(level: Level) {
    let lab = Lab::new(level);
    fs::write(lab.file("before"), "before").unwrap();
    let (a, b) = (lab.start(), lab.start());
    let path = lab.file("photo");
    assert_eq!(ask(&a, &format!("write {} canary-1", path.display())), "written");
    assert_eq!(ask(&a, &format!("write {} changed", lab.file("before").display())), "written");
    assert_eq!(ask(&a, &format!("read {}", path.display())), "canary-1");
    assert_eq!(ask(&b, &format!("read {}", path.display())), "nothing");
    assert_eq!(ask(&b, &format!("read {}", lab.file("before").display())), "before");
    assert_eq!(fs::read_to_string(lab.file("before")).unwrap(), "before");
    assert!(!path.exists());

    let written = a.disk().written();
    assert_eq!(written[&path].find(&["canary-1".into()]), Some("canary-1"));
    let disk = a.kill();
    let again = lab.start_on(disk, None);
    assert_eq!(ask(&again, &format!("read {}", path.display())), "canary-1");
    assert_eq!(ask(&again, "kept"), "nothing");
}

fn memory_is_gone_with_the_worker(level: Level) {
    let lab = Lab::new(level);
    let a = lab.start();
    assert_eq!(ask(&a, "keep word"), "kept");
    assert_eq!(ask(&a, "kept"), "word");
    let disk = a.kill();
    assert_eq!(ask(&lab.start_on(disk, None), "kept"), "nothing");
}

fn a_fixed_port_works_three_times(level: Level) {
    // Somebody outside has the port too.
    let outside = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = outside.local_addr().unwrap().port();
    let lab = Lab::with(level, &["python3", "app.py", &port.to_string()], Duration::from_secs(60));
    let refusal = lab.refusal();
    assert!(refusal.to_string().contains("Address already in use"), "{refusal}");
    let yard = lab.yard.with_fewer_doors(&[port]);
    let workers = [1, 2, 3].map(|number| {
        let start = yard.next(format!("lab-{number}"), None).unwrap();
        Worker::start(&yard, &start, Arc::new(yard.disk().unwrap())).unwrap()
    });
    for worker in &workers {
        assert_eq!(worker.address().port(), port);
        assert_eq!(ask(worker, "kept"), "nothing");
    }
}

fn services_beside_are_reached_and_counted(level: Level) {
    let beside = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = beside.local_addr().unwrap();
    let served = thread::spawn(move || {
        for _ in 0..2 {
            beside.accept().unwrap().0.write_all(b"beside\n").unwrap();
        }
    });
    let lab = Lab::new(level);
    let a = lab.start();
    for _ in 0..2 {
        assert_eq!(ask(&a, &format!("beside {}", address.port())), "beside");
    }
    served.join().unwrap();
    assert_eq!(a.carried().get(&address), Some(&2));
}

fn other_worlds_and_processes_are_not_seen(level: Level) {
    let lab = Lab::new(level);
    let a = lab.start();
    assert_eq!(ask(&a, &format!("list {}", lab.scratch.path().display())), "");
    let pids = ask(&a, "pids");
    assert!(pids.split(' ').count() <= 3, "{pids}");
}

fn random_numbers_of_boot_come_again(level: Level) {
    let lab = Lab::new(level);
    let start = |entropy| lab.start_on(Arc::new(lab.yard.disk().unwrap()), entropy);
    let (a, b, c, free) = (start(Some(1)), start(Some(1)), start(Some(2)), start(None));
    let secrets = [&a, &b, &c, &free].map(|worker| ask(worker, "secret"));
    assert_eq!(secrets[0], secrets[1]);
    assert_ne!(secrets[0], secrets[2]);
    assert_ne!(secrets[0], secrets[3]);
    // After boot they are anybody's.
    assert_ne!(ask(&a, "fresh"), ask(&b, "fresh"));
}

/// A program is missing what it loads itself, which its loader says and no more.
fn a_clock_is_loaded_beside_what_a_service_loads(level: Level) {
    let lab = Lab::new(level);
    let env = vec![("LD_PRELOAD".to_owned(), "/no/such/library.so".to_owned())];
    let service = Service { env, ..service(lab.folder.path(), &["python3", "app.py"]) };
    let yard = Yard::open(Arc::clone(&lab.scratch), service, level, false).unwrap();
    let loads = |worker: &Worker, process: &str| -> Option<String> {
        let environment = ask(worker, &format!("read /proc/{process}/environ"));
        environment.split('\0').find_map(|variable| Some(variable.strip_prefix("LD_PRELOAD=")?.to_owned()))
    };
    let library = lab.scratch.path().join("clock.so");
    for (clock, expected) in [
        (None, "/no/such/library.so".to_owned()),
        (Some(3600), format!("{} /no/such/library.so", library.display())),
    ] {
        let start = Start { clock, ..yard.next("lab-1".into(), None).unwrap() };
        let worker = Worker::start(&yard, &start, Arc::new(yard.disk().unwrap())).unwrap();
        assert_eq!(loads(&worker, "self"), Some(expected));
        assert_eq!(loads(&worker, "1"), None, "what makes its world loads nothing");
        let maps = ask(&worker, "read /proc/self/maps");
        assert_eq!(maps.contains("clock.so"), clock.is_some());
    }
}

fn what_does_not_start_says_why(level: Level) {
    let long = Duration::from_secs(60);
    let refusal = Lab::with(level, &["/no/such/program"], long).refusal();
    assert!(matches!(refusal, Error::Program(_)), "{refusal}");
    let refusal = Lab::with(level, &["sh", "-c", "echo no key found; exit 7"], long).refusal().to_string();
    assert!(refusal.contains("status 7") && refusal.contains("no key found"), "{refusal}");
    let refusal = Lab::with(level, &["sleep", "600"], Duration::from_millis(200)).refusal().to_string();
    assert!(refusal.contains("nothing listens"), "{refusal}");
}

fn a_program_may_fork_into_the_background(level: Level) {
    let lab = Lab::with(level, &["sh", "-c", "python3 app.py & exit 0"], Duration::from_secs(60));
    let a = lab.start();
    assert_eq!(ask(&a, "keep word"), "kept");
    a.kill();
}

/// Answers 503 three times, then 200.
const SLOW: &str = r#"
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
asked = 0
class App(BaseHTTPRequestHandler):
    def do_GET(self):
        global asked
        asked += 1
        self.send_response(200 if asked > 3 and self.path == "/ready" else 503)
        self.end_headers()
HTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"#;

fn a_worker_is_waited_for_until_it_is_ready(level: Level) {
    let lab = Lab::ready(level, &["python3", "-c", SLOW], Duration::from_secs(60), Some("/ready"));
    drop(lab.start());
    let lab = Lab::ready(level, &["python3", "-c", SLOW], Duration::from_secs(6), Some("/other"));
    let refusal = lab.refusal().to_string();
    assert!(refusal.contains("/other") && refusal.contains("status 503"), "{refusal}");
}

/// Node.js with `--inspect` listens for its debugger before the program runs.
fn the_port_of_a_debugger_is_not_the_services(level: Level) {
    let script = "import runpy, socket, time; debugger = socket.create_server(('127.0.0.1', 9229)); time.sleep(0.5); \
                  runpy.run_path('app.py', run_name='__main__')";
    let lab = Lab::with(level, &["python3", "-c", script], Duration::from_secs(60));
    let start = lab.yard.next("lab-1".into(), None).unwrap();
    let worker = Worker::start(&lab.yard, &start, Arc::new(lab.yard.disk().unwrap())).unwrap();
    assert_eq!(worker.address().port(), start.port);
}

fn sockets_beside_are_reached_through_links(level: Level) {
    let beside = tempfile::tempdir().unwrap();
    fs::create_dir(beside.path().join("run")).unwrap();
    symlink(beside.path().join("run"), beside.path().join("link")).unwrap();
    let path = beside.path().join("link/db.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let lab = Lab::new(level);
    assert_eq!(ask(&lab.start(), &format!("socket {}", path.display())), "connected");
    assert_eq!(names(&beside.path().join("run")), ["db.sock"]);
}

fn what_is_of_the_machine_can_only_be_read(level: Level) {
    let lab = Lab::new(level);
    let table = ask(&lab.start(), "read /proc/self/mountinfo");
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split(' ').collect()).collect();
    let below = |tree: &str| -> Vec<&Vec<&str>> {
        rows.iter().filter(|row| Path::new(row[4]).starts_with(tree)).collect()
    };
    for tree in ["/sys", "/proc/sys"] {
        assert!(!below(tree).is_empty(), "{tree} is not in {table}");
        for row in below(tree) {
            assert!(row[5].split(',').any(|option| option == "ro"), "{row:?} can be written");
        }
    }
}

/// Ctrl-C goes to the group of who was called, and `lethe` ends the others in their order.
fn keys_of_the_terminal_reach_no_worker(level: Level) {
    let lab = Lab::new(level);
    let worker = lab.start();
    let (group, session) = group_and_session("self");
    let own: Vec<String> = fs::read_dir("/proc/self/task")
        .unwrap()
        // A thread may end meanwhile.
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
        .collect();
    let own = own.concat();
    let children: Vec<&str> = own.split_whitespace().collect();
    // The world and the sweeper.
    assert_eq!(children.len(), 2, "{own}");
    assert!(children.iter().all(|child| group_and_session(child).0 != group));
    let (here, disk) = (lab.folder.path().canonicalize().unwrap(), worker.disk().folder().to_owned());
    let services = fs::read_dir("/proc").unwrap().flatten().filter(|process| {
        let cwd = fs::read_link(process.path().join("cwd"));
        cwd.is_ok_and(|cwd| cwd == here || cwd.starts_with(&disk))
    });
    let sessions: Vec<i32> =
        services.map(|process| group_and_session(process.file_name().to_str().unwrap()).1).collect();
    assert!(!sessions.is_empty() && sessions.iter().all(|other| *other != session));
}

/// proc_pid_stat(5). Either is 0 when it was begun outside of this process namespace, as a test's own may be.
fn group_and_session(process: &str) -> (i32, i32) {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = rest.split(' ').collect();
    (fields[2].parse().unwrap(), fields[3].parse().unwrap())
}

fn a_world_that_has_ended_is_not_a_pipe_that_broke(level: Level) {
    let worker = Lab::new(level).start();
    let door = worker.door();
    worker.kill();
    let error = door().unwrap_err();
    assert!(error.kind() != ErrorKind::BrokenPipe && error.to_string().contains("has ended"), "{error}");
}

/// Without `may_copy`, nothing runs that is not kept apart.
fn copies_must_be_allowed(_: Level) {
    let Lab { folder, scratch, yard } = Lab::new(Level::Copied);
    assert!(yard.notices().iter().any(|notice| notice.contains("absolute paths")), "{:?}", yard.notices());
    let refused = Yard::open(scratch, service(folder.path(), &["true"]), Level::Copied, false);
    let refused = refused.err().expect("nothing was allowed");
    assert!(matches!(refused, Error::NoWorlds(_)) && refused.to_string().contains("--copied"), "{refused}");
}

/// Whoever leaves the group of the service, and has no parent any more, ends with the worker too.
fn nobody_outlives_a_worker(level: Level) {
    let script = "setsid sh -c 'sleep 1000 & sleep 1000' & exec python3 app.py";
    let lab = Lab::with(level, &["sh", "-c", script], Duration::from_secs(60));
    let a = lab.start();
    let here = lab.folder.path().canonicalize().unwrap();
    let runs = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter(|process| fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == here))
            .count()
    };
    let disk = a.disk().folder().to_owned();
    let copies = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let inside = |process: &fs::DirEntry| {
            fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&disk))
        };
        processes.filter(inside).count()
    };
    assert!(runs() + copies() > 1, "the processes of the service are seen from outside");
    drop(a);
    assert_eq!(runs() + copies(), 0);
}

fn everything_is_removed(level: Level) {
    let lab = Lab::new(level);
    let a = lab.start();
    let path = lab.scratch.path().to_owned();
    drop(a);
    let Lab { scratch, yard, folder } = lab;
    drop(yard);
    drop(Arc::into_inner(scratch).expect("nobody else has it"));
    assert!(!path.exists());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(path.to_str().unwrap()));
    assert_eq!(names(folder.path()), ["app.py"]);
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

type Test = (&'static str, fn(Level));

const TESTS: &[Test] = &[
    ("files_are_a_workers_own_and_stay_for_its_disk", files_are_a_workers_own_and_stay_for_its_disk),
    ("what_is_done_with_files_is_seen", files::what_is_done_with_files_is_seen),
    ("files_are_seen_in_any_folder", files::files_are_seen_in_any_folder),
    ("more_folders_than_are_watched_are_said", files::more_folders_than_are_watched_are_said),
    ("memory_is_gone_with_the_worker", memory_is_gone_with_the_worker),
    ("a_fixed_port_works_three_times", a_fixed_port_works_three_times),
    ("services_beside_are_reached_and_counted", services_beside_are_reached_and_counted),
    ("other_worlds_and_processes_are_not_seen", other_worlds_and_processes_are_not_seen),
    ("random_numbers_of_boot_come_again", random_numbers_of_boot_come_again),
    ("a_clock_is_loaded_beside_what_a_service_loads", a_clock_is_loaded_beside_what_a_service_loads),
    ("what_does_not_start_says_why", what_does_not_start_says_why),
    ("a_world_that_is_unlike_those_before_it_is_none", a_world_that_is_unlike_those_before_it_is_none),
    ("a_program_may_fork_into_the_background", a_program_may_fork_into_the_background),
    ("a_worker_is_waited_for_until_it_is_ready", a_worker_is_waited_for_until_it_is_ready),
    ("nobody_outlives_a_worker", nobody_outlives_a_worker),
    ("everything_is_removed", everything_is_removed),
    ("the_port_of_a_debugger_is_not_the_services", the_port_of_a_debugger_is_not_the_services),
    ("sockets_beside_are_reached_through_links", sockets_beside_are_reached_through_links),
    ("what_is_of_the_machine_can_only_be_read", what_is_of_the_machine_can_only_be_read),
    ("keys_of_the_terminal_reach_no_worker", keys_of_the_terminal_reach_no_worker),
    ("a_world_that_has_ended_is_not_a_pipe_that_broke", a_world_that_has_ended_is_not_a_pipe_that_broke),
    ("copies_must_be_allowed", copies_must_be_allowed),
    ("a_worker_that_stays_down_is_a_lost_step", proofs::a_worker_that_stays_down_is_a_lost_step),
    ("memory_is_named", proofs::memory_is_named),
    ("a_file_is_named", proofs::a_file_is_named),
    ("a_secret_of_boot_is_named", proofs::a_secret_of_boot_is_named),
    ("a_limit_is_named", proofs::a_limit_is_named),
    ("what_keeps_nothing_is_stateless", proofs::what_keeps_nothing_is_stateless),
];

/// What the weakest level does too.
const AT_COPIED: &[&str] = &[
    "memory_is_gone_with_the_worker",
    "what_does_not_start_says_why",
    "nobody_outlives_a_worker",
    "everything_is_removed",
    "keys_of_the_terminal_reach_no_worker",
    "a_world_that_has_ended_is_not_a_pipe_that_broke",
    "copies_must_be_allowed",
];

/// Set where worlds cannot be made, and tests of them are left out on purpose.
const WITHOUT_WORLDS: &str = "LETHE_TEST_WITHOUT_WORLDS";

fn can_be_made(level: Level) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let scratch = Arc::new(Scratch::new(&std::env::temp_dir(), &program).unwrap());
    Yard::open(scratch, service(folder.path(), &["true"]), level, true)
        .is_ok_and(|yard| yard.level() == level)
}

fn main() -> ExitCode {
    if let Some(done) = hidden::run() {
        return done;
    }
    let filter = std::env::args().skip(1).find(|word| !word.starts_with('-')).unwrap_or_default();
    let mut failed = 0;
    for level in [Level::Overlay, Level::UserOverlay, Level::Copied] {
        if level == Level::Overlay && !rustix::process::geteuid().is_root() {
            println!("worlds of level {level:?}: NOT TESTED, this is not root");
            continue;
        }
        if std::env::var_os(WITHOUT_WORLDS).is_some() && !can_be_made(level) {
            println!("worlds of level {level:?}: NOT TESTED, they cannot be made here");
            continue;
        }
        for (name, test) in TESTS {
            let title = format!("{name} ({level:?})");
            let is_for_level = match level {
                // As root, the tests of the command line prove the examples.
                Level::Overlay => !title.contains("is_named") && !title.contains("stateless"),
                Level::UserOverlay => true,
                Level::Copied => AT_COPIED.contains(name),
            };
            if !title.contains(&filter) || !is_for_level {
                continue;
            }
            let passed = catch_unwind(AssertUnwindSafe(|| test(level))).is_ok();
            println!("test {title} ... {}", if passed { "ok" } else { "FAILED" });
            failed += u32::from(!passed);
        }
    }
    println!("test result: {}. {failed} failed", if failed == 0 { "ok" } else { "FAILED" });
    ExitCode::from(u8::from(failed > 0))
}
