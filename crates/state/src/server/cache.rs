//! `/v1/cache`: values go as raw bytes, and header fields say how their keys stand; several at once are read as JSON.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::{
    App,
    body::Upload,
    json,
    problem::Problem,
    query::{Query, Segments, SegmentsAndUri},
};
use crate::{
    cache::{Begun, Claim, Entry, Fill, Room, VALUE_BYTES_MAX},
    error::Error,
    wire::{Encoding, cache as wire, millis},
};

/// Most bytes of the body of a claim: a few numbers.
pub(super) const CLAIM_BODY_BYTES_MAX: u64 = 4 << 10;
/// Most bytes of the body of a read: keys, of which JSON may write each byte as six.
pub(super) const READ_BODY_BYTES_MAX: u64 = 2 << 20;
/// Names a body about a claim in errors.
const CLAIM_BODY: &str = "the body for a cache";

/// `GET /v1/cache/{cache}/{key}`
pub(super) async fn get(
    State(app): State<Arc<App>>,
    Segments((cache, key)): Segments<(String, String)>,
) -> Result<Response, Problem> {
    let entry = app.engines.cache.get(&cache, &key).await?.ok_or_else(|| Problem::absent("entry"))?;
    Ok(found(entry))
}

/// `POST /v1/cache/{cache}`
pub(super) async fn get_many(
    State(app): State<Arc<App>>,
    Segments(cache): Segments<String>,
    upload: Upload,
) -> Result<Response, Problem> {
    let body = upload.buffer(&app.buffers, "the body of a read", READ_BODY_BYTES_MAX).await?;
    let wire::Read { keys } = body.json()?;
    let entries = app.engines.cache.get_many(&cache, &keys).await?;
    let entries = entries.iter().map(|entry| entry.as_ref().map(entry_json)).collect();
    Ok(json(StatusCode::OK, &wire::Entries { entries }))
}

/// `POST /v1/cache/{cache}/{key}/begin`
pub(super) async fn begin(
    State(app): State<Arc<App>>,
    Segments((cache, key)): Segments<(String, String)>,
    upload: Upload,
) -> Result<Response, Problem> {
    let body = upload.buffer(&app.buffers, CLAIM_BODY, CLAIM_BODY_BYTES_MAX).await?;
    let wire::Begin { lease_ms } = body.json()?;
    let begun = app.engines.cache.begin(&cache, &key, Duration::from_millis(lease_ms)).await?;
    let (mut response, standing, claim) = match begun {
        Begun::Fresh(entry) => (found(entry), wire::FRESH, None),
        Begun::Stale(entry, claim) => (found(entry), wire::STALE, claim),
        Begun::Missing(claim) => (StatusCode::NO_CONTENT.into_response(), wire::MISSING, Some(claim)),
        Begun::Busy(left) => {
            let mut response = StatusCode::NO_CONTENT.into_response();
            tell(&mut response, wire::BUSY_MS, millis(left));
            (response, wire::BUSY, None)
        }
    };
    let name = HeaderName::from_static(wire::STANDING);
    response.headers_mut().insert(name, HeaderValue::from_static(standing));
    if let Some(Claim { token, failures, .. }) = claim {
        tell(&mut response, wire::CLAIM, token);
        tell(&mut response, wire::FAILURES, u64::from(failures));
    }
    Ok(response)
}

/// `POST /v1/cache/{cache}/{key}/extend`
pub(super) async fn extend(
    State(app): State<Arc<App>>,
    Segments((cache, key)): Segments<(String, String)>,
    upload: Upload,
) -> Result<Response, Problem> {
    let body = upload.buffer(&app.buffers, CLAIM_BODY, CLAIM_BODY_BYTES_MAX).await?;
    let wire::Extend { token, lease_ms } = body.json()?;
    let claim = Claim { cache, key, token, failures: 0 };
    Ok(held(app.engines.cache.extend(&claim, Duration::from_millis(lease_ms)).await?))
}

/// `PUT /v1/cache/{cache}/{key}?token=&fresh_ms=&stale_ms=&negative=&entries=&bytes=`
pub(super) async fn fill(
    State(app): State<Arc<App>>,
    SegmentsAndUri((cache, key), uri): SegmentsAndUri<(String, String)>,
    upload: Upload,
) -> Result<Response, Problem> {
    let known = ["token", "fresh_ms", "stale_ms", "negative", "entries", "bytes"];
    let query = Query::parse(&uri, &known)?;
    let needed = |name: &str| {
        let missing = || Error::Invalid(format!("the query parameter `{name}` is needed: a whole number"));
        query.number::<u64>(name)?.ok_or_else(missing)
    };
    let is_negative = match query.text("negative") {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            let text = format!("the query parameter `negative` is `{other}`, expected `true` or `false`");
            return Err(Error::Invalid(text).into());
        }
    };
    let claim = Claim { cache, key, token: needed("token")?, failures: 0 };
    let body = upload.buffer(&app.buffers, "a value", VALUE_BYTES_MAX as u64).await?;
    if is_negative && !body.bytes.is_empty() {
        return Err(Error::Invalid("what is `negative` has no value, and so no body".into()).into());
    }
    let room = Room::default();
    let fill = Fill {
        value: (!is_negative).then(|| body.bytes.clone()),
        fresh: Duration::from_millis(needed("fresh_ms")?),
        stale: Duration::from_millis(query.number("stale_ms")?.unwrap_or(0)),
        room: Room {
            entries: query.number("entries")?.unwrap_or(room.entries),
            bytes: query.number("bytes")?.unwrap_or(room.bytes),
        },
    };
    Ok(held(app.engines.cache.fill(&claim, fill).await?))
}

/// `POST /v1/cache/{cache}/{key}/abandon`
pub(super) async fn abandon(
    State(app): State<Arc<App>>,
    Segments((cache, key)): Segments<(String, String)>,
    upload: Upload,
) -> Result<Response, Problem> {
    let body = upload.buffer(&app.buffers, CLAIM_BODY, CLAIM_BODY_BYTES_MAX).await?;
    let wire::Abandon { token, pause_ms } = body.json()?;
    let claim = Claim { cache, key, token, failures: 0 };
    Ok(held(app.engines.cache.abandon(&claim, Duration::from_millis(pause_ms)).await?))
}

/// `DELETE /v1/cache/{cache}/{key}`
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Segments((cache, key)): Segments<(String, String)>,
) -> Result<StatusCode, Problem> {
    app.engines.cache.remove(&cache, &key).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /v1/cache/{cache}`
pub(super) async fn clear(
    State(app): State<Arc<App>>,
    Segments(cache): Segments<String>,
) -> Result<StatusCode, Problem> {
    app.engines.cache.clear(&cache).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/cache/{cache}`
pub(super) async fn usage(
    State(app): State<Arc<App>>,
    Segments(cache): Segments<String>,
) -> Result<Response, Problem> {
    Ok(json(StatusCode::OK, &app.engines.cache.usage(&cache).await?))
}

fn entry_json(Entry { value, fresh, left }: &Entry) -> wire::Entry<'_> {
    let (value, encoding) = match value.as_deref().map(Encoding::of) {
        Some((value, encoding)) => (Some(value), encoding),
        None => (None, Encoding::default()),
    };
    wire::Entry { value, encoding, fresh_ms: millis(*fresh), left_ms: millis(*left) }
}

/// An entry, with how long it may be used: 200 with its value, or 204 when it says that there is none.
fn found(Entry { value, fresh, left }: Entry) -> Response {
    let mut response = match value {
        Some(value) => {
            let content_type = HeaderValue::from_static("application/octet-stream");
            ([(header::CONTENT_TYPE, content_type)], Body::from(value)).into_response()
        }
        None => StatusCode::NO_CONTENT.into_response(),
    };
    let standing = if fresh.is_zero() { wire::STALE } else { wire::FRESH };
    let name = HeaderName::from_static(wire::STANDING);
    response.headers_mut().insert(name, HeaderValue::from_static(standing));
    tell(&mut response, wire::FRESH_MS, millis(fresh));
    tell(&mut response, wire::LEFT_MS, millis(left));
    response
}

fn tell(response: &mut Response, name: &'static str, number: u64) {
    response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from(number));
}

fn held(held: bool) -> Response {
    json(StatusCode::OK, &wire::Held { held })
}
