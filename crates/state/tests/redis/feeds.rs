//! Feeds of what changes in Redis, when servers are killed, emptied or demoted, when the network fails, and on a cluster that
//! grows: a feed fails then, and following again works without a restart.

use std::time::Duration;

use lethe_state::{
    error::Error,
    feed::{Feed, Notice},
    redis::Redis,
    sessions::{NewSession, Sessions},
    tables::{Action, Condition, Tables, Write},
};

use crate::{
    cluster::Cluster,
    harness::{self, Server},
    proxy::{Proxy, Weather},
};

/// No wait may take so long.
const NEVER: Duration = Duration::from_secs(60);

async fn ends<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(NEVER, call).await.expect("it hangs")
}

fn put(table: &str, key: &str) -> Vec<Write> {
    let action = Action::Put { value: "v".into(), ttl: None };
    vec![Write { table: table.into(), key: key.into(), condition: Condition::Any, action }]
}

/// Reads up to the first change.
async fn change(feed: &mut Feed) -> Result<String, Error> {
    ends(async {
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
    ends(async {
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

/// Follows a table until that works, and what is written then is told.
async fn is_followed_again(tables: &dyn Tables) {
    ends(async {
        loop {
            let told = async {
                let mut feed = tables.follow("t").await?;
                tables.apply(put("t", "again")).await?;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_fails_its_feeds() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_durable(folder.path(), harness::free_port());
    let port = server.port;
    let engine = server.engine("");
    let engines = engine.engines();
    let mut rows = engines.tables.follow("t").await.unwrap();
    let mut sessions = engines.sessions.follow().await.unwrap();
    server.kill();
    assert!(failure(&mut rows).await.contains(&port.to_string()));
    failure(&mut sessions).await;
    assert!(matches!(engines.tables.follow("t").await, Err(Error::Unavailable(_))));
    let _server = Server::start_durable(folder.path(), port);
    is_followed_again(&*engines.tables).await;
}

/// Also when nothing says that the network is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_fails_fails_feeds() {
    let proxy = Proxy::start(harness::shared().port).await;
    let engine = Redis::open(harness::url(proxy.port, "")).unwrap();
    let tables = engine.engines().tables;
    for weather in [Weather::Cut, Weather::Still] {
        proxy.set(Weather::Fair);
        is_followed_again(&*tables).await;
        let mut feed = tables.follow("t").await.unwrap();
        proxy.set(weather);
        failure(&mut feed).await;
    }
    proxy.set(Weather::Fair);
    is_followed_again(&*tables).await;
}

/// Whoever has changed it, by whatever means.
#[tokio::test]
async fn what_others_do_is_told() {
    let server = Server::start();
    let (engine, other) = (
        Redis::open(format!("redis://127.0.0.1:{}/?namespace=s", server.port).parse().unwrap()).unwrap(),
        Redis::open(format!("redis://127.0.0.1:{}/?namespace=s", server.port).parse().unwrap()).unwrap(),
    );
    let (engines, others) = (engine.engines(), other.engines());
    let mut feed = engines.sessions.follow().await.unwrap();
    let new = NewSession { user: Some("ada".into()), ..NewSession::default() };
    let id = others.sessions.create(new).await.unwrap().id;
    others.sessions.revoke("ada", None).await.unwrap();
    assert_eq!(change(&mut feed).await.unwrap(), id.public_name());
    // Another namespace is none of ours, however alike it looks.
    let alien = Redis::open(format!("redis://127.0.0.1:{}/?namespace=sa", server.port).parse().unwrap());
    let alien = alien.unwrap().engines();
    let mut feed = engines.tables.follow("t").await.unwrap();
    alien.tables.apply(put("t", "alien")).await.unwrap();
    others.tables.apply(put("t", "own")).await.unwrap();
    assert_eq!(change(&mut feed).await.unwrap(), "own");
    // The keys by which rows are told of do not stay.
    assert_eq!(server.command(&["KEYS", "*touched*"]).trim(), "");
    // What is removed all at once has no names.
    server.command(&["FLUSHALL"]);
    let why = failure(&mut feed).await;
    assert!(why.contains("all keys were removed"), "{why}");
}

/// A replica does not tell all, so it is not followed, nor is what becomes one.
#[tokio::test]
async fn only_a_master_is_followed() {
    let (master, server) = (Server::start(), Server::start());
    let engine = server.engine("");
    let tables = engine.engines().tables;
    let mut feed = tables.follow("t").await.unwrap();
    server.command(&["REPLICAOF", "127.0.0.1", &master.port.to_string()]);
    let why = failure(&mut feed).await;
    assert!(why.contains("the feed of changes is lost"), "{why}");
    let error = tables.follow("t").await.unwrap_err();
    let Error::Engine(refusal) = &error else { panic!("{error:?}") };
    assert!(refusal.to_string().contains("only a master tells"), "{refusal}");
    server.command(&["REPLICAOF", "NO", "ONE"]);
    is_followed_again(&*tables).await;
}

/// However many follow, there is one connection for it, and none when nobody does. The rights that the documentation names
/// are enough.
#[tokio::test]
async fn all_feeds_share_a_connection() {
    let server = Server::start();
    let rights = "+@read +@write +@scripting +@connection +time +cluster|slots +cluster|shards +cluster|info";
    let mut user = vec!["ACL", "SETUSER", "app", "on", ">pw", "~shop:*", "-@all"];
    user.extend(rights.split(' '));
    assert_eq!(server.command(&user).trim(), "OK");
    let url = format!("redis://app:pw@127.0.0.1:{}/?namespace=shop", server.port);
    let engine = Redis::open(url.parse().unwrap()).unwrap();
    let engines = engine.engines();
    let tracking =
        || server.command(&["CLIENT", "LIST"]).lines().filter(|line| line.contains("flags=tB")).count();
    let follow = (0..8).map(|n| {
        let tables = engines.tables.clone();
        async move { tables.follow(&format!("t{n}")).await.unwrap() }
    });
    let mut feeds = futures_util::future::join_all(follow).await;
    let sessions: &dyn Sessions = &*engines.sessions;
    feeds.push(sessions.follow().await.unwrap());
    assert_eq!(tracking(), 1);
    for (n, feed) in feeds.iter_mut().take(8).enumerate() {
        engines.tables.apply(put(&format!("t{n}"), "k")).await.unwrap();
        assert_eq!(change(feed).await.unwrap(), "k");
    }
    drop(feeds);
    ends(async {
        while tracking() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    engines.tables.follow("t").await.unwrap();
}

/// A master that joins may get a slot any time; what it tells counts from the next following on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_changes_fails_its_feeds() {
    let mut cluster = tokio::task::spawn_blocking(Cluster::begin).await.unwrap();
    let engine = Redis::open(cluster.url()).unwrap();
    let tables = engine.engines().tables;
    is_followed_again(&*tables).await;
    let mut feed = tables.follow("t").await.unwrap();
    let mut cluster = tokio::task::spawn_blocking(move || {
        cluster.grow();
        cluster
    })
    .await
    .unwrap();
    let why = failure(&mut feed).await;
    assert!(why.contains("the redis cluster has changed"), "{why}");
    // The new one is followed before it has anything to tell.
    is_followed_again(&*tables).await;
    let mut feed = ends(async {
        loop {
            match tables.follow("t").await {
                Ok(feed) => return feed,
                Err(Error::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(error) => panic!("{error:?}"),
            }
        }
    })
    .await;
    let cluster = tokio::task::spawn_blocking(move || {
        cluster.move_tables_to_the_last();
        cluster
    })
    .await
    .unwrap();
    ends(async { while tables.apply(put("t", "moved")).await.is_err() {} }).await;
    // It was told, or the feed has failed for the move, and the next one tells.
    match change(&mut feed).await {
        Ok(name) => assert_eq!(name, "moved"),
        Err(Error::Unavailable(_)) => {}
        Err(error) => panic!("{error:?}"),
    }
    is_followed_again(&*tables).await;
    drop(cluster);
}
