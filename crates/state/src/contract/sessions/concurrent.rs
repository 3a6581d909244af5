//! What sessions promise when many requests of one visitor come at once.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::json;
use tokio::sync::Barrier;

use super::{Fixture, assert_gone, change, create, set};
use crate::{error::Error, sessions::Patch};

const TASKS: usize = 10;
const ROUNDS: usize = 10;

/// Patches of different fields need not know of each other: all of them live.
pub async fn concurrent_patches_of_different_fields_all_live(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    let id = create(sessions, None).await.id;
    let tasks = (0..TASKS).map(|task| {
        let (sessions, id) = (sessions.clone(), id.clone());
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                sessions.patch(&id, set(&format!("f{task}-{round}"), json!(round))).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(sessions.load(&id).await.unwrap().fields.len(), 1 + TASKS * ROUNDS);
}

/// Tasks that append to one field under compare-and-swap lose none of their entries.
pub async fn compare_and_swap_loses_nothing(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    let id = create(sessions, None).await.id;
    let tasks = (0..TASKS).map(|task| {
        let (sessions, id) = (sessions.clone(), id.clone());
        tokio::spawn(async move {
            let mut round = 0;
            while round < ROUNDS {
                let cart = sessions.load(&id).await.unwrap().fields["cart"].clone();
                let mut entries = cart.value.as_array().unwrap().clone();
                entries.push(json!(task * ROUNDS + round));
                match sessions.patch(&id, change("cart", Some(json!(entries)), Some(cart.revision))).await {
                    Ok(_) => round += 1,
                    Err(Error::Conflict { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let cart = sessions.load(&id).await.unwrap().fields["cart"].value.clone();
    let entries: BTreeSet<_> = cart.as_array().unwrap().iter().filter_map(|entry| entry.as_u64()).collect();
    assert_eq!(entries, (0..(TASKS * ROUNDS) as u64).collect());
    assert_eq!(cart.as_array().unwrap().len(), 1 + TASKS * ROUNDS);
}

/// Requests that are still under way when the session ends cannot bring it back.
pub async fn an_ended_id_never_comes_back(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    for round in 0..5 {
        let id = create(sessions, Some("alice")).await.id;
        let patchers = (0..TASKS).map(|task| {
            let (sessions, id) = (sessions.clone(), id.clone());
            tokio::spawn(async move {
                for n in 0.. {
                    match sessions.patch(&id, set(&format!("f{task}"), json!(n))).await {
                        Ok(_) => {}
                        Err(Error::Gone) => return,
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        });
        let patchers: Vec<_> = patchers.collect();
        sessions.load(&id).await.unwrap();
        match round % 3 {
            0 => sessions.destroy(&id).await.unwrap(),
            1 => assert_eq!(sessions.revoke("alice", None).await.unwrap(), 1),
            _ => {
                let new = sessions.renew(&id, Some("alice"), Patch::default()).await.unwrap().session;
                sessions.destroy(&new.id).await.unwrap();
            }
        }
        for patcher in patchers {
            patcher.await.unwrap();
        }
        assert_gone(sessions, &id).await;
        assert_eq!(sessions.list("alice").await.unwrap(), []);
    }
}

/// When one id is renewed for different users at once, one gets the session, and it stays one.
pub async fn one_of_many_renewals_wins(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    let old = create(sessions, None).await;
    let renewals = (0..TASKS).map(|task| {
        let (sessions, id) = (sessions.clone(), old.id.clone());
        tokio::spawn(
            async move { sessions.renew(&id, Some(&format!("user-{task}")), Patch::default()).await },
        )
    });
    let mut winners = Vec::new();
    for renewal in renewals.collect::<Vec<_>>() {
        match renewal.await.unwrap() {
            Ok(renewed) => winners.push(renewed.session),
            Err(Error::Gone) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(sessions.load(&winners[0].id).await.unwrap(), winners[0]);
    assert_gone(sessions, &old.id).await;
}

/// Sessions that get new ids all the time are ended by a revocation, under whatever id it finds them.
pub async fn a_revocation_and_renewals_at_once(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    for round in 0..ROUNDS {
        let user = format!("alice-{round}");
        let (is_revoked, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(Barrier::new(TASKS + 1)));
        let mut renewers = Vec::new();
        for _ in 0..TASKS {
            let mut id = create(sessions, Some(&user)).await.id;
            let (sessions, user) = (sessions.clone(), user.clone());
            let (is_revoked, begun) = (is_revoked.clone(), begun.clone());
            renewers.push(tokio::spawn(async move {
                begun.wait().await;
                loop {
                    let was_revoked = is_revoked.load(Ordering::SeqCst);
                    match sessions.renew(&id, Some(&user), Patch::default()).await {
                        Ok(_) if was_revoked => panic!("a session outlived its revocation"),
                        Ok(renewed) => id = renewed.session.id,
                        Err(Error::Gone) => return,
                        Err(error) => panic!("{error}"),
                    }
                }
            }));
        }
        begun.wait().await;
        assert_eq!(sessions.revoke(&user, None).await.unwrap(), TASKS as u64);
        is_revoked.store(true, Ordering::SeqCst);
        for renewer in renewers {
            renewer.await.unwrap();
        }
        assert_eq!(sessions.list(&user).await.unwrap(), []);
    }
}
