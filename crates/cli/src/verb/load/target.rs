//! Where the load goes: the lethe that runs, or an address that was given. Nothing else is ever asked.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, bail, ensure};
use lethe_admin::client::Client;
use lethe_journey::destination::Destination;

use crate::{arguments::Target, running};

/// Where the load goes.
pub(super) struct Place {
    /// As a report names it.
    pub(super) name: String,
    pub(super) destination: Destination,
    /// What is sent as `Host` unless something else is said.
    pub(super) host: String,
    /// The control of the lethe whose workers these are.
    pub(super) client: Option<Client>,
}

impl Place {
    /// The place of `url`, or that of the lethe that `target` means.
    pub(super) fn find(url: Option<&str>, target: &Target) -> anyhow::Result<Self> {
        let Some(url) = url else { return Self::running(target) };
        let rest = url.strip_prefix("http://").with_context(|| {
            format!("{url} cannot be asked: write an address such as http://127.0.0.1:3000, without TLS")
        })?;
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        ensure!(
            rest.trim_end_matches('/') == host && !host.is_empty(),
            "{url} has more than a host and a port: write the path with --path, or in a journey"
        );
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if has_port { host.to_owned() } else { format!("{host}:80") };
        let address = address.to_socket_addrs().with_context(|| format!("{host} has no address"))?.next();
        let address = address.with_context(|| format!("{host} has no address"))?;
        Ok(Self { name: url.into(), destination: Destination::tcp(address), host: host.into(), client: None })
    }

    fn running(target: &Target) -> anyhow::Result<Self> {
        let client = running::with(target, async |client| Ok(client))?;
        let node = running::node(target)?;
        if node.tls == Some(node.listen) {
            bail!(
                "{} speaks TLS alone; make load on a lethe that also listens without, as lethe up --listen 127.0.0.1:8080",
                node.listen
            );
        }
        let address = here(node.listen);
        Ok(Self {
            name: format!("http://{}", node.listen),
            destination: Destination::tcp(address),
            host: node.listen.to_string(),
            client: Some(client),
        })
    }
}

/// Where a listener on all addresses is reached from here.
fn here(listen: SocketAddr) -> SocketAddr {
    let ip = match listen {
        SocketAddr::V4(address) if address.ip().is_unspecified() => [127, 0, 0, 1].into(),
        SocketAddr::V6(address) if address.ip().is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        listen => listen.ip(),
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_they_are_typed() {
        let find = |url: &str| Place::find(Some(url), &Target::default());
        let place = find("http://127.0.0.1:3000/").unwrap();
        assert_eq!((place.host.as_str(), place.destination.name()), ("127.0.0.1:3000", "127.0.0.1:3000"));
        assert_eq!(find("http://127.0.0.1").unwrap().destination.name(), "127.0.0.1:80");
        for (url, said) in [
            ("https://127.0.0.1", "without TLS"),
            ("127.0.0.1:3000", "without TLS"),
            ("http://", "more than a host and a port"),
            ("http://127.0.0.1/a", "--path"),
            ("http://127.0.0.1:99999", "no address"),
        ] {
            let error = find(url).err().unwrap().to_string();
            assert!(error.contains(said), "{url}: {error}");
        }
        assert_eq!(here("0.0.0.0:80".parse().unwrap()).to_string(), "127.0.0.1:80");
        assert_eq!(here("[::]:80".parse().unwrap()).to_string(), "[::1]:80");
    }
}
