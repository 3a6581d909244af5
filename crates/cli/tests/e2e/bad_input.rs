//! What a new user does wrong: each time a clear text, the right exit status, and nothing left running.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt};

use anyhow::{Context, ensure};
use lethe_admin::api::Worker;
use lethe_model::roster::WorkerState;
use rustix::process::Signal;

use crate::{lethe::Place, visitor::Visitor};

/// Runs `lethe up` on a folder with this `lethe.toml`, and checks the exit status and what is said.
fn check(toml: &str, status: i32, said: &[&str]) -> anyhow::Result<()> {
    let place = Place::new()?;
    let folder = place.path().join("app");
    fs::create_dir(&folder)?;
    fs::write(folder.join("lethe.toml"), toml)?;
    fs::write(folder.join("not-executable"), "")?;
    let folder = folder.to_str().context("the folder's name is UTF-8")?;
    let output = place.run(&["up", "--listen", "127.0.0.1:0", folder])?;
    let text = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(status), "{toml}\nended with {}; it said:\n{text}", output.status);
    for part in said {
        ensure!(text.contains(part), "{toml}\nsaid no `{part}`:\n{text}");
    }
    Ok(())
}

const WEB: &str = "[services.web]\ncommand = \"sleep 60\"\n";

#[test]
fn configuration() -> anyhow::Result<()> {
    let web = |more: &str| format!("{WEB}{more}");
    check("[services.web]\ncomand = \"x\"\n", 2, &["lethe.toml:2:1", "`comand`", "`command`"])?;
    check(&web("instances = true\n"), 2, &["lethe.toml:3:", "true"])?;
    check(&web("instances = \"8..2\"\n"), 2, &["lethe.toml:3:", "8..2"])?;
    check(&format!("{WEB}{WEB}"), 2, &["lethe.toml:3:", "web"])?;
    check(&web("[[routes]]\nservice = \"wed\"\n"), 2, &["lethe.toml:4:", "`wed`", "`web`"])?;
    check("[services.web]\ncommand = \"no-such-program\"\n", 2, &["lethe.toml:2:", "no-such-program"])?;
    check("[services.web]\ncommand = \"./not-executable\"\n", 2, &["lethe.toml:2:", "not executable"])?;
    check("[services.web\n", 2, &["lethe.toml:1:"])?;
    check(&web("build = \"echo the reason; exit 7\"\n"), 1, &["the reason", "7", "web"])
}

#[test]
fn nothing_to_run() -> anyhow::Result<()> {
    let place = Place::new()?;
    let output = place.run(&["up", place.path().to_str().context("UTF-8")?])?;
    let text = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(2) && text.contains("lethe up --"), "{text}");
    let output = place.tell(&["ps"])?;
    let text = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1) && text.contains("no lethe is running"), "{text}");
    Ok(())
}

#[test]
fn port_in_use() -> anyhow::Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let place = Place::new()?;
    let state = place.state();
    let state = state.to_str().context("UTF-8")?;
    let output = place.run(&["up", "--listen", &address, "--state-dir", state, "--", "sleep", "60"])?;
    let text = String::from_utf8(output.stderr)?;
    let pid = format!("pid {}", std::process::id());
    ensure!(output.status.code() == Some(1), "ended with {}:\n{text}", output.status);
    ensure!(text.contains(&pid) && text.contains("--listen"), "{text}");
    Ok(())
}

#[tokio::test]
async fn state_folder_in_use() -> anyhow::Result<()> {
    let place = Place::new()?;
    let lethe = place.up(&["--", "sleep", "60"]).await?;
    let state = place.state();
    let state = state.to_str().context("UTF-8")?;
    let output = place.run(&["up", "--listen", "127.0.0.1:0", "--state-dir", state, "--", "sleep", "60"])?;
    let text = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1), "ended with {}:\n{text}", output.status);
    ensure!(text.contains(&format!("pid {}", lethe.pid())), "{text}");
    lethe.down().await
}

#[test]
fn state_folder_not_usable() -> anyhow::Result<()> {
    let place = Place::new()?;
    let file = place.path().join("file");
    fs::write(&file, "")?;
    let folder = file.join("state");
    let folder = folder.to_str().context("UTF-8")?;
    let output = place.run(&["up", "--listen", "127.0.0.1:0", "--state-dir", folder, "--", "sleep", "60"])?;
    let text = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1) && text.contains("--state-dir"), "{text}");
    ensure!(text.lines().count() == 2 && text.contains("because: cannot create"), "{text}");
    Ok(())
}

/// A worker that exits at once is named with its last lines and backed off; the other service keeps serving.
#[tokio::test]
async fn worker_that_exits_at_once() -> anyhow::Result<()> {
    let place = Place::new()?;
    let folder = place.path().join("app");
    fs::create_dir(&folder)?;
    let broken = folder.join("broken");
    fs::write(&broken, "#!/bin/sh\necho about to fail\necho the database is missing >&2\nexit 3\n")?;
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755))?;
    let toml = "[services.good]\ncommand = \"sh -c 'exec python3 -m http.server --bind 127.0.0.1 $PORT'\"\n\
                instances = 1\n[services.bad]\ncommand = \"./broken\"\ninstances = 1\n\
                [[routes]]\nservice = \"good\"\n[[routes]]\npath = \"/bad\"\nservice = \"bad\"\n";
    fs::write(folder.join("lethe.toml"), toml)?;
    let lethe = place.up(&[folder.to_str().context("UTF-8")?]).await?;
    let trouble = lethe
        .until("the broken service is in trouble", async || {
            let workers = lethe.workers().await.ok()?;
            workers.into_iter().find(|worker| worker.service.as_str() == "bad")?.trouble
        })
        .await?;
    ensure!(trouble.contains("exit status 3"), "{trouble}");
    lethe
        .until("its last lines and the backing off are shown", async || {
            let text = lethe.output.text();
            (text.contains("the database is missing") && text.contains("next try in")).then_some(())
        })
        .await?;
    lethe
        .until("the good service is ready", async || {
            let workers = lethe.workers().await.ok()?;
            let is_ready =
                |worker: &Worker| worker.service.as_str() == "good" && worker.state == WorkerState::Ready;
            workers.iter().any(is_ready).then_some(())
        })
        .await?;
    let page = Visitor::new(lethe.listen).get("/").await?;
    ensure!(page.status == 200, "the good service answers: {page:?}");
    lethe.signal(Signal::INT)?;
    ensure!(lethe.ended().await?.success(), "ends well");
    Ok(())
}
