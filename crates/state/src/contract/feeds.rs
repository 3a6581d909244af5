//! The contract of feeds: [`Tables::follow`] and [`Sessions::follow`].
//!
//! A feed may fail at any time, as it does when the machine is too busy for a sign of life each second; whoever follows it
//! then begins anew, and so do these cases. What no feed may do is to leave something out.
//!
//! [`Tables::follow`]: crate::tables::Tables::follow
//! [`Sessions::follow`]: crate::sessions::Sessions::follow

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::json;

use super::Fixture;
use crate::{
    error::Error,
    feed::{Feed, NOTICES_MAX, Notice},
    sessions::{Change, NewSession, Patch, SessionId},
    tables::{Action, BATCH_WRITES_MAX, Condition, Tables, Write},
};

/// Makes a test of each case of [`crate::contract::feeds`].
#[macro_export]
macro_rules! contract_feeds {
    ($engine:ident) => {
        $crate::contract_cases!(
            $engine,
            feeds,
            [
                rows_that_are_written_are_told,
                names_of_every_kind_are_told_as_they_are,
                tables_are_followed_apart,
                sessions_that_change_are_told,
                what_follows_the_following_is_told,
                each_who_follows_is_told,
                a_quiet_feed_beats,
                a_copy_comes_up_to_date,
                who_does_not_read_fails,
                no_table_of_a_wrong_name_is_followed,
            ]
        );
    };
}

/// Most times that a case begins anew.
const ATTEMPTS_MAX: usize = 20;
/// After so many signs of life, what was written before has been told.
const BEATS_MAX: usize = 20;

/// Does a case, with a table of its own, until no feed of it has failed.
pub(super) async fn kept(case: impl AsyncFn(&str) -> Result<(), Error>) {
    for attempt in 1.. {
        match case(&format!("t{attempt}")).await {
            Ok(()) => return,
            Err(Error::Unavailable(_)) if attempt < ATTEMPTS_MAX => {}
            Err(error) => panic!("{error} ({attempt} attempts)"),
        }
    }
}

/// Reads until all of `names` were told; gives all that was.
pub(super) async fn told(feed: &mut Feed, names: &[&str]) -> Result<BTreeSet<String>, Error> {
    let (mut all, mut beats) = (BTreeSet::<String>::new(), 0);
    while let Some(missing) = names.iter().find(|name| !all.contains(**name)) {
        match feed.next().await? {
            Notice::Changed(name) => _ = all.insert(name.to_string()),
            Notice::Beat => beats += 1,
        }
        assert!(beats < BEATS_MAX, "{missing:?} is not told, only {all:?}");
    }
    Ok(all)
}

fn write(table: &str, key: &str, action: Action) -> Write {
    Write { table: table.into(), key: key.into(), condition: Condition::Any, action }
}

fn put(table: &str, key: &str) -> Write {
    write(table, key, Action::Put { value: Bytes::from_static(b"v"), ttl: None })
}

/// Whatever writes to a row is told, alone or in a batch, once it is acknowledged.
pub async fn rows_that_are_written_are_told(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    kept(async |table| {
        let mut feed = tables.follow(table).await?;
        let add = Action::Increment { by: 1, ttl: None };
        for single in [
            put(table, "put"),
            put(table, "put"),
            Write { condition: Condition::Absent, ..put(table, "new") },
            Write { condition: Condition::Present, ..put(table, "new") },
            write(table, "increment", add.clone()),
            write(table, "increment", add.clone()),
            write(table, "fence", Action::Fence { token: 7 }),
            write(table, "put", Action::Delete),
        ] {
            let key = single.key.clone();
            tables.apply(vec![single]).await?;
            told(&mut feed, &[&key]).await?;
        }
        let batch = vec![
            put(table, "put"),
            write(table, "new", Action::Delete),
            write(table, "increment", add),
            write(table, "fence", Action::Fence { token: 8 }),
        ];
        tables.apply(batch).await?;
        told(&mut feed, &["put", "new", "increment", "fence"]).await?;
        Ok(())
    })
    .await;
}

/// No name is cut, folded or taken apart on its way.
pub async fn names_of_every_kind_are_told_as_they_are(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    let keys = super::odd_keys();
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    kept(async |table| {
        let mut feed = tables.follow(table).await?;
        tables.apply(keys.iter().map(|key| put(table, key)).collect()).await?;
        let all = told(&mut feed, &names).await?;
        assert_eq!(all, keys.iter().cloned().collect());
        for key in &keys {
            tables.apply(vec![put(table, key)]).await?;
            told(&mut feed, &[key]).await?;
        }
        Ok(())
    })
    .await;
}

/// Who follows a table hears of that one alone, however alike the names are.
pub async fn tables_are_followed_apart(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    kept(async |table| {
        let mut feed = tables.follow(table).await?;
        let (longer, other) = (format!("{table}-1"), &table[..1]);
        tables.apply(vec![put(&longer, "x"), put(other, "y"), put(table, "a")]).await?;
        tables.apply(vec![put(&longer, "a/x")]).await?;
        tables.apply(vec![put(table, "b")]).await?;
        assert_eq!(told(&mut feed, &["a", "b"]).await?, ["a", "b"].map(String::from).into());
        Ok(())
    })
    .await;
}

/// A session is told of when a field changes, when its id does, and at its end; by a name that is not its secret id.
pub async fn sessions_that_change_are_told(fixture: Fixture) {
    let sessions = &fixture.engines.sessions;
    let change = Change { value: Some(json!(1)), expect: None };
    let patch = Patch { changes: BTreeMap::from([("f".to_owned(), change)]) };
    kept(async |user| {
        let new = || NewSession { user: Some(user.into()), ..Default::default() };
        let mut feed = sessions.follow().await?;
        let mut secrets = Vec::new();
        let mut all = BTreeSet::new();
        let mut id = sessions.create(new()).await?.id;
        let changed = async |feed: &mut Feed, id: &SessionId| told(feed, &[&id.public_name()]).await;
        sessions.patch(&id, patch.clone()).await?;
        all.extend(changed(&mut feed, &id).await?);
        for patch in [Patch::default(), patch.clone()] {
            let renewed = sessions.renew(&id, Some(user), patch).await?.session.id;
            all.extend(changed(&mut feed, &id).await?);
            secrets.push(std::mem::replace(&mut id, renewed));
        }
        sessions.destroy(&id).await?;
        all.extend(changed(&mut feed, &id).await?);
        secrets.push(id);
        let [one, two, three] = [
            sessions.create(new()).await?.id,
            sessions.create(new()).await?.id,
            sessions.create(new()).await?.id,
        ];
        let handle = sessions.list(user).await?.pop().expect("three sessions").handle;
        assert_eq!(sessions.revoke(user, Some(&handle)).await?, 1);
        assert_eq!(sessions.revoke(user, None).await?, 2);
        let names = [&one, &two, &three].map(SessionId::public_name);
        all.extend(told(&mut feed, &names.each_ref().map(String::as_str)).await?);
        secrets.extend([one, two, three]);
        for secret in secrets {
            assert!(!all.iter().any(|name| name.contains(&secret.to_text())), "a feed tells no secret");
        }
        Ok(())
    })
    .await;
}

/// There is no gap between the moment from which on a feed tells and the one at which it is there.
pub async fn what_follows_the_following_is_told(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    for _ in 0..20 {
        kept(async |table| {
            let mut feed = tables.follow(table).await?;
            tables.apply(vec![put(table, "k")]).await?;
            told(&mut feed, &["k"]).await?;
            Ok(())
        })
        .await;
    }
}

/// All who follow are told of everything; that another one leaves changes nothing.
pub async fn each_who_follows_is_told(fixture: Fixture) {
    let tables = &fixture.engines.tables;
    kept(async |table| {
        let mut first = tables.follow(table).await?;
        tables.apply(vec![put(table, "early")]).await?;
        let mut second = tables.follow(table).await?;
        let third = tables.follow(table).await?;
        tables.apply(vec![put(table, "a")]).await?;
        drop(third);
        tables.apply(vec![put(table, "b")]).await?;
        told(&mut second, &["a", "b"]).await?;
        told(&mut first, &["early", "a", "b"]).await?;
        drop(first);
        tables.apply(vec![put(table, "c")]).await?;
        told(&mut second, &["c"]).await?;
        Ok(())
    })
    .await;
}

/// While nothing changes, there are signs of life.
pub async fn a_quiet_feed_beats(fixture: Fixture) {
    let engines = &fixture.engines;
    kept(async |table| {
        for mut feed in [engines.tables.follow(table).await?, engines.sessions.follow().await?] {
            for _ in 0..6 {
                assert_eq!(feed.next().await?, Notice::Beat);
            }
        }
        Ok(())
    })
    .await;
}

/// A copy that is read anew whenever the feed says so ends up as what it is a copy of, whoever writes at the same time.
pub async fn a_copy_comes_up_to_date(fixture: Fixture) {
    const WRITERS: usize = 4;
    const WRITES: usize = 25;
    let tables = &fixture.engines.tables;
    kept(async |table| {
        let mut feed = tables.follow(table).await?;
        let mut copy = tables.get(table, "n").await?;
        let writers = (0..WRITERS).map(|_| {
            let (tables, table) = (tables.clone(), table.to_owned());
            tokio::spawn(async move {
                for _ in 0..WRITES {
                    let add = Action::Increment { by: 1, ttl: None };
                    tables.apply(vec![write(&table, "n", add)]).await?;
                }
                Ok::<_, Error>(())
            })
        });
        let writers: Vec<_> = writers.collect();
        let mut beats = 0;
        let last = (WRITERS * WRITES).to_string();
        while copy.as_ref().is_none_or(|row| row.value != last) {
            match feed.next().await? {
                Notice::Changed(_) => copy = tables.get(table, "n").await?,
                Notice::Beat if writers.iter().all(|writer| writer.is_finished()) => beats += 1,
                Notice::Beat => {}
            }
            assert!(beats < BEATS_MAX, "the copy is {copy:?}, for good");
        }
        for writer in writers {
            writer.await.expect("it does not panic")?;
        }
        Ok(())
    })
    .await;
}

/// Who does not read what he is told fails instead of having others wait, and misses nothing without knowing it.
pub async fn who_does_not_read_fails(fixture: Fixture) {
    // What is on its way to who does not read comes on top of what waits for him.
    const BATCHES: usize = (NOTICES_MAX + 2048) / BATCH_WRITES_MAX;
    let tables = &fixture.engines.tables;
    let pad = "k".repeat(1000);
    kept(async |table| {
        let mut slow = tables.follow(table).await?;
        let mut quick = tables.follow(table).await?;
        for n in 0..BATCHES {
            let marker = format!("batch {n}");
            let mut batch: Vec<_> =
                (1..BATCH_WRITES_MAX).map(|n| put(table, &format!("{n} {pad}"))).collect();
            batch.push(put(table, &marker));
            tables.apply(batch).await?;
            told(&mut quick, &[&marker]).await?;
        }
        let mut notices = 0;
        while slow.next().await.is_ok() {
            notices += 1;
            assert!(notices < BATCHES * BATCH_WRITES_MAX, "it was told everything");
        }
        assert!(slow.next().await.is_err(), "for good");
        tables.apply(vec![put(table, "next")]).await?;
        told(&mut quick, &["next"]).await?;
        Ok(())
    })
    .await;
}

/// A name that no table can have is refused.
pub async fn no_table_of_a_wrong_name_is_followed(fixture: Fixture) {
    let tables: &dyn Tables = &*fixture.engines.tables;
    for name in ["", "T", "a/b", "a:b", "é", &"t".repeat(65)] {
        let refused = tables.follow(name).await;
        assert!(matches!(refused, Err(Error::Invalid(_) | Error::TooLarge { .. })), "{name:?}: {refused:?}");
    }
}
