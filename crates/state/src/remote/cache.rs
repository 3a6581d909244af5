//! Caches over the state API. What may have been done is done again only where twice is as once: a read, and a removal.

use std::{borrow::Cow, time::Duration};

use async_trait::async_trait;
use http::{Method, StatusCode};

use super::{
    Remote,
    call::{Answer, Call, Target},
    problem::misunderstood,
};
use crate::{
    cache::{
        Begun, CACHE_NAME_BYTES_MAX, Cache, Claim, Entry, Fill, KEY_BYTES_MAX, READ_KEYS_MAX, Usage,
        VALUE_BYTES_MAX,
    },
    error::Error,
    feed::Feed,
    wire::{self, cache},
};

#[async_trait]
impl Cache for Remote {
    async fn begin(&self, cache: &str, key: &str, lease: Duration) -> Result<Begun, Error> {
        let body = cache::Begin { lease_ms: wire::millis(lease) };
        let call = Call::new(Method::POST, entry_target(cache, key)?.then("/begin"))?.json(&body)?;
        let answer = self.pool.call(&call).await?.done()?;
        let claim = match answer.text(cache::CLAIM) {
            Some(_) => {
                let (token, failures) = (number(&answer, cache::CLAIM)?, number(&answer, cache::FAILURES)?);
                let failures = u32::try_from(failures).unwrap_or(u32::MAX);
                Some(Claim { cache: cache.to_owned(), key: key.to_owned(), token, failures })
            }
            None => None,
        };
        match (answer.text(cache::STANDING), claim) {
            (Some(cache::FRESH), None) => Ok(Begun::Fresh(entry(answer)?)),
            (Some(cache::STALE), claim) => Ok(Begun::Stale(entry(answer)?, claim)),
            (Some(cache::MISSING), Some(claim)) => Ok(Begun::Missing(claim)),
            (Some(cache::BUSY), None) => {
                Ok(Begun::Busy(Duration::from_millis(number(&answer, cache::BUSY_MS)?)))
            }
            _ => Err(misunderstood("an answer that does not say how a key of a cache stands".into())),
        }
    }

    async fn extend(&self, claim: &Claim, lease: Duration) -> Result<bool, Error> {
        let body = cache::Extend { token: claim.token, lease_ms: wire::millis(lease) };
        self.ask_claimed(Call::new(Method::POST, claimed(claim)?.then("/extend"))?.json(&body)?).await
    }

    async fn fill(&self, claim: &Claim, fill: Fill) -> Result<bool, Error> {
        let Fill { value, fresh, stale, room } = fill;
        let mut target = claimed(claim)?
            .parameter("token", &claim.token.to_string())
            .parameter("fresh_ms", &wire::millis(fresh).to_string())
            .parameter("stale_ms", &wire::millis(stale).to_string())
            .parameter("entries", &room.entries.to_string())
            .parameter("bytes", &room.bytes.to_string());
        if value.is_none() {
            target = target.parameter("negative", "true");
        }
        let value = value.unwrap_or_default();
        if value.len() > VALUE_BYTES_MAX {
            let (size, max) = (value.len() as u64, VALUE_BYTES_MAX as u64);
            return Err(Error::TooLarge { what: "a value", size, max });
        }
        self.ask_claimed(Call::new(Method::PUT, target)?.bytes(value)).await
    }

    async fn abandon(&self, claim: &Claim, pause: Duration) -> Result<bool, Error> {
        let body = cache::Abandon { token: claim.token, pause_ms: wire::millis(pause) };
        self.ask_claimed(Call::new(Method::POST, claimed(claim)?.then("/abandon"))?.json(&body)?).await
    }

    async fn get_many(&self, cache: &str, keys: &[String]) -> Result<Vec<Option<Entry>>, Error> {
        if keys.len() > READ_KEYS_MAX {
            return Err(Error::Invalid(format!(
                "{} keys at once, expected 1 to {READ_KEYS_MAX}",
                keys.len()
            )));
        }
        let body = cache::Read { keys: Cow::Borrowed(keys) };
        let call = Call::new(Method::POST, cache_target(cache)?)?.json(&body)?.repeatable();
        let cache::Entries { entries } = self.pool.call(&call).await?.done()?.json()?;
        if entries.len() > keys.len() || (entries.is_empty() && !keys.is_empty()) {
            return Err(misunderstood(format!("{} entries for {} keys", entries.len(), keys.len())));
        }
        let read = |entry: cache::Entry<'static>| {
            let value = entry.value.map(|value| entry.encoding.decode(value.into_owned())).transpose();
            Ok(Entry {
                value: value
                    .map_err(|error| misunderstood(format!("a value that is not base64: {error}")))?,
                fresh: Duration::from_millis(entry.fresh_ms),
                left: Duration::from_millis(entry.left_ms),
            })
        };
        entries.into_iter().map(|entry| entry.map(read).transpose()).collect()
    }

    async fn get(&self, cache: &str, key: &str) -> Result<Option<Entry>, Error> {
        let call = Call::new(Method::GET, entry_target(cache, key)?)?;
        match self.pool.call(&call).await?.done() {
            Ok(answer) => entry(answer).map(Some),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn remove(&self, cache: &str, key: &str) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, entry_target(cache, key)?)?.repeatable();
        self.pool.call(&call).await?.done().map(drop)
    }

    async fn clear(&self, cache: &str) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, cache_target(cache)?)?.repeatable();
        self.pool.call(&call).await?.done().map(drop)
    }

    async fn usage(&self, cache: &str) -> Result<Usage, Error> {
        self.pool.call(&Call::new(Method::GET, cache_target(cache)?)?).await?.done()?.json()
    }

    async fn follow(&self, cache: &str) -> Result<Feed, Error> {
        let target = Target::new("/v1/feeds/cache").segment("a cache name", cache, CACHE_NAME_BYTES_MAX)?;
        self.follow_at(target).await
    }
}

impl Remote {
    async fn ask_claimed(&self, call: Call) -> Result<bool, Error> {
        let cache::Held { held } = self.pool.call(&call).await?.done()?.json()?;
        Ok(held)
    }
}

fn cache_target(cache: &str) -> Result<Target, Error> {
    Target::new("/v1/cache").segment("a cache name", cache, CACHE_NAME_BYTES_MAX)
}

fn entry_target(cache: &str, key: &str) -> Result<Target, Error> {
    cache_target(cache)?.segment("a key", key, KEY_BYTES_MAX)
}

fn claimed(claim: &Claim) -> Result<Target, Error> {
    entry_target(&claim.cache, &claim.key)
}

fn entry(answer: Answer) -> Result<Entry, Error> {
    let fresh = Duration::from_millis(number(&answer, cache::FRESH_MS)?);
    let left = Duration::from_millis(number(&answer, cache::LEFT_MS)?);
    let value = (answer.status != StatusCode::NO_CONTENT).then(|| answer.into_value());
    Ok(Entry { value, fresh, left })
}

fn number(answer: &Answer, header: &str) -> Result<u64, Error> {
    let text = answer.text(header).and_then(|text| text.parse().ok());
    text.ok_or_else(|| misunderstood(format!("an answer about a cache without `{header}`")))
}
