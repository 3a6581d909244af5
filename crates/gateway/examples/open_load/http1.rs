//! As much of HTTP/1.1 as a client needs whose answers have a `Content-Length`.

use std::io::{self, Read, Write};

use crate::connection::{Stream, Target};

/// Longest response head, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
const BUFFER_BYTES: usize = 64 << 10;

pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(stream: Box<dyn Stream>, target: &Target) -> Self {
        let method = if target.post.is_some() { "POST" } else { "GET" };
        let mut request = format!("{method} {} HTTP/1.1\r\nHost: {}\r\n", target.path, target.address);
        if target.close {
            request.push_str("Connection: close\r\n");
        }
        if let Some(length) = target.post {
            request.push_str(&format!("Content-Length: {length}\r\n"));
        }
        request.push_str("\r\n");
        request.push_str(&"x".repeat(target.post.unwrap_or(0)));
        Self { stream, request: request.into_bytes(), buffer: vec![0; BUFFER_BYTES] }
    }

    /// Whether the connection can be used again.
    pub(crate) fn exchange(&mut self) -> io::Result<bool> {
        self.stream.write_all(&self.request)?;
        let mut filled = 0;
        let head_length = loop {
            match self.stream.read(&mut self.buffer[filled..HEAD_BYTES_MAX])? {
                0 => return Err(io::Error::other("closed before the whole head of a response")),
                read => filled += read,
            }
            if let Some(end) = self.buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..head_length]).to_ascii_lowercase();
        if !head.starts_with("http/1.1 200") {
            return Err(io::Error::other(format!("answered {}", head.lines().next().unwrap_or_default())));
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.and_then(|length| length.trim().parse().ok()).ok_or_else(|| {
            io::Error::other("answered without Content-Length, the only framing understood here")
        })?;
        let mut missing = (head_length + length).saturating_sub(filled);
        while missing > 0 {
            match self.stream.read(&mut self.buffer)? {
                0 => return Err(io::Error::other("closed in the middle of a response")),
                read => missing = missing.saturating_sub(read),
            }
        }
        Ok(!head.contains("\nconnection: close"))
    }
}
