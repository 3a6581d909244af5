//! `/v1/locks`: to take, renew, let go and look at locks.

use std::{sync::Arc, time::Duration};

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
    error::Error,
    grant::{Pattern, Resource},
    locks::{LIST_MAX, Lease, Locks, Page},
    wire,
};

/// Most bytes of a body: a holder's name, of which JSON may write each byte as six, and two numbers.
pub(super) const LOCK_BODY_BYTES_MAX: u64 = 4 << 10;
/// Names such a body in errors.
const LOCK_BODY: &str = "the body for a lock";

/// `POST /v1/locks/{lock}/acquire`
pub(super) async fn acquire(
    State(app): State<Arc<App>>,
    Segments(lock): Segments<String>,
    upload: Upload,
) -> Result<Response, Problem> {
    let body = upload.buffer(&app.buffers, LOCK_BODY, LOCK_BODY_BYTES_MAX).await?;
    let wire::locks::Acquire { holder, lease_ms } = body.json()?;
    let lease = Duration::from_millis(lease_ms);
    match app.engines.locks.acquire(&lock, &holder, lease).await? {
        Some(lease) => Ok(json(StatusCode::OK, &lease)),
        None => Err(Problem::held(&lock)),
    }
}

/// `POST /v1/locks/{lock}/renew`
pub(super) async fn renew(
    State(app): State<Arc<App>>,
    Segments(lock): Segments<String>,
    upload: Upload,
) -> Result<Response, Problem> {
    let body = upload.buffer(&app.buffers, LOCK_BODY, LOCK_BODY_BYTES_MAX).await?;
    let wire::locks::Renew { token, lease_ms } = body.json()?;
    match app.engines.locks.renew(&lock, token, Duration::from_millis(lease_ms)).await? {
        Some(lease) => Ok(json(StatusCode::OK, &lease)),
        None => Err(Problem::lost(&lock, token)),
    }
}

/// `POST /v1/locks/{lock}/release`
pub(super) async fn release(
    State(app): State<Arc<App>>,
    Segments(lock): Segments<String>,
    upload: Upload,
) -> Result<Response, Problem> {
    let body = upload.buffer(&app.buffers, LOCK_BODY, LOCK_BODY_BYTES_MAX).await?;
    let wire::locks::Release { token } = body.json()?;
    let released = app.engines.locks.release(&lock, token).await?;
    Ok(json(StatusCode::OK, &wire::locks::Released { released }))
}

/// `GET /v1/locks/{lock}`
pub(super) async fn look(
    State(app): State<Arc<App>>,
    Segments(lock): Segments<String>,
) -> Result<Response, Problem> {
    let lease = app.engines.locks.look(&lock).await?.ok_or_else(|| Problem::absent("lock that is held"))?;
    Ok(json(StatusCode::OK, &lease))
}

/// `GET /v1/locks?after=&limit=`
pub(super) async fn list(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    SegmentsAndUri((), uri): SegmentsAndUri<()>,
) -> Result<Response, Problem> {
    let query = Query::parse(&uri, &["after", "limit"])?;
    let limit = query.number("limit")?.unwrap_or(0);
    let (locks, after) = (&*app.engines.locks, query.text("after"));
    let page = match visitor.granted(Resource::Locks)? {
        None => locks.list(after, limit).await?,
        Some(patterns) => list_granted(locks, &patterns, after, limit).await?,
    };
    Ok(json(StatusCode::OK, &page))
}

/// The locks that are held among those that `patterns` are for, which are in order; nothing is said of others.
async fn list_granted(
    locks: &dyn Locks,
    patterns: &[Pattern],
    after: Option<&str>,
    most: usize,
) -> Result<Page, Error> {
    let most = if most == 0 { LIST_MAX } else { most.min(LIST_MAX) };
    let mut leases: Vec<Lease> = Vec::new();
    for pattern in patterns {
        let start = pattern.start();
        // The name that is the start itself stands before all that begin with it.
        if !start.is_empty() && after.is_none_or(|after| start > after) {
            leases.extend(locks.look(start).await?);
        }
        let mut from = after.filter(|after| *after > start).unwrap_or(start).to_owned();
        while pattern.exact().is_none() && leases.len() <= most {
            let Page { leases: found, next } =
                locks.list(Some(&*from).filter(|from| !from.is_empty()), most + 1 - leases.len()).await?;
            let count = found.len();
            leases.extend(found.into_iter().take_while(|lease| pattern.has(&lease.name)));
            match next {
                Some(next) if count > 0 && pattern.has(&next) => from = next,
                _ => break,
            }
        }
        if leases.len() > most {
            break;
        }
    }
    let is_more = leases.len() > most;
    leases.truncate(most);
    let next = leases.last().filter(|_| is_more).map(|last| last.name.clone());
    Ok(Page { leases, next })
}
