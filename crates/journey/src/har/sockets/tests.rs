use serde_json::json;

use super::*;
use crate::{
    har::{Options, read},
    journey::Journey,
};

/// So many seconds after the recording began.
fn at(seconds: f64) -> f64 {
    1_767_225_600.0 + seconds
}

fn request(seconds: u32, method: &str, path: &str, status: u16, sent: &str, content: &str) -> Value {
    let mut entry = json!({
        "startedDateTime": format!("2026-01-01T01:00:{seconds:02}.000+01:00"),
        "request": { "method": method, "url": format!("https://chat.example{path}"), "headers": [] },
        "response": { "status": status, "headers": [], "content": { "mimeType": "application/json", "text": content } },
    });
    if !sent.is_empty() {
        entry["request"]["postData"] = json!({ "mimeType": "application/json", "text": sent });
    }
    entry
}

fn message(direction: &str, seconds: f64, data: &str) -> Value {
    json!({ "type": direction, "time": at(seconds), "opcode": 1, "data": data })
}

fn chat(messages: &[Value]) -> Journey {
    read(recorded(messages).as_bytes(), "chat.har", "chat", &Options::default()).unwrap()
}

fn recorded(messages: &[Value]) -> String {
    recorded_over(&[messages])
}

/// Over one connection after the other.
fn recorded_over(connections: &[&[Value]]) -> String {
    let socket = |messages: &&[Value]| {
        json!({
            "_resourceType": "websocket",
            "_webSocketMessages": messages,
            "startedDateTime": "2026-01-01T00:00:02.000Z",
            "request": { "method": "GET", "url": "wss://chat.example/socket", "headers": [
                { "name": "Sec-WebSocket-Key", "value": "x" }, { "name": "Sec-WebSocket-Extensions", "value": "permessage-deflate" },
                { "name": "Sec-WebSocket-Protocol", "value": "chat" }, { "name": "Origin", "value": "https://chat.example" } ] },
            "response": { "status": 101, "headers": [], "content": {} },
        })
    };
    let mut entries = vec![
        request(1, "POST", "/tickets", 201, "", r#"{"ticket": "t-93ab7f20cd"}"#),
        request(6, "POST", "/say", 202, r#"{"text": "from the form"}"#, "{}"),
    ];
    entries.extend(connections.iter().map(socket));
    entries.push(request(20, "GET", "/last", 200, "", "{}"));
    json!({ "log": { "entries": entries } }).to_string()
}

#[test]
fn what_was_said_and_heard_is_in_the_order_of_time() {
    let journey = chat(&[
        message("send", 2.1, r#"{"join":"t-93ab7f20cd"}"#),
        message("receive", 2.2, r#"{"welcome":"nobody else"}"#),
        message("receive", 6.3, r#"{"id":17,"text":"from the form"}"#),
        message("send", 9.0, "hello"),
        message("receive", 9.1, r#"{"id":18,"text":"hello"}"#),
        message("send", 12.0, r#"{"ping":1}"#),
        message("receive", 12.1, r#"{"pong":1}"#),
        json!({ "type": "send", "time": at(13.0), "opcode": 2, "data": "AAEC" }),
        json!("nothing of this kind"),
    ]);
    let written = crate::written::write(&journey, "chat-files").text;
    let again = crate::document::read(&written, "chat.toml", "chat", std::path::Path::new(".")).unwrap();
    let acts =
        |journey: &Journey| -> Vec<Act> { journey.steps.iter().map(|step| step.act.clone()).collect() };
    assert_eq!(acts(&again), acts(&journey), "{written}");
    let told: Vec<String> = journey.steps.iter().map(Step::title).collect();
    let expected = [
        "POST /tickets",
        "WebSocket /socket",
        "POST /say",
        "send on websocket",
        "send on websocket",
        "GET /last",
    ];
    assert_eq!(told, expected, "{written}");
    let text = |step: usize| journey.steps[step].act.texts()[0].to_string();
    assert_eq!((text(1), text(3)), (r#"{"join":"{{ticket}}"}"#.into(), "hello".into()));
    let arrival = |step: usize| journey.steps[step].arrives.as_ref().map(|arrival| arrival.text.to_string());
    assert_eq!(arrival(1).as_deref(), Some(r#"{"welcome":"nobody else"}"#));
    assert_eq!(arrival(2).as_deref(), Some("from the form"));
    assert_eq!(arrival(3).as_deref(), Some("hello"));
    assert_eq!(arrival(4), None, "there are numbers in it");
    let headers: Vec<&str> = journey.steps[1].headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(headers, ["sec-websocket-protocol", "origin"]);
    assert!(journey.notes.iter().any(|note| note.contains("of what step 5 says")), "{:?}", journey.notes);
}

#[test]
fn what_says_nothing_is_left_out_as_before() {
    let journey = chat(&[]);
    assert_eq!(journey.steps.len(), 3);
    assert!(journey.notes.iter().any(|note| note == "left out: 1 WebSockets"), "{:?}", journey.notes);
}

#[test]
fn moments_are_read() {
    for (text, expected) in [
        ("1970-01-01T00:00:00Z", Some(0.0)),
        ("2000-02-29T12:00:00.500Z", Some(951_825_600.5)),
        ("2026-01-01T01:00:00+01:00", Some(1_767_225_600.0)),
        ("2026-01-01T00:00:00-00:30", Some(1_767_227_400.0)),
        ("2026-13-01T00:00:00Z", None),
        ("yesterday", None),
        ("", None),
    ] {
        assert_eq!(seconds(text), expected, "{text}");
    }
}

/// Keys of others are secrets too, where they are said and not sent.
#[test]
fn passwords_that_were_said_are_hidden_and_tokens_named() {
    let options = Options { to_keep: true, ..Options::default() };
    let socket = |seconds: f64, data: &str| message("send", seconds, data);
    let har = recorded(&[
        socket(2.1, r#"{"login":"ada","password":"hunter22"}"#),
        socket(9.0, r#"{"again":"hunter22","api_token":"k-1"}"#),
    ]);
    let journey = read(har.as_bytes(), "chat.har", "chat", &options).unwrap();
    let written = crate::written::write(&journey, "chat-files").text;
    let texts: Vec<String> =
        journey.steps.iter().flat_map(|step| step.act.texts()).map(ToString::to_string).collect();
    assert!(
        texts[0].contains(r#""password":"{{password}}""#) && texts[1].contains("{{password}}"),
        "{texts:?}"
    );
    assert_eq!(written.matches("hunter22").count(), 1, "{written}");
    let notes = journey.notes.join("\n");
    assert!(notes.contains("api_token (step 4)") && notes.contains("PASSWORD"), "{notes}");
    assert!(!notes.contains("password (step"), "{notes}");
}

/// A recording of a day: it is not gone through in the square of what is in it.
#[test]
fn of_very_much_the_first_is_looked_through() {
    let few = chat(&vec![message("send", 3.0, "again"); SAID_MAX]);
    assert!(!few.notes.iter().any(|note| note.contains("the first 100 messages")), "{:?}", few.notes);
    let many: Vec<Value> = (0..50_000)
        .flat_map(|_| [message("send", 3.0, "again"), message("receive", 3.5, "and again")])
        .collect();
    let journey = chat(&many);
    assert_eq!(journey.steps.iter().map(|step| step.act.texts().len()).sum::<usize>(), SAID_MAX);
    assert!(journey.notes.iter().any(|note| note.contains("the first 100 messages")), "{:?}", journey.notes);
}

/// A connection over which much comes does not keep another one from being heard.
#[test]
fn of_several_connections_what_came_first_is_looked_through() {
    let of = |count: usize| {
        let news: Vec<Value> = (0..count).map(|_| message("receive", 15.0, "news of others")).collect();
        let chat = [message("send", 9.0, "hello"), message("receive", 9.1, r#"{"id":18,"text":"hello"}"#)];
        let har = recorded_over(&[&news, &chat]);
        let journey = read(har.as_bytes(), "chat.har", "chat", &Options::default()).unwrap();
        let arrivals: Vec<_> = journey.steps.iter().filter_map(|step| step.arrives.clone()).collect();
        assert!(arrivals.iter().any(|arrival| arrival.text.to_string() == "hello"), "{arrivals:?}");
        journey.notes.iter().any(|note| note.contains("and 2000 that came"))
    };
    assert!(!of(RECEIVED_MAX - 1) && of(RECEIVED_MAX));
}

/// Where a variable cannot stand for it, it is said that the password is still there.
#[test]
fn a_password_that_cannot_be_replaced_is_told_of() {
    let options = Options { to_keep: true, ..Options::default() };
    let har = recorded(&[
        message("send", 2.1, r#"{"login":"ada","password":"say \"please\""}"#),
        message("send", 9.0, r#"{"login":"bob","password":"hunter22"}"#),
        message("send", 10.0, r#"{"login":"eve","password":"hunter22-longer"}"#),
        message("send", 11.0, r#"{"api_token":"{{k}}"}"#),
    ]);
    let journey = read(har.as_bytes(), "chat.har", "chat", &options).unwrap();
    let texts: Vec<String> =
        journey.steps.iter().flat_map(|step| step.act.texts()).map(ToString::to_string).collect();
    assert!(texts[1].contains(r#""password":"{{password-2}}""#), "{texts:?}");
    assert!(texts[2].contains(r#""password":"{{password-3}}""#), "{texts:?}");
    let notes = journey.notes.join("\n");
    assert!(notes.contains("the password of step 2 is in this file as it was typed: it cannot"), "{notes}");
    assert!(notes.contains("api_token (step 6)"), "{notes}");
}
