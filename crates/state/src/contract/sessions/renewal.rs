//! What the renewal of a session's id promises.

use std::{sync::Arc, time::Duration};

use serde_json::json;

use super::{Fixture, assert_gone, change, create, set};
use crate::{
    error::Error,
    sessions::{Patch, RENEW_GRACE, Renewed, Session, Sessions},
};

/// The session goes on under a new id and with its user, fields and times; the old id is gone.
pub async fn renewal_gives_a_new_id(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    let old = create(sessions, None).await;
    let Renewed { session: new, between } =
        sessions.renew(&old.id, Some("alice"), Patch::default()).await.unwrap();
    assert_ne!(new.id, old.id);
    assert_eq!(between, [""; 0]);
    assert_eq!(new.user.as_deref(), Some("alice"));
    assert_eq!(new.fields, old.fields);
    assert_eq!((new.created_at, new.absolute_expires_at), (old.created_at, old.absolute_expires_at));
    assert_eq!(sessions.load(&new.id).await.unwrap(), new);
    assert_gone(sessions, &old.id).await;
    let out = sessions.renew(&new.id, None, Patch::default()).await.unwrap().session;
    assert_eq!(out.user, None, "a renewal may also make the session anonymous");
    assert_gone(sessions, &new.id).await;
}

/// The patch is done with the renewal; when it is refused, the old id stays.
pub async fn renewal_takes_a_patch(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    let old = create(sessions, None).await;
    let refused = sessions.renew(&old.id, Some("alice"), change("cart", None, Some(u64::MAX))).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    assert_eq!(sessions.load(&old.id).await.unwrap(), old);

    let cart = old.fields["cart"].revision;
    let mut patch = change("cart", Some(json!([])), Some(cart));
    patch.changes.extend(set("role", json!("admin")).changes);
    let new = sessions.renew(&old.id, Some("alice"), patch).await.unwrap().session;
    assert_eq!((&new.fields["cart"].value, &new.fields["role"].value), (&json!([]), &json!("admin")));
    assert_eq!(sessions.load(&new.id).await.unwrap(), new);
}

/// The same renewal once more, as when a worker died before it could answer, gives a third id with all that the
/// second had got; and once more again.
pub async fn a_repeated_renewal_finds_its_successor(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    let first = create(sessions, None).await;
    let second = sessions.renew(&first.id, Some("alice"), Patch::default()).await.unwrap().session;
    sessions.patch(&second.id, set("cart", json!(["apple", "pear"]))).await.unwrap();
    let Renewed { session: third, between } =
        sessions.renew(&first.id, Some("alice"), Patch::default()).await.unwrap();
    // Who tells of ends themselves has nothing to leave to others.
    let names = |ids: &[&Session]| match sessions.tells_of_ends() {
        true => Vec::new(),
        false => ids.iter().map(|session| session.id.public_name()).collect(),
    };
    assert_eq!(between, names(&[&second]));
    assert_eq!(third.fields["cart"].value, json!(["apple", "pear"]), "nothing is lost");
    assert_eq!(third.created_at, first.created_at);
    let Renewed { session: fourth, between } =
        sessions.renew(&first.id, Some("alice"), set("x", json!(1))).await.unwrap();
    assert_eq!(between, names(&[&second, &third]), "who died before it could answer has told of none");
    assert_eq!(fourth.fields["x"].value, json!(1));
    for id in [&first.id, &second.id, &third.id] {
        assert_gone(sessions, id).await;
    }
    assert_eq!(sessions.load(&fourth.id).await.unwrap(), fourth);
    assert_eq!(sessions.list("alice").await.unwrap().len(), 1, "it is one session all the time");
}

/// Nobody else gets the session by its old id, even within the grace.
pub async fn a_repeated_renewal_is_for_the_same_user_alone(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    let first = create(sessions, None).await;
    let second = sessions.renew(&first.id, Some("alice"), Patch::default()).await.unwrap().session;
    for user in [Some("mallory"), None] {
        let refused = sessions.renew(&first.id, user, Patch::default()).await;
        assert!(matches!(refused, Err(Error::Gone)), "{user:?}: {refused:?}");
    }
    assert_eq!(sessions.load(&second.id).await.unwrap(), second);
    // The session goes to another user; alice's old id does not lead to it.
    let third = sessions.renew(&second.id, Some("bob"), Patch::default()).await.unwrap().session;
    for (id, user) in [(&first.id, "alice"), (&first.id, "bob"), (&second.id, "alice")] {
        let refused = sessions.renew(id, Some(user), Patch::default()).await;
        assert!(matches!(refused, Err(Error::Gone)), "{user}: {refused:?}");
    }
    assert_eq!(sessions.load(&third.id).await.unwrap(), third);
    assert!(sessions.renew(&second.id, Some("bob"), Patch::default()).await.is_ok());
}

/// A renewal to an anonymous session, as at sign-out, is final.
pub async fn an_anonymous_renewal_is_not_repeated(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    let first = create(sessions, Some("alice")).await;
    let second = sessions.renew(&first.id, None, Patch::default()).await.unwrap().session;
    for user in [None, Some("alice")] {
        let refused = sessions.renew(&first.id, user, Patch::default()).await;
        assert!(matches!(refused, Err(Error::Gone)), "{user:?}: {refused:?}");
    }
    assert_eq!(sessions.load(&second.id).await.unwrap(), second);
}

/// A session that was ended after its renewal does not come back through its old ids.
pub async fn a_renewal_is_not_repeated_after_an_end(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    let renewed = |sessions: Arc<dyn Sessions>| async move {
        let first = create(&sessions, None).await.id;
        let second = sessions.renew(&first, Some("alice"), Patch::default()).await.unwrap().session.id;
        (first, second)
    };
    let (first, second) = renewed(sessions.clone()).await;
    sessions.destroy(&second).await.unwrap();
    assert!(matches!(sessions.renew(&first, Some("alice"), Patch::default()).await, Err(Error::Gone)));
    let (first, second) = renewed(sessions.clone()).await;
    assert_eq!(sessions.revoke("alice", None).await.unwrap(), 1);
    for id in [&first, &second] {
        assert!(matches!(sessions.renew(id, Some("alice"), Patch::default()).await, Err(Error::Gone)));
    }
}

/// The grace ends, counted from the first renewal of that id.
pub async fn a_renewal_is_repeated_within_the_grace_alone(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    let first = create(sessions, None).await;
    sessions.renew(&first.id, Some("alice"), Patch::default()).await.unwrap();
    if !fixture.advance(RENEW_GRACE - Duration::from_millis(1)) {
        return;
    }
    let third = sessions.renew(&first.id, Some("alice"), Patch::default()).await.unwrap().session;
    fixture.advance(Duration::from_millis(1));
    let late = sessions.renew(&first.id, Some("alice"), Patch::default()).await;
    assert!(matches!(late, Err(Error::Gone)), "{late:?}");
    assert_eq!(sessions.load(&third.id).await.unwrap(), third);
}
