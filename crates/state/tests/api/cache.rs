//! Caches, as a client without a library uses them.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Answer, Server, detail};

const MINUTE: Duration = Duration::from_secs(60);
const ENTRY: &str = "/v1/cache/c/k";

async fn begin(server: &Server) -> Answer {
    server.json(&format!("POST {ENTRY}/begin"), r#"{"lease_ms":5000}"#).await
}

async fn fill(server: &Server, token: &str, more: &str, body: &[u8]) -> Answer {
    let request = format!("PUT {ENTRY}?token={token}&fresh_ms=60000&stale_ms=540000{more}");
    server.request(&request, &[], body).await
}

fn fields(answer: &Answer) -> [Option<&str>; 5] {
    ["lethe-cache", "lethe-fresh-ms", "lethe-left-ms", "lethe-busy-ms", "lethe-failures"]
        .map(|name| answer.header(name))
}

#[tokio::test]
async fn one_computes_and_all_read() {
    let server = Server::start().await;
    server.get(ENTRY, &[]).await.problem(404, "not-found");
    let first = begin(&server).await.expect(204);
    assert_eq!(fields(&first), [Some("missing"), None, None, None, Some("0")]);
    let token = first.header("lethe-claim").unwrap();
    let second = begin(&server).await.expect(204);
    assert_eq!(fields(&second), [Some("busy"), None, None, Some("5000"), None]);
    assert_eq!(second.header("lethe-claim"), None);
    server.clock.advance(Duration::from_millis(4999));
    let extend = format!("{{\"token\":{token},\"lease_ms\":5000}}");
    let extended = server.json(&format!("POST {ENTRY}/extend"), &extend).await.expect(200).json();
    assert_eq!(extended, json!({"held": true}));

    let filled = fill(&server, token, "", b"\xff\x00").await.expect(200).json();
    assert_eq!(filled, json!({"held": true}));
    assert_eq!(fill(&server, token, "", b"x").await.expect(200).json(), json!({"held": false}));
    for answer in [begin(&server).await.expect(200), server.get(ENTRY, &[]).await.expect(200)] {
        assert_eq!(fields(&answer), [Some("fresh"), Some("60000"), Some("600000"), None, None]);
        assert_eq!(
            (answer.header("content-type"), &answer.body[..]),
            (Some("application/octet-stream"), &b"\xff\0"[..])
        );
    }
    server.clock.advance(MINUTE);
    let stale = begin(&server).await.expect(200);
    assert_eq!(fields(&stale), [Some("stale"), Some("0"), Some("540000"), None, Some("0")]);
    let token = stale.header("lethe-claim").unwrap();
    let other = begin(&server).await.expect(200);
    assert_eq!(
        (fields(&other), other.header("lethe-claim")),
        ([Some("stale"), Some("0"), Some("540000"), None, None], None)
    );
    let abandon = format!("{{\"token\":{token},\"pause_ms\":1000}}");
    let abandoned = server.json(&format!("POST {ENTRY}/abandon"), &abandon).await.expect(200).json();
    assert_eq!(abandoned, json!({"held": true}));
    server.clock.advance(Duration::from_secs(1));
    let again = begin(&server).await.expect(200);
    assert_eq!((again.header("lethe-failures"), &again.body[..]), (Some("1"), &b"\xff\0"[..]));

    server.request(&format!("DELETE {ENTRY}"), &[], b"").await.expect(204);
    let late = fill(&server, again.header("lethe-claim").unwrap(), "", b"late").await.expect(200).json();
    assert_eq!(late, json!({"held": false}));
    server.get(ENTRY, &[]).await.problem(404, "not-found");
}

#[tokio::test]
async fn that_there_is_none_is_an_answer() {
    let server = Server::start().await;
    let first = begin(&server).await.expect(204);
    fill(&server, first.header("lethe-claim").unwrap(), "&negative=true", b"").await.expect(200);
    for answer in [begin(&server).await.expect(204), server.get(ENTRY, &[]).await.expect(204)] {
        assert_eq!(fields(&answer), [Some("fresh"), Some("60000"), Some("600000"), None, None]);
    }
}

#[tokio::test]
async fn several_are_read_counted_and_cleared() {
    let server = Server::start().await;
    for (key, value) in [("a%2Fb", &b"text"[..]), ("batch", b"\xff"), ("..", b"")] {
        let claim =
            server.json(&format!("POST /v1/cache/c/{key}/begin"), r#"{"lease_ms":5000}"#).await.expect(204);
        let token = claim.header("lethe-claim").unwrap();
        let put = format!("PUT /v1/cache/c/{key}?token={token}&fresh_ms=1000&entries=100&bytes=1049600");
        assert_eq!(server.request(&put, &[], value).await.expect(200).json(), json!({"held": true}));
    }
    let read =
        server.json("POST /v1/cache/c", r#"{"keys":["batch","none","a/b",".."]}"#).await.expect(200).json();
    let entry = |value: &str, encoding: &str| json!({"value": value, "encoding": encoding, "fresh_ms": 1000, "left_ms": 1000});
    let entries = [entry("/w==", "base64"), json!(null), entry("text", "utf8"), entry("", "utf8")];
    assert_eq!(read, json!({"entries": entries}));
    assert_eq!(server.get("/v1/cache/c", &[]).await.expect(200).json(), json!({"entries": 3, "bytes": 15}));
    server.request("DELETE /v1/cache/c", &[], b"").await.expect(204);
    assert_eq!(server.get("/v1/cache/c", &[]).await.expect(200).json(), json!({"entries": 0, "bytes": 0}));
}

#[tokio::test]
async fn what_makes_no_sense_says_why() {
    let server = Server::start().await;
    for (request, body, part) in [
        ("POST /v1/cache/c/k/begin", "", "missing field `lease_ms`"),
        ("POST /v1/cache/c/k/begin", r#"{"lease_ms":0}"#, "not between 1 ms and 60 min"),
        ("POST /v1/cache/c/k/begin", r#"{"lease":5}"#, "unknown field `lease`"),
        ("POST /v1/cache/C/k/begin", r#"{"lease_ms":5}"#, "the cache name"),
        ("POST /v1/cache/c/a%00b/begin", r#"{"lease_ms":5}"#, "NUL"),
        ("POST /v1/cache/c/k/extend", r#"{"lease_ms":5}"#, "missing field `token`"),
        ("POST /v1/cache/c/k/abandon", r#"{"token":5,"pause_ms":3600001}"#, "longer than 60 min"),
        ("POST /v1/cache/c", r#"{"keys":[]}"#, "0 keys at once"),
        ("PUT /v1/cache/c/k?fresh_ms=1", "v", "`token` is needed"),
        ("PUT /v1/cache/c/k?token=1", "v", "`fresh_ms` is needed"),
        ("PUT /v1/cache/c/k?token=1&fresh_ms=0", "v", "less than 1 ms or more than 366 days"),
        ("PUT /v1/cache/c/k?token=1&fresh_ms=1&negative=1", "", "expected `true` or `false`"),
        ("PUT /v1/cache/c/k?token=1&fresh_ms=1&negative=true", "v", "no body"),
        ("PUT /v1/cache/c/k?token=1&fresh_ms=1&entries=0", "v", "room for 0 entries"),
        ("PUT /v1/cache/c/k?token=1&fresh_ms=1&bytes=1000", "v", "expected 1049600 to 1073741824"),
        ("PUT /v1/cache/c/k?token=1&fresh_ms=1&ttl_ms=1", "v", "`ttl_ms` is not known"),
        ("GET /v1/cache/c?keys=k", "", "takes none"),
    ] {
        let problem = server.json(request, body).await.problem(400, "invalid");
        assert!(detail(&problem).contains(part), "{request} {body}: {problem}");
    }
    let long = vec![0; (1 << 20) + 1];
    let problem =
        server.request("PUT /v1/cache/c/k?token=1&fresh_ms=1", &[], &long).await.problem(413, "too-large");
    assert_eq!((&problem["size"], &problem["max"]), (&json!(1_048_577), &json!(1_048_576)));
}
