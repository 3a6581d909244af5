//! Idempotency keys in Redis: one hash for each, which the server forgets by itself. They are spread over all slots of a
//! cluster.
//!
//! An answer that was acknowledged survives the end of any worker and of `lethe`; of Redis as far as its log does.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    Store,
    reply::{Reply, number, unexpected},
    request::Request,
    script::{self, Script},
    span_ms,
};
use crate::{
    error::Error,
    idempotency::{Answer, Beginning, Begun, Claim, Idempotency, lines, rule},
};

#[async_trait]
impl Idempotency for Store {
    async fn begin(&self, beginning: Beginning) -> Result<Begun, Error> {
        rule::check_beginning(&beginning)?;
        let Beginning { scope, key, fingerprint, owner, displaces, at_most_once, lease, kept } = beginning;
        let token = super::nonce()?;
        let mut request = self
            .request(&script::BEGIN, [self.keys.idempotency(&scope, &key)])
            .number(fingerprint)
            .number(token)
            .arg(owner)
            .number(span_ms(lease))
            .number(span_ms(kept))
            .number(u8::from(at_most_once));
        for dead in displaces {
            request = request.arg(dead);
        }
        let mut reply = Reply::list(self.router.run(&request).await?)?;
        match reply.text()?.as_str() {
            "claimed" => Ok(Begun::Claimed(Claim { scope, key, token })),
            "running" => {
                let left = u64::try_from(reply.number()?).unwrap_or(0);
                Ok(Begun::Running(Duration::from_millis(left)))
            }
            "answered" => {
                let status = u16::try_from(reply.number()?).map_err(|_| unexpected("a status"))?;
                let (fields, body) = (lines::read(&reply.bytes()?), reply.bytes()?);
                Ok(Begun::Answered(Answer { status, fields, body }))
            }
            "mismatched" => Ok(Begun::Mismatched),
            "lost" => Ok(Begun::Lost),
            _ => Err(unexpected("what is known of an idempotency key")),
        }
    }

    async fn extend(&self, claim: &Claim, lease: Duration) -> Result<bool, Error> {
        rule::check_claim(claim)?;
        rule::check_time("a lease", lease)?;
        let request = self.claim_request(&script::EXTEND, claim).number(span_ms(lease));
        Ok(number(&self.router.run(&request).await?)? == 1)
    }

    async fn finish(&self, claim: &Claim, answer: Answer) -> Result<bool, Error> {
        rule::check_claim(claim)?;
        rule::check_answer(&answer)?;
        let request = self
            .claim_request(&script::FINISH, claim)
            .number(super::nonce()?)
            .number(answer.status)
            .arg(lines::write(&answer.fields))
            .arg(answer.body);
        Ok(number(&self.router.run(&request).await?)? == 1)
    }

    async fn abandon(&self, claim: &Claim) -> Result<bool, Error> {
        rule::check_claim(claim)?;
        Ok(number(&self.router.run(&self.claim_request(&script::ABANDON, claim)).await?)? == 1)
    }

    fn portable(&self) -> Option<&dyn crate::portable::Portable> {
        Some(self)
    }
}

impl Store {
    fn claim_request(&self, script: &'static Script, claim: &Claim) -> Request {
        self.request(script, [self.keys.idempotency(&claim.scope, &claim.key)]).number(claim.token)
    }
}
