//! Limits of workers, with real cgroups where this machine lets us make them. A test that cannot be done here says so
//! and what was missing; with `LETHE_TEST_CGROUPS=required` it fails instead, as in `make test-cgroups`, which runs these
//! in a virtual machine that offers all of it.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use lethe_supervisor::{
    resources::{Enforce, Resources},
    service::Spec,
    supervisor::{Config, Supervisor},
};
use rustix::process::Pid;
use tempfile::tempdir;
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    guard::death,
    stage::{PROGRAM, Stage, soon, spec},
};

/// Supervisors of one process share the names of their cgroups, so one at a time has some.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Where cgroup v2 is mounted.
fn mounted() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    mounts.find(|mount| mount[2] == "cgroup2").map(|mount| mount[1].into())
}

/// The cgroup of a process.
fn cgroup(pid: impl std::fmt::Display) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    mounted().unwrap().join(path)
}

/// Lets a test go on if cgroups with these controllers can be made here.
#[allow(clippy::print_stderr, reason = "what was not tested is said, not passed over")]
async fn offered(controllers: &[&str]) -> Option<MutexGuard<'static, ()>> {
    let turn = ONE_AT_A_TIME.lock().await;
    let missing = match mounted() {
        None => Some("cgroup v2 is not mounted".to_owned()),
        Some(_) => {
            let own = cgroup("self");
            let parent = if own.ends_with("lethe.self") { own.parent().unwrap().into() } else { own };
            let trial = parent.join("lethe-test-trial");
            let has = fs::read_to_string(parent.join("cgroup.controllers")).unwrap();
            let lacks = controllers.iter().find(|it| !has.split_whitespace().any(|name| name == **it));
            match (fs::create_dir(&trial).and_then(|()| fs::remove_dir(&trial)), lacks) {
                (Err(error), _) => Some(format!("no cgroup can be made in {}: {error}", parent.display())),
                (Ok(()), Some(lacks)) => Some(format!(
                    "{} has no `{lacks}` controller, but only: {}",
                    parent.display(),
                    has.trim()
                )),
                (Ok(()), None) => None,
            }
        }
    };
    if let Some(missing) = missing {
        assert!(env::var_os("LETHE_TEST_CGROUPS").is_none(), "{missing}");
        eprintln!("NOT TESTED: {missing}; `make test-cgroups` tests it in a virtual machine");
        return None;
    }
    Some(turn)
}

fn limited(habit: &[&str], resources: Resources) -> Spec {
    Spec { resources, ..spec(1, habit) }
}

fn weighed() -> Resources {
    Resources { cpu_request_milli: Some(250), ..Resources::default() }
}

/// The cgroup of the only worker.
fn only(stage: &Stage) -> PathBuf {
    let worker = stage.supervisor.workers().remove(0);
    cgroup(worker.pid.unwrap())
}

async fn until_gone(folder: &Path) {
    let gone = async {
        while folder.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    soon(&format!("{} is removed", folder.display()), gone).await;
}

#[tokio::test]
async fn a_worker_has_a_cgroup_of_its_own_that_ends_with_it() {
    let Some(_turn) = offered(&[]).await else { return };
    let mut stage = Stage::new(limited(&["daemon"], weighed())).await;
    stage.until_ready(1).await;
    let line = stage.line("the daemon's id", |line| line.text.parse::<i32>().is_ok()).await;
    let daemon = Pid::from_raw(line.text.parse().unwrap()).unwrap();
    let folder = only(&stage);
    let own = rustix::process::getpid().as_raw_nonzero();
    let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(name.starts_with(&format!("lethe.{own}.")) && name.ends_with(".web-1"), "{name}");
    assert_eq!(cgroup(daemon.as_raw_nonzero()), folder, "its descendants are in it");
    assert_ne!(cgroup("self"), folder);

    // CPU time is that of the cgroup.
    let usage = || {
        let text = fs::read_to_string(folder.join("cpu.stat")).unwrap();
        text.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap().parse::<u64>().unwrap() / 1000
    };
    let before = usage();
    let shown = stage.supervisor.workers().remove(0);
    assert!((before..=usage()).contains(&shown.cpu_ms), "{before} {} {}", shown.cpu_ms, usage());

    // It has left the process group, so nothing else would reach it.
    let dead = death(daemon).unwrap();
    stage.shoot("web-1");
    soon("the daemon dies with its worker", dead).await;
    until_gone(&folder).await;
    stage.until_ready(1).await;
    let next = only(&stage);
    assert!(next.to_str().unwrap().ends_with(".web-2"), "{}", next.display());
    stage.supervisor.stop().await;
    assert!(!next.exists(), "when all is stopped, nothing is left");
}

#[tokio::test]
async fn what_a_killed_lethe_leaves_is_cleared_by_the_next() {
    let Some(_turn) = offered(&[]).await else { return };
    let mut command = Command::new(PROGRAM);
    command.arg("lethe").env("LETHE_TEST_CELLS", "1").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut lethe = command.spawn().unwrap();
    let mut ids = String::new();
    BufReader::new(lethe.stdout.take().unwrap()).read_line(&mut ids).unwrap();
    let ids: Vec<i32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
    let deaths: Vec<_> = ids.iter().map(|&id| death(Pid::from_raw(id).unwrap()).unwrap()).collect();
    let folders: Vec<PathBuf> = ids.iter().map(cgroup).collect();
    assert!(
        folders.iter().all(|folder| folder.to_str().unwrap().contains(&format!("lethe.{}.", lethe.id())))
    );
    lethe.kill().unwrap();
    lethe.wait().unwrap();
    for death in deaths {
        soon("the guard ends the workers", death).await;
    }
    assert!(folders.iter().all(|folder| folder.exists()), "nobody was there to remove them");
    let limits = Resources { enforce: Enforce::IfPossible, memory_limit_bytes: Some(1 << 30), ..weighed() };
    let mut stage = Stage::new(limited(&["serve"], limits)).await;
    stage.until_ready(1).await;
    assert_eq!(folders.iter().filter(|folder| folder.exists()).count(), 0);
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn limits_that_cannot_be_kept_up_are_refused() {
    let own = mounted().map(|_| cgroup("self")).unwrap_or_default();
    let controllers = fs::read_to_string(own.join("cgroup.controllers")).unwrap_or_default();
    if controllers.split_whitespace().any(|name| name == "memory") {
        eprintln!("NOT TESTED: limits can be kept up here");
        return;
    }
    let limits = Resources { memory_limit_bytes: Some(1 << 30), ..Resources::default() };
    let sockets = tempdir().unwrap();
    let config = |resources| Config {
        services: vec![limited(&["serve"], resources)],
        sockets: sockets.path().into(),
        state_urls: None,
        homes: None,
        guard: PROGRAM.into(),
    };
    let Err(refused) = Supervisor::start(config(limits)).await else { panic!("it was started") };
    let refused = refused.to_string();
    assert!(refused.starts_with("web: its limits cannot be kept up: "), "{refused}");
    assert!(refused.contains("enforce = \"if-possible\" under [services.web.resources]"), "{refused}");

    let _turn = ONE_AT_A_TIME.lock().await;
    let mut stage =
        Stage::new(limited(&["serve"], Resources { enforce: Enforce::IfPossible, ..limits })).await;
    stage.until_ready(1).await;
    assert_eq!(stage.supervisor.workers()[0].memory_limit_bytes, None, "none is kept up");
    let refused = stage.supervisor.update(limited(&["serve"], limits)).await.unwrap_err().to_string();
    assert!(refused.contains("cannot be kept up"), "{refused}");
    stage.until_ready(1).await;
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn a_worker_over_its_memory_is_killed_and_named() {
    let Some(_turn) = offered(&["memory"]).await else { return };
    let folder = tempdir().unwrap();
    let flag = folder.path().join("eat");
    let limits = Resources { memory_limit_bytes: Some(64 << 20), ..Resources::default() };
    let mut stage = Stage::new(limited(&["hungry", flag.to_str().unwrap()], limits)).await;
    stage.until_ready(1).await;
    let cell = only(&stage);
    let file = |name: &str| fs::read_to_string(cell.join(name)).unwrap_or_default().trim().to_owned();
    assert_eq!([file("memory.max"), file("memory.oom.group")], ["67108864", "1"]);
    let shown = stage.supervisor.workers().remove(0);
    assert_eq!((shown.memory_limit_bytes, shown.memory_kills), (Some(64 << 20), 0));
    assert!(shown.memory_bytes > 0 && shown.memory_bytes < 64 << 20, "{}", shown.memory_bytes);

    let gate = std::sync::Arc::clone(&stage.workers()[0].gate);
    fs::write(&flag, "").unwrap();
    stage
        .line("why it died", |line| {
            line.text.contains("killed for memory: it wanted more than its limit of 64 MiB")
        })
        .await;
    fs::remove_file(&flag).unwrap();
    // The request may have been the cause, so it counts for the guard against queries of death.
    assert_eq!(gate.fate().await, lethe_model::gate::Fate::Fell);
    let workers = stage.until_ready(1).await;
    let shown = stage.supervisor.workers().remove(0);
    assert!(shown.memory_kills >= 1, "{}", shown.memory_kills);

    // A kill from outside is none for memory, though the kernel has killed before.
    let (instance, kills) = (workers[0].instance.clone(), shown.memory_kills);
    stage.shoot(instance.as_str());
    assert_eq!(workers[0].gate.fate().await, lethe_model::gate::Fate::Killed);
    stage.until("another", |now| now.iter().all(|worker| worker.instance != instance)).await;
    assert_eq!(stage.supervisor.workers()[0].memory_kills, kills);
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn a_worker_gets_no_more_cpu_than_its_limit() {
    let Some(_turn) = offered(&["cpu"]).await else { return };
    let limits =
        Resources { cpu_limit_milli: Some(400), cpu_request_milli: Some(20), ..Resources::default() };
    let mut stage = Stage::new(limited(&["busy"], limits)).await;
    stage.until_ready(1).await;
    let cell = only(&stage);
    let file = |name: &str| fs::read_to_string(cell.join(name)).unwrap();
    assert_eq!([file("cpu.max"), file("cpu.weight")], ["40000 100000\n", "2\n"]);
    let throttled = async {
        while !file("cpu.stat").lines().any(|line| {
            line.strip_prefix("nr_throttled ").is_some_and(|count| count.parse::<u64>().unwrap() > 3)
        }) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    soon("it is held back", throttled).await;
    stage.supervisor.stop().await;
}
