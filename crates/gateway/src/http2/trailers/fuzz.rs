//! What holds for any bytes that claim to be the header block of trailers, and for any fields that are written as one.

use super::{PADDED, PRIORITY, Trailers, has_pseudo};
use crate::http2::frame::{Part, Parts};

const END_HEADERS: u8 = 0x4;

/// What follows a block makes no difference to what stands in it, and pseudo fields are found in any fields, however the
/// frames are made that carry them.
pub(crate) fn check(data: &[u8]) {
    let found = has_pseudo(data);
    for more in [&b"\x82"[..], b"\x00\x01x\x01y", b"\x00\x05:path\x01/"] {
        let longer = has_pseudo(&[data, more].concat());
        match found {
            Some(true) => assert_eq!(longer, found),
            Some(false) => assert_eq!(longer, has_pseudo(more)),
            // It ends too early, and then anything may be the rest of it.
            None => {}
        }
    }
    let fields: Vec<&[u8]> = data.split(|&byte| byte == b'\n').collect();
    let expected = fields.iter().any(|name| name.starts_with(b":"));
    let block: Vec<u8> = fields.iter().flat_map(|name| literal(name)).collect();
    assert_eq!(has_pseudo(&block), Some(expected));
    let lot = data.len() as u8;
    for (piece, flags) in [(usize::MAX, 0), (1000, PADDED), (7, PRIORITY), (300, PADDED | PRIORITY)] {
        assert_eq!(is_malformed(&block, piece, flags, lot), expected, "{piece} {flags:x}");
    }
    // As it stands, when nobody knows what it should be.
    assert_eq!(is_malformed(data, 100, PADDED, lot), found == Some(true));
}

/// A field without a value, not indexed and with a new name (RFC 7541, section 6.2.2).
fn literal(name: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    let mut length = name.len();
    if length < 127 {
        out.push(length as u8);
    } else {
        out.push(127);
        length -= 127;
        while length >= 128 {
            out.push(length as u8 | 128);
            length >>= 7;
        }
        out.push(length as u8);
    }
    out.extend_from_slice(name);
    out.push(0);
    out
}

/// Whether a request's trailers are taken for malformed when they come in frames of `piece` bytes, the first one with these
/// flags.
fn is_malformed(block: &[u8], piece: usize, flags: u8, padding: u8) -> bool {
    let mut bytes = frame(0x1, END_HEADERS, b"\x88");
    let mut pieces = block.chunks(piece).peekable();
    let mut first = Vec::new();
    first.extend((flags & PADDED != 0).then_some(padding));
    first.extend([0; 5].iter().filter(|_| flags & PRIORITY != 0));
    first.extend(pieces.next().unwrap_or_default());
    first.resize(first.len() + if flags & PADDED != 0 { padding.into() } else { 0 }, 0);
    let ends = |last: bool| if last { END_HEADERS } else { 0 };
    bytes.extend(frame(0x1, flags | ends(pieces.peek().is_none()), &first));
    while let Some(piece) = pieces.next() {
        bytes.extend(frame(0x9, ends(pieces.peek().is_none()), piece));
    }
    let (mut parts, mut trailers) = (Parts::new(), Trailers::default());
    for piece in bytes.chunks(500) {
        parts.feed(piece, |part| match part {
            Part::Head(head) => trailers.begin(head),
            Part::Payload(head, payload, left) => trailers.payload(head, payload, left),
        });
    }
    let is_malformed = trailers.take_malformed(1);
    assert!(!trailers.take_malformed(1), "it is told once");
    is_malformed
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags, 0, 0, 0, 1]);
    bytes.extend_from_slice(payload);
    bytes
}
