//! Limits of routes in front of a service in Python, which counts what reaches it: what is refused does not, and what was
//! counted outlives workers and `lethe`.

use std::net::SocketAddr;

use anyhow::ensure;
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::lethe::{Lethe, Place, kill_9};

/// Each request that reaches it is a line in a file.
const APP: &str = r#"
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with open("reached", "a") as reached:
            reached.write(self.headers.get("X-Api-Key", "-") + "\n")
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *args):
        pass

HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

const FILE: &str = r#"
[services.app]
command = ["python3", "app.py"]
[[routes]]
path = "/"
[[routes]]
path = "/key"
limit = { rate = "3/day", by = "header:X-Api-Key", name = "key", timeout = "60s" }
[[routes]]
path = "/client"
limit = { rate = "2/day", timeout = "60s" }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_too_early_never_reaches_a_worker() -> anyhow::Result<()> {
    let place = Place::new()?;
    std::fs::write(place.path().join("app.py"), APP)?;
    std::fs::write(place.path().join("lethe.toml"), FILE)?;
    let lethe = up(&place).await?;
    // Many at once, so that both cores and both workers have their part.
    let clients = (0..12).map(|_| tokio::spawn(post(lethe.listen, "/key", "x-api-key: one\r\n")));
    let mut passed = 0;
    for client in clients.collect::<Vec<_>>() {
        let reply = client.await??;
        let is_refused = reply.starts_with("HTTP/1.1 429 ");
        ensure!(is_refused || reply.starts_with("HTTP/1.1 200 "), "{reply}");
        ensure!(reply.contains("ratelimit-policy: \"key\";q=3;w=86400\r\n"), "{reply}");
        ensure!(reply.contains("retry-after: ") == is_refused, "{reply}");
        passed += usize::from(!is_refused);
    }
    ensure!(passed == 3, "{passed} of 12 have passed");
    ensure!(post(lethe.listen, "/key", "x-api-key: two\r\n").await?.starts_with("HTTP/1.1 200 "));
    let reached = std::fs::read_to_string(place.path().join("reached"))?;
    ensure!(reached == "one\none\none\ntwo\n", "{reached}");
    for worker in lethe.workers().await? {
        kill_9(worker.pid.unwrap_or_default())?;
    }
    lethe.signal(Signal::KILL)?;
    lethe.ended().await?;

    // Nobody has forgotten anything.
    let lethe = up(&place).await?;
    let reply = post(lethe.listen, "/key", "x-api-key: one\r\n").await?;
    ensure!(reply.starts_with("HTTP/1.1 429 ") && reply.contains("application/problem+json"), "{reply}");
    for expected in ["200", "200", "429"] {
        let reply = post(lethe.listen, "/client", "x-forwarded-for: 192.0.2.7\r\n").await?;
        ensure!(reply.starts_with(&format!("HTTP/1.1 {expected} ")), "{reply}");
    }
    // A limit that is gone from the file is none any more.
    std::fs::write(
        place.path().join("lethe.toml"),
        FILE.replace("limit = { rate = \"2/day\", timeout = \"60s\" }", ""),
    )?;
    let reloaded = lethe.client.reload().await?;
    ensure!(reloaded.changes == ["route /client: changed"], "{reloaded:?}");
    let reply = post(lethe.listen, "/client", "").await?;
    ensure!(reply.starts_with("HTTP/1.1 200 ") && !reply.contains("ratelimit"), "{reply}");
    lethe.down().await
}

async fn up(place: &Place) -> anyhow::Result<Lethe> {
    let lethe = place.up(&[&place.path().display().to_string()]).await?;
    lethe.ready(2).await?;
    Ok(lethe)
}

/// Sends a request on a connection of its own, and reads its answer to the end.
async fn post(listen: SocketAddr, path: &'static str, fields: &'static str) -> anyhow::Result<String> {
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{fields}content-length: 5\r\n\r\nhello"
    );
    let mut stream = TcpStream::connect(listen).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    Ok(reply)
}
