use std::path::Path;

use http::{HeaderName, HeaderValue};

use super::*;
use crate::{document, written};

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
    };
    fields.iter().map(field).collect()
}

struct Browser {
    recorder: Recorder,
    next: u64,
}

impl Browser {
    fn new() -> Self {
        let options = Options { to_keep: true, ..Options::default() };
        Self { recorder: Recorder::new("127.0.0.1:3000", options), next: 0 }
    }

    /// What a browser asks for: `GET /path`, with a body if there is one; and what comes, with its type or `Location`.
    fn ask(
        &mut self,
        line: &str,
        headers: &[(&str, &str)],
        sent: &[u8],
        (status, came, body): (u16, &[(&str, &str)], &str),
    ) -> Result<(), &'static str> {
        let (method, target) = line.split_once(' ').unwrap();
        let common = [
            ("user-agent", "Mozilla"),
            ("accept", "text/html,application/xhtml+xml;q=0.9"),
            ("origin", "http://127.0.0.1:3000"),
            ("referer", "http://127.0.0.1:3000/notes"),
            ("sec-fetch-site", "same-origin"),
        ];
        self.next += 1;
        self.recorder.add(Exchange {
            number: self.next,
            method: Method::from_bytes(method.as_bytes()).unwrap(),
            target: target.into(),
            headers: map(&[&common[..], headers].concat()),
            body: Some(Bytes::copy_from_slice(sent)),
            answer: Some(Answer {
                status,
                headers: map(came),
                body: Some(Bytes::copy_from_slice(body.as_bytes())),
            }),
        })
    }

    fn written(self) -> String {
        let journey = self.recorder.journey("notes").unwrap();
        let written = written::write(&journey, "notes-files");
        if written.files.is_empty() {
            let read = document::read(&written.text, "notes.toml", "notes", Path::new("")).unwrap();
            assert_eq!(read.steps.len(), journey.steps.len());
        }
        written.text
    }
}

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const HTML: &[(&str, &str)] = &[("content-type", "text/html")];
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

#[test]
fn a_file_without_what_is_nobody_elses_business() {
    let mut browser = Browser::new();
    let page = "<title>Join us</title><form method=post><input name=csrf type=hidden value=Zk39-s3cr3t>\
        <input name=geheim type=password><input name=repeat type=password><button name=x value=y>No</button><input type=submit value='Sign  up'></form>";
    browser.ask("GET /join", &[], b"", (200, HTML, page)).unwrap();
    let entered = &[("location", "/notes"), ("set-cookie", "sid=s3cr3t-99; HttpOnly")];
    let sent = b"user=grace&geheim=Pa55word!&repeat=Pa55word!&csrf=Zk39-s3cr3t";
    browser.ask("POST /join", &[FORM], sent, (303, entered, "")).unwrap();
    browser
        .ask("GET /notes", &[("cookie", "sid=s3cr3t-99")], b"", (200, HTML, "<title>Notes of grace</title>"))
        .unwrap();
    assert_eq!(
        browser.ask(
            "GET /logo",
            &[("sec-fetch-dest", "image")],
            b"",
            (200, &[("content-type", "image/png")], "")
        ),
        Err("images, styles, scripts and fonts")
    );
    browser.ask("POST /login", &[FORM], b"user=grace&geheim=Other-Bank-1", (403, HTML, "no")).unwrap();
    let fetch = ("sec-fetch-dest", "empty");
    browser
        .ask(
            "POST /api/token",
            &[fetch, ("accept", "*/*"), ("content-type", "application/json")],
            br#"{"user":"grace","password":"Pa55word!"}"#,
            (200, JSON, r#"{"access_token": "eyJhbGciOiJI.s3cr3t"}"#),
        )
        .unwrap();
    let token = ("authorization", "Bearer eyJhbGciOiJI.s3cr3t");
    for (answer, expected) in
        [("[]", Ok(())), ("[]", Err("asked again with the same answer")), ("[1]", Ok(()))]
    {
        assert_eq!(browser.ask("GET /api/notes", &[fetch, token], b"", (200, JSON, answer)), expected);
    }
    browser
        .ask("DELETE /api/old", &[fetch, ("authorization", "Bearer of-yesterday")], b"", (404, JSON, "{}"))
        .unwrap();
    browser
        .ask("POST /notes", &[FORM], b"text=hello&otp=123456", (303, &[("location", "/notes")], ""))
        .unwrap();
    let text = browser.written();
    for secret in ["s3cr3t", "Pa55", "Other-Bank", "yesterday", "Mozilla", "3000", "sec-fetch"] {
        assert!(!text.contains(secret), "{secret} is in it:\n{text}");
    }
    for expected in [
        "user           = \"grace{{identity}}\"",
        "password       = \"Qu27triv!\"",
        "wrong-password = ",
        "the password of step 2 is made up",
        "an Authorization from before the recording is not in this file (step 8)",
        "as it was sent, so see whether it may be in a file: otp (step 9)",
        "name    = \"Sign up\"\npost    = \"/join\"",
        "name    = \"Join us\"",
        "get    = \"/notes\"\nexpect",
        "capture = { csrf = { input = \"csrf\" } }",
        "authorization = \"Bearer {{access_token}}\"",
        "headers = { origin = \"{{origin}}\", referer = \"{{origin}}/notes\" }\nform    = { text",
    ] {
        assert!(text.contains(expected), "{expected} is not in it:\n{text}");
    }
}

#[test]
fn who_has_an_account_says_the_password_in_sight() {
    let mut browser = Browser::new();
    let basic = ("authorization", "Basic YWRhOnNlY3JldA==");
    browser.ask("GET /inside", &[basic], b"", (200, HTML, "")).unwrap();
    browser.ask("POST /login", &[FORM, basic], b"user=grace&password=Pa55word!", (303, &[], "")).unwrap();
    let plain = ("content-type", "text/plain;charset=UTF-8");
    browser
        .ask("PUT /mail?pwd=x", &[plain, basic], br#"{"password": "Pa55word!"}"#, (200, HTML, ""))
        .unwrap();
    let text = browser.written();
    assert_eq!(text.matches("Pa55word!").count(), 1, "{text}");
    assert!(text.contains("see whether it may be in a file: pwd (step 3)"), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.contains(&"password      = \"Pa55word!\""), "{text}");
    assert!(lines.contains(&"authorization = \"Basic YWRhOnNlY3JldA==\""), "{text}");
    assert_eq!(text.matches("{{authorization}}").count(), 1, "each step has it: {text}");
    assert!(text.contains("password = { env = \"PASSWORD\" }"), "{text}");
}

#[test]
fn passwords_in_parts_and_short_ones() {
    let mut browser = Browser::new();
    let multipart = ("content-type", "multipart/form-data; boundary=b");
    let sent = b"--b\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\nPa55word!\r\n--b--\r\n";
    browser.ask("POST /login", &[multipart], sent, (303, &[], "")).unwrap();
    let plain = ("content-type", "text/plain;charset=UTF-8");
    browser.ask("POST /pin", &[plain], br#"{"data": "a", "password": "a"}"#, (200, HTML, "")).unwrap();
    let text = browser.written();
    assert!(text.contains("= \"{{password}}\"") && text.matches("Pa55word!").count() == 1, "{text}");
    assert!(text.contains(r#"{"data": "a", "password": "a"}"#), "{text}");
    assert!(
        text.contains("the password of step 2 is in this file as it was typed: it cannot be told"),
        "{text}"
    );
}

#[test]
fn variables_of_the_environment() {
    let read = |text: &str| {
        let text = format!("[variables]\n{text}\n[[steps]]\nget = \"/{{{{v}}}}\"\n");
        document::read(&text, "a.toml", "a", Path::new(""))
    };
    // What each process has.
    let journey = read("v = { env = \"PATH\" }").unwrap();
    assert_eq!(journey.variables[0].1.as_literal(), std::env::var("PATH").ok().as_deref());
    for (text, said) in [
        (
            "v = { env = \"LETHE_TEST_NOT_THERE\" }",
            "a.toml:2:13: `LETHE_TEST_NOT_THERE` is not in the environment",
        ),
        ("v = { evn = \"A\" }", "did you mean `env`?"),
        ("v = {}", "must be a text, or { env"),
    ] {
        let problems = read(text).unwrap_err().to_string();
        assert!(problems.contains(said), "{problems}");
    }
}

#[test]
fn files_and_what_is_no_text() {
    let mut browser = Browser::new();
    let sent = b"--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n\
        \r\n--b\r\nContent-Disposition: form-data; name=\"none\"; filename=\"\"\r\nContent-Type: application/octet-stream\r\n\r\n\r\n--b--\r\n";
    let multipart = ("content-type", "multipart/form-data; boundary=b");
    browser.ask("POST /photos", &[multipart], sent, (201, HTML, "")).unwrap();
    browser.ask("PUT /raw", &[("content-type", "image/png")], b"\x89", (204, &[], "")).unwrap();
    let long = format!("[{}1]", "1,".repeat(100_000));
    browser
        .ask("PUT /long", &[("content-type", "application/json")], long.as_bytes(), (204, &[], ""))
        .unwrap();
    let journey = browser.recorder.journey("photos").unwrap();
    let written = written::write(&journey, "sent");
    let files: Vec<(&str, &[u8])> =
        written.files.iter().map(|file| (file.path.as_str(), &*file.bytes)).collect();
    assert_eq!(
        files,
        [("sent/a.png", b"\x89PNG\r\n".as_slice()), ("sent/body", b"\x89"), ("sent/2-body", long.as_bytes())]
    );
    assert!(
        written.text.contains("none = { text = \"\", type = \"application/octet-stream\", name = \"\" }"),
        "{}",
        written.text
    );
    assert!(journey.notes.is_empty(), "{:?}", journey.notes);
    let none = Recorder::new("shop", Options::default()).journey("a").unwrap_err().to_string();
    assert!(none.contains("no step was recorded"), "{none}");
}
