//! By whom commands are done: the writer's thread, or who comes alone.

use std::{pin::pin, sync::mpsc, thread};

use futures_util::poll;
use tempfile::TempDir;

use super::super::{Embedded, command::Txn, writer::Writer};
use crate::error::Error;

/// Most commands that are tried for what depends on how quick the machine is at the moment.
const TRIES: usize = 100_000;

struct Fixture {
    // Its commits wait for no disk, so that they are brief.
    writer: Writer,
    engine: Embedded,
    _folder: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = Embedded::open(folder.path()).unwrap();
        Self { writer: engine.store.limits.writer.clone(), engine, _folder: folder }
    }

    /// Whether a command that is alone is done by the writer's thread.
    async fn is_handed_over(&self) -> bool {
        let by = self.writer.submit(|_| Ok(thread::current().id())).await.unwrap();
        self.engine.threads.iter().any(|thread| thread.thread().id() == by)
    }

    /// Waits until a command that is alone is done where it comes from, or by the thread.
    async fn until(&self, is_handed_over: bool) {
        for _ in 0..TRIES {
            if self.is_handed_over().await == is_handed_over {
                return;
            }
        }
        panic!(
            "after {TRIES} commands: {}",
            if is_handed_over { "still done alone" } else { "still handed over" }
        );
    }

    /// Has two commands, of which the second comes while the first is being done.
    async fn two(&self) {
        let (begun, begins) = tokio::sync::oneshot::channel();
        let (come, comes) = mpsc::channel();
        let work = move |_: &mut Txn<'_>| {
            begun.send(()).unwrap();
            comes.recv().unwrap();
            Ok(())
        };
        let writer = self.writer.clone();
        let first = tokio::spawn(async move { writer.submit(work).await });
        begins.await.unwrap();
        let mut second = pin!(self.writer.submit(|_| Ok(())));
        assert!(poll!(second.as_mut()).is_pending());
        come.send(()).unwrap();
        second.await.unwrap();
        first.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_alone_does_it_and_who_is_not_hands_it_over() {
    let fixture = Fixture::new();
    assert!(fixture.is_handed_over().await, "it is not known yet");
    for _ in 0..3 {
        fixture.until(false).await;
        // One of the next commands is handed over all the same, and the thread sees that another comes.
        let mut pairs = 0;
        while !fixture.is_handed_over().await || !fixture.is_handed_over().await {
            assert!(pairs < 100, "nobody has noticed");
            fixture.two().await;
            pairs += 1;
        }
    }
}

#[tokio::test]
async fn a_runtime_of_one_thread_is_not_held_up() {
    let fixture = Fixture::new();
    for _ in 0..200 {
        assert!(fixture.is_handed_over().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_after_a_panic() {
    let fixture = Fixture::new();
    fixture.until(false).await;
    let writer = fixture.writer.clone();
    let panicked =
        tokio::spawn(async move { writer.submit(|_| -> Result<(), _> { panic!("on purpose") }).await });
    assert!(!matches!(panicked.await, Ok(Ok(()))));
    for _ in 0..40 {
        let refused = fixture.writer.submit(|_| Ok(())).await;
        assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    }
}
