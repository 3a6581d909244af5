//! h2spec's cases of HTTP/2, by the sections of RFC 7540, which RFC 9113 kept: what a client must not do, and what then
//! has to follow.

use super::{
    conformance::{Case, Expect::*},
    peer::*,
};

const SETTINGS_ENABLE_PUSH: u16 = 0x2;
const SETTINGS_INITIAL_WINDOW_SIZE: u16 = 0x4;
const SETTINGS_MAX_FRAME_SIZE: u16 = 0x5;
/// Every frame may be this long (section 4.2).
const FRAME_BYTES: usize = 1 << 14;

/// All of them, in their order.
pub fn cases(streams_max: u32) -> Vec<Case> {
    let mut cases = starting();
    cases.extend(states());
    cases.extend(multiplexing(streams_max));
    cases.extend(bodies_and_heads());
    cases.extend(control());
    cases.extend(windows());
    cases.extend(continuation());
    cases.extend(messages());
    cases.extend(pseudo_fields());
    cases
}

fn head(flags: u8, block: Vec<u8>) -> Vec<u8> {
    frame(HEADERS, flags, 1, block)
}

fn starting() -> Vec<Case> {
    vec![
        Case::new("http2/3.5/1 a client's preface")
            .without_greeting()
            .send(PREFACE)
            .send(settings(&[]))
            .expect(SettingsAck),
        Case::new("http2/3.5/2 an invalid preface")
            .without_greeting()
            .send("INVALID CONNECTION PREFACE\r\n\r\n")
            .expect(ConnectionError(&[PROTOCOL_ERROR])),
        Case::new("http2/4.1/1 a frame of unknown type").send(frame(0x16, 0, 0, [0; 8])).expect(Alive),
        Case::new("http2/4.1/2 a frame with an undefined flag")
            .send(frame(PING, 0x16, 0, b"12345678"))
            .expect(Pong(*b"12345678")),
        Case::new("http2/4.1/3 a frame with the reserved bit")
            .send(frame(PING, 0, 1 << 31, b"12345678"))
            .expect(Pong(*b"12345678")),
        Case::new("http2/4.2/1 DATA of 2^14 bytes")
            .send(post(1))
            .send(frame(DATA, END_STREAM, 1, vec![0; FRAME_BYTES]))
            .expect(Head(1)),
        Case::new("http2/4.2/2 DATA that is too large")
            .send(post(1))
            .send(frame(DATA, END_STREAM, 1, vec![0; FRAME_BYTES + 1]))
            .expect(StreamError(&[FRAME_SIZE_ERROR])),
        Case::new("http2/4.2/3 HEADERS that are too large")
            .send(head(END_STREAM | END_HEADERS, request("GET", &[("x", &"x".repeat(FRAME_BYTES))])))
            .expect(ConnectionError(&[FRAME_SIZE_ERROR])),
        Case::new("http2/4.3/1 an invalid header block")
            // A literal whose name has no bytes that follow.
            .send(head(END_STREAM | END_HEADERS, vec![0x40]))
            .expect(ConnectionError(&[COMPRESSION_ERROR, PROTOCOL_ERROR])),
        Case::new("http2/4.3/2 PRIORITY within a header block")
            .send(head(END_STREAM, request("GET", &[])))
            .send(frame(PRIORITY, 0, 1, priority(0, 255)))
            .expect(ConnectionError(&[PROTOCOL_ERROR])),
        Case::new("http2/4.3/3 HEADERS of another stream within a header block")
            .send(head(END_STREAM, request("GET", &[])))
            .send(get(3))
            .expect(ConnectionError(&[PROTOCOL_ERROR])),
    ]
}

fn states() -> Vec<Case> {
    let idle = |name, bytes| Case::new(name).send(bytes).expect(ConnectionError(&[PROTOCOL_ERROR]));
    // Where the RFC has a stream error of STREAM_CLOSED, h2 takes the freedom to end the connection, for it cannot tell a
    // client that is confused from one that means harm.
    let half_closed = |name, bytes| {
        Case::new(name).send(get(1)).send(bytes).expect(StreamError(&[STREAM_CLOSED, PROTOCOL_ERROR]))
    };
    let taken_back = |name, bytes| {
        Case::new(name)
            .send(post(1))
            .send(reset(1, CANCEL))
            .send(bytes)
            .expect(StreamError(&[STREAM_CLOSED, PROTOCOL_ERROR]))
    };
    let closed = |name, bytes| {
        Case::new(name)
            .send(get(1))
            .expect(End(1))
            .send(bytes)
            .expect(StreamError(&[STREAM_CLOSED, PROTOCOL_ERROR]))
    };
    let data = || frame(DATA, END_STREAM, 1, b"test");
    let continuation = || frame(CONTINUATION, END_HEADERS, 1, block(&[("x-dummy", "x")]));
    vec![
        idle("http2/5.1/1 idle: DATA", data()),
        idle("http2/5.1/2 idle: RST_STREAM", reset(1, CANCEL)),
        idle("http2/5.1/3 idle: WINDOW_UPDATE", window_update(1, 100)),
        idle("http2/5.1/4 idle: CONTINUATION", frame(CONTINUATION, END_HEADERS, 1, request("GET", &[]))),
        half_closed("http2/5.1/5 half-closed (remote): DATA", data()),
        half_closed("http2/5.1/6 half-closed (remote): HEADERS", get(1)),
        half_closed("http2/5.1/7 half-closed (remote): CONTINUATION", continuation()),
        taken_back("http2/5.1/8 closed by RST_STREAM: DATA", data()),
        taken_back("http2/5.1/9 closed by RST_STREAM: HEADERS", get(1)),
        taken_back("http2/5.1/10 closed by RST_STREAM: CONTINUATION", continuation()),
        closed("http2/5.1/11 closed: DATA", data()),
        closed("http2/5.1/12 closed: HEADERS", get(1)),
        closed("http2/5.1/13 closed: CONTINUATION", continuation()),
    ]
}

fn multiplexing(streams_max: u32) -> Vec<Case> {
    // No response can end while its stream has no window.
    let mut crowd = Case::new("http2/5.1.2/1 more streams than allowed")
        .send(settings(&[(SETTINGS_INITIAL_WINDOW_SIZE, 0)]))
        .expect(SettingsAck);
    for number in 0..=streams_max {
        crowd = crowd.send(get(2 * number + 1));
    }
    vec![
        Case::new("http2/5.1.1/1 an even stream identifier")
            .send(get(2))
            .expect(ConnectionError(&[PROTOCOL_ERROR])),
        Case::new("http2/5.1.1/2 a smaller stream identifier than before")
            .send(get(5))
            .send(get(3))
            .expect(ConnectionError(&[PROTOCOL_ERROR])),
        crowd.expect(StreamError(&[PROTOCOL_ERROR, REFUSED_STREAM])),
        Case::new("http2/5.3.1/1 HEADERS that depend on their own stream")
            .send(head(
                END_STREAM | END_HEADERS | PRIORITIZED,
                [priority(1, 255), request("GET", &[])].concat(),
            ))
            .expect(StreamError(&[PROTOCOL_ERROR])),
        Case::new("http2/5.3.1/2 PRIORITY that depends on its own stream")
            .send(frame(PRIORITY, 0, 2, priority(2, 255)))
            .expect(StreamError(&[PROTOCOL_ERROR])),
        Case::new("http2/5.4.1/1 after a connection error the connection is closed")
            .send(frame(PING, 0, 0, b"123456"))
            .expect(ConnectionError(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR])),
        Case::new("http2/5.4.1/2 a connection error is said in a GOAWAY")
            .send(frame(PING, 0, 3, b"12345678"))
            .expect(ConnectionError(&[PROTOCOL_ERROR])),
        Case::new("http2/5.5/1 an extension's frame").send(frame(0xfa, 0, 0, [0; 8])).expect(Alive),
        Case::new("http2/5.5/2 an extension's frame within a header block")
            .send(head(END_STREAM, request("GET", &[])))
            .send(frame(0xfa, 0, 0, [0; 8]))
            .expect(ConnectionError(&[PROTOCOL_ERROR])),
    ]
}

fn bodies_and_heads() -> Vec<Case> {
    let wrong = |name, bytes| Case::new(name).send(bytes).expect(ConnectionError(&[PROTOCOL_ERROR]));
    let sized = |name, bytes| {
        // h2 says PROTOCOL_ERROR of a fixed-size frame of another size.
        Case::new(name).send(bytes).expect(ConnectionError(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]))
    };
    vec![
        wrong("http2/6.1/1 DATA on stream 0", frame(DATA, END_STREAM, 0, b"test")),
        Case::new("http2/6.1/2 DATA on a stream that is not open")
            .send(get(1))
            .expect(End(1))
            .send(frame(DATA, END_STREAM, 1, b"test"))
            .expect(StreamError(&[STREAM_CLOSED, PROTOCOL_ERROR])),
        wrong(
            "http2/6.1/3 DATA with more padding than payload",
            [post(1), frame(DATA, END_STREAM | PADDED, 1, b"\x06test")].concat(),
        ),
        wrong(
            "http2/6.2/1 HEADERS without END_HEADERS, then PRIORITY",
            [head(END_STREAM, request("GET", &[])), frame(PRIORITY, 0, 1, priority(0, 255))].concat(),
        ),
        wrong(
            "http2/6.2/2 HEADERS without END_HEADERS, then HEADERS",
            [head(END_STREAM, request("GET", &[])), get(3)].concat(),
        ),
        wrong("http2/6.2/3 HEADERS on stream 0", get(0)),
        wrong(
            "http2/6.2/4 HEADERS with more padding than payload",
            head(END_STREAM | END_HEADERS | PADDED, [vec![0xff], request("GET", &[])].concat()),
        ),
        wrong("http2/6.3/1 PRIORITY on stream 0", frame(PRIORITY, 0, 0, priority(0, 255))),
        Case::new("http2/6.3/2 PRIORITY of another size than 5")
            .send(frame(PRIORITY, 0, 1, [0x80, 0, 0, 1]))
            .expect(StreamError(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR])),
        wrong("http2/6.4/1 RST_STREAM on stream 0", reset(0, CANCEL)),
        wrong("http2/6.4/2 RST_STREAM on an idle stream", reset(1, CANCEL)),
        sized(
            "http2/6.4/3 RST_STREAM of another size than 4",
            [post(1), frame(RST_STREAM, 0, 1, [0; 3])].concat(),
        ),
    ]
}

fn control() -> Vec<Case> {
    let wrong = |name, bytes| Case::new(name).send(bytes).expect(ConnectionError(&[PROTOCOL_ERROR]));
    let sized = |name, bytes| {
        Case::new(name).send(bytes).expect(ConnectionError(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]))
    };
    vec![
        sized("http2/6.5/1 SETTINGS with ACK and payload", frame(SETTINGS, ACK, 0, [0; 6])),
        wrong("http2/6.5/2 SETTINGS on a stream", frame(SETTINGS, 0, 1, [0, 3, 0, 0, 0, 100])),
        sized("http2/6.5/3 SETTINGS of a size that is no multiple of 6", frame(SETTINGS, 0, 0, [0; 5])),
        wrong("http2/6.5.2/1 ENABLE_PUSH that is neither 0 nor 1", settings(&[(SETTINGS_ENABLE_PUSH, 2)])),
        Case::new("http2/6.5.2/2 INITIAL_WINDOW_SIZE above the largest")
            .send(settings(&[(SETTINGS_INITIAL_WINDOW_SIZE, 1 << 31)]))
            .expect(ConnectionError(&[FLOW_CONTROL_ERROR, PROTOCOL_ERROR])),
        wrong(
            "http2/6.5.2/3 MAX_FRAME_SIZE below the smallest",
            settings(&[(SETTINGS_MAX_FRAME_SIZE, (1 << 14) - 1)]),
        ),
        wrong(
            "http2/6.5.2/4 MAX_FRAME_SIZE above the largest",
            settings(&[(SETTINGS_MAX_FRAME_SIZE, 1 << 24)]),
        ),
        Case::new("http2/6.5.2/5 an unknown setting").send(settings(&[(0xff, 1)])).expect(Alive),
        Case::new("http2/6.5.3/1 a setting twice: the last holds")
            .send(settings(&[(SETTINGS_INITIAL_WINDOW_SIZE, 100), (SETTINGS_INITIAL_WINDOW_SIZE, 1)]))
            .expect(SettingsAck)
            .send(get(1))
            .expect(Data(1, 1)),
        Case::new("http2/6.5.3/2 settings are acknowledged")
            .send(settings(&[(SETTINGS_ENABLE_PUSH, 0)]))
            .expect(SettingsAck),
        Case::new("http2/6.7/1 PING").send(frame(PING, 0, 0, b"12345678")).expect(Pong(*b"12345678")),
        Case::new("http2/6.7/2 PING with ACK")
            .send(frame(PING, ACK, 0, b"invalid "))
            .send(frame(PING, 0, 0, b"12345678"))
            .expect(Pong(*b"12345678")),
        wrong("http2/6.7/3 PING on a stream", frame(PING, 0, 1, b"12345678")),
        sized("http2/6.7/4 PING of another size than 8", frame(PING, 0, 0, b"123456")),
        wrong("http2/6.8/1 GOAWAY on a stream", frame(GOAWAY, 0, 1, [0; 8])),
        Case::new("http2/7/1 GOAWAY with an unknown code")
            .send(frame(GOAWAY, 0, 0, [0, 0, 0, 0, 0, 0, 0, 0xff]))
            .send(frame(PING, 0, 0, b"12345678"))
            // The connection ends as it does after any GOAWAY.
            .expect(ConnectionError(&[NO_ERROR])),
        Case::new("http2/7/2 RST_STREAM with an unknown code")
            .send(post(1))
            .send(reset(1, 0xff))
            .expect(Alive),
    ]
}

fn windows() -> Vec<Case> {
    let most = (1 << 31) - 1;
    vec![
        Case::new("http2/6.9/1 WINDOW_UPDATE by 0")
            .send(window_update(0, 0))
            .expect(ConnectionError(&[PROTOCOL_ERROR])),
        Case::new("http2/6.9/2 WINDOW_UPDATE by 0 on a stream")
            .send(post(1))
            .send(window_update(1, 0))
            .expect(StreamError(&[PROTOCOL_ERROR])),
        Case::new("http2/6.9/3 WINDOW_UPDATE of another size than 4")
            .send(frame(WINDOW_UPDATE, 0, 0, [0, 0, 1]))
            .expect(ConnectionError(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR])),
        Case::new("http2/6.9.1/1 a window of 1 gets 1 byte")
            .send(settings(&[(SETTINGS_INITIAL_WINDOW_SIZE, 1)]))
            .expect(SettingsAck)
            .send(get(1))
            .expect(Data(1, 1)),
        Case::new("http2/6.9.1/2 the connection's window above the largest")
            .send(window_update(0, most))
            .send(window_update(0, most))
            .expect(ConnectionError(&[FLOW_CONTROL_ERROR])),
        Case::new("http2/6.9.1/3 a stream's window above the largest")
            .send(post(1))
            .send(window_update(1, most))
            .send(window_update(1, most))
            .expect(StreamError(&[FLOW_CONTROL_ERROR])),
        Case::new("http2/6.9.2/1 a change of the initial window applies to open streams")
            .send(settings(&[(SETTINGS_INITIAL_WINDOW_SIZE, 0)]))
            .expect(SettingsAck)
            .send(get(1))
            .expect(Head(1))
            .send(settings(&[(SETTINGS_INITIAL_WINDOW_SIZE, 1)]))
            .expect(Data(1, 1)),
        Case::new("http2/6.9.2/2 a window below zero is kept")
            .send(settings(&[(SETTINGS_INITIAL_WINDOW_SIZE, 3)]))
            .expect(SettingsAck)
            .send(get(1))
            .expect(Data(1, 3))
            .send(settings(&[(SETTINGS_INITIAL_WINDOW_SIZE, 2)]))
            .expect(SettingsAck)
            .send(window_update(1, 2))
            .expect(Data(1, 1)),
        Case::new("http2/6.9.2/3 an initial window above the largest")
            .send(settings(&[(SETTINGS_INITIAL_WINDOW_SIZE, 1 << 31)]))
            .expect(ConnectionError(&[FLOW_CONTROL_ERROR, PROTOCOL_ERROR])),
    ]
}

fn continuation() -> Vec<Case> {
    let wrong = |name, frames: [Vec<u8>; 3]| {
        Case::new(name).send(frames.concat()).expect(ConnectionError(&[PROTOCOL_ERROR]))
    };
    let more = |flags, stream| frame(CONTINUATION, flags, stream, block(&[("x-dummy", "x")]));
    let begun = || head(END_STREAM, request("GET", &[]));
    vec![
        Case::new("http2/6.10/1 several CONTINUATION")
            .send([begun(), more(0, 1), more(END_HEADERS, 1)].concat())
            .expect(Head(1)),
        wrong(
            "http2/6.10/2 CONTINUATION, then DATA",
            [begun(), more(0, 1), frame(DATA, END_STREAM, 1, b"test")],
        ),
        wrong("http2/6.10/3 CONTINUATION on stream 0", [begun(), more(END_HEADERS, 0), vec![]]),
        wrong(
            "http2/6.10/4 CONTINUATION after HEADERS that are whole",
            [post(1), more(END_HEADERS, 1), vec![]],
        ),
        wrong(
            "http2/6.10/5 CONTINUATION after the last one",
            [begun(), more(END_HEADERS, 1), more(END_HEADERS, 1)],
        ),
        wrong(
            "http2/6.10/6 CONTINUATION after DATA",
            [post(1), frame(DATA, 0, 1, b"test"), more(END_HEADERS, 1)],
        ),
    ]
}

fn messages() -> Vec<Case> {
    let malformed = |name, fields: &[(&str, &str)]| {
        Case::new(name)
            .send(head(END_STREAM | END_HEADERS, request("GET", fields)))
            .expect(StreamError(&[PROTOCOL_ERROR]))
    };
    let trailers = |name, flags, fields: &[(&str, &str)]| {
        Case::new(name)
            .send(post(1))
            .send(frame(DATA, 0, 1, b"test"))
            .send(head(flags, block(fields)))
            .expect(StreamError(&[PROTOCOL_ERROR]))
    };
    let sized = |name, parts: &[&[u8]]| {
        let mut case = Case::new(name).send(head(END_HEADERS, request("POST", &[("content-length", "1")])));
        for (at, part) in parts.iter().enumerate() {
            let flags = if at + 1 == parts.len() { END_STREAM } else { 0 };
            case = case.send(frame(DATA, flags, 1, part));
        }
        case.expect(StreamError(&[PROTOCOL_ERROR]))
    };
    vec![
        trailers("http2/8.1/1 a second HEADERS without END_STREAM", END_HEADERS, &[("x-test", "ok")]),
        // An upper-case name is no field name, and h2 takes the block as undecodable.
        Case::new("http2/8.1.2/1 a field name in upper case")
            .send(head(END_STREAM | END_HEADERS, request("GET", &[("X-TEST", "ok")])))
            .expect(StreamError(&[PROTOCOL_ERROR])),
        malformed("http2/8.1.2.1/1 an unknown pseudo field", &[(":test", "ok")]),
        malformed("http2/8.1.2.1/2 a response's pseudo field", &[(":status", "200")]),
        trailers(
            "http2/8.1.2.1/3 a pseudo field in trailers",
            END_STREAM | END_HEADERS,
            &[(":method", "200")],
        ),
        malformed("http2/8.1.2.1/4 a pseudo field after others", &[("x-test", "ok"), (":path", "/")]),
        malformed("http2/8.1.2.2/1 a field of a connection", &[("connection", "keep-alive")]),
        malformed("http2/8.1.2.2/2 TE other than trailers", &[("te", "trailers, deflate")]),
        sized("http2/8.1.2.6/1 a content-length that is not that of the DATA", &[b"test"]),
        sized("http2/8.1.2.6/2 a content-length that is not that of all DATA", &[b"test", b"test"]),
        Case::new("http2/8.2/1 PUSH_PROMISE")
            .send(post(1))
            .send(frame(PUSH_PROMISE, END_HEADERS, 1, [vec![0, 0, 0, 2], request("GET", &[])].concat()))
            .expect(ConnectionError(&[PROTOCOL_ERROR])),
    ]
}

fn pseudo_fields() -> Vec<Case> {
    let malformed = |name, fields: &[(&str, &str)]| {
        Case::new(name)
            .send(head(END_STREAM | END_HEADERS, block(fields)))
            .expect(StreamError(&[PROTOCOL_ERROR]))
    };
    let (method, scheme, path, authority) =
        ((":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "localhost"));
    vec![
        malformed("http2/8.1.2.3/1 an empty :path", &[method, scheme, (":path", ""), authority]),
        malformed("http2/8.1.2.3/2 no :method", &[scheme, path, authority]),
        malformed("http2/8.1.2.3/3 no :scheme", &[method, path, authority]),
        malformed("http2/8.1.2.3/4 no :path", &[method, scheme, authority]),
        malformed("http2/8.1.2.3/5 two :method", &[method, method, scheme, path, authority]),
        malformed("http2/8.1.2.3/6 two :scheme", &[method, scheme, scheme, path, authority]),
        malformed("http2/8.1.2.3/7 two :path", &[method, scheme, path, path, authority]),
    ]
}
