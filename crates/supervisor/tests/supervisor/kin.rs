//! Whose a process is: that of a worker, of a child of it, and of those who are nobody's.

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
};

use lethe_model::service::ServiceName;
use lethe_supervisor::kin::Kin;
use rustix::process::{Pid, Signal, kill_process};

use crate::stage::{PROGRAM, Stage, soon, spec};

fn worker() -> Kin {
    Kin::Worker(ServiceName::new("web").unwrap())
}

#[tokio::test]
async fn of_workers_their_children_and_others() {
    let mut spec = spec(1, &[]);
    // A child in the worker's group, and one in a group and session of its own.
    let script =
        format!("sleep 600 & echo \"inside $!\"; setsid sleep 600 & echo \"apart $!\"; exec {PROGRAM} serve");
    spec.command = vec!["sh".into(), "-c".into(), script];
    let mut stage = Stage::new(spec).await;
    stage.until_ready(1).await;
    let mut pid_of = async |word: &str| -> i32 {
        let line = stage.line(word, |line| line.text.starts_with(word)).await;
        line.text.split(' ').nth(1).unwrap().parse().unwrap()
    };
    let (inside, apart) = (pid_of("inside").await, pid_of("apart").await);
    let leader = stage.pid("web-1").as_raw_nonzero().get();
    for pid in [leader, inside, apart] {
        assert_eq!(stage.supervisor.kin(pid).await, worker(), "{pid}");
    }
    // Started by this process, but as no worker.
    let mut stray = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
    assert_eq!(stage.supervisor.kin(stray.id().cast_signed()).await, Kin::Stray);
    stray.kill().unwrap();
    stray.wait().unwrap();
    assert_eq!(stage.supervisor.kin(stray.id().cast_signed()).await, Kin::Stray, "it has ended");
    // This process, the one that has started it, and the first of all.
    for pid in [std::process::id().cast_signed(), std::os::unix::process::parent_id().cast_signed(), 1] {
        assert_eq!(stage.supervisor.kin(pid).await, Kin::Other, "{pid}");
    }
    assert_eq!(stage.supervisor.kin(0).await, Kin::Other, "of another namespace");
    soon("the end", stage.supervisor.stop()).await;
    kill_process(Pid::from_raw(apart).unwrap(), Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_worker_is_known_from_its_first_moment() {
    let mut spec = spec(0, &["serve"]);
    // Other tests have workers of their own at the same time.
    spec.env = [(MARK.into(), "1".into())].into();
    let stage = Stage::new(spec).await;
    let supervisor = stage.supervisor.clone();
    let asked = tokio::spawn(async move {
        let mut known = BTreeSet::new();
        while known.len() < 20 {
            for pid in marked_children() {
                let kin = supervisor.kin(pid).await;
                assert_eq!(kin, worker(), "{pid}");
                known.insert(pid);
            }
            tokio::task::yield_now().await;
        }
    });
    soon("twenty workers", stage.supervisor.scale("web", 20)).await.unwrap();
    soon("all are asked for", asked).await.unwrap();
    stage.supervisor.stop().await;
}

/// In the environment of the workers that are asked for.
const MARK: &str = "LETHE_KIN_MARK";

/// The children of this process that run such a worker.
fn marked_children() -> Vec<i32> {
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let pids: Vec<i32> = lists
        .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
        .collect();
    let is_marked = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(MARK.as_bytes()))
    };
    pids.into_iter().filter(is_marked).collect()
}
