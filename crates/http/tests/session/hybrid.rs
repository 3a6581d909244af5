//! Sessions in an engine, with passes: several workers, each with a connection of its own to the daemon's socket, one of which
//! ends what others trust.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::StatusCode;
use lethe_http::{
    revocations::{Revocations, Status},
    session::{Event, Lifetime, PASS_LIFE, SessionLayer},
    token::{Issuer, Keys, Refusal, Turning},
};
use lethe_state::{
    Engines,
    clock::{Clock, ManualClock},
    error::Error,
    feed::Feed,
    grant::Grant,
    realm::Realm,
    remote::Remote,
    revocations::{TABLE, of_session},
    server::{
        self, Api,
        access::{Door, Grants, Peer, Peers},
        socket,
    },
    sessions::{NewSession, Patch, Renewed, Session, SessionId, SessionInfo, Sessions},
    tables::Scan,
};
use serde_json::{Map, json};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{UnixListener, UnixStream},
    sync::oneshot,
    task::{JoinHandle, JoinSet},
};

use super::{
    COOKIE, site_with,
    visitor::{Engine, Visitor},
};

const PASS: &str = "__Host-session-pass";

/// A daemon: an engine, and the state API in front of it.
struct Daemon {
    engine: Engine,
    clock: ManualClock,
    folder: TempDir,
    server: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Daemon {
    fn start() -> Self {
        let clock = ManualClock::new(1_700_000_000_000);
        let engine = Engine::open_with(Arc::new(clock.clone()));
        let mut daemon = Self { engine, clock, folder: TempDir::new().unwrap(), server: None };
        daemon.serve();
        daemon
    }

    fn serve(&mut self) {
        let listener = socket::bind(&self.path()).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = server::serve(listener, self.engine.engines(), async move {
            _ = stopped.await;
        });
        self.server = Some((stop, tokio::spawn(serving)));
    }

    /// Ends the API at once, as a `kill -9` does.
    async fn kill(&mut self) {
        let (_stop, server) = self.server.take().unwrap();
        server.abort();
        _ = server.await;
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("state.sock")
    }

    fn remote(&self) -> Engines {
        Remote::connect(&socket::url(&self.path())).unwrap().engines()
    }

    fn worker(&self) -> Worker {
        Worker::new(self.remote(), &self.clock)
    }

    /// A worker of the service of this name, which has sessions of its own.
    fn worker_with(&self, realm: &str) -> Worker {
        let path = self.folder.path().join(format!("{realm}.sock"));
        let grants = Arc::new(Grants::default());
        let mut grant = Grant::default();
        grant.sessions = Some(Realm::named(realm).unwrap());
        grants.set(realm, Some(grant));
        let door = Door::of_service(realm, grants, Arc::new(Anybody));
        let serving =
            Api::new(self.engine.engines()).serve(socket::bind(&path).unwrap(), door, std::future::pending());
        tokio::spawn(serving);
        Worker::with_ring(Remote::connect(&socket::url(&path)).unwrap().engines(), &self.clock, realm)
    }
}

/// Who asks is nobody's worker.
struct Anybody;

#[async_trait]
impl Peers for Anybody {
    async fn peer(&self, _: Option<i32>) -> Peer {
        Peer::Other
    }
}

/// A worker, with its own connections and memory.
struct Worker {
    layer: SessionLayer,
    keys: Keys,
    engines: Engines,
}

impl Worker {
    fn new(engines: Engines, clock: &ManualClock) -> Self {
        Self::with_ring(engines, clock, "web")
    }

    fn with_ring(engines: Engines, clock: &ManualClock, ring: &str) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(clock.clone());
        let keys = Keys::with_clock(Arc::clone(&engines.tables), ring, Turning::default(), clock);
        let layer = SessionLayer::new(Arc::clone(&engines.sessions)).hybrid(keys.clone());
        Self { layer, keys, engines }
    }

    fn revocations(&self) -> &Revocations {
        self.layer.revocations().unwrap()
    }

    fn browser(&self) -> Visitor {
        Visitor::new(site_with(self.layer.clone()))
    }

    /// The same browser at this worker.
    fn takes(&self, browser: &Visitor) -> Visitor {
        browser.clone().on(site_with(self.layer.clone()))
    }

    /// Waits until it stands so with revocations.
    async fn until(&self, holds: impl FnMut(&Status) -> bool) {
        self.revocations().status().wait_for(holds).await.unwrap();
    }

    async fn hears(&self, count: u64) {
        self.until(|status| status.heard >= count).await;
    }

    /// Who a browser is, as this worker sees it, and whether it had to look the session up: it does so for whoever has a pass
    /// that it does not believe, and only then is another one signed or the session found ended.
    async fn who(&self, browser: &Visitor) -> String {
        self.takes(browser).get("/who").await.text
    }
}

/// An engine that nobody reaches.
struct Away;

#[async_trait]
impl Sessions for Away {
    async fn create(&self, _: NewSession) -> Result<Session, Error> {
        Err(Error::Unavailable("away".into()))
    }
    async fn load(&self, _: &SessionId) -> Result<Session, Error> {
        Err(Error::Unavailable("away".into()))
    }
    async fn patch(&self, _: &SessionId, _: Patch) -> Result<Session, Error> {
        Err(Error::Unavailable("away".into()))
    }
    async fn renew(&self, _: &SessionId, _: Option<&str>, _: Patch) -> Result<Renewed, Error> {
        Err(Error::Unavailable("away".into()))
    }
    async fn destroy(&self, _: &SessionId) -> Result<(), Error> {
        Err(Error::Unavailable("away".into()))
    }
    async fn list_in(&self, _: Option<&Realm>, _: &str) -> Result<Vec<SessionInfo>, Error> {
        Err(Error::Unavailable("away".into()))
    }
    async fn revoke_in(&self, _: Option<&Realm>, _: &str, _: Option<&str>) -> Result<u64, Error> {
        Err(Error::Unavailable("away".into()))
    }
    async fn follow(&self) -> Result<Feed, Error> {
        Err(Error::Unavailable("away".into()))
    }
}

/// A browser that is signed in as ada and has a pass.
async fn signed_in(worker: &Worker) -> Visitor {
    worker.revocations().followed().await;
    let mut browser = worker.browser();
    browser.post_body("/sign-in", "ada").await;
    assert_eq!(browser.cookie(PASS), None, "a pass is signed for what was found alive");
    // Its own sign-in is heard of as a revocation of what was before; until it is, no pass is signed.
    while browser.cookie(PASS).is_none() {
        browser.get("/").await;
    }
    browser
}

#[tokio::test]
async fn who_is_known_without_the_engine_and_what_is_in_the_session_is_not() {
    let mut daemon = Daemon::start();
    let (one, other) = (daemon.worker(), daemon.worker());
    let browser = signed_in(&one).await;
    other.revocations().followed().await;
    other.keys.refresh().await.unwrap();
    // Nobody looks this up: the engine is told to forget the session behind everybody's back.
    let id = SessionId::parse(&browser.cookie(COOKIE).unwrap()).unwrap();
    daemon.engine.sessions().destroy(&id).await.unwrap();
    for worker in [&one, &other] {
        let mut visitor = worker.takes(&browser);
        let answer = visitor.get("/who").await;
        assert_eq!((answer.text.as_str(), answer.set_cookies().len()), ("ada", 0));
        assert_eq!(answer.headers["vary"], "cookie");
        assert_eq!(visitor.get("/").await.text, "user= a= b= count=0", "fields are looked up");
    }
    daemon.kill().await;
}

#[tokio::test]
async fn a_pass_is_signed_anew_past_half_of_its_life_and_survives_a_short_absence_of_the_engine() {
    let mut daemon = Daemon::start();
    let worker = daemon.worker();
    let mut browser = signed_in(&worker).await;
    let first = browser.cookie(PASS).unwrap();
    daemon.clock.advance(PASS_LIFE / 2);
    assert_eq!(browser.get("/who").await.set_cookies().len(), 0);
    daemon.clock.advance(Duration::from_secs(1));
    let renewed = browser.get("/who").await;
    let lines = renewed.set_cookies();
    let attributes = "; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=300";
    assert!(lines.len() == 1 && lines[0].ends_with(attributes), "{lines:?}");
    assert_eq!(renewed.headers["cache-control"], "no-store");
    assert_ne!(browser.cookie(PASS).unwrap(), first);

    daemon.clock.advance(PASS_LIFE / 2 + Duration::from_secs(1));
    // The engine of the sessions is away, that of the tables is not, and is heard.
    let lame = Worker::new(Engines { sessions: Arc::new(Away), ..worker.engines.clone() }, &daemon.clock);
    lame.revocations().followed().await;
    let mut visitor = lame.takes(&browser);
    assert_eq!(visitor.get("/who").await.text, "ada");
    assert_eq!(visitor.get("/").await.status, StatusCode::SERVICE_UNAVAILABLE);
    daemon.clock.advance(PASS_LIFE / 2);
    assert_eq!(visitor.get("/who").await.status, StatusCode::SERVICE_UNAVAILABLE, "the pass is over");
    daemon.kill().await;
}

#[tokio::test]
async fn what_one_worker_ends_is_over_at_the_other() {
    type End = fn(Daemon, Visitor, Worker) -> futures_util::future::BoxFuture<'static, (Daemon, Worker)>;
    let ends: [(&str, End); 5] = [
        ("signed out", |daemon, mut browser, worker| {
            Box::pin(async move {
                browser.post("/sign-out").await;
                (daemon, worker)
            })
        }),
        ("signed in anew", |daemon, mut browser, worker| {
            Box::pin(async move {
                browser.post_body("/sign-in", "ada").await;
                (daemon, worker)
            })
        }),
        ("revoked by a service in another language", |daemon, _, worker| {
            Box::pin(async move {
                worker.engines.sessions.revoke("ada", None).await.unwrap();
                (daemon, worker)
            })
        }),
        ("ended by its id", |daemon, browser, worker| {
            Box::pin(async move {
                let id = SessionId::parse(&browser.cookie(COOKIE).unwrap()).unwrap();
                worker.engines.sessions.destroy(&id).await.unwrap();
                (daemon, worker)
            })
        }),
        ("ended by its handle", |daemon, _, worker| {
            Box::pin(async move {
                let handle = worker.engines.sessions.list("ada").await.unwrap()[0].handle.clone();
                assert_eq!(worker.engines.sessions.revoke("ada", Some(&handle)).await.unwrap(), 1);
                (daemon, worker)
            })
        }),
    ];
    for (how, end) in ends {
        let daemon = Daemon::start();
        let (one, other) = (daemon.worker(), daemon.worker());
        let browser = signed_in(&one).await;
        other.revocations().followed().await;
        assert_eq!(other.who(&browser).await, "ada", "{how}");
        let heard = |worker: &Worker| worker.revocations().status().borrow().heard;
        let (heard_there, heard_here) = (heard(&other), heard(&one));
        let (_daemon, one) = end(daemon, browser.clone(), one).await;
        other.hears(heard_there + 1).await;
        assert_eq!(other.who(&browser).await, "", "{how}");
        assert_eq!(other.keys.refusals().of(Refusal::Revoked), 1, "{how}");
        assert_eq!(other.layer.life().of(Event::Ended), 1, "{how}");
        one.hears(heard_here + 1).await;
        assert_eq!(one.who(&browser).await, "", "{how}");
    }
}

#[tokio::test]
async fn the_worker_that_signs_somebody_out_need_not_hear_of_it() {
    let mut daemon = Daemon::start();
    let worker = daemon.worker();
    let mut browser = signed_in(&worker).await;
    let stolen = browser.clone();
    browser.post("/sign-out").await;
    assert_eq!(worker.who(&stolen).await, "");
    daemon.kill().await;
}

#[tokio::test]
async fn one_device_is_signed_out_and_the_others_stay() {
    let daemon = Daemon::start();
    let (one, other) = (daemon.worker(), daemon.worker());
    let (mut phone, desk) = (signed_in(&one).await, signed_in(&one).await);
    other.revocations().followed().await;
    assert_eq!((other.who(&phone).await, other.who(&desk).await), ("ada".into(), "ada".into()));
    let stolen = phone.clone();
    let heard = other.revocations().status().borrow().heard;
    phone.post("/sign-out").await;
    assert_eq!((phone.cookie(COOKIE), phone.cookie(PASS)), (None, None));
    other.hears(heard + 1).await;
    assert_eq!((other.who(&stolen).await, other.who(&desk).await), (String::new(), "ada".into()));
}

#[tokio::test]
async fn a_worker_that_begins_later_knows_of_what_was_before() {
    let daemon = Daemon::start();
    let one = daemon.worker();
    let browser = signed_in(&one).await;
    let id = SessionId::parse(&browser.cookie(COOKIE).unwrap()).unwrap();
    one.engines.sessions.destroy(&id).await.unwrap();
    let late = daemon.worker();
    late.revocations().followed().await;
    assert_eq!(late.revocations().status().borrow().heard, 0, "it was told nothing");
    assert_eq!(late.who(&browser).await, "");
}

#[tokio::test]
async fn all_sessions_are_revoked_and_who_signs_in_again_is_believed_at_once() {
    let daemon = Daemon::start();
    let (one, other) = (daemon.worker(), daemon.worker());
    let old = signed_in(&one).await;
    one.engines.sessions.revoke("ada", None).await.unwrap();
    let new = signed_in(&one).await;
    let heard = one.revocations().status().borrow().heard;
    other.revocations().followed().await;
    assert_eq!((other.who(&old).await, other.who(&new).await), (String::new(), "ada".into()));
    // The second one is not even looked up: its pass is of the epoch that began with the revocation.
    let before = other.layer.life().of(Event::Ended);
    daemon.engine.sessions().revoke("ada", None).await.unwrap();
    assert_eq!(other.who(&new).await, "ada", "behind everybody's back");
    assert_eq!(other.layer.life().of(Event::Ended), before);
    assert_eq!(one.revocations().status().borrow().heard, heard);
}

/// A relay between a worker and the daemon's socket, that can be cut.
struct Relay {
    path: PathBuf,
    relaying: JoinHandle<()>,
    _folder: TempDir,
}

impl Relay {
    fn to(daemon: PathBuf) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("relay.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let relaying = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let daemon = daemon.clone();
                connections.spawn(async move {
                    let mut far = UnixStream::connect(daemon).await.unwrap();
                    _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self { path, relaying, _folder: folder }
    }

    fn engines(&self) -> Engines {
        Remote::connect(&socket::url(&self.path)).unwrap().engines()
    }

    async fn cut(self) {
        self.relaying.abort();
        _ = self.relaying.await;
    }
}

#[tokio::test]
async fn a_worker_that_hears_nothing_believes_nothing() {
    let daemon = Daemon::start();
    let relay = Relay::to(daemon.path());
    // Revocations come over the relay, sessions do not.
    let (near, far) = (daemon.remote(), relay.engines());
    let cut_off = Worker::new(Engines { tables: far.tables, ..near }, &daemon.clock);
    let one = daemon.worker();
    let browser = signed_in(&one).await;
    let other = signed_in(&one).await;
    cut_off.revocations().followed().await;
    cut_off.keys.refresh().await.unwrap();
    assert_eq!(cut_off.who(&browser).await, "ada");
    relay.cut().await;
    cut_off.until(|status| !status.follows).await;

    let id = SessionId::parse(&browser.cookie(COOKIE).unwrap()).unwrap();
    one.engines.sessions.destroy(&id).await.unwrap();
    assert_eq!(cut_off.who(&browser).await, "", "each pass is checked");
    let answer = cut_off.takes(&other).get("/who").await;
    assert_eq!((answer.text.as_str(), answer.set_cookies().len()), ("ada", 0), "and no other one is signed");
}

#[tokio::test]
async fn a_daemon_that_comes_again_is_followed_again() {
    let mut daemon = Daemon::start();
    let (one, other) = (daemon.worker(), daemon.worker());
    let browser = signed_in(&one).await;
    other.revocations().followed().await;
    assert_eq!(other.who(&browser).await, "ada");
    daemon.kill().await;
    other.until(|status| !status.follows).await;
    assert_eq!(other.takes(&browser).get("/who").await.status, StatusCode::SERVICE_UNAVAILABLE);
    // This one is told to nobody: another daemon with the same engine does it while this one is away.
    daemon.engine.engines().with_revocations().sessions.revoke("ada", None).await.unwrap();
    daemon.serve();
    other.until(|status| status.follows).await;
    assert_eq!(other.who(&browser).await, "");
}

#[tokio::test]
async fn a_forged_pass_is_worth_nothing_and_counted() {
    let daemon = Daemon::start();
    let worker = daemon.worker();
    let (mut ada, mut bob) = (signed_in(&worker).await, worker.browser());
    bob.post_body("/sign-in", "bob").await;
    let good = ada.cookie(PASS).unwrap();
    let bobs_id = bob.cookie(COOKIE).unwrap();
    let (head, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = head.split_once('.').unwrap();
    let claims = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    assert!(claims.contains("ada") && !claims.contains(&ada.cookie(COOKIE).unwrap()), "{claims}");
    let name = |id: &str| SessionId::parse(id).unwrap().public_name();
    let bobs = claims.replace(&name(&ada.cookie(COOKIE).unwrap()), &name(&bobs_id));
    let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let none = encode(r#"{"alg":"none","typ":"session-pass+jwt"}"#);
    let stranger = encode(r#"{"alg":"EdDSA","kid":"AAAAAAAAAAAA","typ":"session-pass+jwt"}"#);
    let others = Issuer::new(worker.keys.clone(), "lethe-session", "lethe-session");
    let says = Map::from_iter([("sid".to_owned(), json!(name(&bobs_id))), ("epoch".to_owned(), json!(0))]);
    let of_another_kind = others.issue(Some("ada"), says).await.unwrap();
    for (pass, refusal) in [
        (good.clone(), Refusal::Unbound),
        (format!("{header}.{}.{signature}", encode(&bobs)), Refusal::BadSignature),
        (format!("{none}.{}.", encode(&bobs)), Refusal::UnknownKey),
        (format!("{stranger}.{}.{signature}", encode(&bobs)), Refusal::UnknownKey),
        (of_another_kind, Refusal::WrongType),
        ("nonsense".into(), Refusal::Malformed),
        ("x".repeat(9000), Refusal::TooLong),
    ] {
        let before = worker.keys.refusals().of(refusal);
        bob.plant(PASS, &pass);
        let answer = worker.takes(&bob).get("/who").await;
        assert_eq!(answer.text, "bob", "{refusal}: {pass:.200}");
        assert_eq!(worker.keys.refusals().of(refusal), before + 1, "{refusal}");
    }
    // A pass without a session is none.
    let mut nobody = worker.browser();
    nobody.plant(PASS, &good);
    assert_eq!(nobody.get("/who").await.text, "");
    nobody.plant(COOKIE, &SessionId::random().unwrap().to_text());
    assert_eq!(nobody.get("/who").await.text, "");
    // One that is over is looked up.
    daemon.clock.advance(PASS_LIFE);
    assert_eq!(ada.get("/who").await.text, "ada");
    assert_eq!(worker.keys.refusals().of(Refusal::Expired), 1);
}

/// Sessions of which one is kept, as it once was.
struct Copy {
    engine: Arc<dyn Sessions>,
    of: Session,
}

#[async_trait]
impl Sessions for Copy {
    async fn create(&self, new: NewSession) -> Result<Session, Error> {
        self.engine.create(new).await
    }
    async fn load(&self, _: &SessionId) -> Result<Session, Error> {
        Ok(self.of.clone())
    }
    async fn load_through(&self, id: &SessionId) -> Result<Session, Error> {
        self.engine.load(id).await
    }
    async fn patch(&self, id: &SessionId, patch: Patch) -> Result<Session, Error> {
        self.engine.patch(id, patch).await
    }
    async fn renew(&self, id: &SessionId, user: Option<&str>, patch: Patch) -> Result<Renewed, Error> {
        self.engine.renew(id, user, patch).await
    }
    async fn destroy(&self, id: &SessionId) -> Result<(), Error> {
        self.engine.destroy(id).await
    }
    async fn list_in(&self, realm: Option<&Realm>, user: &str) -> Result<Vec<SessionInfo>, Error> {
        self.engine.list_in(realm, user).await
    }
    async fn revoke_in(&self, realm: Option<&Realm>, user: &str, handle: Option<&str>) -> Result<u64, Error> {
        self.engine.revoke_in(realm, user, handle).await
    }
    async fn follow(&self) -> Result<Feed, Error> {
        self.engine.follow().await
    }
}

#[tokio::test]
async fn a_pass_is_signed_for_what_the_engine_says_and_for_no_copy() {
    let daemon = Daemon::start();
    let plain = daemon.worker();
    let browser = signed_in(&plain).await;
    let id = SessionId::parse(&browser.cookie(COOKIE).unwrap()).unwrap();
    let of = plain.engines.sessions.load(&id).await.unwrap();
    let copy = |engine| Copy { engine, of: of.clone() };
    let with_copy = |sessions: Arc<dyn Sessions>| {
        Worker::new(Engines { sessions, ..plain.engines.clone() }, &daemon.clock)
    };
    let (near, lame) = (
        with_copy(Arc::new(copy(Arc::clone(&plain.engines.sessions)))),
        with_copy(Arc::new(copy(Arc::new(Away)))),
    );
    near.revocations().followed().await;
    lame.revocations().followed().await;
    daemon.engine.sessions().destroy(&id).await.unwrap();
    let without_pass = |worker: &Worker| {
        let mut visitor = worker.browser();
        visitor.plant(COOKIE, &id.to_text());
        visitor
    };
    assert_eq!(without_pass(&near).get("/who").await.text, "");
    // Where the engine is away, the copy serves, as it does without passes.
    let answer = without_pass(&lame).get("/who").await;
    assert_eq!((answer.text.as_str(), answer.set_cookies()), ("ada", vec![]));
}

#[tokio::test]
async fn an_answer_that_comes_late_does_not_take_the_newer_session_away() {
    let daemon = Daemon::start();
    let worker = daemon.worker();
    worker.revocations().followed().await;
    let mut tab = worker.browser();
    tab.post("/set?a=1").await;
    // Another tab asks for a page, for which a pass is signed; before its answer is there, this one signs in.
    let mut slow = tab.clone();
    let answer = slow.get("/").await;
    assert!(answer.set_cookies()[0].starts_with(PASS), "{:?}", answer.set_cookies());
    tab.post_body("/sign-in", "ada").await;
    let id = tab.cookie(COOKIE).unwrap();
    tab.plant(PASS, &slow.cookie(PASS).unwrap());
    assert_eq!(answer.session_cookies(), Vec::<String>::new());
    assert_eq!(tab.get("/who").await.text, "ada");
    assert_eq!(tab.cookie(COOKIE).unwrap(), id);
}

#[tokio::test]
async fn a_service_goes_over_to_passes_and_back_and_nobody_is_signed_out() {
    let daemon = Daemon::start();
    let worker = daemon.worker();
    let stored = site_with(SessionLayer::new(Arc::clone(&worker.engines.sessions)));
    let mut browser = Visitor::new(stored.clone());
    browser.post_body("/sign-in", "ada").await;
    worker.revocations().followed().await;
    let mut browser = worker.takes(&browser);
    assert_eq!(browser.get("/who").await.text, "ada");
    assert!(browser.cookie(PASS).is_some());
    let mut browser = browser.on(stored);
    assert_eq!(browser.get("/").await.text, "user=ada a= b=from sign-in count=0");
}

#[tokio::test]
async fn a_pass_never_outlives_its_session() {
    let daemon = Daemon::start();
    let worker = daemon.worker();
    worker.revocations().followed().await;
    let lifetime = Lifetime { idle: Duration::from_secs(60), absolute: Duration::from_secs(90) };
    let site = site_with(worker.layer.clone().lifetime(lifetime));
    let mut browser = Visitor::new(site);
    browser.post("/set?a=1").await;
    let line = browser.get("/").await.set_cookies().remove(0);
    assert!(line.contains("Max-Age=60"), "{line}");
    daemon.clock.advance(Duration::from_secs(45));
    let line = browser.get("/").await.set_cookies().remove(0);
    assert!(line.contains("Max-Age=45"), "{line}");
}

#[tokio::test]
async fn a_sealed_pass_tells_its_bearer_nothing() {
    let daemon = Daemon::start();
    let mut worker = daemon.worker();
    worker.layer = worker.layer.sealed();
    let browser = signed_in(&worker).await;
    let pass = browser.cookie(PASS).unwrap();
    let parts = pass.split('.').map(|part| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap());
    assert!(parts.into_iter().all(|part| !part.windows(3).any(|letters| letters == b"ada")));
    assert_eq!(worker.who(&browser).await, "ada");
}

#[tokio::test]
async fn tokens_of_an_api_end_with_all_sessions_of_their_user_and_not_with_one() {
    let daemon = Daemon::start();
    let (one, other) = (daemon.worker(), daemon.worker());
    let issuer = |worker: &Worker| {
        Issuer::new(worker.keys.clone(), "shop", "api").revocable(worker.revocations().clone())
    };
    let token = issuer(&one).issue(Some("ada"), Map::new()).await.unwrap();
    let bobs = issuer(&one).issue(Some("bob"), Map::new()).await.unwrap();
    let mut browser = signed_in(&one).await;
    browser.post("/sign-out").await;
    other.revocations().followed().await;
    issuer(&other).verify(&token).await.unwrap();
    one.engines.sessions.revoke("ada", None).await.unwrap();
    other.hears(2).await;
    let refused = issuer(&other).verify(&token).await.unwrap_err();
    assert_eq!(refused.to_string(), Refusal::Revoked.to_string());
    issuer(&other).verify(&bobs).await.unwrap();
    let again = issuer(&one).issue(Some("ada"), Map::new()).await.unwrap();
    issuer(&other).verify(&again).await.unwrap();
    // One that says nothing of an epoch could not be revoked.
    let plain = Issuer::new(one.keys.clone(), "shop", "api").issue(Some("ada"), Map::new()).await.unwrap();
    assert!(issuer(&other).verify(&plain).await.is_err());
    assert_eq!(other.keys.refusals().of(Refusal::Revoked), 2);
}

/// Users of the same name at two services are two: what ends one's sessions and tokens leaves the other's as they are.
#[tokio::test]
async fn what_ends_in_one_realm_goes_on_in_another() {
    let daemon = Daemon::start();
    let (shop, bank) = (daemon.worker_with("shop"), daemon.worker_with("bank"));
    let issuer = |worker: &Worker| {
        Issuer::new(worker.keys.clone(), "shop", "api").revocable(worker.revocations().clone())
    };
    let (at_shop, at_bank) = (signed_in(&shop).await, signed_in(&bank).await);
    let tokens = [
        issuer(&shop).issue(Some("ada"), Map::new()).await.unwrap(),
        issuer(&bank).issue(Some("ada"), Map::new()).await.unwrap(),
    ];
    assert_eq!(bank.who(&at_shop).await, "", "the cookie of another service names nobody");

    shop.engines.sessions.revoke("ada", None).await.unwrap();
    shop.hears(2).await;
    assert_eq!((shop.who(&at_shop).await.as_str(), bank.who(&at_bank).await.as_str()), ("", "ada"));
    assert!(issuer(&shop).verify(&tokens[0]).await.is_err());
    issuer(&bank).verify(&tokens[1]).await.unwrap();
    let mut still = bank.takes(&at_bank);
    assert_eq!(still.get("/who").await.set_cookies().len(), 0, "the pass was not even doubted");
}

#[tokio::test]
async fn revocations_are_rows_that_go_by_themselves_and_name_nobody() {
    let daemon = Daemon::start();
    let worker = daemon.worker();
    let browser = signed_in(&worker).await;
    let id = SessionId::parse(&browser.cookie(COOKIE).unwrap()).unwrap();
    worker.engines.sessions.destroy(&id).await.unwrap();
    let rows = async || daemon.engine.tables().scan(TABLE, &Scan::default()).await.unwrap().rows;
    let found = rows().await;
    assert!(found.iter().any(|row| row.key == of_session(&id.public_name())));
    assert!(found.iter().all(|row| !row.key.contains("ada") && !row.key.contains(&id.to_text())));
    daemon.clock.advance(lethe_state::revocations::KEPT);
    assert_eq!(rows().await, []);
}
