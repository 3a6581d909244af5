//! What a user's list of sessions, and their revocation, promise.

use std::{collections::HashSet, time::Duration};

use super::{Fixture, assert_gone, create, create_for};
use crate::sessions::{Lifetime, Patch};

const MINUTE: Duration = Duration::from_secs(60);

/// A user's live sessions are listed newest first, under handles that tell nothing of the secret ids.
pub async fn a_user_lists_sessions(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    assert_eq!(sessions.list("alice").await.unwrap(), []);
    let first = create(sessions, Some("alice")).await;
    create(sessions, Some("bob")).await;
    create(sessions, None).await;
    fixture.advance(MINUTE);
    let second = create(sessions, None).await;
    let second = sessions.renew(&second.id, Some("alice"), Patch::default()).await.unwrap().session;
    fixture.advance(MINUTE);
    let third = create(sessions, Some("alice")).await;

    let listed = sessions.list("alice").await.unwrap();
    assert_eq!(listed.len(), 3);
    for (info, session) in listed.iter().zip([&third, &second, &first]) {
        assert_eq!(info.created_at, session.created_at);
        assert_eq!(info.idle_expires_at, session.idle_expires_at);
        assert_eq!(info.absolute_expires_at, session.absolute_expires_at);
        assert!(!info.handle.is_empty());
        assert!(!session.id.to_text().contains(&info.handle) && !info.handle.contains(&session.id.to_text()));
    }
    let handles: HashSet<_> = listed.iter().map(|info| &info.handle).collect();
    assert_eq!(handles.len(), 3);
    assert_eq!(sessions.list("bob").await.unwrap().len(), 1);
    assert_eq!(sessions.list("Alice").await.unwrap(), []);

    let renewed = sessions.renew(&second.id, Some("alice"), Patch::default()).await.unwrap().session;
    let again = sessions.list("alice").await.unwrap();
    assert_eq!(again[1].handle, listed[1].handle, "a renewal keeps the handle");
    sessions.renew(&renewed.id, Some("bob"), Patch::default()).await.unwrap();
    assert_eq!(sessions.list("alice").await.unwrap().len(), 2);
    sessions.destroy(&third.id).await.unwrap();
    assert_eq!(sessions.list("alice").await.unwrap().len(), 1);
}

/// One session is ended by its handle, or all of a user's; those of others stay.
pub async fn a_user_revokes_sessions(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    let alice = [(); 3].map(|()| create(sessions, Some("alice")));
    let [first, second, third] = alice;
    let alice = [first.await, second.await, third.await];
    let bob = create(sessions, Some("bob")).await;
    let handle = sessions.list("alice").await.unwrap()[0].handle.clone();

    assert_eq!(sessions.revoke("bob", Some(&handle)).await.unwrap(), 0, "only its own user may");
    assert_eq!(sessions.revoke("alice", Some("nothing")).await.unwrap(), 0);
    assert_eq!(sessions.revoke("alice", Some(&handle)).await.unwrap(), 1);
    assert_eq!(sessions.revoke("alice", Some(&handle)).await.unwrap(), 0);
    let left = sessions.list("alice").await.unwrap();
    assert!(left.len() == 2 && left.iter().all(|info| info.handle != handle));
    let mut live = 0;
    for session in &alice {
        live += usize::from(sessions.load(&session.id).await.is_ok());
    }
    assert_eq!(live, 2);

    assert_eq!(sessions.revoke("alice", None).await.unwrap(), 2);
    assert_eq!(sessions.list("alice").await.unwrap(), []);
    for session in &alice {
        assert_gone(sessions, &session.id).await;
    }
    assert_eq!(sessions.revoke("alice", None).await.unwrap(), 0);
    assert_eq!(sessions.load(&bob.id).await.unwrap(), bob);
}

/// What has expired is neither listed nor counted.
pub async fn expired_sessions_are_not_listed(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    let short = Lifetime { idle: 10 * MINUTE, absolute: 60 * MINUTE };
    let long = Lifetime { idle: 30 * MINUTE, absolute: 60 * MINUTE };
    create_for(sessions, Some("alice"), short).await;
    let kept = create_for(sessions, Some("alice"), long).await;
    if !fixture.advance(10 * MINUTE) {
        return;
    }
    let listed = sessions.list("alice").await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].idle_expires_at, kept.idle_expires_at);
    assert_eq!(sessions.revoke("alice", None).await.unwrap(), 1);
}
