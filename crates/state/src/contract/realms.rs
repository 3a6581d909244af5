//! The contract of [realms](crate::realm): sessions of one have nothing to do with those of another.

use serde_json::json;

use super::{
    Fixture,
    sessions::{assert_gone, set},
};
use crate::{
    error::Error,
    realm::Realm,
    sessions::{NewSession, Patch, Session, SessionId, Sessions},
};

fn realm(name: &str) -> Realm {
    Realm::named(name).unwrap()
}

async fn create(sessions: &dyn Sessions, realm: &Realm, user: Option<&str>) -> Session {
    let new = NewSession { realm: realm.clone(), user: user.map(str::to_owned), ..NewSession::default() };
    sessions.create(new).await.unwrap()
}

/// The same random bytes in another realm.
fn elsewhere(id: &SessionId, realm: &str) -> SessionId {
    let text = id.to_text();
    let random = text.split_once('~').map_or(&*text, |(random, _)| random);
    SessionId::parse(&format!("{random}{realm}")).unwrap()
}

/// An id of one realm is none of another, whatever is tried with it there.
pub async fn a_session_is_of_one_realm(fixture: Fixture) {
    let sessions = &*fixture.engines.sessions;
    let shop = create(sessions, &realm("shop"), Some("ada")).await;
    assert_eq!((shop.id.realm(), shop.user.as_deref()), (&realm("shop"), Some("ada")));
    assert_eq!(sessions.load(&shop.id).await.unwrap(), shop);
    for other in ["", "~bank", "~sho", "~shop2"] {
        let other = elsewhere(&shop.id, other);
        assert!(matches!(sessions.load(&other).await, Err(Error::NotFound)), "{other:?}");
        assert!(matches!(sessions.patch(&other, set("x", json!(1))).await, Err(Error::NotFound)));
        assert!(matches!(sessions.renew(&other, Some("ada"), Patch::default()).await, Err(Error::NotFound)));
        sessions.destroy(&other).await.unwrap();
    }
    assert_eq!(sessions.load(&shop.id).await.unwrap(), shop);

    let renewed = sessions.renew(&shop.id, Some("bob"), set("x", json!(1))).await.unwrap().session;
    assert_eq!((renewed.id.realm(), renewed.user.as_deref()), (shop.id.realm(), Some("bob")));
    assert_gone(&fixture.engines.sessions, &shop.id).await;
    // A call that comes again finds what it became, as everywhere.
    let again = sessions.renew(&shop.id, Some("bob"), Patch::default()).await;
    assert!(matches!(again, Ok(renewed) if renewed.session.id.realm() == shop.id.realm()));
    let guest = create(sessions, &realm("shop"), None).await;
    assert_eq!(sessions.load(&guest.id).await.unwrap().user, None);
}

/// A user of one realm is not the user of that name in another, whatever the names are.
pub async fn users_of_two_realms_are_two(fixture: Fixture) {
    let sessions = &*fixture.engines.sessions;
    let realms = [Realm::default(), realm("shop"), realm("s")];
    // The last two are the same letters in a row with the marks that a realm may be kept with.
    let users = ["ada", "\u{1}shop\u{1}ada", "\u{1}s\u{1}ada", "hop\u{1}ada"];
    let mut of_all = Vec::new();
    for realm in &realms {
        for user in users {
            of_all.push((realm, user, create(sessions, realm, Some(user)).await));
        }
    }
    for (realm, user, session) in &of_all {
        assert_eq!(sessions.load(&session.id).await.unwrap(), *session);
        let listed = sessions.list_in(Some(realm), user).await.unwrap();
        assert_eq!(listed.len(), 1, "{user:?} of {realm}");
        assert_eq!((listed[0].created_at, &listed[0].realm), (session.created_at, *realm));
    }
    let handle = sessions.list_in(Some(&realms[1]), "ada").await.unwrap()[0].handle.clone();
    assert_eq!(
        sessions.revoke_in(Some(&realms[0]), "ada", Some(&handle)).await.unwrap(),
        0,
        "it is of another"
    );
    assert_eq!(sessions.revoke_in(Some(&realms[1]), "ada", None).await.unwrap(), 1);
    for (realm, user, session) in &of_all {
        if **realm == realms[1] && *user == "ada" {
            assert_gone(&fixture.engines.sessions, &session.id).await;
        } else {
            assert_eq!(sessions.load(&session.id).await.unwrap(), *session, "{user:?} of {realm} stays");
        }
    }
}
