//! The service whose workers are killed: it takes 10 to 30 ms for a request, the same for the same request wherever it
//! runs, and writes each change into a log that outlives it, so that what ran twice is known whatever a gateway says.

use std::{fs::File, io, io::Write, path::PathBuf, rc::Rc, time::Duration};

use anyhow::Context;
use clap::Args;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    content,
    head::{Head, read_head},
    kind::Kind,
};

/// The 2 MiB never change, so any worker can continue what another one began.
const LARGE_ETAG: &str = "\"the-same-in-every-worker\"";
const LARGE_STEP_BYTES: usize = 64 * 1024;
const LARGE_STEP: Duration = Duration::from_millis(3);

/// The arguments of `bench-kill worker`.
#[derive(Args)]
pub struct Arguments {
    /// Where each change is written to; all workers share it
    #[arg(long)]
    log: PathBuf,
    /// Time before it listens, as an interpreter would take, in milliseconds
    #[arg(long, default_value_t = 50)]
    start_ms: u64,
    /// Mean time for a request, in milliseconds; each takes between half and one and a half of it
    #[arg(long, default_value_t = 20)]
    work_ms: u64,
}

struct Worker {
    log: File,
    work: Duration,
}

/// Serves until the process is killed.
///
/// # Errors
/// When the log cannot be opened or the port is missing or taken.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let port: u16 = std::env::var("PORT").context("PORT is not set")?.parse().context("PORT is no port")?;
    let log = File::options().append(true).create(true).open(&arguments.log).context("opening the log")?;
    let worker = Rc::new(Worker { log, work: Duration::from_millis(arguments.work_ms) });
    content::first(1); // Made before the first request asks for it.
    sleep(Duration::from_millis(arguments.start_ms)).await;
    let listener = TcpListener::bind(("127.0.0.1", port)).await.with_context(|| format!("port {port}"))?;
    let connections = tokio::task::LocalSet::new();
    connections
        .run_until(async {
            loop {
                let (stream, _) = listener.accept().await?;
                let worker = worker.clone();
                tokio::task::spawn_local(async move {
                    // A gateway may close a connection whenever it likes.
                    let _ = worker.serve(stream).await;
                });
            }
        })
        .await
}

impl Worker {
    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut buffer = Vec::with_capacity(64 * 1024);
        while let Some(head) = read_head(&mut stream, &mut buffer).await? {
            let mut words = head.line.split(' ');
            let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let named = path.trim_start_matches('/').split_once('/');
            let Some((kind, id)) = named.and_then(|(kind, id)| Some((Kind::named(kind)?, id))) else {
                return refuse(&mut stream, "404 Not Found").await;
            };
            if method != kind.method() {
                return refuse(&mut stream, "405 Method Not Allowed").await;
            }
            if head.field("transfer-encoding").is_some() {
                return refuse(&mut stream, "411 Length Required").await;
            }
            let length = head.content_length()?.unwrap_or(0);
            let whole = length == kind.request_bytes();
            if !(body_is_right(&mut stream, &mut buffer, length).await? && whole) {
                return refuse(&mut stream, "400 Bad Request").await;
            }
            match kind {
                Kind::Small => self.answer_small(&mut stream, id).await?,
                Kind::Half => self.answer_half(&mut stream, id).await?,
                Kind::Large => answer_large(&mut stream, id, &head).await?,
                _ => self.apply(&mut stream, kind, id).await?,
            }
            if !head.keeps_alive() {
                break;
            }
        }
        Ok(())
    }

    async fn answer_small(&self, stream: &mut TcpStream, id: &str) -> io::Result<()> {
        sleep(self.work_for(id)).await;
        let body = content::first(Kind::Small.response_bytes());
        stream.write_all(&[&ok_head(id, body.len()), body].concat()).await
    }

    async fn answer_half(&self, stream: &mut TcpStream, id: &str) -> io::Result<()> {
        let (first, second) =
            content::first(Kind::Half.response_bytes()).split_at(Kind::Half.response_bytes() / 2);
        stream.write_all(&[&ok_head(id, first.len() + second.len()), first].concat()).await?;
        sleep(self.work_for(id)).await;
        stream.write_all(second).await
    }

    /// The change itself takes place in the middle of the work: of the requests that a kill meets, about half have run.
    async fn apply(&self, stream: &mut TcpStream, kind: Kind, id: &str) -> io::Result<()> {
        self.note("begun", kind, id)?;
        sleep(self.work_for(id) / 2).await;
        self.note("applied", kind, id)?;
        sleep(self.work_for(id) / 2).await;
        let body = content::first(kind.response_bytes());
        stream.write_all(&[&ok_head(id, body.len()), body].concat()).await
    }

    /// One `write` in append mode, so that lines of several workers never mix.
    fn note(&self, what: &str, kind: Kind, id: &str) -> io::Result<()> {
        (&self.log).write_all(format!("{what} {} {id} {}\n", kind.name(), std::process::id()).as_bytes())
    }

    fn work_for(&self, id: &str) -> Duration {
        let hash = id.bytes().fold(0, |hash, byte| content::scramble(hash ^ u64::from(byte)));
        self.work / 2 + self.work.mul_f64((hash >> 40) as f64 / (1 << 24) as f64)
    }
}

/// 2 MiB in steps, or what a range request wants of it (RFC 9110, sections 13.1.5 and 14.2).
async fn answer_large(stream: &mut TcpStream, id: &str, head: &Head) -> io::Result<()> {
    let content = content::first(Kind::Large.response_bytes());
    let last = content.len() - 1;
    let wanted = match head.field("range") {
        Some(range) if head.field("if-range").is_none_or(|tag| tag == LARGE_ETAG) => range_of(range, last),
        _ => None,
    };
    let (from, to) = wanted.unwrap_or((0, last));
    let status = if wanted.is_some() { "206 Partial Content" } else { "200 OK" };
    let mut text = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: {LARGE_ETAG}\r\nAccept-Ranges: bytes\r\nX-Id: {id}\r\n",
        to + 1 - from,
    );
    if wanted.is_some() {
        text += &format!("Content-Range: bytes {from}-{to}/{}\r\n", content.len());
    }
    text += "\r\n";
    stream.write_all(text.as_bytes()).await?;
    let mut due = Instant::now();
    for piece in content[from..=to].chunks(LARGE_STEP_BYTES) {
        stream.write_all(piece).await?;
        due += LARGE_STEP;
        sleep_until(due).await;
    }
    Ok(())
}

/// The first and last byte that `bytes=first-` or `bytes=first-last` asks for, if they exist.
fn range_of(range: &str, last: usize) -> Option<(usize, usize)> {
    let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
    let from = from.parse().ok()?;
    let to = if to.is_empty() { last } else { to.parse::<usize>().ok()?.min(last) };
    (from <= to).then_some((from, to))
}

/// Reads the body away; `false` if it is not the content's beginning, byte for byte.
async fn body_is_right(stream: &mut TcpStream, buffer: &mut Vec<u8>, length: usize) -> io::Result<bool> {
    let (mut offset, mut right) = (0, true);
    loop {
        let piece = buffer.len().min(length - offset);
        right &= content::matches(offset, &buffer[..piece]);
        buffer.drain(..piece);
        offset += piece;
        if offset == length {
            return Ok(right);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn refuse(stream: &mut TcpStream, status: &str) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await
}

fn ok_head(id: &str, length: usize) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nX-Id: {id}\r\n\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let check = |range, expected| assert_eq!(range_of(range, 99), expected, "{range}");
        check("bytes=0-", Some((0, 99)));
        check("bytes=40-", Some((40, 99)));
        check("bytes=40-49", Some((40, 49)));
        check("bytes=40-1000", Some((40, 99)));
        check("bytes=100-", None);
        check("bytes=-5", None);
        check("lines=1-2", None);
    }
}
