//! The layer in front of a router, on the embedded engine, and on one that a test has in its hand.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod visitor;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    response::Response,
    routing::{get, post},
};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use lethe_http::{
    limit::{LimitLayer, Outage, Quota, by},
    session::{Session, SessionLayer},
    token::{Keys, Turning},
};
use lethe_state::{
    error::Error,
    limits::{Limits, Page, Take, Verdict},
};
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::ServiceExt;
use visitor::{Engine, Visitor};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn site(layer: LimitLayer) -> Router {
    Router::new().route("/", get(|| async { "hello" })).layer(layer)
}

async fn ask(site: &Router, headers: &[(&str, &str)]) -> Response {
    let mut request = Request::get("/");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    site.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

async fn status(site: &Router, headers: &[(&str, &str)]) -> u16 {
    ask(site, headers).await.status().as_u16()
}

fn field<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

async fn text(response: Response) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().into()).unwrap()
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let engine = Engine::open();
    let site = site(LimitLayer::new(engine.limits()).limit("api", Quota::per(2, DAY), by::address()));
    for left in [1, 0] {
        let response = ask(&site, &[]).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(field(&response, "ratelimit-policy"), "\"api\";q=2;w=86400");
        let state = field(&response, "ratelimit").to_owned();
        assert!(state.starts_with(&format!("\"api\";r={left};t=")), "{state}");
        assert_eq!(field(&response, "retry-after"), "");
        assert_eq!(text(response).await, "hello");
    }
    let refused = ask(&site, &[]).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let seconds: u64 = field(&refused, "retry-after").parse().unwrap();
    assert!((43_000..=43_200).contains(&seconds), "half a day, but for the time since: {seconds}");
    assert_eq!(field(&refused, "ratelimit"), format!("\"api\";r=0;t={seconds}"));
    assert_eq!(field(&refused, "ratelimit-policy"), "\"api\";q=2;w=86400");
    assert_eq!(field(&refused, "content-type"), "application/problem+json");
    assert_eq!(field(&refused, "cache-control"), "no-store");
    let problem: Value = serde_json::from_str(&text(refused).await).unwrap();
    assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!((&problem["status"], &problem["violated-policies"]), (&json!(429), &json!(["api"])));
    assert!(problem["detail"].as_str().unwrap().contains("12 hours"), "{problem}");
    let page = ask(&site, &[("accept", "text/html,*/*")]).await;
    assert_eq!(
        (page.status(), field(&page, "content-type")),
        (StatusCode::TOO_MANY_REQUESTS, "text/html; charset=utf-8")
    );
    assert!(page.headers().contains_key("retry-after") && page.headers().contains_key("ratelimit"));
}

#[tokio::test]
async fn a_refusal_by_one_limit_takes_nothing_of_the_others() {
    let engine = Engine::open();
    let layer = LimitLayer::new(engine.limits()).limit("all", Quota::per(10, DAY), by::everyone()).limit(
        "client",
        Quota::per(2, DAY),
        by::address(),
    );
    let site = site(layer);
    let (one, other) = ([("x-forwarded-for", "192.0.2.7")], [("x-forwarded-for", "192.0.2.8")]);
    for expected in [200, 200, 429, 429, 429] {
        assert_eq!(status(&site, &one).await, expected);
    }
    let response = ask(&site, &other).await;
    assert!(field(&response, "ratelimit").starts_with("\"all\";r=7;t="), "{}", field(&response, "ratelimit"));
    assert_eq!(field(&response, "ratelimit-policy"), "\"all\";q=10;w=86400, \"client\";q=2;w=86400");
    let refused = ask(&site, &one).await;
    assert!(!field(&refused, "ratelimit").contains("all"), "it is not the one that refuses");
}

#[tokio::test]
async fn clients_are_told_apart_by_what_the_gateway_says() {
    let engine = Engine::open();
    let site = site(LimitLayer::new(engine.limits()).limit("api", Quota::per(1, DAY), by::address()));
    for (address, expected) in [
        ("192.0.2.7", 200),
        ("192.0.2.7", 429),
        ("192.0.2.7, 10.0.0.1", 429),
        ("10.0.0.1", 200),
        ("2001:db8:1:2::1", 200),
        ("2001:db8:1:2:ffff::9", 429),
        ("2001:db8:1:3::1", 200),
        ("::ffff:192.0.2.7", 429),
    ] {
        assert_eq!(status(&site, &[("x-forwarded-for", address)]).await, expected, "{address}");
    }
}

#[tokio::test]
async fn an_invented_key_does_not_go_round_the_address() {
    let engine = Engine::open();
    let layer = LimitLayer::new(engine.limits())
        .limit("key", Quota::per(2, DAY), by::header("x-api-key"))
        .limit("client", Quota::per(3, DAY), by::address());
    let site = site(layer);
    for (key, expected) in [("a", 200), ("a", 200), ("a", 429), ("b", 200), ("c", 429)] {
        assert_eq!(status(&site, &[("x-api-key", key)]).await, expected, "{key}");
    }
}

#[tokio::test]
async fn what_a_function_has_no_key_for_is_not_counted() {
    let engine = Engine::open();
    let writes = by::function(|parts| (!parts.method.is_safe()).then(|| "writes".to_owned()));
    let layer = LimitLayer::new(engine.limits()).limit("writes", Quota::per(1, DAY), writes);
    let site = Router::new().route("/", get(|| async { "read" }).post(|| async { "written" })).layer(layer);
    let send = |request: http::request::Builder| site.clone().oneshot(request.body(Body::empty()).unwrap());
    for _ in 0..3 {
        let read = send(Request::get("/")).await.unwrap();
        assert_eq!((read.status(), field(&read, "ratelimit-policy")), (StatusCode::OK, ""));
    }
    assert_eq!(send(Request::post("/")).await.unwrap().status(), StatusCode::OK);
    assert_eq!(send(Request::post("/")).await.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn sessions_and_users_are_counted_and_strangers_by_address() {
    let engine = Engine::open();
    let limits = LimitLayer::new(engine.limits()).limit("session", Quota::per(3, DAY), by::session()).limit(
        "user",
        Quota::per(4, DAY),
        by::user(),
    );
    let sign_in = |session: Session| async move {
        session.sign_in("ada").await.unwrap();
        "welcome"
    };
    let site = Router::new()
        .route("/", get(|| async { "hello" }))
        .layer(limits)
        .route("/sign-in", post(sign_in))
        .layer(SessionLayer::new(engine.sessions()));
    let mut one = Visitor::new(site.clone());
    one.post("/sign-in").await;
    let mut two = Visitor::new(site.clone());
    two.post("/sign-in").await;
    let mut stranger = Visitor::new(site);
    let ok = StatusCode::OK;
    for _ in 0..3 {
        assert_eq!(one.get("/").await.status, ok);
    }
    let refused = one.get("/").await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.text.contains("[\"session\"]"), "{}", refused.text);
    assert_eq!(two.get("/").await.status, ok, "the refusal has cost the user nothing");
    let refused = two.get("/").await;
    assert!(refused.text.contains("[\"user\"]"), "both sessions are ada's: {}", refused.text);
    for round in 0..4 {
        // Neither no cookie nor a new one each time makes a stranger uncounted.
        stranger.plant("__Host-session", &format!("AAAAAAAAAAAAAAAAAAAAA{round}"));
        let expected = if round < 3 { ok } else { StatusCode::TOO_MANY_REQUESTS };
        assert_eq!(stranger.get("/").await.status, expected, "round {round}");
    }
}

/// A session in a cookie is another cookie after each change; its user stays, and so does the count.
#[tokio::test]
async fn sessions_in_cookies_are_counted_by_their_user() {
    let engine = Engine::open();
    let limits = LimitLayer::new(engine.limits()).limit("session", Quota::per(3, DAY), by::session());
    let change = |session: Session| async move {
        session.set("n", &format!("{:?}", Instant::now())).unwrap();
        "changed"
    };
    let sign_in = |session: Session| async move {
        session.sign_in("ada").await.unwrap();
        "welcome"
    };
    let site = Router::new()
        .route("/", post(change))
        .layer(limits)
        .route("/sign-in", post(sign_in))
        .layer(SessionLayer::tokens(Keys::new(engine.tables(), "web", Turning::default())));
    let (mut ada, mut stranger) = (Visitor::new(site.clone()), Visitor::new(site));
    assert_eq!(ada.post("/sign-in").await.status, StatusCode::OK);
    for visitor in [&mut ada, &mut stranger] {
        for expected in [200, 200, 200, 429] {
            let cookie = visitor.cookie("__Host-session");
            assert_eq!(visitor.post("/").await.status.as_u16(), expected);
            assert_eq!(visitor.cookie("__Host-session") == cookie, expected == 429);
        }
    }
}

#[tokio::test]
async fn a_limit_by_session_needs_a_session_layer() {
    let engine = Engine::open();
    let site = site(LimitLayer::new(engine.limits()).limit("api", Quota::per(9, DAY), by::user()));
    let response = ask(&site, &[]).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "not a limit that is never asked");
}

#[tokio::test]
async fn without_the_engine_requests_pass_or_not_as_it_was_said() {
    for (outage, expected) in [(Outage::Allow, 200), (Outage::Refuse, 503)] {
        let engine = Engine::open();
        let counted = by::function(|parts| (!parts.headers.contains_key("x-inside")).then(|| "k".to_owned()));
        let layer =
            LimitLayer::new(engine.limits()).limit("api", Quota::per(1, DAY), counted).on_outage(outage);
        let site = site(layer);
        engine.close().await;
        for _ in 0..10 {
            let response = ask(&site, &[]).await;
            assert_eq!(response.status().as_u16(), expected);
            assert_eq!(field(&response, "ratelimit"), "");
            assert_eq!(field(&response, "retry-after"), if expected == 503 { "1" } else { "" });
        }
        assert_eq!(status(&site, &[("x-inside", "1")]).await, 200, "what is not counted needs no engine");
    }
}

/// An engine that answers, fails or is stuck, as the test says.
#[derive(Default)]
struct Scripted {
    mode: AtomicU8,
    calls: AtomicU64,
}

impl Scripted {
    const ANSWERS: u8 = 0;
    const FAILS: u8 = 1;
    const STUCK: u8 = 2;

    fn set(&self, mode: u8) {
        self.mode.store(mode, Ordering::SeqCst);
    }

    fn calls(&self) -> u64 {
        self.calls.swap(0, Ordering::SeqCst)
    }
}

#[async_trait]
impl Limits for Scripted {
    async fn take_all(&self, takes: Vec<Take>) -> Result<Vec<Verdict>, Error> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let (remaining, zero) = (7, Duration::ZERO);
        let verdict = Verdict { allowed: true, remaining, retry_after: zero, reset_after: zero };
        match self.mode.load(Ordering::SeqCst) {
            Self::ANSWERS => Ok(vec![verdict; takes.len()]),
            Self::FAILS => Err(Error::Unavailable("it was taken away".into())),
            _ => std::future::pending().await,
        }
    }

    async fn reset(&self, _: &str, _: &str) -> Result<bool, Error> {
        Ok(false)
    }

    async fn list(&self, _: &str, _: Option<&str>, _: usize) -> Result<Page, Error> {
        Ok(Page::default())
    }
}

#[tokio::test(start_paused = true)]
async fn no_request_waits_longer_than_it_was_said() {
    let engine = Arc::new(Scripted::default());
    let limits: Arc<dyn Limits> = engine.clone();
    let (wait, second) = (Duration::from_millis(80), Duration::from_secs(1));
    let layer = LimitLayer::new(limits).limit("api", Quota::per(8, DAY), by::everyone()).timeout(wait);
    let site = site(layer);
    let timed = async || {
        let begin = Instant::now();
        let response = ask(&site, &[]).await;
        assert_eq!(response.status(), StatusCode::OK);
        (begin.elapsed(), field(&response, "ratelimit").to_owned())
    };
    let (passed, told) = timed().await;
    assert!(passed < wait && told.starts_with("\"api\";r=7"), "{told}");

    engine.set(Scripted::STUCK);
    engine.calls();
    for _ in 0..3 {
        let (passed, told) = timed().await;
        assert!(passed >= wait && passed < 2 * wait, "{passed:?}");
        assert_eq!(told, "");
    }
    // It is away now: nobody waits for it, but for one in a second who finds out.
    for _ in 0..100 {
        assert!(timed().await.0 < wait);
    }
    assert_eq!(engine.calls(), 3);
    tokio::time::advance(second).await;
    for _ in 0..100 {
        timed().await;
    }
    assert_eq!(engine.calls(), 1);

    engine.set(Scripted::ANSWERS);
    tokio::time::advance(second).await;
    for _ in 0..10 {
        assert!(timed().await.1.starts_with("\"api\";r=7"), "all are counted again at once");
    }
    // Single failures do not make it away.
    engine.calls();
    for _ in 0..5 {
        engine.set(Scripted::FAILS);
        timed().await;
        timed().await;
        engine.set(Scripted::ANSWERS);
        timed().await;
    }
    assert_eq!(engine.calls(), 15);
}

#[test]
fn mistakes_are_found_when_the_layer_is_made() {
    let limits: Arc<dyn Limits> = Arc::new(Scripted::default());
    let panics = |make: fn(LimitLayer) -> LimitLayer, part: &str| {
        let layer = LimitLayer::new(Arc::clone(&limits));
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(make(layer)))).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains(part), "{text}");
    };
    panics(|layer| layer.limit("Api", Quota::per(1, DAY), by::everyone()), "lower-case");
    panics(|layer| layer.limit("api", Quota::per(0, DAY), by::everyone()), "no calls");
    panics(
        |layer| {
            let layer = layer.limit("api", Quota::per(1, DAY), by::everyone());
            layer.limit("api", Quota::per(1, DAY), by::address())
        },
        "already",
    );
    panics(
        |layer| {
            let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q"];
            names.into_iter().fold(layer, |layer, name| layer.limit(name, Quota::per(1, DAY), by::everyone()))
        },
        "at most 16",
    );
}

#[tokio::test]
async fn a_response_to_a_request_that_was_counted_keeps_its_own_fields() {
    let engine = Engine::open();
    let inner = || async { ([(header::RETRY_AFTER, "7"), (header::CACHE_CONTROL, "max-age=60")], "hello") };
    let layer = LimitLayer::new(engine.limits()).limit("api", Quota::per(2, DAY), by::everyone());
    let site = Router::new().route("/", get(inner)).layer(layer);
    let response = ask(&site, &[]).await;
    assert_eq!((field(&response, "retry-after"), field(&response, "cache-control")), ("7", "max-age=60"));
}
