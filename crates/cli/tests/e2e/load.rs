//! `lethe load`: on a real `lethe up`, also while workers are killed, and on any other server.

use std::{fs, net::SocketAddr, path::Path, process::Output, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use axum::{Router, extract, routing::get};
use rustix::net::{AddressFamily, SocketType};
use serde_json::Value;
use tokio::{net::TcpListener, sync::Semaphore};

use crate::lethe::{Lethe, Place};

const JOURNEY: &str = "\
[variables]
user = \"ada-{{identity}}\"
[[steps]]
get = \"/users/{{user}}\"
capture = { name = { after = \"name=/users/\" } }
[[steps]]
name = \"again\"
get = \"/users/{{name}}\"
expect = { contains = \"{{user}}\" }
";

/// Not a test: what `lethe` runs as a worker, which says what it was asked for and who it is.
#[tokio::test]
#[ignore = "is a worker, and needs lethe"]
async fn worker() -> anyhow::Result<()> {
    let (Ok(port), Ok(name)) = (std::env::var("PORT"), std::env::var("LETHE_INSTANCE")) else {
        return Ok(());
    };
    let answer =
        async move |user: extract::Path<String>| ([("x-worker", name)], format!("name=/users/{}", *user));
    // One at a time, 50 ms each.
    let one = Arc::new(Semaphore::new(1));
    let slow = async move || {
        let _turn = one.acquire().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let app = Router::new()
        .route("/users/{user}", get(answer))
        .route("/", get(async || "home"))
        .route("/slow", get(slow));
    let listener = TcpListener::bind(("127.0.0.1", port.parse::<u16>()?)).await?;
    Ok(axum::serve(listener, app).await?)
}

/// Tests share the machine: how late the generator is counts for nothing.
const ANY_LAG: [&str; 2] = ["--lag-max", "1h"];

async fn up(place: &Place) -> anyhow::Result<Lethe> {
    fs::write(place.path().join("journey.toml"), JOURNEY)?;
    let program = std::env::current_exe()?;
    let toml = format!(
        "[services.app]\ninstances = 2\n\
         command = [{program:?}, '--ignored', '--exact', 'load::worker', '--nocapture']\n\
         [[routes]]\npath = '/'\nservice = 'app'\nserver-timing = true\n[limits]\nqueue-timeout = '60s'\n"
    );
    let file = place.path().join("lethe.toml");
    fs::write(&file, toml)?;
    let lethe = place.up(&[file.to_str().context("UTF-8")?]).await?;
    lethe.ready(2).await?;
    Ok(lethe)
}

fn path(place: &Place, name: &str) -> anyhow::Result<String> {
    Ok(place.path().join(name).to_str().context("UTF-8")?.to_owned())
}

/// The report, and what was said beside it.
fn report(output: &Output) -> anyhow::Result<Value> {
    serde_json::from_slice(&output.stdout).with_context(|| {
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    })
}

fn names(run: &Value) -> Vec<&str> {
    run["workers"].as_array().into_iter().flatten().filter_map(|worker| worker["name"].as_str()).collect()
}

#[tokio::test]
async fn a_journey_at_a_constant_rate() -> anyhow::Result<()> {
    let place = Place::new()?;
    let lethe = up(&place).await?;
    let journey = path(&place, "journey.toml")?;
    let load = |more: &[&str]| {
        let arguments = [&["load", &journey, "--rate", "40", "--for", "2s"], &ANY_LAG[..], more].concat();
        place.tell(&arguments)
    };
    let output = load(&["--json"])?;
    let report = report(&output)?;
    let run = &report["run"];
    ensure!(output.status.success() && report["version"] == 1 && run["valid"] == true, "{report:#}");
    ensure!(run["users"]["arrived"] == 80 && run["users"]["finished"] == 80, "{report:#}");
    ensure!(run["requests"]["ok"] == 160 && run["steps"][1]["title"] == "again", "{report:#}");
    ensure!(names(run) == ["app-1", "app-2"], "the gateway says who answered: {report:#}");
    let workers = run["workers"].as_array().context("a list")?;
    let of_each = |pointer: &str| -> Vec<u64> {
        workers.iter().filter_map(|worker| worker.pointer(pointer)?.as_u64()).collect()
    };
    ensure!(of_each("/requests/total").iter().sum::<u64>() == 160, "{report:#}");
    for percentile in ["p50_us", "p99_us", "p999_us", "max_us"] {
        let figures = of_each(&format!("/latency/{percentile}"));
        ensure!(figures.len() == 2 && figures.iter().all(|figure| *figure > 0), "{percentile} in {report:#}");
    }
    let p50 = run["latency"]["p50_us"].as_u64().context("a number")?;
    ensure!(p50 > 0 && run["latency"]["max_us"].as_u64() >= Some(p50), "{report:#}");

    let page = path(&place, "load.html")?;
    let output = load(&["--worker-header", "x-worker", "--html", &page])?;
    let page = fs::read_to_string(page)?;
    ensure!(page.ends_with("</html>\n") && page.contains("app-2"), "{page}");
    let text = String::from_utf8(output.stdout)?;
    for expected in
        ["STEP", "1 GET /users/{{user}}", "2 again", "app-2", "80 users in 2.0 s", "of the planned instant"]
    {
        ensure!(output.status.success() && text.contains(expected), "{expected}: {text}");
    }
    // A run that has measured the generator is a failure: a thousand users in a tenth of a second, one at a time.
    let crowd = ["load", "--rate", "10000", "--for", "100ms", "--lag-max", "1ms", "--users-max", "1"];
    let output = place.tell(&crowd)?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(!output.status.success() && said.contains("the run is not valid"), "{said}");
    lethe.down().await
}

#[tokio::test]
async fn users_notice_nothing_while_workers_are_killed() -> anyhow::Result<()> {
    let place = Place::new()?;
    let lethe = up(&place).await?;
    let journey = path(&place, "journey.toml")?;
    let arguments = [
        "load",
        &journey,
        "--rate",
        "30",
        "--for",
        "4s",
        "--kill",
        "every=300ms",
        "--timeout",
        "60s",
        "--json",
    ];
    let output = place.tell(&[&arguments[..], &ANY_LAG].concat())?;
    let report = report(&output)?;
    let run = &report["run"];
    let kills = run["kills"].as_array().context("a list")?;
    ensure!(kills.len() >= 2 && kills.iter().all(|kill| kill["worker"].is_string()), "{report:#}");
    // Each is a GET, which is given to another worker, or waits for one.
    ensure!(run["users"]["finished"] == 120 && run["requests"]["total"] == 240, "{report:#}");
    ensure!(names(run).len() > 2, "those who took the place of others have answered: {report:#}");
    lethe.down().await
}

#[tokio::test]
async fn a_run_that_nobody_finishes_is_a_failure() -> anyhow::Result<()> {
    let app = Router::new().fallback(async || (axum::http::StatusCode::INTERNAL_SERVER_ERROR, "broken"));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let place = Place::new()?;
    let mut command = place.command(&["load", "--url", &url, "--rate", "20", "--for", "500ms"]);
    command.args(ANY_LAG);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1), "{said}");
    ensure!(
        said.contains("none of 10 users came to the end of the journey") && said.contains("500"),
        "{said}"
    );
    server.abort();
    Ok(())
}

#[tokio::test]
async fn the_capacity_of_any_server_is_found() -> anyhow::Result<()> {
    // One at a time, 20 ms each: no more than 50 a second.
    let one = Arc::new(Semaphore::new(1));
    let app = Router::new().route(
        "/slow",
        get(async move || {
            let _turn = one.acquire().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let place = Place::new()?;
    let mut command = place.command(&["load", "--url", &url, "--path", "/slow", "--find-capacity", "--json"]);
    command.args(["--step", "4s", "--goal", "1400ms", "--timeout", "20s"]).args(ANY_LAG);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let report = report(&output)?;
    let found = &report["capacities"][0];
    let held = found["users_per_s"].as_f64().context("some rate is held")?;
    // In four seconds, (held - 50) / 50 * 4 s of delay come together, of which 1.4 s are allowed.
    ensure!(held > 0.0 && held <= 70.0, "{report:#}");
    let tries = found["tries"].as_array().context("a list")?;
    ensure!(tries.iter().any(|tried| tried["held"] == false) && found["limit"] == "service", "{report:#}");
    server.abort();
    Ok(())
}

#[tokio::test]
async fn how_it_grows_with_workers_is_fitted() -> anyhow::Result<()> {
    let place = Place::new()?;
    let lethe = up(&place).await?;
    // In a step of the first rate come no more users than there may be at a time: it is held, however slow this machine is. A worker
    // holds 20 a second, and who comes beyond is turned away, so that it ends.
    let arguments = ["load", "--path", "/slow", "--workers", "1..4", "--rate", "20", "--step", "200ms"];
    let patient = ["--users-max", "4", "--goal", "1h", "--timeout", "60s", "--json"];
    let output = place.tell(&[&arguments[..], &patient, &ANY_LAG].concat())?;
    let report = report(&output)?;
    let capacities = report["capacities"].as_array().context("a list")?;
    let is_held = |capacity: &Value| capacity["users_per_s"].as_f64().is_some_and(|held| held > 0.0);
    ensure!(output.status.success() && capacities.len() == 4, "{report:#}");
    ensure!(capacities.iter().all(is_held), "{report:#}");
    let law = &report["scalability"];
    for estimate in ["one_worker", "contention", "coherence"] {
        let [low, value, high] = ["low", "value", "high"].map(|name| law[estimate][name].as_f64());
        ensure!(low.is_some() && low <= value && value <= high, "{estimate} in {report:#}");
    }
    let reach = law["reach"].as_u64().context("a number")?;
    ensure!((4..=8).contains(&reach), "four were measured: {report:#}");
    ensure!(law["curve"].as_array().map(Vec::len) == usize::try_from(reach).ok(), "{report:#}");
    let notes = law["notes"].to_string();
    ensure!(notes.contains("one degree of freedom"), "{report:#}");
    lethe.down().await
}

#[tokio::test]
async fn the_service_has_its_workers_back_after_others_were_tried() -> anyhow::Result<()> {
    let place = Place::new()?;
    let lethe = up(&place).await?;
    // Few programs answer so quickly through a gateway without optimisation; whether this one does is no matter.
    let arguments =
        ["load", "--workers", "1..3", "--goal", "1ms", "--step", "300ms", "--rate", "10", "--json"];
    let output = place.tell(&[&arguments[..], &ANY_LAG].concat())?;
    let report = report(&output)?;
    let capacities = report["capacities"].as_array().context("a list")?;
    let workers: Vec<_> = capacities.iter().map(|capacity| capacity["workers"].as_u64()).collect();
    ensure!(output.status.success() && workers == [Some(1), Some(2), Some(3)], "{report:#}");
    let why = report["scalability_missing_because"].as_str().unwrap_or_default();
    ensure!(why.contains("needs at least 4"), "nothing is fitted to so little: {report:#}");
    lethe.ready(2).await?;
    lethe.down().await
}

#[test]
fn a_service_that_is_not_there_is_no_success() -> anyhow::Result<()> {
    // Nobody else gets the port while it is bound, and nobody listens there.
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let bound: SocketAddr = rustix::net::getsockname(&socket)?.try_into()?;
    let url = format!("http://{bound}");
    let place = Place::new()?;
    let output =
        place.run(&[&["load", "--url", &url, "--rate", "20", "--for", "500ms"][..], &ANY_LAG].concat())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains("no request got a response"), "{said}");
    Ok(())
}

#[test]
fn what_cannot_be_is_said_before_anything_is_asked() -> anyhow::Result<()> {
    let place = Place::new()?;
    let broken = path(&place, "broken.toml")?;
    fs::write(Path::new(&broken), "[[steps]]\ngte = \"/\"")?;
    for (arguments, said) in [
        (vec!["load", "--url", "https://127.0.0.1:1"], "without TLS"),
        (vec!["load", "--url", "http://127.0.0.1:1", "--kill", "every=1s"], "cannot be used with"),
        (vec!["load", "--url", "http://127.0.0.1:1", &broken], "did you mean `get`?"),
        (
            vec!["load", "--url", "http://127.0.0.1:1", "--rate", "200000", "--for", "1h"],
            "users are more than the",
        ),
        (vec!["load", "--url", "http://127.0.0.1:1", "--path", "x"], "begin it with /"),
        (vec!["load", "--rate", "x"], "write users a second"),
    ] {
        let output = place.run(&arguments)?;
        let complaint = String::from_utf8(output.stderr)?;
        ensure!(!output.status.success() && complaint.contains(said), "{arguments:?}: {complaint}");
    }
    Ok(())
}
