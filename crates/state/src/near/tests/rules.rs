//! What is kept, shared, fenced and ended.

use std::time::Duration;

use super::desk::{Desk, Number, START, number, settle, until};
use crate::{
    error::Error,
    feed::{BEAT, Notice, SILENCE_MAX},
    near::Bounds,
};

#[tokio::test(start_paused = true)]
async fn what_was_read_is_kept_until_it_changes() {
    let desk = Desk::followed(Bounds::default()).await;
    desk.write("a");
    for _ in 0..3 {
        assert_eq!(desk.load("a").await.unwrap().value, 1);
    }
    assert_eq!(desk.reads(), 1);
    desk.write("a");
    assert_eq!(desk.load("a").await.unwrap().value, 1, "nobody has told yet");
    desk.tell("b").await;
    assert_eq!(desk.load("a").await.unwrap().value, 1);
    desk.tell("a").await;
    assert_eq!(desk.load("a").await.unwrap().value, 2);
    let counts = desk.copies.counts();
    assert_eq!((counts.hits, counts.misses, counts.changes), (4, 2, 2));
}

#[tokio::test(start_paused = true)]
async fn before_the_engine_is_followed_nothing_is_kept() {
    let desk = Desk::new(Bounds::default());
    desk.deafen(Some(|| Error::Unavailable("down".into())));
    for _ in 0..3 {
        desk.load("a").await.unwrap();
    }
    assert_eq!(desk.reads(), 3);
    desk.deafen(None);
    desk.copies.followed().await.unwrap();
    desk.load("a").await.unwrap();
    desk.load("a").await.unwrap();
    assert_eq!(desk.reads(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_engine_without_a_feed_is_read_each_time() {
    let desk = Desk::new(Bounds::default());
    desk.deafen(Some(|| Error::Unsupported { engine: "desk", what: "a feed" }));
    let said = desk.copies.followed().await;
    assert!(matches!(said, Err(Error::Unsupported { engine: "desk", what: "a feed" })), "{said:?}");
    desk.load("a").await.unwrap();
    desk.load("a").await.unwrap();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!((desk.reads(), desk.follows()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_reading_begun_before_a_change_is_not_kept() {
    let desk = Desk::followed(Bounds::default()).await;
    desk.hold(true);
    let old = tokio::spawn(desk.load("a"));
    until(|| desk.reads() == 1).await;
    desk.write("a");
    desk.tell("a").await;
    // One that begins after the change does not join it either.
    let new = tokio::spawn(desk.load("a"));
    until(|| desk.reads() == 2).await;
    assert!(desk.release());
    assert_eq!(old.await.unwrap().unwrap().value, 0, "it had asked before");
    assert!(desk.release());
    assert_eq!(new.await.unwrap().unwrap().value, 1);
    desk.hold(false);
    assert_eq!(desk.load("a").await.unwrap().value, 1);
    assert_eq!((desk.reads(), desk.copies.counts().fenced), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_late_reading_does_not_replace_a_newer_one() {
    let desk = Desk::followed(Bounds::default()).await;
    desk.hold(true);
    let old = tokio::spawn(desk.load("a"));
    until(|| desk.reads() == 1).await;
    desk.hold(false);
    desk.write("a");
    desk.tell("a").await;
    assert_eq!(desk.load("a").await.unwrap().value, 1);
    assert!(desk.release());
    assert_eq!(old.await.unwrap().unwrap().value, 0);
    assert_eq!(desk.load("a").await.unwrap().value, 1);
    assert_eq!(desk.reads(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_reading_begun_before_a_flush_is_not_kept() {
    let desk = Desk::followed(Bounds::default()).await;
    desk.hold(true);
    let old = tokio::spawn(desk.load("a"));
    until(|| desk.reads() == 1).await;
    desk.copies.flush();
    desk.write("a");
    assert!(desk.release());
    assert_eq!(old.await.unwrap().unwrap().value, 0);
    desk.hold(false);
    assert_eq!(desk.load("a").await.unwrap().value, 1);
}

#[tokio::test(start_paused = true)]
async fn a_writer_reads_what_it_wrote() {
    let desk = Desk::followed(Bounds::default()).await;
    assert_eq!(desk.load("a").await.unwrap().value, 0);
    desk.hold(true);
    let old = tokio::spawn(desk.load_through("a"));
    until(|| desk.reads() == 2).await;
    let writing = desk.copies.writing("a");
    desk.write("a");
    drop(writing);
    assert!(desk.release());
    old.await.unwrap().unwrap();
    desk.hold(false);
    assert_eq!(desk.load("a").await.unwrap().value, 1);
    let writing = desk.copies.writing_any();
    desk.write("a");
    drop(writing);
    assert_eq!(desk.load("a").await.unwrap().value, 2);
}

#[tokio::test(start_paused = true)]
async fn who_misses_together_asks_once() {
    let desk = Desk::followed(Bounds::default()).await;
    desk.write("a");
    desk.hold(true);
    let loads: Vec<_> = (0..50).map(|_| tokio::spawn(desk.load("a"))).collect();
    let other = tokio::spawn(desk.load("b"));
    settle().await;
    assert_eq!(desk.reads(), 2);
    assert!(desk.release() && desk.release());
    for load in loads {
        assert_eq!(load.await.unwrap().unwrap().value, 1);
    }
    assert_eq!(other.await.unwrap().unwrap().value, 0);
    assert_eq!(desk.copies.counts().joined, 49);
}

#[tokio::test(start_paused = true)]
async fn a_reading_outlives_who_began_it_but_not_all_who_want_it() {
    let desk = Desk::followed(Bounds::default()).await;
    desk.hold(true);
    let first = tokio::spawn(desk.load("a"));
    until(|| desk.reads() == 1).await;
    let second = tokio::spawn(desk.load("a"));
    settle().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert!(desk.release());
    assert_eq!(second.await.unwrap().unwrap().value, 0);
    assert_eq!(desk.reads(), 1);

    let only = tokio::spawn(desk.load("b"));
    until(|| desk.reads() == 2).await;
    only.abort();
    assert!(only.await.unwrap_err().is_cancelled());
    assert!(!desk.release(), "nobody waits for the answer any more");
    desk.hold(false);
    desk.load("b").await.unwrap();
    assert_eq!(desk.reads(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_for_all_who_wait_and_is_not_kept() {
    let desk = Desk::followed(Bounds::default()).await;
    for (failure, text) in [
        ((|| Error::NotFound) as fn() -> Error, "no such session"),
        (|| Error::Gone, "has ended"),
        (|| Error::Unavailable("busy".into()), "busy"),
        (|| Error::Engine("a bad disk".into()), "failed"),
    ] {
        desk.fail(Some(failure));
        desk.hold(true);
        let reads = desk.reads();
        let loads: Vec<_> = (0..3).map(|_| tokio::spawn(desk.load("a"))).collect();
        settle().await;
        assert!(desk.release());
        for load in loads {
            let error = load.await.unwrap().unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
            assert_eq!(std::mem::discriminant(&error), std::mem::discriminant(&failure()));
        }
        desk.hold(false);
        desk.fail(None);
        desk.load("a").await.unwrap();
        assert_eq!(desk.reads(), reads + 2);
        desk.copies.drop_one("a");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_outlives_its_end_or_its_age() {
    let desk = Desk::followed(Bounds { age_max: Duration::from_secs(60), ..Bounds::default() }).await;
    desk.set("ends", Number { ends_at: Some(START + 1000), ..number(1) });
    desk.set("due", Number { due_at: Some(START + 1000), ends_at: Some(START + 9000), ..number(1) });
    desk.set("stays", number(1));
    let names = ["ends", "due", "stays"];
    for name in names {
        desk.load(name).await.unwrap();
    }
    desk.clock.advance(Duration::from_millis(999));
    for name in names {
        desk.load(name).await.unwrap();
    }
    assert_eq!(desk.reads(), 3);
    desk.clock.advance(Duration::from_millis(1));
    for name in names {
        desk.load(name).await.unwrap();
        desk.load(name).await.unwrap();
    }
    assert_eq!(desk.reads(), 7, "the first two are read each time");
    for _ in 0..60 * 4 + 1 {
        desk.say(Ok(Notice::Beat)).await;
        tokio::time::advance(BEAT).await;
        settle().await;
    }
    desk.load("stays").await.unwrap();
    assert_eq!(desk.reads(), 8);
}

#[tokio::test(start_paused = true)]
async fn the_bounds_hold() {
    let desk = Desk::followed(Bounds { entries_max: 100, bytes_max: 1 << 20, ..Bounds::default() }).await;
    for n in 0..1000 {
        desk.load(&format!("small-{n}")).await.unwrap();
    }
    let counts = desk.copies.counts();
    assert!(counts.entries <= 100 && counts.entries > 50, "{counts:?}");
    for n in 0..100 {
        desk.set(&format!("large-{n}"), Number { bytes: 100 << 10, ..number(1) });
        desk.load(&format!("large-{n}")).await.unwrap();
        assert!(desk.copies.counts().bytes <= 1 << 20, "{:?}", desk.copies.counts());
    }
    desk.set("huge", Number { bytes: 2 << 20, ..number(1) });
    desk.load("huge").await.unwrap();
    desk.load("huge").await.unwrap();
    let counts = desk.copies.counts();
    assert!(counts.bytes <= 1 << 20, "{counts:?}");

    for none in [Bounds { entries_max: 0, ..Bounds::default() }, Bounds { bytes_max: 0, ..Bounds::default() }]
    {
        let desk = Desk::followed(none).await;
        desk.load("a").await.unwrap();
        desk.load("a").await.unwrap();
        assert_eq!(desk.reads(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn the_follower_ends_with_the_copies() {
    let mut desk = Desk::followed(Bounds::default()).await;
    let feed = desk.feed();
    assert!(!feed.is_closed());
    desk.copies = Desk::new(Bounds::default()).copies;
    feed.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_was_not_read_in_time_is_given_up() {
    let desk = Desk::followed(Bounds::default()).await;
    desk.load("a").await.unwrap();
    // As for a process that was stopped: time has passed, and nobody has noticed yet.
    desk.write("a");
    desk.say(Ok(Notice::Beat)).await;
    tokio::time::advance(SILENCE_MAX + Duration::from_millis(1)).await;
    assert_eq!(desk.load("a").await.unwrap().value, 1, "the copy is not believed, even before the feed is");
    let follows = desk.follows();
    until(|| desk.follows() > follows || !desk.copies.counts().is_followed).await;
    desk.copies.followed().await.unwrap();
    assert_eq!(desk.load("a").await.unwrap().value, 1);
}
