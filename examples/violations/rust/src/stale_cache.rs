//! Keeps prices in a store beside, and what it has read in a variable: it never hears that another worker has changed one. The twin
//! asks the store each time.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, Uri},
    routing::get,
};
use bytes::Bytes;
use tokio::sync::Mutex;

use crate::{failure::Failure, store::Store};

#[derive(Clone)]
struct Prices {
    store: Store,
    cache: Arc<Mutex<HashMap<String, Bytes>>>,
}

pub fn app(store: Store) -> Router {
    Router::new()
        .route("/prices/{name}", get(read_cached).put(write_cached))
        .with_state(Prices { store, cache: Arc::default() })
}

async fn read_cached(State(prices): State<Prices>, uri: Uri) -> Result<Bytes, Failure> {
    if let Some(price) = prices.cache.lock().await.get(uri.path()) {
        return Ok(price.clone());
    }
    let price = look_up(&prices.store, uri.path()).await?;
    prices.cache.lock().await.insert(uri.path().to_owned(), price.clone());
    Ok(price)
}

async fn write_cached(State(prices): State<Prices>, uri: Uri, price: Bytes) -> Result<StatusCode, Failure> {
    prices.store.put(uri.path(), price.clone()).await?;
    prices.cache.lock().await.insert(uri.path().to_owned(), price);
    Ok(StatusCode::NO_CONTENT)
}

pub fn fixed(store: Store) -> Router {
    Router::new().route("/prices/{name}", get(read).put(write)).with_state(store)
}

async fn read(State(store): State<Store>, uri: Uri) -> Result<Bytes, Failure> {
    look_up(&store, uri.path()).await
}

async fn write(State(store): State<Store>, uri: Uri, price: Bytes) -> Result<StatusCode, Failure> {
    store.put(uri.path(), price).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn look_up(store: &Store, path: &str) -> Result<Bytes, Failure> {
    Ok(store.get(path).await?.unwrap_or_else(|| "no price yet".into()))
}
