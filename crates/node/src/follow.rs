//! `auto = true`: looks at the sources of services again and again, and has what is new deployed. A source that cannot be
//! looked at is told of once and asked less often; a version that failed is not tried again until there is another one.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use lethe_admin::stop::{Stop, Wish};
use lethe_model::service::ServiceName;
use tokio::time::{Instant, sleep_until};

use crate::{deploy::auto::Followed, reload::Reloader};

/// The longest between two looks at a source that cannot be looked at, unless it is looked at less often anyway.
const BACKOFF_MAX: Duration = Duration::from_secs(900);
/// When there is nothing to follow, or it is far off, what is configured is looked at again after this time at the latest.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// Failures in a row after which one is told again, for whoever reads only the end.
const TOLD_AGAIN_AFTER: u32 = 100;

/// When a source is looked at.
struct Turn {
    due: Instant,
    every: Duration,
    /// Looks that failed in a row.
    failures: u32,
}

/// Follows what is configured, until `stop` is turned or another process takes over.
pub(crate) async fn follow(reloader: Arc<Reloader>, stop: Stop) {
    let mut turns = BTreeMap::<ServiceName, Turn>::new();
    loop {
        // Asked for before the configuration is read, so that no change is missed.
        let changed = reloader.changed.notified();
        let Some(services) = reloader.followed().await else { return };
        let now = Instant::now();
        turns.retain(|name, it| {
            services.iter().any(|one| one.service.spec.name == *name && one.service.follow == Some(it.every))
        });
        for Followed { service, .. } in &services {
            let Some(every) = service.follow else { continue };
            let first = || Turn { due: now + spread(every), every, failures: 0 };
            turns.entry(service.spec.name.clone()).or_insert_with(first);
        }
        let next = turns.values().map(|it| it.due).min().unwrap_or(now + LONGEST_SLEEP);
        tokio::select! {
            () = stop.asked(Wish::Drain) => return,
            () = changed => continue,
            () = sleep_until(next.min(now + LONGEST_SLEEP)) => {}
        }
        let now = Instant::now();
        let is_due = |one: &&Followed| turns.get(&one.service.spec.name).is_some_and(|it| it.due <= now);
        let due: Vec<&Followed> = services.iter().filter(is_due).collect();
        let looks = join_all(due.iter().map(async |one| match reloader.has_news(one).await {
            Ok(true) => reloader.deploy_news(one).await,
            Ok(false) => Ok(()),
            Err(error) => Err(error.to_string()),
        }));
        let looks = tokio::select! {
            () = stop.asked(Wish::Drain) => return,
            looks = looks => looks,
        };
        for (one, looked) in due.into_iter().zip(looks) {
            let name = &one.service.spec.name;
            let Some(it) = turns.get_mut(name) else { continue };
            match looked {
                Ok(()) if it.failures > 0 => {
                    tracing::info!("{name}: its source can be had again");
                    it.failures = 0;
                }
                Ok(()) => {}
                Err(why) => {
                    if it.failures.is_multiple_of(TOLD_AGAIN_AFTER) {
                        tracing::warn!(
                            "{name}: what is new in its source cannot be had, and what runs goes on: {why}"
                        );
                    }
                    it.failures = it.failures.saturating_add(1);
                }
            }
            it.due = Instant::now() + spread(pause(it.every, it.failures));
        }
    }
}

/// How long to wait after so many failures in a row.
fn pause(every: Duration, failures: u32) -> Duration {
    every.saturating_mul(1 << failures.min(16)).min(BACKOFF_MAX.max(every))
}

/// Up to a tenth more or less, so that many do not ask at one time.
fn spread(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    let share = (random % 2001) as u32;
    pause * 9 / 10 + pause / 10 * share / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_make_it_ask_less_often() {
        let minute = Duration::from_secs(60);
        assert_eq!(
            [0, 1, 2, 9, 99].map(|failures| pause(minute, failures).as_secs()),
            [60, 120, 240, 900, 900]
        );
        let hour = 60 * minute;
        assert_eq!(pause(hour, 3), hour, "never more often than it was said");
    }

    #[test]
    fn looks_are_spread() {
        let minute = Duration::from_secs(60);
        let all: Vec<Duration> = (0..100).map(|_| spread(minute)).collect();
        assert!(all.iter().all(|pause| (54..=66).contains(&pause.as_secs())), "{all:?}");
        assert!(all.iter().any(|pause| *pause != all[0]));
    }
}
