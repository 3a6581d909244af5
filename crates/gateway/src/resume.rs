//! Continuing a large response whose worker was lost half-way: the rest is asked of another worker by a range request,
//! on the condition that it has the same representation, byte for byte (RFC 9110, sections 13.1.5 and 14.2).

use std::io::Write;

use crate::{headers::Framing, request::Prepared, route::Target};

/// What a client has seen of its response.
pub(crate) struct Shown {
    /// How to continue it, if that can be done.
    pub(crate) rest: Option<Resume>,
}

/// What is known of a response that can be continued.
pub(crate) struct Resume {
    /// Strong: the same tag means the same bytes.
    etag: Vec<u8>,
    length: u64,
    passed: u64,
}

impl Resume {
    /// For a response that just began: whether it could be continued later. It must be all of a representation with a
    /// strong entity tag and a known length, asked for by a GET that says nothing of ranges itself.
    pub(crate) fn begin(
        prepared: &Prepared,
        target: &Target,
        status: u16,
        framing: Framing<'_>,
    ) -> Option<Self> {
        let etag = framing.etag.filter(|etag| is_strong(etag))?;
        let length = framing.length?;
        let resumable = target.route.resume && prepared.is_whole_get && status == 200;
        resumable.then(|| Self { etag: etag.to_vec(), length, passed: 0 })
    }

    /// The client was given so many bytes more.
    pub(crate) fn passed(&mut self, bytes: usize) {
        self.passed += bytes as u64;
    }

    /// The request for the rest.
    pub(crate) fn head(&self, prepared: &Prepared) -> Vec<u8> {
        let whole = &prepared.worker.bytes;
        let mut head = whole[..whole.len() - 2].to_vec();
        // Writing to a vector cannot fail.
        let _ = write!(head, "range: bytes={}-\r\nif-range: ", self.passed);
        head.extend_from_slice(&self.etag);
        head.extend_from_slice(b"\r\n\r\n");
        head
    }

    /// Whether a response is exactly the rest of the same representation. It must tell its length: of one that comes in
    /// chunks it would show too late that it is longer or shorter than the client was told.
    pub(crate) fn is_continued_by(&self, status: u16, framing: Framing<'_>) -> bool {
        let rest = self.length - self.passed;
        let expected = format!("bytes {}-{}/{}", self.passed, self.length.saturating_sub(1), self.length);
        status == 206
            && framing.etag == Some(&self.etag[..])
            && framing.content_range.is_some_and(|range| range.eq_ignore_ascii_case(expected.as_bytes()))
            && framing.length == Some(rest)
    }
}

fn is_strong(etag: &[u8]) -> bool {
    etag.len() >= 2 && etag.starts_with(b"\"") && etag.ends_with(b"\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_rest_continues() {
        let resume = Resume { etag: b"\"a\"".to_vec(), length: 100, passed: 40 };
        let check = |status, etag: &'static str, range: &'static str, length, expected| {
            let framing = Framing {
                etag: Some(etag.as_bytes()),
                content_range: Some(range.as_bytes()),
                length,
                chunked: length.is_none(),
                ..Framing::default()
            };
            assert_eq!(
                resume.is_continued_by(status, framing),
                expected,
                "{status} {etag} {range} {length:?}"
            );
        };
        check(206, "\"a\"", "bytes 40-99/100", Some(60), true);
        check(206, "\"a\"", "bytes 40-99/100", None, false);
        check(200, "\"a\"", "bytes 40-99/100", Some(60), false);
        check(206, "\"b\"", "bytes 40-99/100", Some(60), false);
        check(206, "\"a\"", "bytes 41-99/100", Some(59), false);
        check(206, "\"a\"", "bytes 40-98/100", Some(59), false);
        check(206, "\"a\"", "bytes 40-99/*", Some(60), false);
        check(206, "\"a\"", "bytes 40-99/100", Some(61), false);
    }

    #[test]
    fn the_rest_is_asked_for() {
        let mut prepared = Prepared::default();
        prepared.worker.bytes = b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n".to_vec();
        let resume = Resume { etag: b"\"a\"".to_vec(), length: 100, passed: 40 };
        let expected = "GET /a HTTP/1.1\r\nhost: h\r\nrange: bytes=40-\r\nif-range: \"a\"\r\n\r\n";
        assert_eq!(String::from_utf8(resume.head(&prepared)).unwrap(), expected);
    }

    #[test]
    fn tags() {
        assert!(is_strong(b"\"a\"") && is_strong(b"\"\""));
        assert!(!is_strong(b"W/\"a\"") && !is_strong(b"a") && !is_strong(b"\""));
    }
}
