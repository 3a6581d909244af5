//! Who issues tokens of one kind, and takes them again.

use std::time::Duration;

use http::HeaderMap;
use lethe_state::{error::Error as StateError, revocations::LIFE_MAX};
use serde_json::{Map, Value};

use super::{
    Claims, Fingerprint, Keys, Refusal,
    claims::Expected,
    fingerprint::{self, CLAIM},
    key,
    keys::Error,
};
use crate::revocations::Revocations;

/// Random bytes in a token's name (`jti`).
const NAME_BYTES: usize = 16;
/// The claim of a token that can be revoked: its user's epoch.
const EPOCH: &str = "epoch";
/// How long a token lives when nothing else is said.
pub const LIFE_DEFAULT: Duration = Duration::from_secs(15 * 60);

/// Issues and checks tokens of one kind. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Issuer {
    keys: Keys,
    expected: Expected,
    life: Duration,
    sealed: bool,
    revocations: Option<Revocations>,
}

impl Issuer {
    /// Access tokens of this service (`typ` `at+jwt`, RFC 9068) for this audience, of [`LIFE_DEFAULT`]. Both are often the
    /// service's address.
    pub fn new(keys: Keys, issuer: &str, audience: &str) -> Self {
        let expected =
            Expected { issuer: issuer.into(), audience: audience.into(), kind: "at+jwt", leeway_s: 0 };
        Self { keys, expected, life: LIFE_DEFAULT, sealed: false, revocations: None }
    }

    /// Tokens of another type, which are none of all others.
    pub fn kind(mut self, kind: &'static str) -> Self {
        self.expected.kind = kind;
        self
    }

    /// How long tokens live, in whole seconds; at most as long as the ring keeps keys for them
    /// ([`Turning::life_max`](super::Turning::life_max)).
    pub fn life(self, life: Duration) -> Self {
        let life = life.min(self.keys.turning().life_max);
        let life = if self.revocations.is_some() { life.min(LIFE_MAX) } else { life };
        Self { life, ..self }
    }

    /// Lets tokens be revoked: once `State::end_sessions` has returned, or whatever else ended all sessions of a user at once,
    /// the user's tokens of before are refused, by each worker as soon as it hears of it, and after
    /// [`SILENCE_MAX`](lethe_state::feed::SILENCE_MAX) at the latest. To check a token costs nothing more while revocations are heard of;
    /// to issue one costs a look-up. They live for [`LIFE_MAX`] at most.
    pub fn revocable(self, revocations: Revocations) -> Self {
        let life = self.life.min(LIFE_MAX);
        Self { revocations: Some(revocations), life, ..self }
    }

    /// Encrypts tokens, so that who bears them cannot read them, and takes no others.
    pub fn sealed(self) -> Self {
        Self { sealed: true, ..self }
    }

    /// Takes tokens so long after they have expired and before they are valid, for clocks that differ.
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.expected.leeway_s = i64::try_from(leeway.as_secs()).unwrap_or(i64::MAX);
        self
    }

    /// The keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// A token about `user` that says `rest` beside. Fails with [`StateError::Invalid`] when `rest` names what a token says
    /// in any case.
    pub async fn issue(&self, user: Option<&str>, rest: Map<String, Value>) -> Result<String, StateError> {
        self.issue_with(user, rest, None).await
    }

    /// A token that is good only with a cookie, which must be sent to the browser beside it
    /// ([`Fingerprint::set_cookie`]): for pages whose scripts have the token.
    pub async fn issue_bound(
        &self,
        user: Option<&str>,
        rest: Map<String, Value>,
    ) -> Result<(String, Fingerprint), StateError> {
        let fingerprint = Fingerprint::random(self.life)?;
        let token = self.issue_with(user, rest, Some(&fingerprint)).await?;
        Ok((token, fingerprint))
    }

    async fn issue_with(
        &self,
        user: Option<&str>,
        mut rest: Map<String, Value>,
        fingerprint: Option<&Fingerprint>,
    ) -> Result<String, StateError> {
        const OWN: [&str; 8] = ["iss", "aud", "sub", "exp", "nbf", "iat", "jti", CLAIM];
        let mut own = OWN.into_iter().chain(self.revocations.is_some().then_some(EPOCH));
        if let Some(name) = own.find(|name| rest.contains_key(*name)) {
            return Err(StateError::Invalid(format!(
                "the claim `{name}` is made by the issuer; name yours otherwise"
            )));
        }
        if let (Some(revocations), Some(user)) = (&self.revocations, user) {
            rest.insert(EPOCH.to_owned(), revocations.tokens_epoch(user).await?.into());
        }
        if let Some(fingerprint) = fingerprint {
            rest.insert(CLAIM.to_owned(), fingerprint.claim().into());
        }
        let now = self.keys.now().div_euclid(1000);
        let life = i64::try_from(self.life.as_secs()).unwrap_or(i64::MAX);
        let claims = Claims {
            iss: self.expected.issuer.clone(),
            aud: vec![self.expected.audience.clone()],
            sub: user.map(str::to_owned),
            exp: now.saturating_add(life),
            nbf: now,
            iat: now,
            jti: key::random::<NAME_BYTES>()?,
            rest,
        };
        self.keys.sign(self.expected.kind, self.sealed, &claims).await
    }

    /// What a token of this kind says. One that is bound to a cookie is refused here: see
    /// [`verify_for`](Self::verify_for).
    pub async fn verify(&self, token: &str) -> Result<Claims, Error> {
        self.verify_for(token, &HeaderMap::new()).await
    }

    /// The same for a token of a request with these headers, which must have the cookie that the token is bound to.
    pub async fn verify_for(&self, token: &str, headers: &HeaderMap) -> Result<Claims, Error> {
        let claims = self.keys.verify(token, &self.expected, self.sealed).await?;
        if let Some(claim) = claims.rest.get(CLAIM)
            && !claim.as_str().is_some_and(|claim| fingerprint::came(headers, claim))
        {
            return Err(self.keys.refuse(Refusal::Unbound));
        }
        if let (Some(revocations), Some(user)) = (&self.revocations, &claims.sub) {
            let holds = match claims.rest.get(EPOCH).and_then(Value::as_u64) {
                Some(epoch) => revocations.tokens_hold(user, epoch).await?,
                None => false,
            };
            if !holds {
                return Err(self.keys.refuse(Refusal::Revoked));
            }
        }
        Ok(claims)
    }
}
