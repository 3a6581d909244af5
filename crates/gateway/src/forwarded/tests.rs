//! Chains of proxies, honest and not.

use proptest::{collection::vec, prelude::*};

use super::*;

/// Trusted are 10.0.0.0/8 and fd00::/8; the gateway itself saw HTTP for `seen.test`.
fn find<'a>(peer: &str, claims: &Claims<'a>) -> Origin<'a> {
    let trust = Trust::new(&["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
    let seen = Seen { peer: peer.parse().unwrap(), scheme: Scheme::Http, host: b"seen.test" };
    Origin::find(&trust, seen, claims)
}

fn claims<'a>(fields: &[(&str, &'a str)]) -> Claims<'a> {
    let mut claims = Claims::default();
    for (name, value) in fields {
        assert!(claims.note(name.as_bytes(), value.as_bytes()), "{name}");
    }
    claims
}

fn x_forwarded_for(origin: &Origin) -> String {
    let mut value = Vec::new();
    origin.write_x_forwarded_for(&mut value);
    String::from_utf8(value).unwrap()
}

fn forwarded(origin: &Origin) -> String {
    let mut value = Vec::new();
    origin.write_forwarded(&mut value);
    String::from_utf8(value).unwrap()
}

/// Checks what a request from the trusted 10.0.0.1 comes to: the addresses, and scheme and host.
fn check(fields: &[(&str, &str)], addresses: &str, scheme: &str, host: &str) {
    let claims = claims(fields);
    let origin = find("10.0.0.1", &claims);
    assert_eq!(x_forwarded_for(&origin), addresses, "{fields:?}");
    assert_eq!(origin.client.to_string(), addresses.split(", ").next().unwrap(), "{fields:?}");
    assert_eq!(origin.scheme.as_str(), scheme, "{fields:?}");
    assert_eq!(origin.host, host.as_bytes(), "{fields:?}");
    // And nothing of it from anyone else.
    assert_eq!(x_forwarded_for(&find("192.0.2.1", &claims)), "192.0.2.1");
}

const FOR: &str = "X-Forwarded-For";
const PROTO: &str = "x-forwarded-proto";
const HOST: &str = "X-FORWARDED-HOST";
const FORWARDED: &str = "Forwarded";

#[test]
fn addresses_from_the_right() {
    for (values, expected) in [
        (&[][..], "10.0.0.1"),
        (&["192.0.2.7"], "192.0.2.7, 10.0.0.1"),
        (&["192.0.2.7, 10.0.0.2"], "192.0.2.7, 10.0.0.2, 10.0.0.1"),
        (&["192.0.2.7", "10.0.0.2"], "192.0.2.7, 10.0.0.2, 10.0.0.1"),
        // What the client says of itself.
        (&["198.51.100.1, 192.0.2.7, 10.0.0.2"], "192.0.2.7, 10.0.0.2, 10.0.0.1"),
        (&["10.0.0.9, 192.0.2.7"], "192.0.2.7, 10.0.0.1"),
        // All are trusted: the farthest is the client.
        (&["10.0.0.3, 10.0.0.2"], "10.0.0.3, 10.0.0.2, 10.0.0.1"),
        // White space and empty elements.
        (&[" ,\t192.0.2.7 ,, 10.0.0.2\t,", "", ","], "192.0.2.7, 10.0.0.2, 10.0.0.1"),
        // Forms.
        (&["192.0.2.7:4711"], "192.0.2.7, 10.0.0.1"),
        (&["2001:DB8::0:7"], "2001:db8::7, 10.0.0.1"),
        (&["[2001:db8::7]"], "2001:db8::7, 10.0.0.1"),
        (&["[2001:db8::7]:4711, fd00::2"], "2001:db8::7, fd00::2, 10.0.0.1"),
        (&["::ffff:192.0.2.7, ::ffff:10.0.0.2"], "192.0.2.7, 10.0.0.2, 10.0.0.1"),
        // Malformed: it, and everything left of it, is as if it were not there.
        (&["192.0.2.7, nonsense"], "10.0.0.1"),
        (&["192.0.2.7, nonsense, 10.0.0.2"], "10.0.0.2, 10.0.0.1"),
        (&["192.0.2.7, 10.0.0.2 10.0.0.3"], "10.0.0.1"),
        (&["192.0.2.7, 10.0.0.256"], "10.0.0.1"),
        (&["192.0.2.7, 10.0.0.2:70000"], "10.0.0.1"),
        (&["192.0.2.7, [10.0.0.2]"], "10.0.0.1"),
        (&["192.0.2.7, fe80::1%eth0"], "10.0.0.1"),
        (&["192.0.2.7, \"10.0.0.2\""], "10.0.0.1"),
        (&["192.0.2.7, 10.0.0.2\u{b}"], "10.0.0.1"),
        // Not told: the proxy stands for whom it speaks for.
        (&["192.0.2.7, unknown"], "10.0.0.1"),
        (&["192.0.2.7, Unknown, 10.0.0.2"], "10.0.0.2, 10.0.0.1"),
    ] {
        let fields: Vec<_> = values.iter().map(|&value| (FOR, value)).collect();
        check(&fields, expected, "http", "seen.test");
    }
}

#[test]
fn peers() {
    let fields = [(FOR, "192.0.2.7"), (PROTO, "https")];
    for (peer, expected) in [
        ("10.0.0.1", "192.0.2.7, 10.0.0.1"),
        ("::ffff:10.0.0.1", "192.0.2.7, 10.0.0.1"),
        ("fd00::1", "192.0.2.7, fd00::1"),
        ("11.0.0.1", "11.0.0.1"),
        ("::ffff:11.0.0.1", "11.0.0.1"),
        ("2001:db8::1", "2001:db8::1"),
    ] {
        let claims = claims(&fields);
        let origin = find(peer, &claims);
        assert_eq!(x_forwarded_for(&origin), expected);
        assert_eq!(origin.scheme == Scheme::Https, expected.contains(','));
    }
    assert!(!Claims::default().note(b"x-forwarded-port", b"1"));
}

#[test]
fn there_is_an_end_to_it() {
    let long = vec!["10.0.0.2"; 1000].join(", ");
    let claims = claims(&[(FOR, &long)]);
    assert_eq!(x_forwarded_for(&find("10.0.0.1", &claims)).split(", ").count(), HOPS_MAX + 1);
}

#[test]
fn elements_of_rfc_7239() {
    for (values, addresses, scheme, host) in [
        (&["for=192.0.2.7"][..], "192.0.2.7, 10.0.0.1", "http", "seen.test"),
        (&["For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17, 10.0.0.1", "http", "seen.test"),
        (&["for=192.0.2.60;proto=http;by=203.0.113.43"], "192.0.2.60, 10.0.0.1", "http", "seen.test"),
        (&["for=192.0.2.43, for=10.0.0.17"], "192.0.2.43, 10.0.0.17, 10.0.0.1", "http", "seen.test"),
        (&["for=\"192.0.2.7:_port\""], "192.0.2.7, 10.0.0.1", "http", "seen.test"),
        (&["for=192.0.2.7;PROTO=HTTPS;host=shop.test"], "192.0.2.7, 10.0.0.1", "https", "shop.test"),
        (&["host=\"shop.test:8443\";for=192.0.2.7"], "192.0.2.7, 10.0.0.1", "http", "shop.test:8443"),
        (&["for=192.0.2.7;host=\"[2001:db8::1]:8443\""], "192.0.2.7, 10.0.0.1", "http", "[2001:db8::1]:8443"),
        (&["for=\"\\1\\92.0.2.7\";host=\"\\shop.te\\st\""], "192.0.2.7, 10.0.0.1", "http", "shop.test"),
        // White space, empty pairs, empty elements, parameters without a meaning.
        (&[" ;for=192.0.2.7 ; ;\tproto=https; , ,;"], "10.0.0.1", "http", "seen.test"),
        (&[" ;for=192.0.2.7 ; ;\tproto=https; , ,"], "192.0.2.7, 10.0.0.1", "https", "seen.test"),
        (&["for=192.0.2.7;secret=\"a, b; c=\\\"d\\\\\\\"\";x=y"], "192.0.2.7, 10.0.0.1", "http", "seen.test"),
        (&["for=192.0.2.7;proto=wss"], "192.0.2.7, 10.0.0.1", "https", "seen.test"),
        (&["for=192.0.2.7;proto=gopher"], "192.0.2.7, 10.0.0.1", "http", "seen.test"),
        // Not told.
        (&["for=192.0.2.7, for=unknown;proto=https"], "10.0.0.1", "https", "seen.test"),
        (&["for=192.0.2.7, for=_hidden"], "10.0.0.1", "http", "seen.test"),
        (&["for=192.0.2.7, for=\"_Hid.d-e_n:8080\""], "10.0.0.1", "http", "seen.test"),
        (&["for=192.0.2.7, proto=https;host=shop.test"], "10.0.0.1", "https", "shop.test"),
        // Scheme and host are those of the farthest one that is believed and says so.
        (
            &["for=192.0.2.7;proto=https;host=a.test", "for=10.0.0.2;proto=http;host=b.test"],
            "192.0.2.7, 10.0.0.2, 10.0.0.1",
            "https",
            "a.test",
        ),
        (
            &["for=1.2.3.4;proto=https;host=a.test, for=192.0.2.7;proto=http;host=b.test"],
            "192.0.2.7, 10.0.0.1",
            "http",
            "b.test",
        ),
        (
            &["for=192.0.2.7, for=10.0.0.2;proto=https;host=b.test"],
            "192.0.2.7, 10.0.0.2, 10.0.0.1",
            "https",
            "b.test",
        ),
    ] {
        let fields: Vec<_> = values.iter().map(|&value| (FORWARDED, value)).collect();
        check(&fields, addresses, scheme, host);
    }
}

#[test]
fn malformed_elements() {
    for element in [
        "for=10.0.0.2 proto=https",
        "for",
        "for=",
        "for=;proto=https",
        "=10.0.0.2",
        "for =10.0.0.2",
        "for= 10.0.0.2",
        "for=10.0.0.2;for=10.0.0.2",
        "for=10.0.0.2;proto=http;Proto=http",
        "for=10.0.0.2;by=10.0.0.3;by=10.0.0.3",
        "for=10.0.0.2;by=nonsense",
        "for=10.0.0.2:80",
        "for=[fd00::1]",
        "for=\"fd00::1\"",
        "for=\"[10.0.0.2]\"",
        "for=\"[fd00::1\"",
        "for=\"[fd00::1]80\"",
        "for=\"10.0.0.2:\"",
        "for=\"10.0.0.2:123456\"",
        "for=\"10.0.0.2:_\"",
        "for=\"10.0.0.2:80:80\"",
        "for=\"10.0.0.2\"x",
        "for=\"10.0.0.2",
        "for=10.0.0.2\"",
        "for=\"10.0.0.2\\",
        "for=\"10.0.0.2\u{1}\"",
        "for=\"10.0.0.2\\\u{7f}\"",
        "for=_",
        "for=\"_hid den\"",
        "for=10.0.0.2;proto=\"\"",
        "for=10.0.0.2;proto=\"ht tp\"",
        "for=10.0.0.2;host=\"\"",
        "for=10.0.0.2;host=\"user@shop.test\"",
        "for=10.0.0.2;host=\"shop.test/\"",
        "for=10.0.0.2;host=\"shop.test:x\"",
        "for=10.0.0.2;host=\"[::1\"",
        "for=10.0.0.2;host=\"[x]\"",
        "for=10.0.0.2;host=\"a b\"",
        "for=10.0.0.2;x=(y)",
    ] {
        for (value, expected) in [
            (element.to_string(), "10.0.0.1"),
            (format!("for=192.0.2.7;proto=https;host=a.test, {element}"), "10.0.0.1"),
            (format!("for=192.0.2.7, {element}, for=10.0.0.3"), "10.0.0.3, 10.0.0.1"),
        ] {
            check(&[(FORWARDED, &value)], expected, "http", "seen.test");
        }
    }
}

#[test]
fn schemes_and_hosts() {
    for (fields, addresses, scheme, host) in [
        (&[(PROTO, "https"), (HOST, "a.test:8443")][..], "10.0.0.1", "https", "a.test:8443"),
        (&[(FOR, "192.0.2.7"), (PROTO, "HTTPS"), (HOST, "[::1]")], "192.0.2.7, 10.0.0.1", "https", "[::1]"),
        // One is for all, a list goes along with the addresses.
        (
            &[(FOR, "192.0.2.7, 10.0.0.2"), (PROTO, "https")],
            "192.0.2.7, 10.0.0.2, 10.0.0.1",
            "https",
            "seen.test",
        ),
        (
            &[(FOR, "192.0.2.7, 10.0.0.2"), (PROTO, "https, http"), (HOST, "a.test,b.test")],
            "192.0.2.7, 10.0.0.2, 10.0.0.1",
            "https",
            "a.test",
        ),
        (
            &[(FOR, "1.2.3.4, 192.0.2.7"), (PROTO, "https, http"), (HOST, "a.test"), (HOST, "b.test")],
            "192.0.2.7, 10.0.0.1",
            "http",
            "b.test",
        ),
        // Malformed, and what is left of it.
        (
            &[(FOR, "192.0.2.7, 10.0.0.2"), (PROTO, "https, x"), (HOST, "a.test, /b")],
            "192.0.2.7, 10.0.0.2, 10.0.0.1",
            "http",
            "seen.test",
        ),
        (
            &[(FOR, "192.0.2.7, 10.0.0.2"), (PROTO, "x, https"), (HOST, "/a, b.test")],
            "192.0.2.7, 10.0.0.2, 10.0.0.1",
            "https",
            "b.test",
        ),
        // A proxy whose addresses are malformed is not believed in the rest.
        (&[(FOR, "nonsense"), (PROTO, "https"), (HOST, "a.test")], "10.0.0.1", "http", "seen.test"),
        // Both kinds of fields.
        (
            &[
                (FORWARDED, "for=192.0.2.7;proto=https;host=A.test"),
                (FOR, "192.0.2.7"),
                (PROTO, "https"),
                (HOST, "a.test"),
            ],
            "192.0.2.7, 10.0.0.1",
            "https",
            "A.test",
        ),
        (
            &[(FORWARDED, "for=192.0.2.7;host=a.test"), (FOR, "192.0.2.7"), (PROTO, "https")],
            "192.0.2.7, 10.0.0.1",
            "https",
            "a.test",
        ),
        (
            &[
                (FORWARDED, "for=192.0.2.7;proto=https;host=a.test"),
                (FOR, "192.0.2.7"),
                (PROTO, "http"),
                (HOST, "b.test"),
            ],
            "192.0.2.7, 10.0.0.1",
            "http",
            "seen.test",
        ),
        (
            &[(FORWARDED, "for=10.0.0.2;proto=https"), (FOR, "192.0.2.7, 10.0.0.2")],
            "192.0.2.7, 10.0.0.2, 10.0.0.1",
            "https",
            "seen.test",
        ),
        // One of the two was passed on from the client.
        (
            &[(FORWARDED, "for=198.51.100.1;proto=https"), (FOR, "192.0.2.7"), (HOST, "b.test")],
            "10.0.0.1",
            "http",
            "seen.test",
        ),
        (&[(FORWARDED, "proto=https"), (FOR, "192.0.2.7")], "10.0.0.1", "http", "seen.test"),
        (&[(FORWARDED, "nonsense"), (FOR, "192.0.2.7"), (PROTO, "https")], "10.0.0.1", "http", "seen.test"),
        (
            &[(FORWARDED, "for=198.51.100.1, for=10.0.0.2"), (FOR, "192.0.2.7, 10.0.0.2"), (PROTO, "https")],
            "10.0.0.2, 10.0.0.1",
            "https",
            "seen.test",
        ),
        (&[(FORWARDED, "for=unknown"), (FOR, "unknown"), (PROTO, "https")], "10.0.0.1", "https", "seen.test"),
    ] {
        check(fields, addresses, scheme, host);
    }
}

#[test]
fn what_the_worker_sees() {
    for (peer, fields, expected) in [
        ("192.0.2.1", &[][..], "for=192.0.2.1;host=seen.test;proto=http"),
        ("2001:db8::1", &[], "for=\"[2001:db8::1]\";host=seen.test;proto=http"),
        (
            "10.0.0.1",
            &[(FORWARDED, "for=\"[2001:db8::2]:1\";host=\"a.test:1\";proto=https")],
            "for=\"[2001:db8::2]\";host=\"a.test:1\";proto=https",
        ),
    ] {
        let claims = claims(fields);
        assert_eq!(forwarded(&find(peer, &claims)), expected);
    }
    let seen = Seen { peer: [192, 0, 2, 1].into(), scheme: Scheme::Https, host: b"" };
    assert_eq!(forwarded(&Origin::seen(seen)), "for=192.0.2.1;proto=https");
    let seen = Seen { host: b"\"\\", ..seen };
    assert_eq!(forwarded(&Origin::seen(seen)), "for=192.0.2.1;host=\"\\\"\\\\\";proto=https");
}

const PIECES: &[&str] = &[
    "for=",
    "by=",
    "host=",
    "proto=",
    "https",
    "10.0.0.2",
    "192.0.2.9",
    "fd00::1",
    "[fd00::1]",
    "unknown",
    "_x",
    "\"",
    "\\",
    ",",
    ";",
    "=",
    " ",
    ":80",
    "a.test",
    "\\\"",
    "\t",
];

/// Fields as someone might write them who wants to seem somebody else: pieces of good ones, in any order.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => proptest::sample::select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..4),
    ];
    vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn noted<'a>(fields: &'a [(&str, Vec<u8>)]) -> Claims<'a> {
    let mut claims = Claims::default();
    fields.iter().for_each(|(name, value)| assert!(claims.note(name.as_bytes(), value)));
    claims
}

fn fields() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    vec((proptest::sample::select(&[FOR, PROTO, HOST, FORWARDED]), hostile()), 0..6)
}

proptest! {
    #[test]
    fn nobody_else_is_believed(fields in fields(), peer: std::net::IpAddr) {
        let claims = noted(&fields);
        let trust = Trust::default();
        let seen = Seen { peer, scheme: Scheme::Http, host: b"seen.test" };
        prop_assert_eq!(Origin::find(&trust, seen, &claims), Origin::seen(seen));
    }

    #[test]
    fn what_always_holds(fields in vec((0..4u8, hostile()), 0..6)) {
        let lines: Vec<_> = fields.iter().map(|(kind, value)| [&[*kind], &value[..]].concat()).collect();
        fuzz::check(&lines.join(&b'\n'));
    }
}
