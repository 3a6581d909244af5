//! One attempt: the request on one connection to one worker, up to a response that can be given to the client.

use std::{rc::Rc, time::Instant};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{CONTENT_TYPE, UPGRADE},
};
use http_body::Body as _;
use hyper::body::Incoming;
use lethe_model::gate::Pass;

use crate::{
    body::{Body, Held, Stream},
    client::{Client, Phase},
    core::Core,
    headers,
    link::Link,
    record::{self, AttemptResult, Record},
    replay::{RequestBody, SharedUpload},
    route::Target,
    service::Upstream,
    upgrade::Tunnel,
    verdict::{Cause, Loss, Stage},
};

/// A request as workers get it, each attempt the same.
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) upload: Option<SharedUpload>,
    pub(crate) id: HeaderValue,
    pub(crate) upgrade: Option<HeaderValue>,
    /// Running it twice is as good as once.
    pub(crate) repeatable: bool,
}

impl Outgoing {
    fn request(&self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::new(self.upload.as_ref()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }

    fn has_upload_left(&self) -> bool {
        self.upload.as_ref().is_some_and(|upload| !upload.borrow().has_ended())
    }
}

/// Sends the request to the worker that was entered by `pass`. Not cancellation safe, and need not be: a dropped
/// attempt closes its connection.
pub(crate) async fn attempt(
    core: &Rc<Core>,
    client: &Rc<Client>,
    target: &Target,
    outgoing: &Outgoing,
    upstream: &Rc<Upstream>,
    pass: Pass,
    record: &Record,
) -> Result<Response<Body>, Loss> {
    let (mut link, response) = send(core, client, target, outgoing, upstream, record).await?;
    record.worker_said(response.status());
    pass.answered();
    let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let (parts, mut incoming) = response.into_parts();
    let mut response = Response::new(());
    *response.status_mut() = parts.status;
    *response.headers_mut() = parts.headers;
    if is_upgrade {
        record.attempt_ended(AttemptResult::Answered);
        return upgraded(client, outgoing, link, pass, response);
    }
    let length = incoming.size_hint().exact();
    let is_sized = length.is_some();
    headers::to_client(response.headers_mut(), is_sized, &outgoing.id);
    let limits = &core.config.limits;
    let body = if incoming.is_end_stream() {
        record.attempt_ended(AttemptResult::Answered);
        settle(core, upstream, outgoing, link).await;
        Body::empty(client)
    } else if length.is_some_and(|length| length <= limits.hold_bytes_max as u64) && !is_events(&response) {
        record.enter(record::Phase::Hold);
        let held = hold(&mut link, &mut incoming, client).await?;
        record.attempt_ended(AttemptResult::Answered);
        settle(core, upstream, outgoing, link).await;
        Body::held(held, client)
    } else {
        Body::stream(
            Stream {
                core: Rc::clone(core),
                upstream: Rc::clone(upstream),
                incoming,
                link: Some(link),
                upload: outgoing.upload.clone(),
                _pass: pass,
            },
            client,
        )
    };
    client.enter(Phase::Answering);
    Ok(response.map(|()| body))
}

/// Sends on an idle connection if there is one that still lives, else on a new one.
async fn send(
    core: &Rc<Core>,
    client: &Client,
    target: &Target,
    outgoing: &Outgoing,
    upstream: &Rc<Upstream>,
    record: &Record,
) -> Result<(Box<Link>, Response<Incoming>), Loss> {
    client.expect(target.route.timeout);
    loop {
        let mut link = match upstream.take_idle() {
            Some(link) => link,
            None => Box::pin(connect(core, client, upstream)).await?,
        };
        let start = Instant::now();
        record.connected(link.reused);
        // hyper does not tell when all is sent.
        record.enter_at(record::Phase::Wait, start);
        client.enter(if outgoing.has_upload_left() { Phase::Uploading } else { Phase::Waiting });
        let answer = link.exchange(outgoing.request(), !outgoing.repeatable, &client.late).await;
        match answer {
            Ok(response) => {
                upstream.answered(start.elapsed());
                return Ok((link, response));
            }
            // The worker had closed this one before; that says nothing about the worker.
            Err(Loss { stage: Stage::Unsent, cause: Cause::Gone }) if link.reused => {
                let replayable = |upload: &SharedUpload| upload.borrow().is_replayable();
                if !outgoing.upload.as_ref().is_none_or(replayable) {
                    return Err(Loss { stage: Stage::Unsent, cause: Cause::Gone });
                }
            }
            // It accepts and closes at once, which is as good as to refuse.
            Err(loss) if loss.stage == Stage::Unsent => {
                upstream.suspect(Instant::now());
                return Err(loss);
            }
            Err(loss) => return Err(loss),
        }
    }
}

async fn connect(core: &Core, client: &Client, upstream: &Upstream) -> Result<Box<Link>, Loss> {
    client.enter(Phase::Choosing);
    Link::connect(upstream.address, &core.config.limits).await.map_err(|error| {
        tracing::debug!(worker = %upstream.instance, %error, "cannot connect");
        upstream.suspect(Instant::now());
        Loss { stage: Stage::Unsent, cause: Cause::Gone }
    })
}

/// Holds a response back until it is whole. Its time begins anew with each piece.
async fn hold(link: &mut Link, incoming: &mut Incoming, client: &Client) -> Result<Held, Loss> {
    let mut held = Held::default();
    loop {
        client.enter(Phase::Waiting);
        let frame = std::future::poll_fn(|cx| match link.poll_body(incoming, cx) {
            std::task::Poll::Pending if client.late.get() => {
                std::task::Poll::Ready(Err(Loss { stage: Stage::Held, cause: Cause::Late }))
            }
            frame => frame.map(Ok),
        });
        match frame.await? {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    held.push(data);
                }
            }
            Some(Err(_)) => return Err(Loss { stage: Stage::Held, cause: Cause::Gone }),
            None => return Ok(held),
        }
        if incoming.is_end_stream() {
            return Ok(held);
        }
    }
}

/// After a whole response: the connection goes to the pool if it can, and what the client still sends goes nowhere.
async fn settle(core: &Core, upstream: &Upstream, outgoing: &Outgoing, mut link: Box<Link>) {
    let reusable = std::future::poll_fn(|cx| std::task::Poll::Ready(link.settle(cx))).await;
    if reusable {
        upstream.put_idle(link, core.config.limits.pool_idle_max);
    }
    if let Some(upload) = &outgoing.upload {
        upload.borrow_mut().linger();
    }
}

/// A 101: the client's connection takes over what follows. One that was not asked for is no answer.
fn upgraded(
    client: &Rc<Client>,
    outgoing: &Outgoing,
    link: Box<Link>,
    pass: Pass,
    mut response: Response<()>,
) -> Result<Response<Body>, Loss> {
    let Some(asked) = &outgoing.upgrade else {
        return Err(Loss { stage: Stage::Sent, cause: Cause::Garbled });
    };
    let protocol = response.headers().get(UPGRADE).unwrap_or(asked).clone();
    headers::to_client(response.headers_mut(), true, &outgoing.id);
    response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, protocol);
    client.tunnel.replace(Some(Tunnel { link, pass }));
    client.enter(Phase::Tunnel);
    Ok(response.map(|()| Body::empty(client)))
}

/// An event stream is never held, whatever length it claims.
fn is_events(response: &Response<()>) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.get(..17).is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"))
}
