//! A room whose messages are in a store beside; but how far each reader has come is in a variable. Who polls at another worker is taken for
//! somebody new, who hears what is said from now on, and misses what was said before. In the twin that is in the cursor that a reader is
//! given and sends again, so that it may poll at any worker.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{FromRef, Query, State},
    http::{StatusCode, Uri},
    routing::get,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::{failure::Failure, store::Store};

#[derive(Deserialize)]
struct Poll {
    cursor: Option<String>,
}

#[derive(Serialize)]
struct News {
    messages: Vec<String>,
    cursor: String,
}

/// How many messages each cursor has read.
type Positions = Arc<Mutex<HashMap<String, usize>>>;

#[derive(Clone)]
struct Room {
    store: Store,
    positions: Positions,
}

impl FromRef<Room> for Store {
    fn from_ref(room: &Room) -> Self {
        room.store.clone()
    }
}

pub fn app(store: Store) -> Router {
    Router::new()
        .route("/rooms/{name}", get(poll_on).post(say))
        .with_state(Room { store, positions: Positions::default() })
}

async fn poll_on(
    State(Room { store, positions }): State<Room>,
    uri: Uri,
    Query(Poll { cursor }): Query<Poll>,
) -> Result<Json<News>, Failure> {
    let cursor = cursor.map_or_else(drawn, Ok)?;
    let mut positions = positions.lock().await;
    let since = positions.get(&cursor).copied();
    let messages = said(&store, uri.path(), since.unwrap_or_default()).await?;
    positions.insert(cursor.clone(), since.unwrap_or_default() + messages.len());
    let messages = since.map_or_else(Vec::new, |_| messages);
    Ok(Json(News { messages, cursor }))
}

pub fn fixed(store: Store) -> Router {
    Router::new().route("/rooms/{name}", get(poll).post(say)).with_state(store)
}

async fn poll(
    State(store): State<Store>,
    uri: Uri,
    Query(Poll { cursor }): Query<Poll>,
) -> Result<Json<News>, Failure> {
    let since = cursor.as_deref().map(str::parse).transpose()?;
    let messages = said(&store, uri.path(), since.unwrap_or_default()).await?;
    let cursor = (since.unwrap_or_default() + messages.len()).to_string();
    let messages = since.map_or_else(Vec::new, |_| messages);
    Ok(Json(News { messages, cursor }))
}

fn drawn() -> Result<String, Failure> {
    Ok(format!("{:016x}", getrandom::u64()?))
}

/// Puts it at the first free place: of several that try at once, one gets it.
async fn say(State(store): State<Store>, uri: Uri, text: Bytes) -> Result<StatusCode, Failure> {
    let mut number = 0;
    while !store.create(&format!("{}/{number}", uri.path()), text.clone()).await? {
        number += 1;
    }
    Ok(StatusCode::CREATED)
}

/// All messages from this place on.
async fn said(store: &Store, room: &str, since: usize) -> Result<Vec<String>, Failure> {
    let mut messages = Vec::new();
    while let Some(text) = store.get(&format!("{room}/{}", since + messages.len())).await? {
        messages.push(String::from_utf8_lossy(&text).into_owned());
    }
    Ok(messages)
}
