//! A service without workers: the next requests start one and wait for it, whatever happens to it meanwhile, and what is
//! held open keeps its worker.

use std::fs;

use anyhow::{Context, ensure};
use http::StatusCode;
use lethe_admin::api::Worker;
use lethe_model::roster::WorkerState;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::{
    echo,
    lethe::{Lethe, Place, kill_9},
    visitor::{Page, Visitor},
};

/// Fails if there is a file `fail`, and otherwise does not listen for as long as there is one `slow`. Echoes as a WebSocket's
/// server would.
const APP: &str = "\
import http.server, os, sys, time
from echo import Echo

if os.path.exists('fail'):
    sys.exit('a reason')
while os.path.exists('slow'):
    time.sleep(0.005)

class Handler(Echo, http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_GET(self):
        if self.path == '/echo':
            return self.echo()
        body = (os.environ['LETHE_INSTANCE'] + os.environ.get('WORD', '')).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass

class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128

Server(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()
";

/// A start takes long where there is much else to do, and so does what ends.
const SERVICE: &str = "\
[services.web]
command = \"python3 app.py\"
instances = \"0..4\"
start-wait = \"10m\"
drain = \"10m\"
";

/// A folder with the app and a `lethe.toml`.
struct Project(Place);

impl Project {
    fn new(toml: &str) -> anyhow::Result<Self> {
        let project = Self(Place::new()?);
        project.write("app.py", APP)?;
        project.write(echo::FILE, echo::MODULE)?;
        project.write("lethe.toml", toml)?;
        Ok(project)
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        Ok(fs::write(self.0.path().join(name), text)?)
    }

    fn remove(&self, name: &str) -> anyhow::Result<()> {
        Ok(fs::remove_file(self.0.path().join(name))?)
    }

    /// Starts `lethe`, and takes the service down to zero.
    async fn at_zero(&self) -> anyhow::Result<Lethe> {
        let file = self.0.path().join("lethe.toml");
        let lethe = self.0.up(&[file.to_str().context("UTF-8")?]).await?;
        // It has proved that it starts.
        lethe.ready(1).await?;
        lethe.client.scale("web", 0).await?;
        lethe.ready(0).await?;
        Ok(lethe)
    }

    /// Runs a verb on the running `lethe`: its exit status and what it said.
    async fn tell(&self, arguments: &'static [&str]) -> anyhow::Result<(Option<i32>, String)> {
        let mut command = self.0.command(arguments);
        command.arg("--state-dir").arg(self.0.state());
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8(text)?))
    }
}

/// A request on a connection of its own, which is under way.
fn ask(lethe: &Lethe) -> tokio::task::JoinHandle<anyhow::Result<Page>> {
    let address = lethe.listen;
    tokio::spawn(async move { Visitor::new(address).get("/").await })
}

/// Waits until so many requests wait in the gateway.
async fn waiting(lethe: &Lethe, count: u64) -> anyhow::Result<()> {
    while lethe.client.status().await?.gateway.queued != count {
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// The worker that is being started, with its process.
async fn starting(lethe: &Lethe) -> anyhow::Result<(Worker, u32)> {
    lethe
        .until("a worker is starting", async || {
            let workers = lethe.workers().await.ok()?;
            let worker = workers.into_iter().find(|worker| worker.state == WorkerState::Starting)?;
            let pid = worker.pid?;
            Some((worker, pid))
        })
        .await
}

/// How long the answer says that its request has waited for a start, in milliseconds.
fn start_ms(page: &Page) -> Option<f64> {
    let timing = page.headers.get("server-timing")?.to_str().ok()?;
    timing.strip_prefix("start;dur=")?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_at_once_are_answered_by_one_start() -> anyhow::Result<()> {
    const REQUESTS: usize = 60;
    let project = Project::new(SERVICE)?;
    let lethe = project.at_zero().await?;
    let admin = lethe.client.status().await?.node.admin.context("an admin address")?;
    let ready = Visitor::new(admin).get("/readyz").await?;
    ensure!(ready.status == 200, "one that is idle is as it should be: {ready:?}");
    let (_, listed) = project.tell(&["ps"]).await?;
    ensure!(listed.contains("web: idle, without workers; the next request starts one"), "{listed}");
    let (status, restarted) = project.tell(&["restart", "web"]).await?;
    ensure!(status == Some(0) && restarted.contains("replaced 0 workers"), "{restarted}");
    project.write("slow", "")?;
    let mut asked: JoinSet<_> = (0..REQUESTS).map(|_| ask(&lethe)).collect();
    waiting(&lethe, REQUESTS as u64).await?;
    project.remove("slow")?;
    while let Some(page) = asked.join_next().await {
        let page = page???;
        ensure!(page.status == 200 && page.text() == "web-2", "{page:?}");
        ensure!(start_ms(&page).is_some_and(|ms| ms > 0.0), "it says that it waited: {page:?}");
    }
    let status = lethe.ready(1).await?;
    ensure!(status.services[0].wanted == 1, "{status:?}");
    let page = Visitor::new(lethe.listen).get("/").await?;
    ensure!(page.text() == "web-2" && start_ms(&page).is_none(), "{page:?}");
    let (_, scaled) = project.tell(&["scale", "web=0"]).await?;
    ensure!(scaled.contains("web: 0 workers\nweb: the next request starts one"), "{scaled}");
    lethe.down().await
}

/// One that is open; it starts a worker as any request does.
async fn websocket(lethe: &Lethe) -> anyhow::Result<TcpStream> {
    let mut tunnel = TcpStream::connect(lethe.listen).await?;
    tunnel
        .write_all(b"GET /echo HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        .await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tunnel.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    ensure!(head.starts_with("HTTP/1.1 101"), "{head}");
    Ok(tunnel)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_keeps_its_worker() -> anyhow::Result<()> {
    let project = Project::new(SERVICE)?;
    let lethe = project.at_zero().await?;
    let mut tunnel = websocket(&lethe).await?;
    let pid = lethe.workers().await?[0].pid.context("a process")?;
    let client = lethe.client.clone();
    let scaled = tokio::spawn(async move { client.scale("web", 0).await });
    lethe
        .until("the worker is leaving", async || {
            let workers = lethe.workers().await.ok()?;
            workers.iter().any(|worker| worker.state == WorkerState::Draining).then_some(())
        })
        .await?;
    for (byte, next) in [(b'a', "web-3"), (b'b', "web-3")] {
        tunnel.write_u8(byte).await?;
        ensure!(tunnel.read_u8().await? == byte, "it goes on");
        let page = Visitor::new(lethe.listen).get("/").await?;
        ensure!(page.status == 200 && page.text() == next, "another one is started: {page:?}");
    }
    ensure!(!scaled.is_finished() && crate::lethe::alive(pid), "the worker leaves after its WebSocket");
    drop(tunnel);
    scaled.await??;
    let status = lethe.ready(1).await?;
    ensure!(status.workers[0].instance.as_str() == "web-3", "{status:?}");
    lethe.down().await
}

/// Nothing moves on it, while a service beside it goes to rest twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_on_which_nothing_moves_is_not_idle() -> anyhow::Result<()> {
    let service = |name: &str| {
        format!(
            "[services.{name}]\ncommand = \"python3 app.py\"\nscale = {{ instances = \"0..1\", idle = \"1s\" }}\n"
        )
    };
    let routes = "[[routes]]\nservice = \"web\"\n[[routes]]\nservice = \"beside\"\npath = \"/beside\"\n";
    let project = Project::new(&[service("web"), service("beside"), routes.into()].concat())?;
    let file = project.0.path().join("lethe.toml");
    let lethe = project.0.up(&[file.to_str().context("UTF-8")?]).await?;
    let mut tunnel = websocket(&lethe).await?;
    let workers = async || {
        let workers = lethe.workers().await?.into_iter();
        anyhow::Ok(workers.filter(|worker| worker.service.as_str() == "web").collect::<Vec<_>>())
    };
    let before = workers().await?;
    let rests = async |count: usize| {
        lethe
            .until("the one beside has gone to rest", async || {
                let decisions = lethe.client.scaling("beside").await.ok()?.decisions;
                (decisions.iter().filter(|decision| decision.to == 0).count() >= count).then_some(())
            })
            .await
    };
    rests(1).await?;
    for count in 2..4 {
        let page = Visitor::new(lethe.listen).get("/beside").await?;
        ensure!(page.status == 200, "{page:?}");
        rests(count).await?;
    }
    ensure!(
        workers().await?.iter().map(|it| it.pid).eq(before.iter().map(|it| it.pid)),
        "it keeps its worker"
    );
    tunnel.write_u8(b'a').await?;
    ensure!(tunnel.read_u8().await? == b'a', "it goes on");
    drop(tunnel);
    lethe
        .until("it rests once nobody is there", async || {
            lethe.workers().await.ok().is_some_and(|workers| workers.is_empty()).then_some(())
        })
        .await?;
    lethe.down().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_may_wait_are_told_so_at_once() -> anyhow::Result<()> {
    let project = Project::new(&format!("{SERVICE}[limits]\nqueue-max = 2\n"))?;
    let lethe = project.at_zero().await?;
    project.write("slow", "")?;
    let waiters = [ask(&lethe), ask(&lethe)];
    waiting(&lethe, 2).await?;
    let page = Visitor::new(lethe.listen).get("/").await?;
    ensure!(page.status == 503 && page.headers.contains_key("retry-after"), "{page:?}");
    ensure!(page.text().contains("The service `web` is starting"), "{page:?}");
    project.remove("slow")?;
    for waiter in waiters {
        let page = waiter.await??;
        ensure!(page.status == 200 && start_ms(&page).is_some(), "{page:?}");
    }
    lethe.down().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_killed_while_it_starts_is_followed_by_the_next() -> anyhow::Result<()> {
    let project = Project::new(SERVICE)?;
    let lethe = project.at_zero().await?;
    project.write("slow", "")?;
    let waiter = ask(&lethe);
    let (first, pid) = starting(&lethe).await?;
    kill_9(pid)?;
    lethe
        .until("the next is starting", async || {
            let workers = lethe.workers().await.ok()?;
            workers
                .iter()
                .any(|worker| worker.instance != first.instance && worker.pid.is_some())
                .then_some(())
        })
        .await?;
    project.remove("slow")?;
    let page = waiter.await??;
    ensure!(page.status == 200 && page.text() != first.instance.as_str(), "{page:?}");
    lethe.down().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_start_is_told_and_started_all_the_same_once_it_can() -> anyhow::Result<()> {
    let project = Project::new(SERVICE)?;
    let lethe = project.at_zero().await?;
    project.write("fail", "")?;
    for _ in 0..3 {
        let page = ask(&lethe).await??;
        ensure!(page.status == 503 && page.headers.contains_key("retry-after"), "{page:?}");
        ensure!(page.text().contains("The service `web` does not start"), "{page:?}");
        ensure!(!page.text().contains("a reason"), "the cause is not for the public: {page:?}");
    }
    let (_, logs) = project.tell(&["logs", "web"]).await?;
    ensure!(logs.contains("a reason") && logs.contains("failure 3 in a row"), "{logs}");
    project.remove("fail")?;
    while ask(&lethe).await??.status != StatusCode::OK {}
    lethe.ready(1).await?;
    lethe.down().await
}

/// Who goes away leaves the line, and the start goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_goes_away() -> anyhow::Result<()> {
    let project = Project::new(SERVICE)?;
    let lethe = project.at_zero().await?;
    project.write("slow", "")?;
    let waiter = ask(&lethe);
    starting(&lethe).await?;
    waiting(&lethe, 1).await?;
    waiter.abort();
    waiting(&lethe, 0).await?;
    project.remove("slow")?;
    lethe.ready(1).await?;
    lethe.down().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_proves_what_it_changes_at_zero() -> anyhow::Result<()> {
    let project = Project::new(SERVICE)?;
    let lethe = project.at_zero().await?;
    project.write("lethe.toml", &SERVICE.replace("app.py", "absent.py"))?;
    let (status, said) = project.tell(&["reload"]).await?;
    ensure!(status == Some(1) && said.contains("nothing was changed"), "{said}");
    let now = lethe.ready(0).await?;
    ensure!(now.services[0].wanted == 0, "it is at zero as before: {now:?}");
    let page = ask(&lethe).await??;
    ensure!(page.status == 200 && page.text().starts_with("web-"), "as before: {page:?}");
    lethe.client.scale("web", 0).await?;
    project.write("lethe.toml", &format!("{SERVICE}env = {{ WORD = \" new\" }}\n"))?;
    let (status, said) = project.tell(&["reload"]).await?;
    ensure!(status == Some(0), "{said}");
    lethe.ready(1).await?;
    let page = ask(&lethe).await??;
    ensure!(page.text().ends_with(" new") && start_ms(&page).is_none(), "it has proved itself: {page:?}");
    lethe.client.scale("web", 0).await?;
    project.write("lethe.toml", &SERVICE.replace("0..4", "1..4"))?;
    let (status, said) = project.tell(&["reload"]).await?;
    ensure!(status == Some(0), "{said}");
    lethe.ready(1).await?;
    lethe.down().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_release_takes_over_untried() -> anyhow::Result<()> {
    let project = Project::new(SERVICE)?;
    let lethe = project.at_zero().await?;
    let rollout = "[services.web.rollout]\nbake = \"0s\"\n";
    project.write("lethe.toml", &format!("{}{rollout}", SERVICE.replace("app.py", "absent.py")))?;
    let (status, said) = project.tell(&["deploy", "web"]).await?;
    ensure!(status == Some(1) && said.contains("3 starts in a row failed"), "{said}");
    let now = lethe.ready(0).await?;
    ensure!(now.services[0].wanted == 0 && now.workers.is_empty(), "{now:?}");
    project.write("lethe.toml", &format!("{SERVICE}env = {{ WORD = \" new\" }}\n{rollout}"))?;
    let (status, said) = project.tell(&["deploy", "web"]).await?;
    ensure!(status == Some(0) && said.contains("1 new worker starts"), "{said}");
    let now = lethe.ready(0).await?;
    ensure!(now.services[0].wanted == 0, "it is at zero as before: {now:?}");
    let page = ask(&lethe).await??;
    ensure!(page.status == 200 && page.text().ends_with(" new"), "{page:?}");
    lethe.down().await
}

/// Killed when dropped.
struct Heir(u32);

impl Drop for Heir {
    fn drop(&mut self) {
        let _ = kill_9(self.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_leaves_it_at_zero() -> anyhow::Result<()> {
    let project = Project::new(SERVICE)?;
    let lethe = project.at_zero().await?;
    let (status, said) = project.tell(&["upgrade", "--json"]).await?;
    ensure!(status == Some(0), "{said}");
    let said: serde_json::Value = serde_json::from_str(&said)?;
    let _heir = Heir(u32::try_from(said["pid"].as_u64().context("a pid")?)?);
    let now = lethe.client.status().await?;
    ensure!(now.workers.is_empty() && now.services[0].wanted == 0, "{now:?}");
    let page = Visitor::new(lethe.listen).get("/").await?;
    ensure!(page.status == 200 && start_ms(&page).is_some(), "{page:?}");
    lethe.down().await
}
