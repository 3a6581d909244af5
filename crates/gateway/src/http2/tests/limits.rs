//! Clients that make a connection wait, and connections that end.

use super::*;

/// More than the kernel's buffers hold for one connection.
const KERNEL_BYTES: usize = 32 << 20;

/// Limits under which a test sees timeouts at once; only what is being tested is short.
fn impatient(change: impl FnOnce(&mut Limits, Duration)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits, Duration::from_millis(300));
    limits
}

/// Expects the connection to end, with this code if it says why.
async fn ends(peer: Peer, code: u32) {
    let frames = peer.exchange(&[], |_| false).await;
    let said = frames.iter().find(|frame| frame.kind == GOAWAY).and_then(|frame| frame.code());
    assert_eq!(said, Some(code));
}

#[test]
fn a_silent_client_is_closed() {
    run(async {
        let server = Server::start(impatient(|limits, short| limits.head_timeout = short)).await;
        let mut silent = Peer::connect(server.address).await;
        while silent.frame().await.is_some() {}
        let mut slow = Peer::greet(server.address).await;
        slow.send(&frame(HEADERS, END_STREAM, 1, request("GET", &[]))).await;
        ends(slow, NO_ERROR).await;
    });
}

#[test]
fn an_idle_client_is_closed() {
    run(async {
        let server = Server::start(impatient(|limits, short| limits.idle_timeout = short)).await;
        let mut idle = Peer::greet(server.address).await;
        idle.send(&get(1)).await;
        idle.body(1).await;
        ends(idle, NO_ERROR).await;
    });
}

#[test]
fn a_client_that_opens_no_window_is_reset() {
    run(async {
        let server = Server::start(impatient(|limits, short| limits.stall_timeout = short)).await;
        let mut stalled = Peer::greet(server.address).await;
        stalled.send(&settings(&[(4, 10)])).await;
        for number in 0..100 {
            stalled.send(&frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, large())).await;
        }
        for _ in 0..100 {
            let reset = stalled.until(|frame| frame.kind == RST_STREAM).await;
            assert_eq!(reset.code(), Some(0x2));
        }
        // The connection is still good for a client that has learned.
        stalled.send(&settings(&[(4, 65_535)])).await;
        stalled.send(&get(501)).await;
        assert!(!stalled.body(501).await.is_empty());
    });
}

#[test]
fn a_client_that_sends_no_body_is_reset() {
    run(async {
        let server = Server::start(impatient(|limits, short| limits.stall_timeout = short)).await;
        let mut stalled = Peer::greet(server.address).await;
        stalled.send(&post(1)).await;
        let reset = stalled.until(|frame| frame.kind == RST_STREAM).await;
        assert_eq!((reset.stream, reset.code()), (1, Some(0x2)));
    });
}

#[test]
fn a_client_that_reads_nothing_is_cut() {
    run(async {
        let server = Server::start(impatient(|limits, short| limits.stall_timeout = short)).await;
        let mut deaf = Peer::greet(server.address).await;
        deaf.send(&[settings(&[(4, 1 << 30)]), window_update(0, 1 << 30)].concat()).await;
        for number in 0..128 {
            deaf.send(&frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, large())).await;
        }
        server.ended.notified().await;
        // Of the 1 GiB that it asked for, the connection has what its streams may lay into it, and the kernel has some.
        let taken = TAKEN.get();
        assert!(
            taken < 128 * super::super::SEND_BUFFER + KERNEL_BYTES,
            "{taken} bytes lie in the connection"
        );
    });
}

#[test]
fn a_body_is_only_taken_as_it_is_read() {
    run(async {
        let server = Server::start(Limits::default()).await;
        let mut peer = Peer::greet(server.address).await;
        // Nobody reads the body of this one; what may be sent ahead is the stream's window.
        let hold = [(":method", "PUT"), (":scheme", "http"), (":path", "/hold"), (":authority", "localhost")];
        peer.send(&frame(HEADERS, END_HEADERS, 1, block(&hold))).await;
        for _ in 0..(256 << 10) / (16 << 10) {
            peer.send(&frame(DATA, 0, 1, vec![0; 16 << 10])).await;
        }
        peer.send(&frame(PING, 0, 0, [7; 8])).await;
        peer.until(|frame| {
            assert!(frame.kind != WINDOW_UPDATE || frame.stream != 1, "the window opens");
            frame.kind == PING
        })
        .await;
        // A byte more is too much.
        peer.send(&frame(DATA, 0, 1, b"x")).await;
        let reset = peer.until(|frame| frame.kind == RST_STREAM).await;
        assert_eq!(reset.code(), Some(FLOW_CONTROL_ERROR));
    });
}

#[test]
fn a_draining_server_ends_what_is_open_and_closes() {
    run(async {
        let server = Server::start(Limits::default()).await;
        let mut peer = Peer::greet(server.address).await;
        peer.send(&post(1)).await;
        peer.send(&frame(PING, 0, 0, [7; 8])).await;
        peer.until(|frame| frame.kind == PING).await;
        server.drain.send(true).unwrap();
        let first = peer.until(|frame| frame.kind == GOAWAY).await;
        assert_eq!((first.code(), &first.payload[..4]), (Some(NO_ERROR), &[0x7f, 0xff, 0xff, 0xff][..]));
        let ping = peer.until(|frame| frame.kind == PING && frame.flags & ACK == 0).await;
        peer.send(&frame(PING, ACK, 0, ping.payload)).await;
        let second = peer.until(|frame| frame.kind == GOAWAY).await;
        assert_eq!((second.code(), &second.payload[..4]), (Some(NO_ERROR), &[0, 0, 0, 1][..]));
        peer.send(&frame(DATA, END_STREAM, 1, b"body")).await;
        assert!(peer.body(1).await.ends_with(b"body"));
        while peer.frame().await.is_some() {}
    });
}

#[test]
fn a_draining_server_does_not_wait_for_a_client_that_does_not_listen() {
    run(async {
        let server = Server::start(Limits::default()).await;
        let peer = Peer::greet(server.address).await;
        server.drain.send(true).unwrap();
        // Its PING stays without an answer.
        ends(peer, NO_ERROR).await;
    });
}

/// It does not answer PING either, so that it is never told which of its requests is the last one.
#[test]
fn a_client_that_does_not_listen_begins_requests_for_so_long_and_no_longer() {
    run(async {
        let server = Server::start(Limits::default()).await;
        let mut peer = Peer::greet(server.address).await;
        let get = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "localhost")];
        peer.send(&post(1)).await;
        server.drain.send(true).unwrap();
        peer.until(|frame| frame.kind == GOAWAY).await;
        peer.send(&frame(HEADERS, END_STREAM | END_HEADERS, 3, block(&get))).await;
        peer.until(|frame| frame.kind == HEADERS && frame.stream == 3).await;
        tokio::time::pause();
        tokio::time::advance(super::super::LAST_CALL).await;
        tokio::time::resume();
        peer.send(&frame(HEADERS, END_STREAM | END_HEADERS, 5, block(&get))).await;
        let reset = peer.until(|frame| frame.stream == 5).await;
        assert_eq!((reset.kind, reset.code()), (RST_STREAM, Some(REFUSED_STREAM)));
        // What it had begun before ends as it should, and so does the connection.
        peer.send(&frame(DATA, END_STREAM, 1, b"body")).await;
        assert!(peer.body(1).await.ends_with(b"body"));
        ends(peer, NO_ERROR).await;
    });
}

#[test]
fn a_draining_server_does_not_wait_for_a_client_that_has_not_begun() {
    run(async {
        let server =
            Server::start(Limits { head_timeout: Duration::from_secs(3600), ..Limits::default() }).await;
        let mut silent = Peer::connect(server.address).await;
        // The settings show that it is being served.
        assert_eq!(silent.frame().await.map(|frame| frame.kind), Some(SETTINGS));
        server.drain.send(true).unwrap();
        assert_eq!(silent.frame().await, None);
    });
}

#[test]
fn requests_that_are_taken_back_while_they_are_answered_are_counted() {
    run(async {
        let server = Server::start(Limits::default()).await;
        let mut peer = Peer::greet(server.address).await;
        let hold = [(":method", "PUT"), (":scheme", "http"), (":path", "/hold"), (":authority", "localhost")];
        // Each lot has begun when its PING is answered, so that h2 counts none of them.
        let mut number = 0;
        loop {
            for _ in 0..50 {
                peer.send(&frame(HEADERS, END_HEADERS, 2 * number + 1, block(&hold))).await;
                number += 1;
            }
            peer.send(&frame(PING, 0, 0, [1; 8])).await;
            for taken_back in number - 50..number {
                peer.send(&reset(2 * taken_back + 1, CANCEL)).await;
            }
            let last = peer.until(|frame| matches!(frame.kind, PING | GOAWAY)).await;
            if last.kind == GOAWAY {
                assert_eq!(last.code(), Some(ENHANCE_YOUR_CALM));
                break;
            }
        }
        assert!((500..5000).contains(&number), "{number}");
    });
}
