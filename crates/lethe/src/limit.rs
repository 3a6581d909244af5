//! Limits: how often something may be done, counted for all workers together. [`LimitLayer`] puts them in front of a
//! router; [`Limit`] is for handlers, which know more than the head of a request.

use std::{sync::Arc, time::Duration};

pub use lethe_http::limit::{LimitLayer, Outage, Quota, Refusal, Verdict, by};
use lethe_state::limits::{
    Limits, Take,
    leased::{Lease, Leased},
};

use crate::{Error, State};

/// A limit, and its quota. Cheap to clone.
///
/// ```
/// use std::time::Duration;
/// use lethe::limit::Quota;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lethe::Error> {
/// # let state = lethe::State::ephemeral()?;
/// let sign_in = state.limit("sign-in", Quota::per(5, Duration::from_secs(60)));
/// for left in [4, 3, 2, 1, 0] {
///     assert_eq!(sign_in.take("ada").await?.remaining, left);
/// }
/// let verdict = sign_in.take("ada").await?;
/// assert!(!verdict.allowed && verdict.retry_after <= Duration::from_secs(12));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Limit {
    limits: Arc<dyn Limits>,
    name: Arc<str>,
    quota: Quota,
}

impl Limit {
    pub(crate) fn new(limits: Arc<dyn Limits>, name: &str, quota: Quota) -> Self {
        Self { limits, name: name.into(), quota }
    }

    /// Does a call for `key`, if the quota allows it. One that is refused costs nothing. The key is any text of 1 to 1,024
    /// bytes without NUL: an account, a telephone number, a [`ClientAddress`](crate::address::ClientAddress).
    pub async fn take(&self, key: &str) -> Result<Verdict, Error> {
        self.take_many(key, 1).await
    }

    /// Does so many calls at once, or none.
    pub async fn take_many(&self, key: &str, calls: u32) -> Result<Verdict, Error> {
        Ok(self.limits.take(&self.name, key, self.quota, calls).await?)
    }

    /// How a key stands, without a call.
    pub async fn look(&self, key: &str) -> Result<Verdict, Error> {
        self.take_many(key, 0).await
    }

    /// Does a call, or fails with [`Error::Limited`], which a handler may return as it is: clients see 429, with
    /// `Retry-After` and the `RateLimit` fields.
    pub async fn require(&self, key: &str) -> Result<(), Error> {
        let verdict = self.take(key).await?;
        refused([(&*self.name, self.quota, verdict)])
    }

    /// Gives a key its whole burst back, as after a sign-in that went well; whether anything was missing.
    pub async fn reset(&self, key: &str) -> Result<bool, Error> {
        Ok(self.limits.reset(&self.name, key).await?)
    }

    /// The same limit with a stock in this worker: so many calls of a key are taken at once, and handed out for as long as
    /// `hold` without a trip for each. [`Leased`] says how far it may then be off. Make it once, since each one that is made
    /// has stocks of its own; its clones share them.
    pub fn leased(&self, calls: u32, hold: Duration) -> Self {
        let leased = Leased::new(Arc::clone(&self.limits), Lease { calls, hold });
        Self { limits: Arc::new(leased), ..self.clone() }
    }
}

impl std::fmt::Debug for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limit").field("name", &self.name).field("quota", &self.quota).finish_non_exhaustive()
    }
}

impl State {
    /// A limit. Names are 1 to 64 lower-case ASCII letters, digits, `-` and `_`; two of one name are the same limit, and
    /// must have the same quota.
    pub fn limit(&self, name: &str, quota: Quota) -> Limit {
        Limit::new(Arc::clone(&self.engines().limits), name, quota)
    }

    /// Does a call of each of these limits, if all of them allow it; if not, nothing is taken of any, and it fails with
    /// [`Error::Limited`]. At most 16, each key once.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lethe::limit::Quota;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lethe::Error> {
    /// # let state = lethe::State::ephemeral()?;
    /// let minute = Duration::from_secs(60);
    /// let by_address = state.limit("sign-in-address", Quota::per(20, minute));
    /// let by_account = state.limit("sign-in-account", Quota::per(1, minute));
    /// state.require_all(&[(&by_address, "192.0.2.7"), (&by_account, "ada")]).await?;
    /// let refused = state.require_all(&[(&by_address, "192.0.2.7"), (&by_account, "ada")]).await;
    /// assert!(matches!(refused, Err(lethe::Error::Limited(_))));
    /// assert_eq!(by_address.look("192.0.2.7").await?.remaining, 19);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn require_all(&self, calls: &[(&Limit, &str)]) -> Result<(), Error> {
        let take = |(limit, key): &(&Limit, &str)| Take {
            limit: limit.name.to_string(),
            key: (*key).to_owned(),
            quota: limit.quota,
            cost: 1,
        };
        let verdicts = self.engines().limits.take_all(calls.iter().map(take).collect()).await?;
        let told = calls.iter().zip(verdicts);
        refused(told.map(|((limit, _), verdict)| (&*limit.name, limit.quota, verdict)))
    }
}

fn refused<'a>(verdicts: impl IntoIterator<Item = (&'a str, Quota, Verdict)>) -> Result<(), Error> {
    match Refusal::of(verdicts) {
        None => Ok(()),
        Some(refusal) => Err(Error::Limited(refusal)),
    }
}

/// For [`LimitLayer::new`].
impl From<&State> for Arc<dyn Limits> {
    fn from(state: &State) -> Self {
        Arc::clone(&state.engines().limits)
    }
}
