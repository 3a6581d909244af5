//! Checkout: exactly one order, however it is pressed, raced or interrupted.

use std::collections::BTreeMap;

use axum::http::{StatusCode, header};
use futures_util::future::join_all;
use shop::{cart::CartId, order::Order};

use crate::browser::{Browser, Workers};

async fn orders(workers: &Workers) -> Vec<Order> {
    let page = workers.state.table::<Order>("orders").scan("").page().await.unwrap();
    page.rows.into_iter().map(|row| row.value).collect()
}

fn order_path(location: &str) -> &str {
    location.split('?').next().unwrap()
}

#[tokio::test]
async fn a_visit_from_the_first_page_to_the_order() {
    let workers = Workers::open(10).await;
    let mut ada = workers.browser();
    assert!(ada.get("/").await.text.contains("Tidewater notebook"));
    assert!(ada.get("/search?q=CREME").await.text.contains("Crème laid letter paper"));
    assert!(ada.cookies.is_empty(), "looking around needs no session");
    let product = ada.get("/products/night-ink").await;
    assert!(product.text.contains("€16.50") && product.text.contains("Put into cart"));

    let cart = ada.post_and_follow("/cart", &[("product", "night-ink"), ("quantity", "2")]).await;
    assert!(cart.text.contains("€33.00"), "{}", cart.text);
    let to_sign_in = ada.get("/checkout").await;
    assert_eq!(to_sign_in.location(), "/sign-in?next=/checkout");
    let anonymous = ada.cookies.clone();
    let registered =
        ada.post("/register", &[("name", "Ada"), ("password", "correct horse"), ("next", "/checkout")]).await;
    assert_eq!(registered.location(), "/checkout?notice=welcome");
    let id = |cookies: &BTreeMap<String, String>| cookies["__Host-session"].clone();
    assert_ne!(id(&ada.cookies), id(&anonymous), "signing in renews the id of the session");

    let form = ada.fill_and_check_out(&[]).await;
    let pressed = ada.press(&form).await;
    assert_eq!(pressed.status, StatusCode::SEE_OTHER);
    let order = ada.get(pressed.location()).await;
    assert!(order.text.contains("Your order is placed"), "{}", order.text);
    assert_eq!(order.headers[header::CACHE_CONTROL], "no-store", "the browser's next user does not see it");
    assert!(order.text.contains("Ada Lovelace\n12 St James's Square\nLondon"), "{}", order.text);
    assert!(ada.get("/orders").await.text.contains("2 × Night Swim ink"));
    assert!(ada.get("/cart").await.text.contains("Your cart is empty"));
    assert_eq!(workers.left("night-ink").await, 8);

    assert_eq!(ada.post("/sign-out", &[]).await.location(), "/?notice=signed-out");
    assert!(ada.cookies.is_empty());
    assert_eq!(ada.get("/orders").await.location(), "/sign-in?next=/orders");
    let back =
        ada.post("/sign-in", &[("name", "ada"), ("password", "correct horse"), ("next", "/orders")]).await;
    assert_eq!(back.location(), "/orders");
    assert!(ada.get("/orders").await.text.contains("€33.00"));
}

#[tokio::test]
async fn a_button_pressed_twenty_times_at_once_makes_one_order() {
    let workers = Workers::open(100).await;
    let mut ada = workers.customer("ada").await;
    let form = ada.fill_and_check_out(&[("night-ink", "3"), ("oak-tray", "1")]).await;
    let presses = (0..20).map(|_| {
        let (mut tab, form) = (ada.clone(), form.clone());
        async move { tab.press(&form).await }
    });
    let pages = join_all(presses).await;
    let placed = orders(&workers).await;
    assert_eq!(placed.len(), 1);
    for page in &pages {
        assert_eq!(page.status, StatusCode::SEE_OTHER, "{}", page.text);
        assert_eq!(order_path(page.location()), format!("/orders/{}", placed[0].id));
    }
    assert_eq!(workers.left("night-ink").await, 97);
    assert_eq!(workers.left("oak-tray").await, 99);
    assert_eq!(workers.shop.orders.count().await.unwrap(), 1);
    assert!(ada.get("/cart").await.text.contains("Your cart is empty"));
}

#[tokio::test]
async fn of_eight_shoppers_for_the_last_five_each_gets_one_or_is_told() {
    let workers = Workers::open(5).await;
    let mut shoppers: Vec<(Browser, Vec<(String, String)>)> = Vec::new();
    for number in 0..8 {
        let mut shopper = workers.customer(&format!("shopper-{number}")).await;
        let form = shopper.fill_and_check_out(&[("reading-lamp", "1"), ("alder-pencils", "1")]).await;
        shoppers.push((shopper, form));
    }
    let pages = join_all(shoppers.iter_mut().map(|(shopper, form)| shopper.press(form))).await;
    let served = pages.iter().filter(|page| page.status == StatusCode::SEE_OTHER).count();
    let told = pages.iter().filter(|page| page.status == StatusCode::CONFLICT).count();
    assert_eq!((served, told), (5, 3));
    assert_eq!(workers.left("reading-lamp").await, 0);
    assert_eq!(workers.left("alder-pencils").await, 0);
    assert_eq!(orders(&workers).await.len(), 5);
    assert_eq!(workers.shop.orders.count().await.unwrap(), 5);
}

#[tokio::test]
async fn what_is_short_is_named_with_what_is_left_and_the_rest_is_not_ordered() {
    let workers = Workers::open(3).await;
    let mut ada = workers.customer("ada").await;
    let form = ada.fill_and_check_out(&[("wax-and-seal", "4"), ("field-trio", "1")]).await;
    let page = ada.press(&form).await;
    assert_eq!(page.status, StatusCode::CONFLICT);
    assert!(page.text.contains("Only 3 of Wax and seal left"), "{}", page.text);
    assert!(orders(&workers).await.is_empty());
    assert_eq!(workers.left("field-trio").await, 3);
    let form = ada.fill_and_check_out(&[("wax-and-seal", "3")]).await;
    assert_eq!(ada.press(&form).await.status, StatusCode::SEE_OTHER);
    assert!(ada.get("/products/wax-and-seal").await.text.contains("Sold out"));
}

#[tokio::test]
async fn a_stale_tab_orders_nothing() {
    let workers = Workers::open(10).await;
    let mut ada = workers.customer("ada").await;
    let first = ada.fill_and_check_out(&[("night-ink", "1")]).await;
    // Another tab changes the same cart: the first tab shows something else than it would order.
    let second = ada.fill_and_check_out(&[("reading-lamp", "9")]).await;
    assert_eq!(ada.press(&first).await.location(), "/cart?notice=stale");
    assert!(orders(&workers).await.is_empty());
    let placed = ada.press(&second).await;
    assert_eq!(placed.status, StatusCode::SEE_OTHER);
    // The old tab's cart is ordered now: pressing there leads to its order, and takes nothing of a new cart.
    let third = ada.fill_and_check_out(&[("oak-tray", "1")]).await;
    assert_eq!(ada.press(&first).await.location(), placed.location());
    assert!(ada.get("/cart").await.text.contains("Oak desk tray"));
    assert_eq!(orders(&workers).await.len(), 1);
    assert_ne!(ada.press(&third).await.location(), placed.location());
    assert_eq!(orders(&workers).await.len(), 2);
}

#[tokio::test]
async fn an_order_whose_worker_died_before_the_new_cart_is_found_again() {
    let workers = Workers::open(10).await;
    let mut ada = workers.customer("ada").await;
    let form = ada.fill_and_check_out(&[("night-ink", "2")]).await;
    let id = CartId::parse(&form[0].1).unwrap();
    let cart = shop::cart::Cart { id: Some(id.clone()), lines: [("night-ink".to_owned(), 2)].into() };
    // This is what a worker does up to the moment at which it dies.
    workers.shop.orders.place("ada", &id, &cart, "Ada, London").await.unwrap();

    let mut other_tab = ada.clone();
    let again = ada.press(&form).await;
    assert_eq!(order_path(again.location()), format!("/orders/{id}"));
    assert!(other_tab.get("/cart").await.text.contains("Your cart is empty"));
    assert_eq!(orders(&workers).await.len(), 1);
    assert_eq!(workers.left("night-ink").await, 8);

    // The same, but the next thing that happens is something put into the cart.
    let form = ada.fill_and_check_out(&[("night-ink", "1")]).await;
    let id = CartId::parse(&form[0].1).unwrap();
    let cart = shop::cart::Cart { id: Some(id.clone()), lines: [("night-ink".to_owned(), 1)].into() };
    workers.shop.orders.place("ada", &id, &cart, "Ada, London").await.unwrap();
    let page = ada.post_and_follow("/cart", &[("product", "oak-tray"), ("quantity", "1")]).await;
    assert!(page.text.contains("Oak desk tray") && !page.text.contains("Night Swim"), "{}", page.text);
}

#[tokio::test]
async fn an_order_is_its_owners_alone() {
    let workers = Workers::open(10).await;
    let mut ada = workers.customer("ada").await;
    let form = ada.fill_and_check_out(&[("night-ink", "1")]).await;
    let path = order_path(ada.press(&form).await.location()).to_owned();
    let mut eve = workers.customer("eve").await;
    let (strange, none) = (eve.get(&path).await, eve.get(&format!("/orders/{}", "0".repeat(32))).await);
    assert_eq!((strange.status, none.status), (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND));
    assert!(!strange.text.contains("Night Swim"));
    assert!(eve.get("/orders").await.text.contains("No orders yet"));
    // Her tab cannot order his cart either.
    assert_eq!(eve.press(&form).await.location(), "/cart?notice=stale");
    assert_eq!(orders(&workers).await.len(), 1);
}

#[tokio::test]
async fn the_history_is_newest_first_and_in_pages() {
    let workers = Workers::open(100).await;
    let mut ada = workers.customer("ada").await;
    for _ in 0..shop::order::ORDERS_PAGE + 2 {
        let form = ada.fill_and_check_out(&[("night-ink", "1")]).await;
        assert_eq!(ada.press(&form).await.status, StatusCode::SEE_OTHER);
    }
    let first = ada.get("/orders").await;
    let (_, older) = first.text.split_once("href=\"/orders?after=").unwrap();
    let second = ada.get(&format!("/orders?after={}", older.split('"').next().unwrap())).await;
    let count = |text: &str| text.matches("href=\"/orders/").count();
    assert_eq!((count(&first.text), count(&second.text)), (shop::order::ORDERS_PAGE, 2));
    assert!(!second.text.contains("Older orders"));
}
