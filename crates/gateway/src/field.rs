//! The header fields that mean something to the gateway, told apart by their names once, while a head is read.

/// What a field is to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing: it is passed on.
    Other,
    Connection,
    ContentLength,
    ContentRange,
    ContentType,
    Date,
    Etag,
    Expect,
    Forwarded,
    ForwardedFor,
    ForwardedHost,
    ForwardedProto,
    Host,
    IdempotencyKey,
    IfRange,
    LetheClass,
    MaxForwards,
    Range,
    RequestId,
    ServerTiming,
    Te,
    Traceparent,
    Tracestate,
    Trailer,
    TransferEncoding,
    Upgrade,
    UserAgent,
    Via,
    /// It belongs to one connection and is never passed on (RFC 9110, section 7.6.1).
    Hop,
    /// It claims something about the client, or about workers, that only the gateway may say.
    Claim,
}

impl Known {
    /// What the field called `name` is, in whatever case it is written.
    pub(crate) fn of(name: &[u8]) -> Self {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        let known = match name.len() {
            2 if is("te") => Self::Te,
            3 if is("via") => Self::Via,
            4 if is("host") => Self::Host,
            4 if is("date") => Self::Date,
            4 if is("etag") => Self::Etag,
            5 if is("range") => Self::Range,
            6 if is("expect") => Self::Expect,
            7 if is("upgrade") => Self::Upgrade,
            7 if is("trailer") => Self::Trailer,
            8 if is("if-range") => Self::IfRange,
            9 if is("forwarded") => Self::Forwarded,
            9 if is("x-real-ip") => Self::Claim,
            10 if is("connection") => Self::Connection,
            10 if is("keep-alive") => Self::Hop,
            10 if is("tracestate") => Self::Tracestate,
            10 if is("user-agent") => Self::UserAgent,
            11 if is("traceparent") => Self::Traceparent,
            11 if is("lethe-class") => Self::LetheClass,
            12 if is("content-type") => Self::ContentType,
            12 if is("max-forwards") => Self::MaxForwards,
            12 if is("x-request-id") => Self::RequestId,
            13 if is("content-range") => Self::ContentRange,
            13 if is("server-timing") => Self::ServerTiming,
            14 if is("content-length") => Self::ContentLength,
            14 if is("http2-settings") => Self::Hop,
            15 if is("x-forwarded-for") => Self::ForwardedFor,
            15 if is("x-forwarded-ssl") => Self::Claim,
            15 if is("idempotency-key") => Self::IdempotencyKey,
            16 if is("x-forwarded-host") => Self::ForwardedHost,
            16 if is("x-forwarded-port") => Self::Claim,
            16 if is("proxy-connection") => Self::Hop,
            17 if is("transfer-encoding") => Self::TransferEncoding,
            17 if is("x-forwarded-proto") => Self::ForwardedProto,
            18 if is("x-forwarded-server") || is("x-forwarded-prefix") || is("x-forwarded-scheme") => {
                Self::Claim
            }
            19 if is("lethe-lost-instance") => Self::Claim,
            _ => Self::Other,
        };
        if known == Self::Other && memchr::memchr(b'_', name).is_some() && is_claim_in_disguise(name) {
            return Self::Claim;
        }
        known
    }
}

/// Many frameworks read `x_forwarded_for` as `X-Forwarded-For`.
fn is_claim_in_disguise(name: &[u8]) -> bool {
    let same = |start: &[u8]| {
        let pairs = name.iter().zip(start);
        name.len() >= start.len()
            && pairs
                .map(|(a, b)| (if *a == b'_' { b'-' } else { a.to_ascii_lowercase() }, *b))
                .all(|(a, b)| a == b)
    };
    same(b"x-forwarded") || same(b"forwarded") || same(b"x-real-ip") || same(b"lethe-lost-instance")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, expected) in [
            ("Host", Known::Host),
            ("CONTENT-LENGTH", Known::ContentLength),
            ("transfer-encoding", Known::TransferEncoding),
            ("X-Forwarded-For", Known::ForwardedFor),
            ("X_Forwarded_For", Known::Claim),
            ("Lethe-Lost-Instance", Known::Claim),
            ("lethe_lost_instance", Known::Claim),
            ("X-Forwarded_For", Known::Claim),
            ("x_real_ip", Known::Claim),
            ("x_forwarded", Known::Claim),
            ("x_harmless", Known::Other),
            ("Keep-Alive", Known::Hop),
            ("VIA", Known::Via),
            ("Max-Forwards", Known::MaxForwards),
            ("Accept", Known::Other),
            ("", Known::Other),
        ] {
            assert_eq!(Known::of(name.as_bytes()), expected, "{name}");
        }
    }
}
