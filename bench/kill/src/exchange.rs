//! One request and what became of it, on a connection that is kept. Nothing is ever sent a second time.

use std::{io, pin::pin, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    content,
    head::{Head, read_head},
    kind::Kind,
};

/// A request that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered, whole and right.
    Answered,
    /// The gateway said that the request may have run, and did not answer for the worker (`Lethe-Outcome: unknown`).
    Unknown,
    /// Another status than 200.
    Status(u16),
    /// The response ended half-way.
    Cut,
    /// The connection was closed without a byte of a response; a browser sends such a request again.
    Silent,
    /// Whole, but not the answer to this request.
    Wrong,
    /// Nothing within [`PATIENCE`].
    Hung,
    /// The gateway took no connection.
    Refused,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Outcome::Answered => formatter.write_str("answered"),
            Outcome::Unknown => formatter.write_str("unknown"),
            Outcome::Status(status) => write!(formatter, "status-{status}"),
            Outcome::Cut => formatter.write_str("cut"),
            Outcome::Silent => formatter.write_str("silent"),
            Outcome::Wrong => formatter.write_str("wrong"),
            Outcome::Hung => formatter.write_str("hung"),
            Outcome::Refused => formatter.write_str("refused"),
        }
    }
}

/// Sends one request and reads the response. The flag says whether the connection may be used again.
pub async fn exchange(stream: &mut TcpStream, kind: Kind, id: &str) -> (Outcome, bool) {
    let (mut reader, mut writer) = stream.split();
    let run = async {
        let mut sending = pin!(send(&mut writer, kind, id));
        let mut receiving = pin!(receive(&mut reader, kind, id));
        tokio::select! {
            biased;
            // A connection that takes no more bytes may still have an answer to give.
            sent = &mut sending => {
                let (outcome, reusable) = receiving.await;
                (outcome, reusable && sent.is_ok())
            }
            // An answer before the request was sent whole is an answer, but the connection is of no more use.
            (outcome, _) = &mut receiving => (outcome, false),
        }
    };
    timeout(PATIENCE, run).await.unwrap_or((Outcome::Hung, false))
}

async fn send(writer: &mut (impl AsyncWrite + Unpin), kind: Kind, id: &str) -> io::Result<()> {
    let (method, name, body) = (kind.method(), kind.name(), content::first(kind.request_bytes()));
    let mut head = format!("{method} /{name}/{id} HTTP/1.1\r\nHost: bench\r\n");
    if kind.writes() {
        head += &format!("Content-Type: application/octet-stream\r\nContent-Length: {}\r\n", body.len());
    }
    if kind.has_key() {
        head += &format!("Idempotency-Key: \"{id}\"\r\n");
    }
    head += "\r\n";
    writer.write_all(&[head.as_bytes(), body].concat()).await
}

async fn receive(reader: &mut (impl AsyncRead + Unpin), kind: Kind, id: &str) -> (Outcome, bool) {
    let mut buffer = Vec::with_capacity(64 * 1024);
    let head = loop {
        match read_head(reader, &mut buffer).await {
            Ok(Some(head)) if head.line.starts_with("HTTP/1.1 1") => {}
            Ok(Some(head)) => break head,
            Ok(None) => return (Outcome::Silent, false),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return (Outcome::Wrong, false),
            Err(_) if buffer.is_empty() => return (Outcome::Silent, false),
            Err(_) => return (Outcome::Cut, false),
        }
    };
    let Some(status) = head.line.split(' ').nth(1).and_then(|text| text.parse::<u16>().ok()) else {
        return (Outcome::Wrong, false);
    };
    // All responses here have a length, in every gateway; one that has none is of no use to this measurement.
    let Ok(Some(length)) = head.content_length() else {
        return (if status == 200 { Outcome::Wrong } else { failure(status, &head) }, false);
    };
    let body = receive_body(reader, buffer, length).await;
    let outcome = match (status, body) {
        (200, None) => Outcome::Cut,
        (200, Some(true)) if length == kind.response_bytes() && head.field("x-id") == Some(id) => {
            Outcome::Answered
        }
        (200, Some(_)) => Outcome::Wrong,
        _ => failure(status, &head),
    };
    (outcome, body.is_some() && head.keeps_alive())
}

fn failure(status: u16, head: &Head) -> Outcome {
    match head.field("lethe-outcome") {
        Some("unknown") => Outcome::Unknown,
        _ => Outcome::Status(status),
    }
}

/// Whether the body is right; `None` if it ends early.
async fn receive_body(
    reader: &mut (impl AsyncRead + Unpin),
    mut buffer: Vec<u8>,
    length: usize,
) -> Option<bool> {
    let (mut offset, mut right) = (0, true);
    loop {
        let piece = buffer.len().min(length - offset);
        right &= content::matches(offset, &buffer[..piece]);
        offset += piece;
        if offset == length {
            // Nothing was asked for that could come after it.
            return Some(right && piece == buffer.len());
        }
        buffer.clear();
        if reader.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// What the client makes of a gateway that reads a whole request, answers in these words and closes.
    async fn check(kind: Kind, answer: &[&[u8]], expected: (Outcome, bool)) {
        let answer = answer.concat();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gateway = async {
            let mut stream = listener.accept().await.unwrap().0;
            read_head(&mut stream, &mut Vec::new()).await.unwrap().unwrap();
            stream.write_all(&answer).await.unwrap();
        };
        let client = async {
            let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            exchange(&mut stream, kind, "7").await
        };
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(80)]).into_owned();
        assert_eq!(tokio::join!(gateway, client).1, expected, "{shown:?}");
    }

    #[tokio::test]
    async fn outcomes() {
        const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 512\r\nX-Id: 7\r\n\r\n";
        let body = content::first(512);
        let small = Kind::Small;
        check(small, &[OK, body], (Outcome::Answered, true)).await;
        check(small, &[b"HTTP/1.1 103 Early Hints\r\n\r\n", OK, body], (Outcome::Answered, true)).await;
        let closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 512\r\nX-Id: 7\r\n\r\n";
        check(small, &[closing, body], (Outcome::Answered, false)).await;

        check(small, &[], (Outcome::Silent, false)).await;
        check(small, &[b"HTTP/1.1 20"], (Outcome::Cut, false)).await;
        check(small, &[OK, &body[..511]], (Outcome::Cut, false)).await;

        let of_another = b"HTTP/1.1 200 OK\r\nContent-Length: 512\r\nX-Id: 8\r\n\r\n";
        check(small, &[of_another, body], (Outcome::Wrong, true)).await;
        check(small, &[OK, &content::first(513)[1..]], (Outcome::Wrong, true)).await;
        check(Kind::Half, &[OK, body], (Outcome::Wrong, true)).await;
        check(small, &[b"\r\n\r\n"], (Outcome::Wrong, false)).await;

        let bad_gateway = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n";
        check(small, &[bad_gateway], (Outcome::Status(502), true)).await;
        let unknown = b"HTTP/1.1 502 Bad Gateway\r\nLethe-Outcome: unknown\r\nContent-Length: 0\r\n\r\n";
        check(small, &[unknown], (Outcome::Unknown, true)).await;
    }
}
