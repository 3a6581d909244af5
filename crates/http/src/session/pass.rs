//! Passes: signed statements of a few minutes' life, in a cookie beside the session's, that the session lives and whose it is.
//! Who must know no more than that asks nobody, as long as no revocation is known that could be of it. A pass that is old,
//! doubted, forged or missing is no failure: the session is looked up, and another pass is signed.
//!
//! What makes this safe is an order. Who ends a session ends it first and tells of it then ([`lethe_state::revocations`]). Who
//! signs a pass notes what is known of revocations, then finds the session alive, and then signs, if nothing has become known
//! of its user since, in the epoch of before. So a session that ends after it was found alive is told of after the note: its pass is of an
//! epoch that is over, and is doubted by all who have heard of it.
//!
//! A pass has a cookie to itself, and is bound to the id: an answer that comes late, with a pass of a session that has ended
//! meanwhile, then overwrites no id of a newer one.

use std::time::Duration;

use lethe_state::{Millis, Revision, sessions::SessionId};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::vault::{COOKIE_TOKEN_BYTES_MAX, Held};
use crate::{
    problem::chain,
    revocations::{Mark, Revocations},
    token::{Claims, Issuer, Keys, Refusal},
};

/// How long a pass is good. Past half of that, it is signed anew; so this is how often a session is looked up at least, and how
/// much earlier an idle one may end than it would if each request were told to its engine.
pub const PASS_LIFE: Duration = Duration::from_secs(300);
/// Who issues passes, and for whom. The ring is the service's own.
const ISSUER: &str = "lethe-session";
/// The `typ` of a pass.
const KIND: &str = "session-pass+jwt";
/// The claim with the public name of the session.
const SESSION: &str = "sid";
/// The claim with the epoch of the user.
const EPOCH: &str = "epoch";
/// How far a clock may have been set back while passes are still believed: less than revocations are kept beyond the longest
/// life of what they are about.
const SET_BACK_MAX: Duration = Duration::from_secs(600);

/// Signs passes and reads them. Cheap to clone.
#[derive(Clone)]
pub(super) struct Passes {
    issuer: Issuer,
    revocations: Revocations,
    began: Began,
}

/// When this was made, by the clock that judges tokens and by one that nobody sets.
#[derive(Clone, Copy)]
struct Began {
    wall: Millis,
    steady: Instant,
}

/// A pass that was signed here, is in time, and is of the session that it came with.
pub(super) struct Pass {
    claims: Claims,
    epoch: Revision,
}

/// A new pass.
#[derive(Clone)]
pub(super) struct Signed {
    pub(super) token: String,
    pub(super) life: Duration,
}

impl Pass {
    /// Whose session it says it is.
    pub(super) fn user(&self) -> Option<&str> {
        self.claims.sub.as_deref()
    }
}

impl Passes {
    pub(super) fn new(keys: Keys, revocations: Revocations) -> Self {
        let began = Began { wall: keys.now(), steady: Instant::now() };
        Self { issuer: Issuer::new(keys, ISSUER, ISSUER).kind(KIND), revocations, began }
    }

    /// The same, encrypted.
    pub(super) fn sealed(self) -> Self {
        Self { issuer: self.issuer.sealed(), ..self }
    }

    pub(super) fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// The pass that came with this id. One that is refused is counted.
    pub(super) async fn read(&self, token: &str, id: &SessionId) -> Option<Pass> {
        let claims = self.issuer.verify(token).await.ok()?;
        if claims.rest.get(SESSION).and_then(Value::as_str) != Some(id.public_name().as_str()) {
            self.issuer.keys().count(Refusal::Unbound);
            return None;
        }
        let epoch = claims.rest.get(EPOCH)?.as_u64()?;
        Some(Pass { claims, epoch })
    }

    /// Whether a pass may be believed without asking the engine.
    pub(super) fn trusts(&self, pass: &Pass, id: &SessionId) -> bool {
        self.is_clock_good() && self.revocations.trusts(pass.user(), &id.public_name(), pass.epoch)
    }

    /// Whether it is time for another one.
    pub(super) fn is_old(&self, pass: &Pass) -> bool {
        let now = self.issuer.keys().now().div_euclid(1000);
        now - pass.claims.iat > (pass.claims.exp - pass.claims.iat) / 2
    }

    /// With a clock that was set back, what is over would seem to be in time.
    fn is_clock_good(&self) -> bool {
        let whole = |duration: Duration| Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX);
        let now_at_least = self.began.wall.saturating_add(whole(self.began.steady.elapsed()));
        self.issuer.keys().now() >= now_at_least.saturating_sub(whole(SET_BACK_MAX))
    }

    /// Doubts all passes of a session that has ended through this worker, which need not wait to be told of it.
    pub(super) fn doubt(&self, id: &SessionId) {
        self.revocations.doubt(&id.public_name());
    }

    /// To be called before a session is looked up that may get a pass.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.revocations.mark()
    }

    /// Says that a session ended of which there was a pass.
    pub(super) fn count_revoked(&self) {
        self.issuer.keys().count(Refusal::Revoked);
    }

    /// A pass for a session that was found alive after the mark; `None` when none can be signed now, since something has become
    /// known meanwhile, or the keys are away.
    pub(super) async fn sign(&self, id: &SessionId, session: &Held, mark: Mark) -> Option<Signed> {
        let user = session.user.as_deref();
        let session_name = id.public_name();
        let epoch = self.revocations.epoch_at(mark, user, &session_name)?;
        let left = session.ends_unless_used_at.saturating_sub(self.issuer.keys().now());
        let life = PASS_LIFE.min(Duration::from_secs(u64::try_from(left).unwrap_or(0) / 1000));
        if life.is_zero() {
            return None;
        }
        let says = [(SESSION.to_owned(), session_name.into()), (EPOCH.to_owned(), Value::from(epoch))];
        match self.issuer.clone().life(life).issue(user, Map::from_iter(says)).await {
            Ok(token) => (token.len() <= COOKIE_TOKEN_BYTES_MAX).then_some(Signed { token, life }),
            Err(error) => {
                tracing::warn!(error = chain(&error), "a session got no pass: it is looked up each time");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lethe_state::{clock::ManualClock, embedded::Embedded};

    use super::*;
    use crate::token::Turning;

    /// A clock that stands still while time goes by is one that is set back again and again.
    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_set_back_makes_no_pass_young_again() {
        let folder = tempfile::tempdir().unwrap();
        let tables = Embedded::open(folder.path()).unwrap().engines().tables;
        let clock = ManualClock::new(1_700_000_000_000);
        let keys = Keys::with_clock(Arc::clone(&tables), "web", Turning::default(), Arc::new(clock.clone()));
        let passes = Passes::new(keys, Revocations::new(tables));
        assert!(passes.is_clock_good());
        tokio::time::advance(SET_BACK_MAX).await;
        assert!(passes.is_clock_good());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!passes.is_clock_good());
        clock.advance(SET_BACK_MAX * 3);
        assert!(passes.is_clock_good(), "one that was set forward makes passes old, which harms nobody");
    }
}
