//! `/v1/portable`: all that is kept, as records, for whoever runs `lethe`.

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::StatusCode;

use super::{
    App,
    body::Upload,
    json,
    problem::Problem,
    query::{Query, Segments, SegmentsAndUri},
};
use crate::{
    error::Error,
    portable::{Part, Portable as _, Record, Whole},
    wire,
};

/// `GET /v1/portable/{part}?after=`
pub(super) async fn dump(
    State(app): State<Arc<App>>,
    SegmentsAndUri(part, uri): SegmentsAndUri<String>,
) -> Result<Response, Problem> {
    let (query, part) = (Query::parse(&uri, &["after"])?, part_named(&part)?);
    let page = Whole(app.engines.clone()).dump(part, query.text("after")).await?;
    Ok(json(StatusCode::OK, &page))
}

/// `POST /v1/portable/{part}`
pub(super) async fn restore(
    State(app): State<Arc<App>>,
    Segments(part): Segments<String>,
    upload: Upload,
) -> Result<Response, Problem> {
    let part = part_named(&part)?;
    let body = upload.buffer(&app.buffers, "the body with records", wire::RECORDS_BODY_BYTES_MAX).await?;
    let wire::Records { records } = body.json()?;
    if let Some(other) = records.iter().find(|record: &&Record| record.part() != part) {
        return Err(crate::portable::mixed(other).into());
    }
    Whole(app.engines.clone()).restore(records).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn part_named(name: &str) -> Result<Part, Error> {
    Part::named(name).ok_or_else(|| {
        let parts = Part::ALL.map(Part::name).join(", ");
        Error::Invalid(format!("there is no part `{name}`; there are {parts}"))
    })
}
