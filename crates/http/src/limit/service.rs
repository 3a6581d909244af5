//! The service that [`LimitLayer`] makes: keys → one question → the handler, or the answer in its place.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Request, StatusCode, request::Parts};
use lethe_state::limits::{Take, Verdict};
use tower::{Layer, Service};

use super::{
    LimitLayer, Outage, Policy, Refusal,
    fields::{self, Standing},
    gate::Away,
};
use crate::{
    problem::{Problem, RETRY_AFTER_S},
    session::{self, Session},
};

/// The service that [`LimitLayer`] makes.
#[derive(Clone)]
pub struct Limited<S> {
    inner: S,
    layer: LimitLayer,
}

impl<S> Layer<S> for LimitLayer {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited { inner, layer: self.clone() }
    }
}

impl<S, B> Service<Request<B>> for Limited<S>
where
    S: Service<Request<B>, Response: IntoResponse, Future: Send> + Clone + Send + 'static,
    B: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that is ready is the one to call; the clone gets ready by itself.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let layer = self.layer.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let standings = match layer.judge(&mut parts).await {
                Judgement::Passed(standings) => standings,
                Judgement::Uncounted => Standings::default(),
                Judgement::Refused(refusal) => return Ok(refusal.response_for(&parts.headers)),
                Judgement::Failed(problem) => return Ok(problem.response_for(&parts.headers)),
            };
            let answer = inner.call(Request::from_parts(parts, body)).await?;
            let mut response = answer.into_response();
            standings.put(response.headers_mut());
            Ok(response)
        })
    }
}

/// What the limits say of a request.
#[derive(Clone, Debug)]
pub enum Judgement {
    /// All allow it, and this is how they stand.
    Passed(Standings),
    /// They cannot be asked, and it passes all the same.
    Uncounted,
    /// One of them refuses it.
    Refused(Refusal),
    /// It is refused because they cannot be asked, or because the layer is not where it must be.
    Failed(Problem),
}

/// How the limits of a request stand that has passed.
#[derive(Clone, Debug, Default)]
pub struct Standings(Vec<Standing>);

impl Standings {
    /// Adds the `RateLimit` fields.
    pub fn put(&self, headers: &mut HeaderMap) {
        fields::put(headers, self.0.iter());
    }
}

impl LimitLayer {
    /// Judges a request by its head, for who is no `tower` service; what passes is counted. Cancellation: a call that is
    /// dropped may have counted.
    pub async fn judge(&self, parts: &mut Parts) -> Judgement {
        let policies = Arc::clone(&self.policies);
        let asked = if policies.iter().any(|policy| policy.key.needs_session()) {
            if !Session::has_layer(parts) {
                return Judgement::Failed(Problem::from(&session::Error::NoLayer));
            }
            self.gate.ask(takes(&policies, parts)).await
        } else {
            // This waits for nothing.
            match takes(&policies, parts).await {
                Ok((takes, _)) if takes.is_empty() => return Judgement::Passed(Standings::default()),
                takes => self.gate.ask(async { takes }).await,
            }
        };
        match asked {
            Ok((verdicts, counted)) => {
                let standings = standings(&policies, &counted, verdicts);
                match standings.iter().all(|standing| standing.verdict.allowed) {
                    true => Judgement::Passed(Standings(standings)),
                    false => Judgement::Refused(Refusal::new(standings)),
                }
            }
            Err(Away) => match self.gate.outage() {
                Outage::Allow => Judgement::Uncounted,
                Outage::Refuse => Judgement::Failed(away()),
            },
        }
    }
}

/// What is to be asked for a request, and which of the policies each is of.
async fn takes(policies: &[Policy], parts: &mut Parts) -> Result<(Vec<Take>, Vec<usize>), session::Error> {
    let (mut takes, mut counted) = (Vec::with_capacity(policies.len()), Vec::with_capacity(policies.len()));
    for (index, policy) in policies.iter().enumerate() {
        if let Some(key) = policy.key.of(parts).await? {
            takes.push(Take { limit: policy.name.to_string(), key, quota: policy.quota, cost: 1 });
            counted.push(index);
        }
    }
    Ok((takes, counted))
}

fn standings(policies: &[Policy], counted: &[usize], verdicts: Vec<Verdict>) -> Vec<Standing> {
    let counted = counted.iter().map(|index| &policies[*index]);
    let standing = |(policy, verdict): (&Policy, Verdict)| Standing {
        name: policy.name.to_string(),
        quota: policy.quota,
        pace: policy.pace,
        verdict,
    };
    counted.zip(verdicts).map(standing).collect()
}

fn away() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "unavailable",
        "Not available right now",
        "A part of this service cannot be reached right now, so nothing was done. Try again in a moment.",
    )
    .retry_after(RETRY_AFTER_S)
}
