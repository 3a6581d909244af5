//! The contract of [`Sessions`].

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::Fixture;
use crate::{
    error::Error,
    sessions::{
        Change, Lifetime, NAME_BYTES_MAX, NewSession, Patch, SESSION_BYTES_MAX, Session, SessionId, Sessions,
    },
};

mod concurrent;
mod expiry;
mod history;
mod renewal;
mod users;

pub use concurrent::*;
pub use expiry::*;
pub use history::*;
pub use renewal::*;
pub use users::*;

/// Makes a test of each case of [`crate::contract::sessions`] and of [`crate::contract::realms`].
#[macro_export]
macro_rules! contract_sessions {
    ($engine:ident) => {
        $crate::contract_sessions_of_one_realm!($engine);
        $crate::contract_cases!($engine, realms, [a_session_is_of_one_realm, users_of_two_realms_are_two]);
    };
}

/// Makes a test of each case of [`crate::contract::sessions`].
#[macro_export]
macro_rules! contract_sessions_of_one_realm {
    ($engine:ident) => {
        $crate::contract_cases!(
            $engine,
            sessions,
            [
                a_session_is_what_was_created,
                ids_are_never_alike,
                an_unknown_id_is_not_found,
                fields_are_set_and_removed,
                expectations_decide,
                a_refused_patch_changes_nothing,
                different_fields_do_not_conflict,
                field_names_and_values_of_every_kind,
                the_limits_hold,
                a_destroyed_id_is_gone,
                renewal_gives_a_new_id,
                renewal_takes_a_patch,
                a_repeated_renewal_finds_its_successor,
                a_repeated_renewal_is_for_the_same_user_alone,
                an_anonymous_renewal_is_not_repeated,
                a_renewal_is_not_repeated_after_an_end,
                a_renewal_is_repeated_within_the_grace_alone,
                idle_sessions_end,
                use_moves_the_idle_time_past_its_half,
                the_absolute_time_ends_any_session,
                a_user_lists_sessions,
                a_user_revokes_sessions,
                expired_sessions_are_not_listed,
                concurrent_patches_of_different_fields_all_live,
                compare_and_swap_loses_nothing,
                an_ended_id_never_comes_back,
                one_of_many_renewals_wins,
                a_revocation_and_renewals_at_once,
                conditional_patches_at_once_have_an_order,
            ]
        );
    };
}

pub(super) fn set(name: &str, value: Value) -> Patch {
    change(name, Some(value), None)
}

fn change(name: &str, value: Option<Value>, expect: Option<u64>) -> Patch {
    Patch { changes: [(name.to_owned(), Change { value, expect })].into() }
}

/// A new session with one field, `cart`.
async fn create(sessions: &Arc<dyn Sessions>, user: Option<&str>) -> Session {
    create_for(sessions, user, Lifetime::default()).await
}

async fn create_for(sessions: &Arc<dyn Sessions>, user: Option<&str>, lifetime: Lifetime) -> Session {
    let fields = [("cart".to_owned(), json!(["apple"]))].into();
    let new = NewSession { user: user.map(String::from), fields, lifetime, ..NewSession::default() };
    sessions.create(new).await.unwrap()
}

/// Asserts that every use of an id is refused as gone, and that ending it again is no error.
pub(super) async fn assert_gone(sessions: &Arc<dyn Sessions>, id: &SessionId) {
    assert!(matches!(sessions.load(id).await, Err(Error::Gone)), "load");
    assert!(matches!(sessions.patch(id, set("x", json!(1))).await, Err(Error::Gone)), "patch");
    assert!(matches!(sessions.renew(id, None, Patch::default()).await, Err(Error::Gone)), "renew");
    sessions.destroy(id).await.unwrap();
    assert!(matches!(sessions.load(id).await, Err(Error::Gone)), "load after another end");
}

/// A session is read as it was created, and its times are those of its lifetime.
pub async fn a_session_is_what_was_created(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    let lifetime = Lifetime { idle: Duration::from_secs(600), absolute: Duration::from_secs(3600) };
    let created = create_for(sessions, Some("alice"), lifetime).await;
    assert_eq!(created.user.as_deref(), Some("alice"));
    assert_eq!(created.fields["cart"].value, json!(["apple"]));
    assert!(created.fields["cart"].revision > 0);
    assert_eq!(created.idle_expires_at - created.created_at, 600_000);
    assert_eq!(created.absolute_expires_at - created.created_at, 3_600_000);
    assert_eq!(created.idle_ms, 600_000);
    assert_eq!(sessions.load(&created.id).await.unwrap(), created);

    let bare = sessions.create(NewSession::default()).await.unwrap();
    assert_eq!((bare.user.as_ref(), bare.fields.len()), (None, 0));
    assert_eq!(sessions.load(&bare.id).await.unwrap(), bare);
    let default = Lifetime::default();
    assert_eq!(bare.idle_expires_at - bare.created_at, default.idle.as_millis() as i64);
    assert_eq!(bare.absolute_expires_at - bare.created_at, default.absolute.as_millis() as i64);

    let short = Lifetime { idle: Duration::from_secs(600), absolute: Duration::from_secs(60) };
    let short = create_for(sessions, None, short).await;
    assert_eq!(short.idle_expires_at, short.absolute_expires_at, "no session outlives its absolute time");
    let none = Lifetime { idle: Duration::ZERO, absolute: Duration::from_secs(60) };
    let refused = sessions.create(NewSession { lifetime: none, ..NewSession::default() }).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
}

/// Each session has its own id.
pub async fn ids_are_never_alike(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    let mut ids = std::collections::HashSet::new();
    for _ in 0..50 {
        let session = create(sessions, Some("alice")).await;
        assert_eq!(SessionId::parse(&session.id.to_text()), Some(session.id.clone()));
        assert!(ids.insert(session.id.to_text()));
    }
}

/// An id that nobody was given is not found; ending it is no error and does not make it known.
pub async fn an_unknown_id_is_not_found(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    let id = SessionId::random().unwrap();
    for _ in 0..2 {
        assert!(matches!(sessions.load(&id).await, Err(Error::NotFound)));
        assert!(matches!(sessions.patch(&id, set("x", json!(1))).await, Err(Error::NotFound)));
        let renewed = sessions.renew(&id, Some("alice"), Patch::default()).await;
        assert!(matches!(renewed, Err(Error::NotFound)));
        sessions.destroy(&id).await.unwrap();
    }
}

/// A patch sets and removes fields, leaves the others as they are, and returns what is read afterwards.
pub async fn fields_are_set_and_removed(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    let created = create(sessions, None).await;
    let theme = sessions.patch(&created.id, set("theme", json!("dark"))).await.unwrap();
    assert_eq!(theme.fields["cart"], created.fields["cart"], "an untouched field keeps its revision");
    assert_eq!(theme.fields["theme"].value, json!("dark"));
    assert_eq!(sessions.load(&created.id).await.unwrap(), theme);

    let mut patch = set("cart", json!(["apple", "pear"]));
    patch.changes.extend(change("theme", None, None).changes);
    patch.changes.extend(change("never", None, None).changes);
    let both = sessions.patch(&created.id, patch).await.unwrap();
    assert_eq!(both.fields.keys().collect::<Vec<_>>(), ["cart"]);
    assert!(both.fields["cart"].revision > created.fields["cart"].revision);
    assert_eq!(sessions.load(&created.id).await.unwrap(), both);

    let same = sessions.patch(&created.id, Patch::default()).await.unwrap();
    assert_eq!(same, both, "an empty patch changes nothing");
}

/// An expected revision must be the field's, 0 that of a field that does not exist; a conflict tells what was found.
pub async fn expectations_decide(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    let id = create(sessions, None).await.id;
    let cart = sessions.load(&id).await.unwrap().fields["cart"].revision;
    for (name, expect, found) in [
        ("cart", 0, Some(cart)),
        ("cart", cart + 1, Some(cart)),
        ("cart", u64::MAX, Some(cart)),
        ("none", cart, None),
        ("none", 1, None),
    ] {
        for value in [Some(json!("new")), None] {
            let result = sessions.patch(&id, change(name, value, Some(expect))).await;
            let Err(Error::Conflict { index: 0, key, found: told }) = &result else {
                panic!("{name} as {expect}: {result:?}");
            };
            assert_eq!((key.as_str(), *told), (name, found));
        }
    }
    let second = sessions.patch(&id, change("cart", Some(json!([])), Some(cart))).await.unwrap();
    let second = second.fields["cart"].revision;
    assert!(second > cart);
    let stale = sessions.patch(&id, change("cart", Some(json!(["lost"])), Some(cart))).await;
    assert!(matches!(stale, Err(Error::Conflict { found: Some(found), .. }) if found == second), "{stale:?}");
    sessions.patch(&id, change("none", Some(json!(1)), Some(0))).await.unwrap();
    let removed = sessions.patch(&id, change("cart", None, Some(second))).await.unwrap();
    assert_eq!(removed.fields.keys().collect::<Vec<_>>(), ["none"]);
    let again = sessions.patch(&id, change("cart", Some(json!([])), Some(0))).await.unwrap();
    assert!(again.fields["cart"].revision > second, "a field that is made again has a new revision");
}

/// When one change of a patch is refused, none is done.
pub async fn a_refused_patch_changes_nothing(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    let created = create(sessions, None).await;
    let mut patch = set("a", json!("new"));
    patch.changes.extend(change("cart", None, None).changes);
    patch.changes.extend(change("z", Some(json!(1)), Some(7)).changes);
    let result = sessions.patch(&created.id, patch).await;
    assert!(
        matches!(&result, Err(Error::Conflict { index: 2, key, found: None }) if key == "z"),
        "{result:?}"
    );
    assert_eq!(sessions.load(&created.id).await.unwrap(), created);
}

/// Two who have read the same session and change different fields both succeed; the same field, only one.
pub async fn different_fields_do_not_conflict(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    let id = create(sessions, None).await.id;
    let seen = sessions.patch(&id, set("theme", json!("dark"))).await.unwrap();
    let (cart, theme) = (seen.fields["cart"].revision, seen.fields["theme"].revision);
    sessions.patch(&id, change("cart", Some(json!([1])), Some(cart))).await.unwrap();
    let both = sessions.patch(&id, change("theme", Some(json!("light")), Some(theme))).await.unwrap();
    assert_eq!(both.fields["cart"].value, json!([1]));
    assert_eq!(both.fields["theme"].value, json!("light"));
    let late = sessions.patch(&id, change("cart", Some(json!([2])), Some(cart))).await;
    assert!(matches!(late, Err(Error::Conflict { .. })), "{late:?}");
}

/// Field names are any text, and values any JSON.
pub async fn field_names_and_values_of_every_kind(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    let names = super::odd_keys().into_iter().filter(|name| name.len() <= NAME_BYTES_MAX);
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1.5),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(""),
        json!("\u{0}\u{1f}\"\\/é🦀\u{2028}"),
        json!([]),
        json!({}),
        json!({"": [{"a": null}, [[[1, 2], 3]]]}),
    ];
    let fields: std::collections::BTreeMap<_, _> = names.zip(values.iter().cycle().cloned()).collect();
    let created =
        sessions.create(NewSession { fields: fields.clone(), ..NewSession::default() }).await.unwrap();
    let loaded = sessions.load(&created.id).await.unwrap();
    let found: std::collections::BTreeMap<_, _> =
        loaded.fields.iter().map(|(name, field)| (name.clone(), field.value.clone())).collect();
    assert_eq!(found, fields);
}

/// Sizes, names and depth beyond the limits are refused, and change nothing.
pub async fn the_limits_hold(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    let id = sessions.create(NewSession::default()).await.unwrap().id;
    // The name `f` and the two quotes of the text count too.
    let largest = "x".repeat(SESSION_BYTES_MAX - 3);
    let full = sessions.patch(&id, set("f", json!(largest))).await.unwrap();
    for (name, value) in [("f", json!(format!("{largest}x"))), ("g", json!(1))] {
        let over = sessions.patch(&id, set(name, value)).await;
        assert!(matches!(over, Err(Error::TooLarge { .. })), "{over:?}");
    }
    assert_eq!(sessions.load(&id).await.unwrap(), full);
    let mut swap = change("f", None, None);
    swap.changes.extend(set("g", json!(largest)).changes);
    sessions.patch(&id, swap).await.unwrap();

    let fields = [("f".to_owned(), json!("x".repeat(SESSION_BYTES_MAX)))].into();
    let over = sessions.create(NewSession { fields, ..NewSession::default() }).await;
    assert!(matches!(over, Err(Error::TooLarge { .. })), "{over:?}");

    let small = create(sessions, None).await.id;
    sessions.patch(&small, set(&"n".repeat(NAME_BYTES_MAX), json!(1))).await.unwrap();
    let long = "n".repeat(NAME_BYTES_MAX + 1);
    for name in ["", "a\0b", &long] {
        let refused = sessions.patch(&small, set(name, json!(1))).await;
        assert!(matches!(refused, Err(Error::Invalid(_) | Error::TooLarge { .. })), "{name:?}: {refused:?}");
        let refused = sessions.create(NewSession { user: Some(name.into()), ..NewSession::default() }).await;
        assert!(matches!(refused, Err(Error::Invalid(_) | Error::TooLarge { .. })), "{name:?}: {refused:?}");
        let refused = sessions.renew(&small, Some(name), Patch::default()).await;
        assert!(matches!(refused, Err(Error::Invalid(_) | Error::TooLarge { .. })), "{name:?}: {refused:?}");
    }
    let deep = (0..120).fold(json!(1), |inner, _| json!([inner]));
    let refused = sessions.patch(&small, set("deep", deep)).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    assert_eq!(sessions.load(&small).await.unwrap().fields.len(), 2);
}

/// An ended session is gone for every use, and ending it again is no error.
pub async fn a_destroyed_id_is_gone(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    let (ended, other) = (create(sessions, Some("alice")).await, create(sessions, Some("alice")).await);
    sessions.destroy(&ended.id).await.unwrap();
    assert_gone(sessions, &ended.id).await;
    assert_eq!(sessions.load(&other.id).await.unwrap(), other);
}
