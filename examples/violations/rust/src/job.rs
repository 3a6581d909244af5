//! Does a job in the background and keeps its result in a variable: another worker never hears of it. The twin does the job before it
//! says that it was begun, and writes the result to a store beside, where all workers read it.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::sync::Mutex;

use crate::{failure::Failure, store::Store};

type Results = Arc<Mutex<HashMap<String, &'static str>>>;

pub fn app() -> Router {
    Router::new().route("/jobs/{id}", get(result).post(begin)).with_state(Results::default())
}

async fn begin(State(results): State<Results>, Path(id): Path<String>) -> impl IntoResponse {
    tokio::spawn(async move { results.lock().await.insert(id, work().await) });
    (StatusCode::ACCEPTED, "begun")
}

async fn result(State(results): State<Results>, Path(id): Path<String>) -> Response {
    answer(results.lock().await.get(&id).copied())
}

pub fn fixed(store: Store) -> Router {
    Router::new().route("/jobs/{id}", get(result_beside).post(finish)).with_state(store)
}

async fn finish(State(store): State<Store>, uri: Uri) -> Result<impl IntoResponse, Failure> {
    store.put(uri.path(), work().await).await?;
    Ok((StatusCode::ACCEPTED, "begun"))
}

async fn result_beside(State(store): State<Store>, uri: Uri) -> Result<Response, Failure> {
    Ok(answer(store.get(uri.path()).await?))
}

async fn work() -> &'static str {
    "42"
}

fn answer(result: Option<impl IntoResponse>) -> Response {
    match result {
        Some(result) => result.into_response(),
        None => (StatusCode::NOT_FOUND, "not yet").into_response(),
    }
}
