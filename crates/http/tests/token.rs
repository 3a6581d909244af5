//! Tokens through a router, with the keys in the embedded engine: two workers share a ring that turns, others read the
//! published keys, and what is no token of the service is refused.

#![allow(clippy::unwrap_used)]

mod visitor;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::{Router, body::Body, routing::get};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use lethe_http::token::{
    Algorithm, Bearer, BearerLayer, Error, Issuer, Keys, OUTAGE_MAX, REFRESH, Refusal, Turning, jwks,
};
use lethe_state::{
    clock::ManualClock,
    error::Error as StateError,
    feed::Feed,
    tables::{Action, Condition, Outcome, Page, Row, Scan, Tables, Write},
};
use serde_json::{Map, Value, json};
use tower::ServiceExt;

use visitor::Engine;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Workers of one service, which share the state and the clock.
struct Fleet {
    engine: Engine,
    clock: ManualClock,
}

impl Fleet {
    fn new() -> Self {
        let clock = ManualClock::new(1_700_000_000_000);
        Self { engine: Engine::open_with(Arc::new(clock.clone())), clock }
    }

    fn keys(&self, algorithm: Algorithm) -> Keys {
        self.keys_on(self.engine.tables(), algorithm)
    }

    fn keys_on(&self, tables: Arc<dyn Tables>, algorithm: Algorithm) -> Keys {
        let turning = Turning { algorithm, ..Turning::default() };
        Keys::with_clock(tables, "web", turning, Arc::new(self.clock.clone()))
    }

    fn worker(&self) -> Issuer {
        self.worker_on(self.engine.tables())
    }

    /// One that reaches the state through these tables.
    fn worker_on(&self, tables: Arc<dyn Tables>) -> Issuer {
        Issuer::new(self.keys_on(tables, Algorithm::EdDSA), "https://shop.example", "shop")
    }
}

/// Tables that can be away.
struct Wayward {
    tables: Arc<dyn Tables>,
    weather: Mutex<Weather>,
    reads: AtomicUsize,
}

#[derive(Clone, Copy)]
enum Weather {
    Fair,
    Away,
    Silent,
}

impl Wayward {
    fn new(tables: Arc<dyn Tables>) -> Arc<Self> {
        Arc::new(Self { tables, weather: Mutex::new(Weather::Fair), reads: AtomicUsize::new(0) })
    }

    fn set(&self, weather: Weather) {
        *self.weather.lock().unwrap() = weather;
    }

    /// How often somebody has asked for a row.
    fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Tables for Wayward {
    async fn get(&self, table: &str, key: &str) -> Result<Option<Row>, StateError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let weather = *self.weather.lock().unwrap();
        match weather {
            Weather::Fair => self.tables.get(table, key).await,
            Weather::Away => Err(StateError::Unavailable("away".into())),
            Weather::Silent => std::future::pending().await,
        }
    }

    async fn scan(&self, table: &str, scan: &Scan) -> Result<Page, StateError> {
        self.tables.scan(table, scan).await
    }

    async fn apply(&self, batch: Vec<Write>) -> Result<Vec<Outcome>, StateError> {
        self.tables.apply(batch).await
    }

    async fn follow(&self, table: &str) -> Result<Feed, StateError> {
        self.tables.follow(table).await
    }
}

fn refusal(error: Error) -> Refusal {
    match error {
        Error::Refused(refusal) => refusal,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_token_of_one_worker_is_taken_by_another() {
    let fleet = Fleet::new();
    let (one, other) = (fleet.worker(), fleet.worker());
    let rest = Map::from_iter([("role".to_owned(), json!("admin"))]);
    let token = one.issue(Some("ada"), rest).await.unwrap();
    let claims = other.verify(&token).await.unwrap();
    assert_eq!((claims.sub.as_deref(), &claims.rest["role"]), (Some("ada"), &json!("admin")));
    assert_eq!((claims.exp - claims.iat, claims.jti.len()), (900, 22));
    assert_ne!(claims.jti, other.verify(&one.issue(None, Map::new()).await.unwrap()).await.unwrap().jti);
    fleet.clock.advance(Duration::from_secs(900));
    assert_eq!(refusal(other.verify(&token).await.unwrap_err()), Refusal::Expired);
    assert_eq!(other.keys().refusals().of(Refusal::Expired), 1);
}

#[tokio::test]
async fn a_token_for_one_purpose_is_none_for_another() {
    let fleet = Fleet::new();
    let access = fleet.worker();
    let keys = access.keys().clone();
    let token = access.issue(Some("ada"), Map::new()).await.unwrap();
    for (issuer, expected) in [
        (Issuer::new(keys.clone(), "https://shop.example", "shop").kind("reset+jwt"), Refusal::WrongType),
        (Issuer::new(keys.clone(), "https://other.example", "shop"), Refusal::WrongIssuer),
        (Issuer::new(keys.clone(), "https://shop.example", "till"), Refusal::WrongAudience),
        (Issuer::new(keys.clone(), "https://shop.example", "shop").sealed(), Refusal::NotSealed),
    ] {
        assert_eq!(refusal(issuer.verify(&token).await.unwrap_err()), expected);
        assert_eq!(keys.refusals().of(expected), 1);
    }
    let sealed = Issuer::new(keys, "https://shop.example", "shop").sealed();
    let hidden = sealed.issue(Some("ada"), Map::new()).await.unwrap();
    assert_eq!(sealed.verify(&hidden).await.unwrap().sub.as_deref(), Some("ada"));
    assert!(access.verify(&hidden).await.is_err());
}

#[tokio::test]
async fn claims_of_its_own_cannot_be_set() {
    let issuer = Fleet::new().worker();
    for name in ["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "fgp"] {
        let rest = Map::from_iter([(name.to_owned(), json!(1))]);
        let error = issuer.issue(None, rest).await.unwrap_err().to_string();
        assert!(error.contains(&format!("`{name}`")), "{error}");
    }
}

#[tokio::test]
async fn a_token_cannot_outlive_the_keys_of_its_ring() {
    let issuer = Fleet::new().worker().life(DAY * 365);
    let claims = issuer.verify(&issuer.issue(Some("ada"), Map::new()).await.unwrap()).await.unwrap();
    assert_eq!(claims.exp - claims.iat, DAY.as_secs() as i64);
}

#[tokio::test]
async fn the_ring_turns_and_nobody_is_signed_out() {
    let fleet = Fleet::new();
    let (one, other) = (fleet.worker().life(DAY), fleet.worker().life(DAY));
    let (mut kids, mut last) = (BTreeSet::new(), None::<String>);
    for _day in 0..65 {
        // Every other day a worker is first that still has an old copy.
        one.keys().refresh().await.unwrap();
        let token = one.issue(Some("ada"), Map::new()).await.unwrap();
        other.verify(&token).await.unwrap();
        if let Some(last) = last {
            // It is a second younger than a day.
            other.verify(&last).await.unwrap();
        }
        kids.insert(header_of(&token)["kid"].as_str().unwrap().to_owned());
        assert!(published(one.keys()).await.0.len() <= 2);
        last = Some(token);
        fleet.clock.advance(DAY - Duration::from_secs(1));
    }
    assert_eq!(kids.len(), 3, "a key signs for 30 days");
    assert_eq!(other.keys().refusals().of(Refusal::UnknownKey), 0);
}

#[tokio::test]
async fn workers_that_begin_together_share_one_key() {
    let fleet = Fleet::new();
    let workers: Vec<Issuer> = (0..16).map(|_| fleet.worker()).collect();
    let tokens = workers.iter().map(|worker| worker.issue(Some("ada"), Map::new()));
    let tokens = futures_util::future::try_join_all(tokens).await.unwrap();
    let kids: BTreeSet<String> = tokens.iter().map(|token| header_of(token)["kid"].to_string()).collect();
    assert_eq!(kids.len(), 1, "{kids:?}");
}

#[tokio::test]
async fn a_copy_is_read_again_in_the_background() {
    let fleet = Fleet::new();
    let (one, other) = (fleet.worker(), fleet.worker());
    let token = other.issue(Some("ada"), Map::new()).await.unwrap();
    let before = published(other.keys()).await.0;
    one.keys().replace().await.unwrap();
    let stolen = token;
    assert_eq!(refusal(one.verify(&stolen).await.unwrap_err()), Refusal::UnknownKey);
    // The other worker still has its copy, and nobody waits for another one before it is half a minute old.
    other.verify(&stolen).await.unwrap();
    fleet.clock.advance(REFRESH / 2);
    other.verify(&stolen).await.unwrap();
    while published(other.keys()).await.0 == before {
        tokio::task::yield_now().await;
    }
    assert_eq!(refusal(other.verify(&stolen).await.unwrap_err()), Refusal::UnknownKey);
}

/// A thief may try the key first where nobody has asked for anything since it was replaced.
#[tokio::test]
async fn a_worker_that_was_idle_takes_nothing_that_a_stolen_key_has_signed() {
    let fleet = Fleet::new();
    let (one, other) = (fleet.worker(), fleet.worker());
    let stolen = other.issue(Some("ada"), Map::new()).await.unwrap();
    for idle in [REFRESH, Duration::from_secs(600)] {
        other.keys().refresh().await.unwrap();
        one.keys().replace().await.unwrap();
        fleet.clock.advance(idle);
        assert_eq!(refusal(other.verify(&stolen).await.unwrap_err()), Refusal::UnknownKey, "{idle:?}");
    }
    // Nor does it sign with what everybody else has forgotten.
    one.keys().replace().await.unwrap();
    fleet.clock.advance(REFRESH);
    let token = other.issue(Some("ada"), Map::new()).await.unwrap();
    one.verify(&token).await.unwrap();
}

/// Many requests that come to an idle worker at once wait for one reading.
#[tokio::test]
async fn those_who_wait_for_the_ring_wait_for_one_reading() {
    let fleet = Fleet::new();
    let tables = Wayward::new(fleet.engine.tables());
    let issuer = fleet.worker_on(tables.clone());
    let token = issuer.issue(Some("ada"), Map::new()).await.unwrap();
    fleet.clock.advance(REFRESH);
    let before = tables.reads();
    futures_util::future::try_join_all((0..16).map(|_| issuer.verify(&token))).await.unwrap();
    assert_eq!(tables.reads() - before, 1);
    // So they do when it fails.
    tables.set(Weather::Away);
    tokio::time::pause();
    fleet.clock.advance(REFRESH);
    futures_util::future::try_join_all((0..16).map(|_| issuer.verify(&token))).await.unwrap();
    assert_eq!(tables.reads() - before, 2);
}

#[tokio::test]
async fn a_key_that_is_new_to_a_worker_is_looked_up_at_once_but_not_for_each_token() {
    let fleet = Fleet::new();
    let (one, other) = (fleet.worker(), fleet.worker());
    other.keys().refresh().await.unwrap();
    one.keys().replace().await.unwrap();
    let token = one.issue(Some("ada"), Map::new()).await.unwrap();
    // Just read: whoever sends forged tokens must not make the worker read again and again.
    assert_eq!(refusal(other.verify(&token).await.unwrap_err()), Refusal::UnknownKey);
    fleet.clock.advance(Duration::from_secs(1));
    other.verify(&token).await.unwrap();
}

#[tokio::test]
async fn while_the_state_tier_is_away_the_copy_serves_for_a_stated_time() {
    let fleet = Fleet::new();
    let (tables, cold) = (Wayward::new(fleet.engine.tables()), Wayward::new(fleet.engine.tables()));
    cold.set(Weather::Away);
    let (warm, cold, other) =
        (fleet.worker_on(tables.clone()).life(DAY), fleet.worker_on(cold), fleet.worker());
    let token = warm.issue(Some("ada"), Map::new()).await.unwrap();
    tables.set(Weather::Away);
    fleet.clock.advance(Duration::from_secs(600));
    warm.verify(&token).await.unwrap();
    other.keys().replace().await.unwrap();
    warm.verify(&warm.issue(Some("bob"), Map::new()).await.unwrap()).await.unwrap();
    assert!(matches!(cold.verify(&token).await.unwrap_err(), Error::State(_)), "it has none");
    fleet.clock.advance(OUTAGE_MAX - Duration::from_secs(601));
    warm.verify(&token).await.unwrap();
    fleet.clock.advance(Duration::from_secs(1));
    assert!(matches!(warm.verify(&token).await.unwrap_err(), Error::State(StateError::Unavailable(_))));
    // As soon as the tier is back, what was replaced meanwhile is refused, whether somebody has asked before or not.
    tables.set(Weather::Fair);
    let before = tables.reads();
    while tables.reads() == before {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let refused = async {
        while !matches!(warm.verify(&token).await, Err(Error::Refused(Refusal::UnknownKey))) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), refused).await.unwrap();
}

/// Nobody waits long for a tier that takes questions and does not answer, and only the first waits at all.
#[tokio::test]
async fn a_silent_state_tier_holds_nobody_up() {
    let fleet = Fleet::new();
    let tables = Wayward::new(fleet.engine.tables());
    let issuer = fleet.worker_on(tables.clone());
    let token = issuer.issue(Some("ada"), Map::new()).await.unwrap();
    tables.set(Weather::Silent);
    fleet.clock.advance(REFRESH);
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    issuer.verify(&token).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 2);
    issuer.verify(&token).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 2);
}

/// A clock that steps makes no token older or younger than it says, and no worker deaf to the ring.
#[tokio::test]
async fn a_clock_that_steps_refuses_too_much_and_takes_nothing_twice() {
    let fleet = Fleet::new();
    let (one, other) = (fleet.worker(), fleet.worker());
    let token = one.issue(Some("ada"), Map::new()).await.unwrap();
    other.verify(&token).await.unwrap();
    fleet.clock.set_back(Duration::from_secs(600));
    assert_eq!(refusal(other.verify(&token).await.unwrap_err()), Refusal::NotYet);
    let earlier = one.issue(Some("ada"), Map::new()).await.unwrap();
    other.verify(&earlier).await.unwrap();
    // A copy from the future is read again, so a key that is replaced then is not believed for ten minutes.
    one.keys().replace().await.unwrap();
    fleet.clock.advance(REFRESH);
    assert_eq!(refusal(other.verify(&earlier).await.unwrap_err()), Refusal::UnknownKey);
    let last = other.issue(Some("ada"), Map::new()).await.unwrap();
    fleet.clock.advance(Duration::from_secs(900));
    assert_eq!(refusal(one.verify(&last).await.unwrap_err()), Refusal::Expired);
}

#[tokio::test]
async fn a_row_that_is_no_ring_is_not_overwritten() {
    let fleet = Fleet::new();
    let write = Write {
        table: "lethe-token-keys".into(),
        key: "web".into(),
        condition: Condition::Any,
        action: Action::Put { value: "7".into(), ttl: None },
    };
    fleet.engine.tables().apply(vec![write]).await.unwrap();
    let error = fleet.worker().issue(None, Map::new()).await.unwrap_err().to_string();
    assert!(error.contains("the row `web` of the table lethe-token-keys is no ring of keys"), "{error}");
}

#[tokio::test]
async fn shared_secrets_are_not_published() {
    let fleet = Fleet::new();
    let keys = fleet.keys(Algorithm::HS256);
    let issuer = Issuer::new(keys.clone(), "a", "b");
    let token = issuer.issue(Some("ada"), Map::new()).await.unwrap();
    issuer.verify(&token).await.unwrap();
    assert_eq!(header_of(&token)["alg"], "HS256");
    assert_eq!(published(&keys).await, (vec![], "public, max-age=300".into()));
}

#[tokio::test]
async fn a_handler_gets_what_the_bearer_may_do() {
    async fn whoami(Bearer(claims): Bearer) -> String {
        claims.sub.unwrap_or_default()
    }
    let fleet = Fleet::new();
    let issuer = fleet.worker();
    let site = Router::new().route("/", get(whoami)).layer(BearerLayer::new(issuer.clone()));
    let ask = async |fields: &[&str]| {
        let mut request = Request::get("/");
        for field in fields {
            request = request.header(header::AUTHORIZATION, *field);
        }
        let response = site.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let challenge = response.headers().get(header::WWW_AUTHENTICATE).cloned();
        let status = response.status();
        let text = response.into_body().collect().await.unwrap().to_bytes();
        (status, challenge, String::from_utf8(text.to_vec()).unwrap())
    };
    let token = issuer.issue(Some("ada"), Map::new()).await.unwrap();
    let (status, challenge, text) = ask(&[&format!("bearer {token}")]).await;
    assert_eq!((status, challenge, text.as_str()), (StatusCode::OK, None, "ada"));
    for fields in [&[][..], &["Basic YTpi"], &["Bearer"], &[&format!("Bearer {token}"), "Bearer x"]] {
        let (status, challenge, _) = ask(fields).await;
        assert_eq!((status, challenge.unwrap().to_str().unwrap()), (StatusCode::UNAUTHORIZED, "Bearer"));
    }
    let (status, challenge, text) = ask(&["Bearer a.b.c"]).await;
    assert_eq!(challenge.unwrap(), "Bearer error=\"invalid_token\"");
    assert!(status == StatusCode::UNAUTHORIZED && text.contains("not valid here"), "{text}");
    fleet.clock.advance(DAY);
    let (_, challenge, _) = ask(&[&format!("Bearer {token}")]).await;
    assert_eq!(challenge.unwrap(), "Bearer error=\"invalid_token\", error_description=\"expired\"");
    fleet.engine.close().await;
}

#[tokio::test]
async fn a_bound_token_is_worth_nothing_without_its_cookie() {
    async fn whoami(Bearer(claims): Bearer) -> String {
        claims.sub.unwrap_or_default()
    }
    let issuer = Fleet::new().worker();
    let site = Router::new().route("/", get(whoami)).layer(BearerLayer::new(issuer.clone()));
    let (token, fingerprint) = issuer.issue_bound(Some("ada"), Map::new()).await.unwrap();
    let (_, another) = issuer.issue_bound(Some("ada"), Map::new()).await.unwrap();
    let pair = |line: http::HeaderValue| line.to_str().unwrap().split(';').next().unwrap().to_owned();
    let ask = async |cookie: Option<String>| {
        let mut request = Request::get("/").header(header::AUTHORIZATION, format!("Bearer {token}"));
        if let Some(cookie) = cookie {
            request = request.header(header::COOKIE, cookie);
        }
        site.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status()
    };
    assert_eq!(ask(Some(pair(fingerprint.set_cookie()))).await, StatusCode::OK);
    assert_eq!(ask(None).await, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(Some(pair(another.set_cookie()))).await, StatusCode::UNAUTHORIZED);
    assert_eq!(refusal(issuer.verify(&token).await.unwrap_err()), Refusal::Unbound);
    assert_eq!(issuer.keys().refusals().of(Refusal::Unbound), 3);
}

fn header_of(token: &str) -> Value {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    let header = token.split('.').next().unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap()
}

/// The names of the published keys, and the field that says how long they may be kept.
async fn published(keys: &Keys) -> (Vec<String>, String) {
    let response = jwks(keys.clone()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/jwk-set+json");
    let cached = response.headers()[header::CACHE_CONTROL].to_str().unwrap().to_owned();
    let set: Value =
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    let keys = set["keys"].as_array().unwrap();
    for key in keys {
        assert_eq!(
            (&key["kty"], &key["crv"], &key["alg"]),
            (&json!("OKP"), &json!("Ed25519"), &json!("EdDSA"))
        );
        assert_eq!(key.as_object().unwrap().len(), 6, "no secret is published: {key}");
    }
    (keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect(), cached)
}
