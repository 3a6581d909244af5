//! Proofs of the examples, without the command line: each violation at each level that has worlds.

use std::{fs, path::Path, sync::Arc, time::Duration};

use lethe_journey::document;
use lethe_prover::{
    finding::Kind,
    pool::Pool,
    proof::{self, Progress, Proof, Verdict},
    schedule::{Restart, Schedule},
    scratch::Scratch,
    service::Service,
    stage::{Outcome, Stage, Watch},
    world::Level,
    yard::Yard,
};

fn stage(level: Level, folder: &Path, command: &[&str]) -> Stage {
    let program = std::env::current_exe().unwrap();
    let scratch = Arc::new(Scratch::new(&std::env::temp_dir(), &program).unwrap());
    let service = Service {
        name: "example".into(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        directory: folder.to_owned(),
        env: Vec::new(),
        sockets: Vec::new(),
        ready: None,
        start_max: Duration::from_secs(60),
    };
    let yard = Yard::open(scratch, service, level, false).unwrap();
    assert_eq!(yard.level(), level, "{:?}", yard.notices());
    Stage::new(Pool::new(Arc::new(yard), true).unwrap(), None, 1).unwrap()
}

fn prove(level: Level, folder: &str, command: &[&str]) -> Proof {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/violations").join(folder);
    let folder = folder.canonicalize().unwrap();
    let stage = stage(level, &folder, command);
    let journey = Arc::new(document::load(&folder.join("journey.toml")).unwrap());
    let tell = |progress: Progress<'_>| {
        if let Progress::Row(row) = progress {
            println!("  {:24} {} {:?} {:?}", row.schedule, row.workers, row.failed_at, row.why);
        }
    };
    let proof = proof::prove(&stage, &[journey], 3, 1, &tell).unwrap();
    println!("  {}", proof.coverage.line());
    for finding in &proof.findings {
        println!("  {} {:?} {}", finding.id, finding.kind, finding.proof);
    }
    proof
}

fn named(level: Level, folder: &str, command: &[&str], kind: Kind, steps: (usize, usize)) {
    let proof = prove(level, folder, command);
    assert_eq!(proof.verdict, Verdict::Violation);
    let found: Vec<_> = proof
        .findings
        .iter()
        .map(|finding| (finding.kind, (finding.producer.step, finding.consumer.step)))
        .collect();
    assert_eq!(found, [(kind, steps)]);
}

/// Refuses to start while the file is there that names its process.
const WITH_PID_FILE: &str = r#"
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
if os.path.exists("app.pid"):
    sys.exit("app.pid says that it runs already")
open("app.pid", "w").close()
class App(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
HTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"#;

pub fn a_worker_that_stays_down_is_a_lost_step(level: Level) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("two.toml");
    fs::write(&path, "[[steps]]\nget = \"/\"\n[[steps]]\nget = \"/\"\n").unwrap();
    let journey = Arc::new(document::load(&path).unwrap());
    let stage = stage(level, folder.path(), &["python3", "-c", WITH_PID_FILE]);
    let schedule = Schedule::kill_after(1, 2, Restart::SameDisk);
    let run = stage.play(&journey, &schedule, &Watch::default()).unwrap();
    let [Outcome::Answered(_), Outcome::Lost(why)] = run.outcomes.as_slice() else {
        panic!("{:?}", run.outcomes);
    };
    assert!(why.contains("does not start again") && why.contains("app.pid says"), "{why}");
    assert!(!why.contains('\n'), "{why}");
}

pub fn memory_is_named(level: Level) {
    named(level, "session-in-memory", &["python3", "app.py"], Kind::Memory, (2, 4));
}

pub fn a_file_is_named(level: Level) {
    named(level, "file-upload", &["node", "app.mjs"], Kind::File, (2, 4));
}

pub fn a_secret_of_boot_is_named(level: Level) {
    named(level, "boot-secret", &["python3", "app.py"], Kind::BootSecret, (2, 4));
    named(level, "boot-secret", &["node", "app.mjs"], Kind::BootSecret, (2, 4));
}

pub fn a_limit_is_named(level: Level) {
    named(level, "rate-limit", &["node", "app.mjs"], Kind::RateLimit, (1, 4));
}

pub fn what_keeps_nothing_is_stateless(level: Level) {
    let proof = prove(level, "session-in-memory", &["python3", "fixed.py"]);
    assert_eq!((proof.verdict, proof.findings.len()), (Verdict::Stateless, 0));
}
