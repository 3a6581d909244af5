//! HTTP/2 with clients (RFC 9113): serves one connection, on any socket, and gives each request to the engine as the text
//! of an HTTP/1.1 head and a stream. The protocol's state machine is the `h2` crate's; what that does not bound is bounded
//! here and in `guard`.

#[cfg(test)]
mod bridge;
pub(crate) mod fields;
pub(crate) mod frame;
pub(crate) mod guard;
mod head;
mod prefixed;
mod shared;
mod stream;
#[cfg(test)]
mod tests;
pub(crate) mod trailers;

use std::{
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{Builder, Connection, SendResponse},
};
use http::Response;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Duration, Instant, Sleep},
};

use self::{
    guard::Guard,
    head::Refusal,
    shared::{Look, Shared, Situation},
};
pub(crate) use self::{
    head::{Body, Request},
    prefixed::{Prefixed, Spoken, spoken},
    stream::Stream,
};
use crate::config::Limits;

/// How much of one request's body is taken ahead of the engine.
const STREAM_WINDOW: u32 = 256 << 10;
/// And of all of a connection.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// How much of one response lies in the connection before its stream has to wait. With the most streams this bounds
/// what a client that takes nothing costs.
const SEND_BUFFER: usize = 64 << 10;
/// A client that was told that the connection ends may begin requests for so long. One that answers PING is told within a
/// round trip which was the last one, and begins none any more; from another one none is taken, as it would never end.
const LAST_CALL: Duration = Duration::from_secs(2);
/// Tasks of a connection may be this many times the streams it may have at once: those that the client took back take a
/// moment to end.
const TASKS_PER_STREAM: usize = 2;

/// How a server stops, as two futures that end when it comes so far.
pub(crate) struct Leaving<D, P> {
    /// What is open ends, and nothing more is begun.
    pub(crate) draining: D,
    /// Clients that have said nothing yet are not waited for. It may end later than `draining`, so that those whose first
    /// request is on its way are served.
    pub(crate) parting: P,
}

/// Serves a connection until it ends; `io` is yet to give the preface.
///
/// Each request is given to `on_request`, which is to make a task of it. When `leaving.draining` ends, the
/// client is told to open no more streams, and the connection ends with the last one. It also ends when no stream was
/// open for `idle_timeout`, when a head takes longer than `head_timeout`, and when the client reads nothing for
/// `stall_timeout`. Cancellation safe: dropped, it closes the connection, and the tasks see that their client has gone.
pub(crate) async fn serve<S, D, P, F>(mut io: S, limits: &Limits, leaving: Leaving<D, P>, on_request: F)
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Future<Output = ()>,
    P: Future<Output = ()>,
    F: FnMut(Request, Stream),
{
    let shared = Shared::new(limits.streams_max as usize * TASKS_PER_STREAM);
    let mut draining = pin!(leaving.draining);
    let end = match greet(Guard::new(&mut io, &shared.pulse), limits, leaving.parting).await {
        Err(end) => end,
        Ok(connection) => {
            let mut serving = Serving {
                connection,
                limits,
                shared: &shared,
                on_request,
                draining_since: None,
                ending: None,
                timer: Box::pin(tokio::time::sleep(shared::shortest(limits))),
            };
            std::future::poll_fn(|cx| serving.poll(cx, draining.as_mut())).await
        }
    };
    tracing::debug!(%end, "HTTP/2 connection ended");
    Box::pin(guard::linger(&mut io)).await;
}

/// Waits for the client's preface; fails with what has ended the connection before.
async fn greet<'a, S: AsyncRead + AsyncWrite + Unpin>(
    io: Guard<'a, S>,
    limits: &Limits,
    parting: impl Future<Output = ()>,
) -> Result<Connection<Guard<'a, S>, Bytes>, String> {
    let mut handshake = pin!(tokio::time::timeout(limits.head_timeout, builder(limits).handshake(io)));
    let mut parting = pin!(parting);
    let begun = std::future::poll_fn(|cx| match handshake.as_mut().poll(cx) {
        Poll::Ready(begun) => Poll::Ready(Some(begun)),
        Poll::Pending => parting.as_mut().poll(cx).map(|()| None),
    });
    match begun.await {
        Some(Ok(Ok(connection))) => Ok(connection),
        Some(Ok(Err(error))) => Err(error.to_string()),
        Some(Err(_elapsed)) => Err("the client does not begin".into()),
        None => Err("the gateway drains".into()),
    }
}

fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        // Requests that were taken back before their tasks began.
        .max_pending_accept_reset_streams(limits.streams_max as usize)
        .enable_connect_protocol();
    builder
}

/// A connection being served.
struct Serving<'a, S, F> {
    connection: Connection<Guard<'a, S>, Bytes>,
    limits: &'a Limits,
    shared: &'a Rc<Shared>,
    on_request: F,
    draining_since: Option<Instant>,
    /// The client was told that the connection ends now, and why.
    ending: Option<&'static str>,
    timer: Pin<Box<Sleep>>,
}

impl<S, F> Serving<'_, S, F>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: FnMut(Request, Stream),
{
    /// Ready with what has ended the connection.
    fn poll(&mut self, cx: &mut Context<'_>, draining: Pin<&mut impl Future<Output = ()>>) -> Poll<String> {
        self.shared.remember(cx.waker());
        if self.draining_since.is_none() && draining.poll(cx).is_ready() {
            self.draining_since = Some(Instant::now());
            self.connection.graceful_shutdown();
            self.timer.as_mut().reset(Instant::now());
        }
        loop {
            if let Poll::Ready(end) = self.poll_streams(cx) {
                return Poll::Ready(self.ending.map_or(end, str::to_owned));
            }
            if let Some(excess) = self.shared.pulse.excess()
                && self.ending.is_none()
            {
                self.end(excess, Reason::ENHANCE_YOUR_CALM);
                continue;
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match self.look() {
                // The last word could not be said either.
                Look::Over(why) if self.ending.is_some() => return Poll::Ready(why.to_owned()),
                Look::Over(why) => self.end(why, Reason::NO_ERROR),
                Look::Again(at) => self.timer.as_mut().reset(at),
            }
        }
    }

    /// Drives the connection, and begins what streams it has; ready when it has ended.
    fn poll_streams(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        loop {
            if !self.shared.has_room() {
                return self.connection.poll_closed(cx).map(said);
            }
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.begin(request, respond),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(error.to_string()),
                Poll::Ready(None) => return Poll::Ready(said(Ok(()))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn begin(&mut self, request: http::Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        if self.draining_since.is_some_and(|since| since.elapsed() >= LAST_CALL) {
            self.shared.pulse.refused();
            // It was not looked at, and may be sent again elsewhere (RFC 9113, section 8.7).
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
        let (parts, body) = request.into_parts();
        let ended = body.is_end_stream();
        let translated = head::translate(&parts, ended);
        if translated.is_err() {
            self.shared.pulse.refused();
        }
        match translated {
            Ok(translated) => {
                let mut stream = Stream::new(respond, (!ended).then_some(body), Rc::clone(self.shared));
                if head::expects_continue(&parts.headers) {
                    stream.expect_continue();
                }
                (self.on_request)(translated, stream);
            }
            Err(Refusal::Malformed(why)) => {
                tracing::debug!(why, "malformed HTTP/2 request");
                respond.send_reset(Reason::PROTOCOL_ERROR);
            }
            Err(Refusal::Answer(status, why)) => refuse(respond, status, why),
        }
    }

    /// Tells the client that this is the end, and gives that a second to reach it.
    fn end(&mut self, why: &'static str, reason: Reason) {
        self.ending = Some(why);
        self.connection.abrupt_shutdown(reason);
        self.timer.as_mut().reset(Instant::now() + guard::LINGER);
    }

    fn look(&mut self) -> Look {
        if let Some(why) = self.ending {
            return Look::Over(why);
        }
        let is = Situation { unsent: self.connection.has_streams(), draining_since: self.draining_since };
        self.shared.look(self.limits, Instant::now(), is)
    }
}

/// Answers what the engine never sees.
fn refuse(mut respond: SendResponse<Bytes>, status: u16, why: &str) {
    let problem = serde_json::json!({ "type": "about:blank", "status": status, "detail": why }).to_string();
    let head = Response::builder()
        .status(status)
        .header(http::header::CONTENT_TYPE, "application/problem+json")
        .header(http::header::CONTENT_LENGTH, problem.len())
        .header(http::header::DATE, httpdate::fmt_http_date(std::time::SystemTime::now()))
        .body(());
    let Ok(head) = head else { return };
    if let Ok(mut body) = respond.send_response(head, false) {
        // A few bytes, which wait in the connection if the client has no window for them.
        let _ = body.send_data(problem.into(), true);
    }
}

fn said(end: Result<(), h2::Error>) -> String {
    end.map_or_else(|error| error.to_string(), |()| "closed".to_owned())
}
