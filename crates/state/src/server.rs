//! The state API: the kinds of state over HTTP/1.1 on a unix socket, so that a worker in any language has them
//! with no library. `openapi.json` describes it, and [`router`] serves that description too.

mod blobs;
mod body;
mod cache;
pub mod description;
pub mod feeds;
mod idempotency;
mod limits;
mod locks;
mod precondition;
mod problem;
mod query;
mod range;
mod sessions;
pub mod socket;
mod tables;

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    handler::Handler,
    middleware::from_fn,
    response::{IntoResponse as _, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde::Serialize;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{Engines, error::Error, wire};

/// Most connections at one time; further ones wait to be accepted.
pub const CONNECTIONS_MAX: usize = 1024;
/// How long a request's head may take, and how long a connection may be kept without a request.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes of a request's head.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// Most bytes of the buffer that a connection reads into.
const BUFFER_BYTES_MAX: usize = 128 << 10;
/// How long requests that run when the server ends may take to finish.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait after an `accept` that failed, for instance for want of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// What the handlers share.
struct App {
    engines: Engines,
    buffers: body::Buffers,
    /// Room for feeds.
    feeds: Arc<Semaphore>,
    /// Closes when the server ends: feeds do not wait for their end then.
    ending: watch::Receiver<()>,
}

/// One method of one path.
struct Route {
    #[cfg_attr(not(test), allow(dead_code, reason = "tests compare it with the OpenAPI document"))]
    method: Method,
    path: &'static str,
    handler: MethodRouter<Arc<App>>,
}

fn route<H, T>(method: Method, path: &'static str, handler: H) -> Route
where
    H: Handler<T, Arc<App>>,
    T: 'static,
{
    let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::GET);
    let takes_body = [Method::POST, Method::PUT, Method::PATCH].contains(&method);
    let handler = on(filter, handler);
    let handler = if takes_body { handler.layer(from_fn(body::guard)) } else { handler };
    Route { method, path, handler }
}

/// Every route there is.
fn routes() -> Vec<Route> {
    const ROW: &str = "/v1/tables/{table}/{key}";
    const SESSION: &str = "/v1/sessions/{id}";
    const USER: &str = "/v1/users/{user}/sessions";
    const BLOB: &str = "/v1/blobs/{bucket}/{*key}";
    const CACHE: &str = "/v1/cache/{cache}";
    const ENTRY: &str = "/v1/cache/{cache}/{key}";
    vec![
        route(Method::GET, ROW, tables::get),
        route(Method::PUT, ROW, tables::put),
        route(Method::DELETE, ROW, tables::delete),
        route(Method::POST, "/v1/tables/{table}/{key}/increment", tables::increment),
        route(Method::GET, "/v1/tables/{table}", tables::scan),
        route(Method::POST, "/v1/batch", tables::batch),
        route(Method::POST, "/v1/sessions", sessions::create),
        route(Method::GET, SESSION, sessions::load),
        route(Method::PATCH, SESSION, sessions::patch),
        route(Method::DELETE, SESSION, sessions::destroy),
        route(Method::POST, "/v1/sessions/{id}/renew", sessions::renew),
        route(Method::GET, USER, sessions::list),
        route(Method::DELETE, USER, sessions::revoke_all),
        route(Method::DELETE, "/v1/users/{user}/sessions/{handle}", sessions::revoke),
        // Before GET, which would answer HEAD by opening the blob.
        route(Method::HEAD, BLOB, blobs::head),
        route(Method::GET, BLOB, blobs::get),
        route(Method::PUT, BLOB, blobs::put),
        route(Method::DELETE, BLOB, blobs::delete),
        route(Method::GET, "/v1/blobs/{bucket}", blobs::list),
        route(Method::POST, "/v1/limits/{limit}/{key}/take", limits::take),
        route(Method::DELETE, "/v1/limits/{limit}/{key}", limits::reset),
        route(Method::GET, "/v1/limits/{limit}", limits::list),
        route(Method::POST, "/v1/take", limits::take_all),
        route(Method::POST, "/v1/locks/{lock}/acquire", locks::acquire),
        route(Method::POST, "/v1/locks/{lock}/renew", locks::renew),
        route(Method::POST, "/v1/locks/{lock}/release", locks::release),
        route(Method::GET, "/v1/locks/{lock}", locks::look),
        route(Method::GET, "/v1/locks", locks::list),
        route(Method::POST, "/v1/idempotency/{scope}/begin", idempotency::begin),
        route(Method::POST, "/v1/idempotency/{scope}/extend", idempotency::extend),
        route(Method::POST, "/v1/idempotency/{scope}/finish", idempotency::finish),
        route(Method::POST, "/v1/idempotency/{scope}/abandon", idempotency::abandon),
        route(Method::GET, ENTRY, cache::get),
        route(Method::PUT, ENTRY, cache::fill),
        route(Method::DELETE, ENTRY, cache::remove),
        route(Method::POST, "/v1/cache/{cache}/{key}/begin", cache::begin),
        route(Method::POST, "/v1/cache/{cache}/{key}/extend", cache::extend),
        route(Method::POST, "/v1/cache/{cache}/{key}/abandon", cache::abandon),
        route(Method::POST, CACHE, cache::get_many),
        route(Method::GET, CACHE, cache::usage),
        route(Method::DELETE, CACHE, cache::clear),
        route(Method::GET, "/v1/feeds/sessions", feeds::sessions),
        route(Method::GET, "/v1/feeds/tables/{table}", feeds::table),
        route(Method::GET, "/v1/feeds/cache/{cache}", feeds::cache),
        route(Method::GET, "/v1/openapi.json", description::get),
        route(Method::GET, "/v1/health", health),
    ]
}

/// The API as a service, for these engines. Feeds end when the other end of `ending` is dropped.
pub fn router(engines: Engines, ending: watch::Receiver<()>) -> Router {
    let (buffers, feeds) = (body::Buffers::new(), Arc::new(Semaphore::new(feeds::FEEDS_MAX)));
    let app = Arc::new(App { engines, buffers, feeds, ending });
    routes()
        .into_iter()
        .fold(Router::new(), |router, route| router.route(route.path, route.handler))
        .fallback(async |uri: Uri| problem::Problem::no_route(uri.path()))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            problem::Problem::no_method(method.as_str(), uri.path())
        })
        .with_state(app)
}

/// Serves the API on `listener` until `shutdown` ends; then takes no new connection, lets the running requests
/// finish within [`DRAIN_TIMEOUT`], ends feeds at once, and returns. Dropping it cuts all connections at once.
pub async fn serve(listener: UnixListener, engines: Engines, shutdown: impl Future<Output = ()>) {
    let (closing, closed) = watch::channel(());
    let router = router(engines, closed.clone());
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (permit, listener.accept().await)
        };
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            (permit, accepted) = accepted => match accepted {
                Ok((stream, _)) => {
                    let connection = connection(stream, router.clone(), closed.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the state API cannot accept a connection; trying again");
                    sleep(ACCEPT_BACKOFF).await;
                }
            },
        }
    }
    drop(listener);
    drop(closing);
    let drained = timeout(DRAIN_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "requests to the state API did not finish in time; cut"
        );
    }
}

async fn connection(stream: UnixStream, router: Router, mut closed: watch::Receiver<()>) {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX);
    let mut connection =
        pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // Nothing is ever sent: the channel closes when the server ends.
        _ = closed.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the state API ended early");
    }
}

async fn health() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// An answer in JSON.
fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => {
            let content_type = HeaderValue::from_static("application/json");
            (status, [(header::CONTENT_TYPE, content_type)], bytes).into_response()
        }
        Err(error) => problem::Problem::from(Error::Engine(error.into())).into_response(),
    }
}

/// The answer to a delete.
fn deleted(existed: bool) -> Response {
    let value = HeaderValue::from_static(if existed { "true" } else { "false" });
    (StatusCode::NO_CONTENT, [(HeaderName::from_static(wire::EXISTED), value)]).into_response()
}
