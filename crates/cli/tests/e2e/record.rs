//! `lethe record`: what a person does becomes a journey, whatever the service is like.

use std::{fs, path::Path, process::Output, sync::Arc};

use anyhow::{Context, ensure};
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::HeaderMap,
    response::sse::{Event, Sse},
    routing::{get, post},
};
use futures_util::stream::{self, StreamExt};
use lethe_journey::{body::Body, file};
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Notify,
};

use crate::{browser::Browser, lethe::Place, recorder::Recorder, visitor::Visitor};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_signs_the_guestbook_in_a_browser() -> anyhow::Result<()> {
    let place = Place::new()?;
    let guestbook = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/guestbook").canonicalize()?;
    let photo = place.path().join("me.png");
    fs::write(&photo, [b"\x89PNG\r\n\x1a\n".as_slice(), &[0, 255, 13, 10]].concat())?;
    let guestbook = guestbook.to_str().context("UTF-8")?;
    let recorder = Recorder::start(place.path(), &[guestbook, "-o", "sign.toml"])?;

    let mut browser = Browser::open(1280, 900).await?;
    browser.go(&format!("http://{}/sign-in", recorder.address)).await?;
    browser.fill("input[name=name]", "ada").await?;
    browser.fill("input[name=password]", "Secret words 42").await?;
    browser.click("form.card button").await?;
    browser.fill("textarea[name=text]", "I was here\nand there").await?;
    browser.choose("input[name=photo]", &photo).await?;
    browser.click("form.card button").await?;
    browser.text("main img").await?;
    drop(browser);

    let (status, said) = recorder.end(Signal::INT)?;
    let text = fs::read_to_string(place.path().join("sign.toml"))?;
    ensure!(status.success() && said.contains("POST    /sign-in  303"), "{said}");
    ensure!(said.contains("images, styles, scripts and fonts"), "{said}");
    ensure!(said.contains(&format!("prove with: lethe prove {guestbook} --journey sign.toml")), "{said}");
    for expected in [
        r#"name    = "Sign in""#,
        r#"form    = { name = "ada", password = "{{password}}" }"#,
        r#"password = "Secret words 42""#,
        r#"{ env = "PASSWORD" }"#,
        r#"capture = { entry = { input = "entry" } }"#,
        r#"file = "sign-files/me.png""#,
        r#"origin = "{{origin}}""#,
    ] {
        ensure!(text.contains(expected), "{expected} is not in it:\n{text}");
    }
    ensure!(!text.contains("user-agent") && !text.contains("__Host-session"), "{text}");
    ensure!(fs::read(place.path().join("sign-files/me.png"))? == fs::read(&photo)?, "another photo");
    Ok(())
}

/// Knows itself by the name that it is asked under, and sends absolute addresses.
async fn service(never: Arc<Notify>) -> anyhow::Result<(String, tokio::task::JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let own = address.clone();
    let enter = async move |headers: HeaderMap| {
        let is_own = headers["host"] == *own && headers["origin"] == *format!("http://{own}");
        let to = if is_own { format!("http://{own}/inside") } else { "/forged".into() };
        (
            [("location", to), ("set-cookie", "sid=s3cr3t-s3cr3t; Domain=127.0.0.1; Secure; Path=/".into())],
            axum::http::StatusCode::SEE_OTHER,
        )
    };
    let enter = async move |headers: HeaderMap| {
        let (headers, status) = enter(headers).await;
        (status, headers)
    };
    let events = async |State(never): State<Arc<Notify>>| {
        let first = stream::iter([Ok::<_, std::convert::Infallible>(Event::default().data("first"))]);
        Sse::new(first.chain(stream::once(async move {
            never.notified().await;
            Ok(Event::default().data("last"))
        })))
    };
    let home = format!("<title>Home</title><a href='http://{address}/inside'>absolute</a>");
    let app = Router::new()
        .route("/", get(async || ([("content-type", "text/html")], home)))
        .route("/enter", post(enter))
        .route(
            "/inside",
            get(async |headers: HeaderMap| headers["cookie"].to_str().unwrap_or_default().to_owned()),
        )
        .route("/upload", post(async |body: Bytes| body.len().to_string()))
        .route("/long", get(async || "x".repeat(3 << 20)))
        .route("/events", get(events))
        .layer(DefaultBodyLimit::disable())
        .with_state(never);
    let served = tokio::spawn(async move { axum::serve(listener, app).await.unwrap_or_default() });
    Ok((address, served))
}

#[tokio::test]
async fn a_service_that_runs_and_knows_its_name() -> anyhow::Result<()> {
    let place = Place::new()?;
    let (address, served) = service(Arc::default()).await?;
    let recorder = Recorder::start(place.path(), &["--url", &format!("http://{address}")])?;
    let mut visitor = Visitor::new(recorder.address);
    ensure!(visitor.get("/").await?.text().contains("Home"));
    let entered = visitor.post("/enter", &[("user", "ada"), ("pin", "")]).await?;
    ensure!(entered.location() == format!("http://{}/inside", recorder.address), "{}", entered.location());
    let cookie = entered.headers["set-cookie"].to_str()?;
    ensure!(cookie == "sid=s3cr3t-s3cr3t; Path=/", "{cookie}");
    ensure!(visitor.get("/inside").await?.text() == "sid=s3cr3t-s3cr3t");
    // More than is kept goes on all the same.
    let long = vec![b'x'; 17 << 20];
    ensure!(
        visitor.upload("/upload", &[], ("photo", "image/png", &long)).await?.text().parse::<usize>()?
            > long.len()
    );
    ensure!(visitor.get("/long").await?.body.len() == 3 << 20);
    // An event is there while the next has not come.
    let mut events = TcpStream::connect(recorder.address).await?;
    events.write_all(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("first") {
        ensure!(events.read_buf(&mut seen).await? > 0, "{}", String::from_utf8_lossy(&seen));
    }
    // A page of somebody else whose name leads here.
    let mut foreign = TcpStream::connect(recorder.address).await?;
    foreign.write_all(b"GET /inside HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n").await?;
    let mut refusal = String::new();
    foreign.read_to_string(&mut refusal).await?;
    ensure!(refusal.starts_with("HTTP/1.1 421 "), "{refusal}");
    let (status, said) = recorder.end(Signal::TERM)?;
    served.abort();
    let path = place.path().join("journey.toml");
    let text = fs::read_to_string(&path)?;
    ensure!(status.success() && said.contains("1 streams of events"), "{said}");
    ensure!(said.contains(&format!("a page has the address http://{address} in it")), "{said}");
    ensure!(said.contains("step 4: the recording does not have what was sent"), "{said}");
    ensure!(text.contains("# step 5: its response was too long"), "{text}");
    ensure!(text.contains("name   = \"Home\"") && !text.contains("s3cr3t"), "{text}");
    ensure!(!text.contains("127.0.0.1"), "it is of no one machine: {text}");
    ensure!(file::load(&path)?.steps.len() == 5, "{text}");
    Ok(())
}

#[tokio::test]
async fn what_is_no_http_any_more_passes() -> anyhow::Result<()> {
    let place = Place::new()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let service = tokio::spawn(async move {
        // That somebody listens is looked at first.
        drop(listener.accept().await?);
        let (mut stream, _) = listener.accept().await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            ensure!(stream.read_buf(&mut head).await? > 0, "{}", String::from_utf8_lossy(&head));
        }
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            )
            .await?;
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await?;
        anyhow::Ok(String::from_utf8_lossy(&head).into_owned())
    });
    let recorder = Recorder::start(place.path(), &["--url", &url])?;
    let mut socket = TcpStream::connect(recorder.address).await?;
    let request = format!(
        "GET /live HTTP/1.1\r\nhost: {}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n",
        recorder.address
    );
    socket.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(socket.read_buf(&mut head).await? > 0, "{}", String::from_utf8_lossy(&head));
    }
    ensure!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    socket.write_all(b"echo").await?;
    let mut echo = [0; 4];
    socket.read_exact(&mut echo).await?;
    ensure!(&echo == b"echo");
    drop(socket);
    ensure!(service.await??.contains("upgrade: websocket"));
    let (status, _) = recorder.end(Signal::INT)?;
    ensure!(status.code() == Some(1) && !place.path().join("journey.toml").exists(), "there is no step");
    Ok(())
}

/// Answers one request, and is gone with the next.
const MORTAL: &str = "
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
class App(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == '/die':
            os._exit(3)
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
HTTPServer(('127.0.0.1', int(os.environ['PORT'])), App).serve_forever()
";

#[tokio::test]
async fn nothing_is_lost_with_the_service() -> anyhow::Result<()> {
    let place = Place::new()?;
    let recorder = Recorder::start(place.path(), &["--", "python3", "-c", MORTAL])?;
    let mut visitor = Visitor::new(recorder.address);
    visitor.get("/here").await?;
    // The answer may be that there is none, or nothing any more.
    let _ = visitor.get("/die").await;
    let (status, said) = recorder.ended()?;
    ensure!(status.code() == Some(1) && said.contains("it ended with status 3"), "{said}");
    let journey = file::load(&place.path().join("journey.toml"))?;
    ensure!(journey.steps[0].path.to_string() == "/here", "{said}");
    Ok(())
}

/// Keeps a line in its folder for each that asks, on a port that nobody can choose.
const STUBBORN: &str = "
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class App(BaseHTTPRequestHandler):
    def do_GET(self):
        open('visits', 'a').write('one\\n')
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'of the service')
    def log_message(self, *_):
        pass
HTTPServer(('127.0.0.1', int(sys.argv[1])), App).serve_forever()
";

#[tokio::test]
async fn a_fixed_port_may_be_the_recordings_own_too() -> anyhow::Result<()> {
    if std::env::var_os("LETHE_TEST_WITHOUT_WORLDS").is_some() {
        println!("NOT TESTED: worlds cannot be made here");
        return Ok(());
    }
    let place = Place::new()?;
    // Kept, so that nobody else is given it, and not listened at, so that the recording may.
    let kept = TcpSocket::new_v4()?;
    kept.set_reuseaddr(true)?;
    kept.bind(([127, 0, 0, 1], 0).into())?;
    let own = kept.local_addr()?.to_string();
    let port = kept.local_addr()?.port().to_string();
    let recorder =
        Recorder::start(place.path(), &["--listen", &own, "--", "python3", "-c", STUBBORN, &port])?;
    ensure!(Visitor::new(recorder.address).get("/").await?.text() == "of the service");
    let (status, said) = recorder.end(Signal::INT)?;
    ensure!(status.success() && said.contains("is gone when the recording ends"), "{said}");
    ensure!(!place.path().join("visits").exists(), "{said}");
    Ok(())
}

#[tokio::test]
async fn in_place_what_is_written_stays() -> anyhow::Result<()> {
    let place = Place::new()?;
    let program = STUBBORN.replace("import sys", "import os").replace("sys.argv[1]", "os.environ['PORT']");
    let recorder = Recorder::start(place.path(), &["--in-place", "--", "python3", "-c", &program])?;
    Visitor::new(recorder.address).get("/").await?;
    let (status, said) = recorder.end(Signal::INT)?;
    ensure!(status.success() && said.contains("to files stays"), "{said}");
    ensure!(fs::read_to_string(place.path().join("visits"))? == "one\n", "{said}");
    Ok(())
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn recordings_of_browsers_become_journeys() -> anyhow::Result<()> {
    let place = Place::new()?;
    let entry = |method: &str, path: &str, status: u16, body: &str| {
        format!(
            r#"{{"request": {{"method": "{method}", "url": "https://shop.example{path}"{body}, "headers": [{{"name": "User-Agent", "value": "x"}}]}},
            "response": {{"status": {status}, "content": {{"mimeType": "text/html", "text": "<form action=/register method=post><button>Sign up</button></form>"}}}}}}"#
        )
    };
    let posted = r#", "postData": {"mimeType": "application/x-www-form-urlencoded", "text": "user=ada&password=Hidden-17"}"#;
    let entries = [entry("GET", "/register", 200, ""), entry("POST", "/register", 303, posted)].join(",");
    let har = place.path().join("shop.har");
    fs::write(&har, format!(r#"{{"log": {{"entries": [{entries}]}}}}"#))?;
    let har = har.to_str().context("UTF-8")?;
    let convert = |more: &[&str]| place.run(&[&["record", "--from", har], more].concat());
    let output = convert(&[])?;
    let path = place.path().join("shop.toml");
    let text = fs::read_to_string(&path)?;
    ensure!(
        output.status.success() && said(&output).contains("prove with: lethe prove --journey"),
        "{}",
        said(&output)
    );
    ensure!(!text.contains("Hidden") && text.contains("user     = \"ada{{identity}}\""), "{text}");
    let journey = file::load(&path)?;
    ensure!(journey.steps[1].name.as_deref() == Some("Sign up"), "{text}");
    let Body::Form(form) = &journey.steps[1].body else { anyhow::bail!("{text}") };
    ensure!(form[1].1.to_string() == "{{password}}", "{text}");

    let again = convert(&[])?;
    ensure!(again.status.code() == Some(1) && said(&again).contains("--force"), "{}", said(&again));
    ensure!(convert(&["--force"])?.status.success());
    let nowhere = convert(&["-o", "shop.txt"])?;
    ensure!(nowhere.status.code() == Some(1) && said(&nowhere).contains("no place"), "{}", said(&nowhere));
    let never = place.run(&["record", "--", "/nowhere/at-all"])?;
    ensure!(never.status.code() == Some(1) && said(&never).contains("cannot be started"), "{}", said(&never));
    Ok(())
}
