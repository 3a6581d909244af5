//! What a store refuses: the error says what it is, and what to do. What others keep in the bucket is left alone.

use std::error::Error as _;

use lethe_state::{
    blobs::{Condition, Put},
    error::Error,
    gcs::Gcs,
};

use crate::{
    calls::when,
    engine::engine,
    refused::{one, refusals},
    server::{self, BUCKET, new_folder, shared},
};

fn at(who: &str, bucket: &str) -> Gcs {
    let server = shared();
    let credentials = server.credentials(who);
    engine(&format!(
        "gs://{bucket}?endpoint=http://127.0.0.1:{}&credentials={}",
        server.port,
        credentials.display()
    ))
}

#[tokio::test]
async fn who_is_not_known_is_told() {
    for text in refusals(&*at("other", BUCKET).engines().blobs).await {
        assert!(text.contains("bucket shelf, refused: "), "{text}");
        assert!(text.contains("check the file of credentials") && !text.contains("Bearer"), "{text}");
    }
}

#[tokio::test]
async fn a_missing_bucket_is_no_missing_blob() {
    for text in refusals(&*at("shop", "nowhere").engines().blobs).await {
        assert!(
            text.contains("bucket nowhere, refused: ") && text.contains("bucket does not exist"),
            "{text}"
        );
        assert!(text.contains("make the bucket"), "{text}");
    }
}

/// Objects are named as their blobs are, in the folder of the URL, and say their type.
#[tokio::test]
async fn objects_are_plain() {
    let folder = shared().folder();
    let blobs = engine(&server::url(shared().port, &folder, "")).engines().blobs;
    for key in ["2026/ä.jpg", "two words", "x/"] {
        let put = Put { content_type: "image/jpeg".into(), ..Put::default() };
        blobs.put("photos", key, one("x"), put).await.unwrap();
    }
    let listed = shared().ask(&format!("/storage/v1/b/{BUCKET}/o?prefix={folder}"));
    for name in ["photos/2026/ä.jpg", "photos/two!20words", "photos/x/!"] {
        assert!(listed.contains(&format!(r#""name":"{folder}/{name}""#)), "{name}: {listed}");
    }
    assert_eq!(listed.matches(r#""contentType":"image/jpeg""#).count(), 3, "{listed}");
}

/// Fencing tokens are refused before anything is written.
#[tokio::test]
async fn what_a_store_cannot_do_is_said() {
    let engines = engine(&new_folder("")).engines();
    let fenced = Put { fence: Some(1), ..Put::default() };
    let refused = engines.blobs.put("b", "k", one("x"), fenced).await.unwrap_err();
    assert_eq!(refused.to_string(), "the gcs engine does not offer fencing tokens on blobs");
    let refused = engines.tables.get("t", "k").await.unwrap_err();
    assert_eq!(refused.to_string(), "the gcs engine does not offer tables");
    assert_eq!(engines.blobs.list("b", "", None, 0).await.unwrap().blobs, []);
}

/// The server behind heeds conditions of puts, but not of deletes: those are refused, and the blob stays.
#[tokio::test]
async fn a_condition_that_is_not_heeded_is_refused() {
    let blobs = engine(&server::url(shared().bare, &shared().folder(), "")).engines().blobs;
    let first = blobs.put("b", "k", one("x"), when(Condition::Absent)).await.unwrap();
    let refused = blobs.put("b", "k", one("y"), when(Condition::Absent)).await.unwrap_err();
    assert!(matches!(refused, Error::Conflict { found: Some(_), .. }), "{refused:?}");
    let second = blobs.put("b", "k", one("y"), when(Condition::Etag(first.etag.clone()))).await.unwrap();
    let refused = blobs.put("b", "k", one("z"), when(Condition::Etag(first.etag))).await.unwrap_err();
    assert!(matches!(refused, Error::Conflict { found: Some(_), .. }), "{refused:?}");
    let condition = Condition::Etag(second.etag.clone());
    let refused = blobs.delete("b", "k", condition, None).await.unwrap_err();
    assert!(matches!(refused, Error::Unsupported { engine: "gcs", .. }), "{refused:?}");
    assert_eq!(blobs.head("b", "k").await.unwrap(), Some(second));
    assert!(blobs.delete("b", "k", Condition::Any, None).await.unwrap());
}

#[tokio::test]
async fn credentials_that_are_none_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.json");
    let open = || {
        let url = format!("gs://{BUCKET}?credentials={}", file.display());
        Gcs::open(&url.parse().unwrap()).map(drop).unwrap_err()
    };
    for (text, expected) in [
        (None, "key.json"),
        (Some("{"), "decode"),
        (
            Some(
                r#"{"type": "service_account", "client_email": "a@b", "private_key_id": "1", "private_key": "geheim"}"#,
            ),
            "",
        ),
    ] {
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let error = open();
        assert!(matches!(&error, Error::Invalid(text) if text.contains(expected)), "{error:?}");
        assert!(error.to_string().contains("credentials of gcs: "), "{error:?}");
        assert!(!format!("{error:?} {:?}", error.source()).contains("geheim"), "{error:?}");
    }
}
