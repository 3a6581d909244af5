//! Requests that two readers could understand differently. Whatever is sent, a worker sees at most one well-framed
//! request, and the connection is closed before anything behind it could pass as another.

use crate::lab::{Lab, run};

/// Sends a payload that must be answered with `status`, with nothing at the worker, and closed.
async fn check(payload: &str, status: u16) {
    let lab = Lab::new(1).await;
    let mut client = lab.send(payload).await;
    let response = client.response().await;
    assert_eq!(response.status(), status, "{payload:?}");
    assert_eq!(response.problem()["status"], status, "{payload:?}");
    assert!(response.header("x-request-id").is_some(), "{payload:?}");
    client.closed().await;
    assert!(!lab.workers[0].is_called(), "a worker was asked: {payload:?}");
}

#[test]
fn known_payloads() {
    const NEXT: &str = "GET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n";
    run(async {
        let post = |fields: &str, body: &str| format!("POST / HTTP/1.1\r\nhost: h\r\n{fields}\r\n{body}");
        let (cl, te) = ("content-length: 5\r\n", "transfer-encoding: chunked\r\n");
        // Both framings, in both orders.
        check(&post(&format!("{cl}{te}"), &format!("0\r\n\r\n{NEXT}")), 400).await;
        check(&post(&format!("{te}{cl}"), &format!("0\r\n\r\n{NEXT}")), 400).await;
        // The same length twice is one length to some readers.
        check(&post(&format!("{cl}{cl}"), &format!("hello{NEXT}")), 400).await;
        check(&post("content-length: 5, 5\r\n", &format!("hello{NEXT}")), 400).await;
        // Line ends that some readers take for one and some do not.
        check("GET / HTTP/1.1\nhost: h\n\n", 400).await;
        check(&format!("GET / HTTP/1.1\r\nhost: h\nx: 1\r\n\r\n{NEXT}"), 400).await;
        check(&format!("GET / HTTP/1.1\r\nhost: h\r\n\n{NEXT}"), 400).await;
        check(&format!("GET / HTTP/1.1\rhost: h\r\n\r\n{NEXT}"), 400).await;
        // Lengths that differ, or are none.
        for bad in [
            "content-length: 6\r\ncontent-length: 5\r\n",
            "content-length: 5, 6\r\n",
            "content-length: +5\r\n",
        ] {
            check(&post(bad, &format!("hello{NEXT}")), 400).await;
        }
        for bad in ["content-length: -1\r\n", "content-length: 0x5\r\n", "content-length: 5 5\r\n"] {
            check(&post(bad, &format!("hello{NEXT}")), 400).await;
        }
        check(&post("content-length: 99999999999999999999\r\n", NEXT), 400).await;
        check(&post("content-length:\r\n", NEXT), 400).await;
        // Codings that some reader might not know, or might know by another spelling.
        for bad in [
            "xchunked",
            "gzip",
            "identity",
            "chunked, identity",
            "chunked;q=1",
            "\"chunked\"",
            "\u{b}chunked",
        ] {
            check(&post(&format!("transfer-encoding: {bad}\r\n"), &format!("0\r\n\r\n{NEXT}")), 400).await;
        }
        check(&post("transfer-encoding: gzip, chunked\r\n", &format!("0\r\n\r\n{NEXT}")), 501).await;
        check(&post(&format!("{te}{te}"), &format!("0\r\n\r\n{NEXT}")), 400).await;
        check(&post("transfer-encoding : chunked\r\n", &format!("0\r\n\r\n{NEXT}")), 400).await;
        check(&post("transfer-encoding:\r\n chunked\r\n", &format!("0\r\n\r\n{NEXT}")), 400).await;
        check(&post(" content-length: 5\r\n", &format!("hello{NEXT}")), 400).await;
        check(&post("x: 1\r\n\tcontent-length: 5\r\n", &format!("hello{NEXT}")), 400).await;
        check(&post("x: a\0b\r\n", NEXT), 400).await;
        check(&post("x: a\rcontent-length: 5\r\n", &format!("hello{NEXT}")), 400).await;
        check(&post("x y: 1\r\n", NEXT), 400).await;
        // HTTP/1.0 knows no transfer codings.
        check(&post(te, &format!("0\r\n\r\n{NEXT}")).replace("HTTP/1.1", "HTTP/1.0"), 400).await;
        // Hosts and targets.
        check(&format!("GET / HTTP/1.1\r\n\r\n{NEXT}"), 400).await;
        check(&format!("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n{NEXT}"), 400).await;
        check(&format!("GET / HTTP/1.1\r\nhost: a@b\r\n\r\n{NEXT}"), 400).await;
        check(&format!("GET h:80 HTTP/1.1\r\nhost: h\r\n\r\n{NEXT}"), 400).await;
        check(&format!("GET * HTTP/1.1\r\nhost: h\r\n\r\n{NEXT}"), 400).await;
        check(&format!("CONNECT h:80 HTTP/1.1\r\nhost: h\r\n\r\n{NEXT}"), 501).await;
        check(&format!("GET /a b HTTP/1.1\r\nhost: h\r\n\r\n{NEXT}"), 400).await;
        check(&format!("GET / HTTP/1.2\r\nhost: h\r\n\r\n{NEXT}"), 400).await;
        check(&format!("G@T / HTTP/1.1\r\nhost: h\r\n\r\n{NEXT}"), 400).await;
        check(&format!("\x16\x03\x01\x02\x00\x01\x00\x01{NEXT}"), 400).await;
    });
}

#[test]
fn a_chunked_body_that_breaks_is_not_passed_on_as_whole() {
    run(async {
        for broken in [
            "3\r\nabcX",
            "zz\r\nabc\r\n",
            "3\r\nabc\r\n-1\r\n",
            "ffffffffffffffffff\r\n",
            "3;\nabc\r\n0\r\n\r\n",
        ] {
            let lab = Lab::new(1).await;
            let head = "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";
            let mut client = lab
                .send(format!("{head}{broken}\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n"))
                .await;
            let mut worker = lab.workers[0].accept().await;
            assert!(worker.try_request().await.is_none(), "passed on as whole: {broken:?}");
            let response = client.response().await;
            assert_eq!(
                (response.status(), response.header("connection")),
                (400, Some("close")),
                "{broken:?}"
            );
            assert_eq!(client.rest().await, b"", "nothing more is answered: {broken:?}");
            assert!(!lab.workers[0].is_called(), "something was smuggled: {broken:?}");
        }
    });
}

#[test]
fn what_the_target_says_is_what_the_worker_sees() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = lab.send("GET http://shop.test:81/a?b HTTP/1.1\r\nhost: evil.test\r\n\r\n").await;
        let (mut worker, request) = lab.workers[0].request().await;
        assert_eq!(request.line, "GET /a?b HTTP/1.1");
        assert_eq!(request.header("host"), Some("shop.test:81"));
        assert_eq!(request.header("x-forwarded-host"), Some("shop.test:81"));
        worker.answer("ok").await;
        client.response().await;
        client.send("OPTIONS * HTTP/1.1\r\nhost: h\r\n\r\n").await;
        assert_eq!(worker.request().await.line, "OPTIONS * HTTP/1.1");
    });
}

/// Some workers add what comes after the body to the head.
#[test]
fn trailers_do_not_say_what_only_a_head_may() {
    run(async {
        let lab = Lab::new(1).await;
        let trailers = "X-Sum: 1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: evil\r\nConnection: x-sum\r\n\
            X-Forwarded-For: 6.6.6.6\r\nx_forwarded_for: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nx-two: 2\r\n";
        let mut client = lab
            .send(format!("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n{trailers}\r\n"))
            .await;
        let (mut worker, request) = lab.workers[0].request().await;
        assert_eq!(request.trailers, ["X-Sum: 1", "x-two: 2"]);
        worker
            .send(format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n{trailers}\r\n"
            ))
            .await;
        assert_eq!(client.response().await.trailers, ["X-Sum: 1", "x-two: 2"]);
    });
}
