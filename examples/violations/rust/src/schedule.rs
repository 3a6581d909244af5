//! Sends bills each second, in each worker: three workers send each bill three times. In the twin it is the worker that is the first to
//! say so in the store: one of them, however many there are.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::{Router, routing::get};
use tokio::time::interval;

use crate::{failure::Failure, store::Store};

const EACH: Duration = Duration::from_secs(1);

pub fn app(store: Store) -> Router {
    tokio::spawn(async move {
        let mut ticks = interval(EACH);
        loop {
            ticks.tick().await;
            // What fails now is tried again at the next tick.
            let _ = send_bills(&store).await;
        }
    });
    Router::new().route("/", get("welcome"))
}

pub fn fixed(store: Store) -> Router {
    tokio::spawn(async move {
        let mut ticks = interval(EACH);
        loop {
            ticks.tick().await;
            let _ = send_bills_once(&store).await;
        }
    });
    Router::new().route("/", get("welcome"))
}

async fn send_bills(store: &Store) -> Result<(), Failure> {
    store.count("/bills").await?;
    Ok(())
}

async fn send_bills_once(store: &Store) -> Result<(), Failure> {
    let second = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    if store.create(&format!("/turns/{second}"), "").await? {
        send_bills(store).await?;
    }
    Ok(())
}
