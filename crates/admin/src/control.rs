//! The control API's server: HTTP/1.1 on a unix socket that only the user of this `lethe` and root can use.

mod scaling;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Path as Segment, RawQuery, Request, State},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use bytes::Bytes;
use futures_util::stream;
use http::{StatusCode, header};
use serde::de::DeserializeOwned;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};

use crate::{
    accept::{self, ACCEPT_BACKOFF},
    api::{self, LINES_DEFAULT},
    follow::Follow,
    handles::Handles,
    interruption::{self, Terms},
    peer::Peers,
    problem::Error,
    releases::{self, Operator},
    stop::Wish,
};

/// Connections at a time, followers of logs among them; more wait.
const CONNECTIONS_MAX: usize = 128;

/// Largest request body.
const BODY_BYTES_MAX: usize = 16 << 10;

/// The longest time that may be given until all has ended.
const DEADLINE_MAX: Duration = Duration::from_secs(24 * 3600);

/// The most lines of the past in one answer.
const LINES_MAX: usize = 100_000;

/// Serves the control API, and takes the samples that its rates need. The socket is to have permissions 0600 in a folder
/// of [`crate::runtime`]. Never returns; dropping the future closes the listener and leaves connections to their end.
/// Must be called within a tokio runtime.
pub async fn serve(listener: UnixListener, handles: Arc<Handles>) {
    let sampler = Arc::clone(&handles);
    tokio::join!(serve_for(Peers::own(), listener, handles), sampler.sample());
}

/// As [`serve`], for these users and without taking samples.
pub async fn serve_for(peers: Peers, listener: UnixListener, handles: Arc<Handles>) {
    let router = router(handles);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) if admitted(&peers, &stream) => {
                let router = by(&stream, router.clone());
                tokio::spawn(async move {
                    accept::serve(stream, router).await;
                    drop(slot);
                });
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "the control socket could not accept a connection");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

fn admitted(peers: &Peers, stream: &UnixStream) -> bool {
    let checked = peers.check(stream);
    if let Err(error) = &checked {
        tracing::warn!(%error, "a connection to the control socket was refused");
    }
    checked.is_ok()
}

/// Every request of a connection is of whom the kernel says that it is.
fn by(stream: &UnixStream, router: Router) -> Router {
    match stream.peer_cred() {
        Ok(peer) => router.layer(Extension(Operator::of(peer.uid()))),
        Err(_) => router,
    }
}

fn router(handles: Arc<Handles>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/logs", get(logs))
        .route("/v1/workers/{instance}/kill", post(kill))
        .route("/v1/workers/{instance}/drain", post(drain))
        .route("/v1/services/{service}/scale", post(scale))
        .route("/v1/services/{service}/restart", post(restart))
        .route("/v1/services/{service}/scaling", get(scaling::look))
        .route("/v1/services/{service}/scaling/{number}", get(scaling::case))
        .route("/v1/services/{service}/metrics/{metric}", put(scaling::tell))
        .route("/v1/reload", post(reload))
        .route("/v1/upgrade", post(upgrade))
        .route("/v1/down", post(down))
        .route("/v1/interrupt", post(interrupt))
        .merge(releases::routes())
        .method_not_allowed_fallback(async |request: Request| Error::Method(request.method().clone()))
        .fallback(async |request: Request| Error::NoRoute(request.uri().path().into()))
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(handles)
}

async fn status(State(handles): State<Arc<Handles>>) -> Json<api::Status> {
    Json(handles.status())
}

async fn logs(State(handles): State<Arc<Handles>>, RawQuery(query): RawQuery) -> Result<Response, Error> {
    let query = axum::extract::Query::<api::Logs>::try_from_uri(
        &format!("/?{}", query.unwrap_or_default())
            .parse()
            .map_err(|_| Error::BadRequest("the query is not one".into()))?,
    )
    .map_err(|error| Error::BadRequest(error.body_text()))?
    .0;
    let lines_max = query.lines.unwrap_or(LINES_DEFAULT).min(LINES_MAX);
    let follow = Follow::new(&handles.supervisor, query.name, lines_max, query.follow)?;
    let lines = stream::unfold(follow, async |mut follow| {
        let line = follow.next().await?;
        let mut json = serde_json::to_vec(&line).ok()?;
        json.push(b'\n');
        Some((Ok::<_, Infallible>(json), follow))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

async fn kill(
    State(handles): State<Arc<Handles>>,
    Segment(instance): Segment<String>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<StatusCode, Error> {
    let api::Kill { signal } = parse(body)?;
    if !(1..=64).contains(&signal) {
        return Err(Error::BadRequest(format!("{signal} is not a signal; they go from 1 to 64")));
    }
    handles.supervisor.kill(&instance, signal).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn drain(
    State(handles): State<Arc<Handles>>,
    Segment(instance): Segment<String>,
) -> Result<StatusCode, Error> {
    handles.supervisor.drain(&instance).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn scale(
    State(handles): State<Arc<Handles>>,
    Segment(service): Segment<String>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Json<api::Scaled>, Error> {
    scaling::set(&handles, &service, parse(body)?).await.map(Json)
}

async fn restart(
    State(handles): State<Arc<Handles>>,
    Segment(service): Segment<String>,
) -> Result<Json<api::Restarted>, Error> {
    let replaced = handles.supervisor.restart(&service).await?;
    Ok(Json(api::Restarted { replaced }))
}

async fn reload(
    State(handles): State<Arc<Handles>>,
    Extension(by): Extension<Operator>,
) -> Result<Json<api::Reloaded>, Error> {
    (handles.reload)(Some(by)).await.map(Json).map_err(Error::Node)
}

async fn upgrade(
    State(handles): State<Arc<Handles>>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Json<api::Upgraded>, Error> {
    (handles.upgrade)(parse(body)?).await.map(Json).map_err(Error::Node)
}

async fn down(
    State(handles): State<Arc<Handles>>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<StatusCode, Error> {
    let api::Down { how } = parse(body)?;
    if how == Wish::Run {
        return Err(Error::BadRequest("`how` is `drain` or `now`".into()));
    }
    handles.stop.ask(how);
    Ok(StatusCode::ACCEPTED)
}

async fn interrupt(
    State(handles): State<Arc<Handles>>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<StatusCode, Error> {
    let api::Interrupt { deadline_ms, settle_ms } = parse(body)?;
    let usual = handles.stop.terms().unwrap_or_default();
    let or = |ms: Option<u64>, usual| ms.map_or(usual, Duration::from_millis);
    let terms = Terms { settle: or(settle_ms, usual.settle), deadline: or(deadline_ms, usual.deadline) };
    if terms.deadline > DEADLINE_MAX {
        return Err(Error::BadRequest(format!(
            "`deadline_ms` is too long; at most {}",
            DEADLINE_MAX.as_millis()
        )));
    }
    interruption::heed(&handles.stop, "told to drain the host", terms);
    Ok(StatusCode::ACCEPTED)
}

/// Reads a JSON body; one that is empty stands for `{}`.
pub(crate) fn parse<T: DeserializeOwned>(
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<T, Error> {
    let body = body.map_err(|error| Error::BadRequest(error.body_text()))?;
    let json: &[u8] = if body.is_empty() { b"{}" } else { &body };
    serde_json::from_slice(json).map_err(|error| Error::BadRequest(format!("the body: {error}")))
}
