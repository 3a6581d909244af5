//! Rows, on an engine that has one and whose feed never says that it has changed.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;

use crate::{
    Revision,
    error::Error,
    feed::{BEAT, Feed, Notice},
    near::{Bounds, NearTables},
    tables::{Action, Condition, Outcome, Page, Row, Scan, Tables, Write},
};

/// The row `k` of the table `t`.
struct Mute {
    row: Mutex<Row>,
    reads: AtomicU64,
}

impl Mute {
    fn new() -> Arc<Self> {
        let row = Row { key: "k".into(), value: "1".into(), revision: 1, expires_at: None };
        Arc::new(Self { row: Mutex::new(row), reads: AtomicU64::new(0) })
    }

    /// What another worker does.
    fn change(&self) -> Revision {
        let mut row = self.row.lock().unwrap();
        row.revision += 1;
        row.value = row.revision.to_string().into();
        row.revision
    }

    fn reads(&self) -> u64 {
        self.reads.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Tables for Mute {
    async fn get(&self, _: &str, key: &str) -> Result<Option<Row>, Error> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let row = self.row.lock().unwrap().clone();
        Ok((row.key == key).then_some(row))
    }

    async fn scan(&self, _: &str, _: &Scan) -> Result<Page, Error> {
        unreachable!("nobody scans here")
    }

    async fn apply(&self, batch: Vec<Write>) -> Result<Vec<Outcome>, Error> {
        let revision = self.row.lock().unwrap().revision;
        let conflicts = |write: &Write| write.key == "k" && write.condition != Condition::Revision(revision);
        match batch.iter().position(conflicts) {
            Some(index) => Err(Error::Conflict { index, key: "k".into(), found: Some(revision) }),
            None => Ok(vec![Outcome::Checked; batch.len()]),
        }
    }

    async fn follow(&self, _: &str) -> Result<Feed, Error> {
        Ok(Feed::new(stream::unfold((), async |()| {
            tokio::time::sleep(BEAT).await;
            Some((Ok(Notice::Beat), ()))
        })))
    }
}

async fn near(engine: &Arc<Mute>) -> NearTables {
    let near = NearTables::new(Arc::clone(engine) as _, [("t".to_owned(), Bounds::default())]);
    near.followed().await.unwrap();
    near
}

async fn seen(near: &NearTables) -> Revision {
    near.get("t", "k").await.unwrap().unwrap().revision
}

fn write(key: &str, condition: Condition, action: Action) -> Write {
    Write { table: "t".into(), key: key.into(), condition, action }
}

/// Who has read an old copy is refused, and reads what is new at the next try, whatever the batch was to do with the row.
#[tokio::test(start_paused = true)]
async fn a_conflict_drops_the_copies_that_led_to_it() {
    let engine = Mute::new();
    let near = near(&engine).await;
    let put = || Action::Put { value: Bytes::new(), ttl: None };
    for action in [put(), Action::Delete, Action::Check] {
        let old = seen(&near).await;
        let new = engine.change();
        assert_eq!(seen(&near).await, old, "nobody has told");
        let batch =
            vec![write("other", Condition::Any, put()), write("k", Condition::Revision(old), action.clone())];
        let refused = near.apply(batch).await;
        assert!(matches!(refused, Err(Error::Conflict { index: 1, .. })), "{refused:?}");
        assert_eq!(seen(&near).await, new, "{action:?}");
    }
}

/// What every batch looks at stays in memory.
#[tokio::test(start_paused = true)]
async fn a_check_that_holds_costs_no_copy() {
    let engine = Mute::new();
    let near = near(&engine).await;
    for _ in 0..10 {
        let condition = Condition::Revision(seen(&near).await);
        near.apply(vec![write("k", condition, Action::Check)]).await.unwrap();
    }
    assert_eq!(engine.reads(), 1);
}
