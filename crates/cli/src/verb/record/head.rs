//! Heads of messages on their way between a browser and a service that know each other by other names.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, AsHeaderName},
};

/// Fields of one connection alone (RFC 9110, section 7.6.1).
const OF_CONNECTION: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Fields of requests with the origin of the service in them.
const WITH_ORIGIN: [HeaderName; 2] = [header::ORIGIN, header::REFERER];

/// The same of responses.
const LEADING: [HeaderName; 6] = [
    header::LOCATION,
    header::CONTENT_LOCATION,
    header::REFRESH,
    header::LINK,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::CONTENT_SECURITY_POLICY,
];

/// The upgrade that a message is about, if it is about one.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let words = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let is_asked =
        words.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    headers.get(header::UPGRADE).filter(|_| is_asked).cloned()
}

/// A request's fields, which name the service `from`, for a service that is named `to`. What would make its response unreadable, or none at all,
/// is taken out: compression, and what the browser still has.
pub(super) fn to_service(headers: &HeaderMap, from: &str, to: &str) -> HeaderMap {
    let mut headers = between(headers, &WITH_ORIGIN, from, to);
    let left_out =
        [header::ACCEPT_ENCODING, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::EXPECT];
    left_out.iter().for_each(|name| drop(headers.remove(name)));
    if let Ok(host) = HeaderValue::from_str(to) {
        headers.insert(header::HOST, host);
    }
    headers
}

/// A response's fields, of a service that is named `from`, for a browser that knows it as `to`, without TLS.
pub(super) fn to_browser(headers: &HeaderMap, from: &str, to: &str) -> HeaderMap {
    let mut headers = between(headers, &LEADING, from, to);
    // Of the browser's own name it would be said.
    for name in [header::STRICT_TRANSPORT_SECURITY, header::ALT_SVC] {
        headers.remove(name);
    }
    each(&mut headers, header::SET_COOKIE, cookie);
    headers
}

/// The fields without those of the connection, and with `to` where `names` name `from`.
pub(super) fn between(headers: &HeaderMap, names: &[HeaderName], from: &str, to: &str) -> HeaderMap {
    let mut headers = headers.clone();
    let connection: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(|word| word.trim().to_ascii_lowercase()))
        .collect();
    for name in OF_CONNECTION.iter().map(HeaderName::as_str).chain(connection.iter().map(String::as_str)) {
        headers.remove(name);
    }
    if from != to {
        for name in names {
            each(&mut headers, name, |value| moved(value, from, to));
        }
    }
    headers
}

/// A request's fields as they are recorded: with the service named `to`.
pub(super) fn of_request(headers: &HeaderMap, from: &str, to: &str) -> HeaderMap {
    between(headers, &WITH_ORIGIN, from, to)
}

/// The same of a response.
pub(super) fn of_response(headers: &HeaderMap, from: &str, to: &str) -> HeaderMap {
    between(headers, &LEADING, from, to)
}

/// Changes each value of a field that is text.
fn each(
    headers: &mut HeaderMap,
    name: impl AsHeaderName + http::header::IntoHeaderName + Clone,
    change: impl Fn(&str) -> String,
) {
    let changed = |value: HeaderValue| {
        let text = value.to_str().ok().map(&change);
        text.and_then(|text| HeaderValue::from_str(&text).ok()).unwrap_or(value)
    };
    let values: Vec<HeaderValue> = headers.get_all(name.clone()).iter().cloned().map(changed).collect();
    headers.remove(name.clone());
    for value in values {
        headers.append(name.clone(), value);
    }
}

/// `text` with `http://to` for each `http://from`, and for `https://from`, since nothing here speaks TLS.
fn moved(text: &str, from: &str, to: &str) -> String {
    let mut moved = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = (&rest[..at], &rest[at + 3..]);
        let is_it = after.get(..from.len()).is_some_and(|start| start.eq_ignore_ascii_case(from))
            && !after[from.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || "-._:".contains(c));
        match (is_it, before.strip_suffix('s').filter(|before| before.ends_with("http"))) {
            (true, Some(plain)) => moved.push_str(plain),
            _ => moved.push_str(before),
        }
        moved.push_str("://");
        rest = after;
        if is_it {
            moved.push_str(to);
            rest = &after[from.len()..];
        }
    }
    moved + rest
}

/// A cookie of the service as one of this host, without TLS. One that is called `__Host-` or `__Secure-` stays `Secure`, or it would be none; Chromium
/// and Firefox take it from this machine.
fn cookie(text: &str) -> String {
    let (pair, attributes) = text.split_once(';').unwrap_or((text, ""));
    let name = pair.trim_start().to_ascii_lowercase();
    let is_bound = name.starts_with("__host-") || name.starts_with("__secure-");
    let is_kept = |attribute: &&str| {
        let plain: String =
            attribute.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_ascii_lowercase();
        let needs_tls = ["secure", "samesite=none", "partitioned"].contains(&plain.as_str());
        !plain.is_empty() && !plain.starts_with("domain=") && (is_bound || !needs_tls)
    };
    let attributes = attributes.split(';').filter(is_kept).map(|attribute| format!(";{attribute}"));
    format!("{pair}{}", attributes.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn list(headers: &HeaderMap) -> Vec<String> {
        let mut list: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        list.sort();
        list
    }

    #[test]
    fn a_service_is_asked_by_its_own_name() {
        let headers = map(&[
            ("host", "127.0.0.1:9"),
            ("origin", "http://127.0.0.1:9"),
            ("referer", "http://127.0.0.1:9/a?b=http://127.0.0.1:90/"),
            ("accept-encoding", "gzip"),
            ("connection", "keep-alive, X-Own"),
            ("x-own", "1"),
            ("if-none-match", "x"),
            ("cookie", "a=1"),
        ]);
        assert_eq!(
            list(&to_service(&headers, "127.0.0.1:9", "shop:80")),
            [
                "cookie: a=1",
                "host: shop:80",
                "origin: http://shop:80",
                "referer: http://shop:80/a?b=http://127.0.0.1:90/"
            ]
        );
        let headers = map(&[("connection", "Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(upgrade(&headers).unwrap(), "websocket");
        assert_eq!(upgrade(&map(&[("upgrade", "h2c")])), None);
    }

    #[test]
    fn a_browser_is_led_to_where_it_asked() {
        for (name, value, expected) in [
            ("location", "https://shop/a", Some("http://127.0.0.1:9/a")),
            ("location", "http://shop:81/a", Some("http://shop:81/a")),
            ("location", "http://shopping/a", Some("http://shopping/a")),
            ("location", "/a", Some("/a")),
            ("refresh", "0; url=http://SHOP", Some("0; url=http://127.0.0.1:9")),
            (
                "content-security-policy",
                "connect-src ws://shop https://other",
                Some("connect-src ws://127.0.0.1:9 https://other"),
            ),
            ("strict-transport-security", "max-age=1", None),
            (
                "set-cookie",
                "a=b; Path=/; Domain=shop; Secure; SameSite=None; HttpOnly",
                Some("a=b; Path=/; HttpOnly"),
            ),
            ("set-cookie", "a=b;secure;SameSite=Lax", Some("a=b;SameSite=Lax")),
            ("set-cookie", "__Host-a=b; Secure; Path=/", Some("__Host-a=b; Secure; Path=/")),
            ("x-other", "http://shop", Some("http://shop")),
        ] {
            let headers = to_browser(&map(&[(name, value)]), "shop", "127.0.0.1:9");
            assert_eq!(headers.get(name).map(|value| value.to_str().unwrap()), expected, "{name}: {value}");
        }
        let two = to_browser(&map(&[("set-cookie", "a=1"), ("set-cookie", "b=2")]), "shop", "x");
        assert_eq!(list(&two), ["set-cookie: a=1", "set-cookie: b=2"]);
    }
}
