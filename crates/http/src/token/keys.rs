//! The ring of keys as a worker holds it: read from the state tier, where all workers share it, turned by whoever finds
//! that it is time, and read again every half minute without anybody waiting for it.

use std::{
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use lethe_state::{
    Millis,
    clock::{Clock, SystemClock},
    error::Error as StateError,
    tables::{Action, Condition, TOKEN_KEYS_TABLE, Tables, Write},
};

use super::{
    Claims, Refusal, Refusals,
    claims::Expected,
    jwe, jws,
    ring::{Ring, StoredRing, Turning},
};
use crate::metrics::{Page, Source};

/// The table that rings are in, a row for each.
pub const TABLE: &str = TOKEN_KEYS_TABLE;
/// How old a worker's copy of the ring may be before it is read again.
pub const REFRESH: Duration = Duration::from_secs(30);
/// How soon a token with an unknown key makes a worker read the ring again, so that forged ones cost nothing.
const UNKNOWN_REFRESH: Duration = Duration::from_secs(1);
/// How often a change is tried when other workers are faster. Each failed try means that another one's succeeded.
const TRIES_MAX: usize = 8;
/// A copy that was never read.
const NEVER: Millis = Millis::MIN;

/// A ring of keys that all workers share. Cheap to clone; all clones are the same ring.
///
/// The private keys are kept in the state tier, in the table [`TABLE`]: who may read that may sign. While the state tier is
/// away, the copy that a worker has goes on to serve.
#[derive(Clone)]
pub struct Keys {
    inner: Arc<Inner>,
}

struct Inner {
    tables: Arc<dyn Tables>,
    name: String,
    turning: Turning,
    clock: Arc<dyn Clock>,
    ring: RwLock<Arc<Ring>>,
    read_at: AtomicI64,
    /// Held by who reads the ring.
    reading: tokio::sync::Mutex<()>,
    refusals: Refusals,
}

/// Why a token could not be checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is not to be taken.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The keys could not be read.
    #[error("the keys of tokens could not be read or written")]
    State(#[from] StateError),
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.inner.name)
    }
}

impl Keys {
    /// The ring of this name; it is made by the first worker that needs it. Names follow the rule for keys of tables. One that has
    /// the service's name comes with the sessions that the service is given; any other is to be given with its table.
    pub fn new(tables: Arc<dyn Tables>, name: &str, turning: Turning) -> Self {
        Self::with_clock(tables, name, turning, Arc::new(SystemClock))
    }

    /// The same with another clock.
    pub fn with_clock(tables: Arc<dyn Tables>, name: &str, turning: Turning, clock: Arc<dyn Clock>) -> Self {
        Self {
            inner: Arc::new(Inner {
                tables,
                name: name.to_owned(),
                turning,
                clock,
                ring: RwLock::default(),
                read_at: AtomicI64::new(NEVER),
                reading: tokio::sync::Mutex::new(()),
                refusals: Refusals::default(),
            }),
        }
    }

    /// How the ring turns.
    pub fn turning(&self) -> &Turning {
        &self.inner.turning
    }

    /// What was refused since the worker began. For a scrape: [`crate::metrics::Metrics`].
    pub fn refusals(&self) -> &Refusals {
        &self.inner.refusals
    }

    /// The time by which tokens are judged.
    pub(crate) fn now(&self) -> Millis {
        self.inner.clock.now()
    }

    /// Signs what `claims` say, as a token of the type `kind`, and encrypts it if it shall be sealed.
    pub(super) async fn sign(&self, kind: &str, sealed: bool, claims: &Claims) -> Result<String, StateError> {
        let ring = self.ring().await?;
        let key = ring
            .signer(self.now())
            .ok_or_else(|| StateError::Unavailable("no key of the token ring can be read".into()))?;
        let payload = serde_json::to_vec(claims)
            .map_err(|error| StateError::Invalid(format!("the claims are no JSON: {error}")))?;
        let token = jws::sign(key, kind, &payload);
        if sealed { jwe::seal(key, &token) } else { Ok(token) }
    }

    /// What a token says, if it is all that is `expected`. Refusals are counted.
    pub(super) async fn verify(
        &self,
        token: &str,
        expected: &Expected,
        sealed: bool,
    ) -> Result<Claims, Error> {
        let ring = self.ring().await?;
        let mut claims = read(&ring, token, expected, sealed, self.now());
        if claims == Err(Refusal::UnknownKey) && self.refresh_if_older(UNKNOWN_REFRESH).await? {
            claims = read(&self.copy(), token, expected, sealed, self.now());
        }
        Ok(claims.inspect_err(|refusal| self.inner.refusals.count(*refusal))?)
    }

    /// Counts a token that was signed and in time, and is refused all the same.
    pub(super) fn refuse(&self, refusal: Refusal) -> Error {
        self.count(refusal);
        Error::Refused(refusal)
    }

    /// Counts a refusal.
    pub(crate) fn count(&self, refusal: Refusal) {
        self.inner.refusals.count(refusal);
    }

    /// The tables that the ring is in.
    pub(crate) fn tables(&self) -> &Arc<dyn Tables> {
        &self.inner.tables
    }

    /// Reads the ring again now, and turns it if that is due. For a service that is about to be ready, so that its first
    /// request need not wait for it; else it is done when needed.
    pub async fn refresh(&self) -> Result<(), StateError> {
        let _reading = self.inner.reading.lock().await;
        self.update(|stored, now| stored.turned(&self.inner.turning, now)).await
    }

    /// Makes a new key that signs at once, and forgets all others: every token that they have signed is refused, by this
    /// worker at once and by the others within [`REFRESH`]. For a key that was stolen.
    pub async fn replace(&self) -> Result<(), StateError> {
        let _reading = self.inner.reading.lock().await;
        self.update(|_, now| StoredRing::replaced(&self.inner.turning, now).map(Some)).await
    }

    /// The ring. The first call waits for the state tier; later ones do not, and have a copy that is read again in the
    /// background once it is older than [`REFRESH`].
    pub(super) async fn ring(&self) -> Result<Arc<Ring>, StateError> {
        if self.age().is_none() {
            self.refresh_if_older(REFRESH).await?;
        } else if self.is_older(REFRESH) && self.inner.reading.try_lock().is_ok() {
            let keys = self.clone();
            tokio::spawn(async move {
                if let Err(error) = keys.refresh_if_older(REFRESH).await {
                    tracing::warn!(%error, ring = keys.inner.name, "the token keys could not be read again");
                }
            });
        }
        Ok(self.copy())
    }

    fn copy(&self) -> Arc<Ring> {
        Arc::clone(&self.inner.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn age(&self) -> Option<Millis> {
        let read_at = self.inner.read_at.load(Ordering::Acquire);
        (read_at != NEVER).then(|| self.now().saturating_sub(read_at))
    }

    /// A copy from the future, seen by a clock that was set back, is old too.
    fn is_older(&self, limit: Duration) -> bool {
        self.age().is_none_or(|age| age < 0 || age as u128 >= limit.as_millis())
    }

    /// Reads the ring again, unless somebody else just did; false when the copy was young enough.
    async fn refresh_if_older(&self, limit: Duration) -> Result<bool, StateError> {
        if !self.is_older(limit) {
            return Ok(false);
        }
        let _reading = self.inner.reading.lock().await;
        if self.is_older(limit) {
            self.update(|stored, now| stored.turned(&self.inner.turning, now)).await?;
        }
        Ok(true)
    }

    /// Reads what is stored, and stores what `change` makes of it; a worker that was faster is listened to.
    async fn update(
        &self,
        change: impl Fn(&StoredRing, Millis) -> Result<Option<StoredRing>, StateError>,
    ) -> Result<(), StateError> {
        let Inner { tables, name, .. } = &*self.inner;
        for _ in 0..TRIES_MAX {
            let row = tables.get(TABLE, name).await?;
            let stored = match &row {
                None => StoredRing::default(),
                Some(row) => serde_json::from_slice(&row.value).map_err(|error| {
                    StateError::Invalid(format!(
                        "the row `{name}` of the table {TABLE} is no ring of keys: {error}"
                    ))
                })?,
            };
            let now = self.now();
            let Some(changed) = change(&stored, now)? else {
                self.take(&stored, now);
                return Ok(());
            };
            let value = serde_json::to_vec(&changed)
                .map_err(|error| StateError::Invalid(format!("the ring of keys is no JSON: {error}")))?;
            let write = Write {
                table: TABLE.into(),
                key: name.clone(),
                condition: row.map_or(Condition::Absent, |row| Condition::Revision(row.revision)),
                action: Action::Put { value: Bytes::from(value), ttl: None },
            };
            match tables.apply(vec![write]).await {
                Ok(_) => {
                    self.take(&changed, now);
                    return Ok(());
                }
                Err(StateError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StateError::Unavailable("other workers changed the token keys again and again".into()))
    }

    fn take(&self, stored: &StoredRing, now: Millis) {
        let ring = Arc::new(Ring::open(stored));
        *self.inner.ring.write().unwrap_or_else(PoisonError::into_inner) = ring;
        self.inner.read_at.store(now, Ordering::Release);
    }
}

impl Source for Keys {
    fn count_on(&self, page: &mut Page) {
        for refusal in Refusal::ALL {
            page.counter(
                "lethe_token_refusals_total",
                "Tokens that were refused, by reason.",
                &[("ring", &self.inner.name), ("reason", refusal.name())],
                self.inner.refusals.of(refusal),
            );
        }
    }
}

fn read(ring: &Ring, token: &str, expected: &Expected, sealed: bool, now: Millis) -> Result<Claims, Refusal> {
    let payload = if sealed {
        jws::verify(ring, expected.kind, &jwe::open(ring, token)?)?
    } else {
        jws::verify(ring, expected.kind, token)?
    };
    let claims = serde_json::from_slice(&payload).map_err(|_| Refusal::Malformed)?;
    expected.check(&claims, now)?;
    Ok(claims)
}
