//! Everything else a visitor or the admin may do, and what strangers may not.

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use futures_util::future::join_all;
use lethe::State;
use shop::{
    config::{Config, Secret},
    photo::PHOTO_BYTES_MAX,
    shop::Shop,
};

use crate::browser::{ADMIN_PASSWORD, Page, Workers, config};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR-the-rest-of-a-small-picture";

#[tokio::test]
async fn workers_that_start_at_once_fill_the_shelves_once() {
    let state = State::ephemeral().unwrap();
    let opened = join_all((0..8).map(|number| Shop::open(&state, config(number, 7)))).await;
    let shops: Vec<Shop> = opened.into_iter().map(Result::unwrap).collect();
    let products = shops[0].catalogue.all().await.unwrap();
    assert_eq!(products.len(), 12);
    shops[1].catalogue.set_stock(&products[0].slug, 3).await.unwrap();
    let again = Shop::open(&state, config(9, 7)).await.unwrap();
    assert_eq!(again.catalogue.stock(&products[0].slug).await.unwrap().unwrap().value.left, 3);
    // Of eight workers that set up the admin at once, one wins, and the password is the one that is set.
    join_all(shops.iter().map(|shop| shop.accounts.seed_admin(&shop.config)))
        .await
        .into_iter()
        .for_each(|seeded| seeded.unwrap());
    assert!(again.accounts.verify(Some(&again.config.admin), ADMIN_PASSWORD.into()).await.unwrap());
}

#[tokio::test]
async fn a_new_admin_password_shuts_out_whoever_came_in_with_the_old_one() {
    let workers = Workers::open(1).await;
    let mut admin = workers.admin().await;
    workers.shop.accounts.seed_admin(&workers.shop.config).await.unwrap();
    assert_eq!(admin.get("/admin").await.status, StatusCode::OK, "the same password changes nothing");
    let new = Config { admin_password: Some(Secret("another lock".into())), ..config(4, 1) };
    workers.shop.accounts.seed_admin(&new).await.unwrap();
    assert_eq!(admin.get("/admin").await.status, StatusCode::FORBIDDEN);
    let page = admin.post("/sign-in", &[("name", "admin"), ("password", ADMIN_PASSWORD)]).await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn every_file_that_a_page_names_is_there_to_be_kept() {
    let workers = Workers::open(1).await;
    let mut visitor = workers.browser();
    let home = visitor.get("/").await;
    assert!(home.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().contains("default-src 'none'"));
    assert!(home.text.contains("Served by worker <code>shop-"));
    let mut files = 0;
    for part in home.text.split("\"/assets/").skip(1) {
        let path = format!("/assets/{}", part.split('"').next().unwrap());
        let file = visitor.get(&path).await;
        assert_eq!(file.status, StatusCode::OK, "{path}");
        assert!(file.headers[header::CACHE_CONTROL].to_str().unwrap().contains("immutable"));
        assert_eq!(file.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        files += 1;
    }
    assert_eq!(files, 2 + 1 + 12, "stylesheet, icon, desk and drawings");
}

#[tokio::test]
async fn failures_look_like_the_shop() {
    let workers = Workers::open(1).await;
    let mut visitor = workers.browser();
    for (path, status) in [
        ("/nowhere", 404),
        ("/products/none", 404),
        ("/products/..%2Fx", 404),
        ("/orders/x", 404),
        ("/photos/night-ink", 404),
        ("/assets/0/none.css", 404),
        ("/sign-out", 405),
        ("/admin", 403),
    ] {
        let page = visitor.get(path).await;
        assert_eq!(page.status.as_u16(), status, "{path}");
        assert!(
            page.text.contains("Marginalia") && page.text.contains("Back to the shop"),
            "{path}: {}",
            page.text
        );
    }
    let page = visitor.post("/cart", &[("product", "night-ink"), ("quantity", "many")]).await;
    assert!(page.status == StatusCode::BAD_REQUEST && page.text.contains("That form did not arrive well"));
    let large = "x".repeat(100_000);
    let page = visitor.post("/sign-in", &[("name", &large), ("password", "x")]).await;
    assert_eq!(page.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(visitor.get("/healthz").await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn quantities_are_set_so_that_a_request_may_come_twice() {
    let workers = Workers::open(10).await;
    let mut visitor = workers.browser();
    for _ in 0..3 {
        let cart = visitor.post_and_follow("/cart", &[("product", "night-ink"), ("quantity", "2")]).await;
        assert!(cart.text.contains("<span class=\"count\">2<"), "{}", cart.text);
    }
    let cart = visitor.post_and_follow("/cart", &[("product", "night-ink"), ("quantity", "0")]).await;
    assert!(cart.text.contains("Your cart is empty"));
    let none = visitor.post("/cart", &[("product", "no-such-thing"), ("quantity", "1")]).await;
    assert_eq!(none.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_stranger_learns_nothing_from_a_refusal() {
    let workers = Workers::open(1).await;
    workers.customer("ada").await;
    let mut eve = workers.browser();
    let wrong = eve.post("/sign-in", &[("name", "ada"), ("password", "wrong horse")]).await;
    let nobody = eve.post("/sign-in", &[("name", "bob"), ("password", "wrong horse")]).await;
    let nonsense = eve.post("/sign-in", &[("name", "no name at all!"), ("password", "wrong horse")]).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    let strip = |text: &str, name: &str| {
        text.replace(name, "").replace("shop-1", "").replace("shop-2", "").replace("shop-3", "")
    };
    assert_eq!(strip(&wrong.text, "ada"), strip(&nobody.text, "bob"));
    assert_eq!(strip(&wrong.text, "ada"), strip(&nonsense.text, "no name at all!"));
    assert!(eve.cookies.is_empty());
}

#[tokio::test]
async fn registering_may_come_twice_but_not_take_a_name() {
    let workers = Workers::open(1).await;
    workers.customer("ada").await;
    workers.customer("ada").await; // The same again: a worker died before it could answer.
    let mut eve = workers.browser();
    let taken = eve.post("/register", &[("name", "ADA"), ("password", "another horse")]).await;
    assert_eq!(taken.status, StatusCode::CONFLICT);
    // The admin's name is not free, though nobody has set it up yet.
    let admin = eve.post("/register", &[("name", "admin"), ("password", ADMIN_PASSWORD)]).await;
    assert_eq!(admin.status, StatusCode::CONFLICT);
    for (name, password) in
        [("a", "correct horse"), ("ad<b>a", "correct horse"), ("bob", "short"), ("longname", "LongName")]
    {
        let page = eve.post("/register", &[("name", name), ("password", password)]).await;
        assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY, "{name}");
        assert!(!page.text.contains("<b>"));
    }
}

#[tokio::test]
async fn a_sign_in_that_comes_again_with_the_old_cookie_keeps_the_cart() {
    let workers = Workers::open(10).await;
    workers.customer("ada").await;
    let mut browser = workers.browser();
    browser.post("/cart", &[("product", "night-ink"), ("quantity", "2")]).await;
    // The first worker renews the session and dies; its answer, with the new cookie, is lost.
    let mut lost = browser.clone();
    let credentials = [("name", "ada"), ("password", "correct horse")];
    lost.post("/sign-in", &credentials).await;
    assert_eq!(browser.post("/sign-in", &credentials).await.status, StatusCode::SEE_OTHER);
    let cart = browser.get("/cart").await;
    assert!(cart.text.contains("Night Swim ink") && cart.text.contains("Sign out"), "{}", cart.text);
}

#[tokio::test]
async fn every_page_has_a_way_out() {
    let workers = Workers::open(10).await;
    let mut ada = workers.customer("ada").await;
    ada.post("/cart", &[("product", "night-ink"), ("quantity", "1")]).await;
    for path in [
        "/",
        "/search?q=ink",
        "/products/night-ink",
        "/cart",
        "/checkout",
        "/orders",
        "/sign-in",
        "/register",
    ] {
        let page = ada.get(path).await;
        assert!(page.text.contains("action=\"/sign-out\""), "{path}: {}", page.text);
    }
    let admin = workers.admin().await.get("/admin").await;
    assert!(admin.text.contains("action=\"/sign-out\""), "{}", admin.text);
}

#[tokio::test]
async fn signing_in_leads_to_pages_of_this_shop_only() {
    let workers = Workers::open(1).await;
    workers.customer("ada").await;
    for (next, location) in
        [("/orders", "/orders"), ("//evil.example/x", "/"), ("https://evil.example", "/"), ("/\\evil", "/")]
    {
        let credentials = [("name", "ada"), ("password", "correct horse"), ("next", next)];
        assert_eq!(workers.browser().post("/sign-in", &credentials).await.location(), location);
    }
}

#[tokio::test]
async fn what_visitors_write_is_shown_as_text() {
    let workers = Workers::open(10).await;
    let mut ada = workers.customer("ada").await;
    let page = ada.get("/search?q=%3Cscript%3Ealert(1)%3C/script%3E%22%20autofocus").await;
    assert!(
        page.text.contains("&lt;script&gt;alert(1)") && page.text.contains("&quot; autofocus"),
        "{}",
        page.text
    );
    let mut form = ada.fill_and_check_out(&[("night-ink", "1")]).await;
    form[2].1 = "<img src=x onerror=alert(1)>\r\nLondon".into();
    let pressed = ada.press(&form).await;
    let order = ada.get(pressed.location()).await;
    assert!(order.text.contains("&lt;img src=x onerror=alert(1)&gt;\nLondon"), "{}", order.text);
    let refused = ada.post("/sign-in", &[("name", "\"><b>x"), ("password", "x")]).await;
    assert!(refused.text.contains("&quot;&gt;&lt;b&gt;x") && !refused.text.contains("<b>x"));
    let notice = ada.get("/?notice=%3Cb%3Efree%20ink").await;
    assert!(!notice.text.contains("free ink"));
}

#[tokio::test]
async fn other_sites_cannot_press_buttons_here() {
    let workers = Workers::open(10).await;
    let mut ada = workers.customer("ada").await;
    let form = ada.fill_and_check_out(&[("night-ink", "1")]).await;
    let body =
        form.iter().map(|(name, value)| format!("{name}={}", value.replace(['\r', '\n', ' ', '\''], "+")));
    let body = body.collect::<Vec<_>>().join("&");
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example"),
    ] {
        let request = Request::post("/checkout")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(name, value);
        let page = ada.send(request, Body::from(body.clone())).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{name}: {value}");
    }
    assert!(ada.get("/orders").await.text.contains("No orders yet"));
}

#[tokio::test]
async fn the_admin_hangs_a_photo_and_takes_it_down() {
    let workers = Workers::open(10).await;
    let mut admin = workers.admin().await;
    assert!(admin.get("/admin").await.text.contains("Shows its drawing"));
    for _ in 0..2 {
        assert_eq!(admin.upload("night-ink", PNG).await.location(), "/admin?notice=hung");
    }
    let mut visitor = workers.browser();
    let is_hung = |page: &Page| page.text.contains("src=\"/photos/");
    let page = visitor.get_until("/products/night-ink", is_hung).await;
    let (_, photo) = page.text.split_once("src=\"/photos/").unwrap();
    let path = format!("/photos/{}", photo.split('"').next().unwrap());
    let photo = visitor.get(&path).await;
    assert_eq!(photo.bytes, PNG);
    assert_eq!(photo.headers[header::CONTENT_TYPE], "image/png");
    assert_eq!(photo.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert!(photo.headers[header::CACHE_CONTROL].to_str().unwrap().contains("immutable"));
    let other = visitor.get("/photos/night-ink?v=older").await;
    assert_eq!(other.headers[header::CACHE_CONTROL], "no-cache");

    let removed = admin.post("/admin/products/night-ink/photo/remove", &[]).await;
    assert_eq!(removed.location(), "/admin?notice=taken-down");
    assert_eq!(visitor.get(&path).await.status, StatusCode::NOT_FOUND);
    visitor.get_until("/products/night-ink", |page| page.text.contains("/night-ink.svg")).await;

    admin.post("/admin/products/night-ink/stock", &[("left", "42")]).await;
    assert_eq!(workers.left("night-ink").await, 42);
}

#[tokio::test]
async fn only_the_admin_enters_the_stock_room() {
    let workers = Workers::open(10).await;
    workers.admin().await;
    for mut stranger in [workers.browser(), workers.customer("eve").await] {
        assert_eq!(stranger.get("/admin").await.status, StatusCode::FORBIDDEN);
        assert_eq!(stranger.upload("night-ink", PNG).await.status, StatusCode::FORBIDDEN);
        let stock = stranger.post("/admin/products/night-ink/stock", &[("left", "0")]).await;
        assert_eq!(stock.status, StatusCode::FORBIDDEN);
        let remove = stranger.post("/admin/products/night-ink/photo/remove", &[]).await;
        assert_eq!(remove.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(workers.left("night-ink").await, 10);
    assert!(workers.shop.photos.head("night-ink").await.unwrap().is_none());
}

#[tokio::test]
async fn a_bad_upload_is_refused_and_leaves_the_photo_that_was_there() {
    let workers = Workers::open(10).await;
    let mut admin = workers.admin().await;
    admin.upload("night-ink", PNG).await;
    let mut large = PNG.to_vec();
    large.resize(PHOTO_BYTES_MAX as usize + 1, 0);
    for (file, status) in [
        (&b"<svg xmlns=\"http://www.w3.org/2000/svg\"><script/></svg>"[..], 415),
        (b"", 415),
        (b"\xff\xd8", 415),
        (&large, 413),
    ] {
        assert_eq!(admin.upload("night-ink", file).await.status.as_u16(), status);
    }
    assert_eq!(admin.upload("no-such-thing", PNG).await.status, StatusCode::NOT_FOUND);
    let request = Request::post("/admin/products/night-ink/photo")
        .header(header::CONTENT_TYPE, "multipart/form-data; boundary=edge")
        .header("sec-fetch-site", "same-origin");
    let mut cut = b"--edge\r\nContent-Disposition: form-data; name=\"photo\"\r\n\r\n".to_vec();
    cut.extend_from_slice(PNG);
    let page = admin.send(request, Body::from(cut)).await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST, "a body cut short is no photo: {}", page.text);
    large.pop();
    assert_eq!(workers.browser().get("/photos/night-ink").await.bytes, PNG);
    assert_eq!(admin.upload("night-ink", &large).await.status, StatusCode::SEE_OTHER, "as large as may be");
}
