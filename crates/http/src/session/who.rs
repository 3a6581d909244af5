//! Who the visitor is, for handlers that need no more of the session.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::{
    Error,
    visit::{Current, Shared},
};

/// The user who is signed in; `None` for an anonymous visitor. As an argument of a handler.
///
/// With a [hybrid](super::SessionLayer::hybrid) layer this asks no engine, as long as nothing was revoked that could be of the
/// visitor; what is in the session is loaded when a handler or middleware takes a [`Session`](super::Session). With other
/// layers it is as if the session had been taken. Extraction fails as that of a session does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who(pub Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for Who {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Self::of(parts).await
    }
}

impl Who {
    /// The visitor of the request with this head.
    pub(crate) async fn of(parts: &Parts) -> Result<Self, Error> {
        let shared = parts.extensions.get::<Arc<Shared>>().ok_or(Error::NoLayer)?.clone();
        shared.load_who(parts).await?;
        let visit = shared.visit();
        Ok(Self(match &visit.current {
            Current::Known(user) => user.clone(),
            Current::Live(held) => held.user.clone(),
            Current::Unread | Current::Absent | Current::Ended(_) => None,
        }))
    }
}
