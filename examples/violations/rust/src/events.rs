//! News as server-sent events: what is posted goes to those alone who listen at the same worker. The twin adds it to a log beside, which
//! all workers read, and pass on to those who listen.

use std::convert::Infallible;

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use bytes::Bytes;
use http_body_util::channel::Channel;

use crate::{failure::Failure, feed::Feed, store::Store};

/// Events that wait for a slow reader.
const WAITING_MAX: usize = 16;

pub fn app() -> Router {
    with(Feed::here())
}

pub fn fixed(store: Store) -> Router {
    with(Feed::beside(store, "/news"))
}

fn with(feed: Feed) -> Router {
    Router::new().route("/news", get(listen).post(tell)).with_state(feed)
}

async fn tell(State(feed): State<Feed>, text: String) -> Result<StatusCode, Failure> {
    feed.say(text).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn listen(State(feed): State<Feed>) -> impl IntoResponse {
    let (mut sender, events) = Channel::<Bytes, Infallible>::new(WAITING_MAX);
    let mut told = feed.listen();
    tokio::spawn(async move {
        while let Ok(text) = told.recv().await {
            if sender.send_data(format!("data: {text}\n\n").into()).await.is_err() {
                return;
            }
        }
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::new(events))
}
