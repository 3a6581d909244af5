//! A person shops in a real browser, from sign-in to order. Screenshots go to `LETHE_SCREENSHOTS`, if that names a folder.

use std::path::PathBuf;

use anyhow::ensure;

use crate::{browser::Browser, lethe::Place, shop};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_sign_in_to_order() -> anyhow::Result<()> {
    let place = Place::new()?;
    let lethe = shop::open(&place).await?;
    let home = format!("http://127.0.0.1:{}", lethe.listen.port());
    for (form, width, height) in [("phone", 390, 844), ("desktop", 1280, 900)] {
        let mut browser = Browser::open(width, height).await?;
        let shots = std::env::var_os("LETHE_SCREENSHOTS").map_or_else(|| place.path().into(), PathBuf::from);
        let shot = |name: &str| shots.join(format!("{form}-{name}.png"));

        browser.go(&home).await?;
        browser.screenshot(&shot("home")).await?;
        let wide = browser.script("return document.documentElement.scrollWidth > window.innerWidth").await?;
        ensure!(wide == false, "the {form} page must not scroll sideways");
        browser.click("a[href^='/products/']").await?;
        browser.text("form.buy").await?;
        let product = browser.text("h1").await?;
        browser.screenshot(&shot("product")).await?;
        browser.click("form.buy button").await?;
        browser.text("main a[href='/checkout']").await?;
        let cart = browser.text("main").await?;
        ensure!(cart.contains(&product), "{product} is not in the cart: {cart}");
        browser.screenshot(&shot("cart")).await?;

        browser.click("main a[href='/checkout']").await?;
        browser.text("input[name=password]").await?;
        ensure!(browser.url().await?.contains("/sign-in"), "a stranger has to sign in first");
        browser.go(&format!("{home}/register?next=/checkout")).await?;
        browser.fill("input[name=name]", &format!("anna-{form}")).await?;
        browser.fill("input[name=password]", "a long enough password").await?;
        browser.click("main form button.wide").await?;
        browser.fill("textarea[name=deliver_to]", "Anna\n1 Somewhere Street").await?;
        let secret = browser.script("return document.cookie").await?;
        ensure!(secret == "", "a script can read the session cookie");
        browser.screenshot(&shot("checkout")).await?;
        browser.click("main form button.wide").await?;
        browser.text("main address").await?;
        ensure!(browser.url().await?.contains("/orders/"), "no order at {}", browser.url().await?);
        let order = browser.text("main").await?;
        ensure!(order.contains(&product), "{product} is not in the order: {order}");
        browser.screenshot(&shot("order")).await?;
        let footer = browser.text("footer").await?;
        ensure!(footer.contains("shop-"), "the footer names no worker: {footer}");
    }
    lethe.down().await
}
