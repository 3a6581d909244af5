//! Clients that send much and mean nothing: each is told to calm down, or cut, while others on the same server are served.

use std::net::SocketAddr;

use super::peer::*;

/// Far more of anything than a client has a use for.
const MANY: u32 = 20_000;

/// Who is to be ended, by what it sends after the settings.
pub fn floods() -> Vec<(&'static str, Vec<u8>)> {
    let repeat = |frame: Vec<u8>| frame.repeat(MANY as usize);
    let odd = |number: u32| 2 * number + 1;
    let mut taken_back = Vec::new();
    let mut empty_heads = Vec::new();
    let mut none = Vec::new();
    let connect = block(&[(":method", "CONNECT"), (":authority", "localhost:80")]);
    for number in 0..MANY {
        taken_back.extend(get(odd(number)));
        taken_back.extend(reset(odd(number), CANCEL));
        none.extend(frame(HEADERS, END_STREAM | END_HEADERS, odd(number), &connect));
        empty_heads.extend(frame(HEADERS, END_STREAM | END_HEADERS, odd(number), []));
    }
    let begun = frame(HEADERS, END_STREAM, 1, request("GET", &[]));
    let field = block(&[("x-more", &"x".repeat(1000))]);
    vec![
        ("requests that are taken back at once", taken_back),
        (
            "a header block without an end",
            [begun.clone(), repeat(frame(CONTINUATION, 0, 1, &field))].concat(),
        ),
        ("a header block of nothing without an end", [begun, repeat(frame(CONTINUATION, 0, 1, []))].concat()),
        ("heads of nothing", empty_heads),
        ("requests that are none", none),
        ("SETTINGS", repeat(settings(&[(4, 65_535)]))),
        ("PING", repeat(frame(PING, 0, 0, [0; 8]))),
        ("PRIORITY", repeat(frame(PRIORITY, 0, 1, priority(0, 1)))),
        ("frames of unknown type", repeat(frame(0xfa, 0, 0, []))),
        ("window updates on the connection", repeat(window_update(0, 1))),
        ("window updates on a stream", [post(1), repeat(window_update(1, 1))].concat()),
        ("DATA of nothing", [post(1), repeat(frame(DATA, 0, 1, []))].concat()),
        ("DATA of padding", [post(1), repeat(frame(DATA, PADDED, 1, [3, 0, 0, 0]))].concat()),
    ]
}

/// Runs every flood, and a well-behaved client after it and during it.
pub async fn run(address: SocketAddr) {
    for (name, bytes) in floods() {
        let mut other = Peer::greet(address).await;
        let flooder = Peer::greet(address).await;
        let flood = flooder.exchange(&bytes, |frame| frame.kind == GOAWAY);
        let served = async {
            for number in 0..20 {
                other.send(&get(2 * number + 1)).await;
                assert!(!other.body(2 * number + 1).await.is_empty());
            }
        };
        let (frames, ()) = tokio::join!(flood, served);
        // The end of the connection can overtake what was said last, when the flood goes on.
        if let Some(last) = frames.iter().find(|frame| frame.kind == GOAWAY) {
            assert_eq!(last.code(), Some(ENHANCE_YOUR_CALM), "{name}");
        }
        let answers = frames.iter().filter(|frame| frame.kind != GOAWAY).count();
        assert!(answers < MANY as usize, "{name}: {answers} frames came back");
    }
}
