//! A client that sees how a response ends: whole, cut half-way, or without a byte. It speaks HTTP/1.1 by hand and HTTP/2,
//! never tries again by itself, and can stop in the middle of its body until something has happened.

use std::{net::SocketAddr, pin::pin};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use futures_util::future::{Either, select};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, tcp},
};

use crate::mortal::{BODY_BYTES, field};

/// Bytes of a chunk of a request's body, no multiple of which is anything else.
const CHUNK_BYTES: usize = 9973;

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http {
    One,
    Two,
}

/// A request.
pub struct Call<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
    /// The body's framing does not tell its length: it comes in chunks, over HTTP/2 as it is.
    pub is_open: bool,
    /// How much of the body is sent before the pause.
    pub before_pause: usize,
}

impl<'a> Call<'a> {
    /// With nothing more to say.
    pub fn get(path: &'a str) -> Self {
        Self { method: "GET", path, headers: &[], body: b"", is_open: false, before_pause: 0 }
    }

    /// The fields that say how long the body is.
    fn framing(&self, http: Http) -> Vec<(&'static str, String)> {
        let bytes = self.body.len().to_string();
        match http {
            Http::One if self.is_open => vec![("transfer-encoding", "chunked".into()), (BODY_BYTES, bytes)],
            Http::Two if self.is_open => vec![(BODY_BYTES, bytes)],
            _ if self.body.is_empty() => Vec::new(),
            _ => vec![("content-length", bytes)],
        }
    }

    /// A part of the body as HTTP/1.1 has it, and its end after the last one.
    fn part(&self, part: &[u8], is_last: bool) -> Vec<u8> {
        if !self.is_open {
            return part.to_vec();
        }
        let mut out = Vec::new();
        for chunk in part.chunks(CHUNK_BYTES) {
            out.extend(format!("{:x}\r\n", chunk.len()).bytes());
            out.extend_from_slice(chunk);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(if is_last { b"0\r\n\r\n" } else { b"" });
        out
    }
}

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is whole, and the connection goes on.
    Whole,
    /// A part of it came. A 101 always ends so.
    Cut,
    /// The connection, or the stream, was closed without a byte.
    Silent,
}

/// What came back.
pub struct Reply {
    pub status: u16,
    pub outcome: Option<String>,
    pub content_type: Option<String>,
    pub body: Vec<u8>,
    pub end: End,
}

impl Reply {
    const SILENCE: Self =
        Self { status: 0, outcome: None, content_type: None, body: Vec::new(), end: End::Silent };

    /// The request after one whose worker was lost: says who has answered if it was not a worker.
    fn ensure_well(&self) -> anyhow::Result<()> {
        let Self { status, content_type, body, .. } = self;
        let text = String::from_utf8_lossy(body);
        ensure!(*status == 200, "the next request on the connection: {status}, {content_type:?}: {text}");
        Ok(())
    }
}

/// Sends a request on a new connection, waits for `pause` in the middle of its body, and reads the response. After a whole
/// response the same connection must carry another request to `next`.
pub async fn call(
    address: SocketAddr,
    http: Http,
    call: &Call<'_>,
    pause: impl Future<Output = anyhow::Result<()>>,
    next: &str,
) -> anyhow::Result<Reply> {
    let stream = TcpStream::connect(address).await.context("cannot connect")?;
    stream.set_nodelay(true)?;
    match http {
        Http::One => {
            let mut plain = Plain::new(stream);
            let reply = plain.call(call, pause).await?;
            if reply.end == End::Whole {
                let call = Call::get(next);
                let next = plain.call(&call, async { Ok(()) }).await?;
                next.ensure_well()?;
            }
            Ok(reply)
        }
        Http::Two => {
            let (mut sender, connection) = h2::client::handshake(stream).await?;
            let driver = tokio::spawn(connection);
            let reply = multiplexed(&mut sender, call, pause).await?;
            let call = Call::get(next);
            // A stream that was cut leaves its connection as it is.
            let next = multiplexed(&mut sender, &call, async { Ok(()) }).await?;
            next.ensure_well()?;
            driver.abort();
            Ok(reply)
        }
    }
}

/// A connection that speaks HTTP/1.1.
struct Plain {
    input: Input,
    write: tcp::OwnedWriteHalf,
}

impl Plain {
    fn new(stream: TcpStream) -> Self {
        let (read, write) = stream.into_split();
        Self { input: Input { read, bytes: Vec::new() }, write }
    }

    async fn call(
        &mut self,
        call: &Call<'_>,
        pause: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<Reply> {
        let Call { method, path, body, before_pause, .. } = *call;
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: rows\r\n");
        for (name, value) in call.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        for (name, value) in call.framing(Http::One) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let write = &mut self.write;
        let sending = async {
            let (first, second) = body.split_at(before_pause);
            let (first, second) = (call.part(first, false), call.part(second, true));
            // What cannot be sent may have been answered: the reading side tells.
            let _ = write.write_all(&[head.as_bytes(), &first].concat()).await;
            pause.await?;
            let _ = write.write_all(&second).await;
            anyhow::Ok(())
        };
        let ((), mut reply) = tokio::try_join!(sending, self.input.reply(method == "HEAD"))?;
        if reply.status == 101 {
            self.write.write_all(b"ping").await?;
            while self.input.fill().await {}
            reply.body = std::mem::take(&mut self.input.bytes);
        }
        Ok(reply)
    }
}

/// What comes back on an HTTP/1.1 connection.
struct Input {
    read: tcp::OwnedReadHalf,
    bytes: Vec<u8>,
}

impl Input {
    /// Reads more; false at the end, however it came.
    async fn fill(&mut self) -> bool {
        matches!(self.read.read_buf(&mut self.bytes).await, Ok(count) if count > 0)
    }

    /// Everything up to and with the first `end`; nothing if the connection ends before.
    async fn until(&mut self, end: &str) -> Option<String> {
        loop {
            let found = self.bytes.windows(end.len()).position(|window| window == end.as_bytes());
            if let Some(start) = found {
                let rest = self.bytes.split_off(start + end.len());
                let text = std::mem::replace(&mut self.bytes, rest);
                return Some(String::from_utf8_lossy(&text).into_owned());
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// Moves so many bytes to `into`; false if fewer came.
    async fn exactly(&mut self, count: usize, into: &mut Vec<u8>) -> bool {
        while self.bytes.len() < count && self.fill().await {}
        let is_whole = self.bytes.len() >= count;
        into.extend(self.bytes.drain(..count.min(self.bytes.len())));
        is_whole
    }

    async fn reply(&mut self, is_head: bool) -> anyhow::Result<Reply> {
        let head = loop {
            match self.until("\r\n\r\n").await {
                Some(head) if head.starts_with("HTTP/1.1 1") && !head.starts_with("HTTP/1.1 101") => {}
                Some(head) => break head,
                None if self.bytes.is_empty() => return Ok(Reply::SILENCE),
                None => return Ok(Reply { end: End::Cut, ..Reply::SILENCE }),
            }
        };
        let status = head.get(9..12).and_then(|status| status.parse().ok()).context("no status")?;
        let mut body = Vec::new();
        let is_whole = if is_head {
            true
        } else if status == 101 {
            false
        } else if let Some(length) = field(&head, "content-length") {
            self.exactly(length.parse()?, &mut body).await
        } else if field(&head, "transfer-encoding") == Some("chunked") {
            self.chunks(&mut body).await?
        } else {
            bail!("a response without framing: {head}");
        };
        let end = if is_whole { End::Whole } else { End::Cut };
        let text = |name| field(&head, name).map(str::to_owned);
        Ok(Reply { status, outcome: text("lethe-outcome"), content_type: text("content-type"), body, end })
    }

    /// A chunked body without trailers, decoded; false if it was cut.
    async fn chunks(&mut self, body: &mut Vec<u8>) -> anyhow::Result<bool> {
        loop {
            let Some(line) = self.until("\r\n").await else { return Ok(false) };
            let length = usize::from_str_radix(line.trim_end(), 16).context("a bad chunk")?;
            if !self.exactly(length, body).await {
                return Ok(false);
            }
            let mut end = Vec::new();
            if !self.exactly(2, &mut end).await {
                return Ok(false);
            }
            ensure!(end == b"\r\n", "a chunk that does not end");
            if length == 0 {
                return Ok(true);
            }
        }
    }
}

/// One request on an HTTP/2 connection.
async fn multiplexed(
    sender: &mut h2::client::SendRequest<Bytes>,
    call: &Call<'_>,
    pause: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Reply> {
    let mut request = http::Request::builder().method(call.method).uri(format!("http://rows{}", call.path));
    for (name, value) in call.headers {
        request = request.header(*name, *value);
    }
    for (name, value) in call.framing(Http::Two) {
        request = request.header(name, value);
    }
    std::future::poll_fn(|cx| sender.poll_ready(cx)).await?;
    let (response, mut stream) = sender.send_request(request.body(())?, call.body.is_empty())?;
    let sending = async {
        let (first, second) = call.body.split_at(call.before_pause);
        let _ = send(&mut stream, first, false).await;
        pause.await?;
        if !call.body.is_empty() {
            let _ = send(&mut stream, second, true).await;
        }
        anyhow::Ok(())
    };
    // A server may answer early, and take no more of the body.
    match select(pin!(received(response)), pin!(sending)).await {
        Either::Left((reply, _)) => reply,
        Either::Right((sent, receiving)) => {
            sent?;
            receiving.await
        }
    }
}

async fn send(stream: &mut h2::SendStream<Bytes>, data: &[u8], is_last: bool) -> Result<(), h2::Error> {
    let mut data = Bytes::copy_from_slice(data);
    if data.is_empty() && is_last {
        return stream.send_data(data, true);
    }
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let Some(room) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { return Ok(()) };
        let piece = data.split_to(room?.min(data.len()));
        stream.send_data(piece, is_last && data.is_empty())?;
    }
    Ok(())
}

async fn received(response: h2::client::ResponseFuture) -> anyhow::Result<Reply> {
    let (head, mut stream) = match response.await {
        Ok(response) => response.into_parts(),
        Err(error) if error.is_reset() => return Ok(Reply::SILENCE),
        Err(error) => return Err(error.into()),
    };
    let (mut body, mut end) = (Vec::new(), End::Whole);
    while let Some(data) = stream.data().await {
        match data {
            Ok(data) => {
                body.extend_from_slice(&data);
                stream.flow_control().release_capacity(data.len())?;
            }
            Err(error) if error.is_reset() && error.reason() != Some(h2::Reason::NO_ERROR) => {
                end = End::Cut;
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let text = |name| head.headers.get(name).and_then(|value| Some(value.to_str().ok()?.to_owned()));
    let (outcome, content_type) = (text("lethe-outcome"), text("content-type"));
    Ok(Reply { status: head.status.as_u16(), outcome, content_type, body, end })
}
