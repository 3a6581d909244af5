//! What of a response a client that does not read holds up.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::net::UnixStream;

use super::*;
use crate::{
    body_budget::Budgets, config::Limits, shard::Shard, socket::tests::whole_writes, watch::Overdue,
};

#[tokio::test]
async fn a_client_that_reads_nothing_holds_up_a_chunked_response() {
    const PIECE: [u8; 10_000] = [b'x'; 10_000];
    let (ours, client) = UnixStream::pair().unwrap();
    let core =
        Rc::new(Core::new(0, Arc::new(Shard::default()), Arc::default(), Budgets::new(&Limits::default())));
    let watched = Watched::new(Phase::Answering);
    let mut connection = Connection::new(core, watched, Socket::Unix(ours), Buffer::default());
    connection.respond(Answer {
        status: 200,
        reason: b"OK",
        fields: &mut std::iter::empty(),
        length: None,
        has_body: true,
        close: false,
    });
    assert_eq!(connection.reply, Reply::Chunked);
    let (mut given, mut space) = (0, vec![0; 1 << 16]);
    for round in 0..3 {
        let before = given;
        let filled = std::future::poll_fn(|cx| {
            while let Poll::Ready(taken) = connection.poll_write(cx, &PIECE) {
                given += taken.unwrap();
            }
            if given > before { Poll::Ready(()) } else { Poll::Pending }
        });
        filled.await;
        let waiting = connection.outbox.bytes().len();
        assert!(waiting > LARGE_BYTES, "only {waiting} bytes in round {round}");
        assert!(waiting <= LARGE_BYTES + PIECE.len() + 10, "{waiting} bytes in round {round}");
        client.readable().await.unwrap();
        while client.try_read(&mut space).is_ok() {}
    }
    let (limits, now) = (Limits::default(), Instant::now());
    assert_eq!(connection.watched.overdue(now, &limits), None);
    let late = now + limits.stall_timeout + Duration::from_secs(1);
    assert_eq!(connection.watched.overdue(late, &limits), Some(Overdue::Close), "it has not for ever");
}

/// A worker that writes its page in many small pieces costs a few system calls and packets, not as many.
#[tokio::test]
async fn small_chunks_go_out_together() {
    const PIECES: usize = 500;
    let (ours, client) = whole_writes();
    let core =
        Rc::new(Core::new(0, Arc::new(Shard::default()), Arc::default(), Budgets::new(&Limits::default())));
    let mut connection =
        Connection::new(core, Watched::new(Phase::Answering), Socket::Unix(ours), Buffer::default());
    let answer =
        |fields| Answer { status: 200, reason: b"OK", fields, length: None, has_body: true, close: false };
    connection.respond(answer(&mut std::iter::empty()));
    std::future::poll_fn(|cx| {
        for _ in 0..PIECES {
            let wrote = connection.poll_write(cx, &[b'x'; 50]);
            assert!(matches!(wrote, Poll::Ready(Ok(50))), "{wrote:?}");
        }
        Poll::Ready(())
    })
    .await;
    std::future::poll_fn(|cx| connection.poll_finish(cx, b"")).await.unwrap();
    client.readable().await.unwrap();
    let (mut writes, mut bytes, mut space) = (0, 0, vec![0; 1 << 20]);
    while let Ok(count @ 1..) = client.try_read(&mut space) {
        (writes, bytes) = (writes + 1, bytes + count);
    }
    assert!(bytes > PIECES * 50 && writes <= 3, "{writes} writes");
}
