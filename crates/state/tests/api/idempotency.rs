//! Idempotency keys, as a client without a library uses them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Server, detail};

fn beginning() -> Value {
    json!({
        "key": "alice 8e03978e",
        "fingerprint": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "owner": "web-1",
        "lease_ms": 30_000,
        "kept_ms": 86_400_000,
    })
}

fn with(mut json: Value, member: &str, value: Value) -> Value {
    json[member] = value;
    json
}

async fn begin(server: &Server, beginning: &Value) -> Value {
    server.json("POST /v1/idempotency/orders/begin", &beginning.to_string()).await.expect(200).json()
}

#[tokio::test]
async fn a_key_is_claimed_answered_and_replayed() {
    let server = Server::start().await;
    let claimed = begin(&server, &beginning()).await;
    assert_eq!(claimed["state"], "claimed");
    server.clock.advance(Duration::from_secs(10));
    assert_eq!(begin(&server, &beginning()).await, json!({"state": "running", "lease_ms": 20_000}));
    let other = with(beginning(), "fingerprint", json!("0".repeat(64)));
    assert_eq!(begin(&server, &other).await, json!({"state": "mismatched"}));

    let token = &claimed["token"];
    let call = async |verb: &str, body: Value| {
        let request = format!("POST /v1/idempotency/orders/{verb}");
        server.json(&request, &body.to_string()).await.expect(200).json()
    };
    let claim = json!({"key": "alice 8e03978e", "token": token});
    let extended = call("extend", with(claim.clone(), "lease_ms", json!(60_000))).await;
    assert_eq!(extended, json!({"held": true}));
    assert_eq!(begin(&server, &beginning()).await["lease_ms"], 60_000);

    let answer = json!({
        "status": 201,
        "fields": [
            {"name": "content-type", "value": "image/png", "encoding": "utf8"},
            {"name": "x-bytes", "value": "/w==", "encoding": "base64"},
        ],
        "body": "/wA=",
        "encoding": "base64",
    });
    let finish = with(claim.clone(), "answer", answer.clone());
    assert_eq!(call("finish", finish.clone()).await, json!({"held": true}));
    assert_eq!(begin(&server, &beginning()).await, json!({"state": "answered", "answer": answer}));
    assert_eq!(call("finish", finish).await, json!({"held": false}));
    assert_eq!(call("abandon", claim).await, json!({"held": false}));
}

#[tokio::test]
async fn a_dead_owner_is_displaced_and_an_abandoned_key_is_free() {
    let server = Server::start().await;
    let first = begin(&server, &beginning()).await;
    let next = with(with(beginning(), "owner", json!("web-2")), "displaces", json!(["web-7", "web-1"]));
    let second = begin(&server, &next).await;
    assert_eq!(second["state"], "claimed");
    for (token, held) in [(&first["token"], false), (&second["token"], true)] {
        let body = json!({"key": "alice 8e03978e", "token": token});
        let answer = server.json("POST /v1/idempotency/orders/abandon", &body.to_string()).await;
        assert_eq!(answer.expect(200).json(), json!({"held": held}));
    }
    assert_eq!(begin(&server, &beginning()).await["state"], "claimed");
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused() {
    let server = Server::start().await;
    let finish = |answer: Value| json!({"key": "k", "token": 1, "answer": answer});
    for (path, body, part) in [
        ("orders/begin", with(beginning(), "key", json!("")), "empty"),
        ("orders/begin", with(beginning(), "key", json!("a\0b")), "NUL"),
        ("orders/begin", with(beginning(), "fingerprint", json!("abc")), "64 hexadecimal digits"),
        ("orders/begin", with(beginning(), "owner", json!("")), "owner"),
        ("orders/begin", with(beginning(), "displaces", json!("web-1")), "a sequence"),
        ("orders/begin", with(beginning(), "displaces", json!(vec!["w"; 17])), "over the limit of 16"),
        ("orders/begin", with(beginning(), "lease_ms", json!(0)), "a lease is"),
        ("orders/begin", with(beginning(), "kept_ms", json!(31_622_400_001_u64)), "366 days"),
        ("orders/begin", with(beginning(), "ttl_ms", json!(1)), "unknown field `ttl_ms`"),
        ("orders/begin", json!({"key": "k"}), "missing field `fingerprint`"),
        ("Orders/begin", beginning(), "scope"),
        ("orders/extend", json!({"key": "k", "token": 1}), "missing field `lease_ms`"),
        ("orders/extend", json!({"key": "k", "token": -1, "lease_ms": 1}), "-1"),
        ("orders/abandon", json!([]), "struct Abandon"),
        ("orders/finish", finish(json!({"status": 99})), "99 is not the status"),
        ("orders/finish", finish(json!({"status": "ok"})), "string \"ok\""),
        ("orders/finish", finish(json!({"status": 200, "body": "?", "encoding": "base64"})), "not base64"),
        (
            "orders/finish",
            finish(json!({"status": 200, "fields": [{"name": "A", "value": ""}]})),
            "lower case",
        ),
        (
            "orders/finish",
            finish(json!({"status": 200, "fields": [{"name": "a", "value": "\r\n"}]})),
            "characters",
        ),
        ("orders/finish", finish(json!({"status": 200, "headers": []})), "unknown field `headers`"),
    ] {
        let answer = server.json(&format!("POST /v1/idempotency/{path}"), &body.to_string()).await;
        let problem = answer.problem(400, "invalid");
        assert!(detail(&problem).contains(part), "{path} {body}: {problem}");
    }
    let long = with(beginning(), "key", json!("k".repeat(1025)));
    let problem = server.json("POST /v1/idempotency/orders/begin", &long.to_string()).await;
    assert_eq!(problem.problem(413, "too-large")["max"], 1024);
    let large = with(beginning(), "key", json!("k".repeat(64 << 10)));
    let problem = server.json("POST /v1/idempotency/orders/begin", &large.to_string()).await;
    assert_eq!(problem.problem(413, "too-large")["max"], 64 << 10);
    let huge = finish(json!({"status": 200, "body": "x".repeat((1 << 20) + 1)}));
    let problem = server.json("POST /v1/idempotency/orders/finish", &huge.to_string()).await;
    assert_eq!(problem.problem(413, "too-large")["max"], 1 << 20);
    assert_eq!(begin(&server, &beginning()).await["state"], "claimed", "nothing of it claimed the key");
}
