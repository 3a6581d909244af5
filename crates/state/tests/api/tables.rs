//! Rows and batches, as a client without a library sends them.

use serde_json::{Value, json};

use crate::harness::{Server, detail};

#[tokio::test]
async fn a_row_is_raw_bytes_with_its_revision_as_etag() {
    let server = Server::start().await;
    server.get("/v1/tables/notes/a", &[]).await.problem(404, "not-found");
    let written = server.request("PUT /v1/tables/notes/a", &[], b"\xff\x00raw").await.expect(204);
    let etag = written.header("etag").unwrap();
    let row = server.get("/v1/tables/notes/a", &[]).await.expect(200);
    assert_eq!(row.body, b"\xff\x00raw");
    assert_eq!(row.header("etag"), Some(etag));
    assert_eq!(row.header("content-length"), Some("5"));
    assert_eq!(row.header("content-type"), Some("application/octet-stream"));
    assert_eq!(row.header("lethe-expires-at"), None);
    let head = server.request("HEAD /v1/tables/notes/a", &[], b"").await.expect(200);
    assert_eq!((head.body.len(), head.header("content-length")), (0, Some("5")));
    let unchanged = server.get("/v1/tables/notes/a", &[&format!("if-none-match: {etag}")]).await.expect(304);
    assert_eq!((unchanged.body.len(), unchanged.header("etag")), (0, Some(etag)));
    server.get("/v1/tables/notes/a", &["if-match: \"999\""]).await.problem(412, "conflict");
    let deleted = server.request("DELETE /v1/tables/notes/a", &[], b"").await.expect(204);
    assert_eq!(deleted.header("lethe-existed"), Some("true"));
    let deleted = server.request("DELETE /v1/tables/notes/a", &[], b"").await.expect(204);
    assert_eq!(deleted.header("lethe-existed"), Some("false"));
}

#[tokio::test]
async fn the_empty_value_is_a_value() {
    let server = Server::start().await;
    server.request("PUT /v1/tables/notes/a", &["content-length: 0"], b"").await.expect(204);
    let row = server.get("/v1/tables/notes/a", &[]).await.expect(200);
    assert_eq!((row.body.len(), row.header("content-length")), (0, Some("0")));
}

#[tokio::test]
async fn conditions_come_in_headers() {
    let server = Server::start().await;
    let put = |headers: &'static [&'static str]| server.request("PUT /v1/tables/t/k", headers, b"v");
    let problem = put(&["if-match: *"]).await.problem(412, "conflict");
    assert_eq!(
        (&problem["index"], &problem["key"], &problem["found"]),
        (&json!(0), &json!("k"), &Value::Null)
    );
    assert!(problem.as_object().unwrap().contains_key("found"));
    let created = put(&["if-none-match: *"]).await.expect(204);
    let revision: u64 = created.header("etag").unwrap().trim_matches('"').parse().unwrap();
    let problem = put(&["if-none-match: *"]).await.problem(412, "conflict");
    assert_eq!(problem["found"], revision);
    put(&["if-match: *"]).await.expect(204);
    let stale = format!("if-match: \"{revision}\"");
    server.request("PUT /v1/tables/t/k", &[&stale], b"v").await.problem(412, "conflict");
    server.request("DELETE /v1/tables/t/k", &[&stale], b"").await.problem(412, "conflict");
    server.request("POST /v1/tables/t/k/increment", &[&stale], b"{}").await.problem(412, "conflict");
    for (header, part) in [
        ("if-match: 7", "quotes"),
        ("if-match: \"x\"", "a number"),
        ("if-match: W/\"7\"", "weak"),
        ("if-none-match: \"7\"", "must be `*`"),
    ] {
        let problem = server.request("PUT /v1/tables/t/k", &[header], b"v").await.problem(400, "invalid");
        assert!(detail(&problem).contains(part), "{problem}");
    }
}

#[tokio::test]
async fn keys_are_percent_decoded_once() {
    let server = Server::start().await;
    for (path, key) in [
        ("a%2Fb", "a/b"),
        ("100%25", "100%"),
        ("%252F", "%2F"),
        ("a+b%20c", "a+b c"),
        ("gr%C3%BC%C3%9Fe%F0%9F%9B%92", "grüße🛒"),
        ("%2E%2E", ".."),
        ("..", ".."),
        ("%2F", "/"),
        ("increment", "increment"),
    ] {
        let path = format!("/v1/tables/t/{path}");
        server.request(&format!("PUT {path}"), &[], key.as_bytes()).await.expect(204);
        assert_eq!(server.get(&path, &[]).await.expect(200).body, key.as_bytes());
        let page = server.get("/v1/tables/t", &[]).await.expect(200).json();
        assert_eq!(page["rows"][0]["key"], key);
        server.request(&format!("DELETE {path}"), &[], b"").await.expect(204);
    }
}

#[tokio::test]
async fn paths_that_are_no_text_are_refused() {
    let server = Server::start().await;
    for (path, part) in [
        ("/v1/tables/t/%FF", "UTF-8"),
        ("/v1/tables/t/%C3", "UTF-8"),
        ("/v1/tables/t/100%", "two hexadecimal digits"),
        ("/v1/tables/t/%zz", "two hexadecimal digits"),
        ("/v1/tables/t/a%00b", "NUL"),
        ("/v1/tables/T/a", "lower-case"),
        ("/v1/tables/t?prefix=%FF", "UTF-8"),
    ] {
        let problem = server.get(path, &[]).await.problem(400, "invalid");
        assert!(detail(&problem).contains(part), "{path}: {problem}");
    }
}

#[tokio::test]
async fn rows_end_when_they_are_told_to() {
    let server = Server::start().await;
    server.request("PUT /v1/tables/t/k?ttl_ms=1500", &[], b"v").await.expect(204);
    let row = server.get("/v1/tables/t/k", &[]).await.expect(200);
    assert_eq!(row.header("lethe-expires-at"), Some("1700000001500"));
    server.clock.advance(std::time::Duration::from_millis(1500));
    server.get("/v1/tables/t/k", &[]).await.problem(404, "not-found");
}

#[tokio::test]
async fn parameters_that_are_not_known_are_refused() {
    let server = Server::start().await;
    for (request, part) in [
        ("PUT /v1/tables/t/k?ttl=5", "`ttl` is not known: this takes ttl_ms"),
        ("PUT /v1/tables/t/k?ttl_ms=-5", "`-5`"),
        ("PUT /v1/tables/t/k?ttl_ms=5&ttl_ms=6", "twice"),
        ("GET /v1/tables/t?first=1", "prefix, after, limit"),
        ("GET /v1/tables/t?limit=many", "`many`"),
        ("POST /v1/tables/t/k/increment?ttl_ms=5", "takes none"),
    ] {
        let problem = server.request(request, &[], b"{}").await.problem(400, "invalid");
        assert!(detail(&problem).contains(part), "{request}: {problem}");
    }
    server.get("/v1/tables/t/k", &[]).await.problem(404, "not-found");
}

#[tokio::test]
async fn increments_add_up() {
    let server = Server::start().await;
    let add = |body| server.json("POST /v1/tables/t/n/increment", body);
    assert_eq!(add(r#"{"by":41}"#).await.expect(200).json()["value"], 41);
    assert_eq!(add("").await.expect(200).json()["value"], 42);
    assert_eq!(add(r#"{"by":-50,"ttl_ms":null}"#).await.expect(200).json()["value"], -8);
    assert_eq!(server.get("/v1/tables/t/n", &[]).await.body, b"-8");
    server.request("PUT /v1/tables/t/n", &[], b"many").await.expect(204);
    assert_eq!(add("{}").await.problem(409, "not-an-integer")["key"], "n");
}

#[tokio::test]
async fn scans_come_in_pages() {
    let server = Server::start().await;
    for key in ["a", "b%2F1", "b%2F2", "b%2F3", "c"] {
        server.request(&format!("PUT /v1/tables/t/{key}"), &[], b"v").await.expect(204);
    }
    server.request("PUT /v1/tables/t/b%2F3", &[], b"\xfe").await.expect(204);
    let page = server.get("/v1/tables/t?prefix=b%2F&limit=2", &[]).await.expect(200).json();
    let keys = |page: &Value| -> Vec<String> {
        page["rows"].as_array().unwrap().iter().map(|row| row["key"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(keys(&page), ["b/1", "b/2"]);
    assert_eq!(page["rows"][0]["encoding"], "utf8");
    assert_eq!(page["next"], "b/2");
    let page = server.get("/v1/tables/t?prefix=b/&limit=2&after=b/2", &[]).await.expect(200).json();
    assert_eq!(keys(&page), ["b/3"]);
    assert_eq!((&page["rows"][0]["value"], &page["rows"][0]["encoding"]), (&json!("/g=="), &json!("base64")));
    assert_eq!(page["next"], Value::Null);
}

#[tokio::test]
async fn a_batch_is_done_whole_or_not_at_all() {
    let server = Server::start().await;
    let done = server
        .json(
            "POST /v1/batch",
            r#"{"writes":[
                {"table":"t","key":"a","action":"put","value":"text","if":"absent"},
                {"table":"t","key":"b","action":"put","value":"/w==","encoding":"base64","ttl_ms":9000},
                {"table":"t","key":"n","action":"increment","by":3},
                {"table":"t","key":"x","action":"delete"},
                {"table":"t","key":"a","action":"check","if":"present"}]}"#,
        )
        .await
        .expect(200)
        .json();
    let outcomes: Vec<_> =
        done["outcomes"].as_array().unwrap().iter().map(|outcome| outcome["outcome"].clone()).collect();
    assert_eq!(outcomes, ["put", "put", "incremented", "deleted", "checked"]);
    assert_eq!(done["outcomes"][2]["value"], 3);
    assert_eq!(done["outcomes"][3]["existed"], false);
    assert_eq!(server.get("/v1/tables/t/b", &[]).await.body, b"\xff");
    let revision = &done["outcomes"][0]["revision"];
    let problem = server
        .json(
            "POST /v1/batch",
            &format!(
                r#"{{"writes":[{{"table":"t","key":"c","action":"put","value":"v"}},
                {{"table":"t","key":"a","action":"delete","if":{{"revision":{revision}}}}},
                {{"table":"t","key":"b","action":"check","if":"absent"}}]}}"#
            ),
        )
        .await
        .problem(409, "conflict");
    assert_eq!((&problem["index"], &problem["key"]), (&json!(2), &json!("b")));
    server.get("/v1/tables/t/c", &[]).await.problem(404, "not-found");
    server.get("/v1/tables/t/a", &[]).await.expect(200);
}

#[tokio::test]
async fn bodies_that_are_not_as_expected_say_where() {
    let server = Server::start().await;
    for (request, body, parts) in [
        ("POST /v1/batch", "{\n \"writes\": [}", ["line 2", "column"]),
        ("POST /v1/batch", "", ["missing field `writes`", "line 1"]),
        ("POST /v1/batch", r#"{"writes":[],"atomic":true}"#, ["unknown field `atomic`", "expected `writes`"]),
        (
            "POST /v1/batch",
            r#"{"writes":[{"table":"t","key":"k","action":"puts"}]}"#,
            ["`puts`", "`increment`"],
        ),
        (
            "POST /v1/batch",
            r#"{"writes":[{"table":"t","key":"k","action":"put"}]}"#,
            ["writes[0]", "`value`"],
        ),
        ("POST /v1/tables/t/k/increment", r#"{"by":"1"}"#, ["string \"1\"", "column 9"]),
        ("POST /v1/tables/t/k/increment", r#"{"by":1.5}"#, ["floating point", "i64"]),
        ("POST /v1/tables/t/k/increment", r#"{"buy":1}"#, ["unknown field `buy`", "`by`"]),
    ] {
        let problem = server.json(request, body).await.problem(400, "invalid");
        for part in parts {
            assert!(detail(&problem).contains(part), "{body}: {problem}");
        }
    }
}

#[tokio::test]
async fn what_is_too_large_is_told_with_the_limit() {
    let server = Server::start().await;
    let max = 1 << 20;
    server.request("PUT /v1/tables/t/k", &[], &vec![b'x'; max]).await.expect(204);
    let problem =
        server.request("PUT /v1/tables/t/k", &[], &vec![b'y'; max + 1]).await.problem(413, "too-large");
    assert_eq!(
        (&problem["what"], &problem["size"], &problem["max"]),
        (&json!("a value"), &json!(max + 1), &json!(max))
    );
    // The same without a declared length.
    let mut chunked = format!("{:x}\r\n", max + 1).into_bytes();
    chunked.extend(vec![b'y'; max + 1]);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    let mut request =
        b"PUT /v1/tables/t/k HTTP/1.1\r\nhost: s\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
            .to_vec();
    request.extend(chunked);
    crate::harness::send(&server.path, &request).await.problem(413, "too-large");
    let row = server.get("/v1/tables/t/k", &[]).await.expect(200);
    assert_eq!((row.body.len(), row.body[0]), (max, b'x'));
    let long = format!("/v1/tables/t/{}", "k".repeat(1025));
    assert_eq!(server.get(&long, &[]).await.problem(413, "too-large")["max"], 1024);
    let body = vec![b' '; 5000];
    let problem = server.request("POST /v1/tables/t/n/increment", &[], &body).await.problem(413, "too-large");
    assert_eq!(problem["max"], 4096);
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_are_told_apart_from_rows() {
    let server = Server::start().await;
    let problem = server.get("/v1/table/t/k", &[]).await.problem(404, "no-route");
    assert!(detail(&problem).contains("/v1/openapi.json"));
    server.get("/v1/tables/t/", &[]).await.problem(404, "no-route");
    let refused = server.request("POST /v1/tables/t/k", &[], b"v").await;
    let allowed: Vec<_> = refused.header("allow").unwrap().split(',').collect();
    for method in ["GET", "PUT", "DELETE"] {
        assert!(allowed.contains(&method), "{allowed:?}");
    }
    refused.problem(405, "no-method");
}
