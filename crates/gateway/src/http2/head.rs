//! The head of an HTTP/2 request as the text of an HTTP/1.1 head, which the gateway's one strict parser then reads. What
//! HTTP/2 alone can get wrong is refused here.

use http::{HeaderMap, Method, header, request::Parts};

use super::fields::{append_line, is_of_connection};

/// How much of a body follows a request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// Nothing.
    None,
    /// So many bytes, by `Content-Length`; the connection sees to it that they agree.
    Sized(u64),
    /// Until the stream ends.
    Streamed,
}

/// A request, in the gateway's terms.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// An HTTP/1.1 head with its empty line. It has a `content-length` if the request had; never a
    /// `transfer-encoding`: how the body is framed is in `body` alone.
    pub(crate) head: Vec<u8>,
    pub(crate) body: Body,
    /// The client asks for a WebSocket by extended CONNECT (RFC 8441): any 2xx grants it, so that no other may be passed
    /// on.
    pub(crate) connects: bool,
}

/// Why there is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// RFC 9113, section 8.1.1: the stream is reset.
    Malformed(&'static str),
    /// Well-formed, and answered with this status and the reason.
    Answer(u16, &'static str),
}

/// Translates a request; `ended` says that nothing follows the head.
pub(super) fn translate(parts: &Parts, ended: bool) -> Result<Request, Refusal> {
    let protocol = parts.extensions.get::<h2::ext::Protocol>();
    let tunnel = parts.method == Method::CONNECT;
    match protocol.map(|protocol| protocol.as_str()) {
        None if tunnel => {
            return Err(Refusal::Answer(501, "this gateway is no forward proxy: it does not CONNECT"));
        }
        Some(protocol) if !protocol.eq_ignore_ascii_case("websocket") => {
            return Err(Refusal::Answer(501, "of extended CONNECT only the websocket protocol is supported"));
        }
        _ => {}
    }
    let mut head = Vec::with_capacity(512);
    head.extend_from_slice(if tunnel { b"GET" } else { parts.method.as_str().as_bytes() });
    head.push(b' ');
    head.extend_from_slice(target(parts)?.as_bytes());
    head.extend_from_slice(b" HTTP/1.1\r\n");
    append_line(&mut head, b"host", host(parts)?);
    append_fields(&mut head, &parts.headers, tunnel)?;
    if tunnel {
        head.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\n");
        append_line(&mut head, b"sec-websocket-key", &websocket_key());
    }
    head.extend_from_slice(b"\r\n");
    let body = match (ended || tunnel, length(&parts.headers)) {
        (true, _) => Body::None,
        (false, Some(length)) => Body::Sized(length),
        (false, None) => Body::Streamed,
    };
    Ok(Request { head, body, connects: tunnel })
}

fn target(parts: &Parts) -> Result<&str, Refusal> {
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let asterisk = target == "*" && parts.method == Method::OPTIONS;
    if target.starts_with('/') || asterisk {
        Ok(target)
    } else {
        Err(Refusal::Malformed(":path does not begin with a slash"))
    }
}

/// `:authority`, or `host` where there is none (RFC 9113, section 8.3.1).
fn host(parts: &Parts) -> Result<&[u8], Refusal> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next().map(|host| host.as_bytes());
    if hosts.next().is_some() {
        return Err(Refusal::Answer(400, "there is more than one host field"));
    }
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let Some(named) = authority.or(host) else {
        return Err(Refusal::Answer(400, "there is neither :authority nor host"));
    };
    if named.contains(&b'@') {
        return Err(Refusal::Malformed(":authority names a user"));
    }
    match host {
        Some(host) if !host.eq_ignore_ascii_case(named) => {
            Err(Refusal::Answer(400, "host and :authority do not agree"))
        }
        _ => Ok(named),
    }
}

fn append_fields(head: &mut Vec<u8>, fields: &HeaderMap, tunnel: bool) -> Result<(), Refusal> {
    for name in fields.keys() {
        if *name == header::HOST || is_of_connection(name) || (tunnel && is_replaced_in_tunnel(name)) {
            continue;
        }
        let mut values = fields.get_all(name).iter().peekable();
        if *name == header::COOKIE {
            // Crumbs are put together again (RFC 9113, section 8.2.3).
            head.extend_from_slice(b"cookie: ");
            while let Some(crumb) = values.next() {
                head.extend_from_slice(checked(crumb.as_bytes())?);
                head.extend_from_slice(if values.peek().is_some() { b"; " } else { b"\r\n" });
            }
            continue;
        }
        for value in values {
            append_line(head, name.as_str().as_bytes(), checked(value.as_bytes())?);
            // The connection has seen that the others are the same.
            if *name == header::CONTENT_LENGTH {
                break;
            }
        }
    }
    Ok(())
}

/// RFC 9113, section 8.2.1: no white space around a value.
fn checked(value: &[u8]) -> Result<&[u8], Refusal> {
    if value.trim_ascii().len() == value.len() {
        Ok(value)
    } else {
        Err(Refusal::Malformed("a field value begins or ends with white space"))
    }
}

/// Fields of HTTP/1.1's handshake that HTTP/2's does not have (RFC 8441, section 5), or that cannot be.
fn is_replaced_in_tunnel(name: &http::HeaderName) -> bool {
    *name == header::SEC_WEBSOCKET_KEY || *name == header::CONTENT_LENGTH
}

/// Whether the client sends the body only when it is told to (RFC 9110, section 10.1.1).
pub(super) fn expects_continue(fields: &HeaderMap) -> bool {
    fields.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

fn length(fields: &HeaderMap) -> Option<u64> {
    fields.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The nonce of a WebSocket handshake over HTTP/1.1 (RFC 6455, section 4.1). It only has to differ from connection to
/// connection: a worker proves with it that it speaks WebSocket.
fn websocket_key() -> [u8; 24] {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut nonce = [0; 18];
    // Without randomness the key is a constant one, which no cache between us and the worker could mistake.
    let _ = getrandom::fill(&mut nonce[..16]);
    let mut key = [b'='; 24];
    for (three, four) in nonce.chunks_exact(3).zip(key.chunks_exact_mut(4)) {
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for (i, digit) in four.iter_mut().enumerate() {
            *digit = DIGITS[(bits >> (18 - 6 * i)) as usize & 63];
        }
    }
    // 16 bytes are 22 digits.
    key[22..].fill(b'=');
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(method: &str, uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn text(parts: &Parts, ended: bool) -> (String, Body) {
        let request = translate(parts, ended).unwrap();
        (String::from_utf8(request.head).unwrap(), request.body)
    }

    #[test]
    fn a_head_is_as_http_1_1_has_it() {
        let fields = [("cookie", "a=1"), ("x-one", "1"), ("cookie", "b=2"), ("te", "trailers")];
        let parts = parts("GET", "https://example.org/a?b=c", &fields);
        let (head, body) = text(&parts, true);
        let expected = "GET /a?b=c HTTP/1.1\r\nhost: example.org\r\ncookie: a=1; b=2\r\nx-one: 1\r\nte: trailers\r\n\r\n";
        assert_eq!(head, expected);
        assert_eq!(body, Body::None);
    }

    #[test]
    fn the_body_is_sized_or_streamed() {
        let sized = parts("POST", "https://a/", &[("content-length", "5"), ("content-length", "5")]);
        let (head, body) = text(&sized, false);
        assert_eq!(head, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n");
        assert_eq!(body, Body::Sized(5));
        assert_eq!(text(&parts("POST", "https://a/", &[]), false).1, Body::Streamed);
    }

    #[test]
    fn authority_wins_and_host_must_agree() {
        assert_eq!(text(&parts("GET", "/", &[("host", "a")]), true).0, "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert!(text(&parts("GET", "http://a/", &[("host", "A")]), true).0.contains("host: a\r\n"));
        for (uri, fields) in
            [("http://a/", &[("host", "b")][..]), ("http://a/", &[("host", "a"), ("host", "a")]), ("/", &[])]
        {
            let refusal = translate(&parts("GET", uri, fields), true).unwrap_err();
            assert!(matches!(refusal, Refusal::Answer(400, _)), "{uri}: {refusal:?}");
        }
        let user = translate(&parts("GET", "http://me@a/", &[]), true).unwrap_err();
        assert!(matches!(user, Refusal::Malformed(_)));
    }

    #[test]
    fn what_only_http_2_can_get_wrong_is_refused() {
        assert!(matches!(translate(&parts("GET", "*", &[("host", "a")]), true), Err(Refusal::Malformed(_))));
        assert!(translate(&parts("OPTIONS", "*", &[("host", "a")]), true).is_ok());
        for value in [" x", "x ", "\tx"] {
            let refusal = translate(&parts("GET", "http://a/", &[("x", value)]), true);
            assert!(matches!(refusal, Err(Refusal::Malformed(_))), "{value:?}");
        }
        assert!(matches!(translate(&parts("CONNECT", "a:80", &[]), false), Err(Refusal::Answer(501, _))));
    }

    #[test]
    fn a_websocket_is_asked_for_as_http_1_1_does() {
        let mut parts = parts("CONNECT", "https://a/chat", &[("sec-websocket-version", "13")]);
        parts.extensions.insert(h2::ext::Protocol::from_static("websocket"));
        let (head, body) = text(&parts, false);
        let (begin, key) = head.split_once("sec-websocket-key: ").unwrap();
        let expected = "GET /chat HTTP/1.1\r\nhost: a\r\nsec-websocket-version: 13\r\nconnection: upgrade\r\n\
                        upgrade: websocket\r\n";
        assert_eq!(begin, expected);
        assert_eq!(key.len(), 24 + 4);
        assert!(key.ends_with("==\r\n\r\n"));
        assert_eq!(body, Body::None);
        parts.extensions.insert(h2::ext::Protocol::from_static("connect-udp"));
        assert!(matches!(translate(&parts, false), Err(Refusal::Answer(501, _))));
    }
}
