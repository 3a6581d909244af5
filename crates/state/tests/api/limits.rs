//! Limits, as a client without a library uses them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Server, detail};

const TAKE: &str = "POST /v1/limits/sign-in/ada/take";

#[tokio::test]
async fn calls_are_allowed_or_refused() {
    let server = Server::start().await;
    let take = |body| server.json(TAKE, body);
    let verdict = take(r#"{"calls":3,"period_ms":60000}"#).await.expect(200).json();
    assert_eq!(
        verdict,
        json!({"allowed": true, "remaining": 2, "retry_after_ms": 0, "reset_after_ms": 20000})
    );
    let verdict = take(r#"{"calls":3,"period_ms":60000,"cost":3}"#).await.expect(200).json();
    assert_eq!(
        verdict,
        json!({"allowed": false, "remaining": 2, "retry_after_ms": 20000, "reset_after_ms": 20000})
    );
    server.clock.advance(Duration::from_millis(19_999));
    let verdict = take(r#"{"calls":3,"period_ms":60000,"cost":3}"#).await.expect(200).json();
    assert_eq!((&verdict["allowed"], &verdict["retry_after_ms"]), (&json!(false), &json!(1)));
    server.clock.advance(Duration::from_millis(1));
    let verdict = take(r#"{"calls":3,"period_ms":60000,"cost":3,"burst":null}"#).await.expect(200).json();
    assert_eq!((&verdict["allowed"], &verdict["remaining"]), (&json!(true), &json!(0)));
    let verdict = take(r#"{"calls":3,"period_ms":60000,"cost":4}"#).await.expect(200).json();
    assert_eq!((&verdict["allowed"], &verdict["retry_after_ms"]), (&json!(false), &Value::Null));
    let verdict = take(r#"{"calls":3,"period_ms":60000,"cost":0,"burst":30}"#).await.expect(200).json();
    assert_eq!((&verdict["allowed"], &verdict["remaining"]), (&json!(true), &json!(27)));
}

#[tokio::test]
async fn several_limits_are_taken_from_together() {
    let server = Server::start().await;
    let body = r#"{"takes":[
        {"limit":"address","key":"192.0.2.7","calls":5,"period_ms":60000},
        {"limit":"account","key":"..","calls":1,"period_ms":1000,"burst":1,"cost":1}]}"#;
    let answer = server.json("POST /v1/take", body).await.expect(200).json();
    assert_eq!((&answer["allowed"], &answer["verdicts"][0]["remaining"]), (&json!(true), &json!(4)));
    let answer = server.json("POST /v1/take", body).await.expect(200).json();
    assert_eq!(answer["allowed"], false);
    assert_eq!(
        (&answer["verdicts"][0]["allowed"], &answer["verdicts"][1]["allowed"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(answer["verdicts"][0]["remaining"], 4);
    assert_eq!(answer["verdicts"][1]["retry_after_ms"], 1000);
}

#[tokio::test]
async fn keys_are_listed_and_reset() {
    let server = Server::start().await;
    for key in ["b", "a%2Fb", "%C3%BC"] {
        let take = format!("POST /v1/limits/l/{key}/take");
        server.json(&take, r#"{"calls":1,"period_ms":5000}"#).await.expect(200);
    }
    let page = server.get("/v1/limits/l?limit=2", &[]).await.expect(200).json();
    let full_at = 1_700_000_005_000_u64;
    let keys = json!([{"key": "a/b", "full_at": full_at}, {"key": "b", "full_at": full_at}]);
    assert_eq!(page, json!({"keys": keys, "next": "b"}));
    let page = server.get("/v1/limits/l?after=b", &[]).await.expect(200).json();
    assert_eq!(page, json!({"keys": [{"key": "ü", "full_at": full_at}], "next": null}));
    for existed in ["true", "false"] {
        let reset = server.request("DELETE /v1/limits/l/a%2Fb", &[], b"").await.expect(204);
        assert_eq!(reset.header("lethe-existed"), Some(existed));
    }
    assert_eq!(
        server.get("/v1/limits/other", &[]).await.expect(200).json(),
        json!({"keys": [], "next": null})
    );
}

#[tokio::test]
async fn what_makes_no_sense_says_why() {
    let server = Server::start().await;
    for (body, part) in [
        ("", "missing field `calls`"),
        (r#"{"calls":5}"#, "missing field `period_ms`"),
        (r#"{"calls":5,"period":60}"#, "unknown field `period`"),
        (r#"{"calls":-5,"period_ms":1000}"#, "`-5`"),
        (r#"{"calls":1.5,"period_ms":1000}"#, "1.5"),
        (r#"{"calls":4294967296,"period_ms":1000}"#, "4294967296"),
        (r#"{"calls":0,"period_ms":1000}"#, "no calls"),
        (r#"{"calls":5,"period_ms":0}"#, "period is 0ns"),
        (r#"{"calls":5,"period_ms":18446744073709551615}"#, "at most 366 days"),
        (r#"{"calls":1001,"period_ms":1}"#, "one a microsecond"),
        (r#"{"calls":5,"period_ms":1000,"burst":0}"#, "no burst"),
        (r#"{"calls":1,"period_ms":31622400000,"burst":4294967295}"#, "limit of 3660 days"),
        (r#"{"calls":5,"period_ms":1000,"cost":-1}"#, "`-1`"),
        ("[", "EOF"),
    ] {
        let problem = server.json(TAKE, body).await.problem(400, "invalid");
        assert!(detail(&problem).contains(part), "{body}: {problem}");
    }
    for (body, part) in [
        ("", "missing field `takes`"),
        (r#"{"takes":[]}"#, "expected 1 to 16"),
        (r#"{"takes":[{"limit":"l","calls":5,"period_ms":1000}]}"#, "missing field `key`"),
        (r#"{"takes":[{"limit":"L","key":"k","calls":5,"period_ms":1000}]}"#, "lower-case"),
        (r#"{"takes":[{"limit":"l","key":"","calls":5,"period_ms":1000}]}"#, "a key is empty"),
        (r#"{"takes":[{"limit":"l","key":"a\u0000b","calls":5,"period_ms":1000}]}"#, "NUL"),
        (
            r#"{"takes":[{"limit":"l","key":"k","calls":5,"period_ms":1000},
                         {"limit":"l","key":"k","calls":5,"period_ms":1000}]}"#,
            "`k` of the limit `l` is asked for twice",
        ),
    ] {
        let problem = server.json("POST /v1/take", body).await.problem(400, "invalid");
        assert!(detail(&problem).contains(part), "{body}: {problem}");
    }
    for (request, part) in [
        ("GET /v1/limits/l?prefix=a", "takes after, limit"),
        ("GET /v1/limits/l?limit=-1", "`-1`"),
        ("GET /v1/limits/L", "lower-case"),
        ("DELETE /v1/limits/l/k?all=1", "takes none"),
        ("DELETE /v1/limits/l/%FF", "UTF-8"),
        ("POST /v1/limits/l/a%00b/take", "NUL"),
    ] {
        let answer = server.json(request, r#"{"calls":5,"period_ms":1000}"#).await;
        let problem = answer.problem(400, "invalid");
        assert!(detail(&problem).contains(part), "{request}: {problem}");
    }
    assert_eq!(server.get("/v1/limits/l", &[]).await.expect(200).json()["keys"], json!([]));
}

#[tokio::test]
async fn what_is_too_large_is_told_with_its_limit() {
    let server = Server::start().await;
    let key = "k".repeat(1025);
    let take = format!("POST /v1/limits/l/{key}/take");
    let problem = server.json(&take, r#"{"calls":5,"period_ms":1000}"#).await.problem(413, "too-large");
    assert_eq!((&problem["size"], &problem["max"]), (&json!(1025), &json!(1024)));
    let problem = server.json("POST /v1/take", &" ".repeat(131_073)).await.problem(413, "too-large");
    assert_eq!(problem["max"], 131_072);
}
