//! `/v1/sessions` and `/v1/users`. Session ids are secrets: they stand in paths, and no path is ever logged.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use serde_json::Value;

use super::{
    App, JSON,
    body::Upload,
    direct::{Answering, Plain, Reply},
    json, json_bytes,
    problem::Problem,
    query::Segments,
};
use crate::{
    Revision,
    error::Error,
    sessions::{Change, Patch, SESSION_BYTES_MAX, SessionId},
    wire,
};

/// Most bytes of a body with fields: JSON may write each byte of a field as six (`\u0001`), and the rest
/// leaves room for field names, white space and conditions.
pub(super) const FIELDS_BODY_BYTES_MAX: u64 = 8 * SESSION_BYTES_MAX as u64;
/// Names such a body in errors.
const FIELDS_BODY: &str = "the body of a session";

/// `POST /v1/sessions`
pub(super) async fn create(State(app): State<Arc<App>>, upload: Upload) -> Result<Response, Problem> {
    let body = upload.buffer(&app.buffers, FIELDS_BODY, FIELDS_BODY_BYTES_MAX).await?;
    let new: wire::NewSession = body.json()?;
    let session = app.engines.sessions.create(new.into()).await?;
    Ok(json(StatusCode::CREATED, &wire::Session::from(session)))
}

/// `GET /v1/sessions/{id}`
pub(super) async fn load(
    State(app): State<Arc<App>>,
    Segments(id): Segments<String>,
) -> Result<Response, Problem> {
    let (sessions, id) = (&app.engines.sessions, parse(&id)?);
    let json = match sessions.recall_json(&id) {
        Some(json) => json,
        None => sessions.load_json(&id).await?,
    };
    Ok(json_bytes(StatusCode::OK, json))
}

/// The same, for [`super::direct`].
pub(super) fn load_direct(app: &Arc<App>, call: Plain) -> Answering {
    let id = match parse(call.name(0)) {
        Ok(id) => id,
        Err(error) => return Answering::Now(Err(error.into())),
    };
    let reply = |body| Reply { content_type: Some(JSON), body, ..Reply::empty(StatusCode::OK) };
    if let Some(json) = app.engines.sessions.recall_json(&id) {
        return Answering::Now(Ok(reply(json)));
    }
    let sessions = Arc::clone(&app.engines.sessions);
    Answering::Later(Box::pin(async move { Ok(reply(sessions.load_json(&id).await?)) }))
}

/// `PATCH /v1/sessions/{id}`
pub(super) async fn patch(
    State(app): State<Arc<App>>,
    Segments(id): Segments<String>,
    upload: Upload,
) -> Result<Response, Problem> {
    let body = upload.buffer(&app.buffers, FIELDS_BODY, FIELDS_BODY_BYTES_MAX).await?;
    let wire::Patch { set, remove, expect } = body.json()?;
    let session = app.engines.sessions.patch(&parse(&id)?, changes(set, remove, expect)?).await?;
    Ok(json(StatusCode::OK, &wire::Session::from(session)))
}

/// `POST /v1/sessions/{id}/renew`
pub(super) async fn renew(
    State(app): State<Arc<App>>,
    Segments(id): Segments<String>,
    upload: Upload,
) -> Result<Response, Problem> {
    let body = upload.buffer(&app.buffers, FIELDS_BODY, FIELDS_BODY_BYTES_MAX).await?;
    let wire::Renew { user, set, remove, expect } = body.json()?;
    let patch = changes(set, remove, expect)?;
    let session = app.engines.sessions.renew(&parse(&id)?, user.as_deref(), patch).await?;
    Ok(json(StatusCode::OK, &wire::Session::from(session)))
}

/// `DELETE /v1/sessions/{id}`
pub(super) async fn destroy(
    State(app): State<Arc<App>>,
    Segments(id): Segments<String>,
) -> Result<Response, Problem> {
    // What cannot be an id was never there, which is no error.
    if let Ok(id) = parse(&id) {
        app.engines.sessions.destroy(&id).await?;
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /v1/users/{user}/sessions`
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Segments(user): Segments<String>,
) -> Result<Response, Problem> {
    let sessions = app.engines.sessions.list(&user).await?;
    Ok(json(StatusCode::OK, &wire::SessionList { sessions }))
}

/// `DELETE /v1/users/{user}/sessions`
pub(super) async fn revoke_all(
    State(app): State<Arc<App>>,
    Segments(user): Segments<String>,
) -> Result<Response, Problem> {
    let revoked = app.engines.sessions.revoke(&user, None).await?;
    Ok(json(StatusCode::OK, &wire::Revoked { revoked }))
}

/// `DELETE /v1/users/{user}/sessions/{handle}`
pub(super) async fn revoke(
    State(app): State<Arc<App>>,
    Segments((user, handle)): Segments<(String, String)>,
) -> Result<Response, Problem> {
    let revoked = app.engines.sessions.revoke(&user, Some(&handle)).await?;
    Ok(json(StatusCode::OK, &wire::Revoked { revoked }))
}

/// What cannot be an id belongs to no session.
fn parse(id: &str) -> Result<SessionId, Error> {
    SessionId::parse(id).ok_or(Error::NotFound)
}

fn changes(
    set: BTreeMap<String, Value>,
    remove: Vec<String>,
    mut expect: BTreeMap<String, Revision>,
) -> Result<Patch, Error> {
    let mut changes = BTreeMap::new();
    let wishes = set.into_iter().map(|(name, value)| (name, Some(value)));
    for (name, value) in wishes.chain(remove.into_iter().map(|name| (name, None))) {
        let expect = expect.remove(&name);
        if changes.contains_key(&name) {
            return Err(Error::Invalid(format!(
                "the field `{name}` is changed twice; name it once in `set` or `remove`"
            )));
        }
        changes.insert(name, Change { value, expect });
    }
    match expect.into_keys().next() {
        None => Ok(Patch { changes }),
        Some(name) => Err(Error::Invalid(format!(
            "`if` names the field `{name}`, which neither `set` nor `remove` changes"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch_of(json: &str) -> Result<Patch, Error> {
        let wire::Patch { set, remove, expect } = serde_json::from_str(json).unwrap();
        changes(set, remove, expect)
    }

    #[test]
    fn conditions_go_with_their_fields() {
        let patch = patch_of(r#"{"set":{"a":null,"b":[1]},"remove":["c"],"if":{"a":0,"c":7}}"#).unwrap();
        assert_eq!(patch.changes["a"], Change { value: Some(Value::Null), expect: Some(0) });
        assert_eq!(patch.changes["b"].expect, None);
        assert_eq!(patch.changes["c"], Change { value: None, expect: Some(7) });
    }

    #[test]
    fn contradictions_are_refused() {
        let text = |json| patch_of(json).unwrap_err().to_string();
        assert!(text(r#"{"set":{"a":1},"remove":["a"]}"#).contains("`a` is changed twice"));
        assert!(text(r#"{"set":{"a":1},"if":{"b":1}}"#).contains("`b`, which neither"));
    }
}
