//! Whose session a request is of, for what the gateway asks of a route: those of the state, in the cookies that `lethe_http`
//! sets.

use std::sync::Arc;

use http::request::Parts;
use lethe_http::{cookie::SessionCookie, session::SessionLayer};
use lethe_state::sessions::Sessions;

/// Tells visitors apart.
#[derive(Clone)]
pub(crate) struct Visitors {
    secure: SessionLayer,
    /// For services that are also reached without TLS.
    insecure: SessionLayer,
}

impl Visitors {
    /// Whose sessions this engine has.
    pub(crate) fn new(sessions: Arc<dyn Sessions>) -> Self {
        let secure = SessionLayer::new(sessions);
        Self { insecure: secure.clone().insecure_cookies(), secure }
    }

    /// Lets the head of a request tell its session, which is loaded when it is asked for.
    pub(crate) fn attend(&self, parts: &mut Parts) {
        let has_secure = SessionCookie::SECURE.values(&parts.headers).next().is_some();
        if has_secure { self.secure.attend(parts) } else { self.insecure.attend(parts) }
    }
}
