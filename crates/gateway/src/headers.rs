//! The header fields that the gateway takes away and puts on, in both directions: nothing hop-by-hop passes, what a
//! client claims about its origin is replaced by what the gateway saw, and each request has an id and a trace.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE},
};

use crate::{
    balance::Dice,
    observer::Observer,
    trace::{self, Context},
};

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What the gateway made of a request's header fields.
pub(crate) struct Marks {
    /// The request's id.
    pub(crate) id: HeaderValue,
    /// Its place in its trace.
    pub(crate) trace: Context,
    /// The protocol that the client wants to change to.
    pub(crate) upgrade: Option<HeaderValue>,
}

/// What a look at all fields of a request found; the rest of the work is only done for what is there.
#[derive(Default)]
struct Found {
    connection: bool,
    upgrade: bool,
    /// Fields that are never passed on.
    unwanted: bool,
    request_id: bool,
    traceparent: bool,
    tracestate: bool,
}

/// Fields that end at the gateway: hop-by-hop ones (RFC 9110, section 7.6.1), `Expect`, which is answered here, and
/// claims about the client that only its edge may make.
fn is_unwanted(name: &str) -> bool {
    matches!(
        name,
        "keep-alive"
            | "proxy-connection"
            | "te"
            | "expect"
            | "http2-settings"
            | "forwarded"
            | "x-real-ip"
            | "x-forwarded-port"
            | "x-forwarded-server"
            | "x-forwarded-prefix"
            | "x-forwarded-scheme"
            | "x-forwarded-ssl"
    ) || name.contains('_')
        && ["x_forwarded", "forwarded", "x_real_ip"]
            .iter()
            .any(|claim| name.replace('-', "_").starts_with(claim))
}

/// Turns the client's fields into what a worker gets. `is_chunked` tells that the body's length is not known.
pub(crate) fn to_worker(
    headers: &mut HeaderMap,
    client: &HeaderValue,
    is_chunked: bool,
    observer: &Observer,
    dice: &Dice,
) -> Marks {
    let found = look(headers);
    let upgrade = if found.connection && found.upgrade { upgrade(headers) } else { None };
    if found.connection {
        strip_connection(headers);
    }
    if found.unwanted {
        let unwanted: Vec<HeaderName> =
            headers.keys().filter(|name| is_unwanted(name.as_str())).cloned().collect();
        unwanted.iter().for_each(|name| {
            headers.remove(name);
        });
    }
    if found.upgrade {
        headers.remove(UPGRADE);
    }
    if let Some(protocol) = &upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    }
    if is_chunked {
        // Said outright, because hyper sends no body with GET otherwise.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    headers.insert(X_FORWARDED_FOR, client.clone());
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    // HTTP/1.0 may do without, HTTP/1.1 says an empty one (RFC 9112, section 3.2).
    let host = headers.entry(HOST).or_insert(HeaderValue::from_static("")).clone();
    headers.insert(X_FORWARDED_HOST, host);
    let (id, trace) = name(headers, &found, observer, dice);
    Marks { id, trace, upgrade }
}

fn look(headers: &HeaderMap) -> Found {
    let mut found = Found::default();
    for name in headers.keys() {
        match name.as_str() {
            "connection" => found.connection = true,
            "upgrade" => found.upgrade = true,
            "x-request-id" => found.request_id = true,
            "traceparent" => found.traceparent = true,
            "tracestate" => found.tracestate = true,
            name => found.unwanted |= is_unwanted(name),
        }
    }
    found
}

/// Gives the request an id and a trace, unless it has sane ones.
fn name(headers: &mut HeaderMap, found: &Found, observer: &Observer, dice: &Dice) -> (HeaderValue, Context) {
    let sent = if found.traceparent { only(headers, &TRACEPARENT) } else { None };
    let context = observer.trace(sent.map(HeaderValue::as_bytes), dice);
    if !context.is_as_sent {
        headers.insert(TRACEPARENT, ascii(&context.field()));
    }
    // What vendors have added belongs to the trace that is no more.
    if context.is_begin() && found.tracestate {
        headers.remove(TRACESTATE);
    }
    let id = if found.request_id { only(headers, &X_REQUEST_ID) } else { None };
    if let Some(id) = id.filter(|id| trace::is_sane_id(id)) {
        return (id.clone(), context);
    }
    // The same as that of a trace made here, so that either leads to the other.
    let made = if context.is_begin() { context.trace_id() } else { trace::make_id(dice) };
    headers.insert(X_REQUEST_ID, ascii(&made));
    (ascii(&made), context)
}

/// A value of digits, which is always a valid one.
pub(crate) fn ascii(digits: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(digits).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

/// The value of a field that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Removes `Connection` and the fields it names (RFC 9110, section 7.6.1), but not those that a message needs to be
/// understood at all.
fn strip_connection(headers: &mut HeaderMap) {
    const KEPT: [HeaderName; 3] = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING];
    let values = headers.get_all(CONNECTION).iter().map(HeaderValue::as_bytes);
    let names = values.flat_map(|value| value.split(|&byte| byte == b',')).map(<[u8]>::trim_ascii);
    let is_option =
        |name: &[u8]| name.eq_ignore_ascii_case(b"keep-alive") || name.eq_ignore_ascii_case(b"close");
    let named: Vec<HeaderName> = names
        .filter(|name| !is_option(name))
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| !KEPT.contains(name))
        .collect();
    headers.remove(CONNECTION);
    named.iter().for_each(|name| {
        headers.remove(name);
    });
}

/// The protocol to change to, if `Connection` says so. HTTP itself is never changed to: a worker that took up HTTP/2
/// behind the gateway's back could be sent anything.
fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let wanted = headers.get_all(CONNECTION).iter().any(|value| {
        value
            .as_bytes()
            .split(|&byte| byte == b',')
            .any(|name| name.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    });
    let protocol = only(headers, &UPGRADE).filter(|_| wanted)?;
    let lower = protocol.as_bytes().to_ascii_lowercase();
    let mut protocols = lower.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let refused =
        |name: &[u8]| name.starts_with(b"h2") || name.starts_with(b"http") || name.starts_with(b"tls");
    (!protocols.any(refused)).then(|| protocol.clone())
}

/// Turns a worker's fields into what the client gets. `is_sized` tells that the body's length is known (or that
/// there is none and the length is only told).
pub(crate) fn to_client(headers: &mut HeaderMap, is_sized: bool, id: &HeaderValue) {
    let mut has_connection = false;
    let mut hops = Vec::new();
    for name in headers.keys() {
        match name.as_str() {
            "connection" => has_connection = true,
            "keep-alive" | "proxy-connection" | "te" | "upgrade" | "transfer-encoding" => {
                hops.push(name.clone());
            }
            _ => {}
        }
    }
    if has_connection {
        strip_connection(headers);
    }
    for name in hops {
        headers.remove(name);
    }
    if !is_sized {
        headers.remove(CONTENT_LENGTH);
    }
    headers.insert(X_REQUEST_ID, id.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |&(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
        };
        let mut map = HeaderMap::new();
        fields.iter().map(field).for_each(|(name, value)| {
            map.append(name, value);
        });
        map
    }

    fn sent(headers: &mut HeaderMap) -> Marks {
        to_worker(
            headers,
            &HeaderValue::from_static("192.0.2.7"),
            false,
            &Observer::new(Default::default()),
            &Dice::new(),
        )
    }

    #[test]
    fn hop_by_hop_fields_end_here() {
        let mut headers = fields(&[
            ("host", "h"),
            ("connection", "close, X-Drop ,host, content-length"),
            ("connection", "x-drop-too"),
            ("content-length", "3"),
            ("x-drop", "1"),
            ("x-drop-too", "1"),
            ("x-keep", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "x"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("expect", "100-continue"),
        ]);
        assert!(sent(&mut headers).upgrade.is_none(), "Connection does not name Upgrade");
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(
            left,
            [
                "content-length",
                "host",
                "traceparent",
                "x-forwarded-for",
                "x-forwarded-host",
                "x-forwarded-proto",
                "x-keep",
                "x-request-id",
            ]
        );
    }

    #[test]
    fn claims_of_the_client_are_replaced() {
        let mut headers = fields(&[
            ("host", "shop.test"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "bank.test"),
            ("forwarded", "for=10.0.0.1"),
            ("x-real-ip", "10.0.0.1"),
            ("x_forwarded_for", "10.0.0.1"),
            ("x_harmless", "1"),
        ]);
        sent(&mut headers);
        let values =
            |name: &str| headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(values("x-forwarded-for"), ["192.0.2.7"]);
        assert_eq!(values("x-forwarded-proto"), ["http"]);
        assert_eq!(values("x-forwarded-host"), ["shop.test"]);
        assert_eq!(values("x_harmless"), ["1"]);
        for name in ["forwarded", "x-real-ip", "x_forwarded_for"] {
            assert!(!headers.contains_key(name), "{name}");
        }
    }

    #[test]
    fn upgrades() {
        for (connection, upgrade, expected) in [
            ("Upgrade", "websocket", true),
            ("keep-alive, upgrade", "websocket", true),
            ("keep-alive", "websocket", false),
            ("upgrade", "h2c", false),
            ("upgrade", "websocket, H2C", false),
            ("upgrade", "TLS/1.0", false),
        ] {
            let mut headers = fields(&[("host", "h"), ("connection", connection), ("upgrade", upgrade)]);
            assert_eq!(sent(&mut headers).upgrade.is_some(), expected, "{connection}: {upgrade}");
            assert_eq!(headers.contains_key("upgrade"), expected);
            assert_eq!(headers.contains_key("connection"), expected);
        }
    }

    #[test]
    fn ids_and_traces() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut headers = fields(&[("x-request-id", "r-1"), ("traceparent", parent), ("tracestate", "a=b")]);
        assert_eq!(sent(&mut headers).id, "r-1");
        assert_eq!(
            (&headers["traceparent"], &headers["tracestate"]),
            (&parent.parse().unwrap(), &"a=b".parse().unwrap())
        );
        let mut headers = fields(&[("x-request-id", "no good"), ("traceparent", "x"), ("tracestate", "a=b")]);
        let id = sent(&mut headers).id;
        assert_eq!(headers["x-request-id"], id);
        assert!(Context::parse(headers["traceparent"].as_bytes()).is_some_and(|trace| !trace.is_sampled()));
        assert!(!headers.contains_key("tracestate"), "the state belongs to the parent that was not kept");
    }

    #[test]
    fn responses() {
        let mut headers = fields(&[
            ("connection", "x-drop"),
            ("x-drop", "1"),
            ("keep-alive", "1"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("x-request-id", "theirs"),
        ]);
        to_client(&mut headers, false, &HeaderValue::from_static("ours"));
        assert_eq!(headers, fields(&[("x-request-id", "ours")]));
    }
}
