//! What holds for any fields that a request may have.

use std::net::{IpAddr, Ipv4Addr};

use super::{Claims, Origin, Scheme, Seen, Trust, element, is_host};
use crate::config::Network;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// Each line is a field: the first byte says which, the rest is its value.
pub(crate) fn check(data: &[u8]) {
    let mut fields = Vec::new();
    for line in data.split(|&byte| byte == b'\n') {
        if let [kind, value @ ..] = line {
            let names = ["forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];
            fields.push((names[usize::from(*kind) % names.len()], value));
        }
    }
    let network = |text: [u8; 4]| Network { address: text.into(), prefix_bits: 8 };
    let trust = Trust::new(&[network([10, 0, 0, 0]), network([127, 0, 0, 0])]);
    believed(&trust, &fields);
    for (name, added) in [
        ("x-forwarded-for", &b"192.0.2.7"[..]),
        ("forwarded", b"for=192.0.2.7;host=a.test;proto=https"),
        ("forwarded", b"x=\"\\\",\\\\\";host=\"a.test\";proto=\"https\";for=\"192.0.2.7:80\""),
    ] {
        covered(&trust, &fields, name, added);
    }
}

fn find<'a>(trust: &Trust, peer: IpAddr, fields: &[(&str, &'a [u8])]) -> Origin<'a> {
    let mut claims = Claims::default();
    fields.iter().for_each(|(name, value)| assert!(claims.note(name.as_bytes(), value)));
    Origin::find(trust, Seen { peer, scheme: Scheme::Http, host: b"seen.test" }, &claims)
}

/// Nobody is believed who is not trusted, and what is made of the claims says the same when it is read again.
fn believed(trust: &Trust, fields: &[(&str, &[u8])]) {
    let seen = Seen { peer: STRANGER, scheme: Scheme::Http, host: b"seen.test" };
    assert_eq!(find(trust, STRANGER, fields), Origin::seen(seen));

    let origin = find(trust, PEER, fields);
    assert!(origin.hops.iter().all(|&hop| trust.trusts(hop)));
    assert!(is_host(&origin.host));
    let mut forwarded = Vec::new();
    origin.write_forwarded(&mut forwarded);
    let element = element::parse(&forwarded).expect("an element of ours is well-formed");
    assert_eq!(element.node, element::Node::Address(origin.client));
    assert_eq!(element.scheme, Some(origin.scheme));
    assert_eq!(element.host.as_deref(), Some(&*origin.host));

    let mut addresses = Vec::new();
    origin.write_x_forwarded_for(&mut addresses);
    // Without the peer, which comes last.
    let before = addresses.iter().rposition(|&byte| byte == b',').unwrap_or(0);
    let again = find(trust, PEER, &[("x-forwarded-for", &addresses[..before])]);
    assert_eq!((again.client, again.hops), (origin.client, origin.hops));
}

/// Whatever a client sends in a field, what a trusted proxy adds to it is what counts.
fn covered(trust: &Trust, fields: &[(&str, &[u8])], name: &str, added: &[u8]) {
    let mut same: Vec<_> = fields.iter().filter(|field| field.0 == name).copied().collect();
    let joined = same.last().map(|(_, last)| [last, &b", "[..], added].concat());
    if let (Some(last), Some(joined)) = (same.last_mut(), &joined) {
        last.1 = joined;
    } else {
        same.push((name, added));
    }
    let origin = find(trust, PEER, &same);
    assert_eq!((origin.client, &*origin.hops), (STRANGER, &[PEER][..]));
    if name == "forwarded" {
        assert_eq!((origin.scheme, &*origin.host), (Scheme::Https, &b"a.test"[..]));
    }
}
