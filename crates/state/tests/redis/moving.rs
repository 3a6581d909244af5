//! State moves from the embedded engine to Redis, alone and as a cluster, and back, also when servers change meanwhile.

use std::{collections::BTreeSet, process::Command, sync::Arc};

use lethe_state::{
    Engines,
    clock::ManualClock,
    contract::Fixture,
    embedded::Embedded,
    error::Error,
    portable::{Part, Portable, Record, Whole},
    redis::Redis,
    sessions::NewSession,
    tables::{Action, Condition, Write},
};

use crate::{
    cluster::{self, Cluster},
    harness::{self, Server},
};

/// More than fit into one page.
const SESSIONS: usize = 700;
/// More keys than are looked at for one page.
const KEYS: usize = 150_000;

async fn redis() -> Fixture {
    harness::fixture(harness::shared_url())
}

async fn on_a_cluster() -> Fixture {
    harness::fixture(cluster::shared().url())
}

async fn embedded() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(1_700_000_000_000);
    let engine = Embedded::open_with(&directory.path().join("state"), Arc::new(clock.clone())).unwrap();
    Fixture::new(engine.engines()).with_clock(move |by| clock.advance(by)).keeping((engine, directory))
}

lethe_state::contract_moving!(
    into_redis,
    embedded,
    redis,
    [
        rows_move,
        sessions_move,
        answers_move,
        tokens_go_on,
        what_is_newer_stays,
        what_comes_is_told,
        pages_are_bounded,
    ]
);
lethe_state::contract_moving!(
    out_of_redis,
    redis,
    embedded,
    [
        rows_move,
        sessions_move,
        answers_move,
        tokens_go_on,
        what_is_newer_stays,
        what_comes_is_told,
        pages_are_bounded,
    ]
);

lethe_state::contract_moving!(
    into_a_cluster,
    embedded,
    on_a_cluster,
    [rows_move, sessions_move, answers_move, tokens_go_on, what_is_newer_stays, what_comes_is_told]
);
lethe_state::contract_moving!(
    out_of_a_cluster,
    on_a_cluster,
    embedded,
    [rows_move, sessions_move, answers_move, tokens_go_on, pages_are_bounded]
);

/// Makes sessions; the hashes of their ids.
async fn fill(engines: &Engines) -> BTreeSet<String> {
    let mut hashes = BTreeSet::new();
    for _ in 0..SESSIONS {
        hashes.insert(engines.sessions.create(NewSession::default()).await.unwrap().id.public_name());
    }
    hashes
}

/// Notes the sessions of one page, and returns where the next begins.
async fn read(
    engines: &Engines,
    after: Option<&str>,
    found: &mut BTreeSet<String>,
) -> Result<Option<String>, Error> {
    let page = Whole(engines.clone()).dump(Part::Sessions, after).await?;
    found.extend(page.records.into_iter().map(|record| match record {
        Record::Session(session) => session.hash.to_text(),
        other => panic!("{other:?}"),
    }));
    Ok(page.next)
}

async fn read_on(engines: &Engines, mut after: Option<String>, found: &mut BTreeSet<String>) {
    while after.is_some() {
        after = read(engines, after.as_deref(), found).await.unwrap();
    }
}

/// To find the next table is a walk through all keys, sessions too. A page has a piece of one such walk, and rows of one table, so
/// that it comes in time however many tables and keys there are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_has_one_table_and_a_piece_of_a_walk() {
    const TABLES: usize = 3;
    let server = Server::start();
    let engines = server.engine("").engines();
    let put = |n: usize| Write {
        table: format!("t{n}"),
        key: "k/1".into(),
        condition: Condition::Any,
        action: Action::Put { value: "v".into(), ttl: None },
    };
    engines.tables.apply((0..TABLES).map(put).collect()).await.unwrap();
    let fill = "for n = 1, tonumber(ARGV[1]) do redis.call('SET', 'other:' .. n, '') end";
    let filled = Command::new("redis-cli")
        .args(["-p", &server.port.to_string(), "EVAL", fill, "0", &KEYS.to_string()])
        .output()
        .unwrap();
    assert!(filled.status.success() && !filled.stdout.starts_with(b"ERR"), "{filled:?}");
    let (mut tables, mut pages, mut next) = (Vec::new(), 0, None::<String>);
    loop {
        let page = Whole(engines.clone()).dump(Part::Rows, next.as_deref()).await.unwrap();
        assert!(page.records.len() <= 1, "{page:?}");
        tables.extend(page.records.into_iter().map(|record| match record {
            Record::Row(row) => row.table,
            other => panic!("{other:?}"),
        }));
        (pages, next) = (pages + 1, page.next);
        if next.is_none() {
            break;
        }
    }
    assert_eq!(tables, ["t0", "t1", "t2"]);
    assert!(pages >= 2 * (TABLES + 1), "a walk takes more than one page: {pages}");
}

/// A cursor of before means nothing to a server that was started anew: the walk begins anew too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_started_anew_leaves_nothing_out() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_durable(folder.path(), harness::free_port());
    let (port, engines) = (server.port, server.engine("").engines());
    let hashes = fill(&engines).await;
    let mut found = BTreeSet::new();
    let next = read(&engines, None, &mut found).await.unwrap().expect("there are more pages");
    assert!(found.len() < SESSIONS, "some are left");
    server.kill();
    let _server = Server::start_durable(folder.path(), port);
    let mut found_since = BTreeSet::new();
    read_on(&engines, Some(next), &mut found_since).await;
    assert_eq!(found_since, hashes, "all of them come again");
}

/// While a slot is on its way, a walk could miss its keys, and says so; when it has arrived, the walk begins anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_leave_nothing_out() {
    let cluster = Cluster::begin();
    let engines = Redis::open(cluster.url()).unwrap().engines();
    let hashes = fill(&engines).await;
    let put = Action::Put { value: "v".into(), ttl: None };
    let write = Write { table: "t".into(), key: "k".into(), condition: Condition::Any, action: put };
    engines.tables.apply(vec![write]).await.unwrap();
    let mut found = BTreeSet::new();
    let next = read(&engines, None, &mut found).await.unwrap().expect("there are more pages");
    assert!(found.len() < SESSIONS, "some are left");
    let settle = cluster.begin_to_move_tables();
    let refused = read(&engines, Some(&next), &mut BTreeSet::new()).await;
    assert!(
        matches!(&refused, Err(Error::Unavailable(text)) if text.contains("moving slots")),
        "{refused:?}"
    );
    settle();
    let mut found_since = BTreeSet::new();
    read_on(&engines, Some(next), &mut found_since).await;
    assert_eq!(found_since, hashes, "all of them come again");
    let rows = Whole(engines.clone()).dump(Part::Rows, None).await.unwrap();
    assert_eq!(rows.records.len(), 1);
}
