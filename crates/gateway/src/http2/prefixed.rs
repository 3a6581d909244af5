//! Which HTTP a client speaks on a connection that has not said so by TLS (RFC 9113, section 3.3), and a socket that gives
//! back what was read to find out.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frame::PREFACE;

/// What a client speaks, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    Http1,
    Http2,
    /// There are too few of them to tell.
    Unknown,
}

/// Tells by the first bytes that came, however few.
pub(crate) fn spoken(first: &[u8]) -> Spoken {
    let known = first.len().min(PREFACE.len());
    if first[..known] != PREFACE[..known] {
        Spoken::Http1
    } else if known == PREFACE.len() {
        Spoken::Http2
    } else {
        Spoken::Unknown
    }
}

/// A socket of which something was already read; it is read again first.
pub(crate) struct Prefixed<S> {
    prefix: Bytes,
    io: S,
}

impl<S> Prefixed<S> {
    pub(crate) fn new(prefix: Bytes, io: S) -> Self {
        Self { prefix, io }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let taken = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix[..taken]);
        self.prefix.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell() {
        for known in 0..PREFACE.len() {
            assert_eq!(spoken(&PREFACE[..known]), Spoken::Unknown, "{known} bytes");
        }
        assert_eq!(spoken(PREFACE), Spoken::Http2);
        assert_eq!(spoken(&[&PREFACE[..], b"and more"].concat()), Spoken::Http2);
        for other in ["GET / HTTP/1.1", "PRI * HTTP/1.1", "PROPFIND / HTTP/1.1", "P ", "\x16\x03"] {
            assert_eq!(spoken(other.as_bytes()), Spoken::Http1, "{other}");
        }
    }
}
