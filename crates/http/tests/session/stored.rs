//! Sessions that an engine keeps, with and without passes: cookies, races between requests of one visitor, and
//! engines that fail.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode, header};
use lethe_http::session::{Error, Lifetime, Session, UPDATE_TRIES_MAX};
use lethe_state::{
    clock::ManualClock,
    sessions::{RENEW_GRACE, SESSION_BYTES_MAX, SessionId},
};
use tokio::sync::{Barrier, mpsc};

use super::{
    COOKIE, Pattern, site_with,
    visitor::{Engine, Visitor},
};

super::cases![
    the_cookie_is_exact_and_comes_with_the_first_write,
    a_request_that_does_not_use_its_session_costs_nothing_and_says_nothing_of_it,
    cookies_can_be_persistent_or_for_plain_http,
    a_cookie_that_nobody_gave_out_is_not_adopted,
    signing_in_keeps_the_fields_under_a_new_id_and_shuts_the_old_one_out,
    a_sign_in_without_a_session_makes_one,
    a_sign_in_whose_answer_was_lost_can_be_sent_again_and_loses_nothing,
    another_user_on_the_same_browser_finds_nothing_of_the_first,
    signing_out_ends_the_session_and_clears_the_cookie,
    a_write_in_flight_does_not_bring_a_session_back_that_was_signed_out,
    a_write_in_flight_does_not_replace_the_cookie_of_a_sign_in_in_another_tab,
    two_requests_that_write_different_fields_lose_nothing,
    an_update_works_on_what_the_request_has_buffered,
    a_commit_that_fails_is_the_answer,
    a_commit_that_fails_after_a_sign_in_still_tells_the_browser_the_new_id,
    an_engine_that_cannot_be_reached_is_no_empty_session,
    an_expired_session_is_replaced_by_the_first_write,
    after_the_grace_a_renewed_id_is_worth_nothing,
    a_handler_that_fails_drops_its_buffer_but_not_its_sign_in,
    after_the_response_nothing_can_be_written,
    middleware_and_handler_share_one_session,
    a_handler_may_say_no_store_with_more_words_but_not_allow_storing,
    errors_are_pages_for_browsers,
    a_field_of_another_shape_is_an_error_and_not_a_default,
];

async fn the_cookie_is_exact_and_comes_with_the_first_write(pattern: Pattern) {
    let engine = Engine::open();
    let mut visitor = Visitor::new(pattern.site(&engine).await);

    let read = visitor.get("/").await;
    assert_eq!(read.status, StatusCode::OK);
    assert_eq!(read.session_cookies(), Vec::<String>::new(), "reading makes no session");
    assert_eq!(read.headers[header::VARY], "cookie");
    assert_eq!(read.headers[header::CACHE_CONTROL], "private, no-cache");

    let removed = visitor.post("/remove?a=").await;
    assert_eq!(removed.session_cookies(), Vec::<String>::new(), "removing nothing makes no session");

    let written = visitor.post("/set?a=1").await;
    let id = visitor.cookie(COOKIE).expect("a write makes a session");
    assert!(SessionId::parse(&id).is_some());
    assert_eq!(written.session_cookies(), [format!("{COOKIE}={id}; Path=/; Secure; HttpOnly; SameSite=Lax")]);
    assert_eq!(written.headers[header::CACHE_CONTROL], "no-store");

    let again = visitor.post("/set?a=2").await;
    assert_eq!(again.session_cookies(), Vec::<String>::new(), "the browser has the cookie already");
    assert_eq!(visitor.get("/").await.text, "user= a=2 b= count=0");
}

async fn a_request_that_does_not_use_its_session_costs_nothing_and_says_nothing_of_it(pattern: Pattern) {
    let engine = Engine::open();
    let mut visitor = Visitor::new(pattern.site(&engine).await);
    visitor.post("/set?a=1").await;
    engine.close().await;
    let answer = visitor.get("/static").await;
    assert_eq!((answer.status, answer.text.as_str()), (StatusCode::OK, "static"));
    assert!(!answer.headers.contains_key(header::VARY));
    assert!(!answer.headers.contains_key(header::CACHE_CONTROL));
}

async fn cookies_can_be_persistent_or_for_plain_http(pattern: Pattern) {
    let engine = Engine::open();
    let lifetime = Lifetime { idle: Duration::from_secs(60), absolute: Duration::from_secs(3600) };
    let layer = pattern.layer(&engine).await.insecure_cookies().lifetime(lifetime).persistent();
    let mut visitor = Visitor::new(site_with(layer));
    let line = visitor.post("/set?a=1").await.session_cookies().remove(0);
    let id = visitor.cookie("session").unwrap();
    let age = line.strip_prefix(&format!("session={id}; Path=/; HttpOnly; SameSite=Lax; Max-Age=")).unwrap();
    let age: u64 = age.parse().unwrap();
    assert!((1..=3600).contains(&age), "{age}");
}

async fn a_cookie_that_nobody_gave_out_is_not_adopted(pattern: Pattern) {
    let engine = Engine::open();
    let mut visitor = Visitor::new(pattern.site(&engine).await);
    let planted = SessionId::random().unwrap().to_text();
    for value in [planted.as_str(), "nonsense", ""] {
        visitor.plant(COOKIE, value);
        assert_eq!(visitor.get("/").await.text, "user= a= b= count=0");
        visitor.post("/set?a=1").await;
        assert_ne!(visitor.cookie(COOKIE).as_deref(), Some(value));
        assert_eq!(visitor.get("/").await.text, "user= a=1 b= count=0");
    }
}

async fn signing_in_keeps_the_fields_under_a_new_id_and_shuts_the_old_one_out(pattern: Pattern) {
    let engine = Engine::open();
    let mut visitor = Visitor::new(pattern.site(&engine).await);
    visitor.post("/set?a=1").await;
    let mut fixated = visitor.clone();

    let answer = visitor.post_body("/sign-in", "alice").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    assert_ne!(visitor.cookie(COOKIE), fixated.cookie(COOKIE));
    assert_eq!(visitor.get("/").await.text, "user=alice a=1 b=from sign-in count=0");

    assert_eq!(fixated.get("/").await.text, "user= a= b= count=0", "the old id shows nothing");
    fixated.post("/set?a=evil").await;
    assert_eq!(visitor.get("/").await.text, "user=alice a=1 b=from sign-in count=0");
}

async fn a_sign_in_without_a_session_makes_one(pattern: Pattern) {
    let engine = Engine::open();
    let mut visitor = Visitor::new(pattern.site(&engine).await);
    visitor.post_body("/sign-in", "alice").await;
    assert_eq!(visitor.get("/").await.text, "user=alice a= b=from sign-in count=0");
}

async fn a_sign_in_whose_answer_was_lost_can_be_sent_again_and_loses_nothing(pattern: Pattern) {
    let engine = Engine::open();
    let mut visitor = Visitor::new(pattern.site(&engine).await);
    visitor.post("/set?a=1").await;
    let mut before = visitor.clone();
    visitor.post_body("/sign-in", "alice").await;
    visitor.post("/set?c=2").await;

    // The browser never saw the answer: it comes with the old cookie.
    before.post_body("/sign-in", "alice").await;
    assert_eq!(before.get("/").await.text, "user=alice a=1 b=from sign-in count=0");

    // Somebody else with the old cookie does not get at it.
    let mut visitor = Visitor::new(pattern.site(&engine).await);
    visitor.post("/set?a=1").await;
    let mut before = visitor.clone();
    visitor.post_body("/sign-in", "alice").await;
    before.post_body("/sign-in", "mallory").await;
    assert_eq!(before.get("/").await.text, "user=mallory a= b=from sign-in count=0");
    assert_eq!(visitor.get("/").await.text, "user=alice a=1 b=from sign-in count=0");
}

async fn another_user_on_the_same_browser_finds_nothing_of_the_first(pattern: Pattern) {
    let engine = Engine::open();
    let mut visitor = Visitor::new(pattern.site(&engine).await);
    visitor.post_body("/sign-in", "alice").await;
    visitor.post("/set?a=secret").await;
    let mut alice = visitor.clone();
    visitor.post_body("/sign-in", "bob").await;
    assert_eq!(visitor.get("/").await.text, "user=bob a= b=from sign-in count=0");
    assert_eq!(alice.get("/").await.text, "user= a= b= count=0", "alice's session has ended");
}

async fn signing_out_ends_the_session_and_clears_the_cookie(pattern: Pattern) {
    let engine = Engine::open();
    let mut visitor = Visitor::new(pattern.site(&engine).await);
    visitor.post_body("/sign-in", "alice").await;
    let mut thief = visitor.clone();
    let answer = visitor.post("/sign-out").await;
    assert_eq!(
        answer.session_cookies(),
        [format!("{COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0")]
    );
    assert_eq!(visitor.cookie(COOKIE), None);
    assert_eq!(thief.get("/").await.text, "user= a= b= count=0");
    let again = thief.post("/sign-out").await;
    assert_eq!(again.status, StatusCode::OK, "signing out twice is no error");
}

/// A site whose handler waits in the middle, so that a test can do something in between.
struct Paused {
    reached: mpsc::Receiver<()>,
    go: mpsc::Sender<()>,
}

async fn paused_site(
    pattern: Pattern,
    engine: &Engine,
    write: fn(&Session) -> Result<(), Error>,
) -> (Router, Paused) {
    let (reach, reached) = mpsc::channel(1);
    let (go, wait) = mpsc::channel(1);
    let gate = Arc::new((reach, tokio::sync::Mutex::new(wait)));
    let handler = move |session: Session| {
        let gate = Arc::clone(&gate);
        async move {
            gate.0.send(()).await.unwrap();
            gate.1.lock().await.recv().await.unwrap();
            write(&session)?;
            Ok::<_, Error>("done")
        }
    };
    let router = Router::new().route("/slow", post(handler)).layer(pattern.layer(engine).await);
    (router.merge(pattern.site(engine).await), Paused { reached, go })
}

fn write_a(session: &Session) -> Result<(), Error> {
    session.set("a", "slow")
}

async fn a_write_in_flight_does_not_bring_a_session_back_that_was_signed_out(pattern: Pattern) {
    let engine = Engine::open();
    let (router, mut paused) = paused_site(pattern, &engine, write_a).await;
    let mut tab = Visitor::new(router);
    tab.post_body("/sign-in", "alice").await;
    let mut other_tab = tab.clone();
    let slow = tokio::spawn(async move { other_tab.post("/slow").await });
    paused.reached.recv().await.unwrap();
    let mut stale = tab.clone();
    tab.post("/sign-out").await;
    paused.go.send(()).await.unwrap();

    let answer = slow.await.unwrap();
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(answer.text.contains("\"code\":\"session-ended\""), "{}", answer.text);
    assert_eq!(answer.session_cookies(), Vec::<String>::new());
    assert_eq!(stale.get("/").await.text, "user= a= b= count=0", "it stays ended");
}

async fn a_write_in_flight_does_not_replace_the_cookie_of_a_sign_in_in_another_tab(pattern: Pattern) {
    let engine = Engine::open();
    let (router, mut paused) = paused_site(pattern, &engine, write_a).await;
    let mut tab = Visitor::new(router);
    tab.post("/set?a=1").await;
    let mut other_tab = tab.clone();
    let slow = tokio::spawn(async move { other_tab.post("/slow").await });
    paused.reached.recv().await.unwrap();
    tab.post_body("/sign-in", "alice").await;
    paused.go.send(()).await.unwrap();

    let answer = slow.await.unwrap();
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert_eq!(answer.session_cookies(), Vec::<String>::new(), "the browser keeps the cookie of the sign-in");
    assert_eq!(tab.get("/").await.text, "user=alice a=1 b=from sign-in count=0");
}

async fn two_requests_that_write_different_fields_lose_nothing(pattern: Pattern) {
    let engine = Engine::open();
    let (router, mut paused) = paused_site(pattern, &engine, write_a).await;
    let mut tab = Visitor::new(router);
    tab.post("/set?a=1").await;
    let mut other_tab = tab.clone();
    let slow = tokio::spawn(async move { other_tab.post("/slow").await });
    paused.reached.recv().await.unwrap();
    tab.post("/set?b=2").await;
    paused.go.send(()).await.unwrap();
    assert_eq!(slow.await.unwrap().status, StatusCode::OK);
    assert_eq!(tab.get("/").await.text, "user= a=slow b=2 count=0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_at_the_same_time_are_all_counted() {
    for pattern in [Pattern::Stored, Pattern::Hybrid] {
        let engine = Engine::open();
        let tabs = UPDATE_TRIES_MAX / 4;
        let mut visitor = Visitor::new(pattern.site(&engine).await);
        visitor.post("/set?a=1").await;
        let together = Arc::new(Barrier::new(tabs as usize));
        let tasks: Vec<_> = (0..tabs)
            .map(|_| {
                let (mut tab, together) = (visitor.clone(), Arc::clone(&together));
                tokio::spawn(async move {
                    together.wait().await;
                    tab.post("/count").await
                })
            })
            .collect();
        let mut seen = Vec::new();
        for task in tasks {
            let answer = task.await.unwrap();
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
            seen.push(answer.text.parse::<u32>().unwrap());
        }
        seen.sort_unstable();
        assert_eq!(seen, (1..=tabs).collect::<Vec<_>>(), "each saw its own step");
        assert_eq!(visitor.get("/").await.text, format!("user= a=1 b= count={tabs}"));
    }
}

async fn an_update_works_on_what_the_request_has_buffered(pattern: Pattern) {
    async fn handler(session: Session) -> Result<String, Error> {
        session.set("count", &10_u32)?;
        let first = session.update("count", |count: &mut u32| *count += 1).await?;
        session.remove("count")?;
        let second = session.update("count", |count: &mut u32| *count += 1).await?;
        Ok(format!("{first} {second}"))
    }
    let engine = Engine::open();
    let own = Router::new().route("/both", post(handler)).layer(pattern.layer(&engine).await);
    let mut visitor = Visitor::new(pattern.site(&engine).await.merge(own));
    assert_eq!(visitor.post("/both").await.text, "11 1");
    assert_eq!(visitor.get("/").await.text, "user= a= b= count=1");
}

async fn a_commit_that_fails_is_the_answer(pattern: Pattern) {
    let engine = Engine::open();
    let (router, mut paused) = paused_site(pattern, &engine, write_a).await;
    let mut visitor = Visitor::new(router);
    let slow = tokio::spawn(async move { visitor.post("/slow").await });
    paused.reached.recv().await.unwrap();
    engine.close().await;
    paused.go.send(()).await.unwrap();
    let answer = slow.await.unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers[header::RETRY_AFTER], "1");
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/problem+json");
    assert!(!answer.text.contains("done"), "{}", answer.text);
    assert_eq!(answer.session_cookies(), Vec::<String>::new());
}

async fn a_commit_that_fails_after_a_sign_in_still_tells_the_browser_the_new_id(pattern: Pattern) {
    async fn handler(session: Session) -> Result<&'static str, Error> {
        session.sign_in("alice").await?;
        // More than a session may hold.
        session.set("a", &"x".repeat(SESSION_BYTES_MAX))?;
        Ok("done")
    }
    let engine = Engine::open();
    let own = Router::new().route("/both", post(handler)).layer(pattern.layer(&engine).await);
    let mut visitor = Visitor::new(pattern.site(&engine).await.merge(own));
    let answer = visitor.post("/both").await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.session_cookies().len(), 1);
    assert_eq!(visitor.get("/").await.text, "user=alice a= b= count=0");
}

async fn an_engine_that_cannot_be_reached_is_no_empty_session(pattern: Pattern) {
    let engine = Engine::open();
    let mut visitor = Visitor::new(pattern.site(&engine).await);
    visitor.post("/set?a=1").await;
    engine.close().await;
    for path in ["/set?a=2", "/count", "/sign-out"] {
        let answer = visitor.post(path).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!(answer.session_cookies(), Vec::<String>::new(), "{path}");
    }
}

async fn an_expired_session_is_replaced_by_the_first_write(pattern: Pattern) {
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let engine = Engine::open_with(clock.clone());
    let mut visitor = Visitor::new(pattern.site(&engine).await);
    visitor.post_body("/sign-in", "alice").await;
    let old = visitor.cookie(COOKIE);
    clock.advance(Lifetime::default().idle + Duration::from_secs(1));
    let read = visitor.get("/").await;
    assert_eq!(read.text, "user= a= b= count=0");
    assert_eq!(read.session_cookies(), Vec::<String>::new(), "a read leaves the cookie alone");
    assert_eq!(visitor.post("/count").await.text, "1");
    assert_ne!(visitor.cookie(COOKIE), old);
    assert_eq!(visitor.get("/").await.text, "user= a= b= count=1");
}

async fn after_the_grace_a_renewed_id_is_worth_nothing(pattern: Pattern) {
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let engine = Engine::open_with(clock.clone());
    let mut visitor = Visitor::new(pattern.site(&engine).await);
    visitor.post("/set?a=1").await;
    let mut before = visitor.clone();
    visitor.post_body("/sign-in", "alice").await;
    clock.advance(RENEW_GRACE + Duration::from_secs(1));
    before.post_body("/sign-in", "alice").await;
    assert_eq!(before.get("/").await.text, "user=alice a= b=from sign-in count=0");
    assert_eq!(visitor.get("/").await.text, "user=alice a=1 b=from sign-in count=0", "it is left alone");
}

async fn a_handler_that_fails_drops_its_buffer_but_not_its_sign_in(pattern: Pattern) {
    async fn fails(session: Session) -> Result<Response, Error> {
        session.sign_in("alice").await?;
        session.set("a", "dropped")?;
        Ok(StatusCode::INTERNAL_SERVER_ERROR.into_response())
    }
    async fn refuses(session: Session) -> Result<Response, Error> {
        session.set("a", "kept")?;
        Ok(StatusCode::UNPROCESSABLE_ENTITY.into_response())
    }
    let engine = Engine::open();
    let own = Router::new()
        .route("/fails", post(fails))
        .route("/refuses", post(refuses))
        .layer(pattern.layer(&engine).await);
    let mut visitor = Visitor::new(pattern.site(&engine).await.merge(own));
    let answer = visitor.post("/fails").await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(visitor.get("/").await.text, "user=alice a= b= count=0");
    visitor.post("/refuses").await;
    assert_eq!(visitor.get("/").await.text, "user=alice a=kept b= count=0");
}

async fn after_the_response_nothing_can_be_written(pattern: Pattern) {
    async fn handler(State(leak): State<mpsc::Sender<Session>>, session: Session) {
        leak.send(session).await.unwrap();
    }
    let engine = Engine::open();
    let (leak, mut leaked) = mpsc::channel(1);
    let router =
        Router::new().route("/leak", post(handler)).layer(pattern.layer(&engine).await).with_state(leak);
    Visitor::new(router).post("/leak").await;
    let session = leaked.recv().await.unwrap();
    assert!(matches!(session.set("a", "1"), Err(Error::Closed)));
    assert!(matches!(session.remove("a"), Err(Error::Closed)));
    assert!(matches!(session.update("a", |_: &mut u32| ()).await, Err(Error::Closed)));
    assert!(matches!(session.sign_in("alice").await, Err(Error::Closed)));
    assert!(matches!(session.sign_out().await, Err(Error::Closed)));
}

async fn middleware_and_handler_share_one_session(pattern: Pattern) {
    async fn mark(
        session: Session,
        request: axum::extract::Request,
        next: axum::middleware::Next,
    ) -> Response {
        session.set("b", "middleware").unwrap();
        next.run(request).await
    }
    let engine = Engine::open();
    let show = |session: Session| async move { session.get::<String>("b").unwrap().unwrap() };
    let router = Router::new()
        .route("/b", get(show))
        .layer(axum::middleware::from_fn(mark))
        .layer(pattern.layer(&engine).await);
    assert_eq!(Visitor::new(router).get("/b").await.text, "middleware");
}

async fn a_handler_may_say_no_store_with_more_words_but_not_allow_storing(pattern: Pattern) {
    async fn handler(session: Session, headers: HeaderMap) -> Result<Response, Error> {
        session.update("count", |count: &mut u32| *count += 1).await?;
        Ok(([(header::CACHE_CONTROL, headers["x-say"].clone())], "").into_response())
    }
    let engine = Engine::open();
    let router = Router::new().route("/", post(handler)).layer(pattern.layer(&engine).await);
    for (said, left) in [
        ("public, max-age=600", "no-store"),
        ("no-cache, No-Store", "no-cache, No-Store"),
        ("private", "no-store"),
    ] {
        let mut visitor = Visitor::new(router.clone());
        let answer = visitor.post_with("/", &[("x-say", said)]).await;
        assert_eq!(answer.session_cookies().len(), 1);
        assert_eq!(answer.headers[header::CACHE_CONTROL], left, "{said}");
    }
}

async fn errors_are_pages_for_browsers(pattern: Pattern) {
    let engine = Engine::open();
    let (router, mut paused) = paused_site(pattern, &engine, write_a).await;
    let mut tab = Visitor::new(router);
    tab.post("/set?a=1").await;
    let mut other_tab = tab.clone();
    let browser = [("accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    let slow = tokio::spawn(async move { other_tab.post_with("/slow", &browser).await });
    paused.reached.recv().await.unwrap();
    tab.post("/sign-out").await;
    paused.go.send(()).await.unwrap();
    let answer = slow.await.unwrap();
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert_eq!(answer.headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
    assert!(answer.text.contains("Load the page again"), "{}", answer.text);
}

#[tokio::test]
async fn a_missing_layer_is_said() {
    let router = Router::new().route("/", get(|_: Session| async {}));
    let answer = Visitor::new(router).get("/").await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
}

async fn a_field_of_another_shape_is_an_error_and_not_a_default(pattern: Pattern) {
    let engine = Engine::open();
    let mut visitor = Visitor::new(pattern.site(&engine).await);
    visitor.post("/set?count=many").await;
    assert_eq!(visitor.post("/count").await.status, StatusCode::INTERNAL_SERVER_ERROR);
}
