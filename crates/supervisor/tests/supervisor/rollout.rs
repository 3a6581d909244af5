//! One version takes another's place, with real processes.

use std::{
    collections::BTreeSet,
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use lethe_model::{roster::WorkerState, service::ServiceName};
use lethe_supervisor::{
    rollout::{
        policy::Policy,
        rolling::{Comparison, Phase, Sides, Step, Watch, What},
        steps::Reason,
    },
    service::Spec,
    supervisor::{Error, Rollout},
};
use tokio::sync::watch;

use crate::stage::{Stage, is_ready, names, soon, spec};

/// One that remembers what it was told, and says what the test says.
#[derive(Clone, Default)]
struct Watcher {
    steps: watch::Sender<Vec<Step>>,
    comparison: Arc<Mutex<Comparison>>,
    seen: watch::Sender<Sides>,
}

impl Watch for Watcher {
    fn compare(&mut self, sides: &Sides) -> Comparison {
        self.seen.send_replace(sides.clone());
        self.comparison.lock().unwrap().clone()
    }

    fn note(&mut self, step: &Step) {
        self.steps.send_modify(|steps| steps.push(step.clone()));
    }
}

impl Watcher {
    /// Waits until it was told something that is as wanted.
    async fn until(&self, what: &str, wanted: impl Fn(&Step) -> bool) -> Step {
        let mut steps = self.steps.subscribe();
        let found = steps.wait_for(|steps| steps.iter().any(&wanted));
        let steps = soon(what, found).await.unwrap();
        steps.iter().find(|step| wanted(step)).unwrap().clone()
    }

    fn worse(&self, how: &str) {
        self.comparison.lock().unwrap().worse = Some(how.into());
    }
}

fn version(release: u64, instances: u32, habit: &[&str]) -> Spec {
    Spec { release, ..spec(instances, habit) }
}

fn policy() -> Policy {
    Policy { bake: Duration::ZERO, ..Policy::default() }
}

const LONG: Duration = Duration::from_secs(3600);

fn releases(stage: &Stage) -> BTreeSet<u64> {
    stage.supervisor.workers().iter().map(|worker| worker.release).collect()
}

/// The fewest workers that were ready at any moment from now until `end`.
fn fewest(stage: &Stage, end: watch::Receiver<bool>) -> tokio::task::JoinHandle<usize> {
    let (mut roster, mut end) = (stage.roster.clone(), end);
    tokio::spawn(async move {
        let mut fewest = usize::MAX;
        loop {
            fewest = fewest.min(roster.borrow_and_update().ready("web").count());
            tokio::select! {
                _ = roster.changed() => {}
                _ = end.wait_for(|end| *end) => return fewest,
            }
        }
    })
}

#[tokio::test]
async fn a_version_takes_over_and_its_workers_know_which_they_are() {
    let mut stage = Stage::new(version(1, 4, &["serve"])).await;
    stage.until_ready(4).await;
    let (end, ended) = watch::channel(false);
    let fewest = fewest(&stage, ended);
    let watcher = Watcher::default();
    let rollout =
        stage.supervisor.roll(version(2, 4, &["release"]), policy(), Box::new(watcher.clone())).await;
    let rollout = rollout.unwrap();
    assert_eq!(soon("it ends", rollout.phase()).await, Phase::Promoted);
    end.send_replace(true);
    assert_eq!(fewest.await.unwrap(), 4, "launch before terminate");
    assert_eq!(names(&stage.until_ready(4).await), ["web-5", "web-6", "web-7", "web-8"]);
    assert_eq!(releases(&stage), [2].into());
    stage.line("its release", |line| line.text == "release 2").await;
    let steps = watcher.steps.borrow().clone();
    assert!(steps.iter().all(|step| step.old + step.new <= 5), "never more than one beside: {steps:#?}");
    assert_eq!(steps.last().unwrap().what, What::Promoted);
    // What is started now is of the new version.
    stage.supervisor.scale("web", 5).await.unwrap();
    assert_eq!(releases(&stage), [2].into());
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn one_that_does_not_start_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("fail");
    fs::write(&flag, "").unwrap();
    let mut stage = Stage::new(version(1, 3, &["serve"])).await;
    let before = stage.until_ready(3).await;
    let (end, ended) = watch::channel(false);
    let fewest = fewest(&stage, ended);
    let watcher = Watcher::default();
    let bad = version(2, 3, &["fail-if", flag.to_str().unwrap()]);
    let rollout = stage.supervisor.roll(bad, policy(), Box::new(watcher.clone())).await.unwrap();
    let Phase::RolledBack(reason, said) = soon("it ends", rollout.phase()).await else {
        panic!("it started")
    };
    assert_eq!(reason, Reason::Start);
    assert!(said.unwrap().contains("reason 12"), "with its last lines");
    end.send_replace(true);
    assert_eq!(fewest.await.unwrap(), 3);
    assert_eq!(names(&stage.until_ready(3).await), names(&before), "the old ones were not touched");
    assert_eq!(stage.supervisor.workers().len(), 3);
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn one_that_is_not_ready_within_the_grace_goes() {
    let folder = tempfile::tempdir().unwrap();
    let never = folder.path().join("never");
    let mut stage = Stage::new(version(1, 1, &["serve"])).await;
    stage.until_ready(1).await;
    let slow = Spec { ready: Some("/up".into()), ..version(2, 1, &["ready-if", never.to_str().unwrap()]) };
    let grace = Duration::from_millis(300);
    let policy = Policy { grace, ..policy() };
    let rollout = stage.supervisor.roll(slow, policy, Box::new(Watcher::default())).await.unwrap();
    let phase = soon("it ends", rollout.phase()).await;
    assert!(matches!(phase, Phase::RolledBack(Reason::Unready(it), _) if it == grace), "{phase:?}");
    assert_eq!(releases(&stage), [1].into());
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn one_that_is_worse_goes_also_while_it_is_baked() {
    let mut stage = Stage::new(version(1, 2, &["serve"])).await;
    stage.until_ready(2).await;
    for policy in [
        Policy { checkpoints: vec![50], pause: LONG, ..Policy::default() },
        Policy { bake: LONG, ..Policy::default() },
    ] {
        let is_late = policy.checkpoints.is_empty();
        let watcher = Watcher::default();
        let rollout = stage
            .supervisor
            .roll(version(2, 2, &["serve"]), policy, Box::new(watcher.clone()))
            .await
            .unwrap();
        if is_late {
            watcher.until("it bakes", |step| matches!(step.what, What::Baking { .. })).await;
            soon("all are new", rollout.stepped()).await.unwrap();
            assert_eq!(releases(&stage), [2].into());
        } else {
            watcher.until("it pauses", |step| matches!(step.what, What::Pausing { percent: 50, .. })).await;
            assert_eq!(releases(&stage), [1, 2].into(), "one of each");
        }
        watcher.worse("it answers 500");
        let phase = soon("it ends", rollout.phase()).await;
        assert_eq!(phase, Phase::RolledBack(Reason::Worse("it answers 500".into()), None));
        stage.until_ready(2).await;
        assert_eq!(releases(&stage), [1].into());
        let error = rollout.ended().await.unwrap_err().to_string();
        assert_eq!(error, "web: rolled back: it answers 500");
    }
    stage.supervisor.stop().await;
}

/// A rollout of two workers that pauses when one of them is new, and goes on when it is told to.
async fn half_way() -> (Stage, Rollout) {
    let mut stage = Stage::new(version(1, 2, &["serve"])).await;
    stage.until_ready(2).await;
    let watcher = Watcher::default();
    let policy = Policy { checkpoints: vec![50], pause: LONG, ..policy() };
    let rollout =
        stage.supervisor.roll(version(2, 2, &["serve"]), policy, Box::new(watcher.clone())).await.unwrap();
    watcher.until("it pauses", |step| matches!(step.what, What::Pausing { .. })).await;
    (stage, rollout)
}

#[tokio::test]
async fn killed_workers_come_back_in_their_own_version_and_the_number_may_change() {
    let (mut stage, rollout) = half_way().await;
    stage.until_ready(2).await;
    let of = |stage: &Stage, release: u64| {
        let workers = stage.supervisor.workers();
        let mut of = workers.into_iter().filter(|worker| worker.release == release);
        of.next().expect("one of each version").instance
    };
    for release in [1, 2] {
        let victim = of(&stage, release);
        stage.shoot(victim.as_str());
        stage.until("it is gone", |workers| workers.iter().all(|worker| worker.instance != victim)).await;
        stage.until_ready(2).await;
        assert_ne!(of(&stage, release), victim, "another one of release {release}");
    }
    // Two more: half of four are new.
    stage.supervisor.scale("web", 4).await.unwrap();
    let mut roster = stage.roster.clone();
    soon("four", roster.wait_for(|roster| roster.ready("web").count() == 4)).await.unwrap();
    let workers = stage.supervisor.workers();
    assert_eq!(workers.iter().filter(|worker| worker.release == 2).count(), 2, "{workers:#?}");
    // Only one at a time, and what would get in its way is refused.
    let second =
        stage.supervisor.roll(version(3, 2, &["serve"]), Policy::default(), Box::new(Watcher::default()));
    assert!(matches!(second.await.err(), Some(Error::Rolling(_))));
    assert!(matches!(stage.supervisor.restart("web").await, Err(Error::Rolling(_))));
    let web = ServiceName::new("web").unwrap();
    assert!(stage.supervisor.is_rolling(&web));
    assert!(rollout.call_off("ada".into()));
    let phase = soon("it ends", rollout.phase()).await;
    assert_eq!(phase, Phase::RolledBack(Reason::CalledOff("ada".into()), None));
    stage.until_ready(4).await;
    assert_eq!(releases(&stage), [1].into());
    assert!(!rollout.call_off("ada".into()), "it has ended");
    assert!(!stage.supervisor.is_rolling(&web));
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn what_bakes_is_good_when_the_next_one_comes() {
    let mut stage = Stage::new(version(1, 1, &["serve"])).await;
    stage.until_ready(1).await;
    let bakes = Policy { bake: LONG, ..Policy::default() };
    let second =
        stage.supervisor.roll(version(2, 1, &["serve"]), bakes, Box::new(Watcher::default())).await.unwrap();
    soon("it bakes", second.stepped()).await.unwrap();
    let third = stage
        .supervisor
        .roll(version(3, 1, &["serve"]), policy(), Box::new(Watcher::default()))
        .await
        .unwrap();
    assert_eq!(soon("the second ends", second.phase()).await, Phase::Promoted);
    assert_eq!(soon("the third ends", third.phase()).await, Phase::Promoted);
    assert_eq!(releases(&stage), [3].into());
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn the_gateway_s_opinion_counts_after_the_grace() {
    let mut stage = Stage::new(version(1, 1, &["serve"])).await;
    stage.until_ready(1).await;
    let watcher = Watcher::default();
    // Also how long the new worker may take to be ready, which is a process.
    let grace = Duration::from_secs(15);
    let policy = Policy { grace, bake: LONG, warm_up: Duration::ZERO, ..Policy::default() };
    let rollout =
        stage.supervisor.roll(version(2, 1, &["serve"]), policy, Box::new(watcher.clone())).await.unwrap();
    soon("it bakes", rollout.stepped()).await.unwrap();
    let ill =
        stage.workers().iter().find(|worker| worker.state == WorkerState::Ready).unwrap().instance.clone();
    watcher.comparison.lock().unwrap().out = [ill].into();
    assert_eq!(soon("it ends", rollout.phase()).await, Phase::RolledBack(Reason::Health(1), None));
    assert_eq!(releases(&stage), [1].into());
    stage.supervisor.stop().await;
}

/// Waits until all workers are of these releases, and ready.
async fn until_releases(stage: &mut Stage, expected: BTreeSet<u64>) {
    let mut roster = stage.roster.clone();
    let all = async {
        while releases(stage) != expected || !stage.workers().iter().all(is_ready) {
            roster.changed().await.unwrap();
        }
    };
    soon("the releases", all).await;
}

#[tokio::test]
async fn where_no_version_starts_the_new_one_serves_until_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("fail");
    let mut stage = Stage::new(version(1, 2, &["fail-if", flag.to_str().unwrap()])).await;
    stage.until_ready(2).await;
    for is_mended in [true, false] {
        let bakes = Policy { bake: LONG, ..Policy::default() };
        let watcher = Watcher::default();
        let second = version(2, 2, &["serve"]);
        let rollout = stage.supervisor.roll(second, bakes, Box::new(watcher.clone())).await.unwrap();
        soon("all are new", rollout.stepped()).await.unwrap();
        let new = stage.until_ready(2).await;
        fs::write(&flag, "").unwrap();
        rollout.call_off("ada".into());
        let Phase::Stuck(reason, said) = soon("it ends", rollout.phase()).await else { panic!("it is back") };
        assert_eq!(reason, Reason::CalledOff("ada".into()));
        assert!(said.unwrap().contains("reason 12"), "why the old one does not start");
        let error = rollout.ended().await.unwrap_err().to_string();
        assert!(error.contains("called off by ada; the old version does not start either"), "{error}");
        let ready = stage.workers().into_iter().filter(is_ready).collect::<Vec<_>>();
        assert_eq!(names(&ready), names(&new), "whoever can answer goes on");
        assert!(!stage.supervisor.is_rolling(&ServiceName::new("web").unwrap()));
        assert!(matches!(stage.supervisor.restart("web").await, Err(Error::Stuck(_))));
        if is_mended {
            fs::remove_file(&flag).unwrap();
            until_releases(&mut stage, [1].into()).await;
        } else {
            let third = version(3, 2, &["serve"]);
            let third = stage.supervisor.roll(third, policy(), Box::new(Watcher::default())).await.unwrap();
            assert_eq!(soon("the third takes over", third.phase()).await, Phase::Promoted);
            until_releases(&mut stage, [3].into()).await;
        }
        assert_eq!(stage.workers().len(), 2);
        let told = watcher.steps.borrow().clone();
        assert!(told.iter().all(|step| !matches!(step.what, What::RolledBack { .. })), "{told:#?}");
    }
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn a_service_without_workers_gets_no_version_untried() {
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("fail");
    fs::write(&flag, "").unwrap();
    let mut stage = Stage::new(version(1, 0, &["serve"])).await;
    let bad = version(2, 0, &["fail-if", flag.to_str().unwrap()]);
    let rollout = stage.supervisor.roll(bad, policy(), Box::new(Watcher::default())).await.unwrap();
    let phase = soon("it ends", rollout.phase()).await;
    assert!(matches!(phase, Phase::RolledBack(Reason::Start, Some(_))), "{phase:?}");
    stage.until("none", <[_]>::is_empty).await;
    // One that starts is watched as any, and leaves in the end, unless somebody needs it by then.
    for is_needed in [false, true] {
        let bakes = Policy { bake: LONG, ..Policy::default() };
        let good = version(3, 0, &["serve"]);
        let rollout = stage.supervisor.roll(good, bakes, Box::new(Watcher::default())).await.unwrap();
        soon("it is tried", rollout.stepped()).await.unwrap();
        assert_eq!((stage.until_ready(1).await.len(), stage.supervisor.wanted()["web"]), (1, 0));
        if is_needed {
            stage.supervisor.wake("web").await.unwrap();
        }
        let next = stage.supervisor.roll(version(4, 0, &["serve"]), policy(), Box::new(Watcher::default()));
        let next = next.await.unwrap();
        assert_eq!(soon("the next one comes", rollout.phase()).await, Phase::Promoted);
        assert_eq!(soon("it takes over", next.phase()).await, Phase::Promoted);
        let left = usize::from(is_needed);
        stage.until("those that are wanted", |workers| workers.len() == left).await;
        until_releases(&mut stage, if is_needed { [4].into() } else { [].into() }).await;
    }
    stage.supervisor.stop().await;
}

/// Whoever wants something in the very moment in which a rollout ends gets it, of the new version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wanted_at_the_end_of_a_rollout_is_done() {
    let mut stage = Stage::new(version(1, 0, &["serve"])).await;
    for release in 2..22 {
        let rollout = stage
            .supervisor
            .roll(version(release, 0, &["serve"]), policy(), Box::new(Watcher::default()))
            .await
            .unwrap();
        let waking = stage.supervisor.clone();
        let woken = tokio::spawn(async move { waking.wake("web").await });
        soon("it ends", rollout.phase()).await;
        let scaled = release % 2;
        stage.supervisor.resize("web", 1 + u32::try_from(scaled).unwrap()).unwrap();
        soon("it is awake", woken).await.unwrap().unwrap();
        let wanted = stage.supervisor.wanted()["web"] as usize;
        stage.until_ready(wanted).await;
        until_releases(&mut stage, [release].into()).await;
        stage.supervisor.scale("web", 0).await.unwrap();
    }
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn a_worker_is_cold_at_first() {
    let mut stage = Stage::new(version(1, 1, &["serve"])).await;
    stage.until_ready(1).await;
    for (release, cold, is_cold) in [(2, LONG, true), (3, Duration::ZERO, false)] {
        let watcher = Watcher::default();
        let policy = Policy { cold, bake: LONG, ..Policy::default() };
        let next = version(release, 1, &["serve"]);
        let rollout = stage.supervisor.roll(next, policy, Box::new(watcher.clone())).await.unwrap();
        soon("it bakes", rollout.stepped()).await.unwrap();
        let mut seen = watcher.seen.subscribe();
        let alone = seen.wait_for(|sides| sides.old.is_empty() && sides.new.len() == 1);
        let sides = soon("it is compared", alone).await.unwrap().clone();
        assert_eq!(sides.cold.len(), usize::from(is_cold), "{sides:?}");
    }
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn the_end_of_the_service_ends_it() {
    let (stage, rollout) = half_way().await;
    soon("it is removed", stage.supervisor.remove("web")).await.unwrap();
    assert_eq!(soon("it ends", rollout.phase()).await, Phase::Interrupted);
    stage.supervisor.stop().await;
}

#[tokio::test]
async fn a_stop_ends_it() {
    let (stage, rollout) = half_way().await;
    stage.supervisor.stop().await;
    assert_eq!(soon("it ends", rollout.phase()).await, Phase::Interrupted);
    assert!(stage.supervisor.workers().is_empty());
}
