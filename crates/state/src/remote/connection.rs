//! One kept connection. Whoever waits for something on it also drives it, so it needs no task of its own and
//! a call is not handed from thread to thread.

use std::{
    io,
    path::Path,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use hyper::{
    body::{Body as _, Incoming},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};

use super::{
    call::{Answer, Headers},
    payload::Payload,
};

/// How long a connection may take to be made.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a kept connection may take to be done with its last request.
const READY_TIMEOUT: Duration = Duration::from_millis(100);
/// Most bytes of an answer that is held whole: a page of rows, written as JSON.
pub(super) const ANSWER_BYTES_MAX: usize = 256 << 20;

/// A connection to the state API.
pub(super) struct Connection {
    sender: SendRequest<Payload>,
    /// Moves the bytes; gone when the connection has ended.
    driver: Option<http1::Connection<TokioIo<UnixStream>, Payload>>,
}

/// Why there was no answer.
pub(super) struct Lost {
    /// The reason.
    pub(super) text: String,
    /// The request, if nothing of it was sent.
    pub(super) unsent: Option<Box<Request<Payload>>>,
}

impl Lost {
    fn midway(error: impl std::error::Error) -> Self {
        // The source says more than the summary of hyper, when there is one.
        let text = error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
        Self { text, unsent: None }
    }
}

impl Connection {
    /// Connects to the socket `path`.
    pub(super) async fn open(path: &Path) -> io::Result<Self> {
        let open = async {
            let stream = UnixStream::connect(path).await?;
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)
        };
        let (sender, driver) = timeout(CONNECT_TIMEOUT, open)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))
            .flatten()?;
        Ok(Self { sender, driver: Some(driver) })
    }

    /// Makes sure that it can take a request; false when it has ended, or is not done with the last one.
    pub(super) async fn ready(&mut self) -> bool {
        let ready = std::future::poll_fn(|cx| {
            self.drive(cx);
            match (self.sender.poll_ready(cx), &self.driver) {
                (Poll::Ready(Ok(())), Some(_)) => Poll::Ready(true),
                (Poll::Pending, Some(_)) => Poll::Pending,
                _ => Poll::Ready(false),
            }
        });
        timeout(READY_TIMEOUT, ready).await.unwrap_or(false)
    }

    /// Sends a request, which must follow [`Connection::ready`], and waits for the head of its answer. When dropped
    /// before the end, the connection must not be used again.
    pub(super) async fn send(&mut self, request: Request<Payload>) -> Result<Response<Incoming>, Lost> {
        let mut response = pin!(self.sender.try_send_request(request));
        let response = std::future::poll_fn(|cx| {
            self.drive(cx);
            response.as_mut().poll(cx)
        });
        response.await.map_err(|mut error| {
            let unsent = error.take_message().map(Box::new);
            Lost { unsent, ..Lost::midway(error.into_error()) }
        })
    }

    /// Sends a request and waits for its whole answer, with the same condition.
    pub(super) async fn ask(&mut self, request: Request<Payload>) -> Result<Answer, Lost> {
        let response = self.send(request).await?;
        self.collect(response).await
    }

    /// Reads the rest of an answer.
    pub(super) async fn collect(&mut self, response: Response<Incoming>) -> Result<Answer, Lost> {
        let (head, mut incoming) = response.into_parts();
        let first = self.chunk(&mut incoming).await?.unwrap_or_default();
        let mut body = first;
        if let Some(second) = self.chunk(&mut incoming).await? {
            let known = usize::try_from(incoming.size_hint().lower()).unwrap_or(0).min(ANSWER_BYTES_MAX);
            let mut all = BytesMut::with_capacity(body.len() + second.len() + known);
            all.extend_from_slice(&body);
            let mut next = Some(second);
            while let Some(chunk) = next {
                if all.len() + chunk.len() > ANSWER_BYTES_MAX {
                    let text = format!("the answer is over {ANSWER_BYTES_MAX} bytes");
                    return Err(Lost { text, unsent: None });
                }
                all.extend_from_slice(&chunk);
                next = self.chunk(&mut incoming).await?;
            }
            body = all.freeze();
        }
        Ok(Answer { status: head.status, headers: Headers::Http(head.headers), body })
    }

    /// The next piece of the body of an answer; `None` at its end.
    pub(super) async fn chunk(&mut self, incoming: &mut Incoming) -> Result<Option<Bytes>, Lost> {
        std::future::poll_fn(|cx| self.poll_chunk(incoming, cx)).await.transpose().map_err(Lost::midway)
    }

    /// The next piece of the body of an answer.
    pub(super) fn poll_chunk(
        &mut self,
        incoming: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Bytes>>> {
        loop {
            if incoming.is_end_stream() {
                return Poll::Ready(None);
            }
            // To ask for a piece is what lets the driver read one; only then is it worth driving.
            let mut frame = Pin::new(&mut *incoming).poll_frame(cx);
            if frame.is_pending() {
                self.drive(cx);
                frame = Pin::new(&mut *incoming).poll_frame(cx);
            }
            match frame {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
            }
        }
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        // How it ended is told to whoever waits for an answer.
        if let Some(driver) = &mut self.driver
            && Pin::new(driver).poll(cx).is_ready()
        {
            self.driver = None;
        }
    }
}
