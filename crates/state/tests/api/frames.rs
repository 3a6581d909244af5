//! Calls in frames: each byte of them written by hand, to the server and from it.

use std::{path::Path, sync::Arc, time::Duration};

use futures_util::future::join_all;
use lethe_state::{
    Engines,
    error::Error,
    remote::Remote,
    server::socket,
    tables::{Action, Condition, Outcome, Write},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::{Notify, mpsc},
};

use crate::harness::{Server, bounded};

const UPGRADE: &[u8] =
    b"GET /v1/frames HTTP/1.1\r\nhost: lethe\r\nconnection: upgrade\r\nupgrade: lethe-frames-1\r\n\r\n";
const AGREED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: lethe-frames-1\r\n\r\n";
const GET: u8 = 0;
const PUT: u8 = 2;

/// A call, as it is written down in docs.
fn call(number: u64, method: u8, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut rest = vec![method, headers.len() as u8];
    rest.extend((target.len() as u16).to_le_bytes());
    rest.extend(target.as_bytes());
    for (name, value) in headers {
        rest.push(name.len() as u8);
        rest.extend((value.len() as u16).to_le_bytes());
        rest.extend(name.as_bytes());
        rest.extend(value.as_bytes());
    }
    rest.extend(body);
    let mut frame = (rest.len() as u32).to_le_bytes().to_vec();
    frame.extend(number.to_le_bytes());
    frame.extend(rest);
    frame
}

/// A connection that carries frames.
struct Frames(UnixStream);

#[derive(Debug)]
struct Answer {
    number: u64,
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Frames {
    async fn open(path: &Path) -> Self {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(UPGRADE).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        Self(stream)
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    async fn answer(&mut self) -> Answer {
        let stream = &mut self.0;
        let (length, number) = (stream.read_u32_le().await.unwrap(), stream.read_u64_le().await.unwrap());
        let mut rest = vec![0; length as usize];
        stream.read_exact(&mut rest).await.unwrap();
        let (status, count) = (u16::from_le_bytes([rest[0], rest[1]]), rest[2]);
        let mut rest = &rest[4..];
        let headers = (0..count).map(|_| {
            let (name, value) = (usize::from(rest[0]), usize::from(u16::from_le_bytes([rest[1], rest[2]])));
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let header = (text(&rest[3..3 + name]), text(&rest[3 + name..3 + name + value]));
            rest = &rest[3 + name + value..];
            header
        });
        let headers = headers.collect();
        Answer { number, status, headers, body: rest.to_vec() }
    }

    /// Whether the other side closes without another byte.
    async fn closes(mut self) -> bool {
        // It may close with what was sent unread, which is a reset.
        bounded(self.0.read_u8()).await.is_err()
    }
}

#[tokio::test]
async fn an_upgrade_is_asked_for() {
    let server = Server::start().await;
    let answer = server.get("/v1/frames", &[]).await;
    assert_eq!((answer.status, answer.header("upgrade")), (426, Some("lethe-frames-1")));
    let answer = server.get("/v1/frames", &["connection: upgrade", "upgrade: websocket"]).await;
    assert_eq!(answer.status, 426);
    let mut frames = Frames::open(&server.path).await;
    frames.send(&call(1, GET, "/v1/frames", &[("upgrade", "lethe-frames-1")], b"")).await;
    assert_eq!(frames.answer().await.status, 426, "frames are not upgraded again");
}

#[tokio::test]
async fn calls_come_in_any_pieces_and_are_answered_by_number() {
    let server = Server::start().await;
    let mut frames = Frames::open(&server.path).await;
    let bytes = [
        call(7, PUT, "/v1/tables/t/k", &[], b"v"),
        call(9, GET, "/v1/tables/t/none", &[], b""),
        call(1 << 40, PUT, "/v1/tables/t/k2", &[("if-none-match", "*")], b""),
    ]
    .concat();
    for byte in bytes {
        frames.send(&[byte]).await;
    }
    let mut answers = [frames.answer().await, frames.answer().await, frames.answer().await];
    answers.sort_by_key(|answer| answer.number);
    assert_eq!(
        answers.each_ref().map(|answer| (answer.number, answer.status)),
        [(7, 204), (9, 404), (1 << 40, 204)]
    );
    assert!(String::from_utf8_lossy(&answers[1].body).contains("\"not-found\""));
    let etag = answers[0].headers.iter().find(|(name, _)| name == "etag").unwrap().1.clone();
    // All at once.
    let next = (1 << 40) + 1;
    let reads = (0..50).map(|n| call(next + n, GET, "/v1/tables/t/k", &[], b"")).collect::<Vec<_>>().concat();
    frames.send(&reads).await;
    for n in 0..50 {
        let answer = frames.answer().await;
        assert_eq!((answer.number, answer.status, &answer.body[..]), (next + n, 200, &b"v"[..]));
        assert!(answer.headers.contains(&("etag".into(), etag.clone())));
    }
}

#[tokio::test]
async fn a_read_does_not_wait_for_a_write_before_it() {
    let server = Server::start().await;
    let mut frames = Frames::open(&server.path).await;
    frames.send(&call(1, PUT, "/v1/tables/t/k", &[], b"v")).await;
    frames.answer().await;
    let bytes =
        [call(2, PUT, "/v1/tables/t/k", &[], b"w"), call(3, GET, "/v1/tables/t/other", &[], b"")].concat();
    frames.send(&bytes).await;
    // The write waits for the disk; the look-up is done before the task that serves it sleeps.
    assert_eq!(frames.answer().await.number, 3);
    assert_eq!(frames.answer().await.number, 2);
}

/// A call in its plainest form is done another way than one with a header, which nobody looks at here: no difference is seen.
#[tokio::test]
async fn plain_calls_are_answered_as_all_others() {
    let server = Server::start().await;
    let session = server.json("POST /v1/sessions", r#"{"user":"ada","fields":{"n":[1,"\u00fc"]}}"#).await;
    let id = session.expect(201).json()["id"].as_str().unwrap().to_owned();
    server.request("PUT /v1/tables/t/k", &[], b"v").await.expect(204);
    server.request("PUT /v1/tables/t/empty", &[], b"").await.expect(204);
    server.request("PUT /v1/tables/t/ends?ttl_ms=60000", &[], &[0xff; 3000]).await.expect(204);
    let ended = server.json("POST /v1/sessions", "{}").await.json()["id"].as_str().unwrap().to_owned();
    server.request(&format!("DELETE /v1/sessions/{ended}"), &[], b"").await.expect(204);
    let mut frames = Frames::open(&server.path).await;
    let [own, ended] = [id, ended].map(|id| format!("/v1/sessions/{id}"));
    let cases: &[(u8, &str, &[u8], u16)] = &[
        (GET, &own, b"", 200),
        // From memory.
        (GET, &own, b"", 200),
        (GET, &ended, b"", 410),
        (GET, "/v1/sessions/AAAAAAAAAAAAAAAAAAAAAA", b"", 404),
        (GET, "/v1/sessions/none", b"", 404),
        (GET, "/v1/sessions/", b"", 404),
        (GET, "/v1/sessions/a/b", b"", 404),
        (GET, "/v1/tables/t/k", b"", 200),
        (GET, "/v1/tables/t/empty", b"", 200),
        (GET, "/v1/tables/t/ends", b"", 200),
        (GET, "/v1/tables/t/none", b"", 404),
        (GET, "/v1/tables/T/k", b"", 400),
        (GET, "/v1/tables/t/k?x=1", b"", 400),
        (GET, "/v1/tables/t//k", b"", 404),
        (PUT, "/v1/tables/t/new", b"w", 204),
        (PUT, "/v1/tables/t/new", b"", 204),
        (PUT, "/v1/tables/T/k", b"w", 400),
        (PUT, "/v1/sessions/none", b"", 405),
    ];
    let mut number = 0;
    for (method, target, body, status) in cases {
        let mut answers = Vec::new();
        for headers in [&[][..], &[("x-way", "of requests")]] {
            number += 1;
            frames.send(&call(number, *method, target, headers, body)).await;
            let mut answer = frames.answer().await;
            // A frame has a length of its own.
            answer.headers.retain(|(name, _)| name != "content-length");
            answer.headers.sort();
            // Each write has a revision of its own.
            if *method == PUT {
                answer.headers.iter_mut().filter(|(name, _)| name == "etag").for_each(|(_, tag)| {
                    assert!(tag.trim_matches('"').parse::<u64>().is_ok(), "{tag}");
                    tag.clear();
                });
            }
            assert_eq!((answer.number, answer.status), (number, *status), "{target}: {answer:?}");
            answers.push((answer.headers, answer.body));
        }
        assert_eq!(answers[0], answers[1], "{target}");
    }
    frames.send(&call(100, GET, "/v1/tables/t/new", &[], b"")).await;
    assert_eq!(frames.answer().await.body, b"");
}

#[tokio::test]
async fn what_comes_piece_by_piece_is_left_to_http() {
    let server = Server::start().await;
    let large = vec![b'x'; 1 << 20];
    assert_eq!(server.request("PUT /v1/blobs/b/large", &[], &large).await.status, 201);
    let mut frames = Frames::open(&server.path).await;
    for (number, target) in [(1, "/v1/blobs/b/large"), (2, "/v1/feeds/tables/t")] {
        frames.send(&call(number, GET, target, &[], b"")).await;
        let answer = frames.answer().await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status == 400 && text.contains("over HTTP"), "{target}: {} {text}", answer.status);
    }
}

#[tokio::test]
async fn what_is_no_frame_ends_the_connection_alone() {
    let server = Server::start().await;
    let mut good = Frames::open(&server.path).await;
    let length = |length: u32| [&length.to_le_bytes()[..], &1u64.to_le_bytes(), &[0; 8]].concat();
    let mut header_cut = call(1, GET, "/v1/health", &[("a", "b")], b"");
    header_cut[14 + 2 + 10] = 200;
    let mut target_cut = call(1, GET, "/v1/health", &[], b"");
    target_cut[14] = 99;
    for (bytes, what) in [
        (length(u32::MAX), "longer than any"),
        (length((16 << 10) + 1), "a byte too long"),
        (length(3), "too short for a call"),
        (call(1, 6, "/v1/health", &[], b""), "a method that is none"),
        (call(0, GET, "/v1/health", &[], b""), "number 0"),
        (header_cut, "a header longer than the rest"),
        (target_cut, "a target longer than the rest"),
        (call(1, GET, "/v1/health", &[("a b", "c")], b""), "a header's name that is none"),
        (call(1, GET, "/v1/health", &[("a", "c\n")], b""), "a header's value that is none"),
    ] {
        let mut frames = Frames::open(&server.path).await;
        frames.send(&bytes).await;
        assert!(frames.closes().await, "{what}");
    }
    let mut frames = Frames::open(&server.path).await;
    frames.send(&call(5, GET, "/v1/health", &[], b"")).await;
    assert_eq!(frames.answer().await.status, 204);
    frames.send(&call(5, GET, "/v1/health", &[], b"")).await;
    assert!(frames.closes().await, "a number twice");
    for target in ["", "no path", "/v1/\u{7f}"] {
        let mut frames = Frames::open(&server.path).await;
        frames.send(&call(1, GET, target, &[], b"")).await;
        assert!((400..500).contains(&frames.answer().await.status), "{target}");
    }
    good.send(&call(1, GET, "/v1/health", &[], b"")).await;
    assert_eq!(good.answer().await.status, 204);
}

fn add(key: &str) -> Write {
    let action = Action::Increment { by: 1, ttl: None };
    Write { table: "t".into(), key: key.into(), condition: Condition::Any, action }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_loses_no_call_and_does_none_twice() {
    let mut server = Server::start().await;
    let (engines, done) = (server.remote().engines(), Arc::new(Notify::new()));
    let clients = (0..16).map(|_| {
        let (engines, done) = (engines.clone(), done.clone());
        tokio::spawn(async move {
            for _ in 0..60 {
                engines.tables.apply(vec![add("n")]).await.unwrap();
                done.notify_one();
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    for _ in 0..5 {
        // In the midst of the load each time.
        for _ in 0..20 {
            bounded(done.notified()).await;
        }
        bounded(server.stop()).await.unwrap();
        server.serve();
    }
    for client in clients {
        bounded(client).await.unwrap();
    }
    assert_eq!(&engines.tables.get("t", "n").await.unwrap().unwrap().value[..], b"960");
}

/// A server that agrees to frames, tells of each call's number and first byte, and does with the connections what it is told,
/// one after the other.
struct Scripted {
    engines: Engines,
    calls: mpsc::Receiver<(u64, u8)>,
    _directory: tempfile::TempDir,
}

#[derive(Clone, Copy)]
enum Act {
    /// Reads one call and closes.
    Cut,
    /// Reads one call, says that it leaves before it, and closes.
    Leave,
    /// Reads calls, and answers none until the client closes.
    Hang,
    /// Answers with 204 and an entity tag.
    Answer,
}

impl Scripted {
    fn new(acts: &'static [Act]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (tell, calls) = mpsc::channel(64);
        tokio::spawn(async move {
            for act in acts {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = vec![0; UPGRADE.len()];
                stream.read_exact(&mut head).await.unwrap();
                stream.write_all(AGREED).await.unwrap();
                while let Ok(length) = stream.read_u32_le().await {
                    let number = stream.read_u64_le().await.unwrap();
                    let mut rest = vec![0; length as usize];
                    stream.read_exact(&mut rest).await.unwrap();
                    tell.send((number, rest[0])).await.unwrap();
                    match act {
                        Act::Cut => break,
                        Act::Leave => {
                            let leaving =
                                [&4u32.to_le_bytes()[..], &(number - 1).to_le_bytes(), &[0; 4]].concat();
                            stream.write_all(&leaving).await.unwrap();
                            break;
                        }
                        Act::Hang => {}
                        Act::Answer => {
                            let headers = b"\xcc\x00\x01\x00\x04\x03\x00etag\"7\"";
                            let length = (headers.len() as u32).to_le_bytes();
                            let answer = [&length[..], &number.to_le_bytes(), headers].concat();
                            stream.write_all(&answer).await.unwrap();
                        }
                    }
                }
            }
        });
        let engines = Remote::connect(&socket::url(&path)).unwrap().engines();
        Self { engines, calls, _directory: directory }
    }

    fn calls(&mut self) -> usize {
        std::iter::from_fn(|| self.calls.try_recv().ok()).count()
    }
}

fn put() -> Write {
    let action = Action::Put { value: "v".into(), ttl: None };
    Write { table: "t".into(), key: "k".into(), condition: Condition::Any, action }
}

#[tokio::test]
async fn a_write_whose_fate_is_not_known_is_sent_once() {
    let mut server = Scripted::new(&[Act::Cut, Act::Answer]);
    let error = server.engines.tables.apply(vec![put()]).await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable(text) if text.contains("may have taken effect")), "{error}");
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn a_write_that_was_certainly_not_done_is_sent_again() {
    let mut server = Scripted::new(&[Act::Leave, Act::Leave, Act::Answer]);
    let outcomes = server.engines.tables.apply(vec![put()]).await.unwrap();
    assert!(matches!(outcomes[..], [Outcome::Put { revision: 7 }]));
    assert_eq!(server.calls(), 3);
}

#[tokio::test]
async fn a_read_is_sent_again() {
    let mut server = Scripted::new(&[Act::Cut, Act::Cut, Act::Answer]);
    assert!(server.engines.tables.get("t", "k").await.unwrap().is_some());
    assert_eq!(server.calls(), 3);
}

#[tokio::test]
async fn who_answers_nothing_is_not_asked_again() {
    let mut server = Scripted::new(&[Act::Hang, Act::Answer]);
    let calls = (0..3).map(|_| {
        let tables = server.engines.tables.clone();
        tokio::spawn(async move { tables.apply(vec![put()]).await })
    });
    let calls: Vec<_> = calls.collect();
    for _ in 0..3 {
        bounded(server.calls.recv()).await.unwrap();
    }
    // Nothing but time passes until they give up.
    tokio::time::pause();
    for error in join_all(calls).await {
        let error = error.unwrap().unwrap_err();
        assert!(
            matches!(&error, Error::Unavailable(text) if text.contains("no answer within 10 s")),
            "{error}"
        );
    }
    tokio::time::resume();
    let outcomes =
        tokio::time::timeout(Duration::from_secs(60), server.engines.tables.apply(vec![put()])).await;
    assert!(matches!(outcomes.unwrap().unwrap()[..], [Outcome::Put { revision: 7 }]), "on a new connection");
}

#[tokio::test]
async fn nobody_waits_for_the_attempts_of_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.sock");
    // Takes connections, and never says a word.
    let _listener = UnixListener::bind(&path).unwrap();
    let tables = Remote::connect(&socket::url(&path)).unwrap().engines().tables;
    let begin = tokio::time::Instant::now();
    tokio::time::pause();
    let calls = (0..50).map(|_| tables.get("t", "k"));
    for error in join_all(calls).await {
        assert!(matches!(error.unwrap_err(), Error::Unavailable(_)));
    }
    // Of the paused clock: an attempt takes a second, and they are made for two.
    assert!(begin.elapsed() < Duration::from_secs(6), "{:?}", begin.elapsed());
}
