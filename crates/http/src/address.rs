//! Whom a request is from: the address that the gateway says.

use std::{
    convert::Infallible,
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use axum::extract::{ConnectInfo, FromRequestParts};
use http::request::Parts;

/// The first bits of an IPv6 address that stand for one client: whoever has an address has all others of its /64 too
/// (RFC 6177, RFC 7934).
const IPV6_PREFIX_BITS: u32 = 64;

/// The address of the client; `None` when nobody says it.
///
/// Workers listen on this machine alone, and what they get there is from the gateway, which puts `X-Forwarded-For` on each
/// request itself, whatever the client sent: first the client, as it saw it or as a trusted proxy said, then those proxies.
/// So the first address of the first such field is the client's. A service that is reached from elsewhere too has to say so
/// with `axum`'s `ConnectInfo<SocketAddr>`: where the other end is not on this machine, it is the client itself, and the
/// field is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddress(pub Option<IpAddr>);

impl ClientAddress {
    /// The address that the head of a request tells of.
    pub fn of(parts: &Parts) -> Self {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip().to_canonical());
        let forwarded = || {
            let field = parts.headers.get("x-forwarded-for")?.to_str().ok()?;
            let first = field.split(',').next()?.trim_matches([' ', '\t']);
            Some(first.parse::<IpAddr>().ok()?.to_canonical())
        };
        Self(match peer {
            Some(peer) if !peer.is_loopback() => Some(peer),
            peer => forwarded().or(peer),
        })
    }

    /// What to count a client by: its IPv4 address, or the /64 network of its IPv6 address, from which it may use any. All
    /// whose address nobody says are `unknown`.
    pub fn network(self) -> Network {
        Network(self.0.map(|address| match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(address) => {
                let bits = address.to_bits() & (u128::MAX << (128 - IPV6_PREFIX_BITS));
                IpAddr::V6(Ipv6Addr::from_bits(bits))
            }
        }))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(parts))
    }
}

/// What counts as one client: see [`ClientAddress::network`]. Its text is `192.0.2.7`, `2001:db8:1:2::/64` or `unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(Option<IpAddr>);

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("unknown"),
            Some(IpAddr::V4(address)) => write!(f, "{address}"),
            Some(IpAddr::V6(address)) => write!(f, "{address}/{IPV6_PREFIX_BITS}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[track_caller]
    fn check(peer: Option<&str>, fields: &[&str], expected: &str) {
        let mut request = Request::get("/");
        for field in fields {
            request = request.header("x-forwarded-for", *field);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        if let Some(peer) = peer {
            parts.extensions.insert(ConnectInfo(peer.parse::<SocketAddr>().unwrap()));
        }
        assert_eq!(ClientAddress::of(&parts).network().to_string(), expected, "{peer:?} {fields:?}");
    }

    #[test]
    fn the_gateway_says_who_it_is() {
        check(None, &["192.0.2.7"], "192.0.2.7");
        check(None, &["192.0.2.7, 10.0.0.1, 10.0.0.2"], "192.0.2.7");
        check(None, &[" 192.0.2.7 ,10.0.0.1"], "192.0.2.7");
        check(Some("127.0.0.1:5000"), &["192.0.2.7"], "192.0.2.7");
        check(Some("[::1]:5000"), &["192.0.2.7"], "192.0.2.7");
        check(Some("[::ffff:127.0.0.1]:5000"), &["192.0.2.7"], "192.0.2.7");
    }

    #[test]
    fn who_is_not_on_this_machine_speaks_for_itself() {
        check(Some("198.51.100.1:5000"), &["192.0.2.7"], "198.51.100.1");
        check(Some("[2001:db8::1]:5000"), &["192.0.2.7"], "2001:db8::/64");
        check(Some("198.51.100.1:5000"), &[], "198.51.100.1");
    }

    #[test]
    fn a_client_has_a_whole_network_of_ipv6() {
        check(None, &["2001:db8:1:2:3:4:5:6"], "2001:db8:1:2::/64");
        check(None, &["2001:db8:1:2:ffff::"], "2001:db8:1:2::/64");
        check(None, &["2001:db8:1:3::1"], "2001:db8:1:3::/64");
        check(None, &["::ffff:192.0.2.7"], "192.0.2.7");
    }

    #[test]
    fn what_nobody_says_is_unknown() {
        check(None, &[], "unknown");
        for field in ["", "unknown", "_hidden", "192.0.2.7:80", "\"192.0.2.7\"", "192.0.2", ", 192.0.2.7"] {
            check(None, &[field], "unknown");
        }
        check(Some("127.0.0.1:5000"), &["nonsense"], "127.0.0.1");
    }
}
