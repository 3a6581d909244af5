//! `idempotency` of a route in front of a service in Python that has no library and knows nothing of keys: what is asked for is
//! done once, whoever is killed, and whoever comes again gets the first answer, or the truth that nobody knows it.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::lethe::{Lethe, Place, kill_9};

/// Each order is a line in a file. At the moment that the path names, it waits to be killed, once.
const APP: &str = r#"
import os, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def wait(self, moment):
        if self.path.endswith("/" + moment) and not os.path.exists(moment):
            open(moment, "w").close()
            print("at", moment, "kill", os.getpid(), "now", flush=True)
            time.sleep(3600)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.wait("before")
        with open("orders", "a") as orders:
            orders.write(self.path + " " + body.decode() + "\n")
        self.wait("after")
        reply = ("done by %d" % os.getpid()).encode()
        self.send_response(201)
        self.send_header("Content-Length", str(len(reply)))
        self.send_header("Set-Cookie", "secret=1")
        self.send_header("X-Order", "7")
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *args):
        pass

ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

const FILE: &str = r#"
[services.app]
command = ["python3", "app.py"]
instances = 2
[[routes]]
path = "/orders"
idempotency = { required = true, kept = "1h", by = "cookie:sid" }
[[routes]]
path = "/safe"
idempotent = true
idempotency = "optional"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_without_a_library_does_what_is_asked_once() -> anyhow::Result<()> {
    let place = Place::new()?;
    std::fs::write(place.path().join("app.py"), APP)?;
    std::fs::write(place.path().join("lethe.toml"), FILE)?;
    let lethe = up(&place).await?;

    // Nobody is killed.
    let first = ask(lethe.listen, "/orders/calm", "ada", "k1").await?;
    ensure!(first.starts_with("HTTP/1.1 201 ") && first.contains("done by "), "{first}");
    ensure!(first.contains("secret=1") && !first.contains("idempotent-replayed"), "{first}");
    same(&first, &ask(lethe.listen, "/orders/calm", "ada", "k1").await?)?;
    let bob = ask(lethe.listen, "/orders/calm", "bob", "k1").await?;
    ensure!(!bob.contains("idempotent-replayed"), "the answer of another caller: {bob}");
    let other = ask(lethe.listen, "/orders/other", "ada", "k1").await?;
    ensure!(other.starts_with("HTTP/1.1 422 ") && other.contains("idempotency-mismatch"), "{other}");
    let keyless = send(lethe.listen, "/orders/calm", "cookie: sid=ada\r\n").await?;
    ensure!(keyless.starts_with("HTTP/1.1 400 ") && keyless.contains("idempotency-key-missing"), "{keyless}");

    // Its worker is killed, before and after it was done: nobody can know which.
    let mut lost = Vec::new();
    for moment in ["before", "after"] {
        lethe.ready(2).await?;
        let path = if moment == "before" { "/orders/before" } else { "/orders/after" };
        let asked = tokio::spawn(ask(lethe.listen, path, "ada", moment));
        let victim = victim(&lethe, moment).await?;
        let meanwhile = ask(lethe.listen, path, "ada", moment).await?;
        ensure!(
            meanwhile.starts_with("HTTP/1.1 409 ") && meanwhile.contains("retry-after: 1"),
            "{meanwhile}"
        );
        kill_9(victim)?;
        let reply = asked.await??;
        ensure!(reply.starts_with("HTTP/1.1 502 ") && reply.contains("lethe-outcome: unknown"), "{reply}");
        same(&reply, &ask(lethe.listen, path, "ada", moment).await?)?;
        lost.push((path, moment, reply));
    }
    ensure!(orders(&place)? == ["/orders/after", "/orders/calm", "/orders/calm"], "{:?}", orders(&place)?);

    // Where it may be done again, it is, at once: the client sees nothing of it.
    std::fs::remove_file(place.path().join("after"))?;
    lethe.ready(2).await?;
    let asked = tokio::spawn(ask(lethe.listen, "/safe/after", "ada", "safe"));
    kill_9(again(&lethe, "after").await?)?;
    let safe = asked.await??;
    ensure!(safe.starts_with("HTTP/1.1 201 "), "{safe}");
    same(&safe, &ask(lethe.listen, "/safe/after", "ada", "safe").await?)?;

    // `lethe` is killed with a request in a worker, after it was done.
    std::fs::remove_file(place.path().join("after"))?;
    lethe.ready(2).await?;
    let asked = tokio::spawn(ask(lethe.listen, "/orders/after", "ada", "gateway"));
    lethe.until("it was done", async || place.path().join("after").exists().then_some(())).await?;
    lethe.signal(Signal::KILL)?;
    lethe.ended().await?;
    ensure!(asked.await?.is_ok_and(|reply| reply.is_empty()), "nobody was there to answer");

    // All that was answered is known, and what was not is never done again.
    let lethe = up(&place).await?;
    let before = orders(&place)?.len();
    same(&first, &ask(lethe.listen, "/orders/calm", "ada", "k1").await?)?;
    same(&safe, &ask(lethe.listen, "/safe/after", "ada", "safe").await?)?;
    for (path, key, reply) in &lost {
        same(reply, &ask(lethe.listen, path, "ada", key).await?)?;
    }
    let unknown = settled(&lethe, "/orders/after", "gateway").await?;
    ensure!(unknown.starts_with("HTTP/1.1 502 ") && unknown.contains("lethe-outcome: unknown"), "{unknown}");
    ensure!(unknown.contains("idempotency-unknown"), "{unknown}");
    ensure!(orders(&place)?.len() == before, "{:?}", orders(&place)?);
    lethe.down().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_kept_is_not_done() -> anyhow::Result<()> {
    let place = Place::new()?;
    // A port that nobody listens on.
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let file =
        format!("[state]\nidempotency = \"redis://:geheim@{nowhere}/?connect_timeout_ms=500\"\n{FILE}");
    std::fs::write(place.path().join("app.py"), APP)?;
    std::fs::write(place.path().join("lethe.toml"), file)?;
    let lethe = up(&place).await?;
    let said = lethe
        .until("it says which engine is away", async || {
            let text = lethe.output.text();
            text.lines()
                .find(|line| line.contains("the state engine redis cannot be used"))
                .map(str::to_owned)
        })
        .await?;
    ensure!(said.contains(&nowhere.to_string()) && said.contains("kept there (idempotency)"), "{said}");
    ensure!(!said.contains("geheim"), "{said}");
    for _ in 0..3 {
        let reply = ask(lethe.listen, "/orders/calm", "ada", "k1").await?;
        ensure!(reply.starts_with("HTTP/1.1 503 ") && reply.contains("retry-after: 1"), "{reply}");
        ensure!(!reply.contains("lethe-outcome"), "nothing was done: {reply}");
    }
    let keyless = send(lethe.listen, "/safe/calm", "").await?;
    ensure!(keyless.starts_with("HTTP/1.1 201 "), "{keyless}");
    ensure!(orders(&place)? == ["/safe/calm"], "{:?}", orders(&place)?);
    lethe.down().await
}

async fn up(place: &Place) -> anyhow::Result<Lethe> {
    let lethe = place.up(&[&place.path().display().to_string()]).await?;
    lethe.ready(2).await?;
    Ok(lethe)
}

/// The orders that were done, by path and in order.
fn orders(place: &Place) -> anyhow::Result<Vec<String>> {
    let lines = std::fs::read_to_string(place.path().join("orders"))?;
    let mut paths: Vec<String> =
        lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    paths.sort();
    Ok(paths)
}

/// The worker that waits to be killed.
async fn victim(lethe: &Lethe, moment: &str) -> anyhow::Result<u32> {
    nth_victim(lethe, moment, 0).await
}

/// The one that waits at the same moment later.
async fn again(lethe: &Lethe, moment: &str) -> anyhow::Result<u32> {
    nth_victim(lethe, moment, 1).await
}

async fn nth_victim(lethe: &Lethe, moment: &str, nth: usize) -> anyhow::Result<u32> {
    let start = format!("at {moment} kill ");
    let number = |text: String| text.split(&start).nth(nth + 1)?.split(' ').next()?.parse().ok();
    lethe.until(&format!("a worker is at {moment}"), async || number(lethe.output.text())).await
}

/// Whether a later answer is the first one again.
fn same(first: &str, later: &str) -> anyhow::Result<()> {
    let part = |reply: &str| {
        let (head, body) = reply.split_once("\r\n\r\n").context("a whole answer")?;
        let order = head
            .lines()
            .find(|line| line.to_ascii_lowercase().starts_with("x-order"))
            .map(str::to_ascii_lowercase);
        anyhow::Ok((head.lines().next().map(str::to_owned), order, body.to_owned()))
    };
    ensure!(part(first)? == part(later)?, "{first}\n--- is not ---\n{later}");
    ensure!(later.contains("idempotent-replayed: true") && !later.contains("secret=1"), "{later}");
    Ok(())
}

/// What a key tells when the claim of the `lethe` that was killed is over.
async fn settled(lethe: &Lethe, path: &'static str, key: &'static str) -> anyhow::Result<String> {
    for _ in 0..600 {
        let reply = ask(lethe.listen, path, "ada", key).await?;
        if !reply.starts_with("HTTP/1.1 409 ") {
            return Ok(reply);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("it runs for ever")
}

async fn ask(
    listen: SocketAddr,
    path: &'static str,
    who: &'static str,
    key: &'static str,
) -> anyhow::Result<String> {
    send(listen, path, &format!("cookie: sid={who}\r\nidempotency-key: \"{key}\"\r\n")).await
}

/// Sends a request on a connection of its own, and reads its answer to the end.
async fn send(listen: SocketAddr, path: &str, fields: &str) -> anyhow::Result<String> {
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{fields}content-length: 5\r\n\r\na mug"
    );
    let mut stream = TcpStream::connect(listen).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut reply = Vec::new();
    // One that is killed may reset it.
    let _ = stream.read_to_end(&mut reply).await;
    Ok(String::from_utf8(reply)?)
}
