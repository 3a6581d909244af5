//! Journeys against real servers: what is sent, what is taken over, and what becomes of servers that misbehave.

#![allow(missing_docs, clippy::unwrap_used)]

mod answers;
mod channels;
mod crawled;
mod service;

use std::{path::Path, sync::Arc, time::Duration};

use http::StatusCode;
use lethe_journey::{
    destination::Destination,
    document,
    journey::Journey,
    observed::Hop,
    player::{Limits, Player, Pool, Settings},
};
use service::Service;

fn journey(text: &str) -> Arc<Journey> {
    Arc::new(document::read(text, "test.toml", "test", Path::new(".")).unwrap())
}

fn settings() -> Settings {
    let long = Duration::from_secs(120);
    let limits = Limits { step_time_max: long, kept_max: long, ..Limits::default() };
    Settings { identity: "r1a2b3".into(), limits, ..Settings::default() }
}

fn player(text: &str) -> Player {
    Player::new(journey(text), settings()).unwrap()
}

const SIGN_UP: &str = r#"
host = "shop.example"
[variables]
user = "ada-{{identity}}"

[[steps]]
get = "/sign-up"
capture.csrf = { input = "csrf" }

[[steps]]
post = "/sign-up"
form = { user = "{{user}}", csrf = "{{csrf}}" }
expect = { status = 303, location = "/users/{{user}}" }
capture.number = { header = "X-Number" }

[[steps]]
get = "/users/{{user}}"
expect = { contains = "{{user}} is no. {{number}}" }

[[steps]]
post = "/api/notes"
json = { text = "by {{user}}", number = "{{number}}" }
expect = { status = 201, json = { "/by" = "{{user}}", "/host" = "shop.example" } }
capture.note = { json = "/id" }

[[steps]]
get = "/api/notes/{{note}}"
expect = { json = { "/id" = "{{note}}" } }
"#;

#[tokio::test]
async fn a_user_has_cookies_and_variables_as_in_a_browser() {
    let service = Service::start().await;
    let mut player = player(SIGN_UP);
    let all = player.play(&service.destination()).await.unwrap();
    let unmet: Vec<_> = all.iter().flat_map(|observed| &observed.unmet).collect();
    assert!(unmet.is_empty(), "{unmet:?}");
    assert_eq!(player.jar().get("session"), Some("ada-r1a2b3"));
    assert!(all[2].text().contains("ada-r1a2b3 is no. 1"), "{}", all[2].text());
    // A JSON number stays one.
    assert_eq!(player.variables().get("note"), Some(&7.into()));
    assert_eq!(service.connections(), 1, "one connection serves the whole journey");
}

#[tokio::test]
async fn each_step_goes_where_it_is_told_and_what_another_server_does_not_know_is_seen() {
    let (one, other) = (Service::start().await, Service::start().await);
    let mut player = player(SIGN_UP);
    for (number, service) in [(1, &one), (2, &one), (3, &other)] {
        let observed = player.step(number, &service.destination()).await.unwrap();
        let unmet: Vec<_> = observed.unmet.iter().map(ToString::to_string).collect();
        if number < 3 {
            assert!(unmet.is_empty(), "{unmet:?}");
        } else {
            assert_eq!(
                unmet,
                ["status 404 instead of one below 400", "\"ada-r1a2b3 is no. 1\" is not in the body"]
            );
        }
    }
    // What a copy of the user does, the user knows nothing of.
    let mut copy = player.fork();
    copy.step(4, &one.destination()).await.unwrap();
    assert!(copy.variables().get("note").is_some() && player.variables().get("note").is_none());
}

#[tokio::test]
async fn a_step_that_lacks_a_variable_sends_nothing() {
    let service = Service::start().await;
    let mut player = player(SIGN_UP);
    let error = player.step(2, &service.destination()).await.unwrap_err().to_string();
    assert_eq!(error, "step 2 needs the variable csrf, which no step has given a value");
    assert!(
        player.step(6, &service.destination()).await.unwrap_err().to_string().contains("the journey has 5")
    );
    assert!(player.step(0, &service.destination()).await.is_err());
    assert_eq!(service.connections(), 0);
}

#[tokio::test]
async fn redirects_are_followed_only_where_the_step_says_so() {
    let service = Service::start().await;
    let text = "[[steps]]\npost = \"/hop/1\"\nbody = \"x\"\n[[steps]]\npost = \"/hop/1\"\nbody = \"x\"\nfollow = true\n\
                [[steps]]\nget = \"/round\"\nfollow = true\n[[steps]]\nget = \"/away\"\nfollow = true";
    let mut player = player(text);
    let first = player.step(1, &service.destination()).await.unwrap();
    assert_eq!(
        (first.status.as_u16(), first.location(), first.redirects.len()),
        (307, Some("../hop/2?x"), 0)
    );
    let second = player.step(2, &service.destination()).await.unwrap();
    // 307 keeps method and body, 303 does not.
    assert_eq!(second.text(), "GET with  and seen=yes");
    let hop = |status: u16, location: &str| Hop {
        status: StatusCode::from_u16(status).unwrap(),
        location: location.into(),
    };
    assert_eq!(second.redirects, [hop(307, "../hop/2?x"), hop(303, "http://localhost/hop/3")]);
    let round = player.step(3, &service.destination()).await.unwrap();
    assert_eq!((round.status.as_u16(), round.redirects.len()), (302, Limits::default().redirects_max));
    let away = player.step(4, &service.destination()).await.unwrap();
    assert_eq!((away.status.as_u16(), away.redirects.len()), (302, 0));
}

#[tokio::test]
async fn what_takes_its_time_is_asked_again() {
    let service = Service::start().await;
    let mut player = player("[[steps]]\nget = \"/job\"\nexpect = { contains = \"done\" }\nwithin = \"20s\"");
    assert!(player.step(1, &service.destination()).await.unwrap().is_met());
}

#[tokio::test]
async fn a_unix_socket_and_any_other_stream() {
    let service = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    service.listen_at(&path);
    let mut player = player("[[steps]]\nget = \"/hop/3\"");
    assert!(player.step(1, &Destination::unix(&path)).await.unwrap().is_met());
    let address = service.address();
    let by = Destination::by("there", move || tokio::net::TcpStream::connect(address));
    assert!(player.step(1, &by).await.unwrap().is_met());
}

#[tokio::test]
async fn users_leave_their_connections_to_those_who_come_after_them() {
    let service = Service::start().await;
    let pool = Pool::default();
    for identity in ["r1a2b3", "r4c5d6"] {
        let settings = Settings { identity: identity.into(), ..settings() };
        let mut player = Player::new(journey(SIGN_UP), settings).unwrap().with_pool(pool.clone());
        let all = player.play(&service.destination()).await.unwrap();
        assert!(all.iter().all(|observed| observed.is_met()));
        assert_eq!(
            player.jar().get("session"),
            Some(format!("ada-{identity}").as_str()),
            "cookies are not left"
        );
    }
    assert_eq!(service.connections(), 1);
}
