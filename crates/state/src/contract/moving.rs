//! The contract of [`Portable`](crate::portable::Portable): what is moved goes on where it was.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::{
    Fixture,
    feeds::{kept, told},
};
use crate::{
    Engines,
    blobs::{Condition as BlobCondition, Put},
    error::Error,
    idempotency::{Answer, Beginning, Begun, Claim, Fingerprint},
    portable::{PAGE_RECORDS_MAX, Part, Portable as _, Record, Whole},
    realm::Realm,
    sessions::{Change, NewSession, Patch},
    tables::{Action, Condition, Outcome, Scan, Write},
};

const HOUR: Duration = Duration::from_secs(3600);

/// All records of a part, read page by page. What comes again is left out.
async fn all(engines: &Engines, part: Part) -> Vec<Record> {
    let whole = Whole(engines.clone());
    let (mut records, mut next) = (Vec::new(), None::<String>);
    loop {
        let page = whole.dump(part, next.as_deref()).await.unwrap();
        assert!(page.records.len() <= PAGE_RECORDS_MAX * 4, "pages are bounded");
        for record in page.records {
            assert_eq!(record.part(), part);
            if !page.repeats || !records.contains(&record) {
                records.push(record);
            }
        }
        next = page.next;
        if next.is_none() {
            return records;
        }
    }
}

/// Moves these parts, each page twice.
async fn move_all(source: &Engines, target: &Engines, parts: &[Part]) {
    for part in parts {
        for page in all(source, *part).await.chunks(PAGE_RECORDS_MAX) {
            for _ in 0..2 {
                Whole(target.clone()).restore(page.to_vec()).await.unwrap();
            }
        }
    }
}

/// The records of two engines, without what engines know differently.
fn comparable(mut records: Vec<Record>) -> Vec<String> {
    for record in &mut records {
        match record {
            Record::Session(session) => session.version = 0,
            Record::Ended(ended) => ended.forget_at = 0,
            _ => {}
        }
    }
    let mut lines: Vec<String> =
        records.iter().map(|record| serde_json::to_string(record).unwrap()).collect();
    lines.sort();
    lines
}

fn put(table: &str, key: &str, value: &[u8], ttl: Option<Duration>) -> Write {
    let value = Bytes::copy_from_slice(value);
    Write {
        table: table.into(),
        key: key.into(),
        condition: Condition::Any,
        action: Action::Put { value, ttl },
    }
}

fn revision(outcomes: &[Outcome]) -> u64 {
    match outcomes {
        [Outcome::Put { revision }] => *revision,
        other => panic!("{other:?}"),
    }
}

/// Rows keep their values, revisions and expiries, whatever their keys; what is written later is newer.
pub async fn rows_move(source: Fixture, target: Fixture) {
    let (from, to) = (&source.engines, &target.engines);
    for key in super::odd_keys() {
        from.tables.apply(vec![put("odd", &key, key.as_bytes(), None)]).await.unwrap();
    }
    for chunk in (0..PAGE_RECORDS_MAX + 10).collect::<Vec<_>>().chunks(100) {
        let batch = chunk.iter().map(|n| put("many", &format!("{n:06}"), &[*n as u8, 0xff], Some(HOUR)));
        from.tables.apply(batch.collect()).await.unwrap();
    }
    from.tables.apply(vec![put("soon", "k", b"", Some(Duration::from_millis(5)))]).await.unwrap();
    assert!(source.advance(Duration::from_millis(6)) && target.advance(Duration::from_millis(6)));
    move_all(from, to, &[Part::Counters, Part::Rows]).await;
    let (before, after) = (all(from, Part::Rows).await, all(to, Part::Rows).await);
    assert_eq!(
        before.len(),
        PAGE_RECORDS_MAX + 10 + super::odd_keys().len(),
        "what has expired is left behind"
    );
    assert_eq!(comparable(before), comparable(after));
    let row = from.tables.get("many", "000003").await.unwrap().unwrap();
    assert_eq!(to.tables.get("many", "000003").await.unwrap().as_ref(), Some(&row));
    let page = to.tables.scan("many", &Scan { prefix: "00000".into(), ..Scan::default() }).await.unwrap();
    assert_eq!(page.rows.len(), 10, "they are found in their order too");
    // Who has a revision from before goes on with it.
    let mut write = put("many", "000003", b"new", None);
    write.condition = Condition::Revision(row.revision);
    assert!(revision(&to.tables.apply(vec![write]).await.unwrap()) > row.revision);
    let newest = all(from, Part::Rows).await.iter().map(revision_of).max().unwrap();
    let written = revision(&to.tables.apply(vec![put("odd", "new", b"", None)]).await.unwrap());
    assert!(written > newest, "{written} after {newest}");
    assert!(target.advance(HOUR));
    assert_eq!(to.tables.get("many", "000004").await.unwrap(), None, "they expire as they would have");
}

fn revision_of(record: &Record) -> u64 {
    match record {
        Record::Row(row) => row.revision,
        other => panic!("{other:?}"),
    }
}

fn set(name: &str, value: serde_json::Value, expect: Option<u64>) -> Patch {
    Patch { changes: [(name.to_owned(), Change { value: Some(value), expect })].into() }
}

/// Sessions are found by the ids that their users have; those that have ended stay so.
pub async fn sessions_move(source: Fixture, target: Fixture) {
    let (from, to) = (&source.engines, &target.engines);
    let new = |user: Option<&str>| NewSession {
        user: user.map(Into::into),
        fields: [("cart".to_owned(), json!([1, "ß"]))].into(),
        ..NewSession::default()
    };
    let guest = from.sessions.create(new(None)).await.unwrap();
    let ada = from.sessions.create(new(Some("ada"))).await.unwrap();
    let out = from.sessions.create(new(Some("ada"))).await.unwrap();
    from.sessions.destroy(&out.id).await.unwrap();
    let old = from.sessions.create(new(None)).await.unwrap();
    let shop = Realm::named("shop").unwrap();
    let in_shop = NewSession { realm: shop.clone(), ..new(Some("ada")) };
    let in_shop = from.sessions.create(in_shop).await.unwrap();
    let renewed =
        from.sessions.renew(&old.id, Some("bob"), set("cart", json!(null), None)).await.unwrap().session;
    move_all(from, to, &[Part::Counters, Part::Ended, Part::Sessions]).await;

    for part in [Part::Ended, Part::Sessions] {
        let (before, after) = (all(from, part).await, all(to, part).await);
        assert_eq!(before.len(), if part == Part::Ended { 2 } else { 4 }, "{part:?}");
        assert_eq!(comparable(before), comparable(after));
    }
    for session in [&guest, &ada, &renewed, &in_shop] {
        let moved = to.sessions.load(&session.id).await.unwrap();
        assert_eq!((&moved.user, &moved.fields), (&session.user, &session.fields));
        assert_eq!(moved.created_at, session.created_at);
        assert_eq!(moved.idle_expires_at, session.idle_expires_at);
        assert_eq!(moved.absolute_expires_at, session.absolute_expires_at);
    }
    for gone in [&out.id, &old.id] {
        assert!(matches!(to.sessions.load(gone).await, Err(Error::Gone)));
    }
    // A renewal whose answer was lost before the move is followed to what it became.
    let again = to.sessions.renew(&old.id, Some("bob"), Patch::default()).await.unwrap().session;
    assert_eq!(again.user.as_deref(), Some("bob"));
    // Conditions on fields hold as before, and their new revisions are new.
    let seen = guest.fields["cart"].revision;
    let changed = to.sessions.patch(&guest.id, set("cart", json!(1), Some(seen))).await.unwrap();
    assert!(changed.fields["cart"].revision > seen);
    let listed = to.sessions.list("ada").await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed, from.sessions.list("ada").await.unwrap(), "with the handles they had");
    assert_eq!(to.sessions.revoke("ada", Some(&listed[0].handle)).await.unwrap(), 1);
    assert!(matches!(to.sessions.load(&ada.id).await, Err(Error::Gone)));
    assert_eq!(to.sessions.revoke_in(Some(&shop), "ada", None).await.unwrap(), 1);
    assert!(matches!(to.sessions.load(&in_shop.id).await, Err(Error::Gone)));
}

fn beginning(key: &str) -> Beginning {
    Beginning {
        scope: "shop".into(),
        key: key.into(),
        fingerprint: Fingerprint([7; 32]),
        owner: "w".into(),
        displaces: Vec::new(),
        at_most_once: false,
        lease: HOUR,
        kept: HOUR,
    }
}

/// Answers are given again. A request of whose end nothing is known is lost to who asks for at most once, and begun anew by
/// others; should it have ended before the next move, that one brings the answer.
pub async fn answers_move(source: Fixture, target: Fixture) {
    let (from, to) = (&source.engines, &target.engines);
    let answer = Answer {
        status: 201,
        fields: vec![
            ("location".into(), Bytes::from_static(b"/1")),
            ("x".into(), Bytes::from_static(b"\xff")),
        ],
        body: Bytes::from_static(b"\0\xfe made"),
    };
    for key in ["a/b:c", "ß", "plain"] {
        let Begun::Claimed(claim) = from.idempotency.begin(beginning(key)).await.unwrap() else {
            panic!("{key}")
        };
        assert!(from.idempotency.finish(&claim, answer.clone()).await.unwrap());
    }
    for key in ["runs", "lost"] {
        from.idempotency.begin(beginning(key)).await.unwrap();
    }
    let Begun::Claimed(ends) = from.idempotency.begin(beginning("ends")).await.unwrap() else {
        panic!("a key")
    };
    move_all(from, to, &[Part::Counters, Part::Answers]).await;
    let (before, after) = (all(from, Part::Answers).await, all(to, Part::Answers).await);
    assert_eq!(before.len(), 6);
    assert_eq!(comparable(before), comparable(after));
    assert_eq!(to.idempotency.begin(beginning("a/b:c")).await.unwrap(), Begun::Answered(answer.clone()));
    let other = Beginning { fingerprint: Fingerprint([8; 32]), ..beginning("a/b:c") };
    assert_eq!(to.idempotency.begin(other).await.unwrap(), Begun::Mismatched);
    let nobodys = Claim { scope: "shop".into(), key: "lost".into(), token: 0 };
    assert!(!to.idempotency.abandon(&nobodys).await.unwrap(), "it is nobody's to end");
    assert!(!to.idempotency.finish(&nobodys, answer.clone()).await.unwrap());
    let lost = Beginning { at_most_once: true, ..beginning("lost") };
    assert_eq!(to.idempotency.begin(lost).await.unwrap(), Begun::Lost);
    let other = Beginning { fingerprint: Fingerprint([8; 32]), ..beginning("lost") };
    assert_eq!(to.idempotency.begin(other).await.unwrap(), Begun::Mismatched);
    assert!(matches!(to.idempotency.begin(beginning("runs")).await.unwrap(), Begun::Claimed(_)));
    assert!(from.idempotency.finish(&ends, answer.clone()).await.unwrap());
    move_all(from, to, &[Part::Answers]).await;
    assert_eq!(to.idempotency.begin(beginning("ends")).await.unwrap(), Begun::Answered(answer));
    let running = to.idempotency.begin(beginning("runs")).await.unwrap();
    assert!(matches!(running, Begun::Running(_)), "what runs here is not displaced: {running:?}");
    assert!(target.advance(HOUR));
    assert!(matches!(to.idempotency.begin(beginning("plain")).await.unwrap(), Begun::Claimed(_)));
}

/// Locks do not move, but no holder's token comes again.
pub async fn tokens_go_on(source: Fixture, target: Fixture) {
    let (from, to) = (&source.engines, &target.engines);
    let mut last = 0;
    for _ in 0..5 {
        let lease = from.locks.acquire("l", "h", HOUR).await.unwrap().unwrap();
        last = last.max(lease.token);
        from.locks.release("l", lease.token).await.unwrap();
    }
    move_all(from, to, &[Part::Counters]).await;
    let lease = to.locks.acquire("l", "h", HOUR).await.unwrap().unwrap();
    assert!(lease.token > last, "{} after {last}", lease.token);
}

/// Blobs are named, with their fences; also the fences of those that were deleted.
pub async fn blobs_are_named(source: Fixture, _: Fixture) {
    let engines = &source.engines;
    let put = |fence| Put { content_type: "text/plain".into(), fence, ..Put::default() };
    let body = || Box::pin(futures_util::stream::iter([Ok(Bytes::from_static(b"bytes"))]));
    engines.blobs.put("photos", "a/1", body(), put(Some(7))).await.unwrap();
    engines.blobs.put("photos", "b", body(), put(None)).await.unwrap();
    engines.blobs.put("docs", "gone", body(), put(Some(9))).await.unwrap();
    engines.blobs.delete("docs", "gone", BlobCondition::Any, None).await.unwrap();
    assert_eq!(
        comparable(all(engines, Part::Blobs).await),
        [
            r#"{"blob":{"bucket":"docs","key":"gone","fence":9}}"#,
            r#"{"blob":{"bucket":"photos","key":"a/1","size":5,"content_type":"text/plain","fence":7}}"#,
            r#"{"blob":{"bucket":"photos","key":"b","size":5,"content_type":"text/plain"}}"#,
        ]
    );
}

/// What was done at the target since stays: a row that was written there, that a session was used or has ended, and what runs
/// under an idempotency key.
pub async fn what_is_newer_stays(source: Fixture, target: Fixture) {
    let (from, to) = (&source.engines, &target.engines);
    from.tables.apply(vec![put("t", "k", b"old", None)]).await.unwrap();
    from.tables.apply(vec![put("t", "gone", b"old", None)]).await.unwrap();
    let fields = || [("cart".to_owned(), json!(1)), ("hint".to_owned(), json!(1))].into();
    let new = || NewSession { fields: fields(), ..NewSession::default() };
    let [kept, ended] =
        [from.sessions.create(new()).await.unwrap(), from.sessions.create(new()).await.unwrap()];
    let parts = [Part::Counters, Part::Rows, Part::Ended, Part::Sessions, Part::Answers];
    move_all(from, to, &parts).await;
    let written = revision(&to.tables.apply(vec![put("t", "k", b"new", None)]).await.unwrap());
    let short = put("t", "gone", b"short", Some(Duration::from_millis(5)));
    to.tables.apply(vec![short]).await.unwrap();
    to.sessions.destroy(&ended.id).await.unwrap();
    let removed = Change { value: None, expect: None };
    let mut patch = set("cart", json!(2), None);
    patch.changes.insert("hint".to_owned(), removed);
    let used = to.sessions.patch(&kept.id, patch).await.unwrap();
    for (key, body) in [("runs", "old"), ("over", "old")] {
        finish(from, key, body).await;
    }
    let Begun::Claimed(runs) = to.idempotency.begin(beginning("runs")).await.unwrap() else {
        panic!("a key")
    };
    let short = Duration::from_millis(2);
    let over = Beginning { lease: short, kept: short, ..beginning("over") };
    assert!(matches!(to.idempotency.begin(over).await.unwrap(), Begun::Claimed(_)));
    assert!(source.advance(Duration::from_millis(6)) && target.advance(Duration::from_millis(6)));
    move_all(from, to, &parts).await;
    let row = to.tables.get("t", "k").await.unwrap().unwrap();
    assert_eq!((&row.value[..], row.revision), (&b"new"[..], written));
    let row = to.tables.get("t", "gone").await.unwrap();
    assert_eq!(row.map(|row| row.value), Some("old".into()), "what has expired is not newer");
    assert!(matches!(to.sessions.load(&ended.id).await, Err(Error::Gone)), "it does not come back");
    let kept = to.sessions.load(&kept.id).await.unwrap();
    assert_eq!((kept.fields.len(), kept.fields), (1, used.fields), "it is as it was used");
    assert!(to.idempotency.finish(&runs, answer("new")).await.unwrap(), "what runs is not displaced");
    move_all(from, to, &[Part::Answers]).await;
    for (key, body) in [("runs", "new"), ("over", "old")] {
        let begun = to.idempotency.begin(beginning(key)).await.unwrap();
        assert_eq!(begun, Begun::Answered(answer(body)), "{key}");
    }
}

fn answer(body: &'static str) -> Answer {
    Answer { status: 200, fields: Vec::new(), body: Bytes::from_static(body.as_bytes()) }
}

async fn finish(engines: &Engines, key: &str, body: &'static str) {
    let Begun::Claimed(claim) = engines.idempotency.begin(beginning(key)).await.unwrap() else {
        panic!("{key}")
    };
    assert!(engines.idempotency.finish(&claim, answer(body)).await.unwrap());
}

/// Whoever follows is told of what comes: of rows, and that sessions have ended.
pub async fn what_comes_is_told(source: Fixture, target: Fixture) {
    let (from, to) = (&source.engines, &target.engines);
    kept(async |table| {
        let session = from.sessions.create(NewSession::default()).await?;
        let mut rows = to.tables.follow(table).await?;
        from.tables.apply(vec![put(table, "a:b", b"v", None)]).await?;
        move_all(from, to, &[Part::Rows, Part::Sessions]).await;
        told(&mut rows, &["a:b"]).await?;
        let mut sessions = to.sessions.follow().await?;
        from.sessions.renew(&session.id, None, Patch::default()).await?;
        move_all(from, to, &[Part::Ended]).await;
        told(&mut sessions, &[&session.id.public_name()]).await?;
        assert!(matches!(to.sessions.load(&session.id).await, Err(Error::Gone)));
        Ok(())
    })
    .await;
}

/// A page ends before it is too large, and the walk goes on behind it: nothing is left out.
pub async fn pages_are_bounded(source: Fixture, _: Fixture) {
    const LARGE: usize = 1 << 20;
    let engines = &source.engines;
    for n in 0..9_u8 {
        engines.tables.apply(vec![put("large", &n.to_string(), &vec![b'a' + n; LARGE], None)]).await.unwrap();
        let beginning = beginning(&n.to_string());
        let Begun::Claimed(claim) = engines.idempotency.begin(beginning).await.unwrap() else {
            panic!("{n}")
        };
        let answer = Answer { status: 200, fields: Vec::new(), body: vec![b'a' + n; LARGE].into() };
        assert!(engines.idempotency.finish(&claim, answer).await.unwrap());
    }
    let whole = Whole(engines.clone());
    for part in [Part::Rows, Part::Answers] {
        let (mut found, mut next) = (std::collections::BTreeSet::new(), None::<String>);
        loop {
            let page = whole.dump(part, next.as_deref()).await.unwrap();
            let bytes: usize = page.records.iter().map(Record::value_bytes).sum();
            // As many as an engine reads at once come to it.
            assert!(bytes <= crate::portable::PAGE_BYTES_MAX + 8 * LARGE, "{part:?}: {bytes} in one page");
            found.extend(page.records.into_iter().map(|record| match record {
                Record::Row(row) => row.key,
                Record::Answer(answer) => answer.key,
                other => panic!("{other:?}"),
            }));
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        assert_eq!(found.len(), 9, "{part:?}");
    }
}

/// Makes a test of each case of [`crate::contract::moving`], from the engine of one factory to that of another.
#[macro_export]
macro_rules! contract_moving {
    ($name:ident, $source:path, $target:path, [$($case:ident),+ $(,)?]) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    $crate::contract::moving::$case($source().await, $target().await).await;
                }
            )+
        }
    };
}
