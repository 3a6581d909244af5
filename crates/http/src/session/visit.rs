//! What one request knows of its session, and the writes it makes: shared by the layer, which commits, and the
//! handler's [`Session`](super::Session).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::{HeaderMap, HeaderValue, request::Parts};
use lethe_state::{
    error::Error as StateError,
    sessions::{Change, Lifetime, Patch, SessionId},
};
use serde_json::Value;

use super::{
    Error,
    life::{Event, Life},
    pass::{Pass, Passes, Signed},
    vault::{Found, Held, Vault},
};
use crate::{address::ClientAddress, cookie::SessionCookie};

/// Buffered writes by field; `None` removes the field.
pub(super) type Pending = BTreeMap<String, Option<Value>>;

/// The session of one request.
pub(super) struct Shared {
    pub(super) vault: Vault,
    passes: Option<Passes>,
    pub(super) lifetime: Lifetime,
    pub(super) cookie: SessionCookie,
    life: Arc<Life>,
    /// Held by each call that talks to the engine, so that two of one request cannot both create a session.
    pub(super) turn: tokio::sync::Mutex<()>,
    visit: Mutex<Visit>,
}

pub(super) struct Visit {
    pub(super) current: Current,
    pub(super) pending: Pending,
    pub(super) cookie: CookieChange,
    /// Whether the session was changed, or may have been, and kept its id.
    has_written: bool,
    /// Whether the browser has a pass.
    had_pass: bool,
    /// A pass that the browser shall have, unless it gets another id.
    signed: Option<Signed>,
    closed: bool,
}

pub(super) enum Current {
    /// Nobody has asked for the session yet.
    Unread,
    /// The request names no session.
    Absent,
    /// Whose it is, its pass has told; the session itself was not looked up.
    Known(Option<String>),
    /// It names one that has ended, or never was.
    Ended(String),
    /// The session as it was last seen.
    Live(Arc<Held>),
}

/// What the response tells the browser to do with its cookie.
#[derive(Clone)]
pub(super) enum CookieChange {
    Keep,
    Set { value: String, absolute_expires_at: lethe_state::Millis },
    Clear,
}

impl Visit {
    pub(super) fn check_open(&self) -> Result<(), Error> {
        if self.closed { Err(Error::Closed) } else { Ok(()) }
    }

    /// A field with what is buffered.
    pub(super) fn value(&self, field: &str) -> Option<&Value> {
        match self.pending.get(field) {
            Some(buffered) => buffered.as_ref(),
            None => self.stored(field),
        }
    }

    fn stored(&self, field: &str) -> Option<&Value> {
        self.session().and_then(|session| session.fields.get(field)).map(|field| &field.value)
    }

    pub(super) fn session(&self) -> Option<&Arc<Held>> {
        match &self.current {
            Current::Live(session) => Some(session),
            _ => None,
        }
    }

    /// Goes on with a session, whose cookie the browser is told if it does not know it yet.
    pub(super) fn enter(&mut self, session: Held) {
        if self.session().is_none_or(|known| known.cookie != session.cookie) {
            let (value, absolute_expires_at) = (session.cookie.clone(), session.absolute_expires_at);
            self.cookie = CookieChange::Set { value, absolute_expires_at };
        }
        self.current = Current::Live(Arc::new(session));
    }

    /// Goes on without a session.
    pub(super) fn forget(&mut self) {
        self.current = Current::Absent;
        self.cookie = CookieChange::Clear;
    }

    /// Drops from the buffer what has been stored, but not what was buffered since.
    pub(super) fn written(&mut self, stored: &Pending) {
        self.pending.retain(|field, value| stored.get(field) != Some(&*value));
    }

    /// What of the buffer would change something. A write that leaves a field as it was loaded counts as done
    /// before those that others have made since.
    fn effective(&self) -> Pending {
        let changes = |(field, value): &(&String, &Option<Value>)| value.as_ref() != self.stored(field);
        self.pending.iter().filter(changes).map(|(field, value)| (field.clone(), value.clone())).collect()
    }
}

impl Shared {
    pub(super) fn new(
        vault: Vault,
        passes: Option<Passes>,
        lifetime: Lifetime,
        cookie: SessionCookie,
        life: Arc<Life>,
    ) -> Self {
        let visit = Visit {
            current: Current::Unread,
            pending: Pending::new(),
            cookie: CookieChange::Keep,
            has_written: false,
            had_pass: false,
            signed: None,
            closed: false,
        };
        let (turn, visit) = (tokio::sync::Mutex::new(()), Mutex::new(visit));
        Self { vault, passes, lifetime, cookie, life, turn, visit }
    }

    /// No code that could panic runs while it is held for a write, so a poisoned lock is as good as another.
    pub(super) fn visit(&self) -> MutexGuard<'_, Visit> {
        self.visit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads the session that the request names, the first time it is called. With several cookies of the name,
    /// the first that can be an id counts.
    pub(super) async fn load(&self, parts: &Parts) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        match self.visit().current {
            Current::Unread | Current::Known(_) => {}
            Current::Absent | Current::Ended(_) | Current::Live(_) => return Ok(()),
        }
        let pass = self.pass(&parts.headers).await;
        self.look_up(parts, pass.as_ref()).await
    }

    /// Finds out who the visitor is, from a pass if there is a good one.
    pub(super) async fn load_who(&self, parts: &Parts) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        if self.was_read() {
            return Ok(());
        }
        let pass = self.pass(&parts.headers).await;
        let known = match (&self.passes, &pass) {
            (Some(passes), Some((id, pass))) if passes.trusts(pass, id) => Some((passes, pass)),
            _ => None,
        };
        let found = match known {
            Some((passes, pass)) if !passes.is_old(pass) => None,
            _ => Some(self.look_up(parts, pass.as_ref()).await),
        };
        match (found, known) {
            // While the engine is away, a pass is good to its end.
            (None | Some(Err(Error::State(StateError::Unavailable(_)))), Some((_, pass))) => {
                self.visit().current = Current::Known(pass.user().map(str::to_owned));
                Ok(())
            }
            (Some(found), _) => found,
            (None, None) => Ok(()),
        }
    }

    /// The pass that came, and the id that it is of.
    async fn pass(&self, headers: &HeaderMap) -> Option<(SessionId, Pass)> {
        let passes = self.passes.as_ref()?;
        let token = self.cookie.of_pass().values(headers).next()?.to_owned();
        self.visit().had_pass = true;
        let id = self.cookie.values(headers).find_map(|cookie| self.vault.id(cookie))?;
        let pass = passes.read(&token, &id).await?;
        Some((id, pass))
    }

    /// Looks the session up, and gives it a pass if it has no good one.
    async fn look_up(&self, parts: &Parts, pass: Option<&(SessionId, Pass)>) -> Result<(), Error> {
        let headers = &parts.headers;
        let is_good =
            |passes: &Passes| pass.is_some_and(|(id, pass)| passes.trusts(pass, id) && !passes.is_old(pass));
        let unsigned = self.passes.as_ref().filter(|passes| !is_good(passes));
        // A pass is signed for what the engine says now: of a copy it would be good for longer than the copy itself.
        let has_written = self.cookie.has_written(headers);
        let mark = unsigned.and_then(Passes::mark);
        let load = |as_it_is| self.vault.load(self.cookie.values(headers), as_it_is, self.lifetime);
        let (found, mark) = match load(has_written || mark.is_some()).await {
            // A copy serves where the engine cannot, and gets no pass.
            Err(StateError::Unavailable(_)) if mark.is_some() && !has_written => (load(false).await?, None),
            found => (found?, mark),
        };
        match (&found, unsigned, mark) {
            (Found::Live(held), Some(passes), Some(mark)) => {
                let signed = match self.vault.id(&held.cookie) {
                    Some(id) => passes.sign(&id, held, mark).await,
                    None => None,
                };
                self.visit().signed = signed;
            }
            (Found::Ended(_), Some(passes), _) if pass.is_some() => passes.count_revoked(),
            _ => {}
        }
        match &found {
            Found::Ended(cookie) => self.tell(Event::Ended, cookie, None),
            Found::Unknown(_) | Found::Nonsense => self.life.unknown(ClientAddress::of(parts)),
            Found::Absent | Found::Live(_) => {}
        }
        let mut visit = self.visit();
        match found {
            Found::Absent | Found::Nonsense => visit.current = Current::Absent,
            Found::Ended(cookie) | Found::Unknown(cookie) => visit.current = Current::Ended(cookie),
            Found::Live(held) => {
                let is_known = self.cookie.values(headers).any(|cookie| cookie == held.cookie);
                match is_known {
                    true => visit.current = Current::Live(Arc::new(held)),
                    false => visit.enter(held),
                }
            }
        }
        Ok(())
    }

    /// Takes no pass any more of the session of a cookie, which has ended.
    pub(super) fn doubt(&self, cookie: &str) {
        if let (Some(passes), Some(id)) = (&self.passes, self.vault.id(cookie)) {
            passes.doubt(&id);
        }
    }

    /// Counts and logs what became of the session of a cookie.
    pub(super) fn tell(&self, event: Event, cookie: &str, user: Option<&str>) {
        let name = self.vault.id(cookie).map(|id| id.public_name());
        self.life.tell(event, name.as_deref(), user);
    }

    /// The cookie that the request knows, of a live or an ended session, and the session, while it is live.
    pub(super) fn known_session(&self) -> Option<(String, Option<Arc<Held>>)> {
        match &self.visit().current {
            Current::Live(held) => Some((held.cookie.clone(), Some(Arc::clone(held)))),
            Current::Ended(cookie) => Some((cookie.clone(), None)),
            // Who wants to know of the session has loaded it.
            Current::Absent | Current::Unread | Current::Known(_) => None,
        }
    }

    /// Reads the live session again.
    pub(super) async fn reload(&self) -> Result<(), Error> {
        let Some(held) = self.visit().session().cloned() else { return Ok(()) };
        if let Some(session) = self.vault.reload(&held).await.map_err(ended)? {
            self.visit().enter(session);
        }
        Ok(())
    }

    /// Writes one field at once; with `compare` only over the value that this request has seen.
    pub(super) async fn write_field(&self, field: &str, value: Value, compare: bool) -> Result<(), Error> {
        let live = self
            .visit()
            .session()
            .map(|held| (Arc::clone(held), held.fields.get(field).map_or(0, |field| field.revision)));
        match live {
            Some((held, seen)) => {
                let change = Change { value: Some(value), expect: compare.then_some(seen) };
                let patch = Patch { changes: [(field.to_owned(), change)].into() };
                self.patch(&held, patch).await?;
            }
            None => self.create([(field.to_owned(), value)].into()).await?,
        }
        self.visit().pending.remove(field);
        Ok(())
    }

    async fn patch(&self, held: &Held, patch: Patch) -> Result<(), Error> {
        // Also when it fails: what cannot be known may have been done.
        self.visit().has_written = true;
        let session = self.vault.patch(held, patch, self.lifetime).await.map_err(ended)?;
        self.visit().enter(session);
        Ok(())
    }

    async fn create(&self, fields: BTreeMap<String, Value>) -> Result<(), Error> {
        let session = self.vault.create(None, fields, self.lifetime).await?;
        self.tell(Event::Begun, &session.cookie, None);
        self.visit().enter(session);
        Ok(())
    }

    /// Takes no more writes, and stores what is buffered, in one step.
    pub(super) async fn commit(&self) -> Result<(), Error> {
        self.close();
        let _turn = self.turn.lock().await;
        let (pending, live) = {
            let visit = self.visit();
            (visit.effective(), visit.session().cloned())
        };
        match live {
            _ if pending.is_empty() => Ok(()),
            Some(held) => self.patch(&held, super::patch(&pending)).await,
            None => self.create(fields(&pending)).await,
        }
    }

    /// Takes no more writes, and drops what is buffered.
    pub(super) fn close(&self) {
        self.visit().closed = true;
    }

    /// Whether the request has looked at its session, so that the response may depend on it.
    pub(super) fn was_read(&self) -> bool {
        !matches!(self.visit().current, Current::Unread)
    }

    /// Whether the browser shall say, for a moment, that its session was changed.
    pub(super) fn shall_say_written(&self) -> bool {
        self.visit().has_written && self.vault.lags()
    }

    /// What the browser shall do with its cookie.
    pub(super) fn cookie_change(&self) -> CookieChange {
        self.visit().cookie.clone()
    }

    /// What it shall do with its pass: one of an id that it no longer has is of no use to it.
    pub(super) fn pass_line(&self) -> Option<HeaderValue> {
        let visit = self.visit();
        match (&visit.cookie, &visit.signed) {
            (CookieChange::Keep, Some(signed)) => {
                self.cookie.of_pass().set(&signed.token, Some(signed.life.as_secs()))
            }
            (CookieChange::Keep, None) => None,
            _ => visit.had_pass.then(|| self.cookie.of_pass().clear()),
        }
    }
}

/// The values of a buffer, as the fields of a new session.
pub(super) fn fields(pending: &Pending) -> BTreeMap<String, Value> {
    pending.iter().filter_map(|(field, value)| Some((field.clone(), value.clone()?))).collect()
}

/// The error for a write to a session that was live when it was loaded.
fn ended(error: StateError) -> Error {
    match error {
        StateError::Gone | StateError::NotFound => Error::Ended,
        other => Error::State(other),
    }
}
