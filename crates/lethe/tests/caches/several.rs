//! Several workers over one socket.

use lethe_state::{
    cache::Cache as _,
    clock::{Clock as _, ManualClock, SystemClock},
};

use super::{socket::Daemon, *};

/// One of them, for all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_several_workers_computes() {
    let (daemon, source) = (Daemon::start(), Source::shut());
    let caches: Vec<_> = (0..4).map(|_| daemon.worker().cache::<u32>("numbers")).collect();
    let mut requests = JoinSet::new();
    for cache in caches.iter().cycle().take(40) {
        let (cache, source) = (cache.clone(), source.clone());
        requests.spawn(async move { *cache.get_or("k", ask(&source)).await.unwrap() });
    }
    source.was_asked(1).await;
    source.answer(1);
    assert_eq!(requests.join_all().await, [0; 40]);
    assert_eq!(source.asked(), 1);
    assert_eq!(caches.iter().map(|cache| cache.counts().computed).sum::<u64>(), 1);
}

/// What one has removed, the memory of the others forgets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_reaches_the_memory_of_all() {
    let (daemon, source) = (Daemon::start(), Source::open());
    let caches: Vec<_> = (0..3).map(|_| daemon.worker().cache::<u32>("numbers")).collect();
    for round in 1..20 {
        for cache in &caches {
            let before = cache.counts().near;
            while cache.counts().near == before {
                cache.get_or("k", ask(&source)).await.unwrap();
            }
        }
        source.set(round);
        let remover = &caches[round as usize % 3];
        match round % 4 {
            0 => remover.clear().await.unwrap(),
            _ => remover.remove("k").await.unwrap(),
        }
        assert_eq!(
            *remover.get_or("k", ask(&source)).await.unwrap(),
            round,
            "who removes it sees that at once"
        );
        for cache in &caches {
            while *cache.get_or("k", ask(&source)).await.unwrap() != round {}
        }
    }
}

/// A worker that dies while it computes holds the others up for a lease at most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dead_are_waited_for_no_longer_than_their_lease() {
    let (daemon, source) = (Daemon::start(), Source::open());
    let dead = daemon.remote().begin("numbers", "k", Duration::from_millis(300)).await.unwrap();
    assert!(matches!(dead, Begun::Missing(_)));
    let cache = daemon.worker().cache::<u32>("numbers").wait(MINUTE);
    assert_eq!(*cache.get_or("k", ask(&source)).await.unwrap(), 0);
    let counts = cache.counts();
    assert_eq!((counts.computed, counts.alone), (1, 0), "it got the claim: {counts:?}");
}

/// Nobody waits for ever for one that is slow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slow_are_waited_for_no_longer_than_is_said() {
    let (daemon, source) = (Daemon::start(), Source::open());
    let slow = daemon.remote().begin("numbers", "k", MINUTE).await.unwrap();
    let Begun::Missing(slow) = slow else { panic!("{slow:?}") };
    source.set(1);
    let cache = daemon.worker().cache::<u32>("numbers").wait(Duration::from_millis(50));
    assert_eq!(*cache.get_or("k", ask(&source)).await.unwrap(), 1);
    assert_eq!(cache.counts().alone, 1);
    assert!(daemon.remote().abandon(&slow, Duration::ZERO).await.unwrap(), "its claim is still good");
}

/// A claim is extended for as long as its value is computed. The engine's clock is moved by hand, so that no lease ends while this
/// machine is busy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_computation_may_take_longer_than_a_lease() {
    let clock = ManualClock::new(SystemClock.now());
    let (daemon, source) = (Daemon::with(Arc::new(clock.clone())), Source::shut());
    let cache = daemon.worker().cache::<u32>("numbers");
    let request = tokio::spawn({
        let (cache, source) = (cache.clone(), source.clone());
        async move { *cache.get_or("k", ask(&source)).await.unwrap() }
    });
    source.was_asked(1).await;
    let remote = daemon.remote();
    let left = async || match remote.begin("numbers", "k", MINUTE).await.unwrap() {
        Begun::Busy(left) => left,
        other => panic!("{other:?}"),
    };
    // Longer in all than a lease is at first.
    for _ in 0..4 {
        clock.advance(Duration::from_secs(1));
        let before = left().await;
        while left().await <= before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    source.answer(1);
    assert_eq!(request.await.unwrap(), 0);
    assert!(matches!(remote.begin("numbers", "k", MINUTE).await.unwrap(), Begun::Fresh(_)));
}

/// The engine ends and comes back: requests are answered all the time, and memory is believed again once it is followed anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_of_the_daemon_is_survived() {
    let (mut daemon, source) = (Daemon::start(), Source::open());
    let cache = daemon.worker().cache::<u32>("numbers");
    while cache.counts().near == 0 {
        cache.get_or("k", ask(&source)).await.unwrap();
    }
    daemon.stop().await;
    source.set(1);
    while *cache.get_or("k", ask(&source)).await.unwrap() == 0 {}
    assert!(cache.counts().alone > 0);
    daemon.serve();
    let before = cache.counts().near;
    while cache.counts().near == before {
        cache.get_or("k", ask(&source)).await.unwrap();
    }
}
