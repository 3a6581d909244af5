//! A state API on a socket of its own, and a client that writes each byte of its requests by hand.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use lethe_state::{
    clock::ManualClock,
    embedded::Embedded,
    grant::{Grant, Pattern, Resource},
    realm::Realm,
    remote::Remote,
    server::{
        self, Api,
        access::{Door, Grants, Peer, Peers},
    },
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::oneshot,
    task::{JoinHandle, JoinSet},
};

/// Who asks is nobody's worker.
struct Anybody;

#[async_trait]
impl Peers for Anybody {
    async fn peer(&self, _: Option<i32>) -> Peer {
        Peer::Other
    }
}

/// A served engine in a temporary folder.
pub struct Server {
    pub clock: ManualClock,
    pub path: PathBuf,
    engine: Embedded,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    grants: Arc<Grants>,
    doors: JoinSet<()>,
    _directory: tempfile::TempDir,
}

impl Server {
    pub async fn start() -> Self {
        let mut server = Self::stopped();
        server.serve();
        server
    }

    /// One whose socket is not there yet.
    pub fn stopped() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(1_700_000_000_000);
        let engine = Embedded::open_with(&directory.path().join("state"), Arc::new(clock.clone())).unwrap();
        let path = directory.path().join("state.sock");
        let (grants, doors) = (Arc::default(), JoinSet::new());
        Self { clock, path, engine, running: None, grants, doors, _directory: directory }
    }

    pub fn serve(&mut self) {
        let listener = server::socket::bind(&self.path).unwrap();
        let (stop, stopped) = oneshot::channel();
        let ended = async {
            let _ = stopped.await;
        };
        let door = Door::of_operator(Arc::clone(&self.grants), Arc::new(Anybody));
        let task = tokio::spawn(Api::new(self.engine.engines()).serve(listener, door, ended));
        self.running = Some((stop, task));
    }

    /// Asks it to end; the task ends when it has.
    pub fn stop(&mut self) -> JoinHandle<()> {
        let (stop, task) = self.running.take().unwrap();
        drop(stop);
        task
    }

    /// Opens the socket of a service with such sessions, which may use all else.
    pub fn door(&mut self, service: &str, sessions: Option<&str>) -> PathBuf {
        let path = self.path.with_file_name(format!("{service}.sock"));
        self.grant(service, sessions);
        let door = Door::of_service(service, Arc::clone(&self.grants), Arc::new(Anybody));
        let listener = server::socket::bind(&path).unwrap();
        let serving = Api::new(self.engine.engines()).serve(listener, door, std::future::pending());
        self.doors.spawn(serving);
        path
    }

    /// From now on the service has these sessions.
    pub fn grant(&self, service: &str, sessions: Option<&str>) {
        let mut grant = Grant::default();
        for resource in Resource::ALL {
            grant.give(resource, [Pattern::parse(resource, "*").unwrap()]);
        }
        grant.sessions = sessions.map(|name| Realm::named(name).unwrap());
        self.grants.set(service, Some(grant));
    }

    pub fn remote(&self) -> Remote {
        Remote::connect(&server::socket::url(&self.path)).unwrap()
    }

    /// Makes a request with these header lines and this body.
    pub async fn request(&self, request: &str, headers: &[&str], body: &[u8]) -> Answer {
        let mut bytes = format!("{request} HTTP/1.1\r\nhost: state\r\nconnection: close\r\n").into_bytes();
        for header in headers {
            bytes.extend_from_slice(format!("{header}\r\n").as_bytes());
        }
        if !body.is_empty() {
            bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body);
        send(&self.path, &bytes).await
    }

    pub async fn get(&self, path: &str, headers: &[&str]) -> Answer {
        self.request(&format!("GET {path}"), headers, b"").await
    }

    /// Makes a request with a body in JSON.
    pub async fn json(&self, request: &str, body: &str) -> Answer {
        self.request(request, &["content-type: application/json"], body.as_bytes()).await
    }
}

/// Sends these bytes on a connection of their own, all of them before it listens, and reads the answer.
pub async fn send(path: &Path, bytes: &[u8]) -> Answer {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    read_answer(&mut stream).await
}

/// Reads an answer up to the end of the connection.
pub async fn read_answer(stream: &mut UnixStream) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    Answer::parse(&bytes)
}

/// An answer, as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head");
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        Self { status, headers: headers.collect(), body: bytes[end + 4..].to_vec() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Itself, if it has this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    /// The problem that it is, with this status and code.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Value {
        let answer = self.expect(status);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let problem = answer.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], format!("urn:lethe:state:{code}"));
        assert!(!problem["title"].as_str().unwrap().is_empty());
        problem
    }
}

/// The text of a problem's detail.
#[track_caller]
pub fn detail(problem: &Value) -> &str {
    problem["detail"].as_str().unwrap()
}

/// Ends a test that would wait for ever.
pub async fn bounded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it to end at all")
}
