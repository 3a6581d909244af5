//! Blobs move into an object store and out of it: they are named with all that an operator needs to copy them.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use lethe_state::{
    Engines,
    blobs::{ByteStream, Condition, Put},
    error::Error,
    portable::{Blob, Counter, Part, Portable, Record, Whole},
};

pub fn body(bytes: impl Into<Bytes>) -> ByteStream {
    stream::iter([Ok(bytes.into())]).boxed()
}

fn typed(content_type: &str) -> Put {
    Put { content_type: content_type.into(), ..Put::default() }
}

/// All that is named, and in how many pages.
pub async fn named(engines: &Engines) -> (BTreeSet<(String, String, u64, String)>, usize) {
    let whole = Whole(engines.clone());
    let (mut names, mut next, mut pages) = (BTreeSet::new(), None::<String>, 0);
    loop {
        let page = whole.dump(Part::Blobs, next.as_deref()).await.unwrap();
        pages += 1;
        for record in page.records {
            let Record::Blob(Blob { bucket, key, size, content_type, fence: None, sha256: None }) = record
            else {
                panic!("{record:?}")
            };
            assert!(names.insert((bucket, key, size.unwrap(), content_type.unwrap())), "each comes once");
        }
        next = page.next;
        if next.is_none() {
            return (names, pages);
        }
    }
}

pub async fn names_every_blob(engines: Engines) {
    assert_eq!(named(&engines).await.0.len(), 0, "an empty folder");
    let mut expected = BTreeSet::new();
    for (bucket, key) in [("a", "k"), ("a-b", "k/l m"), ("a_b", ".hidden"), ("a", "k//"), ("b", "é~!")] {
        engines.blobs.put(bucket, key, body(key.to_owned()), typed("text/plain")).await.unwrap();
        expected.insert((bucket.to_owned(), key.to_owned(), key.len() as u64, "text/plain".to_owned()));
    }
    // Of the engine's own trial, nothing is a blob.
    let condition = Condition::Absent;
    let put = Put { condition, ..typed("image/png") };
    engines.blobs.put("c", "once", body("x"), put).await.unwrap();
    expected.insert(("c".into(), "once".into(), 1, "image/png".into()));
    assert_eq!(named(&engines).await.0, expected);
    // Large ones end a page before their time.
    for n in 0..3 {
        engines.blobs.put("large", &n.to_string(), body(vec![n; 3 << 20]), typed("x/y")).await.unwrap();
    }
    let (names, pages) = named(&engines).await;
    assert_eq!(names.len(), expected.len() + 3);
    assert!(pages > 1, "{pages}");
}

/// What is no blob is refused by name, which is that of the engine.
pub async fn there_are_blobs_alone(name: &str, engines: Engines) {
    let portable = engines.blobs.portable().unwrap();
    for refused in [
        portable.dump(Part::Rows, None).await.map(drop),
        portable.restore(vec![Record::Counter(Counter { last: 1 })]).await,
    ] {
        assert!(matches!(refused, Err(Error::Unsupported { engine, .. }) if engine == name), "{refused:?}");
    }
}
