//! Blobs over the state API, streamed both ways: neither side holds more than a few pieces of one.

use std::{
    io,
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use hyper::body::{Body as _, Incoming};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Sleep, sleep, timeout},
};

use super::{
    Remote,
    call::{Answer, Call, Headers, Target},
    connection::Connection,
    payload::{Payload, Upload},
    pool::{ANSWER_TIMEOUT, Pool, Purpose, Retry},
    problem::{self, misunderstood},
};
use crate::{
    blobs::{
        BUCKET_NAME_BYTES_MAX, Blob, BlobInfo, Blobs, ByteRange, ByteStream, Condition, KEY_BYTES_MAX, Page,
        Put,
    },
    error::Error,
    locks::Token,
    wire,
};

/// How long a stream may bring nothing, in either direction, before it is given up.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

#[async_trait]
impl Blobs for Remote {
    async fn put(&self, bucket: &str, key: &str, body: ByteStream, put: Put) -> Result<BlobInfo, Error> {
        let content_type = HeaderValue::try_from(&put.content_type).map_err(|_| {
            Error::Invalid(format!("the content type `{}` is not one", put.content_type.escape_debug()))
        })?;
        let call = Call::new(Method::PUT, blob(bucket, key)?)?.header(header::CONTENT_TYPE, content_type);
        let call = fenced(conditional(call, &put.condition)?, put.fence);
        let _turn = self.pool.turn(Purpose::Upload).await?;
        let (upload, progress) = Upload::new(body, put.bytes_max);
        let mut request = call.request_with(Payload::Stream(upload));
        let mut retry = Retry::default();
        let (connection, answer) = loop {
            let mut connection = self.pool.connection(&mut retry).await?;
            let mut asked = Box::pin(async {
                let answer = connection.ask(request).await;
                (connection, answer)
            });
            let mut sent = progress.bytes();
            let (connection, answer) = loop {
                match timeout(STALL_TIMEOUT, &mut asked).await {
                    Ok(done) => break done,
                    Err(_) if progress.bytes() > sent => sent = progress.bytes(),
                    Err(_) => {
                        let text = format!("nothing moved for {} s", STALL_TIMEOUT.as_secs());
                        return Err(self.pool.unknown(&text));
                    }
                }
            };
            drop(asked);
            match answer {
                Ok(answer) => break (connection, answer),
                Err(lost) => {
                    if let Some(failure) = progress.failure() {
                        return Err(failure);
                    }
                    let Some(unsent) = lost.unsent else { return Err(self.pool.unknown(&lost.text)) };
                    request = *unsent;
                    retry.after(&lost.text, &self.pool).await?;
                }
            }
        };
        // A refusal may come before the stream has ended; then the connection is in the middle of a request.
        if answer.status.is_success() {
            self.pool.keep(connection);
        }
        answer.done()?.json()
    }

    async fn head(&self, bucket: &str, key: &str) -> Result<Option<BlobInfo>, Error> {
        let answer = self.pool.call(&Call::new(Method::HEAD, blob(bucket, key)?)?).await?;
        match answer.status {
            StatusCode::OK => Ok(Some(described(key, &answer, length(&answer)?)?)),
            StatusCode::NOT_FOUND => Ok(None),
            // The answer to HEAD has no body that could say what is wrong; the one to GET has.
            _ => Ok(self.get(bucket, key, None).await?.map(|blob| blob.info)),
        }
    }

    async fn get(&self, bucket: &str, key: &str, range: Option<ByteRange>) -> Result<Option<Blob>, Error> {
        let mut call = Call::new(Method::GET, blob(bucket, key)?)?;
        if let Some(range) = range {
            call = call.header(header::RANGE, range_value(range)?);
        }
        let turn = self.pool.turn(Purpose::Download).await?;
        let (mut connection, response) = self.open(&call).await?;
        if !response.status().is_success() {
            let answer = timeout(ANSWER_TIMEOUT, connection.collect(response)).await;
            let answer = match answer {
                Ok(Ok(answer)) => answer,
                Ok(Err(lost)) => return Err(self.pool.unavailable(&lost.text)),
                Err(_) => return Err(self.pool.unavailable("the answer stopped half-way")),
            };
            self.pool.keep(connection);
            return match problem::error(answer.status, &answer.body) {
                Error::NotFound => Ok(None),
                error => Err(error),
            };
        }
        let (head, incoming) = response.into_parts();
        let answer = Answer { status: head.status, headers: Headers::Http(head.headers), body: Bytes::new() };
        let (range, size) = extent(&answer)?;
        let download = Download {
            incoming,
            connection: Some(connection),
            left: range.end - range.start,
            stalled: None,
            pool: Arc::clone(&self.pool),
            _turn: turn,
        };
        Ok(Some(Blob { info: described(key, &answer, size)?, range, body: download.boxed() }))
    }

    async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, Error> {
        let mut target = Target::new("/v1/blobs").segment("a bucket name", bucket, BUCKET_NAME_BYTES_MAX)?;
        if !prefix.is_empty() {
            target = target.parameter("prefix", prefix);
        }
        if let Some(after) = after {
            target = target.parameter("after", after);
        }
        if limit > 0 {
            target = target.parameter("limit", &limit.to_string());
        }
        self.pool.call(&Call::new(Method::GET, target)?).await?.done()?.json()
    }

    async fn delete(
        &self,
        bucket: &str,
        key: &str,
        condition: Condition,
        fence: Option<Token>,
    ) -> Result<bool, Error> {
        let call = conditional(Call::new(Method::DELETE, blob(bucket, key)?)?, &condition)?;
        let call = fenced(call, fence);
        Ok(self.pool.call(&call).await?.done()?.existed())
    }

    fn portable(&self) -> Option<&dyn crate::portable::Portable> {
        Some(self)
    }
}

impl Remote {
    /// Makes a call as far as the head of its answer.
    pub(super) async fn open(&self, call: &Call) -> Result<(Connection, Response<Incoming>), Error> {
        let mut retry = Retry::default();
        loop {
            let mut connection = self.pool.connection(&mut retry).await?;
            match timeout(ANSWER_TIMEOUT, connection.send(call.request())).await {
                Ok(Ok(response)) => return Ok((connection, response)),
                Ok(Err(lost)) => retry.after(&lost.text, &self.pool).await?,
                Err(_) => {
                    let text = format!("no answer within {} s", ANSWER_TIMEOUT.as_secs());
                    return Err(self.pool.unavailable(&text));
                }
            }
        }
    }
}

/// The bytes of a blob on their way in. Its connection is kept for others when the last one has come.
struct Download {
    incoming: Incoming,
    connection: Option<Connection>,
    /// How many bytes are yet to come.
    left: u64,
    stalled: Option<Pin<Box<Sleep>>>,
    pool: Arc<Pool>,
    _turn: OwnedSemaphorePermit,
}

impl Stream for Download {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let this = &mut *self;
        let Some(connection) = &mut this.connection else { return Poll::Ready(None) };
        let Poll::Ready(chunk) = connection.poll_chunk(&mut this.incoming, cx) else {
            let stalled = this.stalled.get_or_insert_with(|| Box::pin(sleep(STALL_TIMEOUT)));
            ready!(stalled.as_mut().poll(cx));
            this.connection = None;
            let text = format!("the state API sent nothing for {} s", STALL_TIMEOUT.as_secs());
            return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, text))));
        };
        this.stalled = None;
        match chunk {
            Some(Ok(bytes)) => {
                this.left = this.left.saturating_sub(bytes.len() as u64);
                if this.left == 0
                    && this.incoming.is_end_stream()
                    && let Some(connection) = this.connection.take()
                {
                    this.pool.keep(connection);
                }
                Poll::Ready(Some(Ok(bytes)))
            }
            Some(Err(error)) => {
                this.connection = None;
                Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::UnexpectedEof, error))))
            }
            None => {
                if let Some(connection) = this.connection.take() {
                    this.pool.keep(connection);
                }
                Poll::Ready(None)
            }
        }
    }
}

fn blob(bucket: &str, key: &str) -> Result<Target, Error> {
    Target::new("/v1/blobs").segment("a bucket name", bucket, BUCKET_NAME_BYTES_MAX)?.segment(
        "a key",
        key,
        KEY_BYTES_MAX,
    )
}

fn conditional(call: Call, condition: &Condition) -> Result<Call, Error> {
    match condition {
        Condition::Any => Ok(call),
        Condition::Absent => Ok(call.header(header::IF_NONE_MATCH, HeaderValue::from_static("*"))),
        Condition::Etag(etag) => call.tagged(header::IF_MATCH, etag),
    }
}

fn fenced(call: Call, fence: Option<Token>) -> Call {
    match fence {
        Some(token) => call.header(HeaderName::from_static(wire::locks::FENCE), HeaderValue::from(token)),
        None => call,
    }
}

fn range_value(range: ByteRange) -> Result<HeaderValue, Error> {
    let text = match range {
        ByteRange::From(first) => format!("bytes={first}-"),
        ByteRange::Inclusive(first, last) if first > last => {
            return Err(Error::Invalid(format!("the range from byte {first} to {last} is upside down")));
        }
        ByteRange::Inclusive(first, last) => format!("bytes={first}-{last}"),
        ByteRange::Last(count) => format!("bytes=-{count}"),
    };
    HeaderValue::try_from(text).map_err(|error| Error::Invalid(error.to_string()))
}

fn described(key: &str, answer: &Answer, size: u64) -> Result<BlobInfo, Error> {
    let modified_at = answer.text(wire::MODIFIED_AT).and_then(|text| text.parse().ok());
    Ok(BlobInfo {
        key: key.into(),
        size,
        etag: answer.etag()?.into(),
        content_type: answer.text("content-type").unwrap_or("application/octet-stream").into(),
        modified_at: modified_at
            .ok_or_else(|| misunderstood(format!("a blob without {}", wire::MODIFIED_AT)))?,
    })
}

fn length(answer: &Answer) -> Result<u64, Error> {
    let length = answer.text("content-length").and_then(|text| text.parse().ok());
    length.ok_or_else(|| misunderstood("a blob without Content-Length".into()))
}

/// Which bytes an answer has, and how many the whole blob has.
fn extent(answer: &Answer) -> Result<(Range<u64>, u64), Error> {
    if answer.status != StatusCode::PARTIAL_CONTENT {
        let size = length(answer)?;
        return Ok((0..size, size));
    }
    let read = |text: &str| {
        let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let end = last.parse::<u64>().ok()?.checked_add(1)?;
        Some((first.parse().ok()?..end, size.parse().ok()?))
    };
    let extent = answer.text("content-range").and_then(read);
    extent.ok_or_else(|| misunderstood("a part of a blob without a Content-Range".into()))
}
