//! How fast the embedded engine is on this machine: durable puts with 1, 8 and 64 callers, beside what the disk
//! itself can do; reads by key and calls of limits, alone and while others write.
//!
//!     cargo run --release -p lethe-state --example state_throughput [FOLDER]

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "it prints figures, and ends when something fails"
)]

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lethe_state::{
    Engines,
    embedded::Embedded,
    limits::Quota,
    sessions::NewSession,
    tables::{Action, Condition, Scan, Tables, Write},
};

/// How long each figure is measured.
const MEASURED: Duration = Duration::from_secs(2);
/// Rows that are read.
const ROWS: usize = 10_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let folder = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("lethe-throughput-{}", std::process::id()));
    let engine = Embedded::open(&folder).unwrap();
    let engines = engine.engines();
    println!("{:<44}{:>12}", "resident memory, opened", resident());
    fill(&engines.tables).await;

    report("disk alone: 4 KiB appended and synced", sync_alone(&folder), 1);
    for callers in [1, 8, 64, 256] {
        let done = run(callers, &engines, |engines, n| async move {
            engines.tables.apply(vec![put(format!("new-{n}"))]).await.unwrap();
        });
        report(&format!("durable puts, {callers} callers"), done.await, callers);
    }
    let session = engines.sessions.create(NewSession::default()).await.unwrap().id;
    for callers in [1, 8] {
        let done = run(callers, &engines, |engines, n| async move {
            engines.tables.get("t", &format!("{}", n % ROWS as u64)).await.unwrap().unwrap();
        });
        report(&format!("reads by key, {callers} callers"), done.await, callers);
        let id = session.clone();
        let done = run(callers, &engines, move |engines, _| {
            let id = id.clone();
            async move { drop(engines.sessions.load(&id).await.unwrap()) }
        });
        report(&format!("session loads, {callers} callers"), done.await, callers);
        let done = run(callers, &engines, |engines, n| async move {
            let scan = Scan { prefix: format!("{}", n % ROWS as u64), after: None, limit: 1 };
            engines.tables.scan("t", &scan).await.unwrap();
        });
        report(&format!("reads on another thread, {callers} callers"), done.await, callers);
    }
    beside_writes(&engines, "reads by key", |engines, n| async move {
        engines.tables.get("t", &format!("{}", n % ROWS as u64)).await.unwrap().unwrap();
    })
    .await;
    limits(&engines).await;
    println!("{:<44}{:>12}", "resident memory, after all", resident());
    engine.close().await;
    fs::remove_dir_all(&folder).unwrap();
}

fn put(key: String) -> Write {
    let action = Action::Put { value: vec![b'x'; 100].into(), ttl: None };
    Write { table: "t".into(), key, condition: Condition::Any, action }
}

async fn fill(tables: &Arc<dyn Tables>) {
    let keys: Vec<_> = (0..ROWS).collect();
    for keys in keys.chunks(100) {
        tables.apply(keys.iter().map(|key| put(key.to_string())).collect()).await.unwrap();
    }
}

/// Calls `work` from so many tasks, and counts how often it was done.
async fn run<F, W>(callers: usize, engines: &Engines, work: F) -> (u64, Duration)
where
    F: Fn(Engines, u64) -> W + Clone + Send + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    let (done, begin) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let tasks = (0..callers).map(|_| {
        let (engines, done, work) = (engines.clone(), done.clone(), work.clone());
        tokio::spawn(async move {
            while begin.elapsed() < MEASURED {
                work(engines.clone(), done.fetch_add(1, Ordering::Relaxed)).await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    (done.load(Ordering::Relaxed), begin.elapsed())
}

async fn limits(engines: &Engines) {
    let quota = Quota::per(1_000_000, Duration::from_secs(1));
    let allowed = move |engines: Engines, n: u64| async move {
        let verdict = engines.limits.take("l", &format!("{}", n % ROWS as u64), quota, 1).await.unwrap();
        assert!(verdict.allowed);
    };
    for callers in [1, 8, 64] {
        let done = run(callers, engines, allowed).await;
        report(&format!("limits, allowed, {callers} callers"), done, callers);
    }
    beside_writes(engines, "limits, allowed", allowed).await;
    let day = Quota::per(1, Duration::from_secs(24 * 3600));
    engines.limits.take("refused", "k", day, 1).await.unwrap();
    let refused = move |engines: Engines, _| async move {
        assert!(!engines.limits.take("refused", "k", day, 1).await.unwrap().allowed);
    };
    for callers in [1, 8] {
        let done = run(callers, engines, refused).await;
        report(&format!("limits, refused, {callers} callers"), done, callers);
    }
    beside_writes(engines, "limits, refused", refused).await;
}

/// One caller, while eight others write durably.
async fn beside_writes<F, W>(engines: &Engines, what: &str, work: F)
where
    F: Fn(Engines, u64) -> W + Clone + Send + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    let running = Arc::new(AtomicBool::new(true));
    let writers = (0..8).map(|writer| {
        let (tables, running, what) = (engines.tables.clone(), running.clone(), what.to_owned());
        tokio::spawn(async move {
            for n in 0.. {
                if !running.load(Ordering::Relaxed) {
                    return;
                }
                tables.apply(vec![put(format!("{what}-{writer}-{n}"))]).await.unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let done = run(1, engines, work).await;
    report(&format!("{what}, 1 caller beside 8 writers"), done, 1);
    running.store(false, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
}

fn sync_alone(folder: &Path) -> (u64, Duration) {
    let mut file = fs::File::create(folder.join("sync")).unwrap();
    let (mut done, begin) = (0, Instant::now());
    while begin.elapsed() < MEASURED {
        file.write_all(&[0; 4096]).unwrap();
        file.sync_data().unwrap();
        done += 1;
    }
    (done, begin.elapsed())
}

fn report(what: &str, (done, took): (u64, Duration), callers: usize) {
    let a_second = done as f64 / took.as_secs_f64();
    let each = took.as_secs_f64() * 1e6 * callers as f64 / done as f64;
    println!("{what:<44}{a_second:>10.0}/s{each:>12.1} µs each");
}

fn resident() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.trim_start_matches("VmRSS:").trim().to_owned()
}
