//! Measures the load of a session from its near copy, beside a load from the embedded engine in the same process, the SHA-256 of its
//! id by which the copy is found, and a deep copy of its fields, which is why they are shared:
//! `cargo run --release -p lethe-state --example near_load --features near,embedded`

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "it prints figures, and ends when something fails"
)]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use lethe_state::{
    embedded::Embedded,
    near::{Bounds, NearSessions},
    sessions::{NewSession, SessionId, Sessions},
};
use serde_json::json;

/// Sessions that are read in turn.
const SESSIONS: usize = 10_000;
/// Rounds that are timed, each of [`ROUND`] loads: the clock costs as much as a load.
const ROUNDS: usize = 5_000;
const ROUND: usize = 100;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Embedded::open(folder.path()).unwrap().engines().sessions;
    let near = NearSessions::new(Arc::clone(&engine), Bounds::default());
    near.followed().await.unwrap();
    let mut ids = Vec::with_capacity(SESSIONS);
    for n in 0..SESSIONS {
        // Ten fields of a hundred bytes: 1 KiB.
        let fields = (0..10).map(|field| (format!("field-{field}"), json!(format!("{n:0>93}")))).collect();
        ids.push(
            engine
                .create(NewSession { fields, user: Some("ada".into()), ..NewSession::default() })
                .await
                .unwrap()
                .id,
        );
    }
    for id in &ids {
        near.load(id).await.unwrap();
    }
    print(
        "near load, one session",
        rounds(async |_| drop(black_box(near.load(&ids[0]).await.unwrap()))).await,
    );
    print(
        "near load, 10,000 in turn",
        rounds(async |n| drop(black_box(near.load(at(&ids, n)).await.unwrap()))).await,
    );
    assert_eq!(near.counts().misses as usize, SESSIONS, "all were near");
    let session = near.load(&ids[0]).await.unwrap();
    print(
        "  of that: SHA-256 of the id, in base64",
        rounds(async |n| drop(black_box(at(&ids, n).public_name()))).await,
    );
    print(
        "deep copy of the fields of one",
        rounds(async |_| drop(black_box((*session.fields).clone()))).await,
    );
    print(
        "load from the embedded engine",
        few(async |n| drop(engine.load(at(&ids, n)).await.unwrap())).await,
    );
}

fn at(ids: &[SessionId], n: usize) -> &SessionId {
    &ids[n * 7919 % ids.len()]
}

/// Nanoseconds of one, by round.
async fn rounds(mut once: impl AsyncFnMut(usize)) -> Vec<f64> {
    timed(ROUNDS, ROUND, &mut once).await
}

async fn few(mut once: impl AsyncFnMut(usize)) -> Vec<f64> {
    timed(ROUNDS / 5, 10, &mut once).await
}

async fn timed(rounds: usize, round: usize, once: &mut impl AsyncFnMut(usize)) -> Vec<f64> {
    let mut times = Vec::with_capacity(rounds);
    for n in 0..rounds {
        let start = Instant::now();
        for m in 0..round {
            once(n * round + m).await;
        }
        let took: Duration = start.elapsed();
        times.push(took.as_nanos() as f64 / round as f64);
        // The task that hears the feed has its turn.
        tokio::task::yield_now().await;
    }
    times.sort_by(f64::total_cmp);
    times
}

fn print(what: &str, times: Vec<f64>) {
    let at = |quantile: f64| times[((times.len() - 1) as f64 * quantile) as usize];
    println!("{what:<44} p50 {:>8.0} ns   p99 of rounds {:>8.0} ns", at(0.5), at(0.99));
}
