//! The catalogue in memory: read once for all workers, there before a new one is asked, and never older than a change for long.

use lethe::cache::Counts;

use crate::browser::{Page, Worker, Workers};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR-a-picture";

/// How often it was read from its table.
fn readings(workers: &Workers) -> u64 {
    workers.all.iter().map(|worker| worker.shop.catalogue.counts().computed).sum()
}

#[tokio::test]
async fn it_is_read_once_for_all_workers_and_once_after_each_change() {
    let workers = Workers::open(10).await;
    let mut admin = workers.admin().await;
    let mut visitor = workers.browser();
    for path in ["/", "/search?q=ink", "/products/night-ink", "/cart"].repeat(6) {
        visitor.get(path).await;
    }
    assert_eq!(readings(&workers), 1);
    admin.upload("night-ink", PNG).await;
    let is_hung = |page: &Page| page.text.contains("src=\"/photos/night-ink?v=");
    visitor.get_until("/", is_hung).await;
    admin.post("/admin/products/night-ink/photo/remove", &[]).await;
    visitor.get_until("/", |page| !is_hung(page)).await;
    assert_eq!(readings(&workers), 3);
}

#[tokio::test]
async fn a_new_worker_has_it_before_its_first_request() {
    let workers = Workers::open(10).await;
    for _ in &workers.all {
        workers.browser().get("/").await;
    }
    for worker in &workers.all {
        worker.state.report_hot_keys().await;
    }
    let new = Worker::open(&workers.state, 4, 10).await;
    // As `lethe::serve` does before it listens.
    assert_eq!(new.state.warm_up().await, 1);
    let home = workers.only(new.clone()).browser().get("/").await;
    assert!(home.text.contains("Tidewater notebook") && home.text.contains("<code>shop-4</code>"));
    assert_eq!(new.shop.catalogue.counts(), Counts { near: 1, ..Counts::default() });
    assert_eq!(readings(&workers), 1);
}

#[tokio::test]
async fn an_order_is_made_of_what_is_there_and_not_of_what_is_remembered() {
    let workers = Workers::open(10).await;
    let mut ada = workers.customer("ada").await;
    let form = ada.fill_and_check_out(&[("night-ink", "1")]).await;
    // By hand, past the shop: nobody removes it from the cache.
    let table = workers.state.table::<shop::catalogue::Product>("products");
    table.update("night-ink", |ink| ink.price = shop::money::Cents(1_700)).await.unwrap();
    assert!(ada.get("/").await.text.contains("€16.50"));
    assert_eq!(ada.press(&form).await.location(), "/cart?notice=stale", "it is not what the page has shown");
    assert_eq!(workers.shop.orders.count().await.unwrap(), 0);
}
