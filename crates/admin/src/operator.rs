//! The operator's endpoint, for load balancers and Prometheus, on a TCP address: `/healthz` answers while `lethe`
//! runs, `/readyz` while every service can answer, `/metrics` with all that is measured. It takes no commands.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use tokio::{net::TcpListener, sync::Semaphore};

use crate::{
    accept::{self, ACCEPT_BACKOFF},
    api, exposition,
    handles::Handles,
    metrics,
};

/// Connections at a time; more wait.
const CONNECTIONS_MAX: usize = 64;

/// How long one connection, with its one request, may take. It also ends those who do not read their answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves the endpoint. Never returns; dropping the future closes the listener. Must be called within a tokio runtime.
pub async fn serve(listener: TcpListener, handles: Arc<Handles>) {
    let router = Router::new()
        .route("/healthz", get(async || answer(StatusCode::OK, "ok\n")))
        .route("/readyz", get(ready))
        .route("/metrics", get(measured))
        .fallback(async || answer(StatusCode::NOT_FOUND, "there are /healthz, /readyz and /metrics\n"))
        .with_state(handles);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    // A caller who is cut off asks again; there is nobody to tell.
                    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, accept::serve(stream, router)).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin address could not accept a connection");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

async fn ready(State(handles): State<Arc<Handles>>) -> Response {
    let stopping = handles.stop.is_leaving();
    match unready(&handles.services(), stopping) {
        None => answer(StatusCode::OK, "ready\n"),
        Some(why) => answer(StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

async fn measured(State(handles): State<Arc<Handles>>) -> impl IntoResponse {
    let (traffic, workers) = ((handles.traffic)(), handles.supervisor.workers());
    let others = |text: &mut exposition::Exposition| {
        handles.scaling.measure(text);
        (handles.state)(text);
    };
    let text = metrics::text(&handles.node, &handles.services(), &workers, &traffic, &others);
    ([(header::CONTENT_TYPE, exposition::CONTENT_TYPE), NO_STORE], text)
}

const NO_STORE: (http::HeaderName, &str) = (header::CACHE_CONTROL, "no-store");

fn answer(status: StatusCode, text: impl Into<String>) -> Response {
    (status, [NO_STORE], text.into()).into_response()
}

/// Why not every service can answer; `None` when every one can. Of one that was scaled to 0, no answer is wanted; and one
/// that may have no worker is started for who asks.
fn unready(services: &[api::Service], stopping: bool) -> Option<String> {
    if stopping {
        return Some("not ready: lethe is stopping\n".into());
    }
    let waiting: Vec<String> = services
        .iter()
        .filter(|service| service.ready == 0 && service.wanted > 0)
        .filter(|service| service.scale.is_none_or(|scale| scale.min > 0))
        .map(|service| format!("{} (0 of {} workers ready)", service.name, service.wanted))
        .collect();
    (!waiting.is_empty()).then(|| format!("not ready: {}\n", waiting.join(", ")))
}
