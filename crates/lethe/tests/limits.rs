//! Limits as handlers use them, on the embedded engine.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract,
    response::{IntoResponse, Response},
    routing::post,
};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use lethe::{
    Error, State,
    address::ClientAddress,
    limit::{LimitLayer, Quota, by},
};
use lethe_state::error::Error as StateError;
use serde_json::{Value, json};
use tower::ServiceExt;

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn a_limit_counts_by_key() {
    let state = State::ephemeral().unwrap();
    let limit = state.limit("mail", Quota::per(3, DAY));
    assert!(limit.take_many("ada", 2).await.unwrap().allowed);
    let refused = limit.take_many("ada", 2).await.unwrap();
    assert_eq!((refused.allowed, refused.remaining), (false, 1));
    limit.require("ada").await.unwrap();
    let Err(Error::Limited(refusal)) = limit.require("ada").await else { panic!("it is not refused") };
    assert_eq!(refusal.limits().collect::<Vec<_>>(), ["mail"]);
    assert!(refusal.retry_after() <= DAY / 3 && refusal.retry_after() > DAY / 4);
    assert_eq!(limit.look("bob").await.unwrap().remaining, 3);
    assert_eq!(state.limit("mail", Quota::per(3, DAY)).look("ada").await.unwrap().remaining, 0);
    assert!(limit.reset("ada").await.unwrap() && !limit.reset("ada").await.unwrap());
    limit.require("ada").await.unwrap();
}

#[tokio::test]
async fn mistakes_are_errors() {
    let state = State::ephemeral().unwrap();
    for (name, quota, key) in [
        ("Mail", Quota::per(3, DAY), "k"),
        ("mail", Quota::per(0, DAY), "k"),
        ("mail", Quota::per(3, DAY), ""),
    ] {
        let error = state.limit(name, quota).take(key).await.unwrap_err();
        assert!(matches!(error, Error::State(StateError::Invalid(_))), "{error:?}");
    }
    assert!(matches!(state.require_all(&[]).await, Err(Error::State(StateError::Invalid(_)))));
}

#[tokio::test]
async fn a_stock_is_shared_by_its_clones_alone() {
    let state = State::ephemeral().unwrap();
    let limit = state.limit("api", Quota::per(100, DAY));
    let leased = limit.leased(10, DAY);
    assert_eq!(leased.take("k").await.unwrap().remaining, 99);
    assert_eq!(leased.clone().take("k").await.unwrap().remaining, 98);
    assert_eq!(limit.look("k").await.unwrap().remaining, 90, "ten were taken at once");
    assert_eq!(limit.leased(10, DAY).take("k").await.unwrap().remaining, 89);
    assert_eq!(limit.look("k").await.unwrap().remaining, 80);
}

/// A sign-in as a shop would have it: by address and account together.
async fn sign_in(
    extract::State(state): extract::State<State>,
    address: ClientAddress,
    account: String,
) -> Result<&'static str, Error> {
    let by_address = state.limit("sign-in-address", Quota::per(4, DAY));
    let by_account = state.limit("sign-in-account", Quota::per(2, DAY));
    state.require_all(&[(&by_address, &address.network().to_string()), (&by_account, &account)]).await?;
    Ok("welcome")
}

async fn post_as(site: &Router, address: &str, account: &'static str) -> Response {
    let request = Request::post("/sign-in").header("x-forwarded-for", address);
    site.clone().oneshot(request.body(Body::from(account)).unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_handler_refuses_by_what_only_it_knows() {
    let state = State::ephemeral().unwrap();
    let site = Router::new()
        .route("/sign-in", post(sign_in))
        .layer(LimitLayer::new(&state).limit("all", Quota::per(100, DAY), by::everyone()))
        .with_state(state.clone());
    for _ in 0..2 {
        assert_eq!(post_as(&site, "192.0.2.7", "ada").await.status(), StatusCode::OK);
    }
    let refused = post_as(&site, "192.0.2.7", "ada").await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let fields = |name| -> Vec<_> {
        refused.headers().get_all(name).into_iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        fields("ratelimit-policy"),
        ["\"sign-in-address\";q=4;w=86400, \"sign-in-account\";q=2;w=86400", "\"all\";q=100;w=86400"]
    );
    assert_eq!(fields("retry-after").len(), 1);
    let body: Value =
        serde_json::from_slice(&refused.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!((&body["code"], &body["status"]), (&json!("quota-exceeded"), &json!(429)));
    assert_eq!(body["violated-policies"], json!(["sign-in-account"]));
    // Another account has what the address has left, from which the refusal took nothing.
    for status in [StatusCode::OK, StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
        assert_eq!(post_as(&site, "192.0.2.7", "bob").await.status(), status);
    }
    assert_eq!(post_as(&site, "192.0.2.8", "eve").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_error_is_a_response() {
    let state = State::ephemeral().unwrap();
    let limit = state.limit("l", Quota::per(1, DAY));
    limit.require("k").await.unwrap();
    let error = limit.require("k").await.unwrap_err();
    assert!(format!("{error}").contains("`l`"), "{error}");
    let response = error.into_response();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(response.headers().contains_key("ratelimit"));
}
