//! What a store refuses: the error says what it is, and what to do. What others keep in the bucket is left alone.

use std::error::Error as _;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use lethe_state::{
    blobs::{Condition, Put},
    error::Error,
    portable::Part,
    s3::S3,
};

use crate::{
    moto,
    refused::{one, refusals},
    server::{BUCKET, Server},
};

#[tokio::test]
async fn a_wrong_secret_is_named_but_not_shown() {
    let server = Server::start().await;
    for (login, code) in [("key:geheim", "SignatureDoesNotMatch"), ("somebody:geheim", "NotSignedUp")] {
        let url = format!("s3://{login}@{BUCKET}?endpoint=http://127.0.0.1:{}", server.port);
        let engine = S3::open(&url.parse().unwrap()).unwrap();
        for text in refusals(&*engine.engines().blobs).await {
            assert!(text.contains(code) && text.contains("check the access key"), "{text}");
            assert!(!text.contains("geheim"), "{text}");
        }
    }
    // The server is well: others are served.
    assert_eq!(server.engine("").engines().blobs.head("b", "k").await.unwrap(), None);
}

#[tokio::test]
async fn a_missing_bucket_is_no_missing_blob() {
    let server = Server::start().await;
    for port in [server.port, moto::shared().port] {
        let url = format!("s3://key:secret@nowhere?endpoint=http://127.0.0.1:{port}");
        let engine = S3::open(&url.parse().unwrap()).unwrap();
        for text in refusals(&*engine.engines().blobs).await {
            assert!(
                text.contains("bucket nowhere, refused: NoSuchBucket") && text.contains("make the bucket"),
                "{text}"
            );
        }
    }
}

/// Objects are named as their blobs are, in the folder of the URL, and those that others have put there are blobs, too.
#[tokio::test]
async fn objects_are_plain() {
    let server = Server::start().await;
    let url = format!("s3://key:secret@{BUCKET}/shop/eu?endpoint=http://127.0.0.1:{}", server.port);
    let blobs = S3::open(&url.parse().unwrap()).unwrap().engines().blobs;
    for key in ["2026/ä.jpg", "two words", "x/"] {
        blobs.put("photos", key, one("x"), Put::default()).await.unwrap();
    }
    let names = ["shop/eu/photos/2026/ä.jpg", "shop/eu/photos/two!20words", "shop/eu/photos/x/!"];
    assert_eq!(server.vault.names().await, names);

    let moto = moto::shared();
    let url = moto.url("");
    let folder = url.split('@').nth(1).unwrap().split('?').next().unwrap();
    for name in ["mine.txt", "not!zzmine"] {
        let put =
            format!("PUT /{folder}/b/{name} HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n");
        let answer = moto.say(&put);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let blobs = S3::open(&url.parse().unwrap()).unwrap().engines().blobs;
    let found = blobs.list("b", "", None, 1).await.unwrap().blobs;
    let [info] = &found[..] else { panic!("{found:?}") };
    assert_eq!((info.key.as_str(), info.size, info.content_type.as_str()), ("mine.txt", 0, "text/plain"));
    // The MD5 of nothing.
    assert_eq!(info.etag, "d41d8cd98f00b204e9800998ecf8427e");
    let put = Put { condition: Condition::Etag(info.etag.clone()), ..Put::default() };
    let ours = blobs.put("b", "mine.txt", one("x"), put).await.unwrap();
    assert_eq!(blobs.list("b", "", None, 0).await.unwrap().blobs, [ours]);
}

/// Fencing tokens are refused before anything is written.
#[tokio::test]
async fn what_a_store_cannot_do_is_said() {
    let server = Server::start().await;
    let blobs = server.engine("").engines().blobs;
    let fenced = Put { fence: Some(1), ..Put::default() };
    let refused = blobs.put("b", "k", one("x"), fenced).await.unwrap_err();
    assert_eq!(refused.to_string(), "the s3 engine does not offer fencing tokens on blobs");
    let refused = blobs.delete("b", "k", Condition::Any, Some(1)).await.unwrap_err();
    assert!(matches!(refused, Error::Unsupported { engine: "s3", .. }));
    assert_eq!(server.vault.names().await, [""; 0]);
    let refused = server.engine("").engines().tables.get("t", "k").await.unwrap_err();
    assert_eq!(refused.to_string(), "the s3 engine does not offer tables");
}

/// A server that ignores conditions would do what it should refuse: nothing with a condition is sent to it.
#[tokio::test]
async fn conditions_that_are_ignored_are_refused() {
    let server = Server::start().await;
    server.vault.ignore_conditions();
    let blobs = server.engine("").engines().blobs;
    let info = blobs.put("b", "k", one("x"), Put::default()).await.unwrap();
    for condition in [Condition::Absent, Condition::Etag(info.etag.clone())] {
        let put = Put { condition, ..Put::default() };
        let refused = blobs.put("b", "k", one("y"), put).await.unwrap_err();
        assert!(
            matches!(refused, Error::Unsupported { what, .. } if what.contains("this server")),
            "{refused:?}"
        );
    }
    let refused = blobs.delete("b", "k", Condition::Etag(info.etag.clone()), None).await.unwrap_err();
    assert!(
        matches!(refused, Error::Unsupported { what, .. } if what.contains("this server")),
        "{refused:?}"
    );
    assert_eq!(blobs.head("b", "k").await.unwrap(), Some(info));
    assert!(blobs.delete("b", "k", Condition::Any, None).await.unwrap());
    // What was tried is no blob.
    assert_eq!(blobs.list("b", "", None, 0).await.unwrap().blobs, []);
}

/// Some stores sort names otherwise: blobs would be left out of what begins behind another one.
#[tokio::test]
async fn a_list_in_another_order_is_refused() {
    let server = Server::start().await;
    let blobs = server.engine("").engines().blobs;
    for key in ["a", "b"] {
        blobs.put("b", key, one("x"), Put::default()).await.unwrap();
    }
    assert_eq!(blobs.list("b", "", None, 0).await.unwrap().blobs.len(), 2);
    server.vault.list_backwards();
    let refused = blobs.list("b", "", None, 0).await.unwrap_err();
    let text = refused.source().unwrap().to_string();
    assert!(text.contains("`b/a` is listed behind `b/b`") && text.contains("left out"), "{text}");
    let refused = blobs.portable().unwrap().dump(Part::Blobs, None).await.unwrap_err();
    assert!(matches!(refused, Error::Engine(_)), "{refused:?}");
}

/// A certificate as text (RFC 7468).
fn pem(der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// A server whose certificate the URL names is trusted, another one is not.
#[tokio::test]
async fn only_a_trusted_server_is_spoken_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let [mine, other] = ["mine", "other"].map(|name| {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(path(name), pem(made.cert.der())).unwrap();
        made
    });
    drop(other);
    let server = Server::start_with_tls(&mine).await;
    let engine = |scheme: &str, options: &str| {
        let url = format!("s3://key:secret@{BUCKET}?endpoint={scheme}://127.0.0.1:{}{options}", server.port);
        S3::open(&url.parse().unwrap()).map(|engine| engine.engines().blobs)
    };
    let trusted = engine("https", &format!("&ca={}", path("mine"))).unwrap();
    let info = trusted.put("b", "k", one("x"), Put::default()).await.unwrap();
    assert_eq!(trusted.head("b", "k").await.unwrap(), Some(info));
    for (scheme, options) in
        [("https", format!("&ca={}", path("other"))), ("https", String::new()), ("http", String::new())]
    {
        let refused = engine(scheme, &options).unwrap().head("b", "k").await.unwrap_err();
        assert!(matches!(refused, Error::Unavailable(_)), "{scheme}: {refused:?}");
    }
    let missing = engine("https", &format!("&ca={}", path("none"))).err().unwrap();
    assert!(missing.source().unwrap().to_string().contains("none"), "{missing:?}");
}
