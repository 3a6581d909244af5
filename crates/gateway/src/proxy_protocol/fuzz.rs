//! What holds for any beginning of a connection.

use super::{HEADER_BYTES_MAX, parse};

/// A header is found at its last byte and at no other, a refusal is final, and one or the other comes before the bound.
pub(crate) fn check(data: &[u8]) {
    let whole = parse(data);
    match whole {
        Ok(Some((_, end))) => {
            assert!(end <= data.len() && end <= HEADER_BYTES_MAX);
            assert_eq!(parse(&data[..end]), whole, "what follows makes no difference");
            // Each would be looked at again as bytes come in; the ends of fields are where this goes wrong.
            let before = (0..end.min(200)).chain(end.saturating_sub(200)..end);
            before.for_each(|end| assert_eq!(parse(&data[..end]), Ok(None), "{end}"));
        }
        Ok(None) => assert!(data.len() < HEADER_BYTES_MAX),
        Err(_) => {
            for more in [&b"\r\n"[..], b" 1", &[0; 3]] {
                assert!(parse(&[data, more].concat()).is_err());
            }
        }
    }
}
