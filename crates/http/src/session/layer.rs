//! The layer that gives each request its session, and that commits and sets the cookie before the head of the
//! response leaves.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Request, header, request::Parts};
use lethe_state::{
    Millis,
    clock::{Clock, SystemClock},
    revocations,
    sessions::{Lifetime, Sessions},
};
use tower::{Layer, Service};

use super::{
    life::Life,
    pass::Passes,
    vault::{TokenVault, Vault},
    visit::{CookieChange, Shared},
};
use crate::{
    cookie::SessionCookie,
    metrics::{Page, Source},
    problem::Problem,
    revocations::Revocations,
    token::Keys,
};

/// Gives handlers their [`Session`](super::Session).
///
/// The cookie is `__Host-session`; `Secure`; `HttpOnly`; `SameSite=Lax`; `Path=/`. Browsers take and send it
/// over TLS, and over plain HTTP on `localhost` (Safari: not even there). It is gone when the browser ends its own
/// session, see [`persistent`](Self::persistent).
///
/// Where workers keep copies of sessions ([`Sessions::lag`]), a response to a request that has changed its session also sets
/// `__Host-session-written` for four seconds. Requests that bring it read their session from the engine, whichever worker they meet:
/// a visitor sees what they have done.
///
/// A response to a request that has read its session gets `Vary: Cookie` and, unless the handler has set it,
/// `Cache-Control: private, no-cache`; one that sets the cookie gets `Cache-Control: no-store`.
#[derive(Clone)]
pub struct SessionLayer {
    vault: Vault,
    passes: Option<Passes>,
    lifetime: Lifetime,
    cookie: SessionCookie,
    persistent: bool,
    life: Arc<Life>,
}

impl SessionLayer {
    /// Keeps sessions in this engine: `&state` of the `lethe` crate, or any `Arc<dyn Sessions>`.
    pub fn new(engine: impl Into<Arc<dyn Sessions>>) -> Self {
        Self::of(Vault::Stored(engine.into()))
    }

    fn of(vault: Vault) -> Self {
        Self {
            vault,
            passes: None,
            lifetime: Lifetime::default(),
            cookie: SessionCookie::SECURE,
            persistent: false,
            life: Arc::default(),
        }
    }

    /// Keeps sessions in the cookie itself, signed by a key of this ring: no engine is asked, and any worker with the ring
    /// can read it. For little that few change: all of a session must fit into a cookie
    /// ([`COOKIE_TOKEN_BYTES_MAX`](super::COOKIE_TOKEN_BYTES_MAX)); of two requests at once the later answer counts, for all
    /// fields; the user can read it, unless it is [`sealed`](Self::sealed); and a session that was signed out or copied can
    /// be used until it expires, for nobody keeps a list. The idle time is at most the ring's
    /// [`life_max`](crate::token::Turning::life_max).
    pub fn tokens(keys: Keys) -> Self {
        Self::of(Vault::Token(TokenVault { keys, sealed: false }))
    }

    /// Gives signed-in browsers a signed pass of [`PASS_LIFE`](super::PASS_LIFE) beside the session's cookie, by which any worker
    /// knows who the visitor is without asking an engine: for handlers that take [`Who`](super::Who). Sessions are where they were,
    /// and so is all that is promised of them; who goes over to this, or back, signs nobody out.
    ///
    /// A session that is signed out or revoked, through whichever worker or door of the state API, is over at each worker as soon as
    /// that hears of it, and after [`SILENCE_MAX`](lethe_state::feed::SILENCE_MAX) at the latest: a worker that does not hear looks
    /// each session up. The ring's tables must be those of the service's state, where revocations are told. Let the ring have the
    /// service's name: that one comes with the sessions that a service is given.
    ///
    /// # Panics
    /// For sessions that are [in the cookie](Self::tokens): they are nowhere else.
    pub fn hybrid(self, keys: Keys) -> Self {
        let Vault::Stored(sessions) = self.vault else {
            panic!("a session in a cookie cannot be hybrid; begin with `SessionLayer::new(&state)`");
        };
        let tables = Arc::clone(keys.tables());
        let vault = Vault::Stored(revocations::telling(sessions, Arc::clone(&tables)));
        Self { vault, passes: Some(Passes::new(keys, Revocations::new(tables))), ..self }
    }

    /// Encrypts what cookies say of a session, so that its user cannot read it. Of a stored one they say nothing anyway.
    pub fn sealed(mut self) -> Self {
        if let Vault::Token(vault) = &mut self.vault {
            vault.sealed = true;
        }
        Self { passes: self.passes.map(Passes::sealed), ..self }
    }

    /// The revocations that a hybrid layer knows of.
    pub fn revocations(&self) -> Option<&Revocations> {
        self.passes.as_ref().map(Passes::revocations)
    }

    /// For plain HTTP on other hosts than `localhost`: the cookie is `session`, without `Secure`. Whoever is on
    /// the way can then take over a session.
    pub fn insecure_cookies(self) -> Self {
        Self { cookie: self.cookie.insecure(), ..self }
    }

    /// Calls the cookie otherwise: `__Host-NAME`. Two services on one host need two names, on other ports too.
    ///
    /// # Panics
    /// When the name has other characters than letters, digits, `-` and `_`.
    pub fn cookie_name(self, name: &'static str) -> Self {
        Self { cookie: self.cookie.named(name), ..self }
    }

    /// How long new sessions live.
    pub fn lifetime(self, lifetime: Lifetime) -> Self {
        Self { lifetime, ..self }
    }

    /// Lets the cookie survive the end of the browser, with a `Max-Age` up to the absolute end of the session.
    pub fn persistent(self) -> Self {
        Self { persistent: true, ..self }
    }

    /// What became of its sessions since the worker began; all clones of the layer count together.
    pub fn life(&self) -> &Life {
        &self.life
    }
}

impl Source for SessionLayer {
    fn count_on(&self, page: &mut Page) {
        self.life.count_on(page, &self.cookie.full_name());
        if let Some(revocations) = self.revocations() {
            revocations.count_on(page);
        }
    }
}

impl SessionLayer {
    /// Lets the head of a request tell its session, for who only wants to know whose it is and answers nothing itself. It is
    /// loaded when it is first asked for, and nothing of it is written.
    pub fn attend(&self, parts: &mut Parts) {
        let Self { vault, passes, lifetime, cookie, persistent: _, life } = self.clone();
        parts.extensions.insert(Arc::new(Shared::new(vault, passes, lifetime, cookie, life)));
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> SessionService<S> {
        SessionService { inner, layer: self.clone() }
    }
}

/// The service that [`SessionLayer`] makes.
#[derive(Clone)]
pub struct SessionService<S> {
    inner: S,
    layer: SessionLayer,
}

impl<S, B> Service<Request<B>> for SessionService<S>
where
    S: Service<Request<B>, Response: IntoResponse, Future: Send + 'static>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let SessionLayer { vault, passes, lifetime, cookie, persistent, life } = self.layer.clone();
        let shared = Arc::new(Shared::new(vault, passes, lifetime, cookie, life));
        request.extensions_mut().insert(Arc::clone(&shared));
        let accept = request.headers().get(header::ACCEPT).cloned();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?.into_response();
            Ok(finish(response, &shared, accept, persistent).await)
        })
    }
}

/// Commits, and makes of the handler's response the one that leaves.
async fn finish(
    response: Response,
    shared: &Shared,
    accept: Option<HeaderValue>,
    persistent: bool,
) -> Response {
    if !shared.was_read() {
        shared.close();
        return response;
    }
    let mut response = match response.status().is_server_error() {
        true => {
            shared.close();
            response
        }
        false => match shared.commit().await {
            Ok(()) => response,
            Err(error) => {
                let accept = accept.map(|accept| (header::ACCEPT, accept));
                Problem::from(&error).response_for(&accept.into_iter().collect::<HeaderMap>())
            }
        },
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from(header::COOKIE));
    if shared.shall_say_written()
        && let Some(line) = shared.cookie.say_written()
    {
        headers.append(header::SET_COOKIE, line);
    }
    // The session may be under a new id even if the handler or the commit has failed: the browser must know it.
    let lines = cookie_line(shared, persistent).into_iter().chain(shared.pass_line());
    let mut is_told = false;
    for line in lines {
        headers.append(header::SET_COOKIE, line);
        is_told = true;
    }
    if is_told {
        forbid_storing(headers);
    } else if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    }
    response
}

fn cookie_line(shared: &Shared, persistent: bool) -> Option<HeaderValue> {
    match shared.cookie_change() {
        CookieChange::Keep => None,
        CookieChange::Clear => Some(shared.cookie.clear()),
        CookieChange::Set { value, absolute_expires_at } => {
            let age = persistent.then(|| seconds_until(absolute_expires_at));
            shared.cookie.set(&value, age)
        }
    }
}

fn seconds_until(then: Millis) -> u64 {
    whole_seconds(then.saturating_sub(SystemClock.now()))
}

/// To the nearest: a session of an hour has a cookie of an hour, though the engine's clock is a little before or behind
/// this one.
fn whole_seconds(left: Millis) -> u64 {
    u64::try_from(left.saturating_add(500).div_euclid(1000)).unwrap_or(0)
}

/// A stored response with a session cookie would sign its next reader in as somebody else (RFC 9111, section
/// 7.3). Nothing that a handler can say is stricter than `no-store`.
fn forbid_storing(headers: &mut HeaderMap) {
    let says_so = |value: &HeaderValue| {
        value.to_str().is_ok_and(|value| {
            value.split(',').any(|directive| directive.trim().eq_ignore_ascii_case("no-store"))
        })
    };
    if !headers.get_all(header::CACHE_CONTROL).into_iter().any(says_so) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.remove(HeaderName::from_static("expires"));
    }
}

#[cfg(test)]
mod tests {
    use super::whole_seconds;

    #[test]
    fn a_cookie_lives_as_long_as_its_session() {
        for (left, seconds) in
            [(3_600_000, 3600), (3_600_001, 3600), (3_599_999, 3600), (3_600_499, 3600), (499, 0), (-5000, 0)]
        {
            assert_eq!(whole_seconds(left), seconds, "{left}");
        }
    }
}
