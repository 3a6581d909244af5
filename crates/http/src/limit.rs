//! Limits for requests: a layer that asks a state engine before a handler runs, answers those who ask too often, and tells
//! everyone how they stand, in the `RateLimit` fields (draft-ietf-httpapi-ratelimit-headers-11).

pub mod by;
mod fields;
mod gate;
mod refusal;
mod service;

use std::{sync::Arc, time::Duration};

use lethe_state::limits::{LIMIT_NAME_BYTES_MAX, Limits, TAKES_MAX, gcra::Pace};
pub use lethe_state::limits::{Quota, Verdict, leased};

use self::{by::Key, gate::Gate};
pub use self::{
    refusal::Refusal,
    service::{Judgement, Limited, Standings},
};

/// How long a request waits for the engine, unless [`LimitLayer::timeout`] says otherwise.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_millis(250);

/// Whether a limit may be called so: 1 to 64 lower-case ASCII letters, digits, `-` and `_`.
pub fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    !name.is_empty() && name.len() <= LIMIT_NAME_BYTES_MAX && name.bytes().all(allowed)
}

/// What becomes of requests while the engine that counts them cannot be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outage {
    /// They pass uncounted, without `RateLimit` fields: the service goes on, and whoever could take the engine away could
    /// then ask as often as they like. The log says how many did, at most once in ten seconds.
    #[default]
    Allow,
    /// They are answered with 503 and `Retry-After`: for what must never be tried more often, such as a short code that was
    /// sent to a telephone.
    Refuse,
}

/// Lets a request pass when all of its limits allow it.
///
/// ```
/// use std::time::Duration;
///
/// use axum::{Router, routing::post};
/// use lethe_http::limit::{LimitLayer, Quota, by};
/// # let folder = tempfile::tempdir().unwrap();
/// # let embedded = lethe_state::embedded::Embedded::open(folder.path()).unwrap();
/// # let limits = embedded.engines().limits;
///
/// let minute = Duration::from_secs(60);
/// let layer = LimitLayer::new(limits)
///     .limit("api", Quota::per(600, minute).burst(50), by::address())
///     .limit("api-user", Quota::per(300, minute), by::user());
/// let app: Router = Router::new().route("/orders", post(|| async { "ordered" })).layer(layer);
/// ```
///
/// All limits are asked in one step: when one of them refuses, nothing is taken of any. A refused request is answered with
/// 429, a problem document, or a page for a browser, and `Retry-After`; the handler does not see it. What passes counts,
/// whatever the handler answers.
///
/// Each response has `RateLimit-Policy`, which says what is allowed, and `RateLimit`, which says how the client stands: `r`
/// calls are left, and there will be no more of them within `t` seconds. A refusal has the latter for those limits alone
/// that refuse. Of a quota whose burst is another than its calls, the former also says `lethe-burst`.
///
/// A request waits for the engine, and for the session if a limit needs it, no longer than [`timeout`](Self::timeout). When
/// the engine has failed several times in a row, it is asked only once a second until it answers again, so that requests
/// do not wait at all. What happens to them meanwhile, [`on_outage`](Self::on_outage) decides.
#[derive(Clone)]
pub struct LimitLayer {
    gate: Arc<Gate>,
    policies: Arc<[Policy]>,
}

/// One limit of a layer.
#[derive(Clone)]
struct Policy {
    name: Arc<str>,
    quota: Quota,
    pace: Pace,
    key: Key,
}

impl LimitLayer {
    /// Counts in this engine: `&state` of the `lethe` crate, or any `Arc<dyn Limits>`, such as a
    /// [`Leased`](leased::Leased).
    pub fn new(engine: impl Into<Arc<dyn Limits>>) -> Self {
        Self {
            gate: Arc::new(Gate::new(engine.into(), TIMEOUT_DEFAULT, Outage::default())),
            policies: Arc::new([]),
        }
    }

    /// Adds a limit: how often, by what. Its name is what clients and operators see: 1 to 64 lower-case ASCII letters,
    /// digits, `-` and `_`. Layers and handlers that use the same name count together, and so must have the same quota.
    ///
    /// # Panics
    /// When the name or the quota break their rules, when the layer has the name already, or sixteen others.
    pub fn limit(self, name: impl Into<Arc<str>>, quota: Quota, key: Key) -> Self {
        let name = name.into();
        let pace = match quota.pace() {
            Ok(pace) => pace,
            Err(error) => panic!("the limit {name:?}: {error}"),
        };
        assert!(
            is_name(&name),
            "the limit name {name:?} is not 1 to {LIMIT_NAME_BYTES_MAX} lower-case ASCII letters, digits, `-` and `_`"
        );
        assert!(
            self.policies.iter().all(|other| other.name != name),
            "the layer has a limit {name:?} already"
        );
        assert!(self.policies.len() < TAKES_MAX, "a layer has at most {TAKES_MAX} limits");
        let policies = self.policies.iter().cloned().chain([Policy { name, quota, pace, key }]).collect();
        Self { policies, ..self }
    }

    /// What becomes of requests while the engine cannot be asked; they pass, unless this says otherwise.
    pub fn on_outage(self, outage: Outage) -> Self {
        Self { gate: Arc::new(self.gate.with(|settings| settings.outage = outage)), ..self }
    }

    /// How long a request waits for the engine, instead of [`TIMEOUT_DEFAULT`].
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { gate: Arc::new(self.gate.with(|settings| settings.timeout = timeout)), ..self }
    }
}
