//! One request and its response over one connection.

use std::{
    fmt,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;

use super::{Error, Limits};
use crate::{destination::Destination, observed};

/// The most header fields of a response.
const FIELDS_MAX: usize = 256;

/// The most bytes of a response's head.
const HEAD_BYTES_MAX: usize = 256 << 10;

/// A whole response, as far as it may be long.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) is_cut: bool,
}

/// A connection on which no request is.
pub(super) struct Connection {
    destination: Destination,
    sender: http1::SendRequest<Full<Bytes>>,
    task: Task,
    used_at: Instant,
    kept_max: Duration,
}

/// What drives the connection; ends with it.
#[derive(Debug)]
pub(super) struct Task(JoinHandle<()>);

impl Task {
    pub(super) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(future))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why there is no answer.
pub(super) struct Failed {
    /// The request, if nothing of it was sent.
    pub(super) unsent: Option<Box<Request<Full<Bytes>>>>,
    status: Option<StatusCode>,
    source: hyper::Error,
}

impl Failed {
    pub(super) fn error(self, destination: &Destination) -> Error {
        Error::Lost { destination: destination.name().into(), status: self.status, source: self.source }
    }
}

impl Connection {
    pub(super) async fn open(destination: &Destination, kept_max: Duration) -> Result<Self, Error> {
        let name = || destination.name().to_owned();
        let stream =
            destination.connect().await.map_err(|source| Error::Connect { destination: name(), source })?;
        let handshake = http1::Builder::new()
            .max_headers(FIELDS_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await;
        let (sender, connection) =
            handshake.map_err(|source| Error::Lost { destination: name(), status: None, source })?;
        // Its error is also the request's.
        let connection = connection.with_upgrades();
        let task = Task::spawn(async move { drop(connection.await) });
        Ok(Self { destination: destination.clone(), sender, task, used_at: Instant::now(), kept_max })
    }

    /// Whether a request for `destination` may be sent on it.
    pub(super) fn serves(&self, destination: &Destination) -> bool {
        self.destination.is(destination) && !self.sender.is_closed() && self.used_at.elapsed() < self.kept_max
    }

    /// Sends a request and gives the head of its response, with what must be kept for as long as the body is read.
    pub(super) async fn begin(
        mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Task), Failed> {
        let failed = |source| Failed { unsent: None, status: None, source };
        self.sender.ready().await.map_err(failed)?;
        let response = self.sender.send_request(request).await.map_err(failed)?;
        Ok((response, self.task))
    }

    /// Sends a request and reads its response; gives the connection back if another request can be sent on it.
    pub(super) async fn send(
        mut self,
        request: Request<Full<Bytes>>,
        limits: &Limits,
    ) -> Result<(Answer, Option<Self>), Failed> {
        if let Err(source) = self.sender.ready().await {
            return Err(Failed { unsent: Some(Box::new(request)), status: None, source });
        }
        let response = self.sender.try_send_request(request).await.map_err(|mut error| {
            let unsent = error.take_message().map(Box::new);
            Failed { unsent, status: None, source: error.into_error() }
        })?;
        let answer = whole(response, limits).await?;
        self.used_at = Instant::now();
        let kept = (!answer.is_cut && !self.sender.is_closed()).then_some(self);
        Ok((answer, kept))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("destination", &self.destination)
            .field("is_done", &self.task.0.is_finished())
            .finish_non_exhaustive()
    }
}

/// Reads a body, as far as it may be long.
pub(super) async fn whole(response: Response<Incoming>, limits: &Limits) -> Result<Answer, Failed> {
    let (head, mut body) = response.into_parts();
    let (mut whole, mut is_cut) = (BytesMut::new(), false);
    // A stream of events has no end of its own.
    let is_stream = observed::content_type(&head.headers).as_deref() == Some("text/event-stream");
    let end = is_stream.then(|| tokio::time::Instant::now() + limits.stream_time_max);
    loop {
        let frame = match end {
            None => body.frame().await,
            Some(end) => match tokio::time::timeout_at(end, body.frame()).await {
                Ok(frame) => frame,
                Err(_) => {
                    is_cut = true;
                    break;
                }
            },
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|source| Failed { unsent: None, status: Some(head.status), source })?;
        let Ok(data) = frame.into_data() else { continue };
        let room = limits.body_bytes_max - whole.len();
        whole.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            is_cut = true;
            break;
        }
    }
    Ok(Answer { status: head.status, headers: head.headers, body: whole.freeze(), is_cut })
}
