//! Trailers with pseudo fields, which make a request malformed (RFC 9113, section 8.1). The `h2` crate drops them without
//! a word, so the header blocks of trailers are looked at before they reach it. What is found are pseudo fields that stand
//! there as such; one that is only a reference to the connection's dynamic table is left to be dropped.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;

use std::collections::VecDeque;

use super::frame::Head;

/// Trailers longer than this are not looked at.
const BLOCK_BYTES_MAX: usize = 16 << 10;
/// So many streams with such trailers are remembered, until they notice.
const STREAMS_MAX: usize = 128;
/// The pseudo fields are the first entries of the static table (RFC 7541, appendix A).
const PSEUDO_INDEX_MAX: usize = 14;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Looks at trailers as they come.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Trailers {
    /// The highest stream that was opened.
    opened: u32,
    /// The block that is coming, if it is of trailers.
    block: Option<Vec<u8>>,
    malformed: VecDeque<u32>,
}

impl Trailers {
    /// A frame of a header block begins.
    pub(super) fn begin(&mut self, head: Head) {
        if head.is_headers() {
            self.block = (head.stream <= self.opened).then(Vec::new);
            self.opened = self.opened.max(head.stream);
        }
        if head.length == 0 {
            self.end_if_whole(head, 0);
        }
    }

    /// More of its payload.
    pub(super) fn payload(&mut self, head: Head, payload: &[u8], left: usize) {
        let Some(block) = &mut self.block else { return };
        if block.len() + payload.len() > BLOCK_BYTES_MAX {
            self.block = None;
            return;
        }
        block.extend_from_slice(payload);
        if left == 0 {
            if head.is_headers() {
                strip(block, head.flags);
            }
            self.end_if_whole(head, left);
        }
    }

    fn end_if_whole(&mut self, head: Head, left: usize) {
        if left == 0
            && head.ends_headers()
            && let Some(block) = self.block.take()
            && has_pseudo(&block) == Some(true)
        {
            self.malformed.truncate(STREAMS_MAX - 1);
            self.malformed.push_front(head.stream);
        }
    }

    /// Whether the trailers of this stream have a pseudo field. Tells once.
    pub(super) fn take_malformed(&mut self, stream: u32) -> bool {
        match self.malformed.iter().position(|&other| other == stream) {
            Some(at) => self.malformed.remove(at).is_some(),
            None => false,
        }
    }
}

/// Takes the padding and the priority off the payload of HEADERS (RFC 9113, section 6.2).
fn strip(block: &mut Vec<u8>, flags: u8) {
    let mut front = 0;
    if flags & PADDED != 0 {
        let padding = block.first().copied().unwrap_or(0);
        block.truncate(block.len().saturating_sub(padding.into()));
        front += 1;
    }
    if flags & PRIORITY != 0 {
        front += 5;
    }
    block.drain(..front.min(block.len()));
}

/// Whether a header block names a pseudo field; `None` if it cannot be followed, which `h2` will see as well.
fn has_pseudo(mut block: &[u8]) -> Option<bool> {
    while let &[first, ..] = block {
        // RFC 7541, section 6: the leading bits tell what it is, and how many are left for the index.
        let (bits, named) = match first {
            0x80.. => (7, true),
            0x40.. => (6, false),
            0x20.. => {
                integer(&mut block, 5)?;
                continue;
            }
            _ => (4, false),
        };
        let index = integer(&mut block, bits)?;
        if (1..=PSEUDO_INDEX_MAX).contains(&index) {
            return Some(true);
        }
        if !named {
            if index == 0 && is_pseudo(block.first()?, string(&mut block)?) {
                return Some(true);
            }
            string(&mut block)?;
        }
    }
    Some(false)
}

/// Whether a name begins with a colon, of which the Huffman code is 1011100.
fn is_pseudo(first: &u8, name: &[u8]) -> bool {
    let huffman = first & 0x80 != 0;
    name.first().is_some_and(|&byte| if huffman { byte >> 1 == 0b101_1100 } else { byte == b':' })
}

/// Takes an integer of which so many bits are in the first byte (RFC 7541, section 5.1).
fn integer(block: &mut &[u8], bits: u32) -> Option<usize> {
    let (&first, mut rest) = block.split_first()?;
    let mask = (1 << bits) - 1;
    let mut value = usize::from(first & mask);
    if first & mask == mask {
        for shift in [0, 7, 14, 21] {
            let (&byte, more) = rest.split_first()?;
            rest = more;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                *block = rest;
                return Some(value);
            }
        }
        return None;
    }
    *block = rest;
    Some(value)
}

/// Takes a string as it stands (RFC 7541, section 5.2).
fn string<'a>(block: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = integer(block, 7)?;
    let (string, rest) = block.split_at_checked(length)?;
    *block = rest;
    Some(string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pseudo_fields_are_found() {
        let cases: [(&[u8], Option<bool>); 9] = [
            (b"", Some(false)),
            (b"\x00\x06x-test\x02ok", Some(false)),
            (b"\x00\x07:method\x03GET", Some(true)),
            (b"\x40\x06x-test\x02ok\x10\x05:path\x01/", Some(true)),
            (b"\x82", Some(true)),
            (b"\x90\xbe\x3f\xe1\x1f\x0f\x2b\x01x", Some(false)),
            (b"\x04\x01/", Some(true)),
            // ":path" in Huffman's code.
            (b"\x00\x84\xb9\x58\xd3\x3f\x01/", Some(true)),
            (b"\x00\x7f\xff\xff\xff\xff\xff", None),
        ];
        for (block, expected) in cases {
            assert_eq!(has_pseudo(block), expected, "{block:02x?}");
        }
    }

    #[test]
    fn no_block_is_too_odd() {
        for seed in 0..20_000_u32 {
            let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
            let block: Vec<u8> = (0..seed % 40)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 17;
                    state ^= state << 5;
                    state as u8
                })
                .collect();
            let _ = has_pseudo(&block);
        }
    }
}
