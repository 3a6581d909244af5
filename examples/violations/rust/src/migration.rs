//! Looks at its start whether the tables are there, and makes them if not. Of several workers that start at once, all find that they are
//! not there, and all but one fail to make them. To the twin it is as good that another worker was faster.

use axum::{Router, extract::State, routing::get};
use bytes::Bytes;

use crate::{failure::Failure, store::Store};

const TABLES: &str = "/tables";

pub async fn app(store: Store) -> Result<Router, Failure> {
    if store.get(TABLES).await?.is_none() {
        // As CREATE TABLE does, this fails if they are there by now.
        let is_made = store.create(TABLES, "version 1").await?;
        if !is_made {
            return Err("the tables are there already".into());
        }
    }
    Ok(router(store))
}

pub async fn fixed(store: Store) -> Result<Router, Failure> {
    if store.get(TABLES).await?.is_none() {
        // As CREATE TABLE IF NOT EXISTS does, this leaves alone what is there by now.
        store.create(TABLES, "version 1").await?;
    }
    Ok(router(store))
}

fn router(store: Store) -> Router {
    Router::new().route("/", get(version)).with_state(store)
}

async fn version(State(store): State<Store>) -> Result<Bytes, Failure> {
    Ok(store.get(TABLES).await?.ok_or("there are no tables")?)
}
