//! The life of sessions as operators see it, and as attackers would like to bend it.

use std::{
    cell::RefCell,
    io,
    sync::{Arc, Once},
};

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use lethe_http::{
    metrics::Metrics,
    session::{Error, Event, Session, SessionLayer},
    token::{Keys, Turning},
};
use lethe_state::sessions::{SessionId, Sessions};

use super::{
    COOKIE, site_with,
    visitor::{Engine, Visitor},
};

fn counts(layer: &SessionLayer) -> Vec<(&'static str, u64)> {
    let happened = Event::ALL.into_iter().map(|event| (event.name(), layer.life().of(event)));
    happened.filter(|(_, count)| *count > 0).collect()
}

#[tokio::test]
async fn what_becomes_of_sessions_is_counted() {
    let engine = Engine::open();
    let layer = SessionLayer::new(engine.sessions());
    let mut visitor = Visitor::new(site_with(layer.clone()));
    visitor.get("/").await;
    assert_eq!(counts(&layer), []);
    visitor.post("/set?a=1").await;
    let mut before = visitor.clone();
    visitor.post_body("/sign-in", "ada").await;
    before.get("/").await;
    before.get("/static").await;
    assert_eq!(counts(&layer), [("begun", 1), ("signed_in", 1), ("ended", 1)]);
    visitor.post_body("/sign-in", "bob").await;
    visitor.post("/sign-out").await;
    visitor.post("/sign-out").await;
    assert_eq!(counts(&layer), [("begun", 1), ("signed_in", 2), ("signed_out", 2), ("ended", 1)]);
    for cookie in [SessionId::random().unwrap().to_text(), "'; DROP TABLE sessions".into(), "x".repeat(7000)]
    {
        let mut guessing = Visitor::new(site_with(layer.clone()));
        guessing.plant(COOKIE, &cookie);
        assert_eq!(guessing.get("/").await.text, "user= a= b= count=0");
    }
    assert_eq!(layer.life().of(Event::Unknown), 3);
}

#[tokio::test]
async fn cookies_that_were_forged_are_counted() {
    let engine = Engine::open();
    let layer = SessionLayer::tokens(Keys::new(engine.tables(), "web", Turning::default()));
    let mut visitor = Visitor::new(site_with(layer.clone()));
    visitor.post_body("/sign-in", "ada").await;
    let mut forged = visitor.cookie(COOKIE).unwrap();
    forged.replace_range(forged.len() - 8.., "AAAAAAAA");
    visitor.plant(COOKIE, &forged);
    assert_eq!(visitor.get("/").await.text, "user= a= b= count=0");
    assert_eq!(counts(&layer), [("signed_in", 1), ("unknown", 1)]);
}

#[tokio::test]
async fn counts_are_told_to_who_scrapes_the_worker_and_to_nobody_else() {
    let engine = Engine::open();
    let keys = Keys::new(engine.tables(), "we\"b", Turning::default());
    let layer = SessionLayer::tokens(keys.clone());
    let mut visitor = Visitor::new(site_with(layer.clone()));
    visitor.plant(COOKIE, "a.b.c");
    visitor.get("/").await;
    let metrics = Metrics::default().with(keys).with(layer);
    let response = metrics.clone().answer(HeaderMap::new()).await;
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    let text = String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    for line in [
        "# TYPE lethe_token_refusals_total counter",
        "lethe_token_refusals_total{ring=\"we\\\"b\",reason=\"malformed\"} 1",
        "lethe_token_refusals_total{ring=\"we\\\"b\",reason=\"expired\"} 0",
        "lethe_session_events_total{cookie=\"__Host-session\",event=\"unknown\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let outside = [(header::HeaderName::from_static("x-forwarded-for"), "192.0.2.7".parse().unwrap())];
    let refused = metrics.answer(HeaderMap::from_iter(outside)).await;
    assert_eq!(refused.status(), StatusCode::NOT_FOUND);
}

thread_local! {
    /// What was logged by this thread, which is that of one test.
    static LOGGED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Writes to the log of the thread that logs.
struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGGED.with_borrow_mut(|logged| logged.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Begins to log, for all tests of this program: what is logged without anybody listening is never asked for again.
fn log() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .with_ansi(false)
            .with_writer(|| Log)
            .init();
    });
    taken();
}

fn taken() -> String {
    String::from_utf8(LOGGED.take()).unwrap()
}

#[tokio::test]
async fn the_log_tells_of_sessions_by_their_public_names() {
    log();
    let engine = Engine::open();
    let mut visitor = Visitor::new(site_with(SessionLayer::new(engine.sessions())));
    let mut ids = Vec::new();
    let mut told = async |visitor: &mut Visitor, path: &str, body: &'static str, said: &str| {
        let before = visitor.cookie(COOKIE);
        visitor.post_body(path, body).await;
        let id = visitor.cookie(COOKIE).or(before).unwrap();
        let text = taken();
        let name = SessionId::parse(&id).unwrap().public_name();
        assert!(text.lines().any(|line| line.contains(said) && line.contains(&name)), "{path}: {text}");
        ids.push(id);
        assert!(ids.iter().all(|id| !text.contains(id)), "{path}: {text}");
    };
    told(&mut visitor, "/set?a=1", "", "begun").await;
    let mut before = visitor.clone();
    told(&mut visitor, "/sign-in", "ada", "signed in").await;
    told(&mut before, "/sign-out", "", "a cookie of a session that is over").await;
    told(&mut visitor, "/sign-out", "", "signed out").await;

    // Of a thousand guesses the log tells at once, and once.
    let mut guessing = visitor.clone();
    for _ in 0..1000 {
        guessing.plant(COOKIE, &SessionId::random().unwrap().to_text());
        guessing.get("/").await;
    }
    let text = taken();
    let warnings = text.lines().filter(|line| line.contains("cookies came that name no session"));
    assert_eq!(warnings.count(), 1, "{text}");
    assert!(!text.contains(&guessing.cookie(COOKIE).unwrap()));
}

#[tokio::test]
async fn an_id_counts_in_the_cookie_alone() {
    async fn whose(session: Session) -> String {
        session.user().unwrap_or_default()
    }
    let engine = Engine::open();
    let layer = SessionLayer::new(engine.sessions());
    let site = site_with(layer.clone()).merge(Router::new().route("/whose", post(whose)).layer(layer));
    let mut visitor = Visitor::new(site.clone());
    visitor.post_body("/sign-in", "ada").await;
    let id = visitor.cookie(COOKIE).unwrap();
    assert_eq!(visitor.post("/whose").await.text, "ada");
    let mut other = Visitor::new(site);
    for path in
        [format!("/whose?session={id}"), format!("/whose?{COOKIE}={id}"), format!("/whose;{COOKIE}={id}")]
    {
        assert_ne!(other.post(&path).await.text, "ada", "{path}");
    }
    for (name, value) in [
        ("authorization", format!("Bearer {id}")),
        ("x-session", id.clone()),
        ("cookie", format!("session={id}")),
        ("cookie", format!("__host-session={id}")),
    ] {
        assert_eq!(other.post_with("/whose", &[(name, &value)]).await.text, "", "{name}: {value}");
    }
    let body: &'static str = format!("{COOKIE}={id}").leak();
    let form = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(other.post_body_with("/whose", &form, body).await.text, "");
}

#[tokio::test]
async fn a_change_of_privilege_gives_the_session_another_id_and_shuts_the_old_one_out() {
    async fn promote(session: Session) -> Result<(), Error> {
        session.set("a", "admin")?;
        session.renew().await
    }
    let engine = Engine::open();
    let keys = Keys::new(engine.tables(), "web", Turning::default());
    for layer in [SessionLayer::new(engine.sessions()), SessionLayer::tokens(keys)] {
        let own = Router::new().route("/promote", post(promote)).layer(layer.clone());
        let mut visitor = Visitor::new(site_with(layer.clone()).merge(own));
        assert_eq!(visitor.post("/promote").await.status, StatusCode::OK, "there is nothing to renew");
        visitor.post_body("/sign-in", "ada").await;
        let old = visitor.clone();
        visitor.post("/promote").await;
        assert_ne!(visitor.cookie(COOKIE), old.cookie(COOKIE));
        assert_eq!(visitor.get("/").await.text, "user=ada a=admin b=from sign-in count=0");
        assert_eq!(layer.life().of(Event::Renewed), 1);
    }
    let layer = SessionLayer::new(engine.sessions());
    let own = Router::new().route("/promote", post(promote)).layer(layer.clone());
    let mut visitor = Visitor::new(site_with(layer).merge(own));
    visitor.post("/set?b=1").await;
    let mut old = visitor.clone();
    visitor.post("/promote").await;
    assert_eq!(visitor.get("/").await.text, "user= a=admin b=1 count=0", "that of an anonymous visitor too");
    assert_eq!(old.get("/").await.text, "user= a= b= count=0");
}

#[tokio::test]
async fn a_service_may_allow_each_user_one_session() {
    async fn sign_in(
        State(sessions): State<Arc<dyn Sessions>>,
        session: Session,
        user: String,
    ) -> Result<(), Error> {
        sessions.revoke(&user, None).await?;
        session.sign_in(&user).await
    }
    let engine = Engine::open();
    let layer = SessionLayer::new(engine.sessions());
    let own = Router::new().route("/only", post(sign_in)).layer(layer.clone()).with_state(engine.sessions());
    let site = site_with(layer).merge(own);
    let (mut desk, mut phone) = (Visitor::new(site.clone()), Visitor::new(site));
    desk.post_body("/only", "ada").await;
    phone.post_body("/only", "ada").await;
    assert_eq!(desk.get("/").await.text, "user= a= b= count=0");
    assert_eq!(phone.get("/").await.text, "user=ada a= b= count=0");
    assert_eq!(engine.sessions().list("ada").await.unwrap().len(), 1);
}

#[tokio::test]
async fn two_services_on_one_host_have_cookies_of_their_own() {
    let engine = Engine::open();
    let till = SessionLayer::new(engine.sessions()).cookie_name("till");
    let mut visitor = Visitor::new(site_with(SessionLayer::new(engine.sessions())));
    visitor.post_body("/sign-in", "ada").await;
    let mut visitor = visitor.on(site_with(till));
    assert_eq!(visitor.get("/").await.text, "user= a= b= count=0");
    visitor.post_body("/sign-in", "bob").await;
    assert!(visitor.cookie("__Host-till").is_some());
    let mut visitor = visitor.on(site_with(SessionLayer::new(engine.sessions())));
    assert_eq!(visitor.get("/").await.text, "user=ada a= b=from sign-in count=0");
}

#[tokio::test]
async fn ids_that_are_given_out_to_strangers_can_be_limited() {
    use lethe_http::limit::{LimitLayer, Quota, by};
    let engine = Engine::open();
    let minute = std::time::Duration::from_secs(60);
    let limit = LimitLayer::new(engine.limits()).limit("strangers", Quota::per(3, minute), by::address());
    let layer = SessionLayer::new(engine.sessions());
    let site = Router::new()
        .route("/", get(async |session: Session| session.user().unwrap_or_default()))
        .layer(limit)
        .layer(layer.clone());
    let mut statuses = Vec::new();
    for _ in 0..5 {
        let mut guessing = Visitor::new(site.clone());
        guessing.plant(COOKIE, &SessionId::random().unwrap().to_text());
        statuses.push(guessing.get("/").await.status.as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    assert_eq!(layer.life().of(Event::Unknown), 3, "what is refused is not even looked up");
}
