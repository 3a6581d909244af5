//! Hybrid sessions with real workers: who is signed in is known by a pass, whatever dies, and who was signed out stays out. The
//! workers are asked one by one, past the gateway, with all that the browser has.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use lethe_model::roster::WorkerState;
use lethe_state::feed::SILENCE_MAX;
use rustix::process::Signal;

use crate::{
    engines::Engines,
    lethe::{Lethe, Place, alive, kill_9},
    seed::Random,
    shop::{self, PASSWORD, WORKERS},
    visitor::Visitor,
};

/// Times that something is killed.
const ROUNDS: usize = 6;
const SIGN_INS: [(&str, &str); 1] = [("SHOP_SIGN_INS_PER_MINUTE", "1000000")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_signed_out_by_a_death_and_nobody_comes_back_by_one() -> anyhow::Result<()> {
    run("nobody_is_signed_out_by_a_death_and_nobody_comes_back_by_one", &Engines::embedded()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_it_is_with_sessions_in_redis_and_what_ended_them_in_postgresql() -> anyhow::Result<()> {
    run("so_it_is_with_sessions_in_redis_and_what_ended_them_in_postgresql", &Engines::apart()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_it_is_with_sessions_in_postgresql_and_what_ended_them_in_redis() -> anyhow::Result<()> {
    run("so_it_is_with_sessions_in_postgresql_and_what_ended_them_in_redis", &Engines::crossed()).await
}

async fn run(name: &str, engines: &Engines) -> anyhow::Result<()> {
    let mut random = Random::for_test(name);
    let place = Place::new()?;
    let mut lethe = shop::open_on(&place, engines, &SIGN_INS).await?;
    let ada = signed_in(&lethe, "ada").await?;
    let mut gone = Vec::new();
    for round in 0..ROUNDS {
        let name = format!("gone-{round}");
        let browser = signed_in(&lethe, &name).await?;
        end(&place, &lethe, &name, &browser, round).await?;
        gone.push((name, browser));
        tokio::time::sleep(SILENCE_MAX).await;
        check(&lethe, &ada, &gone).await.context("before")?;
        // Another one ends in the last moment before the kill, so that no worker has time to hear of it.
        let name = format!("late-{round}");
        let browser = signed_in(&lethe, &name).await?;
        end(&place, &lethe, &name, &browser, round).await?;
        gone.push((name, browser));
        match random.below(2) {
            0 => {
                let pids: Vec<u32> = lethe.workers().await?.iter().filter_map(|worker| worker.pid).collect();
                pids.iter().try_for_each(|pid| kill_9(*pid))?;
                // Those who come have heard of everything before they are asked.
                lethe
                    .until("others are ready", async || {
                        let status = lethe.client.status().await.ok()?;
                        let is_new = |pid: u32| !pids.contains(&pid) && alive(pid);
                        let ready = status.workers.iter().filter(|worker| worker.state == WorkerState::Ready);
                        (ready.filter(|worker| worker.pid.is_some_and(is_new)).count() == WORKERS)
                            .then_some(())
                    })
                    .await?;
            }
            _ => {
                lethe.signal(Signal::KILL)?;
                lethe.ended().await?;
                lethe = shop::open_on(&place, engines, &SIGN_INS).await?;
            }
        }
        check(&lethe, &ada, &gone).await.with_context(|| format!("after kill {round}"))?;
    }
    lethe.down().await
}

/// Somebody whose browser has a pass.
async fn signed_in(lethe: &Lethe, name: &str) -> anyhow::Result<Visitor> {
    let mut browser = Visitor::new(lethe.listen);
    let page = browser.post("/register", &[("name", name), ("password", PASSWORD), ("next", "/")]).await?;
    ensure!(page.status == 303, "{name} was answered {}: {}", page.status, page.text());
    browser.get("/orders").await?;
    ensure!(browser.has_cookie("__Host-session-pass"), "{name} has no pass");
    Ok(browser)
}

/// Ends the session of a user, in each of the three ways that there are.
async fn end(place: &Place, lethe: &Lethe, name: &str, browser: &Visitor, way: usize) -> anyhow::Result<()> {
    let path = match way % 3 {
        0 => "/sign-out",
        1 => "/sign-out-everywhere",
        _ => {
            let output = place.tell(&["state", "sessions", "revoke", name, "--all"])?;
            ensure!(output.status.success(), "{output:?}");
            return Ok(());
        }
    };
    // In another tab: what the browser had before is what a thief would have.
    let page = browser.tab(lethe.listen).post(path, &[]).await?;
    ensure!(page.status == 303, "{path} was answered {}: {}", page.status, page.text());
    Ok(())
}

/// Asks each worker who these are.
async fn check(lethe: &Lethe, ada: &Visitor, gone: &[(String, Visitor)]) -> anyhow::Result<()> {
    let workers = lethe.ready(WORKERS).await?.workers;
    for worker in &workers {
        let port = worker.port.context("it listens on a port")?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let page = ada.tab(address).get("/orders").await?;
        ensure!(
            page.status == 200,
            "{} answered ada with {} {}: {}",
            worker.instance,
            page.status,
            page.location(),
            lethe.output.text()
        );
        for (name, browser) in gone {
            let page = browser.tab(address).get("/orders").await?;
            let is_out = page.location() == "/sign-in?next=/orders";
            ensure!(is_out, "{} answered {name} with {}: {}", worker.instance, page.status, page.text());
        }
    }
    Ok(())
}

/// Pages that only need to know who it is need no engine of sessions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_signed_in_is_known_while_the_engine_of_sessions_is_away() -> anyhow::Result<()> {
    let (mut engines, place) = (Engines::apart(), Place::new()?);
    let lethe = shop::open_on(&place, &engines, &SIGN_INS).await?;
    let ada = signed_in(&lethe, "ada").await?;
    let workers = lethe.ready(WORKERS).await?.workers;
    drop(engines.redis.take());
    for worker in &workers {
        let address = SocketAddr::from(([127, 0, 0, 1], worker.port.context("it listens on a port")?));
        for path in ["/", "/orders"] {
            let page = ada.tab(address).get(path).await?;
            let knows = page.status == 200 && page.text().contains("action=\"/sign-out\"");
            ensure!(knows, "{} answered {path} with {}: {}", worker.instance, page.status, page.text());
        }
        let cart = ada.tab(address).get("/cart").await?;
        ensure!(cart.status == 503, "{} shows a cart that it cannot know: {}", worker.instance, cart.status);
    }
    Ok(())
}
