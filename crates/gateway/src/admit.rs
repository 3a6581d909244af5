//! What a request must be to be let in, beyond what hyper's parser demands: one clear target, one host, one way to
//! frame its body. Everything that two readers could understand differently is refused, so that nothing can be
//! smuggled past the gateway to a worker.

use http::{
    HeaderMap, HeaderValue, Method, Uri, Version,
    header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
    request::Parts,
};

use crate::problem::Failure;

/// Checks a request and brings its target to origin form (or `*`) and its `Host` to what the target says.
pub(crate) fn admit(parts: &mut Parts) -> Result<(), Failure> {
    if parts.method == Method::CONNECT {
        return Err(Failure::Unsupported("CONNECT is not offered here."));
    }
    check_framing(&mut parts.headers)?;
    check_host(&parts.headers, parts.version)?;
    if parts.uri.authority().is_some() {
        absolute_form(parts)?;
    }
    match parts.uri.path() {
        "*" if parts.method != Method::OPTIONS => Err(Failure::Malformed("Only OPTIONS may ask for `*`.")),
        "*" => Ok(()),
        path if path.starts_with('/') => Ok(()),
        _ => Err(Failure::Malformed("The request target must begin with `/`.")),
    }
}

/// RFC 9112, section 6.1. hyper has made sure that the last coding is `chunked` and the version is 1.1, and has
/// dropped any `Content-Length` beside it; it closes the connection after such a request.
fn check_framing(headers: &mut HeaderMap) -> Result<(), Failure> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(first) = codings.next() else { return Ok(()) };
    if codings.next().is_some() {
        return Err(Failure::Malformed("There is more than one Transfer-Encoding."));
    }
    if !first.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(Failure::Unsupported("No transfer coding but `chunked` is offered here."));
    }
    headers.remove(CONTENT_LENGTH);
    Ok(())
}

/// RFC 9112, section 3.2: exactly one `Host` in HTTP/1.1, and a valid one.
fn check_host(headers: &HeaderMap, version: Version) -> Result<(), Failure> {
    let mut hosts = headers.get_all(HOST).iter();
    let Some(host) = hosts.next() else {
        return if version == Version::HTTP_10 {
            Ok(())
        } else {
            Err(Failure::Malformed("There is no Host."))
        };
    };
    if hosts.next().is_some() {
        return Err(Failure::Malformed("There is more than one Host."));
    }
    // RFC 3986, section 3.2.2: a registered name or address literal, and a port; no user information.
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%:[]".contains(byte);
    if host.as_bytes().iter().all(allowed) {
        Ok(())
    } else {
        Err(Failure::Malformed("The Host is not valid."))
    }
}

/// RFC 9112, section 3.2.2: the authority of an absolute target takes the place of `Host`.
fn absolute_form(parts: &mut Parts) -> Result<(), Failure> {
    const INVALID: Failure = Failure::Malformed("The request target is not valid.");
    let uri = std::mem::take(&mut parts.uri).into_parts();
    // Without a scheme it is the authority form, which is for CONNECT alone.
    let scheme = uri.scheme.ok_or(INVALID)?;
    if !matches!(scheme.as_str(), "http" | "https") {
        return Err(INVALID);
    }
    let authority = uri.authority.filter(|authority| !authority.as_str().contains('@')).ok_or(INVALID)?;
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| INVALID)?;
    parts.headers.insert(HOST, host);
    parts.uri = uri.path_and_query.map_or(Uri::default(), Uri::from);
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn check(request: http::request::Builder, expected: Result<(&str, &str), u16>) {
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let shown = format!("{} {} {:?}", parts.method, parts.uri, parts.headers);
        let result = admit(&mut parts).map_err(|failure| failure.response(None).status().as_u16());
        let host = parts.headers.get(HOST).map_or("", |host| host.to_str().unwrap());
        assert_eq!(
            result.map(|()| (parts.uri.to_string(), host.to_owned())),
            { expected.map(|(uri, host)| (uri.to_owned(), host.to_owned())) },
            "{shown}"
        );
    }

    fn get(uri: &str) -> http::request::Builder {
        Request::get(uri).header(HOST, "h")
    }

    #[test]
    fn targets() {
        check(get("/"), Ok(("/", "h")));
        check(get("/a?b"), Ok(("/a?b", "h")));
        check(get("http://other:81/a?b"), Ok(("/a?b", "other:81")));
        check(get("https://other"), Ok(("/", "other")));
        check(get("http://user@other/"), Err(400));
        check(get("ftp://other/"), Err(400));
        check(get("other:80"), Err(400));
        check(get("*"), Err(400));
        check(get("*").method(Method::OPTIONS), Ok(("*", "h")));
        check(get("other:80").method(Method::CONNECT), Err(501));
    }

    #[test]
    fn hosts() {
        check(Request::get("/"), Err(400));
        check(Request::get("/").version(Version::HTTP_10), Ok(("/", "")));
        check(get("/").header(HOST, "h"), Err(400));
        check(get("/").version(Version::HTTP_10).header(HOST, "h"), Err(400));
        for (host, valid) in
            [("", true), ("[::1]:80", true), ("a b", false), ("a/b", false), ("u@h", false), ("é", false)]
        {
            let expected = if valid { Ok(("/", host)) } else { Err(400) };
            let host = HeaderValue::from_bytes(host.as_bytes()).unwrap();
            let request = Request::get("/").header(HOST, host);
            if valid { check(request, expected) } else { check_status(request, 400) }
        }
    }

    fn check_status(request: http::request::Builder, status: u16) {
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        assert_eq!(admit(&mut parts).unwrap_err().response(None).status().as_u16(), status);
    }

    #[test]
    fn framing() {
        check(get("/").header(TRANSFER_ENCODING, "Chunked"), Ok(("/", "h")));
        check(get("/").header(TRANSFER_ENCODING, "gzip, chunked"), Err(501));
        check(get("/").header(TRANSFER_ENCODING, "chunked").header(TRANSFER_ENCODING, "chunked"), Err(400));
        let request = get("/").header(TRANSFER_ENCODING, "chunked").header(CONTENT_LENGTH, 3);
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        admit(&mut parts).unwrap();
        assert!(!parts.headers.contains_key(CONTENT_LENGTH));
    }
}
