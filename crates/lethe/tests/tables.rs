//! Typed tables, counters and batches on the embedded engine.

#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use futures_util::TryStreamExt;
use lethe::{Error, State, table::Outcome};
use serde::{Deserialize, Serialize};
use tokio::sync::Barrier;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Product {
    name: String,
    stock: u32,
}

fn product(name: &str, stock: u32) -> Product {
    Product { name: name.into(), stock }
}

#[tokio::test]
async fn a_row_comes_back_as_it_was_put() {
    let products = State::ephemeral().unwrap().table::<Product>("products");
    assert!(products.get("mug").await.unwrap().is_none());
    let revision = products.put("mug", &product("Mug", 3)).await.unwrap();
    let mug = products.get("mug").await.unwrap().unwrap();
    assert_eq!((mug.key.as_str(), mug.revision, mug.expires_at), ("mug", revision, None));
    assert_eq!(*mug, product("Mug", 3));
    assert!(products.delete("mug").await.unwrap());
    assert!(!products.delete("mug").await.unwrap());
    assert!(products.get("mug").await.unwrap().is_none());
}

#[tokio::test]
async fn insert_takes_a_key_once() {
    let products = State::ephemeral().unwrap().table::<Product>("products");
    assert!(products.insert("mug", &product("First", 1)).await.unwrap());
    assert!(!products.insert("mug", &product("Second", 2)).await.unwrap());
    assert_eq!(products.get("mug").await.unwrap().unwrap().name, "First");
    let hour = Duration::from_secs(3600);
    assert!(!products.insert_for("mug", &product("Third", 3), hour).await.unwrap());
    assert!(products.insert_for("cup", &product("Cup", 1), hour).await.unwrap());
    assert!(products.get("cup").await.unwrap().unwrap().expires_at.is_some());
}

#[tokio::test]
async fn put_if_writes_only_over_what_was_read() {
    let products = State::ephemeral().unwrap().table::<Product>("products");
    products.put("mug", &product("Mug", 3)).await.unwrap();
    let read = products.get("mug").await.unwrap().unwrap();
    assert!(products.put_if(&read, &product("Mug", 2)).await.unwrap());
    assert!(!products.put_if(&read, &product("Mug", 1)).await.unwrap());
    assert_eq!(products.get("mug").await.unwrap().unwrap().stock, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_at_the_same_time_are_all_done() {
    let state = State::ephemeral().unwrap();
    let products = state.table::<Product>("products");
    assert_eq!(products.update("mug", |mug| mug.stock -= 1).await.unwrap(), None);
    products.put("mug", &product("Mug", 100)).await.unwrap();
    let buyers = 8;
    let together = Arc::new(Barrier::new(buyers));
    let tasks: Vec<_> = (0..buyers)
        .map(|_| {
            let (products, together) = (products.clone(), Arc::clone(&together));
            tokio::spawn(async move {
                together.wait().await;
                products.update("mug", |mug| mug.stock -= 1).await.unwrap().unwrap().stock
            })
        })
        .collect();
    let mut left = Vec::new();
    for task in tasks {
        left.push(task.await.unwrap());
    }
    left.sort_unstable();
    assert_eq!(left, (92..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_update_keeps_the_expiry() {
    let state = State::ephemeral().unwrap();
    let (products, hour) = (state.table::<Product>("products"), Duration::from_secs(3600));
    products.put_for("mug", &product("Mug", 3), hour).await.unwrap();
    let before = products.get("mug").await.unwrap().unwrap().expires_at.unwrap();
    products.update("mug", |mug| mug.stock -= 1).await.unwrap();
    let read = products.get("mug").await.unwrap().unwrap();
    assert_eq!(read.stock, 2);
    let after = read.expires_at.unwrap();
    assert!((before - after).abs() < 600_000, "{before} became {after}");
    products.put_if(&read, &product("Mug", 1)).await.unwrap();
    assert!(products.get("mug").await.unwrap().unwrap().expires_at.is_some());
    products.put("mug", &product("Mug", 1)).await.unwrap();
    assert_eq!(products.get("mug").await.unwrap().unwrap().expires_at, None);
}

#[tokio::test]
async fn scans_go_page_by_page_in_the_order_of_keys() {
    let state = State::ephemeral().unwrap();
    let numbers = state.table::<u32>("numbers");
    for number in 0..7 {
        numbers.put(&format!("n/{number}"), &number).await.unwrap();
    }
    numbers.put("m/0", &100).await.unwrap();
    numbers.put("o/0", &100).await.unwrap();
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = numbers.scan("n/").limit(3).after(after).page().await.unwrap();
        assert!(page.rows.len() <= 3);
        seen.extend(page.rows.into_iter().map(|row| row.value));
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(seen, (0..7).collect::<Vec<_>>());
    let rows: Vec<_> = numbers.scan("n/").limit(2).rows().try_collect().await.unwrap();
    assert_eq!(rows.iter().map(|row| row.value).collect::<Vec<_>>(), seen);
    assert_eq!(numbers.scan("").page().await.unwrap().rows.len(), 9);
    assert!(numbers.scan("x").rows().try_collect::<Vec<_>>().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_row_of_another_shape_is_named() {
    let state = State::ephemeral().unwrap();
    state.table::<String>("products").put("mug", &"not a product".to_owned()).await.unwrap();
    let products = state.table::<Product>("products");
    let error = products.get("mug").await.unwrap_err();
    assert_eq!(error.to_string(), "row `mug` of the table `products` does not hold what was expected");
    assert!(matches!(products.scan("").page().await, Err(Error::Decode { key, .. }) if key == "mug"));
}

#[tokio::test]
async fn counters_count() {
    let state = State::ephemeral().unwrap();
    let total = state.counter("orders", "total");
    assert_eq!(total.get().await.unwrap(), 0);
    assert_eq!(total.add(2).await.unwrap(), 2);
    assert_eq!(total.add(-5).await.unwrap(), -3);
    assert_eq!(total.get().await.unwrap(), -3);
    state.table::<String>("orders").put("total", &"many".to_owned()).await.unwrap();
    assert!(total.add(1).await.is_err());
    assert!(total.get().await.is_err());
}

#[tokio::test]
async fn a_batch_is_done_whole_or_not_at_all() {
    let state = State::ephemeral().unwrap();
    let (orders, products) = (state.table::<String>("orders"), state.table::<Product>("products"));
    let total = state.counter("statistics", "orders");
    products.put("mug", &product("Mug", 1)).await.unwrap();
    let mug = products.get("mug").await.unwrap().unwrap();
    let order = |key: &str| {
        let batch = state.batch().insert(&orders, key, &"mug".to_owned()).unwrap();
        batch.put_if(&products, &mug, &product("Mug", 0)).unwrap().add(&total, 1).commit()
    };

    let outcomes = order("1").await.unwrap();
    assert!(matches!(outcomes[2], Outcome::Incremented { value: 1, .. }));

    let error = order("1").await.unwrap_err();
    assert!(matches!(&error, Error::Conflict { index: 0, key, .. } if key == "1"), "{error:?}");
    let error = order("2").await.unwrap_err();
    assert!(matches!(&error, Error::Conflict { index: 1, key, .. } if key == "mug"), "{error:?}");
    assert!(orders.get("2").await.unwrap().is_none(), "the first write was not done either");
    assert_eq!(total.get().await.unwrap(), 1);

    let mug = products.get("mug").await.unwrap().unwrap();
    let batch = state.batch().check(&products, &mug).delete(&orders, "1").delete_if(&products, &mug);
    batch.put(&orders, "3", &"cup".to_owned()).unwrap().commit().await.unwrap();
    assert!(orders.get("1").await.unwrap().is_none());
    assert!(products.get("mug").await.unwrap().is_none());
    assert!(orders.get("3").await.unwrap().is_some());
    assert!(state.batch().commit().await.unwrap().is_empty());
}

#[tokio::test]
async fn two_ephemeral_states_know_nothing_of_each_other() {
    let (one, two) = (State::ephemeral().unwrap(), State::ephemeral().unwrap());
    one.counter("a", "a").add(1).await.unwrap();
    assert_eq!(two.counter("a", "a").get().await.unwrap(), 0);
}

#[test]
fn errors_say_what_to_do() {
    let text = format!("{:?}", Error::NoState);
    assert!(text.contains("LETHE_STATE is not set") && text.contains("`lethe up`"), "{text}");
    let text = format!("{:?}", State::connect("http://nowhere").unwrap_err());
    assert!(text.starts_with("there is no way to the state that LETHE_STATE names: "), "{text}");
    assert!(text.contains("`http://nowhere`") && text.contains("expected unix:///"), "{text}");
}
