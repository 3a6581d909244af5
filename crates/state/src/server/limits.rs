//! `/v1/limits` and `/v1/take`: calls of limits. An answer to a call is 200 whether it was allowed or not; to refuse is what
//! was asked for.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use http::StatusCode;

use super::{
    App,
    access::Visitor,
    body::Upload,
    json,
    problem::Problem,
    query::{Query, Segments, SegmentsAndUri},
};
use crate::{
    grant::Resource,
    limits::Take,
    wire::limits::{self as wire, TAKE_BODY_BYTES_MAX},
};

/// `POST /v1/limits/{limit}/{key}/take`
pub(super) async fn take(
    State(app): State<Arc<App>>,
    Segments((limit, key)): Segments<(String, String)>,
    upload: Upload,
) -> Result<Response, Problem> {
    let body = upload.buffer(&app.buffers, "the body of a call", TAKE_BODY_BYTES_MAX).await?;
    let wire::Take { calls, period_ms, burst, cost } = body.json()?;
    let quota = wire::quota(calls, period_ms, burst);
    let verdict = app.engines.limits.take(&limit, &key, quota, cost).await?;
    Ok(json(StatusCode::OK, &wire::Verdict::from(verdict)))
}

/// `POST /v1/take`
pub(super) async fn take_all(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    upload: Upload,
) -> Result<Response, Problem> {
    let body = upload.buffer(&app.buffers, "the body of a call", TAKE_BODY_BYTES_MAX).await?;
    let wire::Takes { takes } = body.json()?;
    let takes: Vec<Take> = takes.into_iter().map(Into::into).collect();
    takes.iter().try_for_each(|take| visitor.may_use(Resource::Limits, &take.limit))?;
    let verdicts = app.engines.limits.take_all(takes).await?;
    let answer = wire::Verdicts {
        allowed: verdicts.iter().all(|verdict| verdict.allowed),
        verdicts: verdicts.into_iter().map(Into::into).collect(),
    };
    Ok(json(StatusCode::OK, &answer))
}

/// `DELETE /v1/limits/{limit}/{key}`
pub(super) async fn reset(
    State(app): State<Arc<App>>,
    Segments((limit, key)): Segments<(String, String)>,
) -> Result<Response, Problem> {
    Ok(super::deleted(app.engines.limits.reset(&limit, &key).await?))
}

/// `GET /v1/limits/{limit}?after=&limit=`
pub(super) async fn list(
    State(app): State<Arc<App>>,
    SegmentsAndUri(limit, uri): SegmentsAndUri<String>,
) -> Result<Response, Problem> {
    let query = Query::parse(&uri, &["after", "limit"])?;
    let most = query.number("limit")?.unwrap_or(0);
    let page = app.engines.limits.list(&limit, query.text("after"), most).await?;
    Ok(json(StatusCode::OK, &page))
}
