//! One element of `Forwarded` (RFC 7239, section 4), and of `X-Forwarded-For`.

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::{Scheme, is_host, trim};

/// Whom a proxy got a request from (section 6). Ports do not matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Address(IpAddr),
    /// Not known, not told, or under a name that only the proxy understands.
    Hidden,
}

/// What one proxy says of the request that it got.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Element<'a> {
    pub(super) node: Node,
    /// If it is one that is of any meaning here.
    pub(super) scheme: Option<Scheme>,
    pub(super) host: Option<Cow<'a, [u8]>>,
}

/// Takes the last element off a field: what is left of it, and it.
///
/// Quoted strings may have commas, and are found from the right too: what a trusted proxy appends is well-formed, and so
/// is read as it was meant, whatever someone put before it. From the left, one quotation mark that is never closed would
/// swallow it.
pub(super) fn split_last(value: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let mut is_quoted = false;
    for at in (0..value.len()).rev() {
        match value[at] {
            // The last of an odd number of backslashes stands for the mark itself.
            b'"' if is_quoted && backslashes_before(value, at) % 2 == 1 => {}
            b'"' => is_quoted = !is_quoted,
            b',' if !is_quoted => return (Some(&value[..at]), &value[at + 1..]),
            _ => {}
        }
    }
    (None, value)
}

fn backslashes_before(value: &[u8], at: usize) -> usize {
    value[..at].iter().rev().take_while(|&&byte| byte == b'\\').count()
}

/// Reads one element: pairs of name and value with semicolons between, where there may also be white space, since many
/// write it there. `None` if it is malformed in any part that is known, or names one of those twice.
pub(super) fn parse(element: &[u8]) -> Option<Element<'_>> {
    let (mut by, mut node, mut scheme, mut host) = (None, None, None, None);
    let mut rest = element;
    loop {
        rest = trim(rest);
        match rest {
            [] => break,
            [b';', after @ ..] => {
                rest = after;
                continue;
            }
            _ => {}
        }
        let (name, after) = token(rest)?;
        let (value, after) = value(after.strip_prefix(b"=")?)?;
        rest = trim(after);
        if !matches!(rest, [] | [b';', ..]) {
            return None;
        }
        let is = |parameter: &[u8]| name.eq_ignore_ascii_case(parameter);
        if is(b"for") {
            once(&mut node, self::node(&value)?)?;
        } else if is(b"proto") {
            once(&mut scheme, self::scheme(&value)?)?;
        } else if is(b"host") {
            is_host(&value).then_some(())?;
            once(&mut host, value)?;
        } else if is(b"by") {
            once(&mut by, self::node(&value)?)?;
        }
    }
    Some(Element { node: node.unwrap_or(Node::Hidden), scheme: scheme.flatten(), host })
}

/// Fills a slot that is empty yet.
fn once<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    slot.replace(value).is_none().then_some(())
}

/// A token, which is not empty, and what follows (RFC 9110, section 5.6.2).
fn token(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| !is_token(byte)).unwrap_or(bytes.len());
    (end > 0).then(|| bytes.split_at(end))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A token or a quoted string, without its quotation marks and backslashes, and what follows (RFC 9110, section 5.6.4).
fn value(bytes: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let Some(quoted) = bytes.strip_prefix(b"\"") else {
        return token(bytes).map(|(token, rest)| (Cow::Borrowed(token), rest));
    };
    let mut value = Cow::Borrowed(&quoted[..0]);
    let mut at = 0;
    loop {
        match *quoted.get(at)? {
            b'"' => {
                if let Cow::Borrowed(plain) = &mut value {
                    *plain = &quoted[..at];
                }
                return Some((value, &quoted[at + 1..]));
            }
            b'\\' => {
                // From here on it is no longer as it stands.
                if let Cow::Borrowed(_) = value {
                    value = Cow::Owned(quoted[..at].to_vec());
                }
                at += 1;
            }
            _ => {}
        }
        let byte = *quoted.get(at)?;
        if byte != b'\t' && byte.is_ascii_control() {
            return None;
        }
        if let Cow::Owned(value) = &mut value {
            value.push(byte);
        }
        at += 1;
    }
}

/// Section 6: a name, and a port that may be a number or obfuscated.
fn node(text: &[u8]) -> Option<Node> {
    let obfuscated = |text: &[u8]| {
        let is_allowed = |&byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        text.len() > 1 && text[0] == b'_' && text.iter().all(is_allowed)
    };
    let end = match text.iter().position(|&byte| byte == b']') {
        Some(end) => end + 1,
        None => text.iter().position(|&byte| byte == b':').unwrap_or(text.len()),
    };
    let (name, port) = text.split_at(end);
    let is_port = match port {
        [] => true,
        [b':', port @ ..] => {
            matches!(port.len(), 1..=5) && port.iter().all(u8::is_ascii_digit) || obfuscated(port)
        }
        _ => false,
    };
    is_port.then_some(())?;
    if let [b'[', address @ .., b']'] = name {
        return Some(Node::Address(str::from_utf8(address).ok()?.parse::<Ipv6Addr>().ok()?.to_canonical()));
    }
    if name.eq_ignore_ascii_case(b"unknown") || obfuscated(name) {
        return Some(Node::Hidden);
    }
    Some(Node::Address(str::from_utf8(name).ok()?.parse::<Ipv4Addr>().ok()?.into()))
}

/// A URI's scheme (RFC 3986, section 3.1), which may be one without meaning here.
fn scheme(text: &[u8]) -> Option<Option<Scheme>> {
    let is_scheme = text.first()?.is_ascii_alphabetic()
        && text.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_scheme.then(|| Scheme::parse(text))
}

/// An element of `X-Forwarded-For`. No standard says how it is written: some add a port, and brackets with it.
pub(super) fn address(text: &[u8]) -> Option<Node> {
    if text.eq_ignore_ascii_case(b"unknown") {
        return Some(Node::Hidden);
    }
    let text = str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = match bare {
        Some(address) => address.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        None => text.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip())),
    };
    address.map(|address| Node::Address(address.to_canonical()))
}

/// Appends a value as a token if it is one, else as a quoted string.
pub(super) fn write_value(value: &[u8], to: &mut Vec<u8>) {
    if value.iter().all(|&byte| is_token(byte)) && !value.is_empty() {
        to.extend(value);
        return;
    }
    to.push(b'"');
    for &byte in value {
        if matches!(byte, b'"' | b'\\') {
            to.push(b'\\');
        }
        to.push(byte);
    }
    to.push(b'"');
}
