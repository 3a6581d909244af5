use serde_json::{Value, json};

use super::*;
use crate::{body::Body, capture::Source};

fn fields(fields: &[(&str, &str)]) -> Value {
    fields.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()
}

/// An entry as Chromium writes it.
fn entry(method: &str, url: &str, status: i32, kind: &str, content: (&str, &str)) -> Value {
    json!({
        "_resourceType": kind,
        "startedDateTime": "2026-01-31T09:05:00.250Z",
        "request": { "method": method, "url": url, "httpVersion": "http/1.1", "cookies": [], "queryString": [],
            "headers": fields(&[(":authority", "shop.example"), ("Accept", "text/html"), ("Accept-Encoding", "gzip"),
                ("sec-ch-ua", "x"), ("Sec-Fetch-Site", "same-origin"), ("Origin", "https://shop.example")]) },
        "response": { "status": status, "headers": [], "cookies": [],
            "content": { "size": content.1.len(), "mimeType": content.0, "text": content.1 } },
    })
}

fn with_body(mut entry: Value, content_type: &str, text: &str) -> Value {
    entry["request"]["postData"] = json!({ "mimeType": content_type, "text": text });
    entry
}

fn answering(mut entry: Value, headers: &[(&str, &str)]) -> Value {
    entry["response"]["headers"] = fields(headers);
    entry
}

fn parse(entries: &[Value]) -> Journey {
    let har =
        json!({ "log": { "version": "1.2", "creator": { "name": "WebInspector" }, "entries": entries } });
    read(har.to_string().as_bytes(), "shop.har", "shop", &Options::default()).unwrap()
}

const FORM: &str = "<form><input type=hidden name=csrf value=Zk3-9qTT><input name=qty value=2></form>";
const URLENCODED: &str = "application/x-www-form-urlencoded; charset=utf-8";

fn shopping() -> Vec<Value> {
    let page = |method, path, status, text| {
        entry(
            method,
            &format!("https://shop.example{path}"),
            status,
            "document",
            ("text/html; charset=utf-8", text),
        )
    };
    let api = |method, path, text| {
        entry(method, &format!("https://shop.example{path}"), 200, "fetch", ("application/json", text))
    };
    vec![
        page("GET", "/register", 200, FORM),
        entry("GET", "https://shop.example/app.css?v=3", 200, "stylesheet", ("text/css", "p {}")),
        entry("GET", "https://cdn.example/x", 200, "document", ("text/html", "")),
        answering(
            with_body(
                page("POST", "/register", 303, ""),
                URLENCODED,
                "name=ada&mail=ada%40x.org&password=secret+word&csrf=Zk3-9qTT&qty=2",
            ),
            &[
                ("Location", "https://shop.example/welcome?notice=hello"),
                ("Set-Cookie", "sid=s3cr3t-99; HttpOnly"),
            ],
        ),
        page("GET", "/welcome?notice=hello", 200, "<a href=\"/carts/c-81723\">ada</a>"),
        with_body(
            api("POST", "/api/carts/c-81723", r#"{"order": {"id": 17, "total": 2}}"#),
            "application/json",
            r#"{"qty": 2, "by": "ada", "t": "{{x}}"}"#,
        ),
        with_body(
            api("PUT", "/api/orders/17", "{}"),
            "application/json",
            r#"{"orderId": 17, "quantity": 2}"#,
        ),
        answering(page("GET", "/orders", 302, ""), &[("location", "/orders/17/view")]),
        page("GET", "/orders/17/view?user=ada", 304, ""),
        entry("GET", "wss://shop.example/live", 101, "websocket", ("", "")),
        entry("GET", "https://shop.example/gone", 0, "document", ("", "")),
    ]
}

#[test]
fn what_came_of_a_response_is_a_variable() {
    let journey = parse(&shopping());
    let shown: Vec<String> =
        journey.steps.iter().map(|step| format!("{} {}", step.method, step.path)).collect();
    assert_eq!(
        shown,
        [
            "GET /register",
            "POST /register",
            "GET /welcome?notice=hello",
            "POST /api/carts/{{value}}",
            "PUT /api/orders/{{id}}",
            "GET /orders",
            "GET /orders/{{order}}/view?user={{name}}",
        ]
    );
    assert_eq!(journey.host.as_deref(), Some("shop.example"));
    assert_eq!(
        journey.variables.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
        ["name=ada{{identity}}", "mail=ada{{identity}}@x.org"]
    );
    let Body::Form(form) = &journey.steps[1].body else { panic!("{:?}", journey.steps[1].body) };
    let form: Vec<String> = form.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(
        form,
        ["name={{name}}", "mail={{mail}}", "password=secret word", "csrf={{csrf}}", "qty={{qty}}"]
    );
    let captures = |at: usize| {
        journey.steps[at]
            .captures
            .iter()
            .map(|c| format!("{} from {}", c.variable, c.place()))
            .collect::<Vec<_>>()
    };
    assert_eq!(captures(0), ["csrf from form field csrf", "qty from form field qty"]);
    assert_eq!(captures(2), ["value from text with \"<a href=\\\"/carts/\" in it"]);
    assert_eq!(captures(3), ["id from JSON value at \"/order/id\""]);
    assert_eq!(captures(5), ["order from header field location with \"orders/\" in it"]);
    assert_eq!(journey.steps[0].captures[0].fallback, Some(json!("Zk3-9qTT")));
    let Body::Json(body) = &journey.steps[3].body else { panic!("{:?}", journey.steps[3].body) };
    let texts: Vec<String> = body.templates().iter().map(ToString::to_string).collect();
    // Braces that somebody typed are braces.
    assert_eq!(texts, ["{{name}}", r"\{{x}}"]);
    assert_eq!(journey.steps[6].expect.statuses, [200..=200], "not the 304 of a page that the browser had");
    let headers: Vec<_> =
        journey.steps[0].headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    assert_eq!(headers, ["accept: text/html", "sec-fetch-site: same-origin", "origin: {{origin}}"]);
    assert_eq!(
        journey.notes,
        [
            "left out: 1 WebSockets, 1 images, styles, scripts and fonts, 1 to other hosts, 1 without a response",
            "step 2 signs up; in each run, ada and ada@x.org gets the identity of the run",
        ]
    );
}

#[test]
fn a_script_that_is_said_to_be_a_page_is_none() {
    let entries = [
        entry("GET", "https://cdn.example/app.js?v=2", 200, "script", ("text/html", "gone")),
        entry("GET", "https://cdn.example/old.js", 404, "other", ("text/html; charset=utf-8", "gone")),
        entry("GET", "https://shop.example/", 200, "document", ("text/html", "")),
    ];
    let journey = parse(&entries);
    assert_eq!((journey.host.as_deref(), journey.steps.len()), (Some("shop.example"), 1));
}

#[test]
fn a_token_that_the_export_left_out_is_derived() {
    let api = |method, path: &str, text| {
        entry(method, &format!("https://shop.example{path}"), 200, "fetch", ("application/json", text))
    };
    let entries = [
        api("POST", "/login", r#"{"access_token": "eyJhbGciOiJIUzI1NiJ9.x"}"#),
        entry("GET", "https://shop.example/", 200, "document", ("text/html", "")),
        api("GET", "/me", "{}"),
    ];
    let journey = parse(&entries);
    let has = |at: usize| journey.steps[at].headers.iter().any(|(name, _)| name == "authorization");
    assert_eq!([has(0), has(1), has(2)], [false, false, true]);
    assert_eq!(journey.steps[0].captures[0].source, Source::Json("/access_token".into()));
    assert!(journey.notes[0].contains("the token of step 1"), "{:?}", journey.notes);
    // Where it is in the recording, it is a variable like any other.
    let mut entries = entries;
    entries[2]["request"]["headers"] =
        fields(&[("authorization", "Bearer eyJhbGciOiJIUzI1NiJ9.x"), ("Cookie", "old=1")]);
    let journey = parse(&entries);
    assert_eq!(journey.steps[2].headers[0].1.to_string(), "Bearer {{access_token}}");
    assert!(journey.notes[0].contains("are not sent: old;"), "{:?}", journey.notes);
}

#[test]
fn files_that_were_sent() {
    let upload = |text: &str| {
        let entry = entry("POST", "https://shop.example/photos", 201, "document", ("text/html", ""));
        with_body(entry, "multipart/form-data; boundary=----x", text)
    };
    let part = |disposition: &str, content: &str| {
        format!(
            "------x\r\nContent-Disposition: form-data; {disposition}\r\nContent-Type: image/png\r\n\r\n{content}\r\n"
        )
    };
    let text = [
        part("name=\"title\"", "a"),
        part("name=\"one\"; filename=\"1.png\"", "PNG"),
        part("name=\"two\"; filename=\"2.png\"", ""),
        "------x--\r\n".into(),
    ];
    let journey = parse(&[upload(&text.concat())]);
    let Body::Multipart(parts) = &journey.steps[0].body else { panic!("{:?}", journey.steps[0].body) };
    assert_eq!(parts.len(), 3);
    assert_eq!(parts[1].content, crate::body::Content::Bytes("PNG".into()));
    assert_eq!(parts[2].file_name.as_ref().unwrap().to_string(), "2.png");
    assert!(journey.notes[0].contains("does not have the content of 2.png"), "{:?}", journey.notes);
}

#[test]
fn what_is_no_journey_is_said() {
    let whole = json!({ "log": { "entries": shopping() } }).to_string();
    let other = Options { host: Some("other.example".into()), ..Options::default() };
    let none = json!({ "log": { "entries": [] } }).to_string();
    for (text, options, expected) in [
        (&whole[..whole.len() / 2], Options::default(), "shop.har:1:"),
        (&whole[..whole.len() / 2], Options::default(), "ends in the middle: it was cut off"),
        ("", Options::default(), "ends in the middle"),
        ("{}", Options::default(), "shop.har:1:2: this is no HAR file: missing field `log`"),
        ("[[steps]]", Options::default(), "this is no HAR file"),
        (&none, Options::default(), "no request to a web server is in the recording"),
        (
            &whole,
            other,
            "no request to other.example is left of the recording; left out: 1 WebSockets, 10 to other hosts",
        ),
    ] {
        let problems = read(text.as_bytes(), "shop.har", "shop", &options).unwrap_err().to_string();
        assert!(problems.contains(expected), "{problems}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.har");
    std::fs::File::create(&path).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
    let problems = load(&path, &Options::default()).unwrap_err().to_string();
    assert!(problems.contains("is longer than 256 MiB"), "{problems}");
    // What assets are is a matter of choice.
    let options = Options { assets: true, ..Options::default() };
    assert_eq!(read(whole.as_bytes(), "a.har", "a", &options).unwrap().steps.len(), 8);
}
