//! One connection: HTTP/1.1 requests, one after the other, until the client or the worker has had enough.

use std::{convert::Infallible, panic::AssertUnwindSafe, pin::pin};

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use http::{HeaderValue, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use lethe_http::problem::Problem;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};
use tower::{Service, ServiceExt};

use super::{HEAD_TIMEOUT, Phase};

/// Answers what comes over the connection, until `phase` says that it is the last, or that it is over.
pub(super) async fn serve<S>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    app: S,
    mut phase: watch::Receiver<Phase>,
) where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let seen = phase.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (app, seen) = (app.clone(), seen.clone());
        async move {
            let response = answer(app, request).await;
            let leaving = *seen.borrow() > Phase::Serving;
            Ok::<_, Infallible>(if leaving { last(response) } else { response })
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
    // First the connection: a request that has arrived is read before the connection counts as idle.
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = reached(&mut phase, Phase::Draining) => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = reached(&mut phase, Phase::CutOff) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn reached(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    let _ = phase.wait_for(|phase| *phase >= wanted).await;
}

/// The response, with the word that no other follows (RFC 9112, section 9.6), unless it hands the connection over.
fn last(mut response: Response) -> Response {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The handler's answer; 500 when it panics, since a connection that closes without an answer makes clients guess.
async fn answer<S>(app: S, request: hyper::Request<Incoming>) -> Response
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    match AssertUnwindSafe(app.oneshot(request.map(Body::new))).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => {
            tracing::error!("a handler panicked; its request is answered with 500");
            Problem::internal().into_response()
        }
    }
}
