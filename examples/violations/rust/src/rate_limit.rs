//! Lets each user make three requests, and counts them in a variable: with three workers it is nine. The twin counts them in a store
//! beside: three, however many workers there are.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, Uri},
    routing::get,
};
use tokio::sync::Mutex;

use crate::{failure::Failure, store::Store};

const LIMIT: u32 = 3;

type Counts = Arc<Mutex<HashMap<String, u32>>>;
type Answer = (StatusCode, &'static str);

pub fn app() -> Router {
    Router::new().route("/answers/{user}", get(ask)).with_state(Counts::default())
}

pub fn fixed(store: Store) -> Router {
    Router::new().route("/answers/{user}", get(ask_fixed)).with_state(store)
}

async fn ask(State(counts): State<Counts>, Path(user): Path<String>) -> Answer {
    let mut counts = counts.lock().await;
    let count = counts.entry(user).or_default();
    *count += 1;
    answer(*count)
}

async fn ask_fixed(State(store): State<Store>, uri: Uri) -> Result<Answer, Failure> {
    Ok(answer(store.count(uri.path()).await?))
}

fn answer(count: u32) -> Answer {
    match count <= LIMIT {
        true => (StatusCode::OK, "here you are"),
        false => (StatusCode::TOO_MANY_REQUESTS, "too many requests"),
    }
}
