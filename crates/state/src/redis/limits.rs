//! Limits in Redis: one number for each key that is not at rest, changed in one round trip and by the server's clock. All
//! limits of a namespace stand in one slot of a cluster, so that several are judged in one step.
//!
//! What is counted survives the end of any worker; of Redis as far as its log does. A key is forgotten when it is at rest.

use async_trait::async_trait;

use super::{
    Store,
    reply::{Reply, number, unexpected},
    script,
};
use crate::{
    clock::whole_millis,
    error::Error,
    limits::{
        KEY_BYTES_MAX, LIMIT_NAME_BYTES_MAX, LIST_MAX, Limits, Page, TAKES_MAX, Take, Usage, Verdict,
        gcra::{self, Micros, Pace},
    },
    rules::{check_key, check_name, key_range},
};

#[async_trait]
impl Limits for Store {
    async fn take_all(&self, takes: Vec<Take>) -> Result<Vec<Verdict>, Error> {
        let paces = check(&takes)?;
        let keys: Vec<_> = takes.iter().flat_map(|take| self.keys.limit(&take.limit)).collect();
        let mut request = self.request(&script::TAKE, keys);
        for (take, pace) in takes.iter().zip(&paces) {
            request = request
                .arg(take.key.clone())
                .number(pace.interval_us())
                .number(pace.window_us())
                .number(pace.burst())
                .number(take.cost);
        }
        let mut reply = Reply::list(self.router.run(&request).await?)?;
        let now = reply.number()?;
        let kept = takes.iter().map(|_| kept(&mut reply)).collect::<Result<Vec<_>, _>>()?;
        Ok(verdicts(&takes, &paces, &kept, now))
    }

    async fn reset(&self, limit: &str, key: &str) -> Result<bool, Error> {
        check_name("limit", limit, LIMIT_NAME_BYTES_MAX)?;
        check_key(key, KEY_BYTES_MAX)?;
        let request = self.request(&script::RESET, self.keys.limit(limit)).arg(key.to_owned());
        Ok(number(&self.router.run(&request).await?)? == 1)
    }

    async fn list(&self, limit: &str, after: Option<&str>, most: usize) -> Result<Page, Error> {
        check_name("limit", limit, LIMIT_NAME_BYTES_MAX)?;
        let most = if most == 0 { LIST_MAX } else { most.min(LIST_MAX) };
        let (first, end) = key_range("", after);
        let request =
            self.request(&script::LIMIT_LIST, self.keys.limit(limit)).arg(first).arg(end).number(most);
        let mut reply = Reply::list(self.router.run(&request).await?)?;
        let mut keys = Vec::with_capacity(reply.len() / 2);
        while reply.len() > 0 {
            keys.push(Usage { key: reply.text()?, full_at: whole_millis(reply.number()?) });
        }
        let has_more = keys.len() > most;
        keys.truncate(most);
        let next = keys.last().filter(|_| has_more).map(|last| last.key.clone());
        Ok(Page { keys, next })
    }
}

fn check(takes: &[Take]) -> Result<Vec<Pace>, Error> {
    if takes.is_empty() || takes.len() > TAKES_MAX {
        let count = takes.len();
        return Err(Error::Invalid(format!("{count} calls of limits at once, expected 1 to {TAKES_MAX}")));
    }
    for (index, Take { limit, key, .. }) in takes.iter().enumerate() {
        check_name("limit", limit, LIMIT_NAME_BYTES_MAX)?;
        check_key(key, KEY_BYTES_MAX)?;
        if takes[..index].iter().any(|other| other.limit == *limit && other.key == *key) {
            return Err(Error::Invalid(format!("the key `{key}` of the limit `{limit}` is asked for twice")));
        }
    }
    takes.iter().map(|take| take.quota.pace()).collect()
}

/// What was kept of a key; `None` when it was at rest for long.
fn kept(reply: &mut Reply) -> Result<Option<Micros>, Error> {
    let text = reply.text()?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| unexpected("a time"))
}

/// What callers are told of what the script has decided, from what it has seen.
fn verdicts(takes: &[Take], paces: &[Pace], kept: &[Option<Micros>], now: Micros) -> Vec<Verdict> {
    let decide = |index: usize, cost| gcra::decide(paces[index], kept[index], now, cost).verdict;
    let each: Vec<_> = takes.iter().enumerate().map(|(index, take)| decide(index, take.cost)).collect();
    if each.iter().all(|verdict| verdict.allowed) {
        return each;
    }
    // Of those that would have been allowed, nothing was taken.
    each.into_iter()
        .enumerate()
        .map(|(index, verdict)| if verdict.allowed { decide(index, 0) } else { verdict })
        .collect()
}
