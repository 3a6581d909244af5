//! Version 2: 16 bytes, two addresses, and fields of type, length and value.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Error, Header, agrees};

/// What it begins with.
pub(super) const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED_BYTES: usize = 16;
/// Two addresses of unix sockets, the longest kind.
const UNIX_BYTES: usize = 216;
/// How many bytes of fields are accepted. Proxies send some dozens, and those that pass a client's certificate on a few
/// thousand.
const FIELDS_BYTES_MAX: usize = 4096;
pub(super) const HEADER_BYTES_MAX: usize = FIXED_BYTES + UNIX_BYTES + FIELDS_BYTES_MAX;

/// `PP2_TYPE_CRC32C`
const CHECKSUM: u8 = 0x03;
/// `PP2_TYPE_SSL`
const TLS: u8 = 0x20;
/// `PP2_CLIENT_SSL`
const CLIENT_TLS: u8 = 0x01;

/// The addresses that follow, by their family.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Ipv4,
    Ipv6,
    Unix,
    /// Not told, or not to be looked at; what follows is of no known form.
    Unspecified,
}

impl Family {
    /// How long both addresses are together.
    fn bytes(self) -> usize {
        match self {
            Self::Ipv4 => 12,
            Self::Ipv6 => 36,
            Self::Unix => UNIX_BYTES,
            Self::Unspecified => 0,
        }
    }
}

pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Error> {
    if !agrees(bytes, SIGNATURE) {
        return Err(Error::Absent);
    }
    let is_local = match bytes.get(12) {
        None => return Ok(None),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => {
            return Err(Error::Malformed("its version is not 2, or its command neither LOCAL nor PROXY"));
        }
    };
    let Some(&family) = bytes.get(13) else { return Ok(None) };
    let family = if is_local { Family::Unspecified } else { self::family(family)? };
    let Some(length) = bytes.get(14..FIXED_BYTES) else { return Ok(None) };
    let end = FIXED_BYTES + usize::from(u16::from_be_bytes([length[0], length[1]]));
    if end > FIXED_BYTES + family.bytes() + FIELDS_BYTES_MAX {
        return Err(Error::TooLong(FIXED_BYTES + family.bytes() + FIELDS_BYTES_MAX));
    }
    if end < FIXED_BYTES + family.bytes() {
        return Err(Error::Malformed("it is too short for its addresses"));
    }
    let Some(whole) = bytes.get(..end) else { return Ok(None) };
    let (addresses, fields) = whole[FIXED_BYTES..].split_at(family.bytes());
    // What is to be ignored is not checked either (section 2.2, LOCAL and AF_UNSPEC).
    if family == Family::Unspecified {
        return Ok(Some((Header::Own, end)));
    }
    let tls = self::fields(whole, fields)?;
    let header = match addresses_of(family, addresses) {
        Some((source, destination)) => Header::Relayed { source, destination, tls },
        None => Header::Own,
    };
    Ok(Some((header, end)))
}

/// "Receivers must drop connections presenting unexpected values." The transport makes no difference here: a proxy that
/// speaks QUIC with its clients passes their requests on over TCP too.
fn family(byte: u8) -> Result<Family, Error> {
    match (byte >> 4, byte & 0xf) {
        (0, 0..=2) | (1..=3, 0) => Ok(Family::Unspecified),
        (1, 1 | 2) => Ok(Family::Ipv4),
        (2, 1 | 2) => Ok(Family::Ipv6),
        (3, 1 | 2) => Ok(Family::Unix),
        _ => Err(Error::Malformed("its address family or transport is not a known one")),
    }
}

/// Source and destination, unless they are those of unix sockets.
fn addresses_of(family: Family, bytes: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let port = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    match family {
        Family::Ipv4 => {
            let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?));
            Some(((address(0)?, port(8)?).into(), (address(4)?, port(10)?).into()))
        }
        Family::Ipv6 => {
            let address =
                |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok()?));
            Some(((address(0)?, port(32)?).into(), (address(16)?, port(34)?).into()))
        }
        Family::Unix | Family::Unspecified => None,
    }
}

/// Looks at the fields: whether the client spoke TLS, and whether the checksum is right if there is one.
fn fields(whole: &[u8], mut fields: &[u8]) -> Result<bool, Error> {
    let (mut tls, mut is_checked) = (false, false);
    while !fields.is_empty() {
        const SHORT: Error = Error::Malformed("a field is longer than what is left of it");
        let ([kind, high, low], rest) = fields.split_first_chunk().ok_or(SHORT)?;
        let (value, rest) =
            rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low]))).ok_or(SHORT)?;
        match *kind {
            // Each would cost a pass over the whole.
            CHECKSUM if is_checked => return Err(Error::Malformed("it has two checksums")),
            CHECKSUM => {
                is_checked = true;
                // The rest ends where the whole does.
                let at = whole.len() - rest.len() - value.len();
                let sent = <[u8; 4]>::try_from(value)
                    .map_err(|_| Error::Malformed("its checksum is not 4 bytes"))?;
                let zeros = [0; 4];
                if crc32c([&whole[..at], &zeros, rest]) != u32::from_be_bytes(sent) {
                    return Err(Error::Malformed("its checksum is wrong"));
                }
            }
            TLS => match value {
                // Flags, and four bytes on whether the client's certificate was good.
                [flags, _, _, _, _, ..] => tls = flags & CLIENT_TLS != 0,
                _ => return Err(Error::Malformed("what it says of TLS is too short")),
            },
            _ => {}
        }
        fields = rest;
    }
    Ok(tls)
}

/// CRC-32C (RFC 3720, appendix B.4) of the parts one after the other. Bit by bit, since it is only used on a few hundred
/// bytes of a connection, if at all.
pub(super) fn crc32c<const N: usize>(parts: [&[u8]; N]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    !parts.into_iter().flatten().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ if sum & 1 == 1 { POLYNOMIAL } else { 0 })
    })
}
