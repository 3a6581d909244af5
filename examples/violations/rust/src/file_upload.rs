//! Keeps uploaded photos in a folder of its disk: a worker on another machine does not have them. The twin keeps them in a store beside.

use std::{io::ErrorKind, path::Path};

use axum::{
    Router,
    extract::{self, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use tokio::fs;

use crate::{failure::Failure, store::Store};

const UPLOADS: &str = "uploads";

pub fn app() -> Router {
    Router::new().route("/", get("welcome")).route("/photos/{name}", get(read).put(write))
}

async fn write(extract::Path(name): extract::Path<String>, photo: Bytes) -> Result<StatusCode, Failure> {
    fs::create_dir_all(UPLOADS).await?;
    fs::write(Path::new(UPLOADS).join(file_name(&name)?), photo).await?;
    Ok(StatusCode::CREATED)
}

async fn read(extract::Path(name): extract::Path<String>) -> Result<Response, Failure> {
    match fs::read(Path::new(UPLOADS).join(file_name(&name)?)).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(StatusCode::NOT_FOUND.into_response()),
        photo => Ok(photo?.into_response()),
    }
}

/// Nobody gets to another folder.
fn file_name(name: &str) -> Result<&Path, Failure> {
    Ok(Path::new(name).file_name().ok_or("not the name of a photo")?.as_ref())
}

pub fn fixed(store: Store) -> Router {
    Router::new()
        .route("/", get("welcome"))
        .route("/photos/{name}", get(read_beside).put(write_beside))
        .with_state(store)
}

async fn write_beside(State(store): State<Store>, uri: Uri, photo: Bytes) -> Result<StatusCode, Failure> {
    store.put(uri.path(), photo).await?;
    Ok(StatusCode::CREATED)
}

async fn read_beside(State(store): State<Store>, uri: Uri) -> Result<Response, Failure> {
    Ok(store
        .get(uri.path())
        .await?
        .map_or(StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response))
}
