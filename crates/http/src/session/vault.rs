//! Where the session layer has sessions: in a state engine, named by a cookie ("stored"), or in the cookie itself, signed
//! ("token"). To the rest of the layer both look the same.

use std::{collections::BTreeMap, sync::Arc};

use lethe_state::{
    Millis,
    error::Error as StateError,
    sessions::{Field, Lifetime, NewSession, Patch, Session, SessionId, Sessions},
};
use serde_json::{Map, Value, json};

use crate::token::{Claims, Error as TokenError, Issuer, Keys, Refusal};

/// Longest token in a cookie, in bytes. Browsers keep 4,096 bytes of name and value (RFC 6265bis, section 5.6).
pub const COOKIE_TOKEN_BYTES_MAX: usize = 4000;
/// The `typ` of a session's token: it is none of an API, and an API's is no session.
const KIND: &str = "session+jwt";
/// Who issues such tokens, and for whom. The ring is the service's own, so that no more is needed to tell them apart.
const ISSUER: &str = "lethe-session";
/// The revision of all fields of a token: only the request that bears it can have changed it.
const REVISION: u64 = 1;

/// Where sessions are.
#[derive(Clone)]
pub(super) enum Vault {
    /// In an engine; the cookie is the secret id.
    Stored(Arc<dyn Sessions>),
    /// In the cookie.
    Token(TokenVault),
}

/// Sessions in signed cookies.
#[derive(Clone)]
pub(super) struct TokenVault {
    pub(super) keys: Keys,
    pub(super) sealed: bool,
}

/// A session as a request holds it.
pub(super) struct Held {
    /// What the browser shall send to have it again.
    pub(super) cookie: String,
    pub(super) user: Option<String>,
    pub(super) fields: Arc<BTreeMap<String, Field>>,
    created_at: Millis,
    /// When it ends if nobody uses it.
    pub(super) ends_unless_used_at: Millis,
    pub(super) absolute_expires_at: Millis,
}

/// What a request's cookies are good for.
pub(super) enum Found {
    /// Nothing: there is none of a session.
    Absent,
    /// It was of a session that is not there any more.
    Ended(String),
    /// It names a session that never was, or that is forgotten.
    Unknown(String),
    /// It is nothing that could name a session.
    Nonsense,
    /// A session. Its cookie may be another than the one that came.
    Live(Held),
}

impl Vault {
    /// Whether what is loaded may be older than what the same visitor has just written through another worker.
    pub(super) fn lags(&self) -> bool {
        match self {
            Self::Stored(engine) => !engine.lag().is_zero(),
            Self::Token(_) => false,
        }
    }

    /// The session that one of the cookies is of; as it is now, if the visitor `has_written` a moment ago.
    pub(super) async fn load(
        &self,
        cookies: impl Iterator<Item = &str>,
        has_written: bool,
        lifetime: Lifetime,
    ) -> Result<Found, StateError> {
        let mut cookies = cookies.peekable();
        let Some(&first) = cookies.peek() else { return Ok(Found::Absent) };
        match self {
            Self::Stored(engine) => {
                let Some(id) = cookies.find_map(SessionId::parse) else { return Ok(Found::Nonsense) };
                let loaded =
                    if has_written { engine.load_through(&id).await } else { engine.load(&id).await };
                match loaded {
                    Ok(session) => Ok(Found::Live(session.into())),
                    Err(StateError::Gone) => Ok(Found::Ended(id.to_text())),
                    Err(StateError::NotFound) => Ok(Found::Unknown(id.to_text())),
                    Err(error) => Err(error),
                }
            }
            Self::Token(vault) => vault.load(first, lifetime).await,
        }
    }

    /// A new session.
    pub(super) async fn create(
        &self,
        user: Option<&str>,
        fields: BTreeMap<String, Value>,
        lifetime: Lifetime,
    ) -> Result<Held, StateError> {
        match self {
            Self::Stored(engine) => {
                let new =
                    NewSession { user: user.map(str::to_owned), fields, lifetime, ..NewSession::default() };
                Ok(engine.create(new).await?.into())
            }
            Self::Token(vault) => {
                let now = vault.keys.now();
                let field = |(name, value)| (name, Field { value, revision: REVISION });
                let held = Held {
                    cookie: String::new(),
                    user: user.map(str::to_owned),
                    fields: Arc::new(fields.into_iter().map(field).collect()),
                    created_at: now,
                    ends_unless_used_at: later(now, lifetime.idle),
                    absolute_expires_at: later(now, lifetime.absolute),
                };
                vault.sign(held, lifetime).await
            }
        }
    }

    /// The session with changed fields.
    pub(super) async fn patch(
        &self,
        held: &Held,
        patch: Patch,
        lifetime: Lifetime,
    ) -> Result<Held, StateError> {
        match self {
            Self::Stored(engine) => Ok(engine.patch(&id(&held.cookie)?, patch).await?.into()),
            Self::Token(vault) => vault.sign(held.patched(held.user.clone(), patch)?, lifetime).await,
        }
    }

    /// The session that a cookie names, live or ended within the grace, under another cookie and of this user, or of none;
    /// `None` when it has ended. `held` is the session, while it is live.
    pub(super) async fn renew(
        &self,
        cookie: &str,
        held: Option<&Held>,
        user: Option<&str>,
        patch: Patch,
        lifetime: Lifetime,
    ) -> Result<Option<Held>, StateError> {
        match self {
            Self::Stored(engine) => match engine.renew(&id(cookie)?, user, patch).await {
                Ok(renewed) => Ok(Some(renewed.session.into())),
                Err(StateError::Gone | StateError::NotFound) => Ok(None),
                Err(error) => Err(error),
            },
            Self::Token(vault) => {
                let Some(held) = held else { return Ok(None) };
                let renewed = held.patched(user.map(str::to_owned), patch)?;
                vault.sign(renewed, lifetime).await.map(Some)
            }
        }
    }

    /// The session that is stored now, for one that is held.
    pub(super) async fn reload(&self, held: &Held) -> Result<Option<Held>, StateError> {
        match self {
            Self::Stored(engine) => engine.load(&id(&held.cookie)?).await.map(|session| Some(session.into())),
            Self::Token(_) => Ok(None),
        }
    }

    /// The secret id that a cookie is; a session in a token has none that would stay.
    pub(super) fn id(&self, cookie: &str) -> Option<SessionId> {
        match self {
            Self::Stored(_) => SessionId::parse(cookie),
            Self::Token(_) => None,
        }
    }

    /// Ends the session of a cookie. One in a token is over when the browser forgets it: whoever has copied it can use it
    /// until it expires.
    pub(super) async fn destroy(&self, cookie: &str) -> Result<(), StateError> {
        match self {
            Self::Stored(engine) => engine.destroy(&id(cookie)?).await,
            Self::Token(_) => Ok(()),
        }
    }
}

impl TokenVault {
    fn issuer(&self, lifetime: Lifetime) -> Issuer {
        let issuer = Issuer::new(self.keys.clone(), ISSUER, ISSUER).kind(KIND).life(lifetime.idle);
        if self.sealed { issuer.sealed() } else { issuer }
    }

    async fn load(&self, cookie: &str, lifetime: Lifetime) -> Result<Found, StateError> {
        let claims = match self.issuer(lifetime).verify(cookie).await {
            Ok(claims) => claims,
            Err(TokenError::Refused(Refusal::Expired)) => return Ok(Found::Ended(cookie.to_owned())),
            Err(TokenError::Refused(_)) => return Ok(Found::Unknown(cookie.to_owned())),
            Err(TokenError::State(error)) => return Err(error),
        };
        let now = self.keys.now();
        let (age_s, life_s) = (now.div_euclid(1000) - claims.iat, claims.exp - claims.iat);
        let Some(held) = Held::read(claims, cookie).filter(|held| held.absolute_expires_at > now) else {
            return Ok(Found::Ended(cookie.to_owned()));
        };
        // Use moves the end on, and only past half of the time, so that most responses set no cookie.
        Ok(Found::Live(if age_s > life_s / 2 { self.sign(held, lifetime).await? } else { held }))
    }

    /// The same session with a token that says what it holds.
    async fn sign(&self, held: Held, lifetime: Lifetime) -> Result<Held, StateError> {
        let left = u64::try_from(held.absolute_expires_at.saturating_sub(self.keys.now())).unwrap_or(0);
        let idle = lifetime.idle.min(std::time::Duration::from_millis(left));
        let fields: Map<String, Value> =
            held.fields.iter().map(|(name, field)| (name.clone(), field.value.clone())).collect();
        let says = json!({ "fields": fields, "created": held.created_at, "ends": held.absolute_expires_at });
        let Value::Object(says) = says else { return Err(StateError::Invalid("no object".into())) };
        let issuer = self.issuer(Lifetime { idle, ..lifetime });
        let cookie = issuer.issue(held.user.as_deref(), says).await?;
        if cookie.len() > COOKIE_TOKEN_BYTES_MAX {
            return Err(StateError::TooLarge {
                what: "the session's token, which must fit into a cookie,",
                size: cookie.len() as u64,
                max: COOKIE_TOKEN_BYTES_MAX as u64,
            });
        }
        Ok(Held { cookie, ..held })
    }
}

impl Held {
    /// What a token says; `None` when it is of another make.
    fn read(claims: Claims, cookie: &str) -> Option<Self> {
        let fields = claims.rest.get("fields")?.as_object()?;
        let field = |(name, value): (&String, &Value)| {
            (name.clone(), Field { value: value.clone(), revision: REVISION })
        };
        Some(Self {
            cookie: cookie.to_owned(),
            fields: Arc::new(fields.iter().map(field).collect()),
            created_at: claims.rest.get("created")?.as_i64()?,
            ends_unless_used_at: claims.exp.saturating_mul(1000),
            absolute_expires_at: claims.rest.get("ends")?.as_i64()?,
            user: claims.sub,
        })
    }

    /// The same with changed fields, if they are as expected, and of this user.
    fn patched(&self, user: Option<String>, patch: Patch) -> Result<Self, StateError> {
        let mut fields = BTreeMap::clone(&self.fields);
        for (index, (name, change)) in patch.changes.into_iter().enumerate() {
            let found = fields.get(&name).map(|field| field.revision);
            if change.expect.is_some_and(|expected| expected != found.unwrap_or(0)) {
                return Err(StateError::Conflict { index, key: name, found });
            }
            match change.value {
                Some(value) => fields.insert(name, Field { value, revision: REVISION }),
                None => fields.remove(&name),
            };
        }
        Ok(Self {
            cookie: String::new(),
            user,
            fields: fields.into(),
            created_at: self.created_at,
            ends_unless_used_at: self.ends_unless_used_at,
            absolute_expires_at: self.absolute_expires_at,
        })
    }
}

impl From<Session> for Held {
    fn from(session: Session) -> Self {
        Self {
            cookie: session.id.to_text(),
            user: session.user,
            fields: session.fields,
            created_at: session.created_at,
            ends_unless_used_at: session.idle_expires_at.min(session.absolute_expires_at),
            absolute_expires_at: session.absolute_expires_at,
        }
    }
}

/// The id in a cookie that was taken for one.
fn id(cookie: &str) -> Result<SessionId, StateError> {
    SessionId::parse(cookie).ok_or(StateError::NotFound)
}

fn later(now: Millis, by: std::time::Duration) -> Millis {
    now.saturating_add(Millis::try_from(by.as_millis()).unwrap_or(Millis::MAX))
}
