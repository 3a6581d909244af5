//! The state API: the kinds of state over HTTP/1.1 on a unix socket, so that a worker in any language has them
//! with no library. `openapi.json` describes it, and [`Api`] serves that description too.

pub mod access;
mod blobs;
mod body;
mod cache;
pub mod description;
mod direct;
pub mod feeds;
mod frames;
mod idempotency;
mod limits;
mod locks;
mod portable;
mod precondition;
mod problem;
mod query;
mod range;
mod sessions;
pub mod socket;
mod tables;

use std::{future::Future, io, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    handler::Handler,
    response::{IntoResponse as _, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use hyper::{
    body::Incoming,
    service::{Service as _, service_fn},
};
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

use self::{
    access::{Door, Rule, Visitor},
    direct::{Direct, DirectRoute, Directs},
};
use crate::{Engines, error::Error, grant::Resource, wire};

/// Most connections to one socket at one time; further ones wait to be accepted.
pub const CONNECTIONS_MAX: usize = 1024;
/// How long a request's head may take, and how long a connection may be kept without a request.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes of a request's head.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// Most bytes of the buffer that a connection reads into.
const BUFFER_BYTES_MAX: usize = 128 << 10;
/// How long requests that run when the server ends may take to finish.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// The media type of most answers.
const JSON: &str = "application/json";
/// How long to wait after an `accept` that failed, for instance for want of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// What the handlers share.
struct App {
    engines: Engines,
    buffers: body::Buffers,
}

/// What all that comes through one socket shares.
#[derive(Clone)]
struct Socket {
    /// Room for feeds.
    feeds: Arc<Semaphore>,
    /// Closes when the server ends: feeds do not wait for their end then.
    ending: watch::Receiver<()>,
}

/// One method of one path.
struct Route {
    method: Method,
    path: &'static str,
    rule: Rule,
    handler: MethodRouter<Arc<App>>,
    /// Does calls in their plainest form.
    direct: Option<Direct>,
}

impl Route {
    /// The same, where calls in their plainest form are done by `run`. The rule is the same too.
    fn with_direct(self, run: Direct) -> Self {
        Self { direct: Some(run), ..self }
    }
}

/// A route, whose rule is asked before its handler is.
fn route<H, T>(method: Method, path: &'static str, rule: Rule, handler: H) -> Route
where
    H: Handler<T, Arc<App>>,
    T: Send + 'static,
{
    let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::GET);
    let takes_body = [Method::POST, Method::PUT, Method::PATCH].contains(&method);
    let handler = on(filter, Guarded { rule, takes_body, handler });
    Route { method, path, rule, handler, direct: None }
}

/// A handler behind what is asked of each request to it. Layers of a router would do the same, with an allocation or two and
/// a move of the request for each.
#[derive(Clone)]
struct Guarded<H> {
    rule: Rule,
    takes_body: bool,
    handler: H,
}

impl<H, T> Handler<(T,), Arc<App>> for Guarded<H>
where
    H: Handler<T, Arc<App>>,
    T: Send + 'static,
{
    type Future = BoxFuture<'static, Response>;

    fn call(self, request: Request<Body>, app: Arc<App>) -> Self::Future {
        Box::pin(async move {
            let Self { rule, takes_body, handler } = self;
            let allowed = async move |request| match access::check(rule, request).await {
                Ok(request) => handler.call(request, app).await,
                Err(problem) => problem.into_response(),
            };
            if takes_body { body::guard(request, allowed).await } else { allowed(request).await }
        })
    }
}

/// Every route there is.
fn routes() -> Vec<Route> {
    use Resource::{Buckets, Caches, Idempotency, Limits, Locks, Tables};
    use Rule::{Free, InBody, Listed, Named, Operator, Session, Sessions};

    const ROW: &str = "/v1/tables/{table}/{key}";
    const SESSION: &str = "/v1/sessions/{id}";
    const USER: &str = "/v1/users/{user}/sessions";
    const BLOB: &str = "/v1/blobs/{bucket}/{*key}";
    const CACHE: &str = "/v1/cache/{cache}";
    const ENTRY: &str = "/v1/cache/{cache}/{key}";
    vec![
        route(Method::GET, ROW, Named(Tables), tables::get).with_direct(tables::get_direct),
        route(Method::PUT, ROW, Named(Tables), tables::put).with_direct(tables::put_direct),
        route(Method::DELETE, ROW, Named(Tables), tables::delete),
        route(Method::POST, "/v1/tables/{table}/{key}/increment", Named(Tables), tables::increment),
        route(Method::GET, "/v1/tables/{table}", Named(Tables), tables::scan),
        route(Method::POST, "/v1/batch", InBody(Tables), tables::batch),
        route(Method::POST, "/v1/sessions", Sessions, sessions::create),
        route(Method::GET, SESSION, Session, sessions::load).with_direct(sessions::load_direct),
        route(Method::PATCH, SESSION, Session, sessions::patch),
        // To end what is not there is no error.
        route(Method::DELETE, SESSION, Sessions, sessions::destroy),
        route(Method::POST, "/v1/sessions/{id}/renew", Session, sessions::renew),
        route(Method::GET, USER, Sessions, sessions::list),
        route(Method::DELETE, USER, Sessions, sessions::revoke_all),
        route(Method::DELETE, "/v1/users/{user}/sessions/{handle}", Sessions, sessions::revoke),
        // Before GET, which would answer HEAD by opening the blob.
        route(Method::HEAD, BLOB, Named(Buckets), blobs::head),
        route(Method::GET, BLOB, Named(Buckets), blobs::get),
        route(Method::PUT, BLOB, Named(Buckets), blobs::put),
        route(Method::DELETE, BLOB, Named(Buckets), blobs::delete),
        route(Method::GET, "/v1/blobs/{bucket}", Named(Buckets), blobs::list),
        route(Method::POST, "/v1/limits/{limit}/{key}/take", Named(Limits), limits::take),
        route(Method::DELETE, "/v1/limits/{limit}/{key}", Named(Limits), limits::reset),
        route(Method::GET, "/v1/limits/{limit}", Named(Limits), limits::list),
        route(Method::POST, "/v1/take", InBody(Limits), limits::take_all),
        route(Method::POST, "/v1/locks/{lock}/acquire", Named(Locks), locks::acquire),
        route(Method::POST, "/v1/locks/{lock}/renew", Named(Locks), locks::renew),
        route(Method::POST, "/v1/locks/{lock}/release", Named(Locks), locks::release),
        route(Method::GET, "/v1/locks/{lock}", Named(Locks), locks::look),
        route(Method::GET, "/v1/locks", Listed(Locks), locks::list),
        route(Method::POST, "/v1/idempotency/{scope}/begin", Named(Idempotency), idempotency::begin),
        route(Method::POST, "/v1/idempotency/{scope}/extend", Named(Idempotency), idempotency::extend),
        route(Method::POST, "/v1/idempotency/{scope}/finish", Named(Idempotency), idempotency::finish),
        route(Method::POST, "/v1/idempotency/{scope}/abandon", Named(Idempotency), idempotency::abandon),
        route(Method::GET, ENTRY, Named(Caches), cache::get),
        route(Method::PUT, ENTRY, Named(Caches), cache::fill),
        route(Method::DELETE, ENTRY, Named(Caches), cache::remove),
        route(Method::POST, "/v1/cache/{cache}/{key}/begin", Named(Caches), cache::begin),
        route(Method::POST, "/v1/cache/{cache}/{key}/extend", Named(Caches), cache::extend),
        route(Method::POST, "/v1/cache/{cache}/{key}/abandon", Named(Caches), cache::abandon),
        route(Method::POST, CACHE, Named(Caches), cache::get_many),
        route(Method::GET, CACHE, Named(Caches), cache::usage),
        route(Method::DELETE, CACHE, Named(Caches), cache::clear),
        route(Method::GET, "/v1/feeds/sessions", Sessions, feeds::sessions),
        route(Method::GET, "/v1/feeds/tables/{table}", Named(Tables), feeds::table),
        route(Method::GET, "/v1/feeds/cache/{cache}", Named(Caches), feeds::cache),
        route(Method::GET, "/v1/portable/{part}", Operator, portable::dump),
        route(Method::POST, "/v1/portable/{part}", Operator, portable::restore),
        route(Method::GET, crate::frames::PATH, Free, frames::upgrade),
        route(Method::GET, "/v1/openapi.json", Free, description::get),
        route(Method::GET, "/v1/health", Free, health),
    ]
}

/// The API of some engines, to be served on any number of sockets.
#[derive(Clone)]
pub struct Api {
    router: Router,
    directs: Arc<Directs>,
}

impl Api {
    /// The API of these engines. Whatever ends a session through it is told in the table of
    /// [revocations](crate::revocations).
    pub fn new(engines: Engines) -> Self {
        let engines = engines.with_revocations();
        let app = Arc::new(App { engines, buffers: body::Buffers::new() });
        let mut directs = Vec::new();
        let router = routes()
            .into_iter()
            .inspect(|Route { method, path, rule, direct, .. }| {
                let direct = direct.map(|run| DirectRoute { method: method.clone(), path, rule: *rule, run });
                directs.extend(direct);
            })
            .fold(Router::new(), |router, route| router.route(route.path, route.handler))
            .fallback(async |uri: Uri| problem::Problem::no_route(uri.path()))
            .method_not_allowed_fallback(async |method: Method, uri: Uri| {
                problem::Problem::no_method(method.as_str(), uri.path())
            })
            .with_state(app.clone());
        Self { router, directs: Arc::new(Directs::new(app, directs)) }
    }

    /// Serves it on `listener`, to those and with what `door` says, until `shutdown` ends; then takes no new connection,
    /// lets the running requests finish within [`DRAIN_TIMEOUT`], ends feeds at once, and returns. Dropping it cuts all connections at once.
    pub async fn serve(self, listener: UnixListener, door: Door, shutdown: impl Future<Output = ()>) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let (closing, ending) = watch::channel(());
        let socket = Socket { feeds: Arc::new(Semaphore::new(feeds::FEEDS_MAX)), ending };
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
                        let connection = connection(stream, self.clone(), door.clone(), socket.clone());
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
        let drained =
            timeout(DRAIN_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            tracing::warn!(
                connections = connections.len(),
                "requests to the state API did not finish in time; cut"
            );
        }
    }
}

/// Serves the API of `engines` on one socket, through which everybody who can open it may use everything; see
/// [`Api::serve`].
pub async fn serve(listener: UnixListener, engines: Engines, shutdown: impl Future<Output = ()>) {
    Api::new(engines).serve(listener, Door::open(), shutdown).await;
}

async fn connection(stream: UnixStream, api: Api, door: Door, socket: Socket) {
    let mut ending = socket.ending.clone();
    let visitor = door.meet(&stream, socket).await;
    let router = TowerToHyperService::new(api.router);
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert::<Visitor>(visitor.clone());
        router.call(request)
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // Nothing is ever sent: the channel closes when the server ends.
        _ = ending.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    let ended = match (ended, visitor.frames()) {
        (Ok(()), Some(coming)) => {
            let ending = visitor.socket().ending.clone();
            frames::serve(coming, (router.clone(), api.directs), visitor.clone(), ending).await
        }
        (ended, _) => ended.map_err(io::Error::other),
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
        Ok(bytes) => json_bytes(status, bytes.into()),
        Err(error) => problem::Problem::from(Error::Engine(error.into())).into_response(),
    }
}

/// An answer that is JSON already.
fn json_bytes(status: StatusCode, bytes: Bytes) -> Response {
    let mut response = Response::new(bytes.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    response
}

/// The answer to a delete.
fn deleted(existed: bool) -> Response {
    let value = HeaderValue::from_static(if existed { "true" } else { "false" });
    (StatusCode::NO_CONTENT, [(HeaderName::from_static(wire::EXISTED), value)]).into_response()
}
