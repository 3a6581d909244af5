//! The client's side of one exchange, whatever HTTP it speaks: where the request's body comes from and the response goes
//! to. Heads cross between the two sides as HTTP/1.1 text, which one strict parser reads; bodies as pieces of bytes;
//! trailers as field lines.

#[cfg(test)]
pub(crate) mod fake;

use std::{
    io,
    task::{Context, Poll},
};

/// The client's side of one exchange.
///
/// Nothing here blocks or spawns: all is polled by the one task that drives the exchange, and what is pending wakes it.
pub(crate) trait Downstream {
    /// Appends the next piece of the request's body to `into`, at most `room` bytes of it (`room` > 0). After the end it
    /// is not called again. The first call is what lets a client that waits for `100 Continue` begin.
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Vec<u8>,
        room: usize,
    ) -> Poll<Result<Piece, Broken>>;

    /// Ready when the client has gone: it closed or reset the connection (or stream) and waits for no answer. Only called
    /// while nothing of the request's body is wanted.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Passes on an interim response (1xx other than 101). Best effort: a client that speaks HTTP/1.0 gets none.
    fn inform(&mut self, status: u16, fields: &mut dyn Iterator<Item = (&[u8], &[u8])>);

    /// Begins the response; it is called once, unless it was [taken back](Self::take_back). What it makes is sent with the first piece of the body, or when flushed.
    fn respond(&mut self, answer: Answer<'_, '_>);

    /// Takes bytes of the response's body: how many, at least one unless `data` is empty. Pending while the client does
    /// not take what it was given before.
    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>>;

    /// Ready once everything that was taken is with the kernel (or with the connection's task).
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends the response as whole; `trailers` are field lines, `name: value\r\n` each, and mostly empty. May be polled
    /// again while pending, with the same trailers.
    fn poll_finish(&mut self, cx: &mut Context<'_>, trailers: &[u8]) -> Poll<io::Result<()>>;

    /// Ends a response that is not whole, so that the client can tell: HTTP/1.1 closes, HTTP/2 resets the stream.
    fn cut(&mut self);

    /// After a 101 was passed on: from now on both directions carry bytes as they are, without framing, until each side
    /// ends. `poll_body` and `poll_write` move them; `poll_finish` ends the client's direction.
    fn tunnel(&mut self);

    /// Forgets the response that was begun, if the client has seen nothing of it: then another one may follow. How many bytes of
    /// its body were taken.
    fn take_back(&mut self) -> Option<usize> {
        None
    }

    /// Whether it shows the client what it is given later, and counts it then.
    fn counts(&self) -> bool {
        false
    }
}

/// A piece of a request's body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// So many bytes were appended.
    Data(usize),
    /// The body is whole; with its trailers as field lines, `name: value\r\n` each.
    End(Vec<u8>),
}

/// The client cut its request's body short, or framed it wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The connection or stream ended.
    Gone,
    /// It is not framed as HTTP demands; the text says how.
    Malformed(&'static str),
}

/// The head of a response, as the client is to get it. The fields are without those that frame a message or belong to a
/// connection: each protocol adds its own.
pub(crate) struct Answer<'a, 'f> {
    pub(crate) status: u16,
    /// Only HTTP/1.1 shows it.
    pub(crate) reason: &'a [u8],
    pub(crate) fields: &'f mut (dyn Iterator<Item = (&'a [u8], &'a [u8])> + 'f),
    /// The `Content-Length` to be told; also where there is no body, as in the answer to HEAD.
    pub(crate) length: Option<u64>,
    /// Whether a body follows.
    pub(crate) has_body: bool,
    /// Whether nothing more may be read from this client after the response (HTTP/1.1 closes the connection).
    pub(crate) close: bool,
}
