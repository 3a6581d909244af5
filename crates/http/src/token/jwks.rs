//! The published keys (JWK Set, RFC 7517, section 5; Ed25519 as in RFC 8037), for others who check this service's tokens.

use axum::response::{IntoResponse, Response};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderValue, header};
use serde_json::json;

use super::Keys;
use crate::problem::Problem;

/// Longest time for which others may keep the published keys, in seconds.
const CACHED_S_MAX: u64 = 300;

/// The answer to `GET /.well-known/jwks.json`: the public keys of the ring, those among them that do not sign yet. A ring
/// of `HS256` keys publishes none. It may be kept for half of the time by which new keys are announced, at most 5 minutes.
///
/// ```no_run
/// # use lethe_http::token::{Keys, jwks};
/// # fn app(keys: Keys) -> axum::Router {
/// axum::Router::new().route("/.well-known/jwks.json", axum::routing::get(move || jwks(keys.clone())))
/// # }
/// ```
pub async fn jwks(keys: Keys) -> Response {
    let ring = match keys.ring().await {
        Ok(ring) => ring,
        Err(error) => return Problem::from(&error).into_response(),
    };
    let public = ring.keys.iter().filter_map(|key| {
        let x = BASE64_URL_SAFE_NO_PAD.encode(key.public()?);
        let alg = key.algorithm().name();
        Some(json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": alg, "kid": key.kid, "x": x }))
    });
    let set = json!({ "keys": public.collect::<Vec<_>>() });
    let cached = (keys.turning().ahead.as_secs() / 2).min(CACHED_S_MAX);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json")),
        (
            header::CACHE_CONTROL,
            HeaderValue::try_from(format!("public, max-age={cached}"))
                .unwrap_or(HeaderValue::from_static("no-store")),
        ),
    ];
    (headers, set.to_string()).into_response()
}
