//! Locks in Redis: leases by the server's clock, all of a namespace in one slot of a cluster, so that they can be listed.
//!
//! Tokens are the time in microseconds, or one more than the last: so none is given twice, and none that is smaller than an
//! earlier one, even after the server has lost what it knew. Whether a lease itself survives the end of Redis is up to its
//! log; a failover may give a lock to a second holder while the first still believes to have it. That is what the token is
//! for: tables refuse the older one.

use std::time::Duration;

use async_trait::async_trait;
use redis::Value;

use super::{
    Store,
    reply::{Reply, number, unexpected},
    request::Request,
    script::{self, Script},
    span_ms,
};
use crate::{
    error::Error,
    locks::{LIST_MAX, Lease, Locks, Page, Token},
    rules::{check_lease, check_lock, key_range},
};

#[async_trait]
impl Locks for Store {
    async fn acquire(&self, name: &str, holder: &str, lease: Duration) -> Result<Option<Lease>, Error> {
        check_lock(name)?;
        check_lock(holder)?;
        check_lease(lease)?;
        let request = self.lock_request(&script::ACQUIRE, name);
        let request = request.arg(holder.to_owned()).number(span_ms(lease)).number(super::nonce()?);
        found(self.router.run(&request).await?)
    }

    async fn renew(&self, name: &str, token: Token, lease: Duration) -> Result<Option<Lease>, Error> {
        check_lock(name)?;
        check_lease(lease)?;
        let request = self.lock_request(&script::LOCK_RENEW, name).number(token).number(span_ms(lease));
        found(self.router.run(&request).await?)
    }

    async fn release(&self, name: &str, token: Token) -> Result<bool, Error> {
        check_lock(name)?;
        let request = self.lock_request(&script::RELEASE, name).number(token);
        Ok(number(&self.router.run(&request).await?)? == 1)
    }

    async fn look(&self, name: &str) -> Result<Option<Lease>, Error> {
        check_lock(name)?;
        found(self.router.run(&self.lock_request(&script::LOOK, name)).await?)
    }

    async fn list(&self, after: Option<&str>, most: usize) -> Result<Page, Error> {
        let most = if most == 0 { LIST_MAX } else { most.min(LIST_MAX) };
        let (first, end) = key_range("", after);
        let request = self.request(&script::LOCK_LIST, self.keys.locks()).arg(first).arg(end).number(most);
        let mut reply = Reply::list(self.router.run(&request).await?)?;
        let mut leases = Vec::with_capacity(reply.len());
        while reply.len() > 0 {
            leases.push(lease(reply.next_list()?)?);
        }
        let has_more = leases.len() > most;
        leases.truncate(most);
        let next = leases.last().filter(|_| has_more).map(|last| last.name.clone());
        Ok(Page { leases, next })
    }

    fn portable(&self) -> Option<&dyn crate::portable::Portable> {
        Some(self)
    }
}

impl Store {
    fn lock_request(&self, script: &'static Script, name: &str) -> Request {
        self.request(script, self.keys.locks()).arg(name.to_owned())
    }
}

fn found(value: Value) -> Result<Option<Lease>, Error> {
    match value {
        Value::Nil => Ok(None),
        value => lease(Reply::list(value)?).map(Some),
    }
}

fn lease(mut reply: Reply) -> Result<Lease, Error> {
    Ok(Lease {
        name: reply.text()?,
        holder: reply.text()?,
        token: reply.revision()?.ok_or_else(|| unexpected("a token"))?,
        expires_at: reply.number()?,
    })
}
