//! Who a request is from when it came through other proxies: each of them adds to `Forwarded` (RFC 7239) or
//! `X-Forwarded-For` whom it got the request from, but so can anyone who wants to seem somebody else. So the claims are
//! followed from the right, from one trusted proxy to the next, and end at the first address that nobody vouches for:
//! that is the client.

mod element;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod network;

use std::{
    borrow::Cow,
    io::Write,
    iter,
    net::{IpAddr, Ipv6Addr},
};

use element::Node;
pub use network::{NetworkError, Trust};

/// How many proxies before this one are followed. Real chains have two or three.
const HOPS_MAX: usize = 32;

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP without TLS.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Some proxies name a WebSocket's scheme; it begins as HTTP all the same.
    fn parse(text: &[u8]) -> Option<Self> {
        let is = |scheme: &[u8]| text.eq_ignore_ascii_case(scheme);
        if is(b"https") || is(b"wss") {
            Some(Self::Https)
        } else if is(b"http") || is(b"ws") {
            Some(Self::Http)
        } else {
            None
        }
    }
}

/// What the gateway sees of a request itself.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The other end of the connection, or whom the PROXY protocol says it stands for.
    pub peer: IpAddr,
    /// What was spoken on it.
    pub scheme: Scheme,
    /// The request's host, by `Host` or `:authority`, with the port if there was one; empty if there was none.
    pub host: &'a [u8],
}

/// The fields of a request that claim something about where it comes from, each in the order in which it has them.
#[derive(Clone, Debug, Default)]
pub struct Claims<'a> {
    forwarded: Vec<&'a [u8]>,
    addresses: Vec<&'a [u8]>,
    schemes: Vec<&'a [u8]>,
    hosts: Vec<&'a [u8]>,
}

impl<'a> Claims<'a> {
    /// Notes a field, in the order of the request, if it is one of these; tells whether it is.
    pub fn note(&mut self, name: &[u8], value: &'a [u8]) -> bool {
        let is = |field: &[u8]| name.eq_ignore_ascii_case(field);
        let values = if is(b"x-forwarded-for") {
            &mut self.addresses
        } else if is(b"x-forwarded-proto") {
            &mut self.schemes
        } else if is(b"x-forwarded-host") {
            &mut self.hosts
        } else if is(b"forwarded") {
            &mut self.forwarded
        } else {
            return false;
        };
        values.push(value);
        true
    }
}

/// Where a request comes from, and what its worker is told about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The first address, seen from here, that nobody trusted vouches for; of IPv4 if it is mapped into IPv6.
    pub client: IpAddr,
    /// What the client speaks: the value for `X-Forwarded-Proto`.
    pub scheme: Scheme,
    /// The host that the client asked for: the value for `X-Forwarded-Host`. It has nothing in it but what a host may
    /// have, or is what was seen.
    pub host: Cow<'a, [u8]>,
    /// The trusted proxies on the way, the nearest first.
    hops: Vec<IpAddr>,
}

impl<'a> Origin<'a> {
    /// The peer is the client, whatever it claims: for those whom nobody trusts.
    pub fn seen(seen: Seen<'a>) -> Self {
        Self {
            client: seen.peer.to_canonical(),
            scheme: seen.scheme,
            host: Cow::Borrowed(seen.host),
            hops: Vec::new(),
        }
    }

    /// Follows the claims from the right while they are made by those whom `trust` has. What is malformed ends it, and so
    /// does a proxy of which `Forwarded` and `X-Forwarded-For` say different things: one of the two then is not its own,
    /// but was passed on from someone who may have invented it.
    ///
    /// Scheme and host are those that the last proxy followed tells of, or else one nearer to here. A list in
    /// `X-Forwarded-Proto` or `X-Forwarded-Host` runs along with the addresses; a single value is for all.
    pub fn find(trust: &Trust, seen: Seen<'a>, claims: &Claims<'a>) -> Self {
        let mut origin = Self::seen(seen);
        if !trust.trusts(origin.client) {
            return origin;
        }
        let walk = walk(trust, &mut origin, claims);
        // One that says nothing of addresses may still speak of the rest.
        let told = if walk.is_whole { walk.elements.max(1) } else { walk.elements };
        let scheme = from_right(&claims.schemes, split_list).take(told).map_while(Scheme::parse).last();
        let host = from_right(&claims.hosts, split_list).take(told).take_while(|host| is_host(host)).last();
        let host = host.map(Cow::Borrowed);
        if let Some(scheme) = agreed(walk.scheme, scheme, |one, other| one == other) {
            origin.scheme = scheme;
        }
        if let Some(host) = agreed(walk.host, host, |one, other| one.eq_ignore_ascii_case(other)) {
            origin.host = host;
        }
        origin
    }

    /// Appends the value for `X-Forwarded-For`: the client, and the trusted proxies from it to here.
    pub fn write_x_forwarded_for(&self, to: &mut Vec<u8>) {
        // Writing to a vector cannot fail.
        let _ = write!(to, "{}", self.client);
        for hop in self.hops.iter().rev() {
            let _ = write!(to, ", {hop}");
        }
    }

    /// Appends the value for `Forwarded`: one element about the client.
    pub fn write_forwarded(&self, to: &mut Vec<u8>) {
        let _ = match self.client {
            IpAddr::V4(address) => write!(to, "for={address}"),
            IpAddr::V6(address) => write!(to, "for=\"[{address}]\""),
        };
        if !self.host.is_empty() {
            to.extend(b";host=");
            element::write_value(&self.host, to);
        }
        let _ = write!(to, ";proto={}", self.scheme.as_str());
    }
}

/// How far the claims were followed.
#[derive(Default)]
struct Walk<'a> {
    /// How many elements were believed.
    elements: usize,
    /// It did not end at something malformed or contradictory.
    is_whole: bool,
    /// What `Forwarded` says, by the farthest proxy that says it.
    scheme: Option<Scheme>,
    host: Option<Cow<'a, [u8]>>,
}

/// Moves `origin` from the trusted peer to the client.
fn walk<'a>(trust: &Trust, origin: &mut Origin<'a>, claims: &Claims<'a>) -> Walk<'a> {
    let mut walk = Walk::default();
    let mut forwarded = from_right(&claims.forwarded, element::split_last).map(element::parse);
    let mut addresses = from_right(&claims.addresses, split_list).map(element::address);
    while trust.trusts(origin.client) && walk.elements < HOPS_MAX {
        let (node, element) = match (forwarded.next(), addresses.next()) {
            (None, None) => break,
            (None, Some(Some(node))) => (node, None),
            (Some(Some(element)), None) => (element.node, Some(element)),
            (Some(Some(element)), Some(Some(node))) if element.node == node => (node, Some(element)),
            _ => return walk,
        };
        walk.elements += 1;
        if let Some(element) = element {
            walk.scheme = element.scheme.or(walk.scheme);
            walk.host = element.host.or(walk.host);
        }
        match node {
            Node::Address(address) => {
                origin.hops.push(origin.client);
                origin.client = address.to_canonical();
            }
            // It does not say whom it speaks for, so it speaks for itself.
            Node::Hidden => break,
        }
    }
    walk.is_whole = true;
    walk
}

/// What both say, or the one that says anything.
fn agreed<T>(one: Option<T>, other: Option<T>, same: impl Fn(&T, &T) -> bool) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => same(&one, &other).then_some(one),
        (one, other) => one.or(other),
    }
}

/// Takes the last element off a list: what is left of the list, and the element.
type Split<'a> = fn(&'a [u8]) -> (Option<&'a [u8]>, &'a [u8]);

/// The elements of a list that may be spread over several fields, the last first, without empty ones (RFC 9110, section
/// 5.6.1).
fn from_right<'a>(values: &[&'a [u8]], split: Split<'a>) -> impl Iterator<Item = &'a [u8]> {
    let elements = move |value: &&'a [u8]| {
        let mut rest = Some(*value);
        iter::from_fn(move || {
            let (left, element) = split(rest?);
            rest = left;
            Some(trim(element))
        })
    };
    values.iter().rev().flat_map(elements).filter(|element| !element.is_empty())
}

/// Takes off the last element of a list whose elements have no commas.
fn split_list(value: &[u8]) -> (Option<&[u8]>, &[u8]) {
    match value.iter().rposition(|&byte| byte == b',') {
        Some(comma) => (Some(&value[..comma]), &value[comma + 1..]),
        None => (None, value),
    }
}

/// Without the white space that fields may have around their parts (RFC 9110, section 5.6.3).
fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Whether this is a host, with a port or without (RFC 9110, section 7.2; RFC 3986, section 3.2.2).
fn is_host(value: &[u8]) -> bool {
    const BYTES_MAX: usize = 255 + ":65535".len();
    let (is_name, rest) = match value {
        [b'[', after @ ..] => {
            let Some(end) = after.iter().position(|&byte| byte == b']') else { return false };
            let is_address = |text: &str| text.parse::<Ipv6Addr>().is_ok();
            (str::from_utf8(&after[..end]).is_ok_and(is_address), &after[end + 1..])
        }
        _ => {
            let end = value.iter().position(|&byte| byte == b':').unwrap_or(value.len());
            let (name, rest) = value.split_at(end);
            let is_allowed = |&byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
            (!name.is_empty() && name.iter().all(is_allowed), rest)
        }
    };
    let is_port = match rest {
        [] => true,
        [b':', port @ ..] => port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    is_name && is_port && value.len() <= BYTES_MAX
}

#[cfg(test)]
mod tests;
