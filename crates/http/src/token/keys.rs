//! The ring of keys as a worker holds it: read from the state tier, where all workers share it, turned by whoever finds
//! that it is time, and never believed for longer than half a minute while the state tier is there.
//!
//! `Fresh → Old` with time; `Old → Fresh` when the ring is read again, in the background or by the first who needs it;
//! `Old → Away` when that fails: then the copy serves, for [`OUTAGE_MAX`], and is read again as soon as that can be done.

use std::{
    fmt,
    sync::{
        Arc, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, AtomicI64, Ordering},
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
use tokio::time::{sleep, timeout};

use super::{
    Claims, Refusal, Refusals,
    claims::Expected,
    jwe, jws,
    ring::{Ring, StoredRing, Turning},
};
use crate::{
    metrics::{Page, Source},
    problem::chain,
};

/// The table that rings are in, a row for each.
pub const TABLE: &str = TOKEN_KEYS_TABLE;
/// How old a worker's copy of the ring may be when it is used. From half of that on it is read again in the background; a
/// worker that was idle for longer reads it before it signs or checks the next token.
pub const REFRESH: Duration = Duration::from_secs(30);
/// How long a copy that cannot be read again goes on to serve: while the state tier is away, a key that was
/// [replaced](Keys::replace) cannot be told from one that was not.
pub const OUTAGE_MAX: Duration = Duration::from_secs(3600);
/// How long it is waited for the ring to be read again before the copy must do.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// How often it is tried while the state tier is away.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How soon a token with an unknown key makes a worker read the ring again, so that forged ones cost nothing.
const UNKNOWN_REFRESH: Duration = Duration::from_secs(1);
/// How often a change is tried when other workers are faster. Each failed try means that another one's succeeded.
const TRIES_MAX: usize = 8;
/// A copy that was never read.
const NEVER: Millis = Millis::MIN;

/// A ring of keys that all workers share. Cheap to clone; all clones are the same ring.
///
/// The private keys are kept in the state tier, in the table [`TABLE`]: who may read that may sign. While the state tier is
/// away, the copy that a worker has goes on to serve, for [`OUTAGE_MAX`] at most.
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
    /// When the state tier was asked for the ring that is here.
    read_at: AtomicI64,
    /// Held by who reads the ring.
    reading: tokio::sync::Mutex<()>,
    /// Whether it could not be read again, and a task tries on.
    is_away: AtomicBool,
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
                is_away: AtomicBool::new(false),
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
        self.read().await
    }

    /// Makes a new key that signs at once, and forgets all others: every token that they have signed is refused, by this
    /// worker at once and by the others within [`REFRESH`]; by one for which the state tier is away, as soon as it is back.
    /// For a key that was stolen.
    pub async fn replace(&self) -> Result<(), StateError> {
        let _reading = self.inner.reading.lock().await;
        self.update(|_, now| StoredRing::replaced(&self.inner.turning, now).map(Some)).await
    }

    /// The ring, as it was [`REFRESH`] ago or later. So the first call waits for the state tier, and so does one that comes
    /// after a pause; else the ring is read again in the background.
    pub(super) async fn ring(&self) -> Result<Arc<Ring>, StateError> {
        if self.age().is_none() {
            self.refresh_if_older(REFRESH).await?;
        } else if self.is_older(REFRESH) {
            self.catch_up().await?;
        } else if self.is_older(REFRESH / 2) && !self.is_away() && self.inner.reading.try_lock().is_ok() {
            let keys = self.clone();
            tokio::spawn(async move {
                if let Err(error) = keys.refresh_if_older(REFRESH / 2).await {
                    keys.try_on(&error);
                }
            });
        }
        Ok(self.copy())
    }

    /// Reads a ring again that is too old to be believed, if that can be done in time; else the copy must do.
    async fn catch_up(&self) -> Result<(), StateError> {
        let reading = async {
            let _reading = self.inner.reading.lock().await;
            // Of many who wait, the first one reads, or finds out for all that it cannot be done.
            if self.is_older(REFRESH) && !self.is_away() { self.read().await } else { Ok(()) }
        };
        if !self.is_away() {
            let read = timeout(WAIT_MAX, reading).await;
            let read = read.unwrap_or_else(|_| {
                Err(StateError::Unavailable(format!("the state tier did not answer within {WAIT_MAX:?}")))
            });
            if let Err(error) = read {
                self.try_on(&error);
            }
        }
        let is_over = |age: Millis| u128::from(age.unsigned_abs()) >= OUTAGE_MAX.as_millis();
        if self.age().is_none_or(is_over) {
            return Err(StateError::Unavailable(format!(
                "the token keys have not been read for {OUTAGE_MAX:?}, so they may have been replaced"
            )));
        }
        Ok(())
    }

    /// Goes on trying to read the ring, in the background, until it is done: nobody shall wait for what has just failed, and a
    /// worker that nobody asks meanwhile shall have a fresh copy all the same.
    fn try_on(&self, error: &StateError) {
        if self.inner.is_away.swap(true, Ordering::AcqRel) {
            return;
        }
        let error = chain(error);
        tracing::warn!(
            error,
            ring = self.inner.name,
            "the token keys could not be read again; the copy serves"
        );
        let away = Away(Arc::downgrade(&self.inner));
        tokio::spawn(async move {
            loop {
                sleep(RETRY_EVERY).await;
                let Some(inner) = away.0.upgrade() else { return };
                let keys = Self { inner };
                if let Ok(Ok(_)) = timeout(WAIT_MAX, keys.refresh_if_older(REFRESH / 2)).await {
                    return;
                }
            }
        });
    }

    fn is_away(&self) -> bool {
        self.inner.is_away.load(Ordering::Acquire)
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
            self.read().await?;
        }
        Ok(true)
    }

    /// Reads the ring, and turns it if that is due.
    async fn read(&self) -> Result<(), StateError> {
        self.update(|stored, now| stored.turned(&self.inner.turning, now)).await
    }

    /// Reads what is stored, and stores what `change` makes of it; a worker that was faster is listened to.
    async fn update(
        &self,
        change: impl Fn(&StoredRing, Millis) -> Result<Option<StoredRing>, StateError>,
    ) -> Result<(), StateError> {
        let Inner { tables, name, .. } = &*self.inner;
        for _ in 0..TRIES_MAX {
            // What is read may be as old as the question.
            let now = self.now();
            let row = tables.get(TABLE, name).await?;
            let stored = match &row {
                None => StoredRing::default(),
                Some(row) => serde_json::from_slice(&row.value).map_err(|error| {
                    StateError::Invalid(format!(
                        "the row `{name}` of the table {TABLE} is no ring of keys: {error}"
                    ))
                })?,
            };
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

/// Says, dropped, that nobody tries any more to read the ring.
struct Away(Weak<Inner>);

impl Drop for Away {
    fn drop(&mut self) {
        if let Some(inner) = self.0.upgrade() {
            inner.is_away.store(false, Ordering::Release);
        }
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
