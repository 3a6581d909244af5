use std::time::Duration;

use http::Method;
use serde_json::json;

use super::*;
use crate::{
    body::{Body, Content},
    capture::Source,
    template::Variables,
};

fn parse(text: &str) -> Result<Journey, Problems> {
    read(text, "shop.toml", "shop", Path::new("."))
}

const SHOPPING: &str = r#"
name = "shopping"
host = "shop.example"
headers = { Accept-Language = "en" }

[variables]
user = "ada-{{identity}}"
mail = "{{user}}@example.org"

[[steps]]
get = "/sign-up"
capture.csrf = { input = "csrf" }

[[steps]]
name = "sign up"
post = "/sign-up"
form = { name = "{{user}}", csrf = "{{csrf}}", box = ["a", "b"], age = 7 }
expect = { status = 303, location = "/" }

[[steps]]
method = "PURGE"
path = "/{{user}}"
headers = { accept-language = "de" }
json = { b = { z = 1, a = ["{{user}}", 0x10, 1.5, true] } }
expect = { status = ["2xx", 404], contains = "a", lacks = ["b", "c"], json = { "/a/0" = "{{id}}" } }
capture = { id = { json = "/id", default = 3 }, order = { header = "Location", after = "/orders/" }, word = { after = "no. ", before = "<" } }
follow = true
within = "1.5s"
pause = "20ms"

[[steps]]
put = "/photo/{{id}}"
body = { text = "x{{order}}", type = "text/plain" }
"#;

#[test]
fn a_misspelt_request_is_told_of_once() {
    let problems = parse("[[steps]]\ngte = \"/\"").unwrap_err().to_string();
    assert_eq!(problems.lines().count(), 1, "{problems}");
}

#[test]
fn channels_are_named_and_used() {
    let text = "[[steps]]\nwebsocket = \"/chat\"\nas = \"ada\"\nsend = [\"40\", \"hi\"]\narrives = \"40\"\n\
                [[steps]]\nevents = \"/news\"\n[[steps]]\nsend = \"hello\"\n\
                [[steps]]\npost = \"/news\"\ncapture = { id = { json = \"/id\" } }\n\
                arrives = { text = \"{{id}}\", on = \"events\", within = \"2s\" }";
    let journey = parse(text).unwrap();
    let titles: Vec<_> = journey.steps.iter().map(crate::journey::Step::title).collect();
    assert_eq!(titles, ["WebSocket /chat", "events /news", "send on ada", "POST /news"]);
    let arrivals: Vec<_> = journey
        .steps
        .iter()
        .map(|step| step.arrives.as_ref().map(|arrival| (arrival.on.as_str(), arrival.within.as_secs())))
        .collect();
    assert_eq!(arrivals, [Some(("ada", 5)), None, None, Some(("events", 2))]);
    let texts: Vec<_> = journey.steps.iter().map(|step| step.act.texts().len()).collect();
    assert_eq!(texts, [2, 0, 1, 0]);
    assert_eq!(journey.opening("events", 4).map(|(step, _)| step.number), Some(2));
    assert!(journey.opening("events", 2).is_none() && !journey.steps[3].is_plain());
}

#[test]
fn a_whole_journey() {
    let journey = parse(SHOPPING).unwrap();
    assert_eq!(
        (journey.name.as_str(), journey.host.as_deref(), journey.steps.len()),
        ("shopping", Some("shop.example"), 4)
    );
    let mut variables = Variables::default();
    for (name, value) in [("identity", "r1"), ("user", "ada-r1"), ("csrf", "t"), ("order", "7f"), ("id", "9")]
    {
        variables.set(name, value);
    }
    let body = |number| journey.step(number).unwrap().body.render(&variables).unwrap().bytes;
    // Fields and keys are sent in the order in which they were written.
    assert_eq!(body(2), "name=ada-r1&csrf=t&box=a&box=b&age=7");
    assert_eq!(body(3), r#"{"b":{"a":["ada-r1",16,1.5,true],"z":1}}"#);
    let third = journey.step(3).unwrap();
    assert_eq!(
        (third.method.as_str(), third.follow, third.within),
        ("PURGE", true, Some(Duration::from_millis(1500)))
    );
    let headers: Vec<_> =
        third.headers.iter().map(|(name, value)| (name.as_str(), value.to_string())).collect();
    assert_eq!(headers, [("accept-language", "de".to_owned())]);
    assert_eq!(third.expect.statuses, [200..=299, 404..=404]);
    assert_eq!(third.captures[0].fallback, Some(json!(3)));
    assert_eq!(third.captures[2].source, Source::Body);
    assert_eq!(journey.step(2).unwrap().title(), "sign up");
    assert_eq!(journey.step(4).unwrap().title(), "PUT /photo/{{id}}");
    let first = journey.step(1).unwrap();
    assert_eq!((&first.method, first.headers[0].1.to_string()), (&Method::GET, "en".to_owned()));
}

#[test]
fn files_are_beside_the_journey() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("photo.png"), b"\x89PNG").unwrap();
    let path = folder.path().join("upload.toml");
    let text = "[[steps]]\npost = \"/\"\nmultipart = { title = \"x\", photo = { file = \"photo.png\", type = \"image/png\" } }";
    fs::write(&path, text).unwrap();
    let journey = load(&path).unwrap();
    assert_eq!(journey.name, "upload");
    let Body::Multipart(parts) = &journey.steps[0].body else { panic!("{:?}", journey.steps[0].body) };
    assert_eq!(parts[1].file_name.as_ref().unwrap().to_string(), "photo.png");
    assert_eq!(parts[1].content, Content::Bytes(b"\x89PNG"[..].into()));
    fs::write(&path, text.replace("photo.png", "none.png")).unwrap();
    let problems = load(&path).unwrap_err().to_string();
    assert!(problems.contains(":3:") && problems.contains("none.png cannot be opened"), "{problems}");
    fs::write(&path, b"name = \"a\"\nx = \"\xff\"").unwrap();
    let problems = load(&path).unwrap_err().to_string();
    assert!(problems.contains("upload.toml:2:6: this is no UTF-8"), "{problems}");
    assert!(load(folder.path()).unwrap_err().to_string().contains("cannot be read"));
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_what_to_do() {
    for (text, expected) in [
        ("", "shop.toml: there are no steps: write [[steps]]"),
        ("steps = 3", "shop.toml:1:9: `steps` must be a list of tables"),
        ("steps = [3]", "shop.toml:1:10: a step is a table"),
        ("[[steps]]\nget = \"/", "shop.toml:2:9: not valid TOML: invalid basic string"),
        ("nam = \"x\"\n[[steps]]\nget = \"/\"", "shop.toml:1:1: unknown key `nam`; did you mean `name`?"),
        ("host = \"a b\"\n[[steps]]\nget = \"/\"", "shop.toml:1:8: `a b` is no host"),
        ("[[steps]]\n", "shop.toml:1:1: step 1 has no request: write, for example, get = \"/\""),
        ("[[steps]]\nget = \"/\"\npost = \"/\"", "step 1 has several requests, `get` and `post`"),
        ("[[steps]]\nget = 3", "shop.toml:2:7: `get` must be a text in quotes, not a number"),
        ("[[steps]]\nget = \"http://x/\"", "shop.toml:2:7: `http://x/` is no path: begin it with `/`"),
        ("[[steps]]\nmethod = \"a b\"", "shop.toml:2:10: `a b` is no method"),
        ("[[steps]]\nmethod = \"A\"", "step 1 has no path: write path = \"/\" beside `method`"),
        ("[[steps]]\nget = \"/\"\npath = \"/\"", "shop.toml:3:8: `path` goes with `method`"),
        ("[[steps]]\ngte = \"/\"", "unknown key `gte` in step 1; did you mean `get`?"),
        (
            "[[steps]]\nget = \"/{{a}}\"",
            "step 1 uses the variable `a`, which has no value by then; known there: `identity`",
        ),
        (
            "[[steps]]\nget = \"/{{a}}\"\ncapture = { a = { json = \"/\" } }\nexpect = { contains = \"{{a}}\" }",
            "variable `a`, which has no value",
        ),
        ("[variables]\nuser = \"x\"\n[[steps]]\nget = \"/{{usr}}\"", "did you mean `user`?"),
        (
            "[variables]\na = \"{{b}}\"\nb = \"x\"\n[[steps]]\nget = \"/\"",
            "shop.toml:2:5: the variable `b` is not there yet",
        ),
        ("[variables]\nidentity = \"x\"\n[[steps]]\nget = \"/\"", "`identity` is given to each run"),
        ("[[steps]]\nget = \"/{{\"", "shop.toml:2:7: `{{` is not closed"),
        (
            "[[steps]]\npost = \"/\"\nform = {}\njson = {}",
            "step 1 has several bodies, `form` and `json`: keep one",
        ),
        (
            "[[steps]]\npost = \"/\"\nform = 3",
            "`form` must be a table such as { name = \"ada\" }, not a number",
        ),
        ("[[steps]]\npost = \"/\"\njson = 99999999999999999999", "is too large: write it as a text"),
        ("[[steps]]\npost = \"/\"\nbody = {}", "`body` needs either `text` or `file`"),
        (
            "[[steps]]\nget = \"/\"\nexpect = { status = 20 }",
            "shop.toml:3:21: `status` must be a number from 100 to 599",
        ),
        ("[[steps]]\nget = \"/\"\nexpect = { statu = 20 }", "did you mean `status`?"),
        (
            "[[steps]]\nget = \"/\"\nexpect = { json = { a = 1 } }",
            "`a` is no pointer into JSON: begin it with `/`, as in \"/a\"",
        ),
        (
            "[[steps]]\nget = \"/\"\ncapture = { a = 3 }",
            "`a` must say where its value stands, as { json = \"/id\" }",
        ),
        (
            "[[steps]]\nget = \"/\"\ncapture = { a = { json = \"/\", cookie = \"x\" } }",
            "`a` must say one place",
        ),
        ("[[steps]]\nget = \"/\"\nheaders = { \"a b\" = \"x\" }", "`a b` is no name of a header field"),
        (
            "[[steps]]\nget = \"/\"\nheaders = { Content-Length = 3 }",
            "is decided by what is sent and how: take it out",
        ),
        ("[[steps]]\nget = \"/\"\nwithin = \"3 days\"", "`within`: write a time of up to 10m"),
        ("[[steps]]\nget = \"/\"\nname = \"a\u{1b}\"\nfollow = 1", "not valid TOML"),
        ("[[steps]]\nget = \"/\"\nfollow = 1", "`follow` must be true or false, not a number"),
        ("[[steps]]\nsend = \"x\"", "nothing is open by step 1: write websocket = \"/…\" in one before"),
        ("[[steps]]\nget = \"/\"\narrives = \"x\"", "nothing is open by step 1"),
        ("[[steps]]\nevents = \"/\"\nsend = \"x\"", "nothing can be sent over events"),
        ("[[steps]]\nget = \"/\"\nas = \"x\"", "`as` goes with `websocket` or `events`"),
        ("[[steps]]\nget = \"/\"\non = \"x\"", "`on` goes with `send`"),
        ("[[steps]]\nevents = \"/\"\nas = \"a b\"", "`a b` is no name: use letters"),
        ("[[steps]]\nevents = \"/\"\n[[steps]]\nsend = \"x\"", "nothing is open by step 2: write websocket"),
        (
            "[[steps]]\nwebsocket = \"/\"\nas = \"ada\"\n[[steps]]\nsend = \"x\"\non = \"adda\"",
            "shop.toml:6:6: no step before opens `adda`; did you mean `ada`?",
        ),
        (
            "[[steps]]\nwebsocket = \"/\"\n[[steps]]\nevents = \"/\"\n[[steps]]\nget = \"/\"\narrives = \"x\"",
            "several are open by step 3, `events` and `websocket`: say `on`",
        ),
        (
            "[[steps]]\nwebsocket = \"/\"\n[[steps]]\nget = \"/\"\narrives = \"x\"\nwithin = \"1s\"",
            "`within` would play the step again: write it into `arrives`",
        ),
        ("[[steps]]\nwebsocket = \"/\"\njson = {}", "`json` does not go with a connection that is kept open"),
        (
            "[[steps]]\nwebsocket = \"/\"\n[[steps]]\nsend = \"x\"\nexpect = { status = 200 }",
            "`expect` has no response to look into: use `arrives`",
        ),
        ("[[steps]]\nwebsocket = \"/\"\narrives = { on = \"x\" }", "`arrives` needs `text`"),
        ("[[steps]]\nwebsocket = \"/\"\nget = \"/\"", "several requests, `get` and `websocket`"),
        ("[[steps]]\nwebsocket = \"/\"\nsend = \"{{a}}\"", "step 1 uses the variable `a`"),
        ("[[steps]]\nwebsocket = \"/\"\narrives = \"{{a}}\"", "step 1 uses the variable `a`"),
    ] {
        let problems = parse(text).unwrap_err().to_string();
        assert!(problems.contains(expected), "{text}\n{problems}");
        assert!(!problems.contains('\u{1b}'));
    }
    let both = parse("nam = 1\n[[steps]]\ngte = 1").unwrap_err();
    // That step 1 has no request is not told too: its misspelt key is the reason.
    assert_eq!(both.0.len(), 2, "{both}");
}
