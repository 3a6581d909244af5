//! New releases under load: what is good takes over without one failed request, what is not goes back by itself, and what
//! came of it is remembered. Each waits for what it expects to be told.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use anyhow::{Context, ensure};
use lethe_admin::releases::{Deploy, Event, Outcome, Release, Rollback};
use lethe_model::roster::WorkerState;
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    lethe::{Lethe, PATIENCE, Place, kill_9},
    teller::{self, Told},
    visitor::Visitor,
};

/// Visitors, each with a request under way at all times.
const VISITORS: usize = 4;

/// A teller of which `lethe.toml` says how it behaves: it fails, fails once there is a file `fail`, fails whoever asks for its health, is slow, ends at once, or
/// does not listen before there is a file.
const HABITS: &str = "
import os, time
class Habit(Handler):
    def do_GET(self):
        habit = os.environ.get('HABIT', '')
        if habit == 'slow': time.sleep(2)
        if self.path == '/long': time.sleep(0.5)
        if habit == 'ill' and self.path == '/health': habit = 'fails'
        if habit == 'fails later' and os.path.exists('fail'): habit = 'fails'
        if habit != 'fails': return super().do_GET()
        self.send_response(500); self.send_header('Content-Length', '0'); self.end_headers()
    do_POST = do_GET
if os.environ.get('HABIT') == 'ends': raise SystemExit('no database')
while 'GATE' in os.environ and not os.path.exists(os.environ['GATE']): time.sleep(0.01)
";

/// A folder with the app, a `lethe.toml` that changes and a `lethe` that runs it.
struct Project {
    place: Place,
}

impl Project {
    fn new() -> anyhow::Result<Self> {
        let project = Self { place: Place::new()? };
        let (before, after) =
            teller::PROGRAM.split_once("class UnixServer").context("the teller has a server")?;
        let program = format!("{before}{HABITS}\nclass UnixServer{after}").replace(", Handler)", ", Habit)");
        fs::write(project.place.path().join("app.py"), program)?;
        Ok(project)
    }

    fn file(&self) -> PathBuf {
        self.place.path().join("lethe.toml")
    }

    /// The service `web` with this word, habit, and rollout.
    fn write(&self, instances: usize, word: &str, habit: &str, rollout: &str) -> anyhow::Result<()> {
        let toml = format!(
            "[services.web]\ncommand = \"python3 app.py\"\ninstances = {instances}\neject = \"off\"\n\
             env = {{ WORD = \"{word}\", HABIT = \"{habit}\", SECRET = \"hunter2-{word}\" }}\n\
             [services.web.rollout]\n{rollout}\n"
        );
        Ok(fs::write(self.file(), toml)?)
    }

    async fn up(&self) -> anyhow::Result<Lethe> {
        self.place.up(&[self.file().to_str().context("UTF-8")?]).await
    }

    fn tell(&self, arguments: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
        let output = self.place.tell(arguments)?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8(text)?))
    }
}

/// Visitors of a service, and what they have seen.
struct Load {
    end: watch::Sender<bool>,
    answers: Arc<AtomicUsize>,
    visitors: Vec<JoinHandle<anyhow::Result<Seen>>>,
}

/// Words and statuses.
type Seen = BTreeSet<(String, u16)>;

impl Load {
    fn on(lethe: &Lethe, long: bool) -> Self {
        let (end, ended) = watch::channel(false);
        let answers = Arc::new(AtomicUsize::new(0));
        let visitors = (0..VISITORS)
            .map(|number| {
                let (mut visitor, ended, answers) =
                    (Visitor::new(lethe.listen), ended.clone(), Arc::clone(&answers));
                let path = if long && number == 0 { "/long" } else { "/" };
                tokio::spawn(async move {
                    let mut seen = Seen::new();
                    while !*ended.borrow() {
                        let page = visitor.get(path).await?;
                        let word = match Told::by(&page) {
                            Ok(told) => told.word.to_owned(),
                            Err(_) => String::new(),
                        };
                        answers.fetch_add(1, Relaxed);
                        seen.insert((word, page.status.as_u16()));
                    }
                    Ok(seen)
                })
            })
            .collect();
        Self { end, answers, visitors }
    }

    /// What all have seen.
    async fn end(self) -> anyhow::Result<Seen> {
        self.end.send_replace(true);
        let mut seen = Seen::new();
        for visitor in self.visitors {
            seen.append(&mut visitor.await??);
        }
        Ok(seen)
    }

    /// Waits until so many more requests were answered.
    async fn answers(&self, lethe: &Lethe, more: usize) -> anyhow::Result<()> {
        let goal = self.answers.load(Relaxed) + more;
        let mut visitor = Visitor::new(lethe.listen);
        while self.answers.load(Relaxed) < goal {
            visitor.get("/").await?;
        }
        Ok(())
    }
}

/// What happens until an event that is as wanted, or the end.
async fn until(lethe: &Lethe, what: &str, wanted: impl Fn(&Event) -> bool) -> anyhow::Result<Vec<Event>> {
    let mut events = lethe.client.rollout("web").await?;
    let mut seen = Vec::new();
    loop {
        let next = tokio::time::timeout(PATIENCE, events.next()).await;
        let next =
            next.with_context(|| format!("not within {PATIENCE:?}: {what}\n{}", lethe.output.text()))?;
        let event = next?.with_context(|| format!("lethe ended before {what}"))?;
        let (is_wanted, is_end) = (wanted(&event), event.is_end());
        seen.push(event);
        if is_wanted {
            return Ok(seen);
        }
        ensure!(!is_end, "it ended before {what}: {seen:#?}");
    }
}

async fn ended(lethe: &Lethe) -> anyhow::Result<Event> {
    let mut events = until(lethe, "its end", Event::is_end).await?;
    events.pop().context("it has an end")
}

/// Rolls out what the file says, to the end.
async fn deploy(lethe: &Lethe) -> anyhow::Result<Event> {
    lethe.client.deploy("web", &Deploy::default()).await?;
    ended(lethe).await
}

/// The releases of the workers that are ready.
async fn releases(lethe: &Lethe) -> anyhow::Result<Vec<u64>> {
    let workers = lethe.workers().await?.into_iter();
    let ready = workers.filter(|worker| worker.state == WorkerState::Ready);
    Ok(ready.map(|worker| worker.release).collect())
}

async fn last(lethe: &Lethe) -> anyhow::Result<Release> {
    lethe.client.history("web").await?.pop().context("it has a history")
}

const QUICK: &str = "bake = '0s'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_release_takes_over_without_a_failed_request() -> anyhow::Result<()> {
    let project = Project::new()?;
    project.write(3, "one", "", QUICK)?;
    let lethe = project.up().await?;
    lethe.ready(3).await?;
    let load = Load::on(&lethe, true);
    load.answers(&lethe, 50).await?;
    project.write(3, "two", "", QUICK)?;
    let (status, text) = project.tell(&["deploy", "web", "--message", "a second word"])?;
    ensure!(status == Some(0), "{text}");
    for part in [
        "web: release 2, in the place of 1",
        "1 new worker starts",
        "1 old worker drains",
        "has taken over",
        "lethe rollback web",
    ] {
        ensure!(text.contains(part), "{part}: {text}");
    }
    load.answers(&lethe, 50).await?;
    let seen = load.end().await?;
    let expected: Seen = [("one".into(), 200), ("two".into(), 200)].into();
    ensure!(seen == expected, "each version was seen, and nothing else: {seen:?}");
    ensure!(releases(&lethe).await? == [2, 2, 2]);

    // What it was is remembered, and no secret of it; also when lethe is started again.
    lethe.down().await?;
    let history = project.place.state().join("releases/web.json");
    let text = fs::read_to_string(&history)?;
    ensure!(!text.contains("hunter2"), "{text}");
    let lethe = project.up().await?;
    lethe.ready(3).await?;
    let known = lethe.client.history("web").await?;
    ensure!(known.len() == 2, "what is the same is no new release: {known:#?}");
    let two = &known[1];
    ensure!((two.release, two.from, two.outcome) == (2, Some(1), Outcome::Promoted), "{two:#?}");
    ensure!(two.message.as_deref() == Some("a second word"), "{two:#?}");
    ensure!(two.by.as_ref().is_some_and(|by| by.uid == rustix::process::getuid().as_raw()), "{two:#?}");
    ensure!(releases(&lethe).await? == [2, 2, 2]);
    let (status, text) = project.tell(&["history", "web"])?;
    ensure!(status == Some(0) && text.contains("a second word") && text.contains("promoted"), "{text}");
    lethe.down().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_does_not_start_is_rolled_back_and_so_is_a_reload_of_it() -> anyhow::Result<()> {
    let project = Project::new()?;
    project.write(2, "one", "", QUICK)?;
    let lethe = project.up().await?;
    lethe.ready(2).await?;
    let before: BTreeSet<String> = lethe.workers().await?.iter().map(|it| it.instance.to_string()).collect();
    let load = Load::on(&lethe, false);
    project.write(2, "two", "ends", QUICK)?;
    let (status, text) = project.tell(&["deploy", "web"])?;
    ensure!(status == Some(1) && text.contains("was rolled back") && text.contains("no database"), "{text}");
    let known = last(&lethe).await?;
    ensure!(known.outcome == Outcome::RolledBack, "{known:#?}");
    ensure!(known.reason.as_ref().is_some_and(|why| why.contains("no database")), "{known:#?}");
    let (status, text) = project.tell(&["reload"])?;
    ensure!(
        status == Some(1) && text.contains("no database") && text.contains("nothing was changed"),
        "{text}"
    );
    let seen = load.end().await?;
    ensure!(seen == [("one".into(), 200)].into(), "{seen:?}");
    let after: BTreeSet<String> = lethe.workers().await?.iter().map(|it| it.instance.to_string()).collect();
    ensure!(after == before, "the old workers were not touched: {before:?} {after:?}");
    lethe.down().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_fails_or_is_slow_is_rolled_back_with_the_reason() -> anyhow::Result<()> {
    let project = Project::new()?;
    let watched = "bake = '24h'\ncheckpoints = [50]\npause = '24h'\nrequests = 20";
    project.write(2, "one", "", watched)?;
    let lethe = project.up().await?;
    lethe.ready(2).await?;
    let load = Load::on(&lethe, false);
    load.answers(&lethe, 50).await?;
    for (habit, why) in [("fails", "of its"), ("slow", "95 of 100 answers take up to")] {
        project.write(2, habit, habit, watched)?;
        let end = deploy(&lethe).await?;
        ensure!(end.step == "rolled-back" && end.text.contains(why), "{habit}: {end:?}");
        let known = last(&lethe).await?;
        ensure!(known.reason.as_ref().is_some_and(|reason| reason.contains(why)), "{known:#?}");
        lethe.ready(2).await?;
        ensure!(releases(&lethe).await? == [1, 1], "{habit}");
        load.answers(&lethe, 50).await?;
    }
    // The same while nothing but the new one is there, by way of a reload: it is whole, and this service goes back later.
    let baked = "bake = '24h'\nrequests = 20";
    project.write(2, "three", "fails later", baked)?;
    lethe.client.reload().await?;
    fs::write(project.place.path().join("fail"), "")?;
    let end = ended(&lethe).await?;
    ensure!(end.step == "rolled-back" && end.text.contains("answers fail"), "{end:?}");
    lethe.ready(2).await?;
    ensure!(releases(&lethe).await? == [1, 1]);
    load.answers(&lethe, 50).await?;
    load.end().await?;
    lethe.down().await
}

/// Its answers are good; nobody but who asks for its health sees that it is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_health_fails_is_rolled_back() -> anyhow::Result<()> {
    let project = Project::new()?;
    let write = |word: &str, habit: &str| {
        project.write(2, word, habit, "bake = '24h'\ngrace = '1s'")?;
        let toml = fs::read_to_string(project.file())?;
        // Those that are out get nothing, and one of two may be.
        let health = "health = { path = '/health', every = '2s', timeout = '2s', failures = 2 }";
        anyhow::Ok(fs::write(project.file(), toml.replace("eject = \"off\"", health))?)
    };
    write("one", "")?;
    let lethe = project.up().await?;
    lethe.ready(2).await?;
    let load = Load::on(&lethe, false);
    load.answers(&lethe, 20).await?;
    write("two", "ill")?;
    let end = deploy(&lethe).await?;
    ensure!(end.step == "rolled-back" && end.text.contains("unhealthy"), "{end:?}");
    ensure!(last(&lethe).await?.reason.is_some_and(|why| why.contains("unhealthy")));
    lethe.ready(2).await?;
    ensure!(releases(&lethe).await? == [1, 1]);
    load.answers(&lethe, 20).await?;
    let seen = load.end().await?;
    ensure!(seen.iter().all(|(_, status)| *status == 200), "{seen:?}");
    lethe.down().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_a_checkpoint_it_pauses_and_may_be_called_off() -> anyhow::Result<()> {
    let project = Project::new()?;
    let paused = "checkpoints = [50]\npause = '24h'\nbake = '0s'";
    project.write(2, "one", "", paused)?;
    let lethe = project.up().await?;
    lethe.ready(2).await?;
    let load = Load::on(&lethe, false);
    project.write(2, "two", "", paused)?;
    lethe.client.deploy("web", &Deploy::default()).await?;
    until(&lethe, "a pause", |event| event.step == "pausing").await?;
    lethe.ready(2).await?;
    let mut both = releases(&lethe).await?;
    both.sort_unstable();
    ensure!(both == [1, 2], "{both:?}");
    let (_, text) = project.tell(&["ps"])?;
    ensure!(text.contains("RELEASE"), "{text}");
    // Whatever is killed comes back as what it was, and nobody notices.
    for worker in lethe.workers().await? {
        let (old, release) = (worker.instance.clone(), worker.release);
        kill_9(worker.pid.context("it runs")?)?;
        lethe
            .until("its successor", async || {
                let workers = lethe.workers().await.ok()?;
                let is_back = workers.iter().all(|it| it.instance != old && it.state == WorkerState::Ready);
                let of = workers.iter().filter(|worker| worker.release == release).count();
                (is_back && workers.len() == 2 && of == 1).then_some(())
            })
            .await?;
    }
    // One at a time; the number may change meanwhile.
    let (status, text) = project.tell(&["deploy", "web"])?;
    ensure!(status == Some(1) && text.contains("a rollout is under way"), "{text}");
    lethe.client.scale("web", 4).await?;
    let mut four = releases(&lethe).await?;
    four.sort_unstable();
    ensure!(four == [1, 1, 2, 2], "{four:?}");
    let (status, text) = project.tell(&["deploy", "web", "--abort"])?;
    ensure!(status == Some(0) && text.contains("release 2 is called off; release 1 runs"), "{text}");
    lethe.ready(4).await?;
    ensure!(releases(&lethe).await? == [1, 1, 1, 1]);
    let (status, text) = project.tell(&["deploy", "web", "--abort"])?;
    ensure!(status == Some(1) && text.contains("no rollout is under way"), "{text}");
    let seen = load.end().await?;
    ensure!(seen.iter().all(|(_, status)| *status == 200), "{seen:?}");
    lethe.down().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_earlier_release_comes_back() -> anyhow::Result<()> {
    let project = Project::new()?;
    project.write(2, "one", "", QUICK)?;
    let lethe = project.up().await?;
    lethe.ready(2).await?;
    for word in ["two", "three"] {
        project.write(2, word, "", QUICK)?;
        ensure!(deploy(&lethe).await?.is_good());
    }
    let load = Load::on(&lethe, false);
    let (status, text) = project.tell(&["rollback", "web"])?;
    ensure!(status == Some(0) && text.contains("web: release 2, in the place of 3"), "{text}");
    ensure!(releases(&lethe).await? == [2, 2]);
    let page = Visitor::new(lethe.listen).get("/").await?;
    ensure!(Told::by(&page)?.word == "two", "with the environment that it had: {page:?}");
    lethe.client.rollback("web", &Rollback { to: Some(1), ..Rollback::default() }).await?;
    ensure!(ended(&lethe).await?.is_good());
    ensure!(releases(&lethe).await? == [1, 1]);
    for (arguments, why) in [
        (["rollback", "web", "--to", "1"], "release 1 is the one that runs"),
        (["rollback", "web", "--to", "9"], "no release 9"),
    ] {
        let (status, text) = project.tell(&arguments)?;
        ensure!(status == Some(1) && text.contains(why), "{text}");
    }
    // What was done by hand stays as long as the file says the same.
    ensure!(lethe.client.reload().await?.changes.is_empty());
    ensure!(releases(&lethe).await? == [1, 1]);
    let seen = load.end().await?;
    ensure!(seen.iter().all(|(_, status)| *status == 200), "{seen:?}");
    lethe.down().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_the_next_lethe_runs_one_release() -> anyhow::Result<()> {
    let project = Project::new()?;
    let repository = project.place.path().join("app.git");
    let script = "mkdir app.git && cp app.py app.git && cd app.git && git init -q && git config user.email a@b && \
                  git config user.name a && git add . && git commit -qm 1 && git tag v1 && \
                  sed -i \"s/'WORD'\\]/'WORD', 'LETHE_RELEASE']/\" app.py && git commit -qam 2 && git tag v2";
    let made =
        std::process::Command::new("sh").current_dir(project.place.path()).args(["-c", script]).status()?;
    ensure!(made.success());
    let toml = format!(
        "[services.web]\ncommand = 'python3 app.py'\nsource = 'file://{}#v1'\n[services.web.rollout]\n\
         checkpoints = [50]\npause = '24h'\nbake = '0s'\n",
        repository.display()
    );
    fs::write(project.file(), &toml)?;
    let lethe = project.up().await?;
    lethe.ready(2).await?;
    let first = last(&lethe).await?;
    ensure!(first.revision.as_ref().is_some_and(|commit| commit.len() == 40), "{first:#?}");
    let v2 = Deploy { source: Some("#v2".into()), message: None };
    lethe.client.deploy("web", &v2).await?;
    until(&lethe, "a pause", |event| event.step == "pausing").await?;
    lethe.ready(2).await?;
    // Of both versions, there are workers now.
    kill_9(lethe.pid())?;
    lethe.ended().await?;
    let lethe = project.up().await?;
    lethe.ready(2).await?;
    ensure!(releases(&lethe).await? == [1, 1], "the last good one, by its number");
    let cut = last(&lethe).await?;
    ensure!((cut.release, cut.outcome) == (2, Outcome::Interrupted), "{cut:#?}");

    // What was chosen by hand stays over a restart, until the file names another source.
    fs::write(project.file(), toml.replace("checkpoints = [50]\n", ""))?;
    lethe.client.reload().await?;
    lethe.client.deploy("web", &v2).await?;
    let end = ended(&lethe).await?;
    ensure!(end.is_good(), "{end:?}");
    let chosen = last(&lethe).await?;
    ensure!(chosen.revision != first.revision, "{chosen:#?}");
    lethe.down().await?;
    let lethe = project.up().await?;
    lethe.ready(2).await?;
    ensure!(releases(&lethe).await? == [chosen.release, chosen.release]);
    // The specs of earlier releases are gone with the process that had them; their commits are not.
    let (status, text) = project.tell(&["rollback", "web", "--to", "1"])?;
    ensure!(status == Some(0), "{text}");
    let back = last(&lethe).await?;
    ensure!((back.release, &back.revision) == (1, &first.revision), "{back:#?}");
    ensure!(releases(&lethe).await? == [1, 1]);
    lethe.down().await?;

    // A source that cannot be fetched leaves what runs alone.
    let lethe = project.up().await?;
    lethe.ready(2).await?;
    let (status, text) = project.tell(&["deploy", "web", "--source", "#v9"])?;
    ensure!(status == Some(1) && text.contains("was not made") && text.contains("v9"), "{text}");
    let known = last(&lethe).await?;
    ensure!(known.outcome == Outcome::Failed, "{known:#?}");
    ensure!(releases(&lethe).await? == [1, 1]);
    lethe.down().await
}

/// Two services whose programs are in the folder: `web`, which is asked, and `yard`, whose workers wait for their gate.
fn pair(web: &str, yard: &str) -> String {
    let service = |name: &str, env: &str| {
        format!(
            "[services.{name}]\ncommand = \"python3 app.py\"\ninstances = 1\neject = \"off\"\nenv = {{ {env} }}\n\
             [services.{name}.rollout]\nbake = '24h'\nrequests = 20\n"
        )
    };
    let routes =
        "[[routes]]\npath = \"/\"\nservice = \"web\"\n[[routes]]\npath = \"/yard\"\nservice = \"yard\"\n";
    format!("{}{}{routes}", service("web", web), service("yard", yard))
}

/// A reload that takes its time, while a release goes back: one that is its own, and one that is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_goes_back_while_a_reload_waits_for_another() -> anyhow::Result<()> {
    let project = Project::new()?;
    let file = |name: &str| project.place.path().join(name);
    let (one, later) = ("WORD = 'one'", "WORD = 'two', HABIT = 'fails later'");
    fs::write(project.file(), pair(one, "WORD = 'one'"))?;
    let lethe = project.up().await?;
    lethe.ready(2).await?;
    let load = Load::on(&lethe, false);
    let starts = async |count: usize| {
        let look = async || (lethe.workers().await.ok()?.len() == count).then_some(());
        lethe.until("the yard's worker starts", look).await
    };

    // A release that was deployed: its end is told at once, whatever else is going on.
    fs::write(project.file(), pair(later, "WORD = 'one'"))?;
    lethe.client.deploy("web", &Deploy::default()).await?;
    until(&lethe, "it bakes", |event| event.step == "baking").await?;
    fs::write(project.file(), pair(one, "WORD = 'two', GATE = 'first'"))?;
    let client = lethe.client.clone();
    let reload = tokio::spawn(async move { client.reload().await });
    starts(3).await?;
    fs::write(file("fail"), "")?;
    let end = ended(&lethe).await?;
    ensure!(end.step == "rolled-back" && end.text.contains("answers fail"), "{end:?}");
    ensure!(!reload.is_finished(), "its worker is not ready yet");
    fs::write(file("first"), "")?;
    reload.await??;
    fs::remove_file(file("fail"))?;

    // A release of the reload itself: it is whole or not at all, until its last release has come.
    fs::write(project.file(), pair(later, "WORD = 'three', GATE = 'second'"))?;
    let client = lethe.client.clone();
    let reload = tokio::spawn(async move { client.reload().await });
    starts(3).await?;
    until(&lethe, "it bakes", |event| event.step == "baking").await?;
    fs::write(file("fail"), "")?;
    until(&lethe, "it goes back", |event| event.step == "going-back").await?;
    fs::write(file("second"), "")?;
    let error = reload.await?.map(|reloaded| reloaded.changes).unwrap_err().to_string();
    ensure!(error.contains("web: rolled back: ") && error.contains("nothing was changed"), "{error}");
    let end = ended(&lethe).await?;
    ensure!(end.step == "rolled-back" && end.text.contains("answers fail"), "{end:?}");
    lethe.ready(2).await?;
    load.end().await?;
    lethe.down().await
}

/// What is watched is good when the next one comes, and is there when that one goes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_back_to_what_was_watched_still() -> anyhow::Result<()> {
    let project = Project::new()?;
    let program = fs::read(project.place.path().join("app.py"))?;
    let write = |number: u32| -> anyhow::Result<()> {
        let folder = project.place.path().join(format!("src-{number}"));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("app.py"), &program)?;
        fs::write(folder.join("number"), number.to_string())?;
        let toml = format!(
            "[services.web]\nsource = \"./src-{number}\"\ncommand = \"python3 app.py\"\ninstances = 1\n\
             env = {{ WORD = '{number}' }}\n[services.web.rollout]\nbake = '24h'\n"
        );
        Ok(fs::write(project.file(), toml)?)
    };
    write(1)?;
    let lethe = project.up().await?;
    lethe.ready(1).await?;
    for number in [2, 3] {
        write(number)?;
        lethe.client.reload().await?;
    }
    lethe.ready(1).await?;
    ensure!(releases(&lethe).await? == [3]);
    lethe
        .until("the second is remembered", async || {
            let history = lethe.client.history("web").await.ok()?;
            history.iter().any(|it| it.release == 2 && it.outcome == Outcome::Promoted).then_some(())
        })
        .await?;
    let begun = lethe.client.rollback("web", &Rollback::default()).await?;
    ensure!(begun.is_called_off && begun.from == Some(2), "{begun:?}");
    let end = ended(&lethe).await?;
    ensure!(end.step == "rolled-back" && !end.text.contains("does not start"), "{end:?}");
    lethe.ready(1).await?;
    ensure!(releases(&lethe).await? == [2]);
    let page = Visitor::new(lethe.listen).get("/").await?;
    ensure!(Told::by(&page)?.word == "2", "{page:?}");
    // The file says something else than what runs, and is tried again.
    ensure!(!lethe.client.reload().await?.changes.is_empty());
    ensure!(releases(&lethe).await? == [4]);
    lethe.down().await
}

/// Whoever calls off one rollout does not call off another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_called_off_is_what_is_under_way() -> anyhow::Result<()> {
    let project = Project::new()?;
    project.write(1, "one", "", "bake = '24h'")?;
    let lethe = project.up().await?;
    lethe.ready(1).await?;
    project.write(1, "two", "", QUICK)?;
    ensure!(deploy(&lethe).await?.is_good());
    lethe.client.rollback("web", &Rollback::default()).await?;
    until(&lethe, "it bakes", |event| event.step == "baking").await?;
    // Who goes back while somebody else does wants the same, and not what he goes back from.
    let error = lethe.client.rollback("web", &Rollback::default()).await.unwrap_err().to_string();
    ensure!(error.contains("a rollout is under way"), "{error}");
    ensure!(releases(&lethe).await? == [1]);
    // One that is being built is called off, and what is watched still is not.
    let toml = fs::read_to_string(project.file())?;
    fs::write(project.place.path().join("gate.sh"), "while [ ! -e gate ]; do sleep 0.01; done")?;
    let gated = "command = \"python3 app.py\"\nbuild = \"sh gate.sh\"";
    fs::write(project.file(), toml.replace("command = \"python3 app.py\"", gated))?;
    lethe.client.deploy("web", &Deploy::default()).await?;
    until(&lethe, "it is built", |event| event.step == "building").await?;
    let abort = Rollback { abort: true, ..Rollback::default() };
    let begun = lethe.client.rollback("web", &abort).await?;
    ensure!(begun.is_called_off && begun.release == 3, "{begun:?}");
    let end = ended(&lethe).await?;
    ensure!(end.step == "rolled-back" && end.text.contains("called off by"), "{end:?}");
    ensure!(releases(&lethe).await? == [1]);
    let error = lethe.client.rollback("web", &abort).await.unwrap_err().to_string();
    ensure!(error.contains("no rollout is under way"), "{error}");
    ensure!(releases(&lethe).await? == [1], "it is watched still");
    lethe.down().await
}
