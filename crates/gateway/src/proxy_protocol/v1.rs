//! Version 1: one line of text.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Error, Header, agrees};

/// What it begins with.
pub(super) const PREFIX: &[u8] = b"PROXY ";
/// The longest line, with its end, in bytes (section 2.1).
const LINE_BYTES_MAX: usize = 107;

const WORDS: Error =
    Error::Malformed("it must name TCP4 or TCP6, two addresses and two ports, with one space between");

pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Error> {
    let bytes = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    if !agrees(bytes, PREFIX) {
        return Err(Error::Absent);
    }
    match bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        None => {
            may_become(bytes)?;
            if bytes.len() < LINE_BYTES_MAX { Ok(None) } else { Err(Error::TooLong(LINE_BYTES_MAX)) }
        }
        Some(end) => {
            let header = line(&bytes[..end])?;
            match bytes[end..] {
                [b'\r', b'\n', ..] => Ok(Some((header, end + 2))),
                [b'\r'] if bytes.len() < LINE_BYTES_MAX => Ok(None),
                [b'\r'] => Err(Error::TooLong(LINE_BYTES_MAX)),
                _ => Err(Error::Malformed("its line must end with CR LF")),
            }
        }
    }
}

/// Whether the beginning of a line can still become a whole one.
fn may_become(bytes: &[u8]) -> Result<(), Error> {
    let rest = bytes.get(PREFIX.len()..).unwrap_or_default();
    let numbers = |word: &[u8], is_allowed: fn(&u8) -> bool| {
        agrees(rest, word) && rest.get(word.len()..).unwrap_or_default().iter().all(is_allowed)
    };
    let may = numbers(b"TCP4 ", |byte| matches!(byte, b'0'..=b'9' | b'.' | b' '))
        || numbers(b"TCP6 ", |byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.' | b' '))
        || agrees(rest, b"UNKNOWN") && matches!(rest.get(7), None | Some(b' '));
    if may { Ok(()) } else { Err(WORDS) }
}

/// A whole line, without its end.
fn line(line: &[u8]) -> Result<Header, Error> {
    let words = line.strip_prefix(PREFIX).ok_or(WORDS)?;
    // "The receiver must ignore anything presented before the CRLF."
    if words == b"UNKNOWN" || words.starts_with(b"UNKNOWN ") {
        return Ok(Header::Own);
    }
    let words = str::from_utf8(words).map_err(|_| WORDS)?;
    let mut words = words.split(' ');
    let mut next = || words.next().ok_or(WORDS);
    let (family, source, destination) = (next()?, next()?, next()?);
    let (source_port, destination_port) = (port(next()?)?, port(next()?)?);
    if words.next().is_some() {
        return Err(WORDS);
    }
    const ADDRESS: Error = Error::Malformed("an address is not one of its family");
    let (source, destination): (SocketAddr, SocketAddr) = match family {
        "TCP4" => {
            let parse = |text: &str| text.parse::<Ipv4Addr>().map_err(|_| ADDRESS);
            ((parse(source)?, source_port).into(), (parse(destination)?, destination_port).into())
        }
        "TCP6" => {
            let parse = |text: &str| text.parse::<Ipv6Addr>().map_err(|_| ADDRESS);
            ((parse(source)?, source_port).into(), (parse(destination)?, destination_port).into())
        }
        _ => return Err(WORDS),
    };
    Ok(Header::Relayed { source, destination, tls: false })
}

/// A port: digits alone, since `u16` would also take a sign, and no zeros in front.
fn port(text: &str) -> Result<u16, Error> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain).ok_or(Error::Malformed("a port is not a number up to 65535"))
}
