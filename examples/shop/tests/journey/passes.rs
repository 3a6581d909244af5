//! Who a visitor is, by a pass: nobody is asked, and a sign-out is heard of all the same.

use axum::http::StatusCode;
use lethe::State;
use lethe_state::Engines;

use crate::browser::{Browser, Page, Worker, Workers};

/// A customer whose browser has a pass.
async fn with_pass(workers: &Workers, name: &str) -> Browser {
    let mut browser = workers.customer(name).await;
    browser.get("/orders").await;
    assert!(browser.cookies.contains_key("__Host-session-pass"), "{:?}", browser.cookies.keys());
    browser
}

fn is_out(page: &Page) -> bool {
    page.location().starts_with("/sign-in")
}

#[tokio::test]
async fn pages_that_need_no_more_than_who_it_is_look_no_session_up() {
    let workers = Workers::open(10).await;
    let mut ada = with_pass(&workers, "ada").await;
    ada.post("/cart", &[("product", "night-ink"), ("quantity", "2")]).await;
    let form = ada.fill_and_check_out(&[]).await;
    let order = ada.press(&form).await.location().to_owned();
    ada.post("/cart", &[("product", "oak-tray"), ("quantity", "3")]).await;
    // A worker that cannot look any up.
    let sessions = Engines::absent("no").sessions;
    let state = State::new(Engines { sessions, ..workers.state.engines().clone() });
    let worker = Worker::open(&state, 4, 10).await;
    let mut blind = ada.at(&workers.only(worker));
    for path in ["/", "/search?q=ink", "/orders", &order, "/sign-in", "/register"] {
        let page = blind.get(path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}: {}", page.text);
        assert!(page.text.contains("action=\"/sign-out\""), "{path} knows who it is: {}", page.text);
        assert!(page.text.contains("<span class=\"count\">3<"), "{path} knows how much is in the cart");
    }
    // What shows the cart, and what changes something, asks.
    assert_eq!(blind.get("/cart").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(blind.press(&form).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(blind.get("/admin").await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn signing_out_on_all_devices_is_heard_of_by_all_workers() {
    let workers = Workers::open(10).await;
    let mut laptop = with_pass(&workers, "ada").await;
    let mut phone = workers.browser();
    let credentials = [("name", "ada"), ("password", "correct horse")];
    phone.post("/sign-in", &credentials).await;
    let mut bob = with_pass(&workers, "bob").await;
    phone.get_until("/orders", |page| page.status == StatusCode::OK).await;
    let stolen = phone.clone();

    let out = laptop.post_and_follow("/sign-out-everywhere", &[]).await;
    assert!(out.text.contains("on all your devices") && laptop.cookies.is_empty(), "{}", out.text);
    phone.get_until("/orders", is_out).await;
    for _ in 0..2 * workers.all.len() {
        assert!(is_out(&stolen.clone().get("/orders").await), "who has heard of it does not forget it");
        assert_eq!(bob.get("/orders").await.status, StatusCode::OK, "nobody else is signed out");
    }
    assert_eq!(phone.post("/sign-in", &credentials).await.status, StatusCode::SEE_OTHER);
    phone.get_until("/orders", |page| page.status == StatusCode::OK).await;
    // Who is nobody signs out everywhere, too: the request has come twice.
    assert_eq!(laptop.post("/sign-out-everywhere", &[]).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn the_number_in_the_cart_is_put_right_by_whoever_knows_better() {
    let workers = Workers::open(10).await;
    let mut ada = workers.customer("ada").await;
    ada.post("/cart", &[("product", "night-ink"), ("quantity", "2")]).await;
    let mut late = ada.clone();
    ada.post("/cart", &[("product", "night-ink"), ("quantity", "5")]).await;
    let home = late.get("/").await;
    assert!(home.text.contains("<span class=\"count\">2<"), "it is what the browser remembers");
    let cart = late.get("/cart").await;
    assert!(cart.text.contains("<span class=\"count\">5<"), "{}", cart.text);
    assert_eq!(late.cookies["__Host-cart"], "5");
    // Somebody else who signs in here gets another cart, and what the first has left stays theirs.
    ada.post("/register", &[("name", "bob"), ("password", "correct horse")]).await;
    assert!(!ada.cookies.contains_key("__Host-cart"), "{:?}", ada.cookies);
}
