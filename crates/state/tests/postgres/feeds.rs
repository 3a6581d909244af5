//! Feeds of what changes in PostgreSQL: commits out of order, changes by hand, a server that is killed or emptied, a network
//! that fails. A feed that fails is followed again without a restart.

use std::{sync::Arc, time::Duration};

use lethe_state::{
    error::Error,
    feed::{Feed, Notice},
    postgres::Postgres,
    sessions::NewSession,
    tables::Tables,
};

use crate::{
    bounded, connection, engine, eventually, execute, number,
    proxy::{Proxy, Weather},
    put,
    server::{self, Server},
};

/// Reads up to the first change.
async fn change(feed: &mut Feed) -> Result<String, Error> {
    bounded(async {
        loop {
            if let Notice::Changed(name) = feed.next().await? {
                return Ok(name.to_string());
            }
        }
    })
    .await
}

/// Reads until the feed fails; why.
async fn failure(feed: &mut Feed) -> String {
    bounded(async {
        loop {
            match feed.next().await {
                Ok(_) => {}
                Err(Error::Unavailable(why)) => return why,
                Err(error) => panic!("{error:?}"),
            }
        }
    })
    .await
}

/// Follows the table until that works, and what is written then is told.
async fn is_followed_again(tables: &dyn Tables) {
    bounded(async {
        loop {
            let told = async {
                let mut feed = tables.follow("t").await?;
                tables.apply(vec![put("again", "v")]).await?;
                change(&mut feed).await
            };
            match told.await {
                Ok(name) => return assert_eq!(name, "again"),
                Err(Error::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(error) => panic!("{error:?}"),
            }
        }
    })
    .await;
}

/// A transaction that began first, wrote first and is committed last is told when it is committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_are_told_in_whatever_order_they_come() {
    let (engine, schema) = engine("").await;
    let (tables, mut by_hand) = (engine.engines().tables, connection().await);
    let mut feed = tables.follow("t").await.unwrap();
    let values = "VALUES ('t', 'late', 'v', 1)";
    execute(
        &mut by_hand,
        format!("BEGIN; INSERT INTO {schema}.rows (table_name, key, value, revision) {values}"),
    )
    .await;
    for n in 0..10 {
        let early = format!("early {n}");
        tables.apply(vec![put(early.clone(), "v")]).await.unwrap();
        assert_eq!(change(&mut feed).await.unwrap(), early);
    }
    execute(&mut by_hand, "COMMIT").await;
    assert_eq!(change(&mut feed).await.unwrap(), "late");
    // So is what is changed without the engine, and what is emptied has no names.
    execute(&mut by_hand, format!("UPDATE {schema}.rows SET value = 'w' WHERE key = 'late'")).await;
    assert_eq!(change(&mut feed).await.unwrap(), "late");
    execute(&mut by_hand, format!("DELETE FROM {schema}.rows WHERE key = 'late'")).await;
    assert_eq!(change(&mut feed).await.unwrap(), "late");
    execute(&mut by_hand, format!("TRUNCATE {schema}.rows")).await;
    let why = failure(&mut feed).await;
    assert!(why.contains("a table was emptied"), "{why}");
    is_followed_again(&*tables).await;
}

/// What was not committed is not told, nor is what only the engine itself sees.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_back_is_not_told() {
    let (engine, schema) = engine("").await;
    let (engines, mut by_hand) = (engine.engines(), connection().await);
    let mut feed = engines.tables.follow("t").await.unwrap();
    let refused = lethe_state::tables::Write {
        condition: lethe_state::tables::Condition::Revision(7),
        ..put("refused", "v")
    };
    // Two writes are a transaction, which puts placeholders.
    let batch = vec![put("with it", "v"), refused];
    assert!(matches!(engines.tables.apply(batch).await, Err(Error::Conflict { .. })));
    engines.tables.apply(vec![put("done", "v")]).await.unwrap();
    assert_eq!(change(&mut feed).await.unwrap(), "done");
    // That a session is used is no change.
    let mut feed = engines.sessions.follow().await.unwrap();
    let [used, ended] = [
        engines.sessions.create(NewSession::default()).await.unwrap().id,
        engines.sessions.create(NewSession::default()).await.unwrap().id,
    ];
    execute(
        &mut by_hand,
        format!("UPDATE {schema}.sessions SET idle_expires_at = idle_expires_at - 80000000"),
    )
    .await;
    engines.sessions.load(&used).await.unwrap();
    engines.sessions.destroy(&ended).await.unwrap();
    assert_eq!(change(&mut feed).await.unwrap(), ended.public_name());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_fails_its_feeds() {
    let server = Arc::new(tokio::task::spawn_blocking(Server::start).await.unwrap());
    let engine = Postgres::new(&server.url("state", "")).unwrap();
    let engines = engine.engines();
    is_followed_again(&*engines.tables).await;
    let mut rows = engines.tables.follow("t").await.unwrap();
    let mut sessions = engines.sessions.follow().await.unwrap();
    let say = async |word: &'static str| {
        let server = server.clone();
        tokio::task::spawn_blocking(move || server.say(word)).await.unwrap();
    };
    say("kill").await;
    failure(&mut rows).await;
    failure(&mut sessions).await;
    assert!(matches!(engines.tables.follow("t").await, Err(Error::Unavailable(_))));
    say("start").await;
    is_followed_again(&*engines.tables).await;
}

/// Also when nothing says that the network is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_fails_fails_feeds() {
    let proxy = Proxy::start(&server::shared().socket()).await;
    let engine = Postgres::new(&proxy.url(&server::fresh_schema(), "")).unwrap();
    let tables = engine.engines().tables;
    for weather in [Weather::Storm, Weather::Fog] {
        is_followed_again(&*tables).await;
        let mut feed = tables.follow("t").await.unwrap();
        proxy.set(weather);
        failure(&mut feed).await;
        // What was lost in a fog is never answered.
        proxy.set(Weather::Storm);
        proxy.set(Weather::Fair);
    }
    is_followed_again(&*tables).await;
}

/// A crash empties what was not told yet. Behind a pooler the connection may outlive it: the feed fails all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_are_lost_are_noticed() {
    let (engine, schema) = engine("").await;
    let tables = engine.engines().tables;
    let mut feed = tables.follow("t").await.unwrap();
    execute(&mut connection().await, format!("TRUNCATE {schema}.changes, {schema}.feed_epoch")).await;
    let why = failure(&mut feed).await;
    assert!(why.contains("PostgreSQL has crashed"), "{why}");
    is_followed_again(&*tables).await;
    let mut feed = tables.follow("t").await.unwrap();
    engine.close(Duration::from_secs(10)).await;
    assert!(failure(&mut feed).await.contains("closing"));
    assert!(matches!(tables.follow("t").await, Err(Error::Unavailable(_))));
}

/// All feeds share a connection, beside the pool's, which goes with the last of them; and what was told is forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feeds_leave_nothing_behind() {
    let (engine, schema) = engine("&max=1&min=0").await;
    let (tables, mut observer) = (engine.engines().tables, connection().await);
    let mut feeds = Vec::new();
    for n in 0..8 {
        feeds.push(tables.follow(&format!("t{n}")).await.unwrap());
    }
    let readers = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%{schema}.changes%' AND query NOT LIKE '%pg_stat%'"
    );
    eventually(async || number(&mut observer, readers.clone()).await == 1).await;
    tables.apply(vec![put("k", "v")]).await.unwrap();
    drop(feeds);
    eventually(async || number(&mut observer, readers.clone()).await == 0).await;
    let kept = format!("SELECT count(*) FROM {schema}.changes");
    assert_eq!(number(&mut observer, kept.clone()).await, 1);
    eventually(async || {
        engine.sweep().await.unwrap();
        number(&mut observer, kept.clone()).await == 0
    })
    .await;
}
