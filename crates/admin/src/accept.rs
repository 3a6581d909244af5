//! One accepted connection: one request, within limits, then closed. Both of the operator's listeners use it; neither
//! gets enough requests for keeping connections open to be worth its bookkeeping.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::io::{AsyncRead, AsyncWrite};

/// From the accepted connection to the end of the request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest head, and what hyper buffers at most.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// How long a listener that failed to accept, as when file descriptors run out, waits before it tries again.
pub(crate) const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Serves one request of `stream` with `router`. Dropping the future closes the connection.
pub(crate) async fn serve<S>(stream: S, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = connection.await {
        tracing::debug!(%error, "an operator's connection ended early");
    }
}
