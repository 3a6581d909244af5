//! The chunked transfer coding (RFC 9112, section 7.1), both ways. Reading is strict: a size is hexadecimal digits and
//! nothing else, lines end with CRLF, and what extensions and trailers may take is bounded.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;

use std::io::Write;

use crate::head::{self, Bounds, Fault};

/// Most bytes of extensions in one body; nobody uses them, and each costs a worker's reader time.
const EXTENSION_BYTES_MAX: usize = 4 << 10;
/// The digits of a size of 2^60 - 1 bytes.
const SIZE_DIGITS_MAX: u8 = 15;

/// Reads a chunked body, of which it is given the bytes as they come.
/// Size → (Extension →) SizeEnd → Data → DataCr → DataLf → Size … → Trailers → Done.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    /// Of the chunk in hand: its size as far as it was read, then what is left of its data.
    left: u64,
    digits: u8,
    extension_bytes: usize,
    trailers: Vec<u8>,
    bounds: Bounds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    Trailers,
    Done,
}

/// What comes next in a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// After the first `skip` bytes there are `bytes` of data (at least one), to be reported by [`Decoder::took`].
    Data { skip: usize, bytes: usize },
    /// All was used, and more is needed.
    More,
    /// The body ended after so many bytes.
    End { skip: usize },
}

impl Decoder {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { state: State::Size, left: 0, digits: 0, extension_bytes: 0, trailers: Vec::new(), bounds }
    }

    /// The trailers, once the body has ended: field lines, each with its CRLF.
    pub(crate) fn take_trailers(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.trailers)
    }

    /// So much of the data that was found was taken.
    pub(crate) fn took(&mut self, bytes: usize) {
        self.left -= bytes as u64;
        if self.left == 0 {
            self.state = State::DataCr;
        }
    }

    /// Looks for the next data in `input`, which follows what the last step left.
    pub(crate) fn step(&mut self, input: &[u8]) -> Result<Step, &'static str> {
        let mut at = 0;
        loop {
            if self.state == State::Data {
                let bytes = self.left.min((input.len() - at) as u64) as usize;
                return Ok(if bytes == 0 { Step::More } else { Step::Data { skip: at, bytes } });
            }
            if self.state == State::Done {
                return Ok(Step::End { skip: at });
            }
            let Some(&byte) = input.get(at) else { return Ok(Step::More) };
            at += 1;
            self.state = self.next(byte)?;
        }
    }

    fn next(&mut self, byte: u8) -> Result<State, &'static str> {
        Ok(match (self.state, byte) {
            (State::Size, b'\r') if self.digits > 0 => State::SizeEnd,
            (State::Size, b';') if self.digits > 0 => State::Extension,
            (State::Size, digit) => {
                let value =
                    (digit as char).to_digit(16).ok_or("A chunk's size is not a hexadecimal number.")?;
                if self.digits == SIZE_DIGITS_MAX {
                    return Err("A chunk's size is too large.");
                }
                self.digits += 1;
                self.left = self.left << 4 | u64::from(value);
                State::Size
            }
            (State::Extension, b'\r') => State::SizeEnd,
            (State::Extension, byte) if byte == b'\t' || (byte >= b' ' && byte != 0x7f) => {
                self.extension_bytes += 1;
                if self.extension_bytes > EXTENSION_BYTES_MAX {
                    return Err("The chunks' extensions are too long.");
                }
                State::Extension
            }
            (State::SizeEnd, b'\n') => {
                self.digits = 0;
                if self.left == 0 { State::Trailers } else { State::Data }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::Trailers, byte) => return self.trailer(byte),
            _ => return Err("A chunk does not end with CRLF."),
        })
    }

    /// The trailers are collected and read as the fields of a head are.
    fn trailer(&mut self, byte: u8) -> Result<State, &'static str> {
        self.trailers.push(byte);
        if self.trailers.len() > self.bounds.head_bytes_max {
            return Err("The trailers are too long.");
        }
        if byte != b'\n' || !(self.trailers == b"\r\n" || self.trailers.ends_with(b"\r\n\r\n")) {
            return match byte == b'\n' && !self.trailers.ends_with(b"\r\n") {
                true => Err("A trailer does not end with CRLF."),
                false => Ok(State::Trailers),
            };
        }
        match head::fields(&self.trailers, 0, self.bounds, &mut Vec::new()) {
            Ok(Some(_)) => {
                self.trailers.truncate(self.trailers.len() - 2);
                Ok(State::Done)
            }
            Err(Fault::Malformed(fault)) => Err(fault),
            _ => Err("The trailers are too long."),
        }
    }
}

/// Appends one chunk; an empty one would end the body, and is left out.
pub(crate) fn push_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if !data.is_empty() {
        // Writing to a vector cannot fail.
        let _ = write!(out, "{:x}\r\n", data.len());
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends the end of a body, with trailers as field lines.
pub(crate) fn push_end(out: &mut Vec<u8>, trailers: &[u8]) {
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(trailers);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { head_bytes_max: 100, target_bytes_max: 100, headers_max: 3 };

    /// The data, the trailers, and what follows the body.
    fn decode(input: &[u8], piece: usize) -> Result<Option<[Vec<u8>; 3]>, &'static str> {
        let body = fuzz::decode(input, piece, BOUNDS)?;
        Ok(body.map(|(data, trailers, bytes)| [data, trailers, input[bytes..].to_vec()]))
    }

    #[test]
    fn bodies() {
        let whole = b"5\r\nhello\r\n00006;a=\"b\"\r\n world\r\n0\r\nx: 1\r\ny: 2\r\n\r\nNEXT";
        for piece in 1..whole.len() {
            let [data, trailers, rest] = decode(whole, piece).unwrap().unwrap();
            assert_eq!((&*data, &*trailers), (&b"hello world"[..], &b"x: 1\r\ny: 2\r\n"[..]));
            assert!(b"NEXT".starts_with(&rest) || rest == b"NEXT");
        }
        for length in 0..whole.len() - 4 {
            assert_eq!(decode(&whole[..length], 7), Ok(None), "{length}");
        }
    }

    #[test]
    fn what_breaks_the_rules() {
        for broken in [
            "zz\r\n",
            "\r\n",
            ";a\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1 \r\n",
            "1\n",
            "1\r\r\n",
            "1;a\nb\r\n",
            "1;a\0b\r\n",
            "3\r\nabcX",
            "3\r\nabc\n",
            "3\r\nabc\r\r",
            "1000000000000000\r\n",
            "0\r\nx : 1\r\n\r\n",
            "0\r\nx: 1\n\r\n",
            "0\r\n x: 1\r\n\r\n",
            "0\r\na: 1\r\na: 1\r\na: 1\r\na: 1\r\n\r\n",
        ] {
            assert!(
                decode(broken.as_bytes(), 100).is_err(),
                "{broken:?}: {:?}",
                decode(broken.as_bytes(), 100)
            );
        }
        let long = format!("1;{}\r\n", "x".repeat(EXTENSION_BYTES_MAX + 1));
        assert!(decode(long.as_bytes(), 100).is_err());
        let long = format!("0\r\nx: {}\r\n\r\n", "x".repeat(100));
        assert!(decode(long.as_bytes(), 100).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(chunks: Vec<Vec<u8>>, piece in 1usize..50) {
            let mut out = Vec::new();
            chunks.iter().for_each(|chunk| push_chunk(&mut out, chunk));
            push_end(&mut out, b"t: 1\r\n");
            let [data, trailers, rest] = decode(&out, piece).unwrap().unwrap();
            prop_assert_eq!(data, chunks.concat());
            prop_assert_eq!((&*trailers, rest.len()), (&b"t: 1\r\n"[..], 0));
        }

        #[test]
        fn garbage_is_no_harm(input: Vec<u8>, piece in 1usize..50) {
            let _ = decode(&input, piece);
        }
    }
}
