use std::{fs, path::Path, time::Duration};

use http::Method;
use proptest::{collection::vec, option, prelude::*};
use serde_json::{Value as Any, json};

use super::*;
use crate::{
    body::{Body, Content, Json, Part},
    capture::{Capture, Source},
    document,
    expectation::Expectation,
    har, openapi,
};

/// Writes it, reads it again, and gives the text and what was read.
fn again(journey: &Journey) -> (String, Journey) {
    let folder = tempfile::tempdir().unwrap();
    let written = write(journey, "sent");
    fs::create_dir(folder.path().join("sent")).unwrap();
    for file in &written.files {
        fs::write(folder.path().join(&file.path), &file.bytes).unwrap();
    }
    let read = document::read(&written.text, "a.toml", "a", folder.path());
    (written.text.clone(), read.unwrap_or_else(|problems| panic!("{problems}\n{}", written.text)))
}

/// What may be another way of saying the same: the order of header fields of other names (RFC 9110, section 5.3), and whether JSON without
/// variables is kept whole.
fn plain(journey: &Journey) -> Journey {
    let mut plain = Journey { notes: Vec::new(), ..journey.clone() };
    for step in &mut plain.steps {
        step.headers.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
        if let Body::Json(json) = &mut step.body {
            *json = parsed(json);
        }
        step.expect.json.iter_mut().for_each(|(_, json)| *json = parsed(json));
    }
    plain
}

fn parsed(json: &Json) -> Json {
    match json {
        Json::Plain(Any::String(text)) => Json::Text(Template::literal(text)),
        Json::Plain(Any::Array(items)) => {
            Json::Array(items.iter().map(|item| parsed(&Json::Plain(item.clone()))).collect())
        }
        Json::Plain(Any::Object(fields)) => Json::Object(
            fields.iter().map(|(name, value)| (name.clone(), parsed(&Json::Plain(value.clone())))).collect(),
        ),
        Json::Array(items) => Json::Array(items.iter().map(parsed).collect()),
        Json::Object(fields) => {
            let mut fields: Vec<_> =
                fields.iter().map(|(name, value)| (name.clone(), parsed(value))).collect();
            fields.sort_by(|(one, _), (other, _)| one.cmp(other));
            Json::Object(fields)
        }
        json => json.clone(),
    }
}

#[test]
fn as_a_person_would_write_it() {
    let text = r#"# left out: 3 images, styles, scripts and fonts

name    = "shopping"
host    = "shop.example"
headers = { accept = "text/html" }

[variables]
user = "ada-{{identity}}"

[[steps]]
get     = "/register"
expect  = { status = 200 }
capture = { csrf = { input = "csrf" } }

# step 2 signs up; in each run, ada gets the identity of the run
[[steps]]
name    = "Sign up"
post    = "/register"
pause   = "250ms"
headers = { origin = "{{origin}}" }
form    = { name = "{{user}}", box = ["a", "b"], csrf = "{{csrf}}" }
expect  = { status = [303, "4xx"], location = "/" }

[[steps]]
post    = "/api/orders"
headers = { accept = "*/*" }
json    = { by = "{{user}}", lines = [{ quantity = 2 }] }
capture = { order = { json = "/id", default = 7 } }

[[steps]]
method = "PURGE"
path   = "/orders/{{order}}"
body   = { text = '{"a": "\{{b}}"}', type = "application/json" }
within = "5s"

[[steps]]
post = "/notes"

[steps.body]
json = '''
{
  "deleted": null,
  "text": "{{user}}"
}
'''

[[steps]]
post = "/letters"

[steps.form]
note = '''
one line
another line
'''
sign = "a much longer text, so that all of it would not stand on a line with the other fields that are sent here"
"#;
    let mut journey = document::read(text, "shopping.toml", "x", Path::new("")).unwrap();
    journey.notes = vec![
        "left out: 3 images, styles, scripts and fonts".into(),
        "step 2 signs up; in each run, ada gets the identity of the run".into(),
    ];
    assert_eq!(write(&journey, "sent").text, text);
}

#[test]
fn whatever_it_was_read_from() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut count = 0;
    let mut check = |journey: &Journey| {
        let (text, read) = again(journey);
        assert_eq!(plain(&read), plain(journey), "{text}");
        count += 1;
    };
    for entry in fs::read_dir(root.join("violations")).unwrap() {
        for name in ["journey.toml", "openapi.yaml", "upload.toml"] {
            let path = entry.as_ref().unwrap().path().join(name);
            if path.exists() {
                check(&crate::file::load(&path).unwrap());
            }
        }
    }
    check(&crate::file::load(&root.join("guestbook/sign.toml")).unwrap());
    let api = json!({ "openapi": "3.1.0", "paths": { "/items": { "post": { "requestBody": { "content": {
        "application/json": { "example": { "a": null, "b": [1.5, "{{x}}", {"c": -3}], "d": "'''" } } } } } },
        "/forms": { "post": { "requestBody": { "content": { "multipart/form-data": { "schema": { "type": "object",
            "properties": { "title": { "type": "string" } } } } } } } } } });
    check(&openapi::read(api.to_string().as_bytes(), "api.json", "api").unwrap());
    let entry = |content_type: &str, body: Any| {
        let mut post = json!({ "mimeType": content_type });
        post.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        json!({ "request": { "method": "POST", "url": "http://shop/a?b={{c}}", "postData": post, "headers":
            [{ "name": "Accept", "value": "text/html" }, { "name": "X-A", "value": "1" }, { "name": "X-A", "value": "{{" }] },
            "response": { "status": 200, "content": { "mimeType": "application/json", "text": "{\"id\": \"abcd-1234\"}" } } })
    };
    let har = json!({ "log": { "entries": [
        entry("application/json", json!({ "text": "{\"id\":\"x\",\"n\":null}" })),
        entry("application/x-www-form-urlencoded", json!({ "text": "a=1&id=abcd-1234&a=2&=&a=%0D%0A" })),
        entry("multipart/form-data", json!({ "params": [{ "name": "f", "fileName": "../a b.png", "value": "PNG" },
            { "name": "f", "fileName": "../a b.png", "value": "JPG" }, { "name": "t", "value": "{{" }] })),
        entry("text/plain", json!({ "text": "'''\n\n\u{7}" })),
    ] } });
    check(&har::read(har.to_string().as_bytes(), "a.har", "a", &har::Options::default()).unwrap());
    assert!(count > 10, "{count}");
}

const VARIABLE: &str = "v";

#[test]
fn connections_that_stay_open() {
    let text = r#"name = "talk"

[[steps]]
websocket = "/chat"
as = "ada"
send = ["join {{identity}}", "here"]
arrives = "welcome"
capture = { seat = { json = "/seat" } }

[[steps]]
events = "/news"

[[steps]]
post = "/news"
body = "from {{identity}}"
arrives = { text = "from {{identity}}", on = "events", within = "2s" }

[[steps]]
send = "hello"
on = "ada"
arrives = "hello"
"#;
    let journey = document::read(text, "a.toml", "a", Path::new(".")).unwrap();
    let (written, read) = again(&journey);
    assert_eq!(plain(&read), plain(&journey), "{written}");
    // What goes without saying is not said.
    for line in [
        "websocket = \"/chat\"",
        "events = \"/news\"\n\n",
        "send    = \"hello\"\non      = \"ada\"\narrives = \"hello\"",
    ] {
        assert!(written.contains(line), "{line}: {written}");
    }
}

fn text() -> impl Strategy<Value = String> {
    // Whatever is hard: quotes, escapes, braces, line ends, and what is no ASCII.
    "[a-c\"'\\\\{}\\n\\r\\t #=\\[\\],.é\u{0}\u{7f}\u{202e}\u{1f600}]{0,12}"
}

fn template() -> impl Strategy<Value = Template> {
    vec(option::of(text()), 0..4).prop_map(|pieces| {
        let mut template = Template::default();
        for piece in pieces {
            match piece {
                Some(text) => template.push_text(&text),
                None => template.push_variable(VARIABLE),
            }
        }
        template
    })
}

fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Plain(Any::Null)),
        any::<bool>().prop_map(|flag| Json::Plain(flag.into())),
        any::<i64>().prop_map(|number| Json::Plain(number.into())),
        any::<i16>().prop_map(|number| Json::Plain((f64::from(number) / 8.0).into())),
        Just(Json::Plain(u64::MAX.into())),
        template().prop_map(Json::Text),
    ];
    leaf.prop_recursive(3, 20, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Json::Array),
            proptest::collection::btree_map(text(), inner, 0..4)
                .prop_map(|fields| Json::Object(fields.into_iter().collect())),
        ]
    })
}

fn part() -> impl Strategy<Value = Part> {
    let file = (text(), template(), vec(any::<u8>(), 0..4), option::of(text())).prop_map(
        |(name, file_name, bytes, content_type)| Part {
            name,
            file_name: Some(file_name),
            content_type,
            content: Content::Bytes(bytes.into()),
        },
    );
    let plain = (text(), option::of(template()), template(), option::of(text())).prop_map(
        |(name, file_name, text, content_type)| Part {
            name,
            file_name,
            content_type,
            content: Content::Text(text),
        },
    );
    prop_oneof![file, plain]
}

fn body() -> impl Strategy<Value = Body> {
    let content = prop_oneof![
        template().prop_map(Content::Text),
        vec(any::<u8>(), 0..4).prop_map(|bytes| Content::Bytes(bytes.into())),
    ];
    prop_oneof![
        Just(Body::None),
        (option::of(text()), content).prop_map(|(content_type, content)| Body::Raw { content_type, content }),
        vec((text(), template()), 0..5).prop_map(Body::Form),
        json().prop_map(Body::Json),
        vec(part(), 0..4).prop_map(Body::Multipart),
    ]
}

fn headers() -> impl Strategy<Value = Vec<(HeaderName, Template)>> {
    let name = prop_oneof![Just("accept"), Just("x-a"), Just("location"), Just("cookie")];
    vec((name.prop_map(HeaderName::from_static), template()), 0..4).prop_map(|mut headers| {
        headers.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
        headers
    })
}

fn expectation() -> impl Strategy<Value = Expectation> {
    let status = prop_oneof![(100_u16..600).prop_map(|status| status..=status), Just(200..=299)];
    let value = json().prop_filter("what TOML has no word for", |json| {
        let text = format!("{json:?}");
        !text.contains("Null") && !text.contains(&u64::MAX.to_string())
    });
    let values = proptest::collection::btree_map(text().prop_map(|text| format!("/{text}")), value, 0..3);
    (vec(status, 0..3), vec(template(), 0..3), vec(template(), 0..3), values, headers()).prop_map(
        |(statuses, contains, lacks, json, headers)| Expectation {
            statuses,
            contains,
            lacks,
            json: json.into_iter().collect(),
            headers,
        },
    )
}

fn capture() -> impl Strategy<Value = Capture> {
    let source = prop_oneof![
        text().prop_map(|text| Source::Json(format!("/{text}"))),
        Just(Source::Header(http::header::ETAG)),
        text().prop_map(Source::Cookie),
        text().prop_map(Source::Input),
    ];
    let fallback = prop_oneof![Just(json!({ "a": [1, true] })), text().prop_map(Any::String)];
    (source, option::of(text()), option::of(text()), option::of(fallback)).prop_map(
        |(source, after, before, fallback)| Capture { variable: "w".into(), source, after, before, fallback },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let method =
        prop_oneof![Just(Method::GET), Just(Method::POST), Just(Method::from_bytes(b"PURGE").unwrap())];
    let what = (option::of(text()), method, template(), headers(), body());
    let more =
        (expectation(), option::of(capture()), any::<bool>(), option::of(0_u64..600_000), 0_u64..600_000);
    (what, more).prop_map(
        |((name, method, rest, headers, body), (expect, capture, follow, within, pause))| {
            let mut path = Template::literal("/");
            path.push(&rest);
            Step {
                name,
                headers,
                body,
                expect,
                captures: capture.into_iter().collect(),
                follow,
                within: within.map(Duration::from_millis),
                pause: Duration::from_millis(pause),
                ..Step::new(0, method, path)
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_written_is_read_again(name in text(), mut steps in vec(step(), 1..4), value in text()) {
        steps.iter_mut().zip(1..).for_each(|(step, number)| step.number = number);
        let variables = vec![(VARIABLE.to_owned(), Template::literal(value))];
        let journey = Journey { name, host: Some("shop:80".into()), variables, steps, notes: vec!["a\u{1b}\nb".into()] };
        let (text, read) = again(&journey);
        // What stands in for a character is one more variable, and the texts with it are the same when they are filled in.
        if read.variables == journey.variables {
            prop_assert_eq!(plain(&read), plain(&journey), "{}", text);
        } else {
            let (_, twice) = again(&read);
            prop_assert_eq!(plain(&twice), plain(&read), "{}", text);
        }
    }

    #[test]
    fn a_template_says_the_same(template in template()) {
        let mut variables = template::Variables::default();
        for (name, value) in [(VARIABLE, "1"), ("{", "{"), ("\\", "\\")] {
            variables.set(if name == "{" { "brace" } else if name == "\\" { "backslash" } else { name }, value);
        }
        let written = template.written(|char| if char == '{' { "brace" } else { "backslash" }.into());
        let read = Template::parse(&written).unwrap();
        prop_assert_eq!(read.fill(&variables).unwrap(), template.fill(&variables).unwrap(), "{}", written);
    }
}
