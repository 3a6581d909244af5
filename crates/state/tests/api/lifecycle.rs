//! What happens when an end starts late, ends, or is lost in the middle, and that nothing is ever sent twice that
//! may have been done.

use std::{
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    task::Poll,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use lethe_state::{
    Engines,
    blobs::Put,
    error::Error,
    remote::Remote,
    server::socket,
    sessions::NewSession,
    tables::{Action, Condition, Outcome, Scan, Write},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::mpsc,
};

use crate::harness::{Server, bounded, read_answer};

fn put(key: &str, value: &'static str) -> Write {
    let action = Action::Put { value: Bytes::from_static(value.as_bytes()), ttl: None };
    Write { table: "t".into(), key: key.into(), condition: Condition::Any, action }
}

fn add(key: &str, by: i64) -> Write {
    Write {
        table: "t".into(),
        key: key.into(),
        condition: Condition::Any,
        action: Action::Increment { by, ttl: None },
    }
}

#[tokio::test]
async fn the_api_describes_itself() {
    let server = Server::start().await;
    server.get("/v1/health", &[]).await.expect(204);
    let document = server.get("/v1/openapi.json", &[]).await.expect(200);
    assert_eq!(document.header("content-type"), Some("application/json"));
    assert_eq!(document.json()["openapi"], "3.1.0");
    let mode = std::fs::metadata(&server.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn requests_that_run_are_finished_when_the_server_ends() {
    let mut server = Server::start().await;
    let mut upload = UnixStream::connect(&server.path).await.unwrap();
    let start = b"PUT /v1/blobs/b/k HTTP/1.1\r\nhost: s\r\nexpect: 100-continue\r\ncontent-length: 6\r\n\r\n";
    upload.write_all(start).await.unwrap();
    // That the body is asked for tells that the request runs.
    let mut asked = [0; 25];
    upload.read_exact(&mut asked).await.unwrap();
    let mut idle = UnixStream::connect(&server.path).await.unwrap();
    idle.write_all(b"GET /v1/health HTTP/1.1\r\nhost: s\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    idle.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 204");
    let ended = server.stop();
    // A connection without a request is closed; from then on nobody listens.
    idle.read_to_end(&mut Vec::new()).await.unwrap();
    assert!(UnixStream::connect(&server.path).await.is_err());
    upload.write_all(b"all of").await.unwrap();
    read_answer(&mut upload).await.expect(201);
    bounded(ended).await.unwrap();
}

#[tokio::test]
async fn calls_wait_for_a_server_that_is_starting() {
    let mut server = Server::stopped();
    let engines = server.remote().engines();
    let reading = tokio::spawn({
        let tables = engines.tables.clone();
        async move { tables.get("t", "k").await }
    });
    let writing = tokio::spawn({
        let tables = engines.tables.clone();
        async move { tables.apply(vec![add("n", 1)]).await }
    });
    tokio::task::yield_now().await;
    server.serve();
    assert_eq!(bounded(reading).await.unwrap().unwrap(), None);
    let outcomes = bounded(writing).await.unwrap().unwrap();
    assert!(matches!(outcomes[..], [Outcome::Incremented { value: 1, .. }]));
}

#[tokio::test]
async fn connections_to_an_ended_server_are_replaced() {
    let mut server = Server::start().await;
    let engines = server.remote().engines();
    for round in 1..=5 {
        // Several connections are kept, and all of them end.
        let scan = Scan::default();
        let calls = futures_util::future::join_all((0..8).map(|_| engines.tables.scan("t", &scan)));
        assert!(calls.await.iter().all(Result::is_ok));
        bounded(server.stop()).await.unwrap();
        server.serve();
        let outcomes = engines.tables.apply(vec![add("n", 1)]).await.unwrap();
        assert!(matches!(outcomes[..], [Outcome::Incremented { value, .. }] if value == round));
    }
}

#[tokio::test]
async fn a_socket_that_is_not_there_is_named() {
    let server = Server::stopped();
    let error = server.remote().engines().tables.get("t", "k").await.unwrap_err();
    let path = server.path.display().to_string();
    assert!(matches!(&error, Error::Unavailable(text) if text.contains(&path)), "{error}");
    assert!(error.to_string().contains("is lethe running?"), "{error}");
}

/// A server that reads requests, tells the first line of each, and gives the answers it is told, each on a connection
/// of its own; an empty answer closes the connection without one.
struct Scripted {
    engines: Engines,
    requests: mpsc::Receiver<String>,
    _directory: tempfile::TempDir,
}

impl Scripted {
    fn new(answers: Vec<&'static [u8]>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path: PathBuf = directory.path().join("state.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (tell, requests) = mpsc::channel(16);
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                tell.send(read_head(&mut stream).await).await.unwrap();
                stream.write_all(answer).await.unwrap();
            }
        });
        Self { engines: connect(&path), requests, _directory: directory }
    }

    /// The first lines of the requests so far.
    fn requests(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.requests.try_recv().ok()).collect()
    }
}

fn connect(path: &Path) -> Engines {
    Remote::over_http(&socket::url(path)).unwrap().engines()
}

/// Reads a head and whatever came with it; gives the first line.
async fn read_head(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0);
    }
    String::from_utf8_lossy(&bytes).lines().next().unwrap().to_owned()
}

const ROW: &[u8] = b"HTTP/1.1 200 OK\r\netag: \"7\"\r\ncontent-length: 1\r\n\r\nv";

#[tokio::test]
async fn a_write_whose_fate_is_not_known_is_sent_once() {
    for answer in [&b""[..], b"HTTP/1.1 204 No Con"] {
        let mut server = Scripted::new(vec![answer, ROW]);
        let error = server.engines.tables.apply(vec![put("k", "v")]).await.unwrap_err();
        assert!(
            matches!(&error, Error::Unavailable(text) if text.contains("may have taken effect")),
            "{error}"
        );
        assert_eq!(server.requests(), ["PUT /v1/tables/t/k HTTP/1.1"]);
        let mut server = Scripted::new(vec![answer, ROW]);
        let error = server.engines.sessions.create(NewSession::default()).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{error}");
        assert_eq!(server.requests(), ["POST /v1/sessions HTTP/1.1"]);
        let mut server = Scripted::new(vec![answer, ROW]);
        let body = futures_util::stream::iter([Ok(Bytes::from_static(b"x"))]).boxed();
        let error = server.engines.blobs.put("b", "k", body, Put::default()).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{error}");
        assert_eq!(server.requests(), ["PUT /v1/blobs/b/k HTTP/1.1"]);
    }
}

#[tokio::test]
async fn a_read_is_sent_again() {
    let mut server = Scripted::new(vec![b"", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhal", ROW]);
    let row = server.engines.tables.get("t", "k").await.unwrap().unwrap();
    assert_eq!((&row.value[..], row.revision), (&b"v"[..], 7));
    assert_eq!(server.requests(), ["GET /v1/tables/t/k HTTP/1.1"; 3]);
}

#[tokio::test]
async fn a_blob_that_ends_early_ends_in_an_error() {
    let half = b"HTTP/1.1 200 OK\r\netag: \"e\"\r\nlethe-modified-at: 1\r\ncontent-length: 10\r\n\r\n01234";
    let server = Scripted::new(vec![half]);
    let blob = server.engines.blobs.get("b", "k", None).await.unwrap().unwrap();
    let error = blob.body.try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
}

#[tokio::test]
async fn answers_of_another_server_are_named() {
    for (answer, part) in [
        (&b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnope"[..], "404 Not Found: nope"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "without an ETag"),
        (b"HTTP/1.1 200 OK\r\netag: \"x\"\r\ncontent-length: 0\r\n\r\n", "not the revision"),
    ] {
        let error = Scripted::new(vec![answer]).engines.tables.get("t", "k").await.unwrap_err();
        let mut text = error.to_string();
        if let Error::Engine(source) = &error {
            text = source.to_string();
        }
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_share_few_connections() {
    let server = Server::start().await;
    let tables = server.remote().engines().tables;
    let calls = (0..300).map(|_| {
        let tables = tables.clone();
        tokio::spawn(async move { tables.apply(vec![add("n", 1)]).await })
    });
    for done in bounded(futures_util::future::join_all(calls)).await {
        done.unwrap().unwrap();
    }
    assert_eq!(&tables.get("t", "n").await.unwrap().unwrap().value[..], b"300");
}

#[tokio::test]
async fn a_dropped_call_harms_no_other() {
    let server = Server::start().await;
    let tables = server.remote().engines().tables;
    tables.apply(vec![put("k", "v")]).await.unwrap();
    for polls in 0..20 {
        let mut call = std::pin::pin!(tables.get("t", "k"));
        // Dropped at another point each time.
        for _ in 0..polls {
            if std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_ready())).await {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    for _ in 0..20 {
        assert_eq!(&tables.get("t", "k").await.unwrap().unwrap().value[..], b"v");
    }
}

#[tokio::test]
async fn errors_are_the_same_on_both_sides() {
    let server = Server::start().await;
    let engines = server.remote().engines();
    let conflict = |index, write: Write| {
        let mut batch = vec![put("other", "v"); index];
        batch.push(Write { condition: Condition::Present, ..write });
        engines.tables.apply(batch)
    };
    for index in [0, 2] {
        let error = conflict(index, put("k", "v")).await.unwrap_err();
        let expected = format!("{:?}", Error::Conflict { index, key: "k".into(), found: None });
        assert_eq!(format!("{error:?}"), expected);
    }
    engines.tables.apply(vec![put("k", "many")]).await.unwrap();
    for batch in [vec![add("k", 1)], vec![put("other", "v"), add("k", 1)]] {
        let error = engines.tables.apply(batch).await.unwrap_err();
        assert!(matches!(&error, Error::NotAnInteger { key } if key == "k"), "{error:?}");
    }
    let error = engines.tables.get("t", &"k".repeat(1025)).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { what: "a key", size: 1025, max: 1024 }), "{error:?}");
    let error = engines.blobs.head("BAD", "k").await.unwrap_err();
    assert!(matches!(&error, Error::Invalid(text) if text.contains("lower-case")), "{error:?}");
}

#[tokio::test]
async fn the_head_of_a_request_is_bounded() {
    let server = Server::start().await;
    let answer = server.get("/v1/health", &[&format!("x-long: {}", "x".repeat(100_000))]).await;
    assert_eq!(answer.status, 431);
    // And a garbled one is refused.
    let answer = crate::harness::send(&server.path, b"GET /v1/health HTTP/1.1\r\nbad header\r\n\r\n").await;
    assert_eq!(answer.status, 400);
}
