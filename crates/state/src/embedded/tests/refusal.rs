//! Folders that the engine does not open, and leaves as they are.

use std::{fs, path::Path};

use super::{Embedded, failure, put};
use crate::{
    blobs::{Condition, Put},
    embedded::{DATABASE, failure::Failure},
};

/// A state folder with enough in it to have pages of every kind, and closed.
async fn filled() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    let engines = engine.engines();
    for n in 0..20 {
        let batch = (0..50).map(|m| put(format!("{n}-{m}"), vec![n; 100])).collect();
        engines.tables.apply(batch).await.unwrap();
    }
    engines.blobs.put("b", "k", super::body("hello"), Put::default()).await.unwrap();
    engine.close().await;
    directory
}

/// Asserts that the folder is refused, and the database is not changed by that.
fn refused(directory: &Path) -> Failure {
    let database = directory.join(DATABASE);
    let before = fs::read(&database).unwrap();
    let error = Embedded::open(directory).err().expect("the folder is refused");
    let failure = failure(&error);
    assert!(failure.to_string().contains(&*database.to_string_lossy()), "the text names the file: {failure}");
    assert!(fs::read(&database).unwrap() == before, "a refused file is left as it is");
    failure
}

#[tokio::test]
async fn a_damaged_file_is_refused() {
    let directory = filled().await;
    let database = directory.path().join(DATABASE);
    let whole = fs::read(&database).unwrap();
    let pages = whole.len() / 4096;
    assert!(pages > 20, "{pages} pages");
    let garbage = |first: usize, end: usize| {
        let mut bytes = whole.clone();
        bytes[first..end].fill(0x5a);
        bytes
    };
    let damages = [
        ("its header", garbage(0, 100)),
        ("its schema", garbage(100, 4096)),
        ("the roots of its tables", garbage(4096, 20 * 4096)),
        ("all but its first page", garbage(4096, whole.len())),
        ("its end", whole[..whole.len() / 2].to_vec()),
        ("its everything", b"this is no database".repeat(1000)),
    ];
    for (what, bytes) in damages {
        fs::write(&database, bytes).unwrap();
        let failure = refused(directory.path());
        assert!(matches!(failure, Failure::Damaged { .. }), "{what} is lost: {failure}");
        assert!(failure.to_string().contains("restore a backup"), "{failure}");
    }
    fs::write(&database, whole).unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    assert!(engine.engines().tables.get("t", "3-3").await.unwrap().is_some(), "the sound file still opens");
    engine.close().await;
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let directory = filled().await;
    let connection = rusqlite::Connection::open(directory.path().join(DATABASE)).unwrap();
    connection.pragma_update(None, "user_version", 1000).unwrap();
    connection.close().unwrap();
    let failure = refused(directory.path());
    assert!(matches!(failure, Failure::Newer { found: 1000, known: 1..1000, .. }), "{failure}");
}

#[test]
fn the_database_of_another_program_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let connection = rusqlite::Connection::open(directory.path().join(DATABASE)).unwrap();
    connection.execute_batch("CREATE TABLE recipes (name TEXT)").unwrap();
    connection.close().unwrap();
    let failure = refused(directory.path());
    assert!(matches!(failure, Failure::Foreign { .. }), "{failure}");
}

#[tokio::test]
async fn a_folder_in_use_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Embedded::open(directory.path()).unwrap();
    let failure = failure(&Embedded::open(directory.path()).err().unwrap());
    let pid = std::process::id().to_string();
    assert!(matches!(&failure, Failure::InUse { holder, .. } if *holder == pid), "{failure}");
    engine.close().await;
    Embedded::open(directory.path()).unwrap().close().await;
}

#[test]
fn a_folder_that_cannot_be_made_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let failure = failure(&Embedded::open(&file.join("state")).err().unwrap());
    assert!(failure.to_string().contains(&*file.to_string_lossy()), "{failure}");
}

#[tokio::test]
async fn a_blob_whose_file_was_harmed_is_not_passed_on_as_whole() {
    let directory = filled().await;
    let engine = Embedded::open(directory.path()).unwrap();
    let blobs = engine.engines().blobs;
    let file = super::blob_files(directory.path()).remove(0);
    fs::write(&file, "hell").unwrap();
    let cut = blobs.get("b", "k", None).await.err().expect("a cut file is an error");
    fs::remove_file(&file).unwrap();
    let lost = blobs.get("b", "k", None).await.err().expect("a lost file is an error");
    for failure in [failure(&cut), failure(&lost)] {
        assert!(failure.to_string().contains(&*file.to_string_lossy()), "{failure}");
    }
    // What is left of the blob can still be removed or written again.
    assert!(blobs.delete("b", "k", Condition::Any, None).await.unwrap());
    blobs.put("b", "k", super::body("again"), Put::default()).await.unwrap();
    engine.close().await;
}
