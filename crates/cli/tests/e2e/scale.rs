//! Load decides how many workers there are: more come when it rises and go when it falls, no request fails meanwhile, and
//! each decision can be read and taken again.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use anyhow::{Context, ensure};
use lethe_admin::api::{self, Decision};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

use crate::{
    lethe::{Lethe, Place},
    visitor::Visitor,
};

/// Visitors, each with a request under way at all times.
const VISITORS: usize = 8;

/// Sleeps for a tenth of a second, or works as long.
const APP: &str = "\
import http.server, os, time

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_GET(self):
        end = time.monotonic() + 0.1
        while self.path == '/work' and time.monotonic() < end:
            pass
        time.sleep(max(0, end - time.monotonic()))
        self.send_response(200)
        self.send_header('Content-Length', '2')
        self.end_headers()
        self.wfile.write(b'ok')

    def log_message(self, *arguments):
        pass

http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()
";

/// A folder with the app and a `lethe.toml`.
struct Project {
    place: Place,
}

impl Project {
    fn new(scale: &str) -> anyhow::Result<Self> {
        let project = Self { place: Place::new()? };
        fs::write(project.place.path().join("app.py"), APP)?;
        project.configure(scale)?;
        Ok(project)
    }

    fn configure(&self, scale: &str) -> anyhow::Result<()> {
        let toml = format!("[services.web]\ncommand = \"python3 app.py\"\n[services.web.scale]\n{scale}\n");
        Ok(fs::write(self.place.path().join("lethe.toml"), toml)?)
    }

    async fn up(&self) -> anyhow::Result<Lethe> {
        self.place.up(&[self.place.path().join("lethe.toml").to_str().context("UTF-8")?]).await
    }

    /// A verb that does what it is told; what it prints.
    async fn tell(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.place.command(arguments);
        command.arg("--state-dir").arg(self.place.state());
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        ensure!(output.status.success(), "{arguments:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Takes every decision that is kept again, and finds each as it was.
    async fn replay(&self, lethe: &Lethe) -> anyhow::Result<Vec<Decision>> {
        let decisions = lethe.client.scaling("web").await?.decisions;
        let path = self.place.path().join("case.json");
        for decision in &decisions {
            let case = self.tell(&["scale", "web", "--why", "--case", &decision.number.to_string()]).await?;
            fs::write(&path, &case)?;
            let output = self.place.run(&["simulate", path.to_str().context("UTF-8")?, "--json"])?;
            let again: Value = serde_json::from_slice(&output.stdout)?;
            match &decision.error {
                None => {
                    ensure!(again["desired"] == decision.to, "{decision:?} became {again}");
                    ensure!(
                        again["reasons"] == serde_json::json!(decision.reasons),
                        "{decision:?} became {again}"
                    );
                }
                Some(error) => ensure!(again["error"] == error.as_str(), "{decision:?} became {again}"),
            }
        }
        Ok(decisions)
    }
}

/// How it is decided, once this is so.
async fn until(
    lethe: &Lethe,
    what: &str,
    is_so: impl Fn(&api::Scaling) -> bool,
) -> anyhow::Result<api::Scaling> {
    lethe
        .until(what, async || {
            let scaling = lethe.client.scaling("web").await.ok()?;
            is_so(&scaling).then_some(scaling)
        })
        .await
}

fn failing(scaling: &api::Scaling, metric: &str) -> Option<String> {
    scaling.metrics.iter().find(|known| known.name == metric)?.failing.clone()
}

/// Requests under way at all times, until it is told to end.
struct Load {
    is_over: Arc<AtomicBool>,
    visitors: Vec<JoinHandle<anyhow::Result<usize>>>,
}

impl Load {
    fn begin(lethe: &Lethe, path: &'static str) -> Self {
        let (is_over, listen) = (Arc::<AtomicBool>::default(), lethe.listen);
        let visit = |_| {
            let is_over = Arc::clone(&is_over);
            tokio::spawn(async move {
                let (mut visitor, mut pages) = (Visitor::new(listen), 0);
                while !is_over.load(Ordering::Relaxed) {
                    let page = visitor.get(path).await?;
                    ensure!(page.status == 200, "{page:?}");
                    pages += 1;
                }
                Ok(pages)
            })
        };
        let visitors = (0..VISITORS).map(visit).collect();
        Self { is_over, visitors }
    }

    /// Every request of it was answered well.
    async fn end(self) -> anyhow::Result<()> {
        self.is_over.store(true, Ordering::Relaxed);
        for visitor in self.visitors {
            ensure!(visitor.await?? > 0, "a visitor was never answered");
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_at_a_time() -> anyhow::Result<()> {
    let project = Project::new(
        "instances = \"1..4\"\nconcurrency = 2\ndown = { window = \"1s\", percent = 50, every = \"1s\" }",
    )?;
    let lethe = project.up().await?;
    lethe.ready(1).await?;
    let load = Load::begin(&lethe, "/sleep");
    lethe.ready(4).await?;
    load.end().await?;
    lethe.ready(1).await?;
    let decisions = project.replay(&lethe).await?;
    ensure!(decisions.iter().any(|decision| decision.to > decision.from), "{decisions:?}");
    ensure!(decisions.iter().any(|decision| decision.to < decision.from), "{decisions:?}");
    let why = project.tell(&["scale", "web", "--why"]).await?;
    ensure!(
        why.starts_with("web: 1 of 1..4 workers\n") && why.contains("external metric concurrency: "),
        "{why}"
    );
    ensure!(lethe.output.text().contains("web: 1 → "), "the log says it: {}", lethe.output.text());
    lethe.down().await
}

/// CPU, with a target that one busy worker is beyond however much else the machine does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cpu() -> anyhow::Result<()> {
    let project = Project::new("instances = \"1..3\"\ncpu = \"4%\"\ndown = { window = \"1s\" }")?;
    let lethe = project.up().await?;
    lethe.ready(1).await?;
    let load = Load::begin(&lethe, "/work");
    lethe.ready(3).await?;
    load.end().await?;
    lethe.ready(1).await?;
    project.replay(&lethe).await?;
    let admin = lethe.client.status().await?.node.admin.context("an admin address")?;
    let metrics = Visitor::new(admin).get("/metrics").await?;
    for line in [
        "lethe_scale_max_workers{service=\"web\"} 3\n",
        "lethe_scale_desired_workers{service=\"web\"} 1\n",
        "lethe_scale_pinned{service=\"web\"} 0\n",
        "lethe_scale_metric_failing{service=\"web\",metric=\"cpu\"} 0\n",
        "lethe_scale_metric_ratio{service=\"web\",metric=\"cpu\"} ",
    ] {
        ensure!(metrics.text().contains(line), "{line} is not in {}", metrics.text());
    }
    lethe.down().await
}

/// A server that says one number, or hangs up: then it is away, and nobody else has its port. Or it says nothing.
struct Source {
    number: Arc<AtomicUsize>,
    address: String,
}

impl Source {
    const AWAY: usize = usize::MAX;
    const SILENT: usize = usize::MAX - 1;

    async fn new(number: usize) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let number = Arc::new(AtomicUsize::new(number));
        let told = Arc::clone(&number);
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let number = told.load(Ordering::Relaxed);
                match number {
                    Self::AWAY => continue,
                    Self::SILENT => {
                        held.push(stream);
                        continue;
                    }
                    _ => {}
                }
                let body = format!("{{\"depth\":[{number}]}}");
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Ok(Self { number, address })
    }

    fn say(&self, number: usize) {
        self.number.store(number, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_goes_away_keeps_the_workers() -> anyhow::Result<()> {
    let source = Source::new(30).await?;
    let address = &source.address;
    let project = Project::new(&format!(
        "instances = \"1..9\"\ndown = {{ window = \"0s\" }}\n\
         queue = {{ name = \"mails\", url = \"http://{address}/stats\", pointer = \"/depth/0\", per-instance = 10, max-age = \"1s\" }}"
    ))?;
    let lethe = project.up().await?;
    lethe.ready(3).await?;
    source.say(Source::AWAY);
    let told = until(&lethe, "it is told what fails", |scaling| {
        scaling.decisions.iter().any(|decision| decision.error.is_some())
            && failing(scaling, "mails").is_some()
    })
    .await?;
    ensure!(told.wanted == 3, "{told:?}");
    ensure!(failing(&told, "mails").is_some_and(|why| why.contains(address)), "{told:?}");
    let why = format!("mails: http://{address}/stats: ");
    lethe.until(&why, async || lethe.output.text().contains(&why).then_some(())).await?;
    source.say(30);
    lethe
        .until("it is there again", async || {
            let scaling = lethe.client.scaling("web").await.ok()?;
            failing(&scaling, "mails").is_none().then_some(())
        })
        .await?;
    source.say(Source::SILENT);
    let silent = format!("http://{address}/stats: no answer within 1000 ms");
    let told = until(&lethe, "it is told that it is silent", |scaling| {
        failing(scaling, "mails").is_some_and(|why| why.contains(&silent))
    })
    .await?;
    ensure!(told.wanted == 3, "{told:?}");
    source.say(10);
    lethe.ready(1).await?;
    source.say(20);
    lethe.ready(2).await?;
    project.replay(&lethe).await?;
    lethe.down().await
}

/// An autoscaler's file, a number that is told, a reload that is refused, one that is not, numbers set by hand, and another
/// `lethe` that goes on with all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_an_autoscalers_file_and_by_hand() -> anyhow::Result<()> {
    let project = Project::new("hpa = \"hpa.yaml\"")?;
    let hpa = |max: u32| {
        format!(
            "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{ name: web }}\nspec:\n  minReplicas: 1\n  \
             maxReplicas: {max}\n  behavior: {{ scaleDown: {{ stabilizationWindowSeconds: 0 }} }}\n  metrics:\n  \
             - {{ type: External, external: {{ metric: {{ name: jobs }}, target: {{ type: AverageValue, averageValue: 10 }} }} }}\n"
        )
    };
    fs::write(project.place.path().join("hpa.yaml"), hpa(5))?;
    let lethe = project.up().await?;
    lethe.ready(1).await?;
    project.tell(&["scale", "web", "--tell", "jobs=25"]).await?;
    lethe.ready(3).await?;

    fs::write(project.place.path().join("hpa.yaml"), hpa(0))?;
    let refused = project.place.tell(&["reload"])?;
    let text = String::from_utf8(refused.stderr)?;
    ensure!(!refused.status.success() && text.contains("spec.maxReplicas: must be"), "{text}");
    project.tell(&["scale", "web", "--tell", "jobs=41"]).await?;
    lethe.ready(5).await?;
    fs::write(project.place.path().join("hpa.yaml"), hpa(4))?;
    project.tell(&["reload"]).await?;
    lethe.ready(4).await?;

    let said = project.tell(&["scale", "web=2"]).await?;
    ensure!(said.contains("2 stays, whatever the load; `lethe scale web=auto`"), "{said}");
    lethe.ready(2).await?;
    let pinned = lethe.client.scaling("web").await?;
    ensure!(pinned.scale.pinned && pinned.wanted == 2, "{pinned:?}");
    project.tell(&["scale", "web=auto"]).await?;
    project.tell(&["scale", "web", "--tell", "jobs=41"]).await?;
    lethe.ready(4).await?;
    let before = project.replay(&lethe).await?;

    // The new one is told nothing yet, and so has nothing that would have a worker leave.
    project.tell(&["upgrade"]).await?;
    let after = until(&lethe, "it is told what fails", |scaling| {
        scaling.decisions.last().is_some_and(|decision| decision.error.is_some())
    })
    .await?;
    ensure!(after.wanted == 4, "{after:?}");
    ensure!(after.decisions[..before.len()] == before, "what was decided before is known: {after:?}");
    lethe.down().await
}

/// The work of a queue is in no request: the number alone starts a worker, and keeps it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_keeps_a_worker_that_nobody_asks() -> anyhow::Result<()> {
    let source = Source::new(0).await?;
    let address = &source.address;
    let project = Project::new(&format!(
        "instances = \"0..3\"\nidle = \"1s\"\ndown = {{ window = \"0s\" }}\n\
         queue = {{ name = \"mails\", url = \"http://{address}/stats\", pointer = \"/depth/0\", per-instance = 10 }}"
    ))?;
    let lethe = project.up().await?;
    let left = |scaling: &api::Scaling| {
        scaling.decisions.iter().filter(|decision| (decision.from, decision.to) == (1, 0)).count()
    };
    until(&lethe, "nothing is to be done", |scaling| left(scaling) == 1).await?;
    source.say(5);
    lethe.ready(1).await?;
    let why = "web: 0 → 1 workers: external metric mails: ";
    lethe.until(why, async || lethe.output.text().contains(why).then_some(())).await?;
    source.say(15);
    lethe.ready(2).await?;
    source.say(5);
    let told = until(&lethe, "one is enough", |scaling| scaling.wanted == 1).await?;
    ensure!(left(&told) == 1, "{told:?}");
    source.say(0);
    let told = until(&lethe, "nothing is to be done again", |scaling| left(scaling) == 2).await?;
    let starts = told.decisions.iter().filter(|decision| decision.from == 0).count();
    ensure!(starts == 1, "it left and came once: {told:?}");
    project.replay(&lethe).await?;
    lethe.down().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_zero_and_back() -> anyhow::Result<()> {
    let project = Project::new("instances = \"0..2\"\nidle = \"1s\"\ndown = { window = \"0s\" }")?;
    let lethe = project.up().await?;
    // Its first worker may leave as soon as it is ready.
    until(&lethe, "nobody asks", |scaling| {
        scaling.decisions.iter().any(|decision| (decision.from, decision.to) == (1, 0))
    })
    .await?;
    lethe.ready(0).await?;
    let page = Visitor::new(lethe.listen).get("/sleep").await?;
    ensure!(page.status == 200, "{page:?}");
    lethe.ready(0).await?;
    let decisions = project.replay(&lethe).await?;
    let starts = |decisions: &[Decision]| {
        decisions.iter().filter(|decision| (decision.from, decision.to) == (0, 1)).count()
    };
    ensure!(starts(&decisions) == 1, "{decisions:?}");

    // What a reload starts was not decided by load, which goes on from there.
    project.configure("instances = \"1..4\"\nconcurrency = 2")?;
    project.tell(&["reload"]).await?;
    lethe.ready(1).await?;
    let load = Load::begin(&lethe, "/sleep");
    lethe.ready(4).await?;
    load.end().await?;
    let decisions = project.replay(&lethe).await?;
    ensure!(starts(&decisions) == 1, "{decisions:?}");
    lethe.down().await
}

/// There is another number to go by, so that nothing is in the way of a decision.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_is_away_is_told_though_others_are_there() -> anyhow::Result<()> {
    let source = Source::new(Source::AWAY).await?;
    let address = &source.address;
    let project = Project::new(&format!(
        "instances = \"1..2\"\nconcurrency = 1\nmetric = {{ name = \"mails\", url = \"http://{address}/\", pointer = \"/depth/0\", per-instance = 10 }}"
    ))?;
    let lethe = project.up().await?;
    lethe.ready(1).await?;
    // By the other one as many are wanted as there are, or more.
    let load = Load::begin(&lethe, "/sleep");
    let says =
        async |text: &str| lethe.until(text, async || lethe.output.text().contains(text).then_some(())).await;
    says(&format!("mails: http://{address}/: ")).await?;
    lethe.ready(2).await?;
    source.say(5);
    says("web: all its metrics can be measured again").await?;
    load.end().await?;
    lethe.down().await
}
