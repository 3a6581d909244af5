//! What workers print is kept.

use lethe_supervisor::{logs::Source, supervisor::Error};

use crate::stage::{Stage, soon, spec};

#[tokio::test]
async fn no_line_is_lost_when_a_worker_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    for kill_at in [1, 100, 1500] {
        let mut stage = Stage::new(spec(1, &["flood", folder.path().to_str().unwrap()])).await;
        let wanted = format!("line {kill_at}");
        stage.line(&wanted, |line| line.instance.as_str() == "web-1" && line.text == wanted).await;
        stage.supervisor.kill("web-1", 9).await.unwrap();
        stage
            .line("its end", |line| line.instance.as_str() == "web-1" && line.text.starts_with("ended "))
            .await;
        let mut bytes = [0; 8];
        std::os::unix::fs::FileExt::read_exact_at(
            &std::fs::File::open(folder.path().join("web-1")).unwrap(),
            &mut bytes,
            0,
        )
        .unwrap();
        let written = u64::from_le_bytes(bytes);
        soon("it stops", stage.supervisor.stop()).await;
        // Its place does not wait until all is read.
        let last = format!("line {}", written - 1);
        stage.line(&last, |line| line.instance.as_str() == "web-1" && line.text == last).await;
        let lines = stage.supervisor.logs(Some("web-1"), usize::MAX).unwrap();
        let printed: Vec<&str> = lines
            .iter()
            .filter(|line| line.source == Source::Stdout)
            .map(|line| line.text.as_str())
            .collect();
        let expected: Vec<String> = (0..printed.len()).map(|number| format!("line {number}")).collect();
        assert_eq!(printed, expected, "in order, without a gap");
        assert!(printed.len() as u64 >= written, "{written} were written, {} kept", printed.len());
    }
}

#[tokio::test]
async fn long_lines_are_cut_and_the_last_needs_no_end() {
    const LIMIT: usize = 16 * 1024;
    let mut stage = Stage::new(spec(1, &["long", "40000"])).await;
    stage.until_ready(1).await;
    stage.shoot("web-1");
    stage.line("what had no line end", |line| line.text == "without an end").await;
    let lines = stage.supervisor.logs(Some("web-1"), usize::MAX).unwrap();
    let lengths: Vec<usize> =
        lines.iter().filter(|line| line.text.starts_with('x')).map(|line| line.text.len()).collect();
    assert_eq!(lengths, [LIMIT, LIMIT, 40_000 - 2 * LIMIT]);
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn the_story_of_a_worker() {
    let mut stage = Stage::new(spec(1, &["serve"])).await;
    stage.until_ready(1).await;
    stage.shoot("web-1");
    stage.until("the next", |workers| workers.len() == 1 && workers[0].instance.as_str() == "web-2").await;
    stage.until_ready(1).await;
    stage.supervisor.stop().await;
    let beginnings = [
        "web-1: started (pid ",
        "web-1: ready after ",
        "web-1: ended after ",
        "web-2: started (pid ",
        "web-2: ready after ",
        "web-2: draining (0 requests inside)",
        "web-2: ended after ",
    ];
    let told = stage.told();
    assert_eq!(told.len(), beginnings.len(), "{told:#?}");
    for (line, beginning) in told.iter().zip(beginnings) {
        assert!(line.starts_with(beginning), "{told:#?}");
    }
    assert!(
        told[2].ends_with("killed by signal 9 (SIGKILL)") && told[3].ends_with(", replaces web-1"),
        "{told:#?}"
    );
    assert_eq!(stage.supervisor.logs(Some("web-1"), 100).unwrap().len(), 3, "those of the dead stay");
    assert!(matches!(stage.supervisor.logs(Some("web-77"), 100), Err(Error::NoWorker { .. })));
}
