//! A service that has no workers while nobody asks for anything: it rests only when nothing is inside, is woken by one
//! start however many ask, and what does not start is told to each who asks.

use std::{fs, time::Duration};

use lethe_model::roster::WorkerState;
use lethe_supervisor::{service::Spec, supervisor::Error};
use tokio::task::JoinSet;

use crate::stage::{Stage, names, soon, spec};

#[tokio::test]
async fn it_rests_when_nothing_is_inside() {
    let mut stage = Stage::new(spec(2, &["serve"])).await;
    let workers = stage.until_ready(2).await;
    let inside = workers[1].gate.enter().unwrap();
    assert!(!stage.supervisor.rest("web").unwrap(), "one is busy, so none leaves");
    assert_eq!(names(&stage.until_ready(2).await), names(&workers));
    drop(inside);
    assert!(stage.supervisor.rest("web").unwrap());
    assert_eq!(stage.supervisor.wanted()["web"], 0);
    assert!(workers.iter().all(|worker| worker.gate.enter().is_none()), "who comes now is not let in");
    stage.until("none", <[_]>::is_empty).await;
    assert!(stage.supervisor.rest("web").unwrap());
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn one_that_is_starting_does_not_rest() {
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("ready");
    let ready = Some("/".into());
    let mut stage = Stage::new(Spec { ready, ..spec(1, &["ready-if", flag.to_str().unwrap()]) }).await;
    stage.until("starting", |workers| workers.len() == 1).await;
    assert!(!stage.supervisor.rest("web").unwrap(), "somebody may be waiting for it");
    fs::write(&flag, "").unwrap();
    stage.until_ready(1).await;
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn many_who_wake_it_start_one() {
    let mut stage = Stage::new(spec(1, &["serve"])).await;
    stage.until_ready(1).await;
    assert!(stage.supervisor.rest("web").unwrap());
    let mut waking = JoinSet::new();
    for _ in 0..50 {
        let supervisor = stage.supervisor.clone();
        waking.spawn(async move { supervisor.wake("web").await });
    }
    while let Some(woken) = waking.join_next().await {
        woken.unwrap().unwrap();
    }
    assert_eq!(names(&stage.until_ready(1).await), ["web-2"]);
    stage.supervisor.wake("web").await.unwrap();
    assert_eq!(names(&stage.workers()), ["web-2"], "it was awake");
    assert_eq!(stage.supervisor.wanted()["web"], 1);
    let unknown = stage.supervisor.wake("wbe").await.unwrap_err();
    assert!(matches!(unknown, Error::NoService { .. }));
    stage.supervisor.stop().await;
}

/// A worker that leaves may take its time, and nobody waits for that who wants another one.
#[tokio::test]
async fn it_wakes_while_the_last_one_leaves() {
    let mut stage = Stage::new(spec(1, &["serve"])).await;
    let old = stage.until_ready(1).await.remove(0);
    let inside = old.gate.enter().unwrap();
    let supervisor = stage.supervisor.clone();
    let scaled = tokio::spawn(async move { supervisor.scale("web", 0).await });
    stage.until("draining", |workers| workers[0].state == WorkerState::Draining).await;
    soon("it is awake", stage.supervisor.wake("web")).await.unwrap();
    let both = stage.workers();
    assert_eq!(names(&both), ["web-1", "web-2"]);
    assert_eq!(both[0].state, WorkerState::Draining, "a request is inside, so it stays");
    // The next version is not in charge before the last of the old one has left.
    let supervisor = stage.supervisor.clone();
    let next = Spec { env: [("VERSION".into(), "2".into())].into(), ..spec(1, &["serve"]) };
    let updated = tokio::spawn(async move { supervisor.update(next).await });
    stage.until("the next", |workers| names(workers) == ["web-1", "web-3"]).await;
    assert!(!updated.is_finished() && !scaled.is_finished());
    drop(inside);
    soon("it has left", scaled).await.unwrap().unwrap();
    soon("all of the old version have left", updated).await.unwrap().unwrap();
    assert_eq!(names(&stage.until_ready(1).await), ["web-3"]);
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn each_who_wakes_what_does_not_start_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("fail");
    let mut stage = Stage::new(spec(1, &["fail-if", flag.to_str().unwrap()])).await;
    stage.until_ready(1).await;
    assert!(stage.supervisor.rest("web").unwrap());
    fs::write(&flag, "").unwrap();
    for _ in 0..2 {
        let error = soon("it fails", stage.supervisor.wake("web")).await.unwrap_err().to_string();
        assert!(
            error.contains("first workers did not become ready") && error.contains("reason 12"),
            "{error}"
        );
    }
    stage.line("it backs off", |line| line.text.contains("failure 3 in a row, next try in 40 ms")).await;
    fs::remove_file(&flag).unwrap();
    stage.until_ready(1).await;
    stage.supervisor.wake("web").await.unwrap();
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn one_that_is_killed_while_it_starts_is_followed_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("ready");
    let ready = Some("/".into());
    let mut stage = Stage::new(Spec { ready, ..spec(0, &["ready-if", flag.to_str().unwrap()]) }).await;
    let supervisor = stage.supervisor.clone();
    let woken = tokio::spawn(async move { supervisor.wake("web").await });
    let first = stage.until("starting", |workers| workers.len() == 1).await.remove(0);
    stage.shoot(first.instance.as_str());
    fs::write(&flag, "").unwrap();
    soon("the next is ready", woken).await.unwrap().unwrap();
    assert_eq!(names(&stage.until_ready(1).await), ["web-2"]);
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn a_restart_at_zero_is_nothing_to_do() {
    let stage = Stage::new(spec(0, &["serve"])).await;
    assert_eq!(stage.supervisor.restart("web").await.unwrap(), 0);
    soon("all are ready", stage.supervisor.all_ready()).await.unwrap();
    assert!(stage.workers().is_empty());
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn it_is_warm_before_it_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let asked = folder.path().join("asked");
    let warm_up = ["/one", "/two?x=1", "/fail", "/last"].map(String::from).into();
    let spec = Spec { warm_up, ready: Some("/up".into()), ..spec(1, &["note", asked.to_str().unwrap()]) };
    let mut stage = Stage::new(spec).await;
    stage.until_ready(1).await;
    let asked = fs::read_to_string(asked).unwrap();
    assert_eq!(asked, "/up\n/one\n/two?x=1\n/fail\n/last\n", "in order, and all before it was ready");
    let told = stage.told();
    assert!(
        told.iter().any(|line| line.contains("ready after") && line.ends_with("to warm up")),
        "{told:#?}"
    );
    assert!(
        told.iter().any(|line| line.ends_with("warm-up: GET /fail is answered with status 503")),
        "{told:#?}"
    );
    let worker = stage.supervisor.workers().remove(0);
    assert!(worker.ready_at.unwrap().duration_since(worker.started_at).unwrap() < Duration::from_secs(60));
    stage.supervisor.stop().await;
}

/// Its answers are awaited, and its death is seen meanwhile.
#[tokio::test]
async fn it_is_not_ready_before_it_has_answered() {
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("go");
    let warm_up = vec!["/held".into()];
    let mut stage = Stage::new(Spec { warm_up, ..spec(1, &["hold", flag.to_str().unwrap()]) }).await;
    stage.line("it is asked", |line| line.text == "holds /held").await;
    let held = stage.workers();
    assert_eq!((held.len(), held[0].state), (1, WorkerState::Starting));
    assert_eq!(stage.supervisor.workers()[0].ready_at, None);
    stage.shoot("web-1");
    stage.line("that was no start", |line| line.text.contains("failure 1 in a row")).await;
    fs::write(&flag, "").unwrap();
    assert_eq!(names(&stage.until_ready(1).await), ["web-2"]);
    stage.supervisor.stop().await;
}
