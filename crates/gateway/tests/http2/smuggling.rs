//! Requests that would become something else once they are written as HTTP/1.1. Whatever is sent, a worker sees at most
//! one well-framed request, and none that the gateway has not understood in the same way.

use crate::{
    lab::{Lab, run},
    peer::*,
};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n";

/// A POST whose fields are these.
fn head(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, 1, block(fields))
}

/// The usual fields, with others in their place or after them.
fn fields<'a>(change: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields =
        vec![(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "localhost")];
    for &(name, value) in change {
        match fields.iter_mut().find(|(known, _)| *known == name && name.starts_with(':')) {
            Some(field) => field.1 = value,
            None => fields.push((name, value)),
        }
    }
    fields
}

/// Sends a head and a body, which must be refused: by a reset, or by an answer of the gateway's own.
async fn check(name: &str, head: Vec<u8>, body: &str) {
    let lab = Lab::new(1).await;
    let mut client = Peer::greet(lab.address).await;
    client.send(&[head, frame(DATA, END_STREAM, 1, body)].concat()).await;
    let refused = async {
        loop {
            let Some(frame) = client.frame().await else { break };
            if matches!(frame.kind, RST_STREAM | GOAWAY) || frame.ends_stream() {
                break;
            }
            // An answer of the gateway's: 400, 414, 501, never 2xx, which are 8 to 10 of the static table.
            assert!(frame.kind != HEADERS || !matches!(frame.payload[0], 0x88..=0x8a), "{name}: accepted");
        }
    };
    let worker = async {
        let mut worker = lab.workers[0].accept().await;
        let request = worker.try_request().await;
        assert!(request.is_none(), "{name}: a worker got {request:?}");
        std::future::pending::<()>().await
    };
    tokio::select! { () = refused => {}, () = worker => {} }
    lab.until(|snapshot| snapshot.queued == 0).await;
}

#[test]
fn known_payloads() {
    run(async {
        let long = format!("0\r\n\r\n{SMUGGLED}");
        let injected = format!("1\r\n\r\n{SMUGGLED}");
        let path = format!("/ HTTP/1.1\r\nhost: h\r\n\r\n{SMUGGLED}");
        for (name, change) in [
            ("a transfer coding", &[("transfer-encoding", "chunked")][..]),
            ("a transfer coding and a length", &[("transfer-encoding", "chunked"), ("content-length", "4")]),
            ("a length that is too short", &[("content-length", "4")]),
            ("a length that is too short by one", &[("content-length", "42")]),
            ("a length that is too long", &[("content-length", "1000")]),
            ("lengths that differ", &[("content-length", "43"), ("content-length", "4")]),
            ("a length that is none", &[("content-length", "+43")]),
            ("a list of lengths", &[("content-length", "43, 43")]),
            ("lines in a value", &[("x", &injected)]),
            ("a line feed in a value", &[("x", "1\ntransfer-encoding: chunked")]),
            ("a carriage return in a value", &[("x", "1\rtransfer-encoding: chunked")]),
            ("a NUL in a value", &[("x", "1\0")]),
            ("lines in a name", &[("x: 1\r\ntransfer-encoding", "chunked")]),
            ("a colon in a name", &[("transfer-encoding:", "chunked")]),
            ("a space in a name", &[("transfer-encoding ", "chunked")]),
            ("an empty name", &[("", "chunked")]),
            ("a name in upper case", &[("Transfer-Encoding", "chunked")]),
            ("lines in the path", &[(":path", &path)]),
            ("a space in the path", &[(":path", "/ HTTP/1.1")]),
            ("a tab in the path", &[(":path", "/\tHTTP/1.1")]),
            ("a line feed in the path", &[(":path", "/\nx")]),
            ("no slash", &[(":path", "x")]),
            ("a whole target", &[(":path", "http://other/")]),
            ("an empty path", &[(":path", "")]),
            ("lines in the method", &[(":method", "GET / HTTP/1.1\r\nx: ")]),
            ("a space in the method", &[(":method", "GET /x")]),
            ("an empty method", &[(":method", "")]),
            ("lines in the host", &[(":authority", "h\r\nx: 1")]),
            ("a space in the host", &[(":authority", "h h")]),
            ("a user in the host", &[(":authority", "me@h")]),
            ("a path in the host", &[(":authority", "h/x")]),
            ("another host", &[("host", "other")]),
            ("two hosts", &[("host", "localhost"), ("host", "localhost")]),
            ("fields of a connection", &[("connection", "close")]),
            ("an upgrade", &[("upgrade", "h2c")]),
            ("to be kept alive", &[("keep-alive", "timeout=9")]),
            ("a proxy's connection", &[("proxy-connection", "close")]),
            ("another coding than trailers", &[("te", "chunked")]),
            ("a pseudo field that is none", &[(":status", "200")]),
            ("a pseudo field that is made up", &[(":x", "1")]),
            ("a connection to elsewhere", &[(":method", "CONNECT")]),
        ] {
            check(name, head(&fields(change)), &long).await;
        }
        let twice = [fields(&[]), vec![(":path", "/x")]].concat();
        check("two paths", head(&twice), &long).await;
        let late = [vec![("x", "1")], fields(&[])].concat();
        check("pseudo fields that come late", head(&late), &long).await;
    });
}

/// What is well-formed, however odd, reaches the worker as the one request that it is.
#[test]
fn what_passes_is_one_request() {
    run(async {
        // A length of nothing is believed at once: what follows it all the same is not passed on.
        let lab = Lab::new(1).await;
        let mut client = Peer::greet(lab.address).await;
        let head_of_nothing = head(&fields(&[("content-length", "0")]));
        client.send(&[head_of_nothing, frame(DATA, END_STREAM, 1, SMUGGLED)].concat()).await;
        let (worker, request) = lab.workers[0].request().await;
        assert_eq!((request.header("content-length"), request.text()), (Some("0"), ""));
        worker.closed().await;
        let body = format!("0\r\n\r\n{SMUGGLED}");
        let length = body.len().to_string();
        for change in
            [&[][..], &[("content-length", &*length)], &[("x", "0\u{e9}")], &[(":path", "/a?b=%20//..")]]
        {
            let mut client = Peer::greet(lab.address).await;
            client.send(&[head(&fields(change)), frame(DATA, END_STREAM, 1, &body)].concat()).await;
            let (mut worker, request) = lab.workers[0].request().await;
            assert_eq!(request.text(), body, "{change:?}");
            worker.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
            assert_eq!(client.body(1).await, b"ok");
            assert!(worker.rest().await.is_empty(), "{change:?}");
        }
    });
}
