//! Measures one client that reads one row over and over through the state API of another process, then writes one, and
//! then calls a limit:
//! `cargo run --release -p lethe-state --example point_read`

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "it prints figures, and ends when something fails"
)]

use std::{
    env,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use lethe_state::{
    embedded::Embedded,
    limits::{Limits, Quota},
    remote::Remote,
    server::{serve, socket},
    tables::{Action, Condition, Tables, Write},
};

const READS: usize = 50_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    match env::args().nth(1) {
        Some(directory) => keep(Path::new(&directory)).await,
        None => measure().await,
    }
}

/// The other process: an embedded engine and its API.
async fn keep(directory: &Path) {
    let engine = Embedded::open(&directory.join("state")).unwrap();
    let listener = socket::bind(&directory.join("state.sock")).unwrap();
    serve(listener, engine.engines(), std::future::pending()).await;
}

async fn measure() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env::current_exe().unwrap());
    let mut keeper = command.arg(directory.path()).stdin(Stdio::null()).spawn().unwrap();
    let remote = Remote::connect(&socket::url(&directory.path().join("state.sock"))).unwrap();
    let value = Bytes::from(vec![b'x'; 256]);
    let action = Action::Put { value, ttl: None };
    let write = |key: &str| Write {
        table: "t".into(),
        key: key.into(),
        condition: Condition::Any,
        action: action.clone(),
    };
    remote.apply(vec![write("k")]).await.unwrap();
    let reads = times(READS, async || drop(remote.get("t", "k").await.unwrap().unwrap())).await;
    print("read of a row", &reads);
    let writes = times(READS / 25, async || drop(remote.apply(vec![write("w")]).await.unwrap())).await;
    print("write of a row", &writes);
    let (pace, day) =
        (Quota::per(1_000_000, Duration::from_secs(1)), Quota::per(1, Duration::from_secs(86400)));
    let allowed = times(READS / 5, async || assert!(remote.take("l", "k", pace, 1).await.unwrap().allowed));
    print("call of a limit, allowed", &allowed.await);
    remote.take("l", "r", day, 1).await.unwrap();
    let refused = times(READS / 5, async || assert!(!remote.take("l", "r", day, 1).await.unwrap().allowed));
    print("call of a limit, refused", &refused.await);
    keeper.kill().unwrap();
    keeper.wait().unwrap();
}

async fn times(count: usize, mut once: impl AsyncFnMut()) -> Vec<Duration> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        once().await;
        times.push(start.elapsed());
    }
    times.sort();
    times
}

fn print(what: &str, times: &[Duration]) {
    let at = |quantile: f64| times[((times.len() - 1) as f64 * quantile) as usize];
    println!("{what}: p50 {:?}, p99 {:?}, p99.9 {:?}", at(0.5), at(0.99), at(0.999));
}
