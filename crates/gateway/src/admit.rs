//! What a request must be to be let in, beyond the grammar: one clear target, one host, one way to frame its body.
//! Everything that two readers could understand differently is refused, so that nothing can be smuggled past the
//! gateway to a worker.

use crate::{
    field::Known,
    head::{RequestHead, Span, Version},
    problem::Failure,
};

/// How a body's end is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Length {
    /// There is no body.
    #[default]
    None,
    /// It has so many bytes.
    Sized(u64),
    /// It ends where its coding says.
    Chunked,
}

/// What the fields of an admitted request say.
#[derive(Debug, Default)]
pub(crate) struct Admitted<'a> {
    pub(crate) method: &'a [u8],
    /// In origin form, or `*`.
    pub(crate) target: &'a [u8],
    /// The path of the target.
    pub(crate) path: &'a [u8],
    pub(crate) host: Option<&'a [u8]>,
    pub(crate) length: Length,
    pub(crate) version: Version,
    /// The client waits for `100 Continue` before it sends its body.
    pub(crate) expects: bool,
    /// What `Connection` says about the connection itself.
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    /// `Connection` says that there is an `Upgrade`.
    pub(crate) upgrades: bool,
    /// There is a `Connection` that names fields that end here.
    pub(crate) names_fields: bool,
    /// The only value of each of these fields.
    pub(crate) upgrade: Option<&'a [u8]>,
    pub(crate) request_id: Option<&'a [u8]>,
    pub(crate) traceparent: Option<&'a [u8]>,
    pub(crate) class: Option<&'a [u8]>,
    pub(crate) has_idempotency_key: bool,
    /// Set by who knows: the worker is to be told `TE: trailers`, as HTTP/2 has it (RFC 9113, section 8.2.2).
    pub(crate) passes_te: bool,
    pub(crate) has_range: bool,
    /// How often it may be forwarded, once at least, if its method is one of those for which `Max-Forwards` says that.
    pub(crate) forwards_left: Option<u64>,
}

/// Checks a request. `bytes` are those that `head` was read from.
pub(crate) fn admit<'a>(bytes: &'a [u8], head: &RequestHead) -> Result<Admitted<'a>, Failure> {
    let mut admitted = Admitted {
        method: head.method.of(bytes),
        target: head.target.of(bytes),
        version: head.version,
        ..Admitted::default()
    };
    if admitted.method == b"CONNECT" {
        return Err(Failure::Unsupported("CONNECT is not offered here."));
    }
    let mut coding: Option<&[u8]> = None;
    let mut length: Option<&[u8]> = None;
    let mut max_forwards: Option<&[u8]> = None;
    for field in &head.fields {
        let value = || field.value.of(bytes);
        match field.known {
            Known::Other => {}
            Known::Host => once(&mut admitted.host, field.value, bytes, "There is more than one Host.")?,
            Known::ContentLength => {
                once(&mut length, field.value, bytes, "There is more than one Content-Length.")?;
            }
            Known::TransferEncoding => {
                once(&mut coding, field.value, bytes, "There is more than one Transfer-Encoding.")?;
            }
            Known::Connection => connection(&mut admitted, value()),
            // Of what is there twice, neither is believed.
            Known::Upgrade => only(&mut admitted.upgrade, value()),
            Known::RequestId => only(&mut admitted.request_id, value()),
            Known::Traceparent => only(&mut admitted.traceparent, value()),
            Known::LetheClass => only(&mut admitted.class, value()),
            Known::Expect => admitted.expects = value().eq_ignore_ascii_case(b"100-continue"),
            Known::IdempotencyKey => admitted.has_idempotency_key = true,
            Known::Range => admitted.has_range = true,
            Known::MaxForwards => only(&mut max_forwards, value()),
            _ => {}
        }
    }
    admitted.length = framing(coding, length, head.version)?;
    check_host(&admitted)?;
    target(&mut admitted)?;
    admitted.forwards_left = forwards_left(admitted.method, max_forwards)?;
    Ok(admitted)
}

/// How often a request may still be forwarded (RFC 9110, section 7.6.2).
fn forwards_left(method: &[u8], max_forwards: Option<&[u8]>) -> Result<Option<u64>, Failure> {
    let Some(text) = max_forwards.filter(|_| matches!(method, b"OPTIONS" | b"TRACE")) else {
        return Ok(None);
    };
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(Failure::Malformed("The Max-Forwards is not a number."));
    }
    // More than fits is as good as without end.
    let left = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
    match (left, method) {
        (0, b"OPTIONS") => Err(Failure::LastHop),
        // To give its fields back would show what proxies before this one have added.
        (0, _) => Err(Failure::Unsupported("TRACE ends here, and is not answered.")),
        (left, _) => Ok(Some(left)),
    }
}

fn once<'a>(
    slot: &mut Option<&'a [u8]>,
    value: Span,
    bytes: &'a [u8],
    twice: &'static str,
) -> Result<(), Failure> {
    match slot.replace(value.of(bytes)) {
        None => Ok(()),
        Some(_) => Err(Failure::Malformed(twice)),
    }
}

/// Keeps the only value; after two, an empty one, which no reader of it takes.
fn only<'a>(slot: &mut Option<&'a [u8]>, value: &'a [u8]) {
    *slot = Some(if slot.is_some() { b"" } else { value });
}

fn connection(admitted: &mut Admitted<'_>, value: &[u8]) {
    for option in options(value) {
        if option.eq_ignore_ascii_case(b"keep-alive") {
            admitted.keep_alive = true;
        } else if option.eq_ignore_ascii_case(b"close") {
            admitted.close = true;
        } else if option.eq_ignore_ascii_case(b"upgrade") {
            admitted.upgrades = true;
        } else if !option.is_empty() {
            admitted.names_fields = true;
        }
    }
}

/// The members of a comma-separated list.
pub(crate) fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

/// RFC 9112, sections 6.1 to 6.3. Where the standard lets a server choose between repair and refusal, this refuses.
fn framing(coding: Option<&[u8]>, length: Option<&[u8]>, version: Version) -> Result<Length, Failure> {
    match (coding, length) {
        (None, None) => Ok(Length::None),
        (None, Some(length)) => match parse_length(length) {
            Some(0) => Ok(Length::None),
            Some(length) => Ok(Length::Sized(length)),
            None => Err(Failure::Malformed("The Content-Length is not a number.")),
        },
        (Some(_), Some(_)) => {
            Err(Failure::Malformed("There are both a Content-Length and a Transfer-Encoding."))
        }
        (Some(_), None) if version == Version::Http10 => {
            Err(Failure::Malformed("HTTP/1.0 has no Transfer-Encoding."))
        }
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Length::Chunked),
        (Some(coding), None) => {
            // A list whose last member is `chunked` is well-formed, and not offered.
            match options(coding).last().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked")) {
                true => Err(Failure::Unsupported("No transfer coding but `chunked` is offered here.")),
                false => Err(Failure::Malformed("The last transfer coding is not `chunked`.")),
            }
        }
    }
}

/// RFC 9110, section 8.6: digits and nothing else.
pub(crate) fn parse_length(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// RFC 9112, section 3.2: exactly one `Host` in HTTP/1.1, and a valid one.
fn check_host(admitted: &Admitted<'_>) -> Result<(), Failure> {
    match admitted.host {
        None if admitted.version == Version::Http10 => Ok(()),
        None => Err(Failure::Malformed("There is no Host.")),
        Some(host) if is_host(host) => Ok(()),
        Some(_) => Err(Failure::Malformed("The Host is not valid.")),
    }
}

/// RFC 3986, section 3.2.2: a registered name or address literal, and a port; no user information.
fn is_host(host: &[u8]) -> bool {
    host.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%:[]".contains(&byte))
}

/// RFC 9112, section 3.2: the origin form, the absolute form, whose authority takes the place of `Host`, or `*`.
fn target<'a>(admitted: &mut Admitted<'a>) -> Result<(), Failure> {
    let target = admitted.target;
    if target == b"*" {
        admitted.path = target;
        return match admitted.method {
            b"OPTIONS" => Ok(()),
            _ => Err(Failure::Malformed("Only OPTIONS may ask for `*`.")),
        };
    }
    if target[0] != b'/' {
        absolute_form(admitted)?;
    }
    let end = memchr::memchr(b'?', admitted.target).unwrap_or(admitted.target.len());
    admitted.path = &admitted.target[..end];
    Ok(())
}

fn absolute_form(admitted: &mut Admitted<'_>) -> Result<(), Failure> {
    const INVALID: Failure = Failure::Malformed("The request target must begin with `/`.");
    let scheme = |scheme: &str| {
        let (start, rest) = admitted.target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme.as_bytes()).then_some(rest)
    };
    let rest = scheme("http://").or_else(|| scheme("https://")).ok_or(INVALID)?;
    let end = rest.iter().position(|byte| b"/?".contains(byte)).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    if authority.is_empty() || !is_host(authority) {
        return Err(INVALID);
    }
    admitted.host = Some(authority);
    admitted.target = match target {
        [] => b"/",
        [b'/', ..] => target,
        // A query without a path: nobody sends it, and putting the path in would take a copy.
        _ => return Err(INVALID),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::Bounds;

    const BOUNDS: Bounds = Bounds { head_bytes_max: 10_000, target_bytes_max: 1_000, headers_max: 100 };

    fn check(text: &str, expected: Result<(&str, &str, Length), u16>) {
        let mut head = RequestHead::default();
        assert_eq!(head.parse(text.as_bytes(), BOUNDS), Ok(true), "{text:?}");
        let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let admitted = admit(text.as_bytes(), &head)
            .map(|admitted| (show(admitted.target), show(admitted.host.unwrap_or_default()), admitted.length))
            .map_err(|failure| failure.status());
        let expected = expected.map(|(target, host, length)| (target.to_owned(), host.to_owned(), length));
        assert_eq!(admitted, expected, "{text:?}");
    }

    fn get(target: &str) -> String {
        format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n")
    }

    #[test]
    fn targets() {
        let none = Length::None;
        check(&get("/"), Ok(("/", "h", none)));
        check(&get("/a?b"), Ok(("/a?b", "h", none)));
        check(&get("http://other:81/a?b"), Ok(("/a?b", "other:81", none)));
        check(&get("HTTPS://other"), Ok(("/", "other", none)));
        for bad in ["http://user@other/", "http:///a", "http://a?b", "ftp://other/", "other:80", "*", "a"] {
            check(&get(bad), Err(400));
        }
        check("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", Ok(("*", "h", none)));
        check("CONNECT other:80 HTTP/1.1\r\nHost: h\r\n\r\n", Err(501));
    }

    #[test]
    fn hosts() {
        check("GET / HTTP/1.1\r\n\r\n", Err(400));
        check("GET / HTTP/1.0\r\n\r\n", Ok(("/", "", Length::None)));
        check("GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", Err(400));
        check("GET / HTTP/1.0\r\nHost: h\r\nHost: h\r\n\r\n", Err(400));
        for (host, valid) in
            [("", true), ("[::1]:80", true), ("a b", false), ("a/b", false), ("u@h", false), ("é", false)]
        {
            let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            check(&text, if valid { Ok(("/", host, Length::None)) } else { Err(400) });
        }
    }

    #[test]
    fn framings() {
        let post = |fields: &str| format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        let ok = |length| Ok(("/", "h", length));
        check(&post("Content-Length: 3\r\n"), ok(Length::Sized(3)));
        check(&post("Content-Length: 0\r\n"), ok(Length::None));
        check(&post("Transfer-Encoding: Chunked\r\n"), ok(Length::Chunked));
        check(&post("Transfer-Encoding: gzip, chunked\r\n"), Err(501));
        for bad in [
            "Content-Length: 3\r\nContent-Length: 3\r\n",
            "Content-Length: 3, 3\r\n",
            "Content-Length: +3\r\n",
            "Content-Length:\r\n",
            "Content-Length: 18446744073709551616\r\n",
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding:\r\n",
        ] {
            check(&post(bad), Err(400));
        }
        check("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Err(400));
    }

    #[test]
    fn the_last_hop() {
        let ask = |method: &str, fields: &str| {
            let text = format!("{method} / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
            let mut head = RequestHead::default();
            head.parse(text.as_bytes(), BOUNDS).unwrap();
            admit(text.as_bytes(), &head).map(|admitted| admitted.forwards_left).map_err(Failure::status)
        };
        for (method, fields, expected) in [
            ("OPTIONS", "", Ok(None)),
            ("OPTIONS", "Max-Forwards: 3\r\n", Ok(Some(3))),
            ("TRACE", "Max-Forwards: 1\r\n", Ok(Some(1))),
            ("OPTIONS", "Max-Forwards: 0\r\n", Err(200)),
            ("TRACE", "Max-Forwards: 0\r\n", Err(501)),
            ("OPTIONS", "Max-Forwards: -1\r\n", Err(400)),
            ("OPTIONS", "Max-Forwards:\r\n", Err(400)),
            ("TRACE", "Max-Forwards: 3\r\nMax-Forwards: 3\r\n", Err(400)),
            ("GET", "Max-Forwards: 0\r\n", Ok(None)),
            ("DELETE", "Max-Forwards: none\r\n", Ok(None)),
        ] {
            assert_eq!(ask(method, fields), expected, "{method} {fields}");
        }
    }

    #[test]
    fn what_connection_says() {
        let text = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Keep-Alive, upgrade\r\nConnection: x-a\r\nUpgrade: ws\r\n\r\n";
        let mut head = RequestHead::default();
        head.parse(text, BOUNDS).unwrap();
        let admitted = admit(text, &head).unwrap();
        assert!(admitted.keep_alive && admitted.upgrades && admitted.names_fields && !admitted.close);
        assert_eq!(admitted.upgrade, Some(&b"ws"[..]));
    }
}
