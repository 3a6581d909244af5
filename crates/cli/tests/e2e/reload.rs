//! The configuration changes while requests are served: what is right takes effect without one failed request, what is
//! wrong changes nothing.

use std::{fs, path::PathBuf};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::Method;
use rustix::process::Signal;
use tokio::sync::watch;

use crate::{
    h2c_worker,
    lethe::{Lethe, Place},
    seed::Random,
    teller::{self, Told},
    visitor::Visitor,
};

/// Reloads under load.
const RELOADS: usize = 20;
/// Visitors, each with a request under way at all times.
const VISITORS: usize = 4;

/// A folder with the app and a `lethe.toml` that changes.
struct Project {
    place: Place,
}

impl Project {
    fn new(toml: &str) -> anyhow::Result<Self> {
        let project = Self { place: Place::new()? };
        fs::write(project.place.path().join("app.py"), teller::PROGRAM)?;
        project.write(toml)?;
        Ok(project)
    }

    fn file(&self) -> PathBuf {
        self.place.path().join("lethe.toml")
    }

    fn write(&self, toml: &str) -> anyhow::Result<()> {
        Ok(fs::write(self.file(), toml)?)
    }

    async fn up(&self) -> anyhow::Result<Lethe> {
        self.place.up(&[self.file().to_str().context("UTF-8")?]).await
    }

    /// `lethe reload`: its exit status and what it said.
    fn reload(&self) -> anyhow::Result<(Option<i32>, String)> {
        let output = self.place.tell(&["reload"])?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8(text)?))
    }
}

fn service(name: &str, instances: usize, more: &str) -> String {
    format!("[services.{name}]\ncommand = \"python3 app.py\"\ninstances = {instances}\n{more}\n")
}

fn route(path: &str, service: &str, more: &str) -> String {
    format!("[[routes]]\npath = \"{path}\"\nservice = \"{service}\"\n{more}\n")
}

/// What a page is told by: its service and its word.
async fn who(visitor: &mut Visitor, path: &str) -> anyhow::Result<(String, String)> {
    let page = visitor.get(path).await?;
    ensure!(page.status == 200, "{path}: {page:?}");
    let told = Told::by(&page)?;
    Ok((told.service.into(), told.word.into()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_no_request_fails() -> anyhow::Result<()> {
    let mut random = Random::for_test("under_load_no_request_fails");
    let project =
        Project::new(&(service("web", 2, "") + &route("/", "web", "") + &route("/moving", "web", "")))?;
    let lethe = project.up().await?;
    lethe.ready(2).await?;
    let (end, ended) = watch::channel(false);
    let visitors: Vec<_> = (0..VISITORS)
        .map(|number| {
            let (mut visitor, ended) = (Visitor::new(lethe.listen), ended.clone());
            tokio::spawn(async move {
                let mut count = 0;
                while !*ended.borrow() {
                    let path = ["/", "/moving"][count % 2];
                    // A POST is not sent again: a worker that ends too early is seen at once.
                    let method = if number % 2 == 0 { Method::GET } else { Method::POST };
                    let body = if number % 2 == 0 { Bytes::new() } else { Bytes::from_static(b"a=1") };
                    let page = visitor
                        .send(method, path, &[], body)
                        .await
                        .with_context(|| format!("{path} {count}"))?;
                    ensure!(page.status == 200, "{path} {count}: {page:?}");
                    count += 1;
                }
                Ok(count)
            })
        })
        .collect();
    let ready = tokio::spawn({
        let admin = lethe.client.status().await?.node.admin.context("an admin address")?;
        async move {
            let mut operator = Visitor::new(admin);
            while !*ended.borrow() {
                let page = operator.get("/readyz").await?;
                ensure!(page.status == 200, "a load balancer would turn away: {page:?}");
            }
            Ok(())
        }
    });
    let mut word = 0;
    for number in 0..RELOADS {
        let instances = 1 + random.below(3);
        // Sometimes only the routes and limits change, so that a reload is quick.
        if random.below(2) == 0 {
            word = number;
        }
        let mut toml = format!(
            "trusted-proxies = [\"10.{number}.0.0/16\"]\n[limits]\nqueue-max = {}\nidle-timeout = \"{}s\"\n",
            100 + number,
            60 + number
        );
        let policy =
            format!("env = {{ WORD = \"{word}\" }}\nconcurrency = {}\nslow-start = \"10ms\"", 50 + number);
        toml += &service("web", instances, &policy);
        // The service of `/moving` comes with this reload and goes with the next, or is one that stays.
        let moving = if random.below(3) > 0 { format!("new-{number}") } else { "web".into() };
        if moving != "web" {
            toml += &service(&moving, 1 + random.below(2), "");
        }
        toml +=
            &(route("/", "web", &format!("timeout = \"{}s\"", 30 + number)) + &route("/moving", &moving, ""));
        project.write(&toml)?;
        let reloaded = lethe.client.reload().await.with_context(|| format!("reload {number}:\n{toml}"))?;
        ensure!(!reloaded.changes.is_empty(), "the routes have changed");
        let mut visitor = Visitor::new(lethe.listen);
        ensure!(who(&mut visitor, "/moving").await?.0 == moving, "reload {number}: {moving} answers at once");
        for _ in 0..instances {
            let (service, said) = who(&mut visitor, "/").await?;
            ensure!(
                (service.as_str(), said) == ("web", word.to_string()),
                "reload {number}: every worker is new"
            );
        }
        let status = lethe.client.status().await?;
        let names: Vec<_> = status.services.iter().map(|service| service.name.as_str()).collect();
        let mut wanted = vec![moving.as_str(), "web"];
        wanted.dedup();
        ensure!(names == wanted, "reload {number}: {names:?}, and wanted are {wanted:?}");
        // The last of the old version may be leaving still.
        lethe
            .until(&format!("reload {number}: web has {instances} workers"), async || {
                let workers = lethe.workers().await.ok()?;
                let web = workers.iter().filter(|worker| worker.service.as_str() == "web").count();
                (web == instances).then_some(())
            })
            .await?;
    }
    end.send_replace(true);
    ready.await??;
    let mut answered = 0;
    for visitor in visitors {
        answered += visitor.await??;
    }
    println!("{answered} requests were answered during {RELOADS} reloads, and none failed");
    ensure!(answered > RELOADS * VISITORS, "there was load");
    let gateway = lethe.client.status().await?.gateway;
    ensure!(gateway.shed == 0 && gateway.responses[3..] == [0, 0], "{gateway:?}");
    lethe.down().await
}

/// The program and what it speaks change together, there and back: each worker is spoken to as its version wants it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_http2_and_back_no_request_fails() -> anyhow::Result<()> {
    let plain = service("web", 2, "");
    let speaks_h2c =
        format!("[services.web]\ncommand = {}\nprotocol = \"h2c\"\ninstances = 2\n", h2c_worker::command()?);
    let project = Project::new(&plain)?;
    let lethe = project.up().await?;
    lethe.ready(2).await?;
    let (end, ended) = watch::channel(false);
    let visitors = [(); VISITORS].map(|()| {
        let (mut visitor, ended) = (Visitor::new(lethe.listen), ended.clone());
        tokio::spawn(async move {
            let mut count = 0;
            while !*ended.borrow() {
                let page = visitor.send(Method::POST, "/", &[], Bytes::from_static(b"a=1")).await;
                let page = page.with_context(|| format!("post {count}"))?;
                ensure!(page.status == 200, "post {count}: {page:?}");
                count += 1;
            }
            Ok(count)
        })
    });
    let mut visitor = Visitor::new(lethe.listen);
    for (toml, by_http2) in [(&speaks_h2c, true), (&plain, false), (&speaks_h2c, true)] {
        project.write(toml)?;
        let reloaded = lethe.client.reload().await?;
        ensure!(reloaded.changes.iter().any(|change| change.contains("`protocol`")), "{reloaded:?}");
        for _ in 0..2 {
            let page = visitor.get("/").await?;
            ensure!((page.text() == h2c_worker::ANSWER) == by_http2, "all workers are new: {page:?}");
        }
    }
    end.send_replace(true);
    let mut answered: usize = 0;
    for visitor in visitors {
        answered += visitor.await??;
    }
    println!("{answered} posts were answered while the protocol changed, and none failed");
    ensure!(answered > 10 * VISITORS, "there was load");
    let gateway = lethe.client.status().await?.gateway;
    ensure!(gateway.shed == 0 && gateway.responses[3..] == [0, 0], "{gateway:?}");
    lethe.down().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_changes_nothing() -> anyhow::Result<()> {
    let good = service("web", 1, "env = { WORD = \"good\" }");
    let project = Project::new(&good)?;
    let lethe = project.up().await?;
    let before = lethe.ready(1).await?.workers[0].instance.clone();
    let unreachable = "command = \"sh -c 'echo the disk is missing; exit 7'\"\ninstances = 1\n";
    let broken = format!("[services.broken]\n{unreachable}");
    let two = route("/", "web", "") + &route("/broken", "broken", "");
    for (toml, said) in [
        (format!("{good}replcas = 3\n"), &["lethe.toml:5:1: unknown key `replcas`", "5 | replcas = 3"][..]),
        (good.replace("app.py\"", "app.py"), &["lethe.toml:2:"]),
        (format!("cores = 77\n{good}"), &["`cores` cannot change", "restart"]),
        // A new service that cannot start, while the other one is to change as well.
        (format!("{}{broken}{two}", good.replace("good", "other")), &["broken", "the disk is missing"]),
        // And one that is there already and cannot start any more.
        (format!("[services.web]\n{unreachable}"), &["web", "the disk is missing"]),
    ] {
        project.write(&toml)?;
        let (status, text) = project.reload()?;
        ensure!(status == Some(1) && text.contains("nothing was changed"), "{toml}\n{text}");
        for part in said {
            ensure!(text.contains(part), "{toml}\nsaid no `{part}`:\n{text}");
        }
        let now = who(&mut Visitor::new(lethe.listen), "/").await?;
        ensure!(now == ("web".into(), "good".into()), "{toml}\n{now:?}");
        let page = Visitor::new(lethe.listen).get("/broken").await?;
        ensure!(page.text().starts_with("web "), "there is no other route: {page:?}");
        let status = lethe.ready(1).await?;
        ensure!(status.services.len() == 1 && status.workers[0].instance == before, "{toml}\n{status:?}");
    }
    project.write(&good)?;
    let (status, text) = project.reload()?;
    ensure!(status == Some(0) && text == "nothing has changed\n", "{text}");
    lethe.down().await
}

/// What was done already when a later step fails is taken back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_of_it_is_taken_back() -> anyhow::Result<()> {
    let both = route("/", "first", "") + &route("/second", "second", "");
    let toml = service("first", 1, "env = { WORD = \"good\" }") + &service("second", 1, "") + &both;
    let project = Project::new(&toml)?;
    let lethe = project.up().await?;
    let before = lethe.ready(2).await?;
    let failing = "[services.second]\ncommand = \"sh -c 'exit 7'\"";
    let wrong =
        toml.replace("good", "other").replace("[services.second]\ncommand = \"python3 app.py\"", failing);
    ensure!(wrong.contains(failing), "there is something wrong");
    project.write(&(wrong + &service("third", 1, "") + &route("/third", "third", "")))?;
    let (status, text) = project.reload()?;
    ensure!(status == Some(1) && text.contains("second: the new worker did not become ready"), "{text}");
    let after = lethe.ready(2).await?;
    ensure!(after.services.len() == 2, "the third has gone again: {after:?}");
    ensure!(after.workers[0].instance != before.workers[0].instance, "the first was replaced, and put back");
    ensure!(after.workers[1].instance == before.workers[1].instance, "the second was kept");
    let mut visitor = Visitor::new(lethe.listen);
    ensure!(who(&mut visitor, "/").await? == ("first".into(), "good".into()), "the first is as it was");
    ensure!(who(&mut visitor, "/third").await?.0 == "first", "there is no third route");
    lethe.down().await
}

/// A reload that is asked for while another one is under way comes after it, and the file as it is then counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_after_the_other() -> anyhow::Result<()> {
    let project = Project::new(&service("web", 1, "env = { WORD = \"first\" }"))?;
    let lethe = project.up().await?;
    lethe.ready(1).await?;
    let waits = "[services.late]\ninstances = 1\n\
                 command = \"sh -c 'until [ -e go ]; do sleep 0.01; done; exec python3 app.py'\"\n";
    project.write(
        &(service("web", 1, "env = { WORD = \"second\" }")
            + waits
            + &route("/", "web", "")
            + &route("/late", "late", "")),
    )?;
    let last = async {
        lethe
            .until("the first reload waits for a worker", async || {
                let workers = lethe.workers().await.ok()?;
                workers.iter().any(|worker| worker.service.as_str() == "late").then_some(())
            })
            .await?;
        project.write(&service("web", 1, "env = { WORD = \"third\" }"))?;
        let (asked, go) = tokio::join!(lethe.client.reload(), async {
            // It is on its way, and can only wait.
            tokio::task::yield_now().await;
            fs::write(project.place.path().join("go"), "")
        });
        go?;
        anyhow::Ok(asked?)
    };
    let first = async { anyhow::Ok(lethe.client.reload().await?) };
    let (first, last) = tokio::try_join!(first, last)?;
    let speaks_of = |changes: &[String], what: &str| changes.iter().any(|change| change.contains(what));
    ensure!(speaks_of(&first.changes, "late") && speaks_of(&last.changes, "late"), "{first:?}\n{last:?}");
    let status = lethe.ready(1).await?;
    ensure!(status.services.len() == 1, "the later file has no second service: {status:?}");
    ensure!(who(&mut Visitor::new(lethe.listen), "/").await?.1 == "third", "the later file counts");
    lethe.down().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_addresses_need_a_restart() -> anyhow::Result<()> {
    let project =
        Project::new(&format!("listen = \"127.0.0.1:0\"\nstate = \"state\"\n{}", service("web", 1, "")))?;
    let file = project.file();
    let lethe = project.place.start(project.place.command(&["up", file.to_str().context("UTF-8")?])).await?;
    lethe.ready(1).await?;
    project.write(&format!("listen = \"127.0.0.2:0\"\nstate = \"state\"\n{}", service("web", 2, "")))?;
    let (status, text) = project.reload()?;
    ensure!(status == Some(1) && text.contains("`listen` cannot change"), "{text}");
    ensure!(text.contains("127.0.0.1:0 → 127.0.0.2:0") && text.contains("restart lethe"), "{text}");
    ensure!(lethe.client.status().await?.services[0].wanted == 1, "not even in part");
    ensure!(who(&mut Visitor::new(lethe.listen), "/").await?.0 == "web", "it listens where it did");
    lethe.down().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_does_the_same() -> anyhow::Result<()> {
    let project = Project::new(&service("web", 1, ""))?;
    let lethe = project.up().await?;
    lethe.ready(1).await?;
    project.write(&service("web", 2, "env = { WORD = \"new\" }"))?;
    lethe.signal(Signal::HUP)?;
    lethe
        .until("it is told that it was reloaded", async || {
            lethe.output.text().contains("reloaded: service `web`: from 1 to 2 workers").then_some(())
        })
        .await?;
    let mut visitor = Visitor::new(lethe.listen);
    for _ in 0..2 {
        ensure!(who(&mut visitor, "/").await?.1 == "new", "both workers are new");
    }
    project.write("[services.web]\ncomand = \"x\"\n")?;
    lethe.signal(Signal::HUP)?;
    lethe
        .until("it is told what is wrong", async || {
            lethe.output.text().contains("lethe.toml:2:1").then_some(())
        })
        .await?;
    ensure!(who(&mut visitor, "/").await?.1 == "new", "they go on");
    lethe.down().await
}

/// Without a file there is nothing to read again, and SIGHUP asks to end, as it does of most programs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_file() -> anyhow::Result<()> {
    let project = Project::new("")?;
    let app = project.place.path().join("app.py");
    let lethe =
        project.place.up(&["--instances", "1", "--", "python3", app.to_str().context("UTF-8")?]).await?;
    lethe.ready(1).await?;
    let (status, text) = project.reload()?;
    ensure!(status == Some(1) && text.contains("started without a file"), "{text}");
    lethe.signal(Signal::HUP)?;
    ensure!(lethe.ended().await?.success(), "it drains and ends well");
    Ok(())
}

/// A terminal that is closed ends what was started in it, although a SIGHUP that an operator sends does not.
#[test]
fn a_closed_terminal_ends_it() -> anyhow::Result<()> {
    const TERMINAL: &str = "\
import os, pty, signal, sys

signal.alarm(300)
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
seen = b''
while b'serving http' not in seen:
    seen += os.read(terminal, 4096)
os.close(terminal)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";
    let project = Project::new(&service("web", 1, ""))?;
    let (file, state) = (project.file(), project.place.state());
    let output = std::process::Command::new("python3")
        .args(["-c", TERMINAL, env!("CARGO_BIN_EXE_lethe"), "up", "--listen", "127.0.0.1:0", "--no-table"])
        .arg("--state-dir")
        .args([&state, &file])
        .env("XDG_RUNTIME_DIR", project.place.path())
        .output()?;
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(())
}
