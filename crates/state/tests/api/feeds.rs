//! Feeds as they stand on the wire, how many there may be, and what ends them.

use bytes::Bytes;
use lethe_state::{
    error::Error,
    feed::{Feed, Notice},
    server::feeds::FEEDS_MAX,
    tables::{Action, Condition, Tables, Write},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::UnixStream,
};

use crate::harness::{Server, bounded};

fn put(key: &str) -> Write {
    let action = Action::Put { value: Bytes::from_static(b"v"), ttl: None };
    Write { table: "t".into(), key: key.into(), condition: Condition::Any, action }
}

/// Reads up to the first change.
async fn change(feed: &mut Feed) -> Result<String, Error> {
    loop {
        if let Notice::Changed(name) = bounded(feed.next()).await? {
            return Ok(name.to_string());
        }
    }
}

/// Follows until that works: room that was just given back may not be there yet.
async fn follow(tables: &dyn Tables) -> Feed {
    bounded(async {
        loop {
            match tables.follow("t").await {
                Ok(feed) => return feed,
                Err(Error::Unavailable(_)) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await
}

/// What a client without a library sends, up to the end of the head.
async fn by_hand(server: &Server, path: &str) -> Lines<BufReader<UnixStream>> {
    let mut stream = UnixStream::connect(&server.path).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: state\r\n\r\n").as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut head = Vec::new();
    loop {
        match lines.next_line().await.unwrap().unwrap().as_str() {
            "" => break,
            line => head.push(line.to_lowercase()),
        }
    }
    assert_eq!(head[0], "http/1.1 200 ok");
    assert!(head.contains(&"content-type: text/event-stream".to_owned()), "{head:?}");
    assert!(head.contains(&"cache-control: no-store".to_owned()), "{head:?}");
    lines
}

/// The lines of the first event of this kind, without the sizes of chunks.
async fn event(lines: &mut Lines<BufReader<UnixStream>>, kind: &str) -> String {
    loop {
        let line = bounded(lines.next_line()).await.unwrap().expect("an event");
        if line == format!("event: {kind}") {
            return lines.next_line().await.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn a_feed_is_a_stream_of_events() {
    let server = Server::start().await;
    let tables = server.remote().engines().tables;
    let mut feed = by_hand(&server, "/v1/feeds/tables/t").await;
    tables.apply(vec![put("two\nlines"), put("\"")]).await.unwrap();
    assert_eq!(event(&mut feed, "changed").await, r#"data: "two\nlines""#);
    assert_eq!(event(&mut feed, "changed").await, r#"data: "\"""#);
    assert_eq!(event(&mut feed, "beat").await, "data: null");
    let mut sessions = by_hand(&server, "/v1/feeds/sessions").await;
    let engines = server.remote().engines();
    let id = engines.sessions.create(Default::default()).await.unwrap().id;
    engines.sessions.destroy(&id).await.unwrap();
    assert_eq!(event(&mut sessions, "changed").await, format!("data: \"{}\"", id.public_name()));
    server.get("/v1/feeds/tables/BAD", &[]).await.problem(400, "invalid");
    server.get("/v1/feeds/tables/t?from=1", &[]).await.problem(400, "invalid");
    server.get("/v1/feeds/blobs", &[]).await.problem(404, "no-route");
}

/// A feed takes nothing from calls, and one that is dropped leaves its room to the next.
#[tokio::test]
async fn there_is_room_for_so_many_feeds() {
    let server = Server::start().await;
    let mut feeds = Vec::new();
    while feeds.len() < FEEDS_MAX {
        // Each client has its own bound, which is smaller.
        let tables = server.remote().engines().tables;
        while let Ok(feed) = tables.follow("t").await {
            feeds.push((tables.clone(), feed));
        }
        tables.get("t", "k").await.unwrap();
    }
    assert_eq!(feeds.len(), FEEDS_MAX);
    let tables = server.remote().engines().tables;
    let error = tables.follow("t").await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable(text) if text.contains("512 feeds already")), "{error}");
    tables.apply(vec![put("k")]).await.unwrap();
    drop(feeds.pop());
    let mut feed = follow(&*tables).await;
    tables.apply(vec![put("next")]).await.unwrap();
    assert_eq!(change(&mut feed).await.unwrap(), "next");
    let calls = (0..100).map(|_| tables.get("t", "k"));
    assert!(futures_util::future::join_all(calls).await.iter().all(Result::is_ok));
}

/// The server does not wait for feeds, and says why they end.
#[tokio::test]
async fn feeds_end_with_the_server() {
    let mut server = Server::start().await;
    let tables = server.remote().engines().tables;
    let mut feed = tables.follow("t").await.unwrap();
    let mut seen_by_hand = by_hand(&server, "/v1/feeds/tables/t").await;
    bounded(server.stop()).await.unwrap();
    let error = change(&mut feed).await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable(text) if text == "the state API ends"), "{error}");
    let problem = event(&mut seen_by_hand, "failed").await;
    assert!(problem.contains(r#""code":"unavailable""#), "{problem}");
    assert!(change(&mut feed).await.is_err(), "for good");
    server.serve();
    let mut feed = follow(&*tables).await;
    tables.apply(vec![put("k")]).await.unwrap();
    assert_eq!(change(&mut feed).await.unwrap(), "k");
}
