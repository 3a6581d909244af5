//! A service whose workers listen on unix sockets, and are killed while they serve.

use std::fs;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::Method;
use tokio::sync::watch;

use crate::{
    lethe::{Place, kill_9},
    seed::Random,
    teller::{self, Told},
    visitor::Visitor,
};

/// Workers killed under load.
const KILLS: usize = 15;
/// Visitors, each with a request under way at all times: more than the line of connections that the program
/// lets wait (5 of each worker) holds.
const VISITORS: usize = 24;

const TOML: &str = "\
[services.web]
command = \"python3 app.py\"
instances = 3
ready = \"/\"
listener = \"socket\"
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_under_load_fails_no_request() -> anyhow::Result<()> {
    let mut random = Random::for_test("unix_socket::kill_9_under_load_fails_no_request");
    let place = Place::new()?;
    fs::write(place.path().join("app.py"), teller::PROGRAM)?;
    let file = place.path().join("lethe.toml");
    fs::write(&file, TOML)?;
    let lethe = place.up(&[file.to_str().context("UTF-8")?]).await?;
    let status = lethe.ready(3).await?;
    let mut sockets = Vec::new();
    for worker in &status.workers {
        let socket = worker.socket.clone().with_context(|| format!("no socket: {worker:?}"))?;
        ensure!(worker.port.is_none() && socket.starts_with(place.path()), "{worker:?}");
        sockets.push(socket);
    }
    let (end, ended) = watch::channel(false);
    let visitors: Vec<_> = (0..VISITORS)
        .map(|number| {
            let (mut visitor, ended) = (Visitor::new(lethe.listen), ended.clone());
            tokio::spawn(async move {
                let mut count = 0;
                while !*ended.borrow() {
                    let key = format!("{number}-{count}");
                    // Each of both may be sent again: a GET by its nature, a POST by its key.
                    let (method, headers) = match count % 2 {
                        0 => (Method::GET, vec![]),
                        _ => (Method::POST, vec![("idempotency-key", key.as_str())]),
                    };
                    let body = if method == Method::GET { Bytes::new() } else { key.clone().into() };
                    let page = visitor
                        .send(method, "/", &headers, body.clone())
                        .await
                        .with_context(|| key.clone())?;
                    ensure!(page.status == 200, "{key}: {page:?}");
                    ensure!(Told::by(&page)?.got.as_bytes() == body, "{key}: {page:?}");
                    count += 1;
                }
                Ok(count)
            })
        })
        .collect();
    let mut killed = Vec::new();
    for _ in 0..KILLS {
        let status = lethe.ready(3).await?;
        let victim = &status.workers[random.below(3)];
        kill_9(victim.pid.context("a process")?)?;
        killed.push(victim.socket.clone().context("a socket")?);
        let gone = victim.instance.clone();
        lethe
            .until(&format!("{gone} is gone"), async || {
                let workers = lethe.workers().await.ok()?;
                workers.iter().all(|worker| worker.instance != gone).then_some(())
            })
            .await?;
    }
    let status = lethe.ready(3).await?;
    end.send_replace(true);
    let mut answered = 0;
    for visitor in visitors {
        answered += visitor.await??;
    }
    println!("{answered} requests were answered while {KILLS} workers were killed, and none failed");
    ensure!(answered > KILLS * VISITORS, "there was load");
    let gateway = lethe.client.status().await?.gateway;
    ensure!(gateway.responses[3..] == [0, 0] && gateway.unknown == 0, "{gateway:?}");
    ensure!(killed.iter().all(|socket| !socket.exists()), "a killed worker's socket is left");
    let folder = sockets[0].parent().context("a folder")?;
    for worker in &status.workers {
        ensure!(worker.socket.as_ref().is_some_and(|socket| socket.exists()), "{worker:?}");
    }
    let control = folder.parent().context("a folder")?.to_owned();
    lethe.down().await?;
    ensure!(!control.exists(), "{} is left", control.display());
    Ok(())
}

/// What an earlier `lethe` has left behind when it was killed is no obstacle.
#[tokio::test]
async fn after_kill_9_of_lethe() -> anyhow::Result<()> {
    let place = Place::new()?;
    fs::write(place.path().join("app.py"), teller::PROGRAM)?;
    let file = place.path().join("lethe.toml");
    fs::write(&file, TOML)?;
    let file = file.to_str().context("UTF-8")?;
    let lethe = place.up(&[file]).await?;
    let left = lethe.ready(3).await?.workers.remove(0).socket.context("a socket")?;
    kill_9(lethe.pid())?;
    lethe.ended().await?;
    ensure!(left.exists(), "nobody was there to remove it");
    let lethe = place.up(&[file]).await?;
    let status = lethe.ready(3).await?;
    ensure!(status.workers.iter().any(|worker| worker.socket.as_ref() == Some(&left)), "{status:?}");
    ensure!(Visitor::new(lethe.listen).get("/").await?.status == 200, "it serves");
    lethe.down().await
}
