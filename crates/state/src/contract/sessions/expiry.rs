//! What the lifetime of a session promises. The cases need a clock that can be moved.

use std::time::Duration;

use serde_json::json;

use super::{Fixture, assert_gone, create_for, set};
use crate::sessions::{Lifetime, Patch};

const MINUTE: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(1);

fn lifetime(idle: Duration, absolute: Duration) -> Lifetime {
    Lifetime { idle, absolute }
}

/// A session that nobody uses ends after its idle time, and is gone then, not unknown.
pub async fn idle_sessions_end(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    let idle = create_for(sessions, Some("alice"), lifetime(10 * MINUTE, 600 * MINUTE)).await;
    if !fixture.advance(10 * MINUTE) {
        return;
    }
    assert_gone(sessions, &idle.id).await;
}

/// Use within the first half of the idle time changes nothing; later use moves the end on.
pub async fn use_moves_the_idle_time_past_its_half(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    let created = create_for(sessions, None, lifetime(10 * MINUTE, 600 * MINUTE)).await;
    if !fixture.advance(5 * MINUTE) {
        return;
    }
    let early = sessions.load(&created.id).await.unwrap();
    assert_eq!(early, created, "half of the time is not past it");
    fixture.advance(MINUTE);
    let loaded = sessions.load(&created.id).await.unwrap();
    assert_eq!(loaded.idle_expires_at, created.created_at + 16 * 60_000);
    assert_eq!(loaded.fields, created.fields, "moving the end on is no change of a field");
    assert_eq!(sessions.load(&created.id).await.unwrap(), loaded);

    fixture.advance(6 * MINUTE);
    let patched = sessions.patch(&created.id, set("x", json!(1))).await.unwrap();
    assert_eq!(patched.idle_expires_at, created.created_at + 22 * 60_000, "a patch is use too");
    fixture.advance(6 * MINUTE);
    let renewed = sessions.renew(&created.id, None, Patch::default()).await.unwrap().session;
    assert_eq!(renewed.idle_expires_at, created.created_at + 28 * 60_000, "and so is a renewal");

    fixture.advance(10 * MINUTE - MOMENT);
    assert!(sessions.load(&renewed.id).await.is_ok());
    fixture.advance(10 * MINUTE);
    assert_gone(sessions, &renewed.id).await;
}

/// However much it is used or renewed, a session ends after its absolute time.
pub async fn the_absolute_time_ends_any_session(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    let created = create_for(sessions, Some("alice"), lifetime(10 * MINUTE, 25 * MINUTE)).await;
    let end = created.created_at + 25 * 60_000;
    assert_eq!(created.absolute_expires_at, end);
    if !fixture.advance(9 * MINUTE) {
        return;
    }
    sessions.load(&created.id).await.unwrap();
    fixture.advance(9 * MINUTE);
    let used = sessions.load(&created.id).await.unwrap();
    assert_eq!((used.idle_expires_at, used.absolute_expires_at), (end, end));
    let renewed = sessions.renew(&created.id, Some("alice"), Patch::default()).await.unwrap().session;
    assert_eq!((renewed.idle_expires_at, renewed.absolute_expires_at), (end, end));
    fixture.advance(7 * MINUTE - MOMENT);
    assert!(sessions.load(&renewed.id).await.is_ok());
    fixture.advance(MOMENT);
    assert_gone(sessions, &renewed.id).await;
    assert_gone(sessions, &created.id).await;
}
