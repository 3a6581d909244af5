//! `/v1/idempotency`: keys that are claimed, and the answers that are kept under them. Keys stand in bodies, since they
//! are long and may hold whose they are.

use std::{sync::Arc, time::Duration};

use axum::{extract::State, response::Response};
use http::StatusCode;

use super::{App, body::Upload, json, problem::Problem, query::Segments};
use crate::{
    error::Error,
    idempotency::{ANSWER_BYTES_MAX, Beginning, Begun, Claim, Fingerprint},
    wire::idempotency as wire,
};

/// Most bytes of a body without an answer: a key and the names of owners, of which JSON may write each byte as six.
pub(super) const KEY_BODY_BYTES_MAX: u64 = 64 << 10;
/// Most bytes of a body with an answer: each of its bytes may become six in JSON (`\u0001`), and the rest leaves room for
/// the key and the names of fields.
pub(super) const ANSWER_BODY_BYTES_MAX: u64 = 8 * ANSWER_BYTES_MAX as u64;
/// Names such a body in errors.
const KEY_BODY: &str = "the body for an idempotency key";
/// Names a body with an answer.
const ANSWER_BODY: &str = "the body with an answer";

/// `POST /v1/idempotency/{scope}/begin`
pub(super) async fn begin(
    State(app): State<Arc<App>>,
    Segments(scope): Segments<String>,
    upload: Upload,
) -> Result<Response, Problem> {
    let body = upload.buffer(&app.buffers, KEY_BODY, KEY_BODY_BYTES_MAX).await?;
    let wire::Begin { key, fingerprint, owner, displaces, at_most_once, lease_ms, kept_ms } = body.json()?;
    let beginning = Beginning {
        scope,
        key: key.into_owned(),
        fingerprint: fingerprint.parse::<Fingerprint>()?,
        owner: owner.into_owned(),
        displaces,
        at_most_once,
        lease: Duration::from_millis(lease_ms),
        kept: Duration::from_millis(kept_ms),
    };
    let begun = app.engines.idempotency.begin(beginning).await?;
    let begun = match &begun {
        Begun::Claimed(claim) => wire::Begun::Claimed { token: claim.token },
        Begun::Running(left) => wire::Begun::Running { lease_ms: left.as_millis() as u64 },
        Begun::Answered(answer) => wire::Begun::Answered { answer: answer.into() },
        Begun::Mismatched => wire::Begun::Mismatched,
        Begun::Lost => wire::Begun::Lost,
    };
    Ok(json(StatusCode::OK, &begun))
}

/// `POST /v1/idempotency/{scope}/extend`
pub(super) async fn extend(
    State(app): State<Arc<App>>,
    Segments(scope): Segments<String>,
    upload: Upload,
) -> Result<Response, Problem> {
    let body = upload.buffer(&app.buffers, KEY_BODY, KEY_BODY_BYTES_MAX).await?;
    let wire::Extend { key, token, lease_ms } = body.json()?;
    let claim = Claim { scope, key: key.into_owned(), token };
    Ok(held(app.engines.idempotency.extend(&claim, Duration::from_millis(lease_ms)).await?))
}

/// `POST /v1/idempotency/{scope}/finish`
pub(super) async fn finish(
    State(app): State<Arc<App>>,
    Segments(scope): Segments<String>,
    upload: Upload,
) -> Result<Response, Problem> {
    let body = upload.buffer(&app.buffers, ANSWER_BODY, ANSWER_BODY_BYTES_MAX).await?;
    let wire::Finish { key, token, answer } = body.json()?;
    let answer = answer
        .try_into()
        .map_err(|error| Error::Invalid(format!("a part of the answer is not base64: {error}")))?;
    let claim = Claim { scope, key: key.into_owned(), token };
    Ok(held(app.engines.idempotency.finish(&claim, answer).await?))
}

/// `POST /v1/idempotency/{scope}/abandon`
pub(super) async fn abandon(
    State(app): State<Arc<App>>,
    Segments(scope): Segments<String>,
    upload: Upload,
) -> Result<Response, Problem> {
    let body = upload.buffer(&app.buffers, KEY_BODY, KEY_BODY_BYTES_MAX).await?;
    let wire::Abandon { key, token } = body.json()?;
    let claim = Claim { scope, key: key.into_owned(), token };
    Ok(held(app.engines.idempotency.abandon(&claim).await?))
}

fn held(held: bool) -> Response {
    json(StatusCode::OK, &wire::Held { held })
}
