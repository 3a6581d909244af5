//! What may be read while the engine is away, and what may not.

use std::time::Duration;

use super::desk::{Desk, Number, START, number, until};
use crate::{
    error::Error,
    feed::{BEAT, Notice},
    near::Bounds,
};

const OUTAGE_MAX: Duration = Duration::from_secs(20);

fn down() -> Error {
    Error::Unavailable("down".into())
}

/// A desk that has copies of `a`, whose number is 1, and of `b`, which ends after five seconds; and whose feed has just failed for good.
async fn cut_off(outage_max: Duration) -> Desk {
    let desk = Desk::followed(Bounds { outage_max, ..Bounds::default() }).await;
    desk.write("a");
    desk.set("b", Number { ends_at: Some(START + 5000), due_at: Some(START + 2500), ..number(1) });
    desk.load("a").await.unwrap();
    desk.load("b").await.unwrap();
    desk.deafen(Some(down));
    desk.break_feed().await;
    desk
}

#[track_caller]
fn assert_down(read: Result<Number, Error>) {
    assert!(matches!(&read, Err(Error::Unavailable(why)) if why == "down"), "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn a_copy_serves_while_the_engine_is_away_for_a_stated_time() {
    let desk = cut_off(OUTAGE_MAX).await;
    desk.fail(Some(down));
    assert_eq!(desk.load("a").await.unwrap().value, 1);
    tokio::time::advance(OUTAGE_MAX - Duration::from_millis(1)).await;
    assert_eq!(desk.load("a").await.unwrap().value, 1);
    assert_eq!(desk.copies.counts().outage_hits, 2);
    assert_down(desk.load_through("a").await);
    assert_down(desk.load("never read").await);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_down(desk.load("a").await);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(desk.copies.counts().entries, 0, "what serves no more is not kept");
}

#[tokio::test(start_paused = true)]
async fn no_copy_serves_beyond_its_end() {
    let desk = cut_off(OUTAGE_MAX).await;
    desk.fail(Some(down));
    desk.clock.advance(Duration::from_millis(4999));
    assert_eq!(desk.load("b").await.unwrap().value, 1, "past its half it is still good for want of better");
    desk.clock.advance(Duration::from_millis(1));
    assert_down(desk.load("b").await);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_answers_is_believed() {
    let desk = cut_off(OUTAGE_MAX).await;
    desk.write("a");
    assert_eq!(desk.load("a").await.unwrap().value, 2, "nothing was told, so the engine is asked");
    for (answer, name) in [((|| Error::Gone) as fn() -> Error, "b"), (|| Error::NotFound, "a")] {
        desk.fail(Some(answer));
        assert!(matches!(desk.load(name).await, Err(Error::Gone | Error::NotFound)));
    }
    desk.fail(Some(down));
    assert_down(desk.load("a").await);
    assert_down(desk.load("b").await);
}

#[tokio::test(start_paused = true)]
async fn what_was_read_meanwhile_leaves_no_older_copy() {
    let desk = cut_off(OUTAGE_MAX).await;
    desk.write("a");
    assert_eq!(desk.load("a").await.unwrap().value, 2);
    desk.fail(Some(down));
    assert_down(desk.load("a").await);
}

#[tokio::test(start_paused = true)]
async fn what_comes_in_after_the_loss_is_not_kept() {
    let desk = Desk::followed(Bounds { outage_max: OUTAGE_MAX, ..Bounds::default() }).await;
    desk.hold(true);
    let late = tokio::spawn(desk.load("a"));
    until(|| desk.reads() == 1).await;
    desk.deafen(Some(down));
    desk.break_feed().await;
    assert!(desk.release());
    late.await.unwrap().unwrap();
    desk.hold(false);
    desk.fail(Some(down));
    assert_down(desk.load("a").await);
}

#[tokio::test(start_paused = true)]
async fn what_was_written_meanwhile_leaves_no_copy() {
    let desk = cut_off(OUTAGE_MAX).await;
    desk.fail(Some(down));
    drop(desk.copies.writing("a"));
    assert_down(desk.load("a").await);
    assert_eq!(desk.load("b").await.unwrap().value, 1);
    drop(desk.copies.writing_any());
    assert_down(desk.load("b").await);
}

#[tokio::test(start_paused = true)]
async fn copies_of_before_are_not_believed_after() {
    let desk = cut_off(OUTAGE_MAX).await;
    desk.write("a");
    desk.deafen(None);
    desk.copies.followed().await.unwrap();
    desk.fail(Some(down));
    assert_down(desk.load("a").await);
    desk.fail(None);
    assert_eq!(desk.load("a").await.unwrap().value, 2);
    assert_eq!(desk.load("a").await.unwrap().value, 2);
    assert_eq!(desk.copies.counts().outage_hits, 0);
}

#[tokio::test(start_paused = true)]
async fn with_no_time_stated_nothing_serves() {
    let desk = cut_off(Duration::ZERO).await;
    desk.fail(Some(down));
    assert_down(desk.load("a").await);
    assert_eq!(desk.copies.counts().entries, 0);
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_lives_lets_copies_serve_past_their_half() {
    let desk = Desk::followed(Bounds { outage_max: OUTAGE_MAX, ..Bounds::default() }).await;
    desk.set("b", Number { ends_at: Some(START + 5000), due_at: Some(START + 2500), ..number(1) });
    desk.load("b").await.unwrap();
    desk.clock.advance(Duration::from_millis(2500));
    desk.fail(Some(down));
    for _ in 0..200 {
        desk.say(Ok(Notice::Beat)).await;
        tokio::time::sleep(BEAT).await;
    }
    assert_eq!(desk.load("b").await.unwrap().value, 1);
    desk.tell("b").await;
    assert_down(desk.load("b").await);
}
