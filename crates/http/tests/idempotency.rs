//! Requests with a key through a router, on the embedded engine: answers that are given again, claims of the dead, and
//! what is not kept.

#![allow(clippy::unwrap_used)]

mod visitor;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::{AppendHeaders, IntoResponse, Response},
    routing::{get, post},
};
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Request, StatusCode, request::Parts};
use http_body_util::BodyExt;
use lethe_http::{
    idempotency::{ANSWER_BYTES_MAX, IdempotencyLayer, Key, REPLAYED},
    session::{Error, Session, SessionLayer},
    token::{BearerLayer, Issuer, Keys, Turning},
};
use lethe_state::{
    clock::ManualClock,
    error::Error as StateError,
    idempotency::{Answer as Kept, Beginning, Begun, Claim, Idempotency},
};
use serde_json::{Map, Value};
use tokio::sync::Notify;
use tower::ServiceExt;
use visitor::{Engine, Visitor};

/// What handlers tell the test, and wait for.
#[derive(Clone, Default)]
struct Stage {
    ran: Arc<AtomicUsize>,
    entered: Arc<Notify>,
    go_on: Arc<Notify>,
}

impl Stage {
    fn ran(&self) -> usize {
        self.ran.load(Ordering::SeqCst)
    }

    fn enter(&self) -> usize {
        let run = self.ran.fetch_add(1, Ordering::SeqCst) + 1;
        self.entered.notify_one();
        run
    }
}

/// A site with one route for each kind of answer.
fn site(engine: &Engine, stage: &Stage, change: impl Fn(IdempotencyLayer) -> IdempotencyLayer) -> Router {
    site_on(engine.idempotency(), engine, stage, change)
}

/// The same, with keys elsewhere.
fn site_on(
    keys: Arc<dyn Idempotency>,
    engine: &Engine,
    stage: &Stage,
    change: impl Fn(IdempotencyLayer) -> IdempotencyLayer,
) -> Router {
    async fn order(State(stage): State<Stage>, body: String) -> impl IntoResponse {
        let run = stage.enter();
        let fields =
            [("location", "/orders/1"), ("link", "</a>"), ("link", "</b>"), ("set-cookie", "seen=1; Path=/")];
        (StatusCode::CREATED, AppendHeaders(fields), format!("run {run} of {body}"))
    }
    async fn status(State(stage): State<Stage>, Path(status): Path<u16>) -> Response {
        let run = stage.enter();
        (StatusCode::from_u16(status).unwrap(), format!("run {run}")).into_response()
    }
    async fn slow(State(stage): State<Stage>) -> String {
        let run = stage.enter();
        stage.go_on.notified().await;
        format!("run {run}")
    }
    async fn panics(State(stage): State<Stage>) -> String {
        let run = stage.enter();
        assert!(run > 1, "the first run panics");
        format!("run {run}")
    }
    async fn large(State(stage): State<Stage>) -> Body {
        stage.enter();
        let pieces = (0..5).map(|n| Ok::<_, std::io::Error>(vec![b'0' + n; ANSWER_BYTES_MAX / 4]));
        Body::from_stream(stream::iter(pieces.collect::<Vec<_>>()))
    }
    async fn events(State(stage): State<Stage>) -> impl IntoResponse {
        stage.enter();
        let endless = stream::once(async { Ok::<_, std::io::Error>("data: 1\n\n") }).chain(stream::pending());
        ([("content-type", "text/event-stream; charset=utf-8")], Body::from_stream(endless))
    }
    async fn breaks_off(State(stage): State<Stage>) -> Body {
        stage.enter();
        let pieces = [Ok("begun"), Err(std::io::Error::other("the source is gone"))];
        Body::from_stream(stream::iter(pieces))
    }
    async fn key(key: Key) -> String {
        format!("{} {}", key.as_str(), key.unique())
    }
    async fn note(session: Session, State(stage): State<Stage>, body: String) -> Result<String, Error> {
        session.set("note", &body)?;
        Ok(format!("run {}", stage.enter()))
    }
    async fn read(session: Session) -> Result<String, Error> {
        Ok(session.get::<String>("note")?.unwrap_or_default())
    }
    async fn sign_in(session: Session, user: String) -> Result<(), Error> {
        session.sign_in(&user).await
    }
    Router::new()
        .route("/orders", post(order).patch(order).put(order).get(order))
        .route("/status/{status}", post(status))
        .route("/slow", post(slow))
        .route("/panics", post(panics))
        .route("/large", post(large))
        .route("/events", post(events))
        .route("/breaks-off", post(breaks_off))
        .route("/key", post(key))
        .route("/note", post(note))
        .layer(change(IdempotencyLayer::new(keys)))
        .route("/note", get(read))
        .route("/sign-in", post(sign_in))
        .layer(SessionLayer::new(engine.sessions()))
        .with_state(stage.clone())
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn is_replayed(&self) -> bool {
        self.headers.get(REPLAYED).is_some_and(|value| value == "true")
    }

    #[track_caller]
    fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem: Value = serde_json::from_str(&self.text).unwrap();
        assert_eq!(problem["code"], code, "{problem}");
        problem
    }
}

/// Sends `METHOD /path` with these fields and this body.
async fn send(
    site: &Router,
    request: &str,
    fields: &[(&'static str, &str)],
    body: impl Into<Body>,
) -> Answer {
    let (method, path) = request.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(path).body(body.into()).unwrap();
    for (name, value) in fields {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    let (head, body) = site.clone().oneshot(request).await.unwrap().into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().into()).unwrap();
    Answer { status: head.status, headers: head.headers, text }
}

const KEY: (&str, &str) = ("idempotency-key", "\"8e03978e\"");

fn as_it_is(layer: IdempotencyLayer) -> IdempotencyLayer {
    layer
}

#[tokio::test]
async fn the_first_answer_is_given_again() {
    let (engine, stage) = (Engine::open(), Stage::default());
    let site = site(&engine, &stage, as_it_is);
    let first = send(&site, "POST /orders", &[KEY], "a mug").await;
    assert_eq!((first.status, first.text.as_str()), (StatusCode::CREATED, "run 1 of a mug"));
    assert!(!first.is_replayed() && first.headers.contains_key("set-cookie"));
    for key in [KEY, ("idempotency-key", "8e03978e")] {
        let again = send(&site, "POST /orders", &[key], "a mug").await;
        assert_eq!((again.status, again.text.as_str()), (StatusCode::CREATED, "run 1 of a mug"));
        assert!(again.is_replayed() && !again.headers.contains_key("set-cookie"));
        for name in ["location", "content-type"] {
            assert_eq!(again.headers[name], first.headers[name]);
        }
        assert_eq!(again.headers.get_all("link").iter().count(), 2);
    }
    let other = send(&site, "POST /orders", &[("idempotency-key", "other")], "a mug").await;
    assert_eq!(other.text, "run 2 of a mug");
}

#[tokio::test]
async fn a_key_with_another_request_is_refused() {
    let (engine, stage) = (Engine::open(), Stage::default());
    let site = site(&engine, &stage, as_it_is);
    send(&site, "POST /orders", &[KEY], "a mug").await;
    for (request, body) in
        [("POST /orders", "two mugs"), ("PATCH /orders", "a mug"), ("POST /orders?gift=1", "a mug")]
    {
        send(&site, request, &[KEY], body).await.problem(422, "idempotency-mismatch");
    }
    assert_eq!(stage.ran(), 1);
}

#[tokio::test]
async fn keys_are_required_where_that_is_said() {
    let (engine, stage) = (Engine::open(), Stage::default());
    let lax = site(&engine, &stage, as_it_is);
    assert_eq!(send(&lax, "POST /orders", &[], "a").await.status, 201);
    assert_eq!(
        send(&lax, "POST /orders", &[], "a").await.text,
        "run 2 of a",
        "without a key, nothing is kept"
    );
    let strict = site(&engine, &stage, IdempotencyLayer::required);
    send(&strict, "POST /orders", &[], "a").await.problem(400, "idempotency-key-missing");
    send(&strict, "PATCH /orders", &[], "a").await.problem(400, "idempotency-key-missing");
    for method in ["GET", "PUT"] {
        assert_eq!(send(&strict, &format!("{method} /orders"), &[], "a").await.status, 201, "{method}");
        let keyed = send(&strict, &format!("{method} /orders"), &[KEY], "a").await;
        assert!(!keyed.is_replayed(), "{method} is idempotent by itself");
    }
    let ran = stage.ran();
    for bad in ["", "\"", "a b", &"k".repeat(256)] {
        let answer = send(&lax, "POST /orders", &[("idempotency-key", bad)], "a").await;
        answer.problem(400, "idempotency-key-malformed");
    }
    send(&lax, "POST /orders", &[KEY, KEY], "a").await.problem(400, "idempotency-key-malformed");
    send(&lax, "POST /key", &[], "").await.problem(400, "idempotency-key-missing");
    assert_eq!(stage.ran(), ran);
}

#[tokio::test]
async fn while_one_runs_others_are_told_so() {
    let (engine, stage) = (Engine::open(), Stage::default());
    let site = site(&engine, &stage, as_it_is);
    let first = tokio::spawn({
        let site = site.clone();
        async move { send(&site, "POST /slow", &[KEY], "").await }
    });
    stage.entered.notified().await;
    let told = send(&site, "POST /slow", &[KEY], "").await;
    told.problem(409, "idempotency-running");
    assert_eq!(told.headers["retry-after"], "1");
    stage.go_on.notify_one();
    assert_eq!(first.await.unwrap().text, "run 1");
    let again = send(&site, "POST /slow", &[KEY], "").await;
    assert!(again.is_replayed() && again.text == "run 1");
}

#[tokio::test]
async fn a_client_that_goes_away_finds_its_answer_later() {
    let (engine, stage) = (Engine::open(), Stage::default());
    let site = site(&engine, &stage, as_it_is);
    let first = tokio::spawn({
        let site = site.clone();
        async move { send(&site, "POST /slow", &[KEY], "").await }
    });
    stage.entered.notified().await;
    first.abort();
    assert!(first.await.is_err_and(|error| error.is_cancelled()));
    stage.go_on.notify_one();
    loop {
        let again = send(&site, "POST /slow", &[KEY], "").await;
        if again.status == StatusCode::CONFLICT {
            tokio::task::yield_now().await;
            continue;
        }
        assert!(again.is_replayed() && again.text == "run 1", "{}", again.text);
        break;
    }
    assert_eq!(stage.ran(), 1);
}

#[tokio::test]
async fn answers_by_which_nothing_was_done_are_not_kept() {
    let (engine, stage) = (Engine::open(), Stage::default());
    let site = site(&engine, &stage, as_it_is);
    for (status, kept) in [(404, true), (303, true), (500, false), (503, false), (409, false), (429, false)] {
        let key = ("idempotency-key", &*status.to_string());
        let path = format!("POST /status/{status}");
        let first = send(&site, &path, &[key], "").await;
        let again = send(&site, &path, &[key], "").await;
        assert_eq!((again.status, again.is_replayed()), (first.status, kept), "{status}");
        assert_eq!(again.text == first.text, kept, "{status}");
    }
}

/// An engine that is away for the first so many calls by which a claim is given back.
struct Away(Arc<dyn Idempotency>, AtomicUsize);

#[async_trait]
impl Idempotency for Away {
    async fn begin(&self, beginning: Beginning) -> Result<Begun, StateError> {
        self.0.begin(beginning).await
    }

    async fn extend(&self, claim: &Claim, lease: Duration) -> Result<bool, StateError> {
        self.0.extend(claim, lease).await
    }

    async fn finish(&self, claim: &Claim, answer: Kept) -> Result<bool, StateError> {
        self.0.finish(claim, answer).await
    }

    async fn abandon(&self, claim: &Claim) -> Result<bool, StateError> {
        let less = self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match less {
            Ok(_) => Err(StateError::Unavailable("it is away".into())),
            Err(_) => self.0.abandon(claim).await,
        }
    }
}

#[tokio::test]
async fn a_claim_is_given_back_though_the_engine_is_away_for_a_moment() {
    let (engine, stage) = (Engine::open(), Stage::default());
    let away: Arc<dyn Idempotency> = Arc::new(Away(engine.idempotency(), AtomicUsize::new(2)));
    let site = site_on(away, &engine, &stage, IdempotencyLayer::at_most_once);
    assert_eq!(send(&site, "POST /status/503", &[KEY], "").await.text, "run 1");
    assert_eq!(send(&site, "POST /status/503", &[KEY], "").await.text, "run 2", "nothing was done");
}

#[tokio::test]
async fn a_handler_that_panics_gives_its_key_back() {
    let (engine, stage) = (Engine::open(), Stage::default());
    let site = site(&engine, &stage, as_it_is);
    let panicked = tokio::spawn({
        let site = site.clone();
        async move { send(&site, "POST /panics", &[KEY], "").await }
    });
    assert!(panicked.await.is_err_and(|error| error.is_panic()), "it is no other than without the layer");
    assert_eq!(send(&site, "POST /panics", &[KEY], "").await.text, "run 2");
}

#[tokio::test]
async fn an_answer_that_is_too_large_reaches_the_first_and_is_not_made_again() {
    let (engine, stage) = (Engine::open(), Stage::default());
    let site = site(&engine, &stage, as_it_is);
    let first = send(&site, "POST /large", &[KEY], "").await;
    assert_eq!((first.status, first.text.len()), (StatusCode::OK, ANSWER_BYTES_MAX / 4 * 5));
    assert!(first.text.starts_with("00") && first.text.ends_with("44"));
    for _ in 0..2 {
        let again = send(&site, "POST /large", &[KEY], "").await;
        again.problem(410, "idempotency-answer-gone");
        assert!(again.is_replayed());
    }
    assert_eq!(stage.ran(), 1);

    send(&site, "POST /breaks-off", &[KEY], "").await.problem(422, "idempotency-mismatch");
    for _ in 0..2 {
        send(&site, "POST /breaks-off", &[("idempotency-key", "b")], "").await.problem(500, "internal");
    }
    assert_eq!(stage.ran(), 3, "an answer that broke off is not kept");
}

#[tokio::test]
async fn a_stream_of_events_is_not_waited_for() {
    let (engine, stage) = (Engine::open(), Stage::default());
    let site = site(&engine, &stage, as_it_is);
    let request = Request::post("/events").header(KEY.0, KEY.1).body(Body::empty()).unwrap();
    let mut body = site.clone().oneshot(request).await.unwrap().into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "data: 1\n\n");
    send(&site, "POST /events", &[KEY], "").await.problem(410, "idempotency-answer-gone");
    assert_eq!(stage.ran(), 1);
}

#[tokio::test]
async fn bodies_have_a_limit() {
    let (engine, stage) = (Engine::open(), Stage::default());
    let site = site(&engine, &stage, |layer| layer.body_bytes_max(10));
    assert_eq!(send(&site, "POST /orders", &[KEY], "0123456789").await.status, 201);
    let refused = send(&site, "POST /orders", &[KEY], "0123456789a").await;
    assert_eq!(refused.problem(413, "too-large")["max"], 10);
    let cut = stream::iter([Ok("01"), Err(std::io::Error::other("cut"))]).boxed();
    let refused = send(&site, "POST /orders", &[KEY], Body::from_stream(cut)).await;
    refused.problem(400, "body-cut");
    assert_eq!(stage.ran(), 1);
}

#[tokio::test]
async fn users_have_keys_of_their_own() {
    let (engine, stage) = (Engine::open(), Stage::default());
    let site = site(&engine, &stage, as_it_is);
    for (n, token) in ["Bearer a", "Bearer b"].into_iter().enumerate() {
        for replayed in [false, true] {
            let answer = send(&site, "POST /orders", &[KEY, ("authorization", token)], "x").await;
            assert_eq!(
                (answer.text, answer.headers.contains_key(REPLAYED)),
                (format!("run {} of x", n + 1), replayed)
            );
        }
    }
    let (mut ada, mut bob) = (Visitor::new(site.clone()), Visitor::new(site.clone()));
    ada.post_body("/sign-in", "ada").await;
    bob.post_body("/sign-in", "bob").await;
    let mut elsewhere = Visitor::new(site);
    elsewhere.post_body("/sign-in", "ada").await;
    let first = ada.post_with("/orders", &[KEY]).await.text;
    assert_ne!(bob.post_with("/orders", &[KEY]).await.text, first);
    assert_eq!(ada.post_with("/orders", &[KEY]).await.text, first);
    assert_eq!(
        elsewhere.post_with("/orders", &[KEY]).await.text,
        first,
        "in another session of the same user"
    );
}

/// A token lives for minutes, and a client that got no answer may try for longer.
#[tokio::test]
async fn who_renews_the_token_between_two_tries_is_the_same() {
    let clock = ManualClock::new(1_700_000_000_000);
    let (engine, stage) = (Engine::open_with(Arc::new(clock.clone())), Stage::default());
    let keys = Keys::with_clock(engine.tables(), "web", Turning::default(), Arc::new(clock.clone()));
    let issuer = Issuer::new(keys.clone(), "https://shop.example", "shop");
    let other = Issuer::new(keys, "https://other.example", "shop");
    let site = site(&engine, &stage, as_it_is);
    let (here, there) =
        (site.clone().layer(BearerLayer::new(issuer.clone())), site.layer(BearerLayer::new(other.clone())));
    let order = async |site: &Router, token: &str| {
        let answer =
            send(site, "POST /orders", &[KEY, ("authorization", &format!("Bearer {token}"))], "").await;
        answer.text
    };
    let ada = async || issuer.issue(Some("ada"), Map::new()).await.unwrap();
    let (first, second) = (ada().await, ada().await);
    assert_ne!(first, second);
    assert_eq!(order(&here, &first).await, "run 1 of ");
    assert_eq!(order(&here, &second).await, "run 1 of ");
    clock.advance(Duration::from_secs(3600));
    assert_eq!(order(&here, &ada().await).await, "run 1 of ");
    for (n, somebody_else) in [
        issuer.issue(Some("bob"), Map::new()).await.unwrap(),
        issuer.issue(None, Map::new()).await.unwrap(),
        // Nobody is believed to be ada who only says so.
        first,
        format!("{}x", ada().await),
        other.issue(Some("ada"), Map::new()).await.unwrap(),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(order(&here, &somebody_else).await, format!("run {} of ", n + 2));
    }
    let run = order(&there, &other.issue(Some("ada"), Map::new()).await.unwrap()).await;
    assert_eq!(run, "run 7 of ", "of another issuer");
    assert_eq!(order(&there, &other.issue(Some("ada"), Map::new()).await.unwrap()).await, run);
}

/// While it cannot be told whose a request is, it is not done.
#[tokio::test]
async fn a_token_that_cannot_be_checked_is_nobody_elses() {
    let (engine, stage) = (Engine::open(), Stage::default());
    let elsewhere = Engine::open();
    let keys = Keys::new(elsewhere.tables(), "web", Turning::default());
    let issuer = Issuer::new(keys, "https://shop.example", "shop");
    let site = site(&engine, &stage, as_it_is).layer(BearerLayer::new(issuer));
    elsewhere.close().await;
    let answer = send(&site, "POST /orders", &[KEY, ("authorization", "Bearer a.b.c")], "").await;
    answer.problem(503, "unavailable");
    assert_eq!(stage.ran(), 0);
}

#[tokio::test]
async fn a_service_may_say_whose_a_request_is() {
    let (engine, stage) = (Engine::open(), Stage::default());
    let account = |parts: &Parts| Some(parts.headers.get("account")?.to_str().ok()?.to_owned());
    let site = site(&engine, &stage, |layer| layer.identity(account));
    let order = async |account: &str, credentials: &str| {
        let fields = [KEY, ("account", account), ("authorization", credentials)];
        let fields = if account.is_empty() { [fields[0], fields[2], fields[2]] } else { fields };
        send(&site, "POST /orders", &fields, "").await.text
    };
    assert_eq!(order("7", "Signature a").await, "run 1 of ");
    assert_eq!(order("7", "Signature b").await, "run 1 of ");
    assert_eq!(order("8", "Signature b").await, "run 2 of ");
    assert_eq!(order("", "Signature b").await, "run 3 of ");
}

#[tokio::test]
async fn what_is_in_the_session_is_stored_before_the_answer_is_kept() {
    let (engine, stage) = (Engine::open(), Stage::default());
    let site = site(&engine, &stage, as_it_is);
    let mut visitor = Visitor::new(site);
    visitor.post_body("/sign-in", "ada").await;
    for _ in 0..2 {
        let noted = visitor.post_body_with("/note", &[KEY], "remember").await;
        assert_eq!((noted.status, noted.text.as_str()), (StatusCode::OK, "run 1"));
        assert_eq!(visitor.get("/note").await.text, "remember");
    }
    visitor.post_body("/note", "something else").await;
    visitor.post_body_with("/note", &[KEY], "remember").await;
    assert_eq!(visitor.get("/note").await.text, "something else", "what is given again writes nothing");
}

#[tokio::test]
async fn a_session_that_cannot_be_stored_leaves_no_answer() {
    let (engine, stage) = (Engine::open(), Stage::default());
    let sessions = engine.sessions();
    let site = site(&engine, &stage, as_it_is);
    let mut visitor = Visitor::new(site.clone());
    visitor.post_body("/sign-in", "ada").await;
    // The session ends while the handler of the other tab runs.
    let tab = visitor.clone();
    let ending = {
        let (sessions, stage) = (sessions.clone(), stage.clone());
        async move {
            stage.entered.notified().await;
            sessions.revoke("ada", None).await.unwrap();
            stage.go_on.notify_one();
        }
    };
    let slow_note = slow_note(&engine, &stage);
    let mut tab = tab.on(slow_note);
    let (answer, ()) = tokio::join!(tab.post_with("/slow-note", &[KEY]), ending);
    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text);
    assert!(answer.text.contains("session-ended"), "{}", answer.text);
}

/// A route that writes into the session, and waits for the test before it answers.
fn slow_note(engine: &Engine, stage: &Stage) -> Router {
    async fn slow_note(session: Session, State(stage): State<Stage>) -> Result<String, Error> {
        session.set("note", "late")?;
        stage.enter();
        stage.go_on.notified().await;
        Ok("noted".into())
    }
    Router::new()
        .route("/slow-note", post(slow_note))
        .layer(IdempotencyLayer::new(engine.idempotency()))
        .layer(SessionLayer::new(engine.sessions()))
        .with_state(stage.clone())
}

#[tokio::test]
async fn the_claim_of_a_dead_worker_is_displaced() {
    let (engine, stage) = (Engine::open(), Stage::default());
    let site = site(&engine, &stage, as_it_is);
    let id = ("x-request-id", "request-1");
    let first = tokio::spawn({
        let site = site.clone();
        async move { send(&site, "POST /slow", &[KEY, id], "").await }
    });
    stage.entered.notified().await;
    let this = format!("pid {}", std::process::id());
    // Of another request, or of another worker, the claim is not displaced.
    for fields in [
        [KEY, ("x-request-id", "request-2"), ("lethe-lost-instance", &this)],
        [KEY, id, ("lethe-lost-instance", "web-9")],
    ] {
        send(&site, "POST /slow", &fields, "").await.problem(409, "idempotency-running");
    }
    let second = tokio::spawn({
        let (site, this) = (site.clone(), this.clone());
        async move {
            send(&site, "POST /slow", &[KEY, id, ("lethe-lost-instance", &format!("web-9, {this}"))], "")
                .await
        }
    });
    stage.entered.notified().await;
    stage.go_on.notify_waiters();
    assert_eq!(second.await.unwrap().text, "run 2");
    first.await.unwrap();
    let again = send(&site, "POST /slow", &[KEY], "").await;
    assert!(
        again.is_replayed() && again.text == "run 2",
        "the answer of the dead is not kept: {}",
        again.text
    );
}

/// Tells of each extension of a claim.
struct Watched(Arc<dyn Idempotency>, Arc<Notify>);

#[async_trait]
impl Idempotency for Watched {
    async fn begin(&self, beginning: Beginning) -> Result<Begun, StateError> {
        self.0.begin(beginning).await
    }

    async fn extend(&self, claim: &Claim, lease: Duration) -> Result<bool, StateError> {
        let extended = self.0.extend(claim, lease).await;
        self.1.notify_one();
        extended
    }

    async fn finish(&self, claim: &Claim, answer: Kept) -> Result<bool, StateError> {
        self.0.finish(claim, answer).await
    }

    async fn abandon(&self, claim: &Claim) -> Result<bool, StateError> {
        self.0.abandon(claim).await
    }
}

#[tokio::test]
async fn a_claim_outlives_its_lease_while_its_worker_shows_life() {
    let clock = ManualClock::new(1_700_000_000_000);
    let (engine, stage) = (Engine::open_with(Arc::new(clock.clone())), Stage::default());
    let lease = Duration::from_millis(30);
    let extended = Arc::new(Notify::new());
    let watched: Arc<dyn Idempotency> = Arc::new(Watched(engine.idempotency(), extended.clone()));
    let site = site_on(watched, &engine, &stage, |layer| layer.lease(lease));
    let first = tokio::spawn({
        let site = site.clone();
        async move { send(&site, "POST /slow", &[KEY], "").await }
    });
    stage.entered.notified().await;
    for _ in 0..5 {
        clock.advance(lease / 2);
        // The first of two that are heard of now may have been under way before.
        for _ in 0..2 {
            extended.notified().await;
        }
        send(&site, "POST /slow", &[KEY], "").await.problem(409, "idempotency-running");
    }
    stage.go_on.notify_one();
    assert_eq!(first.await.unwrap().text, "run 1");
}

#[tokio::test]
async fn a_handler_has_a_key_for_its_effect() {
    let (engine, stage) = (Engine::open(), Stage::default());
    let site = site(&engine, &stage, as_it_is);
    let answer = send(&site, "POST /key", &[KEY], "").await.text;
    let (sent, unique) = answer.split_once(' ').unwrap();
    assert_eq!((sent, unique.len()), ("8e03978e", 64));
    let other = send(&site, "POST /key", &[KEY, ("authorization", "Bearer a")], "").await.text;
    assert_ne!(other, answer, "of another user it is another one");
}

#[tokio::test]
async fn without_its_engine_nothing_is_done() {
    let (engine, stage) = (Engine::open(), Stage::default());
    let site = site(&engine, &stage, as_it_is);
    engine.close().await;
    send(&site, "POST /orders", &[KEY], "a mug").await.problem(503, "unavailable");
    assert_eq!(stage.ran(), 0);
}
