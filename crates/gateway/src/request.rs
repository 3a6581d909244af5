//! One request, from its parsed head to the response: admit → route → header fields → forward → respond.

use std::{convert::Infallible, rc::Rc};

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
    replay::{Upload, discard},
    route::Target,
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
    let target = admit(&mut parts).and_then(|()| route(&core, &parts));
    let (result, id) = match target {
        Ok(target) => {
            let outgoing = outgoing(&core, &client, &target, parts, incoming);
            let result = forward(&core, &client, &target, &outgoing).await;
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
            (Err(failure), sent.unwrap_or_else(|| trace::make(&core.dice).0))
        }
    };
    let response = match result {
        Ok(response) => response,
        Err(failure) => refuse(&core, &client, failure, id),
    };
    core.shard.responded(response.status());
    Ok(response)
}

fn route(core: &Core, parts: &Parts) -> Result<Rc<Target>, Failure> {
    let host = parts.headers.get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    core.route(host, parts.uri.path()).ok_or(Failure::NoRoute)
}

/// The request as workers get it.
fn outgoing(
    core: &Rc<Core>,
    client: &Rc<Client>,
    target: &Target,
    parts: Parts,
    incoming: Incoming,
) -> Outgoing {
    let Parts { method, uri, version, mut headers, .. } = parts;
    let has_body = !incoming.is_end_stream();
    let is_chunked = has_body && incoming.size_hint().exact().is_none();
    let repeatable =
        is_idempotent(&method) || target.route.idempotent || headers.contains_key(headers::IDEMPOTENCY_KEY);
    let mut marks = headers::to_worker(&mut headers, &client.address, is_chunked, &core.dice);
    // A request with a body cannot be upgraded: where its body ends and the new protocol begins would be a guess.
    if marks.upgrade.is_some() && (has_body || version != Version::HTTP_11) {
        marks.upgrade = None;
        headers.remove(http::header::CONNECTION);
        headers.remove(http::header::UPGRADE);
    }
    let upload = has_body.then(|| {
        let kept_bytes_max = core.config().limits.replay_bytes_max;
        Upload::new(incoming, kept_bytes_max, Rc::clone(&core.budget), Rc::clone(client))
    });
    Outgoing { method, uri, headers, upload, id: marks.id, upgrade: marks.upgrade, repeatable }
}

fn refuse(core: &Core, client: &Rc<Client>, failure: Failure, id: HeaderValue) -> Response<Body> {
    client.enter(Phase::Answering);
    if failure.is_unknown() {
        core.shard.unknown.add(1);
        tracing::warn!(?failure, id = ?id, "request failed, outcome unknown");
    }
    if failure.is_shed() {
        core.shard.shed.add(1);
    }
    let mut response = failure.response(Some(&id));
    response.headers_mut().insert(headers::X_REQUEST_ID, id);
    response.map(|body| Body::whole(body, client))
}
