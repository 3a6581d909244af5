//! Limits over the state API. A call is a write: one whose fate is not known is not sent again, since it may have counted.

use std::borrow::Cow;

use async_trait::async_trait;
use http::Method;

use super::{
    Remote,
    call::{Call, Target},
    problem::misunderstood,
};
use crate::{
    error::Error,
    limits::{KEY_BYTES_MAX, LIMIT_NAME_BYTES_MAX, Limits, Page, Quota, Take, Verdict},
    wire::{
        self,
        limits::{NamedTake, TAKE_BODY_BYTES_MAX, Takes, Verdicts},
    },
};

#[async_trait]
impl Limits for Remote {
    async fn take_all(&self, takes: Vec<Take>) -> Result<Vec<Verdict>, Error> {
        let body = Takes { takes: takes.iter().map(take_json).collect() };
        let call = Call::new(Method::POST, Target::new("/v1/take"))?.json(&body)?;
        let (size, max) = (call.body_bytes() as u64, TAKE_BODY_BYTES_MAX);
        if size > max {
            return Err(Error::TooLarge { what: "the body of a call", size, max });
        }
        let answer: Verdicts = self.pool.call(&call).await?.done()?.json()?;
        if answer.verdicts.len() != takes.len() {
            let text = format!("{} verdicts for {} calls", answer.verdicts.len(), takes.len());
            return Err(misunderstood(text));
        }
        Ok(answer.verdicts.into_iter().map(Into::into).collect())
    }

    async fn take(&self, limit: &str, key: &str, quota: Quota, cost: u32) -> Result<Verdict, Error> {
        let Quota { calls, period, burst } = quota;
        let body = wire::limits::Take { calls, period_ms: wire::millis(period), burst: Some(burst), cost };
        let call = Call::new(Method::POST, target(limit, key)?.then("/take"))?.json(&body)?;
        let verdict: wire::limits::Verdict = self.pool.call(&call).await?.done()?.json()?;
        Ok(verdict.into())
    }

    async fn reset(&self, limit: &str, key: &str) -> Result<bool, Error> {
        let call = Call::new(Method::DELETE, target(limit, key)?)?;
        Ok(self.pool.call(&call).await?.done()?.existed())
    }

    async fn list(&self, limit: &str, after: Option<&str>, most: usize) -> Result<Page, Error> {
        let mut target = Target::new("/v1/limits").segment("a limit name", limit, LIMIT_NAME_BYTES_MAX)?;
        if let Some(after) = after {
            target = target.parameter("after", after);
        }
        if most > 0 {
            target = target.parameter("limit", &most.to_string());
        }
        self.pool.call(&Call::new(Method::GET, target)?).await?.done()?.json()
    }
}

fn target(limit: &str, key: &str) -> Result<Target, Error> {
    let target = Target::new("/v1/limits").segment("a limit name", limit, LIMIT_NAME_BYTES_MAX)?;
    target.segment("a key", key, KEY_BYTES_MAX)
}

fn take_json(take: &Take) -> NamedTake<'_> {
    NamedTake {
        limit: Cow::Borrowed(&take.limit),
        key: Cow::Borrowed(&take.key),
        calls: take.quota.calls,
        period_ms: wire::millis(take.quota.period),
        burst: Some(take.quota.burst),
        cost: take.cost,
    }
}
