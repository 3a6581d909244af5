//! The server or the way to it is lost: what was confirmed is there, what is not known is said so, nothing is done twice,
//! nothing hangs, and all goes on without a restart once the server is back.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use lethe_state::{
    error::Error,
    postgres::Postgres,
    sessions::{Change, NewSession, Patch},
    tables::Scan,
};
use serde_json::json;

use crate::{
    bounded, count, eventually, increment,
    proxy::{Proxy, Weather},
    put,
    server::{self, Server},
    unavailable,
};

const WRITERS: usize = 8;
const KILLS: usize = 3;

/// What one writer was told.
#[derive(Default)]
struct Told {
    /// Keys whose write was confirmed.
    confirmed: Vec<String>,
    /// Writes of which it is not known whether they were done.
    in_doubt: usize,
}

/// Killed with no time for anything, and started again, several times in the middle of writes: all that was confirmed is
/// there, what failed was said to be unavailable, and no count was done twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing_that_was_confirmed() {
    let server = Arc::new(tokio::task::spawn_blocking(Server::start).await.unwrap());
    let engine = Postgres::new(&server.url("state", "&min=2&max=8")).unwrap();
    engine.ready().await.unwrap();
    let (is_over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let writers = (0..WRITERS).map(|writer| {
        let (engines, is_over, done) = (engine.engines(), is_over.clone(), done.clone());
        tokio::spawn(async move {
            let mut told = Told::default();
            for n in 0.. {
                if is_over.load(Ordering::SeqCst) {
                    break;
                }
                let key = format!("{writer}-{n}");
                // Each writes a row of its own, and counts it in the same step.
                match engines.tables.apply(vec![put(key.clone(), "v"), increment("count")]).await {
                    Ok(_) => {
                        told.confirmed.push(key);
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(Error::Unavailable(_)) => told.in_doubt += 1,
                    Err(error) => panic!("{error:?}"),
                }
            }
            told
        })
    });
    let writers: Vec<_> = writers.collect();
    for _ in 0..KILLS {
        let before = done.load(Ordering::SeqCst);
        eventually(async || done.load(Ordering::SeqCst) >= before + 20).await;
        let server = server.clone();
        tokio::task::spawn_blocking(move || {
            server.say("kill");
            server.say("start");
        })
        .await
        .unwrap();
    }
    let before = done.load(Ordering::SeqCst);
    eventually(async || done.load(Ordering::SeqCst) >= before + 20).await;
    is_over.store(true, Ordering::SeqCst);
    let (mut confirmed, mut in_doubt) = (Vec::new(), 0);
    for writer in writers {
        let told = bounded(writer).await.unwrap();
        confirmed.extend(told.confirmed);
        in_doubt += told.in_doubt;
    }

    let (mut rows, mut after) = (BTreeMap::new(), None);
    loop {
        let scan = Scan { after, ..Scan::default() };
        let page = engine.engines().tables.scan("t", &scan).await.unwrap();
        rows.extend(page.rows.into_iter().map(|row| (row.key, row.value)));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let counted: usize = std::str::from_utf8(&rows.remove("count").unwrap()).unwrap().parse().unwrap();
    for key in &confirmed {
        assert!(rows.contains_key(key), "{key} was confirmed");
    }
    assert_eq!(counted, rows.len(), "each row is counted once");
    assert!(rows.len() <= confirmed.len() + in_doubt, "{} of {} and {in_doubt}", rows.len(), confirmed.len());
    println!("{} confirmed, {in_doubt} unavailable, {} there", confirmed.len(), rows.len());
}

/// While the server is away, calls are told so, soon without asking it; when it is back, they go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_said_to_be() {
    let server = Arc::new(tokio::task::spawn_blocking(Server::start).await.unwrap());
    let engine = Postgres::new(&server.url("state", "&min=1&max=4")).unwrap();
    let engines = engine.engines();
    let session = engines.sessions.create(NewSession::default()).await.unwrap();
    let say = async |word: &'static str| {
        let server = server.clone();
        tokio::task::spawn_blocking(move || server.say(word)).await.unwrap();
    };
    say("stop").await;
    eventually(async || {
        let why = unavailable(engines.tables.get("t", "k").await);
        why.contains("; it is tried again in ")
    })
    .await;
    unavailable(bounded(engines.sessions.load(&session.id)).await);
    unavailable(bounded(count(&engines, "n")).await);
    say("start").await;
    eventually(async || engines.tables.get("t", "k").await.is_ok()).await;
    assert_eq!(engines.sessions.load(&session.id).await.unwrap(), session);
    // An engine whose server comes later than itself.
    say("stop").await;
    let early = Postgres::new(&server.url("later", "")).unwrap();
    unavailable(bounded(early.ready()).await);
    say("start").await;
    eventually(async || early.ready().await.is_ok()).await;
    assert_eq!(count(&early.engines(), "n").await.unwrap(), 1);
}

/// A write whose answer is lost is said to be in doubt, and not done again; a read is just asked again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_never_a_second_write() {
    let proxy = Proxy::start(&server::shared().socket()).await;
    let engine = Postgres::new(&proxy.url(&server::fresh_schema(), "&min=0&max=1")).unwrap();
    let engines = engine.engines();
    assert_eq!(count(&engines, "n").await.unwrap(), 1);
    proxy.set(Weather::CutAnswers);
    let why = unavailable(bounded(count(&engines, "n")).await);
    assert!(why.contains("whether it was done is not known"), "{why}");
    proxy.set(Weather::Fair);
    eventually(async || engines.tables.get("t", "n").await.is_ok()).await;
    let value = engines.tables.get("t", "n").await.unwrap().unwrap().value;
    assert_eq!(value, "2", "the server had done it, and nobody did it again");

    let session = engines.sessions.create(NewSession::default()).await.unwrap();
    proxy.set(Weather::Storm);
    let reading = tokio::spawn({
        let (sessions, id) = (engines.sessions.clone(), session.id.clone());
        async move { sessions.load(&id).await }
    });
    eventually(async || engine.figures().lost_total >= 2).await;
    proxy.set(Weather::Fair);
    assert_eq!(bounded(reading).await.unwrap().unwrap(), session);
}

/// A network that swallows all that is said makes nobody wait for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_network_makes_nobody_wait_for_ever() {
    let proxy = Proxy::start(&server::shared().socket()).await;
    let more = "&min=0&max=2&statement_timeout=200ms&create_timeout=200ms&acquire_timeout=1s";
    let engine = Postgres::new(&proxy.url(&server::fresh_schema(), more)).unwrap();
    let engines = engine.engines();
    let session = engines.sessions.create(NewSession::default()).await.unwrap();
    proxy.set(Weather::Fog);
    let patch = Patch { changes: [("f".into(), Change { value: Some(json!(1)), expect: None })].into() };
    unavailable(bounded(engines.tables.apply(vec![put("a", "1"), put("b", "1")])).await);
    unavailable(bounded(count(&engines, "n")).await);
    unavailable(bounded(engines.sessions.patch(&session.id, patch.clone())).await);
    // What waits in the fog is cut, as a network does in the end; the way is free again.
    proxy.set(Weather::Storm);
    proxy.set(Weather::Fair);
    eventually(async || engines.sessions.load(&session.id).await.is_ok()).await;
    assert_eq!(engines.sessions.patch(&session.id, patch).await.unwrap().fields["f"].value, json!(1));
}
