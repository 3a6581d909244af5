//! `GET /v1/frames`: many calls at one time over one connection, see [`crate::frames`]. Each call goes through the same routes,
//! and so the same rules of access, as one over HTTP, or a shorter way that has the same rules (`direct`). A call that is done
//! without waiting, such as a look-up, is done where it was read; those that wait do so side by side.

use std::{
    fmt::Display,
    io::{self, Write as _},
    panic::AssertUnwindSafe,
    sync::Arc,
};

use axum::{
    Router,
    body::{Body, HttpBody as _},
    extract::Request,
    response::{IntoResponse as _, Response},
};
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use hyper::{service::Service as _, upgrade::OnUpgrade};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::watch,
};

use super::{
    access::Visitor,
    direct::{Answering, Directs, Reply, panicked},
    problem::Problem,
};
use crate::{
    error::Error,
    frames::{self, CALLS_MAX, Call, Malformed, PROTOCOL},
    wire,
};

/// How much is read at a time, at least.
const READ_BYTES: usize = 16 << 10;
/// So many bytes of answers are sent before the next call is begun: about as many as a client reads at a time.
const FLUSH_BYTES: usize = 16 << 10;
/// While more bytes of answers than this wait to be taken, no further calls are read.
const UNSENT_BYTES_MAX: usize = 1 << 20;

/// `GET /v1/frames`
pub(super) async fn upgrade(visitor: Visitor, mut request: Request) -> Response {
    let protocol = HeaderValue::from_static(PROTOCOL);
    let is_asked = request.headers().get(header::UPGRADE) == Some(&protocol);
    let Some(coming) = is_asked.then(|| request.extensions_mut().remove::<OnUpgrade>()).flatten() else {
        let refused = Problem::from(Error::Invalid(format!(
            "this path is for connections that become frames: ask with `Connection: upgrade` and `Upgrade: {PROTOCOL}`"
        )));
        let mut response = refused.into_response();
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        response.headers_mut().insert(header::UPGRADE, protocol);
        return response;
    };
    visitor.becomes_frames(coming);
    let headers = [(header::CONNECTION, HeaderValue::from_static("upgrade")), (header::UPGRADE, protocol)];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// Serves calls until the client is gone, or `ending` closes and those that were read are answered.
pub(super) async fn serve(
    coming: OnUpgrade,
    (router, directs): (TowerToHyperService<Router>, Arc<Directs>),
    visitor: Visitor,
    mut ending: watch::Receiver<()>,
) -> io::Result<()> {
    let upgraded = coming.await.map_err(io::Error::other)?;
    let parts = upgraded
        .downcast::<TokioIo<UnixStream>>()
        .map_err(|_| io::Error::other("the connection is of another kind than was accepted"))?;
    let mut stream = parts.io.into_inner();
    let (mut reader, mut writer) = stream.split();
    let mut line = FramedConnection {
        router,
        directs,
        visitor,
        last: 0,
        running: FuturesUnordered::new(),
        out: BytesMut::new(),
        is_swollen: false,
    };
    let mut read = BytesMut::from(&parts.read_buf[..]);
    let (mut is_open, mut is_leaving) = (true, false);
    loop {
        while line.has_room() && !is_leaving {
            let Some(call) = frames::take_call(&mut read).map_err(refused)? else { break };
            line.begin(call)?;
            // So the client has something to do while the rest is done.
            if line.out.len() >= FLUSH_BYTES {
                match writer.try_write(&line.out) {
                    Ok(count) => line.out.advance(count),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        }
        if !is_open && line.running.is_empty() && line.out.is_empty() {
            return Ok(());
        }
        if line.out.is_empty() && is_leaving && line.running.is_empty() {
            return writer.shutdown().await;
        }
        // Without room, calls that were read already wait too.
        let is_wanted = is_open && !is_leaving && line.has_room();
        read.reserve(if is_wanted { READ_BYTES } else { 0 });
        tokio::select! {
            biased;
            written = writer.write_buf(&mut line.out), if !line.out.is_empty() => {
                if written? == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                line.shrink();
            }
            Some(done) = line.running.next(), if !line.running.is_empty() => {
                line.finish(done)?;
                // Those that waited for the same commit are ready together.
                while let Some(Some(done)) = line.running.next().now_or_never() {
                    line.finish(done)?;
                }
            }
            count = reader.read_buf(&mut read), if is_wanted => is_open = count? > 0,
            // Nothing is ever sent: the channel closes when the server ends.
            _ = ending.changed(), if !is_leaving => {
                is_leaving = true;
                frames::write_leaving(&mut line.out, line.last);
            }
        }
    }
}

/// What one connection has under way.
struct FramedConnection {
    router: TowerToHyperService<Router>,
    directs: Arc<Directs>,
    visitor: Visitor,
    /// The number of the last call that was begun.
    last: u64,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    out: BytesMut,
    /// Whether it has grown beyond what it should keep.
    is_swollen: bool,
}

/// A call that is done, with what is to be answered.
struct Done {
    number: u64,
    answer: Answer,
}

enum Answer {
    Reply(Reply),
    Response { status: StatusCode, headers: HeaderMap, body: Bytes },
}

impl FramedConnection {
    fn has_room(&self) -> bool {
        self.running.len() < CALLS_MAX && self.out.len() < UNSENT_BYTES_MAX
    }

    fn begin(&mut self, call: Call) -> io::Result<()> {
        if call.number <= self.last {
            return Err(refused(Malformed("its number is not above the last")));
        }
        let number = call.number;
        self.last = number;
        let mut answering = match self.directs.begin(&self.visitor, &call) {
            Some(Answering::Now(result)) => return self.finish(Done { number, answer: Answer::of(result) }),
            Some(Answering::Later(reply)) => answer_later(number, reply).boxed(),
            None => answer(call, self.router.clone(), self.visitor.clone()).boxed(),
        };
        // One that waits is looked at again, with somebody to wake, among the others.
        match answering.as_mut().now_or_never() {
            Some(done) => self.finish(done),
            None => {
                self.running.push(answering);
                Ok(())
            }
        }
    }

    /// Gives back what a large answer took: connections live as long as workers.
    fn shrink(&mut self) {
        if self.is_swollen && self.out.is_empty() {
            (self.out, self.is_swollen) = (BytesMut::new(), false);
        }
    }

    fn finish(&mut self, done: Done) -> io::Result<()> {
        let (Done { number, answer }, before) = (done, self.out.len());
        let written = match &answer {
            Answer::Reply(reply) => write_reply(&mut self.out, number, reply),
            Answer::Response { status, headers, body } => {
                let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
                frames::write_answer(&mut self.out, number, *status, &headers.collect::<Vec<_>>(), body)
            }
        };
        self.is_swollen |= self.out.len() > UNSENT_BYTES_MAX.max(before);
        written.map_err(refused)
    }
}

impl Answer {
    fn of(result: Result<Reply, Problem>) -> Self {
        match result {
            Ok(reply) => Self::Reply(reply),
            Err(problem) => {
                let (status, headers, body) = problem.into_parts();
                Self::Response { status, headers, body }
            }
        }
    }
}

/// What a header of digits is written in: a quote, the longest of 64 bits, a quote.
type Digits = [u8; 22];

fn write_reply(out: &mut BytesMut, number: u64, reply: &Reply) -> Result<(), Malformed> {
    let (mut tag, mut until) = (Digits::default(), Digits::default());
    let headers = [
        reply.content_type.map(|text| (header::CONTENT_TYPE.as_str(), text.as_bytes())),
        reply.revision.map(|revision| (header::ETAG.as_str(), digits(&mut tag, revision, "\""))),
        reply.expires_at.map(|at| (wire::EXPIRES_AT, digits(&mut until, at, ""))),
    ];
    let (mut some, mut count) = ([("", &b""[..]); 3], 0);
    for header in headers.into_iter().flatten() {
        some[count] = header;
        count += 1;
    }
    frames::write_answer(out, number, reply.status, &some[..count], &reply.body)
}

/// Writes a number, between quotes or nothing.
fn digits<'a>(space: &'a mut Digits, number: impl Display, around: &str) -> &'a [u8] {
    let mut rest = &mut space[..];
    // There is room for it.
    let _ = write!(rest, "{around}{number}{around}");
    let left = rest.len();
    &space[..space.len() - left]
}

async fn answer_later(number: u64, reply: BoxFuture<'static, Result<Reply, Problem>>) -> Done {
    let result = AssertUnwindSafe(reply).catch_unwind().await.unwrap_or_else(|_| Err(panicked()));
    Done { number, answer: Answer::of(result) }
}

async fn answer(call: Call, router: TowerToHyperService<Router>, visitor: Visitor) -> Done {
    let number = call.number;
    let response = match request(call, visitor) {
        // A fault in one call is no end of the others.
        Ok(request) => match AssertUnwindSafe(router.call(request)).catch_unwind().await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => panicked().into_response(),
        },
        Err(error) => Problem::from(error).into_response(),
    };
    let (head, body) = response.into_parts();
    let answer = match whole(body).await {
        Some(body) => Answer::Response { status: head.status, headers: head.headers, body },
        None => {
            let text = "the answer comes piece by piece: ask for it over HTTP, not in a frame";
            Answer::of(Err(Error::Invalid(text.into()).into()))
        }
    };
    Done { number, answer }
}

fn request(call: Call, visitor: Visitor) -> Result<Request, Error> {
    let uri = Uri::from_maybe_shared(call.target)
        .map_err(|error| Error::Invalid(format!("the target is not understood: {error}")))?;
    let mut request = Request::new(Body::from(call.body));
    *request.method_mut() = call.method;
    *request.uri_mut() = uri;
    *request.headers_mut() = call.headers;
    request.extensions_mut().insert(visitor);
    Ok(request)
}

/// A body that is in memory already; none of one that would still have to be brought there.
async fn whole(mut body: Body) -> Option<Bytes> {
    let length = body.size_hint().exact()?;
    if length == 0 {
        return Some(Bytes::new());
    }
    let first = body.frame().await?.ok()?.into_data().ok()?;
    (first.len() as u64 == length).then_some(first)
}

fn refused(malformed: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a frame is refused: {}", malformed.0))
}
