//! Notes that there is an order before its lines are written: who is killed in between leaves an order that is done and has nothing in
//! it. The twin writes the lines first: who is killed in between leaves nothing that anybody sees.

use axum::{
    Router,
    extract::State,
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;

use crate::{failure::Failure, store::Store};

pub fn app(store: Store) -> Router {
    Router::new().route("/", get("welcome")).route("/orders/{id}", get(lines).put(order)).with_state(store)
}

pub fn fixed(store: Store) -> Router {
    Router::new()
        .route("/", get("welcome"))
        .route("/orders/{id}", get(lines).put(order_fixed))
        .with_state(store)
}

async fn order(State(store): State<Store>, uri: Uri, lines: Bytes) -> Result<&'static str, Failure> {
    let (ordered, written) = places(&uri);
    if store.get(&ordered).await?.is_none() {
        store.put(&ordered, "yes").await?;
        store.put(&written, lines).await?;
    }
    Ok("ordered")
}

async fn order_fixed(State(store): State<Store>, uri: Uri, lines: Bytes) -> Result<&'static str, Failure> {
    let (ordered, written) = places(&uri);
    if store.get(&ordered).await?.is_none() {
        store.put(&written, lines).await?;
        store.put(&ordered, "yes").await?;
    }
    Ok("ordered")
}

async fn lines(State(store): State<Store>, uri: Uri) -> Result<Response, Failure> {
    let (_, written) = places(&uri);
    Ok(match store.get(&written).await? {
        Some(lines) => lines.into_response(),
        None => (StatusCode::NOT_FOUND, "an order of nothing").into_response(),
    })
}

/// Where it is noted that there is such an order, and where its lines are.
fn places(uri: &Uri) -> (String, String) {
    (format!("/ordered{}", uri.path()), format!("/lines{}", uri.path()))
}
