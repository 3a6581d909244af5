//! Sessions whose ends are told are sessions, and tell of each end before it is acknowledged, whatever becomes of the caller.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex},
};

use tokio::sync::{Semaphore, mpsc};

use super::*;
use crate::{
    clock::ManualClock,
    contract::Fixture,
    embedded::Embedded,
    portable::{Ended, Hash},
    tables::{Outcome, Page, Row, Scan},
};

async fn engine() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(NOW);
    let engine = Embedded::open_with(directory.path(), Arc::new(clock.clone())).unwrap();
    let engines = engine.engines().with_revocations();
    Fixture::new(engines).with_clock(move |by| clock.advance(by)).keeping((engine, directory))
}

crate::contract_sessions!(engine);

/// When the tests take place.
const NOW: crate::Millis = 1_700_000_000_000;

fn telling_with(sessions: &Arc<dyn Sessions>, tables: Arc<dyn Tables>) -> Telling {
    Telling { sessions: Arc::clone(sessions), tables, clock: Arc::new(ManualClock::new(NOW)) }
}

async fn create(sessions: &dyn Sessions, user: Option<&str>) -> SessionId {
    let new = NewSession { user: user.map(str::to_owned), ..NewSession::default() };
    sessions.create(new).await.unwrap().id
}

async fn rows(tables: &dyn Tables) -> BTreeSet<String> {
    let page = tables.scan(TABLE, &Scan::default()).await.unwrap();
    page.rows.into_iter().map(|row| row.key).collect()
}

fn set<const N: usize>(keys: [String; N]) -> BTreeSet<String> {
    keys.into()
}

#[tokio::test]
async fn each_end_has_its_rows() {
    let fixture = engine().await;
    let Engines { sessions, tables, .. } = &fixture.engines;
    let (sessions, tables) = (&**sessions, &**tables);
    let of = |id: &SessionId| of_session(&id.public_name());
    let first = create(sessions, None).await;
    sessions.load(&first).await.unwrap();
    sessions.patch(&first, Patch::default()).await.unwrap();
    assert_eq!(rows(tables).await, set([]), "what goes on is not told");
    let second = sessions.renew(&first, None, Patch::default()).await.unwrap().session.id;
    assert_eq!(rows(tables).await, set([of(&first)]));
    let third = sessions.renew(&second, Some("ada"), Patch::default()).await.unwrap().session.id;
    assert_eq!(rows(tables).await, set([of(&first), of(&second)]), "no other session of theirs is doubted");
    sessions.destroy(&third).await.unwrap();
    let before = set([of(&first), of(&second), of(&third)]);
    assert_eq!(rows(tables).await, before);
    let fourth = create(sessions, Some("bob")).await;
    let handle = sessions.list("bob").await.unwrap()[0].handle.clone();
    sessions.revoke("bob", Some(&handle)).await.unwrap();
    let with_bob = &before | &set([of_user("bob")]);
    assert_eq!(rows(tables).await, with_bob);
    sessions.revoke("cyd", None).await.unwrap();
    assert_eq!(rows(tables).await, &with_bob | &set([of_user("cyd"), of_tokens("cyd")]));
    // What has ended before is told again: the first time may have failed.
    sessions.destroy(&fourth).await.unwrap();
    assert!(rows(tables).await.contains(&of(&fourth)));
    assert!(fixture.advance(KEPT));
    assert_eq!(rows(tables).await, set([]));
}

#[tokio::test]
async fn each_revocation_begins_an_epoch() {
    let fixture = engine().await;
    let Engines { sessions, tables, .. } = &fixture.engines;
    let mut epochs = Vec::new();
    for _ in 0..3 {
        sessions.revoke("ada", None).await.unwrap();
        epochs.push(tables.get(TABLE, &of_user("ada")).await.unwrap().unwrap().revision);
    }
    assert!(epochs.is_sorted_by(|one, next| one < next), "{epochs:?}");
}

/// Tables that take a write only when they are let.
struct Slow {
    tables: Arc<dyn Tables>,
    reached: mpsc::Sender<()>,
    let_through: Arc<Semaphore>,
    away: bool,
}

#[async_trait]
impl Tables for Slow {
    async fn get(&self, table: &str, key: &str) -> Result<Option<Row>, Error> {
        self.tables.get(table, key).await
    }

    async fn scan(&self, table: &str, scan: &Scan) -> Result<Page, Error> {
        self.tables.scan(table, scan).await
    }

    async fn apply(&self, batch: Vec<Write>) -> Result<Vec<Outcome>, Error> {
        if self.away {
            return Err(Error::Unavailable("away".into()));
        }
        self.reached.send(()).await.unwrap();
        self.let_through.acquire().await.unwrap().forget();
        self.tables.apply(batch).await
    }

    async fn follow(&self, table: &str) -> Result<Feed, Error> {
        self.tables.follow(table).await
    }
}

#[tokio::test]
async fn who_hangs_up_half_way_leaves_nothing_untold() {
    let fixture = engine().await;
    let Engines { sessions, tables, .. } = fixture.engines.clone();
    let (reached, mut is_reached) = mpsc::channel(1);
    let let_through = Arc::new(Semaphore::new(0));
    let slow = Slow { tables: tables.clone(), reached, let_through: let_through.clone(), away: false };
    let telling = telling_with(&sessions, Arc::new(slow));
    let id = create(&telling, Some("ada")).await;
    let mut call = telling.destroy(&id);
    tokio::select! {
        _ = &mut call => panic!("it said that it was done before it was told"),
        _ = is_reached.recv() => {}
    }
    assert!(matches!(sessions.load(&id).await, Err(Error::Gone)), "it ends first");
    drop(call);
    let mut feed = tables.follow(TABLE).await.unwrap();
    let_through.add_permits(1);
    let told = loop {
        if let crate::feed::Notice::Changed(key) = feed.next().await.unwrap() {
            break key;
        }
    };
    assert_eq!(*told, of_session(&id.public_name()));
}

#[tokio::test]
async fn what_could_not_be_told_is_not_acknowledged() {
    let fixture = engine().await;
    let Engines { sessions, tables, .. } = fixture.engines.clone();
    let (reached, _is_reached) = mpsc::channel(1);
    let away = Slow { tables, reached, let_through: Arc::new(Semaphore::new(0)), away: true };
    let telling = telling_with(&sessions, Arc::new(away));
    let id = create(&telling, Some("ada")).await;
    assert!(matches!(telling.revoke("ada", None).await, Err(Error::Unavailable(_))));
    assert!(matches!(telling.destroy(&id).await, Err(Error::Unavailable(_))));
    assert!(matches!(sessions.load(&id).await, Err(Error::Gone)), "it has ended all the same");
}

/// Tables that fail to write when it is their turn.
struct Shaky {
    tables: Arc<dyn Tables>,
    turns: Mutex<VecDeque<bool>>,
}

#[async_trait]
impl Tables for Shaky {
    async fn get(&self, table: &str, key: &str) -> Result<Option<Row>, Error> {
        self.tables.get(table, key).await
    }

    async fn scan(&self, table: &str, scan: &Scan) -> Result<Page, Error> {
        self.tables.scan(table, scan).await
    }

    async fn apply(&self, batch: Vec<Write>) -> Result<Vec<Outcome>, Error> {
        let is_well = self.turns.lock().unwrap().pop_front().unwrap_or(true);
        if is_well { self.tables.apply(batch).await } else { Err(Error::Unavailable("away".into())) }
    }

    async fn follow(&self, table: &str) -> Result<Feed, Error> {
        self.tables.follow(table).await
    }
}

/// Whoever signs in while revocations cannot be told keeps the session that was there, and may try again.
#[tokio::test]
async fn a_renewal_that_cannot_be_told_changes_nothing() {
    let fixture = engine().await;
    let Engines { sessions, tables, .. } = fixture.engines.clone();
    let shaky = Shaky { tables: tables.clone(), turns: Mutex::new([false].into()) };
    let telling = telling_with(&sessions, Arc::new(shaky));
    let id = create(&telling, None).await;
    let before = sessions.load(&id).await.unwrap();
    let refused = telling.renew(&id, Some("ada"), Patch::default()).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    assert_eq!(sessions.load(&id).await.unwrap(), before);
    assert_eq!(sessions.list("ada").await.unwrap(), []);
    let renewed = telling.renew(&id, Some("ada"), Patch::default()).await.unwrap().session;
    assert_eq!(sessions.load(&renewed.id).await.unwrap().user.as_deref(), Some("ada"));
    assert!(matches!(sessions.load(&id).await, Err(Error::Gone)));
}

/// A renewal that comes again ends what the one before has made, which nobody names.
#[tokio::test]
async fn a_renewal_that_comes_again_tells_of_all_ids_in_between() {
    let fixture = engine().await;
    let Engines { sessions, tables, .. } = &fixture.engines;
    let mut ids = vec![create(&**sessions, None).await];
    for _ in 0..3 {
        let renewed = sessions.renew(&ids[0], Some("ada"), Patch::default()).await.unwrap();
        assert_eq!(renewed.between, [""; 0], "they are told");
        let ended: BTreeSet<_> = ids.iter().map(|id| of_session(&id.public_name())).collect();
        assert_eq!(rows(&**tables).await, ended);
        ids.push(renewed.session.id);
    }
}

/// When the tables fail after the id was renewed, its user gets the new one, and the rest is told when it can be.
#[tokio::test]
async fn a_renewal_that_is_done_is_given_and_told_on() {
    let directory = tempfile::tempdir().unwrap();
    let embedded = Embedded::open(directory.path()).unwrap();
    let Engines { sessions, tables, .. } = embedded.engines();
    let old = create(&*sessions, None).await;
    let between = sessions.renew(&old, Some("ada"), Patch::default()).await.unwrap().session.id;
    let mut feed = tables.follow(TABLE).await.unwrap();
    let shaky = Shaky { tables, turns: Mutex::new([true, false, false].into()) };
    let telling = telling_with(&sessions, Arc::new(shaky));
    let renewed = telling.renew(&old, Some("ada"), Patch::default()).await.unwrap().session;
    assert_eq!(sessions.load(&renewed.id).await.unwrap().user.as_deref(), Some("ada"));
    let mut told = Vec::new();
    while told.len() < 2 {
        if let crate::feed::Notice::Changed(key) = feed.next().await.unwrap() {
            told.push(key.to_string());
        }
    }
    assert_eq!(told, [old, between].map(|id| of_session(&id.public_name())));
}

/// Sessions that do what they are told and do not say so.
struct Mumbling(Arc<dyn Sessions>);

fn unsaid<T>(done: Result<T, Error>) -> Result<T, Error> {
    done.and_then(|_| Err(Error::Unavailable("no answer came".into())))
}

#[async_trait]
impl Sessions for Mumbling {
    async fn create(&self, new: NewSession) -> Result<Session, Error> {
        self.0.create(new).await
    }

    async fn load(&self, id: &SessionId) -> Result<Session, Error> {
        self.0.load(id).await
    }

    async fn patch(&self, id: &SessionId, patch: Patch) -> Result<Session, Error> {
        self.0.patch(id, patch).await
    }

    async fn renew(&self, id: &SessionId, user: Option<&str>, patch: Patch) -> Result<Renewed, Error> {
        unsaid(self.0.renew(id, user, patch).await)
    }

    async fn destroy(&self, id: &SessionId) -> Result<(), Error> {
        unsaid(self.0.destroy(id).await)
    }

    async fn list_in(&self, realm: Option<&Realm>, user: &str) -> Result<Vec<SessionInfo>, Error> {
        self.0.list_in(realm, user).await
    }

    async fn revoke_in(&self, realm: Option<&Realm>, user: &str, handle: Option<&str>) -> Result<u64, Error> {
        unsaid(self.0.revoke_in(realm, user, handle).await)
    }

    async fn follow(&self) -> Result<Feed, Error> {
        self.0.follow().await
    }
}

/// An end of which nobody knows whether it came is told as one: to be doubted costs a look-up.
#[tokio::test]
async fn what_may_have_ended_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let embedded = Embedded::open(directory.path()).unwrap();
    let Engines { sessions, tables, .. } = embedded.engines();
    let telling = telling_with(&(Arc::new(Mumbling(sessions)) as Arc<dyn Sessions>), tables.clone());
    let (first, second) = (create(&telling, None).await, create(&telling, None).await);
    assert!(matches!(telling.destroy(&first).await, Err(Error::Unavailable(_))));
    let mut expected = set([of_session(&first.public_name())]);
    assert_eq!(rows(&*tables).await, expected);
    let renewed = telling.renew(&second, Some("ada"), Patch::default()).await;
    assert!(matches!(renewed, Err(Error::Unavailable(_))));
    expected.extend([of_session(&second.public_name()), of_user("ada")]);
    assert_eq!(rows(&*tables).await, expected);
    assert!(matches!(telling.revoke("bob", None).await, Err(Error::Unavailable(_))));
    expected.extend([of_user("bob"), of_tokens("bob")]);
    assert_eq!(rows(&*tables).await, expected);
    // What was certainly not done is nothing to tell.
    assert!(matches!(
        telling.revoke(&"x".repeat(10_000), None).await,
        Err(Error::Invalid(_) | Error::TooLarge { .. })
    ));
    assert_eq!(rows(&*tables).await, expected);
}

#[tokio::test]
async fn ends_from_elsewhere_are_told_unless_all_that_was_signed_is_over() {
    let fixture = engine().await;
    let Engines { sessions, tables, .. } = fixture.engines.clone();
    let ended = |number: u8, ended_at| {
        let hash = Hash([number; 32]);
        Record::Ended(Ended { hash, successor: None, user: None, ended_at, forget_at: ended_at + NOW })
    };
    let kept = millis(KEPT);
    let of = |number: u8| of_session(&Hash([number; 32]).to_text());
    // More than a batch has room for.
    let recent: Vec<u8> = (0..=BATCH_WRITES_MAX as u8).collect();
    let mut records: Vec<Record> = recent.iter().map(|number| ended(*number, NOW - kept + 1)).collect();
    records.push(ended(200, NOW - kept));
    let telling = telling_with(&sessions, tables.clone());
    telling.portable().unwrap().restore(records).await.unwrap();
    let expected: BTreeSet<String> = recent.iter().map(|number| of(*number)).collect();
    assert_eq!(rows(&*tables).await, expected);

    let (reached, _is_reached) = mpsc::channel(1);
    let away = Slow { tables, reached, let_through: Arc::new(Semaphore::new(0)), away: true };
    let telling = telling_with(&sessions, Arc::new(away));
    let untold = telling.restore(vec![ended(201, NOW)]).await;
    assert!(matches!(untold, Err(Error::Unavailable(_))), "it is not acknowledged");
    telling.restore(vec![ended(202, 0)]).await.unwrap();
}

/// The name under which a session's end is told is the same, whether its id is known or only the hash.
#[tokio::test]
async fn a_hash_from_elsewhere_names_the_session() {
    let fixture = engine().await;
    let sessions = &fixture.engines.sessions;
    let id = create(&**sessions, None).await;
    sessions.destroy(&id).await.unwrap();
    let page = sessions.portable().unwrap().dump(Part::Ended, None).await.unwrap();
    let [Record::Ended(ended)] = &page.records[..] else { panic!("{page:?}") };
    assert_eq!(ended.hash.to_text(), id.public_name());
}

#[test]
fn ends_are_told_once() {
    let engines = Engines::absent("test").with_revocations();
    assert!(engines.sessions.tells_of_ends());
    let again = engines.clone().with_revocations();
    assert!(Arc::ptr_eq(&engines.sessions, &again.sessions));
}
