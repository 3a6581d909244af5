//! Whose a key is, who does the request, and who has died of it or under it.

use std::{
    env,
    sync::atomic::{AtomicU64, Ordering},
};

use http::{HeaderMap, HeaderName, header, request::Parts};
use lethe_state::{
    error::Error as StateError,
    idempotency::{DISPLACED_MAX, Fingerprint, OWNER_BYTES_MAX, SCOPE_BYTES_MAX},
};
use sha2::{Digest, Sha256};

use crate::{session::Session, token::bearer};

/// Names the workers that are known to have died under this very request. The gateway alone says it: it takes the field
/// away from what clients send.
const LOST_INSTANCE: HeaderName = HeaderName::from_static("lethe-lost-instance");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What keys are unique in unless it is said: the service.
pub(super) fn service() -> String {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    let is_scope = |name: &String| (1..=SCOPE_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed);
    env::var("LETHE_SERVICE").ok().filter(is_scope).unwrap_or_else(|| "service".into())
}

/// Who sent the request, as far as it can be told. Fails when a token cannot be checked just now: somebody who is known by another
/// name the next time would do it twice.
pub(super) async fn identity(
    session: Option<&Session>,
    parts: &mut Parts,
) -> Result<Option<String>, StateError> {
    if let Some(identity) = session.and_then(Session::identity) {
        return Ok(Some(identity));
    }
    if let Some((issuer, subject)) = bearer::subject(parts).await? {
        return Ok(Some(format!("token:{issuer}\0{subject}")));
    }
    Ok(parts.headers.get(header::AUTHORIZATION).map(|credentials| {
        format!("authorization:{}", Fingerprint(Sha256::digest(credentials.as_bytes()).into()))
    }))
}

/// Who does this request here: this worker, for this request. Two attempts at one request by the gateway have the same id
/// of the request, which tells them from all other requests of a worker of that name, on whatever machine.
pub(super) fn of(headers: &HeaderMap) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let instance = env::var("LETHE_INSTANCE").ok().filter(|name| !name.is_empty());
    let instance = instance.unwrap_or_else(|| format!("pid {}", std::process::id()));
    match request_id(headers) {
        Some(id) => attempt(&instance, id),
        None => attempt(&instance, &format!("#{}", COUNT.fetch_add(1, Ordering::Relaxed))),
    }
}

/// The owners that are known to be dead.
pub(super) fn dead(headers: &HeaderMap) -> Vec<String> {
    let Some(id) = request_id(headers) else { return Vec::new() };
    let lines = headers.get_all(LOST_INSTANCE).into_iter().filter_map(|line| line.to_str().ok());
    let names = lines.flat_map(|line| line.split(',')).map(str::trim).filter(|name| !name.is_empty());
    names.take(DISPLACED_MAX).map(|instance| attempt(instance, id)).collect()
}

fn request_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(REQUEST_ID)?.to_str().ok().filter(|id| !id.is_empty())
}

fn attempt(instance: &str, id: &str) -> String {
    let mut owner = format!("{instance} {id}");
    if owner.len() > OWNER_BYTES_MAX || owner.contains('\0') {
        owner = Fingerprint(Sha256::digest(owner.as_bytes()).into()).to_string();
    }
    owner
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        pairs.iter().for_each(|(name, value)| {
            headers.append(*name, value.parse().unwrap());
        });
        headers
    }

    #[test]
    fn the_dead_are_told_by_name_and_request() {
        let sent = headers(&[
            ("x-request-id", "r1"),
            ("lethe-lost-instance", "web-1, web-2"),
            ("lethe-lost-instance", "web-3"),
        ]);
        assert_eq!(dead(&sent), ["web-1 r1", "web-2 r1", "web-3 r1"]);
        assert_eq!(dead(&headers(&[("lethe-lost-instance", "web-1")])), Vec::<String>::new());
        assert!(of(&sent).ends_with(" r1"));
        assert_ne!(of(&headers(&[])), of(&headers(&[])));
        let long = attempt("web-1", &"i".repeat(1000));
        assert_eq!((long.len(), &long), (64, &attempt("web-1", &"i".repeat(1000))));
    }

    #[tokio::test]
    async fn who_sent_a_request_is_told_without_the_secret() {
        let sent = async |fields: &[(&'static str, &str)]| {
            let mut parts = http::Request::new(()).into_parts().0;
            parts.headers = headers(fields);
            identity(None, &mut parts).await.unwrap()
        };
        assert_eq!(sent(&[]).await, None);
        let one = sent(&[("authorization", "Bearer a")]).await;
        assert_ne!(one, sent(&[("authorization", "Bearer b")]).await);
        assert!(!one.unwrap().contains("Bearer"));
    }
}
