//! The verbs on a running `lethe`, and what an operator sees.

use std::fs;

use anyhow::{Context, ensure};
use lethe_model::roster::WorkerState;
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    lethe::{Lethe, Place, alive},
    visitor::Visitor,
};

async fn two_workers(place: &Place) -> anyhow::Result<Lethe> {
    let command =
        ["--instances", "2", "--", "sh", "-c", "exec python3 -m http.server --bind 127.0.0.1 $PORT"];
    let lethe = place.up(&command).await?;
    lethe.ready(2).await?;
    Ok(lethe)
}

fn json(place: &Place, arguments: &[&str]) -> anyhow::Result<Value> {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
    let output = place.tell(&arguments)?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    if output.stdout.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verbs() -> anyhow::Result<()> {
    let place = Place::new()?;
    let lethe = two_workers(&place).await?;

    let status = json(&place, &["ps"])?;
    let first = &status["workers"][0];
    let (name, pid) =
        (first["instance"].as_str().context("a name")?, first["pid"].as_u64().context("a pid")?);
    ensure!(first["state"] == "ready", "{status}");

    json(&place, &["kill", name])?;
    lethe
        .until("it is replaced", async || {
            let workers = lethe.ready(2).await.ok()?.workers;
            workers.iter().all(|worker| worker.instance.as_str() != name).then_some(())
        })
        .await?;
    ensure!(!alive(u32::try_from(pid)?), "the killed worker is gone");

    let service = first["service"].as_str().context("a service")?;
    json(&place, &["scale", &format!("{service}=4")])?;
    lethe.ready(4).await?;
    json(&place, &["scale", &format!("{service}=1")])?;
    let left = lethe.ready(1).await?.workers[0].instance.clone();
    json(&place, &["drain", left.as_str()])?;
    let next = lethe.ready(1).await?.workers[0].instance.clone();
    ensure!(next != left, "a drained worker is replaced");
    json(&place, &["restart", service])?;
    let after = lethe.ready(1).await?.workers[0].instance.clone();
    ensure!(after != next, "a restart replaces it");

    let logs = place.tell(&["logs", left.as_str()])?;
    let logs = String::from_utf8(logs.stdout)?;
    ensure!(logs.contains(left.as_str()), "what a worker that is gone printed is kept: {logs}");

    for (verb, said) in [
        (vec!["kill", "nobody-7"], "nobody-7"),
        (vec!["scale", "nobody=2"], service),
        (vec!["drain", "nobody-7"], "lethe ps"),
        (vec!["drain", &format!("{after}0")], "did you mean"),
        (vec!["kill", "nobody-7", "--json"], "\"error\":\"no worker `nobody-7`"),
    ] {
        let output = place.tell(&verb)?;
        let text = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(1) && text.contains(said), "{verb:?}: {text}");
    }
    ensure!(place.tell(&["scale", service])?.status.code() == Some(2), "a scale without a number is refused");

    let pids: Vec<u32> = lethe.workers().await?.iter().filter_map(|worker| worker.pid).collect();
    json(&place, &["down"])?;
    ensure!(lethe.ended().await?.success(), "down ends it well");
    ensure!(pids.iter().all(|pid| !alive(*pid)), "no worker is left");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operator_endpoint() -> anyhow::Result<()> {
    let place = Place::new()?;
    let lethe = two_workers(&place).await?;
    let mut visitor = Visitor::new(lethe.listen);
    for _ in 0..5 {
        ensure!(visitor.get("/").await?.status == 200, "the service answers");
    }
    let admin = lethe.client.status().await?.node.admin.context("an admin address")?;
    let mut operator = Visitor::new(admin);
    ensure!(operator.get("/healthz").await?.status == 200, "healthy");
    ensure!(operator.get("/readyz").await?.status == 200, "ready");
    let metrics = operator.get("/metrics").await?;
    let line = metrics.text().lines().find(|line| line.starts_with("lethe_") && line.contains("2xx"));
    ensure!(line.is_some_and(|line| line.ends_with(" 5")), "five answers are counted: {line:?}");
    // Each histogram has them all of the five, of the route and of both workers together.
    let sum = |name: &str, more: &str| -> f64 {
        let of = |line: &&str| line.starts_with(name) && line.contains(more);
        metrics
            .text()
            .lines()
            .filter(of)
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    };
    for name in ["lethe_route_duration_seconds", "lethe_worker_latency_seconds"] {
        ensure!(sum(&format!("{name}_bucket"), "le=\"+Inf\"") == 5.0, "{name}: {}", metrics.text());
        ensure!(sum(&format!("{name}_count"), "") == 5.0, "{name}: {}", metrics.text());
        ensure!(sum(&format!("{name}_sum"), "") > 0.0, "{name}: {}", metrics.text());
    }
    lethe.down().await
}

/// A service that cannot start, one that was scaled to 0, and a number that stays although it did not come about: whoever
/// looks is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_said() -> anyhow::Result<()> {
    let place = Place::new()?;
    let file = place.path().join("lethe.toml");
    fs::write(
        &file,
        "[services.web]\ncommand = \"sh -c 'exec python3 -m http.server --bind 127.0.0.1 $PORT'\"\n\
         instances = \"1..2\"\n[[routes]]\nservice = \"web\"\n\
         [services.bad]\ncommand = \"sh -c 'echo one; echo the disk is missing; exit 7'\"\ninstances = 1\n\
         [[routes]]\npath = \"/bad\"\nservice = \"bad\"\n",
    )?;
    let lethe = place.up(&[file.to_str().context("UTF-8")?]).await?;
    lethe
        .until("one is ready and one has failed", async || {
            let workers = lethe.workers().await.ok()?;
            let is_ready = workers.iter().any(|worker| worker.state == WorkerState::Ready);
            (is_ready && workers.iter().any(|worker| worker.trouble.is_some())).then_some(())
        })
        .await?;
    let mut operator = Visitor::new(lethe.client.status().await?.node.admin.context("an admin address")?);
    let page = operator.get("/readyz").await?;
    ensure!(page.status == 503 && page.text().contains("bad (0 of 1 workers ready)"), "{page:?}");
    let tell = |arguments: &[&str]| {
        let output = place.tell(arguments)?;
        anyhow::Ok((output.status.code(), String::from_utf8([output.stdout, output.stderr].concat())?))
    };
    let (_, text) = tell(&["ps"])?;
    ensure!(text.contains("exit status 7 before it was ready: the disk is missing"), "{text}");
    ensure!(tell(&["scale", "bad=0"])?.0 == Some(0), "nothing has to start for that");
    let (_, text) = tell(&["ps"])?;
    ensure!(
        text.contains("bad: no workers, since it was scaled to 0; `lethe scale bad=1` starts one"),
        "{text}"
    );
    ensure!(operator.get("/readyz").await?.status == 200, "as it was wished");
    let (status, text) = tell(&["scale", "bad=2"])?;
    ensure!(status == Some(1) && text.contains("the disk is missing"), "{text}");
    ensure!(
        text.contains("bad shall have 2 now, and goes on trying; `lethe scale bad=0` takes it back"),
        "{text}"
    );
    let (status, text) = tell(&["scale", "web=3"])?;
    ensure!(
        status == Some(0) && text.contains("3 stays, which is outside of 1..2, whatever the load"),
        "{text}"
    );
    lethe.down().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_interrupt_stops_at_once() -> anyhow::Result<()> {
    let place = Place::new()?;
    // A worker that ignores SIGTERM would take the whole drain time.
    let stubborn =
        "trap '' TERM; python3 -m http.server --bind 127.0.0.1 $PORT & wait; while :; do sleep 60; done";
    let toml =
        format!("[services.web]\ncommand = ['sh', '-c', '''{stubborn}''']\ninstances = 1\ndrain = '10m'\n");
    let file = place.path().join("lethe.toml");
    std::fs::write(&file, toml)?;
    let lethe = place.up(&[file.to_str().context("UTF-8")?]).await?;
    let pid = lethe.ready(1).await?.workers[0].pid.context("it runs")?;
    lethe.signal(Signal::INT)?;
    lethe
        .until("it drains", async || {
            let workers = lethe.workers().await.ok()?;
            workers.iter().any(|worker| worker.state == WorkerState::Draining).then_some(())
        })
        .await?;
    lethe.signal(Signal::INT)?;
    let status = lethe.ended().await?;
    ensure!(status.code() == Some(130), "a script sees that it was interrupted: {status}");
    ensure!(!alive(pid), "the worker is gone");
    Ok(())
}
