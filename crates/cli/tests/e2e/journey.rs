//! The whole journey through the shop, in two tabs and on two devices, round after round while workers are killed with -9: on
//! what `lethe` has of its own, and on Redis, PostgreSQL and S3 together. Nothing fails, and at the end the books are right.

use std::{collections::BTreeMap, net::SocketAddr, pin::pin, time::Instant};

use anyhow::{Context, ensure};
use futures_util::future::join_all;
use lethe_state::feed::SILENCE_MAX;

use crate::{
    crash,
    engines::Engines,
    killer::Killer,
    lethe::{Lethe, Place},
    seed::Random,
    shop::{self, PASSWORD},
    visitor::{Page, Traffic, Visitor},
};

/// Workers that are killed at least.
const KILLS_MIN: usize = 12;
/// How many of each product there are at first.
const STOCK: u32 = 1000;
/// Sign-ins a minute: more than the rounds need, who all come from one address, and few enough to be used up at the end.
const SIGN_INS_MAX: usize = 60;
/// Rounds at most, so that they do not need more.
const ROUNDS_MAX: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_journey_while_workers_are_killed() -> anyhow::Result<()> {
    run("the_whole_journey_while_workers_are_killed", &Engines::embedded()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_journey_on_redis_postgresql_and_s3_while_workers_are_killed() -> anyhow::Result<()> {
    let engines = Engines::apart();
    run("the_whole_journey_on_redis_postgresql_and_s3_while_workers_are_killed", &engines).await?;
    shop::check_kept_apart(&engines)
}

async fn run(name: &str, engines: &Engines) -> anyhow::Result<()> {
    let mut random = Random::for_test(name);
    let place = Place::new()?;
    let (stock, sign_ins) = (STOCK.to_string(), SIGN_INS_MAX.to_string());
    let env = [("SHOP_STOCK", &*stock), ("SHOP_SIGN_INS_PER_MINUTE", &*sign_ins)];
    let lethe = shop::open_on(&place, engines, &env).await?;
    let (traffic, mut rounds, mut books) = (Traffic::default(), 0, Books::default());
    let mut killer = Killer::new(&lethe, &traffic, &mut random);
    while killer.killed < KILLS_MIN && rounds < ROUNDS_MAX {
        let visitor = || Visitor::among(&traffic, lethe.listen);
        let mut journey = pin!(journey(&visitor, rounds, &mut books));
        loop {
            tokio::select! {
                biased;
                done = &mut journey => break done.with_context(|| format!("in round {rounds}"))?,
                struck = killer.strike() => struck?,
            }
        }
        rounds += 1;
    }
    let killed = killer.killed;
    println!("{rounds} rounds, {killed} workers were killed");
    ensure!(killed >= KILLS_MIN, "only {killed} workers were killed");
    check_books(&lethe, &books).await?;
    use_up_sign_ins(lethe.listen).await?;
    lethe.down().await
}

/// What must be true at the end.
#[derive(Default)]
struct Books {
    orders: i64,
    sold: BTreeMap<&'static str, u32>,
}

impl Books {
    fn sell(&mut self, lines: &[(&'static str, u32)]) {
        self.orders += 1;
        for (slug, quantity) in lines {
            *self.sold.entry(slug).or_default() += quantity;
        }
    }
}

/// One round: a customer with two tabs of a laptop's browser and one of a phone's, and the shopkeeper.
async fn journey(visitor: &impl Fn() -> Visitor, round: usize, books: &mut Books) -> anyhow::Result<()> {
    let name = format!("ada-{round}");
    let mut laptop = visitor();
    // Looking around, as nobody.
    let home = ok(laptop.get("/").await?)?;
    ensure!(home.text().contains("Night Swim ink") && !laptop.has_cookie("__Host-session"), "a first look");
    ok(laptop.get("/search?q=creme").await?)?;
    ok(laptop.get("/products/night-ink").await?)?;
    set(&mut laptop, "night-ink", 2).await?;
    ensure!(
        laptop.get("/checkout").await?.location() == "/sign-in?next=/checkout",
        "a stranger signs in first"
    );
    let account = [("name", &*name), ("password", PASSWORD), ("next", "/checkout")];
    ensure!(laptop.post("/register", &account).await?.location() == "/checkout?notice=welcome", "registered");
    ensure!(ok(laptop.get("/checkout").await?)?.text().contains("Night Swim ink"), "the cart came along");

    // Two tabs put something into the cart at the same time, and neither is lost.
    let mut tab = laptop.tab(laptop.address);
    let (one, other) = tokio::join!(set(&mut laptop, "oak-tray", 1), set(&mut tab, "reading-lamp", 3));
    one.and(other)?;
    let cart = ok(laptop.get("/cart").await?)?;
    for product in ["night-ink", "oak-tray", "reading-lamp"] {
        ensure!(cart.text().contains(&format!("/products/{product}")), "{product} was lost: {}", cart.text());
    }
    // What a tab shows is what it orders, or nothing.
    let old = form(&mut laptop).await?;
    set(&mut tab, "night-ink", 5).await?;
    ensure!(press(&mut laptop, &old, None).await?.location() == "/cart?notice=stale", "an old page");
    // The button is pressed in both tabs at once.
    let new = form(&mut laptop).await?;
    let (one, other) = tokio::join!(press(&mut laptop, &new, None), press(&mut tab, &new, None));
    let (one, other) = (shop::order_address(one?.location())?, shop::order_address(other?.location())?);
    ensure!(one == other, "one cart made two orders: {one} and {other}");
    books.sell(&[("night-ink", 5), ("oak-tray", 1), ("reading-lamp", 3)]);
    ensure!(ok(laptop.get(&one).await?)?.text().contains("5 × "), "the order has what was ordered");

    // A program, with a key: its second request gets the first answer, although the cart is another one by then.
    set(&mut laptop, "field-trio", 4).await?;
    let program = form(&mut laptop).await?;
    let key = format!("\"order of {name}\"");
    let first = press(&mut laptop, &program, Some(&key)).await?;
    let again = press(&mut laptop, &program, Some(&key)).await?;
    ensure!(again.location() == first.location(), "{} and {}", first.location(), again.location());
    ensure!(again.headers.contains_key("idempotent-replayed"), "the first answer is given again");
    books.sell(&[("field-trio", 4)]);

    shopkeeper(visitor, round).await?;

    // On the phone, too; then out of everywhere.
    let mut phone = visitor();
    sign_in(&mut phone, &name).await?;
    ensure!(orders(&mut phone).await? == 2, "two orders were made");
    let out = laptop.post("/sign-out-everywhere", &[]).await?;
    ensure!(out.location() == "/?notice=signed-out-everywhere", "signed out: {}", out.text());
    tokio::time::sleep(SILENCE_MAX).await;
    for (device, browser) in [("phone", &mut phone), ("other tab", &mut tab)] {
        for _ in 0..shop::WORKERS {
            let page = browser.get("/orders").await?;
            ensure!(page.location() == "/sign-in?next=/orders", "the {device} is still signed in");
        }
    }
    sign_in(&mut phone, &name).await?;
    ensure!(orders(&mut phone).await? == 2, "what was ordered is still there");
    Ok(())
}

/// Hangs a new photo, which everybody sees.
async fn shopkeeper(visitor: &impl Fn() -> Visitor, round: usize) -> anyhow::Result<()> {
    let mut admin = visitor();
    sign_in(&mut admin, "admin").await?;
    let photo =
        [b"\x89PNG\r\n\x1a\n".as_slice(), format!("picture {round}").repeat(1000).as_bytes()].concat();
    let path = "/admin/products/perpetual-calendar/photo";
    let hung = admin.upload(path, &[], ("photo", "image/png", &photo)).await?;
    ensure!(
        hung.location() == "/admin?notice=hung",
        "the photo was answered {}: {}",
        hung.status,
        hung.text()
    );
    tokio::time::sleep(SILENCE_MAX).await;
    let mut visitor = visitor();
    for _ in 0..shop::WORKERS {
        let home = ok(visitor.get("/").await?)?;
        let address = home.text().split("src=\"/photos/").nth(1).and_then(|rest| rest.split('"').next());
        let address = address.context("the first page shows no photo")?;
        let shown = ok(visitor.get(&format!("/photos/{address}")).await?)?;
        ensure!(shown.body == photo, "it is not the photo that was hung");
        let kept = shown.headers["cache-control"].to_str()?;
        ensure!(kept.contains("immutable"), "the page names another photo than there is: {kept}");
    }
    Ok(())
}

async fn sign_in(visitor: &mut Visitor, name: &str) -> anyhow::Result<()> {
    let fields = [("name", name), ("password", PASSWORD), ("next", "/orders")];
    let page = visitor.post("/sign-in", &fields).await?;
    ensure!(page.location() == "/orders", "{name} cannot sign in: {} {}", page.status, page.text());
    Ok(())
}

async fn set(visitor: &mut Visitor, product: &str, quantity: u32) -> anyhow::Result<()> {
    let page = visitor.post("/cart", &[("product", product), ("quantity", &quantity.to_string())]).await?;
    ensure!(page.location() == "/cart?notice=updated", "the cart: {} {}", page.status, page.text());
    Ok(())
}

/// The fields of the checkout's form.
async fn form(visitor: &mut Visitor) -> anyhow::Result<[String; 2]> {
    let page = ok(visitor.get("/checkout").await?)?;
    Ok([page.input("cart").context("no cart")?, page.input("seen").context("nothing was seen")?])
}

async fn press(visitor: &mut Visitor, [cart, seen]: &[String; 2], key: Option<&str>) -> anyhow::Result<Page> {
    let fields = [("cart", &**cart), ("seen", seen), ("deliver_to", "Ada\n12 St James's Square")];
    let page = match key {
        Some(key) => visitor.post_with("/checkout", &fields, &[("idempotency-key", key)]).await?,
        None => visitor.post("/checkout", &fields).await?,
    };
    ensure!(page.status == 303, "the checkout was answered {}: {}", page.status, page.text());
    Ok(page)
}

/// How many orders the customer has.
async fn orders(visitor: &mut Visitor) -> anyhow::Result<usize> {
    Ok(shop::links(ok(visitor.get("/orders").await?)?.text(), "/orders/").len())
}

fn ok(page: Page) -> anyhow::Result<Page> {
    ensure!(page.status == 200, "answered {}: {}", page.status, page.text());
    Ok(page)
}

/// As many orders as were answered, and as many things gone as were ordered.
async fn check_books(lethe: &Lethe, books: &Books) -> anyhow::Result<()> {
    let tables = crash::engines(lethe)?.tables;
    let orders = tables.get("counters", "orders").await?.context("orders are counted")?;
    ensure!(orders.value == books.orders.to_string(), "{:?} orders, not {}", orders.value, books.orders);
    for (slug, sold) in &books.sold {
        let stock = tables.get("stock", slug).await?.context("it has a stock")?;
        let left = serde_json::from_slice::<serde_json::Value>(&stock.value)?["left"].clone();
        ensure!(left == STOCK - sold, "{slug}: {left} are left, and {sold} of {STOCK} were sold");
    }
    Ok(())
}

/// Tries to sign in more often than one may, all at once; the workers count together. A password that is too long costs no
/// work, so that the tries are quicker than new ones are allowed.
async fn use_up_sign_ins(listen: SocketAddr) -> anyhow::Result<()> {
    let began = Instant::now();
    let password = "x".repeat(1000);
    let fields = [("name", "ada-0"), ("password", &*password), ("next", "/")];
    let tries = (0..4 * SIGN_INS_MAX).map(|_| async { Visitor::new(listen).post("/sign-in", &fields).await });
    let mut let_in = 0;
    for page in join_all(tries).await {
        let page = page?;
        match page.status.as_u16() {
            422 => let_in += 1,
            429 => {
                let is_told =
                    page.headers.contains_key("retry-after") && page.text().contains("Try again in");
                ensure!(is_told, "it is not told when to come back: {}", page.text());
            }
            status => anyhow::bail!("a try was answered {status}: {}", page.text()),
        }
    }
    // One a second is allowed again.
    let most = SIGN_INS_MAX as u64 + began.elapsed().as_secs() + 1;
    ensure!(let_in <= most, "{let_in} tries were let pass, and {most} may be");
    Ok(())
}
