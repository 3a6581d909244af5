//! Servers that answer in their own way, byte for byte.

use std::time::Duration;

use lethe_journey::{
    destination::Destination,
    player::{Error, Limits, Settings},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::{Player, journey};

/// A server that gives each connection the next of `answers`, an answer for each request on it, and then closes it. Tells of each
/// request that it has had, and of each connection that it has closed.
async fn server(answers: Vec<Vec<&'static [u8]>>) -> (Destination, mpsc::Receiver<Event>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (requests, received) = mpsc::channel(16);
    tokio::spawn(async move {
        for answers in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in answers {
                let mut head = [0; 4096];
                assert!(stream.read(&mut head).await.unwrap() > 0);
                requests.send(Event::Request).await.unwrap();
                // The client may have heard enough.
                let _ = stream.write_all(answer).await;
                if answer.is_empty() {
                    std::future::pending().await
                }
            }
            drop(stream);
            requests.send(Event::Closed).await.unwrap();
        }
    });
    (Destination::tcp(address), received)
}

#[derive(Debug, PartialEq)]
enum Event {
    Request,
    Closed,
}

/// Comes back when all that has been sent so far is known to whom it was sent: what is accepted was made known with it.
async fn settle() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_to, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    accepted.unwrap();
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn player(limits: Limits) -> Player {
    let settings = Settings { identity: "r1a2b3".into(), limits, ..Settings::default() };
    Player::new(journey("[[steps]]\npost = \"/\"\nbody = \"x\""), settings).unwrap()
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_no_failure() {
    let (destination, mut received) = server(vec![vec![OK], vec![OK, OK]]).await;
    let mut player = player(Limits { kept_max: Duration::from_secs(120), ..Limits::default() });
    for (number, closes) in [(1, true), (2, false), (3, true)] {
        assert_eq!(player.step(1, &destination).await.unwrap().text(), "ok");
        assert_eq!(received.recv().await, Some(Event::Request), "request {number} was sent once");
        if closes {
            assert_eq!(received.recv().await, Some(Event::Closed));
            settle().await;
        }
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_told_apart_from_none() {
    let half = b"HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\nhalf";
    let (destination, _received) =
        server(vec![vec![half], vec![b"HTTP/1.1 2"], vec![b"no HTTP at all\r\n\r\n"]]).await;
    let mut player = player(Limits::default());
    let error = player.step(1, &destination).await.unwrap_err();
    assert!(error.to_string().ends_with("broke in the middle of a response with status 201"), "{error}");
    for _ in 0..2 {
        let error = player.step(1, &destination).await.unwrap_err();
        assert!(matches!(&error, Error::Lost { status: None, .. }), "{error}");
    }
}

#[tokio::test]
async fn nobody_is_waited_for_longer_than_the_limit() {
    let limits = Limits { step_time_max: Duration::from_millis(50), ..Limits::default() };
    let (destination, _received) = server(vec![vec![b""]]).await;
    let error = player(limits).step(1, &destination).await.unwrap_err();
    assert!(error.to_string().contains("within 50 ms") && matches!(error, Error::Late { .. }), "{error}");
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = player(limits).step(1, &Destination::tcp(nobody)).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
}

#[tokio::test]
async fn bodies_are_read_so_far_and_events_so_long() {
    let long = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nabcdefghijkl";
    let events = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\ndata: 1\n\n";
    let (destination, _received) = server(vec![vec![long], vec![long], vec![events, b""]]).await;
    let limits =
        Limits { body_bytes_max: 5, stream_time_max: Duration::from_millis(50), ..Limits::default() };
    let mut small = player(limits);
    let observed = small.step(1, &destination).await.unwrap();
    assert_eq!((observed.text().as_str(), observed.is_cut), ("abcde", true));
    let mut whole = player(Limits { body_bytes_max: 12, ..limits });
    let observed = whole.step(1, &destination).await.unwrap();
    assert_eq!((observed.text().as_str(), observed.is_cut), ("abcdefghijkl", false));
    whole.hang_up();
    let observed = whole.step(1, &destination).await.unwrap();
    assert_eq!((observed.text().as_str(), observed.is_cut), ("data: 1\n\n", true));
}
