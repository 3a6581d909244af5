//! Each route against what a service was not given. The routes come from the table that the server is made of, so that one
//! whose rule is too generous, or whose handler forgets to ask, fails here as soon as it exists.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::oneshot,
};

use super::{super::*, *};
use crate::{clock::ManualClock, embedded::Embedded, sessions::NewSession};

/// A server with one service `web`, and its grant.
struct Served {
    path: std::path::PathBuf,
    grants: Arc<Grants>,
    _end: oneshot::Sender<()>,
    _folder: tempfile::TempDir,
    engine: Embedded,
}

struct Fixed(Peer);

#[async_trait]
impl Peers for Fixed {
    async fn peer(&self, _: Option<i32>) -> Peer {
        self.0.clone()
    }
}

fn served(grant: Option<Grant>) -> Served {
    served_to(grant, Peer::Other)
}

/// The same, where whoever comes is this.
fn served_to(grant: Option<Grant>, peer: Peer) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let engine = Embedded::open_with(&folder.path().join("state"), clock).unwrap();
    let (path, grants) = (folder.path().join("web.sock"), Arc::new(Grants::default()));
    grants.set("web", grant);
    let door = Door::of_service("web", Arc::clone(&grants), Arc::new(Fixed(peer)));
    let (end, ended) = oneshot::channel::<()>();
    let api = Api::new(engine.engines()).serve(socket::bind(&path).unwrap(), door, async {
        let _ = ended.await;
    });
    tokio::spawn(api);
    Served { path, grants, _end: end, _folder: folder, engine }
}

/// The answer's status, and its body. Who is refused over HTTP is refused in a frame too.
async fn ask(served: &Served, method: &Method, path: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(&served.path).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: state\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A feed has no end.
    let has = |answer: &[u8], what: &[u8]| answer.windows(what.len()).any(|part| part == what);
    let is_feed = |answer: &[u8]| has(answer, b"text/event-stream") && has(answer, b"\r\n\r\n");
    while stream.read_buf(&mut answer).await.unwrap() > 0 && !is_feed(&answer) {}
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, answered) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    if status == 403 {
        assert_eq!(ask_in_a_frame(served, method, path, body).await, 403, "{method} {path} in a frame");
    }
    (status, answered.to_owned())
}

/// The status of an answer in a frame.
async fn ask_in_a_frame(served: &Served, method: &Method, path: &str, body: &str) -> u16 {
    let mut stream = UnixStream::connect(&served.path).await.unwrap();
    let upgrade =
        "GET /v1/frames HTTP/1.1\r\nhost: state\r\nconnection: upgrade\r\nupgrade: lethe-frames-1\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    let mut call = bytes::BytesMut::new();
    crate::frames::write_call(&mut call, 1, method, path, &http::HeaderMap::new(), body.as_bytes()).unwrap();
    stream.write_all(&call).await.unwrap();
    let mut read = bytes::BytesMut::new();
    loop {
        assert!(stream.read_buf(&mut read).await.unwrap() > 0);
        let head = read.windows(4).position(|part| part == b"\r\n\r\n").map_or(read.len(), |end| end + 4);
        let mut frames = read.split_off(head);
        if let Some(answer) = crate::frames::take_answer(&mut frames, 1 << 20).unwrap() {
            let crate::frames::Answer::Whole { status, .. } = answer else { panic!("the server leaves") };
            return status.as_u16();
        }
        read.unsplit(frames);
    }
}

/// `own` of each resource, and what begins with `own-`.
fn some() -> Grant {
    let mut grant = Grant::default();
    for resource in Resource::ALL {
        grant.give(resource, ["own", "own-*"].map(|text| Pattern::parse(resource, text).unwrap()));
    }
    grant
}

/// The path of a route with this name as its first variable segment.
fn path(route: &Route, name: &str) -> String {
    let mut segments = 0;
    let segment = |segment: &str| match segment.strip_prefix('{') {
        Some(_) => {
            segments += 1;
            if segments == 1 { name.to_owned() } else { "any".to_owned() }
        }
        None => segment.to_owned(),
    };
    route.path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

/// What the segment is called that names one.
fn parameter_of(resource: Resource) -> &'static str {
    match resource {
        Resource::Idempotency => "scope",
        other => other.one(),
    }
}

/// A body that uses this name beside one that was given.
fn body(route: &Route, name: &str) -> String {
    match route.path {
        "/v1/batch" => format!(
            r#"{{"writes":[{{"table":"own","key":"k","action":"put","value":"v"}},
                           {{"table":"{name}","key":"k","action":"check"}}]}}"#
        ),
        "/v1/take" => format!(
            r#"{{"takes":[{{"limit":"own","key":"k","calls":5,"period_ms":1000}},
                          {{"limit":"{name}","key":"k","calls":5,"period_ms":1000}}]}}"#
        ),
        path => panic!("{path} names something in its body: write here how, so that it is tested"),
    }
}

#[tokio::test]
async fn no_route_gives_what_was_not_granted() {
    let served = served(Some(some()));
    for route in routes() {
        let (method, what) = (&route.method, format!("{} {}", route.method, route.path));
        let (refused, allowed) = match route.rule {
            Rule::Free => {
                assert!(
                    ["/v1/openapi.json", "/v1/health", crate::frames::PATH].contains(&route.path),
                    "{what} says nothing of what is kept?"
                );
                assert_ne!(ask(&served, method, &path(&route, "x"), "").await.0, 403, "{what}");
                continue;
            }
            Rule::Operator => {
                served.grants.set("web", None);
                let refused = ask(&served, method, &path(&route, "rows"), "").await;
                served.grants.set("web", Some(some()));
                assert_eq!(refused.0, 403, "{what}: a service with everything has not that");
                continue;
            }
            Rule::Named(resource) => {
                let parameter = route.path.split(['{', '}']).nth(1);
                assert_eq!(parameter, Some(parameter_of(resource)), "{what} is of another kind");
                let refused = ask(&served, method, &path(&route, "foreign"), "").await;
                (refused, ask(&served, method, &path(&route, "own"), "").await)
            }
            Rule::InBody(_) => {
                let refused = ask(&served, method, route.path, &body(&route, "foreign")).await;
                (refused, ask(&served, method, route.path, &body(&route, "own-2")).await)
            }
            Rule::Sessions | Rule::Session => {
                let refused = ask(&served, method, &path(&route, "x"), "").await;
                let mut sessions = Grant::default();
                sessions.sessions = Some(Realm::default());
                served.grants.set("web", Some(sessions));
                let allowed = ask(&served, method, &path(&route, "x"), "").await;
                if route.path.contains("/sessions/{id}") {
                    foreign_session(&served, &route).await;
                }
                served.grants.set("web", Some(some()));
                (refused, allowed)
            }
            Rule::Listed(Resource::Locks) => {
                listed_locks(&served, route.path).await;
                continue;
            }
            Rule::Listed(_) => {
                panic!("{what} lists names: test here that it lists those alone that are granted")
            }
        };
        assert_eq!(refused.0, 403, "{what}: {}", refused.1);
        if *method != Method::HEAD {
            let problem: serde_json::Value = serde_json::from_str(&refused.1).unwrap();
            assert_eq!(problem["code"], "denied", "{what}: {problem}");
            let detail = problem["detail"].as_str().unwrap();
            let (key, asked) = match route.rule {
                Rule::Named(resource) | Rule::InBody(resource) => (resource.name(), "`foreign`"),
                _ => ("sessions = true", "sessions"),
            };
            for part in [key, asked, "[services.web] in lethe.toml", "lethe reload"] {
                assert!(detail.contains(part), "{what}: {detail}");
            }
        }
        assert_ne!(allowed.0, 403, "{what}: {}", allowed.1);
    }
}

/// Asks for a session that is alive, and of another realm.
async fn foreign_session(served: &Served, route: &Route) {
    let sessions = served.engine.engines().sessions;
    let realm = Realm::named("foreign").unwrap();
    let id = sessions.create(NewSession { realm, ..NewSession::default() }).await.unwrap().id;
    let body = if [Method::PATCH, Method::POST].contains(&route.method) { "{}" } else { "" };
    let (status, text) = ask(served, &route.method, &path(route, &id.to_text()), body).await;
    let expected = if route.method == Method::DELETE { 204 } else { 404 };
    assert_eq!(status, expected, "{} {}: {text}", route.method, route.path);
    sessions.load(&id).await.unwrap();
}

/// A worker of a service that may use everything has the sessions in common, also where those of others are.
#[tokio::test]
async fn who_has_everything_has_the_sessions_in_common_at_each_door() {
    let mut shop = Grant::default();
    shop.sessions = Some(Realm::named("shop").unwrap());
    let served = served_to(Some(shop), Peer::Worker("api".into()));
    served.grants.set("api", None);
    let sessions = served.engine.engines().sessions;
    let new = |realm| NewSession { realm, user: Some("ada".into()), ..NewSession::default() };
    let of_shop = sessions.create(new(Realm::named("shop").unwrap())).await.unwrap().id;
    let common = sessions.create(new(Realm::default())).await.unwrap().id;
    for (id, expected) in [(of_shop, 404), (common, 200)] {
        let path = format!("/v1/sessions/{}", id.to_text());
        assert_eq!(ask(&served, &Method::GET, &path, "").await.0, expected);
    }
    let (status, list) = ask(&served, &Method::GET, "/v1/users/ada/sessions", "").await;
    assert_eq!((status, list.matches("handle").count()), (200, 1), "{list}");
    assert_eq!(ask(&served, &Method::GET, "/v1/users/ada/sessions?realm=shop", "").await.0, 403);
}

/// The socket of whoever runs lethe is no way around that, nor for what has left its worker.
#[test]
fn only_whoever_runs_lethe_has_all_realms() {
    let visit = |service: Option<&str>, peer: Peer| {
        let grants = Arc::new(Grants::default());
        grants.set("web", None);
        let door = Door { service: service.map(Into::into), grants, peers: None };
        let socket = Socket { feeds: Arc::new(Semaphore::new(1)), ending: watch::channel(()).1 };
        Visitor(Arc::new(Visit { door, peer, socket, frames: Mutex::default() }))
    };
    for (service, peer, has_all) in [
        (None, Peer::Other, true),
        (None, Peer::Worker("web".into()), false),
        (None, Peer::Stray, false),
        (Some("web"), Peer::Other, false),
        (Some("web"), Peer::Worker("web".into()), false),
    ] {
        let visitor = visit(service, peer.clone());
        let expected = (!has_all).then(Realm::default);
        assert_eq!(visitor.realm().unwrap(), expected, "{service:?} {peer:?}");
        let write = Asked { resource: Resource::Tables, name: revocations::TABLE, key: None, is_read: false };
        assert_eq!(visitor.may(write).is_ok(), has_all, "{service:?} {peer:?}");
    }
}

/// Lists foreign locks beside own ones.
async fn listed_locks(served: &Served, path: &str) {
    served.grants.set("web", None);
    for name in ["a", "own", "own-1", "own-2", "own-3", "owned", "z"] {
        let (status, text) = ask(
            served,
            &Method::POST,
            &format!("/v1/locks/{name}/acquire"),
            r#"{"holder":"h","lease_ms":60000}"#,
        )
        .await;
        assert_eq!(status, 200, "{text}");
    }
    let names = async |query: &str| {
        let (status, text) = ask(served, &Method::GET, &format!("{path}{query}"), "").await;
        assert_eq!(status, 200, "{text}");
        let page: serde_json::Value = serde_json::from_str(&text).unwrap();
        let leases = page["leases"].as_array().unwrap().iter();
        (leases.map(|lease| lease["name"].as_str().unwrap().to_owned()).collect(), page["next"].clone())
    };
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let all: (Vec<String>, _) = names("").await;
    assert_eq!(all.0.len(), 7);
    served.grants.set("web", Some(some()));
    let null = serde_json::Value::Null;
    assert_eq!(names("").await, (list(&["own", "own-1", "own-2", "own-3"]), null.clone()));
    assert_eq!(names("?limit=2").await, (list(&["own", "own-1"]), "own-1".into()));
    assert_eq!(names("?limit=2&after=own-1").await, (list(&["own-2", "own-3"]), null.clone()));
    assert_eq!(names("?after=own-3").await, (list(&[]), null.clone()));
    assert_eq!(names("?after=zz").await, (list(&[]), null.clone()));
    served.grants.set("web", Some(Grant::default()));
    assert_eq!(names("").await, (list(&[]), null));
    served.grants.set("web", Some(some()));
}

#[tokio::test]
async fn a_batch_with_a_foreign_table_is_refused_whole() {
    let served = served(Some(some()));
    let batch = routes().into_iter().find(|route| route.path == "/v1/batch").unwrap();
    let refused = ask(&served, &Method::POST, batch.path, &body(&batch, "foreign")).await;
    assert_eq!(refused.0, 403, "{}", refused.1);
    let row = ask(&served, &Method::GET, "/v1/tables/own/k", "").await;
    assert_eq!(row.0, 404, "nothing of it was done");
    // Names are compared as they are, however they are written.
    for path in ["/v1/tables/%66oreign/k", "/v1/tables/own%2F..%2Fforeign/k", "/v1/tables/%FF/k"] {
        let (status, text) = ask(&served, &Method::GET, path, "").await;
        assert_eq!(status, 403, "{path}: {text}");
    }
    assert_eq!(ask(&served, &Method::GET, "/v1/tables/%6Fwn/k", "").await.0, 404);
}

#[tokio::test]
async fn a_lock_comes_with_its_fence() {
    let mut grant = Grant::default();
    grant.give(Resource::Locks, [Pattern::parse(Resource::Locks, "own").unwrap()]);
    let served = served(Some(grant));
    let batch = async |key: &str, action: &str| {
        let write = format!(r#"{{"table":"lethe-fences","key":"{key}",{action}}}"#);
        ask(&served, &Method::POST, "/v1/batch", &format!(r#"{{"writes":[{write}]}}"#)).await
    };
    let (status, text) = batch("own", r#""action":"fence","token":7"#).await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(batch("other", r#""action":"fence","token":7"#).await.0, 403);
    // It may not be opened.
    assert_eq!(batch("own", r#""action":"delete""#).await.0, 403);
}

#[tokio::test]
async fn what_was_given_comes_with_what_it_needs_and_no_more() {
    let (mut sessions, mut caches) = (Grant::default(), Grant::default());
    sessions.sessions = Some(Realm::default());
    caches.give(Resource::Caches, [Pattern::parse(Resource::Caches, "own").unwrap()]);
    let (with_sessions, with_caches) = (served(Some(sessions)), served(Some(caches)));
    let batch = |table: &str, key: &str| {
        format!(r#"{{"writes":[{{"table":"{table}","key":"{key}","action":"put","value":"v"}}]}}"#)
    };
    for (method, path, body, is_allowed) in [
        (Method::GET, "/v1/tables/lethe-revocations", "", true),
        (Method::GET, "/v1/tables/lethe-revocations/u%2Fx", "", true),
        (Method::GET, "/v1/feeds/tables/lethe-revocations", "", true),
        (Method::PUT, "/v1/tables/lethe-revocations/u%2Fx", "v", false),
        (Method::DELETE, "/v1/tables/lethe-revocations/u%2Fx", "", false),
        (Method::POST, "/v1/tables/lethe-revocations/u%2Fx/increment", "{}", false),
        (Method::POST, "/v1/batch", &batch("lethe-revocations", "u/x"), false),
        (Method::GET, "/v1/tables/lethe-token-keys/web", "", true),
        (Method::PUT, "/v1/tables/lethe-token-keys/web", "v", true),
        (Method::POST, "/v1/batch", &batch("lethe-token-keys", "web"), true),
        (Method::GET, "/v1/tables/lethe-token-keys/api", "", false),
        (Method::PUT, "/v1/tables/lethe-token-keys/api", "v", false),
        (Method::POST, "/v1/batch", &batch("lethe-token-keys", "api"), false),
        (Method::GET, "/v1/tables/lethe-token-keys", "", false),
        (Method::GET, "/v1/feeds/tables/lethe-token-keys", "", false),
    ] {
        let (status, text) = ask(&with_sessions, &method, path, body).await;
        assert_eq!(status != 403, is_allowed, "{method} {path} {body}: {text}");
        let (status, text) = ask(&with_caches, &method, path, body).await;
        assert_eq!(status, 403, "{method} {path} without sessions: {text}");
    }
    for (method, path, body, is_allowed) in [
        (Method::GET, "/v1/cache/lethe-hot/web", "", true),
        (Method::POST, "/v1/cache/lethe-hot/web/begin", r#"{"lease_ms":5000}"#, true),
        (Method::PUT, "/v1/cache/lethe-hot/web?token=1&fresh_ms=0&stale_ms=1", "v", true),
        (Method::GET, "/v1/cache/lethe-hot/api", "", false),
        (Method::POST, "/v1/cache/lethe-hot/api/begin", r#"{"lease_ms":5000}"#, false),
        (Method::POST, "/v1/cache/lethe-hot", r#"{"keys":["web"]}"#, false),
        (Method::DELETE, "/v1/cache/lethe-hot", "", false),
        (Method::GET, "/v1/feeds/cache/lethe-hot", "", false),
    ] {
        let (status, text) = ask(&with_caches, &method, path, body).await;
        assert_eq!(status != 403, is_allowed, "{method} {path} {body}: {text}");
        let (status, text) = ask(&with_sessions, &method, path, body).await;
        assert_eq!(status, 403, "{method} {path} without caches: {text}");
    }
}

#[tokio::test]
async fn a_feed_ends_with_the_right_to_it() {
    for path in ["/v1/feeds/tables/notes", "/v1/feeds/cache/pages", "/v1/feeds/sessions"] {
        let served = served(None);
        let mut stream = UnixStream::connect(&served.path).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: state\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut told = Vec::new();
        while !told.windows(4).any(|part| part == b"\r\n\r\n") {
            stream.read_buf(&mut told).await.unwrap();
        }
        served.grants.set("web", Some(some()));
        stream.read_to_end(&mut told).await.unwrap();
        let told = String::from_utf8(told).unwrap();
        assert!(told.contains("200 OK") && told.contains(r#""code":"denied""#), "{path}: {told}");
    }
}

#[tokio::test]
async fn a_change_holds_at_once_on_connections_that_exist() {
    let served = served(None);
    let mut stream = UnixStream::connect(&served.path).await.unwrap();
    let mut status = async || {
        let request = "PUT /v1/tables/notes/a HTTP/1.1\r\nhost: state\r\ncontent-length: 1\r\n\r\nx";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // An answer ends with its body, and a 204 has none.
        while !answer.ends_with(b"\r\n\r\n") && !answer.ends_with(b"}") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
        }
        String::from_utf8(answer).unwrap().split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    assert_eq!(status().await, 204);
    served.grants.set("web", Some(some()));
    assert_eq!(status().await, 403);
    served.grants.set("web", None);
    assert_eq!(status().await, 204);
    served.grants.remove("web");
    assert_eq!(status().await, 403);
}

fn grants(of: &[(&str, Option<Grant>)]) -> BTreeMap<String, Option<Grant>> {
    of.iter().map(|(name, grant)| ((*name).to_owned(), grant.clone())).collect()
}

#[test]
fn who_is_bounded_stays_at_its_own_door() {
    let (all, some) = (None, Some(Grant::default()));
    let worker = |service: &str| Peer::Worker(service.into());
    let free = grants(&[("web", all.clone()), ("api", all.clone())]);
    let bounded = grants(&[("web", all), ("api", some)]);
    for (door, peer, grants, passes) in [
        (Some("web"), worker("web"), &bounded, true),
        (Some("api"), worker("api"), &bounded, true),
        // Who has everything anyway may also have it elsewhere.
        (Some("api"), worker("web"), &bounded, true),
        (None, worker("web"), &bounded, true),
        (Some("web"), worker("api"), &bounded, false),
        (None, worker("api"), &bounded, false),
        (None, worker("gone"), &bounded, false),
        (None, Peer::Stray, &bounded, false),
        (Some("api"), Peer::Stray, &bounded, false),
        (None, Peer::Other, &bounded, true),
        (Some("api"), Peer::Other, &bounded, true),
        (Some("web"), worker("api"), &free, true),
        (Some("web"), Peer::Stray, &free, true),
    ] {
        assert_eq!(cross(door, &peer, grants).is_ok(), passes, "{door:?} {peer:?} {grants:?}");
    }
}

#[test]
fn names_in_messages_are_short_and_plain() {
    assert_eq!(Shown("orders").to_string(), "orders");
    assert_eq!(Shown("a\nb").to_string(), "a\\nb");
    assert_eq!(Shown(&"ß".repeat(70)).to_string(), "ß".repeat(64) + "…");
}
