//! Limits of routes on the embedded engine.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use lethe_state::{embedded::Embedded, sessions::NewSession};

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// An engine that counts how often it is asked.
struct Counted {
    limits: Arc<dyn Limits>,
    trips: Arc<AtomicU64>,
}

#[async_trait]
impl Limits for Counted {
    async fn take_all(&self, takes: Vec<Take>) -> Result<Vec<Verdict>, Error> {
        self.trips.fetch_add(1, Relaxed);
        self.limits.take_all(takes).await
    }

    async fn reset(&self, limit: &str, key: &str) -> Result<bool, Error> {
        self.limits.reset(limit, key).await
    }

    async fn list(&self, limit: &str, after: Option<&str>, most: usize) -> Result<Page, Error> {
        self.limits.list(limit, after, most).await
    }
}

struct Lab {
    engines: Engines,
    trips: Arc<AtomicU64>,
    counter: Arc<Counter>,
    _kept: (Embedded, tempfile::TempDir),
}

impl Lab {
    fn new(cores: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let embedded = Embedded::open(folder.path()).unwrap();
        let trips = Arc::<AtomicU64>::default();
        let engines = embedded.engines();
        let limits = Arc::new(Counted { limits: Arc::clone(&engines.limits), trips: Arc::clone(&trips) });
        let engines = Engines { limits, ..engines };
        let counter = Counter::new(&engines, cores);
        Self { engines, trips, counter, _kept: (embedded, folder) }
    }

    /// The keys of a limit that are not at rest.
    async fn keys(&self, limit: &str) -> Vec<String> {
        let page = self.engines.limits.list(limit, None, 0).await.unwrap();
        page.keys.into_iter().map(|usage| usage.key).collect()
    }
}

fn limit(name: &str, calls: u32, by: By) -> Limit {
    let on_outage = Outage::default();
    let timeout = Duration::from_secs(60);
    Limit { name: name.into(), calls, period: DAY, burst: calls, by, leased: true, on_outage, timeout }
}

/// What is said of a request from 192.0.2.7 with these fields.
async fn ask(judge: &dyn allowance::Judge, fields: &str) -> Judgement {
    let head = format!("GET / HTTP/1.1\r\nhost: h\r\nx-forwarded-for: 192.0.2.7, 10.0.0.1\r\n{fields}\r\n");
    judge.judge(Head::of(head.as_bytes())).await
}

#[track_caller]
fn value(fields: &Fields, name: &str) -> String {
    let field = fields.iter().find(|(other, _)| other == name.as_bytes());
    String::from_utf8(field.unwrap_or_else(|| panic!("no {name}")).1.clone()).unwrap()
}

fn has_passed(judgement: &Judgement) -> bool {
    matches!(judgement, Judgement::Passed(_))
}

#[tokio::test]
async fn a_quota_is_used_up_and_said() {
    let lab = Lab::new(1);
    let judge = lab.counter.judge(0, &[limit("api", 2, By::Address)]);
    for left in [1, 0] {
        let Judgement::Passed(fields) = ask(&*judge, "").await else { panic!("it is allowed") };
        assert!(value(&fields, "ratelimit").starts_with(&format!("\"api\";r={left};t=")));
        assert_eq!(value(&fields, "ratelimit-policy"), "\"api\";q=2;w=86400");
    }
    let Judgement::Refused(Refusal { fields, problem }) = ask(&*judge, "").await else {
        panic!("it is too much")
    };
    let retry_after: u64 = value(&fields, "retry-after").parse().unwrap();
    assert!((43_000..=43_200).contains(&retry_after), "{retry_after}");
    assert!(value(&fields, "ratelimit").starts_with("\"api\";r=0;t="));
    assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!((&problem["status"], &problem["violated-policies"]), (&429.into(), &vec!["api"].into()));
    // By the same key as a layer in a service.
    assert_eq!(lab.keys("api").await, ["address:192.0.2.7"]);
    assert!(lab.engines.limits.reset("api", "address:192.0.2.7").await.unwrap());
    assert!(has_passed(&ask(&*judge, "").await));
}

#[tokio::test]
async fn several_limits_are_asked_in_one_step() {
    let lab = Lab::new(1);
    let limits = [limit("key", 1, By::Header("x-api-key".into())), limit("all", 5, By::Everyone)];
    let judge = lab.counter.judge(0, &limits);
    assert!(has_passed(&ask(&*judge, "X-Api-Key: one\r\n").await));
    for _ in 0..9 {
        assert!(!has_passed(&ask(&*judge, "x-api-key: one\r\n").await));
    }
    assert_eq!(lab.trips.swap(0, Relaxed), 10);
    // What was refused by one was not taken of the other.
    for key in ["two", "three", "four", "five"] {
        assert!(has_passed(&ask(&*judge, &format!("x-api-key: {key}\r\n")).await));
    }
    assert!(!has_passed(&ask(&*judge, "x-api-key: six\r\n").await));
    assert!(!lab.keys("key").await.iter().any(|key| key.contains("one")), "keys are not shown");
}

#[tokio::test]
async fn sessions_that_live_are_counted_for_themselves() {
    let lab = Lab::new(1);
    let judge = lab.counter.judge(0, &[limit("own", 1, By::Session)]);
    let session = lab.engines.sessions.create(NewSession::default()).await.unwrap();
    let id = session.id.to_text();
    for cookie in [format!("__Host-session={id}"), format!("a=b; session={id}")] {
        let cookie = format!("cookie: {cookie}\r\n");
        assert!(has_passed(&ask(&*judge, &cookie).await));
        assert!(!has_passed(&ask(&*judge, &cookie).await));
        let [key] = &lab.keys("own").await[..] else { panic!("one key") };
        assert!(key.starts_with("session:") && !key.contains(&id), "{key}");
        lab.engines.limits.reset("own", key).await.unwrap();
    }
    // Whoever invents one, or has none, is counted by the address.
    assert!(has_passed(&ask(&*judge, "cookie: __Host-session=AAAAAAAAAAAAAAAAAAAAAA\r\n").await));
    assert!(!has_passed(&ask(&*judge, "").await));
    assert_eq!(lab.keys("own").await, ["address:192.0.2.7"]);
}

#[tokio::test]
async fn what_cannot_be_counted_passes_unless_it_must_not() {
    let folder = tempfile::tempdir().unwrap();
    let embedded = Embedded::open(folder.path()).unwrap();
    let engines = Engines { sessions: embedded.engines().sessions, ..Engines::absent("none") };
    let counter = Counter::new(&engines, 1);
    let judge = counter.judge(0, &[limit("open", 2, By::Address)]);
    assert!(matches!(ask(&*judge, "").await, Judgement::Uncounted));
    let strict = Limit { on_outage: Outage::Refuse, ..limit("strict", 2, By::Address) };
    let judge = counter.judge(0, &[limit("open", 2, By::Address), strict.clone()]);
    assert!(matches!(ask(&*judge, "").await, Judgement::Away));
    let judge = counter.judge(0, &[Limit { by: By::Session, ..strict }]);
    assert!(matches!(ask(&*judge, "").await, Judgement::Away));
}

#[test]
fn what_is_taken_at_once() {
    let second = Duration::from_secs(1);
    for (calls, period, burst, cores, expected) in [
        // Small ones are exact.
        (5, 60 * second, 5, 1, 0),
        (600, 60 * second, 600, 4, 1),
        (100, second, 7, 1, 1),
        // Half of what comes back in a second, for each core.
        (600, 60 * second, 600, 1, 5),
        (100, second, 100, 2, 12),
        (100, second, 1000, 2, 25),
        // A quarter of the burst, for all cores.
        (1000, second, 100, 5, 5),
        (1_000_000, second, 1_000_000, 2, LEASE_MAX),
    ] {
        let quota = Quota::per(calls, period).burst(burst);
        let lease = lease(quota, cores);
        assert_eq!(lease.calls, expected, "{quota:?} {cores}");
        let in_stock = cores * lease.calls.saturating_sub(1);
        assert!(in_stock <= burst / BURST_SHARE, "{quota:?} {cores}");
    }
}

#[tokio::test]
async fn most_requests_ask_nobody() {
    let lab = Lab::new(2);
    let large =
        Limit { calls: 1000, burst: 1000, period: Duration::from_secs(1), ..limit("l", 1, By::Address) };
    let judges = [0, 1].map(|core| lab.counter.judge(core, std::slice::from_ref(&large)));
    for _ in 0..100 {
        for judge in &judges {
            assert!(has_passed(&ask(&**judge, "").await));
        }
    }
    let trips = lab.trips.swap(0, Relaxed);
    // 64 at a time and core; a few more if this machine takes seconds for it.
    assert!((4..20).contains(&trips), "{trips}");
    // A new configuration with the same limit goes on with what is in stock.
    let again = lab.counter.judge(0, std::slice::from_ref(&large));
    drop(judges);
    assert_eq!(lab.counter.leased.lock().unwrap().len(), 2);
    assert!(has_passed(&ask(&*again, "").await));
    // Another one forgets those that nobody uses.
    let exact = Limit { leased: false, ..large.clone() };
    lab.counter.judge(0, &[Limit { name: "other".into(), ..large }]);
    assert_eq!(lab.counter.leased.lock().unwrap().len(), 2, "core 0 of both");
    let judge = lab.counter.judge(1, &[exact]);
    lab.trips.store(0, Relaxed);
    for _ in 0..10 {
        assert!(has_passed(&ask(&*judge, "").await));
    }
    assert_eq!(lab.trips.load(Relaxed), 10, "each for itself");
}
