//! Numbers orders by a variable: users of different workers are given the same number, and one's order takes the place of the other's. The
//! twin asks the store for the number: no other order has it, whichever worker its user was sent to.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};

use crate::{failure::Failure, store::Store};

#[derive(Serialize, Deserialize)]
struct Order {
    #[serde(default)]
    id: u32,
    what: String,
}

#[derive(Clone)]
struct Orders {
    store: Store,
    /// The last number; without it, the store counts.
    last: Option<Arc<AtomicU32>>,
}

impl Orders {
    async fn next_number(&self) -> Result<u32, Failure> {
        match &self.last {
            Some(last) => Ok(last.fetch_add(1, Relaxed) + 1),
            None => self.store.count("/numbers").await,
        }
    }
}

pub fn app(store: Store) -> Router {
    with(Orders { store, last: Some(Arc::default()) })
}

pub fn fixed(store: Store) -> Router {
    with(Orders { store, last: None })
}

fn with(orders: Orders) -> Router {
    Router::new()
        .route("/", get("welcome"))
        .route("/orders", post(order))
        .route("/orders/{id}", get(ordered))
        .with_state(orders)
}

async fn order(State(orders): State<Orders>, Json(mut order): Json<Order>) -> Result<Response, Failure> {
    order.id = orders.next_number().await?;
    orders.store.put_json(&format!("/orders/{}", order.id), &order).await?;
    Ok((StatusCode::CREATED, Json(order)).into_response())
}

async fn ordered(State(orders): State<Orders>, uri: Uri) -> Result<Response, Failure> {
    let order: Option<Order> = orders.store.get_json(uri.path()).await?;
    Ok(order.map(Json).ok_or(StatusCode::NOT_FOUND).into_response())
}
