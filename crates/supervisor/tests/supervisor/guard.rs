//! Nothing is left when `lethe` itself is killed.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    os::{
        fd::OwnedFd,
        unix::fs::{PermissionsExt, symlink},
    },
    process::{Child, Command, Stdio},
};

use lethe_supervisor::supervisor::{Config, Supervisor};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::stage::{PROGRAM, Stage, soon, spec};

/// The death of any process, also one that is not our child.
pub(crate) fn death(pid: Pid) -> io::Result<impl Future<Output = ()>> {
    let pidfd: OwnedFd = pidfd_open(pid, PidfdFlags::empty())?;
    Ok(async move {
        let waited = tokio::task::spawn_blocking(move || {
            let mut ready = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut ready, None)
        });
        waited.await.unwrap().unwrap();
    })
}

/// A `lethe` with two workers of two descendants each, and the ids of the six.
fn lethe() -> (Child, Vec<Pid>) {
    let mut command = Command::new(PROGRAM);
    let mut lethe = command.arg("lethe").stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut ids = String::new();
    BufReader::new(lethe.stdout.take().unwrap()).read_line(&mut ids).unwrap();
    let ids = ids.split_whitespace().map(|id| Pid::from_raw(id.parse().unwrap()).unwrap());
    (lethe, ids.collect())
}

async fn kill_and_await(mut lethe: Child, ids: Vec<Pid>) {
    assert_eq!(ids.len(), 6);
    let deaths: Vec<_> = ids.into_iter().map(|id| death(id).unwrap()).collect();
    lethe.kill().unwrap();
    lethe.wait().unwrap();
    for death in deaths {
        soon("each of them dies", death).await;
    }
}

/// The guard of a `lethe`: the child of it that leads its own session.
fn guard_of(lethe: &Child) -> Option<Pid> {
    let children = fs::read_dir(format!("/proc/{}/task", lethe.id())).unwrap();
    let children = children.map(|task| fs::read_to_string(task.unwrap().path().join("children")).unwrap());
    let children: Vec<i32> = children
        .flat_map(|list| list.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<_>>())
        .collect();
    let is_guard =
        |id: &i32| fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|line| line.ends_with(b"\0guard\0"));
    children.into_iter().find(is_guard).and_then(Pid::from_raw)
}

#[tokio::test]
async fn lethe_killed_leaves_nobody() {
    let (lethe, ids) = lethe();
    let guard = death(guard_of(&lethe).unwrap()).unwrap();
    kill_and_await(lethe, ids).await;
    soon("the guard has done its work", guard).await;
}

#[tokio::test]
async fn the_guard_ignores_signals_and_is_replaced_when_killed() {
    let (lethe, ids) = lethe();
    let first = guard_of(&lethe).unwrap();
    for ignored in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
        kill_process(first, ignored).unwrap();
    }
    let killed = death(first).unwrap();
    kill_process(first, Signal::KILL).unwrap();
    soon("the first guard dies", killed).await;
    let second = soon("there is a second", async {
        loop {
            match guard_of(&lethe).filter(|&guard| guard != first) {
                Some(guard) => return guard,
                None => tokio::task::yield_now().await,
            }
        }
    });
    let second = death(second.await).unwrap();
    kill_and_await(lethe, ids).await;
    soon("the second guard has done its work", second).await;
}

#[tokio::test]
async fn a_runtime_that_ends_leaves_nobody() {
    let ended = tokio::task::spawn_blocking(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let pid = runtime.block_on(async {
            let mut stage = Stage::new(spec(1, &["serve"])).await;
            stage.until_ready(1).await;
            stage.pid("web-1")
        });
        // Opened while it is certain to live: the runtime ends after this.
        death(pid).unwrap()
    });
    let death = ended.await.unwrap();
    soon("the worker dies", death).await;
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_is_struck() {
    let folder = tempfile::tempdir().unwrap();
    let (guard, app) = (folder.path().join("scribe"), folder.path().join("app"));
    symlink(PROGRAM, &guard).unwrap();
    fs::write(&app, "#!/nowhere/python3\n").unwrap();
    fs::set_permissions(&app, fs::Permissions::from_mode(0o755)).unwrap();
    let book = guard.with_extension("book");
    let mut spec = spec(1, &[]);
    spec.command = vec![app.to_str().unwrap().into()];
    let config =
        Config { services: vec![spec], sockets: "/nowhere".into(), state_urls: None, homes: None, guard };
    let supervisor = Supervisor::start(config).await.unwrap();
    soon("it enters and strikes itself", async {
        loop {
            let said = fs::read_to_string(&book).unwrap_or_default();
            let mut lines = said.lines();
            if let (Some(entry), Some(strike)) = (lines.next(), lines.next()) {
                assert_eq!(strike, entry.replace('+', "-"), "{said}");
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    supervisor.stop().await;
}
