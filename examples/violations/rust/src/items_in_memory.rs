//! Keeps items in a variable: the next request may come to another worker, which does not have them. The twin keeps them in a store
//! beside.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::{failure::Failure, store::Store};

#[derive(Clone, Serialize, Deserialize)]
struct Item {
    #[serde(default)]
    id: String,
    name: String,
}

#[derive(Clone)]
enum Items {
    Here(Arc<Mutex<HashMap<String, Item>>>),
    Beside(Store),
}

impl Items {
    async fn read(&self, id: &str) -> Result<Option<Item>, Failure> {
        match self {
            Self::Here(items) => Ok(items.lock().await.get(id).cloned()),
            Self::Beside(store) => store.get_json(&format!("/items/{id}")).await,
        }
    }

    /// `None` deletes it.
    async fn write(&self, id: &str, item: Option<&Item>) -> Result<(), Failure> {
        match (self, item) {
            (Self::Here(items), Some(item)) => {
                items.lock().await.insert(id.to_owned(), item.clone());
            }
            (Self::Here(items), None) => {
                items.lock().await.remove(id);
            }
            (Self::Beside(store), item) => {
                store.put_json(&format!("/items/{id}"), &item).await?;
            }
        }
        Ok(())
    }
}

pub fn app() -> Router {
    with(Items::Here(Arc::default()))
}

pub fn fixed(store: Store) -> Router {
    with(Items::Beside(store))
}

fn with(items: Items) -> Router {
    Router::new()
        .route("/items", post(make))
        .route("/items/{id}", get(read).put(change).delete(delete))
        .with_state(items)
}

async fn make(State(items): State<Items>, Json(mut item): Json<Item>) -> Result<impl IntoResponse, Failure> {
    item.id = format!("{:016x}", getrandom::u64()?);
    items.write(&item.id, Some(&item)).await?;
    Ok((StatusCode::CREATED, Json(item)))
}

async fn read(State(items): State<Items>, Path(id): Path<String>) -> Result<impl IntoResponse, Failure> {
    Ok(items.read(&id).await?.map(Json).ok_or(StatusCode::NOT_FOUND))
}

async fn change(
    State(items): State<Items>,
    Path(id): Path<String>,
    Json(Item { name, .. }): Json<Item>,
) -> Result<impl IntoResponse, Failure> {
    if items.read(&id).await?.is_none() {
        return Ok(Err(StatusCode::NOT_FOUND));
    }
    let item = Item { id, name };
    items.write(&item.id, Some(&item)).await?;
    Ok(Ok(Json(item)))
}

async fn delete(State(items): State<Items>, Path(id): Path<String>) -> Result<StatusCode, Failure> {
    if items.read(&id).await?.is_none() {
        return Ok(StatusCode::NOT_FOUND);
    }
    items.write(&id, None).await?;
    Ok(StatusCode::NO_CONTENT)
}
