//! Warm-up with real workers: one that comes has the catalogue in memory before it is asked for it.

use std::net::SocketAddr;

use anyhow::{Context, ensure};

use crate::{
    crash,
    engines::Engines,
    lethe::Place,
    shop::{self, WORKERS},
    visitor::Visitor,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_worker_shows_the_catalogue_without_reading_it() -> anyhow::Result<()> {
    let (mut engines, place) = (Engines::apart(), Place::new()?);
    let lethe = shop::open_on(&place, &engines, &[]).await?;
    let cache = crash::engines(&lethe)?.cache;
    let mut lists = cache.follow("lethe-hot").await?;
    let mut visitor = Visitor::new(lethe.listen);
    for _ in 0..WORKERS {
        visitor.get("/").await?;
    }
    // The workers tell what they are asked for most, a little while after they were first asked.
    while cache.get("lethe-hot", "shop").await?.is_none() {
        lists.next().await?;
    }
    let replaced = lethe.client.restart("shop").await?;
    ensure!(replaced as usize == WORKERS, "{replaced} workers were replaced");
    let workers = lethe.ready(WORKERS).await?.workers;
    // Now it cannot be read from its table any more.
    engines.postgres.take().context("there is a PostgreSQL")?.say("kill");
    for worker in workers {
        let address = SocketAddr::from(([127, 0, 0, 1], worker.port.context("it listens on a port")?));
        let page = Visitor::new(address).get("/").await?;
        let shown = page.status == 200 && page.text().contains("Night Swim ink");
        ensure!(shown, "{} answered {}: {}", worker.instance, page.status, page.text());
    }
    Ok(())
}
