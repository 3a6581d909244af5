//! Frames: how many calls of the state API share one connection. What is asked and answered is the same as over HTTP/1.1;
//! written like this, calls need not wait for each other's answers, and those that come together cost one system call together.
//!
//! A client asks `GET /v1/frames` with `Upgrade: lethe-frames-1`, is answered 101 (RFC 9110, section 7.8), and sends frames of
//! calls from then on, whose numbers go up. Answers come in the order in which they are ready. All integers are little-endian.
//!
//! ```text
//! frame     = length: u32 (of what follows the number) · number: u64 · call | answer | leaving
//! call      = method: u8 · headers: u8 · target's length: u16 · target · header* · body
//! answer    = status: u16 · headers: u8 · 0: u8 · header* · body
//! leaving   = status 0, without anything else: calls beyond `number` were not and will not be done
//! header    = name's length: u8 · value's length: u16 · name · value
//! ```

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
#[cfg(feature = "server")]
use http::{HeaderName, HeaderValue};

/// What the upgrade is called, and its path.
pub(crate) const PROTOCOL: &str = "lethe-frames-1";
pub(crate) const PATH: &str = "/v1/frames";
/// Most bytes of a call; a longer one goes over HTTP. So a connection's calls take 2 MiB at most.
pub(crate) const CALL_BYTES_MAX: usize = 16 << 10;
/// Most calls of a connection that have no answer yet; further ones are not read.
pub(crate) const CALLS_MAX: usize = 128;
/// Up to this length what somebody keeps of a frame, such as the value of a row, is copied out of it. Frames are parts of the buffer
/// that was read into, which would stay in memory for as long.
#[cfg(feature = "remote")]
pub(crate) const COPIED_BYTES_MAX: usize = 4 << 10;
/// Bytes before what the length counts.
const PREFIX: usize = 12;
/// Bytes of a call, and of an answer, before anything of variable length.
const FIXED: usize = 4;

/// The methods, by their number in a frame.
const METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::PUT, Method::POST, Method::PATCH, Method::DELETE];

/// One call as it was read.
#[cfg(feature = "server")]
pub(crate) struct Call {
    pub(crate) number: u64,
    pub(crate) method: Method,
    pub(crate) target: Bytes,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What a server sends.
#[cfg(feature = "remote")]
pub(crate) enum Answer {
    /// To the call of this number.
    Whole { number: u64, status: StatusCode, headers: Headers, body: Bytes },
    /// It leaves; no call beyond this number is done.
    Leaving { last: u64 },
}

/// The headers of an answer, as they came: most are never looked at.
#[cfg(feature = "remote")]
pub(crate) struct Headers(Bytes);

#[cfg(feature = "remote")]
impl Headers {
    /// The text of the first one of this name, which is in small letters.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let mut rest = &self.0[..];
        while let Some((found, value)) = take_header(&mut rest) {
            if found.eq_ignore_ascii_case(name.as_bytes()) {
                return std::str::from_utf8(value).ok();
            }
        }
        None
    }
}

/// The next header's name and value; `None` where there is no whole one.
#[cfg(feature = "remote")]
fn take_header<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (name, value) =
        (usize::from(*rest.first()?), usize::from(u16::from_le_bytes([*rest.get(1)?, *rest.get(2)?])));
    let (header, after) = rest.split_at_checked(3 + name + value)?;
    *rest = after;
    Some(header[3..].split_at(name))
}

/// What was read is no frame. The text says why.
#[derive(Debug)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Whether a call is short enough for a frame.
#[cfg(feature = "remote")]
pub(crate) fn has_place(target: &str, headers: &HeaderMap, body: &[u8]) -> bool {
    FIXED + target.len() + headers_bytes(headers) + body.len() <= CALL_BYTES_MAX
}

/// Writes a call; `None`, and nothing is written, where it has no place in a frame.
#[cfg(feature = "remote")]
pub(crate) fn write_call(
    out: &mut BytesMut,
    number: u64,
    method: &Method,
    target: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Option<()> {
    let method = METHODS.iter().position(|known| known == method)?;
    let count = u8::try_from(headers.len()).ok()?;
    if !has_place(target, headers, body) {
        return None;
    }
    prefix(out, FIXED + target.len() + headers_bytes(headers) + body.len(), number);
    out.put_u8(method as u8);
    out.put_u8(count);
    out.put_u16_le(target.len() as u16);
    out.put_slice(target.as_bytes());
    put_headers(out, headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
    out.put_slice(body);
    Some(())
}

/// Takes the next call from what was read, if all of it is there.
#[cfg(feature = "server")]
pub(crate) fn take_call(read: &mut BytesMut) -> Result<Option<Call>, Malformed> {
    let Some((number, mut frame)) = take_frame(read, CALL_BYTES_MAX)? else { return Ok(None) };
    let method = METHODS.get(usize::from(frame.get_u8())).ok_or(Malformed("its method is not known"))?;
    let headers = frame.get_u8();
    let target = usize::from(frame.get_u16_le());
    let target = cut(&mut frame, target)?;
    let headers = take_headers(&mut frame, headers)?;
    Ok(Some(Call { number, method: method.clone(), target, headers, body: frame }))
}

/// Writes an answer. An answer of more than 4 GiB has no place, nor have headers that were never set by a handler here.
#[cfg(feature = "server")]
pub(crate) fn write_answer(
    out: &mut BytesMut,
    number: u64,
    status: StatusCode,
    headers: &[(&str, &[u8])],
    body: &[u8],
) -> Result<(), Malformed> {
    let bytes: usize = headers.iter().map(|(name, value)| 3 + name.len() + value.len()).sum();
    let length = FIXED + bytes + body.len();
    let (Ok(_), Ok(count)) = (u32::try_from(length), u8::try_from(headers.len())) else {
        return Err(Malformed("the answer has no place in a frame"));
    };
    prefix(out, length, number);
    out.put_u16_le(status.as_u16());
    out.put_slice(&[count, 0]);
    put_headers(out, headers.iter().copied());
    out.put_slice(body);
    Ok(())
}

/// Writes that no call beyond `last` is done.
#[cfg(feature = "server")]
pub(crate) fn write_leaving(out: &mut BytesMut, last: u64) {
    prefix(out, FIXED, last);
    out.put_u32(0);
}

/// Takes the next answer from what was read, of at most `bytes_max`, if all of it is there.
#[cfg(feature = "remote")]
pub(crate) fn take_answer(read: &mut BytesMut, bytes_max: usize) -> Result<Option<Answer>, Malformed> {
    let Some((number, mut frame)) = take_frame(read, bytes_max)? else { return Ok(None) };
    let status = frame.get_u16_le();
    let headers = frame.get_u8();
    frame.advance(1);
    if status == 0 {
        return Ok(Some(Answer::Leaving { last: number }));
    }
    let status = StatusCode::from_u16(status).map_err(|_| Malformed("its status is none"))?;
    let mut rest = &frame[..];
    for _ in 0..headers {
        take_header(&mut rest).ok_or(Malformed("a header is cut short"))?;
    }
    let headers = Headers(frame.split_to(frame.len() - rest.len()));
    Ok(Some(Answer::Whole { number, status, headers, body: frame }))
}

fn prefix(out: &mut BytesMut, length: usize, number: u64) {
    out.reserve(PREFIX + length);
    out.put_u32_le(length as u32);
    out.put_u64_le(number);
}

/// The next frame's number and what follows it. Makes room for the rest of one that has begun.
fn take_frame(read: &mut BytesMut, bytes_max: usize) -> Result<Option<(u64, Bytes)>, Malformed> {
    let Some(mut head) = read.get(..PREFIX) else { return Ok(None) };
    let (length, number) = (head.get_u32_le() as usize, head.get_u64_le());
    if length < FIXED {
        return Err(Malformed("it is too short"));
    }
    if length > bytes_max {
        return Err(Malformed("it is too long"));
    }
    if read.len() < PREFIX + length {
        read.reserve(PREFIX + length - read.len());
        return Ok(None);
    }
    read.advance(PREFIX);
    Ok(Some((number, read.split_to(length).freeze())))
}

#[cfg(feature = "remote")]
fn headers_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| 3 + name.as_str().len() + value.len()).sum()
}

fn put_headers<'a>(out: &mut BytesMut, headers: impl Iterator<Item = (&'a str, &'a [u8])>) {
    for (name, value) in headers {
        // Names that a program writes down are short, and a frame bounds the rest.
        out.put_u8(name.len() as u8);
        out.put_u16_le(value.len() as u16);
        out.put_slice(name.as_bytes());
        out.put_slice(value);
    }
}

#[cfg(feature = "server")]
fn take_headers(frame: &mut Bytes, count: u8) -> Result<HeaderMap, Malformed> {
    let mut headers = HeaderMap::with_capacity(usize::from(count));
    for _ in 0..count {
        if frame.len() < 3 {
            return Err(Malformed("a header is cut short"));
        }
        let (name, value) = (usize::from(frame.get_u8()), usize::from(frame.get_u16_le()));
        let name = HeaderName::from_bytes(&cut(frame, name)?);
        let value = HeaderValue::from_maybe_shared(cut(frame, value)?);
        let (Ok(name), Ok(value)) = (name, value) else { return Err(Malformed("a header is none")) };
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(feature = "server")]
fn cut(frame: &mut Bytes, length: usize) -> Result<Bytes, Malformed> {
    if frame.len() < length {
        return Err(Malformed("a part of it is longer than it is"));
    }
    Ok(frame.split_to(length))
}
