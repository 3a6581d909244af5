//! Sessions, as a client without a library uses them.

use serde_json::{Value, json};

use crate::harness::{Server, detail};

#[tokio::test]
async fn a_session_lives_and_ends() {
    let server = Server::start().await;
    let created = server
        .json("POST /v1/sessions", r#"{"fields":{"cart":["mug"]},"idle_ms":60000,"absolute_ms":90000}"#)
        .await
        .expect(201)
        .json();
    assert_eq!(created["user"], Value::Null);
    assert_eq!(created["fields"]["cart"]["value"], json!(["mug"]));
    assert_eq!(created["created_at"], 1_700_000_000_000_u64);
    assert_eq!(created["idle_expires_at"], 1_700_000_060_000_u64);
    assert_eq!(created["absolute_expires_at"], 1_700_000_090_000_u64);
    let path = format!("/v1/sessions/{}", created["id"].as_str().unwrap());
    assert_eq!(server.get(&path, &[]).await.expect(200).json(), created);

    let revision = &created["fields"]["cart"]["revision"];
    let patch = format!(r#"{{"set":{{"cart":[],"theme":null}},"if":{{"cart":{revision},"theme":0}}}}"#);
    let patched = server.json(&format!("PATCH {path}"), &patch).await.expect(200).json();
    assert_eq!(patched["fields"]["cart"]["value"], json!([]));
    assert_eq!(patched["fields"]["theme"]["value"], Value::Null);
    let problem = server.json(&format!("PATCH {path}"), &patch).await.problem(409, "conflict");
    assert_eq!(problem["key"], "cart");
    assert_eq!(problem["found"], patched["fields"]["cart"]["revision"]);

    let renewed = server
        .json(&format!("POST {path}/renew"), r#"{"user":"alice","remove":["theme"]}"#)
        .await
        .expect(200)
        .json();
    assert_ne!(renewed["id"], created["id"]);
    assert_eq!((&renewed["user"], &renewed["fields"]["theme"]), (&json!("alice"), &Value::Null));
    server.get(&path, &[]).await.problem(410, "gone");

    let path = format!("/v1/sessions/{}", renewed["id"].as_str().unwrap());
    server.request(&format!("DELETE {path}"), &[], b"").await.expect(204);
    server.request(&format!("DELETE {path}"), &[], b"").await.expect(204);
    server.get(&path, &[]).await.problem(410, "gone");
}

#[tokio::test]
async fn all_of_a_new_session_is_optional() {
    let server = Server::start().await;
    for body in ["", "{}", r#"{"user":null,"idle_ms":null}"#] {
        let session = server.json("POST /v1/sessions", body).await.expect(201).json();
        assert_eq!(session["fields"], json!({}));
        assert_eq!(session["idle_expires_at"], 1_700_000_000_000_u64 + 24 * 3_600_000);
    }
}

#[tokio::test]
async fn what_cannot_be_an_id_is_not_found() {
    let server = Server::start().await;
    for id in ["x", "AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAA%2F", "%20"] {
        server.get(&format!("/v1/sessions/{id}"), &[]).await.problem(404, "not-found");
        server.json(&format!("PATCH /v1/sessions/{id}"), "{}").await.problem(404, "not-found");
        server.json(&format!("POST /v1/sessions/{id}/renew"), "{}").await.problem(404, "not-found");
        server.request(&format!("DELETE /v1/sessions/{id}"), &[], b"").await.expect(204);
    }
}

#[tokio::test]
async fn the_sessions_of_a_user_are_listed_and_revoked() {
    let server = Server::start().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let session = server.json("POST /v1/sessions", r#"{"user":"a/b ü"}"#).await.expect(201).json();
        ids.push(session["id"].as_str().unwrap().to_owned());
    }
    let path = "/v1/users/a%2Fb%20%C3%BC/sessions";
    let list = server.get(path, &[]).await.expect(200);
    for id in &ids {
        assert!(!String::from_utf8_lossy(&list.body).contains(id.as_str()), "a list shows no secret");
    }
    let list = list.json();
    assert_eq!(list["sessions"].as_array().unwrap().len(), 3);
    let handle = list["sessions"][0]["handle"].as_str().unwrap();
    let one = format!("DELETE {path}/{handle}");
    assert_eq!(server.request(&one, &[], b"").await.expect(200).json(), json!({"revoked": 1}));
    assert_eq!(server.request(&one, &[], b"").await.expect(200).json(), json!({"revoked": 0}));
    assert_eq!(
        server.request(&format!("DELETE {path}"), &[], b"").await.expect(200).json(),
        json!({"revoked": 2})
    );
    assert_eq!(server.get(path, &[]).await.expect(200).json(), json!({"sessions": []}));
}

#[tokio::test]
async fn bodies_that_contradict_themselves_are_refused() {
    let server = Server::start().await;
    let session = server.json("POST /v1/sessions", "").await.expect(201).json();
    let path = format!("/v1/sessions/{}", session["id"].as_str().unwrap());
    for (request, body, part) in [
        (format!("PATCH {path}"), r#"{"set":{"a":1},"remove":["a"]}"#, "`a` is changed twice"),
        (format!("PATCH {path}"), r#"{"set":{"a":1},"if":{"b":1}}"#, "`b`, which neither"),
        (format!("PATCH {path}"), r#"{"fields":{"a":1}}"#, "unknown field `fields`"),
        (format!("PATCH {path}"), r#"{"user":"alice"}"#, "unknown field `user`"),
        (format!("POST {path}/renew"), r#"{"set":1}"#, "expected a map"),
        ("POST /v1/sessions".into(), r#"{"idle":5}"#, "unknown field `idle`"),
        ("POST /v1/sessions".into(), r#"{"idle_ms":-5}"#, "`-5`"),
        ("POST /v1/sessions".into(), "[", "EOF"),
    ] {
        let problem = server.json(&request, body).await.problem(400, "invalid");
        assert!(detail(&problem).contains(part), "{body}: {problem}");
    }
    assert_eq!(server.get(&path, &[]).await.expect(200).json()["fields"], json!({}));
}
