//! Sessions that the cookie holds: any worker with the ring reads them, and only as they were signed.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::StatusCode;
use lethe_http::{
    session::{COOKIE_TOKEN_BYTES_MAX, Lifetime, SessionLayer},
    token::{Issuer, Keys, Refusal, Turning},
};
use lethe_state::clock::ManualClock;
use serde_json::Map;

use super::{
    COOKIE, site_with,
    visitor::{Engine, Visitor},
};

const HOUR: Duration = Duration::from_secs(3600);
const LIFETIME: Lifetime = Lifetime { idle: HOUR, absolute: Duration::from_secs(3 * 3600) };

/// A service whose workers share nothing but the ring and the clock.
struct Fleet {
    engine: Engine,
    clock: ManualClock,
}

impl Fleet {
    fn new() -> Self {
        let clock = ManualClock::new(1_700_000_000_000);
        Self { engine: Engine::open_with(Arc::new(clock.clone())), clock }
    }

    fn keys(&self) -> Keys {
        Keys::with_clock(self.engine.tables(), "web", Turning::default(), Arc::new(self.clock.clone()))
    }

    /// A visitor of a worker that has just begun.
    fn visitor(&self) -> Visitor {
        Visitor::new(site_with(SessionLayer::tokens(self.keys()).lifetime(LIFETIME)))
    }

    /// The same visitor at another worker.
    fn elsewhere(&self, visitor: &Visitor) -> Visitor {
        let mut other = self.visitor();
        other.plant(COOKIE, &visitor.cookie(COOKIE).unwrap());
        other
    }
}

#[tokio::test]
async fn every_worker_reads_what_one_has_signed() {
    let fleet = Fleet::new();
    let mut visitor = fleet.visitor();
    visitor.post("/set?a=1").await;
    visitor.post("/count").await;
    let mut visitor = fleet.elsewhere(&visitor);
    assert_eq!(visitor.get("/").await.text, "user= a=1 b= count=1");
    assert_eq!(visitor.post("/count").await.text, "2");
    visitor.post("/remove?a=").await;
    assert_eq!(fleet.elsewhere(&visitor).get("/").await.text, "user= a= b= count=2");
}

#[tokio::test]
async fn reading_sets_no_cookie_and_asks_no_engine() {
    let fleet = Fleet::new();
    let mut visitor = fleet.visitor();
    visitor.post("/set?a=1").await;
    let clock = fleet.clock.clone();
    fleet.engine.close().await;
    let read = visitor.get("/").await;
    assert_eq!((read.text.as_str(), read.set_cookies().len()), ("user= a=1 b= count=0", 0));
    let written = visitor.post("/set?a=2").await;
    assert_eq!((written.status, written.set_cookies().len()), (StatusCode::OK, 1));
    clock.advance(HOUR / 4);
    assert_eq!(visitor.get("/").await.text, "user= a=2 b= count=0");
}

#[tokio::test]
async fn signing_in_and_out_change_the_token() {
    let fleet = Fleet::new();
    let mut visitor = fleet.visitor();
    visitor.post("/set?a=1").await;
    let before = visitor.cookie(COOKIE).unwrap();
    visitor.post_body("/sign-in", "ada").await;
    assert_ne!(visitor.cookie(COOKIE).unwrap(), before);
    assert_eq!(fleet.elsewhere(&visitor).get("/").await.text, "user=ada a=1 b=from sign-in count=0");
    // Somebody else gets nothing of it.
    visitor.post_body("/sign-in", "bob").await;
    assert_eq!(visitor.get("/").await.text, "user=bob a= b=from sign-in count=0");
    visitor.post("/sign-out").await;
    assert_eq!(visitor.cookie(COOKIE), None);
    assert_eq!(visitor.get("/").await.text, "user= a= b= count=0");
}

#[tokio::test]
async fn use_moves_the_end_on_past_half_of_the_time_and_never_past_the_absolute_end() {
    let fleet = Fleet::new();
    let mut visitor = fleet.visitor();
    visitor.post("/set?a=1").await;
    fleet.clock.advance(HOUR / 2);
    assert_eq!(visitor.get("/").await.set_cookies().len(), 0);
    fleet.clock.advance(Duration::from_secs(1));
    assert_eq!(visitor.get("/").await.set_cookies().len(), 1);
    for _ in 0..3 {
        fleet.clock.advance(HOUR * 45 / 60);
        assert_eq!(visitor.get("/").await.text, "user= a=1 b= count=0");
    }
    // 2 h 45 min and a second have gone by: the token ends with the session, in less than an hour.
    fleet.clock.advance(HOUR / 4 - Duration::from_secs(1));
    let ended = visitor.get("/").await;
    assert_eq!((ended.text.as_str(), ended.set_cookies().len()), ("user= a= b= count=0", 0));
    // The next write begins a new one.
    visitor.post("/set?a=2").await;
    assert_eq!(visitor.get("/").await.text, "user= a=2 b= count=0");
}

#[tokio::test]
async fn an_unused_session_expires() {
    let fleet = Fleet::new();
    let mut visitor = fleet.visitor();
    visitor.post("/set?a=1").await;
    fleet.clock.advance(HOUR);
    assert_eq!(visitor.get("/").await.text, "user= a= b= count=0");
}

#[tokio::test]
async fn what_was_not_signed_as_a_session_is_none() {
    let fleet = Fleet::new();
    let mut visitor = fleet.visitor();
    visitor.post_body("/sign-in", "ada").await;
    let good = visitor.cookie(COOKIE).unwrap();
    let (head, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = head.split_once('.').unwrap();
    let mut claims = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    claims = claims.replace("ada", "bob");
    let forged = format!("{header}.{}.{signature}", BASE64_URL_SAFE_NO_PAD.encode(claims));
    let none = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"session+jwt"}"#);
    let api = Issuer::new(fleet.keys(), "lethe-session", "lethe-session");
    let api = api.issue(Some("ada"), Map::new()).await.unwrap();
    for cookie in [forged, format!("{none}.{payload}."), api, "AAAAAAAAAAAAAAAAAAAAAA".into(), "x".into()] {
        let mut visitor = fleet.visitor();
        visitor.plant(COOKIE, &cookie);
        assert_eq!(visitor.get("/").await.text, "user= a= b= count=0", "{cookie}");
        visitor.post("/set?a=1").await;
        assert_eq!(visitor.get("/").await.text, "user= a=1 b= count=0", "{cookie}");
    }
}

#[tokio::test]
async fn a_session_that_does_not_fit_into_a_cookie_is_refused_whole() {
    let fleet = Fleet::new();
    let mut visitor = fleet.visitor();
    visitor.post("/set?a=1").await;
    let before = visitor.cookie(COOKIE).unwrap();
    let refused = visitor.post(&format!("/set?a={}", "x".repeat(COOKIE_TOKEN_BYTES_MAX))).await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(refused.text.contains("4000"), "{}", refused.text);
    assert_eq!(visitor.cookie(COOKIE).unwrap(), before);
}

#[tokio::test]
async fn a_sealed_session_cannot_be_read_by_its_bearer() {
    let fleet = Fleet::new();
    let keys = fleet.keys();
    let sealed = || site_with(SessionLayer::tokens(keys.clone()).sealed().lifetime(LIFETIME));
    let mut visitor = Visitor::new(sealed());
    visitor.post_body("/sign-in", "ada").await;
    let cookie = visitor.cookie(COOKIE).unwrap();
    let parts = cookie.split('.').map(|part| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap());
    assert!(parts.into_iter().all(|part| !part.windows(3).any(|letters| letters == b"ada")));
    let mut other = Visitor::new(sealed());
    other.plant(COOKIE, &cookie);
    assert_eq!(other.get("/").await.text, "user=ada a= b=from sign-in count=0");
    // One that is only signed is none.
    let mut open = fleet.visitor();
    open.post_body("/sign-in", "ada").await;
    other.plant(COOKIE, &open.cookie(COOKIE).unwrap());
    assert_eq!(other.get("/").await.text, "user= a= b= count=0");
    assert_eq!(keys.refusals().of(Refusal::NotSealed), 1);
}
