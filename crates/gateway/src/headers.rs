//! The header fields that the gateway takes away and puts on, in both directions: nothing hop-by-hop passes, what a
//! client claims about its origin is replaced by what the gateway saw, and each request has an id and a trace.

use std::io::Write;

use lethe_model::service::InstanceId;

use crate::{
    admit::{Admitted, Length, options},
    balance::Dice,
    client::Client,
    field::Known,
    forwarded::{Claims, Origin, Seen, Trust},
    head::{Field, RequestHead, ResponseHead},
    trace::{self, Context},
};

/// The head that workers get, and where in it is what is needed again.
#[derive(Debug, Default)]
pub(crate) struct WorkerHead {
    /// As HTTP/1.1.
    pub(crate) bytes: Vec<u8>,
    id: (usize, usize),
    /// It asks for another protocol.
    pub(crate) upgrades: bool,
}

impl WorkerHead {
    /// The request's id.
    pub(crate) fn id(&self) -> &[u8] {
        &self.bytes[self.id.0..self.id.1]
    }
}

/// About as much as the gateway adds to a head, so that it need not grow piece by piece.
const ADDED_BYTES: usize = 192;

/// By whom a request comes, and what the gateway says of itself.
pub(crate) struct Passage<'a> {
    pub(crate) client: &'a Client,
    pub(crate) trust: &'a Trust,
    /// The value of `Via`, if the gateway is to say one.
    pub(crate) via: Option<&'a [u8]>,
}

/// Makes the head that workers get of what the client sent. A client that is trusted may say itself where the request
/// comes from.
pub(crate) fn to_worker(
    bytes: &[u8],
    head: &RequestHead,
    admitted: &Admitted<'_>,
    Passage { client, trust, via }: Passage<'_>,
    context: &Context,
    dice: &Dice,
    worker: &mut WorkerHead,
) {
    let out = &mut worker.bytes;
    out.clear();
    out.reserve(head.bytes + ADDED_BYTES);
    out.extend_from_slice(admitted.method);
    out.push(b' ');
    out.extend_from_slice(admitted.target);
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    // HTTP/1.0 may do without, HTTP/1.1 says an empty one (RFC 9112, section 3.2).
    let host = admitted.host.unwrap_or_default();
    out.extend_from_slice(host);
    out.extend_from_slice(b"\r\n");
    let id = admitted.request_id.filter(|id| trace::is_sane_id(id));
    let named = Named::of_request(admitted.names_fields, bytes, head);
    for field in &head.fields {
        let passes = match field.known {
            Known::Other => !named.has(field.name.of(bytes)),
            // What vendors have added belongs to the trace that is no more.
            Known::Tracestate => !context.is_begin(),
            Known::Te => admitted.passes_te && field.value.of(bytes).eq_ignore_ascii_case(b"trailers"),
            Known::MaxForwards => admitted.forwards_left.is_none(),
            known => is_for_worker(known),
        };
        if passes {
            push_field(out, field.name.of(bytes), field.value.of(bytes));
        }
    }
    match admitted.length {
        // Said also where it is nothing, as the client said it: some servers want it with POST.
        Length::None if head.fields.iter().any(|field| field.known == Known::ContentLength) => {
            out.extend_from_slice(b"content-length: 0\r\n");
        }
        Length::None => {}
        Length::Sized(length) => {
            let _ = write!(out, "content-length: {length}\r\n");
        }
        Length::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    if let Some(left) = admitted.forwards_left {
        // Zero is not forwarded at all.
        let _ = write!(out, "max-forwards: {}\r\n", left.saturating_sub(1));
    }
    if let Some(via) = via {
        push_field(out, b"via", via);
    }
    worker.upgrades = false;
    if let Some(protocol) = upgrade(admitted) {
        worker.upgrades = true;
        push_field(out, b"connection", b"upgrade");
        push_field(out, b"upgrade", protocol);
    }
    if client.trusted {
        push_origin(out, &origin(bytes, head, host, client, trust));
    } else {
        out.extend_from_slice(&client.fields);
        push_field(out, b"x-forwarded-host", host);
    }
    match admitted.traceparent.filter(|_| context.is_as_sent) {
        Some(sent) => push_field(out, b"traceparent", sent),
        None => push_field(out, b"traceparent", &context.field()),
    }
    worker.id = name(out, id, context, dice);
    out.extend_from_slice(b"\r\n");
}

/// Names the workers that have died under a request, on its way to the next one. Whoever keeps what a worker was about to do
/// under the request's `Idempotency-Key` learns by it that this one will never end it.
const LOST_INSTANCE: &[u8] = b"lethe-lost-instance";

/// The head of a request whose earlier attempts had such an end.
pub(crate) fn after_deaths(whole: &[u8], lost: &[InstanceId]) -> Vec<u8> {
    let mut head = whole[..whole.len() - 2].to_vec();
    for instance in lost {
        push_field(&mut head, LOST_INSTANCE, instance.as_str().as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Where a request comes from, as far as its client is trusted to say that.
pub(crate) fn origin<'a>(
    bytes: &'a [u8],
    head: &RequestHead,
    host: &'a [u8],
    client: &Client,
    trust: &Trust,
) -> Origin<'a> {
    let mut claims = Claims::default();
    for field in &head.fields {
        if matches!(
            field.known,
            Known::Forwarded | Known::ForwardedFor | Known::ForwardedHost | Known::ForwardedProto
        ) {
            claims.note(field.name.of(bytes), field.value.of(bytes));
        }
    }
    Origin::find(trust, Seen { peer: client.address, scheme: client.scheme, host }, &claims)
}

/// What is known of a request that came through trusted proxies.
fn push_origin(out: &mut Vec<u8>, origin: &Origin<'_>) {
    out.extend_from_slice(b"x-forwarded-for: ");
    origin.write_x_forwarded_for(out);
    out.extend_from_slice(b"\r\nforwarded: ");
    origin.write_forwarded(out);
    out.extend_from_slice(b"\r\n");
    push_field(out, b"x-forwarded-proto", origin.scheme.as_str().as_bytes());
    push_field(out, b"x-forwarded-host", &origin.host);
}

/// The trailers that are passed on, of those that came. What frames a message, belongs to a connection, or may be said
/// by the gateway alone is not said after the body either: some readers add trailers to the head (RFC 9110, section
/// 6.5.1).
pub(crate) fn passing_trailers(lines: Vec<u8>) -> Vec<u8> {
    let passes = |line: &&[u8]| {
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
        matches!(Known::of(name), Known::Other | Known::Date | Known::Etag | Known::ServerTiming)
    };
    if lines.split_inclusive(|&byte| byte == b'\n').all(|line| passes(&line)) {
        return lines;
    }
    lines.split_inclusive(|&byte| byte == b'\n').filter(passes).flatten().copied().collect()
}

pub(crate) fn push_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Which of the fields that mean something here a worker gets as the client sent them. `Expect` is answered here, and
/// claims about the client are made by its edge alone.
fn is_for_worker(known: Known) -> bool {
    !matches!(
        known,
        Known::Claim
            | Known::Connection
            | Known::ContentLength
            | Known::Expect
            | Known::Forwarded
            | Known::ForwardedFor
            | Known::ForwardedHost
            | Known::ForwardedProto
            | Known::Hop
            | Known::Host
            | Known::RequestId
            | Known::Te
            | Known::Traceparent
            | Known::TransferEncoding
            | Known::Upgrade
    )
}

/// Gives the request an id, unless it has a sane one; where the id is.
fn name(out: &mut Vec<u8>, id: Option<&[u8]>, context: &Context, dice: &Dice) -> (usize, usize) {
    // The same as that of a trace made here, so that either leads to the other.
    let made = || if context.is_begin() { context.trace_id() } else { trace::make_id(dice) };
    let made = if id.is_none() { made() } else { [0; 32] };
    let id = id.unwrap_or(&made);
    push_field(out, b"x-request-id", id);
    (out.len() - 2 - id.len(), out.len() - 2)
}

/// The protocol to change to, if `Connection` says so. HTTP itself is never changed to: a worker that took up HTTP/2
/// behind the gateway's back could be sent anything. Nor is a request with a body upgraded: where its body ends and the
/// new protocol begins would be a guess.
fn upgrade<'a>(admitted: &Admitted<'a>) -> Option<&'a [u8]> {
    let is_plain = admitted.length == Length::None && admitted.version == crate::head::Version::Http11;
    let protocol = admitted.upgrade.filter(|_| admitted.upgrades && is_plain)?;
    let refused = |name: &[u8]| {
        ["h2", "http", "tls"].iter().any(|other| {
            name.get(..other.len()).is_some_and(|start| start.eq_ignore_ascii_case(other.as_bytes()))
        })
    };
    (!protocol.is_empty() && !options(protocol).any(refused)).then_some(protocol)
}

/// The fields that `Connection` names, which end here too (RFC 9110, section 7.6.1); never those that a message needs
/// to be understood at all, which have meanings of their own.
struct Named<'a>(Vec<&'a [u8]>);

impl<'a> Named<'a> {
    fn of_request(any: bool, bytes: &'a [u8], head: &RequestHead) -> Self {
        Self(if any { named(bytes, &head.fields) } else { Vec::new() })
    }

    fn has(&self, name: &[u8]) -> bool {
        self.0.iter().any(|named| named.eq_ignore_ascii_case(name))
    }
}

fn named<'a>(bytes: &'a [u8], fields: &[Field]) -> Vec<&'a [u8]> {
    let connection = fields.iter().filter(|field| field.known == Known::Connection);
    connection.flat_map(|field| options(field.value.of(bytes))).collect()
}

/// What a worker's response says of its connection and its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Framing<'a> {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) names_fields: bool,
    pub(crate) upgrade: Option<&'a [u8]>,
    pub(crate) length: Option<u64>,
    pub(crate) chunked: bool,
    pub(crate) has_date: bool,
    /// It may be silent for long by right: a stream of events, or of gRPC's messages.
    pub(crate) is_events: bool,
    pub(crate) etag: Option<&'a [u8]>,
    pub(crate) content_range: Option<&'a [u8]>,
}

impl<'a> Framing<'a> {
    /// Reads it; `None` if it contradicts itself. A list of equal lengths is one length (RFC 9110, section 8.6).
    pub(crate) fn of(bytes: &'a [u8], head: &ResponseHead) -> Option<Self> {
        let mut framing = Self::default();
        for field in &head.fields {
            let value = field.value.of(bytes);
            match field.known {
                Known::ContentLength => {
                    for length in options(value) {
                        let length = crate::admit::parse_length(length)?;
                        if framing.length.replace(length).is_some_and(|other| other != length) {
                            return None;
                        }
                    }
                }
                Known::TransferEncoding => {
                    if framing.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                        return None;
                    }
                    framing.chunked = true;
                }
                Known::Connection => {
                    for option in options(value) {
                        framing.close |= option.eq_ignore_ascii_case(b"close");
                        framing.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                        framing.names_fields = true;
                    }
                }
                Known::Upgrade => framing.upgrade = Some(value),
                Known::Date => framing.has_date = true,
                Known::Etag => framing.etag = Some(value),
                Known::ContentRange => framing.content_range = Some(value),
                // A stream of events or messages is never held, whatever length it claims.
                Known::ContentType => {
                    let is = |name: &[u8]| {
                        value.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
                    };
                    framing.is_events = is(b"text/event-stream") || is(b"application/grpc");
                }
                _ => {}
            }
        }
        if framing.chunked {
            // RFC 9112, section 6.3: the coding counts; and the connection is not to be trusted with more.
            framing.close |= framing.length.take().is_some();
        }
        Some(framing)
    }
}

/// The fields of a worker's response that its client gets, followed by `more`.
pub(crate) fn to_client<'a>(
    bytes: &'a [u8],
    head: &'a ResponseHead,
    framing: Framing<'a>,
    more: impl Iterator<Item = (&'a [u8], &'a [u8])> + 'a,
) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    let named = Named(if framing.names_fields { named(bytes, &head.fields) } else { Vec::new() });
    let passing = head.fields.iter().filter_map(move |field| {
        let passes = match field.known {
            Known::Other => !named.has(field.name.of(bytes)),
            Known::Connection
            | Known::ContentLength
            | Known::Hop
            | Known::RequestId
            | Known::Te
            | Known::TransferEncoding
            | Known::Upgrade => false,
            _ => true,
        };
        passes.then(|| (field.name.of(bytes), field.value.of(bytes)))
    });
    passing.chain(more)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admit::admit,
        head::Bounds,
        via::{Came, Via},
    };

    const BOUNDS: Bounds = Bounds { head_bytes_max: 10_000, target_bytes_max: 1_000, headers_max: 100 };

    /// What a worker gets of these fields: its lines without the request line, sorted; the values of those that are drawn
    /// are left out.
    fn sent(fields: &str) -> Vec<String> {
        sent_by("GET", fields, None)
    }

    /// The same with this method, by a gateway with this name in `Via`.
    fn sent_by(method: &str, fields: &str, via: Option<&str>) -> Vec<String> {
        let text = format!("{method} / HTTP/1.1\r\n{fields}\r\n");
        let mut head = RequestHead::default();
        assert_eq!(head.parse(text.as_bytes(), BOUNDS), Ok(true));
        let admitted = admit(text.as_bytes(), &head).unwrap();
        let (mut worker, dice) = (WorkerHead::default(), Dice::new());
        let client = Client::new([192, 0, 2, 7].into(), crate::forwarded::Scheme::Http, false);
        let trust = Trust::new(&[]);
        let context = admitted.traceparent.and_then(Context::parse).unwrap_or_else(|| Context::make(&dice));
        let via = via.map(Via::new);
        let via = via.as_ref().map(|via| via.value(Came::Http11));
        let passage = Passage { client: &client, trust: &trust, via };
        to_worker(text.as_bytes(), &head, &admitted, passage, &context, &dice, &mut worker);
        let out = String::from_utf8(worker.bytes.clone()).unwrap();
        assert!(trace::is_sane_id(worker.id()));
        assert!(out.contains(&format!("x-request-id: {}\r\n", std::str::from_utf8(worker.id()).unwrap())));
        let lines = out.strip_suffix("\r\n\r\n").unwrap().split("\r\n").skip(1);
        let mut lines: Vec<String> = lines.map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    }

    /// The names of what a worker gets beside what every request has.
    fn left(fields: &str) -> Vec<String> {
        const ALWAYS: [&str; 7] = [
            "forwarded",
            "host",
            "traceparent",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-request-id",
        ];
        let lines = sent(fields);
        let names = lines.iter().map(|line| line.split(':').next().unwrap().to_owned());
        names.filter(|name| !ALWAYS.contains(&name.as_str())).collect()
    }

    #[test]
    fn hop_by_hop_fields_end_here() {
        let left = left(
            "host: h\r\nconnection: close, X-Drop ,host, content-length\r\nconnection: x-drop-too\r\n\
             content-length: 3\r\nx-drop: 1\r\nX-Drop-Too: 1\r\nx-keep: 1\r\nkeep-alive: timeout=5\r\n\
             proxy-connection: x\r\nte: trailers\r\nupgrade: websocket\r\nexpect: 100-continue\r\n",
        );
        assert_eq!(left, ["content-length", "x-keep"]);
    }

    #[test]
    fn claims_of_the_client_are_replaced() {
        let lines = sent(
            "host: shop.test\r\nx-forwarded-for: 10.0.0.1\r\nx-forwarded-for: 10.0.0.2\r\n\
             x-forwarded-proto: https\r\nx-forwarded-host: bank.test\r\nforwarded: for=10.0.0.1\r\n\
             x-real-ip: 10.0.0.1\r\nx_forwarded_for: 10.0.0.1\r\nx_harmless: 1\r\n",
        );
        let seen: Vec<&str> =
            lines.iter().map(String::as_str).filter(|line| !line.starts_with("trace")).collect();
        assert_eq!(
            seen[..6],
            [
                "forwarded: for=192.0.2.7;proto=http",
                "host: shop.test",
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-host: shop.test",
                "x-forwarded-proto: http",
                seen[5],
            ]
        );
        assert!(seen[5].starts_with("x-request-id: ") && seen[6..] == ["x_harmless: 1"], "{seen:?}");
    }

    #[test]
    fn the_way_that_a_request_took() {
        let of = |method: &str, fields: &str, via| -> Vec<String> {
            let lines = sent_by(method, &format!("host: h\r\n{fields}"), via).into_iter();
            lines.filter(|line| line.starts_with("via") || line.starts_with("max-forwards")).collect()
        };
        assert_eq!(of("GET", "via: 1.0 fred\r\n", None), ["via: 1.0 fred"], "nothing is said of itself");
        assert_eq!(of("GET", "via: 1.0 fred\r\n", Some("edge")), ["via: 1.0 fred", "via: 1.1 edge"]);
        for (method, came, left) in [
            ("OPTIONS", "7", "6"),
            ("TRACE", "1", "0"),
            ("OPTIONS", "00000000000000000000000000009", "8"),
            ("OPTIONS", "99999999999999999999999999999", "18446744073709551614"),
            // Of other methods it says nothing.
            ("GET", "7", "7"),
            ("POST", "0", "0"),
            ("GET", "many", "many"),
        ] {
            let left = format!("max-forwards: {left}");
            assert_eq!(of(method, &format!("max-forwards: {came}\r\n"), None), [left], "{method} {came}");
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
            ("upgrade", "websocket\r\nupgrade: websocket", false),
        ] {
            let left = left(&format!("host: h\r\nconnection: {connection}\r\nupgrade: {upgrade}\r\n"));
            let both = ["connection", "upgrade"].map(str::to_owned);
            assert_eq!(left == both, expected, "{connection}: {upgrade}: {left:?}");
            assert!(expected || left.is_empty(), "{left:?}");
        }
    }

    #[test]
    fn ids_and_traces() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let lines =
            sent(&format!("host: h\r\nx-request-id: r-1\r\ntraceparent: {parent}\r\ntracestate: a=b\r\n"));
        for kept in ["x-request-id: r-1", &format!("traceparent: {parent}"), "tracestate: a=b"] {
            assert!(lines.iter().any(|line| line == kept), "{kept}: {lines:?}");
        }
        let lines = sent("host: h\r\nx-request-id: no good\r\ntraceparent: x\r\ntracestate: a=b\r\n");
        let value = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name)).unwrap();
        assert!(Context::parse(value("traceparent: ").as_bytes()).is_some());
        assert_ne!(value("x-request-id: "), "no good");
        assert!(
            !lines.iter().any(|line| line.starts_with("tracestate")),
            "the state belongs to the parent that was not kept"
        );
    }

    fn received(fields: &str) -> (String, Option<Framing<'static>>) {
        let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n").leak().as_bytes();
        let head: &mut ResponseHead = Box::leak(Box::default());
        assert_eq!(head.parse(text, BOUNDS), Ok(true));
        let framing = Framing::of(text, head);
        let mut out = Vec::new();
        if let Some(framing) = framing {
            let ours = [(&b"x-request-id"[..], &b"ours"[..])];
            to_client(text, head, framing, ours.into_iter()).for_each(|(n, v)| push_field(&mut out, n, v));
        }
        (String::from_utf8(out).unwrap(), framing)
    }

    #[test]
    fn responses() {
        let (out, framing) = received(
            "connection: x-drop\r\nx-drop: 1\r\nkeep-alive: 1\r\ntransfer-encoding: chunked\r\n\
             x-request-id: theirs\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n",
        );
        assert_eq!(out, "Set-Cookie: a\r\nSet-Cookie: b\r\nx-request-id: ours\r\n");
        assert!(framing.unwrap().chunked);
        for (fields, expected) in [
            ("content-length: 3\r\n", Some((Some(3), false, false))),
            ("content-length: 3, 3\r\ncontent-length: 3\r\n", Some((Some(3), false, false))),
            ("content-length: 3\r\ntransfer-encoding: chunked\r\n", Some((None, true, true))),
            ("content-length: 3\r\ncontent-length: 4\r\n", None),
            ("content-length: x\r\n", None),
            ("transfer-encoding: gzip, chunked\r\n", None),
        ] {
            let framing = received(fields).1.map(|framing| (framing.length, framing.chunked, framing.close));
            assert_eq!(framing, expected, "{fields}");
        }
    }
}
