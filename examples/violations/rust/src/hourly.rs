//! Sends bills at each full hour, in each worker: three workers send each bill three times, and nothing is seen of it for an hour. In the
//! twin it is the worker that is the first to say so in the store: one of them, however many there are.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::{Router, body::Bytes, extract::State, routing::get};
use tokio::time::sleep;

use crate::{failure::Failure, store::Store};

const HOUR: Duration = Duration::from_secs(3600);

pub fn app(store: Store) -> Router {
    let bills = store.clone();
    tokio::spawn(async move {
        loop {
            next_hour().await;
            // What fails now is tried again at the next hour.
            let _ = bills.count("/bills").await;
        }
    });
    welcomes(store)
}

pub fn fixed(store: Store) -> Router {
    let bills = store.clone();
    tokio::spawn(async move {
        loop {
            let hour = next_hour().await;
            let _ = send_bills_once(&bills, hour).await;
        }
    });
    welcomes(store)
}

/// Waits for the next full hour; which it is, counted from 1970.
async fn next_hour() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let hour = since_1970.as_secs() / HOUR.as_secs() + 1;
    sleep(Duration::from_secs(hour * HOUR.as_secs()) - since_1970).await;
    hour
}

async fn send_bills_once(store: &Store, hour: u64) -> Result<(), Failure> {
    if store.create(&format!("/turns/{hour}"), "").await? {
        store.count("/bills").await?;
    }
    Ok(())
}

fn welcomes(store: Store) -> Router {
    Router::new().route("/", get(welcome)).with_state(store)
}

async fn welcome(State(store): State<Store>) -> Result<Bytes, Failure> {
    Ok(store.get("/welcome").await?.unwrap_or_else(|| "welcome".into()))
}
