//! Whether a worker that speaks HTTP/2 without TLS answers well: one request with prior knowledge on a connection of its
//! own, of which nothing but the status is read. A handful of frames, so no HTTP/2 library is asked. The supervisor asks it
//! for readiness, the gateway for health.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The preface and an empty SETTINGS frame (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const SETTINGS_ACK: &[u8] = b"\0\0\0\x04\x01\0\0\0\0";

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

const ACK: u8 = 1;
const END_STREAM_AND_HEADERS: u8 = 0x5;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// What a peer may send in one frame, as nothing else was agreed (RFC 9113, section 4.2).
const FRAME_BYTES_MAX: usize = 16 << 10;
/// Frames that are read until the response's head is there.
const FRAMES_MAX: usize = 16;

/// Asks for `path`, and returns the status. Waits as long as the worker lets it: the caller bounds it.
///
/// # Errors
/// What the connection says, or `InvalidData` if that is no answer in HTTP/2.
///
/// Not cancellation safe: the connection is then only good for closing.
pub async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    authority: &str,
) -> io::Result<u16> {
    stream.write_all(&request(path, authority)).await?;
    for _ in 0..FRAMES_MAX {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, stream_id @ ..] = head;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if length > FRAME_BYTES_MAX {
            break;
        }
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await?;
        match kind {
            HEADERS if stream_id == [0, 0, 0, 1] => {
                return status(block(&payload, flags)).ok_or_else(|| io::ErrorKind::InvalidData.into());
            }
            SETTINGS if flags & ACK == 0 => stream.write_all(SETTINGS_ACK).await?,
            RST_STREAM | GOAWAY => break,
            _ => {}
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// All that is sent before the answer. Field representations are those of RFC 7541, section 6: `:method: GET` and
/// `:scheme: http` from the static table, `:path` and `:authority` as literals without indexing.
fn request(path: &str, authority: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86];
    for (name, value) in [(0x04, path), (0x01, authority)] {
        block.push(name);
        integer(&mut block, 7, value.len());
        block.extend(value.as_bytes());
    }
    let mut bytes = PREFACE.to_vec();
    bytes.extend(&(block.len() as u32).to_be_bytes()[1..]);
    bytes.extend([HEADERS, END_STREAM_AND_HEADERS, 0, 0, 0, 1]);
    bytes.extend(block);
    bytes
}

/// An integer whose first byte has so many bits for it (RFC 7541, section 5.1).
fn integer(bytes: &mut Vec<u8>, bits: u32, value: usize) {
    let most = (1 << bits) - 1;
    if value < most {
        bytes.push(value as u8);
        return;
    }
    bytes.push(most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

/// The field block of a HEADERS frame (RFC 9113, section 6.2).
fn block(payload: &[u8], flags: u8) -> &[u8] {
    let before = usize::from(flags & PADDED != 0) + if flags & PRIORITY != 0 { 5 } else { 0 };
    payload.get(before..).unwrap_or_default()
}

/// The status of a response's field block, which it begins with.
fn status(mut block: &[u8]) -> Option<u16> {
    // Changes of the dynamic table's size.
    while block.first()? & 0xe0 == 0x20 {
        let more = block.first()? & 0x1f == 0x1f;
        let end = if more { 1 + block[1..].iter().position(|byte| byte & 0x80 == 0)? } else { 0 };
        block = &block[end + 1..];
    }
    let (&first, rest) = block.split_first()?;
    match first {
        // Whole fields of the static table (RFC 7541, appendix A).
        0x88..=0x8e => Some([200, 204, 206, 304, 400, 404, 500][usize::from(first - 0x88)]),
        // Names of the static table, with a literal value: not indexed, never indexed, indexed.
        0x08..=0x0e | 0x18..=0x1e | 0x48..=0x4e => {
            let (&length, value) = rest.split_first()?;
            let value = value.get(..usize::from(length & 0x7f))?;
            if length & 0x80 != 0 { digits(value) } else { std::str::from_utf8(value).ok()?.parse().ok() }
        }
        _ => None,
    }
}

/// Three digits in the Huffman code (RFC 7541, appendix B), which has 5 bits for each of 0 to 2 and 6 for the others.
fn digits(code: &[u8]) -> Option<u16> {
    let [a, b, rest @ ..] = code else { return None };
    let bits = u32::from_be_bytes([*a, *b, rest.first().copied().unwrap_or(0xff), 0xff]);
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let (five, six) = (bits << at >> 27, bits << at >> 26);
        let digit = match (five, six) {
            (0..=2, _) => {
                at += 5;
                five
            }
            (_, 0x19..=0x1f) => {
                at += 6;
                six - 0x19 + 3
            }
            _ => return None,
        };
        number = number * 10 + digit as u16;
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        for (block, expected) in [
            (&[0x88][..], Some(200)),
            (&[0x8e, 0x40], Some(500)),
            (&[0x20, 0x3f, 0x81, 0x01, 0x89], Some(204)),
            (&[0x08, 3, b'2', b'0', b'1'], Some(201)),
            (&[0x48, 3, b'5', b'0', b'3', 0x88], Some(503)),
            // RFC 7541, appendix C.6.1: 302 in the Huffman code.
            (&[0x48, 0x82, 0x64, 0x02], Some(302)),
            // C.6.2: 307.
            (&[0x48, 0x83, 0x64, 0x0e, 0xff], Some(307)),
            (&[0x48, 0x82, 0x64], None),
            (&[0x48, 0x82, 0xff, 0xff], None),
            (&[0x82], None),
            (&[0x3f, 0x80], None),
            (&[], None),
        ] {
            assert_eq!(status(block), expected, "{block:x?}");
        }
        assert_eq!(block(&[0x88], 4), [0x88]);
        assert_eq!(block(&[0, 0, 0, 0, 0, 0, 0x88], PADDED | PRIORITY), [0x88]);
        assert!(block(&[0], PRIORITY).is_empty());
    }

    #[test]
    fn integers() {
        for (value, expected) in [(10, &[10][..]), (127, &[127, 0]), (126, &[126]), (1337, &[127, 0xba, 9])] {
            let mut bytes = Vec::new();
            integer(&mut bytes, 7, value);
            assert_eq!(bytes, expected, "{value}");
        }
    }

    /// What the worker sends, and what is made of it.
    async fn check(frames: &[u8], expected: Option<u16>) {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        far.write_all(frames).await.unwrap();
        far.shutdown().await.unwrap();
        assert_eq!(ask(near, "/check", "h:1").await.ok(), expected, "{frames:x?}");
        let mut sent = Vec::new();
        far.read_to_end(&mut sent).await.unwrap();
        let asked = b"\x82\x86\x04\x06/check\x01\x03h:1";
        assert!(sent.starts_with(PREFACE) && sent[PREFACE.len() + 9..].starts_with(asked), "{sent:x?}");
        assert_eq!(sent[PREFACE.len()..][..9], [0, 0, asked.len() as u8, 1, 5, 0, 0, 0, 1]);
        let is_settled = sent.ends_with(SETTINGS_ACK);
        assert_eq!(is_settled, frames.starts_with(b"\0\0\x06\x04\0"), "{sent:x?}");
    }

    #[tokio::test]
    async fn asks_and_reads() {
        const SETTINGS: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64";
        check(&[SETTINGS, b"\0\0\0\x04\x01\0\0\0\0", b"\0\0\x01\x01\x04\0\0\0\x01\x88"].concat(), Some(200))
            .await;
        check(&[SETTINGS, b"\0\0\x01\x01\x05\0\0\0\x01\x8d"].concat(), Some(404)).await;
        check(
            &[SETTINGS, b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x07", b"\0\0\x01\x01\x05\0\0\0\x01\x88"].concat(),
            None,
        )
        .await;
        check(SETTINGS, None).await;
        check(b"HTTP/1.1 400 Bad Request\r\n\r\n", None).await;
        check(&b"\0\0\0\x06\0\0\0\0\0".repeat(FRAMES_MAX + 1), None).await;
    }
}
