//! Addresses to listen on, as people write them. A port alone means this machine only: opening a service to others is
//! always written out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Where health and metrics are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Admin {
    /// Beside the gateway.
    #[default]
    Beside,
    /// Nowhere.
    Off,
    /// There.
    At(SocketAddr),
}

impl Admin {
    /// Reads an address, or `off`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text == "off" { Ok(Self::Off) } else { parse(text).map(Self::At) }
    }

    /// The address in the end, for a gateway on `listen`.
    pub(super) fn address(self, listen: SocketAddr) -> Option<SocketAddr> {
        let port = match (self, listen.port()) {
            (Self::Off, _) => return None,
            (Self::At(address), _) => return Some(address),
            // Where the system chooses the one, it chooses the other too.
            (Self::Beside, 0 | u16::MAX) => 0,
            (Self::Beside, port) => port + 1,
        };
        Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    }
}

/// Reads `8080`, `:8080`, `127.0.0.1:8080`, `localhost:8080` or `[::1]:8080`. The error is a sentence that goes after
/// the value.
pub(super) fn parse(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let port_number = match port.parse::<u16>() {
        Ok(number) if port.bytes().all(|b| b.is_ascii_digit()) => number,
        _ if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            return Err("is not an address: the last port is 65535".into());
        }
        _ => {
            return Err(
                "is not an address: write a port such as \"8080\", or an address and a port such as \
                        \"127.0.0.1:8080\""
                    .into(),
            );
        }
    };
    match host {
        "" | "localhost" => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port_number)),
        "*" => Err(format!("is not an address: write \"0.0.0.0:{port}\" to listen on every interface")),
        _ if host.contains(':') => Err(format!("is not an address: write \"[{host}]:{port}\"")),
        _ => Err(format!(
            "is not an address: `{host}` is a name; write the IP address of this machine's interface, or \
             \"0.0.0.0:{port}\" for every interface"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("8080", "127.0.0.1:8080"),
            (":8080", "127.0.0.1:8080"),
            ("0", "127.0.0.1:0"),
            ("localhost:80", "127.0.0.1:80"),
            ("0.0.0.0:8080", "0.0.0.0:8080"),
            ("[::1]:8080", "[::1]:8080"),
        ] {
            assert_eq!(parse(text).map(|address| address.to_string()), Ok(expected.into()), "{text}");
        }
        for (text, why) in [
            ("", "write a port"),
            (":", "write a port"),
            ("+8080", "write a port"),
            ("80 80", "write a port"),
            ("127.0.0.1", "write a port"),
            ("http://127.0.0.1:8080/", "write a port"),
            ("65536", "65535"),
            ("127.0.0.1:99999", "65535"),
            ("*:80", "0.0.0.0:80"),
            ("::1:8080", "[::1]:8080"),
            ("shop.example:80", "`shop.example` is a name"),
            ("1.2.3:80", "`1.2.3` is a name"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn admin_is_beside_the_gateway() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (admin, listen, expected) in [
            ("", "0.0.0.0:8080", Some("127.0.0.1:8081")),
            ("", "127.0.0.1:0", Some("127.0.0.1:0")),
            ("", "127.0.0.1:65535", Some("127.0.0.1:0")),
            ("off", "127.0.0.1:8080", None),
            ("9000", "127.0.0.1:8080", Some("127.0.0.1:9000")),
        ] {
            let admin = if admin.is_empty() { Admin::Beside } else { Admin::parse(admin).unwrap() };
            assert_eq!(admin.address(at(listen)), expected.map(at), "{admin:?} {listen}");
        }
    }
}
