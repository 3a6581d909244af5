//! One connection: HTTP/1.1 requests, one after the other, until the client or the worker has had enough.

use std::{convert::Infallible, panic::AssertUnwindSafe, pin::pin};

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use lethe_http::problem::Problem;
use tokio::{net::TcpStream, sync::watch};
use tower::{Service, ServiceExt};

use super::HEAD_TIMEOUT;

/// Answers what comes over the connection. When `draining` becomes true, the request under way is the last.
pub(super) async fn serve<S>(stream: TcpStream, app: S, mut draining: watch::Receiver<bool>)
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    if let Err(error) = stream.set_nodelay(true) {
        // The client has gone already.
        tracing::debug!(%error, "a connection ended at once");
        return;
    }
    let service =
        service_fn(move |request: hyper::Request<Incoming>| answer(app.clone(), request.map(Body::new)));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = true_or_closed(&mut draining) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn true_or_closed(draining: &mut watch::Receiver<bool>) {
    let _ = draining.wait_for(|draining| *draining).await;
}

/// The handler's answer; 500 when it panics, since a connection that closes without an answer makes clients guess.
async fn answer<S>(app: S, request: Request) -> Result<Response, Infallible>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    let answered = AssertUnwindSafe(app.oneshot(request)).catch_unwind().await;
    answered.unwrap_or_else(|_| {
        tracing::error!("a handler panicked; its request is answered with 500");
        Ok(Problem::internal().into_response())
    })
}
