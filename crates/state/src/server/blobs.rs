//! `/v1/blobs`: streams in and out, which pass through in pieces and are never held whole.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{
    App,
    body::Upload,
    json, precondition,
    precondition::Verdict,
    problem::Problem,
    query::{Query, Segments, SegmentsAndUri},
    range,
};
use crate::{
    blobs::{Blob, BlobInfo, ByteRange, Condition, Put},
    error::Error,
    locks::Token,
    wire,
};

/// `PUT /v1/blobs/{bucket}/{key}`
pub(super) async fn put(
    State(app): State<Arc<App>>,
    Segments((bucket, key)): Segments<(String, String)>,
    headers: HeaderMap,
    upload: Upload,
) -> Result<Response, Problem> {
    let put = wish(&headers)?;
    if let Some(size) = upload.declared().filter(|size| *size > put.bytes_max) {
        return Err(Error::TooLarge { what: "the blob", size, max: put.bytes_max }.into());
    }
    let blobs = &app.engines.blobs;
    let existed = match put.condition {
        Condition::Absent => false,
        Condition::Etag(_) => true,
        // Only for the status, 200 or 201; that another writer may come in between does no harm.
        Condition::Any => blobs.head(&bucket, &key).await?.is_some(),
    };
    let info = blobs.put(&bucket, &key, upload.into_stream(), put).await.map_err(Problem::precondition)?;
    let status = if existed { StatusCode::OK } else { StatusCode::CREATED };
    let mut response = json(status, &info);
    response.headers_mut().extend(precondition::quoted(&info.etag).map(|etag| (header::ETAG, etag)));
    Ok(response)
}

fn wish(headers: &HeaderMap) -> Result<Put, Error> {
    let condition = precondition::of_blob(headers)?;
    let mut put = Put { condition, fence: fence(headers)?, ..Put::default() };
    if let Some(value) = headers.get(header::CONTENT_TYPE) {
        let text = value.to_str();
        put.content_type =
            text.map_err(|_| Error::Invalid("Content-Type has characters outside of ASCII".into()))?.into();
    }
    Ok(put)
}

/// The fencing token that a write comes with.
fn fence(headers: &HeaderMap) -> Result<Option<Token>, Error> {
    let mut values = headers.get_all(wire::locks::FENCE).into_iter();
    match (values.next().map(|value| value.to_str().ok().and_then(|text| text.parse().ok())), values.next()) {
        (None, _) => Ok(None),
        (Some(Some(token)), None) => Ok(Some(token)),
        _ => Err(Error::Invalid("Lethe-Fence is not one fencing token, a whole number such as 7".into())),
    }
}

/// `HEAD /v1/blobs/{bucket}/{key}`
pub(super) async fn head(
    State(app): State<Arc<App>>,
    Segments((bucket, key)): Segments<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let info = app.engines.blobs.head(&bucket, &key).await?.ok_or_else(|| Problem::absent("blob"))?;
    if let Some(answer) = weigh(&headers, &info)? {
        return Ok(answer);
    }
    let mut response = StatusCode::OK.into_response();
    describe(response.headers_mut(), &info);
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(info.size));
    Ok(response)
}

/// `GET /v1/blobs/{bucket}/{key}`
pub(super) async fn get(
    State(app): State<Arc<App>>,
    Segments((bucket, key)): Segments<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let blobs = &app.engines.blobs;
    let wanted = headers.get(header::RANGE).and_then(range::parse);
    let absent = || Problem::absent("blob");
    let mut blob = match blobs.get(&bucket, &key, wanted).await {
        Ok(blob) => blob.ok_or_else(absent)?,
        Err(Error::Invalid(text)) if wanted.is_some() => {
            let info = blobs.head(&bucket, &key).await?.ok_or_else(absent)?;
            if let Some(answer) = weigh(&headers, &info)? {
                return Ok(answer);
            }
            match wanted {
                Some(wanted) if !range::is_outside(wanted, info.size) => {
                    return Err(Error::Invalid(text).into());
                }
                Some(_) if precondition::allows_range(&headers, &info.etag) => {
                    return Err(Problem::unsatisfiable(info.size));
                }
                _ => blobs.get(&bucket, &key, None).await?.ok_or_else(absent)?,
            }
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(answer) = weigh(&headers, &blob.info)? {
        return Ok(answer);
    }
    if wanted.is_some() && !precondition::allows_range(&headers, &blob.info.etag) {
        blob = blobs.get(&bucket, &key, None).await?.ok_or_else(absent)?;
        return Ok(send(blob, None));
    }
    Ok(send(blob, wanted))
}

/// The answer when a condition of the read does not hold, or the reader has the blob already.
fn weigh(headers: &HeaderMap, info: &BlobInfo) -> Result<Option<Response>, Problem> {
    match precondition::of_read(headers, &info.etag, Some(info.modified_at))? {
        Verdict::Send => Ok(None),
        Verdict::NotModified => {
            let mut response = StatusCode::NOT_MODIFIED.into_response();
            describe(response.headers_mut(), info);
            response.headers_mut().remove(header::CONTENT_TYPE);
            Ok(Some(response))
        }
        Verdict::Failed => {
            let key = info.key.clone();
            Err(Problem::precondition(Error::Conflict { index: 0, key, found: None }))
        }
    }
}

fn send(blob: Blob, wanted: Option<ByteRange>) -> Response {
    let Blob { info, range: bytes, body } = blob;
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    describe(headers, &info);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.end - bytes.start));
    // No `Content-Range` can say "no bytes of none": the empty blob is sent as a whole.
    if wanted.is_some() && !bytes.is_empty() {
        headers.extend(range::content_range(&bytes, info.size).map(|value| (header::CONTENT_RANGE, value)));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

fn describe(headers: &mut HeaderMap, info: &BlobInfo) {
    let content_type = HeaderValue::try_from(&info.content_type);
    let fallback = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, content_type.unwrap_or(fallback));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.extend(precondition::quoted(&info.etag).map(|etag| (header::ETAG, etag)));
    headers.extend(precondition::last_modified(info.modified_at).map(|date| (header::LAST_MODIFIED, date)));
    headers.insert(HeaderName::from_static(wire::MODIFIED_AT), HeaderValue::from(info.modified_at));
}

/// `DELETE /v1/blobs/{bucket}/{key}`
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Segments((bucket, key)): Segments<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (condition, fence) = (precondition::of_blob(&headers)?, fence(&headers)?);
    let deleted = app.engines.blobs.delete(&bucket, &key, condition, fence).await;
    let existed = deleted.map_err(Problem::precondition)?;
    Ok(super::deleted(existed))
}

/// `GET /v1/blobs/{bucket}?prefix=&after=&limit=`
pub(super) async fn list(
    State(app): State<Arc<App>>,
    SegmentsAndUri(bucket, uri): SegmentsAndUri<String>,
) -> Result<Response, Problem> {
    let query = Query::parse(&uri, &["prefix", "after", "limit"])?;
    let prefix = query.text("prefix").unwrap_or_default();
    let limit = query.number("limit")?.unwrap_or(0);
    let page = app.engines.blobs.list(&bucket, prefix, query.text("after"), limit).await?;
    Ok(json(StatusCode::OK, &page))
}
