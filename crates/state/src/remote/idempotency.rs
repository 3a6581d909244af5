//! Idempotency keys over the state API.

use std::{borrow::Cow, time::Duration};

use async_trait::async_trait;
use http::Method;
use serde::Serialize;

use super::{
    Remote,
    call::{Answer as Response, Call, Target},
    problem::misunderstood,
};
use crate::{
    error::Error,
    idempotency::{ANSWER_BYTES_MAX, Answer, Beginning, Begun, Claim, Idempotency, SCOPE_BYTES_MAX},
    wire::{idempotency as wire, millis},
};

#[async_trait]
impl Idempotency for Remote {
    async fn begin(&self, beginning: Beginning) -> Result<Begun, Error> {
        let Beginning { scope, key, fingerprint, owner, displaces, at_most_once, lease, kept } = beginning;
        let body = wire::Begin {
            key: Cow::Borrowed(&key),
            fingerprint: fingerprint.to_string(),
            owner: Cow::Owned(owner),
            displaces,
            at_most_once,
            lease_ms: millis(lease),
            kept_ms: millis(kept),
        };
        let begun: wire::Begun<'static> = self.ask(&scope, "/begin", &body).await?.json()?;
        Ok(match begun {
            wire::Begun::Claimed { token } => Begun::Claimed(Claim { scope, key, token }),
            wire::Begun::Running { lease_ms } => Begun::Running(Duration::from_millis(lease_ms)),
            wire::Begun::Answered { answer } => Begun::Answered(
                answer
                    .try_into()
                    .map_err(|error| misunderstood(format!("an answer that is not base64: {error}")))?,
            ),
            wire::Begun::Mismatched => Begun::Mismatched,
            wire::Begun::Lost => Begun::Lost,
        })
    }

    async fn extend(&self, claim: &Claim, lease: Duration) -> Result<bool, Error> {
        let Claim { scope, key, token } = claim;
        let body = wire::Extend { key: Cow::Borrowed(key), token: *token, lease_ms: millis(lease) };
        self.held(scope, "/extend", &body).await
    }

    async fn finish(&self, claim: &Claim, answer: Answer) -> Result<bool, Error> {
        // The other side would not even read what is much too large.
        let (size, max) = (answer.size() as u64, ANSWER_BYTES_MAX as u64);
        if size > max {
            return Err(Error::TooLarge { what: "the answer", size, max });
        }
        let Claim { scope, key, token } = claim;
        let body = wire::Finish { key: Cow::Borrowed(key), token: *token, answer: (&answer).into() };
        self.held(scope, "/finish", &body).await
    }

    async fn abandon(&self, claim: &Claim) -> Result<bool, Error> {
        let Claim { scope, key, token } = claim;
        self.held(scope, "/abandon", &wire::Abandon { key: Cow::Borrowed(key), token: *token }).await
    }

    fn portable(&self) -> Option<&dyn crate::portable::Portable> {
        Some(self)
    }
}

impl Remote {
    async fn ask(&self, scope: &str, verb: &'static str, body: &impl Serialize) -> Result<Response, Error> {
        let target = Target::new("/v1/idempotency").segment("a scope", scope, SCOPE_BYTES_MAX)?.then(verb);
        self.pool.call(&Call::new(Method::POST, target)?.json(body)?).await?.done()
    }

    async fn held(&self, scope: &str, verb: &'static str, body: &impl Serialize) -> Result<bool, Error> {
        let wire::Held { held } = self.ask(scope, verb, body).await?.json()?;
        Ok(held)
    }
}
