//! Takes a payment once for each `Idempotency-Key`, and remembers the keys in a variable: sent again to another worker, it is taken
//! twice. The twin writes the key together with the payment into the store that all workers share.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, Uri},
    routing::get,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::{failure::Failure, store::Store};

#[derive(Deserialize)]
struct Payment {
    amount: i64,
}

#[derive(Serialize)]
struct Account {
    paid: i64,
}

#[derive(Clone)]
struct Till {
    store: Store,
    taken: Arc<Mutex<HashSet<String>>>,
}

pub fn app(store: Store) -> Router {
    Router::new()
        .route("/payments/{account}", get(paid).post(pay))
        .with_state(Till { store, taken: Arc::default() })
}

async fn paid(State(till): State<Till>, uri: Uri) -> Result<Json<Account>, Failure> {
    Ok(Json(Account { paid: till.store.get_json(uri.path()).await? }))
}

async fn pay(
    State(till): State<Till>,
    uri: Uri,
    headers: HeaderMap,
    Json(Payment { amount }): Json<Payment>,
) -> Result<Json<Account>, Failure> {
    let mut paid: i64 = till.store.get_json(uri.path()).await?;
    if till.taken.lock().await.insert(key(&headers)?) {
        paid += amount;
        till.store.put_json(uri.path(), &paid).await?;
    }
    Ok(Json(Account { paid }))
}

type Payments = BTreeMap<String, i64>;

pub fn fixed(store: Store) -> Router {
    Router::new().route("/payments/{account}", get(paid_by_key).post(pay_by_key)).with_state(store)
}

async fn paid_by_key(State(store): State<Store>, uri: Uri) -> Result<Json<Account>, Failure> {
    let payments: Payments = store.get_json(uri.path()).await?;
    Ok(Json(Account { paid: payments.values().sum() }))
}

async fn pay_by_key(
    State(store): State<Store>,
    uri: Uri,
    headers: HeaderMap,
    Json(Payment { amount }): Json<Payment>,
) -> Result<Json<Account>, Failure> {
    let mut payments: Payments = store.get_json(uri.path()).await?;
    payments.entry(key(&headers)?).or_insert(amount);
    store.put_json(uri.path(), &payments).await?;
    Ok(Json(Account { paid: payments.values().sum() }))
}

fn key(headers: &HeaderMap) -> Result<String, Failure> {
    let key = headers.get("Idempotency-Key").ok_or("a payment needs an Idempotency-Key")?;
    Ok(key.to_str()?.to_owned())
}
