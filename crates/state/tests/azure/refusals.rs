//! What a store refuses: the error says what it is, and what to do. What others keep in the container is left alone.

use std::error::Error as _;

use lethe_state::{
    azure::Azure,
    blobs::{Condition, Put},
};

use crate::{
    azurite::{self, CONTAINER, new_folder, shared},
    engine::engine,
    refused::{one, refusals},
};

fn at(login: &str, container: &str) -> Azure {
    engine(&format!("azure://{login}@{container}?endpoint=http://127.0.0.1:{}/shop", shared().port))
}

/// The key is `anders`, in base64.
#[tokio::test]
async fn a_wrong_key_is_named_but_not_shown() {
    for text in refusals(&*at("shop:YW5kZXJz", CONTAINER).engines().blobs).await {
        assert!(text.contains("AuthorizationFailure") && text.contains("check the account's key"), "{text}");
        assert!(!text.contains("YW5kZXJz") && !text.contains("anders"), "{text}");
    }
}

#[tokio::test]
async fn a_missing_container_is_no_missing_blob() {
    for text in refusals(&*at("shop:Z2VoZWlt", "nowhere").engines().blobs).await {
        let expected = "container nowhere, refused: ContainerNotFound";
        assert!(text.contains(expected) && text.contains("make the container"), "{text}");
    }
}

/// Objects are named as their blobs are, in the folder of the URL.
#[tokio::test]
async fn objects_are_plain() {
    let folder = shared().folder();
    let blobs = engine(&azurite::url(shared().port, &folder, "")).engines().blobs;
    for key in ["2026/ä.jpg", "two words", "x/"] {
        blobs.put("photos", key, one("x"), Put::default()).await.unwrap();
    }
    let listed =
        shared().say("GET", &format!("{CONTAINER}?restype=container&comp=list&prefix={folder}"), &[]);
    for name in ["photos/2026/ä.jpg", "photos/two!20words", "photos/x/!"] {
        assert!(listed.contains(&format!("<Name>{folder}/{name}</Name>")), "{name}: {listed}");
    }
}

/// Fencing tokens are refused before anything is written.
#[tokio::test]
async fn what_a_store_cannot_do_is_said() {
    let engines = engine(&new_folder("")).engines();
    let fenced = Put { fence: Some(1), ..Put::default() };
    let refused = engines.blobs.put("b", "k", one("x"), fenced).await.unwrap_err();
    assert_eq!(refused.to_string(), "the azure engine does not offer fencing tokens on blobs");
    let refused = engines.tables.get("t", "k").await.unwrap_err();
    assert_eq!(refused.to_string(), "the azure engine does not offer tables");
    assert_eq!(engines.blobs.list("b", "", None, 0).await.unwrap().blobs, []);
}

/// A lease of somebody else is no race that could be won by trying again.
#[tokio::test]
async fn a_lease_is_told() {
    let folder = shared().folder();
    let blobs = engine(&azurite::url(shared().port, &folder, "")).engines().blobs;
    let info = blobs.put("b", "k", one("x"), Put::default()).await.unwrap();
    let fields = [("x-ms-lease-action", "acquire"), ("x-ms-lease-duration", "-1")];
    let leased = shared().say("PUT", &format!("{CONTAINER}/{folder}/b/k?comp=lease"), &fields);
    assert!(leased.starts_with("HTTP/1.1 201"), "{leased}");
    let condition = Condition::Etag(info.etag.clone());
    let conditional = Put { condition: condition.clone(), ..Put::default() };
    for refused in [
        blobs.put("b", "k", one("y"), Put::default()).await.map(drop),
        blobs.put("b", "k", one("y"), conditional).await.map(drop),
        blobs.delete("b", "k", condition, None).await.map(drop),
    ] {
        let error = refused.unwrap_err();
        let text = error.source().unwrap_or_else(|| panic!("{error:?}")).to_string();
        assert!(text.contains("LeaseIdMissing; ") || text.contains("LeaseIdMissing, "), "{text}");
        assert!(text.contains("break that"), "{text}");
    }
    assert_eq!(blobs.head("b", "k").await.unwrap(), Some(info));
}
