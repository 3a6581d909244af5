//! Workers that run where they are told to, each in a home of its own.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use lethe_supervisor::home::{Home, Homes};
use tempfile::TempDir;

use crate::stage::{PROGRAM, Stage, soon, spec};

/// A service whose workers print where they are.
fn told() -> lethe_supervisor::service::Spec {
    let mut spec = spec(2, &[]);
    spec.command = ["sh", "-c", &format!("echo at $(pwd); exec {PROGRAM} serve")].map(Into::into).into();
    spec
}

#[tokio::test]
async fn each_worker_has_its_own_as_long_as_it_lives() {
    let place = Arc::new(TempDir::new().unwrap());
    let parent = place.path().canonicalize().unwrap();
    let homes = Homes::new({
        let parent = parent.clone();
        move |directory, worker| {
            assert_eq!(directory, PathBuf::from("/"));
            let folder = tempfile::Builder::new().prefix(&format!("{worker}-")).tempdir_in(&parent).unwrap();
            Box::pin(async move { Ok(Home { directory: folder.path().into(), hold: Box::new(folder) }) })
        }
    });
    let count = || std::fs::read_dir(&parent).unwrap().count();
    let mut stage = Stage::at(told(), Some(homes)).await;
    let workers = stage.until_ready(2).await;
    for worker in &workers {
        let prefix = format!("at {}/{}-", parent.display(), worker.instance);
        stage.line("where it is", |line| line.text.starts_with(&prefix)).await;
    }
    assert_eq!(count(), 2);
    stage.supervisor.kill(workers[0].instance.as_str(), 9).await.unwrap();
    stage.until("another one", |now| now.iter().all(|worker| worker.instance != workers[0].instance)).await;
    stage.until_ready(2).await;
    assert_eq!(count(), 2, "that of the dead one is gone before there is another");
    stage.supervisor.stop().await;
    assert_eq!(count(), 0);
}

#[tokio::test]
async fn one_without_a_home_is_trouble_and_gets_one_later() {
    let asked = Arc::new(AtomicUsize::new(0));
    let homes = Homes::new(move |_, _| {
        let number = asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            if number < 3 {
                return Err("its release cannot be fetched".into());
            }
            Ok(Home { directory: "/".into(), hold: Box::new(()) })
        })
    });
    let mut spec = told();
    spec.instances = 1;
    let mut stage = Stage::at(spec, Some(homes)).await;
    stage.line("a second try", |line| line.text.contains("failure 2 in a row")).await;
    stage.line("why", |line| line.text.contains("its release cannot be fetched")).await;
    stage.until_ready(1).await;
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn one_that_waits_for_a_home_can_be_stopped() {
    let homes = Homes::new(|_, _| Box::pin(std::future::pending()));
    let stage = Stage::at(told(), Some(homes)).await;
    soon("it stops", stage.supervisor.stop()).await;
}
