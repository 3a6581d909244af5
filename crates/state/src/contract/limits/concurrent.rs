//! What limits promise when many call at once.

use super::{Duration, Fixture, Quota, call};

const TASKS: u32 = 16;
const CALLS: u32 = 10;
/// Nothing comes back while a test runs.
const DAYS: Duration = Duration::from_secs(100 * 24 * 3600);

/// Of many callers of one key exactly the burst are allowed, and no two are told the same number left.
pub async fn many_callers_share_a_burst(fixture: Fixture) {
    let quota = Quota::per(50, DAYS);
    let tasks = (0..TASKS).map(|_| {
        let limits = fixture.engines.limits.clone();
        tokio::spawn(async move {
            let mut left = Vec::new();
            for _ in 0..CALLS {
                let verdict = limits.take("l", "k", quota, 1).await.unwrap();
                if verdict.allowed {
                    left.push(verdict.remaining);
                }
            }
            assert!(left.is_sorted_by(|one, next| one > next), "it only goes down: {left:?}");
            left
        })
    });
    let mut left = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        left.extend(task.await.unwrap());
    }
    left.sort_unstable();
    assert_eq!(left, (0..50).collect::<Vec<_>>());
}

/// Callers who need two limits each, one of which is shared, take either both or neither.
pub async fn many_callers_of_several_limits_take_all_or_none(fixture: Fixture) {
    let (shared, own) = (Quota::per(40, DAYS), Quota::per(4, DAYS));
    let tasks = (0..TASKS).map(|task| {
        let limits = fixture.engines.limits.clone();
        tokio::spawn(async move {
            let key = task.to_string();
            let mut done = 0;
            for _ in 0..CALLS {
                let takes = vec![call("all", "k", shared, 1), call("own", &key, own, 1)];
                let verdicts = limits.take_all(takes).await.unwrap();
                done += u32::from(verdicts.iter().all(|verdict| verdict.allowed));
            }
            assert_eq!(limits.take("own", &key, own, 0).await.unwrap().remaining, 4 - done, "task {task}");
            done
        })
    });
    let mut done = 0;
    for task in tasks.collect::<Vec<_>>() {
        done += task.await.unwrap();
    }
    // What one gave back may have been refused to another meanwhile, on engines that do so; never was it too much.
    let left = fixture.engines.limits.take("all", "k", shared, 0).await.unwrap().remaining;
    assert_eq!(done + left, 40);
}
