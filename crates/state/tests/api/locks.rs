//! Locks and fences, as a client without a library uses them.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Server, detail};

const ACQUIRE: &str = r#"{"holder":"web-1","lease_ms":15000}"#;

#[tokio::test]
async fn a_lock_is_taken_renewed_and_let_go() {
    let server = Server::start().await;
    server.get("/v1/locks/nightly", &[]).await.problem(404, "not-found");
    let lease = server.json("POST /v1/locks/nightly/acquire", ACQUIRE).await.expect(200).json();
    assert_eq!((&lease["name"], &lease["holder"]), (&json!("nightly"), &json!("web-1")));
    assert_eq!(lease["expires_at"], 1_700_000_015_000_i64);
    let token = lease["token"].as_u64().unwrap();
    assert_eq!(server.get("/v1/locks/nightly", &[]).await.expect(200).json(), lease);
    let held = server.json("POST /v1/locks/nightly/acquire", ACQUIRE).await.problem(409, "held");
    assert_eq!(held["key"], "nightly");

    server.clock.advance(Duration::from_secs(10));
    let renew = format!(r#"{{"token":{token},"lease_ms":15000}}"#);
    let renewed = server.json("POST /v1/locks/nightly/renew", &renew).await.expect(200).json();
    assert_eq!((&renewed["token"], &renewed["expires_at"]), (&json!(token), &json!(1_700_000_025_000_i64)));
    assert_eq!(server.get("/v1/locks", &[]).await.expect(200).json()["leases"], json!([renewed]));
    let stranger = format!(r#"{{"token":{},"lease_ms":15000}}"#, token + 1);
    let lost = server.json("POST /v1/locks/nightly/renew", &stranger).await.problem(409, "lost");
    assert_eq!((&lost["key"], &lost["token"]), (&json!("nightly"), &json!(token + 1)));

    let release = format!(r#"{{"token":{token}}}"#);
    for released in [true, false] {
        let answer = server.json("POST /v1/locks/nightly/release", &release).await.expect(200);
        assert_eq!(answer.json()["released"], released);
    }
    server.json("POST /v1/locks/nightly/renew", &renew).await.problem(409, "lost");
    let next = server.json("POST /v1/locks/nightly/acquire", ACQUIRE).await.expect(200).json();
    assert!(next["token"].as_u64().unwrap() > token);
}

#[tokio::test]
async fn names_are_percent_decoded_and_listed_in_pages() {
    let server = Server::start().await;
    for name in ["a", "b%2Fc", "acquire", "gr%C3%BCn"] {
        server.json(&format!("POST /v1/locks/{name}/acquire"), ACQUIRE).await.expect(200);
    }
    let page = server.get("/v1/locks?limit=3", &[]).await.expect(200).json();
    let names: Vec<_> = page["leases"].as_array().unwrap().iter().map(|lease| &lease["name"]).collect();
    assert_eq!((names, &page["next"]), (vec![&json!("a"), &json!("acquire"), &json!("b/c")], &json!("b/c")));
    let page = server.get("/v1/locks?after=b/c", &[]).await.expect(200).json();
    assert_eq!((&page["leases"][0]["name"], &page["next"]), (&json!("grün"), &json!(null)));
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused() {
    let server = Server::start().await;
    let long = format!(r#"{{"holder":"{}","lease_ms":1}}"#, "h".repeat(257));
    server.json("POST /v1/locks/l/acquire", &long).await.problem(413, "too-large");
    server
        .json(&format!("POST /v1/locks/{}/acquire", "l".repeat(257)), ACQUIRE)
        .await
        .problem(413, "too-large");
    let padded = format!("{ACQUIRE}{}", " ".repeat(5000));
    assert_eq!(server.json("POST /v1/locks/l/acquire", &padded).await.problem(413, "too-large")["max"], 4096);
    for (request, body, part) in [
        ("POST /v1/locks/l/acquire", r#"{"holder":"h","lease_ms":0}"#, "between 1 ms and 24 h"),
        ("POST /v1/locks/l/acquire", r#"{"holder":"h","lease_ms":86400001}"#, "between 1 ms and 24 h"),
        ("POST /v1/locks/l/acquire", r#"{"holder":"h","lease_ms":-1}"#, "-1"),
        ("POST /v1/locks/l/acquire", r#"{"holder":"h","lease_ms":1.5}"#, "1.5"),
        ("POST /v1/locks/l/acquire", r#"{"holder":"","lease_ms":1}"#, "empty"),
        ("POST /v1/locks/l/acquire", r#"{"holder":"a\u0000b","lease_ms":1}"#, "NUL"),
        ("POST /v1/locks/l/acquire", r#"{"lease_ms":1}"#, "missing field `holder`"),
        ("POST /v1/locks/l/acquire", r#"{"holder":"h","ttl_ms":1}"#, "unknown field `ttl_ms`"),
        ("POST /v1/locks/l/acquire", "[", "line 1"),
        ("POST /v1/locks/l/renew", r#"{"token":"7","lease_ms":1}"#, "string \"7\""),
        ("POST /v1/locks/l/renew", r#"{"lease_ms":1}"#, "missing field `token`"),
        ("POST /v1/locks/l/release", "", "missing field `token`"),
        ("POST /v1/locks/l/acquire?wait=1", ACQUIRE, "`wait` is not known"),
        ("POST /v1/locks/a%00b/acquire", ACQUIRE, "NUL"),
        ("POST /v1/locks/%FF/acquire", ACQUIRE, "UTF-8"),
    ] {
        let problem = server.json(request, body).await.problem(400, "invalid");
        assert!(detail(&problem).contains(part), "{request} {body}: {problem}");
    }
    let problem = server.get("/v1/locks?limit=x", &[]).await.problem(400, "invalid");
    assert!(detail(&problem).contains("`x`"));
    server.get("/v1/locks/l", &[]).await.problem(404, "not-found");
}

#[tokio::test]
async fn a_batch_has_a_fence() {
    let server = Server::start().await;
    let batch = |token: &str| {
        let body = format!(
            r#"{{"writes":[{{"table":"fences","key":"l","action":"fence","token":{token}}},
                {{"table":"t","key":"k","action":"put","value":"by {token}"}}]}}"#
        );
        let server = &server;
        async move { server.json("POST /v1/batch", &body).await }
    };
    assert_eq!(batch("7").await.expect(200).json()["outcomes"][0], json!({"outcome": "fenced"}));
    let problem = batch("6").await.problem(409, "fenced");
    assert_eq!((&problem["index"], &problem["key"]), (&json!(0), &json!("l")));
    assert_eq!((&problem["token"], &problem["newest"]), (&json!(6), &json!(7)));
    assert_eq!(server.get("/v1/tables/t/k", &[]).await.expect(200).body, b"by 7");
    assert_eq!(server.get("/v1/tables/fences/l", &[]).await.expect(200).body, b"7");
    for (token, part) in
        [("0", "no fencing token"), ("-1", "-1"), ("9223372036854775808", "no fencing token")]
    {
        let problem = batch(token).await.problem(400, "invalid");
        assert!(detail(&problem).contains(part), "{problem}");
    }
}

#[tokio::test]
async fn a_blob_has_a_fence() {
    let server = Server::start().await;
    let put = async |fence| server.request("PUT /v1/blobs/b/k", &[fence], b"bytes").await;
    put("lethe-fence: 7").await.expect(201);
    let problem = put("lethe-fence: 6").await.problem(409, "fenced");
    assert_eq!((&problem["token"], &problem["newest"]), (&json!(6), &json!(7)));
    let delete = async |fence| server.request("DELETE /v1/blobs/b/k", &[fence], b"").await;
    delete("lethe-fence: 6").await.problem(409, "fenced");
    for fence in ["lethe-fence: seven", "lethe-fence: -7", "lethe-fence:", "lethe-fence: 7\r\nlethe-fence: 8"]
    {
        let problem = put(fence).await.problem(400, "invalid");
        assert!(detail(&problem).contains("Lethe-Fence is not one"), "{fence}: {problem}");
    }
    put("lethe-fence: 0").await.problem(400, "invalid");
    delete("lethe-fence: 8").await.expect(204);
    put("lethe-fence: 7").await.problem(409, "fenced");
    put("lethe-fence: 8").await.expect(201);
}
