//! Requests that are done once, on the embedded engine.

mod through;

use std::task::{Context, Wake, Waker};

use lethe_model::service::ServiceName;
use lethe_state::{
    embedded::Embedded,
    error::Error,
    idempotency::{Answer as Kept, Beginning as Asked, Begun as Known, Claim},
    realm::Realm,
    sessions::NewSession,
};

use super::*;

struct Lab {
    engines: Engines,
    _kept: (Embedded, tempfile::TempDir),
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let embedded = Embedded::open(folder.path()).unwrap();
        Self { engines: embedded.engines(), _kept: (embedded, folder) }
    }

    fn clerk(&self, tweak: impl FnOnce(&mut Route, &mut Once)) -> Box<dyn Clerk> {
        let mut route = Route::everything_to(ServiceName::new("shop").unwrap());
        let mut once = once();
        tweak(&mut route, &mut once);
        AnswerStore::new(&self.engines).clerk(&route, &once)
    }
}

fn once() -> Once {
    Once {
        methods: vec!["POST".into()],
        required: false,
        kept: Duration::from_secs(60),
        body_bytes_max: 1 << 20,
        answer_bytes_max: 1 << 20,
        scope: "route".into(),
        by: By::Session,
    }
}

/// What becomes of `POST /orders` with this key, these fields and this body.
async fn ask(clerk: &dyn Clerk, key: &str, fields: &str, body: &str) -> Begun {
    let head =
        format!("POST /orders HTTP/1.1\r\nhost: shop.example\r\nidempotency-key: {key}\r\n{fields}\r\n");
    clerk.begin(Head::of(head.as_bytes()), body.as_bytes()).await
}

async fn claim(clerk: &dyn Clerk, key: &str, fields: &str) -> Box<dyn lethe_gateway::ledger::Turn> {
    match ask(clerk, key, fields, "a mug").await {
        Begun::First(turn) => turn,
        other => panic!("{}", words(&other)),
    }
}

/// In short, what is to be done.
fn words(begun: &Begun) -> String {
    match begun {
        Begun::First(_) => "first".into(),
        Begun::Answered(answer) => format!("answered {}", String::from_utf8_lossy(&answer.body)),
        Begun::Refused(refusal) => {
            format!("{} {}", refusal.status, refusal.problem["code"].as_str().unwrap_or_default())
        }
        Begun::Away => "away".into(),
    }
}

fn answer(status: u16, body: &str) -> Ending {
    let fields = [("content-type", "text/plain"), ("set-cookie", "a=b"), ("content-length", "4")];
    let fields = fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Ending::Whole(Answer { status, fields, body: body.into() })
}

#[tokio::test]
async fn the_first_answer_is_the_answer_to_all() {
    let lab = Lab::new();
    let clerk = lab.clerk(|_, _| {});
    let turn = claim(&*clerk, "k", "").await;
    assert_eq!(words(&ask(&*clerk, "k", "", "a mug").await), "409 idempotency-running");
    assert_eq!(words(&ask(&*clerk, "k", "", "a cup").await), "422 idempotency-mismatch");
    turn.end(answer(201, "done")).await;
    // Another core, another time, the key in quotes: it is the same.
    let other = lab.clerk(|_, _| {});
    let Begun::Answered(kept) = ask(&*other, "\"k\"", "", "a mug").await else { panic!("it was answered") };
    let fields: Vec<_> = kept.fields.iter().map(|(name, _)| String::from_utf8_lossy(name)).collect();
    assert_eq!((kept.status, &kept.body[..]), (201, &b"done"[..]));
    assert_eq!(fields, ["content-type", "idempotent-replayed"], "no secrets, and no framing");
    assert_eq!(words(&ask(&*clerk, "k", "", "a cup").await), "422 idempotency-mismatch");
    assert_eq!(words(&ask(&*clerk, "k2", "", "a mug").await), "first");
}

#[tokio::test]
async fn heads_tell_whether_there_is_a_key() {
    let lab = Lab::new();
    let (optional, required) = (lab.clerk(|_, _| {}), lab.clerk(|_, once| once.required = true));
    for (fields, expected) in [
        ("", ["none", "400 idempotency-key-missing"]),
        ("Idempotency-Key: k\r\n", ["key", "key"]),
        ("idempotency-key: a b\r\n", ["400 idempotency-key-malformed"; 2]),
        ("idempotency-key: a\r\nidempotency-key: b\r\n", ["400 idempotency-key-malformed"; 2]),
    ] {
        let head = format!("POST / HTTP/1.1\r\nhost: h\r\n{fields}\r\n");
        let read = |clerk: &dyn Clerk| match clerk.read(Head::of(head.as_bytes())) {
            Reading::Keyless => "none".to_owned(),
            Reading::Keyed => "key".to_owned(),
            Reading::Refused(refusal) => words(&Begun::Refused(refusal)),
        };
        assert_eq!([read(&*optional), read(&*required)], expected, "{fields:?}");
    }
}

#[tokio::test]
async fn nobody_gets_the_answer_of_another() {
    let lab = Lab::new();
    let id = |user: &'static str| {
        let sessions = Arc::clone(&lab.engines.sessions);
        async move {
            let new = NewSession { user: Some(user.into()), ..NewSession::default() };
            sessions.create(new).await.unwrap().id.to_text()
        }
    };
    let (ada, bob, again) = (id("ada").await, id("bob").await, id("ada").await);
    // Another service's user of that name, whose cookie is sent to this route too.
    let namesake = {
        let realm = Realm::named("blog").unwrap();
        let new = NewSession { realm, user: Some("ada".into()), ..NewSession::default() };
        lab.engines.sessions.create(new).await.unwrap().id.to_text()
    };
    let cookie = |id: &str| format!("cookie: theme=dark; session={id}\r\n");
    let by_session = lab.clerk(|_, _| {});
    let by_cookie = lab.clerk(|_, once| {
        (once.by, once.scope) = (By::Cookie("sid".into()), "cookie".into());
    });
    let by_header = lab.clerk(|_, once| {
        (once.by, once.scope) = (By::Header("x-api-key".into()), "header".into());
    });
    // Callers, each of whom is another one; then one who is the first of them, looking otherwise.
    let cases: [(&dyn Clerk, Vec<String>, String); 4] = [
        (&*by_session, vec![cookie(&ada), cookie(&bob), cookie(&namesake), String::new()], cookie(&again)),
        (
            &*by_session,
            vec!["authorization: Bearer a\r\n".into(), "authorization: Bearer b\r\n".into()],
            "x-other: 1\r\nAuthorization: Bearer a\r\n".into(),
        ),
        (
            &*by_cookie,
            vec!["cookie: sid=a\r\n".into(), "cookie: sid=b\r\n".into(), "cookie: xsid=a\r\n".into()],
            "cookie: theme=dark; sid=a\r\n".into(),
        ),
        (
            &*by_header,
            vec!["x-api-key: a\r\n".into(), "x-api-key: b\r\n".into(), String::new()],
            "X-Api-Key: a\r\n".into(),
        ),
    ];
    for (number, (clerk, callers, first)) in cases.iter().enumerate() {
        let key = format!("k{number}");
        for (caller, fields) in callers.iter().enumerate() {
            claim(*clerk, &key, fields).await.end(answer(200, &caller.to_string())).await;
        }
        for (caller, fields) in callers.iter().enumerate() {
            assert_eq!(words(&ask(*clerk, &key, fields, "a mug").await), format!("answered {caller}"));
        }
        assert_eq!(words(&ask(*clerk, &key, first, "a mug").await), "answered 0");
    }
    // Nor that of another host.
    let head = "POST /orders HTTP/1.1\r\nhost: other.example\r\nidempotency-key: k0\r\n\r\n";
    let begun = by_session.begin(Head::of(head.as_bytes()), b"a mug").await;
    assert_eq!(words(&begun), "first");
}

#[tokio::test]
async fn answers_by_which_nothing_was_done_are_not_kept() {
    let lab = Lab::new();
    let clerk = lab.clerk(|_, _| {});
    for status in [500, 503, 401, 429] {
        claim(&*clerk, "k", "").await.end(answer(status, "no")).await;
    }
    let turn = claim(&*clerk, "k", "").await;
    let Ending::Whole(mut unknown) = answer(502, "who knows") else { unreachable!() };
    unknown.fields.push((OUTCOME.into(), b"unknown".to_vec()));
    turn.end(Ending::Whole(unknown)).await;
    assert_eq!(words(&ask(&*clerk, "k", "", "a mug").await), "answered who knows");
    for (status, is_unknown, expected) in
        [(503, false, None), (429, false, None), (201, false, Some(410)), (504, true, Some(502))]
    {
        let key = format!("large-{status}");
        claim(&*clerk, &key, "").await.end(Ending::Unkept { status, is_unknown }).await;
        match (ask(&*clerk, &key, "", "a mug").await, expected) {
            (Begun::First(_), None) => {}
            (Begun::Answered(kept), Some(expected)) => {
                assert_eq!((kept.status, kept.is_unknown()), (expected, is_unknown), "{status}");
            }
            (begun, _) => panic!("{status}: {}", words(&begun)),
        }
    }
}

#[tokio::test]
async fn who_left_before_it_began_has_no_claim() {
    let lab = Lab::new();
    let clerk = lab.clerk(|_, _| {});
    drop(ask(&*clerk, "k", "", "a mug"));
    let head = "POST /orders HTTP/1.1\r\nhost: shop.example\r\nidempotency-key: k\r\n\r\n";
    for _ in 0..20 {
        // It is begun, and nobody waits for word of it.
        drop(clerk.begin(Head::of(head.as_bytes()), b"a mug"));
    }
    // They give it back, in whatever order.
    loop {
        match ask(&*clerk, "k", "", "a mug").await {
            Begun::First(_) => break,
            begun => assert_eq!(words(&begun), "409 idempotency-running"),
        }
    }
}

/// Tells that a future wants to be polled.
struct Woken(tokio::sync::Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

#[tokio::test]
async fn a_claim_that_was_on_its_way_is_given_back() {
    let lab = Lab::new();
    let clerk = lab.clerk(|_, _| {});
    let head = "POST /orders HTTP/1.1\r\nhost: shop.example\r\nidempotency-key: k\r\n\r\n";
    let mut beginning = clerk.begin(Head::of(head.as_bytes()), b"a mug");
    let woken = Arc::new(Woken(tokio::sync::Notify::new()));
    let waker = Waker::from(Arc::clone(&woken));
    assert!(beginning.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    // The word is there, and nobody hears it.
    woken.0.notified().await;
    drop(beginning);
    loop {
        match ask(&*clerk, "k", "", "a mug").await {
            Begun::First(_) => break,
            begun => assert_eq!(words(&begun), "409 idempotency-running"),
        }
    }
}

/// An engine whose claims last for a moment, and that can be switched off.
struct Brief {
    keys: Arc<dyn Idempotency>,
    is_away: std::sync::atomic::AtomicBool,
}

#[async_trait::async_trait]
impl Idempotency for Brief {
    async fn begin(&self, asked: Asked) -> Result<Known, Error> {
        if self.is_away.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Error::Unavailable("it is away".into()));
        }
        self.keys.begin(Asked { lease: Duration::from_millis(1), ..asked }).await
    }

    async fn extend(&self, _: &Claim, _: Duration) -> Result<bool, Error> {
        panic!("nothing here takes so long")
    }

    async fn finish(&self, claim: &Claim, answer: Kept) -> Result<bool, Error> {
        self.keys.finish(claim, answer).await
    }

    async fn abandon(&self, claim: &Claim) -> Result<bool, Error> {
        self.keys.abandon(claim).await
    }
}

#[tokio::test]
async fn what_was_begun_and_never_answered_is_done_again_only_where_that_is_safe() {
    let mut lab = Lab::new();
    let keys = Arc::clone(&lab.engines.idempotency);
    let brief = Arc::new(Brief { keys, is_away: Default::default() });
    lab.engines.idempotency = Arc::clone(&brief) as _;
    let (careful, safe) = (lab.clerk(|_, _| {}), lab.clerk(|route, _| route.idempotent = true));
    // Its gateway is killed.
    drop(claim(&*careful, "k", "").await);
    let lost = loop {
        match ask(&*careful, "k", "", "a mug").await {
            Begun::Refused(refusal) if refusal.status == 409 => tokio::task::yield_now().await,
            begun => break begun,
        }
    };
    assert_eq!(words(&lost), "502 idempotency-unknown");
    let Begun::Refused(refusal) = lost else { unreachable!() };
    assert_eq!(refusal.fields, [(OUTCOME.into(), b"unknown".to_vec())]);
    assert_eq!(words(&ask(&*safe, "k", "", "a mug").await), "first");
    brief.is_away.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(words(&ask(&*careful, "k", "", "a mug").await), "away");
}
