//! How many trips a stock saves, and that it is off by no more than it says.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::Semaphore, time};

use super::{Lease, Leased};
use crate::{
    clock::ManualClock,
    embedded::Embedded,
    error::Error,
    limits::{Limits, Page, Quota, Take, Verdict},
};

const SECOND: Duration = Duration::from_secs(1);
/// Places for more trips than a test makes at once.
const OPEN: usize = 1000;
const LEASE: Lease = Lease { calls: 10, hold: SECOND };
const SLOW: Quota = Quota::per(100, Duration::from_secs(100 * 24 * 3600));

/// The embedded engine, with a count of the trips to it.
struct Counted {
    limits: Arc<dyn Limits>,
    trips: AtomicU64,
    /// Trips wait while it has no place.
    gate: Semaphore,
}

#[async_trait]
impl Limits for Counted {
    async fn take_all(&self, takes: Vec<Take>) -> Result<Vec<Verdict>, Error> {
        self.trips.fetch_add(1, Ordering::Relaxed);
        let _place = self.gate.acquire().await.unwrap();
        self.limits.take_all(takes).await
    }

    async fn reset(&self, limit: &str, key: &str) -> Result<bool, Error> {
        self.limits.reset(limit, key).await
    }

    async fn list(&self, limit: &str, after: Option<&str>, most: usize) -> Result<Page, Error> {
        self.limits.list(limit, after, most).await
    }
}

/// An engine whose clock goes with that of the runtime, which stands still unless it is moved.
struct Lab {
    engine: Arc<Counted>,
    clock: ManualClock,
    _kept: (Embedded, tempfile::TempDir),
}

impl Lab {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(1_700_000_000_000);
        let embedded = Embedded::open_with(directory.path(), Arc::new(clock.clone())).unwrap();
        let engine = Arc::new(Counted {
            limits: embedded.engines().limits,
            trips: AtomicU64::new(0),
            gate: Semaphore::new(OPEN),
        });
        Self { engine, clock, _kept: (embedded, directory) }
    }

    fn worker(&self) -> Leased {
        Leased::new(Arc::clone(&self.engine) as _, LEASE)
    }

    fn trips(&self) -> u64 {
        self.engine.trips.swap(0, Ordering::Relaxed)
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        time::advance(by).await;
    }
}

async fn take(worker: &Leased) -> Verdict {
    worker.take("l", "k", SLOW, 1).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_stock_saves_the_trips() {
    let lab = Lab::new();
    let worker = lab.worker();
    for left in (0..100).rev() {
        let verdict = take(&worker).await;
        assert_eq!((verdict.allowed, verdict.remaining), (true, left));
    }
    assert_eq!(lab.trips(), 10);
    let refused = take(&worker).await;
    assert!(!refused.allowed);
    assert_eq!(lab.trips(), 2, "neither a stock nor one was to be had");
    lab.advance(SECOND / 2).await;
    let again = take(&worker).await;
    assert_eq!((again.allowed, refused.retry_after - again.retry_after), (false, SECOND / 2));
    assert_eq!(lab.trips(), 0, "a refusal is repeated");
    lab.advance(SECOND / 2).await;
    assert!(!take(&worker).await.allowed);
    assert!(lab.trips() > 0, "but not for ever");
}

#[tokio::test(start_paused = true)]
async fn the_last_calls_are_taken_one_by_one() {
    let lab = Lab::new();
    let worker = lab.worker();
    lab.engine.limits.take("l", "k", SLOW, 95).await.unwrap();
    for _ in 0..5 {
        assert!(take(&worker).await.allowed);
    }
    assert!(!take(&worker).await.allowed);
    assert_eq!(lab.trips(), 1 + 5 + 1, "it was tried once to fill the stock");
}

#[tokio::test(start_paused = true)]
async fn a_stock_is_not_kept_for_long() {
    let lab = Lab::new();
    let worker = lab.worker();
    take(&worker).await;
    lab.advance(SECOND).await;
    assert_eq!(take(&worker).await.remaining, 89, "the nine that were left are lost");
    assert_eq!(lab.trips(), 2);
    assert!(worker.reset("l", "k").await.unwrap());
    assert_eq!(take(&worker).await.remaining, 99, "with a reset, the stock goes too");
}

#[tokio::test(start_paused = true)]
async fn what_costs_more_than_a_stock_or_only_asks_goes_to_the_engine() {
    let lab = Lab::new();
    let worker = lab.worker();
    assert_eq!(worker.take("l", "k", SLOW, 3).await.unwrap().remaining, 97);
    assert_eq!(worker.take("l", "k", SLOW, 0).await.unwrap().remaining, 90);
    assert_eq!(worker.take("l", "k", SLOW, 10).await.unwrap().remaining, 80);
    assert_eq!(worker.take("l", "k", SLOW, 7).await.unwrap().remaining, 90, "from stock, as of its lease");
    assert_eq!(lab.trips(), 3);
    let narrow = Quota::per(5, Duration::from_secs(100 * 24 * 3600));
    for left in (0..5).rev() {
        assert_eq!(worker.take("l", "narrow", narrow, 1).await.unwrap().remaining, left);
    }
    assert!(!worker.take("l", "narrow", narrow, 1).await.unwrap().allowed);
    let without = Leased::new(Arc::clone(&lab.engine) as _, Lease { hold: Duration::ZERO, ..LEASE });
    for left in [79, 78] {
        assert_eq!(take(&without).await.remaining, left, "nothing is held for no time");
    }
}

/// Many callers of one key in one worker share a stock, and one of them fills it.
#[tokio::test(start_paused = true)]
async fn one_caller_fills_it_for_all() {
    let lab = Lab::new();
    let worker = Arc::new(lab.worker());
    let calls = (0..40).map(|_| {
        let worker = Arc::clone(&worker);
        tokio::spawn(async move { take(&worker).await.allowed })
    });
    for call in calls.collect::<Vec<_>>() {
        assert!(call.await.unwrap());
    }
    assert_eq!(lab.trips(), 4);
}

/// Clients that hang up as soon as they have asked cost no more than their own calls.
#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_wastes_nothing() {
    let lab = Lab::new();
    let worker = lab.worker();
    for lease in 1..=3 {
        lab.engine.gate.forget_permits(OPEN);
        {
            let mut gone = std::pin::pin!(take(&worker));
            assert!(futures_util::poll!(&mut gone).is_pending());
            while lab.engine.trips.load(Ordering::Relaxed) == 0 {
                tokio::task::yield_now().await;
            }
            assert!(futures_util::poll!(&mut gone).is_pending());
        }
        lab.engine.gate.add_permits(OPEN);
        for left in (0..9).rev() {
            assert_eq!(take(&worker).await.remaining, 100 - 10 * lease + left);
        }
        assert_eq!(lab.trips(), 1, "what it had asked for is in stock");
    }
}

#[tokio::test(start_paused = true)]
async fn the_number_of_stocks_is_bounded() {
    let lab = Lab::new();
    let worker = lab.worker();
    for key in 0..super::KEYS_MAX {
        assert!(worker.stock(key.to_string(), SLOW).is_some());
    }
    assert!(worker.stock("one more".into(), SLOW).is_none());
    assert!(worker.take("l", "one more", SLOW, 1).await.unwrap().allowed);
    assert_eq!(worker.take("l", "one more", SLOW, 0).await.unwrap().remaining, 99, "without a stock");
    lab.advance(SECOND).await;
    assert!(worker.stock("one more".into(), SLOW).is_some());
    assert_eq!(worker.stocks().keys.len(), 1, "those of before had become useless");
}

/// Four workers under calls at random times: no stretch of time has more than the stated bound over the quota, and when
/// all workers keep calling, what is missing is not more than stocks that were lost.
#[tokio::test(start_paused = true)]
async fn it_is_off_by_no_more_than_it_says() {
    const WORKERS: usize = 4;
    let quota = Quota::per(50, SECOND).burst(60);
    let interval = Duration::from_millis(20);
    let seed: u64 = std::env::var("LETHE_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64);
    println!("LETHE_TEST_SEED={seed}");
    let mut random = seed;
    let mut draw = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let lab = Lab::new();
    let workers: Vec<Leased> = (0..WORKERS).map(|_| lab.worker()).collect();
    let over_max = WORKERS as u64 * u64::from(LEASE.calls - 1);
    let (mut now, mut allowed): (Duration, Vec<Duration>) = (Duration::ZERO, Vec::new());
    for _ in 0..4000 {
        let wait = Duration::from_millis(if draw(200) == 0 { draw(2500) } else { draw(12) });
        lab.advance(wait).await;
        now += wait;
        let worker = &workers[draw(WORKERS as u64) as usize];
        if worker.take("l", "k", quota, 1).await.unwrap().allowed {
            allowed.push(now);
        }
    }
    for (first, from) in allowed.iter().enumerate() {
        for (count, to) in (1_u64..).zip(&allowed[first..]) {
            let most = u64::from(quota.burst) + ((*to - *from).as_millis() / interval.as_millis()) as u64;
            assert!(count <= most + over_max, "{count} calls within {:?}, {most} at most", *to - *from);
        }
    }
    // All ask far more often than the quota allows, so that no stock is lost: then nothing is missing but what is in stock.
    let begin = now;
    lab.advance(Duration::from_secs(10)).await;
    let mut count = 0_u64;
    for _ in 0..2000 {
        for worker in &workers {
            count += u64::from(worker.take("l", "k", quota, 1).await.unwrap().allowed);
        }
        lab.advance(Duration::from_millis(2)).await;
    }
    let fair = 60 + 2000 * 2 / 20;
    assert!(count <= fair + over_max, "{count} of {fair}, after {begin:?}");
    // A refusal is repeated for as long as it said, so no call is late by more than a step.
    assert!(count + over_max >= fair, "{count} of {fair}, after {begin:?}");
}
