//! A worker with near copies beside one without, on the same state.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use lethe::{State, metrics::Metrics, near::Near};

/// Waits until something holds; fails when it does not come to that.
async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), wait).await.expect("it to come to that");
}

#[tokio::test]
async fn rows_are_read_from_memory_until_another_worker_changes_them() {
    let there = State::ephemeral().unwrap();
    let here = there.near(Near::default().tables(["prices"]));
    here.near_followed().await.unwrap();
    let (prices, theirs) = (here.table::<u32>("prices"), there.table::<u32>("prices"));
    let price = async |key: &str| prices.get(key).await.unwrap().map(|price| *price);
    assert_eq!(price("pear").await, None);
    prices.put("pear", &1).await.unwrap();
    until(async || {
        let before = here.near_tables()["prices"].hits;
        for _ in 0..10 {
            assert_eq!(price("pear").await, Some(1));
        }
        here.near_tables()["prices"].hits == before + 10
    })
    .await;
    theirs.put("pear", &2).await.unwrap();
    until(async || price("pear").await == Some(2)).await;
    assert!(here.table::<u32>("others").get("pear").await.unwrap().is_none());

    let counts = here.near_tables();
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["prices"]);
    assert!(counts["prices"].hits >= 10 && counts["prices"].changes >= 2, "{counts:?}");
    let page = Metrics::default().with(here.clone()).page().to_string();
    for line in [
        &format!("lethe_near_reads_total{{of=\"prices\",by=\"engine\"}} {}", counts["prices"].misses),
        "lethe_near_followed{of=\"prices\"} 1",
        "lethe_near_copies{of=\"sessions\"} 0",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
    assert!(there.near_tables().is_empty() && there.near_sessions().is_none());
}

#[tokio::test]
async fn updates_lose_nothing_though_copies_are_old() {
    for keeps_copies in [true, false] {
        count_up(keeps_copies).await;
    }
}

/// Three workers count up in one row.
async fn count_up(keeps_copies: bool) {
    let state = State::ephemeral().unwrap();
    state.table("counts").put("n", &0_u32).await.unwrap();
    let near = Near::default().tables(["counts"].into_iter().filter(|_| keeps_copies)).without_sessions();
    let workers = [(); 3].map(|()| state.near(near.clone()));
    let mut tasks = Vec::new();
    for worker in &workers {
        worker.near_followed().await.unwrap();
        let counts = worker.table::<u32>("counts");
        tasks.push(tokio::spawn(async move {
            for _ in 0..50 {
                counts.update("n", |n: &mut u32| *n += 1).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    for worker in &workers {
        let counts = worker.table::<u32>("counts");
        until(async || *counts.get("n").await.unwrap().unwrap() == 150).await;
        assert!(worker.near_sessions().is_none());
    }
}

#[tokio::test]
async fn copies_are_not_put_upon_copies() {
    let first = State::ephemeral().unwrap().near(Near::default().tables(["t"]));
    let second = first.near(Near::default().tables(["t"]));
    first.near_followed().await.unwrap();
    second.near_followed().await.unwrap();
    second.table::<u32>("t").get("k").await.unwrap();
    assert_eq!((first.near_tables()["t"].misses, second.near_tables()["t"].misses), (0, 1));
}
