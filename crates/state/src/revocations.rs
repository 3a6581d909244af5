//! Revocations: that sessions have ended, told to workers which trust a signed statement about one without asking the engine.
//! Whoever ends a session, through whichever door, ends it in its engine first, then puts a row into a table that all such
//! workers follow, and only then says that it is done. If it is not known whether it has ended, that is told as well.
//!
//! A renewal ends an id, and whoever asked for it is left with none if it is not acknowledged. So the row of the id is put before,
//! and if that fails, nothing is changed.
//!
//! A row says no more than that statements of a certain age are to be doubted, and who doubts asks the engine of the sessions,
//! which knows. So nothing here compares clocks or numbers of two machines.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

#[cfg(feature = "server")]
use crate::tables::{self, Row, Scan};
use crate::{
    Engines,
    clock::{Clock, SystemClock, millis},
    error::Error,
    feed::Feed,
    portable::{Page, Part, Portable, Record},
    realm::Realm,
    sessions::{NewSession, Patch, Renewed, Session, SessionId, SessionInfo, Sessions},
    tables::{Action, BATCH_WRITES_MAX, Condition, Tables, Write},
};

/// The table of revocations.
pub const TABLE: &str = "lethe-revocations";
/// How long a row is kept. Whatever it is about is over long before.
pub const KEPT: Duration = Duration::from_secs(3600);
/// What the keys of rows of sessions begin with.
const OF_SESSION: &str = "s/";
/// What the keys of rows of a realm begin with.
const REALM_MARK: char = '~';
/// The longest life of what may be trusted unless there is a row. Half of [`KEPT`]: the rest is for clocks that differ.
pub const LIFE_MAX: Duration = Duration::from_secs(1800);

/// The row of a user's sessions. Its revision is their *epoch*: what was signed about one in another epoch is to be doubted.
pub fn of_user(user: &str) -> String {
    format!("u/{}", hash(user))
}

/// The row of what a user holds beside sessions, such as tokens for an API. It is written only when all of the user's sessions
/// are ended at once; its revision is the epoch of those tokens.
pub fn of_tokens(user: &str) -> String {
    format!("t/{}", hash(user))
}

/// The row of a session, by its [public name](SessionId::public_name). Once it is there, all that was signed about the session
/// is to be doubted.
pub fn of_session(name: &str) -> String {
    format!("{OF_SESSION}{name}")
}

/// Whether a row is of a session: then its revision says nothing.
pub fn is_of_session(key: &str) -> bool {
    key.starts_with(OF_SESSION)
}

/// What the keys of a realm's own rows begin with, but for the common one. It is behind all keys of the common one.
fn start(realm: &Realm) -> Option<String> {
    realm.name().map(|name| format!("{REALM_MARK}{name}/"))
}

/// The key under which a row is kept that somebody of this realm asks for; `None` where no row of the realm can be. Sessions need none of
/// their own: their public names are of their realm alone.
pub(crate) fn kept(realm: &Realm, key: &str) -> Option<String> {
    match start(realm) {
        _ if key.starts_with(REALM_MARK) => None,
        Some(start) if !is_of_session(key) => Some(start + key),
        _ => Some(key.to_owned()),
    }
}

/// The key that somebody of this realm knows a row by; `None` if it is of another realm.
#[cfg(feature = "server")]
pub(crate) fn seen<'a>(realm: &Realm, kept: &'a str) -> Option<&'a str> {
    match start(realm) {
        _ if is_of_session(kept) => Some(kept),
        Some(start) => kept.strip_prefix(&start),
        None => Some(kept).filter(|key| !key.starts_with(REALM_MARK)),
    }
}

/// A page of the table as somebody of this realm knows it: what is of all realms, and then what is of this one.
#[cfg(feature = "server")]
pub(crate) async fn scan(tables: &dyn Tables, realm: &Realm, scan: &Scan) -> Result<tables::Page, Error> {
    let Some(start) = start(realm) else {
        let mut page = tables.scan(TABLE, scan).await?;
        let all = page.rows.len();
        page.rows.retain(|row| seen(realm, &row.key).is_some());
        if page.rows.len() < all {
            page.next = None;
        }
        return Ok(page);
    };
    let is_behind = scan.after.as_deref().is_some_and(|after| after > OF_SESSION && !is_of_session(after));
    let prefix = if OF_SESSION.starts_with(&*scan.prefix) { OF_SESSION } else { &*scan.prefix };
    if !is_behind && is_of_session(prefix) {
        let mut page = tables.scan(TABLE, &Scan { prefix: prefix.to_owned(), ..scan.clone() }).await?;
        if let Some(last) = page.rows.last() {
            // There may be others behind the last one, which the next call looks for.
            page.next = Some(last.key.clone());
            return Ok(page);
        }
    }
    let after = scan.after.as_deref().filter(|_| is_behind).map(|after| format!("{start}{after}"));
    let own = Scan { prefix: format!("{start}{}", scan.prefix), after, limit: scan.limit };
    let page = tables.scan(TABLE, &own).await?;
    let as_seen = |key: &str| key.strip_prefix(&start).map(str::to_owned);
    let rows = page.rows.into_iter().filter_map(|row| Some(Row { key: as_seen(&row.key)?, ..row }));
    Ok(tables::Page { rows: rows.collect(), next: page.next.as_deref().and_then(as_seen) })
}

/// User names may be longer than keys, and the table is nobody's list of who was revoked.
fn hash(user: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(user.as_bytes()))
}

impl Engines {
    /// The same engines, with sessions whose ends are told in the table of revocations, unless they are already.
    pub fn with_revocations(mut self) -> Self {
        self.sessions = telling(self.sessions, Arc::clone(&self.tables));
        self
    }
}

/// Sessions whose ends are told in the table of revocations of these tables, unless they are already.
pub fn telling(sessions: Arc<dyn Sessions>, tables: Arc<dyn Tables>) -> Arc<dyn Sessions> {
    match sessions.tells_of_ends() {
        true => sessions,
        false => Arc::new(Telling { sessions, tables, clock: Arc::new(SystemClock) }),
    }
}

/// Sessions whose ends are told.
struct Telling {
    sessions: Arc<dyn Sessions>,
    tables: Arc<dyn Tables>,
    /// By which it is judged whether an end from elsewhere is news.
    clock: Arc<dyn Clock>,
}

/// Does `work` to its end, even if nobody waits for it any more: a session that was ended and not told would be trusted for as
/// long as something that was signed about it lives.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) => Err(Error::Unavailable(format!("the revocation was not told: {error}"))),
    }
}

/// The longest pause between two tries to tell later what could not be told at once.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Whether what has failed so may have been done.
fn is_doubtful<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Unavailable(_) | Error::Engine(_)))
}

/// Tells what must be told although it has been acknowledged, for as long as it matters.
async fn tell_on(tables: Arc<dyn Tables>, keys: Vec<String>) {
    let (began, mut pause) = (tokio::time::Instant::now(), Duration::from_millis(50));
    while let Err(error) = tell(&*tables, keys.iter().cloned()).await {
        tracing::warn!(%error, "a renewal was not told yet");
        if began.elapsed() > LIFE_MAX {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(PAUSE_MAX);
    }
}

async fn tell(tables: &dyn Tables, keys: impl IntoIterator<Item = String> + Send) -> Result<(), Error> {
    let row = |key| Write {
        table: TABLE.into(),
        key,
        condition: Condition::Any,
        action: Action::Put { value: Bytes::new(), ttl: Some(KEPT) },
    };
    tables.apply(keys.into_iter().map(row).collect()).await.map(drop)
}

#[async_trait]
impl Sessions for Telling {
    async fn create(&self, new: NewSession) -> Result<Session, Error> {
        self.sessions.create(new).await
    }

    async fn load(&self, id: &SessionId) -> Result<Session, Error> {
        self.sessions.load(id).await
    }

    async fn load_through(&self, id: &SessionId) -> Result<Session, Error> {
        self.sessions.load_through(id).await
    }

    #[cfg(feature = "server")]
    async fn load_json(&self, id: &SessionId) -> Result<Bytes, Error> {
        self.sessions.load_json(id).await
    }

    #[cfg(feature = "server")]
    fn recall_json(&self, id: &SessionId) -> Option<Bytes> {
        self.sessions.recall_json(id)
    }

    fn lag(&self) -> Duration {
        self.sessions.lag()
    }

    async fn patch(&self, id: &SessionId, patch: Patch) -> Result<Session, Error> {
        self.sessions.patch(id, patch).await
    }

    /// The row of the id stands for whatever is said of it later, so it may come first. A renewal that comes again also ends the ids in
    /// between. Their names are known only after that; by then there is a new id, which must reach its user, so they are told on in the
    /// background if they must be. Where it is not known what was done, the row of the user stands for them.
    async fn renew(&self, id: &SessionId, user: Option<&str>, patch: Patch) -> Result<Renewed, Error> {
        let (sessions, tables) = (Arc::clone(&self.sessions), Arc::clone(&self.tables));
        let (id, user) = (id.clone(), user.map(str::to_owned));
        whole(async move {
            tell(&*tables, [of_session(&id.public_name())]).await?;
            let mut renewed = sessions.renew(&id, user.as_deref(), patch).await;
            let rows: Vec<String> = match &mut renewed {
                Ok(renewed) => renewed.between.drain(..).map(|name| of_session(&name)).collect(),
                doubtful if is_doubtful(doubtful) => {
                    user.and_then(|user| kept(id.realm(), &of_user(&user))).into_iter().collect()
                }
                Err(_) => Vec::new(),
            };
            if !rows.is_empty() && tell(&*tables, rows.iter().cloned()).await.is_err() {
                tokio::spawn(tell_on(tables, rows));
            }
            renewed
        })
        .await
    }

    async fn destroy(&self, id: &SessionId) -> Result<(), Error> {
        let (sessions, tables, id) = (Arc::clone(&self.sessions), Arc::clone(&self.tables), id.clone());
        whole(async move {
            let destroyed = sessions.destroy(&id).await;
            if destroyed.is_ok() || is_doubtful(&destroyed) {
                tell(&*tables, [of_session(&id.public_name())]).await.and(destroyed)
            } else {
                destroyed
            }
        })
        .await
    }

    async fn list_in(&self, realm: Option<&Realm>, user: &str) -> Result<Vec<SessionInfo>, Error> {
        self.sessions.list_in(realm, user).await
    }

    /// Of a single session only the handle is known here, so all of the user's are doubted, once.
    async fn revoke_in(&self, realm: Option<&Realm>, user: &str, handle: Option<&str>) -> Result<u64, Error> {
        let realm = realm.cloned().unwrap_or_default();
        let (sessions, tables) = (Arc::clone(&self.sessions), Arc::clone(&self.tables));
        let (user, handle) = (user.to_owned(), handle.map(str::to_owned));
        whole(async move {
            let ended = sessions.revoke_in(Some(&realm), &user, handle.as_deref()).await;
            if ended.is_ok() || is_doubtful(&ended) {
                let tokens = handle.is_none().then(|| of_tokens(&user));
                let rows = tokens.into_iter().chain([of_user(&user)]).filter_map(|row| kept(&realm, &row));
                tell(&*tables, rows.collect::<Vec<_>>()).await.and(ended)
            } else {
                ended
            }
        })
        .await
    }

    async fn follow(&self) -> Result<Feed, Error> {
        self.sessions.follow().await
    }

    fn tells_of_ends(&self) -> bool {
        true
    }

    fn portable(&self) -> Option<&dyn Portable> {
        self.sessions.portable().map(|_| self as &dyn Portable)
    }
}

/// Ends that come from elsewhere are told as those here: users bring statements that were signed there. But only of so long ago as
/// statements live: the rest would be too many for workers to remember, and says nothing.
#[async_trait]
impl Portable for Telling {
    async fn dump(&self, part: Part, after: Option<&str>) -> Result<Page, Error> {
        movable(&*self.sessions)?.dump(part, after).await
    }

    async fn restore(&self, records: Vec<Record>) -> Result<(), Error> {
        let (sessions, tables) = (Arc::clone(&self.sessions), Arc::clone(&self.tables));
        let since = self.clock.now().saturating_sub(millis(KEPT));
        whole(async move {
            let news: Vec<String> = records
                .iter()
                .filter_map(|record| match record {
                    Record::Ended(ended) if ended.ended_at > since => Some(of_session(&ended.hash.to_text())),
                    _ => None,
                })
                .collect();
            movable(&*sessions)?.restore(records).await?;
            for keys in news.chunks(BATCH_WRITES_MAX) {
                tell(&*tables, keys.iter().cloned()).await?;
            }
            Ok(())
        })
        .await
    }
}

fn movable(sessions: &dyn Sessions) -> Result<&dyn Portable, Error> {
    sessions
        .portable()
        .ok_or(Error::Unsupported { engine: "an", what: "moving what it keeps to another one" })
}

#[cfg(test)]
mod tests;
