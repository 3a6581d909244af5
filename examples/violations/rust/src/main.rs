//! `violations NAME` is the service of the folder of that name, which keeps something in its worker; `violations NAME --fixed` is its
//! twin, which does not; `hourly` is a second one of the folder `schedule`. Like all workers they listen on `127.0.0.1:$PORT`; most keep
//! things in the store that `STORE` names.

mod boot_secret;
mod configuration;
mod duplicate_id;
mod events;
mod failure;
mod feed;
mod file_upload;
mod half_done;
mod hourly;
mod items_in_memory;
mod job;
mod key_in_memory;
mod migration;
mod no_drain;
mod polling;
mod rate_limit;
mod schedule;
mod session_in_memory;
mod sign;
mod slow_start;
mod stale_cache;
mod sticky_cookie;
mod store;
mod unsafe_retry;
mod websocket;

use std::env;

use axum::Router;
use tokio::net::TcpListener;

use crate::{failure::Failure, store::Store};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let words: Vec<String> = env::args().skip(1).collect();
    let (name, is_fixed) = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [name] => (name, false),
        [name, "--fixed"] => (name, true),
        _ => {
            return Err(
                "usage: violations NAME [--fixed], where NAME is a folder of examples/violations".into()
            );
        }
    };
    let app = if is_fixed { fixed(name).await } else { violation(name).await }?;
    let listener = TcpListener::bind(("127.0.0.1", env::var("PORT")?.parse()?)).await?;
    match (name, is_fixed) {
        // Nobody waits for the end of a stream that has none: its listener connects again.
        ("no-drain", false) | ("events", _) => no_drain::serve(listener, app).await?,
        _ => no_drain::serve_fixed(listener, app).await?,
    }
    Ok(())
}

async fn violation(name: &str) -> Result<Router, Failure> {
    Ok(match name {
        "boot-secret" => boot_secret::app()?,
        "configuration" => configuration::app()?,
        "duplicate-id" => duplicate_id::app(Store::from_env()?),
        "events" => events::app(),
        "file-upload" => file_upload::app(),
        "half-done" => half_done::app(Store::from_env()?),
        "hourly" => hourly::app(Store::from_env()?),
        "items-in-memory" => items_in_memory::app(),
        "job" => job::app(),
        "key-in-memory" => key_in_memory::app(Store::from_env()?),
        "migration" => migration::app(Store::from_env()?).await?,
        "no-drain" => no_drain::app(),
        "polling" => polling::app(Store::from_env()?),
        "rate-limit" => rate_limit::app(),
        "schedule" => schedule::app(Store::from_env()?),
        "session-in-memory" => session_in_memory::app(),
        "slow-start" => slow_start::app(),
        "stale-cache" => stale_cache::app(Store::from_env()?),
        "sticky-cookie" => sticky_cookie::app()?,
        "unsafe-retry" => unsafe_retry::app(Store::from_env()?),
        "websocket" => websocket::app(),
        _ => return Err(format!("there is no {name}").into()),
    })
}

async fn fixed(name: &str) -> Result<Router, Failure> {
    Ok(match name {
        "boot-secret" => boot_secret::fixed(),
        "configuration" => configuration::fixed(),
        "duplicate-id" => duplicate_id::fixed(Store::from_env()?),
        "events" => events::fixed(Store::from_env()?),
        "file-upload" => file_upload::fixed(Store::from_env()?),
        "half-done" => half_done::fixed(Store::from_env()?),
        "hourly" => hourly::fixed(Store::from_env()?),
        "items-in-memory" => items_in_memory::fixed(Store::from_env()?),
        "job" => job::fixed(Store::from_env()?),
        "key-in-memory" => key_in_memory::fixed(Store::from_env()?),
        "migration" => migration::fixed(Store::from_env()?).await?,
        "no-drain" => no_drain::app(),
        "polling" => polling::fixed(Store::from_env()?),
        "rate-limit" => rate_limit::fixed(Store::from_env()?),
        "schedule" => schedule::fixed(Store::from_env()?),
        "session-in-memory" => session_in_memory::fixed(),
        "slow-start" => slow_start::fixed().await,
        "stale-cache" => stale_cache::fixed(Store::from_env()?),
        "sticky-cookie" => sticky_cookie::fixed(),
        "unsafe-retry" => unsafe_retry::fixed(Store::from_env()?),
        "websocket" => websocket::fixed(Store::from_env()?),
        _ => return Err(format!("there is no {name}").into()),
    })
}
