//! The sessions of a user, seen and ended by the service.

#![allow(clippy::unwrap_used)]

use lethe::State;
use lethe_state::sessions::NewSession;

#[tokio::test]
async fn a_user_sees_where_they_are_signed_in_and_ends_it_there() {
    let state = State::ephemeral().unwrap();
    let of = |user: &str| NewSession { user: Some(user.into()), ..NewSession::default() };
    let engine = &state.engines().sessions;
    let (phone, desk) = (engine.create(of("ada")).await.unwrap(), engine.create(of("ada")).await.unwrap());
    let bob = engine.create(of("bob")).await.unwrap();
    let listed = state.sessions("ada").await.unwrap();
    assert_eq!(listed.len(), 2);

    // Somebody else's handle ends nothing.
    assert!(!state.end_session("bob", &listed[0].handle).await.unwrap());
    assert!(state.end_session("ada", &listed[0].handle).await.unwrap());
    assert!(!state.end_session("ada", &listed[0].handle).await.unwrap(), "it has ended");
    assert_eq!(state.sessions("ada").await.unwrap(), listed[1..]);
    let alive = [engine.load(&phone.id).await.is_ok(), engine.load(&desk.id).await.is_ok()];
    assert_eq!(alive.into_iter().filter(|alive| *alive).count(), 1);

    assert_eq!(state.end_sessions("ada").await.unwrap(), 1);
    assert_eq!(state.sessions("ada").await.unwrap(), []);
    engine.load(&bob.id).await.unwrap();
}
