//! h2spec's generic cases: what a client that does everything right may expect.

use super::{
    conformance::{Case, Expect::*},
    peer::*,
};

/// All of them, in their order.
pub fn cases() -> Vec<Case> {
    [streams(), frames(), messages(), compression()].into_iter().flatten().collect()
}

fn streams() -> Vec<Case> {
    vec![
        Case::new("generic/1/1 a client's preface")
            .without_greeting()
            .send(PREFACE)
            .send(settings(&[]))
            .expect(SettingsAck),
        Case::new("generic/2/1 PRIORITY on an idle stream")
            .send(frame(PRIORITY, 0, 1, priority(0, 255)))
            .expect(Alive),
        Case::new("generic/2/2 WINDOW_UPDATE on a half-closed (remote) stream")
            .send(get(1))
            .send(window_update(1, 1))
            .expect(Head(1)),
        Case::new("generic/2/3 PRIORITY on a half-closed (remote) stream")
            .send(get(1))
            .send(frame(PRIORITY, 0, 1, priority(0, 255)))
            .expect(Head(1)),
        Case::new("generic/2/4 RST_STREAM on a half-closed (remote) stream")
            .send(get(1))
            .send(reset(1, CANCEL))
            .expect(Alive),
        Case::new("generic/2/5 PRIORITY on a closed stream")
            .send(get(1))
            .expect(End(1))
            .send(frame(PRIORITY, 0, 1, priority(0, 255)))
            .expect(Alive),
    ]
}

fn frames() -> Vec<Case> {
    let padded = |payload: &[u8]| {
        let mut bytes = vec![8];
        bytes.extend(payload);
        bytes.extend([0; 8]);
        bytes
    };
    let prioritized = [priority(0, 255), request("GET", &[])].concat();
    let prioritize =
        |name, payload| Case::new(name).send(frame(PRIORITY, 0, 1, payload)).send(get(1)).expect(Head(1));
    let many = request("GET", &[("x-dummy", &"x".repeat(300))]);
    vec![
        Case::new("generic/3.1/1 DATA")
            .send(post(1))
            .send(frame(DATA, END_STREAM, 1, b"test"))
            .expect(Head(1)),
        Case::new("generic/3.1/2 several DATA")
            .send(post(1))
            .send(frame(DATA, 0, 1, b"test"))
            .send(frame(DATA, END_STREAM, 1, b"test"))
            .expect(Head(1)),
        Case::new("generic/3.1/3 DATA with padding")
            .send(post(1))
            .send(frame(DATA, END_STREAM | PADDED, 1, padded(b"test")))
            .expect(Head(1)),
        Case::new("generic/3.2/1 HEADERS").send(get(1)).expect(Head(1)),
        Case::new("generic/3.2/2 HEADERS with padding")
            .send(frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, padded(&request("GET", &[]))))
            .expect(Head(1)),
        Case::new("generic/3.2/3 HEADERS with priority")
            .send(frame(HEADERS, END_STREAM | END_HEADERS | PRIORITIZED, 1, prioritized))
            .expect(Head(1)),
        prioritize("generic/3.3/1 PRIORITY with weight 1", priority(0, 0)),
        prioritize("generic/3.3/2 PRIORITY with weight 256", priority(0, 255)),
        prioritize("generic/3.3/3 PRIORITY with a dependency", priority(7, 255)),
        prioritize("generic/3.3/4 PRIORITY with the exclusive flag", priority(7 | 1 << 31, 255)),
        Case::new("generic/3.3/5 PRIORITY on an idle stream, then HEADERS on an earlier one")
            .send(frame(PRIORITY, 0, 5, priority(0, 255)))
            .send(get(3))
            .expect(Head(3)),
        Case::new("generic/3.4/1 RST_STREAM").send(post(1)).send(reset(1, CANCEL)).expect(Alive),
        Case::new("generic/3.5/1 SETTINGS").send(settings(&[(3, 100)])).expect(SettingsAck),
        Case::new("generic/3.7/1 PING").send(frame(PING, 0, 0, b"12345678")).expect(Pong(*b"12345678")),
        // What follows a GOAWAY is up to the server; h2spec is content with the end or a pong.
        Case::new("generic/3.8/1 GOAWAY")
            .send(frame(GOAWAY, 0, 0, [0; 8]))
            .send(frame(PING, 0, 0, b"12345678"))
            .expect(ConnectionError(&[NO_ERROR])),
        Case::new("generic/3.9/1 WINDOW_UPDATE on stream 0")
            .send(window_update(0, 1))
            .send(get(1))
            .expect(Head(1)),
        Case::new("generic/3.9/2 WINDOW_UPDATE on stream 1")
            .send(post(1))
            .send(window_update(1, 1))
            .send(frame(DATA, END_STREAM, 1, b"test"))
            .expect(Head(1)),
        Case::new("generic/3.10/1 CONTINUATION")
            .send(frame(HEADERS, END_STREAM, 1, &many[..100]))
            .send(frame(CONTINUATION, END_HEADERS, 1, &many[100..]))
            .expect(Head(1)),
        Case::new("generic/3.10/2 several CONTINUATION")
            .send(frame(HEADERS, END_STREAM, 1, &many[..100]))
            .send(frame(CONTINUATION, 0, 1, &many[100..200]))
            .send(frame(CONTINUATION, END_HEADERS, 1, &many[200..]))
            .expect(Head(1)),
    ]
}

fn messages() -> Vec<Case> {
    vec![
        Case::new("generic/4/1 GET").send(get(1)).expect(End(1)),
        Case::new("generic/4/2 HEAD")
            .send(frame(HEADERS, END_STREAM | END_HEADERS, 1, request("HEAD", &[])))
            .expect(End(1)),
        Case::new("generic/4/3 POST").send(post(1)).send(frame(DATA, END_STREAM, 1, b"test")).expect(End(1)),
        Case::new("generic/4/4 POST with trailers")
            .send(frame(HEADERS, END_HEADERS, 1, request("POST", &[("trailer", "x-test")])))
            .send(frame(DATA, 0, 1, b"test"))
            .send(frame(HEADERS, END_STREAM | END_HEADERS, 1, block(&[("x-test", "ok")])))
            .expect(End(1)),
    ]
}

/// The representations of RFC 7541, section 6, as further fields of a request.
fn compression() -> Vec<Case> {
    // "user-agent" is number 58 of the static table. The Huffman codes are those of "x-test", and of "test".
    const NAME: &[u8] = b"\x06x-test";
    const VALUE: &[u8] = b"\x04test";
    const HUFFMAN_NAME: &[u8] = b"\x85\xf2\xb2\x4a\x84\xff";
    const HUFFMAN_VALUE: &[u8] = b"\x83\x49\x50\x9f";
    let representations: [(&str, &[&[u8]]); 13] = [
        ("generic/5/1 an indexed field", &[b"\x90"]),
        ("generic/5/2 a literal with indexing, indexed name", &[b"\x7a", VALUE]),
        ("generic/5/3 a literal with indexing, indexed name, Huffman", &[b"\x7a", HUFFMAN_VALUE]),
        ("generic/5/4 a literal with indexing, new name", &[b"\x40", NAME, VALUE]),
        ("generic/5/5 a literal with indexing, new name, Huffman", &[b"\x40", HUFFMAN_NAME, HUFFMAN_VALUE]),
        ("generic/5/6 a literal without indexing, indexed name", &[b"\x0f\x2b", VALUE]),
        ("generic/5/7 a literal without indexing, indexed name, Huffman", &[b"\x0f\x2b", HUFFMAN_VALUE]),
        ("generic/5/8 a literal without indexing, new name", &[b"\x00", NAME, VALUE]),
        (
            "generic/5/9 a literal without indexing, new name, Huffman",
            &[b"\x00", HUFFMAN_NAME, HUFFMAN_VALUE],
        ),
        ("generic/5/10 a literal never indexed, indexed name", &[b"\x1f\x2b", VALUE]),
        ("generic/5/11 a literal never indexed, indexed name, Huffman", &[b"\x1f\x2b", HUFFMAN_VALUE]),
        ("generic/5/12 a literal never indexed, new name", &[b"\x10", NAME, VALUE]),
        ("generic/5/13 a literal never indexed, new name, Huffman", &[b"\x10", HUFFMAN_NAME, HUFFMAN_VALUE]),
    ];
    let whole = |name, block: Vec<u8>| {
        Case::new(name).send(frame(HEADERS, END_STREAM | END_HEADERS, 1, block)).expect(Head(1))
    };
    let mut cases: Vec<_> = representations
        .into_iter()
        .map(|(name, parts)| whole(name, [request("GET", &[]), parts.concat()].concat()))
        .collect();
    cases.push(whole(
        "generic/5/14 a dynamic table size update",
        [vec![0x3f, 0xe1, 0x1f], request("GET", &[])].concat(),
    ));
    cases.push(whole(
        "generic/5/15 several of them",
        [vec![0x20, 0x3f, 0xe1, 0x1f], request("GET", &[])].concat(),
    ));
    cases
}
