//! A master and its replica, watched by a sentinel: when the master is killed, the engine goes on with the replica.

use std::{
    fs,
    time::{Duration, Instant},
};

use lethe_state::{
    contract::sessions,
    error::Error,
    redis::Redis,
    sessions::NewSession,
    tables::{Action, Condition, Write},
};
use tempfile::TempDir;

use crate::harness::{self, Server};

/// Far longer than a failover takes.
const NEVER: Duration = Duration::from_secs(120);

fn put(value: &str) -> Vec<Write> {
    let action = Action::Put { value: value.to_owned().into(), ttl: None };
    vec![Write { table: "t".into(), key: "k".into(), condition: Condition::Any, action }]
}

/// A sentinel that watches a master. Its folder is to be kept for as long.
fn watching(master: &Server) -> (Server, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("sentinel.conf");
    let text = format!(
        "sentinel monitor main 127.0.0.1 {} 1\n\
         sentinel down-after-milliseconds main 60000\n\
         sentinel failover-timeout main 5000\n",
        master.port
    );
    fs::write(&config, text).unwrap();
    (Server::start_ready(&[config.to_str().unwrap(), "--sentinel"], "+monitor"), folder)
}

/// The way through a sentinel changes nothing of what a revocation promises.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_and_renewals_at_once() {
    let (sentinel, folder) = watching(harness::shared());
    let url = format!(
        "redis+sentinel://127.0.0.1:{}/?service=main&namespace={}",
        sentinel.port,
        harness::namespace()
    );
    let fixture = harness::fixture(url.parse().unwrap()).keeping((sentinel, folder));
    sessions::a_revocation_and_renewals_at_once(fixture).await;
}

/// How far a server is in the stream of writes.
fn offset(server: &Server, field: &str) -> u64 {
    let info = server.command(&["INFO", "replication"]);
    let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn a_new_master_is_found() {
    let master = Server::start();
    let port = master.port.to_string();
    let replica = Server::start_with(&["--save", "", "--replicaof", "127.0.0.1", &port]);
    while !replica.command(&["INFO", "replication"]).contains("master_link_status:up") {}
    let (sentinel, _folder) = watching(&master);
    while !sentinel.command(&["SENTINEL", "REPLICAS", "main"]).contains(&replica.port.to_string()) {}

    let gone = harness::free_port();
    let url = format!("redis+sentinel://127.0.0.1:{gone},127.0.0.1:{}/?service=main", sentinel.port);
    let engine = Redis::open(url.parse().unwrap()).unwrap();
    let engines = engine.engines();
    engines.tables.apply(put("before")).await.unwrap();
    let new = NewSession { user: Some("ada".into()), ..NewSession::default() };
    let session = engines.sessions.create(new).await.unwrap();
    // What has not reached the replica would be lost with the master. WAIT would look at what its own connection wrote.
    let written = offset(&master, "master_repl_offset");
    let waited = Instant::now();
    while offset(&replica, "slave_repl_offset") < written {
        assert!(waited.elapsed() < NEVER, "the replica does not follow");
    }

    // Not before: a master that a busy machine lets wait is no dead one.
    sentinel.command(&["SENTINEL", "SET", "main", "down-after-milliseconds", "500"]);
    master.kill();
    let written = async {
        loop {
            match engines.tables.apply(put("after")).await {
                Ok(_) => return,
                Err(Error::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("{error:?}"),
            }
        }
    };
    tokio::time::timeout(NEVER, written).await.expect("the new master is not found");
    assert_eq!(engines.tables.get("t", "k").await.unwrap().unwrap().value, "after");
    assert_eq!(engines.sessions.load(&session.id).await.unwrap(), session);
    assert_eq!(engines.sessions.list("ada").await.unwrap().len(), 1);
    assert!(replica.command(&["ROLE"]).contains("master"));
}

#[tokio::test]
async fn a_service_that_no_sentinel_knows_is_named() {
    let server = harness::shared();
    let url = format!("redis+sentinel://127.0.0.1:{}/?service=unknown", harness::free_port());
    let engine = Redis::open(url.parse().unwrap()).unwrap();
    let error = engine.engines().tables.get("t", "k").await.unwrap_err();
    assert!(
        matches!(&error, Error::Unavailable(text) if text.contains("`unknown`")),
        "{error:?} of {}",
        server.port
    );
}
