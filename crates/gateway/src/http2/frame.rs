//! The heads of HTTP/2 frames in a stream of bytes (RFC 9113, section 4.1), wherever the pieces are cut. Payloads are
//! passed over.

/// The length of a frame's head.
const HEAD_BYTES: usize = 9;
/// What a client sends first (RFC 9113, section 3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const END_HEADERS: u8 = 0x4;

/// What a frame is (RFC 9113, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Data,
    Headers,
    Priority,
    Reset,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    Unknown,
}

impl From<u8> for Kind {
    fn from(byte: u8) -> Self {
        match byte {
            0x0 => Self::Data,
            0x1 => Self::Headers,
            0x2 => Self::Priority,
            0x3 => Self::Reset,
            0x4 => Self::Settings,
            0x5 => Self::PushPromise,
            0x6 => Self::Ping,
            0x7 => Self::GoAway,
            0x8 => Self::WindowUpdate,
            0x9 => Self::Continuation,
            _ => Self::Unknown,
        }
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) length: usize,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl Head {
    fn parse(bytes: &[u8; HEAD_BYTES]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *bytes;
        Self {
            kind: kind.into(),
            length: u32::from_be_bytes([0, l0, l1, l2]) as usize,
            flags,
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        }
    }
}

/// Finds the heads of frames.
pub(crate) struct Heads {
    partial: [u8; HEAD_BYTES],
    partial_len: usize,
    /// Bytes to pass over until the next head.
    skip: usize,
    /// A header block was begun and its last frame has not come (RFC 9113, section 4.3).
    open_block: bool,
}

impl Heads {
    /// Of what a client sends.
    pub(crate) fn after_preface() -> Self {
        Self { partial: [0; HEAD_BYTES], partial_len: 0, skip: PREFACE.len(), open_block: false }
    }

    /// Whether a header block is begun and not whole.
    pub(crate) fn is_in_block(&self) -> bool {
        self.open_block
    }

    /// Takes the next bytes, and gives each head that they complete.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut found: impl FnMut(Head)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let taken = (HEAD_BYTES - self.partial_len).min(bytes.len());
            self.partial[self.partial_len..][..taken].copy_from_slice(&bytes[..taken]);
            self.partial_len += taken;
            bytes = &bytes[taken..];
            if self.partial_len < HEAD_BYTES {
                return;
            }
            self.partial_len = 0;
            let head = Head::parse(&self.partial);
            self.skip = head.length;
            if matches!(head.kind, Kind::Headers | Kind::Continuation) {
                self.open_block = head.flags & END_HEADERS == 0;
            }
            found(head);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, length: usize) -> Vec<u8> {
        let mut bytes = (length as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.resize(HEAD_BYTES + length, 0xff);
        bytes
    }

    #[test]
    fn heads_are_found_however_the_bytes_are_cut() {
        let mut bytes = PREFACE.to_vec();
        let frames =
            [(0x4, 0, 0, 12), (0x1, 0x4, 1, 70_000), (0x0, 0x1, 1, 0), (0x6, 0x1, 0, 8), (0xfa, 0, 3, 1)];
        for (kind, flags, stream, length) in frames {
            bytes.extend(frame(kind, flags, stream, length));
        }
        for step in [1, 2, 3, 7, 9, 10, 24, 1000, bytes.len()] {
            let (mut heads, mut seen) = (Heads::after_preface(), Vec::new());
            for piece in bytes.chunks(step) {
                heads.feed(piece, |head| seen.push((head.kind, head.flags, head.stream, head.length)));
            }
            let expected: Vec<_> = frames.iter().map(|&(k, f, s, l)| (Kind::from(k), f, s, l)).collect();
            assert_eq!(seen, expected, "in pieces of {step}");
        }
    }

    #[test]
    fn a_block_is_open_until_the_frame_that_ends_it() {
        let mut heads = Heads::after_preface();
        heads.feed(PREFACE, |_| {});
        for (kind, flags, open) in [(0x1, 0, true), (0x9, 0, true), (0x9, END_HEADERS, false)] {
            heads.feed(&frame(kind, flags, 1, 5), |_| {});
            assert_eq!(heads.is_in_block(), open);
        }
    }
}
