//! A request with an `Idempotency-Key` whose worker is killed under it, and then `lethe` itself: its client gets one answer,
//! and the same whenever it comes again, and what it asked for is done once.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use axum::{
    Router,
    extract::{Path, State},
    routing::post,
};
use http::StatusCode;
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    crash::engines,
    lethe::{Lethe, Place, kill_9},
};

const WORKERS: usize = 2;

/// The service: its first run for each key waits to be killed, at the moment that the path names.
#[test]
#[ignore = "is run by lethe, as a service"]
fn worker() -> Result<(), ::lethe::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let state = ::lethe::State::from_env()?;
        let app = Router::new()
            .route("/orders/{moment}", post(order))
            .layer(::lethe::idempotency::IdempotencyLayer::new(&state).required())
            .with_state(state);
        ::lethe::serve(app).await
    })
}

async fn order(
    State(state): State<::lethe::State>,
    Path(moment): Path<String>,
    key: ::lethe::idempotency::Key,
) -> Result<(StatusCode, String), ::lethe::Error> {
    let run = state.counter("runs", key.as_str()).add(1).await?;
    let is_last = |here: &str| run == 1 && moment == here;
    if is_last("before") {
        be_killed(&key).await;
    }
    let (orders, effects) = (state.table::<i64>("orders"), state.counter("effects", key.as_str()));
    match state.batch().insert(&orders, key.unique(), &run)?.add(&effects, 1).commit().await {
        // An earlier run has done it, and came no further.
        Ok(_) | Err(::lethe::Error::Conflict { .. }) => {}
        Err(error) => return Err(error),
    }
    if is_last("after") {
        be_killed(&key).await;
    }
    let done_in = orders.get(key.unique()).await?.map(|run| run.value).unwrap_or_default();
    Ok((StatusCode::CREATED, format!("done in run {done_in}, answered in run {run}")))
}

async fn be_killed(key: &::lethe::idempotency::Key) {
    println!("\nat {}: kill {} now", key.as_str(), std::process::id());
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_with_a_key_is_done_and_answered_once_whoever_is_killed() -> anyhow::Result<()> {
    let place = Place::new()?;
    let lethe = up(&place).await?;
    let cases = [
        ("before", "done in run 2, answered in run 2"),
        ("after", "done in run 1, answered in run 2"),
        ("never", "done in run 1, answered in run 1"),
    ];
    for (moment, expected) in cases {
        lethe.ready(WORKERS).await?;
        let asked = tokio::spawn(ask(lethe.listen, moment));
        if moment != "never" {
            kill_9(victim(&lethe, moment).await?)?;
        }
        let reply = asked.await??;
        ensure!(reply.starts_with("HTTP/1.1 201 ") && reply.ends_with(expected), "{moment}: {reply}");
        ensure!(!reply.contains("idempotent-replayed"), "{moment}: the first answer is no replay: {reply}");
        check_replay(&lethe, moment, expected).await?;
    }

    lethe.signal(Signal::KILL)?;
    lethe.ended().await?;
    let lethe = up(&place).await?;
    for (moment, expected) in cases {
        check_replay(&lethe, moment, expected).await.context("after lethe was killed")?;
        let tables = engines(&lethe)?.tables;
        let effects = tables.get("effects", moment).await?.context("it was done")?;
        ensure!(effects.value == "1", "{moment}: it was done {:?} times", effects.value);
    }
    lethe.down().await
}

async fn up(place: &Place) -> anyhow::Result<Lethe> {
    let program = std::env::current_exe()?;
    let program = program.to_str().context("the program's name is UTF-8")?;
    let instances = WORKERS.to_string();
    let worker = ["--", program, "--ignored", "--exact", "idempotent::worker", "--nocapture"];
    let lethe = place.up(&[&["--instances", &instances], &worker[..]].concat()).await?;
    lethe.ready(WORKERS).await?;
    Ok(lethe)
}

/// The worker that waits to be killed.
async fn victim(lethe: &Lethe, key: &str) -> anyhow::Result<u32> {
    let start = format!("at {key}: kill ");
    let number = |text: String| text.split_once(&start)?.1.split(' ').next()?.parse().ok();
    lethe.until(&format!("a worker is at {key}"), async || number(lethe.output.text())).await
}

async fn check_replay(lethe: &Lethe, moment: &'static str, expected: &str) -> anyhow::Result<()> {
    let reply = ask(lethe.listen, moment).await?;
    let same = reply.starts_with("HTTP/1.1 201 ") && reply.ends_with(expected);
    ensure!(same && reply.contains("idempotent-replayed: true"), "{moment}, again: {reply}");
    Ok(())
}

/// Sends the request, and reads its answer to the end of the connection.
async fn ask(listen: SocketAddr, moment: &'static str) -> anyhow::Result<String> {
    let request = format!(
        "POST /orders/{moment} HTTP/1.1\r\nhost: test\r\nconnection: close\r\nidempotency-key: \"{moment}\"\r\n\
         content-length: 5\r\n\r\na mug"
    );
    let mut stream = TcpStream::connect(listen).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    Ok(reply)
}
