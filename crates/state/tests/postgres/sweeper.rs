//! What removes expired things from the database.

use std::{sync::Arc, time::Duration};

use lethe_state::{
    clock::ManualClock,
    error::Error,
    postgres::{Postgres, config::Config, sweeper::Swept},
    sessions::{Lifetime, NewSession},
    tables::{Action, Write},
};

use crate::{connection, number, put, server};

const MINUTE: Duration = Duration::from_secs(60);
const ROWS: usize = 600;

fn worker(schema: &str, clock: &ManualClock) -> Postgres {
    let config: Config = server::shared().url(schema, "").parse().unwrap();
    Postgres::with(config, Some(Arc::new(clock.clone()))).unwrap()
}

/// Expired rows go, in several steps; those that live stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_rows_are_removed_once_by_one_of_many() {
    let (schema, clock) = (server::fresh_schema(), ManualClock::new(1_700_000_000_000));
    let workers = [(); 3].map(|()| worker(&schema, &clock));
    let tables = workers[0].engines().tables;
    let short = |n| {
        let action = Action::Put { value: "v".into(), ttl: Some(MINUTE) };
        Write { action, ..put(format!("short-{n}"), "") }
    };
    for batch in (0..ROWS).map(short).collect::<Vec<_>>().chunks(100) {
        tables.apply(batch.to_vec()).await.unwrap();
    }
    tables.apply(vec![put("long", "v")]).await.unwrap();
    assert_eq!(workers[0].sweep().await.unwrap(), Swept::default(), "nothing has expired");
    clock.advance(MINUTE);
    let [first, second, third] = &workers;
    let (first, second, third) = tokio::join!(first.sweep(), second.sweep(), third.sweep());
    let rows: u64 = [first, second, third].into_iter().map(|swept| swept.unwrap().rows).sum();
    assert_eq!(rows, ROWS as u64, "each is removed by one of them");
    let mut connection = connection().await;
    assert_eq!(number(&mut connection, format!("SELECT count(*) FROM {schema}.rows")).await, 1);
}

/// An expired session becomes a tombstone, by which its id is known to be gone, and which goes in the end.
#[tokio::test]
async fn sessions_become_tombstones_which_are_forgotten() {
    let (schema, clock) = (server::fresh_schema(), ManualClock::new(1_700_000_000_000));
    let engine = worker(&schema, &clock);
    let sessions = engine.engines().sessions;
    let lifetime = Lifetime { idle: MINUTE, absolute: 2 * MINUTE };
    let id = sessions.create(NewSession { lifetime, ..NewSession::default() }).await.unwrap().id;
    clock.advance(MINUTE);
    assert_eq!(engine.sweep().await.unwrap(), Swept { sessions: 1, ..Swept::default() });
    assert!(matches!(sessions.load(&id).await, Err(Error::Gone)));
    clock.advance(25 * 60 * MINUTE);
    assert_eq!(engine.sweep().await.unwrap(), Swept { tombstones: 1, ..Swept::default() });
    assert!(matches!(sessions.load(&id).await, Err(Error::NotFound)));
}
