//! Commands of operators: scale, restart, drain, kill, stop.

use std::{fs, future::Future, pin::pin, task::Poll, time::Duration};

use lethe_model::{roster::WorkerState, service::ServiceName};
use lethe_supervisor::{
    service::Spec,
    supervisor::{Error, Supervisor},
};
use rustix::process::Pid;

use crate::stage::{Stage, exists, names, soon, spec};

fn pids(supervisor: &Supervisor) -> Vec<Pid> {
    supervisor.workers().iter().filter_map(|worker| Pid::from_raw(worker.pid?.try_into().unwrap())).collect()
}

#[tokio::test]
async fn scale_up_and_down() {
    let mut stage = Stage::new(spec(1, &["serve"])).await;
    // The command waits for those that it starts, and not for the first, which starts meanwhile.
    stage.until_ready(1).await;
    stage.supervisor.scale("web", 4).await.unwrap();
    let four = stage.workers();
    assert_eq!(four.len(), 4);
    assert!(four.iter().all(|worker| worker.state == WorkerState::Ready), "returns when they are ready");
    let leaving: Vec<Pid> = four[2..].iter().map(|worker| stage.pid(worker.instance.as_str())).collect();
    stage.supervisor.scale("web", 2).await.unwrap();
    let two = stage.until_ready(2).await;
    assert_eq!(names(&two), names(&four[..2]), "the youngest leave");
    assert!(leaving.into_iter().all(|pid| !exists(pid)), "returns when they have ended");
    let wanted = |stage: &Stage| stage.supervisor.wanted()["web"];
    assert_eq!(wanted(&stage), 2);
    stage.supervisor.scale("web", 0).await.unwrap();
    assert_eq!(wanted(&stage), 0);
    assert!(stage.roster.borrow().services["web"].is_empty(), "the service itself stays");
    stage.supervisor.scale("web", 1).await.unwrap();
    stage.until_ready(1).await;
    let unknown = stage.supervisor.scale("wbe", 1).await.unwrap_err().to_string();
    assert_eq!(unknown, "no service `wbe`; there are: web");
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn resizing_waits_for_nothing() {
    let mut stage = Stage::new(spec(2, &["serve"])).await;
    let before = stage.until_ready(2).await;
    let pass = before[1].gate.enter().unwrap();
    assert!(stage.supervisor.resize("web", 1).unwrap(), "although a request is inside");
    stage.until("it drains", |workers| workers[1].state == WorkerState::Draining).await;
    // The way up does not wait for the way down.
    assert!(stage.supervisor.resize("web", 3).unwrap());
    let is_ready = |worker: &&lethe_model::roster::Worker| worker.state == WorkerState::Ready;
    stage.until("three others", |workers| workers.iter().filter(is_ready).count() == 3).await;
    assert_eq!(stage.supervisor.workers_of("web", false).len(), 4);
    assert!(stage.supervisor.workers_of("web", true).iter().any(|worker| worker.memory_bytes > 0));
    assert!(stage.supervisor.workers_of("wbe", true).is_empty());
    // A drain waits for the request, and holds what it has to do until then.
    let supervisor = stage.supervisor.clone();
    let other = stage.workers()[0].clone();
    let held = other.gate.enter().unwrap();
    let drained = tokio::spawn(async move { supervisor.drain(other.instance.as_str()).await });
    stage.until("the other drains too", |workers| workers[0].state == WorkerState::Draining).await;
    assert!(!stage.supervisor.resize("web", 5).unwrap(), "while another command runs");
    assert_eq!(stage.supervisor.wanted()["web"], 3, "nothing was changed");
    drop((pass, held));
    soon("it is drained", drained).await.unwrap().unwrap();
    assert!(stage.supervisor.resize("web", 1).unwrap());
    stage.until_ready(1).await;
    assert!(stage.supervisor.resize("wbe", 1).is_err());
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn a_worker_that_fails_leaves_first() {
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("fail");
    let mut stage = Stage::new(spec(2, &["fail-if", flag.to_str().unwrap()])).await;
    let before = stage.until_ready(2).await;
    fs::write(&flag, "").unwrap();
    stage.shoot(before[0].instance.as_str());
    stage.line("a failed start", |line| line.text.contains("failure 1 in a row")).await;
    stage.supervisor.scale("web", 1).await.unwrap();
    assert_eq!(names(&stage.until_ready(1).await), [before[1].instance.as_str()]);
    let error = stage.supervisor.scale("web", 2).await.unwrap_err().to_string();
    assert!(error.contains("reason 12"), "{error}");
    fs::remove_file(&flag).unwrap();
    stage.until_ready(2).await;
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn drains_in_order() {
    let mut stage = Stage::new(spec(1, &["polite"])).await;
    let old = stage.until_ready(1).await.remove(0);
    let pass = old.gate.enter().unwrap();
    let supervisor = stage.supervisor.clone();
    let name = old.instance.clone();
    let drained = tokio::spawn(async move { supervisor.drain(name.as_str()).await });
    let both = stage.until("draining", |workers| workers[0].state == WorkerState::Draining).await;
    assert_eq!(both[1].state, WorkerState::Ready, "the replacement is ready before the old one leaves");
    stage.line("it waits", |line| line.text == "draining (1 requests inside)").await;
    assert!(old.gate.enter().is_none());
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let dropped = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    drop(pass);
    soon("it is drained", drained).await.unwrap().unwrap();
    let line = stage.line("SIGTERM", |line| line.text.starts_with("terminated at ")).await;
    let terminated: i128 = line.text["terminated at ".len()..].parse().unwrap();
    assert!(terminated > dropped, "SIGTERM came {} ns before the last request ended", dropped - terminated);
    let told = stage.told();
    assert!(
        told.iter().any(|line| line.starts_with("web-1: ended") && line.ends_with("exit status 0")),
        "{told:#?}"
    );
    assert_eq!(names(&stage.until_ready(1).await), ["web-2"]);
    let gone = stage.supervisor.drain("web-1").await.unwrap_err();
    assert!(matches!(gone, Error::NoWorker { .. }));
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn drain_is_bounded() {
    let mut spec = spec(1, &["stubborn"]);
    spec.drain = Duration::from_millis(50);
    let mut stage = Stage::new(spec).await;
    let worker = stage.until_ready(1).await.remove(0);
    let _pass = worker.gate.enter().unwrap();
    let pid = stage.pid("web-1");
    soon("it stops", stage.supervisor.stop()).await;
    assert!(!exists(pid));
    let told = stage.told();
    for text in ["1 requests did not end within 50ms", "did not exit within 50ms of SIGTERM; killed"] {
        assert!(told.iter().any(|line| line.contains(text)), "{text}: {told:#?}");
    }
}

#[tokio::test]
async fn a_wrapper_that_ends_first_does_not_cut_the_rest_short() {
    // The shell ends at SIGTERM at once; what it runs needs a moment to save its work.
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("saved");
    let script = format!(
        "(trap 'sleep 0.2; echo done > {}; exit' TERM; echo trapped; while :; do sleep 0.01; done) & {} serve",
        saved.display(),
        crate::stage::PROGRAM
    );
    let mut spec = spec(1, &[]);
    spec.command = vec!["sh".into(), "-c".into(), script];
    let mut stage = Stage::new(spec).await;
    stage.until_ready(1).await;
    stage.line("the trap is set", |line| line.text == "trapped").await;
    soon("it stops", stage.supervisor.stop()).await;
    assert_eq!(fs::read_to_string(saved).unwrap(), "done\n");
}

#[tokio::test]
async fn restart_replaces_one_after_the_other() {
    let mut stage = Stage::new(spec(3, &["serve"])).await;
    let before = stage.until_ready(3).await;
    let mut watched = stage.roster.clone();
    let least = tokio::spawn(async move {
        let mut least = usize::MAX;
        loop {
            let (ready, old) = {
                let roster = watched.borrow_and_update();
                let old = roster.services["web"]
                    .iter()
                    .filter(|worker| before.iter().any(|b| b.instance == worker.instance));
                (roster.ready("web").count(), old.count())
            };
            least = least.min(ready);
            if old == 0 {
                return least;
            }
            watched.changed().await.unwrap();
        }
    });
    assert_eq!(stage.supervisor.restart("web").await.unwrap(), 3);
    assert_eq!(soon("all are new", least).await.unwrap(), 3, "never fewer than 3 are ready");
    assert_eq!(names(&stage.until_ready(3).await), ["web-4", "web-5", "web-6"]);
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn restart_is_given_up_when_the_new_ones_fail() {
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("fail");
    let mut stage = Stage::new(spec(2, &["fail-if", flag.to_str().unwrap()])).await;
    let before = stage.until_ready(2).await;
    fs::write(&flag, "").unwrap();
    let error = stage.supervisor.restart("web").await.unwrap_err();
    assert!(matches!(error, Error::Rollout { .. }), "{error}");
    let text = error.to_string();
    for part in ["exit status 3", "reason 3\n", "reason 12", "the old workers keep serving"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let after = stage.workers();
    assert_eq!(names(&after), names(&before));
    assert!(after.iter().all(|worker| worker.state == WorkerState::Ready));
    assert_eq!(stage.supervisor.workers().len(), 2, "the new one is removed");
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn stop_overrides_other_commands_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("ready");
    fs::write(&flag, "").unwrap();
    let mut spec = spec(2, &["ready-if", flag.to_str().unwrap()]);
    spec.ready = Some("/up".into());
    let mut stage = Stage::new(spec).await;
    stage.until_ready(2).await;
    // From now on nobody becomes ready, so that the restart would wait for long.
    fs::remove_file(&flag).unwrap();
    let supervisor = stage.supervisor.clone();
    let restarted = tokio::spawn(async move { supervisor.restart("web").await });
    stage.until("the new one is started", |workers| workers.len() == 3).await;
    let supervisor = stage.supervisor.clone();
    let scaled = tokio::spawn(async move { supervisor.scale("web", 7).await });
    let pids = pids(&stage.supervisor);
    assert_eq!(pids.len(), 3);
    soon("it stops", stage.supervisor.stop()).await;
    assert!(pids.into_iter().all(|pid| !exists(pid)));
    assert!(stage.roster.borrow().services["web"].is_empty());
    assert!(matches!(restarted.await.unwrap(), Err(Error::Stopping)));
    assert!(matches!(scaled.await.unwrap(), Err(Error::Stopping)));
    assert!(matches!(stage.supervisor.scale("web", 1).await, Err(Error::Stopping)));
    assert!(stage.supervisor.workers().is_empty());
    soon("a second stop", stage.supervisor.stop()).await;
}

#[tokio::test]
async fn kill_all_ends_a_stop_that_waits() {
    let mut stage = Stage::new(spec(2, &["stubborn"])).await;
    let workers = stage.until_ready(2).await;
    let _pass = workers[0].gate.enter().unwrap();
    let pids = pids(&stage.supervisor);
    {
        let mut stop = pin!(stage.supervisor.stop());
        let begun = std::future::poll_fn(|context| Poll::Ready(stop.as_mut().poll(context))).await;
        assert!(begun.is_pending());
        stage.supervisor.kill_all();
        soon("it stops", stop).await;
    }
    assert!(pids.into_iter().all(|pid| !exists(pid)));
}

#[tokio::test]
async fn commands_at_once_do_not_harm_each_other() {
    let mut stage = Stage::new(spec(3, &["serve"])).await;
    stage.until_ready(3).await;
    let [one, two, three, four] = [(); 4].map(|()| stage.supervisor.clone());
    let (scaled, drained, restarted, scaled_back) = tokio::join!(
        tokio::spawn(async move { one.scale("web", 5).await }),
        tokio::spawn(async move { two.drain("web-2").await }),
        tokio::spawn(async move { three.restart("web").await }),
        tokio::spawn(async move { four.scale("web", 2).await }),
    );
    scaled.unwrap().unwrap();
    scaled_back.unwrap().unwrap();
    // Another command may have replaced it before.
    assert!(matches!(drained.unwrap(), Ok(()) | Err(Error::NoWorker { .. })));
    assert!(restarted.unwrap().unwrap() >= 2);
    let count = stage.supervisor.workers().len();
    assert!(count == 2 || count == 5, "{count}");
    stage.until_ready(count).await;
    soon("it stops", stage.supervisor.stop()).await;
}

#[tokio::test]
async fn a_cancelled_caller_leaves_no_half_done_command() {
    let mut stage = Stage::new(spec(1, &["serve"])).await;
    stage.until_ready(1).await;
    let supervisor = stage.supervisor.clone();
    let caller = tokio::spawn(async move { supervisor.restart("web").await });
    stage.until("the new one is started", |workers| workers.len() == 2).await;
    caller.abort();
    stage
        .until("it is replaced", |workers| workers.len() == 1 && workers[0].instance.as_str() == "web-2")
        .await;
    stage.until_ready(1).await;
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn signals() {
    let mut stage = Stage::new(spec(1, &["polite"])).await;
    stage.until_ready(1).await;
    for unknown in [0, -1, 99] {
        let error = stage.supervisor.kill("web-1", unknown).await.unwrap_err().to_string();
        assert!(error.contains("is not a signal"), "{error}");
    }
    assert!(matches!(stage.supervisor.kill("web-9", 15).await, Err(Error::NoWorker { .. })));
    stage.supervisor.kill("web-1", 15).await.unwrap();
    stage.line("it got it", |line| line.text.starts_with("terminated at ")).await;
    stage
        .until("it is replaced", |workers| workers.len() == 1 && workers[0].instance.as_str() == "web-2")
        .await;
    let told = stage.told();
    assert!(told.iter().all(|line| !line.contains("could not start")), "{told:#?}");
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn services_come_and_go() {
    let mut stage = Stage::new(spec(1, &["serve"])).await;
    stage.until_ready(1).await;
    let blog = |arguments: &[&str]| Spec { name: ServiceName::new("blog").unwrap(), ..spec(2, arguments) };
    let supervisor = stage.supervisor.clone();
    supervisor.add(blog(&["serve"])).await.unwrap();
    let ready =
        || stage.roster.borrow().ready("blog").map(|worker| worker.instance.to_string()).collect::<Vec<_>>();
    assert_eq!(ready(), ["blog-1", "blog-2"], "returns when they are ready");
    assert_eq!(supervisor.wanted().len(), 2);
    let twice = supervisor.add(blog(&["serve"])).await.unwrap_err();
    assert!(matches!(twice, Error::Exists(_)), "{twice}");
    let pids: Vec<Pid> = ["blog-1", "blog-2"].map(|name| stage.pid(name)).into();

    supervisor.remove("blog").await.unwrap();
    assert!(pids.into_iter().all(|pid| !exists(pid)), "returns when they have ended");
    assert!(!stage.roster.borrow().services.contains_key("blog"));
    assert!(matches!(supervisor.scale("blog", 1).await, Err(Error::NoService { .. })));
    assert!(supervisor.logs(Some("blog"), 100).unwrap().iter().any(|line| line.text.contains("ended")));

    // A number is never given twice, also not to a service that comes back.
    supervisor.add(blog(&["serve"])).await.unwrap();
    assert_eq!(ready(), ["blog-3", "blog-4"]);
    supervisor.stop().await;
    assert!(matches!(supervisor.add(blog(&["serve"])).await, Err(Error::Exists(_) | Error::Stopping)));
}

#[tokio::test]
async fn a_service_that_cannot_start_is_not_added() {
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("fail");
    fs::write(&flag, "").unwrap();
    let mut stage = Stage::new(spec(1, &["serve"])).await;
    stage.until_ready(1).await;
    let blog =
        Spec { name: ServiceName::new("blog").unwrap(), ..spec(1, &["fail-if", flag.to_str().unwrap()]) };
    let error = stage.supervisor.add(blog.clone()).await.unwrap_err().to_string();
    assert!(
        error.starts_with("blog: its first workers did not become ready") && error.contains("reason 12"),
        "{error}"
    );
    assert!(!stage.roster.borrow().services.contains_key("blog"));
    let absent = Spec { command: vec!["./absent".into()], ..blog };
    assert!(matches!(stage.supervisor.add(absent).await, Err(Error::Command { .. })));
    assert_eq!(stage.supervisor.wanted().len(), 1);
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn an_update_replaces_all_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("fail");
    let mut stage = Stage::new(spec(2, &["serve"])).await;
    let before = stage.until_ready(2).await;
    let failing = spec(2, &["fail-if", flag.to_str().unwrap()]);
    assert_eq!(stage.supervisor.update(failing.clone()).await.unwrap(), 2);
    let updated = stage.until_ready(2).await;
    assert!(before.iter().all(|old| updated.iter().all(|new| new.instance != old.instance)));
    // From here on its workers cannot start, and those of another spec have to be put back.
    fs::write(&flag, "").unwrap();
    stage.supervisor.update(spec(2, &["serve"])).await.unwrap();
    let kept = stage.until_ready(2).await;
    let error = stage.supervisor.update(failing).await.unwrap_err().to_string();
    assert!(error.contains("reason 12") && error.contains("the old workers keep serving"), "{error}");
    assert_eq!(names(&stage.until_ready(2).await), names(&kept));
    // What is started now is of the spec that was kept.
    stage.supervisor.scale("web", 3).await.unwrap();
    stage.until_ready(3).await;
    stage.supervisor.stop().await;
}
