//! The fields that tell a client how it stands (draft-ietf-httpapi-ratelimit-headers-11): `RateLimit-Policy`, section 3,
//! and `RateLimit`, section 4. Both are lists of structured fields (RFC 9651) with one item for each limit.

use std::{fmt::Write as _, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use lethe_state::limits::{Quota, Verdict, gcra::Pace};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");

/// How one limit stands.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) name: String,
    pub(super) quota: Quota,
    pub(super) pace: Pace,
    pub(super) verdict: Verdict,
}

/// Adds the fields. They are added to those of other layers, which is what lists are for (section 3). When a limit
/// refuses, only those that do are said to stand in some way: `Retry-After` must not lie before the end of a window that is
/// told (section 6).
pub(super) fn put<'a>(headers: &mut HeaderMap, standings: impl Iterator<Item = &'a Standing> + Clone) {
    let refused = standings.clone().any(|standing| !standing.verdict.allowed);
    let told = standings.clone().filter(|standing| !(refused && standing.verdict.allowed));
    append(headers, POLICY, standings.map(policy));
    append(headers, STATE, told.map(state));
}

fn append(headers: &mut HeaderMap, name: HeaderName, items: impl Iterator<Item = String>) {
    let items: Vec<String> = items.collect();
    // Names and numbers are made of nothing that a field may not have.
    if let (false, Ok(value)) = (items.is_empty(), HeaderValue::try_from(items.join(", "))) {
        headers.append(name, value);
    }
}

/// `"api";q=600;w=60`. A window is said in whole seconds or not at all (section 3.1.3).
fn policy(standing: &Standing) -> String {
    let Quota { calls, period, burst } = standing.quota;
    let mut item = format!("\"{}\";q={calls}", standing.name);
    if period.subsec_nanos() == 0 {
        let _ = write!(item, ";w={}", period.as_secs());
    }
    if burst != calls {
        let _ = write!(item, ";lethe-burst={burst}");
    }
    item
}

/// `"api";r=3;t=12`.
fn state(standing: &Standing) -> String {
    let remaining = standing.verdict.remaining;
    format!("\"{}\";r={remaining};t={}", standing.name, seconds(window(standing.pace, &standing.verdict)))
}

/// How long there will be no more calls than remain (section 4.1.2): until the next one is there.
fn window(pace: Pace, verdict: &Verdict) -> Duration {
    let owed = i64::try_from(verdict.reset_after.as_micros()).unwrap_or(i64::MAX);
    let missing = i64::from(pace.burst()) - i64::from(verdict.remaining);
    let next = owed.saturating_sub((missing - 1).saturating_mul(pace.interval_us()));
    Duration::from_micros(u64::try_from(next).unwrap_or(0))
}

/// In whole seconds, rounded up, so that nobody is too early.
pub(super) fn seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use lethe_state::limits::gcra;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn standing(name: &str, quota: Quota, used: u32, cost: u32, later: Duration) -> Standing {
        let pace = quota.pace().unwrap();
        let full_at = gcra::decide(pace, None, 0, used).full_at;
        let verdict = gcra::decide(pace, full_at, later.as_micros() as i64, cost).verdict;
        Standing { name: name.into(), quota, pace, verdict }
    }

    #[track_caller]
    fn check(standings: &[Standing], policy: &str, state: &str) {
        let mut headers = HeaderMap::new();
        put(&mut headers, standings.iter());
        assert_eq!(headers["ratelimit-policy"], policy);
        assert_eq!(headers["ratelimit"], state);
    }

    #[test]
    fn a_limit_is_told_with_the_time_of_its_next_call() {
        let quota = Quota::per(5, MINUTE);
        let at = |used, cost, later| standing("sign-in", quota, used, cost, later);
        check(&[at(0, 1, Duration::ZERO)], "\"sign-in\";q=5;w=60", "\"sign-in\";r=4;t=12");
        check(&[at(4, 1, Duration::ZERO)], "\"sign-in\";q=5;w=60", "\"sign-in\";r=0;t=12");
        check(&[at(5, 1, Duration::ZERO)], "\"sign-in\";q=5;w=60", "\"sign-in\";r=0;t=12");
        check(&[at(5, 1, Duration::from_millis(11_001))], "\"sign-in\";q=5;w=60", "\"sign-in\";r=0;t=1");
        check(&[at(5, 0, Duration::from_secs(13))], "\"sign-in\";q=5;w=60", "\"sign-in\";r=1;t=11");
        check(&[at(0, 0, Duration::ZERO)], "\"sign-in\";q=5;w=60", "\"sign-in\";r=5;t=12");
    }

    #[test]
    fn odd_periods_and_bursts_are_said_as_far_as_they_can_be() {
        let short = Quota::per(10, Duration::from_millis(1500));
        check(&[standing("a", short, 0, 1, Duration::ZERO)], "\"a\";q=10", "\"a\";r=9;t=1");
        let burst = Quota::per(60, MINUTE).burst(3);
        check(
            &[standing("b", burst, 0, 1, Duration::ZERO)],
            "\"b\";q=60;w=60;lethe-burst=3",
            "\"b\";r=2;t=1",
        );
    }

    #[test]
    fn a_refusal_tells_of_those_who_refuse() {
        let allowed = standing("all", Quota::per(100, 60 * MINUTE), 10, 0, Duration::ZERO);
        let refused = standing("own", Quota::per(5, MINUTE), 5, 1, Duration::ZERO);
        let policy = "\"all\";q=100;w=3600, \"own\";q=5;w=60";
        check(&[allowed.clone(), refused.clone()], policy, "\"own\";r=0;t=12");
        let fresh = standing("own", Quota::per(5, MINUTE), 0, 1, Duration::ZERO);
        check(&[allowed, fresh], policy, "\"all\";r=90;t=36, \"own\";r=4;t=12");
    }

    #[test]
    fn the_fields_of_other_layers_stay() {
        let mut headers = HeaderMap::new();
        for name in ["a", "b"] {
            put(&mut headers, [standing(name, Quota::per(5, MINUTE), 0, 1, Duration::ZERO)].iter());
        }
        let told: Vec<_> = headers.get_all("ratelimit").into_iter().collect();
        assert_eq!(told, ["\"a\";r=4;t=12", "\"b\";r=4;t=12"]);
        put(&mut headers, [].iter());
        assert_eq!(headers.get_all("ratelimit-policy").into_iter().count(), 2);
    }
}
