//! `/v1/sessions` and `/v1/users`. Session ids are secrets: they stand in paths, and no path is ever logged.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::{StatusCode, Uri};
use serde_json::Value;

use super::{
    App, JSON,
    access::Visitor,
    body::Upload,
    direct::{Answering, Plain, Reply},
    json, json_bytes,
    problem::Problem,
    query::{Query, Segments, SegmentsAndUri},
};
use crate::{
    Revision,
    error::Error,
    realm::Realm,
    sessions::{Change, LIST_MAX, Patch, SESSION_BYTES_MAX, SessionId},
    wire,
};

/// Most bytes of a body with fields: JSON may write each byte of a field as six (`\u0001`), and the rest
/// leaves room for field names, white space and conditions.
pub(super) const FIELDS_BODY_BYTES_MAX: u64 = 8 * SESSION_BYTES_MAX as u64;
/// Names such a body in errors.
const FIELDS_BODY: &str = "the body of a session";

/// `POST /v1/sessions`
pub(super) async fn create(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    upload: Upload,
) -> Result<Response, Problem> {
    let body = upload.buffer(&app.buffers, FIELDS_BODY, FIELDS_BODY_BYTES_MAX).await?;
    let mut new: wire::NewSession = body.json()?;
    new.realm = visitor.realm_asked(new.realm)?;
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
    let renewed = app.engines.sessions.renew(&parse(&id)?, user.as_deref(), patch).await?;
    Ok(json(StatusCode::OK, &wire::Session::from(renewed.session)))
}

/// `DELETE /v1/sessions/{id}`
pub(super) async fn destroy(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Segments(id): Segments<String>,
) -> Result<Response, Problem> {
    // What cannot be an id, or is one of others, was never there, which is no error.
    if let Ok(id) = parse(&id) {
        match visitor.may_use_session(&id) {
            Ok(()) => app.engines.sessions.destroy(&id).await?,
            Err(Error::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /v1/users/{user}/sessions?realm=`
pub(super) async fn list(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    SegmentsAndUri(user, uri): SegmentsAndUri<String>,
) -> Result<Response, Problem> {
    let mut sessions = Vec::new();
    for realm in realms(&visitor, &uri)? {
        sessions.extend(app.engines.sessions.list_in(Some(&realm), &user).await?);
    }
    sessions.sort_by_key(|session| Reverse(session.created_at));
    sessions.truncate(LIST_MAX);
    Ok(json(StatusCode::OK, &wire::SessionList { sessions }))
}

/// `DELETE /v1/users/{user}/sessions?realm=`
pub(super) async fn revoke_all(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    SegmentsAndUri(user, uri): SegmentsAndUri<String>,
) -> Result<Response, Problem> {
    end(&app, &realms(&visitor, &uri)?, &user, None).await
}

/// `DELETE /v1/users/{user}/sessions/{handle}?realm=`
pub(super) async fn revoke(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    SegmentsAndUri((user, handle), uri): SegmentsAndUri<(String, String)>,
) -> Result<Response, Problem> {
    end(&app, &realms(&visitor, &uri)?, &user, Some(&handle)).await
}

/// Ends sessions of the users of this name in all of these realms.
async fn end(app: &App, realms: &[Realm], user: &str, handle: Option<&str>) -> Result<Response, Problem> {
    let mut revoked = 0;
    for realm in realms {
        revoked += app.engines.sessions.revoke_in(Some(realm), user, handle).await?;
        if handle.is_some() && revoked > 0 {
            break;
        }
    }
    Ok(json(StatusCode::OK, &wire::Revoked { revoked }))
}

/// The realms that a call about a user is about: the one that it names, that of the socket, or all that are known.
fn realms(visitor: &Visitor, uri: &Uri) -> Result<Vec<Realm>, Error> {
    let asked = Query::parse(uri, &["realm"])?.text("realm").map(Realm::named).transpose()?;
    let one = visitor.realm_asked(asked)?;
    Ok(one.map_or_else(|| visitor.realms().into_iter().collect(), |realm| vec![realm]))
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
