//! `/v1/tables` and `/v1/batch`: rows one by one as raw bytes, or several at once as JSON.

use std::{borrow::Cow, sync::Arc, time::Duration};

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{
    App,
    access::Visitor,
    body::Upload,
    direct::{Answering, Plain, Reply},
    json, precondition,
    precondition::Verdict,
    problem::Problem,
    query::{Query, Segments, SegmentsAndUri},
};
use crate::{
    Revision,
    error::Error,
    grant::{Asked, Resource},
    locks::FENCES_TABLE,
    revocations,
    tables::{Action, Condition, Outcome, Row, Scan, VALUE_BYTES_MAX, Write},
    wire,
};

/// The media type of a value.
const OCTETS: &str = "application/octet-stream";
/// Most bytes of the body of an increment.
pub(super) const INCREMENT_BODY_BYTES_MAX: u64 = 4 << 10;

/// `GET /v1/tables/{table}/{key}`
pub(super) async fn get(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Segments((table, key)): Segments<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let kept = match visitor.view_of(&table)? {
        Some(realm) => revocations::kept(&realm, &key).map(Cow::Owned),
        None => Some(Cow::Borrowed(&*key)),
    };
    let row = match kept {
        Some(kept) => app.engines.tables.get(&table, &kept).await?,
        None => None,
    };
    let row = row.ok_or_else(|| Problem::absent("row"))?;
    match precondition::of_read(&headers, &row.revision.to_string(), None)? {
        Verdict::Send => {}
        Verdict::NotModified => {
            return Ok(revised(StatusCode::NOT_MODIFIED, row.revision).into_response());
        }
        Verdict::Failed => {
            let found = Some(row.revision);
            return Err(Problem::precondition(Error::Conflict { index: 0, key, found }));
        }
    }
    let mut response = Response::new(row.value.into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(OCTETS));
    headers.insert(header::ETAG, etag(row.revision));
    if let Some(expires_at) = row.expires_at {
        headers.insert(HeaderName::from_static(wire::EXPIRES_AT), HeaderValue::from(expires_at));
    }
    Ok(response)
}

/// `PUT /v1/tables/{table}/{key}?ttl_ms=`
pub(super) async fn put(
    State(app): State<Arc<App>>,
    SegmentsAndUri((table, key), uri): SegmentsAndUri<(String, String)>,
    headers: HeaderMap,
    upload: Upload,
) -> Result<Response, Problem> {
    let ttl = Query::parse(&uri, &["ttl_ms"])?.number("ttl_ms")?.map(Duration::from_millis);
    let condition = precondition::of_row(&headers)?;
    let body = upload.buffer(&app.buffers, "a value", VALUE_BYTES_MAX as u64).await?;
    let action = Action::Put { value: body.bytes.clone(), ttl };
    match write(&app, &headers, Write { table, key, condition, action }).await? {
        Outcome::Put { revision } => Ok(revised(StatusCode::NO_CONTENT, revision).into_response()),
        other => Err(mismatched(other)),
    }
}

/// `GET` of a row without a condition, for [`super::direct`].
pub(super) fn get_direct(app: &Arc<App>, call: Plain) -> Answering {
    let tables = Arc::clone(&app.engines.tables);
    Answering::Later(Box::pin(async move {
        let row = tables.get(call.name(0), call.name(1)).await?.ok_or_else(|| Problem::absent("row"))?;
        Ok(Reply {
            content_type: Some(OCTETS),
            revision: Some(row.revision),
            expires_at: row.expires_at,
            body: row.value,
            ..Reply::empty(StatusCode::OK)
        })
    }))
}

/// `PUT` of a row without a condition and an end, for [`super::direct`]. What has a place in a frame is no longer than a value.
pub(super) fn put_direct(app: &Arc<App>, call: Plain) -> Answering {
    let app = Arc::clone(app);
    Answering::Later(Box::pin(async move {
        let (table, key) = (call.name(0).to_owned(), call.name(1).to_owned());
        let action = Action::Put { value: call.body, ttl: None };
        let write = Write { table, key, condition: Condition::Any, action };
        match self::write(&app, &HeaderMap::new(), write).await? {
            Outcome::Put { revision } => {
                Ok(Reply { revision: Some(revision), ..Reply::empty(StatusCode::NO_CONTENT) })
            }
            other => Err(mismatched(other)),
        }
    }))
}

/// `DELETE /v1/tables/{table}/{key}`
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Segments((table, key)): Segments<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let condition = precondition::of_row(&headers)?;
    match write(&app, &headers, Write { table, key, condition, action: Action::Delete }).await? {
        Outcome::Deleted { existed } => Ok(super::deleted(existed)),
        other => Err(mismatched(other)),
    }
}

/// `POST /v1/tables/{table}/{key}/increment`
pub(super) async fn increment(
    State(app): State<Arc<App>>,
    Segments((table, key)): Segments<(String, String)>,
    headers: HeaderMap,
    upload: Upload,
) -> Result<Response, Problem> {
    let condition = precondition::of_row(&headers)?;
    let body = upload.buffer(&app.buffers, "the body of an increment", INCREMENT_BODY_BYTES_MAX).await?;
    let wire::Increment { by, ttl_ms } = body.json()?;
    let action = Action::Increment { by, ttl: ttl_ms.map(Duration::from_millis) };
    match write(&app, &headers, Write { table, key, condition, action }).await? {
        Outcome::Incremented { value, revision } => {
            Ok(json(StatusCode::OK, &wire::Incremented { value, revision }))
        }
        other => Err(mismatched(other)),
    }
}

/// `GET /v1/tables/{table}?prefix=&after=&limit=`
pub(super) async fn scan(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    SegmentsAndUri(table, uri): SegmentsAndUri<String>,
) -> Result<Response, Problem> {
    let query = Query::parse(&uri, &["prefix", "after", "limit"])?;
    let scan = Scan {
        prefix: query.text("prefix").unwrap_or_default().into(),
        after: query.text("after").map(Into::into),
        limit: query.number("limit")?.unwrap_or(0),
    };
    let page = match visitor.view_of(&table)? {
        Some(realm) => revocations::scan(&*app.engines.tables, &realm, &scan).await?,
        None => app.engines.tables.scan(&table, &scan).await?,
    };
    let rows = page.rows.iter().map(|row| {
        let (value, encoding) = wire::Encoding::of(&row.value);
        let Row { key, revision, expires_at, .. } = row;
        wire::Row { key: Cow::Borrowed(key), value, encoding, revision: *revision, expires_at: *expires_at }
    });
    let answer = wire::Page { rows: rows.collect(), next: page.next.as_deref().map(Cow::Borrowed) };
    Ok(json(StatusCode::OK, &answer))
}

/// `POST /v1/batch`
pub(super) async fn batch(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    upload: Upload,
) -> Result<Response, Problem> {
    let body = upload.buffer(&app.buffers, "the body of a batch", wire::BATCH_BODY_BYTES_MAX).await?;
    let batch: wire::Batch<'static> = body.json()?;
    let writes = batch.writes.into_iter().enumerate().map(|(index, write)| read_write(index, write));
    let writes: Vec<Write> = writes.collect::<Result<_, _>>()?;
    writes.iter().try_for_each(|write| may_write(&visitor, write))?;
    let outcomes = app.engines.tables.apply(writes).await?;
    let outcomes = outcomes.into_iter().map(Into::into).collect();
    Ok(json(StatusCode::OK, &wire::Outcomes { outcomes }))
}

fn may_write(visitor: &Visitor, write: &Write) -> Result<(), Error> {
    let is_fence = matches!(write.action, Action::Fence { .. }) && write.table == FENCES_TABLE;
    let key = Some(write.key.as_str());
    match visitor.may(Asked { resource: Resource::Tables, name: &write.table, key, is_read: false }) {
        // A lock comes with its fence.
        Err(_) if is_fence && visitor.may_use(Resource::Locks, &write.key).is_ok() => Ok(()),
        allowed => allowed,
    }
}

/// Reads one write of a batch. A member that its action has no use for is refused rather than ignored.
fn read_write(index: usize, write: wire::Write<'_>) -> Result<Write, Error> {
    let wire::Write { table, key, action, value, encoding, by, token, ttl_ms, condition } = write;
    let refuse = |text: String| Err(Error::Invalid(format!("writes[{index}], to `{key}`: {text}")));
    let (takes_value, takes_by, takes_ttl) = match action {
        wire::Action::Put => (true, false, true),
        wire::Action::Increment => (false, true, true),
        wire::Action::Delete | wire::Action::Check | wire::Action::Fence => (false, false, false),
    };
    for (member, given, taken) in [
        ("value", value.is_some(), takes_value),
        ("encoding", encoding.is_some(), takes_value),
        ("by", by.is_some(), takes_by),
        ("token", token.is_some(), action == wire::Action::Fence),
        ("ttl_ms", ttl_ms.is_some(), takes_ttl),
    ] {
        if given && !taken {
            return refuse(format!("this action takes no `{member}`"));
        }
    }
    let ttl = ttl_ms.map(Duration::from_millis);
    let action = match action {
        wire::Action::Put => {
            let Some(value) = value else { return refuse("the action put needs a `value`".into()) };
            match encoding.unwrap_or_default().decode(value.into_owned()) {
                Ok(value) => Action::Put { value, ttl },
                Err(error) => return refuse(format!("its value is not base64: {error}")),
            }
        }
        wire::Action::Delete => Action::Delete,
        wire::Action::Increment => Action::Increment { by: by.unwrap_or(1), ttl },
        wire::Action::Check => Action::Check,
        wire::Action::Fence => match token {
            Some(token) => Action::Fence { token },
            None => return refuse("the action fence needs the `token` of a lease".into()),
        },
    };
    let condition = Condition::from(condition);
    Ok(Write { table: table.into_owned(), key: key.into_owned(), condition, action })
}

async fn write(app: &App, headers: &HeaderMap, write: Write) -> Result<Outcome, Problem> {
    let outcomes = app.engines.tables.apply(vec![write]).await.map_err(|error| {
        if precondition::is_conditional(headers) { Problem::precondition(error) } else { error.into() }
    })?;
    outcomes
        .into_iter()
        .next()
        .ok_or_else(|| Error::Engine("the engine gave no outcome for a write".into()).into())
}

fn mismatched(outcome: Outcome) -> Problem {
    Error::Engine(format!("the engine gave the outcome {outcome:?} for another action").into()).into()
}

fn etag(revision: Revision) -> HeaderValue {
    // Digits in quotes always make a header value.
    HeaderValue::from_maybe_shared(Bytes::from(format!("\"{revision}\"")))
        .unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

fn revised(status: StatusCode, revision: Revision) -> (StatusCode, [(HeaderName, HeaderValue); 1]) {
    (status, [(header::ETAG, etag(revision))])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: Result<Action, &str>) {
        let write = serde_json::from_str(json)
            .map_err(|error| error.to_string())
            .and_then(|write| read_write(3, write).map_err(|error| error.to_string()));
        match (write, expected) {
            (Ok(write), Ok(action)) => assert_eq!(write.action, action, "{json}"),
            (Err(text), Err(part)) => assert!(text.contains(part), "{json}: {text}"),
            (write, expected) => panic!("{json}: {write:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn writes_take_what_their_action_needs() {
        let put = |value: &'static [u8], ttl| Action::Put { value: Bytes::from_static(value), ttl };
        check(r#"{"table":"t","key":"k","action":"put","value":"v"}"#, Ok(put(b"v", None)));
        check(
            r#"{"table":"t","key":"k","action":"put","value":"/w==","encoding":"base64","ttl_ms":5}"#,
            Ok(put(b"\xff", Some(Duration::from_millis(5)))),
        );
        check(r#"{"table":"t","key":"k","action":"increment"}"#, Ok(Action::Increment { by: 1, ttl: None }));
        check(r#"{"table":"t","key":"k","action":"delete"}"#, Ok(Action::Delete));
        check(r#"{"table":"t","key":"k","action":"fence","token":7}"#, Ok(Action::Fence { token: 7 }));
        check(r#"{"table":"t","key":"k","action":"fence"}"#, Err("the action fence needs the `token`"));
        check(r#"{"table":"t","key":"k","action":"fence","token":7,"ttl_ms":5}"#, Err("takes no `ttl_ms`"));
        check(r#"{"table":"t","key":"k","action":"put","value":"v","token":7}"#, Err("takes no `token`"));
        check(r#"{"table":"t","key":"k","action":"put"}"#, Err("writes[3], to `k`: the action put needs"));
        check(r#"{"table":"t","key":"k","action":"delete","value":"v"}"#, Err("takes no `value`"));
        check(r#"{"table":"t","key":"k","action":"check","by":1}"#, Err("takes no `by`"));
        check(r#"{"table":"t","key":"k","action":"put","value":"?","encoding":"base64"}"#, Err("not base64"));
        check(r#"{"table":"t","key":"k","action":"put","value":"v","ttl":5}"#, Err("unknown field `ttl`"));
        check(r#"{"table":"t","key":"k","action":"drop"}"#, Err("unknown variant `drop`"));
    }
}
