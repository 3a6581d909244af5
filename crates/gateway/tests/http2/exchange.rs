//! Whole exchanges between clients that speak HTTP/2 and workers that speak HTTP/1.1, when nothing goes wrong.

use std::{future::poll_fn, net::SocketAddr};

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{Method, Request, Response, StatusCode};
use tokio::{net::TcpStream, task::JoinHandle};

use crate::lab::{Lab, Peer, run};

/// A connection with prior knowledge.
pub async fn client(address: SocketAddr) -> SendRequest<Bytes> {
    watched(address).await.0
}

/// A connection with prior knowledge, and what tells of its end.
pub async fn watched(address: SocketAddr) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (send, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .handshake(stream)
        .await
        .unwrap();
    let end = tokio::spawn(connection);
    (send.ready().await.unwrap(), end)
}

fn request(method: &str, path: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(format!("http://shop.test{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

/// Sends a request without a body.
pub fn ask(client: &mut SendRequest<Bytes>, method: &str, path: &str) -> ResponseFuture {
    client.send_request(request(method, path, &[]), true).unwrap().0
}

/// The connection is good for another request, which comes to the worker on a new one.
async fn goes_on(lab: &Lab, client: &mut SendRequest<Bytes>) {
    let response = ask(client, "GET", "/");
    lab.workers[0].request().await.0.answer("ok").await;
    assert_eq!(whole(response).await.text(), "ok");
}

/// Sends a request's head; its body is to follow.
pub fn begin(
    client: &mut SendRequest<Bytes>,
    method: &str,
    fields: &[(&str, &str)],
) -> (ResponseFuture, SendStream<Bytes>) {
    client.send_request(request(method, "/", fields), false).unwrap()
}

/// Sends a request with a small body.
pub fn submit(
    client: &mut SendRequest<Bytes>,
    method: &str,
    fields: &[(&str, &str)],
    body: &'static str,
) -> ResponseFuture {
    let (response, mut sending) = begin(client, method, fields);
    sending.send_data(body.into(), true).unwrap();
    response
}

/// A response that came whole.
pub struct Whole {
    pub head: Response<()>,
    pub body: Vec<u8>,
}

impl Whole {
    pub fn status(&self) -> u16 {
        self.head.status().as_u16()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.headers().get(name).map(|value| value.to_str().unwrap())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// The whole response, or what became of it.
pub async fn try_whole(response: ResponseFuture) -> Result<Whole, h2::Error> {
    let (head, body) = response.await?.into_parts();
    let body = drink(body).await?;
    Ok(Whole { head: Response::from_parts(head, ()), body })
}

pub async fn whole(response: ResponseFuture) -> Whole {
    try_whole(response).await.unwrap()
}

async fn drink(mut body: RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        bytes.extend(piece);
    }
    Ok(bytes)
}

/// The next bytes of a body. The end of a stream may come as a frame of nothing.
async fn piece(body: &mut RecvStream) -> Option<Bytes> {
    while let Some(piece) = body.data().await {
        let piece = piece.unwrap();
        if !piece.is_empty() {
            return Some(piece);
        }
    }
    None
}

/// Sends as much as the windows let through, to the end.
pub async fn pour(sending: &mut SendStream<Bytes>, mut bytes: Bytes, ends: bool) {
    while !bytes.is_empty() {
        sending.reserve_capacity(bytes.len());
        let granted = poll_fn(|cx| sending.poll_capacity(cx)).await.unwrap().unwrap();
        let piece = bytes.split_to(granted.min(bytes.len()));
        sending.send_data(piece, false).unwrap();
    }
    if ends {
        sending.send_data(Bytes::new(), true).unwrap();
    }
}

#[test]
fn request_and_response_pass() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = client(lab.address).await;
        let fields = [("x-one", "1"), ("x-forwarded-for", "10.0.0.1"), ("te", "trailers")];
        let response = submit(&mut client, "POST", &fields, "hi");
        let (mut worker, request) = lab.workers[0].request().await;
        assert_eq!((request.line.as_str(), request.text()), ("POST / HTTP/1.1", "hi"));
        assert_eq!(request.header("host"), Some("shop.test"));
        assert_eq!(request.header("x-one"), Some("1"));
        assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"), "a claim of the client's");
        assert_eq!(request.header("x-forwarded-proto"), Some("http"));
        assert_eq!(request.header("x-forwarded-host"), Some("shop.test"));
        let id = request.header("x-request-id").unwrap();
        worker
            .send("HTTP/1.1 418 I'm a teapot\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nkeep-alive: timeout=9\r\nconnection: x-gone\r\nx-gone: 1\r\ncontent-length: 3\r\n\r\ntea")
            .await;
        let response = whole(response).await;
        assert_eq!((response.status(), response.text()), (418, "tea"));
        assert_eq!(response.head.headers().get_all("set-cookie").iter().count(), 2);
        for gone in ["x-gone", "keep-alive", "connection", "transfer-encoding"] {
            assert_eq!(response.header(gone), None);
        }
        assert_eq!(response.header("x-request-id"), Some(id));
        assert_eq!(response.header("content-length"), Some("3"));
        assert!(response.header("date").is_some());
    });
}

#[test]
fn trailers_pass_both_ways() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = client(lab.address).await;
        let (response, mut sending) = begin(&mut client, "POST", &[("trailer", "x-sum")]);
        sending.send_data("body".into(), false).unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        sending.send_trailers(trailers).unwrap();
        let (mut worker, request) = lab.workers[0].request().await;
        assert_eq!((request.text(), &request.trailers[..]), ("body", &["x-sum: 1".to_owned()][..]));
        worker
            .send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\ngrpc-status: 0\r\n\r\n")
            .await;
        let mut body = response.await.unwrap().into_body();
        assert_eq!(piece(&mut body).await.unwrap(), "hello");
        assert!(piece(&mut body).await.is_none());
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
        // Also where there is nothing but trailers.
        let response = ask(&mut client, "GET", "/");
        worker.request().await;
        worker.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\ngrpc-status: 5\r\n\r\n").await;
        let mut body = response.await.unwrap().into_body();
        assert!(piece(&mut body).await.is_none());
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "5");
    });
}

#[test]
fn responses_without_a_body() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = client(lab.address).await;
        let mut worker = None;
        for (method, answer, length) in [
            ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 12345\r\n\r\n", Some("12345")),
            ("HEAD", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", None),
            ("GET", "HTTP/1.1 204 No Content\r\n\r\n", None),
            ("GET", "HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\ncontent-length: 7\r\n\r\n", Some("7")),
            ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Some("0")),
            ("GET", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", None),
        ] {
            let response = ask(&mut client, method, "/");
            if worker.is_none() {
                worker = Some(lab.workers[0].accept().await);
            }
            let worker = worker.as_mut().unwrap();
            assert!(worker.request().await.line.starts_with(method));
            worker.send(answer).await;
            let response = whole(response).await;
            assert_eq!(response.header("content-length"), length, "{answer}");
            assert!(response.body.is_empty());
        }
    });
}

#[test]
fn interim_responses_pass_at_once() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = client(lab.address).await;
        let (mut response, mut sending) = begin(&mut client, "POST", &[("expect", "100-continue")]);
        let interim = poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!(interim.status(), StatusCode::CONTINUE);
        sending.send_data("hi".into(), true).unwrap();
        let (mut worker, request) = lab.workers[0].request().await;
        assert_eq!((request.text(), request.header("expect")), ("hi", None));
        worker.send("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n").await;
        let interim = poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!((interim.status().as_u16(), &interim.headers()["link"]), (103, &"x".parse().unwrap()));
        worker.answer("ok").await;
        assert_eq!(whole(response).await.text(), "ok");
    });
}

#[test]
fn events_pass_one_by_one() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = client(lab.address).await;
        let response = ask(&mut client, "GET", "/");
        let (mut worker, _) = lab.workers[0].request().await;
        worker.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await;
        let mut body = response.await.unwrap().into_body();
        for number in 0..10 {
            let event = format!("data: {number}\n\n");
            worker.send(&event).await;
            assert_eq!(piece(&mut body).await.unwrap(), event);
        }
        drop(worker);
        assert!(piece(&mut body).await.is_none(), "its end is that of the connection");
    });
}

#[test]
fn large_bodies_pass_both_ways_at_once() {
    const BYTES: usize = 8 << 20;
    run(async {
        let lab = Lab::new(1).await;
        let mut client = client(lab.address).await;
        for fields in [&[("content-length", "8388608")][..], &[]] {
            let sent: Bytes = (0..BYTES as u32 / 4).flat_map(|n| n.to_be_bytes()).collect::<Vec<_>>().into();
            let (response, mut sending) = begin(&mut client, "PUT", fields);
            let worker = async {
                let mut worker = lab.workers[0].accept().await;
                let head = worker.head().await;
                worker.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {BYTES}\r\n\r\n")).await;
                let mut left = BYTES;
                while left > 0 {
                    let size = match head.header("transfer-encoding") {
                        Some(_) => usize::from_str_radix(&worker.line().await.unwrap(), 16).unwrap(),
                        None => left.min(10_000),
                    };
                    let piece = worker.exactly(size).await.unwrap();
                    worker.send(piece).await;
                    if head.header("transfer-encoding").is_some() {
                        worker.exactly(2).await.unwrap();
                    }
                    left -= size;
                }
                // Its connection is not used again, so that each round has one of its own.
                worker
            };
            let echoed = async { whole(response).await };
            let ((), _worker, echoed) = tokio::join!(pour(&mut sending, sent.clone(), true), worker, echoed);
            assert!(echoed.body == sent, "something else came back");
        }
    });
}

#[test]
fn a_hundred_streams_at_once_are_answered_in_any_order() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = client(lab.address).await;
        let mut responses = Vec::new();
        for number in 0..100 {
            client = client.ready().await.unwrap();
            responses.push(ask(&mut client, "GET", &format!("/{number}")));
        }
        let mut workers = Vec::new();
        for _ in 0..100 {
            workers.push(lab.workers[0].request().await);
        }
        assert_eq!(lab.workers[0].entry.gate.in_flight(), 100);
        for (mut worker, request) in workers.into_iter().rev() {
            worker.answer(request.line.split(' ').nth(1).unwrap()).await;
        }
        for (number, response) in responses.into_iter().enumerate() {
            assert_eq!(whole(response).await.text(), format!("/{number}"));
        }
    });
}

#[test]
fn a_request_that_is_taken_back_frees_its_worker_and_no_other() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = client(lab.address).await;
        let waiting = ask(&mut client, "GET", "/waiting");
        let (worker, _) = lab.workers[0].request().await;
        let streamed = ask(&mut client, "GET", "/streamed");
        let (mut streaming, _) = lab.workers[0].request().await;
        streaming.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n").await;
        let streamed = streamed.await.unwrap();
        let kept = ask(&mut client, "GET", "/kept");
        let (mut other, _) = lab.workers[0].request().await;
        let held = ask(&mut client, "GET", "/held");
        let (mut holding, _) = lab.workers[0].request().await;
        holding.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        drop(waiting);
        worker.closed().await;
        drop(held);
        holding.closed().await;
        drop(streamed);
        streaming.closed().await;
        other.answer("ok").await;
        assert_eq!(whole(kept).await.text(), "ok");
        let gate = &lab.workers[0].entry.gate;
        gate.close();
        gate.emptied().await;
        assert_eq!(lab.gateway.snapshot().cut, 0, "nothing was lost");
    });
}

#[test]
fn a_websocket_passes_through_to_an_http1_worker() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = client(lab.address).await;
        // What the gateway offers comes with its settings, which a first answer follows.
        let response = ask(&mut client, "GET", "/");
        let (mut worker, _) = lab.workers[0].request().await;
        worker.answer("ok").await;
        whole(response).await;
        assert!(client.is_extended_connect_protocol_enabled());
        drop(worker);
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri("https://shop.test/chat")
            .extension(h2::ext::Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13")
            .header("sec-websocket-protocol", "chat")
            .body(())
            .unwrap();
        let (response, mut up) = client.send_request(request, false).unwrap();
        let (mut worker, request) = lab.workers[0].request().await;
        assert_eq!(request.line, "GET /chat HTTP/1.1");
        assert_eq!(request.header("upgrade"), Some("websocket"));
        assert_eq!(request.header("connection"), Some("upgrade"));
        assert_eq!(request.header("sec-websocket-key").unwrap().len(), 24);
        assert_eq!(request.header("sec-websocket-protocol"), Some("chat"));
        worker
            .send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: a\r\nsec-websocket-protocol: chat\r\n\r\nhello")
            .await;
        let response = response.await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
        for gone in ["sec-websocket-accept", "upgrade", "connection"] {
            assert!(!response.headers().contains_key(gone), "{gone}");
        }
        let mut down = response.into_body();
        assert_eq!(piece(&mut down).await.unwrap(), "hello");
        for _ in 0..3 {
            up.send_data("ping".into(), false).unwrap();
            assert_eq!(worker.exactly(4).await.unwrap(), b"ping");
            worker.send("pong").await;
            assert_eq!(piece(&mut down).await.unwrap(), "pong");
        }
        // One direction ends, the other goes on.
        up.send_data("bye".into(), true).unwrap();
        assert_eq!(worker.exactly(3).await.unwrap(), b"bye");
        worker.send("still here").await;
        assert_eq!(piece(&mut down).await.unwrap(), "still here");
        let gate = &lab.workers[0].entry.gate;
        assert_eq!(gate.in_flight(), 1);
        worker.closed().await;
        assert!(piece(&mut down).await.is_none());
        gate.close();
        gate.emptied().await;
    });
}

#[test]
fn a_websocket_that_a_worker_refuses_is_an_ordinary_answer() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = client(lab.address).await;
        let response = ask(&mut client, "GET", "/");
        let (mut worker, _) = lab.workers[0].request().await;
        worker.answer("ok").await;
        whole(response).await;
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri("https://shop.test/chat")
            .extension(h2::ext::Protocol::from_static("websocket"))
            .body(())
            .unwrap();
        let (response, _up) = client.send_request(request, false).unwrap();
        worker.request().await;
        worker.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno").await;
        let response = whole(response).await;
        assert_eq!((response.status(), response.text()), (403, "no"));
    });
}

#[test]
fn limits_of_heads_are_those_of_http1() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = client(lab.address).await;
        let path = format!("/{}", "x".repeat(17 << 10));
        assert_eq!(whole(ask(&mut client, "GET", &path)).await.status(), 414);
        let large = "x".repeat(40 << 10);
        let response = client.send_request(request("GET", "/", &[("x-large", &large)]), true).unwrap().0;
        assert_eq!(whole(response).await.status(), 431);
        let names: Vec<String> = (0..200).map(|number| format!("x-{number}")).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
        let response = client.send_request(request("GET", "/", &many), true).unwrap().0;
        assert_eq!(whole(response).await.status(), 431);
        assert!(!lab.workers[0].is_called());
        goes_on(&lab, &mut client).await;
    });
}

#[test]
fn an_answer_before_the_request_is_whole_reaches_the_client() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = client(lab.address).await;
        let (response, mut sending) = begin(&mut client, "POST", &[]);
        sending.send_data("some".into(), false).unwrap();
        let mut worker = lab.workers[0].accept().await;
        worker.head().await;
        worker.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig").await;
        let response = whole(response).await;
        assert_eq!((response.status(), response.text()), (413, "big"));
        // The worker's connection is in the midst of a request, and is not used for another.
        let _: Vec<u8> = worker.rest().await;
        goes_on(&lab, &mut client).await;
    });
}

#[test]
fn a_draining_gateway_ends_what_is_open() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = client(lab.address).await;
        let response = ask(&mut client, "GET", "/");
        let (mut worker, _): (Peer, _) = lab.workers[0].request().await;
        let last = async {
            // It stops to accept before it ends.
            while TcpStream::connect(lab.address).await.is_ok() {
                tokio::task::yield_now().await;
            }
            worker.answer("last").await;
            assert_eq!(whole(response).await.text(), "last");
        };
        tokio::join!(lab.gateway.drain(), last);
        assert!(client.ready().await.is_err(), "the connection is over");
        assert_eq!(lab.gateway.snapshot().connections, 0);
    });
}

/// A page instead of the WebSocket: as an answer to the client's CONNECT its 200 would say that the tunnel is open.
#[test]
fn a_websocket_that_is_answered_as_a_plain_request_is_refused() {
    run(async {
        let lab = Lab::new(1).await;
        let mut client = client(lab.address).await;
        let response = connect(&mut client).await;
        let (mut worker, _) = lab.workers[0].request().await;
        worker.answer("<h1>Welcome</h1>").await;
        let response = whole(response).await;
        assert_eq!((response.status(), response.header("lethe-outcome")), (502, None));
        assert_eq!(response.header("content-type"), Some("application/problem+json"));
        // It is none of the worker's failures, or clients could have it put out.
        assert_eq!(lab.gateway.snapshot().workers[&lab.workers[0].entry.instance].failures, 0);
    });
}

/// Asks for a WebSocket, which is only allowed when the gateway has said that it offers it.
pub async fn connect(client: &mut SendRequest<Bytes>) -> ResponseFuture {
    while !client.is_extended_connect_protocol_enabled() {
        tokio::task::yield_now().await;
    }
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri("https://shop.test/chat")
        .extension(h2::ext::Protocol::from_static("websocket"))
        .body(())
        .unwrap();
    let (response, _) = client.send_request(request, false).unwrap();
    response
}
