//! Requests that are done once, however often they are sent (draft-ietf-httpapi-idempotency-key-header-07): the first
//! answer to a `POST` or `PATCH` with an `Idempotency-Key` is kept in the state tier before it leaves, and given to all
//! later requests with that key.
//!
//! A request goes `begin → claimed → handler → keep → answer`. One that meets a claim is answered with 409, one whose key
//! came with another request with 422, one whose answer is known with that answer. When a worker dies under a request, the
//! gateway sends it to another one and says whose claim counts no more, so that the client sees nothing of it.

mod answer;
mod key;
mod owner;
mod turn;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::TryFutureExt;
use http::{HeaderMap, Method, Request, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
pub use lethe_state::idempotency::ANSWER_BYTES_MAX;
use lethe_state::idempotency::{Answer, Beginning, Begun, Fingerprint, Idempotency};
use tower::{Layer, Service};
use tracing::Instrument;

pub use self::{
    key::{Key, fingerprint},
    turn::Turn,
};
use crate::{
    problem::{Problem, RETRY_AFTER_S},
    session::Session,
};

/// How long an answer is kept unless it is said.
pub const KEPT: Duration = Duration::from_secs(24 * 3600);
/// How long a claim lasts without a sign of life: after a worker's death that nobody has seen, for so long a request is
/// answered with 409.
pub const LEASE: Duration = Duration::from_secs(10);
/// Largest body of a request with a key, in bytes, unless it is said. It is held in memory.
pub const BODY_BYTES_MAX: usize = 2 << 20;
/// Marks an answer that was given before.
pub const REPLAYED: &str = "idempotent-replayed";

/// Does each `POST` and `PATCH` with an `Idempotency-Key` once. Goes inside of
/// [`SessionLayer`](crate::session::SessionLayer) and [`BearerLayer`](crate::token::BearerLayer), if there are:
/// `.layer(IdempotencyLayer::new(&state))` before `.layer(SessionLayer::new(&state))`.
///
/// **Whose key it is.** Keys of different users are different keys: of those who are signed in by a session, by their name;
/// of other visitors by their session in the state; of who has a good token, by its issuer and subject, so that it may be
/// renewed between two tries; else by the `Authorization` field as it is. Credentials of another kind that change are for
/// [`identity`](Self::identity). Requests with none of these share their keys, which then must be hard to guess, such as
/// random UUIDs.
///
/// **What makes a request the same:** its method, path, query, media type and body. The body is read whole for that, up to
/// [`BODY_BYTES_MAX`]; larger ones are refused with 413.
///
/// **What is kept:** status, fields and body of an answer, before its first byte leaves. Not kept are statuses of 500 and
/// above, and those by which nothing was done and the client may come again with the same key: 401, 408, 409, 421, 423,
/// 425, 429; the next request with the key is the first then. Of the fields, those of the connection are not kept (RFC 9110,
/// section 7.6.1), nor `Date`, nor `Set-Cookie`: a secret would lie in the state for as long as the answer, and an old cookie
/// would overwrite a newer one. So a sign-in is nothing for a key: who got only the second answer would not be signed in. An answer over [`ANSWER_BYTES_MAX`], or a stream of events, reaches the first client; later
/// ones get 410, since doing it again would be worse. What the handler has buffered in the session is stored before the answer is kept.
///
/// **When the client goes away**, the handler runs on to its end, so that the client finds the answer when it comes again. It
/// runs in a task of its own for that.
///
/// **What a layer cannot do.** A worker that dies after the handler's effect and before the answer is kept has done it; the
/// request is then done again. A handler that must not do so twice makes its effect in one batch with a row under
/// [`Key::unique`], with `insert`.
#[derive(Clone)]
pub struct IdempotencyLayer {
    engine: Arc<dyn Idempotency>,
    settings: Arc<Settings>,
}

#[derive(Clone)]
struct Settings {
    scope: String,
    required: bool,
    kept: Duration,
    lease: Duration,
    body_bytes_max: usize,
    at_most_once: bool,
    per_host: bool,
    identity: Option<Arc<Identity>>,
}

/// What is to be done with a request that has a key.
pub enum Standing {
    /// It is the first: it is to be done, and its answer to be told.
    First(Turn),
    /// It was answered so.
    Answered(Answer),
}

/// Says whose a request is.
type Identity = dyn Fn(&Parts) -> Option<String> + Send + Sync;

impl IdempotencyLayer {
    /// Keeps keys in this engine: `&state` of the `lethe` crate, or any `Arc<dyn Idempotency>`. They are unique in the
    /// service that `LETHE_SERVICE` names.
    pub fn new(engine: impl Into<Arc<dyn Idempotency>>) -> Self {
        let settings = Settings {
            scope: owner::service(),
            required: false,
            kept: KEPT,
            lease: LEASE,
            body_bytes_max: BODY_BYTES_MAX,
            at_most_once: false,
            per_host: false,
            identity: None,
        };
        Self { engine: engine.into(), settings: Arc::new(settings) }
    }

    /// Refuses a `POST` or `PATCH` without a key, with 400.
    pub fn required(self) -> Self {
        self.with(|settings| settings.required = true)
    }

    /// What keys are unique in, instead of the service: at most 64 lower-case ASCII letters, digits, `-` and `_`.
    pub fn scope(self, scope: &str) -> Self {
        self.with(|settings| settings.scope = scope.to_owned())
    }

    /// How long an answer is kept, instead of [`KEPT`].
    pub fn kept(self, kept: Duration) -> Self {
        self.with(|settings| settings.kept = kept)
    }

    /// How long a claim lasts without a sign of life, instead of [`LEASE`]. A worker gives one after each third of it.
    pub fn lease(self, lease: Duration) -> Self {
        self.with(|settings| settings.lease = lease)
    }

    /// The largest body of a request, instead of [`BODY_BYTES_MAX`].
    pub fn body_bytes_max(self, bytes: usize) -> Self {
        self.with(|settings| settings.body_bytes_max = bytes)
    }

    /// Never does a request a second time whose first run ended without an answer, as when its worker died: it may have done
    /// all of it or nothing. All with that key get 502 with `Lethe-Outcome: unknown` then, for as long as an answer is kept.
    /// For handlers whose effects can be made twice.
    pub fn at_most_once(self) -> Self {
        self.with(|settings| settings.at_most_once = true)
    }

    /// Keys of different hosts are different keys, though the service is one.
    pub fn per_host(self) -> Self {
        self.with(|settings| settings.per_host = true)
    }

    /// Says whose a request is, before what is said of it above: by what stays the same when credentials are renewed, and cannot be
    /// forged. It goes into a hash. `None` leaves it to the layer.
    pub fn identity(self, of: impl Fn(&Parts) -> Option<String> + Send + Sync + 'static) -> Self {
        self.with(|settings| settings.identity = Some(Arc::new(of)))
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }
}

impl<S> Layer<S> for IdempotencyLayer {
    type Service = IdempotencyService<S>;

    fn layer(&self, inner: S) -> IdempotencyService<S> {
        IdempotencyService { inner, layer: self.clone() }
    }
}

/// The service that [`IdempotencyLayer`] makes.
#[derive(Clone)]
pub struct IdempotencyService<S> {
    inner: S,
    layer: IdempotencyLayer,
}

impl<S> Service<Request<Body>> for IdempotencyService<S>
where
    S: Service<Request<Body>, Response: IntoResponse, Error: Send, Future: Send + 'static>
        + Clone
        + Send
        + 'static,
    S::Error: 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that is ready does this request; a clone is left for the next.
        let waiting = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, waiting);
        let layer = self.layer.clone();
        Box::pin(async move { layer.serve(inner, request).await })
    }
}

impl IdempotencyLayer {
    async fn serve<S>(self, mut inner: S, request: Request<Body>) -> Result<Response, S::Error>
    where
        S: Service<Request<Body>, Response: IntoResponse, Error: Send, Future: Send + 'static>
            + Send
            + 'static,
        S::Error: 'static,
    {
        let headers = request.headers().clone();
        let refused = |problem: Problem| Ok(problem.response_for(&headers));
        if ![Method::POST, Method::PATCH].contains(request.method()) {
            return Ok(inner.call(request).await?.into_response());
        }
        let key = match self.key(&headers) {
            Ok(Some(key)) => key,
            Ok(None) => return Ok(inner.call(request).await?.into_response()),
            Err(problem) => return refused(problem),
        };
        let (mut parts, body) = request.into_parts();
        let body = match collect(body, self.settings.body_bytes_max).await {
            Ok(body) => body,
            Err(problem) => return refused(problem),
        };
        let fingerprint = fingerprint(&parts, &body);
        let turn = match self.begin(key, &mut parts, fingerprint).await {
            Ok(Standing::First(turn)) => turn,
            Ok(Standing::Answered(kept)) => return Ok(answer::replay(kept)),
            Err(problem) => return refused(problem),
        };
        let request = Request::from_parts(parts, Body::from(body));
        // In a task of its own, the work goes on when the client leaves.
        let work = turn.take(inner.call(request).map_ok(IntoResponse::into_response));
        match tokio::spawn(work.in_current_span()).await {
            Ok(answered) => answered,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => refused(Problem::internal()),
            },
        }
    }

    /// The key of a request with these fields, if it has one.
    ///
    /// # Errors
    /// If it has none and must have one, or what it has is no key.
    pub fn key(&self, headers: &HeaderMap) -> Result<Option<String>, Problem> {
        match key::read(headers)? {
            None if self.settings.required => Err(key::missing()),
            key => Ok(key),
        }
    }

    /// Finds out what is to be done with the request that has this key and [`fingerprint`]: for who takes requests to where they
    /// are done, instead of doing them. From then on the [`Key`] is in the extensions of its head.
    ///
    /// Not cancellation safe: the claim of one that is dropped lasts for its lease.
    ///
    /// # Errors
    /// With what its sender is to be told, if it is not done.
    pub async fn begin(
        &self,
        key: String,
        parts: &mut Parts,
        fingerprint: Fingerprint,
    ) -> Result<Standing, Problem> {
        // A request of a service without sessions has none.
        let session = match Session::from_request_parts(parts, &()).await {
            Ok(session) => Some(session),
            Err(crate::session::Error::NoLayer) => None,
            Err(error) => return Err(Problem::from(&error)),
        };
        let key = Key::new(key, self.whose(session.as_ref(), parts).await?);
        let Settings { lease, kept, at_most_once, .. } = *self.settings;
        let beginning = Beginning {
            scope: self.settings.scope.clone(),
            key: key.unique().to_owned(),
            fingerprint,
            owner: owner::of(&parts.headers),
            displaces: owner::dead(&parts.headers),
            at_most_once,
            lease,
            kept,
        };
        parts.extensions.insert(key);
        match self.engine.begin(beginning).await {
            Ok(Begun::Claimed(claim)) => {
                Ok(Standing::First(Turn { engine: Arc::clone(&self.engine), claim, lease, session }))
            }
            Ok(Begun::Answered(kept)) => Ok(Standing::Answered(kept)),
            Ok(Begun::Running(_)) => Err(running()),
            Ok(Begun::Mismatched) => Err(mismatched()),
            Ok(Begun::Lost) => Err(lost()),
            Err(error) => Err(Problem::from(&error)),
        }
    }

    /// Who sent the request, as far as it can be told.
    async fn whose(&self, session: Option<&Session>, parts: &mut Parts) -> Result<Option<String>, Problem> {
        let identity = match self.settings.identity.as_ref().and_then(|identity| identity(parts)) {
            Some(identity) => Some(format!("own:{identity}")),
            None => owner::identity(session, parts).await.map_err(|error| Problem::from(&error))?,
        };
        let host = parts.headers.get(header::HOST).filter(|_| self.settings.per_host);
        Ok(match host.and_then(|host| host.to_str().ok()) {
            Some(host) => {
                Some(format!("host:{} {}", host.to_ascii_lowercase(), identity.unwrap_or_default()))
            }
            None => identity,
        })
    }
}

/// Reads a body, if it is not larger than that.
async fn collect(body: Body, max: usize) -> Result<Bytes, Problem> {
    match Limited::new(body, max).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let detail = format!("A request with an Idempotency-Key may have a body of at most {max} bytes.");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large", detail)
                .with("max", max))
        }
        Err(_) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "body-cut",
            "The request is not whole",
            "The body of the request ended early, so nothing was done. Send it again.",
        )),
    }
}

fn running() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "idempotency-running",
        "The request is being done",
        "A request with this Idempotency-Key is being done right now. Send it again in a moment, with the same key, to get \
         its answer.",
    )
    .retry_after(RETRY_AFTER_S)
}

fn mismatched() -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "idempotency-mismatch",
        "The key belongs to another request",
        "This Idempotency-Key came before with another request, so nothing was done. A new request needs a new key.",
    )
}

fn lost() -> Problem {
    Problem::new(
        StatusCode::BAD_GATEWAY,
        "idempotency-unknown",
        "It is not known whether it was done",
        "A request with this Idempotency-Key was interrupted, and it is not known whether it was carried out. It is not done \
         again under this key. Check before you send it with another one.",
    )
    .outcome_unknown()
}

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        match parts.extensions.get::<Self>() {
            Some(key) => Ok(key.clone()),
            None => Err(key::missing().response_for(&parts.headers)),
        }
    }
}

/// Whether a field belongs to one connection, or is written anew with each answer.
fn is_passing(name: &http::HeaderName, headers: &HeaderMap) -> bool {
    const PASSING: [&str; 9] = [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "date",
    ];
    let named = |line: &http::HeaderValue| {
        let mut options = line.to_str().unwrap_or_default().split(',');
        options.any(|option| option.trim().eq_ignore_ascii_case(name.as_str()))
    };
    PASSING.contains(&name.as_str()) || headers.get_all(header::CONNECTION).into_iter().any(named)
}
