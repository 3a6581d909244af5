//! Blobs, as a client without a library streams them, and their limits from both ends.

use std::io;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use lethe_state::{
    blobs::{ByteRange, Put},
    error::Error,
};
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, net::UnixStream};

use crate::harness::{Server, bounded, detail, read_answer};

/// The date of the harness's clock.
const DATE: &str = "Tue, 14 Nov 2023 22:13:20 GMT";

#[tokio::test]
async fn a_blob_is_created_then_replaced() {
    let server = Server::start().await;
    let created =
        server.request("PUT /v1/blobs/photos/a", &["content-type: image/png"], b"first").await.expect(201);
    let info = created.json();
    assert_eq!(
        (&info["key"], &info["size"], &info["content_type"], &info["modified_at"]),
        (&json!("a"), &json!(5), &json!("image/png"), &json!(1_700_000_000_000_u64))
    );
    let etag = created.header("etag").unwrap();
    assert_eq!(etag.trim_matches('"'), info["etag"]);
    let got = server.get("/v1/blobs/photos/a", &[]).await.expect(200);
    assert_eq!(got.body, b"first");
    for (name, value) in [
        ("etag", etag),
        ("content-type", "image/png"),
        ("content-length", "5"),
        ("accept-ranges", "bytes"),
        ("last-modified", DATE),
        ("lethe-modified-at", "1700000000000"),
    ] {
        assert_eq!(got.header(name), Some(value), "{name}");
    }
    let head = server.request("HEAD /v1/blobs/photos/a", &[], b"").await.expect(200);
    assert_eq!(
        (head.body.len(), head.header("content-length"), head.header("etag")),
        (0, Some("5"), Some(etag))
    );
    let replaced = server.request("PUT /v1/blobs/photos/a", &[], b"second").await.expect(200);
    assert_ne!(replaced.header("etag"), Some(etag));
    let got = server.get("/v1/blobs/photos/a", &[]).await.expect(200);
    assert_eq!(got.header("content-type"), Some("application/octet-stream"));
    let deleted = server.request("DELETE /v1/blobs/photos/a", &[], b"").await.expect(204);
    assert_eq!(deleted.header("lethe-existed"), Some("true"));
    server.get("/v1/blobs/photos/a", &[]).await.problem(404, "not-found");
    server.request("HEAD /v1/blobs/photos/a", &[], b"").await.expect(404);
    let deleted = server.request("DELETE /v1/blobs/photos/a", &[], b"").await.expect(204);
    assert_eq!(deleted.header("lethe-existed"), Some("false"));
}

#[tokio::test]
async fn keys_may_have_slashes_as_they_are() {
    let server = Server::start().await;
    server.request("PUT /v1/blobs/b/2026/11/a%20b.png", &[], b"x").await.expect(201);
    server.get("/v1/blobs/b/2026%2F11%2Fa%20b.png", &[]).await.expect(200);
    server.request("PUT /v1/blobs/b//double//slash/", &[], b"x").await.expect(201);
    let list = server.get("/v1/blobs/b?limit=1", &[]).await.expect(200).json();
    assert_eq!(
        (&list["blobs"][0]["key"], &list["next"]),
        (&json!("/double//slash/"), &json!("/double//slash/"))
    );
    let list = server.get("/v1/blobs/b?prefix=2026/&after=2026/", &[]).await.expect(200).json();
    assert_eq!((&list["blobs"][0]["key"], &list["next"]), (&json!("2026/11/a b.png"), &json!(null)));
}

#[tokio::test]
async fn ranges_are_served() {
    let server = Server::start().await;
    server.request("PUT /v1/blobs/b/k", &[], b"0123456789").await.expect(201);
    let etag = server.get("/v1/blobs/b/k", &[]).await.header("etag").unwrap().to_owned();
    for (range, body, content_range) in [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=2-5", "2345", "bytes 2-5/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=-99", "0123456789", "bytes 0-9/10"),
        ("bytes=8-99999999999999999999999", "89", "bytes 8-9/10"),
    ] {
        let part = server.get("/v1/blobs/b/k", &[&format!("range: {range}")]).await.expect(206);
        assert_eq!(part.body, body.as_bytes(), "{range}");
        assert_eq!(part.header("content-range"), Some(content_range));
        assert_eq!(part.header("content-length"), Some(body.len().to_string().as_str()));
        assert_eq!(part.header("etag"), Some(etag.as_str()));
    }
    for range in ["bytes=10-", "bytes=10-20", "bytes=-0"] {
        let refused = server.get("/v1/blobs/b/k", &[&format!("range: {range}")]).await;
        assert_eq!(refused.header("content-range"), Some("bytes */10"), "{range}");
        refused.problem(416, "invalid");
    }
    for range in ["bytes=5-2", "bytes=0-1,4-5", "lines=0-1", "bytes=a-", "bytes"] {
        let whole = server.get("/v1/blobs/b/k", &[&format!("range: {range}")]).await.expect(200);
        assert_eq!(whole.body, b"0123456789", "{range}");
    }
    server.get("/v1/blobs/b/none", &["range: bytes=99-"]).await.problem(404, "not-found");
    // A range is only for the version that the client has a part of.
    server.get("/v1/blobs/b/k", &["range: bytes=0-1", &format!("if-range: {etag}")]).await.expect(206);
    for range in ["bytes=0-1", "bytes=99-"] {
        let headers = [&format!("range: {range}"), "if-range: \"other\""];
        assert_eq!(server.get("/v1/blobs/b/k", &headers).await.expect(200).body.len(), 10, "{range}");
    }
    server.request("PUT /v1/blobs/b/empty", &["content-length: 0"], b"").await.expect(201);
    assert_eq!(server.get("/v1/blobs/b/empty", &["range: bytes=-5"]).await.expect(200).body, b"");
    let refused = server.get("/v1/blobs/b/empty", &["range: bytes=0-"]).await;
    assert_eq!(refused.header("content-range"), Some("bytes */0"));
    refused.problem(416, "invalid");
}

#[tokio::test]
async fn conditions_are_weighed() {
    let server = Server::start().await;
    let created = server.request("PUT /v1/blobs/b/k", &["if-none-match: *"], b"one").await.expect(201);
    let etag = created.header("etag").unwrap();
    server.request("PUT /v1/blobs/b/k", &["if-none-match: *"], b"two").await.problem(412, "conflict");
    server.request("PUT /v1/blobs/b/k", &["if-match: \"other\""], b"two").await.problem(412, "conflict");
    server.request("PUT /v1/blobs/b/k", &["if-match: *"], b"two").await.problem(400, "invalid");
    server.request("DELETE /v1/blobs/b/k", &["if-match: \"other\""], b"").await.problem(412, "conflict");
    assert_eq!(server.get("/v1/blobs/b/k", &[]).await.expect(200).body, b"one");
    for headers in [
        vec![format!("if-none-match: {etag}")],
        vec![format!("if-none-match: \"x\", W/{etag}")],
        vec!["if-none-match: *".into()],
        vec![format!("if-modified-since: {DATE}")],
        vec![format!("if-none-match: {etag}"), "range: bytes=99-".into()],
    ] {
        let headers: Vec<_> = headers.iter().map(String::as_str).collect();
        let unchanged = server.get("/v1/blobs/b/k", &headers).await.expect(304);
        assert_eq!((unchanged.body.len(), unchanged.header("etag")), (0, Some(etag)), "{headers:?}");
        server.request("HEAD /v1/blobs/b/k", &headers[..1], b"").await.expect(304);
    }
    server.get("/v1/blobs/b/k", &["if-none-match: \"x\""]).await.expect(200);
    server.get("/v1/blobs/b/k", &["if-match: \"x\""]).await.problem(412, "conflict");
    server.request("PUT /v1/blobs/b/k", &[&format!("if-match: {etag}")], b"two").await.expect(200);
}

#[tokio::test]
async fn a_body_that_is_cut_short_leaves_the_old_blob() {
    let server = Server::start().await;
    server.request("PUT /v1/blobs/b/k", &[], b"old").await.expect(201);
    for start in [
        &b"PUT /v1/blobs/b/k HTTP/1.1\r\nhost: s\r\ncontent-length: 100000\r\n\r\nnew but not who"[..],
        b"PUT /v1/blobs/b/k HTTP/1.1\r\nhost: s\r\ntransfer-encoding: chunked\r\n\r\n3\r\nnew\r\n",
        b"PUT /v1/tables/t/k HTTP/1.1\r\nhost: s\r\ncontent-length: 10\r\n\r\nnew",
    ] {
        let mut stream = UnixStream::connect(&server.path).await.unwrap();
        stream.write_all(start).await.unwrap();
        stream.shutdown().await.unwrap();
        // The end of the connection tells that the server is done with it.
        let mut rest = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await.unwrap();
        assert!(!rest.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&rest));
    }
    assert_eq!(server.get("/v1/blobs/b/k", &[]).await.expect(200).body, b"old");
    server.get("/v1/tables/t/k", &[]).await.problem(404, "not-found");
}

#[tokio::test]
async fn a_body_is_asked_for_when_the_client_waits_for_that() {
    let server = Server::start().await;
    let mut stream = UnixStream::connect(&server.path).await.unwrap();
    let head = "PUT /v1/blobs/b/k HTTP/1.1\r\nhost: s\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 25];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"new").await.unwrap();
    read_answer(&mut stream).await.expect(201);
    // One that is refused is not asked for.
    let mut stream = UnixStream::connect(&server.path).await.unwrap();
    stream.write_all(head.replace("/b/k", "/B/k").as_bytes()).await.unwrap();
    bounded(read_answer(&mut stream)).await.problem(400, "invalid");
}

#[tokio::test]
async fn a_refused_upload_is_told_why_after_it_was_sent() {
    let server = Server::start().await;
    let body = vec![0; 4 << 20];
    let problem = server.request("PUT /v1/blobs/BAD/k", &[], &body).await.problem(400, "invalid");
    assert!(detail(&problem).contains("lower-case"), "{problem}");
    server.request("PUT /v1/blobs/b/k", &["if-match: \"x\""], &body).await.problem(412, "conflict");
    server.request("PUT /v1/tables/t/k?x=1", &[], &body).await.problem(400, "invalid");
    let problem = server
        .request("PUT /v1/blobs/b/k", &["content-length: 99999999999999"], b"")
        .await
        .problem(413, "too-large");
    assert_eq!(problem["max"], 5_u64 << 40);
}

/// Pieces of a body of `size` bytes, each byte told by its place.
fn pieces(size: usize) -> impl Iterator<Item = Bytes> {
    const PIECE: usize = 64 << 10;
    (0..size)
        .step_by(PIECE)
        .map(move |start| (start..size.min(start + PIECE)).map(|at| (at % 251) as u8).collect())
}

#[tokio::test]
async fn large_blobs_pass_through_both_ends() {
    let server = Server::start().await;
    let (blobs, size) = (server.remote().engines().blobs, 24 << 20);
    let body = stream::iter(pieces(size)).map(Ok).boxed();
    let info = blobs.put("b", "large", body, Put::default()).await.unwrap();
    assert_eq!(info.size, size as u64);
    assert_eq!(blobs.head("b", "large").await.unwrap().unwrap(), info);
    let blob = blobs.get("b", "large", None).await.unwrap().unwrap();
    assert_eq!((&blob.info, blob.range), (&info, 0..size as u64));
    let (mut at, mut body) = (0, blob.body);
    while let Some(chunk) = body.try_next().await.unwrap() {
        assert!(chunk.iter().zip(at..).all(|(byte, at)| usize::from(*byte) == at % 251));
        at += chunk.len();
    }
    assert_eq!(at, size);
    let blob = blobs.get("b", "large", Some(ByteRange::Last(1000))).await.unwrap().unwrap();
    assert_eq!(blob.range, size as u64 - 1000..size as u64);
    let part: Vec<Bytes> = blob.body.try_collect().await.unwrap();
    assert_eq!(part.concat().len(), 1000);
}

#[tokio::test]
async fn uploads_through_the_remote_end_in_typed_errors() {
    let server = Server::start().await;
    let blobs = server.remote().engines().blobs;
    let body = |parts: Vec<io::Result<Bytes>>| stream::iter(parts).boxed();
    blobs.put("b", "k", body(vec![Ok("old".into())]), Put::default()).await.unwrap();
    let broken = vec![Ok("new".into()), Err(io::Error::other("the phone is off"))];
    let error = blobs.put("b", "k", body(broken), Put::default()).await.unwrap_err();
    assert!(matches!(&error, Error::Invalid(text) if text.contains("the phone is off")), "{error:?}");
    let large = || stream::iter(pieces(12 << 20)).map(Ok).boxed();
    let error = blobs.put("b", "k", large(), Put { bytes_max: 100_000, ..Put::default() }).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { max: 100_000, size: 131_072, .. }), "{error:?}");
    let error = blobs.put("BAD", "k", large(), Put::default()).await.unwrap_err();
    assert!(matches!(&error, Error::Invalid(text) if text.contains("lower-case")), "{error:?}");
    let old = blobs.get("b", "k", None).await.unwrap().unwrap();
    assert_eq!(old.body.try_collect::<Vec<_>>().await.unwrap().concat(), b"old");
}

#[tokio::test]
async fn many_copies_at_once_do_not_wait_for_each_other() {
    let server = Server::start().await;
    let blobs = server.remote().engines().blobs;
    let body = stream::iter(pieces(300_000)).map(Ok).boxed();
    blobs.put("b", "source", body, Put::default()).await.unwrap();
    let copies = (0..100).map(|number| {
        let blobs = blobs.clone();
        async move {
            let source = blobs.get("b", "source", None).await.unwrap().unwrap();
            blobs.put("b", &format!("copy-{number}"), source.body, Put::default()).await.unwrap()
        }
    });
    let copies = bounded(futures_util::future::join_all(copies)).await;
    assert!(copies.iter().all(|copy| copy.etag == copies[0].etag && copy.size == 300_000));
}
