//! What time does to claims and answers. The cases need a clock that can be moved.

use std::time::Duration;

use super::{Fixture, MINUTE, again, answer, beginning, claim};
use crate::idempotency::{Beginning, Begun, Fingerprint};

const MOMENT: Duration = Duration::from_millis(1);

/// A claim counts to its last millisecond; then its owner counts as dead, and the next request is the first.
pub async fn a_claim_that_ended_can_be_taken(fixture: Fixture) {
    let keys = &fixture.engines.idempotency;
    let first = claim(keys, beginning("k")).await;
    if !fixture.advance(MINUTE - MOMENT) {
        return;
    }
    assert_eq!(again(keys, "k").await, Begun::Running(MOMENT));
    fixture.advance(MOMENT);
    let other = Beginning { fingerprint: Fingerprint([8; 32]), ..beginning("k") };
    assert_eq!(
        keys.begin(other).await.unwrap(),
        Begun::Mismatched,
        "what ran under the key was something else"
    );
    let second = claim(keys, beginning("k")).await;
    assert_ne!(first.token, second.token);
    assert!(!keys.finish(&first, answer("late")).await.unwrap());
    assert!(!keys.extend(&first, MINUTE).await.unwrap());
    assert!(keys.finish(&second, answer("done")).await.unwrap());
    assert_eq!(again(keys, "k").await, Begun::Answered(answer("done")));
}

/// The same for who must not begin again: until the key is forgotten, or its answer comes after all.
pub async fn a_claim_that_ended_is_told_as_lost(fixture: Fixture) {
    let keys = &fixture.engines.idempotency;
    let careful = |key: &str| Beginning { owner: "web-2".into(), at_most_once: true, ..beginning(key) };
    let (late, never) = (claim(keys, careful("late")).await, claim(keys, careful("never")).await);
    if !fixture.advance(MINUTE - MOMENT) {
        return;
    }
    assert_eq!(keys.begin(careful("late")).await.unwrap(), Begun::Running(MOMENT));
    fixture.advance(MOMENT);
    for key in ["late", "never"] {
        assert_eq!(keys.begin(careful(key)).await.unwrap(), Begun::Lost);
    }
    assert!(keys.finish(&late, answer("late")).await.unwrap());
    assert_eq!(keys.begin(careful("late")).await.unwrap(), Begun::Answered(answer("late")));
    fixture.advance(60 * MINUTE - MOMENT);
    assert_eq!(keys.begin(careful("never")).await.unwrap(), Begun::Lost);
    fixture.advance(MOMENT);
    let anew = claim(keys, careful("never")).await;
    assert_ne!(anew.token, never.token, "after that time the key is as new");
}

/// A claim lasts for as long as it is extended, also when that comes late and nobody took it.
pub async fn a_claim_is_extended(fixture: Fixture) {
    let keys = &fixture.engines.idempotency;
    let held = claim(keys, beginning("k")).await;
    for _ in 0..3 {
        if !fixture.advance(MINUTE / 2) {
            return;
        }
        assert!(keys.extend(&held, MINUTE).await.unwrap());
        assert_eq!(again(keys, "k").await, Begun::Running(MINUTE));
    }
    fixture.advance(2 * MINUTE);
    assert!(keys.extend(&held, MINUTE).await.unwrap());
    assert_eq!(again(keys, "k").await, Begun::Running(MINUTE));
    assert!(keys.extend(&held, MINUTE / 4).await.unwrap(), "it may be cut short");
    assert_eq!(again(keys, "k").await, Begun::Running(MINUTE / 4));
}

/// An owner that was slow, and that nobody replaced, has done the request all the same.
pub async fn a_late_answer_counts_if_nobody_took_the_claim(fixture: Fixture) {
    let keys = &fixture.engines.idempotency;
    let held = claim(keys, beginning("k")).await;
    if !fixture.advance(2 * MINUTE) {
        return;
    }
    assert!(keys.finish(&held, answer("late")).await.unwrap());
    assert_eq!(again(keys, "k").await, Begun::Answered(answer("late")));
}

/// An answer is kept for its time from the answer on; then the key is as new, also for another request.
pub async fn answers_are_forgotten_in_time(fixture: Fixture) {
    let keys = &fixture.engines.idempotency;
    let held = claim(keys, beginning("k")).await;
    if !fixture.advance(MINUTE / 2) {
        return;
    }
    assert!(keys.finish(&held, answer("done")).await.unwrap());
    fixture.advance(60 * MINUTE - MOMENT);
    assert_eq!(again(keys, "k").await, Begun::Answered(answer("done")));
    fixture.advance(MOMENT);
    assert!(!keys.finish(&held, answer("again")).await.unwrap());
    let other = claim(keys, Beginning { fingerprint: Fingerprint([8; 32]), ..beginning("k") }).await;
    assert_ne!(held.token, other.token);
    assert!(!keys.abandon(&held).await.unwrap());
}

/// A key that was never answered is as new when as much time has passed after its claim; a late answer comes too late.
pub async fn a_claim_without_an_answer_is_forgotten_in_time(fixture: Fixture) {
    let keys = &fixture.engines.idempotency;
    let held = claim(keys, beginning("k")).await;
    if !fixture.advance(61 * MINUTE) {
        return;
    }
    assert!(!keys.finish(&held, answer("late")).await.unwrap());
    assert!(!keys.extend(&held, MINUTE).await.unwrap());
    claim(keys, Beginning { fingerprint: Fingerprint([8; 32]), ..beginning("k") }).await;
}
