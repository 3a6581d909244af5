//! Caches in Redis: each is four keys in one slot, so that it can be cleared in one step and holds exactly what it has room
//! for. The server forgets a cache by itself when its last entry has ended.

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
    cache::{Begun, Cache, Claim, Entry, Fill, READ_BYTES_MAX, USED_STEP, Usage, rule},
    error::Error,
    feed::{Feed, followers::Topic},
};

/// Most entries that one fill removes to make room, so that no other call waits long behind it. What is over it goes with the
/// next ones.
const EVICTED_MAX: usize = 256;

#[async_trait]
impl Cache for Store {
    async fn begin(&self, cache: &str, key: &str, lease: Duration) -> Result<Begun, Error> {
        rule::check_place(cache, key)?;
        rule::check_lease(lease)?;
        let token = rule::new_token()?;
        let request = self
            .cache_request(&script::CACHE_BEGIN, cache)
            .arg(key.to_owned())
            .number(token)
            .number(span_ms(lease))
            .number(span_ms(USED_STEP));
        let mut reply = Reply::list(self.router.run(&request).await?)?;
        let claim = |reply: &mut Reply| {
            let failures = u32::try_from(reply.number()?).map_err(|_| unexpected("a number of failures"))?;
            Ok::<_, Error>(Claim { cache: cache.to_owned(), key: key.to_owned(), token, failures })
        };
        match reply.text()?.as_str() {
            "fresh" => Ok(Begun::Fresh(entry(&mut reply)?.ok_or_else(|| unexpected("an entry"))?)),
            "stale" => {
                let entry = entry(&mut reply)?.ok_or_else(|| unexpected("an entry"))?;
                let claim = if reply.len() > 0 { Some(claim(&mut reply)?) } else { None };
                Ok(Begun::Stale(entry, claim))
            }
            "missing" => Ok(Begun::Missing(claim(&mut reply)?)),
            "busy" => Ok(Begun::Busy(span(&mut reply)?)),
            _ => Err(unexpected("how a key of a cache stands")),
        }
    }

    async fn extend(&self, claim: &Claim, lease: Duration) -> Result<bool, Error> {
        rule::check_claim(claim)?;
        rule::check_lease(lease)?;
        let request = self.claimed(&script::CACHE_EXTEND, claim).number(span_ms(lease));
        Ok(number(&self.router.run(&request).await?)? == 1)
    }

    async fn fill(&self, claim: &Claim, fill: Fill) -> Result<bool, Error> {
        rule::check_claim(claim)?;
        rule::check_fill(&fill)?;
        let Fill { value, fresh, stale, room } = fill;
        let request = self
            .claimed(&script::CACHE_FILL, claim)
            .number(rule::new_token()?)
            .number(span_ms(fresh))
            .number(span_ms(fresh.saturating_add(stale)))
            .number(u8::from(value.is_some()))
            .arg(value.unwrap_or_default())
            .number(room.entries)
            .number(room.bytes)
            .number(EVICTED_MAX);
        Ok(number(&self.router.run(&request).await?)? == 1)
    }

    async fn abandon(&self, claim: &Claim, pause: Duration) -> Result<bool, Error> {
        rule::check_claim(claim)?;
        rule::check_pause(pause)?;
        let request = self.claimed(&script::CACHE_ABANDON, claim).number(span_ms(pause));
        Ok(number(&self.router.run(&request).await?)? == 1)
    }

    async fn get_many(&self, cache: &str, keys: &[String]) -> Result<Vec<Option<Entry>>, Error> {
        rule::check_keys(cache, keys)?;
        let mut request = self.cache_request(&script::CACHE_GET, cache).number(READ_BYTES_MAX);
        for key in keys {
            request = request.arg(key.clone());
        }
        let mut reply = Reply::list(self.router.run(&request).await?)?;
        let mut entries = Vec::with_capacity(keys.len());
        while reply.len() > 0 {
            entries.push(entry(&mut reply)?);
        }
        Ok(entries)
    }

    async fn remove(&self, cache: &str, key: &str) -> Result<(), Error> {
        rule::check_place(cache, key)?;
        let request = self.cache_request(&script::CACHE_REMOVE, cache).arg(key.to_owned());
        self.router.run(&request).await.map(drop)
    }

    async fn clear(&self, cache: &str) -> Result<(), Error> {
        rule::check_cache(cache)?;
        self.router.run(&self.cache_request(&script::CACHE_CLEAR, cache)).await.map(drop)
    }

    async fn usage(&self, cache: &str) -> Result<Usage, Error> {
        rule::check_cache(cache)?;
        let mut reply =
            Reply::list(self.router.run(&self.cache_request(&script::CACHE_USAGE, cache)).await?)?;
        let mut amount = || u64::try_from(reply.number()?).map_err(|_| unexpected("an amount"));
        Ok(Usage { entries: amount()?, bytes: amount()? })
    }

    async fn follow(&self, cache: &str) -> Result<Feed, Error> {
        rule::check_cache(cache)?;
        self.follow_topic(Topic::Cache(cache.into())).await
    }
}

impl Store {
    fn cache_request(&self, script: &'static Script, cache: &str) -> Request {
        self.request(script, self.keys.cache(cache))
    }

    fn claimed(&self, script: &'static Script, claim: &Claim) -> Request {
        self.cache_request(script, &claim.cache).arg(claim.key.clone()).number(claim.token)
    }
}

/// An entry; `None` where there is none.
fn entry(reply: &mut Reply) -> Result<Option<Entry>, Error> {
    let has_value = match reply.number()? {
        -1 => return Ok(None),
        has_value => has_value == 1,
    };
    let value = Some(reply.bytes()?).filter(|_| has_value);
    Ok(Some(Entry { value, fresh: span(reply)?, left: span(reply)? }))
}

fn span(reply: &mut Reply) -> Result<Duration, Error> {
    u64::try_from(reply.number()?).map(Duration::from_millis).map_err(|_| unexpected("a span of time"))
}
