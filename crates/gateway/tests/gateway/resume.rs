//! Large responses that die half-way, and those that die before anything of them was seen.

use crate::lab::{Lab, run};

/// Above what is held back.
const LENGTH: usize = 300 << 10;

/// The head arrives together with the end of the connection, so that there is no moment at which only the head is there:
/// the client has seen nothing, and it must not be left without a byte.
#[test]
fn a_large_response_that_dies_behind_its_head_was_not_begun() {
    run(async {
        for framing in [format!("content-length: {LENGTH}"), "transfer-encoding: chunked".into()] {
            for (method, status, asked) in [("GET", 200, true), ("POST", 502, false)] {
                let lab = Lab::new(2).await;
                let mut client = lab.send(format!("{method} / HTTP/1.1\r\nhost: h\r\n\r\n")).await;
                let (mut worker, _) = lab.workers[0].request().await;
                socket2::SockRef::from(&worker.stream).set_tcp_cork(true).unwrap();
                worker.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n")).await;
                drop(worker);
                if asked {
                    let (mut worker, _) = lab.workers[1].request().await;
                    worker.answer("saved").await;
                }
                let response = client.response().await;
                assert_eq!(response.status(), status, "{method} {framing}");
                assert_eq!(response.header("lethe-outcome").is_some(), !asked, "{method} {framing}");
                assert_eq!(lab.gateway.snapshot().cut, 0);
            }
        }
    });
}

/// What a worker says before its final response is for the beginning of a response, and there is no other place for it.
#[test]
fn an_interim_response_is_not_put_into_the_rest_of_a_body() {
    run(async {
        let lab = Lab::new(2).await;
        let mut client = lab.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let body = "0123456789".repeat(LENGTH / 10);
        let length = body.len();
        let (half, rest) = body.split_at(length / 2);
        let (mut worker, _) = lab.workers[0].request().await;
        worker
            .send(format!("HTTP/1.1 200 OK\r\netag: \"a\"\r\ncontent-length: {length}\r\n\r\n{half}"))
            .await;
        drop(worker);
        let (mut worker, request) = lab.workers[1].request().await;
        assert_eq!(request.header("range"), Some(&*format!("bytes={}-", half.len())));
        assert_eq!(request.header("if-range"), Some("\"a\""));
        worker.send("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n").await;
        let range = format!("bytes {}-{}/{length}", half.len(), length - 1);
        worker
            .send(format!(
                "HTTP/1.1 206 Partial Content\r\netag: \"a\"\r\ncontent-range: {range}\r\ncontent-length: {}\r\n\r\n{rest}",
                rest.len()
            ))
            .await;
        let response = client.response().await;
        assert!(response.text() == body, "the body is another");
    });
}
