//! A disk that is full, and files that may not grow: a clear error, nothing lost, and work goes on after it.

use std::{path::Path, process::Command};

use super::{Embedded, Failure, blob_files, body, doubts, failure, put};
use crate::{blobs::Put, error::Error};

/// Where the test that runs with limited files finds its folder.
const LIMITED_FOLDER: &str = "LETHE_TEST_LIMITED_FOLDER";
/// More than fits into what the tests below leave free.
const LARGE: usize = 16 << 20;

/// Writes rows until there is no room, and checks that the acknowledged ones, and only whole ones, are there.
async fn fill(engine: &Embedded, state: &Path) -> (usize, Failure) {
    let engines = engine.engines();
    let mut rows = 0;
    let error = loop {
        assert!(rows < 1000, "the disk never gets full");
        match engines.tables.apply(vec![put(rows.to_string(), vec![rows as u8; 100_000])]).await {
            Ok(_) => rows += 1,
            Err(error) => break error,
        }
    };
    check(engine, rows).await;
    let large = engines.blobs.put("b", "large", body(vec![1; LARGE]), Put::default()).await;
    failure(&large.expect_err("the blob has no room"));
    assert_eq!(engines.blobs.head("b", "large").await.unwrap(), None);
    assert_eq!((blob_files(state).len(), doubts(state).len()), (0, 0), "the refused blob left no file");
    (rows, failure(&error))
}

async fn check(engine: &Embedded, rows: usize) {
    let tables = engine.engines().tables;
    for row in 0..rows {
        let value = tables.get("t", &row.to_string()).await.unwrap().expect("an acknowledged row").value;
        assert!(value.len() == 100_000 && value.iter().all(|byte| *byte == row as u8));
    }
    assert_eq!(tables.get("t", &rows.to_string()).await.unwrap(), None, "the refused row");
}

/// A small disk in memory, as long as the value lives.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` when this process may not mount one.
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=6m", "lethe-test"])
            .arg(directory.path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then_some(Self(directory))
    }

    fn grow(&self) {
        let grown =
            Command::new("mount").args(["-o", "remount,size=64m"]).arg(self.0.path()).status().unwrap();
        assert!(grown.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, since the engine's threads may hold files for a moment after a failed test.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
async fn a_full_disk_is_an_error_and_nothing_is_lost() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: mounting a small disk needs root");
        return;
    };
    let state = disk.0.path().join("state");
    let engine = Embedded::open(&state).unwrap();
    let (rows, failure) = fill(&engine, &state).await;
    assert!(rows > 5, "{rows} rows fit");
    assert!(matches!(failure, Failure::Full { .. }), "{failure}");
    engine.close().await;
    let engine = Embedded::open(&state).expect("a full disk can still be opened");
    check(&engine, rows).await;
    disk.grow();
    engine.engines().tables.apply(vec![put("more", "room")]).await.unwrap();
    engine.engines().blobs.put("b", "large", body(vec![1; LARGE]), Put::default()).await.unwrap();
    engine.close().await;
}

#[tokio::test]
async fn files_that_may_not_grow_are_an_error_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    // The signal that would end a process at its limit is ignored, so that writing fails with EFBIG instead.
    let script = r#"trap "" XFSZ; ulimit -f 4096; exec "$0" "$@""#;
    let child = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "embedded::tests::disk::with_limited_files", "--ignored", "--nocapture"])
        .env(LIMITED_FOLDER, directory.path())
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{output}\n{}", String::from_utf8_lossy(&child.stderr));
    let rows =
        output.lines().find_map(|line| line.rsplit("rows=").next()?.parse().ok()).expect("a count of rows");
    let engine = Embedded::open(directory.path()).unwrap();
    check(&engine, rows).await;
    engine.engines().tables.apply(vec![put("more", "room")]).await.unwrap();
    engine.close().await;
}

#[tokio::test]
#[ignore = "is run by files_that_may_not_grow_are_an_error_and_nothing_is_lost"]
#[allow(clippy::print_stdout, reason = "the test that runs it reads it")]
async fn with_limited_files() {
    let state = std::env::var_os(LIMITED_FOLDER).expect("the folder is in the environment");
    let state = Path::new(&state);
    let engine = Embedded::open(state).unwrap();
    let (rows, _) = fill(&engine, state).await;
    assert!(rows > 5, "{rows} rows fit");
    let error = engine.engines().tables.apply(vec![put("large", vec![0; 1 << 20]); 8]).await.unwrap_err();
    assert!(matches!(error, Error::Engine(_)), "{error:?}");
    println!("\nrows={rows}");
}
