//! Limits with a local stock: several calls of a key are taken from the engine at once and handed out in this process,
//! without a trip for each. It is for limits that are called very often and need not be exact; the price is stated at
//! [`Leased`].

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{KEY_BYTES_MAX, Limits, Page, Quota, Take, Verdict};
use crate::error::Error;

/// Most keys with a local stock at one time. Calls of further ones go to the engine one by one.
pub const KEYS_MAX: usize = 10_000;

/// How much is taken at once, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Calls that are taken at once, at most the burst. 1 and less lease nothing.
    pub calls: u32,
    /// How long they may be handed out, and how long a refusal is repeated without asking again. Nothing leases nothing.
    pub hold: Duration,
}

/// An engine with a stock in front of it.
///
/// # How far it may be off
/// Let there be so many `workers`, each with a lease of `calls`. At any time a worker has at most `calls - 1` in stock,
/// none taken longer ago than `hold`.
/// - **Too much**: in any stretch of time at most `workers × (calls - 1)` more calls than the quota allows, namely those
///   that were taken before it began.
/// - **Too little**: what is in stock at one worker is missing at the others, at most `workers × (calls - 1)`; what is not
///   used within `hold`, or dies with its worker, is lost. So a key that is called rarely, by many workers, is refused too
///   early by up to that much in each `hold`. When too little is left to fill a stock, calls are taken one by one.
/// - A refusal is repeated for as long as it said, but no longer than `hold`: that is how late a
///   [`reset`](Limits::reset) elsewhere may be noticed.
///
/// Only single calls ([`Limits::take`]) are served from stock; what only asks, and several limits together
/// ([`Limits::take_all`]), go to the engine, which does not know what of the stock is left. Verdicts from stock are as old
/// as the lease. Cancellation: a call that is dropped while it asks the engine has counted, and what it took beyond itself is in
/// stock for the next; the trip goes on in a task of its own, for which there must be a tokio runtime.
pub struct Leased {
    engine: Arc<dyn Limits>,
    lease: Lease,
    stocks: Mutex<Stocks>,
}

struct Stocks {
    /// By limit and key, with the NUL between them that neither may have.
    keys: HashMap<String, Arc<tokio::sync::Mutex<Stock>>>,
    /// When those that had become useless were last looked for.
    swept: Instant,
}

/// What is known and held of one key. Its lock is held during a trip, so that one caller fills it for all who wait.
struct Stock {
    quota: Quota,
    left: u32,
    /// When the trip began that brought `left` and `standing`.
    since: Instant,
    /// How the key stood then, without what was taken.
    standing: Option<Verdict>,
    /// Until then so much more is not to be had at once.
    scarce_until: Option<Instant>,
    /// A call of this cost was refused, with this verdict at that time.
    refusal: Option<(u32, Verdict, Instant)>,
}

impl Leased {
    /// Puts a stock in front of `engine`.
    pub fn new(engine: Arc<dyn Limits>, lease: Lease) -> Self {
        let stocks = Mutex::new(Stocks { keys: HashMap::new(), swept: Instant::now() });
        Self { engine, lease, stocks }
    }

    fn stocks(&self) -> MutexGuard<'_, Stocks> {
        // Nothing that could panic half-way is done under the lock.
        self.stocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stock of a key; `None` when there are too many.
    fn stock(&self, name: String, quota: Quota) -> Option<Arc<tokio::sync::Mutex<Stock>>> {
        let mut stocks = self.stocks();
        if let Some(stock) = stocks.keys.get(&name) {
            return Some(Arc::clone(stock));
        }
        let now = Instant::now();
        if stocks.keys.len() >= KEYS_MAX && now.duration_since(stocks.swept) >= self.lease.hold {
            stocks.swept = now;
            let hold = self.lease.hold;
            stocks.keys.retain(|_, stock| {
                // Who holds the lock, or has the stock in hand, uses it.
                Arc::strong_count(stock) > 1
                    || stock.try_lock().is_ok_and(|stock| now.duration_since(stock.since) < hold)
            });
        }
        if stocks.keys.len() >= KEYS_MAX {
            return None;
        }
        let stock = Arc::new(tokio::sync::Mutex::new(Stock::new(quota, now)));
        stocks.keys.insert(name, Arc::clone(&stock));
        Some(stock)
    }
}

#[async_trait]
impl Limits for Leased {
    async fn take(&self, limit: &str, key: &str, quota: Quota, cost: u32) -> Result<Verdict, Error> {
        let want = self.lease.calls.min(quota.burst);
        let is_for_stock = cost > 0 && cost < want && !self.lease.hold.is_zero();
        // What is no key takes no room.
        if !is_for_stock || key.len() > KEY_BYTES_MAX {
            return self.engine.take(limit, key, quota, cost).await;
        }
        let Some(stock) = self.stock(stock_name(limit, key), quota) else {
            return self.engine.take(limit, key, quota, cost).await;
        };
        let mut stock = stock.lock_owned().await;
        let now = Instant::now();
        if stock.quota != quota || now.duration_since(stock.since) >= self.lease.hold {
            *stock = Stock::new(quota, now);
        }
        if let Some(verdict) = stock.hand_out(cost, now).or_else(|| stock.refuse_again(cost, now)) {
            return Ok(verdict);
        }
        let (engine, hold) = (Arc::clone(&self.engine), self.lease.hold);
        let (limit, key) = (limit.to_owned(), key.to_owned());
        // What the engine has given must get into the stock also when the caller has gone: else clients that hang up at once would use
        // up a whole lease each.
        let trip = async move { stock.fill(&*engine, (&limit, &key), want, cost, hold).await };
        match tokio::spawn(trip.in_current_span()).await {
            Ok(verdict) => verdict,
            Err(error) => Err(Error::Unavailable(format!("the engine was not asked: {error}"))),
        }
    }

    async fn take_all(&self, takes: Vec<Take>) -> Result<Vec<Verdict>, Error> {
        self.engine.take_all(takes).await
    }

    async fn reset(&self, limit: &str, key: &str) -> Result<bool, Error> {
        let was_missing = self.engine.reset(limit, key).await?;
        self.stocks().keys.remove(&stock_name(limit, key));
        Ok(was_missing)
    }

    async fn list(&self, limit: &str, after: Option<&str>, most: usize) -> Result<Page, Error> {
        self.engine.list(limit, after, most).await
    }
}

impl Stock {
    fn new(quota: Quota, since: Instant) -> Self {
        Self { quota, left: 0, since, standing: None, scarce_until: None, refusal: None }
    }

    /// Asks the engine for so many calls at once that some are left, or else for this one alone.
    async fn fill(
        &mut self,
        engine: &dyn Limits,
        (limit, key): (&str, &str),
        want: u32,
        cost: u32,
        hold: Duration,
    ) -> Result<Verdict, Error> {
        let (quota, now) = (self.quota, Instant::now());
        if self.scarce_until.is_none_or(|until| now >= until) {
            let verdict = engine.take(limit, key, quota, want).await?;
            if verdict.allowed {
                // What was left is less than this call costs. It is given up: all of a stock is of one age.
                *self = Self { left: want, standing: Some(verdict), ..Self::new(quota, now) };
                return Ok(self.hand_out(cost, now).unwrap_or(verdict));
            }
            self.scarce_until = Some(now + verdict.retry_after.min(hold));
        }
        let verdict = engine.take(limit, key, quota, cost).await?;
        if !verdict.allowed {
            self.refusal = Some((cost, verdict, now));
        }
        Ok(verdict)
    }

    /// A call from stock, if there is enough.
    fn hand_out(&mut self, cost: u32, now: Instant) -> Option<Verdict> {
        let standing = self.standing?;
        self.left = self.left.checked_sub(cost)?;
        let age = now.duration_since(self.since);
        Some(Verdict {
            allowed: true,
            remaining: standing.remaining.saturating_add(self.left),
            retry_after: Duration::ZERO,
            reset_after: standing.reset_after.saturating_sub(age),
        })
    }

    /// The refusal of before, for a call that costs no less, while it holds.
    fn refuse_again(&self, cost: u32, now: Instant) -> Option<Verdict> {
        let (refused, verdict, at) = self.refusal?;
        let age = now.duration_since(at);
        let retry_after = verdict.retry_after.checked_sub(age).filter(|left| !left.is_zero())?;
        // Dearer calls have to wait longer, and how long is for the engine to say.
        (cost == refused).then_some(Verdict {
            retry_after,
            reset_after: verdict.reset_after.saturating_sub(age),
            ..verdict
        })
    }
}

fn stock_name(limit: &str, key: &str) -> String {
    [limit, key].join("\0")
}

#[cfg(test)]
mod tests;
