//! The shop with three workers, under shoppers with cookie jars, while workers are killed with -9 or replaced by a rolling
//! restart; on what `lethe` has of its own, and unchanged on Redis, PostgreSQL and S3.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, bail, ensure};

use crate::{
    engines::Engines,
    killer::Killer,
    lethe::{Lethe, Place},
    moto,
    seed::Random,
    visitor::{Page, Traffic, Visitor},
};

const SHOPPERS: usize = 16;
pub const WORKERS: usize = 3;
/// Workers that are killed under load.
const KILLS: usize = 50;
/// Rolling restarts under load.
const RESTARTS: usize = 12;
pub const PASSWORD: &str = "correct horse battery staple";

/// All shoppers come from one address, and sign in more often than one of them may.
const SIGN_INS: (&str, &str) = ("SHOP_SIGN_INS_PER_MINUTE", "1000000");

/// The folder of the shop's `lethe.toml`.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop")
}

/// The shop, with all workers ready.
pub async fn open(place: &Place) -> anyhow::Result<Lethe> {
    open_with(place, "", &[SIGN_INS]).await
}

/// The same shop on these engines: its file is what it is, with a `[state]` at its end.
pub async fn open_on(place: &Place, engines: &Engines, env: &[(&str, &str)]) -> anyhow::Result<Lethe> {
    open_with(place, engines.toml(), env).await
}

/// All its workers may be on their way back at one time, which takes long where there is much else to do.
async fn open_with(place: &Place, toml: &str, env: &[(&str, &str)]) -> anyhow::Result<Lethe> {
    const PATIENT: &str = "[limits]\nqueue-timeout = \"10m\"\n";
    let root = folder().join("../..").canonicalize()?;
    let of_shop = std::fs::read_to_string(folder().join("lethe.toml"))?
        .replace("directory = \"../..\"", &format!("directory = {root:?}"));
    let file = place.path().join("lethe.toml");
    std::fs::write(&file, format!("{of_shop}\n{PATIENT}{toml}"))?;
    up(place, file.to_str().context("the file's name is UTF-8")?, env).await
}

async fn up(place: &Place, what: &str, env: &[(&str, &str)]) -> anyhow::Result<Lethe> {
    let env = [&[("SHOP_ADMIN_PASSWORD", PASSWORD)][..], env].concat();
    let lethe = place.up_with(&[what], &env).await?;
    lethe.ready(WORKERS).await?;
    Ok(lethe)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_that_workers_are_killed() -> anyhow::Result<()> {
    let mut random = Random::for_test("nobody_notices_that_workers_are_killed");
    let place = Place::new()?;
    let lethe = open(&place).await?;
    kill_under_load(&lethe, &mut random).await?;
    lethe.down().await
}

/// The same shop, unchanged, with all that it remembers but its photos in Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_that_workers_are_killed_where_state_is_in_redis() -> anyhow::Result<()> {
    let mut random = Random::for_test("nobody_notices_that_workers_are_killed_where_state_is_in_redis");
    let (engines, place) = (Engines::redis(), Place::new()?);
    let lethe = open_on(&place, &engines, &[SIGN_INS]).await?;
    kill_under_load(&lethe, &mut random).await?;
    ensure!(keys(&engines)? > 100, "it was not kept in Redis");
    lethe.down().await
}

fn keys(engines: &Engines) -> anyhow::Result<u64> {
    let redis = engines.redis.as_ref().context("there is a Redis")?;
    Ok(redis.command(&["dbsize"]).trim().parse()?)
}

/// Sees that each kind is where it shall be.
pub fn check_kept_apart(engines: &Engines) -> anyhow::Result<()> {
    ensure!(keys(engines)? > 0, "nothing was kept in Redis");
    let postgres = engines.postgres.as_ref().context("there is a PostgreSQL")?;
    let orders = postgres.query("SELECT count(*) FROM shop.rows WHERE table_name = 'orders'");
    ensure!(orders.trim().parse::<u64>()? > 0, "no order was kept in PostgreSQL");
    let folder = engines.folder.as_ref().context("there is a bucket")?;
    let objects = moto::shared().say(&format!("GET /{}?prefix={folder}/photos/ HTTP/1.1\r\n", moto::BUCKET));
    ensure!(objects.contains("<Key>"), "no photo was kept on S3: {objects}");
    Ok(())
}

/// Lets shoppers shop while one worker after the other is killed.
async fn kill_under_load(lethe: &Lethe, random: &mut Random) -> anyhow::Result<()> {
    let load = Load::start(lethe.listen, random);
    let mut killer = Killer::new(lethe, &load.traffic, random);
    while killer.killed < KILLS && !load.has_failed() {
        killer.strike().await?;
    }
    let report = load.finish().await?;
    println!("{KILLS} workers were killed; {report:?}");
    lethe.ready(WORKERS).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_a_rolling_restart() -> anyhow::Result<()> {
    let mut random = Random::for_test("nobody_notices_a_rolling_restart");
    let place = Place::new()?;
    let lethe = open(&place).await?;
    let load = Load::start(lethe.listen, &mut random);
    for _ in 0..RESTARTS {
        let replaced = lethe.client.restart("shop").await?;
        ensure!(replaced as usize == WORKERS, "{replaced} workers were replaced");
    }
    let report = load.finish().await?;
    println!("{RESTARTS} rolling restarts; {report:?}");
    let status = lethe.client.status().await?;
    ensure!(status.gateway.retries == 0, "{} requests lost their worker", status.gateway.retries);
    lethe.down().await
}

/// Shoppers and one photographer at work.
struct Load {
    traffic: Traffic,
    over: Arc<AtomicBool>,
    shoppers: Vec<tokio::task::JoinHandle<anyhow::Result<Shopped>>>,
    photographer: tokio::task::JoinHandle<anyhow::Result<usize>>,
}

/// What one shopper did.
#[derive(Default)]
struct Shopped {
    requests: usize,
    checkouts: usize,
}

/// What all did.
#[derive(Debug)]
#[allow(dead_code, reason = "read by Debug, for the person who runs the test")]
struct Report {
    requests: usize,
    checkouts: usize,
    uploads: usize,
}

impl Load {
    fn start(address: SocketAddr, random: &mut Random) -> Self {
        let (over, traffic) = (Arc::new(AtomicBool::new(false)), Traffic::default());
        let shoppers = (0..SHOPPERS)
            .map(|number| {
                let shopper = Shopper::new(Visitor::among(&traffic, address), number, random.split());
                tokio::spawn(shopper.shop_until(Arc::clone(&over)))
            })
            .collect();
        let photographer = Visitor::among(&traffic, address);
        let photographer = tokio::spawn(photograph_until(photographer, random.split(), Arc::clone(&over)));
        Self { traffic, over, shoppers, photographer }
    }

    /// Whether somebody has stopped before the end, which is an error.
    fn has_failed(&self) -> bool {
        self.photographer.is_finished() || self.shoppers.iter().any(tokio::task::JoinHandle::is_finished)
    }

    /// Ends it, waits for all, and fails with what the first of them met.
    async fn finish(self) -> anyhow::Result<Report> {
        self.over.store(true, Ordering::Relaxed);
        let mut report = Report { requests: 0, checkouts: 0, uploads: self.photographer.await?? };
        for shopper in self.shoppers {
            let shopped = shopper.await??;
            report.requests += shopped.requests;
            report.checkouts += shopped.checkouts;
        }
        ensure!(report.checkouts >= SHOPPERS, "each shopper ordered at least once");
        ensure!(report.uploads > 0, "something was uploaded");
        Ok(report)
    }
}

/// One shopper. Any answer that is not the expected one is an error.
struct Shopper {
    visitor: Visitor,
    name: String,
    random: Random,
    products: Vec<String>,
    shopped: Shopped,
    /// Orders that were answered, by address.
    orders: BTreeSet<String>,
}

impl Shopper {
    fn new(visitor: Visitor, number: usize, random: Random) -> Self {
        Self {
            visitor,
            name: format!("shopper-{number}"),
            random,
            products: Vec::new(),
            shopped: Shopped::default(),
            orders: BTreeSet::new(),
        }
    }

    async fn shop_until(mut self, over: Arc<AtomicBool>) -> anyhow::Result<Shopped> {
        let name = self.name.clone();
        self.journeys(&over).await.with_context(|| format!("{name} met something unexpected"))?;
        Ok(self.shopped)
    }

    async fn journeys(&mut self, over: &AtomicBool) -> anyhow::Result<()> {
        let credentials = [("name", self.name.clone()), ("password", PASSWORD.into()), ("next", "/".into())];
        let credentials: Vec<(&str, &str)> = credentials.iter().map(|(k, v)| (*k, v.as_str())).collect();
        self.post("/register", &credentials).await?;
        while !over.load(Ordering::Relaxed) {
            self.buy().await?;
            if self.random.below(4) == 0 {
                self.post("/sign-out", &[]).await?;
                self.browse().await?;
                self.put_into_cart().await?;
                self.post("/sign-in", &credentials).await?;
            }
        }
        // The number of answered checkouts equals the number of orders: none is lost, none is doubled.
        let kept = self.all_orders().await?;
        ensure!(kept == self.orders, "answered: {:#?}\nkept: {kept:#?}", self.orders);
        Ok(())
    }

    async fn buy(&mut self) -> anyhow::Result<()> {
        self.browse().await?;
        self.put_into_cart().await?;
        let form = self.get("/checkout").await?;
        let cart = form.input("cart").context("the checkout has no cart: the session's cart is lost")?;
        let seen = form.input("seen").context("the checkout has no `seen`")?;
        let fields = [("cart", &*cart), ("seen", &*seen), ("deliver_to", "Someone\n1 Somewhere Street")];
        let order = self.post("/checkout", &fields).await?;
        let address = order_address(order.location())?;
        ensure!(self.orders.insert(address.clone()), "{address} was ordered before");
        self.shopped.checkouts += 1;
        if self.random.below(2) == 0 {
            let again = self.post("/checkout", &fields).await?;
            ensure!(order_address(again.location())? == address, "the button pressed twice ordered twice");
        }
        self.get(&address).await?;
        let list = self.get("/orders").await?;
        ensure!(list.text().contains(&address), "{address} is not among the latest orders");
        Ok(())
    }

    async fn browse(&mut self) -> anyhow::Result<()> {
        let home = self.get("/").await?;
        if self.products.is_empty() {
            self.products = links(home.text(), "/products/").into_iter().collect();
        }
        let product = self.product()?;
        self.get(&product).await?;
        Ok(())
    }

    async fn put_into_cart(&mut self) -> anyhow::Result<()> {
        let product = self.product()?;
        let slug = product.trim_start_matches("/products/");
        let quantity = (1 + self.random.below(3)).to_string();
        self.post("/cart", &[("product", slug), ("quantity", &quantity)]).await?;
        let cart = self.get("/cart").await?;
        ensure!(cart.text().contains(&product), "{product} is not in the cart: the session lost it");
        Ok(())
    }

    fn product(&mut self) -> anyhow::Result<String> {
        ensure!(!self.products.is_empty(), "the catalogue is empty");
        Ok(self.products[self.random.below(self.products.len())].clone())
    }

    async fn all_orders(&mut self) -> anyhow::Result<BTreeSet<String>> {
        let mut orders = BTreeSet::new();
        let mut next = Some("/orders".to_owned());
        while let Some(path) = next {
            let page = self.get(&path).await?;
            orders.extend(links(page.text(), "/orders/"));
            next = links(page.text(), "/orders?after=").pop_first();
        }
        Ok(orders)
    }

    async fn get(&mut self, path: &str) -> anyhow::Result<Page> {
        self.shopped.requests += 1;
        let page = self.visitor.get(path).await.with_context(|| format!("GET {path}"))?;
        ensure!(page.status == 200, "GET {path} was answered {}: {}", page.status, page.text());
        Ok(page)
    }

    async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> anyhow::Result<Page> {
        self.shopped.requests += 1;
        let page = self.visitor.post(path, fields).await.with_context(|| format!("POST {path}"))?;
        ensure!(page.status == 303, "POST {path} was answered {}: {}", page.status, page.text());
        Ok(page)
    }
}

/// The address of an order in the redirect that leads to it.
pub fn order_address(location: &str) -> anyhow::Result<String> {
    let address = location.split('?').next().unwrap_or_default();
    if !address.starts_with("/orders/") {
        bail!("the checkout led to `{location}`");
    }
    Ok(address.to_owned())
}

/// All link targets on a page that begin with `prefix`.
pub fn links(html: &str, prefix: &str) -> BTreeSet<String> {
    let start = format!("href=\"{prefix}");
    html.split(&start)
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .map(|rest| format!("{prefix}{rest}"))
        .collect()
}

/// Uploads photo after photo and reads each back; returns how many.
async fn photograph_until(
    mut visitor: Visitor,
    mut random: Random,
    over: Arc<AtomicBool>,
) -> anyhow::Result<usize> {
    let mut uploads = 0;
    let page = visitor.post("/sign-in", &[("name", "admin"), ("password", PASSWORD), ("next", "/")]).await?;
    ensure!(page.status == 303, "the admin cannot sign in: {}", page.text());
    let products = links(visitor.get("/").await?.text(), "/products/");
    let slug =
        products.first().context("the catalogue is empty")?.trim_start_matches("/products/").to_owned();
    while !over.load(Ordering::Relaxed) {
        let mut photo = b"\x89PNG\r\n\x1a\n".to_vec();
        // Small enough to be held until it is whole: a larger answer that dies half-way is cut, and rightly so.
        photo.resize_with(1000 + random.below(200_000), || random.next() as u8);
        let path = format!("/admin/products/{slug}/photo");
        let page = visitor.upload(&path, &[], ("photo", "image/png", &photo)).await.context("upload")?;
        ensure!(page.status == 303, "the upload was answered {}: {}", page.status, page.text());
        let kept = visitor.get(&format!("/photos/{slug}")).await.context("photo")?;
        ensure!(kept.status == 200 && kept.body == photo, "the upload is lost: {}", kept.status);
        uploads += 1;
    }
    Ok(uploads)
}
