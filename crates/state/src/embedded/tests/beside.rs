//! Two engines on one folder, as while one `lethe` takes over from another.

use std::collections::HashSet;

use bytes::Bytes;

use super::{Embedded, blob_files, body, failure, put};
use crate::{
    blobs::Put,
    embedded::{DATABASE, LOCK, failure::Failure},
    error::Error,
    feed::{Feed, Notice},
    sessions::NewSession,
    tables::Outcome,
};

/// Writes of each engine.
const WRITES: usize = 100;

fn revision(outcomes: &[Outcome]) -> u64 {
    match outcomes {
        [Outcome::Put { revision }] => *revision,
        other => panic!("{other:?}"),
    }
}

/// Also while both write at the same time, no revision is given twice, and each sees at once what the other has written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revisions_are_of_one_row() {
    let directory = tempfile::tempdir().unwrap();
    let old = Embedded::open(directory.path()).unwrap();
    let new = Embedded::open_beside(directory.path(), old.claim().share().unwrap()).unwrap();
    let writers = [&old, &new].map(|engine| {
        let engines = engine.engines();
        tokio::spawn(async move {
            let mut revisions = Vec::new();
            for n in 0..WRITES {
                let outcomes = engines.tables.apply(vec![put("both", n.to_string())]).await.unwrap();
                revisions.push(revision(&outcomes));
            }
            revisions
        })
    });
    let mut all = HashSet::new();
    for writer in writers {
        let revisions = writer.await.unwrap();
        assert!(revisions.is_sorted(), "each sees its own grow: {revisions:?}");
        all.extend(revisions);
    }
    assert_eq!(all.len(), 2 * WRITES, "none was given twice");
    let last = revision(&old.engines().tables.apply(vec![put("k", "old")]).await.unwrap());
    assert!(last > all.into_iter().max().unwrap());
    let seen = new.engines().tables.get("t", "k").await.unwrap().unwrap();
    assert_eq!((seen.value, seen.revision), (Bytes::from("old"), last));
    let mut last = last;
    for turn in 0..10 {
        // Each has revisions left that it has taken before, and which are below what the other has given out since.
        let engine = [&new, &old][turn % 2];
        let next = revision(&engine.engines().tables.apply(vec![put("k", turn.to_string())]).await.unwrap());
        assert!(next > last, "{next} after {last}");
        last = next;
    }
    let session = new.engines().sessions.create(NewSession::default()).await.unwrap().id;
    old.engines().sessions.load(&session).await.unwrap();
    old.close().await;
    new.engines().sessions.load(&session).await.unwrap();
    new.close().await;
}

/// What comes before the next sign of life.
async fn before_a_beat(feed: &mut Feed) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    loop {
        match feed.next().await? {
            Notice::Changed(name) => names.push(name.to_string()),
            Notice::Beat => return Ok(names),
        }
    }
}

/// Neither knows what the other one has changed, so its feeds fail then. Once one is alone they live.
#[tokio::test]
async fn feeds_fail_when_the_other_one_writes() {
    let directory = tempfile::tempdir().unwrap();
    let old = Embedded::open(directory.path()).unwrap();
    let (old_tables, new_tables);
    let mut from_before = old.engines().tables.follow("t").await.unwrap();
    before_a_beat(&mut from_before).await.unwrap();
    let new = Embedded::open_beside(directory.path(), old.claim().share().unwrap()).unwrap();
    (old_tables, new_tables) = (old.engines().tables, new.engines().tables);
    new_tables.apply(vec![put("k", "first")]).await.unwrap();
    // The beat that finds it out may still be one.
    let _ = before_a_beat(&mut from_before).await;
    assert!(before_a_beat(&mut from_before).await.is_err());
    for (here, there) in [(&old_tables, &new_tables), (&new_tables, &old_tables)] {
        let mut feed = here.follow("t").await.unwrap();
        // Also in charge it may not be alone yet.
        new.claim().hold();
        here.apply(vec![put("own", "v")]).await.unwrap();
        let mut told = Vec::new();
        while told.is_empty() {
            told = before_a_beat(&mut feed).await.unwrap();
        }
        assert_eq!(told, ["own"]);
        there.apply(vec![put("k", "other")]).await.unwrap();
        let _ = before_a_beat(&mut feed).await;
        let error = before_a_beat(&mut feed).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    }
    old.close().await;
    let mut feed = new_tables.follow("t").await.unwrap();
    new_tables.apply(vec![put("alone", "v")]).await.unwrap();
    let mut told = Vec::new();
    for _ in 0..4 {
        told.extend(before_a_beat(&mut feed).await.unwrap());
    }
    assert_eq!(told, ["alone"]);
    new.close().await;
    assert!(before_a_beat(&mut feed).await.is_err(), "a closed engine has no feeds");
}

/// What the old one is just receiving looks like what a crash has left, and is not touched.
#[tokio::test]
async fn a_blob_that_is_being_written_stays() {
    let directory = tempfile::tempdir().unwrap();
    let old = Embedded::open(directory.path()).unwrap();
    let (send, coming) = tokio::sync::mpsc::channel::<Bytes>(1);
    let pieces = futures_util::stream::unfold(coming, |mut coming| async {
        let piece = coming.recv().await?;
        Some((Ok(piece), coming))
    });
    let engines = old.engines();
    let receiving =
        tokio::spawn(async move { engines.blobs.put("b", "k", Box::pin(pieces), Put::default()).await });
    // More than is gathered before the file is made; when the last piece is taken, the others were written.
    for _ in 0..8 {
        send.send(vec![7; 128 << 10].into()).await.unwrap();
    }
    send.reserve().await.unwrap();
    assert_eq!(blob_files(directory.path()).len(), 1, "it is on its way");
    let new = Embedded::open_beside(directory.path(), old.claim().share().unwrap()).unwrap();
    drop(send);
    assert_eq!(receiving.await.unwrap().unwrap().size, 1 << 20);
    assert!(new.engines().blobs.get("b", "k", None).await.unwrap().is_some());
    new.engines().blobs.put("b", "k", body("short"), Put::default()).await.unwrap();
    let info = old.engines().blobs.head("b", "k").await.unwrap().unwrap();
    assert_eq!(info.size, 5);
    new.close().await;
    old.close().await;
}

/// The folder is claimed until both have let go, and by nobody else meanwhile.
#[tokio::test]
async fn the_claim_is_kept_without_a_gap() {
    let directory = tempfile::tempdir().unwrap();
    let in_use = || matches!(Embedded::open(directory.path()), Err(error) if matches!(failure(&error), Failure::InUse { .. }));
    let old = Embedded::open(directory.path()).unwrap();
    let new = Embedded::open_beside(directory.path(), old.claim().share().unwrap()).unwrap();
    new.claim().hold();
    assert!(in_use());
    old.close().await;
    assert!(in_use(), "the new one holds it alone");
    new.close().await;
    Embedded::open(directory.path()).unwrap().close().await;
}

#[tokio::test]
async fn what_is_no_claim_on_the_folder_is_refused() {
    let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let engine = Embedded::open(directory.path()).unwrap();
    let elsewhere = Embedded::open(other.path()).unwrap();
    let refused = |lock| Embedded::open_beside(directory.path(), lock).err().expect("it is refused");
    let text = failure(&refused(elsewhere.claim().share().unwrap())).to_string();
    assert!(text.contains("another folder"), "{text}");
    let unlocked = std::fs::File::open(directory.path().join(LOCK)).unwrap();
    let text = failure(&refused(unlocked.into())).to_string();
    assert!(text.contains("does not hold"), "{text}");
    engine.close().await;
    elsewhere.close().await;
}

/// The running one could not go on with another schema.
#[tokio::test]
async fn another_schema_needs_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    let database = rusqlite::Connection::open(directory.path().join(DATABASE)).unwrap();
    database.pragma_update(None, "user_version", 0).unwrap();
    let error = Embedded::open_beside(directory.path(), engine.claim().share().unwrap()).err().unwrap();
    assert!(matches!(failure(&error), Failure::Older { found: 0, .. }), "{error:?}");
    drop(database);
    engine.close().await;
}
