//! Keeps count for the gateway, which knows nothing of state: the limits of routes, in the engine that has the limits of
//! services too, by the same layer (`lethe_http::limit`), so that a route and a service that use one name count together.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use lethe_gateway::{
    allowance::{self, Allowance, Fields, Head, Judgement, Judging, Refusal},
    config::limit::{By, Limit, Outage},
};
use lethe_http::limit::{self, LimitLayer, by};
use lethe_state::{
    Engines,
    error::Error,
    limits::{
        Limits, Page, Quota, Take, Verdict,
        leased::{Lease, Leased},
    },
    sessions::Sessions,
};
use tokio::runtime::Handle;

use crate::visitor::Visitors;

/// How long a core hands out what it has taken, and repeats a refusal.
const HOLD: Duration = Duration::from_secs(1);
/// Most requests that a core takes at once.
const LEASE_MAX: u32 = 64;
/// What all cores have taken and not handed out is at most this part of a burst.
const BURST_SHARE: u32 = 4;

/// What a judge is told of the client, beside the fields that its limits need.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Counts in these engines.
pub(crate) struct Counter {
    limits: Arc<dyn Limits>,
    sessions: Arc<dyn Sessions>,
    runtime: Handle,
    /// How many cores share a quota.
    cores: u32,
    /// What each core holds of a limit, for as long as it is in use, so that a reload does not lose it.
    leased: Mutex<BTreeMap<Place, (Lease, Weak<Leased>)>>,
}

/// A core by its number, and a limit by its name.
type Place = (usize, String);

impl Counter {
    /// For so many cores. The engines are asked on the runtime of the caller, never on a core.
    pub(crate) fn new(engines: &Engines, cores: usize) -> Arc<Self> {
        let runtime = Handle::current();
        let limits = Arc::new(Elsewhere { limits: Arc::clone(&engines.limits), runtime: runtime.clone() });
        Arc::new(Self {
            limits,
            sessions: Arc::clone(&engines.sessions),
            runtime,
            cores: u32::try_from(cores.max(1)).unwrap_or(u32::MAX),
            leased: Mutex::default(),
        })
    }

    /// The engine of a limit, as a core asks it.
    fn engine(&self, core: usize, limit: &Limit) -> Arc<dyn Limits> {
        let lease = lease(quota(limit), self.cores);
        if !limit.leased || lease.calls < 2 {
            return Arc::clone(&self.limits);
        }
        // Locked when the configuration changes, never for a request. Nothing that could panic is done under it.
        let mut leased = self.leased.lock().unwrap_or_else(PoisonError::into_inner);
        leased.retain(|_, (_, stock)| stock.strong_count() > 0);
        let place = (core, limit.name.clone());
        let known =
            leased.get(&place).filter(|(known, _)| *known == lease).and_then(|(_, stock)| stock.upgrade());
        known.unwrap_or_else(|| {
            let stock = Arc::new(Leased::new(Arc::clone(&self.limits), lease));
            leased.insert(place, (lease, Arc::downgrade(&stock)));
            stock
        })
    }
}

impl Allowance for Counter {
    fn judge(&self, core: usize, limits: &[Limit]) -> Box<dyn allowance::Judge> {
        let engine = match limits {
            [limit] => self.engine(core, limit),
            // All of them are asked in one step, so that what one refuses is not taken of another.
            _ => Arc::clone(&self.limits),
        };
        let mut layer = LimitLayer::new(engine);
        if limits.iter().any(|limit| limit.on_outage == Outage::Refuse) {
            layer = layer.on_outage(limit::Outage::Refuse);
        }
        if let Some(timeout) = limits.iter().map(|limit| limit.timeout).max() {
            layer = layer.timeout(timeout);
        }
        let mut fields = vec![FORWARDED_FOR];
        let mut has_sessions = false;
        for limit in limits {
            let key = match &limit.by {
                By::Everyone => by::everyone(),
                By::Address => by::address(),
                By::Session => {
                    has_sessions = true;
                    by::session()
                }
                By::Header(name) => {
                    // It was read as one.
                    let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { continue };
                    fields.push(name.clone());
                    by::header(name)
                }
            };
            layer = layer.limit(&*limit.name, quota(limit), key);
        }
        if has_sessions {
            fields.push(header::COOKIE);
        }
        let sessions =
            has_sessions.then(|| (Visitors::new(Arc::clone(&self.sessions)), self.runtime.clone()));
        Box::new(Judge { layer, fields, sessions })
    }
}

fn quota(limit: &Limit) -> Quota {
    Quota::per(limit.calls, limit.period).burst(limit.burst)
}

/// What a core takes at once. All cores together have no more in stock than a part of the burst; and even if each loses
/// all of it in each [`HOLD`], as for a client that calls rarely, that is no more than half of what comes back meanwhile.
/// Small quotas are counted one by one.
fn lease(quota: Quota, cores: u32) -> Lease {
    let period_ms = quota.period.as_millis().max(1);
    let returns = u128::from(quota.calls) * HOLD.as_millis() / period_ms / 2 / u128::from(cores);
    let share = quota.burst / BURST_SHARE / cores;
    let returns = u32::try_from(returns).unwrap_or(u32::MAX);
    Lease { calls: returns.min(share).min(LEASE_MAX), hold: HOLD }
}

/// Judges the requests of one route on one core.
struct Judge {
    layer: LimitLayer,
    /// The fields of a request that its limits look at.
    fields: Vec<HeaderName>,
    /// Finds out whose session it is, if a limit wants to know.
    sessions: Option<(Visitors, Handle)>,
}

impl allowance::Judge for Judge {
    fn judge(&self, head: Head<'_>) -> Judging {
        let (mut parts, ()) = Request::new(()).into_parts();
        for name in &self.fields {
            for value in head.values(name.as_str()) {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    parts.headers.append(name, value);
                }
            }
        }
        let layer = self.layer.clone();
        match &self.sessions {
            None => Box::pin(async move { judgement(layer.judge(&mut parts).await) }),
            Some((sessions, runtime)) => {
                sessions.attend(&mut parts);
                let judging = runtime.spawn(async move { layer.judge(&mut parts).await });
                // An error means that the runtime has ended.
                Box::pin(async move { judging.await.map_or(Judgement::Away, judgement) })
            }
        }
    }
}

/// What the gateway is told.
fn judgement(judged: limit::Judgement) -> Judgement {
    let mut headers = HeaderMap::new();
    match judged {
        limit::Judgement::Passed(standings) => {
            standings.put(&mut headers);
            Judgement::Passed(fields(&headers))
        }
        limit::Judgement::Uncounted => Judgement::Uncounted,
        limit::Judgement::Refused(refusal) => {
            refusal.put(&mut headers);
            let problem = refusal.problem();
            if let Some(seconds) = problem.retry_after_s() {
                headers.insert(header::RETRY_AFTER, seconds.into());
            }
            Judgement::Refused(Refusal { fields: fields(&headers), problem: problem.members() })
        }
        limit::Judgement::Failed(_) => Judgement::Away,
    }
}

fn fields(headers: &HeaderMap) -> Fields {
    headers.iter().map(|(name, value)| (name.as_str().into(), value.as_bytes().into())).collect()
}

/// An engine that is asked on its own runtime: its connections live there, and what it computes holds up no core.
struct Elsewhere {
    limits: Arc<dyn Limits>,
    runtime: Handle,
}

impl Elsewhere {
    async fn run<T, F>(&self, ask: impl FnOnce(Arc<dyn Limits>) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let asked = self.runtime.spawn(ask(Arc::clone(&self.limits))).await;
        asked.unwrap_or_else(|error| Err(Error::Unavailable(format!("the question was not asked: {error}"))))
    }
}

#[async_trait]
impl Limits for Elsewhere {
    async fn take_all(&self, takes: Vec<Take>) -> Result<Vec<Verdict>, Error> {
        self.run(|limits| async move { limits.take_all(takes).await }).await
    }

    async fn reset(&self, limit: &str, key: &str) -> Result<bool, Error> {
        let (limit, key) = (limit.to_owned(), key.to_owned());
        self.run(|limits| async move { limits.reset(&limit, &key).await }).await
    }

    async fn list(&self, limit: &str, after: Option<&str>, most: usize) -> Result<Page, Error> {
        let (limit, after) = (limit.to_owned(), after.map(str::to_owned));
        self.run(|limits| async move { limits.list(&limit, after.as_deref(), most).await }).await
    }
}

#[cfg(test)]
mod tests;
