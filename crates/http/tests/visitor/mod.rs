//! A browser's cookie jar in front of a router, and the engine behind it.

#![allow(dead_code, reason = "each test uses what it needs of it")]

use std::{collections::BTreeMap, sync::Arc};

use axum::{Router, body::Body};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use lethe_state::{
    Engines,
    clock::{Clock, SystemClock},
    embedded::Embedded,
    idempotency::Idempotency,
    limits::Limits,
    sessions::Sessions,
    tables::Tables,
};
use tempfile::TempDir;
use tower::ServiceExt;

/// The embedded engine in a folder of its own.
pub struct Engine {
    embedded: Embedded,
    clock: Arc<dyn Clock>,
    _folder: TempDir,
}

impl Engine {
    pub fn open() -> Self {
        Self::open_with(Arc::new(SystemClock))
    }

    pub fn open_with(clock: Arc<dyn Clock>) -> Self {
        let folder = TempDir::new().unwrap();
        let embedded = Embedded::open_with(folder.path(), Arc::clone(&clock)).unwrap();
        Self { embedded, clock, _folder: folder }
    }

    pub fn engines(&self) -> Engines {
        self.embedded.engines()
    }

    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    pub fn sessions(&self) -> Arc<dyn Sessions> {
        self.embedded.engines().sessions
    }

    pub fn limits(&self) -> Arc<dyn Limits> {
        self.embedded.engines().limits
    }

    pub fn idempotency(&self) -> Arc<dyn Idempotency> {
        self.embedded.engines().idempotency
    }

    pub fn tables(&self) -> Arc<dyn Tables> {
        self.embedded.engines().tables
    }

    /// From now on each call fails with `Unavailable`.
    pub async fn close(self) {
        self.embedded.close().await;
    }
}

/// One browser: cookies by name. A clone is another tab, which has sent its request before it saw the answers
/// that the first one gets.
#[derive(Clone)]
pub struct Visitor {
    site: Router,
    cookies: BTreeMap<String, String>,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn set_cookies(&self) -> Vec<String> {
        let lines = self.headers.get_all(header::SET_COOKIE).into_iter();
        lines.map(|line| line.to_str().unwrap().to_owned()).collect()
    }
}

impl Answer {
    /// Those that are not about the pass, which comes and goes by itself.
    pub fn session_cookies(&self) -> Vec<String> {
        self.set_cookies().into_iter().filter(|line| !line.contains("-pass=")).collect()
    }
}

impl Visitor {
    pub fn new(site: Router) -> Self {
        Self { site, cookies: BTreeMap::new() }
    }

    /// The same browser, on another site of the same service.
    pub fn on(self, site: Router) -> Self {
        Self { site, ..self }
    }

    pub fn cookie(&self, name: &str) -> Option<String> {
        self.cookies.get(name).cloned()
    }

    pub fn forget(&mut self, name: &str) {
        self.cookies.remove(name);
    }

    pub fn plant(&mut self, name: &str, value: &str) {
        self.cookies.insert(name.into(), value.into());
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub async fn post(&mut self, path: &str) -> Answer {
        self.post_body(path, "").await
    }

    pub async fn post_body(&mut self, path: &str, body: &'static str) -> Answer {
        self.send(Request::post(path).body(Body::from(body)).unwrap()).await
    }

    pub async fn post_with(&mut self, path: &str, headers: &[(&'static str, &str)]) -> Answer {
        self.post_body_with(path, headers, "").await
    }

    pub async fn post_body_with(
        &mut self,
        path: &str,
        headers: &[(&'static str, &str)],
        body: &'static str,
    ) -> Answer {
        let mut request = Request::post(path).body(Body::from(body)).unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        self.send(request).await
    }

    async fn send(&mut self, mut request: Request<Body>) -> Answer {
        if !self.cookies.is_empty() {
            let pairs: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request.headers_mut().insert(header::COOKIE, pairs.join("; ").parse().unwrap());
        }
        let response = self.site.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().into()).unwrap();
        let answer = Answer { status: head.status, headers: head.headers, text };
        answer.set_cookies().iter().for_each(|line| self.keep(line));
        answer
    }

    fn keep(&mut self, line: &str) {
        let (pair, attributes) = line.split_once("; ").unwrap();
        let (name, value) = pair.split_once('=').unwrap();
        match attributes.contains("Max-Age=0") {
            true => self.cookies.remove(name),
            false => self.cookies.insert(name.into(), value.into()),
        };
    }
}
