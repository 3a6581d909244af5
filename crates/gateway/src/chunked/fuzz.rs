//! What holds for any bytes that claim to be a chunked body.

use super::{Decoder, Step, push_chunk, push_end};
use crate::head::Bounds;

const BOUNDS: Bounds = Bounds { head_bytes_max: 1024, target_bytes_max: 1024, headers_max: 20 };

/// The data, the trailers and how many bytes the body took; nothing if it is not whole.
pub(super) type Body = Option<(Vec<u8>, Vec<u8>, usize)>;

/// Reads a body that comes in pieces of `piece` bytes.
pub(super) fn decode(input: &[u8], piece: usize, bounds: Bounds) -> Result<Body, &'static str> {
    let (mut decoder, mut data) = (Decoder::new(bounds), Vec::new());
    let (mut at, mut end) = (0, 0);
    loop {
        match decoder.step(&input[at..end])? {
            Step::Data { skip, bytes } => {
                data.extend_from_slice(&input[at + skip..at + skip + bytes]);
                decoder.took(bytes);
                at += skip + bytes;
            }
            Step::End { skip } => return Ok(Some((data, decoder.take_trailers(), at + skip))),
            Step::More if end == input.len() => return Ok(None),
            Step::More => {
                at = end;
                end = (end + piece).min(input.len());
            }
        }
    }
}

/// A body means the same however it is cut into pieces, and what is written of it is read back as the same.
pub(crate) fn check(data: &[u8]) {
    let whole = decode(data, data.len().max(1), BOUNDS);
    for piece in [1, 2, 7] {
        assert_eq!(decode(data, piece, BOUNDS), whole, "in pieces of {piece}");
    }
    if let Ok(Some((body, trailers, _))) = whole {
        let mut out = Vec::new();
        body.chunks(5).for_each(|chunk| push_chunk(&mut out, chunk));
        push_end(&mut out, &trailers);
        let all = out.len();
        assert_eq!(decode(&out, 3, BOUNDS), Ok(Some((body, trailers, all))));
    }
}
