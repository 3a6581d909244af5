//! The capacity, looked for by runs, with the workers that there are or with one number of them after the other.

use anyhow::{Context, bail};
use lethe_admin::{api::Service, client::Client};
use lethe_load::{
    capacity::{Found, Search},
    report::{Capacity, Report, Summary},
    scalability,
    schedule::{RATE_MAX, Schedule},
};

use super::{Bench, Load, rate::Workers};

/// The first rate that is tried, in users a second, unless `--rate` says another.
const FIRST: f64 = 10.0;

/// Looks for the capacity; gives also the last run that was held, or else the very last.
pub(super) fn capacity(bench: &Bench, load: &Load, what: &str) -> anyhow::Result<(Found, Option<Summary>)> {
    let goal_us = u64::try_from(load.goal.0.as_micros()).unwrap_or(u64::MAX);
    let mut search = Search::new(load.rate.most().max(FIRST), RATE_MAX, goal_us);
    let (mut last, mut last_held) = (None, None);
    while let Some(rate) = search.next() {
        // Nobody would come in a step.
        let Ok(schedule) = Schedule::constant(rate, load.step.0) else {
            search.too_low();
            break;
        };
        let summary = bench.run(schedule, &format!("{what}{rate:.0}/s: "))?;
        if summary.invalid_because.iter().any(|why| why.contains("stopped")) {
            bail!("stopped before the capacity was found");
        }
        let share = summary.users.finished as f64 / summary.users.arrived.max(1) as f64;
        // Who is turned away since the service does not keep up is not held; that says nothing against the generator.
        let valid = summary.valid || summary.users.turned_away > 0;
        let told = search.tell(share, summary.latency.p99_us, valid);
        if told.held {
            last_held = Some(summary);
        } else {
            last = Some(summary);
        }
    }
    Ok((search.found(), last_held.or(last)))
}

/// Looks for the capacity with each number of workers, then gives the service back the number that it had.
pub(super) fn by_workers(
    bench: &Bench,
    load: &Load,
    workers: Workers,
    report: &mut Report,
) -> anyhow::Result<()> {
    let client = bench.place.client.as_ref().context("workers are counted only of a lethe that runs")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let service = runtime.block_on(service(client, load.service.as_deref()))?;
    let name = service.name.as_str();
    let tried = (workers.from..=workers.to).try_for_each(|count| {
        runtime
            .block_on(client.scale(name, count))
            .with_context(|| format!("{name} cannot have {count} workers"))?;
        let (found, last) = capacity(bench, load, &format!("{count} workers, "))?;
        report.capacities.push(Capacity { workers: Some(count), found });
        report.run = last.or(report.run.take());
        anyhow::Ok(())
    });
    // Also when it was stopped.
    let restored = runtime.block_on(restore(client, &service));
    tried?;
    restored.with_context(|| format!("{name} does not have its {} workers back", service.wanted))?;
    let points: Vec<(u32, f64)> = report
        .capacities
        .iter()
        .filter_map(|capacity| Some((capacity.workers?, capacity.found.users_per_s?)))
        .collect();
    // They share this machine's cores, with what makes the load.
    let cores = std::thread::available_parallelism().ok().and_then(|cores| u32::try_from(cores.get()).ok());
    match scalability::fit(&points, cores) {
        Ok(fitted) => report.scalability = Some(fitted),
        Err(why) => report.scalability_missing_because = Some(why.to_string()),
    }
    Ok(())
}

/// The one service that is meant.
async fn service(client: &Client, name: Option<&str>) -> anyhow::Result<Service> {
    let mut services = client.status().await?.services;
    let names: Vec<String> = services.iter().map(|service| service.name.to_string()).collect();
    match name {
        Some(name) => {
            let found = services.into_iter().find(|service| service.name.as_str() == name);
            found.with_context(|| format!("there is no service {name}; there are {}", names.join(", ")))
        }
        None if services.len() == 1 => Ok(services.remove(0)),
        None => bail!("say which service with --service: {}", names.join(", ")),
    }
}

async fn restore(client: &Client, service: &Service) -> Result<(), lethe_admin::client::Error> {
    let name = service.name.as_str();
    match service.scale {
        Some(scale) if !scale.pinned => client.scale_by_load(name).await?,
        _ => client.scale(name, service.wanted).await?,
    };
    Ok(())
}
