//! `kill -9` at random moments: what was acknowledged is there afterwards, and nothing half-done is.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use super::{Embedded, blob_files, body, doubts, put};
use crate::{
    Engines, Revision,
    blobs::Put,
    idempotency::{Answer, Beginning, Begun, Fingerprint},
    limits::Quota,
    locks::{LEASE_MAX, Token},
    sessions::{Change, NewSession, Patch, SessionId},
    tables::{Action, Condition, Outcome, Write},
};

/// Where the process that is to be killed finds its folder.
const FOLDER: &str = "LETHE_TEST_CRASH_FOLDER";
/// Names the round, which makes the keys of each round its own.
const ROUND: &str = "LETHE_TEST_CRASH_ROUND";
/// Sets the seed of the moments at which it is killed.
const SEED: &str = "LETHE_TEST_SEED";
const ROUNDS: u64 = 10;
const TASKS: usize = 6;
/// Most acknowledgements that a process is let live for.
const ACKNOWLEDGED_MAX: u64 = 300;
/// Nothing of it comes back while the test runs.
const QUOTA: Quota = Quota::per(100_000, Duration::from_secs(365 * 24 * 3600));

/// Runs an ignored test of this file in a process of its own.
fn run(test: &str, folder: &Path, round: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("embedded::tests::crash::{test}"), "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn child_folder() -> PathBuf {
    std::env::var_os(FOLDER).expect("the folder is in the environment").into()
}

/// What a process said was acknowledged.
#[derive(Default)]
struct Acknowledged {
    rows: Vec<String>,
    count: i64,
    revision: Revision,
    sessions: BTreeMap<String, u64>,
    ended: Vec<String>,
    blobs: BTreeMap<String, u64>,
    calls: u32,
    leases: BTreeMap<String, Token>,
    answers: Vec<String>,
}

impl Acknowledged {
    fn read(&mut self, line: &str) -> bool {
        // The test harness writes before the first line of the test itself.
        let words: Vec<&str> = line.rsplit("ack ").next().unwrap_or("").split(' ').collect();
        match *words.as_slice() {
            ["row", key, count, revision] => {
                self.rows.push(key.to_owned());
                self.count = self.count.max(count.parse().unwrap());
                self.revision = self.revision.max(revision.parse().unwrap());
            }
            ["session", id, n] => drop(self.sessions.insert(id.to_owned(), n.parse().unwrap())),
            ["ended", id] => self.ended.push(id.to_owned()),
            ["call", left] => self.calls = self.calls.max(QUOTA.burst - left.parse::<u32>().unwrap()),
            ["lease", name, token] => drop(self.leases.insert(name.to_owned(), token.parse().unwrap())),
            ["answer", key] => self.answers.push(key.to_owned()),
            ["blob", key, n] => drop(self.blobs.insert(key.to_owned(), n.parse().unwrap())),
            _ => return false,
        }
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stderr, reason = "the seed repeats a failure")]
async fn what_was_acknowledged_survives_kill_9() {
    let seed: u64 = std::env::var(SEED)
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64);
    eprintln!("{SEED}={seed}");
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    let mut random = seed;
    for round in 0..ROUNDS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let moment = 1 + (random >> 33) % ACKNOWLEDGED_MAX;
        let mut child = run("writes_until_killed", directory.path(), round);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).split(b'\n');
        let mut seen = 0;
        while seen < moment {
            let line = lines.next().expect("the process writes until it is killed").unwrap();
            seen += u64::from(acknowledged.read(&String::from_utf8_lossy(&line)));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had said before it died counts too; a line that was cut did not come to its newline.
        let mut rest: Vec<_> = lines.map(|line| line.unwrap()).collect();
        rest.pop();
        for line in rest {
            acknowledged.read(&String::from_utf8_lossy(&line));
        }
        let engine =
            Embedded::open(directory.path()).unwrap_or_else(|error| panic!("round {round}: {error:?}"));
        check(&engine.engines(), &mut acknowledged).await;
        engine.close().await;
        check_files(directory.path());
    }
    assert!(acknowledged.rows.len() > ROUNDS as usize && !acknowledged.blobs.is_empty());
    assert!(acknowledged.calls > ROUNDS as u32);
}

async fn check(engines: &Engines, acknowledged: &mut Acknowledged) {
    for key in &acknowledged.rows {
        let row = engines.tables.get("t", key).await.unwrap();
        assert!(row.is_some_and(|row| row.value == key.as_bytes()), "the row {key} is lost");
    }
    // Each batch adds a row and counts it, so the two agree whatever was acknowledged.
    let (mut rows, mut after) = (0, None);
    loop {
        let scan = crate::tables::Scan { prefix: "r".into(), after, limit: 0 };
        let page = engines.tables.scan("t", &scan).await.unwrap();
        rows += page.rows.len() as i64;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let counted = engines.tables.get("t", "count").await.unwrap().expect("the count").value;
    let counted: i64 = std::str::from_utf8(&counted).unwrap().parse().unwrap();
    assert_eq!(counted, rows, "a batch was torn");
    assert!(counted >= acknowledged.count);
    match engines.tables.apply(vec![put("probe", "v")]).await.unwrap()[..] {
        [Outcome::Put { revision }] => assert!(revision > acknowledged.revision, "a revision came again"),
        ref other => panic!("{other:?}"),
    }
    for (id, n) in &acknowledged.sessions {
        let session = engines.sessions.load(&SessionId::parse(id).unwrap()).await.unwrap();
        assert!(session.fields["n"].value.as_u64() >= Some(*n), "a patch is lost");
    }
    for id in &acknowledged.ended {
        let ended = engines.sessions.load(&SessionId::parse(id).unwrap()).await;
        assert!(matches!(ended, Err(crate::error::Error::Gone)), "an ended session is {ended:?}");
    }
    let left = engines.limits.take("l", "k", QUOTA, 0).await.unwrap().remaining;
    assert!(QUOTA.burst - left >= acknowledged.calls, "calls of a limit are lost");
    let probe = engines.locks.acquire("probe", "worker", Duration::from_millis(1)).await.unwrap();
    let newest = acknowledged.leases.values().max();
    assert!(probe.is_none_or(|probe| Some(&probe.token) > newest), "a token came again");
    for (name, token) in &acknowledged.leases {
        let held = engines.locks.look(name).await.unwrap();
        assert_eq!(held.map(|held| held.token), Some(*token), "the lease of {name} is lost");
        let fence = Write { action: Action::Fence { token: token - 1 }, ..put(format!("fence {name}"), "") };
        assert!(engines.tables.apply(vec![fence]).await.is_err(), "the fence of {name} is open");
    }
    for key in &acknowledged.answers {
        let again = engines.idempotency.begin(beginning(key, "another")).await.unwrap();
        assert_eq!(again, Begun::Answered(answer(key)), "the answer under {key} is lost");
    }
    for (key, n) in &acknowledged.blobs {
        let blob = engines.blobs.get("b", key, None).await.unwrap().expect("the blob");
        let bytes: Vec<_> = blob.body.try_collect::<Vec<_>>().await.unwrap().concat();
        let found = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        assert!(found >= *n, "version {n} of {key} is lost: {found}");
        assert!(bytes == version(found), "{key} is torn");
    }
}

/// Asserts that each blob has its file and each file its blob.
fn check_files(state: &Path) {
    let connection = rusqlite::Connection::open(state.join(super::super::DATABASE)).unwrap();
    let mut statement = connection.prepare("SELECT file FROM blobs ORDER BY file").unwrap();
    let rows: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut files: Vec<_> = blob_files(state).into_iter().map(name).collect();
    files.sort();
    assert_eq!(files, rows);
    assert_eq!(doubts(state), Vec::<PathBuf>::new());
}

/// The bytes of a version of a blob: its number over and over.
fn version(n: u64) -> Vec<u8> {
    n.to_le_bytes().repeat(1000 + n as usize * 7919 % 50_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "is run, and killed, by what_was_acknowledged_survives_kill_9"]
#[allow(clippy::print_stdout, reason = "what is printed is what was acknowledged")]
async fn writes_until_killed() {
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    let engine = Embedded::open(&child_folder()).unwrap();
    let tasks = (0..TASKS).map(|task| {
        let engines = engine.engines();
        tokio::spawn(async move {
            let fields = [("n".to_owned(), json!(0))].into();
            let new = NewSession { user: Some("alice".into()), fields, ..NewSession::default() };
            let session = engines.sessions.create(new).await.unwrap().id;
            for n in 1_u64.. {
                write(&engines, &format!("r{round}-{task}-{n}")).await;
                let change = Change { value: Some(json!(n)), expect: None };
                let patch = Patch { changes: [("n".to_owned(), change)].into() };
                engines.sessions.patch(&session, patch).await.unwrap();
                println!("ack session {} {n}", session.to_text());
                let verdict = engines.limits.take("l", "k", QUOTA, 1).await.unwrap();
                println!("ack call {}", verdict.remaining);
                let key = format!("{round}-{task}");
                engines.blobs.put("b", &key, body(version(n)), Put::default()).await.unwrap();
                println!("ack blob {key} {n}");
                let ended = engines.sessions.create(NewSession::default()).await.unwrap().id;
                engines.sessions.destroy(&ended).await.unwrap();
                println!("ack ended {}", ended.to_text());
                let name = format!("{round}-{task}-{n}");
                let token = hold(&engines, &name).await;
                println!("ack lease {name} {token}");
                let Begun::Claimed(claim) = engines.idempotency.begin(beginning(&name, "one")).await.unwrap()
                else {
                    panic!("{name} is claimed");
                };
                assert!(engines.idempotency.finish(&claim, answer(&name)).await.unwrap());
                println!("ack answer {name}");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

/// A request under this key.
fn beginning(key: &str, owner: &str) -> Beginning {
    Beginning {
        scope: "crash".into(),
        key: key.into(),
        fingerprint: Fingerprint([7; 32]),
        owner: owner.into(),
        displaces: Vec::new(),
        at_most_once: false,
        lease: LEASE_MAX,
        kept: LEASE_MAX,
    }
}

fn answer(key: &str) -> Answer {
    let fields = vec![("x-key".to_owned(), key.to_owned().into())];
    Answer { status: 201, fields, body: key.repeat(1000).into() }
}

/// Takes a lock, and writes under it.
async fn hold(engines: &Engines, name: &str) -> Token {
    let token = engines.locks.acquire(name, "worker", LEASE_MAX).await.unwrap().expect("it is free").token;
    let fence = Write { action: Action::Fence { token }, ..put(format!("fence {name}"), "") };
    engines.tables.apply(vec![fence]).await.unwrap();
    token
}

/// Adds a row and counts it, in one batch.
#[allow(clippy::print_stdout, reason = "what is printed is what was acknowledged")]
async fn write(engines: &Engines, key: &str) {
    let count = Write {
        table: "t".into(),
        key: "count".into(),
        condition: Condition::Any,
        action: Action::Increment { by: 1, ttl: None },
    };
    match engines.tables.apply(vec![put(key, key.to_owned()), count]).await.unwrap()[..] {
        [Outcome::Put { .. }, Outcome::Incremented { value, revision }] => {
            println!("ack row {key} {value} {revision}");
        }
        ref other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_put_that_was_killed_leaves_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = run("puts_half_a_blob", directory.path(), 0);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines
        .find(|line| line.as_ref().is_ok_and(|line| line.ends_with("half")))
        .expect("the half is written")
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!((blob_files(directory.path()).len(), doubts(directory.path()).len()), (2, 1));
    let engine = Embedded::open(directory.path()).unwrap();
    let blobs = engine.engines().blobs;
    assert_eq!(blobs.head("b", "half").await.unwrap(), None);
    let whole = blobs.get("b", "whole", None).await.unwrap().expect("the acknowledged blob");
    assert_eq!(whole.body.try_collect::<Vec<_>>().await.unwrap().concat(), b"whole");
    assert_eq!((blob_files(directory.path()).len(), doubts(directory.path()).len()), (1, 0));
    engine.close().await;
}

#[tokio::test]
#[ignore = "is run, and killed, by a_put_that_was_killed_leaves_no_file"]
#[allow(clippy::print_stdout, reason = "the test that runs it waits for it")]
async fn puts_half_a_blob() {
    let engine = Embedded::open(&child_folder()).unwrap();
    let blobs = engine.engines().blobs;
    blobs.put("b", "whole", body("whole"), Put::default()).await.unwrap();
    let half = body(vec![1; 1 << 20]).chain(stream::once(async {
        println!("\nhalf");
        std::future::pending().await
    }));
    blobs.put("b", "half", half.boxed(), Put::default()).await.unwrap();
}
