//! Adds each deposit to the balance. It is a PUT, which clients and gateways send again by themselves, and then it is added twice. The
//! twin keeps each deposit by its name, and adds them up when it is asked: the same PUT twice is one deposit.

use std::collections::BTreeMap;

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::{get, put},
};
use serde::{Deserialize, Serialize};

use crate::{failure::Failure, store::Store};

#[derive(Deserialize)]
struct Deposit {
    amount: i64,
}

#[derive(Serialize)]
struct Account {
    balance: i64,
}

pub fn app(store: Store) -> Router {
    Router::new()
        .route("/accounts/{account}", get(balance))
        .route("/accounts/{account}/deposits/{name}", put(deposit))
        .with_state(store)
}

async fn balance(State(store): State<Store>, Path(account): Path<String>) -> Result<Json<Account>, Failure> {
    Ok(Json(Account { balance: store.get_json(&account_path(&account)).await? }))
}

async fn deposit(
    State(store): State<Store>,
    Path((account, _)): Path<(String, String)>,
    Json(Deposit { amount }): Json<Deposit>,
) -> Result<Json<Account>, Failure> {
    let path = account_path(&account);
    let balance = store.get_json::<i64>(&path).await? + amount;
    store.put_json(&path, &balance).await?;
    Ok(Json(Account { balance }))
}

type Deposits = BTreeMap<String, i64>;

pub fn fixed(store: Store) -> Router {
    Router::new()
        .route("/accounts/{account}", get(sum))
        .route("/accounts/{account}/deposits/{name}", put(deposit_once))
        .with_state(store)
}

async fn sum(State(store): State<Store>, Path(account): Path<String>) -> Result<Json<Account>, Failure> {
    let deposits: Deposits = store.get_json(&account_path(&account)).await?;
    Ok(Json(Account { balance: deposits.values().sum() }))
}

async fn deposit_once(
    State(store): State<Store>,
    Path((account, name)): Path<(String, String)>,
    Json(Deposit { amount }): Json<Deposit>,
) -> Result<Json<Account>, Failure> {
    let path = account_path(&account);
    let mut deposits: Deposits = store.get_json(&path).await?;
    deposits.insert(name, amount);
    store.put_json(&path, &deposits).await?;
    Ok(Json(Account { balance: deposits.values().sum() }))
}

fn account_path(account: &str) -> String {
    format!("/accounts/{account}")
}
