//! Forms: what a page of the shop posts, and what its links ask. A form that did not arrive well gets a page
//! in the shop's look.

use std::convert::Infallible;

use axum::{
    Form,
    extract::{FromRequest, FromRequestParts, Query, Request, rejection::FormRejection},
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;

use crate::error::Error;

/// The fields of a posted form.
pub struct Posted<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Posted<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        match Form::from_request(request, state).await {
            Ok(Form(fields)) => Ok(Self(fields)),
            Err(rejection) => Err(refused(&rejection)),
        }
    }
}

/// The fields of an address's query. A query that is not as the shop's own links have it reads as empty: a
/// page that is only looked at is never refused for it.
pub struct Asked<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequestParts<S> for Asked<T> {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(Query::try_from_uri(&parts.uri).map(|Query(fields)| fields).unwrap_or_default()))
    }
}

fn refused(rejection: &FormRejection) -> Error {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return Error::TooLarge;
    }
    Error::Form("A field is missing or holds what it cannot. Go back, check it and send it again.".into())
}

/// Where to go after signing in: a page of this shop, or the first one. What a stranger puts into the address
/// must not lead elsewhere (OWASP, "Unvalidated Redirects and Forwards").
pub fn local_path(next: &str) -> &str {
    let mut bytes = next.bytes();
    let local = bytes.next() == Some(b'/') && !matches!(bytes.next(), Some(b'/' | b'\\'));
    let plain = next.len() <= 200 && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if local && plain { next } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_this_shop_are_gone_to() {
        for (next, path) in [
            ("/checkout", "/checkout"),
            ("/products/night-ink?x=1", "/products/night-ink?x=1"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("/a\\b", "/"),
            ("https://evil.example", "/"),
            ("/a\r\nSet-Cookie: x", "/"),
            ("checkout", "/"),
            ("", "/"),
        ] {
            assert_eq!(local_path(next), path, "{next:?}");
        }
    }
}
