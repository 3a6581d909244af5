//! A program that orders, with an `Idempotency-Key`.

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};

use crate::browser::{Browser, Page, Workers};

async fn order(browser: &mut Browser, form: &[(String, String)], key: &str) -> Page {
    let line = form.iter().map(|(name, value)| format!("{name}={}", value.replace("\r\n", "%0A")));
    let request = Request::post("/checkout")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header("sec-fetch-site", "same-origin")
        .header("idempotency-key", key);
    browser.send(request, Body::from(line.collect::<Vec<_>>().join("&"))).await
}

#[tokio::test]
async fn the_first_answer_is_given_again() {
    let workers = Workers::open(10).await;
    let mut ada = workers.customer("ada").await;
    let form = ada.fill_and_check_out(&[("night-ink", "2")]).await;
    let first = order(&mut ada, &form, "\"k-1\"").await;
    assert_eq!(first.status, StatusCode::SEE_OTHER, "{}", first.text);
    assert!(!first.headers.contains_key("idempotent-replayed"));
    let again = order(&mut ada, &form, "\"k-1\"").await;
    assert_eq!((again.status, again.location()), (first.status, first.location()));
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(again.headers[header::CACHE_CONTROL], "no-store", "nor is this kept by a browser");
    // The key is of that request, and of that user.
    let mut other = form.clone();
    other[2].1 = "Somewhere else".into();
    assert_eq!(order(&mut ada, &other, "\"k-1\"").await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let mut eve = workers.customer("eve").await;
    let stale = order(&mut eve, &form, "\"k-1\"").await;
    assert_eq!(stale.location(), "/cart?notice=stale");
    assert_eq!(workers.shop.orders.count().await.unwrap(), 1);
    assert_eq!(workers.left("night-ink").await, 8);
}
