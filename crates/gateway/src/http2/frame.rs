//! HTTP/2 frames in a stream of bytes (RFC 9113, section 4.1), wherever the pieces are cut. Nothing is copied and nothing
//! decoded.

/// The length of a frame's head.
const HEAD_BYTES: usize = 9;
/// What a client sends first (RFC 9113, section 3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const END_STREAM: u8 = 0x1;
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
    /// Whether it begins a header block.
    pub(crate) fn is_headers(&self) -> bool {
        self.kind == Kind::Headers
    }

    /// Whether nothing of its side of the stream follows it, if it is DATA or HEADERS.
    pub(crate) fn ends_stream(&self) -> bool {
        self.flags & END_STREAM != 0
    }

    /// Whether its payload is of a header block.
    pub(crate) fn is_of_block(&self) -> bool {
        matches!(self.kind, Kind::Headers | Kind::Continuation)
    }

    /// Whether no CONTINUATION follows it.
    pub(crate) fn ends_headers(&self) -> bool {
        self.flags & END_HEADERS != 0
    }

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

/// What is found in a stream of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    Head(Head),
    /// The next piece of the payload of the frame with this head, and how much of it is still to come.
    Payload(Head, &'a [u8], usize),
}

/// Takes a stream of bytes apart.
pub(crate) struct Parts {
    partial: [u8; HEAD_BYTES],
    partial_len: usize,
    head: Option<Head>,
    /// Bytes of the payload, or of the preface, that are still to come.
    left: usize,
    /// A header block was begun and its last frame has not come (RFC 9113, section 4.3).
    open_block: bool,
}

impl Parts {
    /// Of what a server sends.
    pub(crate) fn new() -> Self {
        Self { partial: [0; HEAD_BYTES], partial_len: 0, head: None, left: 0, open_block: false }
    }

    /// Of what a client sends.
    pub(crate) fn after_preface() -> Self {
        Self { left: PREFACE.len(), ..Self::new() }
    }

    /// Whether a header block is begun and not whole.
    pub(crate) fn is_in_block(&self) -> bool {
        self.open_block || self.left > 0 && self.head.is_some_and(|head| head.is_of_block())
    }

    /// Takes the next bytes, and gives what is in them.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut found: impl FnMut(Part<'_>)) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let (payload, rest) = bytes.split_at(self.left.min(bytes.len()));
                self.left -= payload.len();
                if let Some(head) = self.head {
                    found(Part::Payload(head, payload, self.left));
                }
                bytes = rest;
                continue;
            }
            let (piece, rest) = bytes.split_at((HEAD_BYTES - self.partial_len).min(bytes.len()));
            self.partial[self.partial_len..][..piece.len()].copy_from_slice(piece);
            self.partial_len += piece.len();
            bytes = rest;
            if self.partial_len == HEAD_BYTES {
                self.partial_len = 0;
                let head = Head::parse(&self.partial);
                self.left = head.length;
                self.head = Some(head);
                if head.is_of_block() {
                    self.open_block = !head.ends_headers();
                }
                found(Part::Head(head));
            }
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
    fn frames_are_found_however_the_bytes_are_cut() {
        let mut bytes = PREFACE.to_vec();
        let frames =
            [(0x4, 0, 0, 12), (0x1, 0x4, 1, 70_000), (0x0, 0x1, 1, 0), (0x6, 0x1, 0, 8), (0xfa, 0, 3, 1)];
        for (kind, flags, stream, length) in frames {
            bytes.extend(frame(kind, flags, stream, length));
        }
        for step in [1, 2, 3, 7, 9, 10, 24, 1000, bytes.len()] {
            let (mut parts, mut seen, mut payload) = (Parts::after_preface(), Vec::new(), 0);
            for piece in bytes.chunks(step) {
                parts.feed(piece, |part| match part {
                    Part::Head(head) => seen.push((head.kind, head.flags, head.stream, head.length)),
                    Part::Payload(_, bytes, _) => {
                        assert!(bytes.iter().all(|&byte| byte == 0xff));
                        payload += bytes.len();
                    }
                });
            }
            let expected: Vec<_> = frames.iter().map(|&(k, f, s, l)| (Kind::from(k), f, s, l)).collect();
            assert_eq!(seen, expected, "in pieces of {step}");
            assert_eq!(payload, 70_021);
        }
    }

    #[test]
    fn a_block_is_open_until_the_frame_that_ends_it_is_whole() {
        let mut parts = Parts::new();
        for (kind, flags, open) in [(0x1, 0, true), (0x9, 0, true), (0x9, END_HEADERS, false)] {
            let bytes = frame(kind, flags, 1, 5);
            parts.feed(&bytes[..HEAD_BYTES + 1], |_| {});
            assert!(parts.is_in_block());
            parts.feed(&bytes[HEAD_BYTES + 1..], |_| {});
            assert_eq!(parts.is_in_block(), open);
        }
    }
}
