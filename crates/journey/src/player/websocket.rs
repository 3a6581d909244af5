//! The frames of a WebSocket, as a client writes and reads them (RFC 6455). No extension is offered, so that none is in use.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Buf, BytesMut};
use ring::{
    digest::{SHA1_FOR_LEGACY_USE_ONLY, digest},
    rand::{SecureRandom, SystemRandom},
};

/// The most bytes of a message.
pub(super) const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Section 5.5: a frame that controls the connection has no more.
const CONTROL_BYTES_MAX: usize = 125;

/// What a frame is (section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text = 0x1,
    Close = 0x8,
    Pong = 0xA,
}

/// What a server has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A whole message; what of it is no UTF-8 is replaced.
    Message(String),
    /// It wants to hear this again.
    Ping(Vec<u8>),
    /// It has ended the connection, with this code if it gave one.
    Close(Option<u16>),
}

/// A value for `Sec-WebSocket-Key`.
pub(super) fn key() -> String {
    STANDARD.encode(random::<16>())
}

/// What a server answers to a key in `Sec-WebSocket-Accept` (section 4.2.2).
pub(super) fn accept(key: &str) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes()))
}

/// A frame with a whole message, masked as a client's must be (section 5.3).
pub(super) fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | kind as u8];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..=125), _) => frame.push(0x80 | short),
        (_, Ok(long)) => {
            frame.push(0x80 | 126);
            frame.extend(long.to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    let mask = random::<4>();
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without random numbers the connection works all the same: they only keep proxies from being misled.
    let _ = SystemRandom::new().fill(&mut bytes);
    bytes
}

/// Puts frames together.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// What was read and not yet understood.
    pub(super) bytes: BytesMut,
    /// The parts of a message that is not yet whole.
    parts: Option<Vec<u8>>,
}

impl Decoder {
    /// The next event of what was read; `None` if more must be read for it.
    ///
    /// # Errors
    /// What the server has done that it must not, in words; nothing more can be read then.
    pub(super) fn next(&mut self) -> Result<Option<Event>, String> {
        while let Some((is_final, opcode, payload)) = self.frame()? {
            match opcode {
                0x8 => {
                    let code = payload.first_chunk::<2>().map(|code| u16::from_be_bytes(*code));
                    return Ok(Some(Event::Close(code)));
                }
                0x9 => return Ok(Some(Event::Ping(payload))),
                0xA => continue,
                0x1 | 0x2 if self.parts.is_none() => self.parts = Some(payload),
                0x0 => match &mut self.parts {
                    Some(parts) if parts.len() + payload.len() <= MESSAGE_BYTES_MAX => parts.extend(payload),
                    Some(_) => return Err(too_long()),
                    None => return Err("went on with a message that it had not begun".into()),
                },
                0x1 | 0x2 => return Err("began a message in the middle of another one".into()),
                _ => return Err(format!("sent a frame of the unknown kind {opcode}")),
            }
            if let Some(message) = self.parts.take_if(|_| is_final) {
                return Ok(Some(Event::Message(String::from_utf8_lossy(&message).into_owned())));
            }
        }
        Ok(None)
    }

    /// Whether it is the last of its message, what it is, and what is in it.
    fn frame(&mut self) -> Result<Option<(bool, u8, Vec<u8>)>, String> {
        let [first, second, rest @ ..] = &*self.bytes else { return Ok(None) };
        let (is_final, opcode) = (first & 0x80 != 0, first & 0x0F);
        if first & 0x70 != 0 {
            return Err("sent a frame of an extension that was not offered".into());
        }
        if second & 0x80 != 0 {
            return Err("sent a masked frame, as only a client may".into());
        }
        let (length, from) = match (second & 0x7F, rest) {
            (126, [a, b, ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 4),
            (127, [a, b, c, d, e, f, g, h, ..]) => (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 10),
            (126 | 127, _) => return Ok(None),
            (short, _) => (u64::from(short), 2),
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if opcode >= 0x8 && (!is_final || length > CONTROL_BYTES_MAX) {
            return Err("sent a control frame that is too long or not whole".into());
        }
        if length > MESSAGE_BYTES_MAX {
            return Err(too_long());
        }
        if self.bytes.len() < from + length {
            return Ok(None);
        }
        self.bytes.advance(from);
        Ok(Some((is_final, opcode, self.bytes.split_to(length).to_vec())))
    }
}

fn too_long() -> String {
    format!("sent a message of more than {} KiB", MESSAGE_BYTES_MAX >> 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All events of `bytes`, which come in pieces of so many.
    fn events(bytes: &[u8], piece: usize) -> Result<Vec<Event>, String> {
        let (mut decoder, mut events) = (Decoder::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            decoder.bytes.extend_from_slice(piece);
            while let Some(event) = decoder.next()? {
                events.push(event);
            }
        }
        Ok(events)
    }

    fn message(text: &str) -> Event {
        Event::Message(text.into())
    }

    #[test]
    fn the_examples_of_the_standard() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let mut bytes = b"\x81\x05Hello\x01\x03Hel\x89\x05again\x80\x02lo\x8a\x00\x82\x7e\x01\x00".to_vec();
        bytes.extend([b'x'; 256]);
        bytes.extend(b"\x88\x02\x03\xe9");
        let expected = [
            message("Hello"),
            // A ping may come between the parts of a message.
            Event::Ping(b"again".to_vec()),
            message("Hello"),
            message(&"x".repeat(256)),
            Event::Close(Some(1001)),
        ];
        for piece in [1, 7, 1000] {
            assert_eq!(events(&bytes, piece).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_written_is_masked() {
        for (length, head) in [(5, 2), (125, 2), (126, 4), (65535, 4), (65536, 10)] {
            let payload = vec![b'x'; length];
            let frame = frame(Kind::Text, &payload);
            assert_eq!((frame.len(), frame[0], frame[1] & 0x80), (head + 4 + length, 0x81, 0x80));
            let (mask, masked) = frame[head..].split_at(4);
            assert!(masked.iter().zip(mask.iter().cycle()).all(|(byte, mask)| byte ^ mask == b'x'));
        }
    }

    #[test]
    fn a_server_that_breaks_the_rules_is_not_listened_to() {
        for (bytes, expected) in [
            (&b"\x81\x85"[..], "masked"),
            (b"\xc1\x00", "extension"),
            (b"\x83\x00", "unknown kind 3"),
            (b"\x80\x00", "had not begun"),
            (b"\x01\x01a\x81\x01b", "middle"),
            (b"\x89\x7e\x00\x7e", "control"),
            (b"\x09\x00", "control"),
            (b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", "1024 KiB"),
        ] {
            let error = events(bytes, 100).unwrap_err();
            assert!(error.contains(expected), "{bytes:?}: {error}");
        }
        let mut endless = b"\x01\x00".to_vec();
        for _ in 0..17 {
            endless.extend(b"\x00\x7f\x00\x00\x00\x00\x00\x01\x00\x00");
            endless.extend(vec![b'x'; 1 << 16]);
        }
        assert!(events(&endless, 1 << 16).unwrap_err().contains("1024 KiB"));
    }
}
