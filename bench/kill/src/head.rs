//! The head of an HTTP/1.1 message, as far as both ends of this measurement need it: one line and fields, read from a
//! connection that may hold the begin of the body too.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A message's head.
pub struct Head {
    /// The request line or status line.
    pub line: String,
    fields: Vec<(String, String)>,
}

impl Head {
    /// The value of a field; `name` in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// `Content-Length`.
    ///
    /// # Errors
    /// When it is not a number.
    pub fn content_length(&self) -> io::Result<Option<usize>> {
        self.field("content-length").map(|text| text.parse().map_err(|_| malformed())).transpose()
    }

    /// Whether the connection stays open after this message (RFC 9112, section 9.3).
    pub fn keeps_alive(&self) -> bool {
        let said = self.field("connection").unwrap_or("").to_ascii_lowercase();
        !said.contains("close") && (!self.line.contains("HTTP/1.0") || said.contains("keep-alive"))
    }

    fn parse(text: &str) -> io::Result<Self> {
        let mut lines = text.split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        let field = |line: &str| {
            let (name, value) = line.split_once(':').ok_or_else(malformed)?;
            Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let fields = lines.filter(|line| !line.is_empty()).map(field).collect::<io::Result<_>>()?;
        Ok(Self { line, fields })
    }
}

/// Reads until `buffer` begins with a whole head, and takes it from there; what came after it stays. `Ok(None)`: the
/// other side closed the connection before the first byte.
///
/// # Errors
/// When the connection breaks or ends within the head, and when what comes is no head.
pub async fn read_head(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> io::Result<Option<Head>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = Head::parse(std::str::from_utf8(&buffer[..end]).map_err(|_| malformed())?)?;
            buffer.drain(..end + 4);
            return Ok(Some(head));
        }
        if buffer.len() > HEAD_BYTES_MAX {
            return Err(malformed());
        }
        if stream.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not an HTTP/1.1 message")
}
