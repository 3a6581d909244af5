//! Buckets on the embedded engine, and blobs as answers to requests.

#![allow(clippy::unwrap_used)]

use std::io;

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, State as Extracted},
    response::Response,
    routing::any,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use lethe::{
    Error, State,
    bucket::{Bucket, ByteRange},
};
use tower::ServiceExt;

const TEXT: &str = "0123456789";

async fn stored() -> Bucket {
    let bucket = State::ephemeral().unwrap().bucket("photos");
    bucket.put("a/mug", "image/png", TEXT, 100).await.unwrap();
    bucket
}

fn site(bucket: Bucket) -> Router {
    async fn photo(
        Extracted(bucket): Extracted<Bucket>,
        Path(key): Path<String>,
        method: Method,
        headers: HeaderMap,
    ) -> Result<Response, Error> {
        bucket.response_to(&method, &key, &headers).await
    }
    Router::new().route("/{*key}", any(photo)).with_state(bucket)
}

async fn ask(
    site: &Router,
    method: &str,
    path: &str,
    lines: &[(&str, &str)],
) -> (StatusCode, HeaderMap, String) {
    let request = lines.iter().fold(Request::builder().method(method).uri(path), |request, (name, value)| {
        request.header(*name, *value)
    });
    let response = site.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status, head.headers, String::from_utf8(body.into()).unwrap())
}

#[tokio::test]
async fn a_blob_is_answered_whole_and_described() {
    let bucket = stored().await;
    let info = bucket.head("a/mug").await.unwrap().unwrap();
    let site = site(bucket);
    let (status, headers, body) = ask(&site, "GET", "/a/mug", &[]).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, TEXT));
    assert_eq!(headers[header::CONTENT_TYPE], "image/png");
    assert_eq!(headers[header::CONTENT_LENGTH], "10");
    assert_eq!(headers[header::ETAG], format!("\"{}\"", info.etag));
    assert_eq!(headers[header::ACCEPT_RANGES], "bytes");
    assert_eq!(headers[header::CACHE_CONTROL], "no-cache");
    assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert!(headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().contains("sandbox"));
    assert!(headers.contains_key(header::LAST_MODIFIED));

    let (status, of_head, body) = ask(&site, "HEAD", "/a/mug", &[("range", "bytes=0-1")]).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, ""));
    assert_eq!(of_head[header::CONTENT_LENGTH], "10");
    assert_eq!(of_head[header::ETAG], headers[header::ETAG]);

    let (status, headers, _) = ask(&site, "DELETE", "/a/mug", &[]).await;
    assert_eq!(
        (status, &headers[header::ALLOW]),
        (StatusCode::METHOD_NOT_ALLOWED, &"GET, HEAD".parse().unwrap())
    );
    for method in ["GET", "HEAD"] {
        assert_eq!(ask(&site, method, "/nothing", &[]).await.0, StatusCode::NOT_FOUND);
        assert_eq!(ask(&site, method, "/nothing", &[("range", "bytes=0-")]).await.0, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn parts_are_answered_as_parts() {
    let site = site(stored().await);
    for (range, body, content_range) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
        ("bytes=-99", TEXT, "bytes 0-9/10"),
        ("bytes=9-99", "9", "bytes 9-9/10"),
    ] {
        let (status, headers, got) = ask(&site, "GET", "/a/mug", &[("range", range)]).await;
        assert_eq!((status, got.as_str()), (StatusCode::PARTIAL_CONTENT, body), "{range}");
        assert_eq!(headers[header::CONTENT_RANGE], content_range, "{range}");
        assert_eq!(headers[header::CONTENT_LENGTH], body.len().to_string(), "{range}");
    }
    let (status, headers, _) = ask(&site, "GET", "/a/mug", &[("range", "bytes=10-")]).await;
    assert_eq!(status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(headers[header::CONTENT_RANGE], "bytes */10");
    let (status, _, body) = ask(&site, "GET", "/a/mug", &[("range", "bytes=0-1,3-4")]).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, TEXT));
}

#[tokio::test]
async fn a_copy_that_is_still_good_is_not_sent_again() {
    let bucket = stored().await;
    let site = site(bucket.clone());
    let (_, first, _) = ask(&site, "GET", "/a/mug", &[]).await;
    let etag = first[header::ETAG].to_str().unwrap();
    let (status, headers, body) = ask(&site, "GET", "/a/mug", &[("if-none-match", etag)]).await;
    assert_eq!((status, body.as_str()), (StatusCode::NOT_MODIFIED, ""));
    assert_eq!(headers[header::ETAG], etag);
    assert_eq!(headers[header::LAST_MODIFIED], first[header::LAST_MODIFIED]);
    let date = first[header::LAST_MODIFIED].to_str().unwrap();
    let (status, ..) = ask(&site, "GET", "/a/mug", &[("if-modified-since", date)]).await;
    assert_eq!(status, StatusCode::NOT_MODIFIED);
    let (status, ..) = ask(&site, "HEAD", "/a/mug", &[("if-match", "\"other\"")]).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);

    bucket.put("a/mug", "image/png", "another picture", 100).await.unwrap();
    let (status, _, body) = ask(&site, "GET", "/a/mug", &[("if-none-match", etag)]).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "another picture"));
    let (status, _, body) = ask(&site, "GET", "/a/mug", &[("range", "bytes=0-6"), ("if-range", etag)]).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "another picture"));
}

#[tokio::test]
async fn what_is_too_large_or_cut_short_leaves_the_blob_as_it_was() {
    let bucket = stored().await;
    let error = bucket.put("a/mug", "image/png", "x".repeat(101), 100).await.unwrap_err();
    let response = axum::response::IntoResponse::into_response(error);
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);

    let cut = || stream::iter([Ok(Bytes::from("abc")), Err(io::Error::from(io::ErrorKind::ConnectionReset))]);
    assert!(bucket.put("a/mug", "image/png", Body::from_stream(cut()), 100).await.is_err());
    assert!(bucket.put_stream("a/mug", "image/png", cut(), 100).await.is_err());

    let blob = bucket.get("a/mug", None).await.unwrap().unwrap();
    let bytes: Vec<Bytes> = blob.body.try_collect().await.unwrap();
    assert_eq!(bytes.concat(), TEXT.as_bytes());
}

#[tokio::test]
async fn a_borrowed_stream_is_stored_and_a_refused_one_is_not_waited_for() {
    let bucket = stored().await;
    let pieces = ["one ".to_owned(), "two".to_owned()];
    let borrowed =
        stream::iter(pieces.iter().map(|piece| Ok::<_, io::Error>(Bytes::copy_from_slice(piece.as_bytes()))));
    let info = bucket.put_stream("b", "text/plain", borrowed, 100).await.unwrap();
    assert_eq!(info.size, 7);
    let part = bucket.get("b", Some(ByteRange::Last(3))).await.unwrap().unwrap();
    assert_eq!(part.body.try_collect::<Vec<_>>().await.unwrap().concat(), b"two");

    // Too large with the first piece, and the client never sends another.
    let stalled = stream::iter([Ok::<_, io::Error>(Bytes::from(vec![0; 101]))]).chain(stream::pending());
    let error = bucket.put_stream("b", "text/plain", stalled, 100).await.unwrap_err();
    assert!(error.to_string().contains("state"), "{error:?}");
}

#[tokio::test]
async fn blobs_are_listed_by_prefix_and_deleted() {
    let bucket = stored().await;
    for key in ["a/cup", "b/bowl"] {
        bucket.put(key, "image/png", TEXT, 100).await.unwrap();
    }
    let keys = |page: lethe::bucket::Page| page.blobs.into_iter().map(|blob| blob.key).collect::<Vec<_>>();
    let first = bucket.list("a/", None, 1).await.unwrap();
    let next = first.next.clone();
    assert_eq!(keys(first), ["a/cup"]);
    assert_eq!(keys(bucket.list("a/", next.as_deref(), 10).await.unwrap()), ["a/mug"]);
    assert!(bucket.delete("a/cup").await.unwrap());
    assert!(!bucket.delete("a/cup").await.unwrap());
    assert_eq!(keys(bucket.list("", None, 0).await.unwrap()), ["a/mug", "b/bowl"]);
}
