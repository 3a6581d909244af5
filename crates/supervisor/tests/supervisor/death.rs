//! Workers that die are replaced.

use std::{fs, os::unix::fs::PermissionsExt, sync::Arc};

use crate::stage::{Stage, names, soon, spec};
use lethe_model::{gate::Fate, roster::WorkerState};

#[tokio::test]
async fn replaced_at_once() {
    let mut stage = Stage::new(spec(3, &["serve"])).await;
    let before = stage.until_ready(3).await;
    let (victim, generation) = (before[0].clone(), stage.roster.borrow().generation);
    stage.shoot(victim.instance.as_str());
    stage
        .until("the dead worker is out", |workers| workers.iter().all(|w| w.instance != victim.instance))
        .await;
    assert!(victim.gate.is_closed());
    assert_eq!(soon("how it died is told", victim.gate.fate()).await, Fate::Killed);
    assert!(stage.roster.borrow().generation > generation);
    let after = stage.until_ready(3).await;
    assert_eq!(names(&after)[..2], names(&before)[1..], "the others were left alone");
    assert_ne!(after[2].address, victim.address);
    let told = stage.told();
    let expected = format!("{}: started", after[2].instance);
    assert!(
        told.iter().any(|line| line.starts_with(&expected) && line.contains("replaces web-")),
        "{told:#?}"
    );
    assert!(told.iter().any(|line| line.contains("killed by signal 9 (SIGKILL)")), "{told:#?}");
    let workers = stage.supervisor.workers();
    assert_eq!(workers.iter().map(|worker| worker.restarts).sum::<u64>(), 1);
    assert!(workers.iter().all(|worker| worker.trouble.is_none() && worker.memory_bytes > 0));
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn killed_again_and_again_never_backs_off() {
    let mut stage = Stage::new(spec(1, &["serve"])).await;
    // Killed as soon as each is ready: harder than any pause between the kills.
    for round in 0..20 {
        let workers = stage.until_ready(1).await;
        if round % 2 == 0 {
            workers[0].gate.enter().unwrap().answered();
        }
        stage.shoot(workers[0].instance.as_str());
        stage
            .until("it is gone", |now| now.iter().all(|worker| worker.instance != workers[0].instance))
            .await;
    }
    let workers = stage.until_ready(1).await;
    assert_eq!(workers[0].instance.as_str(), "web-21");
    let told = stage.told();
    assert!(told.iter().all(|line| !line.contains("could not start")), "{told:#?}");
    let status = stage.supervisor.workers();
    assert_eq!((status[0].restarts, &status[0].trouble), (20, &None));
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn one_that_cannot_start_backs_off_and_says_why() {
    let mut stage = Stage::new(spec(1, &["exit", "3"])).await;
    stage
        .line("the fourth failure", |line| line.text.contains("failure 4 in a row, next try in 80 ms"))
        .await;
    let told = stage.told().join("\n");
    for text in
        ["failure 1 in a row, next try in 10 ms", "failure 2 in a row, next try in 20 ms", "exit status 3"]
    {
        assert!(told.contains(text), "{text}: {told}");
    }
    let status = stage.supervisor.workers().remove(0);
    let trouble = status.trouble.unwrap();
    assert!(
        trouble.starts_with("exit status 3 before it was ready; its last lines:\nreason 3\n"),
        "{trouble}"
    );
    assert!(trouble.ends_with("\nreason 12"), "{trouble}");
    stage.supervisor.stop().await;
    assert!(stage.supervisor.workers().is_empty());
}

#[tokio::test]
async fn a_script_without_its_interpreter_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("app");
    fs::write(&script, "#!/nowhere/python3\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let mut spec = spec(1, &[]);
    spec.command = vec![script.to_str().unwrap().into()];
    let mut stage = Stage::new(spec).await;
    stage.line("why", |line| line.text.contains("the interpreter that its `#!` line names")).await;
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn a_failure_leaves_the_others_serving() {
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("fail");
    let mut stage = Stage::new(spec(2, &["fail-if", flag.to_str().unwrap()])).await;
    let before = stage.until_ready(2).await;
    std::fs::write(&flag, "").unwrap();
    stage.shoot(before[0].instance.as_str());
    stage.line("a failed start", |line| line.text.contains("failure 2 in a row")).await;
    let ready = Arc::clone(&stage.roster.borrow());
    assert_eq!(ready.ready("web").map(|worker| worker.instance.as_str()).collect::<Vec<_>>(), ["web-2"]);
    std::fs::remove_file(&flag).unwrap();
    stage.until_ready(2).await;
    assert!(stage.supervisor.workers().iter().all(|worker| worker.trouble.is_none()), "trouble is over");
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn what_it_has_started_dies_with_it() {
    let mut stage = Stage::new(spec(1, &["tree"])).await;
    let worker = stage.until_ready(1).await.remove(0);
    let mut ids = Vec::new();
    while ids.len() < 2 {
        let line = soon("ids of descendants", stage.lines.recv()).await.unwrap();
        ids.extend(line.text.parse::<i32>().ok());
    }
    let pids = ids.into_iter().map(|id| rustix::process::Pid::from_raw(id).unwrap());
    let deaths: Vec<_> = pids.map(|pid| crate::guard::death(pid).unwrap()).collect();
    stage.shoot(worker.instance.as_str());
    for death in deaths {
        soon("a descendant dies", death).await;
    }
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn commanded_kill_replaces_at_once_even_before_ready() {
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("ready");
    let mut spec = spec(1, &["ready-if", flag.to_str().unwrap()]);
    spec.ready = Some("/up".into());
    let mut stage = Stage::new(spec).await;
    let first = stage.until("one worker", |workers| workers.len() == 1).await.remove(0);
    assert_eq!(first.state, WorkerState::Starting);
    stage.supervisor.kill(first.instance.as_str(), 9).await.unwrap();
    stage.until("the next", |workers| workers.len() == 1 && workers[0].instance != first.instance).await;
    assert!(stage.told().iter().all(|line| !line.contains("could not start")));
    std::fs::write(&flag, "").unwrap();
    stage.until_ready(1).await;
    stage.supervisor.stop().await;
}
