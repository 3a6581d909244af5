//! One request, from its parsed head to the response: admit → route → header fields → forward → respond.

use std::{convert::Infallible, rc::Rc, time::Instant};

use http::{HeaderValue, Request, Response, Version, request::Parts};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::{
    admit::admit,
    attempt::Outgoing,
    body::Body,
    client::{Client, Phase},
    core::Core,
    forward::forward,
    headers,
    problem::Failure,
    record::{Outcome, Record},
    replay::{Upload, discard},
    route::Target,
    server_timing,
    stats::Protocol,
    trace,
    verdict::is_idempotent,
};

/// Answers one request.
pub(crate) async fn answer(
    core: Rc<Core>,
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    client.enter(Phase::Choosing);
    let (mut parts, incoming) = request.into_parts();
    let record = record(&core, &client, &parts);
    let target = admit(&mut parts).and_then(|()| route(&core, &parts));
    let (result, id) = match target {
        Ok(target) => {
            record.routed(target);
            let outgoing = outgoing(&core, &client, target, parts, incoming, &record);
            let result = forward(&core, &client, target, &outgoing, &record).await;
            if let (Err(failure), Some(upload)) = (&result, &outgoing.upload)
                && *failure != Failure::Slow
            {
                upload.borrow_mut().linger();
            }
            (result, outgoing.id)
        }
        Err(failure) => {
            // Read what is still coming, so that the client gets to read the answer.
            if !incoming.is_end_stream() && !parts.headers.contains_key(http::header::EXPECT) {
                tokio::task::spawn_local(discard(incoming));
            }
            let sent = parts.headers.remove(headers::X_REQUEST_ID).filter(trace::is_sane_id);
            (Err(failure), sent.unwrap_or_else(|| headers::ascii(&trace::make_id(&core.dice))))
        }
    };
    let mut response = match result {
        Ok(response) => {
            if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
                record.end(Outcome::Upgraded);
            } else if !matches!(response.body().size_hint().exact(), None | Some(1..)) {
                record.end(Outcome::Answered);
            }
            response
        }
        Err(failure) => {
            record.end(failure.outcome());
            refuse(&client, failure, id)
        }
    };
    let now = Instant::now();
    if record.target().is_some_and(|target| target.route.server_timing) {
        let mut value = Vec::new();
        server_timing::write(&mut value, &record, now);
        response.headers_mut().append("server-timing", headers::ascii(&value));
    }
    record.responded(response.status(), now);
    Ok(response.map(|body| body.with(record)))
}

fn record(core: &Core, client: &Client, parts: &Parts) -> Rc<Record> {
    let protocol = if parts.version == Version::HTTP_10 { Protocol::Http10 } else { Protocol::Http11 };
    let record = Record::begin(&core.observer, Instant::now(), protocol);
    record.client(client.address.as_bytes(), false);
    let field = |name| parts.headers.get(name).map(HeaderValue::as_bytes);
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let host = field(http::header::HOST).unwrap_or_default();
    record.request(
        parts.method.as_str().as_bytes(),
        host,
        target.as_bytes(),
        field(http::header::USER_AGENT),
    );
    Rc::new(record)
}

fn route<'a>(core: &'a Core, parts: &Parts) -> Result<&'a Rc<Target>, Failure> {
    let host = parts.headers.get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    core.table.find(host, parts.uri.path()).ok_or(Failure::NoRoute)
}

/// The request as workers get it.
fn outgoing(
    core: &Rc<Core>,
    client: &Rc<Client>,
    target: &Target,
    parts: Parts,
    incoming: Incoming,
    record: &Rc<Record>,
) -> Outgoing {
    let Parts { method, uri, version, mut headers, .. } = parts;
    let has_body = !incoming.is_end_stream();
    let is_chunked = has_body && incoming.size_hint().exact().is_none();
    let repeatable =
        is_idempotent(&method) || target.route.idempotent || headers.contains_key(headers::IDEMPOTENCY_KEY);
    let mut marks = headers::to_worker(&mut headers, &client.address, is_chunked, &core.observer, &core.dice);
    record.names(marks.id.as_bytes(), marks.trace);
    // A request with a body cannot be upgraded: where its body ends and the new protocol begins would be a guess.
    if marks.upgrade.is_some() && (has_body || version != Version::HTTP_11) {
        marks.upgrade = None;
        headers.remove(http::header::CONNECTION);
        headers.remove(http::header::UPGRADE);
    }
    let upload = has_body.then(|| {
        let kept_bytes_max = core.config.limits.replay_bytes_max;
        Upload::new(incoming, kept_bytes_max, Rc::clone(&core.budget), Rc::clone(client), record)
    });
    Outgoing { method, uri, headers, upload, id: marks.id, upgrade: marks.upgrade, repeatable }
}

fn refuse(client: &Rc<Client>, failure: Failure, id: HeaderValue) -> Response<Body> {
    client.enter(Phase::Answering);
    if failure.is_unknown() {
        tracing::warn!(?failure, id = ?id, "request failed, outcome unknown");
    }
    let mut response = failure.response(Some(&id));
    response.headers_mut().insert(headers::X_REQUEST_ID, id);
    response.map(|body| Body::whole(body, client))
}
