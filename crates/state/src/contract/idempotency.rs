//! The contract of [`Idempotency`].

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::Fixture;
use crate::{
    error::Error,
    idempotency::{
        ANSWER_BYTES_MAX, ANSWER_FIELDS_MAX, Answer, Beginning, Begun, Claim, DISPLACED_MAX, Fingerprint,
        Idempotency, KEY_BYTES_MAX, OWNER_BYTES_MAX, SCOPE_BYTES_MAX, TIME_MAX,
    },
};

mod concurrent;
mod expiry;

pub use concurrent::*;
pub use expiry::*;

/// Makes a test of each case of [`crate::contract::idempotency`].
#[macro_export]
macro_rules! contract_idempotency {
    ($engine:ident) => {
        $crate::contract_cases!(
            $engine,
            idempotency,
            [
                the_first_answer_is_given_again,
                a_request_that_runs_is_told_to_others,
                another_request_under_the_key_is_told_apart,
                an_abandoned_key_is_as_new,
                only_the_claim_itself_ends_it,
                scopes_and_keys_are_apart,
                a_dead_owner_is_displaced,
                what_was_lost_is_told_and_not_begun_again,
                answers_come_back_byte_by_byte,
                answers_of_every_size_up_to_the_limit,
                what_is_out_of_bounds_is_refused,
                a_claim_that_ended_can_be_taken,
                a_claim_that_ended_is_told_as_lost,
                a_claim_is_extended,
                a_late_answer_counts_if_nobody_took_the_claim,
                answers_are_forgotten_in_time,
                a_claim_without_an_answer_is_forgotten_in_time,
                one_of_many_beginners_gets_the_key,
                retries_of_dying_owners_have_one_answer,
            ]
        );
    };
}

const MINUTE: Duration = Duration::from_secs(60);

/// The first request, to be changed.
fn beginning(key: &str) -> Beginning {
    Beginning {
        scope: "orders".into(),
        key: key.into(),
        fingerprint: Fingerprint([7; 32]),
        owner: "web-1".into(),
        displaces: Vec::new(),
        at_most_once: false,
        lease: MINUTE,
        kept: 60 * MINUTE,
    }
}

fn answer(text: &str) -> Answer {
    let fields = vec![("content-type".to_owned(), Bytes::from_static(b"text/plain"))];
    Answer { status: 201, fields, body: Bytes::copy_from_slice(text.as_bytes()) }
}

/// Claims a key that must be free.
async fn claim(keys: &Arc<dyn Idempotency>, beginning: Beginning) -> Claim {
    match keys.begin(beginning).await.unwrap() {
        Begun::Claimed(claim) => claim,
        other => panic!("{other:?}"),
    }
}

/// What a later request with the key is told.
async fn again(keys: &Arc<dyn Idempotency>, key: &str) -> Begun {
    keys.begin(Beginning { owner: "web-2".into(), ..beginning(key) }).await.unwrap()
}

/// All requests after the first get its answer.
pub async fn the_first_answer_is_given_again(fixture: Fixture) {
    let keys = &fixture.engines.idempotency;
    let claim = claim(keys, beginning("k")).await;
    assert_eq!((claim.scope.as_str(), claim.key.as_str()), ("orders", "k"));
    assert!(keys.finish(&claim, answer("done")).await.unwrap());
    for _ in 0..3 {
        assert_eq!(again(keys, "k").await, Begun::Answered(answer("done")));
    }
    assert!(!keys.finish(&claim, answer("other")).await.unwrap(), "the first answer counts");
    assert!(!keys.abandon(&claim).await.unwrap() && !keys.extend(&claim, MINUTE).await.unwrap());
    assert_eq!(again(keys, "k").await, Begun::Answered(answer("done")));
}

/// While the first runs, others are told for how long its claim lasts, those of the same owner too.
pub async fn a_request_that_runs_is_told_to_others(fixture: Fixture) {
    let keys = &fixture.engines.idempotency;
    let claim = claim(keys, beginning("k")).await;
    for owner in ["web-2", "web-1"] {
        match keys.begin(Beginning { owner: owner.into(), ..beginning("k") }).await.unwrap() {
            Begun::Running(left) => assert!(left > Duration::ZERO && left <= MINUTE, "{left:?}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(keys.finish(&claim, answer("done")).await.unwrap());
    assert_eq!(again(keys, "k").await, Begun::Answered(answer("done")));
}

/// A key belongs to one request, while it runs and after it was answered.
pub async fn another_request_under_the_key_is_told_apart(fixture: Fixture) {
    let keys = &fixture.engines.idempotency;
    let other = || Beginning { fingerprint: Fingerprint([8; 32]), ..beginning("k") };
    let claim = claim(keys, beginning("k")).await;
    assert_eq!(keys.begin(other()).await.unwrap(), Begun::Mismatched);
    let displacing = Beginning { displaces: vec!["web-1".into()], ..other() };
    assert_eq!(keys.begin(displacing).await.unwrap(), Begun::Mismatched);
    assert!(keys.finish(&claim, answer("done")).await.unwrap());
    assert_eq!(keys.begin(other()).await.unwrap(), Begun::Mismatched);
    assert_eq!(again(keys, "k").await, Begun::Answered(answer("done")));
}

/// A key that was given back is free, for any request.
pub async fn an_abandoned_key_is_as_new(fixture: Fixture) {
    let keys = &fixture.engines.idempotency;
    let first = claim(keys, beginning("k")).await;
    assert!(keys.abandon(&first).await.unwrap());
    assert!(!keys.abandon(&first).await.unwrap());
    let other = Beginning { fingerprint: Fingerprint([8; 32]), ..beginning("k") };
    let second = claim(keys, other).await;
    assert_ne!(first.token, second.token);
    assert!(!keys.finish(&first, answer("late")).await.unwrap());
    assert!(!keys.abandon(&first).await.unwrap() && !keys.extend(&first, MINUTE).await.unwrap());
    assert!(keys.finish(&second, answer("done")).await.unwrap());
}

/// A claim that was made up ends nothing.
pub async fn only_the_claim_itself_ends_it(fixture: Fixture) {
    let keys = &fixture.engines.idempotency;
    let held = claim(keys, beginning("k")).await;
    let other = |change: fn(&mut Claim)| {
        let mut claim = held.clone();
        change(&mut claim);
        claim
    };
    for made_up in [
        other(|claim| claim.token += 1),
        other(|claim| claim.token = 0),
        other(|claim| claim.key = "l".into()),
        other(|claim| claim.scope = "carts".into()),
    ] {
        assert!(!keys.finish(&made_up, answer("made up")).await.unwrap(), "{made_up:?}");
        assert!(!keys.extend(&made_up, MINUTE).await.unwrap(), "{made_up:?}");
        assert!(!keys.abandon(&made_up).await.unwrap(), "{made_up:?}");
    }
    assert!(matches!(again(keys, "k").await, Begun::Running(_)));
    assert!(keys.finish(&held, answer("done")).await.unwrap());
}

/// The same key means something else in another scope; keys with every kind of character are told apart.
pub async fn scopes_and_keys_are_apart(fixture: Fixture) {
    let keys = &fixture.engines.idempotency;
    for scope in ["orders", "carts"] {
        for key in super::odd_keys() {
            let claim = claim(keys, Beginning { scope: scope.into(), ..beginning(&key) }).await;
            assert!(keys.finish(&claim, answer(&format!("{scope} {key}"))).await.unwrap());
        }
    }
    for key in super::odd_keys() {
        assert_eq!(again(keys, &key).await, Begun::Answered(answer(&format!("orders {key}"))));
    }
}

/// Who is known to be dead is displaced at once, and what it says later is not kept; others are not displaced.
pub async fn a_dead_owner_is_displaced(fixture: Fixture) {
    let keys = &fixture.engines.idempotency;
    let displacing = |owner: &str, dead: &[&str]| Beginning {
        owner: owner.into(),
        displaces: dead.iter().map(|dead| (*dead).to_owned()).collect(),
        ..beginning("k")
    };
    let first = claim(keys, displacing("web-1", &["web-9"])).await;
    assert!(matches!(keys.begin(displacing("web-2", &["web-3"])).await.unwrap(), Begun::Running(_)));
    let second = claim(keys, displacing("web-2", &["web-3", "web-1"])).await;
    assert_ne!(first.token, second.token);
    assert!(!keys.finish(&first, answer("late")).await.unwrap(), "the dead do not answer");
    assert!(!keys.extend(&first, MINUTE).await.unwrap() && !keys.abandon(&first).await.unwrap());
    assert!(matches!(keys.begin(displacing("web-3", &["web-1"])).await.unwrap(), Begun::Running(_)));
    assert!(keys.finish(&second, answer("done")).await.unwrap());
    let third = keys.begin(displacing("web-3", &["web-2"])).await.unwrap();
    assert_eq!(third, Begun::Answered(answer("done")), "an answer outlives its owner");
}

/// Who must not begin again what was begun is told that its owner is dead, as often as it asks, and changes nothing by it:
/// the answer is kept if it comes, and who may begin again does.
pub async fn what_was_lost_is_told_and_not_begun_again(fixture: Fixture) {
    let keys = &fixture.engines.idempotency;
    let careful = |dead: &[&str]| Beginning {
        owner: "web-2".into(),
        displaces: dead.iter().map(|dead| (*dead).to_owned()).collect(),
        at_most_once: true,
        ..beginning("k")
    };
    let first = claim(keys, Beginning { at_most_once: true, ..beginning("k") }).await;
    assert!(matches!(keys.begin(careful(&[])).await.unwrap(), Begun::Running(_)));
    for _ in 0..2 {
        assert_eq!(keys.begin(careful(&["web-1"])).await.unwrap(), Begun::Lost);
    }
    let other = Beginning { fingerprint: Fingerprint([8; 32]), ..careful(&["web-1"]) };
    assert_eq!(keys.begin(other).await.unwrap(), Begun::Mismatched);
    assert!(keys.extend(&first, MINUTE).await.unwrap(), "it lives after all");
    let bold = Beginning { at_most_once: false, ..careful(&["web-1"]) };
    let second = claim(keys, bold).await;
    assert!(!keys.finish(&first, answer("late")).await.unwrap());
    assert!(keys.finish(&second, answer("done")).await.unwrap());
    assert_eq!(keys.begin(careful(&["web-2"])).await.unwrap(), Begun::Answered(answer("done")));
}

/// An answer keeps its status, the order of its fields, repeated ones, and each byte.
pub async fn answers_come_back_byte_by_byte(fixture: Fixture) {
    let keys = &fixture.engines.idempotency;
    let fields = [
        ("set-cookie", &b"a=1; Path=/"[..]),
        ("x-empty", b""),
        ("set-cookie", b"b=2"),
        ("location", b"/orders/1?x=%2F: y"),
        ("x-bytes", b"\x80\xff\t \xc3\xbc"),
        ("x!#$%&'*+-.^_`|~0", b"odd name"),
    ]
    .map(|(name, value)| (name.to_owned(), Bytes::from_static(value)));
    let bodies: [&[u8]; 4] = [b"", b"text", b"\x00\xff\r\n\r\n\x80", "gr\u{fc}\u{df}e".as_bytes()];
    for (n, (status, body)) in [200, 204, 404, 599].into_iter().zip(bodies).enumerate() {
        let answer = Answer { status, fields: fields.to_vec(), body: Bytes::from_static(body) };
        let key = n.to_string();
        let claim = claim(keys, beginning(&key)).await;
        assert!(keys.finish(&claim, answer.clone()).await.unwrap());
        assert_eq!(again(keys, &key).await, Begun::Answered(answer));
    }
}

/// Answers up to the limit are kept; a larger one leaves the claim as it was.
pub async fn answers_of_every_size_up_to_the_limit(fixture: Fixture) {
    let keys = &fixture.engines.idempotency;
    let of_size = |size: usize, byte: u8| {
        let fields = vec![("x".to_owned(), Bytes::from_static(b"123"))];
        Answer { status: 200, fields, body: vec![byte; size - 4].into() }
    };
    // Bytes that JSON writes as one, six and, in base64, more than one.
    for (n, byte) in [b'x', 1, 0xff].into_iter().enumerate() {
        let key = n.to_string();
        let claim = claim(keys, beginning(&key)).await;
        let refused = keys.finish(&claim, of_size(ANSWER_BYTES_MAX + 1, byte)).await;
        let max = ANSWER_BYTES_MAX as u64;
        assert!(
            matches!(refused, Err(Error::TooLarge { max: told, size, .. }) if told == max && size == max + 1)
        );
        assert!(matches!(again(keys, &key).await, Begun::Running(_)));
        let largest = of_size(ANSWER_BYTES_MAX, byte);
        assert!(keys.finish(&claim, largest.clone()).await.unwrap());
        assert!(again(keys, &key).await == Begun::Answered(largest), "byte {byte}");
    }
}

/// What breaks a rule is refused, and claims nothing.
pub async fn what_is_out_of_bounds_is_refused(fixture: Fixture) {
    let keys = &fixture.engines.idempotency;
    let refused = |error: Error| matches!(error, Error::Invalid(_) | Error::TooLarge { .. });
    let long_owner = "o".repeat(OWNER_BYTES_MAX + 1);
    let cases: [(&str, Beginning); 13] = [
        ("empty key", beginning("")),
        ("NUL", beginning("a\0b")),
        ("long key", beginning(&"k".repeat(KEY_BYTES_MAX + 1))),
        ("empty scope", Beginning { scope: String::new(), ..beginning("k") }),
        ("odd scope", Beginning { scope: "Orders".into(), ..beginning("k") }),
        ("long scope", Beginning { scope: "s".repeat(SCOPE_BYTES_MAX + 1), ..beginning("k") }),
        ("empty owner", Beginning { owner: String::new(), ..beginning("k") }),
        ("long owner", Beginning { owner: long_owner.clone(), ..beginning("k") }),
        ("long dead owner", Beginning { displaces: vec![long_owner], ..beginning("k") }),
        ("many dead", Beginning { displaces: vec!["o".into(); DISPLACED_MAX + 1], ..beginning("k") }),
        ("no lease", Beginning { lease: Duration::ZERO, ..beginning("k") }),
        ("long lease", Beginning { lease: TIME_MAX + Duration::from_millis(1), ..beginning("k") }),
        ("kept for no time", Beginning { kept: Duration::ZERO, ..beginning("k") }),
    ];
    for (what, beginning) in cases {
        assert!(keys.begin(beginning).await.is_err_and(refused), "{what}");
    }
    let widest = Beginning {
        scope: "s".repeat(SCOPE_BYTES_MAX),
        owner: "o".repeat(OWNER_BYTES_MAX),
        displaces: vec!["o".repeat(OWNER_BYTES_MAX); DISPLACED_MAX],
        lease: TIME_MAX,
        kept: TIME_MAX,
        ..beginning(&"k".repeat(KEY_BYTES_MAX))
    };
    claim(keys, widest).await;

    let claim = claim(keys, beginning("k")).await;
    let field = |name: &str, value: &'static [u8]| (name.to_owned(), Bytes::from_static(value));
    for fields in [
        vec![field("Upper", b"v")],
        vec![field("", b"v")],
        vec![field("a", b"x\r\nset-cookie: b")],
        vec![field("a", b"v"); ANSWER_FIELDS_MAX + 1],
    ] {
        let bad = Answer { fields, ..answer("") };
        assert!(matches!(keys.finish(&claim, bad.clone()).await, Err(Error::Invalid(_))), "{bad:?}");
    }
    for status in [0, 101, 1000] {
        let bad = Answer { status, ..answer("") };
        assert!(matches!(keys.finish(&claim, bad).await, Err(Error::Invalid(_))), "{status}");
    }
    for lease in [Duration::ZERO, Duration::MAX] {
        assert!(matches!(keys.extend(&claim, lease).await, Err(Error::Invalid(_))), "{lease:?}");
    }
    let most = Answer { fields: vec![field("a", b"v"); ANSWER_FIELDS_MAX], ..answer("") };
    assert!(keys.finish(&claim, most).await.unwrap());
}
