//! A real browser: Debian's Chromium, headless, driven through chromedriver (W3C WebDriver).

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::visitor::Visitor;

/// The key under which WebDriver names an element (W3C WebDriver, section 12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// How long an element is waited for, such as one of a page that a click leads to.
const ELEMENT_WAIT_MS: u32 = 20_000;

/// One browser window. Closed when dropped.
pub struct Browser {
    driver: Child,
    wire: Visitor,
    session: String,
    _profile: TempDir,
}

impl Browser {
    /// Starts chromedriver on a free port, and a window of this size with an empty profile.
    pub async fn open(width: u32, height: u32) -> anyhow::Result<Self> {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context(
                "cannot start chromedriver; install it with: apt-get install chromium chromium-driver",
            )?;
        let port = driver_port(&mut driver)?;
        let profile = tempfile::tempdir()?;
        let mut browser = Self {
            driver,
            wire: Visitor::new(SocketAddr::from(([127, 0, 0, 1], port))),
            session: String::new(),
            _profile: profile,
        };
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &format!("--user-data-dir={}", browser._profile.path().display()),
        ];
        // A headless window is never narrower than 500 pixels; an emulated screen is as narrow as a phone.
        let screen =
            json!({"deviceMetrics": {"width": width, "height": height, "pixelRatio": 1, "touch": false}});
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": {"args": arguments, "mobileEmulation": screen},
            "timeouts": {"implicit": ELEMENT_WAIT_MS},
        }}});
        let session = browser.command(Method::POST, "/session", capabilities).await?;
        browser.session = session["sessionId"].as_str().context("no sessionId")?.to_owned();
        Ok(browser)
    }

    /// Opens an address and waits until the page is loaded.
    pub async fn go(&mut self, url: &str) -> anyhow::Result<()> {
        self.post("url", json!({ "url": url })).await.map(drop)
    }

    /// Clicks the first element that matches. The page that this leads to is there when an element of it is found.
    pub async fn click(&mut self, css: &str) -> anyhow::Result<()> {
        let element = self.find(css).await?;
        self.post(&format!("element/{element}/click"), json!({})).await.map(drop)
    }

    /// Types into the first element that matches, in place of what is there.
    pub async fn fill(&mut self, css: &str, text: &str) -> anyhow::Result<()> {
        let element = self.find(css).await?;
        self.post(&format!("element/{element}/clear"), json!({})).await?;
        self.post(&format!("element/{element}/value"), json!({ "text": text })).await.map(drop)
    }

    /// Chooses a file in the first field that matches.
    pub async fn choose(&mut self, css: &str, file: &Path) -> anyhow::Result<()> {
        let element = self.find(css).await?;
        let path = file.to_str().context("the file's name is UTF-8")?;
        self.post(&format!("element/{element}/value"), json!({ "text": path })).await.map(drop)
    }

    /// The visible text of the first element that matches, once there is one.
    pub async fn text(&mut self, css: &str) -> anyhow::Result<String> {
        let element = self.find(css).await?;
        let path = format!("/session/{}/element/{element}/text", self.session);
        let text = self.command(Method::GET, &path, Value::Null).await?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// The value of a script's `return`.
    pub async fn script(&mut self, script: &str) -> anyhow::Result<Value> {
        self.post("execute/sync", json!({ "script": script, "args": [] })).await
    }

    /// The address shown.
    pub async fn url(&mut self) -> anyhow::Result<String> {
        let path = format!("/session/{}/url", self.session);
        let url = self.command(Method::GET, &path, Value::Null).await?;
        Ok(url.as_str().unwrap_or_default().to_owned())
    }

    /// Writes what the window shows to a PNG file.
    pub async fn screenshot(&mut self, file: &Path) -> anyhow::Result<()> {
        let path = format!("/session/{}/screenshot", self.session);
        let picture = self.command(Method::GET, &path, Value::Null).await?;
        std::fs::write(file, BASE64_STANDARD.decode(picture.as_str().unwrap_or_default())?)?;
        Ok(())
    }

    async fn find(&mut self, css: &str) -> anyhow::Result<String> {
        let found = self.post("element", json!({ "using": "css selector", "value": css })).await;
        let found = found.with_context(|| format!("looking for `{css}`"))?;
        Ok(found[ELEMENT].as_str().context("no element")?.to_owned())
    }

    async fn post(&mut self, command: &str, body: Value) -> anyhow::Result<Value> {
        let path = format!("/session/{}/{command}", self.session);
        self.command(Method::POST, &path, body).await
    }

    async fn command(&mut self, method: Method, path: &str, body: Value) -> anyhow::Result<Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let json = [("content-type", "application/json")];
        let page = self.wire.send(method, path, &json, body.into()).await?;
        let mut answer: Value = serde_json::from_slice(&page.body)?;
        if !page.status.is_success() {
            bail!("{path}: {}", answer["value"]["message"]);
        }
        Ok(answer["value"].take())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The whole group: chromedriver, and the browser that it started.
        let _ = Command::new("pkill").args(["-KILL", "-P", &self.driver.id().to_string()]).status();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Reads the port from chromedriver's greeting.
fn driver_port(driver: &mut Child) -> anyhow::Result<u16> {
    let output = driver.stdout.take().context("no output")?;
    let mut lines = BufReader::new(output).lines();
    let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let port = line.split("on port ").nth(1)?.trim_end_matches('.').parse::<u16>().ok()?;
        (port != 0).then_some(port)
    });
    // What else it says is read, so that it never waits on a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    port.context("chromedriver did not say its port")
}
