//! The machine is to go: a notice of each kind, with the real binary and requests under way.

use std::fs;

use anyhow::{Context, ensure};
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{
    lethe::{Lethe, Place},
    visitor::{Page, Visitor},
};

/// Answers `/slow` when the file `release` is there, all else at once.
const PROGRAM: &str = r#"
import http.server, os, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/slow":
            print("slow begins", flush=True)
            while not os.path.exists("release"): time.sleep(0.002)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

struct Host {
    place: Place,
    lethe: Lethe,
    /// Asks `/readyz`.
    balancer: Visitor,
}

impl Host {
    async fn new(interruption: &str) -> anyhow::Result<Self> {
        let place = Place::new()?;
        fs::write(place.path().join("app.py"), PROGRAM)?;
        let toml = "[services.web]\ncommand = \"python3 app.py\"\ninstances = 2\ndrain = \"10m\"\n[limits]\ndrain-timeout = \"10m\"\n";
        let file = place.path().join("lethe.toml");
        fs::write(&file, format!("{toml}{interruption}"))?;
        let lethe = place.up(&[file.to_str().context("UTF-8")?]).await?;
        lethe.ready(2).await?;
        let admin = lethe.client.status().await?.node.admin.context("an admin address")?;
        let mut host = Self { place, lethe, balancer: Visitor::new(admin) };
        ensure!(host.balancer.get("/readyz").await?.status == 200, "ready at first");
        Ok(host)
    }

    /// A request that has begun, and ends when it is [released](Self::release).
    async fn slow(&self) -> anyhow::Result<JoinHandle<anyhow::Result<Page>>> {
        let mut visitor = Visitor::new(self.lethe.listen);
        let page = tokio::spawn(async move { visitor.get("/slow").await });
        let printed = async || self.lethe.output.text().contains("slow begins").then_some(());
        self.lethe.until("the slow request has begun", printed).await?;
        Ok(page)
    }

    fn release(&self) -> anyhow::Result<()> {
        Ok(fs::write(self.place.path().join("release"), "")?)
    }

    /// Waits until it said that it goes, looks whether it is not ready any more and still answers, and whether it ends well
    /// as soon as what is open has ended.
    async fn leaves_in_order(
        mut self,
        why: &str,
        slow: JoinHandle<anyhow::Result<Page>>,
    ) -> anyhow::Result<Place> {
        let said = async || self.lethe.output.text().contains(why).then_some(());
        self.lethe.until(why, said).await?;
        let page = self.balancer.get("/readyz").await?;
        ensure!(page.status == 503, "a load balancer would still send requests: {page:?}");
        let mut late = Visitor::new(self.lethe.listen);
        let page = late.get("/").await.context("load balancers have not noticed yet")?;
        ensure!(page.status == 200, "{page:?}");
        // Whoever says it again does not want to wait for load balancers.
        self.lethe.signal(Signal::TERM)?;
        let draining = async || self.lethe.output.text().contains("draining; press").then_some(());
        self.lethe.until("it drains", draining).await?;
        ensure!(!slow.is_finished(), "the open request is waited for");
        self.release()?;
        let page = slow.await??;
        ensure!(page.status == 200, "{page:?}");
        let output = self.lethe.output.clone();
        let status = self.lethe.ended().await?;
        ensure!(status.code() == Some(0), "{status}\n{}", output.text());
        Ok(self.place)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_says_so() -> anyhow::Result<()> {
    let host = Host::new(
        "[interruption]\nfile = \"notice\"\nevery = \"100ms\"\nsettle = \"15m\"\ndeadline = \"1h\"\n",
    )
    .await?;
    let slow = host.slow().await?;
    let (written, notice) = (host.place.path().join("notice.new"), host.place.path().join("notice"));
    fs::write(&written, "{\"action\": \"stop\"}")?;
    fs::rename(written, notice)?;
    host.leaves_in_order("notice (stop): not ready from now on", slow).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_says_so() -> anyhow::Result<()> {
    let metadata = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/latest/meta-data/spot/instance-action", metadata.local_addr()?);
    let (noticed, notice) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        loop {
            let (stream, _) = metadata.accept().await.expect("it listens");
            let is_noticed = *notice.borrow();
            // Who asks may have gone, and asks again.
            let _ = answer(stream, is_noticed).await;
        }
    });
    let toml = format!("[interruption]\nurl = \"{url}\"\nevery = \"100ms\"\nsettle = \"15m\"\n");
    let host = Host::new(&toml).await?;
    let slow = host.slow().await?;
    noticed.send_replace(true);
    host.leaves_in_order("instance-action (terminate): not ready from now on", slow).await.map(drop)
}

/// EC2's metadata: a token for who asks for one, and for who has it a notice, if there is one.
async fn answer(mut stream: TcpStream, is_noticed: bool) -> anyhow::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    let is_told = head.contains("\r\nX-aws-ec2-metadata-token: secret\r\n");
    let answer = match head.split(' ').take(2).collect::<Vec<_>>()[..] {
        ["PUT", "/latest/api/token"] if head.contains("-ttl-seconds: 21600\r\n") => {
            "200 OK\r\n\r\nsecret".to_owned()
        }
        ["GET", "/latest/meta-data/spot/instance-action"] if !is_told => "401 Unauthorized\r\n\r\n".into(),
        ["GET", "/latest/meta-data/spot/instance-action"] if is_noticed => {
            let time = std::time::SystemTime::now() + std::time::Duration::from_secs(3600);
            let time = lethe_admin::timestamp::Timestamp::from(time);
            format!("200 OK\r\n\r\n{{\"action\": \"terminate\", \"time\": \"{time}\"}}")
        }
        _ => "404 Not Found\r\n\r\n".into(),
    };
    stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).await?;
    Ok(stream.shutdown().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_says_so() -> anyhow::Result<()> {
    let host = Host::new("").await?;
    let slow = host.slow().await?;
    let mut verb =
        host.place.command(&["drain", "--host", "--deadline", "1h", "--settle", "15m", "--state-dir"]);
    let mut verb = verb.arg(host.place.state()).stdout(std::process::Stdio::null()).spawn()?;
    // What still runs in a place ends with it.
    let _place = host.leaves_in_order("told to drain the host: not ready from now on", slow).await?;
    ensure!(tokio::task::spawn_blocking(move || verb.wait()).await??.success(), "it has returned well");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_says_so_and_the_deadline_is_kept() -> anyhow::Result<()> {
    // All else would wait ten minutes for the open request.
    let host = Host::new("[interruption]\nsettle = \"1s\"\ndeadline = \"3s\"\n").await?;
    let slow = host.slow().await?;
    host.lethe.signal(Signal::TERM)?;
    let output = host.lethe.output.clone();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(300), host.lethe.ended()).await;
    let status = ended.context("the deadline was not kept")??;
    ensure!(status.code() == Some(0), "{status}\n{}", output.text());
    ensure!(output.text().contains("the time is over; what is left is ended now"), "{}", output.text());
    let page = slow.await?;
    ensure!(
        page.as_ref().is_ok_and(|page| page.status.is_server_error()) || page.is_err(),
        "it was cut off: {page:?}"
    );
    Ok(())
}
