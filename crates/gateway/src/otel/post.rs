//! One POST over HTTP/1.1, as a thread that may block sends it: on a connection of its own, within a time, and with
//! an answer of bounded size.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

/// Most of an answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// What `Retry-After` says, if it says seconds.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Vec<u8>,
}

/// Sends `body` to `path` at `authority` (`host:port`) with these header fields, which are valid ones.
///
/// # Errors
/// Those of the connection; [`ErrorKind::TimedOut`] or [`ErrorKind::WouldBlock`] when the time is over;
/// [`ErrorKind::InvalidData`] if the answer is not HTTP.
pub(crate) fn post(
    authority: &str,
    path: &str,
    headers: &[(String, String)],
    body: &[u8],
    timeout: Duration,
) -> io::Result<Answer> {
    let deadline = Instant::now() + timeout;
    let mut stream = connect(authority, deadline)?;
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: OTel-OTLP-Exporter-Lethe/{}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n",
        env!("CARGO_PKG_VERSION"),
        body.len()
    );
    headers.iter().for_each(|(name, value)| request.extend([name, ": ", value, "\r\n"]));
    request.push_str("\r\n");
    for mut part in [request.as_bytes(), body] {
        while !part.is_empty() {
            stream.set_write_timeout(Some(left(deadline)?))?;
            match stream.write(part) {
                Ok(bytes) => part = &part[bytes..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // It may have answered early and closed.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
                Err(error) => return Err(error),
            }
        }
    }
    receive(&mut stream, deadline)
}

fn connect(authority: &str, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = ErrorKind::NotFound.into();
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn receive(stream: &mut TcpStream, deadline: Instant) -> io::Result<Answer> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        let ended = match stream.read(&mut piece) {
            Ok(0) => true,
            Ok(count) => {
                bytes.extend_from_slice(&piece[..count]);
                bytes.len() >= ANSWER_BYTES_MAX
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        match read(&bytes, ended) {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) if !ended => {}
            _ => return Err(ErrorKind::InvalidData.into()),
        }
    }
}

/// Not an answer in HTTP/1.1.
#[derive(Debug, PartialEq, Eq)]
struct Garbled;

/// The answer in what came so far; `None` if there must be more. A body whose length is not told ends with the
/// connection.
fn read(mut bytes: &[u8], ended: bool) -> Result<Option<Answer>, Garbled> {
    loop {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        let head = std::str::from_utf8(&bytes[..end]).map_err(|_| Garbled)?;
        let body = &bytes[end + 4..];
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1."));
        let status = status.and_then(|line| line.get(2..5)?.parse::<u16>().ok()).ok_or(Garbled)?;
        if status < 200 {
            bytes = body;
            continue;
        }
        let fields = lines.filter_map(|line| line.split_once(':'));
        let (mut length, mut retry_after, mut is_chunked) = (None, None, false);
        for (name, value) in fields {
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = Some(value.parse::<usize>().map_err(|_| Garbled)?),
                "transfer-encoding" => is_chunked = true,
                "retry-after" => retry_after = value.parse().ok().map(Duration::from_secs),
                _ => {}
            }
        }
        let body = match length {
            _ if is_chunked => chunks(body),
            Some(length) => body.get(..length).map(<[u8]>::to_vec),
            None => None,
        };
        let body = body.or_else(|| ended.then(Vec::new));
        return Ok(body.map(|body| Answer { status, retry_after, body }));
    }
}

/// A chunked body (RFC 9112, section 7.1), if it is whole.
fn chunks(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[..end]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        bytes = &bytes[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size.checked_add(2)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let answer = |status, retry_s: Option<u64>, body: &str| {
            let retry_after = retry_s.map(Duration::from_secs);
            Ok(Some(Answer { status, retry_after, body: body.into() }))
        };
        for (bytes, ended, wanted) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", false, answer(200, None, "{}")),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", false, Ok(None)),
            ("HTTP/1.1 200 OK\r\nContent-Le", false, Ok(None)),
            ("HTTP/1.1 503 \r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n", false, answer(503, Some(7), "")),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\n", true, answer(200, None, "")),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\n{\"\r\n1\r\n}\r\n0\r\n\r\n",
                false,
                answer(200, None, "{\"}"),
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{", false, Ok(None)),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{\r\n",
                false,
                Ok(None),
            ),
            ("SSH-2.0-OpenSSH_9\r\n\r\n", false, Err(Garbled)),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", false, Err(Garbled)),
        ] {
            assert_eq!(read(bytes.as_bytes(), ended), wanted, "{bytes}");
        }
    }
}
