//! What of a request goes to a worker that does not take it, what then is still there, and how the end of an idle
//! connection is seen.

use std::{pin::pin, rc::Rc, task::Waker};

use tokio::{
    net::{TcpListener, UnixStream},
    task::coop,
};

use super::*;
use crate::{
    body_budget::{BodyBudget, Share},
    downstream::fake::Client,
    socket::tests::whole_writes,
    watch::Phase,
};

const HEAD: &[u8] = b"POST / HTTP/1.1\r\nhost: h\r\n\r\n";

/// A connection with a request begun on it, and the worker's end.
fn begun(length: Length) -> (Http1, UnixStream) {
    let (ours, worker) = UnixStream::pair().unwrap();
    let mut link = Http1::over(Socket::Unix(ours));
    assert!(link.begin(HEAD, length, false).is_ok());
    (link, worker)
}

/// An upload of which nothing can be kept.
fn unkept(length: Length) -> Upload {
    Upload::new(length, 0, &Rc::new(Share::new(BodyBudget::new(0))))
}

/// Sends until `done` says so of the connection and what is left to come from the client.
async fn send(
    (link, upload, client): (&mut Http1, &mut Upload, &mut Client),
    mut done: impl FnMut(&Http1, usize) -> bool,
) -> Result<(), Halt> {
    let watched = Watched::new(Phase::Uploading);
    std::future::poll_fn(|cx| {
        let sent = link.poll_send(cx, upload, client, &watched);
        if sent.is_pending() && done(link, client.pieces.len()) { Poll::Ready(Ok(())) } else { sent }
    })
    .await
}

#[tokio::test]
async fn what_was_not_sent_can_be_sent_elsewhere_although_it_is_not_kept() {
    for length in [Length::Chunked, Length::Sized(5)] {
        let (mut client, mut upload) = (Client::sends([&b"hello"[..]]), unkept(length));
        let (mut link, worker) = begun(length);
        drop(worker);
        let sent = send((&mut link, &mut upload, &mut client), |_, _| false).await;
        let Err(Halt::Lost(loss)) = sent else { panic!("there is nobody") };
        assert_eq!((loss.stage, client.pieces.len()), (Stage::Unsent, 0));
        assert!(upload.is_replayable(), "{length:?}");
        let (mut link, worker) = begun(length);
        upload.rewind();
        let all = send((&mut link, &mut upload, &mut client), |link, _| link.outbox.is_empty()).await;
        assert!(all.is_ok() && !upload.is_replayable(), "{length:?}");
        let mut got = [0; 100];
        worker.readable().await.unwrap();
        let count = worker.try_read(&mut got).unwrap();
        assert!(String::from_utf8_lossy(&got[..count]).contains("hello"), "{length:?}");
    }
}

#[tokio::test]
async fn a_worker_that_reads_nothing_holds_up_its_client() {
    const PIECE: [u8; 10_000] = [b'x'; 10_000];
    const PIECES: usize = 1000;
    let (mut client, mut upload) = (Client::sends([&PIECE[..]; PIECES]), unkept(Length::Chunked));
    let (mut link, worker) = begun(Length::Chunked);
    let (mut space, watched) = (vec![0; 1 << 16], Watched::new(Phase::Uploading));
    for round in 0..3 {
        let before = client.pieces.len();
        let filled = std::future::poll_fn(|cx| {
            // Again and again, as when more comes from the client.
            loop {
                let left = client.pieces.len();
                assert!(link.poll_send(cx, &mut upload, &mut client, &watched).is_pending());
                if client.pieces.len() == left {
                    break;
                }
            }
            let is_full = link.outbox.bytes().len() > OUT_BYTES_MAX;
            if is_full && client.pieces.len() < before { Poll::Ready(()) } else { Poll::Pending }
        });
        filled.await;
        let waiting = link.outbox.bytes().len();
        assert!(waiting <= OUT_BYTES_MAX + PIECE.len() + 10, "{waiting} bytes in round {round}");
        worker.readable().await.unwrap();
        while worker.try_read(&mut space).is_ok() {}
    }
}

#[tokio::test]
async fn small_chunks_go_out_together() {
    const PIECES: usize = 500;
    let (ours, worker) = whole_writes();
    let mut link = Http1::over(Socket::Unix(ours));
    assert!(link.begin(HEAD, Length::Chunked, false).is_ok());
    let (mut client, mut upload) = (Client::sends(vec![&b"x"[..]; PIECES]), unkept(Length::Chunked));
    let sent =
        send((&mut link, &mut upload, &mut client), |link, left| left == 0 && link.outbox.is_empty()).await;
    assert!(sent.is_ok());
    worker.readable().await.unwrap();
    let (mut writes, mut bytes, mut space) = (0, 0, vec![0; 1 << 20]);
    while let Ok(count @ 1..) = worker.try_read(&mut space) {
        (writes, bytes) = (writes + 1, bytes + count);
    }
    assert!(bytes == HEAD.len() + PIECES * b"1\r\nx\r\n".len() && writes <= 3, "{writes} writes");
}

#[tokio::test]
async fn the_end_of_an_idle_connection_is_seen_at_the_end_of_a_turn() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().into();
    let mut link = Http1::connect(&address, Duration::from_secs(30)).await.unwrap();
    let (worker, _) = listener.accept().await.unwrap();
    // Nobody knows of a new socket that it is not ready, until it was tried.
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(link.input.poll_fill(cx, &mut link.io, &Pool::default(), 1).is_pending());
    assert!(!link.has_stirred(cx));
    drop(worker);
    poll_fn(|cx| link.io.poll_read_ready(cx)).await.unwrap();
    while coop::has_budget_remaining() {
        assert!(pin!(coop::consume_budget()).poll(cx).is_ready());
    }
    assert!(link.io.poll_read_ready(cx).is_pending(), "its turn is over");
    assert!(link.has_stirred(cx));
}
