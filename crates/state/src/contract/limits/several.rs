//! What calls of several limits at once promise.

use super::{Duration, Error, Fixture, SLOW, TAKES_MAX, call};

/// When one refuses, nothing is taken of any; each verdict speaks for its own limit.
pub async fn several_limits_take_all_or_none(fixture: Fixture) {
    let limits = &fixture.engines.limits;
    let (narrow, wide) = (SLOW.burst(2), SLOW);
    let both = || vec![call("address", "1.2.3.4", wide, 1), call("account", "ada", narrow, 1)];
    for left in [1, 0] {
        let verdicts = limits.take_all(both()).await.unwrap();
        assert!(verdicts.iter().all(|verdict| verdict.allowed));
        assert_eq!(verdicts.iter().map(|verdict| verdict.remaining).collect::<Vec<_>>(), [left + 3, left]);
    }
    for order in [both(), both().into_iter().rev().collect()] {
        let verdicts = limits.take_all(order.clone()).await.unwrap();
        for (take, verdict) in order.iter().zip(&verdicts) {
            let is_wide = take.limit == "address";
            let expected = if is_wide { (true, 3) } else { (false, 0) };
            assert_eq!((verdict.allowed, verdict.remaining), expected, "{}", take.limit);
            assert_eq!(verdict.retry_after.is_zero(), is_wide);
        }
    }
    // Two keys of one limit, what only asks, and what never will be.
    let verdicts = limits
        .take_all(vec![call("l", "a", wide, 5), call("l", "b", wide, 0), call("account", "ada", narrow, 3)])
        .await
        .unwrap();
    let told: Vec<_> = verdicts.iter().map(|verdict| (verdict.allowed, verdict.remaining)).collect();
    assert_eq!(told, [(true, 5), (true, 5), (false, 0)]);
    assert_eq!(verdicts[2].retry_after, Duration::MAX);
    let verdicts = limits.take_all(vec![call("l", "a", wide, 5), call("l", "b", wide, 2)]).await.unwrap();
    let told: Vec<_> = verdicts.iter().map(|verdict| (verdict.allowed, verdict.remaining)).collect();
    assert_eq!(told, [(true, 0), (true, 3)]);
}

/// At least one, at most [`TAKES_MAX`], and each key once: whatever is refused takes nothing.
pub async fn several_limits_have_bounds(fixture: Fixture) {
    let limits = &fixture.engines.limits;
    let calls = |count: usize| (0..count).map(|n| call("l", &format!("k{n}"), SLOW, 1)).collect::<Vec<_>>();
    let mut twice = calls(2);
    twice.push(call("l", "k0", SLOW, 1));
    for takes in [calls(0), calls(TAKES_MAX + 1), twice] {
        let result = limits.take_all(takes.clone()).await;
        assert!(matches!(result, Err(Error::Invalid(_))), "{}: {result:?}", takes.len());
    }
    let verdicts = limits.take_all(calls(TAKES_MAX)).await.unwrap();
    assert_eq!(verdicts.len(), TAKES_MAX);
    assert!(verdicts.iter().all(|verdict| verdict.allowed && verdict.remaining == 4));
}
