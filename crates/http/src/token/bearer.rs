//! Tokens in the `Authorization` field of an API's requests (RFC 6750).

use axum::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use http::{Extensions, HeaderMap, HeaderValue, Request, StatusCode, header, request::Parts};
use lethe_state::error::Error as StateError;
use tower::{Layer, Service};

use super::{Claims, Issuer, Refusal, keys::Error};
use crate::problem::{Problem, chain};

/// Gives handlers the [`Bearer`] of a token of this issuer.
#[derive(Clone, Debug)]
pub struct BearerLayer(Issuer);

impl BearerLayer {
    /// Takes tokens of this issuer.
    pub fn new(issuer: Issuer) -> Self {
        Self(issuer)
    }
}

impl<S> Layer<S> for BearerLayer {
    type Service = BearerService<S>;

    fn layer(&self, inner: S) -> BearerService<S> {
        BearerService { inner, issuer: self.0.clone() }
    }
}

/// The service that [`BearerLayer`] makes.
#[derive(Clone, Debug)]
pub struct BearerService<S> {
    inner: S,
    issuer: Issuer,
}

impl<S, B> Service<Request<B>> for BearerService<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        request.extensions_mut().insert(self.issuer.clone());
        // What another issuer has said of the token counts no more.
        request.extensions_mut().remove::<Checked>();
        self.inner.call(request)
    }
}

/// What the token of a request says, as an argument of a handler that is for those alone who have one.
///
/// A token that is bound to a cookie ([`Issuer::issue_bound`]) is taken only with it.
///
/// A request without a token, or with one that is refused, is answered with 401 and `WWW-Authenticate`; why it was refused is
/// counted in [`Keys::refusals`](super::Keys::refusals) and not said, but for a token that has expired, which a client may
/// want to renew. When the keys cannot be read: 503.
#[derive(Clone, Debug)]
pub struct Bearer(pub Claims);

impl<S: Send + Sync> FromRequestParts<S> for Bearer {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let Some(issuer) = parts.extensions.get::<Issuer>().cloned() else {
            tracing::error!(
                "a handler takes a Bearer, but the route has no BearerLayer; add one to the router"
            );
            return Err(Problem::internal().into_response());
        };
        let Some(token) = token(&parts.headers) else {
            return Err(unauthorized("Send a token: `Authorization: Bearer …`.", "Bearer", &parts.headers));
        };
        let refuse = |detail, challenge| unauthorized(detail, challenge, &parts.headers);
        match check(&issuer, token, &parts.headers, &mut parts.extensions).await {
            Ok(claims) => Ok(Self(claims)),
            Err(Error::Refused(Refusal::Expired)) => Err(refuse(
                "The token has expired. Get a new one.",
                "Bearer error=\"invalid_token\", error_description=\"expired\"",
            )),
            Err(Error::Refused(_)) => {
                Err(refuse("The token is not valid here. Get a new one.", "Bearer error=\"invalid_token\""))
            }
            Err(Error::State(error)) => {
                tracing::warn!(error = chain(&error), "a token could not be checked");
                Err(Problem::from(&error).response_for(&parts.headers))
            }
        }
    }
}

/// What the issuer has said of the token of a request, for whoever asks again.
#[derive(Clone)]
struct Checked(Result<Claims, Refusal>);

/// Checks the token of a request, once.
async fn check(
    issuer: &Issuer,
    token: &str,
    headers: &HeaderMap,
    extensions: &mut Extensions,
) -> Result<Claims, Error> {
    if let Some(Checked(checked)) = extensions.get() {
        return Ok(checked.clone()?);
    }
    let checked = match issuer.verify_for(token, headers).await {
        Err(Error::State(error)) => return Err(Error::State(error)),
        Err(Error::Refused(refusal)) => Err(refusal),
        Ok(claims) => Ok(claims),
    };
    extensions.insert(Checked(checked.clone()));
    Ok(checked?)
}

/// Whom the token of a request is about, by its issuer and subject, which stay the same when it is renewed. `None` when there is
/// no [`BearerLayer`], no token that is taken there, or one that is about nobody.
pub(crate) async fn subject(parts: &mut Parts) -> Result<Option<(String, String)>, StateError> {
    let Some(issuer) = parts.extensions.get::<Issuer>().cloned() else { return Ok(None) };
    let Some(token) = token(&parts.headers) else { return Ok(None) };
    match check(&issuer, token, &parts.headers, &mut parts.extensions).await {
        Ok(claims) => Ok(claims.sub.map(|subject| (claims.iss, subject))),
        Err(Error::Refused(_)) => Ok(None),
        Err(Error::State(error)) => Err(error),
    }
}

/// The token of a request that has one `Authorization` field with one.
fn token(headers: &HeaderMap) -> Option<&str> {
    let mut fields = headers.get_all(header::AUTHORIZATION).into_iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return None };
    let (scheme, token) = field.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim_matches(' '))
}

fn unauthorized(detail: &str, challenge: &'static str, headers: &HeaderMap) -> Response {
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "A valid token is needed", detail);
    let mut response = problem.response_for(headers);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    response
}
