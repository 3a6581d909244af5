//! A worker that speaks HTTP/2 alone: this test program itself, run again by `lethe`.

use std::net::Ipv4Addr;

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{Request, Response};
use tokio::net::TcpListener;

/// What it answers.
pub const ANSWER: &str = "by HTTP/2";

/// How `lethe` starts it, as a `command`.
pub fn command() -> anyhow::Result<String> {
    let program = std::env::current_exe()?;
    Ok(format!("[{program:?}, '--ignored', '--exact', 'h2c_worker::worker', '--nocapture']"))
}

/// Not a test: what `lethe` runs as a worker.
#[tokio::test]
#[ignore = "is a worker, and needs lethe"]
async fn worker() -> anyhow::Result<()> {
    let Ok(port) = std::env::var("PORT") else { return Ok(()) };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.parse()?)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            // Who asks whether the port is open says nothing.
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(answer(request, respond));
            }
        });
    }
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    let mut body = request.into_body();
    while let Some(piece) = body.data().await {
        body.flow_control().release_capacity(piece?.len())?;
    }
    let response = Response::builder().header("content-length", ANSWER.len()).body(());
    let Ok(response) = response else { return Ok(()) };
    respond.send_response(response, false)?.send_data(ANSWER.into(), true)
}
