//! Servers that are killed, and a network that fails: nothing acknowledged is lost, nothing is done twice, nothing hangs, and
//! all goes on without a restart when the server is back.

use std::time::Duration;

use lethe_state::{
    Engines,
    error::Error,
    redis::Redis,
    sessions::{NewSession, Patch},
    tables::{Action, Condition, Outcome, Write},
};

use crate::{
    harness::{self, Server},
    proxy::{Proxy, Weather},
};

/// No call may take so long: far more than its timeouts together.
const NEVER: Duration = Duration::from_secs(60);

fn increment(key: &str) -> Vec<Write> {
    let action = Action::Increment { by: 1, ttl: None };
    vec![Write { table: "t".into(), key: key.into(), condition: Condition::Any, action }]
}

/// Does what must end.
async fn ends<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(NEVER, call).await.expect("a call hangs")
}

/// Asks until the engine answers again.
async fn recovery(engines: &Engines) {
    let answered = async {
        while let Err(error) = engines.tables.get("t", "k").await {
            assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    ends(answered).await;
}

/// An engine behind a network.
async fn behind(options: &str) -> (Proxy, Redis) {
    let proxy = Proxy::start(harness::shared().port).await;
    let engine = Redis::open(harness::url(proxy.port, options)).unwrap();
    (proxy, engine)
}

/// With `appendfsync always`, a killed server has all that was acknowledged, and the engine finds it again by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_keeps_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_durable(folder.path(), harness::free_port());
    let port = server.port;
    let engine = server.engine("");
    let engines = engine.engines();
    let new = NewSession { user: Some("ada".into()), ..NewSession::default() };
    let session = engines.sessions.create(new).await.unwrap();

    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let tables = engines.tables.clone();
            tokio::spawn(async move {
                let mut acknowledged = 0;
                loop {
                    match ends(tables.apply(increment(&format!("n{writer}")))).await {
                        Ok(_) => acknowledged += 1,
                        Err(Error::Unavailable(_)) => return acknowledged,
                        Err(error) => panic!("{error:?}"),
                    }
                }
            })
        })
        .collect();
    while engines.tables.get("t", "n0").await.unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    server.kill();
    let mut counts = Vec::new();
    for writer in writers {
        counts.push(writer.await.unwrap());
    }
    let away = ends(engines.tables.apply(increment("k"))).await.unwrap_err();
    assert!(matches!(&away, Error::Unavailable(text) if text.contains(&port.to_string())), "{away:?}");

    let _server = Server::start_durable(folder.path(), port);
    recovery(&engines).await;
    for (writer, acknowledged) in counts.into_iter().enumerate() {
        let row = engines.tables.get("t", &format!("n{writer}")).await.unwrap();
        let kept: u64 = row.map_or(0, |row| std::str::from_utf8(&row.value).unwrap().parse().unwrap());
        // What was under way when it was killed may have been done.
        assert!((acknowledged..=acknowledged + 1).contains(&kept), "{kept} of {acknowledged}");
    }
    assert_eq!(engines.sessions.load(&session.id).await.unwrap(), session);
    assert_eq!(engines.sessions.list("ada").await.unwrap().len(), 1);
}

/// A write whose answer is lost is not done again: its caller is told that it may have been done.
#[tokio::test]
async fn a_write_is_never_done_twice() {
    let (proxy, engine) = behind("").await;
    let engines = engine.engines();
    let outcome = engines.tables.apply(increment("n")).await.unwrap()[0];
    assert!(matches!(outcome, Outcome::Incremented { value: 1, .. }), "{outcome:?}");
    for expected in 2..6 {
        proxy.set(Weather::LosesAnAnswer);
        let lost = ends(engines.tables.apply(increment("n"))).await.unwrap_err();
        assert!(matches!(&lost, Error::Unavailable(text) if text.contains("may have been done")), "{lost:?}");
        let row = ends(engines.tables.get("t", "n")).await.unwrap().unwrap();
        assert_eq!(row.value, expected.to_string());
    }
}

/// What may be done twice is: its caller does not notice a lost answer, and it counts once.
#[tokio::test]
async fn a_lost_answer_to_what_may_be_repeated_is_asked_for_again() {
    let (proxy, engine) = behind("").await;
    let sessions = engine.engines().sessions;
    // So that the scripts are known, and the first answer is that to them.
    let warm = sessions.create(NewSession::default()).await.unwrap();
    let warm = sessions.renew(&warm.id, Some("eve"), Patch::default()).await.unwrap().session;
    sessions.load(&warm.id).await.unwrap();
    sessions.destroy(&warm.id).await.unwrap();

    let lose = || proxy.set(Weather::LosesAnAnswer);
    let was_lost = || assert_eq!(proxy.weather(), Weather::Fair, "no answer was lost");
    lose();
    let new = NewSession { user: Some("ada".into()), ..NewSession::default() };
    let created = ends(sessions.create(new)).await.unwrap();
    was_lost();
    lose();
    assert_eq!(ends(sessions.load(&created.id)).await.unwrap(), created);
    was_lost();
    lose();
    let renewed = ends(sessions.renew(&created.id, Some("ada"), Patch::default())).await.unwrap().session;
    was_lost();
    assert!(matches!(sessions.load(&created.id).await, Err(Error::Gone)));
    assert_eq!(sessions.load(&renewed.id).await.unwrap(), renewed);
    assert_eq!(sessions.list("ada").await.unwrap().len(), 1);
    lose();
    ends(sessions.destroy(&renewed.id)).await.unwrap();
    was_lost();
    assert_eq!(sessions.list("ada").await.unwrap(), []);
}

/// A server that takes requests and says nothing is given up, then left alone, then found again.
#[tokio::test]
async fn a_silent_server_is_given_up() {
    let (proxy, engine) = behind("&response_timeout_ms=50&connect_timeout_ms=50").await;
    let engines = engine.engines();
    // Until a connection is there, which may take a busy machine longer than that.
    recovery(&engines).await;
    proxy.set(Weather::Still);
    let mut texts = Vec::new();
    let left_alone = async {
        loop {
            match engines.tables.apply(increment("n")).await {
                Err(Error::Unavailable(text)) => texts.push(text),
                other => panic!("{other:?}"),
            }
            if texts.last().unwrap().contains("it is tried again in") {
                return;
            }
        }
    };
    ends(left_alone).await;
    assert!(texts[0].contains("may have been done"), "{texts:?}");
    proxy.set(Weather::Fair);
    recovery(&engines).await;
}

/// A network that is slow, but fast enough, is no failure; one that is cut is, until it is mended.
#[tokio::test]
async fn slow_is_well_and_cut_is_not() {
    let (proxy, engine) = behind("").await;
    let engines = engine.engines();
    proxy.set(Weather::Slow(Duration::from_millis(20)));
    ends(engines.tables.apply(increment("n"))).await.unwrap();
    proxy.set(Weather::Cut);
    let cut = ends(engines.tables.get("t", "n")).await.unwrap_err();
    assert!(matches!(cut, Error::Unavailable(_)), "{cut:?}");
    proxy.set(Weather::Fair);
    recovery(&engines).await;
    assert_eq!(engines.tables.get("t", "n").await.unwrap().unwrap().value, "1");
}

/// Calls that wait for the same connection share it and its failure: a hundred do not wait a hundred times as long.
#[tokio::test]
async fn many_calls_fail_together() {
    let (proxy, engine) = behind("&connect_timeout_ms=200&response_timeout_ms=200").await;
    proxy.set(Weather::Still);
    let engines = engine.engines();
    let calls = (0..100).map(|_| engines.tables.get("t", "n"));
    let results = ends(futures_util::future::join_all(calls)).await;
    assert!(results.iter().all(|result| matches!(result, Err(Error::Unavailable(_)))), "{:?}", results[0]);
    proxy.set(Weather::Fair);
    recovery(&engines).await;
}
