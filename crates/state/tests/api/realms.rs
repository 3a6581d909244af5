//! Sessions of services that were given some: each works with its own as if there were no others, and whoever runs lethe sees all.

use lethe_state::{
    Engines,
    contract::Fixture,
    error::Error,
    feed::{Feed, Notice},
    remote::Remote,
    revocations::{TABLE, of_session, of_tokens, of_user},
    server::socket,
    sessions::{NewSession, Patch, Session},
    tables::{Action, Condition, Scan, Write},
};
use serde_json::{Value, json};

use crate::harness::{Answer, Server, bounded, send};

async fn in_a_realm() -> Fixture {
    let mut server = Server::start().await;
    let path = server.door("web", Some("shop"));
    let (remote, clock) = (Remote::connect(&socket::url(&path)).unwrap(), server.clock.clone());
    Fixture::new(remote.engines()).with_clock(move |by| clock.advance(by)).keeping(server)
}

lethe_state::contract_sessions_of_one_realm!(in_a_realm);
lethe_state::contract_feeds!(in_a_realm);

/// Two services with sessions of their own, and one that has whatever it likes of the rest.
struct Services {
    server: Server,
    shop: Remote,
    bank: Remote,
}

impl Services {
    async fn start() -> Self {
        let mut server = Server::start().await;
        let mut remote = |name| Remote::connect(&socket::url(&server.door(name, Some(name)))).unwrap();
        let (shop, bank) = (remote("shop"), remote("bank"));
        Self { server, shop, bank }
    }

    /// Asks through a service's socket, as a client without a library does.
    async fn ask(&self, service: &str, request: &str, body: &str) -> Answer {
        let path = self.server.path.with_file_name(format!("{service}.sock"));
        let length = body.len();
        let head = format!(
            "{request} HTTP/1.1\r\nhost: state\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        send(&path, head.as_bytes()).await
    }
}

async fn ada(remote: &Remote) -> Session {
    let new = NewSession { user: Some("ada".into()), ..NewSession::default() };
    remote.engines().sessions.create(new).await.unwrap()
}

#[tokio::test]
async fn the_sessions_of_another_service_are_not_there() {
    let services = Services::start().await;
    let (own, other) = (ada(&services.shop).await, ada(&services.bank).await);
    assert_eq!((own.id.realm().name(), other.id.realm().name()), (Some("shop"), Some("bank")));
    let shop = services.shop.engines().sessions;
    assert!(matches!(shop.load(&other.id).await, Err(Error::NotFound)));
    assert!(matches!(shop.patch(&other.id, Patch::default()).await, Err(Error::NotFound)));
    assert!(matches!(shop.renew(&other.id, Some("eve"), Patch::default()).await, Err(Error::NotFound)));
    shop.destroy(&other.id).await.unwrap();
    let (of_bank, id) = (other.id.to_text(), own.id.to_text());
    // However it is written, and also as an id of the own realm with the random part of another.
    for stolen in [of_bank.clone(), of_bank.replace('~', "%7E"), of_bank.replace("bank", "shop")] {
        let path = format!("/v1/sessions/{stolen}");
        services.ask("shop", &format!("GET {path}"), "").await.problem(404, "not-found");
        services.ask("shop", &format!("PATCH {path}"), "{}").await.problem(404, "not-found");
        services.ask("shop", &format!("POST {path}/renew"), "{}").await.problem(404, "not-found");
        services.ask("shop", &format!("DELETE {path}"), "").await.expect(204);
    }
    for path in ["/v1/users/ada/sessions?realm=bank", "/v1/users/ada/sessions/x?realm=common"] {
        let problem = services.ask("shop", &format!("DELETE {path}"), "").await.problem(403, "denied");
        assert!(problem["detail"].as_str().unwrap().contains("leave `realm` out"), "{problem}");
    }
    services.ask("shop", "POST /v1/sessions", r#"{"realm":"bank"}"#).await.problem(403, "denied");
    services.ask("shop", "POST /v1/sessions", r#"{"realm":"shop"}"#).await.expect(201);
    services.ask("shop", "POST /v1/sessions", r#"{"realm":"A b"}"#).await.problem(400, "invalid");
    services.ask("shop", "GET /v1/users/ada/sessions?realm=", "").await.problem(400, "invalid");

    assert_eq!(shop.list("ada").await.unwrap().len(), 1);
    assert_eq!(shop.revoke("ada", None).await.unwrap(), 1, "that of the bank stays");
    services.ask("shop", &format!("GET /v1/sessions/{id}"), "").await.problem(410, "gone");
    assert_eq!(services.bank.engines().sessions.load(&other.id).await.unwrap(), other);
    // An id of no realm is one of the common one, which is nobody's here.
    let common = ada(&services.server.remote()).await;
    assert!(matches!(shop.load(&common.id).await, Err(Error::NotFound)));
}

#[tokio::test]
async fn whoever_runs_lethe_sees_all() {
    let services = Services::start().await;
    let operator = services.server.remote();
    let sessions = [ada(&services.shop).await, ada(&services.bank).await, ada(&operator).await];
    for session in &sessions {
        assert_eq!(operator.engines().sessions.load(&session.id).await.unwrap(), *session);
    }
    let list = async |query: &str| -> Vec<Value> {
        let list = services.server.get(&format!("/v1/users/ada/sessions{query}"), &[]).await.expect(200);
        list.json()["sessions"].as_array().unwrap().iter().map(|info| info["realm"].clone()).collect()
    };
    let mut all = list("").await;
    all.sort_by_key(ToString::to_string);
    assert_eq!(all, [json!("bank"), json!("shop"), Value::Null]);
    assert_eq!(list("?realm=bank").await, [json!("bank")]);
    assert_eq!(list("?realm=common").await, [Value::Null]);
    let end = async |query: &str| {
        let path = format!("DELETE /v1/users/ada/sessions{query}");
        services.server.request(&path, &[], b"").await.expect(200).json()["revoked"].clone()
    };
    assert_eq!(end("?realm=bank").await, 1);
    assert_eq!(end("").await, 2);
    for session in &sessions {
        assert!(matches!(operator.engines().sessions.load(&session.id).await, Err(Error::Gone)));
    }
}

async fn changed(feed: &mut Feed) -> String {
    loop {
        if let Notice::Changed(name) = bounded(feed.next()).await.unwrap() {
            return name.to_string();
        }
    }
}

/// What a service is told of revocations is what it was without others: users and their tokens, under the keys of their names alone.
#[tokio::test]
async fn revocations_are_told_to_whom_they_are_of() {
    let services = Services::start().await;
    let (shop, bank) = (services.shop.engines(), services.bank.engines());
    let (mut at_shop, mut at_bank) =
        (shop.tables.follow(TABLE).await.unwrap(), bank.tables.follow(TABLE).await.unwrap());
    let (own, other) = (ada(&services.shop).await, ada(&services.bank).await);
    bank.sessions.revoke("ada", None).await.unwrap();
    for key in [of_tokens("ada"), of_user("ada")] {
        assert_eq!(changed(&mut at_bank).await, key);
        assert!(bank.tables.get(TABLE, &key).await.unwrap().is_some());
        assert!(shop.tables.get(TABLE, &key).await.unwrap().is_none(), "{key} is not of this ada");
        let page = shop.tables.scan(TABLE, &Scan::default()).await.unwrap();
        assert!(page.rows.is_empty(), "{page:?}");
    }
    // Ids tell of no realm, and are told to all.
    shop.sessions.destroy(&own.id).await.unwrap();
    let row = of_session(&own.id.public_name());
    assert_eq!((changed(&mut at_shop).await, changed(&mut at_bank).await), (row.clone(), row.clone()));
    assert!(bank.tables.get(TABLE, &row).await.unwrap().is_some());
    assert!(matches!(bank.sessions.load(&other.id).await, Err(Error::Gone)));
    let keys = walk(&bank, "", 0).await;
    assert_eq!(keys, [row, of_tokens("ada"), of_user("ada")]);
}

/// All keys of the table as a service sees them, a row at a time, and no word of others.
async fn walk(engines: &Engines, prefix: &str, limit: usize) -> Vec<String> {
    let mut scan = Scan { prefix: prefix.to_owned(), limit, after: None };
    let mut keys = Vec::new();
    loop {
        let page = engines.tables.scan(TABLE, &scan).await.unwrap();
        keys.extend(page.rows.into_iter().map(|row| row.key));
        match page.next {
            Some(next) => {
                assert!(keys.contains(&next), "{next} is none of its rows: {keys:?}");
                scan.after = Some(next);
            }
            None => return keys,
        }
    }
}

/// A service sees its own rows, however it asks.
#[tokio::test]
async fn no_page_tells_of_others() {
    let mut services = Services::start().await;
    let path = services.server.door("common", Some("common"));
    let common = Remote::connect(&socket::url(&path)).unwrap().engines();
    let mut sessions = Vec::new();
    for (engines, users) in [
        (services.shop.engines(), &["ada", "bob", "eve"][..]),
        (services.bank.engines(), &["ada"]),
        (common.clone(), &["bob", "cyd"]),
    ] {
        for user in users {
            let id = engines.sessions.create(NewSession::default()).await.unwrap().id;
            engines.sessions.destroy(&id).await.unwrap();
            sessions.push(of_session(&id.public_name()));
            engines.sessions.revoke(user, None).await.unwrap();
        }
    }
    sessions.sort();
    for (engines, users) in [
        (services.shop.engines(), &["ada", "bob", "eve"][..]),
        (services.bank.engines(), &["ada"]),
        (common.clone(), &["bob", "cyd"]),
    ] {
        let of = |row: fn(&str) -> String| {
            let mut keys: Vec<String> = users.iter().map(|user| row(user)).collect();
            keys.sort();
            keys
        };
        let (tokens, epochs) = (of(of_tokens), of(of_user));
        let all = [sessions.clone(), tokens.clone(), epochs.clone()].concat();
        for limit in [0, 1, 2, 3, 100] {
            assert_eq!(walk(&engines, "", limit).await, all, "{limit}");
            assert_eq!(walk(&engines, "s/", limit).await, sessions);
            assert_eq!(walk(&engines, &sessions[1], limit).await, sessions[1..2]);
            assert_eq!(walk(&engines, "t/", limit).await, tokens);
            assert_eq!(walk(&engines, "u", limit).await, epochs);
            for nothing in ["x", "~", "~shop/", "~bank/t/"] {
                assert!(walk(&engines, nothing, limit).await.is_empty(), "{nothing}");
            }
        }
    }
    // Nor may the key be written as it is kept.
    for service in ["shop", "common"] {
        let row = format!("~bank/{}", of_user("ada")).replace('/', "%2F");
        let path = format!("GET /v1/tables/lethe-revocations/{row}");
        services.ask(service, &path, "").await.problem(404, "not-found");
    }
}

/// Only lethe writes what was revoked, whatever tables a service was given.
#[tokio::test]
async fn nobody_takes_a_revocation_back() {
    let services = Services::start().await;
    services.bank.engines().sessions.revoke("ada", None).await.unwrap();
    let row = of_user("ada").replace('/', "%2F");
    for row in [row.clone(), format!("~bank%2F{row}")] {
        let path = format!("/v1/tables/lethe-revocations/{row}");
        services.ask("bank", &format!("PUT {path}"), "x").await.problem(403, "denied");
        services.ask("bank", &format!("DELETE {path}"), "").await.problem(403, "denied");
        services.ask("bank", &format!("POST {path}/increment"), "{}").await.problem(403, "denied");
    }
    let write = r#"{"writes":[{"table":"lethe-revocations","key":"u/x","action":"check"}]}"#;
    let problem = services.ask("bank", "POST /v1/batch", write).await.problem(403, "denied");
    assert!(problem["detail"].as_str().unwrap().contains("written by lethe alone"), "{problem}");
    assert!(services.bank.engines().tables.get(TABLE, &of_user("ada")).await.unwrap().is_some());
    // Without sessions there is nothing to see there.
    services.server.grant("shop", None);
    for path in ["/v1/tables/lethe-revocations", "/v1/feeds/tables/lethe-revocations"] {
        services.ask("shop", &format!("GET {path}"), "").await.problem(403, "denied");
    }
}

/// What a worker has copied of sessions and revocations is nothing that it may trust once its service has others.
#[tokio::test]
async fn feeds_end_with_the_realm() {
    let services = Services::start().await;
    let engines = services.shop.engines();
    let id = ada(&services.shop).await.id;
    let mut feeds = [
        engines.sessions.follow().await.unwrap(),
        engines.tables.follow(TABLE).await.unwrap(),
        engines.tables.follow("rows").await.unwrap(),
    ];
    services.server.grant("shop", Some("other"));
    assert!(matches!(engines.sessions.load(&id).await, Err(Error::NotFound)));
    let [sessions, revocations, rows] = &mut feeds;
    for feed in [sessions, revocations] {
        let error = loop {
            match bounded(feed.next()).await {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(matches!(&error, Error::Unavailable(text) if text.contains("other sessions")), "{error}");
    }
    let write = Write {
        table: "rows".into(),
        key: "k".into(),
        condition: Condition::Any,
        action: Action::Put { value: "v".into(), ttl: None },
    };
    engines.tables.apply(vec![write]).await.unwrap();
    assert_eq!(changed(rows).await, "k");
    services.server.grant("shop", Some("shop"));
    assert!(engines.sessions.load(&id).await.is_ok(), "they are there as before");
}
