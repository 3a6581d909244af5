//! Heads between the gateway's HTTP/1.1 text and the `h2` crate's types, towards workers.

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, Uri,
    header::{HOST, TE},
    uri::{Authority, PathAndQuery, Scheme},
};

use crate::http2::fields::{append, append_line, lines_of};

/// An HTTP/1.1 head as an HTTP/2 request; `None` if it cannot be one. Fields of a connection are left out, and of `TE`
/// all but `trailers` (RFC 9113, section 8.2.2).
pub(super) fn request(head: &[u8]) -> Option<Request<()>> {
    let end = head.iter().position(|&byte| byte == b'\n')?;
    let mut words = head[..end].split(|&byte| byte == b' ');
    let method = Method::from_bytes(words.next()?).ok()?;
    let target = PathAndQuery::try_from(words.next()?).ok()?;
    let mut fields = HeaderMap::new();
    let (mut authority, mut trailers) = (None, false);
    for (name, value) in lines_of(&head[end + 1..]) {
        if name.eq_ignore_ascii_case(HOST.as_str().as_bytes()) {
            authority = Some(Authority::try_from(value).ok()?);
        } else if name.eq_ignore_ascii_case(TE.as_str().as_bytes()) {
            let mut codings = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
            trailers |= codings.any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
        } else {
            append(&mut fields, name, value);
        }
    }
    if trailers {
        fields.insert(TE, HeaderValue::from_static("trailers"));
    }
    let mut uri = http::uri::Parts::default();
    uri.scheme = authority.is_some().then_some(Scheme::HTTP);
    uri.authority = authority;
    uri.path_and_query = Some(target);
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from_parts(uri).ok()?;
    *request.headers_mut() = fields;
    Some(request)
}

/// Appends a response's head as HTTP/1.1 text, with its empty line.
pub(super) fn append_response<T>(into: &mut Vec<u8>, response: &Response<T>) {
    let status = response.status();
    into.extend_from_slice(b"HTTP/1.1 ");
    into.extend_from_slice(status.as_str().as_bytes());
    into.push(b' ');
    into.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    into.extend_from_slice(b"\r\n");
    for (name, value) in response.headers() {
        append_line(into, name.as_str().as_bytes(), value.as_bytes());
    }
    into.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_what_http_2_has() {
        let head =
            b"POST /a.B/C?d=e HTTP/1.1\r\nHost: example.org:80\r\nTE: deflate, trailers\r\nConnection: x\r\n\
                     Transfer-Encoding: chunked\r\nX-One: 1\r\nx-one: 2\r\n\r\n";
        let request = request(head).unwrap();
        assert_eq!(request.method(), Method::POST);
        assert_eq!(request.uri(), "http://example.org:80/a.B/C?d=e");
        let fields: Vec<_> =
            request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(fields, [("x-one", &b"1"[..]), ("x-one", b"2"), ("te", b"trailers")]);
    }

    #[test]
    fn heads_that_cannot_be_sent_are_none() {
        for head in
            [&b""[..], b"GET\r\n\r\n", b"GET /\x01 HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nhost: a b\r\n\r\n"]
        {
            assert!(request(head).is_none(), "{}", head.escape_ascii());
        }
        assert_eq!(request(b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n").unwrap().uri().path(), "*");
    }

    #[test]
    fn a_response_is_text() {
        let response =
            Response::builder().status(404).header("x-a", "1").header("x-a", "2").body(()).unwrap();
        let mut text = Vec::new();
        append_response(&mut text, &response);
        assert_eq!(text, b"HTTP/1.1 404 Not Found\r\nx-a: 1\r\nx-a: 2\r\n\r\n");
    }
}
