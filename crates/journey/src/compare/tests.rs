use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::*;

fn observed(identity: &str, status: u16, headers: &[(&str, &str)], body: &str) -> Observed {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    Observed {
        step: 2,
        status: StatusCode::from_u16(status).unwrap(),
        headers: map,
        body: Bytes::copy_from_slice(body.as_bytes()),
        is_cut: false,
        redirects: Vec::new(),
        took: Duration::ZERO,
        unmet: Vec::new(),
        identity: identity.into(),
    }
}

fn page(body: &str) -> Observed {
    observed("", 200, &[("content-type", "text/html; charset=utf-8")], body)
}

fn json(body: &str) -> Observed {
    observed("", 200, &[("content-type", "application/json")], body)
}

fn shown(first: &Observed, second: &Observed, masks: &Masks) -> Vec<String> {
    compare(first, second, masks).iter().map(ToString::to_string).collect()
}

#[test]
fn only_the_words_that_differ_in_controls_are_masked() {
    let mut masks = Masks::default();
    let body = |items: &str, number: &str| {
        page(&format!(
            "<body><p>a<p>You have {items} items (request {number})</p><input name=t value={number}></body>"
        ))
    };
    assert!(masks.learn(&body("3", "817"), &body("3", "818")).is_empty());
    assert_eq!(masks.len(), 2);
    assert_eq!(shown(&body("3", "817"), &body("3", "999"), &masks), Vec::<String>::new());
    let lost = shown(&body("3", "817"), &body("0", "999"), &masks);
    assert_eq!(lost, ["text body/p[1]/p[1], word 3: \"3\" and \"0\""]);
    // A text of another length is another text, whatever is masked of its words.
    let other = shown(&body("3", "817"), &body("no", "999)</p><p>("), &masks);
    assert!(other[0].starts_with("text body/p[1]/p[1]"), "{other:?}");
}

#[test]
fn moments_are_told_in_words_too() {
    let body = |moment: &str, words: &str| {
        page(&format!("<body><p>by ada <time datetime=\"{moment}\">at <b>{words}</b></time></p>"))
    };
    let first = body("2026-01-02T03:04:59Z", "03:04");
    assert_eq!(
        shown(&first, &body("2026-01-02T03:05:00Z", "03:05"), &Masks::default()),
        Vec::<String>::new()
    );
    // What is no moment of now may be what somebody has said.
    let (first, second) = (body("10:30", "half past ten"), body("09:00", "nine"));
    assert_eq!(shown(&first, &second, &Masks::default()).len(), 2);
}

#[test]
fn leaves_of_json() {
    let first = json(r#"{"id": 1, "cart": {"lines": [{"slug": "ink"}], "a/b": null}, "none": []}"#);
    let second = json(r#"{"id": "1", "cart": {"lines": [], "a/b": 3}, "none": []}"#);
    assert_eq!(
        shown(&first, &second, &Masks::default()),
        [
            "JSON /cart/a~1b: \"null\" and \"3\"",
            "JSON /cart/lines/0/slug: \"\\\"ink\\\"\" and nothing",
            "JSON /id: \"1\" and \"\\\"1\\\"\"",
            "JSON /cart/lines: nothing and \"[]\"",
        ]
    );
}

#[test]
fn the_status_and_where_a_redirect_leads_are_never_masked() {
    let placed = |location: &str| observed("", 303, &[("location", location)], "");
    let mut masks = Masks::default();
    // The number of the order is another one in each run; that it is one is not.
    assert!(masks.learn(&placed("/orders/17"), &placed("/orders/18")).is_empty());
    assert_eq!(shown(&placed("/orders/17"), &placed("/orders/99"), &masks), Vec::<String>::new());
    let unmaskable = masks.learn(&placed("/orders/17"), &placed("/sign-in"));
    assert_eq!(unmaskable.len(), 1, "{unmaskable:?}");
    assert_eq!(
        shown(&placed("/orders/17"), &placed("/sign-in"), &masks),
        ["redirect: \"303 /orders/*\" and \"303 /sign-in\""]
    );
    let failed = observed("", 500, &[], "");
    assert_eq!(masks.learn(&failed, &placed("/orders/17"))[0].place, Place::Status);
    assert!(shown(&placed("/orders/17"), &failed, &masks)[0].starts_with("status: \"303\" and \"500\""));
}

#[test]
fn what_differs_by_nature_is_no_difference() {
    let at = |identity: &str, date: &str, body: &str| {
        let cookie = format!("s=x; Expires={date}; Path=/");
        let headers = [
            ("date", date),
            ("content-type", "text/html"),
            ("last-modified", date),
            ("set-cookie", &*cookie),
        ];
        observed(identity, 200, &headers, body)
    };
    let first =
        at("aaaaa1", "Fri, 15 Jan 2027 08:00:00 GMT", "<p>ada-aaaaa1</p><time>2027-01-15T08:00:00Z</time>");
    let second =
        at("bbbbb2", "Fri, 15 Jan 2027 09:00:00 GMT", "<p>ada-bbbbb2</p><time>2027-01-15T09:00:00Z</time>");
    assert_eq!(shown(&first, &second, &Masks::default()), Vec::<String>::new());
    let third =
        at("bbbbb2", "Fri, 15 Jan 2027 09:00:00 GMT", "<p>ada-aaaaa1</p><time>2027-01-15T09:00:00Z</time>");
    assert_eq!(shown(&first, &third, &Masks::default()).len(), 1, "the name of somebody else");
}

#[test]
fn headers_cookies_and_other_bodies() {
    let with = |headers: &[(&str, &str)], body: &str| observed("", 200, headers, body);
    let first =
        with(&[("set-cookie", "s=1; HttpOnly"), ("x-left", "9"), ("vary", "a"), ("vary", "b")], "one\ntwo 2");
    let second =
        with(&[("set-cookie", "s=2; HttpOnly; Secure"), ("x-left", "8"), ("vary", "a")], "one\ntwo 3");
    let mut all = shown(&first, &second, &Masks::default());
    all.sort_unstable();
    assert_eq!(
        all,
        [
            "attributes of cookie s: \"HttpOnly\" and \"HttpOnly; Secure\"",
            "cookie s: \"1\" and \"2\"",
            "header vary: \"a\\nb\" and \"a\"",
            "header x-left: \"9\" and \"8\"",
            "text line 2, word 2: \"2\" and \"3\"",
        ]
    );
    let binary =
        |bytes: &'static [u8], is_cut| Observed { body: Bytes::from_static(bytes), is_cut, ..with(&[], "") };
    assert_eq!(
        compare(&binary(b"\xff1", false), &binary(b"\xff2", false), &Masks::default())[0].place,
        Place::Body
    );
    assert!(compare(&binary(b"\xff1", true), &binary(b"\xff2", true), &Masks::default()).is_empty());
}
