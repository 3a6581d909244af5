//! What a request may be, and a response.

use super::*;

#[test]
fn a_large_response_comes_whole() {
    run(async {
        let server = Server::start(Limits::default()).await;
        let mut peer = Peer::greet(server.address).await;
        peer.send(&[settings(&[(4, 1 << 30)]), window_update(0, 1 << 30)].concat()).await;
        peer.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, large())).await;
        assert_eq!(peer.body(1).await.len(), 8 << 20);
    });
}

#[test]
fn a_client_that_waits_is_told_to_continue() {
    run(async {
        let server = Server::start(Limits::default()).await;
        let mut peer = Peer::greet(server.address).await;
        let expects = request("POST", &[("expect", "100-Continue")]);
        peer.send(&frame(HEADERS, END_HEADERS, 1, expects)).await;
        let interim = peer.until(|frame| frame.kind == HEADERS).await;
        assert_eq!(interim.flags & END_STREAM, 0);
        // ":status: 100" is a literal of number 8 of the static table.
        assert!(interim.payload.starts_with(&[0x48]) || interim.payload.starts_with(&[0x08]), "{interim:?}");
        peer.send(&frame(DATA, END_STREAM, 1, b"body")).await;
        assert!(peer.body(1).await.ends_with(b"body"));
    });
}

#[test]
fn a_websocket_is_a_stream() {
    run(async {
        let server = Server::start(Limits::default()).await;
        let mut peer = Peer::greet(server.address).await;
        let connect = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "https"),
            (":path", "/chat"),
            (":authority", "localhost"),
            ("sec-websocket-version", "13"),
        ];
        peer.send(&frame(HEADERS, END_HEADERS, 1, block(&connect))).await;
        let head = peer.until(|frame| frame.kind == HEADERS).await;
        // ":status: 200" is number 8 of the static table.
        assert_eq!((head.payload[0], head.flags & END_STREAM), (0x88, 0));
        for text in [&b"one"[..], b"two"] {
            peer.send(&frame(DATA, 0, 1, text)).await;
            let echo = peer.until(|frame| frame.kind == DATA).await;
            assert_eq!((&echo.payload[..], echo.flags & END_STREAM), (text, 0));
        }
        peer.send(&frame(DATA, END_STREAM, 1, [])).await;
        assert!(peer.until(|frame| frame.kind == DATA).await.ends_stream());
    });
}

#[test]
fn trailers_go_both_ways() {
    run(async {
        let server = Server::start(Limits::default()).await;
        let mut peer = Peer::greet(server.address).await;
        let path =
            [(":method", "POST"), (":scheme", "http"), (":path", "/trailers"), (":authority", "localhost")];
        peer.send(&frame(HEADERS, END_HEADERS, 1, block(&path))).await;
        peer.send(&frame(DATA, 0, 1, b"body")).await;
        peer.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, block(&[("x-sum", "1")]))).await;
        // They come back as they were sent; the worker of this test puts them into the body too.
        let head = peer.until(|frame| frame.kind == HEADERS).await;
        assert_eq!(head.flags & END_STREAM, 0);
        let data = peer.until(|frame| frame.kind == DATA).await;
        assert!(data.payload.ends_with(b"body"), "{data:?}");
        let trailers = peer.until(|frame| frame.kind == HEADERS).await;
        assert!(trailers.ends_stream());
    });
}

#[test]
fn what_is_no_request_is_refused_and_the_connection_goes_on() {
    run(async {
        let server = Server::start(Limits::default()).await;
        let mut peer = Peer::greet(server.address).await;
        // Responses by the first byte of their head: 400 is number 12 of the static table, others are literals.
        let long = "x".repeat(20 << 10);
        let cases: [(&[(&str, &str)], u8); 4] = [
            (&[("host", "elsewhere")], 0x8c),
            (&[("host", "localhost"), ("host", "localhost")], 0x8c),
            // More than a head may be: 431.
            (&[("x-long", &long), ("x-long", &long)], 0x48),
            // And what is one.
            (&[("host", "LOCALHOST")], 0x88),
        ];
        for (number, (fields, status)) in cases.into_iter().enumerate() {
            let stream = 2 * number as u32 + 1;
            let block = request("GET", fields);
            let (first, rest) = block.split_at(block.len().min(16 << 10));
            peer.send(&frame(HEADERS, END_STREAM, stream, first)).await;
            for piece in rest.chunks(16 << 10) {
                peer.send(&frame(CONTINUATION, 0, stream, piece)).await;
            }
            peer.send(&frame(CONTINUATION, END_HEADERS, stream, [])).await;
            let head = peer.until(|frame| frame.kind == HEADERS && frame.stream == stream).await;
            assert_eq!(head.payload[0], status, "{fields:?}");
        }
        let connect = block(&[(":method", "CONNECT"), (":authority", "localhost:80")]);
        peer.send(&frame(HEADERS, END_HEADERS, 101, connect)).await;
        let why = peer.body(101).await;
        assert!(String::from_utf8(why).unwrap().contains("no forward proxy"));
    });
}
