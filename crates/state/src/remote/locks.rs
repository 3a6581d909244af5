//! Locks over the state API.

use std::{borrow::Cow, time::Duration};

use async_trait::async_trait;
use http::Method;

use super::{
    Remote,
    call::{Answer, Call, Target},
    problem,
};
use crate::{
    error::Error,
    locks::{Lease, Locks, NAME_BYTES_MAX, Page, Token},
    wire::{self, locks::Acquire},
};

#[async_trait]
impl Locks for Remote {
    async fn acquire(&self, name: &str, holder: &str, lease: Duration) -> Result<Option<Lease>, Error> {
        let body = Acquire { holder: Cow::Borrowed(holder), lease_ms: wire::millis(lease) };
        let call = Call::new(Method::POST, lock(name)?.then("/acquire"))?.json(&body)?;
        unless(self.pool.call(&call).await?, wire::locks::HELD)
    }

    async fn renew(&self, name: &str, token: Token, lease: Duration) -> Result<Option<Lease>, Error> {
        let body = wire::locks::Renew { token, lease_ms: wire::millis(lease) };
        let call = Call::new(Method::POST, lock(name)?.then("/renew"))?.json(&body)?;
        unless(self.pool.call(&call).await?, wire::locks::LOST)
    }

    async fn release(&self, name: &str, token: Token) -> Result<bool, Error> {
        let call =
            Call::new(Method::POST, lock(name)?.then("/release"))?.json(&wire::locks::Release { token })?;
        let wire::locks::Released { released } = self.pool.call(&call).await?.done()?.json()?;
        Ok(released)
    }

    async fn look(&self, name: &str) -> Result<Option<Lease>, Error> {
        let answer = self.pool.call(&Call::new(Method::GET, lock(name)?)?).await?;
        match answer.done() {
            Ok(answer) => answer.json().map(Some),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn list(&self, after: Option<&str>, most: usize) -> Result<Page, Error> {
        let mut target = Target::new("/v1/locks");
        if let Some(after) = after {
            target = target.parameter("after", after);
        }
        if most > 0 {
            target = target.parameter("limit", &most.to_string());
        }
        self.pool.call(&Call::new(Method::GET, target)?).await?.done()?.json()
    }

    fn portable(&self) -> Option<&dyn crate::portable::Portable> {
        Some(self)
    }
}

fn lock(name: &str) -> Result<Target, Error> {
    Target::new("/v1/locks").segment("the name of a lock", name, NAME_BYTES_MAX)
}

/// The lease that was answered; `None` when the answer is the problem `code`.
fn unless(answer: Answer, code: &str) -> Result<Option<Lease>, Error> {
    if !answer.status.is_success() && problem::code(&answer.body).as_deref() == Some(code) {
        return Ok(None);
    }
    answer.done()?.json().map(Some)
}
