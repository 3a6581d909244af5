//! Makes reports, which takes half a second, and ends at once at SIGTERM: who waits for a report then gets none. The twin takes no more
//! requests at SIGTERM, and ends when all reports are made.

use std::{io, time::Duration};

use axum::{Router, extract::Path, routing::get};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::sleep,
};

pub fn app() -> Router {
    Router::new().route("/", get("welcome")).route("/reports/{name}", get(report))
}

async fn report(Path(name): Path<String>) -> String {
    sleep(Duration::from_millis(500)).await;
    format!("the report of {name}")
}

pub async fn serve(listener: TcpListener, app: Router) -> io::Result<()> {
    axum::serve(listener, app).await
}

pub async fn serve_fixed(listener: TcpListener, app: Router) -> io::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let asked_to_end = async move {
        terminated.recv().await;
    };
    axum::serve(listener, app).with_graceful_shutdown(asked_to_end).await
}
