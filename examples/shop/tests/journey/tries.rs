//! Signing in more often than one may.

use axum::http::{StatusCode, header};

use crate::browser::{Browser, Page, Workers};

async fn try_in(browser: &mut Browser, name: &str, password: &str) -> Page {
    browser.post("/sign-in", &[("name", name), ("password", password)]).await
}

#[tokio::test]
async fn after_five_tries_in_a_minute_even_the_right_password_waits() {
    let workers = Workers::open(1).await;
    workers.customer("ada").await;
    // From five addresses, on three workers, for one account.
    for _ in 0..5 {
        let mut eve = workers.browser();
        assert_eq!(try_in(&mut eve, "Ada", "wrong horse").await.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    let mut ada = workers.browser();
    let page = try_in(&mut ada, "ada", "correct horse").await;
    assert_eq!(page.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(page.text.contains("Try again in") && page.text.contains("Back to the shop"), "{}", page.text);
    let wait: u32 = page.headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=12).contains(&wait), "{wait}");
    let told = page.headers["ratelimit"].to_str().unwrap();
    assert!(told.starts_with("\"sign-in-account\";r=0;t="), "the address is not at fault: {told}");
    assert!(ada.cookies.is_empty());
    // It was refused, so nothing of it was counted, at its address either.
    for name in ["bob", "carol", "dan", "eve", "fay"] {
        assert_eq!(try_in(&mut ada, name, "some horse").await.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    let page = try_in(&mut ada, "gil", "some horse").await;
    assert_eq!(page.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(page.headers["ratelimit"].to_str().unwrap().starts_with("\"sign-in-address\";r=0;t="));
}

#[tokio::test]
async fn names_that_nobody_can_have_are_tries_too() {
    let workers = Workers::open(1).await;
    let mut eve = workers.browser();
    for _ in 0..5 {
        assert_eq!(try_in(&mut eve, "no name!", "x").await.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert_eq!(try_in(&mut eve, "no name!", "x").await.status, StatusCode::TOO_MANY_REQUESTS);
    // Of an address of IPv6 the whole network counts, which one has.
    let mut mallory = workers.browser();
    for number in 0..5 {
        mallory.address = format!("2001:db8:1:2::{number}");
        assert_eq!(try_in(&mut mallory, "no name!", "x").await.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    mallory.address = "2001:db8:1:2:ffff::".into();
    assert_eq!(try_in(&mut mallory, "no name!", "x").await.status, StatusCode::TOO_MANY_REQUESTS);
}
